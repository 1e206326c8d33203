"""LoRA adapters against plain transformers with the same matrices merged into its weights."""

from __future__ import annotations

import gc
import math
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tabml.errors import (
    CorruptModelError,
    InferenceError,
    ModelFileNotFoundError,
    ModelKindError,
    OptionError,
    UnsafeModelError,
)
from tabml.files import DirectoryProvider, FileRef, MemoryProvider
from tabml.pipelines import model_spec
from tabml.pipelines.text import make_text
from tabml.text import GenerationOptions, TextGenerator

RANK, ALPHA = 4, 16
PROMPT = "the quick brown fox"


def write(folder: Path, base: Path, seed: int, **more: Any) -> Path:
    """An adapter of random matrices for a tiny model."""
    import tiny

    return Path(tiny.lora(folder, base, seed, rank=RANK, alpha=ALPHA, **more))


def merged(base: Path, adapter: Path, scale: float = ALPHA / RANK) -> Any:
    """Plain transformers with W + scale · B A."""
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base).eval()
    tensors = load_file(adapter / "adapter_model.safetensors")
    with torch.no_grad():
        for key, down in tensors.items():
            if ".lora_A." in key:
                layer = model.get_submodule(key.removeprefix("base_model.model.").removesuffix(".lora_A.weight"))
                change = scale * tensors[key.replace("lora_A", "lora_B")] @ down
                layer.weight += change.T if hasattr(layer, "nf") else change
    return model


def expected(model: Any, ids: list[int], count: int = 16) -> list[int]:
    import torch

    with torch.inference_mode():
        out = model.generate(
            torch.tensor([ids]), do_sample=False, max_new_tokens=count, eos_token_id=None, pad_token_id=0
        )
    return list(out[0][len(ids) :].tolist())


def options(adapter: str | None = None, count: int = 16) -> GenerationOptions:
    return GenerationOptions(temperature=0, max_new_tokens=count, min_new_tokens=count, adapter=adapter)


@pytest.fixture(scope="module")
def base(tiny: Callable[[str], Path]) -> Path:
    return tiny("llama_chat")


