"""Masks: which pixels are the person, or which class each pixel is."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tabml.files import FileProvider
from tabml.vision._model import ModelSource, VisionModel, one_of
from tabml.vision.frame import Frame
from tabml.vision.results import Segmentation

_PERSON = ("background", "person")


class Segmenter(VisionModel[Segmentation]):
    """Cuts the person out of the picture.

    The default is MediaPipe's selfie segmenter (model card, 2023): one person mask. ``deeplab_v3`` tells 21
    classes apart (PASCAL VOC). Keeps nothing between frames.
    """

    def __init__(
        self,
        *,
        kind: Literal["confidence", "category"] = "confidence",
        model: ModelSource = "selfie_segmenter",
        files: FileProvider | None = None,
    ) -> None:
        """Check the options; nothing is loaded yet.

        Args:
            kind: ``"confidence"`` gives float32 from 0 to 1, how surely a pixel is not background;
                ``"category"`` gives uint8 classes, 0 the background.
            model: Which model.
            files: Where model files come from; the default provider when None.

        Raises:
            OptionError: ``kind`` is neither.
        """
        one_of("kind", kind, ("confidence", "category"))
        self._kind = kind
        self._labels: tuple[str, ...] = ()
        super().__init__(model=model, files=files)

    def segment(self, frame: Frame) -> Segmentation:
        """The mask of one frame.

        Raises:
            FrameError: ``frame`` is not a usable picture.
            ModelClosedError: the model is closed.
            InferenceError: the native library failed; the next frame is answered.
        """
        return self._call(frame)

    async def segment_async(self, frame: Frame) -> Segmentation:
        """:meth:`segment` in a thread."""
        return await self._call_async(frame)

    def segment_stream(self, frames: Iterable[Frame]) -> Iterator[tuple[Frame, Segmentation]]:
        """Each frame with its mask, lazily; closes ``frames`` however it ends."""
        return self._stream(frames)

    def segment_stream_async(self, frames: AsyncIterable[Frame]) -> AsyncIterator[tuple[Frame, Segmentation]]:
        """Each frame with its mask, lazily; closes ``frames`` however it ends."""
        return self._stream_async(frames)

    def _build(self, model: bytes | memoryview) -> Any:
        from tabml.vision import _mediapipe as door

        options = door.ImageSegmenterOptions(display_names_locale=b"", output_confidence_masks=True)
        task = door.NativeTask(door.IMAGE_SEGMENTER, options, model, video=False)
        self._labels = task.labels()
        return task

    def _read(self, native: Any, frame: Frame) -> Segmentation:
        from tabml.vision import _mediapipe as door

        # Never MediaPipe's own category mask: it aborts the process on 1×1, and numbers the person of a
        # one-mask model 0 and the background 255.
        found = native.confidence_masks_count
        masks = (door.mask_pixels(native.confidence_masks[i], np.float32) for i in range(found))
        mask: NDArray[Any]
        if found == 1:
            person = next(masks)
            mask = person if self._kind == "confidence" else (person >= 0.5).astype(np.uint8)
        elif self._kind == "confidence":
            mask = 1 - next(masks)
        else:
            highest = next(masks).copy()
            mask = np.zeros(highest.shape, np.uint8)
            for index, layer in enumerate(masks, start=1):
                mask[layer > highest] = index
                np.maximum(highest, layer, out=highest)
        mask.flags.writeable = False
        return Segmentation(
            mask=mask,
            kind=self._kind,
            labels=_PERSON if found == 1 else self._labels or tuple(map(str, range(found))),
            timestamp_ms=frame.timestamp_ms,
            frame_number=frame.frame_number,
        )
