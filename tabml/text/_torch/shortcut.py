"""Decoder layers of one token a row in half the operations: with a small model starting them takes a third of a token's time.

A layer keeps its modules, which may be packed or adapted meanwhile; only its ``forward`` is another one, for single tokens. Layers
of transformers' Llama, Mistral, Qwen 2 and Qwen 3 are known; the first of a model is held to its own forward before any is changed.
"""

from __future__ import annotations

import logging
import math
import weakref
from collections.abc import Iterator
from typing import Any

import torch
from torch.nn import functional

log = logging.getLogger("tabml.text")

_KNOWN = ("LlamaDecoderLayer", "MistralDecoderLayer", "Qwen2DecoderLayer", "Qwen3DecoderLayer")
_FAR_OFF = {torch.float32: 1e-5, torch.bfloat16: 0.02}
_TRIED_ROWS, _TRIED_KEYS = 2, 5


def shortened(model: Any) -> Iterator[str]:
    """Have decoder layers on a CPU compute single tokens in fewer operations, one with each value that is taken.

    Args:
        model: A causal language model of transformers, in eval mode.
    """
    if model.device.type != "cpu" or model.config.get_text_config()._attn_implementation != "sdpa":
        return
    found = [layer for layer in model.modules() if type(layer).__name__ in _KNOWN and "forward" not in vars(layer)]
    rotation = _Rotation()
    try:
        off = _difference(found[0], _Short(found[0], rotation)) if found else 0.0
    except Exception as problem:  # modules of another version may be others
        log.warning("layers of this model stay as they are, which is slower: %s: %s", type(problem).__name__, problem)
        return
    if not off <= _FAR_OFF.get(model.dtype, 0.0):
        log.warning("layers of this model stay as they are, which is slower: the short ones are off by %.1e", off)
        return
    for layer in found:
        layer.forward = _Short(layer, rotation)
        yield type(layer).__name__


class _Rotation:
    """Sines and cosines of a step as all its layers want them."""

    def __init__(self) -> None:
        self._last: tuple[Any, Any] = (None, None)

    def __call__(self, angles: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines, and sines with the signs of a rotation, (rows, 1, 1, size)."""
        of, made = self._last
        if of is not angles:
            cos, sin = angles
            half = sin.shape[-1] // 2
            made = cos.unsqueeze(1), torch.cat((-sin[..., :half], sin[..., half:]), -1).unsqueeze(1)
            self._last = angles, made
        return made


class _Norm:
    """x / √(mean(x²) + ε) · w, in float32 (RMSNorm, Zhang and Sennrich 2019)."""

    def __init__(self, norm: Any) -> None:
        self._weight, self._share = norm.weight, 1 / norm.weight.numel()
        self._epsilon = torch.tensor([norm.variance_epsilon])

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        wide = x.float()
        length = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
        y = wide * torch.addcmul(self._epsilon, length, length, value=self._share).rsqrt_()
        return y.to(x.dtype).mul_(self._weight)


class _Short:
    """In place of a layer's own forward."""

    def __init__(self, layer: Any, rotation: _Rotation) -> None:
        self._layer, self._rotation = weakref.ref(layer), rotation  # a model without cycles goes with its last user
        self._before, self._between = _Norm(layer.input_layernorm), _Norm(layer.post_attention_layernorm)
        attention = layer.self_attn
        self._of_heads = (_Norm(attention.q_norm), _Norm(attention.k_norm)) if hasattr(attention, "q_norm") else None

    def __call__(self, hidden_states: torch.Tensor, *args: Any, **options: Any) -> Any:
        """(rows, 1, width) to the same; what has more tokens goes the layer's own way."""
        angles, cache = options.get("position_embeddings"), options.get("past_key_values")
        layer: Any = self._layer()
        if hidden_states.shape[1] != 1 or args or angles is None or cache is None:
            return type(layer).forward(layer, hidden_states, *args, **options)
        attention, mlp = layer.self_attn, layer.mlp
        rows, size = hidden_states.shape[0], attention.head_dim
        x = self._before(hidden_states)
        query, key = attention.q_proj(x).view(rows, -1, 1, size), attention.k_proj(x).view(rows, -1, 1, size)
        value = attention.v_proj(x).view(rows, -1, 1, size)
        if self._of_heads is not None:
            query, key = self._of_heads[0](query), self._of_heads[1](key)
        heads, shared = query.shape[1], key.shape[1]
        cos, sin = self._rotation(angles)
        both = torch.cat((query, key), 1)
        both = torch.addcmul(both * cos, both.roll(size // 2, -1), sin)
        keys, values = cache.update(both[:, heads:], value, attention.layer_idx)
        # heads that share keys as tokens of one head: torch's kernel goes through the keys once for all of them
        seen = functional.scaled_dot_product_attention(
            both[:, :heads].reshape(rows, shared, -1, size), keys, values,
            attn_mask=options.get("attention_mask"), scale=attention.scaling,
        )  # fmt: skip
        between = attention.o_proj(seen.reshape(rows, 1, -1)).add_(hidden_states)
        x = self._between(between)
        return mlp.down_proj(mlp.act_fn(mlp.gate_proj(x)).mul_(mlp.up_proj(x))).add_(between)


class _Past:
    """A cache that has held a few keys."""

    def update(self, keys: torch.Tensor, values: torch.Tensor, *_: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """All keys and values, the new ones last."""
        shape = (*keys.shape[:2], _TRIED_KEYS - 1, keys.shape[3])
        return torch.cat((_noise(1, shape).to(keys), keys), 2), torch.cat((_noise(2, shape).to(values), values), 2)


@torch.inference_mode()
def _difference(layer: Any, short: _Short) -> float:
    """How far off the short forward is, with a mask and without; of the size of the result, nan if it is another thing."""
    weight, size = layer.input_layernorm.weight, layer.self_attn.head_dim
    x = _noise(0, (_TRIED_ROWS, 1, weight.numel())).to(weight)
    angles = _noise(3, (_TRIED_ROWS, 1, size // 2)).repeat(1, 1, 2)
    some = torch.arange(_TRIED_KEYS) != torch.arange(_TRIED_ROWS)[:, None, None, None]
    worst = 0.0
    for mask in (None, some):
        options = {
            "position_embeddings": (angles.cos().to(weight), angles.sin().to(weight)),
            "past_key_values": _Past(), "attention_mask": mask,
        }  # fmt: skip
        wanted, found = layer(x, **options), short(x, **options)
        if not isinstance(wanted, torch.Tensor) or wanted.dtype != found.dtype or wanted.shape != found.shape:
            return math.nan
        worst = max(worst, float((found - wanted).float().norm() / wanted.float().norm()))
    return worst


def _noise(seed: int, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
