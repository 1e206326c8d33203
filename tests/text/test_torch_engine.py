"""The torch engine against plain transformers on the same weights: alone, side by side, and cut short."""

from __future__ import annotations

import gc
import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from traced import recorder

from tabml.cancellation import Cancellation
from tabml.errors import CallCancelledError, InferenceError, ModelClosedError, OptionError
from tabml.generation.options import GenerationOptions
from tabml.generation.results import Delta, joined

GREEDY = GenerationOptions(temperature=0, max_new_tokens=24)
PROMPTS = [
    "hello world, how are you today? hello world", "the quick", "def add(a, b):\n", "0123456789 + - * / = < > ( ) [ ]",
    "the quick brown fox jumps over the lazy dog and the quick brown fox",
]  # fmt: skip


DEVICE = os.environ.get("TABML_TEST_DEVICE", "cpu")
MODES = ["of any shape", "static", "recorded"] if DEVICE == "cpu" else ["of any shape", DEVICE]
"""How an engine computes: as on a CPU, as on a GPU, and there from the third step of a shape on; or on a real one."""


def open_engine(folder: Path, mode: str = "of any shape", **changes: Any) -> Any:
    import transformers

    config = transformers.AutoConfig.from_pretrained(folder)
    for name, value in changes.items():
        setattr(config, name, value)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, config=config).eval()
    return engine_of(model, transformers.AutoTokenizer.from_pretrained(folder), mode)


def engine_of(model: Any, tokenizer: Any, mode: str) -> Any:
    from tabml.text._torch.engine import TorchEngine

    engine = TorchEngine(model.to(DEVICE), tokenizer, static=mode != "of any shape", compiled=False)
    if mode == "recorded":
        engine._recorder = lambda: recorder(lambda: [engine._steps._fed])
        engine._forget()
    return engine


