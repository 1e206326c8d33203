"""Decoder layers and products by compiled kernels: the scores of torch's operations, and only where the kernels know the layer."""

from __future__ import annotations

import copy
import ctypes
import hashlib
import importlib
import logging
import math
import platform
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from tabml.text._torch import packing, shortcut  # noqa: E402
from tabml.text._torch.cache import SlotCache  # noqa: E402
from tabml.text._torch.kernels import door  # noqa: E402

SIZE: dict[str, Any] = {
    "vocab_size": 128, "hidden_size": 96, "intermediate_size": 160, "num_hidden_layers": 3, "num_attention_heads": 6,
    "num_key_value_heads": 2, "max_position_embeddings": 512, "head_dim": 32,
}  # fmt: skip
CONFIGS: dict[str, Any] = {
    "llama": lambda: transformers.LlamaConfig(attention_bias=True, mlp_bias=True, **SIZE),
    "mistral": lambda: transformers.MistralConfig(sliding_window=None, **SIZE),
    "qwen2": lambda: transformers.Qwen2Config(**SIZE),
    "qwen3": lambda: transformers.Qwen3Config(**SIZE),
}
FORMATS: dict[str, tuple[str, str | None, float]] = {
    "float32": ("float32", None, 1e-5),
    "float16": ("float32", "float16", 1e-5),
    "bfloat16": ("bfloat16", None, 0.03),
    "int8": ("bfloat16", "int8", 0.03),
    "int4": ("bfloat16", "int4", 0.03),
}
"""Number format of the model, what it is packed to, and how far off scores may be: bfloat16 is rounded at other places."""
GUARD = tuple(float(number) for number in range(64))


@pytest.fixture(autouse=True, scope="module")
def kernels() -> door.Kernels:
    """Loaded."""
    found = door.TOKENS.wait()
    assert found is not None
    return found


def made(kind: str, form: str = "float32") -> Any:
    """A small model of random weights, packed, with layers that know the kernels."""
    torch.manual_seed(1)
    dtype, packed, _ = FORMATS[form]
    model = transformers.AutoModelForCausalLM.from_config(CONFIGS[kind](), attn_implementation="sdpa").eval()
    for parameter in model.parameters():  # biases and norms too, which are zeros and ones
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    model = model.to(getattr(torch, dtype)).requires_grad_(False)
    assert packing.pack(model, packed) > 0
    assert len(list(shortcut.shortened(model))) == SIZE["num_hidden_layers"]
    return model


def plain(model: Any) -> Any:
    """It, from now on with the layers' own forward."""
    for layer in model.model.layers:
        vars(layer).pop("forward")
    return model


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch, kernels: door.Kernels) -> list[int]:
    """How many rows each layer had that a kernel computed; what lies behind its room stays as it is."""
    rows: list[int] = []
    sizes: list[int] = []

    def room_of(*given: int, **named: int) -> int:
        sizes.append(kernels.room_of(*given, **named))
        return sizes[-1] + len(GUARD)

    def layer(*given: Any) -> None:
        behind = (ctypes.c_float * len(GUARD)).from_address(given[-1] + 4 * sizes[-1])
        behind[:] = GUARD
        rows.append(given[5])
        kernels.decoder_layer(*given)
        assert tuple(behind) == GUARD

    monkeypatch.setattr(door.TOKENS, "found", kernels._replace(decoder_layer=layer, room_of=room_of))
    return rows


def scores(model: Any, lengths: tuple[int, ...], steps: int = 4) -> Any:
    """After prompts of these lengths, each in a slot, and some single tokens of all of them; (steps, rows, vocabulary)."""
    generator = torch.Generator().manual_seed(2)
    slots, found = SlotCache(SIZE["num_hidden_layers"], SIZE["max_position_embeddings"]), []
    with torch.inference_mode():
        for length in lengths:
            slot = slots.add_slot()
            ids = torch.randint(1, SIZE["vocab_size"], (1, length), generator=generator)
            slots.one(slot, length)
            model(input_ids=ids, position_ids=torch.arange(length)[None], past_key_values=slots, use_cache=True)
            slots.advance(length)
        for _ in range(steps):
            ids = torch.randint(1, SIZE["vocab_size"], (len(lengths), 1), generator=generator)
            positions = torch.tensor(slots.lengths)[:, None]
            mask = None
            if len(lengths) == 1:
                slots.one(0, 1)
            else:
                mask = slots.many(len(lengths), torch.device("cpu"))
            found.append(
                model(
                    input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=slots, use_cache=True
                ).logits[:, -1]
            )
            slots.advance()
    return torch.stack(found).float()


