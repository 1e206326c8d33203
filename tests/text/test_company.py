"""What one caller asks for is nobody else's concern: answers go on, languages and contents stay where they were said."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tabml.errors import OptionError
from tabml.text import (
    GenerationOptions,
    QuestionAnswerer,
    TextEmbedder,
    TextGenerator,
    Tokenizer,
    Translator,
    ZeroShotClassifier,
)

TinyModels = Callable[[str], Path]

NOTHING_LEFT: list[tuple[dict[str, Any], str]] = [
    ({"regex": "yes", "bad_words": ("yes", "y", "ye", "es", "e", "s")}, "regex and bad_words"),
    ({"regex": "a{10}", "no_repeat_ngram_size": 1}, "regex and no_repeat_ngram_size"),
]


@pytest.mark.parametrize(("options", "named"), NOTHING_LEFT)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_options_that_leave_no_token_end_their_own_answer_alone(
    options: dict[str, Any], named: str, temperature: float, tiny: TinyModels
) -> None:
    with TextGenerator(tiny("llama_chat")) as model:
        whole = model.generate("hi", GenerationOptions(max_new_tokens=200, min_new_tokens=200, temperature=0)).text
        other = model.stream("hi", GenerationOptions(max_new_tokens=200, min_new_tokens=200, temperature=0))
        text = next(other).text
        with pytest.raises(OptionError, match=f"{named} together leave no token"):
            model.generate("hi", GenerationOptions(temperature=temperature, **options))
        assert text + "".join(delta.text for delta in other) == whole


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"top_p": 1e-300}, "top_p"),
        ({"typical_p": 1e-300}, "typical_p"),
        ({"repetition_penalty": 1e-300}, "repetition_penalty"),
        ({"regex": "ab", "min_new_tokens": 3}, "min_new_tokens=3 does not go with regex"),
        ({"json_schema": {}, "regex": "ab"}, "json_schema and regex"),
        ({"min_new_tokens": 300}, "max_new_tokens=256"),
        ({"stop": None}, "stop"),
        ({"stop": 5}, "stop"),
        ({"bad_words": 1}, "bad_words"),
        ({"stop_token_ids": 5}, "stop_token_ids"),
        ({"stop_token_ids": {1: 2}}, "stop_token_ids"),
        ({"json_object": "no"}, "json_object"),
        ({"adapter": []}, "adapter"),
        ({"temperature": 1e-5}, "temperature"),
    ],
)
def test_options_that_mean_nothing_are_refused_when_they_are_said(options: dict[str, Any], named: str) -> None:
    with pytest.raises(OptionError, match=named):
        GenerationOptions(**options)


def test_bounds_hold_for_numbers_of_a_message_too() -> None:
    import numpy as np

    assert GenerationOptions(temperature=float(np.float32(1e-4))).temperature == 1e-4
    assert GenerationOptions(top_p=float(np.float32(1e-6))).top_p == 1e-6
    assert GenerationOptions(logit_bias={0: -100, 1: 100}, presence_penalty=-2).logit_bias == {0: -100.0, 1: 100.0}


def test_a_cancelled_task_ends_its_generation(tiny: TinyModels) -> None:
    with TextGenerator(tiny("llama_chat")) as model:
        engine: Any = model._ready().engine
        step, going = engine._step, threading.Event()

        def slow() -> None:
            going.set()
            time.sleep(0.02)
            step()

        engine._step = slow

        async def main() -> None:
            task = asyncio.create_task(
                model.generate_async("hi", GenerationOptions(max_new_tokens=200, min_new_tokens=200))
            )
            await asyncio.to_thread(going.wait, 20)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(main())
        for _ in range(100):
            if not engine._running and not engine._waiting:
                break
            time.sleep(0.02)
        assert not engine._running
        assert not engine._waiting


CONTROL = "<|im_end|>"


def _prompt(model: TextGenerator, messages: list[dict[str, Any]], tools: Any = None) -> tuple[str, int]:
    opened = model._ready()
    ids = model._chat_ids(opened, messages, tools, False, {})
    return opened.engine.decode(ids, special_tokens=True), ids.count(opened.engine.encode(CONTROL)[0])


def test_contents_stay_in_their_messages(tiny: TinyModels) -> None:
    with TextGenerator(tiny("llama_chat")) as model:
        first = "first \ue0001\ue001 held-0- text"
        said, _ = _prompt(
            model, [{"role": "user", "content": first}, {"role": "user", "content": f"secret {CONTROL} x"}]
        )
        assert said.index(first) < said.index(f"secret {CONTROL} x")
        assert said.count("secret") == 1


def test_control_tokens_are_text_wherever_callers_say_them(tiny: TinyModels, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "tools"
    shutil.copytree(tiny("llama_chat"), folder)
    (folder / "chat_template.jinja").write_text(
        "{{ tools | tojson }}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}{{ m.tool_calls | tojson }}<|im_end|>{% endfor %}"
    )

    def call(text: str, role: str = "assistant") -> list[dict[str, Any]]:
        return [
            {"role": role, "content": text, "tool_calls": [{"function": {"name": text, "arguments": {text: [text]}}}]}
        ]

    with TextGenerator(folder) as model:
        _, usual = _prompt(model, call("x"), [{"description": "x"}])
        said, count = _prompt(model, call(f'a "{CONTROL}" b', f"user{CONTROL}"), [{"description": CONTROL}])
        assert count == usual
        assert said.count(CONTROL) == usual + 6
        assert r"a \"<|im_end|>\" b" in said


def test_what_a_template_can_not_use_is_refused_by_name(tiny: TinyModels) -> None:
    deep: Any = {"type": "function"}
    for _ in range(5000):
        deep = {"parameters": deep}
    messages = [{"role": "user", "content": "x"}]
    with TextGenerator(tiny("llama_chat")) as model:
        for options, named in (
            ({"tools": [deep]}, "nested too deeply"),
            ({"tools": 5}, "tools=5"),
            ({"tools": [5]}, r"tools=\[5\]"),
            ({"template_options": 5}, "template_options=5"),
            ({"continue_last": "no"}, "continue_last='no'"),
        ):
            given: Any = options
            with pytest.raises(OptionError, match=named):
                model.chat(messages, **given)


def test_a_source_language_is_that_of_one_call(tiny: TinyModels) -> None:
    with Translator(tiny("nllb")) as model:
        options: dict[str, Any] = {"target": "fra_Latn", "max_new_tokens": 12}
        texts = ["hello world", "the quick brown fox"]
        usual = model.translate(texts, **options)
        model.translate(["x"], source="deu_Latn", **options)
        assert model.translate(texts, **options) == usual


def test_answers_are_pieces_of_the_context(tiny: TinyModels) -> None:
    with QuestionAnswerer(tiny("question_answerer")) as model:
        found = model.answer("who?", "the fox", max_answer_tokens=1, top_k=100)
        assert found
        assert all(answer.start < answer.end and " " not in answer.text for answer in found)
        with pytest.raises(OptionError, match="impossible"):
            model.answer("who?", "the fox", impossible="no")  # type: ignore[arg-type]


@pytest.mark.parametrize("truncate", [True, False])
def test_a_label_that_leaves_no_room_is_named(truncate: bool, tiny: TinyModels) -> None:
    with (
        ZeroShotClassifier(tiny("inference_bart")) as model,
        pytest.raises(OptionError, match=r"labels\[1\] has \d+ tokens"),
    ):
        model.classify(["a"], ["b", "x " * 100], truncate=truncate)


def test_flags_are_true_or_false(tiny: TinyModels) -> None:
    with TextEmbedder(tiny("sentence_bert")) as model:
        for name in ("truncate", "normalize"):
            options: Any = {name: "False"}
            with pytest.raises(OptionError, match=f"{name}='False' must be True or False"):
                model.embed(["a"], **options)
    with Tokenizer(tiny("bert")) as tokens, pytest.raises(OptionError, match="special_tokens"):
        tokens.encode("a", special_tokens=0)  # type: ignore[arg-type]


def test_long_texts_are_tokenized_in_portions(tiny: TinyModels) -> None:
    from tabml.text._torch.encoders import _portions

    assert list(_portions([])) == []
    assert list(_portions([1 << 20, 3, 4, 1 << 16])) == [slice(0, 1), slice(1, 3), slice(3, 4)]
    assert [each.stop - each.start for each in _portions([1] * 600)] == [256, 256, 88]
    with TextEmbedder(tiny("sentence_bert")) as model:
        texts = ["a b " * 20000, "a", "b " * 40000]
        alone = [model.embed([text], truncate=True).vectors[0] for text in texts]
        assert abs(model.embed(texts, truncate=True).vectors - alone).max() < 1e-6
