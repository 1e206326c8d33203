"""Passes of few shapes that a GPU is given as one recording each.

A pass of a small model is hundreds of kernels of a few microseconds, which Python starts more slowly than the GPU ends
them. Where everything that changes from pass to pass lies in memory of the device that stays where it is, a pass can be
recorded once as a CUDA graph and played again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Hashable
from functools import partial

import torch

log = logging.getLogger("tabml.text")

_EAGER = 2
"""Times that a shape is computed before it is recorded: libraries set themselves up, and a rare shape isn't worth it."""
_MOST = 256
"""Recordings of one model; beyond, all are dropped, and what is still needed is recorded again."""
RECORDING = threading.Lock()
"""One recording at a time in a process, and none while a device is measured."""
Output = tuple[torch.Tensor, ...]
Recorder = Callable[[Callable[[], Output]], tuple[Callable[[], None], Output]]
"""From what computes to what plays that again, and the tensors where its results then are; it is not computed."""


class Recordings:
    """Of one model's passes, by what they have in common; used by one thread at a time."""

    def __init__(self, recorder: Callable[[], Recorder] | None) -> None:
        """Nothing is recorded yet.

        Args:
            recorder: Makes what records, anew once recordings are dropped; None where they don't pay.
        """
        self._recorder = recorder
        self._record = recorder() if recorder is not None else None
        self._seen: dict[Hashable, int] = {}
        self._recorded: dict[Hashable, tuple[Callable[[], None], Output]] = {}

    def drop(self) -> None:
        """Of memory that is no more; what was recorded is recorded again when it is next needed."""
        self._recorded.clear()
        if self._record is not None and self._recorder is not None:
            self._record = self._recorder()

    def computed(self, shape: Hashable, compute: Callable[[], Output]) -> Output:
        """What ``compute`` gives, until the next call; it does the same at each call with this shape.

        Args:
            shape: All that is Python's in ``compute``.
            compute: A pass, from tensors that stay where they are.
        """
        found = self._recorded.get(shape)
        if found is None:
            seen = self._seen[shape] = self._seen.get(shape, 0) + 1
            if self._record is None or seen <= _EAGER or not RECORDING.acquire(blocking=False):
                return compute()
            try:
                if len(self._recorded) == _MOST:
                    self._seen.clear()
                    self.drop()
                found = self._recorded[shape] = self._record(compute)
            except Exception as problem:  # what is not recording's fault comes again below
                log.warning("passes of this model can't be recorded, which is slower", exc_info=problem)
                self._record = None
                return compute()
            finally:
                RECORDING.release()
        found[0]()
        return found[1]


def recordings_for(device: torch.device) -> Recordings | None:
    """Nothing yet, or None for a device where they don't pay."""
    return Recordings(partial(cuda_recorder, device)) if device.type == "cuda" else None


def cuda_recorder(device: torch.device) -> Recorder:
    """CUDA graphs that share their memory: of what they compute with, no two are needed at a time.

    Once its graphs are gone it is of no use: torch takes no new ones into memory of which a part is still held.
    """
    pool, stream = torch.cuda.graph_pool_handle(), torch.cuda.Stream(device)

    def record(compute: Callable[[], Output]) -> tuple[Callable[[], None], Output]:
        graph, before = torch.cuda.CUDAGraph(), torch.cuda.current_stream(device)
        try:
            with (
                torch.cuda.device(device),
                torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"),
            ):
                output = compute()
        finally:
            torch.cuda.set_stream(before)  # a recording that fails leaves its own
        return graph.replay, output

    return record
