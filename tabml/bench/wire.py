"""What the server adds to a call: measured by a client in a process of its own, which has the library too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from tabml.bench.processes import ended
from tabml.bench.rows import Row
from tabml.text._door import text_extra


def measure(tokens: int, turns: int) -> Iterator[Row]:
    """The cost of a streamed token, and of a reply with 64 vectors.

    Args:
        tokens: Of a stream.
        turns: Figures are medians of ten times as many streams and fifty times as many replies.
    """
    with text_extra():
        from tabml.bench.peers import random_embedder, random_llama
    with TemporaryDirectory(prefix="tabml-bench-") as folder:
        random_llama(Path(folder, "chat"), 1 << 18, 2)
        random_embedder(Path(folder, "embed"))
        rows = ended("tabml_grpc.bench_wire", "wire", folder, tokens, turns)
    for row in rows:
        yield Row(**row)
