"""The load of a large sharded model: time to the first token and peak memory, each case in a process of its own.

Memory is what the process has at its peak beyond its peak before the load, when all libraries were imported and compiled kernels
loaded, as they are once for all models: anonymous memory, pages of mapped files, and files in anonymous memory (memfd) whether mapped or not. The kernel's own mark (VmHWM)
counts the first two and what is mapped of the third; a thread looks at the rest every few milliseconds.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tabml.bench.processes import ended
from tabml.bench.rows import Row
from tabml.files import DirectoryProvider, FileInfo, FileRef, FileStream, MemoryFile
from tabml.text import GenerationOptions, TextGenerator
from tabml.text._door import text_extra

PROMPT = "w1 w2 w3"
REPO = "model"
_LAYERS = 24
_POLL_S = 0.005


class Streamed:
    """A folder's files as if they came from elsewhere: bytes only, no paths."""

    def __init__(self, root: Path) -> None:
        self._folder = DirectoryProvider(root)

    def open(self, ref: FileRef) -> FileStream:
        """The file as a stream of bytes."""
        return self._folder.open(ref)

    def list(self, repo: str, revision: str | None = None) -> Sequence[FileInfo]:
        """The files of the folder."""
        return self._folder.list(repo, revision)


class Memory:
    """Watches how much memory this process has."""

    def __init__(self) -> None:
        self._over = threading.Event()
        self._before = memory_status()["VmHWM"]
        self._peak = 0
        self._thread = threading.Thread(target=self._watch, name="memory", daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._over.wait(_POLL_S):
            now = memory_status()
            files = max(now["RssShmem"], _memory_files())
            self._peak = max(self._peak, now["RssAnon"] + now["RssFile"] + files)

    def end(self) -> int:
        """Bytes at the peak beyond the peak before."""
        self._over.set()
        self._thread.join()
        return max(self._peak, memory_status()["VmHWM"]) - self._before


def memory_status() -> dict[str, int]:
    """Bytes by the names of ``/proc/self/status``."""
    said = Path("/proc/self/status").read_text("ascii")
    return {name: int(size) << 10 for name, size in re.findall(r"^(\w+):\s+(\d+) kB$", said, re.MULTILINE)}


def _memory_files() -> int:
    """Bytes of the files in anonymous memory that this process has open."""
    found: dict[int, int] = {}
    for entry in os.scandir("/proc/self/fd"):
        with suppress(OSError):
            if os.readlink(entry.path).startswith("/memfd:"):
                status = os.stat(entry.path)
                found[status.st_ino] = status.st_blocks << 9
    return sum(found.values())


def measured(work: Callable[[], Any]) -> dict[str, float]:
    """Seconds, seconds of processors and bytes of a work that loads; the libraries are imported before."""
    with text_extra():
        import tabml.bench.peers
        import tabml.text._torch.causal  # noqa: F401
        from tabml.text._torch.kernels import door
    door.TOKENS.wait()
    memory, began, busy = Memory(), time.perf_counter(), time.process_time()
    kept = work()
    seconds, processor = time.perf_counter() - began, time.process_time() - busy
    if isinstance(kept, TextGenerator):
        kept.wait_until_packed()  # it has its peak later than its first token
    del kept
    return {"seconds": seconds, "processor": processor, "bytes": memory.end()}


def first_token(model: TextGenerator) -> TextGenerator:
    """The model, once it has answered with a token."""
    model.generate(PROMPT, GenerationOptions(temperature=0, max_new_tokens=1))
    return model


def _plain(root: Path) -> object:
    from tabml.bench.peers import PlainGenerator

    model = PlainGenerator(root / REPO)
    model.generate(PROMPT, 1)
    return model


def transferred(files: Any) -> list[MemoryFile]:
    """All files of a provider in memory, and nothing else."""
    found = []
    for info in files.list(REPO):
        file = MemoryFile(info.path)
        with files.open(FileRef(REPO, info.path)) as stream:
            for chunk in stream:
                file.write(chunk)
        found.append(file)
    return found


_WORKS: dict[str, Callable[[Path], object]] = {
    "plain": _plain,
    "local": lambda root: first_token(TextGenerator(root / REPO)),
    "streamed": lambda root: first_token(TextGenerator(REPO, files=Streamed(root))),
    "transfer": lambda root: transferred(Streamed(root)),
}


@contextmanager
def parent(root: Path) -> Iterator[str]:
    """The address of a program that serves a folder's files over gRPC."""
    command = [sys.executable, "-m", "tabml_grpc.bench", "serve", str(root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        yield server.stdout.readline().strip()
        server.stdin.close()


def measure(weights: int, turns: int) -> Iterator[Row]:
    """Loads of a random model: by its path, from bytes, and from a parent over gRPC, against plain ``from_pretrained``.

    Args:
        weights: Bytes of the model, about.
        turns: Figures are medians of so many processes of each kind.
    """
    with text_extra():
        from tabml.bench.peers import random_llama
    with TemporaryDirectory(prefix="tabml-bench-") as folder:
        root = Path(folder)
        size = random_llama(root / REPO, weights, _LAYERS)
        os.sync()  # else the first loads share the disk with what was just written
        found: dict[str, list[dict[str, float]]] = {}
        with parent(root) as address:
            cases: dict[str, tuple[object, ...]] = {
                **{name: ("tabml.bench.load", name, root) for name in _WORKS},
                "parent": ("tabml_grpc.bench", "load", address),
                "parent transfer": ("tabml_grpc.bench", "transfer", address),
            }
            for _ in range(turns):
                for name, command in cases.items():
                    found.setdefault(name, []).append(ended(*command))
        middle = {
            name: {key: statistics.median(each[key] for each in values) for key in values[0]}
            for name, values in found.items()
        }
    seconds = {name: values["seconds"] for name, values in middle.items()}
    peers = {
        "local": ("from_pretrained", seconds["plain"]),
        "streamed": ("bare transfer + from_pretrained", seconds["transfer"] + seconds["plain"]),
        "parent": ("bare transfer + from_pretrained", seconds["parent transfer"] + seconds["plain"]),
    }
    busy = {name: f"processor {values['processor']:.2f} s" for name, values in middle.items()}
    note = f"{busy['plain']}; {size / 1e9:.2f} GB of weights"
    yield Row(case="load", name="from_pretrained", value=seconds["plain"], unit="s to the first token", note=note)
    for name, (peer, limit) in peers.items():
        yield Row(
            case="load", name=f"tabml {name}", value=seconds[name], unit="s to the first token", peer=peer,
            ratio=seconds[name] / limit, note=busy[name],
        )  # fmt: skip
    for name in ("plain", *peers):
        peak = middle[name]["bytes"]
        yield Row(
            case="load", name="from_pretrained" if name == "plain" else f"tabml {name}", value=peak / 1e9, unit="GB at the peak",
            peer="the weights", ratio=peak / size,
        )  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(measured(lambda: _WORKS[sys.argv[1]](Path(sys.argv[2])))), flush=True)  # noqa: T201
    os._exit(0)  # the time of an orderly end is nobody's figure
