"""Templates: found where they were put, at the size and angle they were put at, and nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tabml.errors import FrameError, OptionError
from tabml.vision import Frame, TemplateMatcher, annotate


def overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    wide = min(a[2], b[2]) - max(a[0], b[0])
    high = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(0.0, wide) * max(0.0, high)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


@pytest.fixture(scope="module")
def photo(portrait: Path) -> Frame:
    return Frame.from_file(portrait)


def test_a_cut_out_piece_is_where_it_was(photo: Frame) -> None:
    matcher = TemplateMatcher(photo.crop(160, 120, 280, 220), threshold=0.9)
    found = matcher.match(photo)
    assert len(found) == 1
    assert found[0].box.to_pixels(photo.width, photo.height) == (160, 120, 280, 220)
    assert found[0].score > 0.999
    assert (found[0].scale, found[0].rotation) == (1, 0)
    assert (annotate(photo, found).pixels != photo.pixels).any()
    mirrored = Frame.from_array(np.ascontiguousarray(photo.to_rgb()[:, ::-1]))
    assert len(matcher.match(mirrored)) == 0
    assert [len(each) for _, each in matcher.match_stream([photo, mirrored])] == [1, 0]
    assert len(found.to_pandas()) == 1


def test_brightness_and_contrast_do_not_matter(photo: Frame) -> None:
    template = photo.crop(160, 120, 280, 220)
    dim = Frame.from_array((photo.to_rgb() * 0.5 + 40).astype(np.uint8))
    (found,) = TemplateMatcher(template, threshold=0.95).match(dim)
    assert found.box.to_pixels(photo.width, photo.height)[:2] == (160, 120)


@settings(max_examples=15)
@given(st.sampled_from([0.5, 0.75, 1.0, 1.5]), st.integers(0, 2**32 - 1))
def test_every_copy_is_found_at_its_size(photo: Frame, scale: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    template = photo.crop(150, 100, 230, 180)
    scene = cv2.GaussianBlur(random.integers(0, 256, (400, 600, 3), dtype=np.uint8), (0, 0), 3)
    side = round(80 * scale)
    copy = cv2.resize(template.to_rgb(), (side, side), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    places = [(int(random.integers(0, 180)), int(random.integers(0, 250))), (330, int(random.integers(0, 250)))]
    for x, y in places:
        scene[y : y + side, x : x + side] = copy
    found = TemplateMatcher(template, scales=(0.5, 0.75, 1.0, 1.5)).match(Frame.from_array(scene))
    assert len(found) >= 2  # and perhaps a small one in a large one
    for match in found[:2]:
        assert match.scale == scale
        assert max(overlap(match.box.to_pixels(600, 400), (x, y, x + side, y + side)) for x, y in places) > 0.95


@pytest.mark.parametrize("degrees", [-120, 30, 45, 90, 180])
def test_a_turned_template_is_found_at_its_angle(degrees: int, photo: Frame) -> None:
    template = photo.crop(150, 100, 250, 180)
    turned = np.asarray(template.to_pil().rotate(degrees, expand=True, resample=2))
    seen = np.asarray(template.to_pil().convert("L").point(lambda _: 255).rotate(degrees, expand=True)) > 0
    scene = np.full((400, 600, 3), 90, np.uint8)
    scene += np.random.default_rng(1).integers(0, 60, scene.shape, dtype=np.uint8)
    height, width = turned.shape[:2]
    part = scene[100 : 100 + height, 200 : 200 + width]
    part[seen] = turned[seen]
    matcher = TemplateMatcher(template, rotations=(-120, 0, 30, 45, 90, 180), threshold=0.7)
    found = matcher.match(Frame.from_array(scene))
    assert found[0].rotation == degrees
    assert overlap(found[0].box.to_pixels(600, 400), (200, 100, 200 + width, 100 + height)) > 0.9


def test_results_are_limited_and_do_not_overlap(photo: Frame) -> None:
    tile = photo.crop(150, 100, 190, 140).to_rgb()
    scene = Frame.from_array(np.tile(tile, (5, 6, 1)))
    matcher = TemplateMatcher(Frame.from_array(tile), min_suppression_threshold=0.1)
    assert len(matcher.match(scene)) == 30
    assert len(TemplateMatcher(Frame.from_array(tile), max_results=7).match(scene)) == 7


def test_plain_pictures_hold_nothing(photo: Frame) -> None:
    plain = Frame.from_array(np.full((200, 200, 3), 70, np.uint8))
    for rotations in ((0,), (30,)):
        assert len(TemplateMatcher(photo.crop(0, 0, 40, 40), rotations=rotations, threshold=0).match(plain)) == 0


@settings(max_examples=40)
@given(st.integers(4, 24), st.integers(4, 24), st.integers(1, 30), st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_any_sizes_give_scores_in_range_or_say_why(
    width: int, height: int, frame_width: int, frame_height: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    template = Frame.from_array(random.integers(0, 256, (height, width, 3), dtype=np.uint8))
    frame = Frame.from_array(random.integers(0, 256, (frame_height, frame_width, 3), dtype=np.uint8))
    matcher = TemplateMatcher(template, threshold=0.2, rotations=(0, 20), scales=(0.7, 1))
    try:
        found = matcher.match(frame)
    except FrameError as problem:
        assert "smaller than the template" in str(problem)
        assert frame_width < width or frame_height < height
    else:
        assert all(0.2 <= each.score <= 1 for each in found)
        assert all(each.box.x + each.box.width <= 1.0001 for each in found)


@pytest.mark.parametrize(
    ("said", "word"),
    [
        ({"scales": ()}, "scales="), ({"scales": (0,)}, "scales="), ({"scales": 2.0}, "scales="),
        ({"rotations": (float("nan"),)}, "rotations="), ({"threshold": 2}, "threshold=2"),
        ({"max_results": 0}, "max_results=0"), ({"scales": (1.0,) * 20, "rotations": (0.0,) * 20}, "400"),
    ],
)  # fmt: skip
def test_wrong_options_are_named(said: dict[str, Any], word: str, photo: Frame) -> None:
    with pytest.raises(OptionError, match=word):
        TemplateMatcher(photo.crop(0, 0, 40, 40), **said)


def test_templates_like_everything_are_refused(photo: Frame) -> None:
    for bad in (Frame.from_array(np.full((20, 20, 3), 9, np.uint8)), photo.crop(0, 0, 3, 40)):
        with pytest.raises(FrameError, match="template is"):
            TemplateMatcher(bad)
    with pytest.raises(FrameError, match="template must"):
        TemplateMatcher(np.zeros((9, 9)))  # type: ignore[arg-type]
    with pytest.raises(FrameError, match="frame must"):
        TemplateMatcher(photo.crop(0, 0, 40, 40)).match("x")  # type: ignore[arg-type]
