"""What a CUDA graph is, without the GPU: a program of torch's operators in which all that was Python's is constant."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from unittest.mock import patch


def recorder(changed: Callable[[], Sequence[Any]] = list) -> Any:
    """Stands for ``cuda_recorder``.

    Args:
        changed: The tensors that what is recorded changes; recording leaves them as they were.
    """
    import torch
    from torch.fx.experimental.proxy_tensor import make_fx

    def record(compute: Callable[[], Any]) -> Any:
        before = [(each, each.clone()) for each in changed()]

        def restore() -> None:
            for tensor, kept in before:
                tensor.copy_(kept)

        with patch("transformers.utils.import_utils.is_cuda_stream_capturing", return_value=True):
            program = make_fx(compute, tracing_mode="real")()
        restore()  # recording computes nothing, tracing did
        output = tuple(torch.empty_like(each) for each in program())
        restore()

        def play() -> None:
            for kept, new in zip(output, program(), strict=True):
                kept.copy_(new)

        return play, output

    return record
