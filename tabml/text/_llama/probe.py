"""A first load of an unknown GGUF file, in a process that may die.

llama.cpp ends the whole process when a file contradicts itself behind its header: a vocabulary with a word twice, no
layers, more experts than it was built for. Every such file that is known shows it on loading or with the first tokens.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tabml.cancellation import current_cancellation
from tabml.errors import CapacityError, CorruptModelError, ModelLoadError, TabmlError

if TYPE_CHECKING:
    from tabml.text._llama.native import NativeServer

_START_S = 30.0
_BYTES_A_SECOND = 50 << 20
_LOOK_S = 0.01
_CONTEXT = 128
_TEXTS = ("Once upon a time, 12 < 345!", " é漢🙂\n\t", "", "<|im_end|></s><eos>[INST]")
_REFUSED = 3


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
    with tempfile.TemporaryDirectory(prefix="tabml-") as folder:  # a child that dies leaves its own behind
        try:
            child = subprocess.Popen(
                [sys.executable, "-P", "-c", "from tabml.text._llama.probe import main; main()", str(path), name],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join(each or os.getcwd() for each in sys.path),
                    "TMPDIR": folder,
                },
            )
        except OSError as problem:
            raise CapacityError(f"no process can be started to try {name}: {problem}") from None
        with child:
            _wait(child, path, name)
            said = child.stdout.read().decode(errors="replace") if child.stdout is not None else ""
    if child.returncode == _REFUSED:
        raise ModelLoadError(said[:400])
    if child.returncode > 0:
        raise ModelLoadError(f"{name}: it can't be tried in a process of its own (status {child.returncode})")
    if child.returncode < 0:
        raise CorruptModelError(
            f"{name}: llama.cpp dies of it (signal {-child.returncode}); it was tried in a process of its own"
        )


def _wait(child: subprocess.Popen[bytes], path: Path, name: str) -> None:
    """Until it has ended; longer than the file may take, or when the call is cancelled, it is killed."""
    cancellation = current_cancellation()
    most = _START_S + path.stat().st_size / _BYTES_A_SECOND
    end = time.monotonic() + most
    try:
        while child.poll() is None:
            if cancellation is not None:
                cancellation.check()
            if time.monotonic() > end:
                raise CorruptModelError(f"{name}: llama.cpp did not end with it in {most:.0f} s; it was not used")
            time.sleep(_LOOK_S)
    finally:
        child.kill()


def main() -> None:
    """The child: the status is 0 when all is well, 3 when llama.cpp refused the file."""
    from tabml.text._llama.native import NativeServer

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        _try(NativeServer(Path(sys.argv[1]), name=sys.argv[2], context_length=_CONTEXT, slots=1, gpu=False))
    except TabmlError as problem:
        os.write(1, str(problem).encode())
        os._exit(_REFUSED)
    os._exit(0)


def _try(native: NativeServer) -> None:
    """What a file shows its faults by."""
    for text in _TEXTS:
        for special in (False, True):
            ids = native.call("/tokenize", {"content": text, "add_special": special, "parse_special": special})
            native.call("/detokenize", ids)
    first = {"prompt": ids["tokens"] or [0], "n_predict": 4, "stream": True, "n_probs": 2, "ignore_eos": True}
    native.complete(first, lambda _: False)
    native.complete({**first, "grammar": "%llguidance {}\nstart: %json " + json.dumps({})}, lambda _: False)
