"""Vectors of texts from their tokens by compiled kernels alone: with few short texts torch's operations cost more than the layers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tabml.text._torch.encoders import Encoded
from tabml.text._torch.kernels import door
from tabml.text._torch.stack import FAR_OFF, TRIED, Plan, Stack, agree

_EMBEDDINGS = (
    "BertEmbeddings", "RobertaEmbeddings", "XLMRobertaEmbeddings", "CamembertEmbeddings", "ElectraEmbeddings",
    "Data2VecTextEmbeddings", "ErnieEmbeddings", "Embeddings",
)  # fmt: skip
_TABLES = (torch.float32, torch.bfloat16)


class WholeTexts:
    """What is before an encoder's layers, the layers, and the mean of their tokens, or the first."""

    def __init__(self, embeddings: Any, plan: Plan, mean: bool) -> None:
        self._plan, self._mean = plan, mean
        types = getattr(embeddings, "token_type_embeddings", None)
        norm = embeddings.LayerNorm
        tables = (
            embeddings.word_embeddings.weight,
            embeddings.position_embeddings.weight,
            getattr(types, "weight", None),
        )
        self._rows = [0 if table is None else len(table) for table in tables]
        counted = hasattr(embeddings, "create_position_ids_from_input_ids")
        self._unread: int | None = embeddings.padding_idx if counted else None
        """A token that positions leave out, as those of RoBERTa do."""
        self._first = embeddings.padding_idx + 1 if counted else 0
        self._kept = [*tables, norm.weight.detach().float().contiguous(), norm.bias.detach().float().contiguous()]
        words, places, kinds, gain, shift = (0 if each is None else each.data_ptr() for each in self._kept)
        half = tables[0].dtype is torch.bfloat16
        small = torch.tensor([norm.eps, 0], dtype=torch.float32).view(torch.int64)
        self._numbers = torch.cat((torch.tensor([words, places, kinds, half, plan.width, gain, shift]), small))
        self._right: bool | None = None
        self._trying = threading.Lock()

    @classmethod
    def of(cls, model: Any, modes: tuple[str, ...]) -> WholeTexts | None:
        """For a model with stacked layers and one kind of pooling, mean or cls; None where it is not for the kernels."""
        embeddings: Any = getattr(model, "embeddings", None)
        stacks = [module.forward for module in model.children() if isinstance(module.forward, Stack)]
        if modes not in (("mean",), ("cls",)) or len(stacks) != 1 or type(embeddings).__name__ not in _EMBEDDINGS:
            return None
        try:
            fits = _fit(embeddings, stacks[0].plan.width)
        except AttributeError:  # modules of another version may be others
            return None
        return cls(embeddings, stacks[0].plan, modes == ("mean",)) if fits else None

    def __call__(self, batch: Sequence[Encoded], plain: Callable[[list[Encoded]], torch.Tensor]) -> torch.Tensor | None:
        """(texts, width), float32; None where this isn't for the kernels, or they aren't there.

        Args:
            batch: The texts.
            plain: The same by the model's own forward; the kernels are held to it once, before they are used.
        """
        kernels = door.TEXTS.ready()
        if kernels is None or not self._is_right(kernels, plain):
            return None
        return self._computed(kernels, batch)

    def _is_right(self, kernels: door.TextKernels, plain: Callable[[list[Encoded]], torch.Tensor]) -> bool:
        with self._trying:
            if self._right is None:
                chosen, (words, places, kinds) = np.random.default_rng(0), self._rows
                batch = []
                for length in (min(each, places - self._first) for each in TRIED):
                    ids = chosen.integers(0, words, length)
                    inputs = {"input_ids": np.where(ids == self._unread, self._first % words, ids).tolist()}
                    if kinds:
                        inputs["token_type_ids"] = chosen.integers(0, kinds, length).tolist()
                    batch.append(Encoded(inputs))
                found = self._computed(kernels, batch)
                self._right = found is not None and agree(found, plain(batch), FAR_OFF[self._plan.form])
            return self._right

    def _computed(self, kernels: door.TextKernels, batch: Sequence[Encoded]) -> torch.Tensor | None:
        lengths = np.array([one.length for one in batch])
        starts = np.concatenate(([0], lengths.cumsum()))
        ids = _joined(batch, "input_ids")
        types = _joined(batch, "token_type_ids") if self._rows[2] and "token_type_ids" in batch[0].inputs else None
        if types is None:
            types = np.zeros_like(ids)
        if not self._readable(ids, types, lengths):
            return None
        x = torch.empty((len(ids), self._plan.width), dtype=torch.float32)
        found = torch.empty((len(batch), self._plan.width), dtype=torch.float32)
        kernels.embed(
            self._numbers.data_ptr(), ids.ctypes.data, types.ctypes.data, starts.ctypes.data, len(batch), self._first,
            x.data_ptr(),
        )  # fmt: skip
        self._plan.change(kernels, x, torch.from_numpy(starts), int(lengths.max()))
        kernels.pool(x.data_ptr(), starts.ctypes.data, len(batch), self._plan.width, self._mean, found.data_ptr())
        return found

    def _readable(self, ids: NDArray[np.int64], types: NDArray[np.int64], lengths: NDArray[np.int64]) -> bool:
        """Whether tables have all that is looked up; kernels look at nothing."""
        words, places, kinds = self._rows
        return bool(
            lengths.min() > 0
            and ids.min() >= 0
            and ids.max() < words
            and (not kinds or (types.min() >= 0 and types.max() < kinds))
            and self._first + lengths.max() <= places
            and (self._unread is None or not (ids == self._unread).any())
        )


def _joined(batch: Sequence[Encoded], name: str) -> NDArray[np.int64]:
    return np.fromiter(chain.from_iterable(one.inputs[name] for one in batch), np.int64)


def _fit(embeddings: Any, width: int) -> bool:
    types = getattr(embeddings, "token_type_embeddings", None)
    tables = [embeddings.word_embeddings, embeddings.position_embeddings, *([] if types is None else [types])]
    norm = embeddings.LayerNorm
    return (
        all(type(table) is nn.Embedding and table.weight.is_contiguous() for table in tables)
        and {table.weight.shape[1] for table in tables} == {width}
        and len({table.weight.dtype for table in tables}) == 1
        and tables[0].weight.dtype in _TABLES
        and tables[0].weight.is_cpu
        and type(norm) is nn.LayerNorm
        and norm.normalized_shape == (width,)
        and not getattr(embeddings, "use_task_id", False)
    )
