"""Names, places and other pieces of a text, with where they are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from tabml.errors import ModelKindError, OptionError
from tabml.generation.arguments import check_texts, flag, one_of, whole
from tabml.text._door import text_extra
from tabml.text._model import TextModel
from tabml.text.classification import softmax
from tabml.text.repository import Repository
from tabml.text.results import Entity

if TYPE_CHECKING:
    from tabml.text._torch.encoders import Encoded, Encoder

Aggregation = Literal["simple", "first", "max", "average", "none"]
AGGREGATIONS = ("simple", "first", "max", "average", "none")
_OUTSIDE = "O"


@dataclass(frozen=True, slots=True)
class _Piece:
    """A token or a word."""

    scores: NDArray[np.float64]
    """Of all labels."""
    start: int
    end: int
    continues: bool
    """It belongs to the word before it."""


@dataclass(frozen=True, slots=True)
class _Window:
    """A text, or a part of a long one."""

    text: int
    """Which."""
    encoded: Encoded
    offsets: list[tuple[int, int]]
    special: list[int]


class TokenClassifier(TextModel["Encoder"]):
    """Finds entities with any token classifier; the numbers are those of transformers' pipeline."""

    task: ClassVar[str] = "token-classification"

    @property
    def labels(self) -> tuple[str, ...]:
        """That the model knows, with their ``B-`` and ``I-``; loads the model."""
        return tuple(self._ready().labels)

    def extract(
        self,
        texts: Iterable[str],
        *,
        aggregation: Aggregation = "simple",
        min_score: float = 0.0,
        stride: int | None = None,
        truncate: bool = False,
    ) -> tuple[tuple[Entity, ...], ...]:
        """The entities of each text, in their order.

        Args:
            texts: Any number, also none.
            aggregation: ``simple`` joins neighbouring tokens with the same label; ``first``, ``max`` and ``average``
                first give all tokens of a word one label: of its first token, of its surest, of their mean;
                ``none`` gives every token by itself, with the model's whole label (``B-PER``).
            min_score: Without those that are less sure, 0 to 1.
            stride: Read texts that are too long in windows that overlap by this many tokens.
            truncate: Cut what is longer than the model can read instead of refusing it.

        Raises:
            OptionError: a text or an option is not allowed.
            CallCancelledError: the bound cancellation was set.
            ModelError: see :meth:`load`.
        """
        found = check_texts("texts", texts)
        flag("truncate", truncate)
        one_of("aggregation", aggregation, AGGREGATIONS)
        if isinstance(min_score, bool) or not isinstance(min_score, int | float) or not 0 <= min_score <= 1:
            raise OptionError(f"min_score={min_score!r:.40} must be a number from 0 to 1")
        if stride is not None and aggregation == "none":
            raise OptionError("stride does not go with aggregation='none'; use 'simple'")
        if stride is not None and truncate:
            raise OptionError("stride and truncate don't go together; give one of them")
        model = self._ready()
        windows = self._windows(model, found, stride, truncate)
        outputs = model.all_logits([window.encoded for window in windows])
        collected: list[list[list[Entity]]] = [[] for _ in found]
        for window, (logits,) in zip(windows, outputs, strict=True):
            pieces = _pieces(model, found[window.text], window, logits)
            collected[window.text].append(_aggregated(pieces, found[window.text], model.labels, aggregation))
        return tuple(tuple(entity for entity in _merged(parts) if entity.score >= min_score) for parts in collected)

    async def extract_async(
        self,
        texts: Iterable[str],
        *,
        aggregation: Aggregation = "simple",
        min_score: float = 0.0,
        stride: int | None = None,
        truncate: bool = False,
    ) -> tuple[tuple[Entity, ...], ...]:
        """:meth:`extract` in a thread."""
        return await self._in_thread(
            self.extract, texts, aggregation=aggregation, min_score=min_score, stride=stride, truncate=truncate
        )

    def _windows(self, model: Encoder, texts: list[str], stride: int | None, truncate: bool) -> list[_Window]:
        with text_extra():
            from tabml.text._torch.encoders import Encoded
        tokenizer = model.tokenizer
        options: dict[str, Any] = {}
        if stride is not None:
            room = tokenizer.limit - tokenizer.native.num_special_tokens_to_add()
            whole("stride", stride, 0, room - 1)
            options = {"return_overflowing_tokens": True, "stride": stride}
        if stride is not None or truncate:
            options |= {"truncation": True, "max_length": tokenizer.limit}
        windows = []
        for at, text in enumerate(texts):
            given = tokenizer([text], return_offsets_mapping=True, return_special_tokens_mask=True, **options)
            for row, ids in enumerate(given["input_ids"]):
                tokenizer.check_length(len(ids), f"texts[{at}]")
                names = [name for name in ("input_ids", "token_type_ids") if name in given]
                windows.append(
                    _Window(
                        at,
                        Encoded({name: given[name][row] for name in names}),
                        given["offset_mapping"][row],
                        given["special_tokens_mask"][row],
                    )
                )
        return windows

    def _build(self, repository: Repository) -> Encoder:
        with text_extra():
            from tabml.text._torch.encoders import load_encoder
        encoder = load_encoder(
            repository,
            "AutoModelForTokenClassification",
            self._placement,
            architecture=self._architecture,
            task=self.task,
        )
        if not encoder.tokenizer.native.is_fast:
            encoder.close()
            raise ModelKindError(f"{repository.name} has a tokenizer that can't say where tokens are in a text")
        return encoder

    def _free(self, loaded: Encoder) -> None:
        loaded.close()


