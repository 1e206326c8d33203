"""A language model with real weights on LiteRT-LM, made by a recipe of ours: by `make test-convert`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tabml.edge import LiteLM
from tabml.generation.options import GenerationOptions

pytestmark = pytest.mark.convert
GREEDY = GenerationOptions(temperature=0, max_new_tokens=40)
QUESTIONS = ("What is the capital of France?", "And of Italy? One word.", "Say hello in German.")


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file that ``TABML_SMOLLM2`` names, or a new one."""
    if given := os.environ.get("TABML_SMOLLM2"):
        return Path(given)
    from smollm2_litertlm import make

    return make(tmp_path_factory.mktemp("smollm2"))


def test_a_conversation_in_memory_is_the_one_that_is_read_anew(smollm2: Path) -> None:
    messages: list[dict[str, str]] = []
    answers = []
    with LiteLM(smollm2) as model:
        for question in QUESTIONS:
            messages.append({"role": "user", "content": question})
            answers.append(model.chat(messages, GREEDY))
            messages.append({"role": "assistant", "content": answers[-1].text})
    assert "Paris" in answers[0].text
    assert "Rome" in answers[1].text
    assert all(answer.finish_reason == "stop" for answer in answers)
    assert [answer.usage.cached_tokens > 0 for answer in answers] == [False, True, True]
    with LiteLM(smollm2, conversations=0) as model:
        for at, answer in enumerate(answers):
            anew = model.chat(messages[: 2 * at + 1], GREEDY)
            assert (anew.text, anew.usage.cached_tokens) == (answer.text, 0)
            assert anew.usage.prompt_tokens == answer.usage.prompt_tokens


def test_its_own_measurement_is_near_what_a_stream_shows(smollm2: Path) -> None:
    with LiteLM(smollm2) as model:
        speed = model.benchmark(prefill_tokens=128, decode_tokens=32)
        usage = model.generate("Once upon a time, in a small village near the sea", GREEDY).usage
    shown = (usage.completion_tokens - 1) / (usage.seconds - usage.time_to_first_token_s)
    assert 0.2 < shown / speed.decode_tokens_per_second < 5
