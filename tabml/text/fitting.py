"""Which tasks a model is for: the architectures in ``config.json`` decide, and never a guess."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tabml.errors import ModelKindError
from tabml.text.repository import Repository

_T5_LIKE = (
    "T5ForConditionalGeneration", "MT5ForConditionalGeneration", "UMT5ForConditionalGeneration",
    "LongT5ForConditionalGeneration",
)  # fmt: skip
ARCHITECTURES: Mapping[str, tuple[str, ...]] = {
    "text-generation": ("ForCausalLM", "LMHeadModel"),
    "feature-extraction": ("Model", "ForMaskedLM"),
    "text-ranking": ("ForSequenceClassification", "ForCausalLM"),
    "text-classification": ("ForSequenceClassification",),
    "zero-shot-classification": ("ForSequenceClassification",),
    "token-classification": ("ForTokenClassification",),
    "translation": (
        "MarianMTModel", "M2M100ForConditionalGeneration", "MBartForConditionalGeneration",
        "FSMTForConditionalGeneration", *_T5_LIKE,
    ),
    "summarization": (
        "BartForConditionalGeneration", "PegasusForConditionalGeneration", "PegasusXForConditionalGeneration",
        "LEDForConditionalGeneration", "BigBirdPegasusForConditionalGeneration", "MBartForConditionalGeneration",
        "ProphetNetForConditionalGeneration", *_T5_LIKE,
    ),
    "question-answering": ("ForQuestionAnswering",),
    "fill-mask": ("ForMaskedLM",),
}  # fmt: skip
"""By task, how the names of classes end that will do."""
_HAS_A_HEAD = ("LMHeadModel", "MTModel", "DoubleHeadsModel")


def architectures(config: Mapping[str, Any]) -> list[str]:
    """The classes that ``config.json`` names."""
    return [each for each in config.get("architectures") or [] if isinstance(each, str)]


def fits(architecture: str, task: str) -> bool:
    """Whether a class will do; for a task that isn't known here the library decides."""
    for ending in ARCHITECTURES.get(task, ("",)):
        if architecture.endswith(ending) and not (ending == "Model" and architecture.endswith(_HAS_A_HEAD)):
            return True
    return False


def tasks_of(repository: Repository) -> list[str]:
    """The tasks that the model of a repository is for."""
    if repository.is_gguf:
        return ["text-generation"]
    config = repository.config
    found = [task for task in ARCHITECTURES if any(fits(each, task) for each in architectures(config))]
    labels = config.get("id2label")
    names = [str(label).lower() for label in labels.values()] if isinstance(labels, dict) else ["label_0", "label_1"]
    unfit = {
        "feature-extraction": bool(config.get("is_encoder_decoder")),
        "zero-shot-classification": not any(name.startswith("entail") for name in names),
        "text-ranking": len(names) != 1 and "text-classification" in found,
    }
    return [*(task for task in found if not unfit.get(task)), "tokenization"]


def no_fit(repository: Repository, why: str) -> ModelKindError:
    """An error that says what the model would be good for.

    Args:
        repository: With the small files fetched.
        why: What is wrong, behind the repository's name.
    """
    return ModelKindError(f"{repository.name} {why}; it fits {', '.join(tasks_of(repository))}")


def check_fits(repository: Repository, task: str) -> None:
    """Refuse a model for another task.

    Args:
        repository: With the small files fetched.
        task: A pipeline's name.

    Raises:
        ModelKindError: it is one; the message lists the tasks that it fits.
    """
    if repository.is_gguf:
        raise no_fit(repository, f"is a GGUF file, which {task} can't use")
    classes = architectures(repository.config)
    if classes and not any(fits(each, task) for each in classes):
        raise no_fit(repository, f"is a {classes[0]:.80}, which is no model for {task}")
