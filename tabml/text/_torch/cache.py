"""Keys and values of many sequences side by side, each in a slot of its own: written in place, kept for the next turn.

transformers' own cache is one batch that begins and ends together, and copies everything at each token. Here a
sequence can join and leave between two steps, and what a slot held stays until another sequence needs it: the next
turn of a chat begins with the same tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers.cache_utils import Cache, DynamicLayer

_FIRST_CAPACITY = 256


class Places(NamedTuple):
    """Where a pass of one token a row has its keys and values."""

    keys: torch.Tensor
    """Of the first row and of those behind it, (rows and more, heads, capacity, head size)."""
    values: torch.Tensor
    at: torch.Tensor
    """The position of each row, (rows, 1), int64."""


class LayerSlots:
    """Keys and values of one layer in a step: all that is Python's here is the same for each layer and each step."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, at: torch.Tensor, span: torch.Tensor) -> None:
        self.keys, self.values, self.at, self.span = keys, values, at, span

    def mark(self) -> None:
        """Have Dynamo take slots, capacity, rows and span for numbers that change."""
        for tensor, axes in ((self.keys, [0, 2]), (self.values, [0, 2]), (self.at, [0]), (self.span, [0])):
            torch._dynamo.mark_dynamic(tensor, axes)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As :meth:`SlotCache.update`, whatever the number of the layer."""
        rows, span = self.at.shape[0], self.span.shape[0]
        slots = torch.arange(rows, device=self.at.device)[:, None]
        self.keys[slots, :, self.at] = key_states.transpose(1, 2)
        self.values[slots, :, self.at] = value_states.transpose(1, 2)
        return self.keys[:rows, :, :span], self.values[:rows, :, :span]


class SlotCache(Cache):
    """One tensor (slots, heads, capacity, head size) of keys and one of values for each layer.

    Before a forward pass :meth:`one`, :meth:`many`, :meth:`first` or :meth:`several` says which slots it is for; after it
    :meth:`advance` counts the new tokens (of the last two the caller does).
    """

    def __init__(self, layers: int, most_tokens: int) -> None:
        """Empty.

        Args:
            layers: Of the model.
            most_tokens: Of one sequence.
        """
        super().__init__(layer_class_to_replicate=DynamicLayer)
        self.lengths: list[int] = []
        """Tokens in each slot."""
        self.version = 0
        """Another one once the tensors are."""
        self.layer_run: Callable[..., Any] | None = None
        """What computes a layer in the next pass; None for the layer itself."""
        self.mask: torch.Tensor | None = None
        """Of the next pass, as :meth:`first` and :meth:`many` gave it."""
        self._written: list[int] = []
        self._keys: list[torch.Tensor | None] = [None] * layers
        self._values: list[torch.Tensor | None] = [None] * layers
        self._most_tokens = most_tokens
        self._capacity = 0
        self._slots = 0
        self._slot: int | None = None
        self._at: torch.Tensor | None = None
        self._rows: torch.Tensor | None = None
        self._columns: torch.Tensor | None = None
        self._picked: torch.Tensor | None = None
        self._count = 0
        self._longest = 0

    def add_slot(self) -> int:
        """A further slot, empty."""
        self.lengths.append(0)
        self._written.append(0)
        return len(self.lengths) - 1

    def one(self, slot: int, tokens: int) -> None:
        """The next pass has ``tokens`` further tokens of one sequence."""
        self._slot, self._picked, self.layer_run, self.mask = slot, None, None, None
        self._at = torch.tensor([[self.lengths[slot]]]) if tokens == 1 else None
        end = self.lengths[slot] + tokens
        self._reserve(end)
        self._written[slot] = max(self._written[slot], end)

    def many(self, count: int, device: torch.device) -> torch.Tensor:
        """The next pass has one token of each of the first ``count`` slots.

        Returns:
            The mask for it, (count, 1, 1, tokens of the longest): True where a slot has a key.
        """
        lengths = self.lengths[:count]
        longest = max(lengths) + 1
        self._reserve(longest)
        self.will_write(range(count))
        return self.first(torch.tensor(lengths, device=device)[:, None], longest)

    @property
    def spare(self) -> int:
        """A position that is no token's, whatever a slot holds."""
        return self._capacity - 1

    def reserve(self, tokens: int) -> int:
        """Room for so many tokens in every slot; gives the spare position behind them."""
        self._reserve(tokens)
        return self.spare

    def will_write(self, slots: Iterable[int], tokens: int = 1) -> None:
        """These slots may get so many tokens more than are counted."""
        for slot in slots:
            self._written[slot] = max(self._written[slot], self.lengths[slot] + tokens)

    def first(self, at: torch.Tensor, span: int, layer_run: Callable[..., Any] | None = None) -> torch.Tensor:
        """The next pass has one token of each of the first slots, and may be recorded.

        Args:
            at: Where each goes, (slots, 1).
            span: Positions that are looked at.
            layer_run: What computes a layer, if not itself: see :class:`tabml.text._torch.compiled.CompiledLayers`.

        Returns:
            The mask for it, (slots, 1, 1, span): True where a slot has a key.
        """
        self._slot = self._picked = None
        self._count, self._longest, self._at, self.layer_run = len(at), span, at.contiguous(), layer_run
        self._rows = torch.arange(len(at), device=at.device)[:, None]
        self._columns = torch.arange(span, device=at.device)
        self.mask = (self._columns <= at)[:, None, None, :]
        return self.mask

    def of_layer(self, layer: int) -> LayerSlots | None:
        """What a pass after :meth:`first` needs of one layer; None where that has no keys yet."""
        keys, values = self._keys[layer], self._values[layer]
        if keys is None or values is None or self._at is None or self._columns is None:
            return None
        return LayerSlots(keys, values, self._at, self._columns)

    def places(self, layer: int) -> Places | None:
        """Of the next pass, for who writes without :meth:`update`; None for passes of more tokens, and before the first one."""
        keys, values, at = self._keys[layer], self._values[layer], self._at
        if keys is None or values is None or at is None or at.shape[1] != 1 or self._picked is not None:
            return None
        return Places(keys[self._slot or 0 :], values[self._slot or 0 :], at)

    def drop_layer(self, layer: int) -> None:
        """Let go of the keys and values of one layer."""
        self._keys[layer] = self._values[layer] = None

    def several(
        self, slots: torch.Tensor, begins: torch.Tensor, ends: torch.Tensor, tokens: int, span: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The next pass has several tokens of several slots, and may be recorded; rows with fewer begin with padding.

        Args:
            slots: One for each row, (rows,).
            begins: Where the new tokens of each begin, (rows,).
            ends: Where they end, (rows,).
            tokens: Of a row, with its padding.
            span: Positions that are looked at.

        Returns:
            Positions, (rows, tokens), and the mask, (rows, 1, tokens, span).
        """
        at = ends[:, None] - torch.arange(tokens, 0, -1, device=ends.device)
        padding = at < begins[:, None]
        positions = at.masked_fill(padding, 0)
        self._slot, self.layer_run, self._count, self._longest = None, None, len(slots), span
        self._picked, self.mask = slots, None
        self._rows, self._at = slots[:, None], at.masked_fill(padding, self.spare)
        return positions, (torch.arange(span, device=ends.device) <= positions[:, :, None])[:, None]

    def advance(self, tokens: int = 1) -> None:
        """Count what the last pass added."""
        if self._slot is not None:
            self.lengths[self._slot] += tokens
        else:
            for slot in range(self._count):
                self.lengths[slot] += 1

    def swap(self, one: int, other: int) -> None:
        """Exchange the content of two slots."""
        if one == other:
            return
        most = max(self._written[one], self._written[other])
        for tensors in (self._keys, self._values):
            for tensor in tensors:
                if tensor is not None and most:
                    kept = tensor[one, :, :most].clone()
                    tensor[one, :, :most] = tensor[other, :, :most]
                    tensor[other, :, :most] = kept
        for counts in (self.lengths, self._written):
            counts[one], counts[other] = counts[other], counts[one]

    def keep(self, slot: int, tokens: int) -> None:
        """Forget all but the first ``tokens`` of a slot.

        The rest is blanked: a mask makes nothing of a number, but not of what is none, such as an adapter that is
        broken leaves.
        """
        end = self._written[slot]
        for tensors in (self._keys, self._values):
            for tensor in tensors:
                if tensor is not None and end > tokens:
                    tensor[slot, :, tokens:end] = 0
        self.lengths[slot] = self._written[slot] = tokens

    def copy(self, source: int, target: int, tokens: int) -> None:
        """Have ``target`` begin with the first ``tokens`` of ``source``."""
        self._reserve(tokens)
        for tensors in (self._keys, self._values):
            for tensor in tensors:
                if tensor is not None and tokens:
                    tensor[target, :, :tokens] = tensor[source, :, :tokens]
        self.lengths[target] = tokens
        self._written[target] = max(self._written[target], tokens)

    @property
    def bytes_held(self) -> int:
        """Of all tensors."""
        return sum(t.numel() * t.element_size() for t in (*self._keys, *self._values) if t is not None)

    def growth(self, slots: int, tokens: int) -> int | None:
        """Bytes more for so many slots with so many tokens each; None before the first pass, which tells a token's size."""
        held = self.bytes_held
        if not held:
            return None
        capacity, count = self._sizes(slots, tokens)
        return held // (self._capacity * self._slots) * capacity * count - held

    def _sizes(self, slots: int, tokens: int) -> tuple[int, int]:
        """Positions and slots where there is room for so many, by whatever steps; one position is no token's."""
        rounded = max(_FIRST_CAPACITY, 1 << (tokens - 1).bit_length())
        capacity = max(min(rounded, self._most_tokens), tokens) + 1
        return max(self._capacity, capacity), max(self._slots, 1 << (slots - 1).bit_length())

    def _reserve(self, tokens: int) -> None:
        """Room for that many tokens in every slot, and for one more that none has: see :attr:`spare`."""
        if tokens < self._capacity and len(self.lengths) <= self._slots:
            return
        self._capacity, self._slots = self._sizes(len(self.lengths), tokens)
        self.version += 1
        for tensors in (self._keys, self._values):
            for at, tensor in enumerate(tensors):
                if tensor is not None:
                    tensors[at] = self._grown(tensor)

    def _grown(self, tensor: torch.Tensor) -> torch.Tensor:
        slots, heads, _, size = tensor.shape
        grown = _zeros((self._slots, heads, self._capacity, size), tensor)
        for slot, end in enumerate(self._written[:slots]):
            if end:  # beyond the length too: a step that has begun may have written there
                grown[slot, :, :end] = tensor[slot, :, :end]
        return grown

    def _tensors(
        self, like_keys: torch.Tensor, like_values: torch.Tensor, layer: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        keys, values = self._keys[layer], self._values[layer]
        if keys is None or values is None:
            heads = like_keys.shape[1]
            keys = _zeros((self._slots, heads, self._capacity, like_keys.shape[3]), like_keys)
            values = _zeros((self._slots, heads, self._capacity, like_values.shape[3]), like_values)
            self._keys[layer], self._values[layer] = keys, values
        return keys, values

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write new keys and values; gives all of the sequences that the pass is for."""
        keys, values = self._tensors(key_states, value_states, layer_idx)
        if self._slot is not None:
            slot, begin = self._slot, self.lengths[self._slot]
            end = begin + key_states.shape[2]
            keys[slot, :, begin:end] = key_states[0]
            values[slot, :, begin:end] = value_states[0]
            return keys[slot : slot + 1, :, :end], values[slot : slot + 1, :, :end]
        keys[self._rows, :, self._at] = key_states.transpose(1, 2)
        values[self._rows, :, self._at] = value_states.transpose(1, 2)
        if self._picked is not None:
            return keys[self._picked, :, : self._longest], values[self._picked, :, : self._longest]
        return keys[: self._count, :, : self._longest], values[: self._count, :, : self._longest]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Tokens before the pass."""
        if self._slot is not None:
            return self.lengths[self._slot]
        return self._longest - (self._at.shape[1] if self._at is not None else 0)

    def get_mask_sizes(self, query_length: int, layer_idx: int = 0) -> tuple[int, int]:
        """Keys that :meth:`update` will give, and where they begin."""
        return self.get_seq_length() + query_length, 0

    @property
    def is_sliding(self) -> Sequence[bool]:
        """Whole histories are kept: layers with a window get a mask."""
        return [False] * len(self._keys)

    @property
    def is_linear(self) -> Sequence[bool]:
        """None is."""
        return [False] * len(self._keys)

    @property
    def is_dummy(self) -> Sequence[bool]:
        """None is."""
        return [False] * len(self._keys)


def _zeros(shape: tuple[int, ...], like: torch.Tensor) -> torch.Tensor:
    """Zeros on a CPU in memory that is there once it is written to: torch writes all of it."""
    if not like.is_cpu:
        return like.new_zeros(shape)
    return torch.from_numpy(np.zeros((*shape[:-1], shape[-1] * like.element_size()), np.uint8)).view(like.dtype)
