"""What every text model shares: options checked first, files through a provider, one load, one close."""

from __future__ import annotations

import asyncio
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from tabml.errors import ModelClosedError, ModelFileNotFoundError, OptionError
from tabml.files import DirectoryProvider, FileProvider, FileRef, default_provider, load_catalog
from tabml.text.repository import Repository

if TYPE_CHECKING:
    from typing import Self

Loaded = TypeVar("Loaded")
Value = TypeVar("Value")
ModelSource = str | os.PathLike[str] | FileRef
"""A repository of ``files`` or a name of the catalog; the path of a folder or of a GGUF file; or a file of ``files``."""

DTYPES = ("auto", "float32", "bfloat16", "float16")
QUANTIZATIONS = ("int8", "int4")
MAX_TEXT_BYTES = 1 << 20
"""Of one text: tokenising takes seconds and gigabytes beyond it."""


def one_of(name: str, value: object, choices: tuple[str, ...]) -> str:
    """``value``, when it is one of ``choices``.

    Raises:
        OptionError: it isn't.
    """
    if value not in choices:
        raise OptionError(f"{name}={value!r:.80} must be one of {', '.join(map(repr, choices))}")
    return str(value)


def whole(name: str, value: object, low: int, high: int) -> int:
    """``value``, when it is a whole number from ``low`` to ``high``.

    Raises:
        OptionError: it isn't.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise OptionError(f"{name}={value!r:.80} must be a whole number from {low} to {high}")
    return value


def check_text(name: str, text: object, max_bytes: int = MAX_TEXT_BYTES) -> str:
    """``text``, when it is one that a tokenizer can take.

    Raises:
        OptionError: it is no text, too long, or has half a surrogate pair.
    """
    if not isinstance(text, str):
        raise OptionError(f"{name}={text!r:.60} must be a text, not {type(text).__name__}")
    try:
        length = len(text) if text.isascii() else len(text.encode())
    except UnicodeEncodeError as problem:
        raise OptionError(f"{name} has half a surrogate pair at character {problem.start}") from None
    if length > max_bytes:
        raise OptionError(f"{name} has {length} bytes; the limit is {max_bytes}")
    return text


def check_texts(name: str, texts: object, most: int = 100_000) -> list[str]:
    """``texts`` as a list, when it is one of texts.

    Raises:
        OptionError: it isn't, or has more than ``most``.
    """
    if isinstance(texts, str | bytes) or not hasattr(texts, "__iter__"):
        raise OptionError(f"{name}={texts!r:.60} must be a list of texts")
    found = list(texts)
    if len(found) > most:
        raise OptionError(f"{name} has {len(found)} texts; the limit is {most}")
    return [check_text(f"{name}[{at}]", text) for at, text in enumerate(found)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where and how a model computes."""

    device: str = "auto"
    """``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``."""
    dtype: str = "auto"
    """One of :data:`DTYPES`; ``auto`` is float32 on a CPU and the weights' own elsewhere. On a CPU float16 weights are
    computed with in float32."""
    quantization: str | None = None
    """One of :data:`QUANTIZATIONS`: weights of linear layers, on a CPU."""

    def __post_init__(self) -> None:
        kind, _, number = str(self.device).partition(":")
        if kind not in ("auto", "cpu", "cuda", "mps") or (number and not (kind == "cuda" and number.isdecimal())):
            raise OptionError(f"device={self.device!r:.40} must be 'auto', 'cpu', 'cuda', 'cuda:N' or 'mps'")
        one_of("dtype", self.dtype, DTYPES)
        if self.quantization is not None:
            one_of("quantization", self.quantization, QUANTIZATIONS)


