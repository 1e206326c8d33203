"""Models that read a text and answer with numbers: BERT and its like, and what they need around them."""

from __future__ import annotations

import inspect
import threading
from bisect import bisect_left
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from tabml.cancellation import current_cancellation
from tabml.errors import InferenceError, ModelClosedError, ModelKindError, OptionError, TabmlError
from tabml.text._model import Placement
from tabml.text._torch.attention import attend_by_products
from tabml.text._torch.lanes import changes_with_length, lanes_of, on_lane, side_by_side
from tabml.text._torch.loading import load_pretrained, load_tokenizer, packed
from tabml.text._torch.recording import Output, recordings_for
from tabml.text._torch.stack import stacked
from tabml.text._torch.teams import disband
from tabml.text.batching import Batcher, by_length, shares
from tabml.text.fitting import architectures, check_fits
from tabml.text.repository import Repository

Value = TypeVar("Value")

UNKNOWN_LIMIT = 8192
"""Tokens of one text where neither tokenizer nor configuration has a limit."""
_CPU_TOKENS = 512
_LANE_TOKENS = 64
"""Fewer make a matrix product so small that all threads together are quicker."""
_ACCELERATOR_TOKENS = 32768
_RECORDED_TOKENS = 16384
"""Padded tokens of a batch up to which a GPU waits for kernels to be started more than it computes."""
_ROWS = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
_LENGTHS = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
_TOKENIZED_AT_ONCE, _CHARACTERS_AT_ONCE = 256, 1 << 16
"""Texts, and their characters but for a longer single one: others wait meanwhile, and a token takes some 200 bytes."""
_CHARACTERS = 16
"""Of a text, for each token that the model reads, at which it is looked at whether the rest can matter."""
_MARGIN = 64
_SHORTEN = "split it, or give truncate=True"
_OFFSET_POSITIONS = ("roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "longformer", "mpnet", "data2vec-text",
                     "roberta-prelayernorm", "xmod", "ibert", "luke", "mluke", "esm")  # fmt: skip
"""Models whose first position is the one behind the padding's."""

_OF_TOKENS = ("AutoModelForTokenClassification", "AutoModelForQuestionAnswering", "AutoModelForMaskedLM")


def token_limit(tokenizer: Any, config: Any) -> int:
    """The most tokens of one text, special tokens included."""
    found = [int(tokenizer.model_max_length)]
    positions = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
    if isinstance(positions, int) and positions > 0:
        offset = (getattr(config, "pad_token_id", None) or 0) + 1 if config.model_type in _OFFSET_POSITIONS else 0
        found.append(positions - offset)
    limit = min((each for each in found if each > 0), default=UNKNOWN_LIMIT)  # -1 says that nobody knows
    return limit if limit < 1 << 24 else UNKNOWN_LIMIT


def batch_tokens(device: torch.device) -> int:
    """Padded tokens computed at once: on a CPU more of them make it slower, not faster."""
    return _CPU_TOKENS if device.type == "cpu" else _ACCELERATOR_TOKENS


@dataclass(frozen=True, slots=True)
class Encoded:
    """One text, or pair of texts, as a model takes it."""

    inputs: dict[str, list[int]]
    """By the model's names."""
    extra: int = 0
    """Tokens of a prompt in front of it."""

    @property
    def length(self) -> int:
        """In tokens."""
        return len(self.inputs["input_ids"])


