"""A first load of an unknown GGUF file, in a process that may die.

llama.cpp ends the whole process when a file contradicts itself behind its header: a vocabulary with a word twice, no
layers, more experts than it was built for. Every such file that is known shows it on loading or with the first tokens.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tabml._trial import report, try_in_child

if TYPE_CHECKING:
    from tabml.text._llama.native import NativeServer

_CONTEXT = 128
_TEXTS = ("Once upon a time, 12 < 345!", " é漢🙂\n\t", "", "<|im_end|></s><eos>[INST]")


def check_loads(path: Path, name: str) -> None:
    """Load a file and generate a few tokens, in a child process.

    Args:
        path: The file.
        name: For messages.

    Raises:
        CorruptModelError: the child died of it, or didn't end.
        ModelLoadError: llama.cpp refused it, or the child can't run.
        CapacityError: no process can be started.
        CallCancelledError: the current cancellation was set.
    """
    try_in_child(__name__, path, name, library="llama.cpp")


def main() -> None:
    """The child."""
    from tabml.text._llama.native import NativeServer

    report(lambda: _try(NativeServer(Path(sys.argv[1]), name=sys.argv[2], context_length=_CONTEXT, slots=1, gpu=False)))


def _try(native: NativeServer) -> None:
    """What a file shows its faults by."""
    for text in _TEXTS:
        for special in (False, True):
            ids = native.call("/tokenize", {"content": text, "add_special": special, "parse_special": special})
            native.call("/detokenize", ids)
    first = {"prompt": ids["tokens"] or [0], "n_predict": 4, "stream": True, "n_probs": 2, "ignore_eos": True}
    native.complete(first, lambda _: False)
    native.complete({**first, "grammar": "%llguidance {}\nstart: %json " + json.dumps({})}, lambda _: False)