class TextModel(ABC, Generic[Loaded]):
    """A model as a ``with`` block: the constructor checks options, the first call loads, ``close`` frees.

    One object may be used from several threads at once.
    """

    task: ClassVar[str]
    """The pipeline's name, as the Hugging Face hub has it."""

    def __init__(
        self,
        model: ModelSource,
        *,
        files: FileProvider | None = None,
        revision: str | None = None,
        architecture: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
        quantization: str | None = None,
    ) -> None:
        """Nothing is fetched yet.

        Args:
            model: A repository of ``files``, or a name of the catalog; the path of a folder or GGUF file as a
                ``Path``; or one file of ``files``.
            files: Where the model's files come from; the catalog when None.
            revision: The version, where ``files`` knows versions.
            architecture: The class (``LlamaForCausalLM``) or model type (``llama``) that it must be.
            device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
            dtype: ``auto``, ``float32``, ``bfloat16`` or ``float16``.
            quantization: ``int8`` or ``int4`` weights, on a CPU.

        Raises:
            OptionError: an option is not allowed.
            ModelFileNotFoundError: ``model`` is neither of the catalog nor of ``files``.
        """
        self._source = model
        self._placement = Placement(device=device, dtype=dtype, quantization=quantization)
        self._architecture = architecture
        self._provider, self._ref = resolve(model, files, revision)
        self._loading = threading.Lock()
        self._loaded: Loaded | None = None
        self._closed = False

    @abstractmethod
    def _build(self, repository: Repository) -> Loaded:
        """The model out of its files; the repository is closed behind it."""

    @abstractmethod
    def _free(self, loaded: Loaded) -> None:
        """Let go of what :meth:`_build` gave, when the calls that run have ended."""

    @property
    def closed(self) -> bool:
        """True after :meth:`close`."""
        return self._closed

    def load(self) -> Self:
        """Fetch and open the model now instead of at the first call; again is fine.

        Raises:
            ModelFileNotFoundError: a file of the model is missing.
            ProviderError: the provider could not deliver.
            CorruptModelError: files contradict each other, or are not what they should be.
            UnsafeModelError: the model would run code, or uses a format that can.
            ModelKindError: the model is one for another task or of another architecture.
            ModelLoadError: the library refused it.
            ModelClosedError: the model is closed.
            MissingExtraError: what it needs is not installed.
        """
        self._ready()
        return self

    def close(self) -> None:
        """Free the model; calls that run end first. Twice is fine."""
        with self._loading:
            self._closed = True
            loaded, self._loaded = self._loaded, None
        if loaded is not None:
            self._free(loaded)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else "loaded" if self._loaded is not None else "not loaded"
        return f"{type(self).__name__}({str(self._source)!r}, {state})"

    def _ready(self) -> Loaded:
        loaded = self._loaded
        if loaded is not None:
            return loaded
        with self._loading:
            if self._closed:
                raise ModelClosedError(f"this {type(self).__name__} is closed; open a new one")
            if self._loaded is None:
                with Repository(self._provider, self._ref) as repository:
                    self._loaded = self._build(repository)
            return self._loaded

    async def _in_thread(self, call: Callable[..., Value], *args: Any, **options: Any) -> Value:
        return await asyncio.to_thread(call, *args, **options)


def resolve(
    model: ModelSource,
    files: FileProvider | None,
    revision: str | None,
    *,
    begin: str = "config.json",
    what: str = "model",
) -> tuple[FileProvider, FileRef]:
    """The provider, and the file that the model begins with, which in a folder is ``begin``; ``what`` it is, for messages."""
    if isinstance(model, FileRef):
        return files or default_provider(), model
    if isinstance(model, os.PathLike):
        path = Path(model).expanduser().absolute()
        if path.is_dir():
            return DirectoryProvider(path.parent), FileRef(path.name, begin)
        if path.is_file():
            return DirectoryProvider(path.parent.parent), FileRef(path.parent.name, path.name)
        raise ModelFileNotFoundError(f"{what}={str(path)!r} is neither a folder nor a file")
    if not isinstance(model, str):
        raise OptionError(f"{what}={model!r:.80} must be a name, a Path or a FileRef")
    known = load_catalog().get(model)
    if known is not None:
        return files or default_provider(), FileRef(model, known.file, revision)
    if files is None:
        raise ModelFileNotFoundError(
            f"{what}={model[:80]!r} is not in the catalog; give a Path, or files=open_provider('hub:')"
        )
    return files, FileRef(model, begin, revision)
