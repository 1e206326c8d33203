"""Encoder layers by compiled kernels: what the model's own forward gives, and only where the kernels know the layers."""

from __future__ import annotations

import ctypes
import gc
import logging
import math
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import bert_like  # noqa: E402

from tabml.text._torch import packing, stack  # noqa: E402
from tabml.text._torch.kernels import door  # noqa: E402

GUARD = tuple(float(number) for number in range(64))


@pytest.fixture(autouse=True)
def kernels(monkeypatch: pytest.MonkeyPatch) -> door.TextKernels:
    """Loaded; layers are packed by MKL, whatever is quicker here."""
    if "mkl" not in packing.layouts():
        pytest.skip("this torch has no MKL in it")
    monkeypatch.setattr(packing, "mkl_is_quick", lambda: True)
    found = door.TEXTS.wait()
    assert found is not None
    return found


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch, kernels: door.TextKernels) -> list[int]:
    """Tokens that kernels computed with each call; what lies behind their room stays as it is."""
    tokens: list[int] = []
    sizes: list[int] = []

    def room_of(rows: int, **named: int) -> int:
        sizes.append(kernels.room_of(rows, **named))
        return sizes[-1] + len(GUARD)

    def layers(*given: Any) -> None:
        behind = (ctypes.c_float * len(GUARD)).from_address(given[-1] + 4 * sizes[-1])
        behind[:] = GUARD
        kernels.encoder_layers(*given)
        tokens.append(given[7])
        assert tuple(behind) == GUARD

    monkeypatch.setattr(door.TEXTS, "found", kernels._replace(encoder_layers=layers, room_of=room_of))
    return tokens


def made(kind: str, **changed: Any) -> Any:
    """A small model, packed."""
    model = bert_like.build(kind, **changed)
    assert packing.pack(model, None, many_rows=True) > 0
    return model


def read(model: Any, lengths: tuple[int, ...]) -> Any:
    """The vectors of the tokens of texts of these lengths, none of padding."""
    generator = torch.Generator().manual_seed(2)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    ids = torch.randint(3, 128, mask.shape, generator=generator).masked_fill(~mask, 1)
    with torch.inference_mode():
        return model(input_ids=ids, attention_mask=mask.long()).last_hidden_state[mask]


@pytest.mark.parametrize(
    "lengths", [(1,), (7,), (16, 16), (1, 40, 17, 3), (5,) * 60, (333, 2)], ids=lambda given: f"{len(given)}x{given[0]}"
)
@pytest.mark.parametrize("kind", bert_like.KINDS)
def test_vectors_are_those_of_the_models_own_forward(
    kind: str, lengths: tuple[int, ...], threads: int, computed: list[int]
) -> None:
    model = made(kind)
    wanted = read(model, lengths)
    assert stack.stacked(model) == bert_like.LAYERS
    found = read(model, lengths)
    assert computed == [sum(stack.TRIED), sum(lengths)]  # they are tried before they are used
    assert float((found - wanted).norm() / wanted.norm()) < 1e-6


@pytest.mark.parametrize(
    "changed",
    [
        {"hidden_act": "relu"},
        {"hidden_act": "gelu_new"},
        {"num_attention_heads": 4},
        {"intermediate_size": 200},
        {"is_decoder": True},
    ],
    ids=["relu", "gelu_new", "heads of 24", "width 200", "decoder"],
)
def test_layers_that_no_kernel_knows_are_left_alone(changed: dict[str, Any]) -> None:
    model = made("bert", **changed)
    assert stack.stacked(model) == 0


def test_attention_of_another_kind_is_left_alone() -> None:
    model = made("bert")
    model.set_attn_implementation("eager")
    assert stack.stacked(model) == 0


@pytest.mark.parametrize("how", ["int4", "bfloat16", "plain"])
def test_other_formats_are_left_alone(how: str) -> None:
    model = bert_like.build("bert")
    if how == "bfloat16":
        model = model.bfloat16()
    if how != "plain":
        packing.pack(model, "int4" if how == "int4" else None, many_rows=True)
    assert stack.stacked(model) == 0


@pytest.mark.parametrize("case", ["left", "hole", "float", "nobody"])
def test_masks_of_another_kind_are_for_torch(case: str, computed: list[int]) -> None:
    model = made("bert")
    mask = torch.ones(2, 6, dtype=torch.long)
    mask[0, {"left": slice(0, 2), "hole": slice(2, 4), "float": slice(4, 6), "nobody": slice(0, 6)}[case]] = 0
    given = torch.where(mask[:, None, None] > 0, 0.0, -1e9).expand(2, 1, 6, 6) if case == "float" else mask
    ids = torch.arange(3, 15).view(2, 6)
    with torch.inference_mode():
        wanted = model(input_ids=ids, attention_mask=given).last_hidden_state
        stack.stacked(model)
        found = model(input_ids=ids, attention_mask=given).last_hidden_state
    assert torch.equal(found, wanted)
    assert not computed


