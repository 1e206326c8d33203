"""What masks are good for: a blurred or another background, a person cut out; with edges that follow the picture."""

from __future__ import annotations

from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from tabml.errors import FrameError, OptionError
from tabml.vision.frame import Frame, PixelFormat
from tabml.vision.results import Segmentation

Colour = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""

_EDGE = 0.008
"""Radius of the guided filter, as a part of the longer side."""
_CONTRAST = 1e-4
"""Variance of the grey picture (0 to 1) below which the guided filter sees no edge."""
_FAINT = 0.15
"""What is less sure than this after the guided filter is its halo: nothing. As sure on the other side: whole."""
_SMALL = 160
"""Pixels of the longer side at which a background is blurred, where it is blurred much."""


def alpha(frame: Frame, mask: Segmentation, *, refine: bool = True) -> NDArray[np.float32]:
    """How much of each pixel is not background.

    The edges follow those of the picture by the fast guided filter (He, Sun and Tang, *Guided Image Filtering*, TPAMI
    2013; He and Sun, arXiv:1505.00996), with the grey picture as its guide.

    Args:
        frame: The picture.
        mask: Its mask, of any size.
        refine: False leaves the edges as the model made them.

    Returns:
        Shape (height, width), float32, 0 to 1.

    Raises:
        FrameError: ``frame`` is not a frame.
        OptionError: ``mask`` is not a mask.
    """
    if not isinstance(frame, Frame):
        raise FrameError(f"frame must be a Frame, not {type(frame).__name__}")
    if not isinstance(mask, Segmentation):
        raise OptionError(f"mask must be a Segmentation, such as Segmenter.segment gives, not {type(mask).__name__}")
    rough = mask.mask if mask.kind == "confidence" else mask.selected()
    size = frame.width, frame.height
    whole = cv2.resize(np.asarray(rough, np.float32), size, interpolation=cv2.INTER_LINEAR)
    if not refine:
        return np.asarray(whole, np.float32)
    grey = cv2.cvtColor(frame.to_rgb(), cv2.COLOR_RGB2GRAY).astype(np.float32) / np.float32(255)
    radius = max(2, round(_EDGE * max(size)))
    guided = cv2.ximgproc.guidedFilter(grey, whole, radius, _CONTRAST, scale=0.5 if min(size) >= 8 else 1.0)
    firm = (guided - np.float32(_FAINT)) * np.float32(1 / (1 - 2 * _FAINT))
    return np.asarray(np.clip(firm, 0, 1, out=firm), np.float32)


def blur_background(frame: Frame, mask: Segmentation, *, strength: float = 0.02, refine: bool = True) -> Frame:
    """The frame with everything but the foreground out of focus.

    The foreground doesn't shine into the background: each blurred pixel is the mean of background alone.

    Args:
        frame: The picture.
        mask: What stays sharp.
        strength: The blur's standard deviation as a part of the longer side, above 0, at most 0.2.
        refine: Whether edges follow the picture's own; see :func:`alpha`.

    Raises:
        FrameError: ``frame`` is not a frame.
        OptionError: ``mask`` or ``strength`` is not usable.
    """
    if isinstance(strength, bool) or not isinstance(strength, int | float) or not 0 < strength <= 0.2:
        raise OptionError(f"strength={strength!r} must be a number above 0, at most 0.2")
    foreground = alpha(frame, mask, refine=refine)
    pixels = frame.to_rgb()
    size, longer = (frame.width, frame.height), max(frame.width, frame.height)
    small = min(1.0, _SMALL / longer * max(1.0, 0.02 / strength))
    sides = tuple(max(1, round(side * small)) for side in size)
    deviation = strength * longer * small
    share = cv2.resize(1 - foreground, sides, interpolation=cv2.INTER_AREA)[:, :, None] + np.float32(1e-3)
    seen = cv2.resize(pixels, sides, interpolation=cv2.INTER_AREA) * share
    blurred = _gaussian(seen, deviation) / _gaussian(share, deviation).reshape(share.shape)
    far = cv2.resize(cv2.convertScaleAbs(blurred), size, interpolation=cv2.INTER_LINEAR)
    return _like(frame, cv2.blendLinear(pixels, far, foreground, 1 - foreground))


def replace_background(frame: Frame, mask: Segmentation, background: Frame | Colour, *, refine: bool = True) -> Frame:
    """The frame's foreground before another background.

    Args:
        frame: The picture.
        mask: What stays.
        background: A colour, or a picture, which fills the frame and loses what is too wide or too high. For a
            video, give each frame's picture.
        refine: Whether edges follow the picture's own, without the old background's colours; see :func:`cut_out`.

    Raises:
        FrameError: ``frame`` is not a frame.
        OptionError: ``mask`` or ``background`` is not usable.
    """
    foreground = alpha(frame, mask, refine=refine)
    behind = _background(background, frame.width, frame.height)
    pixels = _own_colours(frame.to_rgb(), foreground) if refine else frame.to_rgb()
    return _like(frame, cv2.blendLinear(pixels, behind, foreground, 1 - foreground))


def cut_out(frame: Frame, mask: Segmentation, *, refine: bool = True) -> Frame:
    """The foreground alone: an rgba frame, transparent where the background was.

    Args:
        frame: The picture.
        mask: What stays.
        refine: Whether edges follow the picture's own, and half-transparent pixels get the foreground's colours
            (Forte, *Approximate Fast Foreground Colour Estimation*, ICIP 2021) instead of a mixture with the
            background's.

    Raises:
        FrameError: ``frame`` is not a frame.
        OptionError: ``mask`` is not a mask.
    """
    foreground = alpha(frame, mask, refine=refine)
    pixels = _own_colours(frame.to_rgb(), foreground) if refine else frame.to_rgb()
    opacity = cv2.convertScaleAbs(foreground, alpha=255)
    return _like(frame, cv2.merge([*cv2.split(pixels), opacity]), "rgba")


