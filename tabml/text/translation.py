"""Texts in another language."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import TYPE_CHECKING, ClassVar

from tabml.errors import OptionError
from tabml.generation.arguments import check_texts, flag, whole
from tabml.generation.options import MAX_BEAMS, MAX_NEW_TOKENS
from tabml.text._door import text_extra
from tabml.text._model import TextModel
from tabml.text.repository import Repository

if TYPE_CHECKING:
    from tabml.text._torch.seq2seq import Seq2Seq

_NAMES = {
    "ar": "Arabic", "bg": "Bulgarian", "cs": "Czech", "da": "Danish", "de": "German", "el": "Greek", "en": "English",
    "es": "Spanish", "et": "Estonian", "fi": "Finnish", "fr": "French", "he": "Hebrew", "hi": "Hindi",
    "hu": "Hungarian", "id": "Indonesian", "it": "Italian", "ja": "Japanese", "ko": "Korean", "lt": "Lithuanian",
    "lv": "Latvian", "nl": "Dutch", "no": "Norwegian", "pl": "Polish", "pt": "Portuguese", "ro": "Romanian",
    "ru": "Russian", "sk": "Slovak", "sl": "Slovenian", "sv": "Swedish", "th": "Thai", "tr": "Turkish",
    "uk": "Ukrainian", "vi": "Vietnamese", "zh": "Chinese",
}  # fmt: skip
_SHOWN = 8


class Translator(TextModel["Seq2Seq"]):
    """Translates with Marian (opus-mt), NLLB, M2M100, mBART and T5 models.

    How languages are called is the model's: :attr:`languages`.
    """

    task: ClassVar[str] = "translation"

    @property
    def languages(self) -> tuple[str, ...]:
        """Codes for ``target``, and but for Marian for ``source``; empty for a model of one pair; loads the model."""
        return tuple(_languages(self._ready()))

    def translate(
        self,
        texts: Iterable[str],
        *,
        source: str | None = None,
        target: str | None = None,
        num_beams: int | None = None,
        max_new_tokens: int | None = None,
        truncate: bool = False,
    ) -> tuple[str, ...]:
        """Each text in the other language.

        Args:
            texts: Any number, also none. Models are trained on sentences: split longer texts.
            source: Their language; None where the model reads one, or for its own default.
            target: The language of the answers; None where the model writes one.
            num_beams: Of the beam search, 1 for none; None for the model's own number.
            max_new_tokens: The longest answer; None for the model's own.
            truncate: Cut what is longer than the model can read instead of refusing it.

        Raises:
            OptionError: a text, language or option is not allowed.
            CallCancelledError: the bound cancellation was set.
            ModelError: see :meth:`load`.
        """
        found = check_texts("texts", texts)
        flag("truncate", truncate)
        for name, code in (("source", source), ("target", target)):
            if code is not None and not isinstance(code, str):
                raise OptionError(f"{name}={code!r:.40} must be a language")
        if num_beams is not None:
            whole("num_beams", num_beams, 1, MAX_BEAMS)
        if max_new_tokens is not None:
            whole("max_new_tokens", max_new_tokens, 1, MAX_NEW_TOKENS)
        model = self._ready()
        said, first, prefix = _direction(model, source, target)
        return tuple(
            model.write(
                [prefix + text for text in found],
                source=said,
                first_token=first,
                num_beams=num_beams,
                max_new_tokens=max_new_tokens,
                truncate=truncate,
            )
        )

    async def translate_async(
        self,
        texts: Iterable[str],
        *,
        source: str | None = None,
        target: str | None = None,
        num_beams: int | None = None,
        max_new_tokens: int | None = None,
        truncate: bool = False,
    ) -> tuple[str, ...]:
        """:meth:`translate` in a thread."""
        return await self._in_thread(
            self.translate,
            texts,
            source=source,
            target=target,
            num_beams=num_beams,
            max_new_tokens=max_new_tokens,
            truncate=truncate,
        )

    def _build(self, repository: Repository) -> Seq2Seq:
        with text_extra():
            from tabml.text._torch.seq2seq import load_seq2seq
        return load_seq2seq(repository, self._placement, architecture=self._architecture, task=self.task)

    def _free(self, loaded: Seq2Seq) -> None:
        loaded.close()


def _is_t5(model: Seq2Seq) -> bool:
    return "t5" in model.kind


def _languages(model: Seq2Seq) -> list[str]:
    if _is_t5(model):
        return sorted(_NAMES)
    if model.kind == "marian":
        return model.target_marks()
    return sorted(model.language_ids())


def _direction(model: Seq2Seq, source: str | None, target: str | None) -> tuple[str | None, int | None, str]:
    """The tokenizer's source language, the first token of answers, and what goes in front of texts."""
    if _is_t5(model):
        return None, None, _t5_prefix(model, source, target)
    if model.kind == "marian":
        return None, None, _marian_prefix(model, source, target)
    known = model.language_ids()
    if not known:
        _only(model, "source", source)
        _only(model, "target", target)
        return None, None, ""
    source, target = source or model.source_language, target or model.target_language
    if source is None or target is None:
        raise _missing("source" if source is None else "target", list(known))
    for name, code in (("source", source), ("target", target)):
        if code not in known:
            raise _unknown(name, code, list(known))
    return source, known[target], ""


def _marian_prefix(model: Seq2Seq, source: str | None, target: str | None) -> str:
    _only(model, "source", source)
    known = model.target_marks()
    if not known:
        _only(model, "target", target)
        return ""
    if target is None:
        raise _missing("target", known)
    if target not in known:
        raise _unknown("target", target, known)
    return f">>{target}<< "


def _t5_prefix(model: Seq2Seq, source: str | None, target: str | None) -> str:
    if target is None:
        raise _missing("target", sorted(_NAMES))
    names = []
    for option, given in (("source", source or "en"), ("target", target)):
        name = _NAMES.get(given, given)
        if name not in _NAMES.values():
            raise _unknown(option, given, [*_NAMES, *_NAMES.values()])
        names.append(name)
    codes = {name: code for code, name in _NAMES.items()}
    own = model.prefix(f"translation_{codes[names[0]]}_to_{codes[names[1]]}")
    return own or f"translate {names[0]} to {names[1]}: "


def _only(model: Seq2Seq, name: str, code: str | None) -> None:
    """Refuse a language where the model has just one, unless it is that."""
    own = model.source_language if name == "source" else model.target_language
    if code is not None and code != own:
        said = f" ({own})" if own else ""
        raise OptionError(f"{name}={code!r:.40}: this model has one {name} language{said}; leave it out")


def _missing(name: str, known: list[str]) -> OptionError:
    shown = ", ".join(known[:_SHOWN]) + (", …" if len(known) > _SHOWN else "")
    return OptionError(f"{name} is missing; this model has {shown}")


def _unknown(name: str, code: str, known: list[str]) -> OptionError:
    lower = {each.lower(): each for each in known}
    close = [lower[each] for each in get_close_matches(code[:40].lower(), lower, 5, 0.3)]
    begins = [each for each in known if code and each.lower().startswith(code[:2].lower())]
    shown = ", ".join(dict.fromkeys([*begins[:5], *close])) or ", ".join(known[:_SHOWN])
    return OptionError(f"{name}={code!r:.40} is not a language of this model; close to it: {shown}")