class SafeTokenizer:
    """A tokenizer that several threads may use, for texts in which control tokens are text."""

    def __init__(self, tokenizer: Any, limit: int) -> None:
        self.native = tokenizer
        self.limit = limit
        self._most_characters = _CHARACTERS * (limit + _MARGIN)
        self.lock = threading.RLock()
        """Truncation and languages are a state of the tokenizer."""

    def __call__(self, *texts: Any, parse_special: bool = False, **options: Any) -> Any:
        """What transformers' own tokenizer gives."""
        with self.lock:
            try:
                return self.native(*texts, verbose=False, split_special_tokens=not parse_special, **options)
            except (TabmlError, MemoryError, KeyboardInterrupt):
                raise
            except BaseException as problem:  # a Rust panic is one
                raise InferenceError(f"a text can't be tokenized: {type(problem).__name__}: {problem}") from problem

    def encode(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None = None,
        *,
        name: str = "texts",
        truncate: bool = False,
        only_first: bool = False,
        remedy: str = _SHORTEN,
    ) -> list[Encoded]:
        """Texts or pairs, not padded.

        Args:
            texts: The first of each pair.
            pairs: The second.
            name: Of the option, for messages.
            truncate: Cut what is too long.
            only_first: Cut the first of a pair only.
            remedy: For what is too long.

        Raises:
            OptionError: a text is longer than the model can read, or has no tokens at all.
        """
        found: list[Encoded] = []
        strategy: Any = ("only_first" if only_first else "longest_first") if truncate else False
        cancellation = current_cancellation()
        for chosen in _portions([len(text) for text in texts]):
            if cancellation is not None:
                cancellation.check()
            shown = [
                self._begin(text, f"{name}[{at}]", truncate=truncate, remedy=remedy)
                if pairs is None or len(pairs[at]) <= self._most_characters
                else text
                for at, text in enumerate(texts[chosen], chosen.start)
            ]
            both = (shown,) if pairs is None else (shown, list(pairs[chosen]))
            given = self(*both, truncation=strategy, max_length=self.limit if truncate else None)
            names = [key for key in given if key in ("input_ids", "token_type_ids")]
            found.extend(Encoded({key: given[key][row] for key in names}) for row in range(len(given["input_ids"])))
        for at, one in enumerate(found):
            self.check_length(one.length, f"{name}[{at}]", remedy)
        return found

    def _begin(self, text: str, name: str, *, truncate: bool, remedy: str) -> str:
        """As much of a text as can matter: what is many times too long is not tokenized to its end.

        Tokens depend on what is close to them, so those that the model reads are the same ones.
        """
        from_left = self.native.truncation_side != "left"
        begin = text[: self._most_characters] if from_left else text[-self._most_characters :]
        if len(begin) == len(text):
            return text
        count = len(self(begin, add_special_tokens=False)["input_ids"])
        if count <= 2 * self.limit + _MARGIN:
            return text
        if not truncate:
            raise OptionError(f"{name} has more than {count} tokens; this model reads {self.limit}: {remedy}")
        return begin

    def check_length(self, length: int, name: str, remedy: str = _SHORTEN) -> None:
        """Raise OptionError where it can't be."""
        if length > self.limit:
            raise OptionError(f"{name} has {length} tokens; this model reads {self.limit}: {remedy}")
        if not length:
            raise OptionError(f"{name} has no tokens; this model can't read an empty text")


def _portions(lengths: Sequence[int]) -> Iterator[slice]:
    """Texts that are tokenized at once."""
    begin, characters = 0, 0
    for at, length in enumerate(lengths):
        characters += length
        if at > begin and (at - begin == _TOKENIZED_AT_ONCE or characters > _CHARACTERS_AT_ONCE):
            yield slice(begin, at)
            begin, characters = at, length
    if lengths:
        yield slice(begin, len(lengths))


