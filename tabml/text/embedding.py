"""Texts as vectors: what means the same lies close together."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from tabml.errors import OptionError
from tabml.files import FileProvider, Progress
from tabml.files.sources import ModelSource
from tabml.generation.arguments import check_text, check_texts, flag, whole
from tabml.text._door import text_extra
from tabml.text._model import TextModel
from tabml.text.repository import Repository
from tabml.text.results import Embeddings, read_only

if TYPE_CHECKING:
    from tabml.text._torch.sentence import SentenceModel

_MOST_DIMENSIONS = 1 << 16


class TextEmbedder(TextModel["SentenceModel"]):
    """Embeds texts with a model of sentence-transformers, or with the mean of a plain model's tokens.

    The vectors are those of ``SentenceTransformer.encode``. Texts of several threads are computed together.

    Example::

        with TextEmbedder(Path("models/all-MiniLM-L6-v2")) as embedder:
            a, b = embedder.embed(["a cat sits", "a kitten rests"])
            print(a @ b)
    """

    task: ClassVar[str] = "feature-extraction"

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
        truncate_dim: int | None = None,
    ) -> None:
        """Nothing is fetched yet.

        Args:
            model: See :class:`TextModel`.
            files: Where the model's files come from; the catalog when None.
            revision: The version, where ``files`` knows versions.
            architecture: The class or model type that it must be.
            device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
            dtype: ``bfloat16`` is quicker only on a CPU that computes with it (AVX512-BF16, AMX), and slower on others;
                cosines differ by less than 0.004.
            quantization: ``int8`` or ``int4`` weights, on a CPU: smaller, and quicker for one short text at a time. With
                ``int8`` models of BERT's kind round activations to 8 bits too, on a processor with VNNI (AVX512-VNNI,
                AVX-VNNI), which is twice as quick for many texts as well (all-MiniLM-L6-v2: cosines of 0.997 and more);
                elsewhere many texts are slower.
            progress: See :class:`TextModel`.
            allow_pickle: See :class:`TextModel`.
            trust_remote_code: See :class:`TextModel`.
            truncate_dim: ``dimensions`` of calls that don't give their own.

        Raises:
            OptionError: an option is not allowed.
            ModelFileNotFoundError: ``model`` is neither of the catalog nor of ``files``.
            ModelKindError: ``model`` is a file that no text model begins with.
        """
        super().__init__(
            model,
            files=files,
            revision=revision,
            architecture=architecture,
            device=device,
            dtype=dtype,
            quantization=quantization,
            progress=progress,
            allow_pickle=allow_pickle,
            trust_remote_code=trust_remote_code,
        )
        self._truncate_dim = None if truncate_dim is None else whole("truncate_dim", truncate_dim, 1, _MOST_DIMENSIONS)

    @property
    def dimensions(self) -> int:
        """Of a vector, unless a call says otherwise; loads the model."""
        return self._dimensions(self._ready(), None)

    @property
    def max_tokens(self) -> int:
        """Of one text; loads the model."""
        return self._ready().encoder.limit

    @property
    def prompts(self) -> dict[str, str]:
        """The model's own prompts by name; loads the model."""
        return dict(self._ready().layout.prompts)

    def embed(
        self,
        texts: Iterable[str],
        *,
        prompt: str | None = None,
        prompt_name: str | None = None,
        normalize: bool | None = None,
        dimensions: int | None = None,
        truncate: bool = False,
    ) -> Embeddings:
        """A vector for each text.

        Args:
            texts: Any number, also none.
            prompt: Put in front of each text, such as ``"query: "``.
            prompt_name: One of the model's :attr:`prompts` instead.
            normalize: Length 1 or as it comes; None for what the model does.
            dimensions: Only the first ones, for models made for it (Matryoshka); of length 1 again where they
                are normalised.
            truncate: Cut what is longer than :attr:`max_tokens` instead of refusing it.

        Raises:
            OptionError: a text or an option is not allowed.
            CapacityError: too many texts are waiting.
            CallCancelledError: the bound cancellation was set.
            ModelError: see :meth:`load`.
        """
        found = check_texts("texts", texts)
        flag("truncate", truncate)
        if normalize is not None:
            flag("normalize", normalize)
        if prompt is not None:
            check_text("prompt", prompt)
            if prompt_name is not None:
                raise OptionError("prompt and prompt_name don't go together; give one of them")
        if dimensions is not None:
            whole("dimensions", dimensions, 1, _MOST_DIMENSIONS)
        model = self._ready()
        size = self._dimensions(model, dimensions)
        if prompt is None:
            prompt = self._named_prompt(model, prompt_name)
        encoded = model.encode(found, prompt, truncate)
        rows = model.served.queue.run(encoded)
        vectors = np.stack(rows)[:, :size] if rows else np.empty((0, size), np.float32)
        if model.layout.normalizes if normalize is None else normalize:
            vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return Embeddings(vectors=read_only(vectors), prompt_tokens=sum(one.length for one in encoded))

    async def embed_async(
        self,
        texts: Iterable[str],
        *,
        prompt: str | None = None,
        prompt_name: str | None = None,
        normalize: bool | None = None,
        dimensions: int | None = None,
        truncate: bool = False,
    ) -> Embeddings:
        """:meth:`embed` in a thread."""
        return await self._in_thread(
            self.embed,
            texts,
            prompt=prompt,
            prompt_name=prompt_name,
            normalize=normalize,
            dimensions=dimensions,
            truncate=truncate,
        )

    def _dimensions(self, model: SentenceModel, given: int | None) -> int:
        wanted = given or self._truncate_dim
        if wanted is None:
            return min(model.layout.dimensions or model.size, model.size)
        if wanted > model.size:
            name = "dimensions" if given else "truncate_dim"
            raise OptionError(f"{name}={wanted} is more than the {model.size} of this model")
        return wanted

    def _named_prompt(self, model: SentenceModel, name: str | None) -> str:
        prompts = model.layout.prompts
        if name is None:
            return prompts.get(model.layout.default_prompt or "", "")
        if not isinstance(name, str) or name not in prompts:
            known = ", ".join(map(repr, prompts)) or "none"
            raise OptionError(f"prompt_name={name!r:.80} is not a prompt of this model; it has {known}")
        return prompts[name]

    def _build(self, repository: Repository) -> SentenceModel:
        with text_extra():
            from tabml.text._torch.sentence import load_sentence_model
        return load_sentence_model(repository, self._placement, architecture=self._architecture)

    def _free(self, loaded: SentenceModel) -> None:
        loaded.close()
