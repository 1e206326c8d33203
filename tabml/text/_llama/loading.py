"""GGUF files out of a repository, with an engine around them."""

from __future__ import annotations

import hashlib
from pathlib import Path

from tabml.errors import ModelKindError, OptionError
from tabml.files import FileRef, load_catalog
from tabml.text._llama.engine import SLOTS, LlamaEngine
from tabml.text._llama.native import NativeServer, has_gpu
from tabml.text._llama.probe import check_loads
from tabml.text._model import Placement
from tabml.text.repository import Repository

MAX_CONTEXT = 8192
"""Tokens of prompts and answers together, unless the user says otherwise: they cost memory from the load on."""
_LEAST_TRAINED, _MOST_TRAINED = 16, 1 << 24


def load_engine(repository: Repository, placement: Placement, *, context_length: int | None = None) -> LlamaEngine:
    """An engine for a GGUF file.

    Args:
        repository: With its file fetched.
        placement: Where to compute; the file decides how.
        context_length: Tokens of prompts and answers together; when None the model's own, at most
            :data:`MAX_CONTEXT`.

    Raises:
        OptionError: ``placement`` or ``context_length`` is not possible with this file.
        ModelKindError: the file is a part of a model, or no language model.
        ModelLoadError: llama.cpp refused it.
    """
    for name in ("dtype", "quantization"):
        if getattr(placement, name) not in (None, "auto"):
            raise OptionError(
                f"{name}={getattr(placement, name)!r} does not go with llama.cpp, which computes with the weights as "
                "the file has them; use engine='torch'"
            )
    metadata = repository.metadata
    architecture = metadata.get("general.architecture")
    trained = metadata.get(f"{architecture}.context_length")
    if int(metadata.get("split.count", 0)) > 1:
        raise ModelKindError(f"{repository.name} is one of several parts of a model; join them with llama-gguf-split")
    causal = metadata.get(f"{architecture}.attention.causal", True) and str(architecture)[:2] != "t5"
    if (
        metadata.get("general.type", "model") != "model"
        or not causal
        or not isinstance(trained, int)
        or not _LEAST_TRAINED <= trained < _MOST_TRAINED
    ):
        raise ModelKindError(f"{repository.name} is a GGUF file of {architecture!r:.40}, which is no language model")
    if context_length is not None and context_length > trained:
        raise OptionError(f"context_length={context_length} must be at most {trained}, which this model was made for")
    length = context_length or min(trained, MAX_CONTEXT)
    if placement.device.startswith("cuda:"):
        raise OptionError(f"device={placement.device!r} is not possible with llama.cpp, which takes all; use 'cuda'")
    gpu = placement.device not in ("cpu", "auto") or (placement.device == "auto" and has_gpu())
    if gpu and not has_gpu():
        raise OptionError(
            f"device={placement.device!r} is not possible: this build of xllamacpp has no GPU; use 'cpu', or install one"
        )
    path = repository.path / repository.ref.path
    if not _is_of_catalog(path, repository.ref):
        check_loads(path, repository.name)
    native = NativeServer(path, name=repository.name, context_length=length, slots=SLOTS, gpu=gpu)
    return LlamaEngine(native, metadata, name=repository.name, context_length=length)


def _is_of_catalog(path: Path, ref: FileRef) -> bool:
    """Whether it is the very file that the catalog knows by this name."""
    entry = load_catalog().get(ref.repo)
    if entry is None or entry.file != ref.path:
        return False
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest() == entry.sha256
