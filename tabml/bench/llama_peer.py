"""llama.cpp's binding, called directly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import xllamacpp

from tabml.text._llama.native import threads


class PlainLlama:
    """A GGUF file in xllamacpp, as its examples use it."""

    def __init__(self, path: Path, folder: Path) -> None:
        """Load it.

        Args:
            path: The file.
            folder: For its server's socket; the usual port may be taken.
        """
        wanted = xllamacpp.CommonParams()
        wanted.model.path = str(path)
        wanted.n_ctx, wanted.n_parallel, wanted.verbosity = 8192, 8, -1
        wanted.cpuparams.n_threads = wanted.cpuparams_batch.n_threads = threads()
        wanted.hostnames = [str(folder / "peer.sock")]
        self._server = xllamacpp.Server(wanted)

    def generate(self, prompt: str, tokens: int) -> str:
        """A continuation of exactly so many tokens, read from the stream."""
        pieces: list[str] = []

        def hear(event: dict[str, Any]) -> None:
            pieces.extend(each["text"] for each in event.get("choices", ()))

        body = {"prompt": prompt, "n_predict": tokens, "temperature": 0, "stream": True, "ignore_eos": True}
        self._server.handle_completions(body, hear)
        return "".join(pieces)
