"""The last gate before pixels reach native code."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tabml.errors import FrameError, FrameTooLargeError

MAX_SIDE = 16_384
"""Pixels; MediaPipe aborts the process from 32,767 on, and OpenCV's 16-bit places end there."""


def check_pixels(pixels: NDArray[np.uint8]) -> None:
    """Let pass what is C-contiguous uint8 of shape (height, width, 3), not empty and not too large.

    Raises:
        FrameError: it is something else.
        FrameTooLargeError: a side is longer than :data:`MAX_SIDE`, or it has 2 GiB or more.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.flags.c_contiguous:
        raise FrameError(
            f"pixels must be C-contiguous uint8 of shape (height, width, 3), not {pixels.dtype} {pixels.shape}"
        )
    if not pixels.size:
        raise FrameError(f"the picture is empty: shape {pixels.shape}")
    if max(pixels.shape) > MAX_SIDE or pixels.size >= 2**31:
        height, width, _ = pixels.shape
        raise FrameTooLargeError(
            f"a picture of {width}×{height} is too large for the models; resize it to at most "
            f"{MAX_SIDE} pixels a side and 2 GiB"
        )
