"""Encoder layers as one call of compiled kernels: whole texts, without padding between them.

A model keeps its modules; only the ``forward`` of what holds its layers is another one. Layers of transformers' BERT and its like,
and of DistilBERT, are known. The kernels are loaded once a model has computed for longer than that takes, and tried against torch's
operations before they compute anything.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from typing import Any

import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

from tabml.text._torch.kernels import door
from tabml.text._torch.kernels.door import Weights

log = logging.getLogger("tabml.text")

_LIKE_BERT = (
    "BertLayer", "RobertaLayer", "XLMRobertaLayer", "CamembertLayer", "ElectraLayer", "Data2VecTextLayer", "ErnieLayer",
)  # fmt: skip
_LIKE_DISTILBERT = ("TransformerBlock",)
_GELU = ("GELUActivation", "GELU")
FAR_OFF = {"mkl": 1e-4, "bytes": 0.2}
"""By the format of the weights: roundings to 8 bits fall to the other side where numbers differ in their last digit."""
TRIED = (1, 17, 40, 90)
"""Tokens of the texts that kernels are tried with."""
_DTYPES = (torch.float32, torch.bfloat16)
_MULTIPLE = 16
_WORTH_S = 2.0
"""Seconds that a model computes before kernels are loaded: they take one, and save a quarter of what comes."""


def knows(model: nn.Module) -> bool:
    """Whether it has layers that kernels may compute."""
    return any(type(module).__name__ in (*_LIKE_BERT, *_LIKE_DISTILBERT) for module in model.modules())


def stacked(model: Any) -> int:
    """Have the layers of an encoder computed together on a CPU, where they are known and packed for it; gives how many.

    Args:
        model: In eval mode, with packed layers.
    """
    found = 0
    for module in list(model.modules()):
        layers = getattr(module, "layer", None)
        if (
            isinstance(layers, nn.ModuleList)
            and layers
            and model.device.type == "cpu"
            and "forward" not in vars(module)
        ):
            plan = Plan.of(layers)
            if plan is not None:
                module.forward = Stack(module, plan)
                found += len(layers)
    return found


class Stack:
    """In place of the forward of what holds the layers."""

    def __init__(self, holder: nn.Module, plan: Plan) -> None:
        self.plan = plan
        self._holder = weakref.ref(holder)  # a model without cycles goes with its last user
        self._right: bool | None = None
        self._trying = threading.Lock()
        self._seconds = 0.0

    def __call__(self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None, **options: Any) -> Any:
        """(texts, tokens, width) to the same, in the output of transformers."""
        kernels = door.TEXTS.ready()
        texts = self._texts(hidden_states, attention_mask, options) if kernels is not None else None
        if kernels is None or texts is None or not self._is_right(kernels, hidden_states.dtype):
            return self._by_operations(hidden_states, attention_mask, options)
        found = self.plan.compute(kernels, hidden_states, *texts)
        return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=found)

    def _is_right(self, kernels: door.TextKernels, dtype: torch.dtype) -> bool:
        """Whether the kernels give what the layers' own forward does; tried once, by whoever comes first."""
        with self._trying:
            if self._right is None:
                lengths = torch.tensor(TRIED)
                texts = torch.arange(max(TRIED)) < lengths[:, None]
                noise = torch.Generator().manual_seed(0)
                hidden = torch.randn((*texts.shape, self.plan.width), generator=noise, dtype=torch.float32).to(dtype)
                mask = texts[:, None, None].expand(-1, 1, max(TRIED), -1)
                found = self.plan.compute(kernels, hidden, texts, lengths)
                wanted = self._by_operations(hidden, mask, {}).last_hidden_state
                self._right = agree(found[texts], wanted[texts], FAR_OFF[self.plan.form])
            return self._right

    def _by_operations(self, hidden: torch.Tensor, mask: Any, options: dict[str, Any]) -> Any:
        holder: Any = self._holder()
        began = time.perf_counter()
        output = type(holder).forward(holder, hidden, attention_mask=mask, **options)
        before, self._seconds = self._seconds, self._seconds + time.perf_counter() - began
        if before < _WORTH_S <= self._seconds:
            door.TEXTS.prepare()
        return output

    def _texts(
        self, hidden: torch.Tensor, mask: torch.Tensor | None, options: dict[str, Any]
    ) -> tuple[torch.Tensor | None, torch.Tensor] | None:
        """Which tokens are texts', None for all, and how many each has; None where this isn't for the kernels."""
        count, longest = hidden.shape[:2]
        if not self.plan.suits(hidden) or any(value is not None and value is not False for value in options.values()):
            return None
        if mask is None:
            return None, torch.full((count,), longest)
        if mask.dtype is not torch.bool or mask.shape != (count, 1, longest, longest):
            return None
        real = mask[:, 0, 0]
        lengths = real.sum(1)
        padded = torch.arange(longest) < lengths[:, None]
        if not torch.equal(mask, padded[:, None, None].expand_as(mask)) or not lengths.all():
            return None
        return padded, lengths


