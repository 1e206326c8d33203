"""A large model's load against ``from_pretrained`` and a bare transfer: time to the first token and peak memory."""

from __future__ import annotations

from typing import Any

from tabml.bench.load import measure
from tabml.bench.rows import Row, medians, table
from tabml.bench.text import Effort, Subjects
from tabml.text import TextGenerator


def test_the_load_of_a_large_model(benchmark: Any) -> None:
    effort = Effort()
    rows = benchmark.pedantic(lambda: list(measure(effort.load_bytes, effort.turns)), rounds=1)
    print(f"\n{table(rows)}")
    assert {row.unit for row in rows} == {"s to the first token", "GB at the peak"}


def test_the_load_of_a_gguf_file_by_torch(benchmark: Any) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with Subjects() as subjects:
        path = subjects.gguf
        assert path is not None

        def plain() -> None:
            AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name)
            AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)

        def mine() -> None:
            with TextGenerator(path, engine="torch") as model:
                model.load()

        found = benchmark.pedantic(lambda: medians({"transformers": plain, "tabml": mine}, 3), rounds=1)
    ratio = found["tabml"] / found["transformers"]
    rows = [
        Row(case="GGUF by torch", name="transformers", value=found["transformers"], unit="s"),
        Row(case="GGUF by torch", name="tabml", value=found["tabml"], unit="s", peer="transformers", ratio=ratio),
    ]
    print(f"\n{table(rows)}")
    assert {row.unit for row in rows} == {"s"}
