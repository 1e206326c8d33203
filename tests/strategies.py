"""Hypothesis strategies for pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp


def pixels(channels: int | None = 3, *, most: int = 24, even: bool = False) -> st.SearchStrategy[Any]:
    """uint8 arrays of shape (height, width, channels), or (height, width) when None."""
    side = st.integers(1, most // 2).map(lambda half: half * 2) if even else st.integers(1, most)
    tail = () if channels is None else (channels,)
    return st.tuples(side, side).flatmap(lambda hw: hnp.arrays(np.uint8, (*hw, *tail)))
