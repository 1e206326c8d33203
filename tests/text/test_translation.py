"""Translations and summaries: what transformers writes, in any batch, and languages that are checked."""

from __future__ import annotations

import asyncio
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tabml.cancellation import Cancellation
from tabml.errors import CallCancelledError, ModelClosedError, ModelKindError, OptionError
from tabml.text.summarization import Summarizer
from tabml.text.translation import Translator

TEXTS = ["hello world, how are you today?", "the lazy dog", "", "the house is wonderful. the sound of rain."]
TinyModels = Callable[[str], Path]


def theirs(
    folder: Path, texts: list[str], first: str | None = None, source: str | None = None, **options: Any
) -> list[str]:
    """What ``generate`` writes, one text at a time."""
    import transformers

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **({"src_lang": source} if source else {}))
        model = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
        if first is not None:
            options["forced_bos_token_id"] = tokenizer.convert_tokens_to_ids(first)
        found = []
        for text in texts:
            given = tokenizer(text, return_tensors="pt")
            ids = model.generate(
                input_ids=given.input_ids, attention_mask=given.attention_mask, do_sample=False, **options
            )
            found.append(tokenizer.batch_decode(ids, skip_special_tokens=True)[0].strip())
    return found


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize(
    ("recipe", "languages", "prefix", "first", "source"),
    [
        ("marian", {"target": "de"}, ">>de<< ", None, None),
        ("marian", {"target": "fr"}, ">>fr<< ", None, None),
        ("nllb", {"target": "fra_Latn"}, "", "fra_Latn", "eng_Latn"),
        ("nllb", {"target": "eng_Latn", "source": "deu_Latn"}, "", "eng_Latn", "deu_Latn"),
        ("t5", {"target": "de"}, "translate English to German: ", None, None),
        ("t5", {"source": "French", "target": "ro"}, "translate French to Romanian: ", None, None),
    ],
)
def test_translations_are_those_of_transformers(
    beams: int,
    recipe: str,
    languages: dict[str, str],
    prefix: str,
    first: str | None,
    source: str | None,
    tiny: TinyModels,
) -> None:
    with Translator(tiny(recipe)) as model:
        found = model.translate(TEXTS, num_beams=beams, max_new_tokens=12, **languages)
    wanted = theirs(tiny(recipe), [prefix + text for text in TEXTS], first, source, num_beams=beams, max_new_tokens=12)
    assert list(found) == wanted
    assert len(set(found)) > 1


@pytest.mark.parametrize(("recipe", "prefix"), [("bart", ""), ("t5", "summarize: ")])
def test_summaries_are_those_of_transformers(recipe: str, prefix: str, tiny: TinyModels) -> None:
    with Summarizer(tiny(recipe)) as model:
        found = model.summarize(TEXTS, min_new_tokens=3, max_new_tokens=9, num_beams=2)
        assert asyncio.run(model.summarize_async(TEXTS[:1], max_new_tokens=5)) == model.summarize(
            TEXTS[:1], max_new_tokens=5
        )
        assert model.summarize([]) == ()
    texts = [prefix + text for text in TEXTS]
    assert list(found) == theirs(tiny(recipe), texts, num_beams=2, min_new_tokens=3, max_new_tokens=9)


def test_without_a_length_an_answer_ends_where_the_decoder_must(tiny: TinyModels) -> None:
    with Summarizer(tiny("bart")) as model:
        assert len(model.summarize(["hello"])[0]) > 20
        assert model.summarize(["hello"], max_new_tokens=10**6) == model.summarize(["hello"])


def test_languages_are_those_of_the_model(tiny: TinyModels) -> None:
    with Translator(tiny("marian")) as marian, Translator(tiny("nllb")) as nllb, Translator(tiny("t5")) as t5:
        assert marian.languages == ("de", "fr")
        assert nllb.languages == ("deu_Latn", "eng_Latn", "fra_Latn")
        assert "ro" in t5.languages


