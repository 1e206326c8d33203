"""Models and tokenizers out of a checked repository, never from anywhere else, and one load at a time.

transformers' ``from_pretrained`` is not thread-safe: of 32 parallel loads a dozen come back with missing tensors and
no error. It also asks on stdin, follows names out of the folder and looks at the network, unless told not to.
"""

from __future__ import annotations

import logging
import os
import re
import tempfile
import threading
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")

import torch
import transformers
from transformers import dynamic_module_utils

from tabml.errors import CorruptModelError, ModelKindError, ModelLoadError, OptionError, TabmlError
from tabml.text._model import Placement
from tabml.text._torch.kernels import door
from tabml.text._torch.originals import Originals
from tabml.text._torch.packing import CompiledLinear, packing, packing_suits_many_rows
from tabml.text.fitting import architectures, no_fit
from tabml.text.repository import Repository

LOADING = threading.RLock()
"""Held during every load of a model or tokenizer."""

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_NO_MATTER = re.compile(r"(position_ids|token_type_ids|mask|\.masked_bias|\.attn\.bias|\.attention\.bias|\.inv_freq)$")
"""Buffers that models compute, and that old files have."""
_POOLER = re.compile(r"^pooler\.")
_OTHER_HEADS = re.compile(r"(^|\.)(pooler|seq_relationship|sop_classifier)\.")
"""Of pre-training, which models of one task were saved with."""
_MOST_NAMES = 3


def resolve_device(placement: Placement) -> torch.device:
    """The device that is meant.

    Raises:
        OptionError: it isn't on this machine.
    """
    if placement.device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("cpu")
    device = torch.device(placement.device)
    present = {
        "cpu": lambda: True,
        "cuda": lambda: torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available,
    }[device.type]()
    if not present:
        raise OptionError(f"device={placement.device!r} is not on this machine; use 'auto' or 'cpu'")
    return device


def resolve_dtype(placement: Placement, device: torch.device, config: dict[str, Any]) -> torch.dtype:
    """The number format to compute in: with quantised weights bfloat16, with float16 on a CPU float32.

    Raises:
        OptionError: ``quantization`` doesn't go with the device or number format.
    """
    if placement.quantization is not None:
        if device.type != "cpu":
            raise OptionError(f"quantization={placement.quantization!r} is for device='cpu'; use dtype='bfloat16'")
        if placement.dtype not in ("auto", "bfloat16"):
            raise OptionError(f"dtype={placement.dtype!r} does not go with quantization; use 'bfloat16' or 'auto'")
        return torch.bfloat16
    if _is_half(placement, device):
        return torch.float32
    if placement.dtype != "auto":
        return _DTYPES[placement.dtype]
    if device.type == "cpu":
        return torch.float32
    named = config.get("dtype") or config.get("torch_dtype")
    return _DTYPES.get(str(named), torch.float32)


def _is_half(placement: Placement, device: torch.device) -> bool:
    """Whether float16 means weights alone: no CPU computes with it, but what is read from memory is half."""
    return placement.dtype == "float16" and device.type == "cpu"


def _is_packed(placement: Placement, device: torch.device) -> bool:
    """Whether weights are rounded to fewer bits once they are read."""
    return placement.quantization is not None or _is_half(placement, device)


@contextmanager
def quiet() -> Iterator[None]:
    """Hold the lock, and keep transformers from writing to stderr and drawing bars, which it does by default."""
    with LOADING, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        level = transformers.utils.logging.get_verbosity()
        transformers.utils.logging.set_verbosity(logging.CRITICAL)
        bars = transformers.utils.logging.is_progress_bar_enabled()
        transformers.utils.logging.disable_progress_bar()
        try:
            yield
        finally:
            transformers.utils.logging.set_verbosity(level)
            if bars:
                transformers.utils.logging.enable_progress_bar()


