"""A large model's load against ``from_pretrained`` and a bare transfer: time to the first token and peak memory."""

from __future__ import annotations

from typing import Any

from tabml.bench.load import measure
from tabml.bench.rows import table
from tabml.bench.text import Effort


def test_the_load_of_a_large_model(benchmark: Any) -> None:
    effort = Effort()
    rows = benchmark.pedantic(lambda: list(measure(effort.load_bytes, effort.long_turns)), rounds=1)
    print(f"\n{table(rows)}")
    assert {row.unit for row in rows} == {"s to the first token", "GB at the peak"}
