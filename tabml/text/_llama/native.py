"""llama.cpp's server inside of this process, by xllamacpp, and behind a socket that only we can reach.

Completions are called directly. Tokenizing has no call of its own in the binding, so it goes over the server's socket.
That would be a TCP port which answers every web page of this machine: hence a Unix socket in a private folder, a key
made for it, and no path to it any more once the model is loaded.
"""

from __future__ import annotations

import http.client
import json
import os
import secrets
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tabml.errors import InferenceError, ModelLoadError

os.environ.setdefault("GGML_NO_BACKTRACE", "1")  # else a debugger is started when it aborts
_SPINS = "GOMP_SPINCOUNT"
_PATIENT = not {_SPINS, "OMP_WAIT_POLICY"} & os.environ.keys()
if _PATIENT:
    os.environ[_SPINS] = "1000"
try:
    # Its threads wait for each other in a loop. By default that has no end worth speaking of, and beside any other
    # work on the same cores 120 tokens/s become 1 to 3; with 1,000 turns they become 25, and stay 130 without it.
    # The OpenMP library reads this as it is loaded.
    import xllamacpp
finally:
    if _PATIENT:
        del os.environ[_SPINS]

Event = dict[str, Any]
BATCH = 256
"""Tokens of prompts that are computed at a time: between two batches a call can be ended."""
_SMT = Path("/sys/devices/system/cpu/smt/active")
_ALL_LAYERS = 1 << 16


def threads() -> int:
    """Cores that this process may use: its threads spin, so more of them than cores make it slow."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        twice = _SMT.read_text().strip() == "1"
    except OSError:
        twice = False
    return max(1, count // 2 if twice else count)


def has_gpu() -> bool:
    """Whether this build of llama.cpp can compute on a GPU of this machine."""
    kinds = xllamacpp.ggml_backend_dev_type
    gpus = (kinds.GGML_BACKEND_DEVICE_TYPE_GPU, kinds.GGML_BACKEND_DEVICE_TYPE_IGPU)
    return any(device["type"] in gpus for device in xllamacpp.get_device_info())


class NativeServer:
    """One loaded model."""

    def __init__(self, path: Path, *, name: str, context_length: int, slots: int, gpu: bool) -> None:
        """Load it.

        Args:
            path: A GGUF file; it may be gone once the model is loaded.
            name: For messages.
            context_length: Tokens of all answers that run, prompts included.
            slots: Answers that run at a time.
            gpu: Have the layers there.

        Raises:
            ModelLoadError: llama.cpp refused it.
        """
        wanted = xllamacpp.CommonParams()
        wanted.model.path = str(path)
        wanted.n_ctx, wanted.n_parallel, wanted.kv_unified = context_length, slots, True
        wanted.n_batch = wanted.n_ubatch = BATCH
        wanted.cpuparams.n_threads = wanted.cpuparams_batch.n_threads = threads()
        wanted.n_gpu_layers = _ALL_LAYERS if gpu else 0
        wanted.n_threads_http = 2
        wanted.cache_ram_mib = 0
        wanted.verbosity = -1
        wanted.ui = wanted.endpoint_slots = wanted.endpoint_props = wanted.fit_params = False
        self._key = secrets.token_hex(16)
        wanted.api_keys = [self._key]
        with tempfile.TemporaryDirectory(prefix="tabml-") as folder, _opened(folder) as descriptor:
            # the ending makes it a socket; by way of the descriptor, as the folder's own path may be longer than one takes
            address = f"/proc/self/fd/{descriptor}/llama.sock"
            wanted.hostnames = [address]
            try:
                self._server = xllamacpp.Server(wanted)
            except Exception as problem:
                said = " ".join(str(problem).split())[:300]
                raise ModelLoadError(f"{name}: llama.cpp can't load the model: {said}") from problem
            self._socket = os.open(address, os.O_PATH)
        self.complete({"prompt": [0], "n_predict": 1}, lambda _: False)  # closed before its loop runs, it hangs

    def call(self, path: str, body: Event) -> Event:
        """An answer of the server that isn't streamed.

        Raises:
            InferenceError: it refused.
        """
        connection = _Connection(self._socket)
        try:
            connection.request("POST", path, json.dumps(body), {"Authorization": f"Bearer {self._key}"})
            response = connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as problem:
            raise InferenceError(f"llama.cpp does not answer: {type(problem).__name__}: {problem}") from problem
        finally:
            connection.close()
        if response.status != http.client.OK:
            raise InferenceError(f"llama.cpp refused {path}: {content[:200]!r}")
        answer: Event = json.loads(content)
        return answer

    def complete(self, body: Event, on_event: Callable[[Event], bool]) -> None:
        """A completion; returns when it has ended. ``on_event`` is called for each event, and ends it by True."""
        self._server.handle_completions(body, on_event)

    def close(self) -> None:
        """Free the model; no completion may run any more."""
        del self._server
        os.close(self._socket)


@contextmanager
def _opened(folder: str) -> Iterator[int]:
    """A descriptor of the folder."""
    descriptor = os.open(folder, os.O_PATH)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


class _Connection(http.client.HTTPConnection):
    """To a socket that has no path any more."""

    def __init__(self, descriptor: int) -> None:
        super().__init__("localhost")
        self._descriptor = descriptor

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(f"/proc/self/fd/{self._descriptor}")