class MaskSmoother:
    """Masks of one video that don't flicker: unsure pixels keep what they were, sure ones change at once.

    The rule of MediaPipe's ``SegmentationSmoothingCalculator``: new + (old - new) · uncertainty · ratio, the uncertainty
    being the square of the new confidence's entropy in bits. A mask of another size, or after a pause, begins anew.
    """

    def __init__(self, ratio: float = 0.7, *, longest_pause_ms: int = 500) -> None:
        """Nothing is remembered yet.

        Args:
            ratio: How much of the mask before an entirely unsure pixel keeps, 0 to 1.
            longest_pause_ms: Milliseconds between frames after which a mask begins anew.

        Raises:
            OptionError: an option is outside its range.
        """
        if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0 <= ratio <= 1:
            raise OptionError(f"ratio={ratio!r} must be a number from 0 to 1")
        if isinstance(longest_pause_ms, bool) or not isinstance(longest_pause_ms, int) or longest_pause_ms < 1:
            raise OptionError(f"longest_pause_ms={longest_pause_ms!r} must be a whole number of milliseconds above 0")
        self._ratio, self._pause = float(ratio), longest_pause_ms
        self._last: Segmentation | None = None

    def smooth(self, mask: Segmentation) -> Segmentation:
        """The next frame's mask, steadied.

        Raises:
            OptionError: it is no mask of confidences.
        """
        if not isinstance(mask, Segmentation) or mask.kind != "confidence":
            raise OptionError("mask must be a Segmentation of kind='confidence'; classes can't be half of each")
        last, steady = self._last, mask
        if last is not None and last.mask.shape == mask.mask.shape and self._follows(last, mask):
            new = np.asarray(mask.mask, np.float32)
            kept = _uncertainty(new) * np.float32(self._ratio)
            smoothed = new + (last.mask - new) * kept
            smoothed.flags.writeable = False
            steady = Segmentation(
                mask=np.asarray(smoothed, np.float32),
                kind=mask.kind,
                labels=mask.labels,
                timestamp_ms=mask.timestamp_ms,
                frame_number=mask.frame_number,
            )
        self._last = steady
        return steady

    def _follows(self, last: Segmentation, mask: Segmentation) -> bool:
        if last.timestamp_ms is None or mask.timestamp_ms is None:
            return True
        return 0 <= mask.timestamp_ms - last.timestamp_ms <= self._pause


def _uncertainty(confidence: NDArray[np.float32]) -> NDArray[np.float32]:
    """The entropy of a yes or no in bits, squared: 1 for 0.5, 0 for 0 and 1."""
    tiny = np.float32(1e-7)
    yes = np.clip(confidence, tiny, 1 - tiny)
    no = 1 - yes
    nats = yes * cv2.log(yes) + no * cv2.log(no)
    return np.asarray(np.square(nats / np.float32(np.log(2))), np.float32)


def _gaussian(pixels: Any, deviation: float) -> NDArray[np.float32]:
    return np.asarray(cv2.GaussianBlur(pixels, (0, 0), deviation, borderType=cv2.BORDER_REPLICATE), np.float32)


def _own_colours(pixels: NDArray[np.uint8], foreground: NDArray[np.float32]) -> NDArray[np.uint8]:
    """What the foreground's colour is in pixels that show some of the background too."""
    edge = (foreground > 0.01) & (foreground < 0.99)
    if not edge.any():
        return pixels
    longer = max(pixels.shape[:2])
    radius = max(2, round(_EDGE * longer))
    left, top, wide, high = cv2.boundingRect(edge.view(np.uint8))
    rows = slice(max(0, top - radius), top + high + radius)
    columns = slice(max(0, left - radius), left + wide + radius)
    part, share = pixels[rows, columns].astype(np.float32), foreground[rows, columns, None]
    side = (2 * radius + 1, 2 * radius + 1)
    tiny = np.float32(1e-5)

    def mean(weights: NDArray[np.float32]) -> Any:
        return cv2.blur(part * weights, side) / (cv2.blur(weights, side)[:, :, None] + tiny)

    ours, theirs = mean(share), mean(1 - share)
    ours += share * (part - share * ours - (1 - share) * theirs)
    coloured = pixels.copy()
    np.copyto(coloured[rows, columns], np.clip(ours, 0, 255).astype(np.uint8), where=edge[rows, columns, None])
    return coloured


def _background(background: Frame | Colour, width: int, height: int) -> NDArray[np.uint8]:
    if isinstance(background, Frame):
        pixels = background.to_rgb()
        scale = max(width / background.width, height / background.height)
        wide, high = max(width, round(background.width * scale)), max(height, round(background.height * scale))
        way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        whole = cv2.resize(pixels, (wide, high), interpolation=way)
        left, top = (wide - width) // 2, (high - height) // 2
        return np.ascontiguousarray(whole[top : top + height, left : left + width], np.uint8)
    if (
        not isinstance(background, tuple)
        or len(background) != 3
        or not all(isinstance(each, int) and not isinstance(each, bool) and 0 <= each <= 255 for each in background)
    ):
        raise OptionError(f"background={background!r:.80} must be a Frame or a colour such as (0, 128, 0)")
    return np.full((height, width, 3), background, np.uint8)


def _like(frame: Frame, pixels: Any, format: PixelFormat = "rgb") -> Frame:
    return Frame(
        pixels=cast("NDArray[np.uint8]", np.asarray(pixels, np.uint8)),
        format=format,
        timestamp_ms=frame.timestamp_ms,
        frame_number=frame.frame_number,
    )
