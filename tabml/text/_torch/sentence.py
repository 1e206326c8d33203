"""Sentence embedders: the layouts of sentence-transformers, and plain models with the mean of their tokens.

Only the files are those of sentence-transformers, not the code: importing it takes twice as long as torch and
transformers together, its loader can't refuse missing tensors, and its modules take class names from the repository.
The tests hold the numbers against it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from torch import nn

from tabml.errors import CorruptModelError, ModelKindError, UnsafeModelError
from tabml.text._model import Placement
from tabml.text._torch import loading
from tabml.text._torch.encoders import Encoded, Encoder, SafeTokenizer, Served, token_limit
from tabml.text._torch.teams import disband
from tabml.text._torch.whole import WholeTexts
from tabml.text.fitting import check_fits, no_fit
from tabml.text.repository import Repository

_LEGACY_POOLING = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_ACTIVATIONS: dict[str, type[nn.Module]] = {
    each.__name__: each
    for each in (nn.Identity, nn.Tanh, nn.ReLU, nn.GELU, nn.Sigmoid, nn.SiLU, nn.Softplus, nn.ELU, nn.Mish)
}
_TASK = "feature-extraction"
_ENCODER_ONLY = {"t5": "T5EncoderModel", "mt5": "MT5EncoderModel", "umt5": "UMT5EncoderModel"}
_KNOWN_SETTINGS = {
    "max_seq_length", "do_lower_case", "transformer_task", "modality_config", "module_output_name",
    "model_args", "tokenizer_args", "config_args", "model_kwargs", "processor_kwargs", "config_kwargs",
    "processing_kwargs", "unpad_inputs",
}  # fmt: skip
_WIDEST = 1 << 16


class Pooling(nn.Module):
    """One vector out of the vectors of all tokens."""

    def __init__(self, modes: Sequence[str] = ("mean",), include_prompt: bool = True) -> None:
        super().__init__()
        self.modes, self.include_prompt = tuple(modes), include_prompt

    @classmethod
    def of(cls, config: Any, name: str) -> Pooling:
        """From the module's ``config.json``.

        Args:
            config: Its content.
            name: Of the file, for messages.

        Raises:
            CorruptModelError: it is not what it should be.
        """
        if not isinstance(config, dict):
            raise CorruptModelError(f"{name} is missing, or no JSON object")
        modes = config.get("pooling_mode")
        if modes is None:
            keys = [key for key in _LEGACY_POOLING if key in config]
            modes = [_LEGACY_POOLING[key] for key in keys if config[key]] if keys else ["mean"]
        modes = [modes] if isinstance(modes, str) else modes
        known = _LEGACY_POOLING.values()
        if not isinstance(modes, list) or not 1 <= len(modes) <= len(known) or any(mode not in known for mode in modes):
            raise CorruptModelError(f"{name}: pooling_mode={modes!r:.60} must be among {', '.join(known)}")
        return cls(modes, bool(config.get("include_prompt", True)))

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor, prompt_tokens: int) -> torch.Tensor:
        """(texts, tokens, size) to (texts, modes × size); the mask is padded on the right."""
        kept = mask
        if prompt_tokens and not self.include_prompt:
            kept = mask.clone()
            kept[:, :prompt_tokens] = 0
        return torch.cat([self._pooled(mode, tokens, kept) for mode in self.modes], -1)

    def _pooled(self, mode: str, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        rows = torch.arange(len(tokens), device=tokens.device)
        if mode == "cls":
            return tokens[rows, mask.argmax(1)]
        if mode == "lasttoken":
            last = mask.shape[1] - 1 - mask.flip(1).argmax(1)
            return tokens[rows, last]
        if mode == "max":
            return tokens.masked_fill(mask[:, :, None] == 0, float("-inf")).amax(1)
        weights = mask.float()
        if mode == "weightedmean":
            weights = weights * torch.arange(1, mask.shape[1] + 1, device=mask.device)
        total = (tokens.float() * weights[:, :, None]).sum(1)
        count = weights.sum(1, keepdim=True).clamp(min=1e-9)
        return (total / (count.sqrt() if mode == "mean_sqrt_len_tokens" else count)).to(tokens.dtype)


def _size(config: dict[str, Any], key: str, name: str) -> int:
    value = config.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= _WIDEST:
        raise CorruptModelError(f"{name}: {key}={value!r:.40} must be a whole number from 1 to {_WIDEST}")
    return value


class Dense(nn.Module):
    """A linear layer with an activation behind the pooling."""

    def __init__(self, config: dict[str, Any], name: str) -> None:
        super().__init__()
        wide = [_size(config, key, name) for key in ("in_features", "out_features")]
        if config.get("module_input_name", "sentence_embedding") != "sentence_embedding":
            raise ModelKindError(f"{name} works on single tokens, which TextEmbedder does not give")
        path = str(config.get("activation_function", "torch.nn.modules.activation.Tanh"))
        activation = _ACTIVATIONS.get(path.rpartition(".")[2]) if path.startswith("torch.nn.") else None
        if activation is None:
            raise UnsafeModelError(f"{name}: activation_function={path!r:.80} is not one of {', '.join(_ACTIVATIONS)}")
        self.linear = nn.Linear(wide[0], wide[1], bias=bool(config.get("bias", True)))
        self.activation = activation()
        self._residual = bool(config.get("use_residual", False))
        if self._residual and wide[0] != wide[1]:
            self.residual = nn.Linear(wide[0], wide[1], bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(texts, in) to (texts, out)."""
        out = self.activation(self.linear(x))
        if self._residual:
            out = out + (self.residual(x) if hasattr(self, "residual") else x)
        return out


