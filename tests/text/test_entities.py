"""Entities: the pipeline's numbers, and offsets that are right."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tabml.errors import ModelKindError, OptionError
from tabml.text.entities import TokenClassifier

TEXTS = ["hello world, how are you today?", "Zoë went to 日本 ☃🙂 é́x", "", " a photo of a cat. ", "NUL \0 dog"]
LONG = "the quick brown fox jumps over 日本 Zoë ☃ " * 12
TinyModels = Callable[[str], Path]
RECIPES = ["token_classifier", "byte_token_classifier"]


def theirs(folder: Path, texts: list[str], aggregation: str, **options: Any) -> list[list[tuple[Any, ...]]]:
    import transformers

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = transformers.pipeline(
            "token-classification", model=str(folder), device="cpu", aggregation_strategy=aggregation, **options
        )(texts)
    return [
        [(one["start"], one["end"], one.get("entity_group") or one["entity"], float(one["score"])) for one in each]
        for each in found
    ]


def same(found: Any, wanted: list[list[tuple[Any, ...]]]) -> None:
    for mine, other in zip(found, wanted, strict=True):
        assert [(one.start, one.end, one.label) for one in mine] == [one[:3] for one in other]
        assert [one.score for one in mine] == pytest.approx([one[3] for one in other], abs=1e-5)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("aggregation", ["simple", "first", "max", "average", "none"])
def test_entities_are_those_of_the_pipeline(recipe: str, aggregation: Any, tiny: TinyModels) -> None:
    with TokenClassifier(tiny(recipe)) as model:
        found = model.extract(TEXTS, aggregation=aggregation)
    same(found, theirs(tiny(recipe), TEXTS, aggregation))
    for text, entities in zip(TEXTS, found, strict=True):
        assert all(one.text == text[one.start : one.end] for one in entities)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("aggregation", ["simple", "average"])
def test_long_texts_are_read_in_windows(recipe: str, aggregation: Any, tiny: TinyModels) -> None:
    with TokenClassifier(tiny(recipe)) as model:
        found = model.extract([*TEXTS, LONG], aggregation=aggregation, stride=16)
        assert max(one.end for one in found[-1]) > 400
        assert all(one.text == LONG[one.start : one.end] for one in found[-1])
        with pytest.raises(OptionError, match="this model reads 64"):
            model.extract([LONG])
        cut = model.extract([LONG], truncate=True)
    same(found, theirs(tiny(recipe), [*TEXTS, LONG], aggregation, stride=16))
    same(cut, theirs(tiny(recipe), [LONG], "simple"))


def test_unsure_entities_are_left_out(tiny: TinyModels) -> None:
    with TokenClassifier(tiny("token_classifier")) as model:
        everything = model.extract(TEXTS)
        middle = sorted(one.score for each in everything for one in each)[3]
        some = model.extract(TEXTS, min_score=middle)
        assert some == tuple(tuple(one for one in each if one.score >= middle) for each in everything)
        assert model.extract(TEXTS, min_score=1.0)[0] == ()
        assert model.extract([]) == ()
        assert "B-PER" in model.labels


@pytest.mark.parametrize(
    ("texts", "options"),
    [
        ("one", {}),
        ([3], {}),
        (["\ud83d"], {}),
        (["a" * (2 << 20)], {}),
        (["a"], {"aggregation": "median"}),
        (["a"], {"min_score": 2}),
        (["a"], {"min_score": float("nan")}),
        (["a"], {"stride": -1}),
        (["a"], {"stride": 64}),
        (["a"], {"stride": 4, "aggregation": "none"}),
        (["a"], {"stride": 4, "truncate": True}),
    ],
)
def test_bad_input_is_refused(texts: Any, options: dict[str, Any], tiny: TinyModels) -> None:
    with TokenClassifier(tiny("token_classifier")) as model, pytest.raises(OptionError):
        model.extract(texts, **options)


def test_the_async_twin_gives_the_same(tiny: TinyModels) -> None:
    with TokenClassifier(tiny("token_classifier")) as model:
        assert asyncio.run(model.extract_async(TEXTS, aggregation="max")) == model.extract(TEXTS, aggregation="max")


def test_a_model_of_another_kind_is_refused(tiny: TinyModels) -> None:
    with TokenClassifier(tiny("classifier")) as model, pytest.raises(ModelKindError, match="text-classification"):
        model.load()
