"""Tokens of texts, without any weights."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabml.errors import ModelClosedError, OptionError
from tabml.text.tokenizer import Tokenizer

TinyModels = Callable[[str], Path]
RECIPES = ["bert", "bart", "t5", "nllb", "llama_chat", "marian"]


def native(folder: Path) -> Any:
    import warnings

    import transformers

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return transformers.AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("recipe", RECIPES)
def test_ids_are_those_of_transformers(recipe: str, tiny: TinyModels) -> None:
    theirs = native(tiny(recipe))
    with Tokenizer(tiny(recipe)) as tokenizer:
        for text in ("hello world", "Zoë, 日本 ☃", "", " two  spaces ", "NUL \0"):
            for special in (True, False):
                mine = tokenizer.encode(text, special_tokens=special)
                assert list(mine.ids) == theirs(text, add_special_tokens=special).input_ids
                assert tokenizer.count(text, special_tokens=special) == len(mine)
                assert list(mine.tokens) == theirs.convert_ids_to_tokens(list(mine.ids))
                for skip in (True, False):
                    wanted = theirs.decode(list(mine.ids), skip_special_tokens=skip)
                    assert tokenizer.decode(mine.ids, skip_special_tokens=skip) == wanted
        assert tokenizer.vocabulary_size == len(theirs)


def test_no_weights_are_needed(tiny: TinyModels, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny("bert"), folder)
    (folder / "model.safetensors").unlink()
    with Tokenizer(folder) as tokenizer:
        assert tokenizer.count("hello world") == 4


def test_offsets_are_in_characters(tiny: TinyModels) -> None:
    text = "Zoë 日 dog"
    with Tokenizer(tiny("llama_chat")) as tokenizer:
        found = tokenizer.encode(text)
        assert {text[start:end] for start, end in found.offsets} >= {"ë", "日"}
        assert found.offsets[-1][1] == len(text)


def test_control_tokens_are_text_unless_told_otherwise(tiny: TinyModels) -> None:
    with Tokenizer(tiny("llama_chat")) as tokenizer:
        assert "<|im_end|>" not in tokenizer.encode("a<|im_end|>").tokens
        marked = tokenizer.encode("a<|im_end|>", parse_special=True)
        assert marked.tokens[-1] == "<|im_end|>"
        assert tokenizer.decode(marked.ids) == "a"
        assert tokenizer.decode(marked.ids, skip_special_tokens=False) == "a<|im_end|>"
        assert "<|im_end|>" not in tokenizer.encode("a<|im_end|>").tokens, "the tokenizer keeps no state"


@pytest.fixture(scope="module")
def byte_level(tiny: TinyModels) -> Any:
    with Tokenizer(tiny("llama_chat")) as tokenizer:
        yield tokenizer


@given(text=st.text(st.characters(codec="utf-8")))
def test_any_text_comes_back(text: str, byte_level: Tokenizer) -> None:
    assert byte_level.decode(byte_level.encode(text).ids, skip_special_tokens=False) == text


@pytest.mark.parametrize("text", [5, None, ["a"], b"a", "\ud800", "a" * (2 << 20)])
def test_what_is_no_text_is_refused(text: Any, byte_level: Tokenizer) -> None:
    for call in (byte_level.encode, byte_level.count):
        with pytest.raises(OptionError, match="text"):
            call(text)


@pytest.mark.parametrize("ids", [[-1], [10**6], [1 << 70], [True], ["a"], [1.5], 3.5])
def test_ids_that_are_not_of_the_vocabulary_are_refused(ids: Any, byte_level: Tokenizer) -> None:
    with pytest.raises(OptionError, match=r"token_ids\[0\]"):
        byte_level.decode(ids)


def test_the_async_twins_give_the_same(byte_level: Tokenizer) -> None:
    assert asyncio.run(byte_level.encode_async("hello")) == byte_level.encode("hello")
    assert asyncio.run(byte_level.count_async("hello")) == 1
    assert asyncio.run(byte_level.decode_async([40])) == byte_level.decode([40])


def test_a_closed_tokenizer_says_so(tiny: TinyModels) -> None:
    tokenizer = Tokenizer(tiny("bert")).load()
    tokenizer.close()
    with pytest.raises(ModelClosedError):
        tokenizer.count("a")


def test_numbers_of_numpy_are_tokens_too(tiny: Callable[[str], Path]) -> None:
    with Tokenizer(tiny("llama_chat")) as model:
        ids = model.encode("hello you").ids
        assert model.decode(np.array(ids)) == model.decode(ids) == "hello you"
        for wrong in (np.array([1.5]), np.array([-1]), [np.bool_(True)], ["1"]):
            with pytest.raises(OptionError, match=r"token_ids\[0\]"):
                model.decode(wrong)
