"""Documents in the order in which they answer a query."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from tabml.errors import OptionError, UnsafeModelError
from tabml.generation.arguments import check_text, check_texts, flag, whole
from tabml.text._door import text_extra
from tabml.text._model import TextModel
from tabml.text.fitting import no_fit
from tabml.text.repository import Repository
from tabml.text.results import Ranked

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tabml.text._torch.encoders import Served, YesNoReranker


def sigmoid(value: float) -> float:
    """1 / (1 + exp(-x)), for any x."""
    if value >= 0:
        return 1 / (1 + math.exp(-value))
    return math.exp(value) / (1 + math.exp(value))


_ACTIVATIONS: dict[str, Callable[[float], float]] = {
    "Sigmoid": sigmoid,
    "Identity": lambda value: value,
    "Tanh": math.tanh,
}


@dataclass(frozen=True, slots=True)
class _Judge:
    """A loaded reranker."""

    served: Served[NDArray[Any]]
    prompt: YesNoReranker | None
    """Of a language model."""
    activation: Callable[[float], float]

    def score(self, query: str, documents: Sequence[str], instruction: str | None, truncate: bool) -> list[float]:
        if self.prompt is not None:
            encoded = self.prompt.encode(query, documents, instruction, truncate)
        elif instruction is not None:
            raise OptionError("instruction is for rerankers that are language models, which this one is not")
        else:
            pairs = [query] * len(documents)
            encoded = self.served.encoder.tokenizer.encode(pairs, documents, name="documents", truncate=truncate)
        return [self.activation(float(row[0])) for row in self.served.queue.run(encoded)]


class Reranker(TextModel["_Judge"]):
    """Reads query and document together, which is slower than comparing embeddings and better.

    For cross-encoders (a sequence classifier with one label) and for language models that answer yes or no, in the
    way of Qwen3-Reranker.
    """

    task: ClassVar[str] = "text-ranking"

    def rank(
        self,
        query: str,
        documents: Iterable[str],
        *,
        top_n: int | None = None,
        instruction: str | None = None,
        truncate: bool = False,
    ) -> tuple[Ranked, ...]:
        """The documents, best first.

        Args:
            query: What is looked for.
            documents: Any number, also none.
            top_n: Only that many.
            instruction: What counts as an answer; for language models only.
            truncate: Cut what is longer than the model can read instead of refusing it.

        Raises:
            OptionError: a text or an option is not allowed.
            CapacityError: too many texts are waiting.
            CallCancelledError: the bound cancellation was set.
            ModelError: see :meth:`load`.
        """
        check_text("query", query)
        texts = check_texts("documents", documents)
        flag("truncate", truncate)
        if instruction is not None:
            check_text("instruction", instruction)
        if top_n is not None:
            whole("top_n", top_n, 1, 1 << 31)
        scores = self._ready().score(query, texts, instruction, truncate)
        best = sorted(range(len(texts)), key=lambda at: -scores[at])[:top_n]
        return tuple(Ranked(index=at, score=scores[at], document=texts[at]) for at in best)

    async def rank_async(
        self,
        query: str,
        documents: Iterable[str],
        *,
        top_n: int | None = None,
        instruction: str | None = None,
        truncate: bool = False,
    ) -> tuple[Ranked, ...]:
        """:meth:`rank` in a thread."""
        return await self._in_thread(
            self.rank, query, documents, top_n=top_n, instruction=instruction, truncate=truncate
        )

    def _build(self, repository: Repository) -> _Judge:
        with text_extra():
            from tabml.text._torch.encoders import load_reranker
        found = load_reranker(repository, self._placement, architecture=self._architecture, task=self.task)
        if isinstance(found, tuple):
            return _Judge(found[1], found[0], _ACTIVATIONS["Identity"])
        labels = found.encoder.config.num_labels
        if labels != 1:
            found.close()
            raise no_fit(repository, f"gives {labels} labels, and {self.task} needs 1")
        return _Judge(found, None, _activation(repository))

    def _free(self, loaded: _Judge) -> None:
        loaded.served.close()


def _activation(repository: Repository) -> Callable[[float], float]:
    """What the model does with its scores, in any of the three places where it may say so."""
    config = repository.config
    nested = config.get("sentence_transformers")
    said = nested.get("activation_fn") if isinstance(nested, dict) else None
    said = said or config.get("sbert_ce_default_activation_function")
    if said is None:
        return sigmoid
    path = str(said)
    found = _ACTIVATIONS.get(path.rpartition(".")[2]) if path.startswith("torch.nn.") else None
    if found is None:
        raise UnsafeModelError(f"{repository.name}: activation {path!r:.80} is not one of {', '.join(_ACTIVATIONS)}")
    return found