class Encoder:
    """A model with its tokenizer; computes one batch at a time, on a CPU its parts side by side."""

    def __init__(self, name: str, tokenizer: SafeTokenizer, model: Any) -> None:
        self.name = name
        self.tokenizer = tokenizer
        self.model = model
        self.config = model.config
        self.device: torch.device = next(model.parameters()).device
        self.lanes = lanes_of(model, self.device)
        """Batches that are computed at once."""
        stacked(model)
        attend_by_products(model)
        self._accepted = frozenset(inspect.signature(model.forward).parameters)
        self.answers_tokens = False
        """Whether outputs are for each token, not for each text."""
        self.recordings = None if changes_with_length(model) else recordings_for(self.device)
        """Of batches in a few shapes; None where they don't pay."""
        self._fed: dict[str, torch.Tensor] = {}
        self._lock = threading.Lock()
        native = tokenizer.native
        candidates = (native.pad_token_id, getattr(self.config, "pad_token_id", None), native.eos_token_id, 0)
        pad = next(each for each in candidates if isinstance(each, int))
        if getattr(self.config, "pad_token_id", None) is None:
            self.config.pad_token_id = pad  # classifiers made of language models look for the last token before it
        self._padding = {"input_ids": pad, "token_type_ids": getattr(native, "pad_token_type_id", 0) or 0}

    @property
    def limit(self) -> int:
        """Tokens of one text."""
        return self.tokenizer.limit

    @property
    def batch_tokens(self) -> int:
        """Padded tokens of a batch."""
        return self.lanes * batch_tokens(self.device)

    @property
    def labels(self) -> list[str]:
        """Of a classifier, in the order of its outputs."""
        names = self.config.id2label
        return [str(names[at]) for at in range(len(names))]

    @property
    def free_tokens(self) -> int:
        """Padded tokens of a batch up to which padding costs nothing."""
        return _RECORDED_TOKENS if self.recordings is not None else 0

    def outputs(
        self,
        batch: Sequence[Encoded],
        compute: Callable[[dict[str, torch.Tensor]], Sequence[torch.Tensor]],
        *,
        like: Hashable = (),
        left: bool = False,
    ) -> list[NDArray[np.float32]]:
        """What ``compute`` makes of the batch's features, a row for each text; on a GPU small batches are recorded.

        Args:
            batch: Padded to its longest, or a little more.
            compute: From input_ids, attention_mask and so on, each of shape (texts, tokens).
            like: All that ``compute`` depends on but the features.
            left: Pad in front.
        """
        longest, recorded = max(one.length for one in batch), self.recordings
        shape = _shape(len(batch), longest, self.limit) if recorded is not None else None
        with torch.inference_mode():
            if recorded is None or shape is None:
                arrays = self._padded(batch, longest, left)
                found = compute({name: torch.from_numpy(each).to(self.device) for name, each in arrays.items()})
                return [each.float().cpu().numpy() for each in found]
            rows, longest = shape
            arrays = self._padded([*batch, *[batch[-1]] * (rows - len(batch))], longest, left)
            fed = {name: self._feed(name, each) for name, each in arrays.items()}
            found = recorded.computed(
                (rows, longest, left, *arrays, like), lambda: tuple(each.float() for each in compute(fed))
            )
            # copied: the next batch's come to the same place
            return [each[: len(batch)].to("cpu", copy=True).numpy() for each in found]

    def _padded(self, batch: Sequence[Encoded], longest: int, left: bool) -> dict[str, NDArray[np.int64]]:
        at, lengths = np.arange(longest), np.array([one.length for one in batch])[:, None]
        mask = at >= longest - lengths if left else at < lengths
        found = {"attention_mask": mask.astype(np.int64)}
        for name in batch[0].inputs:
            if name in self._accepted:
                found[name] = np.full(mask.shape, self._padding.get(name, 0))
                found[name][mask] = np.fromiter(chain.from_iterable(one.inputs[name] for one in batch), np.int64)
        return found

    def _feed(self, name: str, values: NDArray[np.int64]) -> torch.Tensor:
        """Where recordings find their input."""
        kept = self._fed.get(name)
        if kept is None:
            kept = self._fed[name] = torch.zeros(_RECORDED_TOKENS, dtype=torch.long, device=self.device)
        return kept[: values.size].view(values.shape).copy_(torch.from_numpy(values))

    def __call__(self, features: dict[str, Any]) -> Any:
        """The model's output.

        Raises:
            InferenceError: it failed.
            ModelClosedError: after :meth:`close`.
        """
        options: dict[str, Any] = {"use_cache": False} if "use_cache" in self._accepted else {}
        model = self.model
        if model is None:
            raise ModelClosedError("this model is closed; open a new one")
        with torch.inference_mode():
            try:
                return model(**features, **options)
            except (RuntimeError, IndexError, ValueError, TypeError) as problem:
                said = " ".join(str(problem).split())[:200]
                raise InferenceError(f"{self.name}: {type(problem).__name__}: {said}") from problem

    def alone(self, batch: list[Encoded], compute: Callable[[list[Encoded]], Sequence[Value]]) -> Sequence[Value]:
        """What ``compute`` gives for the batch, by all threads together; one batch at a time."""
        with self._lock:
            return compute(batch)

    def spread(self, batch: list[Encoded], compute: Callable[[list[Encoded]], Sequence[Value]]) -> list[Value]:
        """What ``compute`` gives for the batch; one batch at a time.

        Args:
            batch: Of one of the model's batches, with :attr:`batch_tokens` at the most.
            compute: Called with a part of the batch, by several threads at once; as many results as texts.
        """
        with self._lock:
            parts = shares([one.length for one in batch], self.lanes, _LANE_TOKENS)
            if len(parts) == 1:
                return list(compute(batch))
            found: dict[int, Value] = {}
            results = side_by_side(lambda part: compute([batch[at] for at in part]), parts)
            for part, values in zip(parts, results, strict=True):
                found.update(zip(part, values, strict=True))
        return [found[at] for at in range(len(batch))]

    def logits(self, batch: Sequence[Encoded], *names: str) -> list[tuple[NDArray[np.float32], ...]]:
        """For each text the outputs of these names (``logits``), as float32; without those of padding."""
        names = names or ("logits",)

        def compute(features: dict[str, torch.Tensor]) -> Output:
            output = self(features)
            return tuple(getattr(output, name) for name in names)

        arrays = self.outputs(batch, compute, like=names)
        of_tokens = self.answers_tokens
        return [
            tuple(array[row, : one.length] if of_tokens else array[row] for array in arrays)
            for row, one in enumerate(batch)
        ]

    def all_logits(self, texts: Sequence[Encoded], *names: str) -> list[tuple[NDArray[np.float32], ...]]:
        """The same for any number of texts, in batches of about equal length."""
        found: list[Any] = [None] * len(texts)
        cancellation = current_cancellation()
        for batch in by_length([one.length for one in texts], self.batch_tokens):
            if cancellation is not None:
                cancellation.check()
            outputs = self.spread([texts[at] for at in batch], lambda part: self.logits(part, *names))
            for at, one in zip(batch, outputs, strict=True):
                found[at] = one
        return found

    def close(self) -> None:
        """Wait for the batch that runs, and let go of the model; twice is fine."""
        with self._lock:
            self.model = self.recordings = None
            self._fed = {}


