"""Words for a gap."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tabml.errors import ModelKindError, OptionError
from tabml.text.masks import MaskFiller

TEXT = "Hello [MASK], how are You?"
TinyModels = Callable[[str], Path]


def pipeline(folder: Path, **options: Any) -> Any:
    import transformers

    return transformers.pipeline("fill-mask", model=str(folder), device="cpu")(TEXT, **options)


def test_words_are_those_of_the_pipeline(tiny: TinyModels) -> None:
    wanted = pipeline(tiny("masked"))
    with MaskFiller(tiny("masked")) as model:
        assert model.mask == "[MASK]"
        found = model.fill(TEXT)
    assert [one.token_id for one in found] == [one["token"] for one in wanted]
    assert [one.score for one in found] == pytest.approx([one["score"] for one in wanted], abs=1e-6)
    for one in found:
        assert one.token in one.text
        assert one.text.endswith(", how are You?"), "the rest is as it was"


def test_only_targets(tiny: TinyModels) -> None:
    wanted = pipeline(tiny("masked"), targets=["world", "you"])
    with MaskFiller(tiny("masked")) as model:
        found = model.fill(TEXT, targets=["world", "you"])
        assert [(one.token_id, one.token) for one in found] == [(one["token"], one["token_str"]) for one in wanted]
        assert len(model.fill(TEXT, top_k=1, targets=["world", "you"])) == 1
        assert asyncio.run(model.fill_async(TEXT, targets=["you"])) == model.fill(TEXT, targets=["you"])
        for targets in (["xylophone"], [], "you", [3]):
            with pytest.raises(OptionError, match="targets"):
                model.fill(TEXT, targets=targets)


def test_a_piece_of_a_word_joins_the_one_before_it(tiny: TinyModels) -> None:
    with MaskFiller(tiny("masked")) as model:
        (found,) = model.fill("he [MASK] ran", targets=["##s"])
        assert (found.token, found.text) == ("s", "hes ran")


@pytest.mark.parametrize(
    "text", ["no mask", "[MASK] and [MASK]", 5, "\ud800 [MASK]", "[MASK] " + "fox " * 100, "a" * (2 << 20)]
)
def test_bad_texts_are_refused(text: Any, tiny: TinyModels) -> None:
    with MaskFiller(tiny("masked")) as model, pytest.raises(OptionError):
        model.fill(text)


def test_the_mask_is_named_when_it_is_missing(tiny: TinyModels) -> None:
    with MaskFiller(tiny("masked")) as model, pytest.raises(OptionError, match=r"0 times '\[MASK\]'"):
        model.fill("no mask")


@pytest.mark.parametrize(("recipe", "fits"), [("bert", "feature-extraction"), ("classifier", "text-classification")])
def test_a_model_of_another_kind_is_refused(recipe: str, fits: str, tiny: TinyModels) -> None:
    with MaskFiller(tiny(recipe)) as model, pytest.raises(ModelKindError, match=fits):
        model.load()
