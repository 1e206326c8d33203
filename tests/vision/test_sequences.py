"""Labels of a clip: what is on, from when to when."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tabml.errors import CapacityError, FrameOrderError, OptionError
from tabml.vision.sequences import MediaSequence, SequenceLabel


def labels(values: list[float], **options: Any) -> list[tuple[int, int]]:
    clip = MediaSequence(**options)
    for number, value in enumerate(values):
        clip.add(number, {"x": value})
    return [(each.start_frame, each.end_frame) for each in clip.finish().labels]


def test_a_label_lasts_from_where_it_rises_to_where_it_falls() -> None:
    clip = MediaSequence()
    for number, (wave, jump) in enumerate([(0, 0), (0.4, 0), (0.8, 0), (0.6, 1), (0.2, 1), (0, 1), (0, 0)]):
        clip.add(10 * number, {"wave": wave, "jump": jump} if jump else {"wave": wave})
    found = clip.finish()
    assert found.labels == (
        SequenceLabel(label="wave", confidence=pytest.approx(0.6), start_frame=10, end_frame=30),  # type: ignore[arg-type]
        SequenceLabel(label="jump", confidence=1.0, start_frame=30, end_frame=50),
    )
    assert found.features == {"wave": pytest.approx(2 / 7), "jump": pytest.approx(3 / 7)}
    assert found.total_frames == 7
    assert found.labels[0].to_dict()["start_frame"] == 10


def test_short_ones_are_left_out_and_gaps_closed() -> None:
    assert labels([1, 1, 0, 0, 0]) == []
    assert labels([1, 1, 0, 0, 0], min_frames=2) == [(0, 1)]
    assert labels([1, 1, 0, 0, 1, 1]) == [(0, 5)]
    assert labels([1, 1, 1, 0, 0, 1, 1, 1], max_gap=1) == [(0, 2), (5, 7)]
    assert labels([0.4] * 9) == []
    assert labels([0.4, 0.4, 0.9, 0.4]) == [(0, 3)]


@settings(max_examples=100)
@given(st.lists(st.floats(-1, 2), max_size=60), st.integers(1, 5), st.integers(0, 5))
def test_what_holds_for_any_series(values: list[float], shortest: int, gap: int) -> None:
    spans = labels(values, min_frames=shortest, max_gap=gap)
    series = np.array(values)
    for start, end in spans:
        assert end - start + 1 >= shortest
        assert (series[start : end + 1] >= 0.5).any()
        assert series[start] >= 0.35
        assert series[end] >= 0.35
    for (_, end), (start, _) in itertools.pairwise(spans):
        assert start - end > gap


def test_bad_frames_are_named_and_leave_nothing() -> None:
    clip = MediaSequence()
    clip.add(5, {"x": 1})
    with pytest.raises(FrameOrderError, match="frame_number=5"):
        clip.add(5, {"x": 1})
    for features in ({"": 1.0}, {"x" * 201: 1.0}, {"x": math.nan}, {"x": "1"}):
        with pytest.raises(OptionError, match="features:"):
            clip.add(6, features)  # type: ignore[arg-type]
    with pytest.raises(CapacityError, match="1000 names"):
        clip.add(6, {str(number): 1.0 for number in range(1001)})
    with pytest.raises(OptionError, match="frame_number="):
        clip.add("7", {})  # type: ignore[arg-type]
    assert clip.finish().total_frames == 1
    for wrong in ({"threshold": 2}, {"release": 0.9}, {"min_frames": 0}, {"max_gap": -1}):
        with pytest.raises(OptionError, match=next(iter(wrong))):
            MediaSequence(**wrong)  # type: ignore[arg-type]
