"""Effects: what stays, what changes, and what holds for any picture and mask."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tabml.errors import FrameError, OptionError
from tabml.vision import Frame, Segmentation, Segmenter
from tabml.vision.effects import MaskSmoother, alpha, blur_background, cut_out, replace_background


def mask_of(values: Any, **more: Any) -> Segmentation:
    return Segmentation(mask=np.asarray(values, np.float32), kind="confidence", **more)


@pytest.fixture(scope="module")
def person(portrait: Path) -> tuple[Frame, Segmentation]:
    frame = Frame.from_file(portrait, timestamp_ms=40, frame_number=7)
    with Segmenter(size="model") as segmenter:
        return frame, segmenter.segment(frame)


def test_the_person_stays_and_the_background_changes(person: tuple[Frame, Segmentation]) -> None:
    frame, mask = person
    rough = alpha(frame, mask, refine=False)
    for changed in (
        blur_background(frame, mask),
        replace_background(frame, mask, (0, 0, 255)),
        replace_background(frame, mask, frame.resize(90, 30)),
    ):
        difference = np.abs(changed.to_rgb().astype(int) - frame.to_rgb()).mean(axis=2)
        assert difference[rough > 0.99].mean() < 1.5 < 5 < difference[rough < 0.05].mean()
        assert (changed.timestamp_ms, changed.frame_number) == (40, 7)
        assert changed.pixels.shape == frame.pixels.shape
    cut = cut_out(frame, mask)
    assert cut.format == "rgba"
    assert cut.pixels[rough > 0.99, 3].mean() > 250
    assert cut.pixels[rough < 0.01, 3].mean() < 5


@settings(max_examples=60)
@given(
    st.integers(1, 40), st.integers(1, 40), st.integers(1, 20), st.integers(1, 20), st.booleans(),
    st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_any_picture_and_mask_go_together(
    height: int, width: int, rows: int, columns: int, refine: bool, seed: int
) -> None:
    random = np.random.default_rng(seed)
    frame = Frame.from_array(random.integers(0, 256, (height, width, 3), dtype=np.uint8))
    mask = mask_of(random.random((rows, columns)))
    found = alpha(frame, mask, refine=refine)
    assert found.shape == (height, width)
    assert 0 <= found.min() <= found.max() <= 1
    for changed in (
        blur_background(frame, mask, refine=refine, strength=0.2),
        replace_background(frame, mask, (1, 2, 3), refine=refine),
        cut_out(frame, mask, refine=refine),
    ):
        assert (changed.width, changed.height) == (width, height)


@settings(max_examples=30)
@given(st.integers(0, 255), st.integers(0, 2**32 - 1))
def test_a_plain_picture_stays_plain(grey: int, seed: int) -> None:
    """Whatever the mask, a blurred background of one colour is that colour, and so is a person cut out of it."""
    frame = Frame.from_array(np.full((48, 64, 3), grey, np.uint8))
    mask = mask_of(np.random.default_rng(seed).random((16, 16)))
    for changed in (blur_background(frame, mask), cut_out(frame, mask), replace_background(frame, mask, (grey,) * 3)):
        assert np.abs(changed.pixels[..., :3].astype(int) - grey).max() <= 1


def test_whole_masks_leave_or_take_everything() -> None:
    frame = Frame.from_array(np.random.default_rng(1).integers(0, 256, (60, 80, 3), dtype=np.uint8))
    everything, nothing = mask_of(np.ones((8, 8))), mask_of(np.zeros((8, 8)))
    assert np.abs(replace_background(frame, everything, (9, 9, 9)).pixels.astype(int) - frame.pixels).max() <= 1
    assert (replace_background(frame, nothing, (9, 9, 9)).pixels == 9).all()
    assert (cut_out(frame, nothing).pixels[..., 3] == 0).all()
    assert (cut_out(frame, everything).pixels[..., 3] == 255).all()


def test_a_rough_edge_moves_to_the_pictures_own() -> None:
    picture = np.zeros((200, 300, 3), np.uint8)
    picture[:, 150:] = 220
    truth = (picture[..., 0] > 0).astype(np.float32)
    rough = np.clip((np.arange(300) - 148) / 9 + 0.5, 0, 1)[None].repeat(200, 0)
    frame, mask = Frame.from_array(picture), mask_of(rough)
    before = np.abs(alpha(frame, mask, refine=False) - truth).mean()
    assert np.abs(alpha(frame, mask) - truth).mean() < before * 0.8


def test_a_background_fills_the_frame_without_being_bent() -> None:
    circle = np.zeros((100, 400, 3), np.uint8)
    circle[:, 150:250] = 255
    frame = Frame.from_array(np.zeros((100, 100, 3), np.uint8))
    assert (replace_background(frame, mask_of(np.zeros((4, 4))), Frame.from_array(circle)).pixels == 255).all()


def test_a_category_mask_will_do() -> None:
    frame = Frame.from_array(np.full((4, 4, 3), 100, np.uint8))
    classes = np.zeros((4, 4), np.uint8)
    classes[:, 2:] = 3
    found = alpha(frame, Segmentation(mask=classes, kind="category"), refine=False)
    assert (found == (classes > 0)).all()


def test_steady_masks_flicker_less_and_follow_at_once(person: tuple[Frame, Segmentation]) -> None:
    random = np.random.default_rng(3)
    smoother, before, after = MaskSmoother(), [], []
    for _ in range(20):
        mask = mask_of(np.clip(person[1].mask + random.normal(0, 0.1, person[1].mask.shape), 0, 1))
        before.append(mask.mask)
        after.append(smoother.smooth(mask).mask)
    unsure = np.abs(np.asarray(person[1].mask) - 0.5) < 0.2
    assert unsure.sum() > 100
    assert np.std(after[5:], axis=0)[unsure].mean() < 0.8 * np.std(before[5:], axis=0)[unsure].mean()
    sure = mask_of(1 - (person[1].mask > 0.5))
    assert np.allclose(smoother.smooth(sure).mask, sure.mask, atol=1e-5)


@settings(max_examples=50)
@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_a_steadied_value_is_between_old_and_new(old: float, new: float, ratio: float) -> None:
    smoother = MaskSmoother(ratio)
    smoother.smooth(mask_of([[old]]))
    found = float(smoother.smooth(mask_of([[new]])).mask[0, 0])
    assert min(old, new) - 1e-6 <= found <= max(old, new) + 1e-6
    uncertain = 0.0 if new in (0, 1) else (new * np.log2(new) + (1 - new) * np.log2(1 - new)) ** 2
    assert found == pytest.approx(new + (old - new) * uncertain * ratio, abs=1e-4)


def test_a_pause_or_another_size_begins_anew() -> None:
    half = np.full((2, 2), 0.5)
    for second in (mask_of(half, timestamp_ms=1000), mask_of(half, timestamp_ms=-5), mask_of(np.full((3, 2), 0.5))):
        smoother = MaskSmoother()
        smoother.smooth(mask_of(np.ones((2, 2)), timestamp_ms=0))
        assert (smoother.smooth(second).mask == 0.5).all()


def bad_calls(frame: Any, mask: Any) -> list[Any]:
    return [
        (FrameError, lambda: alpha(np.zeros((4, 4, 3)), mask)),  # type: ignore[arg-type]
        (OptionError, lambda: cut_out(frame, np.zeros((4, 4)))),  # type: ignore[arg-type]
        (OptionError, lambda: blur_background(frame, mask, strength=0)),
        (OptionError, lambda: blur_background(frame, mask, strength=float("nan"))),
        (OptionError, lambda: replace_background(frame, mask, (1, 2))),  # type: ignore[arg-type]
        (OptionError, lambda: replace_background(frame, mask, (1, 2, 256))),
        (OptionError, lambda: replace_background(frame, mask, "green")),  # type: ignore[arg-type]
        (OptionError, lambda: MaskSmoother(1.5)),
        (OptionError, lambda: MaskSmoother(longest_pause_ms=0)),
        (OptionError, lambda: MaskSmoother().smooth(Segmentation(mask=np.zeros((2, 2), np.uint8), kind="category"))),
    ]


@pytest.mark.parametrize("at", range(10))
def test_bad_arguments_are_named(at: int) -> None:
    frame: NDArray[np.uint8] | Frame = Frame.from_array(np.zeros((4, 4, 3), np.uint8))
    kind, call = bad_calls(frame, mask_of(np.zeros((4, 4))))[at]
    with pytest.raises(kind, match=r"frame must|mask must|strength=|background=|ratio=|longest_pause_ms="):
        call()