class Norm(nn.Module):
    """Layer normalisation behind the pooling."""

    def __init__(self, config: dict[str, Any], name: str) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(_size(config, "dimension", name))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The same shape."""
        return self.norm(x)


class Unit(nn.Module):
    """Every vector gets length 1."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The same shape."""
        return nn.functional.normalize(x, dim=-1)


@dataclass(frozen=True, slots=True)
class Layout:
    """What a repository says beside the model itself."""

    pooling: Pooling
    """Behind the model."""
    behind: tuple[nn.Module, ...]
    """Behind the pooling, without a :class:`Unit` at the end."""
    normalizes: bool
    """Whether there was one."""
    prompts: dict[str, str]
    """By name."""
    default_prompt: str | None
    """The name of the one that is taken unless told otherwise."""
    dimensions: int | None
    """That the vectors are cut to by default."""


class SentenceModel:
    """An embedder behind a queue."""

    def __init__(self, encoder: Encoder, layout: Layout) -> None:
        self.encoder, self.layout = encoder, layout
        self._whole = WholeTexts.of(encoder.model, layout.pooling.modes)
        self.served: Served[NDArray[np.float32]] = Served(encoder, self._vectors)
        with torch.inference_mode():
            probe = encoder.tokenizer.encode(["a"])
            self.size = len(self._vectors(probe)[0])

    def prompt_tokens(self, prompt: str) -> int:
        """Tokens that are the prompt's in each text, where the pooling leaves them out."""
        if self.layout.pooling.include_prompt or not prompt:
            return 0
        ids = self.encoder.tokenizer.encode([prompt], name="prompt", remedy="make it shorter")[0].inputs["input_ids"]
        return len(ids) - (ids[-1] in self.encoder.tokenizer.native.all_special_ids)

    def encode(self, texts: Sequence[str], prompt: str, truncate: bool) -> list[Encoded]:
        """Tokens of the texts, each with the prompt in front."""
        tokens = self.prompt_tokens(prompt)
        whole = [prompt + text for text in texts] if prompt else texts
        found = self.encoder.tokenizer.encode(whole, truncate=truncate)
        return [Encoded(one.inputs, tokens) for one in found] if tokens else found

    def close(self) -> None:
        """Finish what waits, and let go of the model."""
        self.served.close()
        self._whole = None

    def _vectors(self, batch: Sequence[Encoded]) -> list[NDArray[np.float32]]:
        if len({one.extra for one in batch}) > 1:  # prompts of different callers
            each: dict[int, NDArray[np.float32]] = {}
            for extra in {one.extra for one in batch}:
                mine = [at for at, one in enumerate(batch) if one.extra == extra]
                each.update(zip(mine, self._vectors([batch[at] for at in mine]), strict=True))
            return [each[at] for at in range(len(batch))]
        extra, whole = batch[0].extra, self._whole
        with torch.inference_mode():
            found = whole(batch, self._plain) if whole is not None and not extra else None
            if found is not None:
                return list(self._behind(found).float().numpy())
        return list(
            self.encoder.outputs(batch, lambda features: (self._behind(self._pooled(features, extra)),), like=extra)[0]
        )

    def _plain(self, batch: list[Encoded]) -> torch.Tensor:
        return torch.from_numpy(self.encoder.outputs(batch, lambda features: (self._pooled(features, 0),))[0])

    def _pooled(self, features: dict[str, torch.Tensor], extra: int) -> torch.Tensor:
        tokens = self.encoder(features).last_hidden_state
        return self.layout.pooling(tokens, features["attention_mask"], extra)

    def _behind(self, x: torch.Tensor) -> torch.Tensor:
        for module in self.layout.behind:
            x = module(x.to(self.encoder.model.dtype))
        return x


