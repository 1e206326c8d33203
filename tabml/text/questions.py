"""Answers that are a piece of a given text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tabml.errors import ModelKindError, OptionError
from tabml.generation.arguments import check_text, flag, whole
from tabml.text._door import text_extra
from tabml.text._model import TextModel
from tabml.text.classification import softmax
from tabml.text.repository import Repository
from tabml.text.results import Answer

if TYPE_CHECKING:
    from tabml.text._torch.encoders import Encoded, Encoder

_STRIDE = 128
_MOST_TOKENS = 384


@dataclass(frozen=True, slots=True)
class _Window:
    """The question with a part of the context."""

    encoded: Encoded
    spans: list[tuple[int, int] | None]
    """Of each token the word of the context that it is of; None for those of the question."""


class QuestionAnswerer(TextModel["Encoder"]):
    """Finds the piece of a text that answers a question, for extractive models (SQuAD)."""

    task: ClassVar[str] = "question-answering"

    def answer(
        self,
        question: str,
        context: str,
        *,
        top_k: int = 1,
        max_answer_tokens: int = 15,
        impossible: bool = False,
    ) -> tuple[Answer, ...]:
        """The best answers. A long context is read in windows that overlap by 128 tokens.

        Args:
            question: Must leave room for the context.
            context: The text to find it in.
            top_k: At most that many.
            max_answer_tokens: The longest answer.
            impossible: There may be no answer: an empty one is among them, for models trained for it.

        Raises:
            OptionError: a text or an option is not allowed.
            CallCancelledError: the bound cancellation was set.
            ModelError: see :meth:`load`.
        """
        check_text("question", question)
        check_text("context", context)
        whole("top_k", top_k, 1, 1000)
        flag("impossible", impossible)
        whole("max_answer_tokens", max_answer_tokens, 1, 1 << 16)
        for name, text in (("question", question), ("context", context)):
            if not text.strip():
                raise OptionError(f"{name} is empty")
        model = self._ready()
        windows = self._windows(model, question, context)
        if not any(span is not None for window in windows for span in window.spans):
            raise OptionError("context has no tokens; this model can't find anything in it")
        outputs = model.all_logits([window.encoded for window in windows], "start_logits", "end_logits")
        best: dict[tuple[int, int], float] = {}
        nothing = 1.0
        for window, (starts, ends) in zip(windows, outputs, strict=True):
            spans, none = _spans(window, starts, ends, top_k, max_answer_tokens, impossible)
            nothing = min(nothing, none)
            for span, score in spans:
                best[span] = max(score, best.get(span, 0.0))
        if impossible:
            best[0, 0] = nothing
        chosen = sorted(best.items(), key=lambda one: (-one[1], one[0]))[:top_k]
        return tuple(
            Answer(text=context[start:end], score=score, start=start, end=end) for (start, end), score in chosen
        )

    async def answer_async(
        self,
        question: str,
        context: str,
        *,
        top_k: int = 1,
        max_answer_tokens: int = 15,
        impossible: bool = False,
    ) -> tuple[Answer, ...]:
        """:meth:`answer` in a thread."""
        return await self._in_thread(
            self.answer,
            question,
            context,
            top_k=top_k,
            max_answer_tokens=max_answer_tokens,
            impossible=impossible,
        )

    def _windows(self, model: Encoder, question: str, context: str) -> list[_Window]:
        with text_extra():
            from tabml.text._torch.encoders import Encoded
        tokenizer = model.tokenizer
        limit = min(tokenizer.limit, _MOST_TOKENS)
        asked = len(tokenizer(question, add_special_tokens=False)["input_ids"])
        room = limit - asked - tokenizer.native.num_special_tokens_to_add(pair=True)
        if room < 1:
            raise OptionError(f"question has {asked} tokens, which leaves no room for the context in {limit}")
        given = tokenizer(
            [question],
            [context],
            truncation="only_second",
            max_length=limit,
            stride=min(_STRIDE, limit // 2, room - 1),
            return_overflowing_tokens=True,
        )
        windows = []
        for row, encoding in enumerate(given.encodings):
            spans: list[tuple[int, int] | None] = [None] * len(encoding.ids)
            for at, part in enumerate(encoding.sequence_ids):
                if part == 1:
                    word = encoding.word_ids[at]
                    span = encoding.word_to_chars(word, 1) if word is not None else None
                    spans[at] = span or encoding.offsets[at]
            names = [name for name in ("input_ids", "token_type_ids") if name in given]
            windows.append(_Window(Encoded({name: given[name][row] for name in names}), spans))
        return windows

    def _build(self, repository: Repository) -> Encoder:
        with text_extra():
            from tabml.text._torch.encoders import load_encoder
        encoder = load_encoder(
            repository,
            "AutoModelForQuestionAnswering",
            self._placement,
            architecture=self._architecture,
            task=self.task,
        )
        if not encoder.tokenizer.native.is_fast:
            encoder.close()
            raise ModelKindError(f"{repository.name} has a tokenizer that can't say where tokens are in a text")
        return encoder

    def _free(self, loaded: Encoder) -> None:
        loaded.close()


def _spans(
    window: _Window,
    starts: NDArray[Any],
    ends: NDArray[Any],
    top_k: int,
    most_tokens: int,
    impossible: bool,
) -> tuple[list[tuple[tuple[int, int], float]], float]:
    """The best pieces of the context in a window, and how likely it is that there is none.

    The first token stands for "no answer"; it takes part in the probabilities only when that is ``impossible``.
    """
    inside = np.array([span is not None for span in window.spans])
    inside[0] |= impossible
    begin, finish = (softmax(np.where(inside, scores, -10000.0)) for scores in (starts, ends))
    nothing = float(begin[0] * finish[0]) if impossible else 1.0
    if impossible:
        begin[0] = finish[0] = 0.0
    both = np.triu(begin[:, None] * finish[None, :])
    both = np.tril(both, most_tokens - 1)
    flat = both.ravel()
    count = min(top_k, len(flat))
    order = np.argpartition(-flat, count - 1)[:count]
    found = []
    for at in sorted(order.tolist(), key=lambda at: -flat[at]):
        row, column = divmod(at, len(begin))
        first, last = window.spans[row], window.spans[column]
        if first is not None and last is not None and row <= column < row + most_tokens:  # the rest has 0
            found.append(((first[0], last[1]), float(flat[at])))
    return found, nothing
