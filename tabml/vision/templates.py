"""A picture in a picture: where a frame looks like a template, at several sizes and angles."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tabml.errors import FrameError, MissingExtraError, OptionError
from tabml.vision._model import count, ratio
from tabml.vision.frame import Frame
from tabml.vision.results import Box, TemplateMatch, TemplateMatches

_LEAST_SIDE = 4
_LEAST_DEVIATION = 1.0
"""Of a template's grey values (0 to 255): a plainer one is like everything."""
_MOST_VARIANTS = 200
_MOST_CANDIDATES = 2000


def _opencv() -> Any:
    try:
        import cv2
    except ImportError:
        raise MissingExtraError("vision", "opencv-contrib-python") from None
    return cv2


@dataclass(frozen=True, slots=True, kw_only=True)
class _Variant:
    """The template at one size and angle."""

    pixels: NDArray[np.uint8]
    mask: NDArray[np.uint8] | None
    scale: float
    rotation: float


class TemplateMatcher:
    """Finds a template by the normalised correlation coefficient (OpenCV's ``TM_CCOEFF_NORMED``) of grey pixels.

    Brightness and contrast don't matter; size and angle do, so say which ones to try. Keeps nothing between frames, and
    may be used from several threads.
    """

    def __init__(
        self,
        template: Frame,
        *,
        threshold: float = 0.8,
        scales: Sequence[float] = (1.0,),
        rotations: Sequence[float] = (0.0,),
        max_results: int | None = None,
        min_suppression_threshold: float = 0.3,
    ) -> None:
        """Prepare the template.

        Args:
            template: What to look for, at least 4 pixels wide and high, not of one plain colour.
            threshold: Places that score less are left out, 0 to 1.
            scales: Sizes to try, times the template's, above 0, at most 16.
            rotations: Angles to try, degrees counter-clockwise.
            max_results: The most places to give, 1 to 100; all when None.
            min_suppression_threshold: Places that overlap a liker one more (intersection over union, 0 to 1) are left
                out.

        Raises:
            FrameError: ``template`` is not a usable template.
            OptionError: an option is outside its range.
        """
        if not isinstance(template, Frame):
            raise FrameError(f"template must be a Frame, not {type(template).__name__}")
        self._threshold = ratio("threshold", threshold)
        self._suppression = ratio("min_suppression_threshold", min_suppression_threshold)
        self._most = None if max_results is None else count("max_results", max_results)
        sizes = _numbers("scales", scales, above=0.0, most=16.0)
        angles = _numbers("rotations", rotations, above=-math.inf, most=math.inf)
        if len(sizes) * len(angles) > _MOST_VARIANTS:
            raise OptionError(f"scales times rotations are {len(sizes) * len(angles)}; {_MOST_VARIANTS} is the most")
        grey = _grey(template)
        if min(grey.shape) < _LEAST_SIDE or float(grey.std()) < _LEAST_DEVIATION:
            raise FrameError(
                f"template is {template.width}×{template.height} with a contrast of {float(grey.std()):.1f}; "
                f"{_LEAST_SIDE} pixels a side and a contrast of {_LEAST_DEVIATION:g} are the least"
            )
        self._variants = [_variant(grey, scale, angle) for scale in sizes for angle in angles]

    def match(self, frame: Frame) -> TemplateMatches:
        """The places of one frame that look like the template, the likest first.

        Raises:
            FrameError: ``frame`` is not a usable picture, or smaller than the template at every size.
        """
        cv2 = _opencv()
        if not isinstance(frame, Frame):
            raise FrameError(f"frame must be a Frame, not {type(frame).__name__}")
        grey = _grey(frame)
        fitting = [each for each in self._variants if _fits(each, grey)]
        if not fitting:
            raise FrameError(f"frame is {frame.width}×{frame.height}, smaller than the template at every size")
        found = [place for variant in fitting for place in self._places(grey, variant)]
        if found:
            boxes = np.array([(x, y, *each.pixels.shape[::-1]) for each, x, y, _ in found], np.float32)
            scores = np.array([score for *_, score in found], np.float32)
            kept = np.asarray(cv2.dnn.NMSBoxes(boxes, scores, 0.0, self._suppression), np.intp)[: self._most]
            found = [found[index] for index in kept.tolist()]
        return TemplateMatches(
            items=tuple(
                TemplateMatch(
                    box=Box(
                        x=x / frame.width,
                        y=y / frame.height,
                        width=variant.pixels.shape[1] / frame.width,
                        height=variant.pixels.shape[0] / frame.height,
                    ),
                    score=score,
                    scale=variant.scale,
                    rotation=variant.rotation,
                )
                for variant, x, y, score in found
            ),
            width=frame.width,
            height=frame.height,
            timestamp_ms=frame.timestamp_ms,
            frame_number=frame.frame_number,
        )

    def match_stream(self, frames: Iterable[Frame]) -> Iterator[tuple[Frame, TemplateMatches]]:
        """Each frame with its places, lazily; closes ``frames`` however it ends."""
        try:
            for frame in frames:
                yield frame, self.match(frame)
        finally:
            close = getattr(frames, "close", None)
            if close is not None:
                close()

    def _places(self, grey: NDArray[np.uint8], variant: _Variant) -> Iterator[tuple[_Variant, int, int, float]]:
        """Local maxima above the threshold: left, top, score."""
        cv2 = _opencv()
        scores = cv2.matchTemplate(grey, variant.pixels, cv2.TM_CCOEFF_NORMED, mask=variant.mask)
        scores = np.nan_to_num(scores, nan=0.0, posinf=0.0, neginf=0.0)
        scores[np.abs(scores) > 1.001] = 0.0  # plain regions: 0 / 0, nearly
        peaks = (scores >= max(self._threshold, 1e-6)) & (scores >= cv2.dilate(scores, np.ones((3, 3), np.uint8)))
        ys, xs = np.nonzero(peaks)
        if len(xs) > _MOST_CANDIDATES:
            best = np.argpartition(-scores[ys, xs], _MOST_CANDIDATES)[:_MOST_CANDIDATES]
            ys, xs = ys[best], xs[best]
        for x, y, score in zip(xs.tolist(), ys.tolist(), scores[ys, xs].tolist(), strict=True):
            yield variant, x, y, min(1.0, score)


