"""How text is generated: every option checked when it is said, long before a model sees it."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from tabml.errors import OptionError
from tabml.generation.arguments import check_text, flag, whole

MAX_STOPS = 64
MAX_STOP_CHARACTERS = 1024
MAX_CHOICES = 64
MAX_BEAMS = 64
MAX_LOGPROBS = 20
MAX_LOOKUP = 32
MAX_GRAMMAR_CHARACTERS = 64 << 10
MAX_NEW_TOKENS = 1 << 20
_MAX_BIASES = 1024


def _number(name: str, value: Any, low: float, high: float, what: str) -> float:
    """A number within its bounds; one that left them by the rounding of a message's float32 is put back."""
    near = 1e-7
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not low - near * abs(low) <= value <= high + near
    ):
        raise OptionError(f"{name}={value!r} must be {what}")
    return float(min(max(value, low), high))


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationOptions:
    """What one request asks for. ``None`` means that the option is off, or the model's own default.

    The order in which they act on the scores of the next token: ``logit_bias``, ``bad_words``, ``no_repeat_ngram_size``,
    the penalties, ``min_new_tokens``, the grammar; then ``temperature``, ``top_k``, ``top_p``, ``min_p``,
    ``typical_p``.

    Raises:
        OptionError: a value is not allowed, or two don't go together.
    """

    temperature: float = 1.0
    """Scores are divided by it, 0 to 100; 0 always takes the best token (greedy)."""
    top_p: float = 1.0
    """Only the most probable tokens that together have this probability, 0.000001 to 1 (Holtzman et al. 2020)."""
    top_k: int = 0
    """Only that many most probable tokens; 0 for all."""
    min_p: float = 0.0
    """Only tokens with at least this share of the best token's probability, 0 to 1 (Nguyen et al. 2024)."""
    typical_p: float = 1.0
    """Only the tokens nearest to the expected information, 0.000001 to 1 (Meister et al. 2022)."""
    repetition_penalty: float = 1.0
    """Above 1 makes tokens of the prompt and the answer less likely, 0.01 to 10 (Keskar et al. 2019, CTRL)."""
    frequency_penalty: float = 0.0
    """Subtracted for each time a token is in the answer, -2 to 2."""
    presence_penalty: float = 0.0
    """Subtracted once for tokens that are in the answer, -2 to 2."""
    max_new_tokens: int = 256
    """The longest answer, in tokens; never beyond the model's context."""
    min_new_tokens: int = 0
    """The shortest answer: before it, the model can't end. Not with a grammar."""
    seed: int | None = None
    """The same seed gives the same text on the same device and engine; 0 to 2^63 - 1. But for roundings, which may lead to
    another text: with llama.cpp they depend on what it computes and has computed beside, with bfloat16, int8 and int4 on
    whether the model is packed yet (``wait_until_packed``)."""
    stop: tuple[str, ...] = ()
    """Texts that end the answer; they are not part of it."""
    stop_token_ids: tuple[int, ...] = ()
    """Tokens that end the answer, beside the model's own."""
    num_beams: int = 1
    """Beam search, 1 for none: answers that are streamed can't have it, and refuse more; use ``n`` with a low
    ``temperature``."""
    no_repeat_ngram_size: int = 0
    """Sequences of that many tokens come once; 0 for any number."""
    logprobs: int | None = None
    """That many alternatives with their log probabilities for each token, 0 to 20; 0 for the token itself alone."""
    logit_bias: Mapping[int, float] | None = None
    """Added to the scores of tokens, -100 to 100 each."""
    bad_words: tuple[str, ...] = ()
    """Texts whose tokens must not come, at the beginning of a word or within one; other tokens may spell the same."""
    max_time_s: float | None = None
    """Seconds after which the answer ends, whatever its length."""
    n: int = 1
    """How many answers."""
    json_schema: Mapping[str, Any] | str | None = None
    """The answer is a JSON document of this JSON Schema."""
    json_object: bool = False
    """The answer is a JSON object."""
    regex: str | None = None
    """The answer matches this regular expression from begin to end."""
    adapter: str | None = None
    """The LoRA adapter to use, by the name it was loaded with."""
    prompt_lookup_tokens: int = 0
    """Up to so many tokens, 0 to 32, are guessed from what is in the prompt and the answer already, and checked at once
    (Saxena 2023): quicker where an answer quotes its prompt. The text is as it would be without, but for the rounding of
    bfloat16 and float16. A hint: torch follows it while no other answer runs."""

    def __post_init__(self) -> None:
        def put(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)

        lowest = 0.0 if self.temperature == 0 else 1e-4
        put("temperature", _number("temperature", self.temperature, lowest, 100, "0 (greedy), or from 0.0001 to 100"))
        for name in ("top_p", "typical_p"):
            put(name, _number(name, getattr(self, name), 1e-6, 1, "a number from 0.000001 to 1"))
        put("min_p", _number("min_p", self.min_p, 0, 1, "a number from 0 to 1"))
        put(
            "repetition_penalty",
            _number("repetition_penalty", self.repetition_penalty, 0.01, 10, "a number from 0.01 to 10"),
        )
        for name in ("frequency_penalty", "presence_penalty"):
            put(name, _number(name, getattr(self, name), -2, 2, "a number from -2 to 2"))
        whole("top_k", self.top_k, 0, 1 << 24)
        whole("max_new_tokens", self.max_new_tokens, 1, MAX_NEW_TOKENS)
        whole("min_new_tokens", self.min_new_tokens, 0, MAX_NEW_TOKENS)
        if self.min_new_tokens > self.max_new_tokens:
            raise OptionError(
                f"min_new_tokens={self.min_new_tokens} is more than max_new_tokens={self.max_new_tokens}; raise that too"
            )
        whole("num_beams", self.num_beams, 1, MAX_BEAMS)
        whole("no_repeat_ngram_size", self.no_repeat_ngram_size, 0, 1 << 16)
        whole("n", self.n, 1, MAX_CHOICES)
        whole("prompt_lookup_tokens", self.prompt_lookup_tokens, 0, MAX_LOOKUP)
        if self.seed is not None:
            whole("seed", self.seed, 0, (1 << 63) - 1)
        if self.logprobs is not None:
            whole("logprobs", self.logprobs, 0, MAX_LOGPROBS)
        if self.max_time_s is not None:
            put("max_time_s", _number("max_time_s", self.max_time_s, 1e-3, 86400, "seconds from 0.001 to 86400"))
        put("stop", _texts("stop", self.stop))
        put("bad_words", _texts("bad_words", self.bad_words))
        ids = self.stop_token_ids
        if isinstance(ids, str | bytes | Mapping) or not isinstance(ids, Collection) or len(ids) > MAX_STOPS:
            raise OptionError(f"stop_token_ids={self.stop_token_ids!r:.80} must be at most {MAX_STOPS} token ids")
        put("stop_token_ids", tuple(whole("stop_token_ids", each, 0, 1 << 31) for each in self.stop_token_ids))
        if self.logit_bias is not None:
            put("logit_bias", _biases(self.logit_bias))
        if self.adapter is not None:
            check_text("adapter", self.adapter, 256)
        self._check_grammar()
        if self.num_beams > 1 and self.n > self.num_beams:
            raise OptionError(f"n={self.n} must be at most num_beams={self.num_beams}")

    def _check_grammar(self) -> None:
        flag("json_object", self.json_object)
        said = [name for name in ("json_schema", "json_object", "regex") if getattr(self, name) not in (None, False)]
        if len(said) > 1:
            raise OptionError(f"{said[0]} and {said[1]} don't go together; give one of them")
        if said and self.num_beams > 1:
            raise OptionError(f"num_beams={self.num_beams} does not go with {said[0]}")
        if said and self.min_new_tokens:
            raise OptionError(
                f"min_new_tokens={self.min_new_tokens} does not go with {said[0]}, which says itself when an answer may end"
            )
        if self.regex is not None and (not isinstance(self.regex, str) or not self.regex):
            raise OptionError(f"regex={self.regex!r:.80} must be a regular expression")
        schema = self.json_schema
        if schema is not None:
            try:
                text = schema if isinstance(schema, str) else json.dumps(schema)
                parsed = json.loads(text)
            except (TypeError, ValueError, RecursionError) as problem:
                raise OptionError(f"json_schema={schema!r:.60} is not JSON: {problem}") from None
            if not isinstance(parsed, dict):
                raise OptionError(f"json_schema={schema!r:.60} must be a JSON object")
            object.__setattr__(self, "json_schema", text)
        for name in ("json_schema", "regex"):
            if len(getattr(self, name) or "") > MAX_GRAMMAR_CHARACTERS:
                raise OptionError(f"{name} has more than {MAX_GRAMMAR_CHARACTERS} characters")

    @property
    def greedy(self) -> bool:
        """Whether the best token is always taken."""
        return self.temperature == 0

    @property
    def grammar(self) -> str | None:
        """Which of ``json_schema``, ``json_object`` and ``regex`` is given."""
        names = ("json_schema", "json_object", "regex")
        return next((name for name in names if getattr(self, name) not in (None, False)), None)

    def changed(self) -> dict[str, Any]:
        """The options that differ from their defaults, by name."""
        return {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if getattr(self, field.name) != field.default
        }


def _texts(name: str, given: str | Sequence[str]) -> tuple[str, ...]:
    if isinstance(given, bytes | Mapping) or not isinstance(given, Iterable):
        raise OptionError(f"{name}={given!r:.80} must be a text or a list of texts")
    texts = (given,) if isinstance(given, str) else tuple(given)
    if len(texts) > MAX_STOPS:
        raise OptionError(f"{name} must be at most {MAX_STOPS} texts, not {len(texts)}")
    for text in texts:
        if not isinstance(text, str) or not 1 <= len(text) <= MAX_STOP_CHARACTERS:
            raise OptionError(f"{name}={text!r:.80} must be texts of 1 to {MAX_STOP_CHARACTERS} characters")
        check_text(name, text)
    return texts


def _biases(given: Mapping[int, float]) -> dict[int, float]:
    if not isinstance(given, Mapping) or len(given) > _MAX_BIASES:
        raise OptionError(f"logit_bias={given!r:.80} must map at most {_MAX_BIASES} token ids to numbers")
    return {
        whole("logit_bias", token, 0, 1 << 31): _number("logit_bias", bias, -100, 100, "a number from -100 to 100")
        for token, bias in given.items()
    }