def _shape(rows: int, longest: int, limit: int) -> tuple[int, int] | None:
    """Texts and tokens of the recording for so many; None where there is none.

    Args:
        rows: Texts.
        longest: Tokens of the longest.
        limit: Positions that the model has.
    """
    if rows > _ROWS[-1] or longest > min(limit, _LENGTHS[-1]):
        return None
    rows, longest = _ROWS[bisect_left(_ROWS, rows)], min(limit, _LENGTHS[bisect_left(_LENGTHS, longest)])
    return (rows, longest) if rows * longest <= _RECORDED_TOKENS else None


class Served(Generic[Value]):
    """A model behind a queue: texts of several callers are computed together."""

    def __init__(self, encoder: Encoder, compute: Callable[[list[Encoded]], Sequence[Value]]) -> None:
        self.encoder = encoder
        self.queue: Batcher[Encoded, Value] = Batcher(
            lambda batch: encoder.alone(batch, compute),
            cost=lambda one: one.length,
            max_cost=batch_tokens(encoder.device),
            free_cost=encoder.free_tokens,
            part=(lambda batch: on_lane(lambda: compute(batch), encoder.lanes)) if encoder.lanes > 1 else None,
            workers=encoder.lanes,
            least=_LANE_TOKENS,
            name=f"tabml {encoder.name}"[:40],
        )

    def close(self) -> None:
        """Finish what waits, and let go of the model."""
        self.queue.close()
        self.encoder.close()


def load_encoder(
    repository: Repository,
    auto: str,
    placement: Placement,
    *,
    architecture: str | None,
    task: str,
) -> Encoder:
    """A model with a head.

    Args:
        repository: Nothing fetched yet.
        auto: The Auto class of transformers.
        placement: Where and how.
        architecture: What the caller says it must be.
        task: The pipeline's name.

    Raises:
        ModelKindError: the model has another head.
        CorruptModelError: files contradict each other.
        ModelLoadError: a library refused the model.
    """
    if not repository.is_gguf:
        repository.fetch_small()
    check_fits(repository, task)
    model = load_pretrained(repository, auto, placement, architecture=architecture, task=task, many_rows=True)
    model = packed(model, placement, repository, many_rows=True)
    tokenizer = load_tokenizer(repository)
    encoder = Encoder(repository.name, SafeTokenizer(tokenizer, token_limit(tokenizer, model.config)), model)
    encoder.answers_tokens = auto in _OF_TOKENS
    if auto == "AutoModelForMaskedLM":
        encoder.recordings = None  # each would keep the scores of a whole vocabulary for every token
    disband()
    return encoder


