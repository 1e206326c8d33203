"""Products by MKL's packed weights against plain ones, and what they hold."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from tabml.text._torch import packing  # noqa: E402
from tabml.text._torch.mkl import MklLinear  # noqa: E402


@pytest.fixture(autouse=True)
def there() -> None:
    """Skips where torch has no MKL, as on ARM."""
    if "mkl" not in packing.layouts():
        pytest.skip("this torch has no MKL in it")


def linear(rows: int, columns: int, bias: bool = True) -> Any:
    torch.manual_seed(rows * columns)
    return torch.nn.Linear(columns, rows, bias=bias).requires_grad_(False)


def resident_bytes(address: int) -> int:
    """Of the mapping that an address lies in."""
    inside = False
    for line in Path("/proc/self/smaps").read_text("utf-8").splitlines():
        span = re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line)
        if span:
            inside = int(span[1], 16) <= address < int(span[2], 16)
        elif inside and line.startswith("Rss:"):
            return 1024 * int(line.split()[1])
    raise AssertionError("no such mapping")


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (7, 5), (192, 576), (576, 1536), (1000, 37), (3072, 64)])
def test_products_are_those_of_the_plain_layer(rows: int, columns: int, bias: bool) -> None:
    plain = linear(rows, columns, bias)
    packed = MklLinear(plain)
    before = None if plain.bias is None else plain.bias.clone()
    for shape in ((columns,), (1, columns), (3, 7, columns), (600, columns), (5, 1, columns), (0, columns)):
        x = torch.randn(shape)
        assert packed(x).shape == plain(x).shape
        assert torch.allclose(packed(x), plain(x), rtol=1e-4, atol=1e-5)
    turned = torch.randn(columns, 9).t()
    assert torch.allclose(packed(turned), plain(turned), rtol=1e-4, atol=1e-5)
    assert before is None or torch.equal(plain.bias, before)


@pytest.mark.parametrize("threads", [1, 2])
def test_weights_may_be_packed_and_multiplied_by_other_numbers_of_threads(threads: int) -> None:
    usual = torch.get_num_threads()
    plain, x = linear(700, 300), torch.randn(40, 300)
    try:
        torch.set_num_threads(threads)
        packed = MklLinear(plain)
        torch.set_num_threads(3 - threads)
        found = packed(x)
    finally:
        torch.set_num_threads(usual)
    assert torch.allclose(found, plain(x), rtol=1e-4, atol=1e-5)


def test_what_does_not_fit_is_refused_before_mkl_reads_it() -> None:
    packed = MklLinear(linear(64, 32))
    for x in (torch.ones(2, 31), torch.ones(2, 32, dtype=torch.float64), torch.ones(2, 32, device="meta")):
        with pytest.raises(RuntimeError, match="32 columns"):
            packed(x)
    with pytest.raises(NotImplementedError, match="bfloat16"):
        MklLinear(linear(64, 32).bfloat16())


@pytest.mark.parametrize(("rows", "columns"), [(192, 576), (576, 1536), (2048, 512)])
def test_the_packed_weight_takes_no_more_memory_than_the_weight(rows: int, columns: int) -> None:
    packed = MklLinear(linear(rows, columns, bias=False))
    assert packed.packed_bytes == 4 * rows * columns
    assert resident_bytes(packed._packed) <= packed.packed_bytes + (64 << 10)


def test_the_quicker_of_two_layouts_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    def chosen(share: float) -> bool:
        def seconds(layers: Any, x: Any) -> float:
            return share if isinstance(layers[0], MklLinear) else 1.0

        monkeypatch.setattr(packing, "_seconds", seconds)
        return packing.mkl_is_quick.__wrapped__()

    monkeypatch.setattr(packing, "layouts", lambda: frozenset({"mkl", "blocked float32"}))
    assert [chosen(share) for share in (0.5, 1.2, 1.3)] == [True, True, False]
    monkeypatch.setattr(packing, "layouts", lambda: frozenset({"blocked float32"}))
    assert not chosen(0.5)


@pytest.mark.parametrize(("many_rows", "name"), [(False, "RowsLinear"), (True, "BlockedLinear")])
def test_without_mkl_single_tokens_take_weights_as_they_are(
    many_rows: bool, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "blocked float32" not in packing.layouts():
        pytest.skip("this torch has no oneDNN in it")
    monkeypatch.setattr(packing, "mkl_is_quick", lambda: False)
    model = torch.nn.Sequential(linear(64, 64))
    assert packing.pack(model, None, many_rows=many_rows) == 1
    assert type(model[0]).__name__ == name
