"""Words for a gap in a text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from tabml.errors import ModelKindError, OptionError
from tabml.generation.arguments import check_text, check_texts, whole
from tabml.text._door import text_extra
from tabml.text._model import TextModel
from tabml.text.classification import softmax
from tabml.text.repository import Repository
from tabml.text.results import Fill

if TYPE_CHECKING:
    from tabml.text._torch.encoders import Encoder


class MaskFiller(TextModel["Encoder"]):
    """Fills the one mask of a text, for masked language models (BERT)."""

    task: ClassVar[str] = "fill-mask"

    @property
    def mask(self) -> str:
        """What marks the gap, such as ``[MASK]``; loads the model."""
        return str(self._ready().tokenizer.native.mask_token)

    def fill(self, text: str, *, top_k: int = 5, targets: Iterable[str] | None = None) -> tuple[Fill, ...]:
        """The most probable words, best first.

        Args:
            text: With the :attr:`mask` once.
            top_k: At most that many.
            targets: Only these words; each must be a token of the model.

        Raises:
            OptionError: a text or an option is not allowed.
            CallCancelledError: the bound cancellation was set.
            ModelError: see :meth:`load`.
        """
        check_text("text", text)
        whole("top_k", top_k, 1, 1 << 24)
        words = None if targets is None else check_texts("targets", targets)
        model = self._ready()
        mask, native = self.mask, model.tokenizer.native
        if text.count(mask) != 1:
            raise OptionError(f"text has {text.count(mask)} times {mask!r}; it must have it once")
        with text_extra():
            from tabml.text._torch.encoders import Encoded
        given = model.tokenizer(text, parse_special=True)
        names = [name for name in ("input_ids", "token_type_ids") if name in given]
        encoded = Encoded({name: given[name] for name in names})
        model.tokenizer.check_length(encoded.length, "text", "make it shorter")
        gap = encoded.inputs["input_ids"].index(native.mask_token_id)
        scores = softmax(model.all_logits([encoded])[0][0][gap])
        ids = np.arange(len(scores)) if words is None else np.array(_ids(model, words, len(scores)))
        best = ids[np.argsort(-scores[ids], kind="stable")[:top_k]]
        before, _, behind = text.partition(mask)
        found = []
        for token_id in best.tolist():
            word = native.decode([token_id]).strip()
            joins = word.startswith("##")
            word = word.removeprefix("##")
            whole_text = (before.rstrip() if joins else before) + word + behind
            found.append(Fill(token=word, token_id=token_id, score=float(scores[token_id]), text=whole_text))
        return tuple(found)

    async def fill_async(self, text: str, *, top_k: int = 5, targets: Iterable[str] | None = None) -> tuple[Fill, ...]:
        """:meth:`fill` in a thread."""
        return await self._in_thread(self.fill, text, top_k=top_k, targets=targets)

    def _build(self, repository: Repository) -> Encoder:
        with text_extra():
            from tabml.text._torch.encoders import load_encoder
        encoder = load_encoder(
            repository,
            "AutoModelForMaskedLM",
            self._placement,
            architecture=self._architecture,
            task=self.task,
        )
        if encoder.tokenizer.native.mask_token_id is None:
            encoder.close()
            raise ModelKindError(f"{repository.name} has a tokenizer without a mask token")
        return encoder

    def _free(self, loaded: Encoder) -> None:
        loaded.close()


def _ids(model: Encoder, words: list[str], size: int) -> list[int]:
    """The token of each word, as the model writes it inside of a text."""
    native = model.tokenizer.native
    vocabulary = native.get_vocab()
    found: dict[int, None] = {}
    for word in words:
        token_id = vocabulary.get(word)
        if token_id is None:
            ids = model.tokenizer(" " + word, add_special_tokens=False)["input_ids"]
            token_id = ids[0] if len(ids) == 1 and ids[0] != native.unk_token_id else None
        if token_id is None or token_id >= size:
            raise OptionError(f"targets: {word!r:.80} is not one token of this model")
        found[token_id] = None
    if not found:
        raise OptionError("targets is empty; give at least one word, or None")
    return list(found)