@pytest.mark.parametrize(
    ("recipe", "languages", "message"),
    [
        ("marian", {}, "target is missing; this model has de, fr"),
        ("marian", {"target": "ru"}, "target='ru' is not a language of this model"),
        ("marian", {"target": "de", "source": "fr"}, "one source language"),
        ("nllb", {"target": "fra"}, "close to it: fra_Latn"),
        ("nllb", {"target": "deu_latn"}, "close to it: deu_Latn"),
        ("nllb", {"target": "fra_Latn", "source": "</s>"}, "source='</s>'"),
        ("t5", {}, "target is missing"),
        ("t5", {"target": "Germn"}, "German"),
        ("t5", {"target": 5}, "must be a language"),
    ],
)
def test_languages_that_the_model_has_not_are_refused(
    recipe: str, languages: Any, message: str, tiny: TinyModels
) -> None:
    with Translator(tiny(recipe)) as model, pytest.raises(OptionError, match=message):
        model.translate(["hello"], **languages)


def test_a_text_does_not_choose_the_language(tiny: TinyModels) -> None:
    with Translator(tiny("marian")) as model:
        texts = ["hello >>fr<< you", ">>fr<< hello"]
        found = model.translate(texts, target="de", max_new_tokens=6)
        assert found == tuple(model.translate([text], target="de", max_new_tokens=6)[0] for text in texts)


def test_long_texts_are_refused_or_cut(tiny: TinyModels) -> None:
    long = "the quick brown fox " * 80
    with Translator(tiny("marian")) as model:
        with pytest.raises(OptionError, match=r"texts\[0\] has \d+ tokens; this model reads 64"):
            model.translate([long], target="de")
        assert len(model.translate([long, "a"], target="de", truncate=True, max_new_tokens=4)) == 2


@pytest.mark.parametrize("texts", ["one", 5, [None], ["\ud800"], ["a" * (2 << 20)]])
def test_what_is_no_list_of_texts_is_refused(texts: Any, tiny: TinyModels) -> None:
    with Translator(tiny("t5")) as model, pytest.raises(OptionError, match="texts"):
        model.translate(texts, target="de")
    with Summarizer(tiny("t5")) as other, pytest.raises(OptionError, match="texts"):
        other.summarize(texts)


@pytest.mark.parametrize(
    "options", [{"num_beams": 0}, {"num_beams": 65}, {"max_new_tokens": 0}, {"min_new_tokens": 9, "max_new_tokens": 3}]
)
def test_options_out_of_range_are_refused(options: dict[str, Any], tiny: TinyModels) -> None:
    with Summarizer(tiny("bart")) as model, pytest.raises(OptionError):
        model.summarize(["a"], **options)


def test_a_cancelled_translation_stops_soon(tiny: TinyModels) -> None:
    cancellation = Cancellation()
    with Translator(tiny("t5")) as model, cancellation.bound():
        model.translate(["warm"], target="de", max_new_tokens=1)
        threading.Timer(0.3, cancellation.cancel).start()
        begin = time.monotonic()
        with pytest.raises(CallCancelledError):
            model.translate(["hello " * 9] * 64, target="de", max_new_tokens=8000)
        assert time.monotonic() - begin < 3


@pytest.mark.parametrize(
    ("kind", "recipe", "message"),
    [
        (Translator, "bart", "summarization"),
        (Translator, "llama_chat", "text-generation"),
        (Summarizer, "marian", "translation"),
        (Summarizer, "classifier", "text-classification"),
    ],
)
def test_a_model_of_another_kind_is_refused(
    kind: type[Translator], recipe: str, message: str, tiny: TinyModels
) -> None:
    with kind(tiny(recipe)) as model, pytest.raises(ModelKindError, match=message):
        model.load()


def test_the_async_twin_gives_the_same_and_a_closed_model_says_so(tiny: TinyModels) -> None:
    model = Translator(tiny("nllb"))
    found = asyncio.run(model.translate_async(TEXTS, target="deu_Latn", max_new_tokens=5))
    assert found == model.translate(TEXTS, target="deu_Latn", max_new_tokens=5)
    model.close()
    with pytest.raises(ModelClosedError):
        model.translate(TEXTS, target="deu_Latn")
