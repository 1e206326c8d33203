"""Where one shot of a video ends and another begins, by FFmpeg's ``scdet`` filter."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import cv2
import numpy as np

from tabml.errors import OptionError
from tabml.vision.frame import Frame
from tabml.vision.video import av_library

_WIDTH = 160
"""Frames are looked at this wide: cuts are seen as well, much quicker."""


class SceneCuts:
    """Tells of each frame of a video whether a new scene begins with it."""

    def __init__(self, *, threshold: float = 10.0) -> None:
        """Begin with the first frame.

        Args:
            threshold: How much a frame differs from the one before, beyond what the scene's movement does, above 0, at
                most 100; ``scdet``'s own default is 10.

        Raises:
            OptionError: ``threshold`` is outside its range.
        """
        if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 < threshold <= 100:
            raise OptionError(f"threshold={threshold!r} must be a number above 0, at most 100")
        self._threshold = float(threshold)
        self._av = av_library()
        self._graph: Any = None
        self._size = (0, 0)
        self._count = 0

    def begins(self, frame: Frame) -> bool:
        """Whether this frame, the next of the video, is the first of a scene."""
        pixels = frame.to_rgb()
        size = (_WIDTH, max(2, round(_WIDTH * frame.height / frame.width / 2) * 2))
        small = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
        first = self._graph is None or size != self._size
        if first:
            self._open(size)
        picture = self._av.VideoFrame.from_ndarray(small, format="rgb24")
        picture.pts, picture.time_base = self._count, Fraction(1, 30)
        self._count += 1
        self._graph.push(picture)
        told = self._graph.pull().metadata
        return first or "lavfi.scd.time" in told

    def _open(self, size: tuple[int, int]) -> None:
        graph = self._av.filter.Graph()
        source = graph.add_buffer(width=size[0], height=size[1], format="rgb24", time_base=Fraction(1, 30))
        planes = graph.add("format", "yuv420p")
        cuts = graph.add("scdet", f"threshold={self._threshold}")
        sink = graph.add("buffersink")
        graph.link_nodes(source, planes, cuts, sink).configure()
        self._graph, self._size, self._count = graph, size, 0
