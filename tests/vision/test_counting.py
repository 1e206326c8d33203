"""Repetitions: a bend and back, once each, whatever trembles."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabml.errors import OptionError
from tabml.vision.counting import RepCounter


def test_a_repetition_is_bent_and_back() -> None:
    counter = RepCounter()
    seen = [
        (counter.update(angle), counter.phase) for angle in (100, 170, 120, 80, 85, 95, None, 140, 151, 149, 160, 60)
    ]
    assert [count for count, _ in seen] == [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1]
    assert [phase for _, phase in seen][:4] == ["", "straight", "straight", "bent"]
    assert counter.phase == "bent"


@given(st.integers(0, 12), st.integers(8, 40), st.integers(0, 2**32 - 1))
def test_waves_are_counted_once_each_whatever_trembles(waves: int, frames: int, seed: int) -> None:
    noise = np.random.default_rng(seed).uniform(-9, 9, waves * frames + 1)
    counter = RepCounter()
    for at in range(waves * frames + 1):
        counter.update(120 + 48 * math.cos(2 * math.pi * at / frames) + float(noise[at]) * (at % frames != frames // 2))
    assert counter.count == waves


@pytest.mark.parametrize(
    "wrong", [{"bent": 0}, {"bent": 150}, {"straight": 181}, {"bent": float("nan")}, {"bent": True}]
)
def test_thresholds_out_of_order_are_named(wrong: dict[str, float]) -> None:
    with pytest.raises(OptionError, match="bent="):
        RepCounter(**wrong)
