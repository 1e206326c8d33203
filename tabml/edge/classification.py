"""Classifiers and embedders out of any .tflite file whose metadata say what it takes and answers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tabml.edge.models import AcceleratorName, LiteModel, ModelSource
from tabml.edge.prepared import Picture, prepared
from tabml.edge.results import Accelerator
from tabml.errors import InferenceError, ModelKindError, OptionError
from tabml.files import FileProvider
from tabml.generation.arguments import whole

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from tabml._litert.metadata import ModelMetadata

MOST_RESULTS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Category:
    """One class."""

    label: str
    """Its name; its number where the model has no names."""
    score: float
    """The model's confidence, 0 to 1 as a rule."""
    index: int
    """Its number."""

    def to_dict(self) -> dict[str, Any]:
        """Plain Python values, ready for JSON."""
        return {"label": self.label, "score": self.score, "index": self.index}


@dataclass(frozen=True, slots=True, kw_only=True)
class Categories(Sequence[Category]):
    """The classes of one input, the likeliest first."""

    items: tuple[Category, ...]
    """They."""
    accelerator: Accelerator
    """What ran the model."""
    seconds: float
    """How long it ran."""

    def __len__(self) -> int:
        return len(self.items)

    @overload
    def __getitem__(self, index: int) -> Category: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Category, ...]: ...
    def __getitem__(self, index: int | slice) -> Category | tuple[Category, ...]:
        return self.items[index]

    def __iter__(self) -> Iterator[Category]:
        return iter(self.items)

    def to_dict(self) -> dict[str, Any]:
        """Plain Python values, ready for JSON."""
        return {"type": "categories", "categories": [each.to_dict() for each in self.items], "seconds": self.seconds}


class _Prepared:
    """A model with one input, which its metadata describe."""

    def __init__(
        self,
        model: ModelSource,
        *,
        files: FileProvider | None,
        member: str | None,
        threads: int | None,
        accelerator: AcceleratorName,
    ) -> None:
        self.model = LiteModel(model, files=files, member=member, threads=threads, accelerator=accelerator)
        """The model itself."""

    def load(self) -> Self:
        """Fetch and open the model now instead of at the first call; again is fine.

        Raises:
            ModelKindError: it is no model of this kind.
            TabmlError: as :meth:`LiteModel.load`.
        """
        self.model.load()
        if len(self.model.inputs) != 1:
            names = ", ".join(spec.name for spec in self.model.inputs)
            raise ModelKindError(f"the model takes several inputs ({names}); use LiteModel")
        return self

    def close(self) -> None:
        """Free the model; a call that is running ends first. Twice is fine."""
        self.model.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return repr(self.model).replace("LiteModel", type(self).__name__, 1)

    def _input(self, value: ArrayLike | Picture) -> NDArray[Any]:
        self.load()
        said = self.model.metadata
        return prepared(self.model.inputs[0], said.inputs[0] if said is not None and said.inputs else None, value)


