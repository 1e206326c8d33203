"""What a long text says, in a short one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar

from tabml.generation.arguments import check_texts, flag, whole
from tabml.generation.options import MAX_BEAMS, MAX_NEW_TOKENS
from tabml.text._door import text_extra
from tabml.text._model import TextModel
from tabml.text.repository import Repository

if TYPE_CHECKING:
    from tabml.text._torch.seq2seq import Seq2Seq

_T5_PREFIX = "summarize: "


class Summarizer(TextModel["Seq2Seq"]):
    """Summarises with BART, Pegasus, LED and T5 models."""

    task: ClassVar[str] = "summarization"

    def summarize(
        self,
        texts: Iterable[str],
        *,
        min_new_tokens: int | None = None,
        max_new_tokens: int | None = None,
        num_beams: int | None = None,
        truncate: bool = False,
    ) -> tuple[str, ...]:
        """The summary of each text.

        Args:
            texts: Any number, also none.
            min_new_tokens: The shortest summary; None for the model's own.
            max_new_tokens: The longest; None for the model's own.
            num_beams: Of the beam search, 1 for none; None for the model's own number.
            truncate: Cut what is longer than the model can read instead of refusing it.

        Raises:
            OptionError: a text or an option is not allowed.
            CallCancelledError: the bound cancellation was set.
            ModelError: see :meth:`load`.
        """
        found = check_texts("texts", texts)
        flag("truncate", truncate)
        if max_new_tokens is not None:
            whole("max_new_tokens", max_new_tokens, 1, MAX_NEW_TOKENS)
        if min_new_tokens is not None:
            whole("min_new_tokens", min_new_tokens, 0, max_new_tokens or MAX_NEW_TOKENS)
        if num_beams is not None:
            whole("num_beams", num_beams, 1, MAX_BEAMS)
        model = self._ready()
        prefix = model.prefix("summarization") or (_T5_PREFIX if model.kind == "t5" else "")
        return tuple(
            model.write(
                [prefix + text for text in found],
                num_beams=num_beams,
                min_new_tokens=min_new_tokens,
                max_new_tokens=max_new_tokens,
                truncate=truncate,
            )
        )

    async def summarize_async(
        self,
        texts: Iterable[str],
        *,
        min_new_tokens: int | None = None,
        max_new_tokens: int | None = None,
        num_beams: int | None = None,
        truncate: bool = False,
    ) -> tuple[str, ...]:
        """:meth:`summarize` in a thread."""
        return await self._in_thread(
            self.summarize,
            texts,
            min_new_tokens=min_new_tokens,
            max_new_tokens=max_new_tokens,
            num_beams=num_beams,
            truncate=truncate,
        )

    def _build(self, repository: Repository) -> Seq2Seq:
        with text_extra():
            from tabml.text._torch.seq2seq import load_seq2seq
        return load_seq2seq(repository, self._placement, architecture=self._architecture, task=self.task)

    def _free(self, loaded: Seq2Seq) -> None:
        loaded.close()