def load_served(
    repository: Repository, placement: Placement, *, architecture: str | None, task: str
) -> Served[NDArray[np.float32]]:
    """A classifier of texts or pairs behind a queue; gives the scores of its labels before any activation."""
    encoder = load_encoder(
        repository, "AutoModelForSequenceClassification", placement, architecture=architecture, task=task
    )
    return Served(encoder, lambda batch: [outputs[0] for outputs in encoder.logits(batch)])


class YesNoReranker:
    """A language model that says whether a document answers a query, as Qwen3-Reranker does."""

    system = (
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
        'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
    )
    ending = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    instruction = "Given a web search query, retrieve relevant passages that answer the query"

    def __init__(self, encoder: Encoder) -> None:
        """Find the two words.

        Raises:
            ModelKindError: the vocabulary lacks them.
        """
        self.encoder = encoder
        native = encoder.tokenizer.native
        words = [native.convert_tokens_to_ids(word) for word in ("no", "yes")]
        if any(word is None or word == native.unk_token_id for word in words):
            raise ModelKindError(f"{encoder.name} has no tokens 'yes' and 'no', so it can't be a reranker")
        self._words = words
        self._before, self._behind = (
            list(encoder.tokenizer(part, parse_special=True, add_special_tokens=False)["input_ids"])
            for part in (self.system, self.ending)
        )
        self._last_only = "logits_to_keep" in encoder._accepted

    def encode(self, query: str, documents: Sequence[str], instruction: str | None, truncate: bool) -> list[Encoded]:
        """One prompt for each document."""
        tokenizer = self.encoder.tokenizer
        room = tokenizer.limit - len(self._before) - len(self._behind)
        begin = f"<Instruct>: {instruction or self.instruction}\n<Query>: {query}\n<Document>: "
        found = []
        for at in range(0, len(documents), _TOKENIZED_AT_ONCE):
            texts = [begin + document for document in documents[at : at + _TOKENIZED_AT_ONCE]]
            for row, ids in enumerate(tokenizer(texts, add_special_tokens=False)["input_ids"]):
                if truncate and room > 0:
                    ids = ids[:room]
                whole = [*self._before, *ids, *self._behind]
                tokenizer.check_length(len(whole), f"documents[{at + row}] with its prompt")
                found.append(Encoded({"input_ids": whole}))
        return found

    def compute(self, batch: Sequence[Encoded]) -> list[NDArray[np.float32]]:
        """For each prompt the probability of ``yes`` against ``no``, as an array of one."""
        rows = self.encoder.outputs(batch, self._probabilities, left=True)[0]
        return list(rows)

    def _probabilities(self, features: dict[str, torch.Tensor]) -> Output:
        given: dict[str, Any] = dict(features)
        given["position_ids"] = (features["attention_mask"].cumsum(-1) - 1).clamp(min=0)
        if self._last_only:
            given["logits_to_keep"] = 1
        logits = self.encoder(given).logits
        return (torch.stack([logits[:, -1, word] for word in self._words], -1).float().softmax(-1)[:, 1:],)


def load_reranker(
    repository: Repository, placement: Placement, *, architecture: str | None, task: str
) -> Served[NDArray[np.float32]] | tuple[YesNoReranker, Served[NDArray[np.float32]]]:
    """A cross-encoder, or a language model that answers yes or no."""
    if not repository.is_gguf:
        repository.fetch_small()
    if not any(each.endswith("ForCausalLM") for each in architectures(repository.config)):
        return load_served(repository, placement, architecture=architecture, task=task)
    encoder = load_encoder(repository, "AutoModelForCausalLM", placement, architecture=architecture, task=task)
    judge = YesNoReranker(encoder)
    return judge, Served(encoder, judge.compute)
