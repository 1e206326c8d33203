"""Decoder layers of single tokens in fewer operations: the same scores, by the same modules, and only where they are known."""

from __future__ import annotations

import logging
import weakref
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from tabml.text._torch import shortcut  # noqa: E402

SIZE: dict[str, Any] = {
    "vocab_size": 64, "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3, "num_attention_heads": 6,
    "num_key_value_heads": 2, "max_position_embeddings": 128,
}  # fmt: skip
CONFIGS: dict[str, Any] = {
    "llama": lambda: transformers.LlamaConfig(attention_bias=True, mlp_bias=True, **SIZE),
    "mistral": lambda: transformers.MistralConfig(head_dim=16, sliding_window=4, **SIZE),
    "qwen2": lambda: transformers.Qwen2Config(**SIZE),
    "qwen3": lambda: transformers.Qwen3Config(head_dim=16, **SIZE),
}


def made(config: Any) -> Any:
    torch.manual_seed(1)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()
    for parameter in model.parameters():  # biases and norms too, which are zeros and ones
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    return model.requires_grad_(False)


def scores(model: Any, rows: int) -> Any:
    """After a prompt and four single tokens; the rows begin at different places."""
    torch.manual_seed(2)
    ids = torch.randint(1, SIZE["vocab_size"], (rows, 9))
    mask = torch.ones_like(ids)
    if rows > 1:
        mask[1, :2] = 0
    cache, found = transformers.DynamicCache(), []
    with torch.inference_mode():
        for begin, end in ((0, 5), (5, 6), (6, 7), (7, 8), (8, 9)):
            found.append(model(ids[:, begin:end], attention_mask=mask[:, :end], past_key_values=cache).logits[:, -1])
    return torch.stack(found)


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("kind", CONFIGS)
def test_scores_stay_the_same(kind: str, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = made(CONFIGS[kind]())
    wanted = scores(model, rows)
    assert len(list(shortcut.shortened(model))) == 3
    attended: list[int] = []
    monkeypatch.setattr(type(model.model.layers[0].self_attn), "forward", _counted(model, attended))
    found = scores(model, rows)
    assert len(attended) == 3  # by the prompt alone
    assert float((found - wanted).norm() / wanted.norm()) < 1e-5


def _counted(model: Any, attended: list[int]) -> Any:
    own = type(model.model.layers[0].self_attn).forward

    def forward(self: Any, *args: Any, **options: Any) -> Any:
        attended.append(1)
        return own(self, *args, **options)

    return forward


def test_modules_that_come_later_are_those_that_compute() -> None:
    model = made(CONFIGS["llama"]())
    list(shortcut.shortened(model))
    before = scores(model, 1)
    down = model.model.layers[1].mlp.down_proj
    model.model.layers[1].mlp.down_proj = torch.nn.Linear(80, 48).requires_grad_(False)
    assert not torch.allclose(scores(model, 1)[-1], before[-1], atol=1e-3)
    model.model.layers[1].mlp.down_proj = down
    assert torch.equal(scores(model, 1), before)


def test_a_layer_that_computes_something_else_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = made(CONFIGS["llama"]())
    kind = type(model.model.layers[0])
    own = kind.forward
    monkeypatch.setattr(kind, "forward", lambda self, *args, **options: 2 * own(self, *args, **options))
    with caplog.at_level(logging.WARNING, "tabml.text"):
        assert not list(shortcut.shortened(model))
    assert "off by" in caplog.text
    assert not any("forward" in vars(layer) for layer in model.model.layers)


def test_a_layer_with_other_modules_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    model = made(CONFIGS["llama"]())
    model.model.layers[0].input_layernorm = torch.nn.LayerNorm(48)
    with caplog.at_level(logging.WARNING, "tabml.text"):
        assert not list(shortcut.shortened(model))
    assert "AttributeError" in caplog.text
    assert not any("forward" in vars(layer) for layer in model.model.layers)


def test_other_models_and_attentions_are_left_alone() -> None:
    eager = transformers.AutoModelForCausalLM.from_config(CONFIGS["llama"](), attn_implementation="eager")
    gpt2 = transformers.GPT2LMHeadModel(transformers.GPT2Config(n_layer=2, n_embd=32, n_head=4, vocab_size=64))
    assert not list(shortcut.shortened(eager))
    assert not list(shortcut.shortened(gpt2))


def test_layers_are_shortened_once() -> None:
    model = made(CONFIGS["llama"]())
    assert len(list(shortcut.shortened(model))) == 3
    assert not list(shortcut.shortened(model))


def test_a_model_goes_with_its_last_user() -> None:
    model = made(CONFIGS["llama"]())
    list(shortcut.shortened(model))
    layer = weakref.ref(model.model.layers[0])
    assert layer() is not None
    del model
    assert layer() is None
