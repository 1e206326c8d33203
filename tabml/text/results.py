"""What text models answer: values, with ``to_dict`` for the command line and for files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Embeddings:
    """Vectors of texts, in their order."""

    vectors: NDArray[np.float32]
    """(texts, dimensions), read-only."""
    prompt_tokens: int
    """Of all texts, special tokens included."""

    def __len__(self) -> int:
        return len(self.vectors)

    def __getitem__(self, at: int) -> NDArray[np.float32]:
        vector: NDArray[np.float32] = self.vectors[at]
        return vector

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        return iter(self.vectors)

    @property
    def dimensions(self) -> int:
        """Of each vector."""
        return int(self.vectors.shape[1])

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"vectors": self.vectors.tolist(), "prompt_tokens": self.prompt_tokens}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """One document and how well it answers the query."""

    index: int
    """Where it was in the list that was given."""
    score: float
    """Higher is better; 0 to 1 where the model says so."""
    document: str
    """Its text."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"index": self.index, "score": self.score, "document": self.document}


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelScore:
    """One label and how well it fits."""

    label: str
    """As the model or the caller calls it."""
    score: float
    """0 to 1."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"label": self.label, "score": self.score}


@dataclass(frozen=True, slots=True, kw_only=True)
class Classification:
    """The labels of one text, best first."""

    labels: tuple[LabelScore, ...]
    """At least one."""

    @property
    def label(self) -> str:
        """The best."""
        return self.labels[0].label

    @property
    def score(self) -> float:
        """Of the best."""
        return self.labels[0].score

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"labels": [each.to_dict() for each in self.labels]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entity:
    """A piece of a text that has a label."""

    label: str
    """Without the ``B-`` and ``I-`` of the model."""
    score: float
    """The mean over its tokens, 0 to 1."""
    text: str
    """``source[start:end]``."""
    start: int
    """Of its first character."""
    end: int
    """Behind its last character."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The piece of a context that answers a question."""

    text: str
    """``context[start:end]``; empty when there is no answer."""
    score: float
    """0 to 1."""
    start: int
    """Of its first character."""
    end: int
    """Behind its last character."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fill:
    """A word for a mask."""

    token: str
    """The word."""
    token_id: int
    """In the vocabulary."""
    score: float
    """0 to 1."""
    text: str
    """The whole text with the word in the mask's place."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """A text as its tokens."""

    ids: tuple[int, ...]
    """In the vocabulary."""
    tokens: tuple[str, ...]
    """As the vocabulary writes them."""
    offsets: tuple[tuple[int, int], ...]
    """Begin and end of each in the text, in characters; (0, 0) for tokens that are not of it."""

    def __len__(self) -> int:
        return len(self.ids)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"ids": list(self.ids), "tokens": list(self.tokens), "offsets": [list(pair) for pair in self.offsets]}


def read_only(array: Any) -> NDArray[np.float32]:
    """The array as float32 that nobody can write to."""
    values: NDArray[np.float32] = np.ascontiguousarray(array, np.float32)
    values.flags.writeable = False
    return values
