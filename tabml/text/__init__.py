"""Text models: generation, chat, embeddings, ranking, classification, extraction, translation; from any provider."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tabml.text.classification import TextClassifier, ZeroShotClassifier
    from tabml.text.embedding import TextEmbedder
    from tabml.text.entities import TokenClassifier
    from tabml.text.generation import Message, TextGenerator
    from tabml.text.masks import MaskFiller
    from tabml.text.options import GenerationOptions
    from tabml.text.questions import QuestionAnswerer
    from tabml.text.ranking import Reranker
    from tabml.text.results import (
        Answer,
        Choice,
        Classification,
        Delta,
        Embeddings,
        Entity,
        Fill,
        Generation,
        LabelScore,
        Ranked,
        TokenLogprob,
        Tokens,
        ToolCall,
        Usage,
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
    "GenerationOptions": "options", "MaskFiller": "masks", "Message": "generation", "QuestionAnswerer": "questions",
    "Reranker": "ranking", "Summarizer": "summarization", "TextClassifier": "classification",
    "TextEmbedder": "embedding", "TextGenerator": "generation", "TokenClassifier": "entities",
    "Tokenizer": "tokenizer", "Translator": "translation", "ZeroShotClassifier": "classification",
}  # fmt: skip


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_LAZY.get(name, 'results')}"), name)
