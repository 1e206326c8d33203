"""Decoder layers of one token a row without what most of a small model's time goes into: starting operations.

Once all linear layers of a layer are in a format that the compiled kernels know, it is one call of those; before, and where an
adapter is around one of them, it is half of torch's operations. A layer keeps its modules; only its ``forward`` is another one,
for single tokens. Layers of transformers' Llama, Mistral, Qwen 2 and Qwen 3 are known; the first of a model is held to its own
forward before any is changed.
"""

from __future__ import annotations

import logging
import math
import weakref
from collections.abc import Iterator
from typing import Any

import torch
from torch.nn import functional

from tabml.text._torch.cache import Places, SlotCache
from tabml.text._torch.kernels import door
from tabml.text._torch.kernels.door import Weights

log = logging.getLogger("tabml.text")

_KNOWN = ("LlamaDecoderLayer", "MistralDecoderLayer", "Qwen2DecoderLayer", "Qwen3DecoderLayer")
_FAR_OFF = {torch.float32: 1e-5, torch.bfloat16: 0.02}
_FAR_OFF_COMPILED = {torch.float32: 1e-4, torch.bfloat16: 0.02}
_TRIED_ROWS, _TRIED_KEYS = 2, 5
_SILU = ("SiLU", "SiLUActivation")
_MULTIPLE, _HEAD_MULTIPLE = 16, 32


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
        self._last_wide: tuple[Any, Any] = (None, None)
        self.verdicts: dict[tuple[str, ...], bool] = {}
        """Whether the first compiled layer of certain formats agreed with torch's operations."""

    def wide(self, angles: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and sines, float32."""
        of, made = self._last_wide
        if of is not angles:
            made = angles[0].float().contiguous(), angles[1].float().contiguous()
            self._last_wide = angles, made
        return made

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
        self._epsilon = torch.tensor([norm.variance_epsilon], dtype=torch.float32)

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
        self._size = attention.head_dim
        self._plan: _Plan | None = None

    def __call__(self, hidden_states: torch.Tensor, *args: Any, **options: Any) -> Any:
        """(rows, 1, width) to the same; what has more tokens goes the layer's own way."""
        angles, cache = options.get("position_embeddings"), options.get("past_key_values")
        layer: Any = self._layer()
        if hidden_states.shape[1] != 1 or args or angles is None or cache is None or angles[0].shape[-1] != self._size:
            return type(layer).forward(layer, hidden_states, *args, **options)
        mask = options.get("attention_mask")
        found = self._compiled(layer, hidden_states, angles, cache, mask)
        if found is not None and self._plan is not None and self._plan.forms not in self._rotation.verdicts:
            plain = self._by_operations(layer, hidden_states, angles, cache, mask)
            right = _agree(found, plain)
            if right is None:
                return plain
            self._rotation.verdicts[self._plan.forms] = right
            found = self._compiled(layer, hidden_states, angles, cache, mask)  # its keys and values are those that stay
        return self._by_operations(layer, hidden_states, angles, cache, mask) if found is None else found

    def _by_operations(self, layer: Any, hidden: torch.Tensor, angles: Any, cache: Any, mask: Any) -> torch.Tensor:
        attention, mlp = layer.self_attn, layer.mlp
        rows, size = hidden.shape[0], attention.head_dim
        x = self._before(hidden)
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
            attn_mask=mask, scale=attention.scaling,
        )  # fmt: skip
        between = attention.o_proj(seen.reshape(rows, 1, -1)).add_(hidden)
        x = self._between(between)
        computed: torch.Tensor = mlp.down_proj(mlp.act_fn(mlp.gate_proj(x)).mul_(mlp.up_proj(x))).add_(between)
        return computed

    def _compiled(self, layer: Any, hidden: torch.Tensor, angles: Any, cache: Any, mask: Any) -> torch.Tensor | None:
        """The same by compiled kernels; None where it isn't for them."""
        kernels = door.TOKENS.ready()
        if kernels is None or type(cache) is not SlotCache:
            return None
        linears = _linears(layer)
        if self._plan is None or self._plan.linears != linears:
            self._plan = _Plan(layer, linears)
        places = cache.places(layer.self_attn.layer_idx) if mask is None or mask is cache.mask else None
        if places is None or not self._plan.suits(hidden, angles[0], places):
            return None
        if not self._rotation.verdicts.get(self._plan.forms, True):
            return None
        cos, sin = self._rotation.wide(angles)
        hidden = hidden.contiguous()
        out, threads = torch.empty_like(hidden), torch.get_num_threads()
        room = torch.empty(self._plan.room(kernels, len(hidden), places.keys.shape[2], threads), dtype=torch.float32)
        kernels.decoder_layer(
            kernels.product_share, kernels.attention_share, self._plan.numbers.data_ptr(), hidden.data_ptr(),
            out.data_ptr(), len(hidden), cos.data_ptr(), sin.data_ptr(), places.keys.data_ptr(), places.values.data_ptr(),
            places.at.data_ptr(), places.keys.shape[2], hidden.dtype is torch.bfloat16, threads, room.data_ptr(),
        )  # fmt: skip
        return out


