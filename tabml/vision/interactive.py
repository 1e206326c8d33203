"""Masks of what somebody points at: a click, a few points along a stroke, or a box."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from tabml.errors import FrameError, OptionError
from tabml.files import FileProvider
from tabml.vision._model import ModelSource, Task
from tabml.vision.frame import Frame
from tabml.vision.masks import MaskModel
from tabml.vision.results import Box, Segmentation

if TYPE_CHECKING:
    from tabml.vision._graphs.interactive import InteractiveGraph

Point = tuple[float, float]
"""x and y as shares of the picture, 0 to 1."""
_MOST_POINTS = 10_000


class InteractiveSegmenter(MaskModel):
    """Cuts out what is pointed at, whatever it is.

    The default is MediaPipe's MagicTouch (model card, 2023), which comes from Google's server alone: on a closed network
    ``load`` says that it isn't there. Any segmenter with TFLite metadata that MediaPipe's interactive task takes will do:
    one picture of four channels in, the fourth marking the places. Keeps nothing between calls.
    """

    _one = "object"

    def __init__(
        self,
        *,
        kind: Literal["confidence", "category"] = "confidence",
        size: Literal["frame", "model"] = "frame",
        threads: int | None = None,
        model: ModelSource = "magic_touch",
        files: FileProvider | None = None,
    ) -> None:
        """Check the options; nothing is loaded yet.

        Args:
            kind: ``"confidence"`` gives float32 from 0 to 1, how surely a pixel is of what is meant;
                ``"category"`` gives uint8, 1 where it is and 0 where it isn't.
            size: ``"frame"`` gives masks as large as the frames, ``"model"`` as the model makes them.
            threads: How many threads share one call, 1 to 64; every core (at most 8) when None.
            model: Which model.
            files: Where model files come from; the default provider when None.

        Raises:
            OptionError: an option is outside its range.
        """
        super().__init__(kind=kind, classes=(), size=size, threads=threads, model=model, files=files)

    def segment(
        self, frame: Frame, *, keypoint: Point | None = None, scribble: Sequence[Point] = (), box: Box | None = None
    ) -> Segmentation:
        """The mask of what is meant in one frame. Exactly one of the three says what that is.

        Args:
            frame: The picture.
            keypoint: A place on it.
            scribble: Several places on it, at most 10,000. Each is marked, nothing between them.
            box: What is in the middle of this box, and nothing outside of it. MediaPipe has no such prompt: the middle is
                marked, and the mask is cut.

        Raises:
            OptionError: none or several of the three are given, or a place is not in the picture.
            FrameError: ``frame`` is not a usable picture.
            ModelClosedError: the model is closed.
            InferenceError: the native library failed; the next frame is answered.
        """
        points = _places(keypoint, scribble, box)
        if not isinstance(frame, Frame):
            raise FrameError(
                f"frame must be a Frame, not {type(frame).__name__}; "
                "use Frame.from_array, Frame.from_file or Frame.from_bytes"
            )
        pixels = frame.to_rgb()
        graph = cast("InteractiveGraph", self._ready())
        found = graph.run(pixels, lambda native: self._read(native, frame), points=points)
        mask = found.mask if box is None else _inside(found.mask, box)
        return replace(found, mask=mask, prompt=points)

    async def segment_async(
        self, frame: Frame, *, keypoint: Point | None = None, scribble: Sequence[Point] = (), box: Box | None = None
    ) -> Segmentation:
        """:meth:`segment` in a thread."""
        return await asyncio.to_thread(self.segment, frame, keypoint=keypoint, scribble=scribble, box=box)

    def _build(self, model: bytes | memoryview) -> Task:
        from tabml.vision._graphs.interactive import InteractiveGraph

        graph = InteractiveGraph(model, threads=self._threads)
        self._name(graph.labels or (("background", self._one) if graph.classes == 2 else ()), graph.classes)
        return graph

    def _wanted(self, confidences: Any) -> NDArray[np.float32]:
        if confidences.shape[2] == 1:
            return super()._wanted(confidences)
        mask: NDArray[np.float32] = np.minimum(confidences[:, :, 1:].sum(axis=2), np.float32(1))
        return mask


def _places(keypoint: Point | None, scribble: Sequence[Point], box: Box | None) -> tuple[Point, ...]:
    """The places that are marked.

    Raises:
        OptionError: as :meth:`InteractiveSegmenter.segment`.
    """
    if (keypoint is not None) + bool(len(scribble)) + (box is not None) != 1:
        raise OptionError("exactly one of keypoint, scribble and box must say what is meant")
    if box is not None:
        if not isinstance(box, Box) or not (box.width > 0 and box.height > 0):
            raise OptionError(f"box={box!r:.200} must be a tabml.vision.Box that is wider and higher than 0")
        return (_place("the middle of box", (box.x + box.width / 2, box.y + box.height / 2)),)
    if keypoint is not None:
        return (_place("keypoint", keypoint),)
    if len(scribble) > _MOST_POINTS:
        raise OptionError(f"scribble has {len(scribble)} points; {_MOST_POINTS} are the most")
    return tuple(_place(f"scribble[{at}]", point) for at, point in enumerate(scribble))


def _place(name: str, point: Any) -> Point:
    try:
        x, y = (float(each) for each in point)
    except (TypeError, ValueError):
        raise OptionError(f"{name}={point!r:.80} must be two numbers, x and y") from None
    if not (0 <= x <= 1 and 0 <= y <= 1):
        raise OptionError(f"{name}={(x, y)} must be shares of the picture, from 0 to 1")
    return x, y


def _inside(mask: NDArray[Any], box: Box) -> NDArray[Any]:
    """The mask where the box is, and 0 elsewhere."""
    height, width = mask.shape
    left, top, right, bottom = box.to_pixels(width, height)
    part = slice(max(0, top), max(0, bottom)), slice(max(0, left), max(0, right))
    cut = np.zeros_like(mask)
    cut[part] = mask[part]
    cut.flags.writeable = False
    return cut
