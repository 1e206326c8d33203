"""Output that must match a JSON Schema or a regular expression, as a grammar that every engine can read."""

from __future__ import annotations

import json

from tabml.errors import MissingExtraError, OptionError
from tabml.generation.options import GenerationOptions

TOO_COMPLICATED = "is more complicated than llguidance can follow; make it simpler"
_JSON_OBJECT = '{"type": "object"}'


def lark(options: GenerationOptions) -> str | None:
    """The grammar in llguidance's dialect of Lark, compiled once to see that it is one; None when none is asked for.

    Raises:
        OptionError: the schema or expression can't be compiled.
        MissingExtraError: llguidance is not installed.
    """
    kind = options.grammar
    if kind is None:
        return None
    try:
        from llguidance import LLMatcher
    except ImportError as problem:
        raise MissingExtraError("text", "llguidance") from problem
    try:
        if kind == "regex":
            begin = json.loads(LLMatcher.grammar_from_regex(options.regex))["grammars"][0]["lark_grammar"]
        else:
            schema = options.json_schema if kind == "json_schema" else _JSON_OBJECT
            begin = f"start: %json {json.dumps(json.loads(str(schema)))}"
        grammar = f"%llguidance {{}}\n{begin}"
        said = LLMatcher.validate_grammar(LLMatcher.grammar_from_lark(grammar))
    except ValueError as problem:
        said = str(problem)
    if said:
        raise OptionError(f"{kind}: {' '.join(said.split())[:200]}")
    return grammar


class Follower:
    """Sees whether an answer that grows keeps to its grammar."""

    def __init__(self, grammar: str) -> None:
        from llguidance import LLMatcher, LLTokenizer

        self._native = LLMatcher(LLTokenizer("byte"), LLMatcher.grammar_from_lark(grammar), log_level=0)

    def add(self, text: str) -> bool:
        """Go on by ``text``; False when it can't be, or nobody can tell."""
        content = text.encode()
        return bool(self._native.try_consume_tokens(list(content)) == len(content))