def load_sentence_model(repository: Repository, placement: Placement, *, architecture: str | None) -> SentenceModel:
    """An embedder out of a repository of which nothing is fetched yet.

    Raises:
        ModelKindError: it is a model for another task.
        CorruptModelError: files are missing or contradict each other.
        UnsafeModelError: it asks for code.
        ModelLoadError: a library refused it.
    """
    if repository.is_gguf:
        check_fits(repository, _TASK)
    repository.fetch_small(sentence=True)
    modules = repository.json("modules.json")
    if modules is None:
        check_fits(repository, _TASK)
        modules = []
    _check_first(modules, repository.name)
    model = _load_body(repository, placement, architecture)
    settings_file = repository.own("sentence_bert_config.json")
    settings = repository.json(settings_file) or {}
    with loading.told(repository, "the layout of sentence-transformers"):
        tokenizer = _load_tokenizer(repository, settings)
        limit = _limit(tokenizer, model.config, settings, f"{repository.name}/{settings_file}")
        encoder = Encoder(repository.name, SafeTokenizer(tokenizer, limit), model)
        found = SentenceModel(encoder, _layout(repository, modules, model))
    disband()
    return found


def _kind(module: dict[str, Any]) -> str:
    return str(module.get("type")).rpartition(".")[2]


def _check_first(modules: list[dict[str, Any]], name: str) -> None:
    if modules and _kind(modules[0]) != "Transformer":
        raise ModelKindError(
            f"{name}: modules.json begins with {_kind(modules[0])!r:.40}; TextEmbedder needs a Transformer"
        )


def _load_body(repository: Repository, placement: Placement, architecture: str | None) -> Any:
    """The model without a head, whatever head it was saved with."""
    config, name = repository.config, repository.name
    kind = config.get("model_type")
    is_own = loading.brings_code(repository, "AutoModel")
    if not is_own and kind not in transformers.CONFIG_MAPPING:
        raise ModelKindError(f"{name}: model_type={kind!r:.40} is not known to transformers")
    loading.check_architecture(repository, architecture)
    loader = getattr(transformers, "AutoModel" if is_own else _ENCODER_ONLY.get(str(kind), "AutoModel"))
    if loader is transformers.AutoModel and config.get("is_encoder_decoder"):
        raise no_fit(repository, f"is an encoder with a decoder, which is no model for {_TASK}")
    device = loading.resolve_device(placement)
    dtype = loading.resolve_dtype(placement, device, config)
    loading.prepare_kernels(placement, device, many_rows=True)
    repository.fetch_weights()
    model = loading.read_weights(loader, repository, is_body=True, dtype=dtype, use_safetensors=True)
    return loading.packed(loading.placed(model, device), placement, repository, many_rows=True)