def _pieces(model: Encoder, text: str, window: _Window, logits: NDArray[np.float32]) -> list[_Piece]:
    """The tokens that are of the text."""
    native = model.tokenizer.native
    word_aware = getattr(native.backend_tokenizer.model, "continuing_subword_prefix", None)
    pieces = []
    for at, scores in enumerate(softmax(logits)):
        if window.special[at]:
            continue
        token_id = window.encoded.inputs["input_ids"][at]
        start, end = window.offsets[at]
        if token_id == native.unk_token_id:
            continues = False
        elif word_aware:
            continues = len(native.convert_ids_to_tokens(token_id)) != end - start
        else:
            continues = start > 0 and " " not in text[start - 1 : start + 1]
        pieces.append(_Piece(scores, start, end, continues))
    return pieces


def _aggregated(pieces: list[_Piece], text: str, labels: list[str], aggregation: Aggregation) -> list[Entity]:
    if aggregation in ("first", "max", "average"):
        pieces = _words(pieces, aggregation)
    tagged = [(labels[int(piece.scores.argmax())], float(piece.scores.max()), piece) for piece in pieces]
    if aggregation == "none":
        return [
            Entity(label=label, score=score, text=text[piece.start : piece.end], start=piece.start, end=piece.end)
            for label, score, piece in tagged
            if label != _OUTSIDE
        ]
    groups: list[list[tuple[str, float, _Piece]]] = []
    for one in tagged:
        begins, tag = _tag(one[0])
        if groups and not begins and tag == _tag(groups[-1][-1][0])[1]:
            groups[-1].append(one)
        else:
            groups.append([one])
    found = []
    for group in groups:
        label = group[0][0].split("-", 1)[-1]
        start, end = group[0][2].start, group[-1][2].end
        score = float(np.mean([score for _, score, _ in group]))
        if label != _OUTSIDE:
            found.append(Entity(label=label, score=score, text=text[start:end], start=start, end=end))
    return found


def _tag(label: str) -> tuple[bool, str]:
    """Whether an entity begins here, and its label without ``B-`` and ``I-``."""
    if label.startswith(("B-", "I-")):
        return label.startswith("B-"), label[2:]
    return False, label


def _words(pieces: list[_Piece], aggregation: Aggregation) -> list[_Piece]:
    """One piece for each word, with one label."""
    groups: list[list[_Piece]] = []
    for piece in pieces:
        if groups and piece.continues:
            groups[-1].append(piece)
        else:
            groups.append([piece])
    words = []
    for group in groups:
        if aggregation == "first":
            scores = group[0].scores
        elif aggregation == "max":
            scores = max(group, key=lambda piece: float(piece.scores.max())).scores
        else:
            scores = np.mean([piece.scores for piece in group], axis=0)
        words.append(_Piece(scores, group[0].start, group[-1].end, False))
    return words


def _merged(parts: Sequence[list[Entity]]) -> list[Entity]:
    """The entities of all windows: of those that overlap the longest, then the surest."""
    if len(parts) == 1:
        return parts[0]
    kept: list[Entity] = []
    for entity in sorted((entity for part in parts for entity in part), key=lambda entity: entity.start):
        last = kept[-1] if kept else None
        if last is None or not last.start <= entity.start < last.end:
            kept.append(entity)
        elif (entity.end - entity.start, entity.score) > (last.end - last.start, last.score):
            kept[-1] = entity
    return kept
