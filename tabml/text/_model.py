"""What every text model shares: options checked first, files through a provider, one load, one close."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from tabml.cancellation import in_thread
from tabml.errors import ModelKindError, OptionError
from tabml.files import FileProvider
from tabml.files.sources import ModelSource, resolve
from tabml.generation.arguments import one_of
from tabml.lifecycle import LazyModel, Loaded
from tabml.text.repository import Repository

Value = TypeVar("Value")

DTYPES = ("auto", "float32", "bfloat16", "float16")
QUANTIZATIONS = ("int8", "int4")
_ENDINGS = (".json", ".gguf", ".safetensors", ".bin", ".pt", ".pth", ".ckpt")
"""Files that may say which model is meant; pickled weights are refused later, with a reason."""


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

        Raises:
            OptionError: an option is not allowed.
            ModelFileNotFoundError: ``model`` is neither of the catalog nor of ``files``.
            ModelKindError: ``model`` is a file that no text model begins with.
        """
        super().__init__(str(model))
        self._placement = Placement(device=device, dtype=dtype, quantization=quantization)
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
        with Repository(self._provider, self._ref) as repository:
            return self._build(repository)

    async def _in_thread(self, call: Callable[..., Value], *args: Any, **options: Any) -> Value:
        return await in_thread(call, *args, **options)
