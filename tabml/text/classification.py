"""Labels for texts: those a model was trained for, or any that are given with the call."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tabml.errors import ModelKindError, OptionError
from tabml.generation.arguments import check_text, check_texts, flag, whole
from tabml.text._door import text_extra
from tabml.text._model import TextModel
from tabml.text.fitting import no_fit
from tabml.text.repository import Repository
from tabml.text.results import Classification, LabelScore

if TYPE_CHECKING:
    from tabml.text._torch.encoders import SafeTokenizer, Served

_MOST_LABELS = 1000


def softmax(scores: NDArray[Any]) -> NDArray[np.float64]:
    """Over the last axis."""
    shifted = np.exp(scores.astype(np.float64) - scores.max(-1, keepdims=True))
    total: NDArray[np.float64] = shifted / shifted.sum(-1, keepdims=True)
    return total


def sigmoid(scores: NDArray[Any]) -> NDArray[np.float64]:
    """Of each, without overflow."""
    found: NDArray[np.float64] = 0.5 * (1 + np.tanh(0.5 * scores.astype(np.float64)))
    return found


def best_first(labels: list[str], scores: NDArray[np.float64], top_k: int | None = None) -> Classification:
    """The labels with their scores in falling order."""
    order = np.argsort(-scores, kind="stable")[:top_k]
    return Classification(labels=tuple(LabelScore(label=labels[at], score=float(scores[at])) for at in order))


class _Classifying(TextModel["Served[NDArray[np.float32]]"]):
    """A sequence classifier behind a queue."""

    def _build(self, repository: Repository) -> Served[NDArray[np.float32]]:
        with text_extra():
            from tabml.text._torch.encoders import load_served
        served = load_served(repository, self._placement, architecture=self._architecture, task=self.task)
        try:
            self._accept(served, repository)
        except ModelKindError:
            served.close()
            raise
        return served

    def _accept(self, served: Served[NDArray[np.float32]], repository: Repository) -> None:
        """Raise ModelKindError where the labels don't fit."""

    def _free(self, loaded: Served[NDArray[np.float32]]) -> None:
        loaded.close()


class TextClassifier(_Classifying):
    """Says which of its labels fits a text, for any sequence classifier.

    Scores sum to 1, but for models whose labels don't exclude each other (``multi_label_classification``) and for
    those with a single label: there each is a probability of its own. A regression gives its bare value.
    """

    task: ClassVar[str] = "text-classification"

    @property
    def labels(self) -> tuple[str, ...]:
        """That the model knows; loads the model."""
        return tuple(self._ready().encoder.labels)

    def classify(
        self, texts: Iterable[str], *, top_k: int | None = None, truncate: bool = False
    ) -> tuple[Classification, ...]:
        """The labels of each text, best first.

        Args:
            texts: Any number, also none.
            top_k: Only the best ones; all when None.
            truncate: Cut what is longer than the model can read instead of refusing it.

        Raises:
            OptionError: a text or an option is not allowed.
            CapacityError: too many texts are waiting.
            CallCancelledError: the bound cancellation was set.
            ModelError: see :meth:`load`.
        """
        found = check_texts("texts", texts)
        flag("truncate", truncate)
        if top_k is not None:
            whole("top_k", top_k, 1, 1 << 31)
        served = self._ready()
        rows = served.queue.run(served.encoder.tokenizer.encode(found, truncate=truncate))
        config, labels = served.encoder.config, served.encoder.labels
        if config.problem_type == "regression":
            activation = _unchanged
        elif config.problem_type == "multi_label_classification" or len(labels) == 1:
            activation = sigmoid
        else:
            activation = softmax
        return tuple(best_first(labels, activation(row), top_k) for row in rows)

    async def classify_async(
        self, texts: Iterable[str], *, top_k: int | None = None, truncate: bool = False
    ) -> tuple[Classification, ...]:
        """:meth:`classify` in a thread."""
        return await self._in_thread(self.classify, texts, top_k=top_k, truncate=truncate)


def _unchanged(scores: NDArray[Any]) -> NDArray[np.float64]:
    return scores.astype(np.float64)