@contextmanager
def told(repository: Repository, what: str) -> Iterator[None]:
    """Whatever the library says against a repository, as an error of ours; a Rust panic is a BaseException."""
    try:
        yield
    except (TabmlError, MemoryError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as problem:
        said = " ".join(str(problem).split())[:300]
        raise ModelLoadError(
            f"{repository.name}: {what} can't be loaded: {type(problem).__name__}: {said}"
        ) from problem


def check_architecture(repository: Repository, wanted: str | None) -> None:
    """Refuse a model of another architecture than the caller said it must be, if one was said.

    Raises:
        ModelKindError: it is of another.
    """
    config, classes = repository.config, architectures(repository.config)
    kind = config.get("model_type", "")
    if wanted is not None and wanted not in (*classes, kind):
        raise ModelKindError(f"architecture={wanted!r:.80}: {repository.name} is {', '.join(classes) or kind}")


def load_pretrained(
    repository: Repository,
    auto: str,
    placement: Placement,
    *,
    task: str,
    architecture: str | None = None,
    many_rows: bool = False,
) -> Any:
    """A model with all of its weights, on its device, as :mod:`transformers` reads it; see :func:`packed`.

    Args:
        repository: With the small files fetched; the weights are fetched here.
        auto: The Auto class of transformers.
        placement: Where and how.
        task: What it is for.
        architecture: What the caller says it must be.
        many_rows: See :func:`packed`.

    Raises:
        ModelKindError: the model has no such head, or another architecture.
        CorruptModelError: tensors are missing, or have another shape.
        ModelLoadError: the library refused it.
        OptionError: ``placement`` is not possible here.
    """
    kind = getattr(transformers, auto)
    config = repository.config
    known = {entry for group in kind._model_mapping._model_mapping.values() for entry in _classes_of(group)}
    is_own = brings_code(repository, auto)
    if not is_own and config.get("model_type") not in transformers.CONFIG_MAPPING:
        raise ModelKindError(f"{repository.name}: model_type={config.get('model_type')!r} is not known to transformers")
    check_architecture(repository, architecture)
    classes = architectures(config)
    if classes and not is_own and not any(each in known for each in classes):
        raise no_fit(repository, f"is a {', '.join(classes)}, which is no model for {task}")
    device = resolve_device(placement)
    dtype = resolve_dtype(placement, device, config)
    prepare_kernels(placement, device, many_rows=many_rows)
    repository.fetch_weights()
    model = read_weights(
        kind,
        repository,
        dtype=dtype,
        use_safetensors=True,
        attn_implementation="sdpa" if _has_sdpa(kind, config) else "eager",
    )
    return placed(model, device)


def brings_code(repository: Repository, auto: str) -> bool:
    """Whether the model's class is code of the repository, which may run."""
    return repository.trust_remote_code and auto in (repository.config.get("auto_map") or {})


def read_weights(kind: Any, repository: Repository, *, is_body: bool = False, **options: Any) -> Any:
    """A model that has all of its weights, and no others: they would be noise, or another model.

    Args:
        kind: A class of transformers.
        repository: With all files fetched.
        is_body: Whether heads, and the pooler, are not asked for.
        **options: Of ``from_pretrained``.

    Raises:
        CorruptModelError: tensors are missing, have another shape, or are not the model's.
        ModelLoadError: the library refused it.
    """
    with (
        quiet(),
        told(repository, "the model"),
        _own_code(repository),
        _refused_early(repository.name, is_body=is_body),
    ):
        model, info = kind.from_pretrained(
            repository.path,
            trust_remote_code=repository.trust_remote_code,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are told by name
            return_dict=True,
            **options,
        )
    _check_whole(model, info, repository.name, is_body=is_body)
    return model


@contextmanager
def _refused_early(name: str, *, is_body: bool) -> Iterator[None]:
    """Look at what is missing as soon as transformers knows: it makes up tensors before it tells, of gigabytes if asked."""
    plain = transformers.PreTrainedModel._finalize_model_loading
    mine = threading.get_ident()

    def checked(model: Any, load_config: Any, info: Any) -> Any:
        if threading.get_ident() != mine:  # a load of somebody else's
            return plain(model, load_config, info)
        model.mark_tied_weights_as_initialized(info)
        ties = model.all_tied_weights_keys
        sources = {source for key, source in ties.items() if key not in info.missing_keys}
        missing = info.missing_keys - ties.keys() - sources  # tied ones are looked at once they are tied
        fine = re.compile("|".join(model._keys_to_ignore_on_load_missing or ["(?!)"]))
        _refuse("are missing", (key for key in missing if not fine.search(key)), name, is_body=is_body)
        _refuse_shapes(info.mismatched_keys, name)
        return plain(model, load_config, info)

    with replaced(transformers.PreTrainedModel, "_finalize_model_loading", staticmethod(checked)):
        yield


@contextmanager
def _own_code(repository: Repository) -> Iterator[None]:
    """Have transformers copy the code that a repository brings, if it may run, into a folder that goes with the process."""
    if not repository.trust_remote_code:
        yield
        return
    with (
        replaced(dynamic_module_utils, "HF_MODULES_CACHE", _folder_of_code().name),
        replaced(dynamic_module_utils, "TRANSFORMERS_DYNAMIC_MODULE_NAME", "tabml_modules_of_models"),
    ):
        yield


@cache
def _folder_of_code() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="tabml-code-")


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Have an attribute of a library be another one; hold the lock of loads."""
    before = vars(owner)[name]
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def prepare_kernels(placement: Placement, device: torch.device, *, many_rows: bool) -> None:
    """Begin to load what packed weights wait for, while they are fetched and read."""
    if _is_packed(placement, device):
        (door.TEXTS if many_rows and placement.quantization == "int8" else door.TOKENS).prepare()


def placed(model: Any, device: torch.device) -> Any:
    """The model on its device, for nothing but answers."""
    model.eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model.to(device)


def packed(model: Any, placement: Placement, repository: Repository, *, many_rows: bool = False) -> Any:
    """The model with its linear layers packed where that is quicker; what they were read from is let go.

    Args:
        model: On its device.
        placement: What was asked for.
        repository: That it was read from.
        many_rows: Whether it reads whole texts at once, as encoders do: in float32 that is quicker with some processors
            only.
    """
    plain = model.dtype == torch.float32 and not _is_packed(placement, model.device)
    if not (many_rows and plain) or packing_suits_many_rows():
        deque(packed_later(model, placement, repository, many_rows=many_rows), maxlen=0)
        if any(isinstance(layer, CompiledLinear) for layer in model.modules()):
            door.TOKENS.prepare()
    return model


def packed_later(model: Any, placement: Placement, repository: Repository, *, many_rows: bool = False) -> Iterator[str]:
    """Packs a layer of the model with each value that is taken; what changes the arithmetic is packed at once.

    A model that is mapped from a file can answer before a copy of it is made, which takes longer than to load it.
    """
    if model.device.type != "cpu":
        return iter(())
    kind = "float16" if _is_half(placement, model.device) else placement.quantization
    layers = packing(model, kind, partial(Originals, model, repository.take_weights()), many_rows=many_rows)
    if kind is not None:
        deque(layers, maxlen=0)
        if any(isinstance(layer, CompiledLinear) for layer in model.modules()):
            door.TOKENS.wait()
    return layers


def _classes_of(group: Any) -> tuple[str, ...]:
    return tuple(group) if isinstance(group, tuple | list) else (group,)


def _has_sdpa(kind: Any, config: dict[str, Any]) -> bool:
    """Whether the model class can use torch's own attention."""
    names = [each for each in config.get("architectures") or [] if hasattr(transformers, str(each))]
    return all(getattr(getattr(transformers, name), "_supports_sdpa", False) for name in names) and bool(names)