@pytest.mark.parametrize("lengths", [(5,), (300,), (9, 2, 40), tuple(range(2, 34))], ids=["1", "long", "3", "32"])
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("kind", CONFIGS)
def test_scores_are_those_of_the_layers_own_forward(
    kind: str, form: str, lengths: tuple[int, ...], computed: list[int]
) -> None:
    model = made(kind, form)
    found = scores(model, lengths)
    assert computed == [len(lengths)] * (SIZE["num_hidden_layers"] * 4 + 1)  # the first layer is held to torch's once
    wanted = scores(plain(model), lengths)
    assert float((found - wanted).norm() / wanted.norm()) < FORMATS[form][2]


def test_more_rows_than_a_kernel_takes_go_the_other_way(computed: list[int]) -> None:
    model = made("llama")
    lengths = tuple([3] * (door.MOST_ROWS + 1))
    found = scores(model, lengths, 1)
    assert not computed
    assert torch.allclose(found, scores(plain(model), lengths, 1), atol=1e-4)


def test_a_window_is_attended_to_by_torch(computed: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CONFIGS, "mistral", lambda: transformers.MistralConfig(sliding_window=8, **SIZE))
    model = made("mistral")
    found = scores(model, (12,))
    assert not computed
    assert torch.allclose(found, scores(plain(model), (12,)), atol=1e-4)


@pytest.mark.parametrize(
    "changed",
    [{"head_dim": 16}, {"hidden_act": "gelu"}, {"intermediate_size": 152}],
    ids=["heads of 16", "gelu", "width 152"],
)
def test_layers_that_no_kernel_knows_are_computed_by_torch(
    changed: dict[str, Any], computed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CONFIGS, "llama", lambda: transformers.LlamaConfig(**(SIZE | changed)))
    model = made("llama")
    found = scores(model, (5,))
    assert not computed
    assert torch.allclose(found, scores(plain(model), (5,)), atol=1e-4)


def test_a_module_that_is_another_by_now_is_the_one_that_computes(computed: list[int]) -> None:
    model = made("llama")
    before = scores(model, (5,))
    assert len(computed) == 4 * 3 + 1
    down = model.model.layers[1].mlp.down_proj
    other = torch.nn.Linear(160, 96).requires_grad_(False)
    model.model.layers[1].mlp.down_proj = other
    computed.clear()
    plainly = scores(model, (5,))
    assert len(computed) == 4 * 2  # not the layer that isn't packed
    model.model.layers[1].mlp.down_proj = (
        packing.MklLinear(other) if packing.mkl_is_quick() else packing.RowsLinear(other)
    )
    assert torch.allclose(scores(model, (5,)), plainly, atol=1e-4)
    assert not torch.allclose(plainly, before, atol=1e-3)
    model.model.layers[1].mlp.down_proj = down
    assert torch.equal(scores(model, (5,)), before)


