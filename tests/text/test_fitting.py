"""A task that is unknown, or that a model is not for, is an error that lists what would fit; there is no fallback."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tabml.errors import ModelKindError, OptionError, PipelineNotFoundError
from tabml.pipelines import known_pipelines, open_pipeline

TinyModels = Callable[[str], Path]


@pytest.mark.parametrize(
    ("task", "meant"),
    [
        ("ner", "token-classification"),
        ("sentiment_analysis", "text-classification"),
        ("translation_en_to_fr", "translation"),
        ("text-generaton", "text-generation"),
        ("", None),
        ("qqqq", None),
    ],
)
def test_an_unknown_task_lists_all_that_are_opened_by_name(task: str, meant: str | None) -> None:
    with pytest.raises(PipelineNotFoundError) as told:
        open_pipeline(task, Path("."))
    names = [each.name for each in known_pipelines().values() if each.factory]
    hint = f"did you mean {meant!r}? There are" if meant else "there are"
    assert str(told.value) == f"task={task!r} is not known; {hint}: {', '.join(names)}"


def test_a_task_is_a_name() -> None:
    with pytest.raises(OptionError, match="task=None must be a name"):
        open_pipeline(None, Path("."))  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("recipe", "task", "what", "fits"),
    [
        ("classifier", "text-generation", "is a BertForSequenceClassification", "text-classification, tokenization"),
        ("t5", "text-generation", "is a T5ForConditionalGeneration", "translation, summarization, tokenization"),
        ("t5", "feature-extraction", "is a T5ForConditionalGeneration", "translation, summarization, tokenization"),
        ("bart", "translation", "is a BartForConditionalGeneration", "summarization, tokenization"),
        ("marian", "summarization", "is a MarianMTModel", "translation, tokenization"),
        ("llama_chat", "text-classification", "is a LlamaForCausalLM", "text-generation, text-ranking, tokenization"),
        ("classifier", "zero-shot-classification", "has no label 'entailment'", "text-classification, tokenization"),
        ("classifier", "text-ranking", "gives 3 labels", "text-classification, tokenization"),
        ("sentence_bert", "fill-mask", "is a BertModel", "feature-extraction, tokenization"),
        ("gpt2", "feature-extraction", "is a GPT2LMHeadModel", "text-generation, tokenization"),
    ],
)
def test_a_model_for_other_tasks_lists_them(recipe: str, task: str, what: str, fits: str, tiny: TinyModels) -> None:
    said = rf"{re.escape(what)}.*{task}.*; it fits {fits}$"
    with open_pipeline(task, tiny(recipe)) as model, pytest.raises(ModelKindError, match=said):
        model.load()


@pytest.mark.parametrize("task", ["tokenization", "feature-extraction", "text-ranking", "translation", "fill-mask"])
def test_a_gguf_file_generates(task: str, tmp_path: Path) -> None:
    import tiny_gguf

    said = f"is a GGUF file, which {task} can't use; it fits text-generation$"
    path = tiny_gguf.write(tmp_path / "model.gguf")
    with open_pipeline(task, path) as model, pytest.raises(ModelKindError, match=said):
        model.load()
