"""A first load of an unknown file, in a process that may die: LiteRT-LM ends it for a third of the files that lie."""

from __future__ import annotations

import queue
import sys
from pathlib import Path

from tabml._trial import report, try_in_child
from tabml.edge._lm.native import Limits, NativeEngine, Sampler
from tabml.errors import InferenceError

_TEXT = "Once upon a time, 12 < 345! é漢🙂\n\t"
_TOKENS = 4
_PATIENCE_S = 600.0


def check_loads(path: Path, name: str, *, device: str, threads: int, vision: bool, audio: bool) -> None:
    """Load a file and write a few tokens, in a child process.

    Args:
        path: The file; what it holds has been checked.
        name: For messages.
        device: ``cpu`` or ``gpu``.
        threads: For ``cpu``.
        vision: Load what reads pictures, too.
        audio: Load what hears, too.

    Raises:
        CorruptModelError: the child died of it, or didn't end.
        ModelLoadError: LiteRT-LM refused it, or the child can't run.
        CapacityError: no process can be started.
        CallCancelledError: the current cancellation was set.
    """
    parts = [part for part, wanted in (("vision", vision), ("audio", audio)) if wanted]
    try_in_child(__name__, path, name, device, str(threads), *parts, library="LiteRT-LM")


def main() -> None:
    """The child."""
    report(lambda: _try(*sys.argv[1:]))


def _try(path: str, name: str, device: str, threads: str, *parts: str) -> None:
    engine = NativeEngine(
        Path(path), name=name, backend=device, threads=int(threads), context_length=None, cache=None,
        vision="vision" in parts, audio="audio" in parts,
    )  # fmt: skip
    engine.decode(engine.encode(_TEXT))
    conversation = engine.converse(Sampler(top_k=2, top_p=1.0, temperature=1.0, seed=0))
    pieces: queue.SimpleQueue[tuple[str, bool, str]] = queue.SimpleQueue()
    conversation.send([{"type": "text", "text": _TEXT}], Limits(max_tokens=_TOKENS), lambda *piece: pieces.put(piece))
    while True:
        _, last, problem = pieces.get(timeout=_PATIENCE_S)
        if problem:
            raise InferenceError(f"{name}: LiteRT-LM can't run it: {problem}")
        if last:
            return