@pytest.fixture(scope="module")
def folders(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("adapters")
    return {name: write(root / name, base, seed) for seed, name in enumerate(("one", "two"))}


@pytest.fixture(params=["of any shape", "static"])
def model(base: Path, request: pytest.FixtureRequest) -> Iterator[TextGenerator]:
    with TextGenerator(base) as opened:
        engine: Any = opened._ready().engine
        engine._static = request.param == "static"  # as on a GPU
        engine._forget()
        yield opened


def tokens(model: TextGenerator, adapter: str | None, prompt: str = PROMPT) -> list[int]:
    return list(model.generate(prompt, options(adapter)).choices[0].token_ids)


def test_an_adapter_says_what_the_merged_model_says(model: TextGenerator, base: Path, folders: dict[str, Path]) -> None:
    engine: Any = model._ready().engine
    ids = engine.encode(PROMPT, special_tokens=True)
    plain = tokens(model, None)
    for name, folder in folders.items():
        model.load_adapter(name, folder)
        assert tokens(model, name) == expected(merged(base, folder), ids) != plain
    assert model.adapters == ("one", "two")
    assert tokens(model, None) == plain


def test_adapters_of_conv1d_layers_are_read_too(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    base = tiny("gpt2")
    folder = write(tmp_path / "gpt", base, 5)
    with TextGenerator(base, adapters={"mine": folder}) as model:
        engine: Any = model._ready().engine
        assert tokens(model, "mine") == expected(merged(base, folder), engine.encode(PROMPT, special_tokens=True))


def test_answers_of_one_batch_have_each_their_own(model: TextGenerator, base: Path, folders: dict[str, Path]) -> None:
    for name, folder in folders.items():
        model.load_adapter(name, folder)
    names = ["one", None, "two", "one", None, "two"]
    alone = [tokens(model, name, f"{PROMPT} {at}") for at, name in enumerate(names)]
    found: dict[int, list[int]] = {}
    threads = [
        threading.Thread(target=lambda at=at, name=name: found.update({at: tokens(model, name, f"{PROMPT} {at}")}))
        for at, name in enumerate(names)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[at] for at in range(len(names))] == alone


def test_an_answer_goes_on_when_one_with_an_adapter_has_come_and_gone(
    model: TextGenerator, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the plain choice of the best token, whose next step is begun before its last one is looked at."""
    monkeypatch.setattr("tabml.text._torch.engine._PIECE", 8)
    model.load_adapter("one", folders["one"])
    plain = GenerationOptions(temperature=0, max_new_tokens=150)
    prompts = [PROMPT, f"{PROMPT} jumps over the lazy dog", PROMPT[4:]]
    want, wanted = model.generate(PROMPT, plain).text, [tokens(model, "one", prompt) for prompt in prompts]
    engine: Any = model._ready().engine
    engine._forget()
    stream = model.stream(PROMPT, plain)
    found = next(stream).text
    for prompt, each in zip(prompts, wanted, strict=True):
        assert tokens(model, "one", prompt) == each
        assert engine._running, "the other answer has ended before it could be disturbed"
    assert found + "".join(delta.text for delta in stream) == want


def test_what_one_adapter_has_read_is_not_reused_for_another(model: TextGenerator, folders: dict[str, Path]) -> None:
    model.load_adapter("one", folders["one"])
    long = "hello world, how are you today? " * 3
    first = model.generate(long, options(None))
    assert model.generate(long, options("one")).usage.cached_tokens == 0
    assert model.generate(long, options("one")).usage.cached_tokens > 0
    again = model.generate(long, options(None))
    assert again.usage.cached_tokens > 0
    assert again.text == first.text


def test_the_scores_are_those_of_the_merged_model_beside_others_too(
    model: TextGenerator, base: Path, folders: dict[str, Path]
) -> None:
    import torch

    for name, folder in folders.items():
        model.load_adapter(name, folder)
    engine: Any = model._ready().engine
    wanted: dict[str | None, Any] = {name: merged(base, folder) for name, folder in folders.items()}
    wanted[None] = merged(base, folders["one"], 0)
    found: dict[str | None, Any] = {}

    def ask(name: str | None) -> None:
        said = GenerationOptions(temperature=0, max_new_tokens=16, min_new_tokens=16, adapter=name, logprobs=5)
        found[name] = model.generate(PROMPT, said).choices[0]

    threads = [threading.Thread(target=ask, args=(name,)) for name in wanted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ids = engine.encode(PROMPT, special_tokens=True)
    for name, plain in wanted.items():
        with torch.inference_mode():
            logs = plain(torch.tensor([[*ids, *found[name].token_ids]])).logits[0].log_softmax(-1)
        for at, said in enumerate(found[name].logprobs):
            row = logs[len(ids) - 1 + at]
            for token, value in (*said.alternatives, (said.token_id, said.logprob)):
                assert value == pytest.approx(row[token].item(), abs=1e-4)


@pytest.mark.parametrize("kind", [None, "int8", "int4"])
def test_packed_weights_take_adapters(kind: str | None) -> None:
    import torch
    from torch import nn

    from tabml.text._torch.adapters import Adapter, Rows, put_into
    from tabml.text._torch.packing import pack

    torch.manual_seed(0)
    dtype = torch.float32 if kind is None else torch.bfloat16
    model = nn.ModuleDict({"inner": nn.Linear(64, 96, dtype=dtype)}).requires_grad_(False)
    pack(model, kind)
    packed, rows = model["inner"], Rows()
    assert type(packed) is not nn.Linear
    adapters = [
        Adapter(name, {"inner": (torch.randn(64, 4, dtype=dtype), torch.randn(4, 96, dtype=dtype))}) for name in "ab"
    ]
    for adapter in adapters:
        put_into(model, adapter, rows)
    x = torch.randn(4, 3, 64, dtype=dtype)
    chosen = [adapters[0], None, adapters[1], adapters[0]]
    with torch.inference_mode():
        rows.choose(chosen)
        found = model["inner"](x)
        for row, adapter in enumerate(chosen):
            wanted = packed(x)[row]
            if adapter is not None:
                down, up = adapter.layers["inner"]
                wanted = wanted + x[row] @ down @ up
            torch.testing.assert_close(found[row], wanted)
        rows.choose([adapters[1]] * 4)
        down, up = adapters[1].layers["inner"]
        torch.testing.assert_close(model["inner"](x), packed(x) + x @ down @ up)


def test_a_quantised_model_runs_them(base: Path, tmp_path: Path) -> None:
    import torch
    import transformers

    from tabml.text._torch.packing import Int8Linear

    wide = transformers.AutoConfig.from_pretrained(base, hidden_size=64, head_dim=32)
    torch.manual_seed(0)
    transformers.LlamaForCausalLM(wide).save_pretrained(tmp_path / "wide")
    transformers.AutoTokenizer.from_pretrained(base).save_pretrained(tmp_path / "wide")
    folder = write(tmp_path / "mine", tmp_path / "wide", 1)
    with TextGenerator(tmp_path / "wide", quantization="int8", adapters={"mine": folder}) as model:
        engine: Any = model._ready().engine
        assert type(engine._model.model.layers[0].self_attn.q_proj.inner) is Int8Linear
        assert tokens(model, "mine") != tokens(model, None)


def test_a_half_precision_file_is_scaled_in_full_precision(base: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    from tabml.text._torch.adapters import read_adapter
    from tabml.text.repository import Repository

    folder = write(tmp_path / "half", base, 4, lora_alpha=7)
    path = folder / "adapter_model.safetensors"
    tensors = {key: tensor.bfloat16() for key, tensor in load_file(path).items()}
    save_file(tensors, path)
    with TextGenerator(base) as model, Repository(DirectoryProvider(tmp_path), FileRef("half", "x")) as repository:
        repository.fetch_adapter()
        engine: Any = model._ready().engine
        adapter = read_adapter(repository, "half", engine._model)
    for layer, (down, up) in adapter.layers.items():
        assert torch.equal(down, tensors[f"base_model.model.{layer}.lora_A.weight"].float().T)
        assert torch.equal(up, tensors[f"base_model.model.{layer}.lora_B.weight"].float().T * (7 / RANK))


def test_one_whose_numbers_overflow_spoils_nobody_elses_answer(
    model: TextGenerator, base: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    folder = write(tmp_path / "huge", base, 1)
    path = folder / "adapter_model.safetensors"
    save_file({key: tensor * 1e30 for key, tensor in load_file(path).items()}, path)
    model.load_adapter("huge", folder)
    long = "hello " * 8
    wanted = [model.generate(prompt, options(None, 60)).choices[0].token_ids for prompt in ("1", long)]
    for at in range(8):  # more than the slots that are kept, so that theirs are used again
        with pytest.raises(InferenceError, match="scores with the adapter 'huge' are not numbers"):
            model.generate(f"{PROMPT} {at}", options("huge", 60))
    stream = model.stream("1", options(None, 60))
    found = list(next(stream).token_ids)
    beside: list[Any] = []
    thread = threading.Thread(target=lambda: beside.append(model.generate(long, options(None, 60)).choices[0]))
    thread.start()
    for delta in stream:
        found += delta.token_ids
    thread.join()
    assert tuple(found) == wanted[0]
    assert beside[0].token_ids == wanted[1]


@pytest.mark.parametrize("rslora", [False, True])
def test_the_scale_is_that_of_the_configuration(rslora: bool, base: Path, tmp_path: Path) -> None:
    folder = write(
        tmp_path / "scaled", base, 3, use_rslora=rslora, alpha_pattern={"q_proj": 2.0, "v_proj": 2.0}, lora_alpha=2
    )
    with TextGenerator(base, adapters={"mine": folder}) as model:
        ids = model._ready().engine.encode(PROMPT, special_tokens=True)
        scale = 2 / (math.sqrt(RANK) if rslora else RANK)
        assert tokens(model, "mine") == expected(merged(base, folder, scale), ids)


def test_one_that_is_unloaded_or_replaced_lets_running_answers_end(
    model: TextGenerator, folders: dict[str, Path]
) -> None:
    model.load_adapter("one", folders["one"])
    whole = model.generate(PROMPT, options("one", 40)).text
    stream = model.stream(PROMPT, options("one", 40))
    begin = next(stream).text
    model.load_adapter("one", folders["two"])
    model.unload_adapter("one")
    assert begin + "".join(delta.text for delta in stream) == whole
    with pytest.raises(OptionError, match="adapter='one' is not loaded; there are: none"):
        model.generate(PROMPT, options("one"))
    with pytest.raises(OptionError, match="not loaded"):
        model.unload_adapter("one")


def test_adapters_come_through_the_provider_of_the_model(base: Path, folders: dict[str, Path]) -> None:
    files = {("base", path.name): path.read_bytes() for path in base.iterdir() if path.is_file()}
    files |= {("mine", path.name): path.read_bytes() for path in folders["one"].iterdir()}
    provider = MemoryProvider(files)
    spec = model_spec("base", pipeline="text-generation", options={"adapters": "a=mine, b=mine"})
    from tabml.pipelines import find_pipeline

    with make_text(find_pipeline("text-generation"), spec, provider) as model:
        assert model.load().adapters == ("a", "b")  # type: ignore[attr-defined]
    with TextGenerator(FileRef("base", "config.json"), files=provider) as other:
        other.load_adapter("c", "mine")
        assert tokens(other, "c") != tokens(other, None)
    for wrong in ("a", "=mine", "a=../x", "a b=mine"):
        with pytest.raises(OptionError, match="adapter"):
            model_spec("base", pipeline="text-generation", options={"adapters": wrong})


def test_the_weights_of_one_that_is_unloaded_are_let_go(model: TextGenerator, folders: dict[str, Path]) -> None:
    model.load_adapter("one", folders["one"])
    engine: Any = model._ready().engine
    weights = weakref.ref(next(iter(engine._adapters["one"].layers.values()))[0])
    tokens(model, "one")
    model.unload_adapter("one")
    tokens(model, None)
    gc.collect()
    assert weights() is None


REFUSED = [
    ({"peft_type": "IA3"}, ModelKindError, "peft_type='IA3'"),
    ({"use_dora": True}, ModelKindError, "use_dora=True"),
    ({"bias": "all"}, ModelKindError, "bias='all'"),
    ({"modules_to_save": ["lm_head"]}, ModelKindError, "modules_to_save"),
    ({"auto_map": {"x": "y"}}, UnsafeModelError, "auto_map"),
    ({"lora_alpha": "x"}, CorruptModelError, "lora_alpha"),
    ({"lora_alpha": 1e30}, CorruptModelError, "lora_alpha"),
    ({"rank_pattern": {"q_proj": 9}}, CorruptModelError, "rank 4; adapter_config.json says 9"),
    ({"rank_pattern": {"(a+)+$": 9}}, ModelKindError, "only names of layers"),
    ({"alpha_pattern": [1]}, CorruptModelError, "alpha_pattern"),
    ({"r": 8}, CorruptModelError, "rank 4; adapter_config.json says 8"),
    ({"r": 10**9}, CorruptModelError, "r=1000000000 must be a whole number from 1 to"),
    ({"r": None}, CorruptModelError, "r=None must be a whole number"),
    ({"rank_pattern": {"q_proj": 0.5}}, CorruptModelError, "rank_pattern of q_proj=0.5 must be a whole number"),
    ({"lora_bias": True}, ModelKindError, "lora_bias=True"),
    ({"layer_replication": [[0, 2], [1, 2]]}, ModelKindError, "layer_replication"),
    ({"target_parameters": ["mlp.experts"]}, ModelKindError, "target_parameters"),
    ({"init_lora_weights": "pissa_niter_16"}, ModelKindError, "save it as plain LoRA"),
]  # fmt: skip


@pytest.mark.parametrize(("config", "error", "said"), REFUSED, ids=lambda each: str(each)[:30])
def test_other_kinds_and_lies_are_refused(
    config: dict[str, Any], error: type[Exception], said: str, model: TextGenerator, base: Path, tmp_path: Path
) -> None:
    folder = write(tmp_path / "bad", base, 1, **config)
    with pytest.raises(error, match=said):
        model.load_adapter("bad", folder)
    assert model.adapters == ()


@pytest.mark.parametrize("source", [None, 5, {}])
def test_where_an_adapter_comes_from_is_looked_at_before_anything_is_loaded(source: Any, base: Path) -> None:
    with pytest.raises(OptionError, match=r"adapters\['mine'\]=.* must be a name, a Path or a FileRef"):
        TextGenerator(base, adapters={"mine": source})


def test_one_for_another_model_is_refused(model: TextGenerator, base: Path, tmp_path: Path) -> None:
    far = write(tmp_path / "far", base, 1, rename=lambda name: name.replace("layers.0", "layers.77"))
    with pytest.raises(CorruptModelError, match=r"no layer 'model\.layers\.77"):
        model.load_adapter("far", far)
    strange = write(tmp_path / "strange", base, 1, rename=lambda name: name.replace("base_model.", ""))
    with pytest.raises(ModelKindError, match="is no tensor of plain LoRA"):
        model.load_adapter("strange", strange)
    norm = write(tmp_path / "norm", base, 1, rename=lambda name: name.replace("self_attn.q_proj", "input_layernorm"))
    with pytest.raises(ModelKindError, match="is a LlamaRMSNorm"):
        model.load_adapter("norm", norm)
    swapped = write(
        tmp_path / "swapped", base, 1, rename=lambda name: name.replace("self_attn.q_proj", "mlp.gate_proj")
    )
    with pytest.raises(CorruptModelError, match="the layer is"):
        model.load_adapter("swapped", swapped)
    (far / "adapter_model.safetensors").rename(far / "adapter_model.bin")
    with pytest.raises(UnsafeModelError, match=r"adapter_model\.bin, a format that can run code"):
        model.load_adapter("far", far)
    with pytest.raises(ModelFileNotFoundError):
        model.load_adapter("none", tmp_path / "nowhere")
    with pytest.raises(ModelFileNotFoundError, match="adapter='/nowhere' is neither a folder nor a file"):
        model.load_adapter("none", Path("/nowhere"))
    for name in ("", "a b", "x" * 65, None):
        with pytest.raises(OptionError, match="adapter="):
            model.load_adapter(name, far)  # type: ignore[arg-type]
