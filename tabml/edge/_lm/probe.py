"""A first load of an unknown file, in a process that may die: LiteRT-LM ends it for a third of the files that lie."""

from __future__ import annotations

import queue
import sys
from pathlib import Path

import numpy as np

from tabml._trial import report, try_in_child
from tabml.edge._lm.container import read_container
from tabml.edge._lm.marks import marks_by_tokens
from tabml.edge._lm.native import Limits, NativeEngine, Sampler
from tabml.edge._lm.parts import RATE, Part, part_of
from tabml.errors import InferenceError

_TEXT = "Once upon a time, 12 < 345! é漢🙂\n\t"
_TOKENS = 4
_SIDE = 1536
"""Of a picture that is more than models look at, so that their own limits are reached."""
_PATIENCE_S = 600.0


def check_loads(path: Path, name: str, *, device: str, threads: int) -> None:
    """Load a file and write a few tokens, and some more about a picture and a sound where it takes them, in a child process.

    Args:
        path: The file; what it holds has been checked.
        name: For messages.
        device: ``cpu`` or ``gpu``.
        threads: For ``cpu``.

    Raises:
        CorruptModelError: the child died of it, or didn't end.
        ModelLoadError: LiteRT-LM refused it, or the child can't run.
        CapacityError: no process can be started.
        CallCancelledError: the current cancellation was set.
    """
    try_in_child(__name__, path, name, device, str(threads), library="LiteRT-LM")


def main() -> None:
    """The child."""
    report(lambda: _try(*sys.argv[1:]))


def _try(path: str, name: str, device: str, threads: str) -> None:
    container = read_container(Path(path), name)
    engine = NativeEngine(
        Path(path), name=name, backend=device, threads=int(threads), context_length=None, cache=None,
        vision=container.takes_pictures, audio=container.takes_sound,
    )  # fmt: skip
    engine.decode(engine.encode(_TEXT))
    _write(engine, name, _TEXT, [])
    marks = container.marks or marks_by_tokens(engine.decode)
    if container.takes_pictures and marks.image:
        _write(engine, name, marks.image[0] + _TEXT, [part_of("image", np.full((_SIDE, _SIDE, 3), 99, np.uint8))])
    if container.takes_sound and marks.audio:
        _write(engine, name, marks.audio[0] + _TEXT, [part_of("audio", np.zeros(RATE // 2, np.float32))])


def _write(engine: NativeEngine, name: str, prompt: str, parts: list[Part]) -> None:
    conversation = engine.converse(Sampler(top_k=2, top_p=1.0, temperature=1.0, seed=0))
    pieces: queue.SimpleQueue[tuple[str, bool, str]] = queue.SimpleQueue()
    content = [{"type": "text", "text": prompt}, *(part.to_native() for part in parts)]
    conversation.send(content, Limits(max_tokens=_TOKENS), lambda *piece: pieces.put(piece))
    while True:
        _, last, problem = pieces.get(timeout=_PATIENCE_S)
        if problem:
            raise InferenceError(f"{name}: LiteRT-LM can't run it: {problem}")
        if last:
            return conversation.close()