def test_kernels_that_compute_something_else_are_not_believed(
    kernels: door.Kernels, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = made("llama")
    calls: list[int] = []

    def wrong(*given: Any) -> None:
        calls.append(1)
        kernels.decoder_layer(*given[:6], given[7], given[6], *given[8:])  # sine and cosine exchanged

    monkeypatch.setattr(door.TOKENS, "found", kernels._replace(decoder_layer=wrong))
    with caplog.at_level(logging.WARNING, "tabml.text"):
        found = scores(model, (5,))
    assert len(calls) == 1
    assert "off by" in caplog.text
    assert torch.allclose(found, scores(plain(model), (5,)), atol=1e-4)


def test_without_kernels_everything_is_computed_by_torch(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = made("llama", "int8")
    wanted = scores(model, (5,))

    def failing() -> None:
        raise OSError("no libgomp")

    monkeypatch.setattr(door, "TOKENS", door.Loader(door._for_tokens))
    monkeypatch.setattr(door, "_give_symbols", failing)
    with caplog.at_level(logging.WARNING, "tabml.text"):
        assert set(door.TOKENS.preparing()) <= {"kernels"}
        assert door.TOKENS.wait() is None
    assert caplog.text.count("no libgomp") == 1
    found = scores(model, (5,))
    assert float((found - wanted).norm() / wanted.norm()) < 0.03


@pytest.mark.parametrize(
    "problem", [RuntimeError("no locator available"), EOFError("Ran out of input"), OSError("full")]
)
def test_compiled_code_that_cannot_be_kept_is_compiled_all_the_same(problem: Exception) -> None:
    from tabml.text._torch.kernels.base import kept

    asked: list[dict[str, Any]] = []

    def nowhere(signature: str, **options: Any) -> Callable[[Any], Any]:
        asked.append(options)
        if options.get("cache"):
            raise problem
        return lambda function: (signature, function)

    function: Any = object()
    assert kept("void()", nowhere, nogil=True)(function) == ("void()", function)
    assert asked == [{"cache": True, "nogil": True}, {"nogil": True}]


@pytest.mark.parametrize(
    ("name", "built_on"),
    [
        ("products", ("vectors", "base")),
        ("decoder", ("vectors", "base", "products")),
        ("quantized", ("vectors", "base")),
        ("encoder", ("vectors", "base", "quantized")),
    ],
)
def test_compiled_code_is_compiled_anew_when_what_it_is_built_on_changes(name: str, built_on: tuple[str, ...]) -> None:
    """numba looks at the file of a function alone."""
    folder = Path(door.__file__).parent
    kernels = importlib.import_module(f"tabml.text._torch.kernels.{name}")
    imported = re.findall(r"from tabml.text._torch.kernels.(\w+) import", (folder / f"{name}.py").read_text("utf-8"))
    assert set(imported) <= set(built_on)
    digest = hashlib.sha256(b"".join((folder / f"{each}.py").read_bytes() for each in built_on)).hexdigest()
    assert digest.startswith(kernels.BUILT_ON), f"set BUILT_ON to {digest[:16]!r}"


def test_a_default_number_format_changes_nothing(computed: list[int]) -> None:
    """Loading another model sets it for a while, for all threads."""
    model = made("llama")
    wanted = scores(model, (5, 6))
    torch.set_default_dtype(torch.bfloat16)
    try:
        assert door._for_tokens() is not None
        assert packing.mkl_is_quick.__wrapped__() in (False, True)
        list(shortcut.shortened(plain(model)))
        found = scores(model, (5, 6))
    finally:
        torch.set_default_dtype(torch.float32)
    assert len(computed) == 2 * (4 * 3 + 1)
    assert torch.equal(found, wanted)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="its names of processors")
def test_a_processor_that_lacks_instructions_gets_no_kernels(run_python: Callable[..., Any], tmp_path: Path) -> None:
    """LLVM would call functions that are nowhere, and end the process."""
    ended = run_python(
        """
        import os
        os.environ["NUMBA_CPU_NAME"], os.environ["NUMBA_CPU_FEATURES"] = "generic", ""
        from tabml.text._torch.kernels import door
        print(door.TOKENS.wait())
        """,
        tmp_path,
    )
    assert ended.stdout.strip() == "None"
    assert "lacks avx2, fma, f16c" in ended.stderr


def test_numbers_that_are_none_say_nothing_about_the_kernels(
    computed: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    model = made("llama")
    table = model.model.embed_tokens.weight
    whole = table.clone()
    table[:] = math.nan
    assert scores(model, (5,)).isnan().all()
    table[:] = whole
    computed.clear()
    scores(model, (5,))
    assert len(computed) == 4 * 3 + 1
    assert not caplog.records


def test_weights_stay_where_a_kernel_reads_them_when_a_model_is_cast() -> None:
    layer = packing.RowsLinear(torch.nn.Linear(64, 64).requires_grad_(False))
    x = torch.randn(1, 64)
    before = layer(x)
    layer.bfloat16()
    noise = [torch.full((64, 64), math.nan) for _ in range(8)]
    assert torch.equal(layer(x), before)
    assert noise


def test_addresses_do_not_travel() -> None:
    layer = packing.Int8Linear(torch.nn.Linear(64, 64).requires_grad_(False))
    with pytest.raises(TypeError, match="by its address"):
        copy.deepcopy(layer)


def test_a_script_that_ends_while_kernels_load_ends_well(run_python: Callable[..., Any], tmp_path: Path) -> None:
    ended = run_python(
        """
        from tabml.text._torch.kernels import door
        door.TOKENS.prepare()
        print("over")
        """,
        tmp_path,
    )
    assert ended.stdout.strip() == "over"
    assert ended.returncode == 0