def test_kernels_that_compute_something_else_are_not_believed(
    kernels: door.TextKernels, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = made("bert")
    wanted = read(model, (4, 9))
    calls: list[int] = []

    def wrong(*given: Any) -> None:
        calls.append(1)
        kernels.encoder_layers(*given[:5], given[5] - 1, *given[6:])  # a layer less

    monkeypatch.setattr(door.TEXTS, "found", kernels._replace(encoder_layers=wrong))
    stack.stacked(model)
    with caplog.at_level(logging.WARNING, "tabml.text"):
        found = [read(model, (4, 9)) for _ in range(3)]
    assert len(calls) == 1
    assert "off by" in caplog.text
    assert all(torch.equal(each, wanted) for each in found)


def test_numbers_that_are_none_stay_none(computed: list[int], caplog: pytest.LogCaptureFixture) -> None:
    model = made("bert")
    stack.stacked(model)
    table = model.embeddings.word_embeddings.weight
    whole = table.clone()
    table[:] = math.nan
    assert read(model, (5, 3)).isnan().all()
    table[:] = whole
    found = read(model, (5, 3))
    vars(model.encoder).pop("forward")
    assert torch.allclose(found, read(model, (5, 3)), atol=1e-5)
    assert len(computed) == 3
    assert not caplog.records


def test_batches_that_come_together_wait_for_the_trial(
    kernels: door.TextKernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None of them is answered by kernels that another finds wrong."""
    model = made("bert")
    wanted = {length: read(model, (length,)) for length in (4, 30)}
    begin = threading.Barrier(4)

    def wrong(*given: Any) -> None:
        kernels.encoder_layers(*given[:5], given[5] - (given[7] > 16), *given[6:])  # of long texts a layer less

    monkeypatch.setattr(door.TEXTS, "found", kernels._replace(encoder_layers=wrong))
    stack.stacked(model)

    def ask(length: int) -> bool:
        begin.wait(5)
        return all(torch.equal(read(model, (length,)), wanted[length]) for _ in range(5))

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(ask, [4, 30, 30, 4]))


def test_layers_of_other_shapes_than_the_first_are_left_alone() -> None:
    """Rooms are measured by the first."""
    model, larger = bert_like.build("bert"), bert_like.build("bert", intermediate_size=416)
    model.encoder.layer[1] = larger.encoder.layer[1]
    packing.pack(model, None, many_rows=True)
    assert stack.stacked(model) == 0


def test_strides_do_not_matter(computed: list[int]) -> None:
    model = made("bert")
    hidden = torch.randn(2, 5, 96)
    stack.stacked(model)
    with torch.inference_mode():
        wanted = model.encoder(hidden).last_hidden_state
        turned = hidden.transpose(0, 2).contiguous().transpose(0, 2)
        assert torch.equal(model.encoder(turned).last_hidden_state, wanted)
    assert len(computed) == 3


def test_kernels_are_loaded_once_a_model_has_computed_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    model = made("bert")
    stack.stacked(model)
    loader = door.Loader(lambda: pytest.fail("loaded"))
    asked: list[int] = []
    monkeypatch.setattr(loader, "prepare", lambda: asked.append(1))
    monkeypatch.setattr(door, "TEXTS", loader)
    read(model, (5,))
    assert not asked
    monkeypatch.setattr(stack, "_WORTH_S", 1e-9)
    for seconds in (0.0, 1.0, 1.0):
        monkeypatch.setattr(model.encoder.forward, "_seconds", seconds)
        read(model, (5,))
    assert asked == [1]


def test_a_model_without_kernels_computes_as_before(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def failing() -> door.TextKernels:
        raise OSError("no libgomp")

    model = made("bert")
    wanted = read(model, (5, 2))
    stack.stacked(model)
    monkeypatch.setattr(door, "TEXTS", door.Loader(failing))
    with caplog.at_level(logging.WARNING, "tabml.text"):
        door.TEXTS.prepare().join()
    assert "no libgomp" in caplog.text
    assert torch.equal(read(model, (5, 2)), wanted)


def test_a_model_goes_with_its_last_user() -> None:
    model = made("bert")
    stack.stacked(model)
    read(model, (5,))
    gc.collect()
    gc.disable()
    try:
        gone = weakref.ref(model.encoder)
        del model
        assert gone() is None
    finally:
        gc.enable()
