"""Models that read one text and write another: translation and summaries."""

from __future__ import annotations

import copy
import re
import threading
from collections.abc import Sequence
from typing import Any

import torch
import transformers

from tabml.cancellation import Cancellation, current_cancellation
from tabml.errors import InferenceError, ModelClosedError
from tabml.text._model import Placement
from tabml.text._torch.encoders import SafeTokenizer, batch_tokens, token_limit
from tabml.text._torch.loading import load_pretrained, load_tokenizer, packed
from tabml.text.batching import by_length
from tabml.text.fitting import check_fits
from tabml.text.repository import Repository

_LANGUAGE = re.compile(r"[a-z]{2,3}_[A-Z][A-Za-z]{1,3}")
_ENDLESS = 512
"""Tokens that a decoder writes at the most, unless told otherwise, where its positions have no end."""
_DEFAULT_NEW_TOKENS = 20
"""transformers' own ``max_length``, which no model means."""


class _Cancelled(transformers.StoppingCriteria):
    """Ends a generation between two tokens."""

    def __init__(self, cancellation: Cancellation) -> None:
        self._cancellation = cancellation

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        """For each sequence whether it ends."""
        return torch.full((input_ids.shape[0],), self._cancellation.cancelled, device=input_ids.device)


class Seq2Seq:
    """A model with its tokenizer; writes one batch at a time."""

    def __init__(self, name: str, tokenizer: SafeTokenizer, model: Any) -> None:
        self.name, self.tokenizer, self.model = name, tokenizer, model
        self.config = model.config
        self.device: torch.device = next(model.parameters()).device
        native = tokenizer.native
        self.source_language: str | None = getattr(native, "src_lang", None)
        """Unless a call says another one; the tokenizer keeps that of the last call."""
        self.target_language: str | None = getattr(native, "tgt_lang", None)
        """The same of answers."""
        self._lock = threading.Lock()
        self._closed = False

    @property
    def kind(self) -> str:
        """``model_type`` of the configuration."""
        return str(self.config.model_type)

    def prefix(self, task: str) -> str | None:
        """What T5's configuration says to put in front of texts for a task."""
        said = (getattr(self.config, "task_specific_params", None) or {}).get(task)
        found = said.get("prefix") if isinstance(said, dict) else None
        return found if isinstance(found, str) else None

    def language_ids(self) -> dict[str, int]:
        """The first token of an answer in each language, by its code; empty where the model has none."""
        native = self.tokenizer.native
        named = getattr(native, "lang_code_to_token", None)  # M2M100
        if isinstance(named, dict):
            found = {code: native.convert_tokens_to_ids(token) for code, token in named.items()}
        else:
            special = {*native.all_special_tokens, *native.get_added_vocab()}
            found = {code: native.convert_tokens_to_ids(code) for code in sorted(special) if _LANGUAGE.fullmatch(code)}
        size = self.config.vocab_size
        return {code: at for code, at in found.items() if isinstance(at, int) and 0 <= at < size}

    def target_marks(self) -> list[str]:
        """The ``>>xx<<`` of Marian's vocabulary, without the arrows."""
        return sorted(
            token[2:-2]
            for token in self.tokenizer.native.get_vocab()
            if token.startswith(">>") and token.endswith("<<")
        )

    def write(
        self,
        texts: Sequence[str],
        *,
        source: str | None = None,
        first_token: int | None = None,
        num_beams: int | None = None,
        min_new_tokens: int | None = None,
        max_new_tokens: int | None = None,
        truncate: bool = False,
    ) -> list[str]:
        """An answer to each text, in their order.

        Args:
            texts: With whatever the model wants in front of them.
            source: Their language, where the tokenizer has to know it.
            first_token: That answers begin with.
            num_beams: Of the beam search; the model's own number when None.
            min_new_tokens: Of an answer.
            max_new_tokens: Of an answer; what the model can write when None.
            truncate: Cut what is too long.

        Raises:
            OptionError: a text is longer than the model can read.
            CallCancelledError: the bound cancellation was set.
            InferenceError: the library failed.
            ModelClosedError: after :meth:`close`.
        """
        with self.tokenizer.lock:
            if source is not None:
                self.tokenizer.native.src_lang = source
            encoded = self.tokenizer.encode(texts, truncate=truncate)
        options = self._options(first_token, num_beams, min_new_tokens, max_new_tokens)
        cancellation = current_cancellation() or Cancellation()
        found: list[str] = [""] * len(texts)
        room = max(1, batch_tokens(self.device) // (options.num_beams or 1))
        for batch in by_length([one.length for one in encoded], room):
            cancellation.check()
            rows = self._generate([encoded[at].inputs for at in batch], options, cancellation)
            cancellation.check()
            with self.tokenizer.lock:
                written = self.tokenizer.native.batch_decode(rows, skip_special_tokens=True)
            for at, text in zip(batch, written, strict=True):
                found[at] = text.strip()
        return found

    def close(self) -> None:
        """Wait for the batch that runs, and let go of the model; twice is fine."""
        with self._lock:
            self._closed = True
            self.model = None

    def _options(
        self, first_token: int | None, num_beams: int | None, min_new: int | None, max_new: int | None
    ) -> transformers.GenerationConfig:
        options = copy.deepcopy(self.model.generation_config)
        said = options.max_length
        if max_new is None and said in (None, _DEFAULT_NEW_TOKENS):
            max_new = min(self._longest(), _ENDLESS) if self._positions() is None else self._longest()
        if max_new is not None:
            options.max_new_tokens, options.max_length = min(max_new, self._longest()), None
        if min_new is not None:
            options.min_new_tokens, options.min_length = min_new, None
        if num_beams is not None:
            options.num_beams = num_beams
        if (options.num_beams or 1) == 1:
            options.early_stopping = options.length_penalty = None
        options.do_sample = False
        options.temperature = options.top_p = options.top_k = options.typical_p = options.min_p = None
        options.num_return_sequences = 1
        if first_token is not None:
            options.forced_bos_token_id = first_token
        return options

    def _longest(self) -> int:
        """Tokens that the decoder can write; relative positions have no end, so as many as it can read."""
        return (self._positions() or self.tokenizer.limit) - 1

    def _positions(self) -> int | None:
        said = getattr(self.config, "max_position_embeddings", None)
        return said if isinstance(said, int) and said > 1 else None

    def _generate(self, rows: list[dict[str, list[int]]], options: Any, cancellation: Cancellation) -> torch.Tensor:
        longest = max(len(row["input_ids"]) for row in rows)
        pad = self.tokenizer.native.pad_token_id or 0
        ids = torch.full((len(rows), longest), pad, dtype=torch.long)
        mask = torch.zeros((len(rows), longest), dtype=torch.long)
        for at, row in enumerate(rows):
            ids[at, : len(row["input_ids"])] = torch.tensor(row["input_ids"])
            mask[at, : len(row["input_ids"])] = 1
        with self._lock, torch.inference_mode():
            if self._closed:
                raise ModelClosedError("this model is closed; open a new one")
            try:
                return self.model.generate(
                    input_ids=ids.to(self.device),
                    attention_mask=mask.to(self.device),
                    generation_config=options,
                    stopping_criteria=transformers.StoppingCriteriaList([_Cancelled(cancellation)]),
                )
            except (RuntimeError, IndexError, ValueError, TypeError) as problem:
                said = " ".join(str(problem).split())[:200]
                raise InferenceError(f"{self.name}: {type(problem).__name__}: {said}") from problem


def load_seq2seq(repository: Repository, placement: Placement, *, architecture: str | None, task: str) -> Seq2Seq:
    """A model out of a repository of which nothing is fetched yet.

    Raises:
        ModelKindError: it is a model for another task.
        CorruptModelError: files contradict each other.
        ModelLoadError: a library refused the model.
    """
    if not repository.is_gguf:
        repository.fetch_small()
    check_fits(repository, task)
    model = load_pretrained(repository, "AutoModelForSeq2SeqLM", placement, architecture=architecture, task=task)
    model = packed(model, placement, repository)
    tokenizer = load_tokenizer(repository)
    return Seq2Seq(repository.name, SafeTokenizer(tokenizer, token_limit(tokenizer, model.config)), model)
