"""Compiled decoder layers against plain transformers: one compilation for all of them, and answers that don't notice."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from test_torch_engine import DEVICE, GREEDY, PROMPTS, deltas, plain, side_by_side, tokens

from tabml.cancellation import Cancellation
from tabml.generation.options import GenerationOptions


class Backend:
    """One of torch.compile's that is quick to compile, and counts."""

    def __init__(self) -> None:
        self.compiled = 0
        self.runs = 0
        self.called, self.go = threading.Event(), threading.Event()
        self.go.set()
        self.problem: Exception | None = None
        self.factor = 1.0

    def __call__(self, graph: Any, inputs: Any) -> Any:
        import torch

        self.called.set()
        assert self.go.wait(60)
        if self.problem is not None:
            raise self.problem
        self.compiled += 1
        found = torch._dynamo.lookup_backend("aot_eager")(graph, inputs)

        def run(*values: Any) -> Any:
            self.runs += 1
            return [each * self.factor for each in found(*values)]

        return run


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Backend:
    made = Backend()
    monkeypatch.setattr("tabml.text._torch.compiled.BACKEND", made)
    monkeypatch.setattr("tabml.text._torch.engine._PACK_AFTER_S", 0.01)
    monkeypatch.setattr("tabml.text._torch.engine._COMPILE_AFTER_S", 0.0)
    return made


@pytest.fixture
def opened(tiny: Callable[[str], Path]) -> Iterator[Callable[..., Any]]:
    """Engines that compile, of a config or of a tiny model."""
    import torch
    import transformers

    from tabml.text._torch.engine import TorchEngine

    engines = []

    def make(config: Any = None, recipe: str = "llama_chat", **changes: Any) -> Any:
        folder = tiny(recipe)
        torch.manual_seed(0)
        if config is None:
            config = transformers.AutoConfig.from_pretrained(folder, **changes)
            model = transformers.AutoModelForCausalLM.from_pretrained(folder, config=config)
        else:
            model = transformers.AutoModelForCausalLM.from_config(config)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        engines.append(TorchEngine(model.eval().to(DEVICE), tokenizer, static=True, compiled=True))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()


def config_of(kind: str) -> Any:
    import transformers

    size: dict[str, Any] = {
        "vocab_size": 400, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 128,
    }  # fmt: skip
    if kind == "as wide as the keys":
        return transformers.LlamaConfig(num_hidden_layers=2, **{**size, "hidden_size": 640, "intermediate_size": 257})
    if kind == "mistral":
        return transformers.MistralConfig(num_hidden_layers=3, sliding_window=7, **size)
    if kind == "qwen3":
        return transformers.Qwen3Config(num_hidden_layers=3, **size)
    layer_types = ["sliding_attention", "full_attention", "sliding_attention"]
    return transformers.Gemma3TextConfig(num_hidden_layers=3, sliding_window=7, layer_types=layer_types, **size)


@pytest.mark.parametrize("kind", ["llama_chat", "mistral", "qwen3", "gemma3", "as wide as the keys"])
def test_compiled_layers_give_the_tokens_of_transformers(kind: str, opened: Any, backend: Backend) -> None:
    """Alone and together; all layers of a kind are compiled once, or once for all."""
    engine = opened(recipe=kind) if "_" in kind else opened(config_of(kind))
    assert engine.wait_until_packed(60)
    prompts = [engine.encode(text) for text in PROMPTS]
    want = [plain(engine, prompt, do_sample=False, max_new_tokens=24) for prompt in prompts]
    before = backend.runs
    assert [tokens(deltas(engine, prompt)) for prompt in prompts] == want
    if DEVICE == "cpu":  # elsewhere steps are recorded
        assert backend.runs - before == len(PROMPTS) * 23 * engine._layers, "not every layer of every step is compiled"
    assert [tokens(each) for each in side_by_side(engine, prompts, [GREEDY] * len(prompts))] == want
    assert backend.compiled <= (2 if kind == "gemma3" else 1)