def _agree(compiled: torch.Tensor, plain: torch.Tensor) -> bool | None:
    """Whether both are the same; None where that can't be said, of numbers that are none."""
    size, off = float(plain.float().norm()), float((compiled - plain).float().norm())
    if not math.isfinite(size) or not size:
        return None
    if off <= _FAR_OFF_COMPILED[plain.dtype] * size:
        return True
    log.warning(
        "layers of this model are computed by torch's operations, which is slower: the compiled are off by %.1e",
        off / size,
    )
    return False


def _linears(layer: Any) -> tuple[Any, ...]:
    attention, mlp = layer.self_attn, layer.mlp
    return (
        attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj, mlp.gate_proj, mlp.up_proj, mlp.down_proj
    )  # fmt: skip


class _Plan:
    """A decoder layer as the compiled kernel wants it told; see :data:`tabml.text._torch.kernels.PLAN`."""

    def __init__(self, layer: Any, linears: tuple[Any, ...]) -> None:
        self.linears = linears
        weights: list[Any] = [getattr(each, "weights", None) for each in linears]
        self._possible = all(isinstance(each, Weights) for each in weights) and _fit(weights, layer)
        self.forms: tuple[str, ...] = ()
        if not self._possible:
            return
        norms, attention = _norms(layer), layer.self_attn
        self.forms = tuple(each.form for each in weights)
        self._weights, self._kept = weights, [norm.weight.detach().float().contiguous() for norm in norms]
        self._size, self._shared = attention.head_dim, weights[1].outputs // attention.head_dim
        addresses = [each.data_ptr() for each in self._kept] + [0] * (4 - len(norms))
        factors = torch.tensor([norms[0].variance_epsilon, 0, attention.scaling, 0], dtype=torch.float32)
        self.numbers = torch.cat(
            (*(each.numbers for each in weights), torch.tensor([*addresses, self._size, self._shared]),
             factors.view(torch.int64)),
        )  # fmt: skip

    def room(self, kernels: door.Kernels, rows: int, capacity: int, threads: int) -> int:
        """Numbers that the kernel needs room for."""
        query, key, _, _, gate, _, _ = self._weights
        return kernels.room_of(
            rows, width=query.inputs, queries=query.outputs, keys=key.outputs, inner=gate.outputs,
            capacity=capacity, threads=threads,
        )  # fmt: skip

    def suits(self, hidden: torch.Tensor, cos: torch.Tensor, places: Places) -> bool:
        """Whether the kernel can compute the layer, and with these; it looks at nothing itself."""
        rows, (keys, values, at) = len(hidden), places
        return (
            self._possible
            and rows <= door.MOST_ROWS
            and hidden.dtype in _FAR_OFF_COMPILED
            and hidden.shape[-1] == self._weights[0].inputs
            and keys.dtype is values.dtype is hidden.dtype
            and keys.shape == values.shape
            and keys.shape[1::2] == (self._shared, self._size)
            and keys.is_contiguous()
            and values.is_contiguous()
            and len(keys) >= rows == len(at)
            and cos.shape == (rows, 1, self._size)
        )


def _norms(layer: Any) -> list[Any]:
    attention = layer.self_attn
    of_heads = [attention.q_norm, attention.k_norm] if hasattr(attention, "q_norm") else []
    return [layer.input_layernorm, layer.post_attention_layernorm, *of_heads]


def _fit(weights: list[Weights], layer: Any) -> bool:
    """Whether shapes are those that the kernel was written for, and go together."""
    query, key, value, out, gate, up, down = weights
    size, width, inner, norms = layer.self_attn.head_dim, query.inputs, gate.outputs, _norms(layer)
    groups = (weights[:3], weights[3:4], weights[4:6], weights[6:])
    return (
        type(layer.mlp.act_fn).__name__ in _SILU
        and len({norm.variance_epsilon for norm in norms}) == 1
        and [norm.weight.numel() for norm in norms] == [width, width, size, size][: len(norms)]
        and size % _HEAD_MULTIPLE == width % _MULTIPLE == inner % _MULTIPLE == 0
        and query.outputs % key.outputs == key.outputs % size == 0
        and (key.outputs, out.inputs) == (value.outputs, query.outputs)
        and {each.inputs for each in (query, key, value, gate, up)} == {out.outputs, down.outputs} == {width}
        and {up.outputs, down.inputs} == {inner}
        and all(len({each.form == "mkl" for each in group}) == 1 for group in groups)
    )


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
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float32)
