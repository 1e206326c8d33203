"""Whole pictures: which class they are, and how alike they are."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Sequence
from typing import Any, Literal

import numpy as np

from tabml.errors import ModelLoadError, OptionError
from tabml.files import FileProvider
from tabml.vision._model import ModelSource, Task, VisionModel, count, names, one_of, ratio, thread_count
from tabml.vision.frame import Frame
from tabml.vision.results import Categories, Category, PictureEmbedding
from tabml.vision.results.found import frozen


class ImageClassifier(VisionModel[Categories]):
    """Says which of the 1000 classes of ImageNet (ILSVRC 2012) a picture is, or of another model's.

    The default is EfficientNet-Lite0 (Tan and Le, 2019, arXiv:1905.11946) with 8-bit weights;
    ``efficientnet_lite0_float32`` is a little more accurate, and larger. Any classifier with TFLite metadata will do.
    Keeps nothing between frames.
    """

    def __init__(
        self,
        *,
        max_results: int = 5,
        score_threshold: float = 0.0,
        category_allowlist: Sequence[str] = (),
        category_denylist: Sequence[str] = (),
        threads: int | None = None,
        model: ModelSource = "efficientnet_lite0",
        files: FileProvider | None = None,
    ) -> None:
        """Check the options; nothing is loaded yet.

        Args:
            max_results: The most classes to give, 1 to 100.
            score_threshold: Classes that score less are left out, 0 to 1.
            category_allowlist: Only these classes; all when empty.
            category_denylist: Not these classes.
            threads: How many threads share one call, 1 to 64; every core (at most 8) when None. A server of
                many streams takes 1.
            model: Which model.
            files: Where model files come from; the default provider when None.

        Raises:
            OptionError: an option is outside its range, or both lists are given.
        """
        self._most = count("max_results", max_results)
        self._score = ratio("score_threshold", score_threshold)
        self._allow = names("category_allowlist", category_allowlist)
        self._deny = names("category_denylist", category_denylist)
        if self._allow and self._deny:
            raise OptionError("category_allowlist and category_denylist can't both be given; use one of them")
        self._threads = thread_count("threads", threads)
        self._labels: tuple[str, ...] = ()
        self._kept = np.zeros(0, np.intp)
        super().__init__(model=model, files=files)

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the classes; loads the model."""
        self.load()
        return self._labels

    def classify(self, frame: Frame) -> Categories:
        """The classes of one frame, the likeliest first.

        Raises:
            FrameError: ``frame`` is not a usable picture.
            ModelClosedError: the model is closed.
            InferenceError: the native library failed; the next frame is answered.
        """
        return self._call(frame)

    async def classify_async(self, frame: Frame) -> Categories:
        """:meth:`classify` in a thread."""
        return await self._call_async(frame)

    def classify_stream(self, frames: Iterable[Frame]) -> Iterator[tuple[Frame, Categories]]:
        """Each frame with its classes, lazily; closes ``frames`` however it ends."""
        return self._stream(frames)

    def classify_stream_async(self, frames: AsyncIterable[Frame]) -> AsyncIterator[tuple[Frame, Categories]]:
        """Each frame with its classes, lazily; closes ``frames`` however it ends."""
        return self._stream_async(frames)

    def _build(self, model: bytes | memoryview) -> Task:
        from tabml.vision._graphs.pictures import VectorGraph

        graph = VectorGraph(model, threads=self._threads)
        labels = graph.labels or tuple(map(str, range(graph.size)))
        if len(labels) != graph.size:
            graph.close()
            raise ModelLoadError(f"model={self._source!r} has {graph.size} scores and {len(labels)} names of classes")
        for option, wanted in (("category_allowlist", self._allow), ("category_denylist", self._deny)):
            strange = sorted(set(wanted) - set(labels))
            if strange:
                graph.close()
                raise OptionError(
                    f"{option}: {strange[0]!r:.80} is none of the model's {len(labels)} classes; see .labels"
                )
        self._labels = labels
        self._kept = np.array(
            [
                at
                for at, name in enumerate(labels)
                if name not in self._deny and (not self._allow or name in self._allow)
            ],
            np.intp,
        )
        return graph

    def _read(self, native: Any, frame: Frame) -> Categories:
        scores = native[self._kept]
        order = np.argsort(-scores, kind="stable")[: self._most]
        return Categories(
            items=tuple(
                Category(label=self._labels[index], score=score, index=index)
                for index, score in zip(self._kept[order].tolist(), scores[order].tolist(), strict=True)
                if score >= self._score
            ),
            width=frame.width,
            height=frame.height,
            timestamp_ms=frame.timestamp_ms,
            frame_number=frame.frame_number,
        )


class ImageEmbedder(VisionModel[PictureEmbedding]):
    """Makes a vector of a picture; vectors are near each other where pictures show the like.

    The default gives the 1280 features that EfficientNet-Lite0 (Tan and Le, 2019, arXiv:1905.11946) sees before it
    names classes. Any model with TFLite metadata and one vector as its output will do. Keeps nothing between frames.
    """

    def __init__(
        self,
        *,
        l2_normalize: bool = True,
        layer: Literal["auto", "features", "output"] = "auto",
        threads: int | None = None,
        model: ModelSource = "efficientnet_lite0_float32",
        files: FileProvider | None = None,
    ) -> None:
        """Check the options; nothing is loaded yet.

        Args:
            l2_normalize: Whether vectors are scaled to length 1.
            layer: ``"output"`` is what the model answers; ``"features"`` what its last fully connected layer is given;
                ``"auto"`` the features of a model with names of classes, the output of others.
            threads: How many threads share one call, 1 to 64; every core (at most 8) when None. A server of
                many streams takes 1.
            model: Which model.
            files: Where model files come from; the default provider when None.

        Raises:
            OptionError: an option is outside its range.
        """
        one_of("layer", layer, ("auto", "features", "output"))
        self._features = None if layer == "auto" else layer == "features"
        self._normalize = bool(l2_normalize)
        self._threads = thread_count("threads", threads)
        super().__init__(model=model, files=files)

    def embed(self, frame: Frame) -> PictureEmbedding:
        """The vector of one frame.

        Raises:
            FrameError: ``frame`` is not a usable picture.
            ModelClosedError: the model is closed.
            InferenceError: the native library failed; the next frame is answered.
        """
        return self._call(frame)

    async def embed_async(self, frame: Frame) -> PictureEmbedding:
        """:meth:`embed` in a thread."""
        return await self._call_async(frame)

    def embed_stream(self, frames: Iterable[Frame]) -> Iterator[tuple[Frame, PictureEmbedding]]:
        """Each frame with its vector, lazily; closes ``frames`` however it ends."""
        return self._stream(frames)

    def embed_stream_async(self, frames: AsyncIterable[Frame]) -> AsyncIterator[tuple[Frame, PictureEmbedding]]:
        """Each frame with its vector, lazily; closes ``frames`` however it ends."""
        return self._stream_async(frames)

    def _build(self, model: bytes | memoryview) -> Task:
        from tabml.vision._graphs.pictures import VectorGraph

        return VectorGraph(model, threads=self._threads, features=self._features)

    def _read(self, native: Any, frame: Frame) -> PictureEmbedding:
        length = float(np.linalg.norm(native)) if self._normalize else 1.0
        return PictureEmbedding(
            vector=frozen(native / np.float32(length) if length else native),
            width=frame.width,
            height=frame.height,
            timestamp_ms=frame.timestamp_ms,
            frame_number=frame.frame_number,
        )
