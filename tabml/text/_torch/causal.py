"""Causal language models out of a repository, with an engine around them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

import transformers

from tabml.errors import UnavailableHereError
from tabml.text._model import Placement
from tabml.text._torch.engine import TorchEngine
from tabml.text._torch.kernels import door
from tabml.text._torch.loading import (
    load_pretrained,
    load_tokenizer,
    packed_later,
    placed,
    quiet,
    read_weights,
    resolve_device,
    resolve_dtype,
    told,
)
from tabml.text._torch.shortcut import shortened
from tabml.text._torch.teams import disband
from tabml.text._torch.unpacking import read_once
from tabml.text.repository import Repository


def load_engine(
    repository: Repository,
    placement: Placement,
    *,
    architecture: str | None = None,
    context_length: int | None = None,
) -> TorchEngine:
    """An engine for a model in transformers' layout.

    Raises:
        ModelKindError: it is no causal language model.
        CorruptModelError: tensors are missing or of another shape.
        ModelLoadError: the library refused it.
    """
    model = load_pretrained(
        repository, "AutoModelForCausalLM", placement, architecture=architecture, task="text-generation"
    )
    tokenizer = load_tokenizer(repository)
    return _engine(model, tokenizer, context_length, packed_later(model, placement, repository))


def load_gguf_engine(repository: Repository, placement: Placement, *, context_length: int | None = None) -> TorchEngine:
    """An engine for a GGUF file, whose weights are unpacked.

    Raises:
        CorruptModelError: tensors are missing or of another shape.
        ModelLoadError: the library refused it.
        UnavailableHereError: accelerate or gguf is not installed.
    """
    device = resolve_device(placement)
    name = repository.ref.path
    if not (transformers.utils.is_accelerate_available() and transformers.utils.is_gguf_available()):
        raise UnavailableHereError(
            "engine='torch' reads GGUF with accelerate and gguf; run: python -m pip install accelerate gguf"
        )
    with quiet(), read_once():
        model = read_weights(
            transformers.AutoModelForCausalLM, repository, gguf_file=name, dtype=resolve_dtype(placement, device, {})
        )
        with told(repository, "the tokenizer"):
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                repository.path, gguf_file=name, trust_remote_code=False, local_files_only=True
            )
    model = placed(model, device)
    return _engine(model, tokenizer, context_length, packed_later(model, placement, repository))


def _engine(model: Any, tokenizer: Any, context_length: int | None, packing: Iterator[str]) -> TorchEngine:
    engine = TorchEngine(
        model,
        tokenizer,
        chat_template=_template(tokenizer),
        end_ids=_end_ids(model, tokenizer),
        context_length=context_length,
        packing=chain(packing, shortened(model), door.TOKENS.preparing() if model.device.type == "cpu" else ()),
    )
    disband()  # what loading and packing took; the engine computes in a thread of its own
    return engine


def _template(tokenizer: Any) -> str | None:
    template = tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    return template if isinstance(template, str) and template else None


def _end_ids(model: Any, tokenizer: Any) -> tuple[int, ...]:
    """Tokens that end an answer: of the generation configuration, else of the model and its tokenizer."""
    said = getattr(model.generation_config, "eos_token_id", None)
    if said is None:
        said = [
            each for each in (model.config.get_text_config().eos_token_id, tokenizer.eos_token_id) if each is not None
        ]
    ids = said if isinstance(said, list) else [said]
    flat = [each for one in ids for each in (one if isinstance(one, list) else [one])]
    return tuple(dict.fromkeys(int(each) for each in flat if each >= 0))
