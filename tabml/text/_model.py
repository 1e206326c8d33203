"""What every text model shares: options checked first, files through a provider, one load, one close."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypedDict, TypeVar

from tabml.cancellation import in_thread
from tabml.errors import ModelKindError, ModelLoadError, OptionError, TabmlError
from tabml.files import FileProvider, Progress
from tabml.files.sources import ModelSource, resolve
from tabml.generation.arguments import flag, one_of
from tabml.lifecycle import LazyModel, Loaded
from tabml.text.repository import Repository

Value = TypeVar("Value")

DTYPES = ("auto", "float32", "bfloat16", "float16")
_DIGITS = 3
QUANTIZATIONS = ("int8", "int4")
_ENDINGS = (".json", ".gguf", ".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
"""Files that may say which model is meant; pickled weights are refused later, with a reason, unless they are allowed."""


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
        if kind not in ("auto", "cpu", "cuda", "mps") or (
            number and not (kind == "cuda" and number.isdecimal() and len(number) <= _DIGITS)
        ):
            raise OptionError(f"device={self.device!r:.40} must be 'auto', 'cpu', 'cuda', 'cuda:N' or 'mps'")
        one_of("dtype", self.dtype, DTYPES)
        if self.quantization is not None:
            one_of("quantization", self.quantization, QUANTIZATIONS)


class _Reading(TypedDict):
    progress: Progress | None
    allow_pickle: bool
    trust_remote_code: bool


class TextModel(LazyModel[Loaded]):
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
        progress: Progress | None = None,
        allow_pickle: bool = False,
        trust_remote_code: bool = False,
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
            quantization: ``int8`` or ``int4`` weights, on a CPU. Encoders of BERT's kind round activations to 8 bits too with
                ``int8``, on processors with VNNI.
            progress: Called with the name of a file, the bytes done and the bytes in all while files are fetched, from
                several threads; files that lie on this machine are used where they lie.
            allow_pickle: Read weights that are pickled (``.bin``, ``.pt``, ``.pth``, ``.ckpt``) where there are no others,
                by torch's reader of plain tensors. A damaged file can still crash a process: only for authors you trust.
            trust_remote_code: Run the code that the model brings, with all that this program may do: read it first.

        Raises:
            OptionError: an option is not allowed.
            ModelFileNotFoundError: ``model`` is neither of the catalog nor of ``files``.
            ModelKindError: ``model`` is a file that no text model begins with.
        """
        super().__init__(str(model))
        self._placement = Placement(device=device, dtype=dtype, quantization=quantization)
        if progress is not None and not callable(progress):
            raise OptionError(f"progress={progress!r:.60} must be a function of name, bytes done and bytes in all")
        self._reading: _Reading = {
            "progress": progress,
            "allow_pickle": flag("allow_pickle", allow_pickle),
            "trust_remote_code": flag("trust_remote_code", trust_remote_code),
        }
        self._architecture = architecture
        self._provider, self._ref = resolve(model, files, revision)
        if Path(self._ref.path).suffix not in _ENDINGS:
            raise ModelKindError(
                f"model={str(model)!r:.200} is no text model: give a folder in the layout of transformers, or a .gguf file"
            )

    @abstractmethod
    def _build(self, repository: Repository) -> Loaded:
        """The model out of its files; the repository is closed behind it."""

    def _open(self) -> Loaded:
        with Repository(self._provider, self._ref, **self._reading) as repository:
            try:
                return self._build(repository)
            except (TabmlError, MemoryError):
                raise
            except Exception as problem:  # files of strangers: what their values do to a library has no list
                said = " ".join(str(problem).split())[:300]
                raise ModelLoadError(
                    f"{repository.name} can't be loaded: {type(problem).__name__}: {said}"
                ) from problem

    async def _in_thread(self, call: Callable[..., Value], *args: Any, **options: Any) -> Value:
        return await in_thread(call, *args, **options)