@pytest.fixture(scope="module", params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def engine(tiny: Callable[[str], Path], mode: str) -> Iterator[Any]:
    made = open_engine(tiny("llama_chat"), mode)
    yield made
    made.close()


def plain(engine: Any, prompt: list[int], **options: Any) -> list[int]:
    """What transformers' own generate gives; the tiny models have no token that ends."""
    import torch

    with torch.inference_mode():
        out = engine._model.generate(
            torch.tensor([prompt], device=DEVICE),
            attention_mask=torch.ones(1, len(prompt), device=DEVICE),
            eos_token_id=None,
            pad_token_id=0,
            **options,
        )
    return list(out[0][len(prompt) :].tolist())


def deltas(engine: Any, prompt: list[int], options: GenerationOptions = GREEDY) -> list[Delta]:
    return list(engine.stream(prompt, options, Cancellation()))


def tokens(found: list[Delta]) -> list[int]:
    return [token for delta in found for token in delta.token_ids]


@pytest.mark.parametrize("recipe", ["llama_chat", "gpt2", "code_fim"])
def test_greedy_tokens_are_those_of_transformers(recipe: str, tiny: Callable[[str], Path], mode: str) -> None:
    engine = open_engine(tiny(recipe), mode)
    try:
        for text in PROMPTS:
            prompt = engine.encode(text)
            assert tokens(deltas(engine, prompt)) == plain(engine, prompt, do_sample=False, max_new_tokens=24)
    finally:
        engine.close()


def side_by_side(engine: Any, prompts: list[list[int]], options: list[GenerationOptions]) -> list[list[Delta]]:
    found: list[list[Delta]] = [[] for _ in prompts]

    def work(at: int) -> None:
        time.sleep(0.002 * at)
        found[at] = deltas(engine, prompts[at], options[at])

    threads = [threading.Thread(target=work, args=(at,)) for at in range(len(prompts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return found


@pytest.mark.parametrize("recipe", ["llama_chat", "gpt2", "code_fim"])
def test_answers_that_run_together_are_as_if_alone(recipe: str, tiny: Callable[[str], Path], mode: str) -> None:
    """Of different lengths, joining and leaving at different steps, with begins in common."""
    engine = open_engine(tiny(recipe), mode)
    try:
        prompts = [engine.encode(text) for text in PROMPTS * 2]
        options = [GenerationOptions(temperature=0, max_new_tokens=8 + 5 * at) for at in range(len(prompts))]
        want = [
            plain(engine, prompt, do_sample=False, max_new_tokens=each.max_new_tokens)
            for prompt, each in zip(prompts, options, strict=True)
        ]
        for _ in range(3):  # the second time slots still hold the prompts
            assert [tokens(each) for each in side_by_side(engine, prompts, options)] == want
    finally:
        engine.close()


def test_a_window_of_attention_holds_for_answers_that_run_together(tiny: Callable[[str], Path], mode: str) -> None:
    """Mistral's, and Gemma's where only some layers have one."""
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny("llama_chat"))
    size: dict[str, Any] = {
        "vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2,
        "num_key_value_heads": 1, "head_dim": 16, "max_position_embeddings": 128, "sliding_window": 7,
    }  # fmt: skip
    kinds = [
        transformers.MistralConfig(num_hidden_layers=2, **size),
        transformers.Gemma3TextConfig(
            num_hidden_layers=3, layer_types=["sliding_attention", "full_attention", "sliding_attention"], **size
        ),
    ]
    for config in kinds:
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(config).eval()
        engine = engine_of(model, tokenizer, mode)
        try:
            prompts = [engine.encode(text) for text in PROMPTS]
            want = [plain(engine, prompt, do_sample=False, max_new_tokens=24) for prompt in prompts]
            found = side_by_side(engine, prompts, [GREEDY] * len(prompts))
            assert [tokens(each) for each in found] == want, config.model_type
        finally:
            engine.close()


def test_prompts_that_come_at_once_are_as_if_alone(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all lengths, in pieces, and with more tokens than a pass may have."""
    monkeypatch.setattr("tabml.text._torch.engine._PIECE", 20)
    monkeypatch.setattr("tabml.text._torch.engine._PADDED", 64)
    prompts = [engine.encode(text) * times for text in PROMPTS for times in (1, 2, 3)]
    want = [plain(engine, prompt, do_sample=False, max_new_tokens=24) for prompt in prompts]
    with engine._lock:  # all of them, before the engine looks
        streams = [engine.stream(prompt, GREEDY, Cancellation()) for prompt in prompts]
    assert [tokens(list(stream)) for stream in streams] == want


def test_answers_go_on_while_the_cache_grows(tiny: Callable[[str], Path], mode: str) -> None:
    """A step that has begun writes where nobody looks yet; and prompts of other answers move the cache."""
    engine = open_engine(tiny("llama_chat"), mode, max_position_embeddings=2048)
    few = GenerationOptions(temperature=0, max_new_tokens=4)
    try:
        first = engine.encode("hello world")
        others = [(engine.encode("the quick brown fox ") * 300)[:length] for length in (5, 300, 40, 600)]
        want = plain(engine, first, do_sample=False, max_new_tokens=400)
        wanted = [plain(engine, prompt, do_sample=False, max_new_tokens=4) for prompt in others]
        stream = engine.stream(first, GenerationOptions(temperature=0, max_new_tokens=400), Cancellation())
        found = [next(stream)]
        assert [tokens(deltas(engine, prompt, few)) for prompt in others] == wanted
        assert engine._running, "the others have waited for the first one's end"
        assert tokens([*found, *stream]) == want
    finally:
        engine.close()


def test_rows_that_are_nobodys_leave_a_prompt_alone_that_is_being_read(tiny: Callable[[str], Path], mode: str) -> None:
    """Three answers run in steps of four rows; the fourth slot is that of a prompt as long as the cache, or longer."""
    engine = open_engine(tiny("llama_chat"), mode, max_position_embeddings=2048)
    few = GenerationOptions(temperature=0, max_new_tokens=4)
    long = GenerationOptions(temperature=0, max_new_tokens=500)
    try:
        firsts = [engine.encode(text) for text in PROMPTS[:3]]
        words = engine.encode("the quick brown fox jumps over the lazy dog ") * 200
        others = [words[:length] for length in (255, 256, 257, 511, 512, 700)]
        want = [plain(engine, prompt, do_sample=False, max_new_tokens=500) for prompt in firsts]
        wanted = [plain(engine, prompt, do_sample=False, max_new_tokens=4) for prompt in others]
        streams = [engine.stream(prompt, long, Cancellation()) for prompt in firsts]
        begun = [next(stream) for stream in streams]
        assert [tokens(deltas(engine, prompt, few)) for prompt in others] == wanted
        assert [tokens([first, *stream]) for first, stream in zip(begun, streams, strict=True)] == want
        assert [tokens(deltas(engine, prompt, few)) for prompt in others] == wanted  # with what the slots still hold
    finally:
        engine.close()


@pytest.mark.parametrize("kind", ["llama", "gpt_oss", "gptj"])
def test_masks_hold_where_the_model_adds_them(kind: str, tiny: Callable[[str], Path], mode: str) -> None:
    """Models that know no attention of torch's, alone and together."""
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny("llama_chat"))
    size: dict[str, Any] = {"vocab_size": len(tokenizer), "num_hidden_layers": 2, "max_position_embeddings": 256}
    shape: dict[str, Any] = {"hidden_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16}
    configs: dict[str, Callable[[], Any]] = {
        "llama": lambda: transformers.LlamaConfig(intermediate_size=64, **shape, **size),
        "gpt_oss": lambda: transformers.GptOssConfig(
            intermediate_size=32, num_local_experts=2, num_experts_per_tok=1, sliding_window=9, **shape, **size
        ),
        "gptj": lambda: transformers.GPTJConfig(
            vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=2, rotary_dim=8, n_positions=256
        ),
    }
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(configs[kind](), attn_implementation="eager").eval()
    for parameter in model.parameters():
        parameter.data *= 4  # else every position looks alike
    engine = engine_of(model, tokenizer, mode)
    try:
        prompts = [engine.encode(text) for text in PROMPTS]
        want = [plain(engine, prompt, do_sample=False, max_new_tokens=24) for prompt in prompts]
        assert [tokens(deltas(engine, prompt)) for prompt in prompts] == want
        with engine._lock:
            streams = [engine.stream(prompt, GREEDY, Cancellation()) for prompt in prompts]
        assert [tokens(list(stream)) for stream in streams] == want
    finally:
        engine.close()


def test_a_step_sees_all_keys_and_touches_no_idle_slot(engine: Any) -> None:
    import torch

    from tabml.text._torch.cache import SlotCache
    from tabml.text._torch.steps import Steps

    slots = SlotCache(engine._layers, 1024)

    def scores(ids: Any, mask: Any, positions: Any) -> Any:
        return engine._model(input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=slots).logits[
            :, -1
        ]

    steps = Steps(scores, slots, torch.device(DEVICE), most_tokens=1024, recorder=None)
    with torch.inference_mode():
        for slot, length in enumerate((254, 5, 5, 256)):
            slots.add_slot()
            slots.one(slot, length)
            engine._model(
                input_ids=torch.arange(length, device=DEVICE)[None] % 50 + 5,
                position_ids=torch.arange(length, device=DEVICE)[None],
                past_key_values=slots,
            )
            slots.advance(length)
        idle = slots._keys[0][3, :, :256].clone()
        step = steps.begin([7, 8, 9])  # the fourth row is none's
        following = steps.follow(step, 3)
        assert following is not None
        assert steps.follow(following, 3) is None, "the 257th key would be beyond what is looked at"
        assert torch.equal(slots._keys[0][3, :, :256], idle)
        slots.lengths[0] += 2
        assert (steps.begin([7]).span, slots.spare) == (384, slots._keys[0].shape[2] - 1)


def test_a_model_that_cannot_be_recorded_answers_all_the_same(
    tiny: Callable[[str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    tries = []

    def refuse(compute: Callable[[], Any]) -> Any:
        tries.append(compute)
        raise RuntimeError("operation not permitted when stream is capturing")

    engine = open_engine(tiny("llama_chat"), "static")
    engine._recorder = lambda: refuse
    engine._forget()
    try:
        prompt = engine.encode("hello world")
        assert tokens(deltas(engine, prompt)) == plain(engine, prompt, do_sample=False, max_new_tokens=24)
        assert len(tries) == 1
        assert "can't be recorded" in caplog.text
    finally:
        engine.close()


def test_steps_are_of_few_shapes() -> None:
    from tabml.text._torch.steps import MOST_ROWS, rows_for, span_for

    assert {rows_for(count) for count in range(1, MOST_ROWS + 1)} == {1, 2, 4, 8, 12, 16, 24, 32, 48, 64}
    assert all(count <= rows_for(count) <= 2 * count for count in range(1, MOST_ROWS + 1))
    spans = [span_for(tokens) for tokens in range(1, 5000)]
    assert sorted(set(spans)) == [256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144]
    assert all(tokens <= span for tokens, span in zip(range(1, 5000), spans, strict=True))


def test_a_long_prompt_is_read_in_pieces(engine: Any) -> None:
    prompt = (engine.encode("the quick brown fox ") * 100)[:230]
    want = plain(engine, prompt, do_sample=False, max_new_tokens=10)
    from tabml.text._torch import engine as module

    whole, module._PIECE = module._PIECE, 64
    try:
        assert tokens(deltas(engine, prompt, GenerationOptions(temperature=0, max_new_tokens=10))) == want
    finally:
        module._PIECE = whole


def test_the_next_turn_reads_only_what_is_new(engine: Any) -> None:
    prompt = engine.encode("a photo of a cat. " * 5)
    first = deltas(engine, prompt)
    turn = [*prompt, *tokens(first), *engine.encode("and a dog")]
    second = deltas(engine, turn)
    assert second[-1].usage is not None
    assert second[-1].usage.cached_tokens >= len(prompt) + len(tokens(first)) - 1
    assert tokens(second) == plain(engine, turn, do_sample=False, max_new_tokens=24)


def test_a_seed_gives_the_same_text_alone_and_in_company(engine: Any) -> None:
    prompt = engine.encode("hello")
    options = GenerationOptions(seed=7, max_new_tokens=20)
    alone = tokens(deltas(engine, prompt, options))
    assert alone == tokens(deltas(engine, prompt, options))
    assert alone != tokens(deltas(engine, prompt, GenerationOptions(seed=8, max_new_tokens=20)))
    together = side_by_side(engine, [prompt] * 3, [options, GREEDY, GenerationOptions(seed=9, max_new_tokens=20)])
    assert tokens(together[0]) == alone


def test_several_answers_differ_and_each_ends_once(engine: Any) -> None:
    found = deltas(engine, engine.encode("hello"), GenerationOptions(seed=1, n=3, max_new_tokens=12))
    whole = joined(found)
    assert len({choice.token_ids for choice in whole.choices}) == 3
    assert sorted(delta.index for delta in found if delta.finish_reason is not None) == [0, 1, 2]
    assert whole.usage.completion_tokens == 36
    assert sum(delta.usage is not None for delta in found) == 1


@pytest.mark.parametrize(
    ("options", "same"),
    [
        ({"repetition_penalty": 1.7}, {"repetition_penalty": 1.7}),
        ({"no_repeat_ngram_size": 2}, {"no_repeat_ngram_size": 2}),
        ({"logit_bias": {5: 90.0, 9: 90.5}}, {"sequence_bias": [[[5], 90.0], [[9], 90.5]]}),
    ],
)
def test_what_acts_on_scores_acts_as_in_transformers(engine: Any, options: Any, same: Any) -> None:
    prompt = engine.encode("hello world hello world")
    found = deltas(engine, prompt, GenerationOptions(temperature=0, max_new_tokens=24, **options))
    assert tokens(found) == plain(engine, prompt, do_sample=False, max_new_tokens=24, **same)


def test_penalties_count_what_was_written(engine: Any) -> None:
    prompt = engine.encode("hello")
    usual = tokens(deltas(engine, prompt))
    most = max(usual.count(token) for token in usual)
    assert most > 2  # or the test shows nothing
    for name in ("frequency_penalty", "presence_penalty"):
        found = tokens(deltas(engine, prompt, GenerationOptions(temperature=0, max_new_tokens=24, **{name: 2.0})))
        assert max(found.count(token) for token in found) < most


def test_bad_words_do_not_come(engine: Any) -> None:
    prompt = engine.encode("hello")
    text = joined(deltas(engine, prompt)).text
    word = engine.decode(tokens(deltas(engine, prompt))[:1])
    assert word in text
    assert (
        word
        not in joined(
            deltas(engine, prompt, GenerationOptions(temperature=0, max_new_tokens=24, bad_words=(word,)))
        ).text
    )


def test_a_stop_text_ends_the_answer_wherever_tokens_cut_it(engine: Any) -> None:
    prompt = engine.encode("hello world")
    text = joined(deltas(engine, prompt, GenerationOptions(seed=3, max_new_tokens=40))).text
    for begin in range(3, len(text) - 3, 4):
        stop = text[begin : begin + 3]
        found = deltas(engine, prompt, GenerationOptions(seed=3, max_new_tokens=40, stop=(stop,)))
        assert "".join(delta.text for delta in found) == text[: text.index(stop)]
        assert found[-1].finish_reason == "stop"


def test_a_stop_token_ends_the_answer_and_can_be_forbidden(engine: Any) -> None:
    prompt = engine.encode("hello world")
    usual = tokens(deltas(engine, prompt))
    end = usual[4]
    at = usual.index(end)
    options = GenerationOptions(temperature=0, max_new_tokens=24, stop_token_ids=(end,))
    found = deltas(engine, prompt, options)
    assert (tokens(found), found[-1].finish_reason) == (usual[:at], "stop")
    longer = GenerationOptions(temperature=0, max_new_tokens=24, min_new_tokens=12, stop_token_ids=(end,))
    assert len(tokens(deltas(engine, prompt, longer))) >= 12


def test_log_probabilities_are_those_of_the_model(engine: Any) -> None:
    import torch

    prompt = engine.encode("hello world")
    found = joined(deltas(engine, prompt, GenerationOptions(temperature=0, max_new_tokens=6, logprobs=3))).choices[0]
    with torch.inference_mode():
        logits = engine._model(torch.tensor([[*prompt, *found.token_ids]], device=DEVICE)).logits[0].log_softmax(-1)
    assert len(found.logprobs) == 6
    for at, each in enumerate(found.logprobs):
        row = logits[len(prompt) - 1 + at]
        assert each.logprob == pytest.approx(float(row[each.token_id]), abs=1e-4)
        assert [token for token, _ in each.alternatives] == row.topk(3).indices.tolist()


def test_an_answer_matches_its_grammar(engine: Any) -> None:
    schema = {
        "type": "object", "properties": {"ok": {"type": "boolean"}, "n": {"enum": [1, 2, 3]}},
        "required": ["ok", "n"], "additionalProperties": False,
    }  # fmt: skip
    prompt = engine.encode("hello")
    for seed in range(3):
        found = joined(deltas(engine, prompt, GenerationOptions(seed=seed, max_new_tokens=120, json_schema=schema)))
        if found.finish_reason == "stop":
            assert set(json.loads(found.text)) == {"ok", "n"}
    fixed = joined(deltas(engine, prompt, GenerationOptions(seed=1, max_new_tokens=60, regex="[ab]{4}-[0-9]{2}")))
    import re

    assert re.fullmatch("[ab]{4}-[0-9]{2}", fixed.text), fixed
    with pytest.raises(OptionError, match="regex"):
        deltas(engine, prompt, GenerationOptions(regex="(unclosed"))
    with pytest.raises(OptionError, match="json_schema"):
        deltas(engine, prompt, GenerationOptions(json_schema={"type": "no such type"}))


def test_a_cancel_ends_the_work_within_a_step(engine: Any) -> None:
    cancellation = Cancellation()
    stream = engine.stream(engine.encode("hello"), GenerationOptions(seed=1, max_new_tokens=200), cancellation)
    next(stream)
    cancellation.cancel("enough")
    with pytest.raises(CallCancelledError, match="enough"):
        list(stream)
    wait_until_idle(engine)


def test_a_reader_that_goes_away_ends_the_work(engine: Any) -> None:
    stream = engine.stream(engine.encode("hello"), GenerationOptions(seed=1, max_new_tokens=200), Cancellation())
    next(stream)
    del stream
    gc.collect()
    wait_until_idle(engine)


def wait_until_idle(engine: Any) -> None:
    end = time.monotonic() + 5
    while engine._running or engine._waiting:
        assert time.monotonic() < end
        time.sleep(0.005)


def test_time_is_limited(engine: Any) -> None:
    options = GenerationOptions(seed=1, max_new_tokens=200, max_time_s=0.05)
    found = deltas(engine, engine.encode("hello"), options)
    assert found[-1].finish_reason == "time"
    assert len(tokens(found)) < 200


def test_the_context_is_the_limit(engine: Any) -> None:
    prompt = [5] * (engine.context_length - 3)
    found = deltas(engine, prompt, GenerationOptions(temperature=0, max_new_tokens=200))
    assert (len(tokens(found)), found[-1].finish_reason) == (3, "length")
    for bad, words in (([5] * engine.context_length, "leaves no room"), ([], "prompt"), ([10**6], "vocabulary")):
        with pytest.raises(OptionError, match=words):
            deltas(engine, bad)
    for more in ({"stop_token_ids": (10**6,)}, {"logit_bias": {10**6: 1.0}}):
        with pytest.raises(OptionError, match="vocabulary"):
            deltas(engine, [5], GenerationOptions(**more))
    with pytest.raises(OptionError, match=r"num_beams=4 is not possible.*use n with a low temperature"):
        deltas(engine, [5], GenerationOptions(num_beams=4))


def test_characters_come_whole(engine: Any) -> None:
    """Four bytes each, one token a byte: forced by a grammar."""
    found = deltas(engine, engine.encode("hello"), GenerationOptions(seed=1, max_new_tokens=64, regex="(😀|é|漢){6}"))
    texts = [delta.text for delta in found]
    assert set("".join(texts)) <= set("😀é漢")
    assert len("".join(texts)) == 6
    assert not any("\ufffd" in text for text in texts)


def test_a_failure_ends_all_answers_and_the_next_is_answered(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("boom")

    with monkeypatch.context() as patch:
        patch.setattr(engine, "_choose", broken)
        with pytest.raises(InferenceError, match="boom"):
            deltas(engine, engine.encode("hello"))
    assert tokens(deltas(engine, engine.encode("hello")))


def test_more_answers_than_run_together_wait_for_their_turn(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_most_together", 3)
    prompts = [engine.encode(text) for text in PROMPTS * 2]
    want = [plain(engine, prompt, do_sample=False, max_new_tokens=24) for prompt in prompts]
    assert [tokens(each) for each in side_by_side(engine, prompts, [GREEDY] * len(prompts))] == want


def test_answers_that_memory_is_too_small_for_wait(
    tiny: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU's; how much is free is told, and taken into account before the cache grows."""
    engine = open_engine(tiny("llama_chat"), MODES[-1])
    most, seen = 600_000, []
    decode = engine._decode
    monkeypatch.setattr(engine, "_free_bytes", lambda: most - engine._slots.bytes_held)
    monkeypatch.setattr(
        engine, "_decode", lambda runs: (seen.append((len(runs), engine._slots.bytes_held)), decode(runs))
    )
    try:
        prompts = [engine.encode(text) for text in PROMPTS * 8]
        want = [plain(engine, prompt, do_sample=False, max_new_tokens=24) for prompt in prompts]
        with engine._lock:
            streams = [engine.stream(prompt, GREEDY, Cancellation()) for prompt in prompts]
        assert [tokens(list(stream)) for stream in streams] == want
        assert max(held for _, held in seen) <= most
        assert 4 <= max(count for count, _ in seen) < len(prompts)
    finally:
        engine.close()


def short_of_memory(engine: Any, monkeypatch: pytest.MonkeyPatch, slots: int, tokens: int) -> None:
    """As on a GPU that has room for so many slots of so many tokens: the cache can't grow beyond."""
    import torch

    from tabml.text._torch.cache import SlotCache

    held = engine._slots
    most = held.bytes_held // (held._capacity * held._slots) * slots * (tokens + 1)
    reserve = SlotCache._reserve

    def limited(cache: Any, tokens: int) -> None:
        more = cache.growth(len(cache.lengths), tokens)
        if more is not None and cache.bytes_held + more > most:
            raise torch.OutOfMemoryError("no more")
        reserve(cache, tokens)

    monkeypatch.setattr(SlotCache, "_reserve", limited)
    monkeypatch.setattr(engine, "_free_bytes", lambda: most - engine._slots.bytes_held)


@pytest.mark.parametrize(("before", "lengths", "most"), [(60, [3000], 4), (16, [20] * 14, 1500)])
def test_what_earlier_prompts_left_takes_no_room_from_answers(
    before: int, lengths: list[int], most: int, tiny: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = open_engine(tiny("llama_chat"), MODES[1], max_position_embeddings=4096)
    try:
        words = engine.encode("the quick brown fox ") * 1000
        few, many = (GenerationOptions(temperature=0, max_new_tokens=each) for each in (4, most))
        for stream in [engine.stream([5 + at, *words[:20]], few, Cancellation()) for at in range(before)]:
            assert tokens(list(stream))
        short_of_memory(engine, monkeypatch, 16, 4096)
        streams = [engine.stream([100 + at, *words[:size]], many, Cancellation()) for at, size in enumerate(lengths)]
        assert [len(tokens(list(stream))) for stream in streams] == [most] * len(lengths)
    finally:
        engine.close()


def test_who_waits_for_memory_and_goes_lets_others_pass(
    tiny: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = open_engine(tiny("llama_chat"), MODES[1], max_position_embeddings=4096)
    try:
        words = engine.encode("the quick brown fox ") * 1000
        assert len([tokens(each) for each in side_by_side(engine, [words[:5], words[:9]], [GREEDY] * 2)]) == 2
        short_of_memory(engine, monkeypatch, 2, 1024)
        cancellation = Cancellation()
        long = engine.stream(words[:10], GenerationOptions(temperature=0, max_new_tokens=900), cancellation)
        next(long)
        gone = Cancellation()
        big = engine.stream(words[:3000], GREEDY, gone)
        gone.cancel()
        assert tokens(deltas(engine, words[:7])), "it has waited for the long one's end"
        assert engine._running, "the long one has ended, so the test showed nothing"
        with pytest.raises(CallCancelledError):
            next(big)
        cancellation.cancel()
    finally:
        engine.close()


def test_nobody_waits_for_a_closed_engine_to_be_quick(tiny: Callable[[str], Path]) -> None:
    engine = open_engine(tiny("llama_chat"))
    engine.packed.clear()
    engine._packing = iter(lambda: time.sleep(0.01) or "layer", None)
    found: list[bool] = []
    waiting = threading.Thread(target=lambda: found.append(engine.wait_until_packed()), daemon=True)
    waiting.start()
    time.sleep(0.1)
    engine.close()
    waiting.join(20)
    assert found == [False]
    assert engine.wait_until_packed() is False


def test_a_closed_engine_says_so_and_so_do_its_answers(tiny: Callable[[str], Path]) -> None:
    engine = open_engine(tiny("llama_chat"))
    stream = engine.stream(engine.encode("hello"), GenerationOptions(seed=1, max_new_tokens=200), Cancellation())
    next(stream)
    engine.close()
    engine.close()
    with pytest.raises(ModelClosedError):
        list(stream)
    with pytest.raises(ModelClosedError):
        engine.stream([5], GREEDY, Cancellation())
    assert not any(thread.name == "generate" and thread is engine._thread for thread in threading.enumerate())


QUOTING = "def area(width, height):\n    return width * height\n\ndef area(width, height):\n    return width"


@pytest.mark.parametrize(
    "more",
    [{"temperature": 0}, {"seed": 5, "temperature": 0.3}, {"temperature": 0, "stop": "he"},
     {"temperature": 0, "repetition_penalty": 1.05, "logprobs": 2}, {"seed": 1, "json_schema": {"type": "array"}}],
    ids=str,
)  # fmt: skip
def test_guessed_tokens_change_no_text(engine: Any, more: dict[str, Any]) -> None:
    prompt = engine.encode(QUOTING)
    plain = joined(deltas(engine, prompt, GenerationOptions(max_new_tokens=60, **more)))
    guessed = joined(deltas(engine, prompt, GenerationOptions(max_new_tokens=60, prompt_lookup_tokens=8, **more)))
    assert guessed.choices[0].token_ids == plain.choices[0].token_ids
    assert (guessed.text, guessed.finish_reason) == (plain.text, plain.finish_reason)
    assert guessed.usage.completion_tokens == plain.usage.completion_tokens
    assert [each.token_id for each in guessed.choices[0].logprobs] == [
        each.token_id for each in plain.choices[0].logprobs
    ]
    for mine, theirs in zip(guessed.choices[0].logprobs, plain.choices[0].logprobs, strict=True):
        assert mine.logprob == pytest.approx(theirs.logprob, abs=1e-4)


def test_guesses_keep_to_a_grammar(engine: Any) -> None:
    regex = "(left|right)( (left|right)){11}"
    prompt = engine.encode("left right left right left right\n")
    found = {}
    for most in (0, 8):
        options = GenerationOptions(temperature=0, max_new_tokens=200, regex=regex, prompt_lookup_tokens=most)
        found[most] = joined(deltas(engine, prompt, options))
    assert found[8].text == found[0].text
    assert re.fullmatch(regex, found[8].text)
    assert found[8].usage.guessed_tokens > 5
    assert found[0].usage.guessed_tokens == 0


def test_answers_that_run_together_are_the_same_with_fewer_guesses(engine: Any) -> None:
    prompt = engine.encode(QUOTING)
    options = GenerationOptions(temperature=0, max_new_tokens=80, min_new_tokens=80, prompt_lookup_tokens=8)
    alone = joined(deltas(engine, prompt, options))
    together = joined(deltas(engine, prompt, replace(options, n=2)))
    assert [choice.token_ids for choice in together.choices] == [alone.choices[0].token_ids] * 2
    assert together.usage.guessed_tokens < alone.usage.guessed_tokens


def test_guessing_saves_passes_and_leaves_a_cache_that_is_right(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[int] = []
    forward = engine._forward_one
    monkeypatch.setattr(
        engine, "_forward_one", lambda run, tokens, keep=1: passes.append(keep) or forward(run, tokens, keep)
    )
    prompt = engine.encode(QUOTING)
    options = GenerationOptions(temperature=0, max_new_tokens=80, min_new_tokens=80, prompt_lookup_tokens=8)
    found = joined(deltas(engine, prompt, options))
    assert found.usage.guessed_tokens > 20
    assert len([keep for keep in passes if keep]) <= 80 - found.usage.guessed_tokens + 1
    after = [*prompt, *found.choices[0].token_ids, *engine.encode(" and")]
    reused = joined(deltas(engine, after))
    assert reused.usage.cached_tokens >= len(prompt) + 70
    assert list(reused.choices[0].token_ids) == plain(engine, after, do_sample=False, max_new_tokens=24)


def test_a_guess_never_reaches_over_the_context(tiny: Callable[[str], Path]) -> None:
    made = open_engine(tiny("llama_chat"), max_position_embeddings=64)
    try:
        prompt = made.encode("ab ab ab ab ab ab ab ab ab ab ab ab ab ab")
        for most in (200, 3):
            options = GenerationOptions(temperature=0, max_new_tokens=most, min_new_tokens=1, prompt_lookup_tokens=32)
            found = joined(deltas(made, prompt, options))
            assert found.usage.completion_tokens == min(most, 64 - len(prompt))
    finally:
        made.close()


def test_an_iterator_that_was_never_begun_ends_the_work_too(engine: Any) -> None:
    forever = GenerationOptions(max_new_tokens=240, min_new_tokens=240)
    prompt = engine.encode("hello")
    for end in (lambda stream: stream.close(), lambda stream: None):
        end(engine.stream(prompt, forever, Cancellation()))
        finished = joined(deltas(engine, prompt, GenerationOptions(max_new_tokens=4)))
        assert finished.usage.completion_tokens <= 4
        assert not engine._running


def test_time_ends_an_answer_that_still_waits(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_most_together", 1)
    prompt = engine.encode("hello")
    forever = GenerationOptions(max_new_tokens=240, min_new_tokens=240)
    first = engine.stream(prompt, forever, Cancellation())
    next(first)
    waiting = GenerationOptions(max_new_tokens=240, min_new_tokens=240, max_time_s=0.001, n=2)
    late = joined(deltas(engine, prompt, waiting))
    assert [choice.finish_reason for choice in late.choices] == ["time", "time"]
    assert late.usage.completion_tokens == 0
    first.close()


def test_a_panic_of_the_tokenizer_is_an_error_of_ours(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class PanicException(BaseException):
        """As pyo3 raises it for a panic in Rust."""

    def panic(*_: object, **__: object) -> None:
        raise PanicException("index out of bounds")

    with monkeypatch.context() as patched:
        patched.setattr(engine, "_tokenizer", panic)
        patched.setattr(engine, "_text_of", panic)
        with pytest.raises(InferenceError, match="can't be tokenized: PanicException: index out of bounds"):
            engine.encode("x")
        with pytest.raises(InferenceError, match="can't be decoded: PanicException: index out of bounds"):
            engine.decode([5])
    assert engine.encode("x")


def test_a_process_that_ends_without_closing_ends_well(tiny: Any, run_python: Any) -> None:
    ended = run_python(
        """
        import sys
        from pathlib import Path
        from tabml.text import GenerationOptions, TextGenerator
        model = TextGenerator(Path(sys.argv[1]))
        stream = model.stream("hello", GenerationOptions(max_new_tokens=400))
        next(stream)
        print("fine")
        """,
        tiny("llama_chat"),
    )
    assert (ended.returncode, ended.stdout) == (0, "fine\n"), ended.stderr


def test_threads_that_shared_the_products_go_when_nothing_is_left_to_do(tiny: Any) -> None:
    import os

    import torch

    from tabml.text._torch.teams import disband

    def threads() -> int:
        return len(os.listdir("/proc/self/task"))

    disband()
    before = threads()
    (torch.ones(1 << 22) * 2).sum()
    assert threads() > before or torch.get_num_threads() == 1
    disband()
    assert threads() == before