def _check_whole(model: Any, info: dict[str, Any], name: str, *, is_body: bool) -> None:
    found = model.state_dict()
    absent = set(info["missing_keys"])
    read = {value.data_ptr() for key, value in found.items() if key not in absent}
    not_tied = (key for key in absent if not (key in found and found[key].data_ptr() in read))
    _refuse("are missing", not_tied, name, is_body=is_body)
    _refuse_shapes(info["mismatched_keys"], name)
    parts = {part for owner in (model, model.base_model) for part, _ in owner.named_children()}
    strange = {
        key
        for key in info["unexpected_keys"]
        if key.removeprefix(f"{model.base_model_prefix}.").split(".")[0] in parts and not _OTHER_HEADS.search(key)
    }  # what is beside these parts is a head, or was left by training
    _refuse("are not of the model that its configuration describes", strange, name, is_body=is_body)
    unread = [key for key, value in found.items() if value.device.type == "meta"]
    if unread:
        raise CorruptModelError(f"{name}: {len(unread)} tensors got no values, such as {unread[0]}")


def _refuse_shapes(mismatched: Iterable[Any], name: str) -> None:
    keys = (str(each[0] if isinstance(each, tuple) else each) for each in mismatched)
    _refuse("have another shape than its configuration says", keys, name)


def _refuse(what: str, keys: Iterable[str], name: str, *, is_body: bool = False) -> None:
    """Refuse a model for its tensors, but for those that make no difference."""
    bad = sorted(key for key in keys if not _NO_MATTER.search(key) and not (is_body and _POOLER.search(key)))
    if bad:
        shown = ", ".join(bad[:_MOST_NAMES])
        raise CorruptModelError(f"{name}: {len(bad)} tensors {what}, such as {shown}; the model was not used")


def load_tokenizer(repository: Repository) -> Any:
    """The tokenizer.

    Raises:
        ModelLoadError: the library refused it.
    """
    with quiet(), told(repository, "the tokenizer"), _own_code(repository):
        found = transformers.AutoTokenizer.from_pretrained(
            repository.path, trust_remote_code=repository.trust_remote_code, local_files_only=True
        )
    if not isinstance(found, transformers.PreTrainedTokenizerBase):
        raise ModelLoadError(
            f"{repository.name}: tokenizer_class names a {type(found).__name__}, which is no tokenizer"
        )
    return found
