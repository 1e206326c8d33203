"""GGUF files by transformers, which reads each of them three times, value by value; once will do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from tabml.text._torch.loading import replaced

Value = TypeVar("Value")


@contextmanager
def read_once() -> Iterator[None]:
    """Have transformers load out of GGUF files in a sixth of the time, and without a bar of its own.

    Of 38 s for a model of 135M parameters 12 go into making the table of tensor names anew for each of its modules, and 20
    into reading the vocabulary again for the configuration, the tokenizer and the weights. Hold the lock of loads: for as
    long as this lasts the functions of :mod:`gguf` are others.
    """
    import gguf
    from transformers import modeling_gguf_pytorch_utils as reader

    plain: Any = gguf.GGUFReader

    class Reader(plain):
        """Looks at the file as a plain array: a slice of a ``memmap`` takes four times as long."""

        @property
        def data(self) -> NDArray[Any]:
            return self._plain

        @data.setter
        def data(self, mapped: NDArray[Any]) -> None:
            self._plain = mapped.view(np.ndarray)

    with (
        replaced(gguf, "GGUFReader", cache(Reader)),
        replaced(gguf, "get_tensor_name_map", cache(gguf.get_tensor_name_map)),
        replaced(reader, "tqdm", _no_bar),  # no setting of transformers reaches this one
    ):
        yield


def _no_bar(values: Iterable[Value], **_: object) -> Iterable[Value]:
    return values
