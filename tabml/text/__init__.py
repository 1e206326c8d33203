"""Text models: generation, chat, embeddings, ranking, classification, extraction, translation; from any provider."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tabml.generation.messages import Message
    from tabml.generation.options import GenerationOptions
    from tabml.generation.results import Choice, Delta, Generation, TokenLogprob, ToolCall, Usage
    from tabml.text.classification import TextClassifier, ZeroShotClassifier
    from tabml.text.embedding import TextEmbedder
    from tabml.text.entities import TokenClassifier
    from tabml.text.generation import TextGenerator
    from tabml.text.masks import MaskFiller
    from tabml.text.questions import QuestionAnswerer
    from tabml.text.ranking import Reranker
    from tabml.text.results import (
        Answer,
        Classification,
        Embeddings,
        Entity,
        Fill,
        LabelScore,
        Ranked,
        Tokens,
    )
    from tabml.text.summarization import Summarizer
    from tabml.text.tokenizer import Tokenizer
    from tabml.text.translation import Translator

__all__ = [
    "Answer",
    "Choice",
    "Classification",
    "Delta",
    "Embeddings",
    "Entity",
    "Fill",
    "Generation",
    "GenerationOptions",
    "LabelScore",
    "MaskFiller",
    "Message",
    "QuestionAnswerer",
    "Ranked",
    "Reranker",
    "Summarizer",
    "TextClassifier",
    "TextEmbedder",
    "TextGenerator",
    "TokenClassifier",
    "TokenLogprob",
    "Tokenizer",
    "Tokens",
    "ToolCall",
    "Translator",
    "Usage",
    "ZeroShotClassifier",
]

_LAZY = {
    **dict.fromkeys(("Choice", "Delta", "Generation", "TokenLogprob", "ToolCall", "Usage"), "generation.results"),
    "GenerationOptions": "generation.options", "MaskFiller": "text.masks", "Message": "generation.messages",
    "QuestionAnswerer": "text.questions", "Reranker": "text.ranking", "Summarizer": "text.summarization",
    "TextClassifier": "text.classification", "TextEmbedder": "text.embedding", "TextGenerator": "text.generation",
    "TokenClassifier": "text.entities", "Tokenizer": "text.tokenizer", "Translator": "text.translation",
    "ZeroShotClassifier": "text.classification",
}  # fmt: skip


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"tabml.{_LAZY.get(name, 'text.results')}"), name)
