"""One answer as a stream, by one engine in a process of its own: threads that others have left behind would slow it.

``python -m tabml.bench.text_stream NAME MODEL TOKENS TURNS`` prints its figures as JSON.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tabml.text import GenerationOptions, TextGenerator
from tabml.text._door import text_extra
from tabml.text.engine import Scoring

PROMPT = "Once upon a time, in a small village near the sea, there lived"
PEER = "transformers"
FORMATS: dict[str, dict[str, str]] = {
    "float32": {}, "bfloat16": {"dtype": "bfloat16"}, "float16": {"dtype": "float16"}, "int8": {"quantization": "int8"},
    "int4": {"quantization": "int4"},
}  # fmt: skip
"""Of the torch engine, by name."""


def greedy(tokens: int) -> GenerationOptions:
    """An answer of exactly so many tokens."""
    return GenerationOptions(temperature=0, max_new_tokens=tokens, min_new_tokens=tokens)


def main() -> None:
    """One process: the median of some turns after one that isn't counted."""
    name, path, tokens, turns = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    read = 0
    if name == PEER:
        with text_extra():
            from tabml.bench.peers import PlainGenerator
        plain = PlainGenerator(path)
        generate: Callable[[], str] = lambda: plain.generate(PROMPT, tokens)  # noqa: E731
        _measure(generate, turns, read)
        return
    with TextGenerator(path, engine="torch" if name in FORMATS else name, **FORMATS.get(name, {})) as model:  # type: ignore[arg-type]
        model.wait_until_packed()
        engine = model._ready().engine
        read = engine.bytes_a_token if isinstance(engine, Scoring) else path.stat().st_size
        _measure(lambda: model.generate(PROMPT, greedy(tokens)).text, turns, read)


def _measure(generate: Callable[[], str], turns: int, read: int) -> None:
    text, seconds = generate(), []
    for _ in range(turns):
        began = time.perf_counter()
        generate()
        seconds.append(time.perf_counter() - began)
    print(json.dumps({"seconds": statistics.median(seconds), "text": text, "bytes_a_token": read}), flush=True)


if __name__ == "__main__":
    main()
