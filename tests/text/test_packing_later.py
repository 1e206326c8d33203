"""Layers that are packed behind the first token: what is said stays the same, and nothing waits for them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tabml.text import GenerationOptions, TextGenerator

GREEDY = GenerationOptions(temperature=0, max_new_tokens=12, min_new_tokens=12)
PROMPT = "w1 w2 w3"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose layers are large enough to be packed."""
    from tabml.bench.peers import random_llama

    made = tmp_path_factory.mktemp("model")
    random_llama(made, 1 << 22, 2)
    return made


def kinds(model: TextGenerator) -> set[str]:
    """The classes of the linear layers, without what adapters put around them."""
    from tabml.text._torch.adapters import inner_of

    net: Any = model._ready().engine
    found = {type(inner_of(layer)).__name__ for layer in net._model.modules()}
    return {name for name in found if name.endswith("Linear")}


def packed_kind(dtype: str = "float32") -> str:
    """The class of what a layer is packed into."""
    from tabml.text._torch.packing import mkl_is_quick

    return "MklLinear" if dtype == "float32" and mkl_is_quick() else "RowsLinear"


def held(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Packing that begins only when the event is set."""
    from tabml.text._torch import engine

    go = threading.Event()
    pack = engine.TorchEngine._pack
    monkeypatch.setattr(engine.TorchEngine, "_pack", lambda self: pack(self) if go.is_set() else None)
    return go


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_model_answers_before_it_is_packed_and_the_same_after(
    folder: Path, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = held(monkeypatch)
    with TextGenerator(folder, dtype=dtype) as model:
        before = model.generate(PROMPT, GREEDY)
        assert kinds(model) == {"Linear"}
        assert not model.wait_until_packed(0)
        go.set()
        between = model.generate(PROMPT, GREEDY)
        assert model.wait_until_packed(60)
        assert kinds(model) == {packed_kind(dtype)}
        after = model.generate(PROMPT, GREEDY)
    assert before.choices == between.choices == after.choices


def test_an_idle_model_is_packed_without_being_asked(folder: Path) -> None:
    with TextGenerator(folder).load() as model:
        assert model.wait_until_packed(60)
        assert kinds(model) == {packed_kind()}


def test_what_changes_the_numbers_is_packed_while_loading(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held(monkeypatch)
    with TextGenerator(folder, quantization="int8").load() as model:
        assert kinds(model) == {"Int8Linear"}


def test_a_layer_that_an_adapter_came_around_is_packed_inside(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tiny

    go = held(monkeypatch)
    adapter = tiny.lora(tmp_path / "adapter", folder, 1, rank=4, alpha=16)
    adapted = GenerationOptions(temperature=0, max_new_tokens=12, min_new_tokens=12, adapter="a")
    with TextGenerator(folder, adapters={"a": adapter}) as model:
        before = model.generate(PROMPT, adapted)
        assert kinds(model) == {"Linear"}
        go.set()
        assert model.wait_until_packed(60)
        assert kinds(model) == {packed_kind()}
        assert model.generate(PROMPT, adapted).choices == before.choices
        assert model.generate(PROMPT, GREEDY).choices != before.choices


def test_weights_are_right_while_a_score_reads_them_and_they_are_packed(folder: Path) -> None:
    tokens = list(range(2, 200))
    with TextGenerator(folder).load() as model:
        engine: Any = model._ready().engine
        found = [engine.score(tokens)]
        while not engine.packed.is_set():
            found.append(engine.score(tokens))
        found.append(engine.score(tokens))
    for each in found:
        assert each == pytest.approx(found[0], abs=1e-4)


def test_a_model_is_closed_while_it_is_packed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tabml.text._torch import engine

    packs = []
    pack = engine.TorchEngine._pack

    def slow(self: Any) -> None:
        packs.append(self)
        time.sleep(0.05)
        pack(self)

    monkeypatch.setattr(engine.TorchEngine, "_pack", slow)
    model = TextGenerator(folder).load()
    while len(packs) < 3:
        time.sleep(0.01)
    model.close()
    count = len(packs)
    time.sleep(0.2)
    assert len(packs) == count


@pytest.mark.parametrize("problem", [RuntimeError("no kernel"), MemoryError()])
def test_a_layer_that_cannot_be_packed_costs_speed_alone(
    tiny: Callable[[str], Path], problem: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    import transformers

    from tabml.cancellation import Cancellation
    from tabml.text._torch.engine import TorchEngine

    def failing() -> Iterator[str]:
        yield "one"
        raise problem

    folder = tiny("llama_chat")
    net = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    engine = TorchEngine(net, transformers.AutoTokenizer.from_pretrained(folder), packing=failing())
    try:
        assert engine.packed.wait(60)
        assert "slower" in caplog.text
        assert len(list(engine.stream([1, 2, 3], GREEDY, Cancellation()))) > 0
    finally:
        engine.close()