class ZeroShotClassifier(_Classifying):
    """Says which of any labels fits a text, by a model that knows whether one sentence follows from another (NLI)."""

    task: ClassVar[str] = "zero-shot-classification"

    def classify(
        self,
        texts: str | Iterable[str],
        labels: Iterable[str],
        *,
        hypothesis: str = "This example is {}.",
        multi_label: bool = False,
        truncate: bool = False,
    ) -> tuple[Classification, ...]:
        """The labels of each text, best first.

        Args:
            texts: One or any number; the result is as long.
            labels: 1 to 1000 different ones.
            hypothesis: The sentence of a label, with ``{}`` in its place.
            multi_label: Any number of labels may fit: each gets a probability of its own, else they sum to 1.
            truncate: Cut texts that are longer than the model can read instead of refusing them.

        Raises:
            OptionError: a text, label or option is not allowed.
            CapacityError: too many texts are waiting.
            CallCancelledError: the bound cancellation was set.
            ModelError: see :meth:`load`.
        """
        found = [check_text("texts", texts)] if isinstance(texts, str) else check_texts("texts", texts)
        names = check_texts("labels", labels)
        flag("multi_label", multi_label)
        flag("truncate", truncate)
        if not 1 <= len(names) <= _MOST_LABELS or len(set(names)) < len(names) or not all(map(str.strip, names)):
            raise OptionError(f"labels={names!r:.80} must be 1 to {_MOST_LABELS} different ones, none empty")
        if check_text("hypothesis", hypothesis).count("{}") != 1:
            raise OptionError(f"hypothesis={hypothesis!r:.80} must have {{}} once, in the place of the label")
        served = self._ready()
        sentences = [hypothesis.replace("{}", name) for name in names]
        _check_room(served.encoder.tokenizer, sentences)
        encoded = served.encoder.tokenizer.encode(
            [text for text in found for _ in names],
            sentences * len(found),
            name="texts with labels",
            truncate=truncate,
            only_first=True,
        )
        rows = served.queue.run(encoded)
        yes = _entailment(served)
        no = len(served.encoder.labels) - 1 if yes == 0 else 0
        result = []
        for at in range(len(found)):
            scores = np.stack(rows[at * len(names) : (at + 1) * len(names)])
            if multi_label or len(names) == 1:
                result.append(best_first(names, softmax(scores[:, [no, yes]])[:, 1]))
            else:
                result.append(best_first(names, softmax(scores[:, yes])))
        return tuple(result)

    async def classify_async(
        self,
        texts: str | Iterable[str],
        labels: Iterable[str],
        *,
        hypothesis: str = "This example is {}.",
        multi_label: bool = False,
        truncate: bool = False,
    ) -> tuple[Classification, ...]:
        """:meth:`classify` in a thread."""
        return await self._in_thread(
            self.classify, texts, labels, hypothesis=hypothesis, multi_label=multi_label, truncate=truncate
        )

    def _accept(self, served: Served[NDArray[np.float32]], repository: Repository) -> None:
        if len(served.encoder.labels) < 2 or _entailment(served) < 0:
            known = ", ".join(served.encoder.labels[:5])
            raise no_fit(repository, f"has no label 'entailment' (it has {known:.80}), which {self.task} needs")


def _check_room(tokenizer: SafeTokenizer, sentences: list[str]) -> None:
    """Raise OptionError where a label leaves no room for a text: labels are not cut."""
    room = tokenizer.limit - tokenizer.native.num_special_tokens_to_add(pair=True)
    for at, ids in enumerate(tokenizer(sentences, add_special_tokens=False)["input_ids"]):
        if len(ids) >= room:
            raise OptionError(
                f"labels[{at}] has {len(ids)} tokens with the hypothesis, which leaves no room for a text in {room}; "
                "shorten it"
            )


def _entailment(served: Served[NDArray[np.float32]]) -> int:
    """Which output says that the sentence follows; -1 where none does."""
    names: dict[str, int] = served.encoder.config.label2id
    return next((int(at) for label, at in names.items() if label.lower().startswith("entail")), -1)
