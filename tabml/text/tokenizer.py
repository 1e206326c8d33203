"""Texts as the tokens that a model reads, without the model: no weights are fetched."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from operator import index
from typing import TYPE_CHECKING, Any, ClassVar

from tabml.errors import OptionError
from tabml.generation.arguments import check_text, flag
from tabml.text._door import text_extra
from tabml.text._model import TextModel
from tabml.text.fitting import check_fits
from tabml.text.repository import Repository
from tabml.text.results import Tokens

if TYPE_CHECKING:
    from tabml.text._torch.encoders import SafeTokenizer


@dataclass(frozen=True, slots=True)
class _Loaded:
    tokenizer: SafeTokenizer
    size: int
    """Of the vocabulary."""


class Tokenizer(TextModel["_Loaded"]):
    """Counts, encodes and decodes.

    Control tokens that are written in a text (``<|im_end|>``, ``[SEP]``) are text, unless ``parse_special`` says that
    they are what they look like.
    """

    task: ClassVar[str] = "tokenization"

    @property
    def vocabulary_size(self) -> int:
        """Token ids are below it; loads the tokenizer."""
        return self._ready().size

    def encode(self, text: str, *, special_tokens: bool = True, parse_special: bool = False) -> Tokens:
        """The tokens of a text.

        Args:
            text: At most a megabyte.
            special_tokens: Add those that the model begins and ends texts with.
            parse_special: Control tokens written in the text are control tokens.

        Raises:
            OptionError: the text is not allowed.
            ModelError: see :meth:`load`.
        """
        check_text("text", text)
        flag("special_tokens", special_tokens)
        flag("parse_special", parse_special)
        loaded = self._ready()
        given = loaded.tokenizer(text, parse_special=parse_special, add_special_tokens=special_tokens, **self._with())
        ids: list[int] = given["input_ids"]
        offsets = given["offset_mapping"] if "offset_mapping" in given else [(0, 0)] * len(ids)
        return Tokens(
            ids=tuple(ids),
            tokens=tuple(loaded.tokenizer.native.convert_ids_to_tokens(ids)),
            offsets=tuple((int(start), int(end)) for start, end in offsets),
        )

    def count(self, text: str, *, special_tokens: bool = True, parse_special: bool = False) -> int:
        """How many tokens :meth:`encode` gives.

        Raises:
            OptionError: the text is not allowed.
            ModelError: see :meth:`load`.
        """
        check_text("text", text)
        flag("special_tokens", special_tokens)
        flag("parse_special", parse_special)
        given = self._ready().tokenizer(text, parse_special=parse_special, add_special_tokens=special_tokens)
        return len(given["input_ids"])

    def decode(self, token_ids: Iterable[int], *, skip_special_tokens: bool = True) -> str:
        """The text of tokens.

        Args:
            token_ids: Of this vocabulary.
            skip_special_tokens: Without control tokens.

        Raises:
            OptionError: an id is not of the vocabulary.
            ModelError: see :meth:`load`.
        """
        flag("skip_special_tokens", skip_special_tokens)
        loaded = self._ready()
        given = list(token_ids) if hasattr(token_ids, "__iter__") else [token_ids]
        ids = []
        for at, token_id in enumerate(given):
            number = index(token_id) if hasattr(token_id, "__index__") and not isinstance(token_id, bool) else -1
            if not 0 <= number < loaded.size:
                raise OptionError(f"token_ids[{at}]={token_id!r:.40} must be a whole number below {loaded.size}")
            ids.append(number)
        with loaded.tokenizer.lock:
            return str(loaded.tokenizer.native.decode(ids, skip_special_tokens=skip_special_tokens))

    async def encode_async(self, text: str, *, special_tokens: bool = True, parse_special: bool = False) -> Tokens:
        """:meth:`encode` in a thread."""
        return await self._in_thread(self.encode, text, special_tokens=special_tokens, parse_special=parse_special)

    async def count_async(self, text: str, *, special_tokens: bool = True, parse_special: bool = False) -> int:
        """:meth:`count` in a thread."""
        return await self._in_thread(self.count, text, special_tokens=special_tokens, parse_special=parse_special)

    async def decode_async(self, token_ids: Iterable[int], *, skip_special_tokens: bool = True) -> str:
        """:meth:`decode` in a thread."""
        return await self._in_thread(self.decode, token_ids, skip_special_tokens=skip_special_tokens)

    def _with(self) -> dict[str, Any]:
        """Offsets, where the tokenizer knows them: those made of sentencepiece files alone don't."""
        return {"return_offsets_mapping": True} if self._ready().tokenizer.native.is_fast else {}

    def _build(self, repository: Repository) -> _Loaded:
        if repository.is_gguf:
            check_fits(repository, self.task)
        repository.fetch_small()
        with text_extra():
            from tabml.text._torch.encoders import SafeTokenizer
            from tabml.text._torch.loading import load_tokenizer
        native = load_tokenizer(repository)
        return _Loaded(SafeTokenizer(native, int(native.model_max_length)), len(native))

    def _free(self, loaded: _Loaded) -> None:
        """Nothing to wait for."""
