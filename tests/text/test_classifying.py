"""Labels of texts: trained ones and any."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tabml.errors import ModelClosedError, ModelKindError, OptionError
from tabml.text.classification import TextClassifier, ZeroShotClassifier

TEXTS = ["hello world", "日本 café \0", "", "the quick brown fox jumps over the lazy dog " * 2]
LABELS = ["sports", "politics", "a lazy dog"]
TinyModels = Callable[[str], Path]


def pipeline(task: str, folder: Path) -> Any:
    import transformers

    return transformers.pipeline(task, model=str(folder), device="cpu")


@pytest.mark.parametrize("recipe", ["classifier", "multi_label_classifier", "cross_encoder"])
def test_scores_are_those_of_the_pipeline(recipe: str, tiny: TinyModels) -> None:
    wanted = pipeline("text-classification", tiny(recipe))(TEXTS, top_k=None)
    with TextClassifier(tiny(recipe)) as model:
        found = model.classify(TEXTS)
    for mine, theirs in zip(found, wanted, strict=True):
        assert [one.label for one in mine.labels] == [one["label"] for one in theirs]
        assert [one.score for one in mine.labels] == pytest.approx([one["score"] for one in theirs], abs=1e-6)
        assert (mine.label, mine.score) == (mine.labels[0].label, mine.labels[0].score)


def test_labels_sum_to_one_unless_each_is_for_itself(tiny: TinyModels) -> None:
    with TextClassifier(tiny("classifier")) as one, TextClassifier(tiny("multi_label_classifier")) as many:
        assert one.labels == ("bad", "fair", "good")
        assert sum(label.score for label in one.classify(TEXTS)[0].labels) == pytest.approx(1)
        assert sum(label.score for label in many.classify(TEXTS)[0].labels) != pytest.approx(1)
        assert len(one.classify(TEXTS, top_k=2)[0].labels) == 2
        assert one.classify([]) == ()


@pytest.mark.parametrize("recipe", ["inference_bart", "inference_deberta"])
@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("labels", [LABELS, LABELS[:1]])
def test_any_labels_get_the_scores_of_the_pipeline(
    recipe: str, multi_label: bool, labels: list[str], tiny: TinyModels
) -> None:
    texts = [TEXTS[0], TEXTS[1], TEXTS[3][:40]]
    options: dict[str, Any] = {"multi_label": multi_label}
    wanted = pipeline("zero-shot-classification", tiny(recipe))(
        texts, labels, hypothesis_template="it is {}, isn't it", **options
    )
    with ZeroShotClassifier(tiny(recipe)) as model:
        found = model.classify(texts, labels, hypothesis="it is {}, isn't it", **options)
    for mine, theirs in zip(found, wanted, strict=True):
        assert {one.label: one.score for one in mine.labels} == pytest.approx(
            dict(zip(theirs["labels"], theirs["scores"], strict=True)), abs=1e-5
        )
        assert mine.score == max(one.score for one in mine.labels)


def test_one_text_alone_gives_one_result(tiny: TinyModels) -> None:
    with ZeroShotClassifier(tiny("inference_bart")) as model:
        assert model.classify("hello", LABELS) == model.classify(["hello"], LABELS)
        assert model.classify([], LABELS) == ()


def test_threads_get_their_own_labels(tiny: TinyModels) -> None:
    with TextClassifier(tiny("classifier")) as model:
        wanted = model.classify(TEXTS)
        with ThreadPoolExecutor(6) as threads:
            for at, found in enumerate(threads.map(lambda at: model.classify(TEXTS[at % 4 :]), range(24))):
                for mine, theirs in zip(found, wanted[at % 4 :], strict=True):
                    assert mine.score == pytest.approx(theirs.score, abs=1e-6)


def test_long_texts_are_refused_or_cut_and_the_label_stays_whole(tiny: TinyModels) -> None:
    long = "the quick brown fox " * 60
    with TextClassifier(tiny("classifier")) as model:
        with pytest.raises(OptionError, match=r"texts\[1\] has \d+ tokens; this model reads 64"):
            model.classify(["a", long])
        assert len(model.classify(["a", long], truncate=True)) == 2
    with ZeroShotClassifier(tiny("inference_deberta")) as model:
        with pytest.raises(OptionError, match="truncate=True"):
            model.classify([long], LABELS)
        wanted = pipeline("zero-shot-classification", tiny("inference_deberta"))([long], LABELS)[0]
        found = model.classify([long], LABELS, truncate=True)[0]
        assert [one.score for one in found.labels] == pytest.approx(wanted["scores"], abs=1e-5)


@pytest.mark.parametrize("texts", ["one", 3, None, [4], ["\udfff"], ["a" * (2 << 20)]])
def test_what_is_no_list_of_texts_is_refused(texts: Any, tiny: TinyModels) -> None:
    with TextClassifier(tiny("classifier")) as model, pytest.raises(OptionError, match="texts"):
        model.classify(texts)


@pytest.mark.parametrize(
    ("labels", "options"),
    [
        ([], {}),
        ("sports", {}),
        (["a", "a"], {}),
        (["a", " "], {}),
        ([1], {}),
        ([f"label {at}" for at in range(1001)], {}),
        (LABELS, {"hypothesis": "no place"}),
        (LABELS, {"hypothesis": "{} and {}"}),
        (LABELS, {"hypothesis": 5}),
    ],
)
def test_bad_labels_are_refused(labels: Any, options: dict[str, Any], tiny: TinyModels) -> None:
    with ZeroShotClassifier(tiny("inference_bart")) as model, pytest.raises(OptionError):
        model.classify(["a"], labels, **options)


@pytest.mark.parametrize(
    ("kind", "recipe", "message"),
    [
        (TextClassifier, "masked", "fill-mask"),
        (TextClassifier, "sentence_bert", "feature-extraction"),
        (TextClassifier, "llama_chat", "text-generation"),
        (TextClassifier, "token_classifier", "token-classification"),
        (ZeroShotClassifier, "classifier", "'entailment'.*text-classification"),
        (ZeroShotClassifier, "question_answerer", "question-answering"),
    ],
)
def test_a_model_of_another_kind_never_gets_a_random_head(
    kind: type[TextClassifier], recipe: str, message: str, tiny: TinyModels
) -> None:
    with kind(tiny(recipe)) as model, pytest.raises(ModelKindError, match=message):
        model.load()


def test_the_async_twins_give_the_same(tiny: TinyModels) -> None:
    with TextClassifier(tiny("classifier")) as model:
        assert asyncio.run(model.classify_async(TEXTS, top_k=1)) == model.classify(TEXTS, top_k=1)
    with ZeroShotClassifier(tiny("inference_bart")) as zero:
        found = asyncio.run(zero.classify_async("hello", LABELS, multi_label=True))
        assert found == zero.classify("hello", LABELS, multi_label=True)


def test_a_closed_model_says_so(tiny: TinyModels) -> None:
    model = TextClassifier(tiny("classifier")).load()
    assert "loaded" in repr(model)
    model.close()
    with pytest.raises(ModelClosedError):
        model.classify(["a"])