def test_one_compilation_is_for_all_rows_and_keys(opened: Any, backend: Backend) -> None:
    import torch

    from tabml.text._torch.cache import SlotCache
    from tabml.text._torch.steps import Steps

    engine = opened(num_hidden_layers=2, max_position_embeddings=4096)
    assert engine.wait_until_packed(60)
    found = {}
    for layer_run in (engine._layer_run, None):
        slots = SlotCache(2, 4096)
        steps = Steps(
            lambda ids, mask, positions, slots=slots: engine._scores(ids, mask, positions, slots),
            slots,
            torch.device(DEVICE),
            most_tokens=4096,
            recorder=None,
            layer_run=layer_run,
        )
        before = backend.runs
        with torch.inference_mode():
            slots.add_slot()
            slots.one(0, 5)
            engine._model(input_ids=torch.arange(5, 10, device=DEVICE)[None], past_key_values=slots)
            scores = []
            for rows, length in [(1, 10), (2, 200), (3, 260), (8, 300), (64, 500), (2, 700), (30, 1100)]:
                while len(slots.lengths) < steps.rows_for(rows):
                    slots.add_slot()
                slots.lengths[:rows] = [length - row % 3 for row in range(rows)]
                step = steps.begin(list(range(5, 5 + rows)))
                scores.append(step.scores[:rows].clone())
            found[layer_run is None] = scores
        assert backend.runs - before == (0 if layer_run is None else 7 * 2)
    assert backend.compiled == 1
    for one, other in zip(found[True], found[False], strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_answers_that_run_go_on_with_compiled_layers(opened: Any, backend: Backend) -> None:
    """What was recorded before is recorded again."""
    backend.go.clear()
    engine = opened(max_position_embeddings=1024)
    recordings = []

    def record(compute: Callable[[], Any]) -> Any:
        recordings.append(engine._layer_run is not None)
        before = engine._steps._fed.clone()
        output = tuple(each.clone() for each in compute())
        engine._steps._fed.copy_(before)

        def play() -> None:
            for kept, new in zip(output, compute(), strict=True):
                kept.copy_(new)

        return play, output

    engine._recorder = lambda: record
    engine._forget()
    prompts = [engine.encode(text) for text in PROMPTS[:3]]
    long = GenerationOptions(temperature=0, max_new_tokens=300)
    want = [plain(engine, prompt, do_sample=False, max_new_tokens=300) for prompt in prompts]
    assert backend.called.wait(60)
    streams = [engine.stream(prompt, long, Cancellation()) for prompt in prompts]
    begun = [[next(stream) for _ in range(5)] for stream in streams]
    assert not engine.packed.is_set()
    backend.go.set()
    assert [tokens([*first, *stream]) for first, stream in zip(begun, streams, strict=True)] == want
    assert engine.packed.is_set()
    assert backend.runs > 0
    assert set(recordings) == {False, True}


def test_layers_that_cannot_be_compiled_cost_speed_alone(
    opened: Any, backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    backend.problem = OSError("no C compiler")
    engine = opened()
    assert engine.wait_until_packed(60)
    assert caplog.text.count("which is slower") == 1
    assert "no C compiler" in caplog.text
    prompt = engine.encode(PROMPTS[0])
    assert tokens(deltas(engine, prompt)) == plain(engine, prompt, do_sample=False, max_new_tokens=24)
    assert not any("forward" in vars(layer) for layer in engine._model.model.layers)


def test_a_compiled_layer_that_is_off_is_not_used(
    opened: Any, backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    backend.factor = 1.01
    engine = opened()
    assert engine.wait_until_packed(60)
    assert "a compiled layer is off by" in caplog.text
    assert engine._layer_run is None


def test_a_model_of_another_make_answers_as_it_is(opened: Any, backend: Backend) -> None:
    """GPT-2 hands its layers the cache by place."""
    engine = opened(recipe="gpt2")
    assert engine.wait_until_packed(60)
    prompt = engine.encode(PROMPTS[0])
    assert tokens(deltas(engine, prompt)) == plain(engine, prompt, do_sample=False, max_new_tokens=24)


def test_compiling_can_be_switched_off(opened: Any, backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_COMPILE_DISABLE", "1")
    engine = opened()
    assert engine.wait_until_packed(60)
    assert tokens(deltas(engine, engine.encode("hello")))
    assert not backend.called.is_set()


def test_an_adapter_ends_the_compiled_layers(
    opened: Any, backend: Backend, tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    import tiny as recipes

    from tabml.files.sources import resolve
    from tabml.text.repository import ADAPTER_CONFIG, Repository

    engine = opened()
    assert engine.wait_until_packed(60)
    prompts = [engine.encode(text) for text in PROMPTS]
    want = [plain(engine, prompt, do_sample=False, max_new_tokens=24) for prompt in prompts]
    assert tokens(deltas(engine, prompts[0])) == want[0]
    folder = recipes.lora(tmp_path / "one", tiny("llama_chat"), 1)
    with Repository(*resolve(folder, None, None, begin=ADAPTER_CONFIG, what="adapter")) as repository:
        repository.fetch_adapter()
        engine.load_adapter(repository, "one")
    before = backend.runs
    with_it = GenerationOptions(temperature=0, max_new_tokens=24, adapter="one")
    adapted = tokens(deltas(engine, prompts[1], with_it))
    assert adapted != want[1]
    found = side_by_side(engine, [*prompts, prompts[1]], [*[GREEDY] * len(prompts), with_it])
    assert [tokens(each) for each in found] == [*want, adapted]
    assert backend.runs == before


def test_a_few_tokens_start_no_compiler(opened: Any, backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """A script that wants no more has not to wait for its end."""
    monkeypatch.setattr("tabml.text._torch.engine._COMPILE_AFTER_S", 100.0)
    monkeypatch.setattr("tabml.text._torch.engine._COMPILE_AFTER_STEPS", 60)
    engine = opened()
    for _ in range(2):
        assert deltas(engine, engine.encode("hello"))
    assert engine._compiled._thread is None
    assert deltas(engine, engine.encode("hello"))
    assert backend.called.wait(60)
    other = opened()
    assert other.wait_until_packed(60)
    assert other._layer_run is not None


def test_an_engine_is_closed_while_it_compiles(opened: Any, backend: Backend) -> None:
    backend.go.clear()
    engine = opened()
    assert backend.called.wait(60)
    threading.Timer(0.5, backend.go.set).start()
    began = time.monotonic()
    engine.close()
    assert time.monotonic() - began < 30
    assert not any(thread.name == "compile" for thread in threading.enumerate())


def test_a_closed_model_goes(opened: Any, backend: Backend) -> None:
    engine = opened()
    assert engine.wait_until_packed(60)
    assert deltas(engine, engine.encode("hello"))
    model = weakref.ref(engine._model)
    engine.close()
    gc.collect()
    assert model() is None


OPEN = """
    import sys, time
    from pathlib import Path
    import transformers
    from tabml.cancellation import Cancellation
    from tabml.generation.options import GenerationOptions
    from tabml.text._torch.engine import TorchEngine

    model = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1]).eval()
    engine = TorchEngine(model, transformers.AutoTokenizer.from_pretrained(sys.argv[1]), static=True, compiled=True)
    def answer():
        prompt = engine.encode("the quick brown fox")
        stream = engine.stream(prompt, GenerationOptions(temperature=0, max_new_tokens=24), Cancellation())
        return [token for delta in stream for token in delta.token_ids]
    engine._hurry.set()
    before = answer()
"""


def test_inductor_compiles_and_a_process_may_end_meanwhile(
    tiny: Callable[[str], Path], run_python: Any, tmp_path: Path
) -> None:
    """The second process ends while it compiles."""
    whole = f"""{OPEN}
    assert engine.wait_until_packed(200)
    print(engine._layer_run is not None, answer() == before)
    """
    cut = f"""{OPEN}
    time.sleep(float(sys.argv[2]))
    print(engine.packed.is_set())
    """
    caches = {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    ended = run_python(whole, tiny("llama_chat"), timeout=240, **caches)
    assert (ended.returncode, ended.stdout) == (0, "True True\n"), ended.stderr
    caches = {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "other")}
    ended = run_python(cut, tiny("llama_chat"), 1.5, timeout=240, **caches)
    assert (ended.returncode, ended.stdout) == (0, "False\n"), ended.stderr