def _fits(variant: _Variant, grey: NDArray[np.uint8]) -> bool:
    return all(small <= large for small, large in zip(variant.pixels.shape, grey.shape, strict=True))


def _numbers(name: str, values: Sequence[float], *, above: float, most: float) -> list[float]:
    good = isinstance(values, Sequence) and not isinstance(values, str) and len(values) > 0
    if not good or not all(
        isinstance(each, int | float) and not isinstance(each, bool) and math.isfinite(each) and above < each <= most
        for each in values
    ):
        raise OptionError(f"{name}={values!r:.80} must be numbers, such as (0.5, 1.0, 2.0)")
    return [float(each) for each in values]


def _grey(frame: Frame) -> NDArray[np.uint8]:
    cv2 = _opencv()
    return np.asarray(cv2.cvtColor(frame.to_rgb(), cv2.COLOR_RGB2GRAY), np.uint8)


def _variant(grey: NDArray[np.uint8], scale: float, rotation: float) -> _Variant:
    cv2 = _opencv()
    height, width = (max(_LEAST_SIDE, round(side * scale)) for side in grey.shape)
    if (height, width) != grey.shape:
        way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        grey = np.asarray(cv2.resize(grey, (width, height), interpolation=way), np.uint8)
    quarters, rest = divmod(rotation % 360, 90)
    if not rest:
        turned = np.ascontiguousarray(np.rot90(grey, int(quarters)))
        return _Variant(pixels=turned, mask=None, scale=scale, rotation=rotation)
    radians = math.radians(rotation)
    wide = math.ceil(abs(width * math.cos(radians)) + abs(height * math.sin(radians)))
    high = math.ceil(abs(width * math.sin(radians)) + abs(height * math.cos(radians)))
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), rotation, 1.0)
    turn[:, 2] += ((wide - width) / 2, (high - height) / 2)
    leaning = cv2.warpAffine(grey, turn, (wide, high), borderMode=cv2.BORDER_REPLICATE)
    inside = cv2.warpAffine(np.full_like(grey, 255), turn, (wide, high))
    mask = (inside == 255).astype(np.uint8)
    return _Variant(pixels=np.asarray(leaning, np.uint8), mask=mask, scale=scale, rotation=rotation)
