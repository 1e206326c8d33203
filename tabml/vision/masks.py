"""Masks: which pixels are the person, or which class each pixel is."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tabml.errors import OptionError
from tabml.files import FileProvider
from tabml.vision._model import ModelSource, Task, VisionModel, names, one_of, thread_count
from tabml.vision.frame import Frame
from tabml.vision.results import Segmentation


class MaskModel(VisionModel[Segmentation]):
    """What segmenters share: the mask that is wanted, made of the model's confidences."""

    _one = "person"
    """What the only mask of a model without names is of."""

    def __init__(
        self,
        *,
        kind: Literal["confidence", "category"],
        classes: Sequence[str],
        size: Literal["frame", "model"],
        threads: int | None,
        model: ModelSource,
        files: FileProvider | None,
    ) -> None:
        one_of("kind", kind, ("confidence", "category"))
        one_of("size", size, ("frame", "model"))
        self._kind, self._size = kind, size
        self._classes = names("classes", classes)
        self._threads = thread_count("threads", threads)
        self._labels: tuple[str, ...] = ()
        self._single = False
        super().__init__(model=model, files=files)

    def _name(self, labels: tuple[str, ...], count: int) -> None:
        """Take the names of so many masks.

        Raises:
            OptionError: a class that is wanted is none of them.
        """
        self._single = count == 1
        self._labels = ("background", self._one) if self._single else labels or tuple(map(str, range(count)))
        strange = sorted(set(self._classes) - set(self._labels))
        if strange:
            raise OptionError(f"classes: {strange[0]!r:.80} is none of the model's: {', '.join(self._labels)[:2000]}")

    def _read(self, native: Any, frame: Frame) -> Segmentation:
        from tabml.vision._graphs.masks import enlarged, likeliest

        rows, columns, count = native.shape
        width, height = (columns, rows) if self._size == "model" else (frame.width, frame.height)
        mask: NDArray[Any]
        if self._kind == "category" and count > 1:
            mask = likeliest(native, width, height)
        else:
            mask = enlarged(self._wanted(native), width, height)
            if self._kind == "category":
                mask = (mask >= 0.5).view(np.uint8)
        mask.flags.writeable = False
        return Segmentation(
            mask=mask,
            kind=self._kind,
            labels=self._labels,
            timestamp_ms=frame.timestamp_ms,
            frame_number=frame.frame_number,
        )

    @property
    def _meant(self) -> tuple[int, ...]:
        """The numbers of the classes that are wanted, or of the background where that is what is not."""
        return tuple(map(self._labels.index, self._classes)) or (0,)

    def _wanted(self, confidences: Any) -> NDArray[np.float32]:
        """How surely each pixel of the model's own size is of a wanted class."""
        mask: NDArray[np.float32] = confidences[:, :, 0]
        if self._single:
            return 1 - mask if self._classes == ("background",) else mask
        return np.minimum(mask, np.float32(1)) if self._classes else 1 - mask


class Segmenter(MaskModel):
    """Cuts the person out of the picture.

    The default is MediaPipe's selfie segmenter (model card, 2023): one person mask. ``deeplab_v3`` tells 21
    classes apart (PASCAL VOC). Any segmenter with TFLite metadata that MediaPipe Tasks takes will do. Keeps nothing
    between frames.
    """

    def __init__(
        self,
        *,
        kind: Literal["confidence", "category"] = "confidence",
        classes: Sequence[str] = (),
        size: Literal["frame", "model"] = "frame",
        threads: int | None = None,
        model: ModelSource = "selfie_segmenter",
        files: FileProvider | None = None,
    ) -> None:
        """Check the options; nothing is loaded yet.

        Args:
            kind: ``"confidence"`` gives float32 from 0 to 1, how surely a pixel is not background;
                ``"category"`` gives uint8 classes, 0 the background.
            classes: For ``"confidence"``: names of the classes that are meant; everything but background when empty.
            size: ``"frame"`` gives masks as large as the frames, ``"model"`` as the model makes them, which is
                quicker.
            threads: How many threads share one call, 1 to 64; every core (at most 8) when None. A server of
                many streams takes 1.
            model: Which model.
            files: Where model files come from; the default provider when None.

        Raises:
            OptionError: an option is outside its range.
        """
        super().__init__(kind=kind, classes=classes, size=size, threads=threads, model=model, files=files)

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

    def _build(self, model: bytes | memoryview) -> Task:
        from tabml.vision._graphs.masks import SegmentGraph

        graph = SegmentGraph(model, threads=self._threads)
        try:
            self._name(graph.labels, graph.classes)
        except OptionError:
            graph.close()
            raise
        if self._kind == "confidence" and graph.classes > 1:
            graph.meant = self._meant
        return graph


class HairSegmenter(Segmenter):
    """Tells hair from everything else, by a model that has a class of that name.

    There is no default model: none is on the package index. MediaPipe's ``hair_segmenter`` and
    ``selfie_multiclass`` are such models. One without a class ``hair`` is refused when it loads: no other mask is ever
    passed off as hair.
    """

    def __init__(
        self,
        *,
        model: ModelSource,
        size: Literal["frame", "model"] = "frame",
        threads: int | None = None,
        files: FileProvider | None = None,
    ) -> None:
        """Check the options; nothing is loaded yet.

        Args:
            model: Which model.
            size: ``"frame"`` gives masks as large as the frames, ``"model"`` as the model makes them.
            threads: How many threads share one call, 1 to 64; every core (at most 8) when None.
            files: Where model files come from; the default provider when None.

        Raises:
            OptionError: an option is outside its range.
        """
        super().__init__(classes=("hair",), size=size, threads=threads, model=model, files=files)
