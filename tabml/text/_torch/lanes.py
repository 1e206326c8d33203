"""Batches computed side by side on a CPU, each by one thread.

Threads that share a matrix product wait for each other in every layer, and spin while they do. The threads belong to the
process, not to a model: two models that work at once share them.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from typing import Any, TypeVar

import torch

Part = TypeVar("Part")
Value = TypeVar("Value")

_CHANGING = ("dynamic", "longrope")
_SETTING = threading.Lock()


def lanes_of(model: Any, device: torch.device) -> int:
    """How many parts the model may compute at once: on a CPU as many as torch has threads.

    One where the model changes while it computes, as rotary positions do that depend on the length.
    """
    return 1 if device.type != "cpu" or changes_with_length(model) else torch.get_num_threads()


def changes_with_length(model: Any) -> bool:
    """Whether a pass leaves the model another one, as rotary positions do that depend on the length."""
    kinds = (getattr(module, "rope_type", None) for module in model.modules())
    return any(each in _CHANGING for kind in kinds for each in (kind.values() if isinstance(kind, dict) else [kind]))


def side_by_side(work: Callable[[Part], Value], parts: Sequence[Part]) -> list[Value]:
    """What ``work`` gives for each part; a part that fails lets the others end first."""
    jobs = [_threads(os.getpid(), len(parts)).submit(work, part) for part in parts]
    wait(jobs)
    return [job.result() for job in jobs]


def on_lane(work: Callable[[], Value], lanes: int) -> Value:
    """What ``work`` gives, in one of so many threads."""
    return _threads(os.getpid(), lanes).submit(work).result()


@cache
def _threads(process: int, count: int) -> ThreadPoolExecutor:
    """Of this process: those of a parent don't survive a fork."""
    return ThreadPoolExecutor(count, f"tabml lane of {process}", _compute_alone)


def _compute_alone() -> None:
    """Let this thread compute without others.

    torch keeps the number that was set last, by whatever thread, for threads that come later: a thread that ends at
    once sets it back.
    """
    with _SETTING:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        back = threading.Thread(target=torch.set_num_threads, args=(before,))
        back.start()
        back.join()