class Plan:
    """Encoder layers as the compiled kernels want them told; see :data:`tabml.text._torch.kernels.encoder.PLAN`."""

    def __init__(self, layers: list[tuple[list[Weights], list[nn.LayerNorm], Any]]) -> None:
        """Of what :func:`_parts` gives for each layer."""
        weights, _, attention = layers[0]
        self.width, self._queries, self._inner = weights[0].inputs, weights[0].outputs, weights[4].outputs
        self._size, self._layers = attention.attention_head_size, len(layers)
        self.form = weights[0].form
        self._kept: list[object] = []
        numbers = []
        for weights, norms, attention in layers:
            parameters = [each.detach().float().contiguous() for norm in norms for each in (norm.weight, norm.bias)]
            factors = torch.tensor([norms[0].eps, 0, attention.scaling, 0], dtype=torch.float32)
            numbers += [
                *(each.numbers for each in weights),
                torch.tensor([*(each.data_ptr() for each in parameters), self._size]),
                factors.view(torch.int64),
            ]
            self._kept += [weights, parameters]
        self._numbers = torch.cat(numbers)

    @classmethod
    def of(cls, layers: nn.ModuleList) -> Plan | None:
        """None where they are not for the kernels."""
        try:
            found = [_parts(layer) for layer in layers]
        except AttributeError:  # modules of another version may be others
            return None
        known = [parts for parts in found if parts is not None]
        shapes = {
            (attention.attention_head_size, *((each.form, each.inputs, each.outputs) for each in weights))
            for weights, _, attention in known
        }
        return cls(known) if len(known) == len(found) and len(shapes) == 1 else None

    def suits(self, hidden: torch.Tensor) -> bool:
        """Whether the kernels can be given this; they look at nothing themselves."""
        return hidden.dtype in _DTYPES and hidden.is_cpu and hidden.shape[2] == self.width and hidden.numel() > 0

    def compute(
        self, kernels: door.TextKernels, hidden: torch.Tensor, texts: torch.Tensor | None, lengths: torch.Tensor
    ) -> torch.Tensor:
        """(texts, tokens, width) to the same; zeros for padding."""
        x = (
            (hidden.reshape(-1, self.width) if texts is None else hidden[texts])
            .to(torch.float32, copy=True)
            .contiguous()
        )
        self.change(kernels, x, torch.cat((lengths.new_zeros(1), lengths.cumsum(0))), int(lengths.max()))
        if texts is None:
            return x.view_as(hidden).to(hidden.dtype)
        found = torch.zeros_like(hidden)
        found[texts] = x.to(hidden.dtype)
        return found

    def change(self, kernels: door.TextKernels, x: torch.Tensor, starts: torch.Tensor, longest: int) -> None:
        """Compute the layers in place.

        Args:
            kernels: That compute.
            x: (rows, width), float32: the tokens of all texts.
            starts: (texts + 1,): where in ``x`` each begins, and the end.
            longest: Tokens of the longest.
        """
        rows, threads = len(x), torch.get_num_threads()
        scratch = kernels.scratch_of(longest, self._size)
        size = kernels.room_of(
            rows, width=self.width, queries=self._queries, inner=self._inner, scratch=scratch, threads=threads
        )
        room = torch.empty(size, dtype=torch.float32)
        kernels.encoder_layers(
            *kernels.shares, self._numbers.data_ptr(), self._layers, x.data_ptr(), rows, starts.data_ptr(), len(starts) - 1,
            scratch, threads, room.data_ptr(),
        )  # fmt: skip


def _parts(layer: Any) -> tuple[list[Weights], list[nn.LayerNorm], Any] | None:
    """Linear layers and norms in the order of the plan, and the attention's module; None where kernels were not written for it."""
    kind, attention = type(layer).__name__, layer.attention
    if kind in _LIKE_BERT and not layer.is_decoder:
        of, first, inner, last, activation = (
            attention.self, attention.output, layer.intermediate.dense, layer.output, layer.intermediate.intermediate_act_fn
        )  # fmt: skip
        linears = [of.query, of.key, of.value, first.dense, inner, last.dense]
        norms = [first.LayerNorm, last.LayerNorm]
    elif kind in _LIKE_DISTILBERT:
        of, activation = attention, layer.ffn.activation
        linears = [of.q_lin, of.k_lin, of.v_lin, of.out_lin, layer.ffn.lin1, layer.ffn.lin2]
        norms = [layer.sa_layer_norm, layer.output_layer_norm]
    else:
        return None
    weights = [getattr(each, "weights", None) for each in linears]
    known = [each for each in weights if isinstance(each, Weights) and each.form in FAR_OFF]
    if len(known) < len(weights) or len({each.form for each in known}) > 1:
        return None
    sizes = [(each.inputs, each.outputs) for each in known]
    (width, queries), inner_size = sizes[0], sizes[4][1]
    fits = (
        sizes == [(width, queries)] * 3 + [(queries, width), (width, inner_size), (inner_size, width)]
        and type(activation).__name__ in _GELU
        and getattr(activation, "approximate", "none") == "none"
        and of.config._attn_implementation == "sdpa"
        and all(each.bias is not None for each in linears)
        and all(type(norm) is nn.LayerNorm and norm.normalized_shape == (width,) for norm in norms)
        and norms[0].eps == norms[1].eps
        and queries % of.attention_head_size == of.attention_head_size % _MULTIPLE == width % _MULTIPLE == 0
        and inner_size % _MULTIPLE == 0
    )
    return (known, norms, of) if fits else None


def agree(compiled: torch.Tensor, plain: torch.Tensor, far_off: float) -> bool:
    """Whether both are the same; numbers that are none are not."""
    size, off = float(plain.float().norm()), float((compiled.float() - plain.float()).norm())
    if off <= far_off * size:
        return True
    log.warning(
        "texts of this model are computed by torch's operations, which is slower: the compiled are off by %.1e",
        off / size if size else off,
    )
    return False
