"""Pickled weights as safetensors in memory, for whoever allows them: they are checked and mapped as any other."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from tabml.errors import CorruptModelError, UnsafeModelError
from tabml.files import MemoryFile
from tabml.text._torch.loading import quiet

_WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Under which training scripts keep the weights of a checkpoint."""


def unpickled(paths: Sequence[Path], name: str) -> MemoryFile:
    """The tensors of all files.

    They are read by torch's restricted reader, which makes tensors and nothing else
    (https://docs.pytorch.org/docs/stable/notes/serialization.html#weights-only).

    Args:
        paths: The files.
        name: The repository, for messages.

    Raises:
        UnsafeModelError: a file holds something else than tensors.
        CorruptModelError: a file is damaged.
    """
    tensors: dict[str, torch.Tensor] = {}
    storages: set[int] = set()
    for path in paths:
        for key, tensor in _weights(path, f"{name}/{path.name}").items():
            storage = tensor.untyped_storage().data_ptr()  # tied ones share it, which safetensors refuses
            alone = (
                tensor.contiguous() if storage not in storages else tensor.clone(memory_format=torch.contiguous_format)
            )
            storages.add(storage)
            tensors[key] = alone
    file = MemoryFile("model.safetensors")
    file.write(save(tensors))
    return file


def _weights(path: Path, name: str) -> Mapping[str, torch.Tensor]:
    try:
        with quiet():
            found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as problem:
        said = " ".join(str(problem).split())[:200]
        raise UnsafeModelError(f"{name} holds something else than tensors, which is not read: {said}") from problem
    except Exception as problem:  # of any kind, from bytes of any kind
        raise CorruptModelError(f"{name} can't be read: {' '.join(str(problem).split())[:200]}") from problem
    for wrapper in _WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(wrapper), Mapping):
            found = found[wrapper]
            break
    if not isinstance(found, Mapping):
        raise CorruptModelError(f"{name} holds a {type(found).__name__}, not tensors by name")
    weights = {str(key): value for key, value in found.items() if isinstance(value, torch.Tensor)}
    if not weights or any(value.layout is not torch.strided for value in weights.values()):
        raise CorruptModelError(f"{name} has no plain tensors by name")
    return weights
