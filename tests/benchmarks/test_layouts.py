"""A matrix product in each layout and format against the plain layer's, with weights that no cache holds."""

from __future__ import annotations

from typing import Any

import pytest

from tabml.bench.rows import Row, medians, table

_ROWS, _COLUMNS, _LAYERS = 1536, 576, 40
"""SmolLM2-135M's widest layers: 3.5 MB each."""


@pytest.mark.parametrize("count", [1, 8, 32, 512])
def test_layouts_and_formats(count: int, benchmark: Any) -> None:
    import torch

    from tabml.text._torch.kernels import door
    from tabml.text._torch.packing import _LAYOUTS, HalfLinear, Int4Linear, Int8Linear, RowsLinear, layouts

    door.TOKENS.wait()
    x = torch.randn(count, _COLUMNS)
    plain = [torch.nn.Linear(_COLUMNS, _ROWS, bias=False) for _ in range(_LAYERS)]
    layers: dict[str, list[Any]] = {"plain": plain}
    kinds = {name: kind for name, (kind, dtype) in _LAYOUTS.items() if name in layouts() and dtype is torch.float32}
    kinds |= {"rows": RowsLinear, "float16": HalfLinear, "int8": Int8Linear, "int4": Int4Linear}
    layers |= {name: [kind(layer) for layer in plain] for name, kind in kinds.items()}

    def through(name: str) -> None:
        with torch.inference_mode():
            for layer in layers[name]:
                layer(x)

    works = {name: lambda name=name: through(name) for name in layers}
    found = benchmark.pedantic(lambda: medians(works, 9), rounds=1)
    rows = [
        Row(
            case=f"{count} rows", name=name, value=1e6 * seconds / _LAYERS, unit="µs a layer",
            peer="" if name == "plain" else "plain", ratio=None if name == "plain" else seconds / found["plain"],
        )
        for name, seconds in found.items()
    ]  # fmt: skip
    print(f"\n{table(rows)}")
    assert set(found) == set(layers)
