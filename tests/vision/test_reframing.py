"""Crops that follow: what the path may do, what it holds, and where a scene ends."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tabml.errors import FrameError, OptionError
from tabml.vision import FaceDetector, Frame, read_video
from tabml.vision.reframing import AutoFlip, Subject, Target, between, camera_path, crop_size, target
from tabml.vision.results import Box
from tabml.vision.scenes import SceneCuts


def at(middle: float, half: float = 0.05, weight: float = 1.0) -> Target:
    return Target(middle=middle, half=half, weight=weight)


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 0.5), st.floats(0, 5)), min_size=1, max_size=60),
    st.floats(0.05, 1),
    st.lists(st.floats(0, 1), max_size=5),
)
def test_the_crop_never_leaves_the_picture(
    rows: list[tuple[float, float, float]], extent: float, past: list[float]
) -> None:
    before = [min(max(each, extent / 2), 1 - extent / 2) for each in past]
    path = camera_path([at(*row) for row in rows], extent, before=before)
    assert path.shape == (len(rows),)
    assert (path >= extent / 2 - 1e-9).all()
    assert (path <= 1 - extent / 2 + 1e-9).all()


@given(st.floats(0.3, 0.7), st.integers(0, 2**32 - 1))
@settings(max_examples=20)
def test_a_subject_that_only_jitters_moves_nothing(middle: float, seed: int) -> None:
    jitter = np.random.default_rng(seed).normal(0, 0.01, 90)
    path = camera_path([at(middle + each) for each in jitter], 0.4)
    # For one jitter of a hundred a tiny step is the optimum: the largest of 400 was 0.0008, a twelfth of the jitter.
    assert np.ptp(path) < 0.0025
    assert abs(path[0] - middle) < 0.01


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1))
def test_the_path_rests_moves_evenly_or_speeds_up_evenly(seed: int) -> None:
    """The third differences are zero nearly everywhere: that is what an L1 optimum is."""
    random = np.random.default_rng(seed)
    walk = np.clip(0.5 + np.cumsum(random.normal(0, 0.02, 120)), 0, 1)
    path = camera_path([at(float(each)) for each in walk], 0.4)
    jerk = np.abs(np.diff(path, 3))
    assert (jerk > 1e-6).mean() < 0.35
    assert np.abs(np.diff(path, 2)).sum() < 0.1 * np.abs(np.diff(walk, 2)).sum()


def test_a_subject_that_walks_is_followed_and_kept_inside() -> None:
    walk = np.linspace(0.2, 0.8, 100)
    path = camera_path([at(float(each), 0.08) for each in walk], 0.3)
    assert np.abs(path - walk).max() < 0.15 - 0.08 + 1e-3
    assert np.abs(np.diff(path, 2)).max() < 1e-3


def test_windows_join_without_a_jolt() -> None:
    walk = np.clip(np.linspace(0.1, 0.9, 120) + 0.02 * np.sin(np.arange(120)), 0, 1)
    targets = [at(float(each)) for each in walk]
    whole: list[float] = []
    for start in range(0, 120, 30):
        whole += camera_path(targets[start : start + 30], 0.4, before=whole).tolist()
    at_joins = np.abs(np.diff(whole, 2))[[28, 29, 58, 59, 88, 89]]
    assert at_joins.max() < 0.004


@given(st.lists(st.tuples(st.floats(0, 0.9), st.floats(0.01, 0.3), st.floats(0.1, 5)), max_size=8), st.floats(0.1, 1))
def test_the_target_holds_as_much_as_any_crop(spans: list[tuple[float, float, float]], extent: float) -> None:
    subjects = [Subject(box=Box(x=x, y=0.0, width=w, height=1.0), weight=weight) for x, w, weight in spans]
    found = target(subjects, extent, horizontal=True)

    def held(low: float) -> float:
        return sum(
            each.weight
            for each in subjects
            if each.box.x >= low - 1e-6 and each.box.x + each.box.width <= low + extent + 1e-6
        )

    best = max((held(low) for low in np.linspace(-0.3, 1.2, 61)), default=0.0)
    if best:
        assert found.weight >= best - 1e-9
        assert found.half <= extent / 2 + 1e-5
    turned = [Subject(box=Box(x=0.0, y=s.box.x, width=1.0, height=s.box.width), weight=s.weight) for s in subjects]
    assert target(turned, extent, horizontal=False) == found


@given(st.integers(2, 5000), st.integers(2, 5000), st.floats(0.1, 10))
def test_crops_are_even_and_of_the_shape(width: int, height: int, aspect: float) -> None:
    wide, high = crop_size(width, height, aspect)
    assert wide % 2 == high % 2 == 0
    assert 2 <= wide <= max(2, width)
    assert 2 <= high <= max(2, height)
    if min(wide, high) > 100:
        assert wide / high == pytest.approx(aspect, rel=0.03)


def test_frames_between_searches_lie_between() -> None:
    found = between([at(0.2), None, None, at(0.8), None])
    assert [each.middle for each in found] == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8])
    assert between([None, None], at(0.3))[1].middle == 0.3
    assert between([None])[0].weight == 0


@pytest.fixture(scope="module")
def scenes(portrait: Path, pictures: Callable[[str], Path]) -> list[Frame]:
    """A face that moves from left to right over grey, then a film of a hand."""
    face = Frame.from_file(portrait).resize(240, 280).to_rgb()
    frames = []
    for number in range(30):
        pixels = np.full((360, 640, 3), 90, np.uint8)
        left = 10 + 12 * number
        pixels[40:320, left : left + 240] = face
        frames.append(Frame(pixels=pixels, format="rgb", timestamp_ms=40 * number, frame_number=number))
    with read_video(pictures("hand_test_video.mp4")) as video:
        for number in range(30, 50):
            hand = next(video).resize(640, 360)
            frames.append(Frame(pixels=hand.to_rgb(), format="rgb", timestamp_ms=40 * number, frame_number=number))
    return frames


def test_cuts_are_where_scenes_change(scenes: list[Frame]) -> None:
    cuts = SceneCuts()
    assert [number for number, frame in enumerate(scenes) if cuts.begins(frame)] == [0, 30]
    with pytest.raises(OptionError, match="threshold=0"):
        SceneCuts(threshold=0)


@pytest.mark.parametrize("lookahead", [12, 60])
def test_the_face_stays_in_the_crop(lookahead: int, scenes: list[Frame]) -> None:
    with AutoFlip("9:16", lookahead=lookahead) as flip, FaceDetector(range="full") as detector:
        cropped = list(flip.flip_stream(iter(scenes)))
        assert [(each.width, each.height) for each in cropped] == [(202, 360)] * 50
        assert [each.frame_number for each in cropped] == list(range(50))
        assert [each.timestamp_ms for each in cropped] == [40 * number for number in range(50)]
        for number in range(0, 30, 5):
            (face,) = detector.detect(cropped[number])
            assert face.box.x > 0.02
            assert face.box.x + face.box.width < 0.98


def test_frames_are_held_back_until_a_cut_or_the_lookahead(scenes: list[Frame]) -> None:
    with AutoFlip(lookahead=20) as flip:
        reframer = flip.reframer()
        out = [len(reframer.add(frame)) for frame in scenes]
        assert {number: count for number, count in enumerate(out) if count} == {20: 20, 30: 10}
        assert len(reframer.finish()) == 20
        assert reframer.finish() == []
        with pytest.raises(FrameError, match="resize it first"):
            reframer.add(scenes[0].resize(100, 100))


def test_the_frames_held_back_have_a_limit_in_bytes(scenes: list[Frame], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tabml.vision.reframing.MOST_HELD_BYTES", 4 * scenes[0].pixels.nbytes)
    with AutoFlip(lookahead=1000) as flip:
        reframer = flip.reframer()
        assert [len(reframer.add(frame)) for frame in scenes[:9]] == [0, 0, 0, 0, 4, 0, 0, 0, 4]


def test_a_wider_shape_crops_the_height(scenes: list[Frame]) -> None:
    with AutoFlip(2.35) as flip:
        (first, *_) = flip.flip_stream(scenes[:2])
    assert first.width == 640
    assert first.width / first.height == pytest.approx(2.35, rel=0.01)


@pytest.mark.parametrize("ratio", ["", "a:b", "1:0", 0, -1, 11, math.nan, True, None])
def test_shapes_that_are_none_are_named(ratio: object) -> None:
    with pytest.raises(OptionError, match="aspect_ratio="):
        AutoFlip(ratio)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="lookahead=0"):
        AutoFlip(lookahead=0)