def _load_tokenizer(repository: Repository, settings: dict[str, Any]) -> Any:
    strange = sorted(set(settings) - _KNOWN_SETTINGS)
    strange += [
        f"{key}.{each}" for key in settings if key.endswith(("_args", "_kwargs")) for each in settings[key] or ()
    ]
    if strange:
        name = f"{repository.name}/{repository.own('sentence_bert_config.json')}"
        raise UnsafeModelError(f"{name} has {strange[0]!r:.60}, which is not supported")
    modalities = settings.get("modality_config")
    if modalities is not None and "text" not in modalities:
        raise ModelKindError(f"{repository.name} embeds {', '.join(map(str, modalities))}, not plain texts")
    tokenizer = loading.load_tokenizer(repository)
    if settings.get("do_lower_case") and tokenizer.is_fast:
        from tokenizers.normalizers import Lowercase
        from tokenizers.normalizers import Sequence as Chain

        backend = tokenizer.backend_tokenizer
        before = [Lowercase()] if backend.normalizer is None else [Lowercase(), backend.normalizer]
        backend.normalizer = Chain(before)
    return tokenizer


def _limit(tokenizer: Any, config: Any, settings: dict[str, Any], name: str) -> int:
    said = settings.get("max_seq_length")
    limit = token_limit(tokenizer, config)
    if said is not None:
        said = int(said) if isinstance(said, float) and said.is_integer() else said
        if type(said) is not int or said < 1:
            raise CorruptModelError(f"{name}: max_seq_length={said!r:.40} must be a whole number of at least 1")
        positions = getattr(config, "max_position_embeddings", None)
        return min(said, positions) if isinstance(positions, int) and positions > 0 else said
    return limit


def _layout(repository: Repository, modules: list[dict[str, Any]], model: Any) -> Layout:
    pooling = Pooling() if not modules else None
    behind: list[nn.Module] = []
    for module in modules[1:]:
        kind, folder = _kind(module), str(module.get("path"))
        config = repository.json(f"{folder}/config.json") or {}
        where = f"{repository.name}/{folder}"
        if kind == "Pooling" and pooling is None:
            name = f"{where}/config.json"
            pooling = Pooling.of(repository.json(f"{folder}/config.json"), name)
        elif kind == "Normalize":
            behind.append(Unit())
        elif kind == "Dense":
            behind.append(_with_weights(repository, folder, Dense(config, where)))
        elif kind == "LayerNorm":
            behind.append(_with_weights(repository, folder, Norm(config, where)))
        elif kind != "Dropout":
            raise ModelKindError(f"{where}: TextEmbedder does not know the module {kind!r:.40}")
    if pooling is None:
        raise ModelKindError(f"{repository.name}: modules.json has no Pooling")
    normalizes = bool(behind) and isinstance(behind[-1], Unit)
    if normalizes:
        behind.pop()
    said = repository.json("config_sentence_transformers.json") or {}
    prompts = {str(key): str(value or "") for key, value in (said.get("prompts") or {}).items()}
    default, cut = said.get("default_prompt_name"), said.get("truncate_dim")
    return Layout(
        pooling=pooling,
        behind=tuple(module.eval().to(model.device, model.dtype) for module in behind),
        normalizes=normalizes,
        prompts=prompts,
        default_prompt=default if default in prompts else None,
        dimensions=cut if isinstance(cut, int) and cut > 0 else None,
    )


def _with_weights(repository: Repository, folder: str, module: nn.Module) -> nn.Module:
    """Fill the module from its folder's safetensors file, every tensor of it."""
    from safetensors.torch import load_file

    path = repository.fetch_weights_of(folder)
    with loading.told(repository, path):
        weights = load_file(repository.root / path)
    try:
        module.load_state_dict(weights, strict=True)
    except RuntimeError as problem:
        raise CorruptModelError(f"{repository.name}/{path}: {' '.join(str(problem).split())[:200]}") from problem
    return module