class LiteClassifier(_Prepared):
    """Says which of its classes something is: pictures, sounds or numbers, as the model's metadata say.

    Pictures of any size are stretched to the model's and normalised as it wants; sounds and numbers must have the shape
    of the model's input.
    """

    def __init__(
        self,
        model: ModelSource,
        *,
        max_results: int = 5,
        score_threshold: float | None = None,
        category_allowlist: Sequence[str] = (),
        category_denylist: Sequence[str] = (),
        files: FileProvider | None = None,
        member: str | None = None,
        threads: int | None = None,
        accelerator: AcceleratorName = "cpu",
    ) -> None:
        """Check the options; nothing is loaded yet.

        Args:
            model: As of :class:`LiteModel`.
            max_results: The most classes to give, 1 to 1000.
            score_threshold: Classes that score less are left out; what the metadata say when None.
            category_allowlist: Only these classes; all when empty.
            category_denylist: Not these classes.
            files: Where model files come from; the default provider when None.
            member: Which .tflite file of a .task bundle.
            threads: How many threads share one call, 1 to 64; every core (at most 8) when None.
            accelerator: As of :class:`LiteModel`.

        Raises:
            OptionError: an option is outside its range, or both lists are given.
        """
        self._most = whole("max_results", max_results, 1, MOST_RESULTS)
        if score_threshold is not None and not (
            isinstance(score_threshold, int | float) and score_threshold == score_threshold
        ):
            raise OptionError(f"score_threshold={score_threshold!r} must be a number, or None")
        self._threshold = score_threshold
        self._allow, self._deny = frozenset(category_allowlist), frozenset(category_denylist)
        if self._allow and self._deny:
            raise OptionError("category_allowlist and category_denylist can't both be given; use one of them")
        self._labels: tuple[str, ...] = ()
        self._place = 0
        super().__init__(model, files=files, member=member, threads=threads, accelerator=accelerator)

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the classes; loads the model."""
        self.load()
        return self._labels

    def load(self) -> Self:
        """Fetch and open the model now instead of at the first call; again is fine.

        Raises:
            ModelKindError: it is no classifier: no output is one score for each of its names.
            OptionError: a list names a class that the model hasn't got.
            TabmlError: as :meth:`LiteModel.load`.
        """
        super().load()
        if not self._labels:
            said = self.model.metadata
            place, labels = _scores(self.model, said)
            if said is not None and said.outputs and said.outputs[place].is_calibrated:
                raise ModelKindError("the model wants its scores calibrated, which isn't done here; use LiteModel")
            for option, wanted in (("category_allowlist", self._allow), ("category_denylist", self._deny)):
                strange = sorted(wanted - set(labels))
                if strange:
                    raise OptionError(
                        f"{option}: {strange[0]!r:.80} is none of the model's {len(labels)} classes; see .labels"
                    )
            if self._threshold is None and said is not None and said.outputs:
                self._threshold = said.outputs[place].min_score
            self._place, self._labels = place, labels
        return self

    def classify(self, value: ArrayLike | Picture) -> Categories:
        """The classes of one input, the likeliest first.

        Args:
            value: A picture: a frame, or an array of shape (height, width, 3) or (height, width), uint8; or numbers of
                the shape of the model's input, with or without its first dimension.

        Raises:
            OptionError: it is neither.
            InferenceError: LiteRT failed, or a score is no number; the next input is answered.
            ModelClosedError: the model is closed.
        """
        found = self.model.run([self._input(value)], dequantize=True)
        scores = list(found.values())[self._place].astype(np.float32).ravel()
        if np.isnan(scores).any():
            raise InferenceError("the model gave a score that is no number")
        order = np.argsort(-scores, kind="stable").tolist()
        items: list[Category] = []
        for index in order:
            label, score = self._labels[index], float(scores[index])
            if (self._threshold is not None and score < self._threshold) or len(items) == self._most:
                break
            if label not in self._deny and (not self._allow or label in self._allow):
                items.append(Category(label=label, score=score, index=index))
        return Categories(items=tuple(items), accelerator=found.accelerator, seconds=found.seconds)

    async def classify_async(self, value: ArrayLike | Picture) -> Categories:
        """:meth:`classify` in a thread."""
        return await asyncio.to_thread(self.classify, value)


class LiteEmbedder(_Prepared):
    """Makes a vector of something: of a model with one output, which is one vector."""

    def __init__(
        self,
        model: ModelSource,
        *,
        l2_normalize: bool = True,
        files: FileProvider | None = None,
        member: str | None = None,
        threads: int | None = None,
        accelerator: AcceleratorName = "cpu",
    ) -> None:
        """Check the options; nothing is loaded yet.

        Args:
            model: As of :class:`LiteModel`.
            l2_normalize: Whether vectors are scaled to length 1.
            files: Where model files come from; the default provider when None.
            member: Which .tflite file of a .task bundle.
            threads: How many threads share one call, 1 to 64; every core (at most 8) when None.
            accelerator: As of :class:`LiteModel`.

        Raises:
            OptionError: an option is outside its range.
        """
        self._normalize = bool(l2_normalize)
        super().__init__(model, files=files, member=member, threads=threads, accelerator=accelerator)

    def load(self) -> Self:
        """Fetch and open the model now instead of at the first call; again is fine.

        Raises:
            ModelKindError: it gives something else than one vector.
            TabmlError: as :meth:`LiteModel.load`.
        """
        super().load()
        shapes = [spec.shape for spec in self.model.outputs]
        if len(shapes) != 1 or int(np.prod(shapes[0])) != max(shapes[0], default=0):
            raise ModelKindError(f"a model of another kind: it gives {shapes}, not one vector")
        return self

    def embed(self, value: ArrayLike | Picture) -> NDArray[np.float32]:
        """The vector of one input: float32, shape (n,), read-only.

        Args:
            value: As of :meth:`LiteClassifier.classify`.

        Raises:
            OptionError: it is neither a picture nor numbers of the model's shape.
            InferenceError: LiteRT failed, or gave a number that is none; the next input is answered.
            ModelClosedError: the model is closed.
        """
        vector = self.model.run([self._input(value)], dequantize=True).value.astype(np.float32).ravel()
        if not np.isfinite(vector).all():
            raise InferenceError("the model gave a vector with numbers that are none")
        length = np.float32(np.linalg.norm(vector)) if self._normalize else np.float32(1)
        found = vector / length if length else vector
        found.flags.writeable = False
        return found

    async def embed_async(self, value: ArrayLike | Picture) -> NDArray[np.float32]:
        """:meth:`embed` in a thread."""
        return await asyncio.to_thread(self.embed, value)


def _scores(model: LiteModel, said: ModelMetadata | None) -> tuple[int, tuple[str, ...]]:
    """Which output has the scores, and the names of their classes."""
    sizes = [
        max(spec.shape, default=0) if int(np.prod(spec.shape)) == max(spec.shape, default=0) else 0
        for spec in model.outputs
    ]
    named = [each.labels for each in said.outputs] if said is not None else []
    for place, labels in enumerate(named[: len(sizes)]):
        if labels and len(labels) == sizes[place]:
            return place, labels
    if any(named) or len(sizes) != 1 or not sizes[0]:
        raise ModelKindError(
            f"a model of another kind: its outputs are {[spec.shape for spec in model.outputs]}, with "
            f"{[len(labels) for labels in named]} names of classes"
        )
    return 0, tuple(map(str, range(sizes[0])))
