"""The llama.cpp engine: against the torch engine on the same file, side by side, cut short, and with files that lie."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tabml.cancellation import Cancellation
from tabml.errors import (
    CallCancelledError,
    CapacityError,
    CorruptModelError,
    MissingExtraError,
    ModelClosedError,
    ModelForkedError,
    ModelKindError,
    ModelLoadError,
    OptionError,
    TabmlError,
)
from tabml.files import FileRef, MemoryProvider, default_provider, read_bytes
from tabml.files.catalog import find
from tabml.generation.results import joined
from tabml.text import GenerationOptions, TextGenerator

NAME = "smollm2-135m-instruct"
GREEDY = GenerationOptions(temperature=0, max_new_tokens=24)


@pytest.fixture(scope="module")
def model() -> Iterator[TextGenerator]:
    with TextGenerator(NAME, context_length=1024) as opened:
        assert opened.engine == "llama.cpp"
        yield opened


@pytest.fixture(scope="module")
def engine(model: TextGenerator) -> Any:
    return model._ready().engine


@pytest.fixture(scope="module")
def other() -> Iterator[TextGenerator]:
    with TextGenerator(NAME, engine="torch") as opened:
        assert opened.engine == "torch"
        yield opened


@pytest.fixture(scope="module")
def write(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    import tiny_gguf

    return lambda **changes: tiny_gguf.write(tmp_path_factory.mktemp("gguf") / "model.gguf", **changes)


@pytest.mark.parametrize("special_tokens", [False, True])
@pytest.mark.parametrize("parse_special", [False, True])
@pytest.mark.parametrize("text", ["hello  world", "<|im_start|>hi<|im_end|>", "a\n\n b", "🙂 é漢", " 12345 x=3;\t\ty"])
def test_tokens_are_those_of_transformers(
    text: str, special_tokens: bool, parse_special: bool, engine: Any, other: TextGenerator
) -> None:
    theirs = other._ready().engine
    ids = engine.encode(text, special_tokens=special_tokens, parse_special=parse_special)
    assert ids == theirs.encode(text, special_tokens=special_tokens, parse_special=parse_special)
    for shown in (False, True):
        assert engine.decode(ids, special_tokens=shown) == theirs.decode(ids, special_tokens=shown)


def test_what_templates_use_is_what_transformers_says(engine: Any, other: TextGenerator) -> None:
    theirs = other._ready().engine
    assert engine.chat_template == theirs.chat_template
    assert engine.special_tokens == theirs.special_tokens
    assert engine.control_tokens == theirs.control_tokens


@pytest.mark.parametrize("prompt", ["The capital of France is", "def add(a, b):\n", "Once upon a time, there was a"])
def test_greedy_text_is_that_of_torch_up_to_near_ties(prompt: str, model: TextGenerator, other: TextGenerator) -> None:
    options = GenerationOptions(temperature=0, max_new_tokens=24, logprobs=4)
    ours, theirs = (each.generate(prompt, options).choices[0] for each in (model, other))
    for mine, yours in zip(ours.logprobs, theirs.logprobs, strict=False):
        assert dict(yours.alternatives)[mine.token_id] == pytest.approx(yours.logprob, abs=0.3)
        if mine.token_id != yours.token_id:
            break
    else:
        assert ours.text == theirs.text


GEMMA = {
    "The capital of France is": [(506, -1.65), (5279, -0.70), (529, -0.12), (506, -0.92), (2891, -2.38)],
    "Once upon a time": [(236764, -0.49), (993, -1.53), (691, -0.35), (496, -0.19)],
    "1, 2, 3, 4,": [(236743, -0.08), (236810, -0.11), (236764, -0.41), (236743, -0.08), (236825, -0.13)],
}
"""First tokens and their logarithms of probability by transformers 5.23, with the same file unpacked to float32."""


def test_gemma_says_what_it_says_in_transformers(gemma: Path) -> None:
    with TextGenerator(gemma, context_length=256) as opened:
        assert opened.engine == "llama.cpp"
        for prompt, expected in GEMMA.items():
            options = GenerationOptions(temperature=0, max_new_tokens=len(expected), logprobs=0)
            found = opened.generate(prompt, options).choices[0]
            assert found.token_ids == tuple(token for token, _ in expected)
            assert [each.logprob for each in found.logprobs] == pytest.approx([each for _, each in expected], abs=0.25)


def test_text_is_that_of_the_binding_itself(model: TextGenerator, tmp_path: Path) -> None:
    entry = find(NAME)
    path = tmp_path / entry.file
    path.write_bytes(read_bytes(default_provider(), entry.ref))
    code = f"""
import xllamacpp
wanted = xllamacpp.CommonParams()
wanted.model.path, wanted.n_ctx, wanted.verbosity, wanted.hostnames = {str(path)!r}, 1024, -1, [{str(tmp_path / "a.sock")!r}]
wanted.cpuparams.n_threads = wanted.cpuparams_batch.n_threads = 2
server = xllamacpp.Server(wanted)
body = {{"prompt": "Once upon a time, there was a", "n_predict": 48, "temperature": 0, "stream": False}}
print(server.handle_completions(body)["choices"][0]["text"], end="")
"""
    plain = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    options = GenerationOptions(temperature=0, max_new_tokens=48)
    with TextGenerator(NAME, context_length=1024) as fresh:
        assert fresh.generate("Once upon a time, there was a", options).text == plain.stdout


def test_deltas_join_to_the_whole_and_tell_what_it_cost(model: TextGenerator) -> None:
    options = GenerationOptions(temperature=0, max_new_tokens=40)
    found = list(model.stream("List of fruits: apple, banana,", options))
    whole = joined(found)
    assert len(found) > 20
    assert whole.text == model._ready().engine.decode(whole.choices[0].token_ids)
    assert whole.usage.completion_tokens == 40
    assert whole.finish_reason == "length"
    assert 0 < whole.usage.time_to_first_token_s < whole.usage.seconds
    again = model.generate("List of fruits: apple, banana,", options)
    assert again.usage.cached_tokens > 0


def test_characters_of_several_tokens_come_whole(model: TextGenerator) -> None:
    prompt = "Repeat: 🙂🙃🙂🙃🦆 🙂🙃🙂🙃🦆 🙂🙃🙂🙃"
    found = list(model.stream(prompt, GenerationOptions(temperature=0, max_new_tokens=24, regex="(🦆|🙂|漢|é){6}")))
    whole = joined(found)
    assert re.fullmatch("(🦆|🙂|漢|é){6}", whole.text)
    assert "\ufffd" not in "".join(delta.text for delta in found)
    assert model._ready().engine.decode(whole.choices[0].token_ids) == whole.text


def test_a_stop_text_that_straddles_tokens_ends_the_answer(model: TextGenerator) -> None:
    whole = model.generate("The capital of France is", GREEDY).text
    stop = whole[8:14]
    ended = model.generate("The capital of France is", GenerationOptions(temperature=0, max_new_tokens=24, stop=stop))
    assert ended.text == whole[:8]
    assert ended.finish_reason == "stop"
    held = GenerationOptions(temperature=0, max_new_tokens=2, stop=" Paris.\n never")
    assert model.generate("The capital of France is", held).text.startswith(" Paris")


def test_a_stop_token_ends_the_answer_and_is_no_part_of_it(model: TextGenerator) -> None:
    whole = model.generate("The capital of France is", GREEDY).choices[0]
    at = next(at for at in range(2, 10) if whole.token_ids[at] not in whole.token_ids[:at])
    options = GenerationOptions(temperature=0, max_new_tokens=24, stop_token_ids=(whole.token_ids[at],))
    ended = model.generate("The capital of France is", options).choices[0]
    assert ended.token_ids == whole.token_ids[:at]
    assert ended.finish_reason == "stop"


def test_a_chat_ends_by_itself_and_without_its_end_token(model: TextGenerator) -> None:
    options = GenerationOptions(temperature=0, max_new_tokens=120, logprobs=0)
    found = model.chat([{"role": "user", "content": "List three colors."}], options).choices[0]
    assert found.finish_reason == "stop"
    assert "<|im_end|>" not in found.text
    assert model._ready().engine.encode("<|im_end|>")[0] not in found.token_ids
    assert [each.token_id for each in found.logprobs] == list(found.token_ids)
    assert all(each.logprob <= 0 for each in found.logprobs)


def test_output_matches_its_schema_or_expression(model: TextGenerator) -> None:
    schema = {
        "type": "object", "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer"}},
        "required": ["name", "age"], "additionalProperties": False,
    }  # fmt: skip
    options = GenerationOptions(seed=3, max_new_tokens=80, json_schema=schema)
    found = json.loads(model.generate("A person as JSON: ", options).text)
    assert set(found) == {"name", "age"}
    assert re.fullmatch(r"\d{3}/[ab]+", model.generate("x", GenerationOptions(seed=1, regex=r"\d{3}/[ab]{2,4}")).text)
    with pytest.raises(OptionError, match="json_schema"):
        model.generate("x", GenerationOptions(json_schema={"type": "no such type"}))
    with pytest.raises(OptionError, match="regex"):
        model.generate("x", GenerationOptions(regex="(unclosed"))


def test_several_answers_differ_and_seeds_repeat_them(model: TextGenerator) -> None:
    options = GenerationOptions(temperature=1.3, seed=7, n=3, max_new_tokens=12)
    found = model.generate("My favourite animal is", options)
    assert len({choice.text for choice in found.choices}) == 3
    assert found.usage.completion_tokens == sum(len(choice.token_ids) for choice in found.choices)
    again = [model.generate("My favourite animal is", GenerationOptions(seed=9, max_new_tokens=12)) for _ in range(2)]
    assert again[0].text == again[1].text


def test_biases_and_bad_words_decide(model: TextGenerator, engine: Any) -> None:
    (paris,) = engine.encode(" Paris")
    assert model.generate("The capital of France is", GREEDY).text.startswith(" Paris")
    never = model.generate("The capital of France is", GenerationOptions(temperature=0, bad_words=("Paris",)))
    assert "Paris" not in never.text
    always = GenerationOptions(temperature=0, max_new_tokens=3, logit_bias={paris: 100})
    assert model.generate("The", always).text == " Paris" * 3


IMPOSSIBLE = [
    {"frequency_penalty": 1.0}, {"presence_penalty": 1.0}, {"no_repeat_ngram_size": 2}, {"num_beams": 2},
    {"adapter": "mine"}, {"min_new_tokens": 4}, {"n": 9}, {"logit_bias": {1 << 20: 1}}, {"stop_token_ids": (1 << 20,)},
    {"bad_words": ("several words of it",)},
]  # fmt: skip


@pytest.mark.parametrize("options", IMPOSSIBLE, ids=lambda options: next(iter(options)))
def test_what_it_cannot_do_is_refused_by_name(options: dict[str, Any], model: TextGenerator) -> None:
    with pytest.raises(OptionError, match=next(iter(options))):
        model.generate("x", GenerationOptions(**options))


def test_beams_are_not_sent_to_another_engine_that_has_none(model: TextGenerator) -> None:
    with pytest.raises(OptionError, match=r"num_beams=4 is not possible.*use n with a low temperature"):
        model.generate("x", GenerationOptions(num_beams=4))


def test_a_fixed_number_of_tokens_can_be_had(model: TextGenerator) -> None:
    found = model.chat(
        [{"role": "user", "content": "Say hi."}],
        GenerationOptions(temperature=0, max_new_tokens=60, min_new_tokens=60),
    )
    assert found.usage.completion_tokens == 60


def test_a_prompt_without_room_is_refused_with_the_limit(model: TextGenerator) -> None:
    with pytest.raises(OptionError, match="context of 1024 leaves no room"):
        model.generate("word " * 1100)
    with pytest.raises(OptionError, match=r"prompt begins with \d+ tokens and goes on"):
        model.generate("word " * 1_000_000)
    with pytest.raises(OptionError, match="bytes"):
        model.count_tokens("word " * 1_000_000)
    full = model.generate("word " * 1000, GenerationOptions(max_new_tokens=500, seed=1))
    assert full.usage.prompt_tokens + full.usage.completion_tokens <= 1024


def test_twelve_callers_at_once_are_all_answered(model: TextGenerator) -> None:
    found: dict[int, str] = {}

    def call(number: int) -> None:
        options = GenerationOptions(temperature=0, max_new_tokens=12, regex=f"({number}-)+")
        found[number] = model.generate(f"{number} " * 25, options).text

    threads = [threading.Thread(target=call, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == list(range(12))
    assert all(text.startswith(f"{number}-") for number, text in found.items())


def idle(engine: Any) -> None:
    """Wait until nothing runs any more."""
    with engine._changed:
        assert engine._changed.wait_for(lambda: not engine._running, timeout=30)


def test_a_cancel_ends_it_and_frees_its_place(model: TextGenerator) -> None:
    forever = GenerationOptions(temperature=1, max_new_tokens=900, min_new_tokens=900)
    cancellation = Cancellation()
    with cancellation.bound():
        running = [model.stream(f"Number {number}:", forever) for number in range(9)]
        next(running[0])
        cancellation.cancel()
        for each in running:
            with pytest.raises(CallCancelledError):
                list(each)
    assert model.generate("The capital of France is", GREEDY).text.startswith(" Paris")
    idle(model._ready().engine)


def test_a_closed_iterator_ends_the_work(model: TextGenerator, engine: Any) -> None:
    stream = model.stream("Once", GenerationOptions(max_new_tokens=900, min_new_tokens=900))
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    idle(engine)


def test_an_iterator_that_was_never_begun_ends_the_work_too(model: TextGenerator, engine: Any) -> None:
    for end in (lambda stream: stream.close(), lambda stream: None):
        end(model.stream("Once", GenerationOptions(max_new_tokens=900, min_new_tokens=900)))
        idle(engine)


def test_time_ends_what_runs_and_what_waits(model: TextGenerator) -> None:
    forever = GenerationOptions(max_new_tokens=900, min_new_tokens=900)
    running = [model.stream(f"Number {number}:", forever) for number in range(2)]
    next(running[0])
    late = model.generate("I wait", GenerationOptions(max_new_tokens=900, min_new_tokens=900, max_time_s=0.2))
    assert late.finish_reason == "time"
    for each in running:
        each.close()  # type: ignore[attr-defined]
    idle(model._ready().engine)
    short = model.generate("I run", GenerationOptions(max_new_tokens=900, min_new_tokens=900, max_time_s=2))
    assert short.finish_reason == "time"
    assert 0 < short.usage.completion_tokens < 900


def test_a_model_that_is_closed_says_so_to_everyone(write: Callable[..., Path]) -> None:
    opened = TextGenerator(write(), engine="llama.cpp").load()
    streams = [opened.stream("ab", GenerationOptions(max_new_tokens=100, min_new_tokens=100)) for _ in range(12)]
    closing = threading.Thread(target=opened.close)
    next(streams[0])
    closing.start()
    ended = 0
    for each in streams:
        try:
            list(each)
        except ModelClosedError:
            ended += 1
    closing.join()
    assert ended > 0
    with pytest.raises(ModelClosedError):
        opened.generate("ab")
    opened.close()


def test_a_forked_child_is_refused(write: Callable[..., Path]) -> None:
    code = f"""
import os
from pathlib import Path
from tabml.errors import ModelForkedError
from tabml.text import TextGenerator
model = TextGenerator(Path({str(write())!r}), engine="llama.cpp").load()
if (child := os.fork()) == 0:
    try:
        model.generate("ab")
    except ModelForkedError:
        os._exit(7)
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
model.close()
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=100)
    assert (done.stdout.strip(), done.stderr) == ("7", "")
    assert issubclass(ModelForkedError, TabmlError)


def test_a_script_that_closes_nothing_ends_well(write: Callable[..., Path]) -> None:
    code = f"""
from pathlib import Path
from tabml.text import GenerationOptions, TextGenerator
model = TextGenerator(Path({str(write())!r}), engine="llama.cpp")
streams = [model.stream("ab", GenerationOptions(max_new_tokens=100, min_new_tokens=100)) for _ in range(12)]
print(next(streams[0]).index)
"""
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
        assert (done.stdout.strip(), done.stderr, done.returncode) == ("0", "", 0)


def test_nothing_listens_on_a_port_and_no_file_is_left(write: Callable[..., Path], tmp_path: Path) -> None:
    """Wherever temporary files go: the path of a socket has 107 bytes at the most."""
    folder = tmp_path / ("far" * 40)
    folder.mkdir()
    code = f"""
import os
from pathlib import Path
from tabml.text import TextGenerator
def ports():
    links = [os.readlink(f"/proc/self/fd/{{fd}}") for fd in os.listdir("/proc/self/fd") if os.path.islink(f"/proc/self/fd/{{fd}}")]
    lines = [line.split() for name in ("tcp", "tcp6") for line in Path("/proc/self/net/" + name).read_text().splitlines()]
    return [line[1] for line in lines if line[3] == "0A" and f"socket:[{{line[9]}}]" in links]
import socket
with socket.create_server(("127.0.0.1", 0)):
    assert len(ports()) == 1
with TextGenerator(Path({str(write())!r}), engine="llama.cpp") as model:
    model.generate("ab")
    print(len(ports()), os.listdir({str(folder)!r}))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=100,
        env={**os.environ, "TMPDIR": str(folder)},
    )  # fmt: skip
    assert (done.stdout.strip(), done.stderr) == ("0 []", "")


def test_it_loads_out_of_the_memory_of_a_provider(write: Callable[..., Path]) -> None:
    files = MemoryProvider({("mine", "model.gguf"): write().read_bytes()})
    with TextGenerator(FileRef("mine", "model.gguf"), files=files) as opened:
        assert opened.engine == "llama.cpp"
        assert opened.generate("ab", GenerationOptions(seed=1, max_new_tokens=5)).usage.completion_tokens <= 5


def test_it_needs_no_torch(write: Callable[..., Path]) -> None:
    code = f"""
import sys
from pathlib import Path
for name in ("torch", "transformers", "tokenizers"):
    sys.modules[name] = None
from tabml.text import GenerationOptions, TextGenerator
with TextGenerator(Path({str(write())!r})) as model:
    options = GenerationOptions(max_new_tokens=5, seed=1)
    print(model.engine, model.chat([{{"role": "user", "content": "ab"}}], options).usage.completion_tokens <= 5)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert (done.stdout.strip(), done.stderr) == ("llama.cpp True", "")


def test_no_memory_stays_behind(write: Callable[..., Path]) -> None:
    code = f"""
from pathlib import Path
import os
from tabml.text import GenerationOptions, TextGenerator
def held():
    return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))
for turn in range(4):
    with TextGenerator(Path({str(write())!r}), engine="llama.cpp") as model:
        model.generate("ab", GenerationOptions(max_new_tokens=5))
    if turn == 0:
        first = held()
print(first == held() or (first, held()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert (done.stdout.strip(), done.stderr) == ("True", "")


LIES = [
    ({"llama.block_count": 0}, CorruptModelError),
    ({"llama.block_count": 1 << 20}, CorruptModelError),
    ({"llama.expert_count": 1_000_000}, CorruptModelError),
    ({"tokenizer.ggml.tokens": ["a"] * 260}, CorruptModelError),
    ({"tokenizer.ggml.model": "none"}, CorruptModelError),
    ({"llama.embedding_length": 7}, ModelLoadError),
    ({"llama.context_length": (1 << 32) - 1}, ModelKindError),
    ({"llama.context_length": 0}, ModelKindError),
    ({"llama.attention.causal": False}, ModelKindError),
    ({"split.count": 3}, ModelKindError),
    ({"general.type": "adapter"}, ModelKindError),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "error"), LIES, ids=lambda each: str(each)[:40] if isinstance(each, dict) else "")
def test_a_file_that_lies_ends_no_process_but_its_own(
    changes: dict[str, Any],
    error: type[Exception],
    write: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(error), TextGenerator(write(**changes), engine="llama.cpp") as opened:
        opened.generate("ab")
    assert not list(tmp_path.iterdir())


def test_the_probe_finds_nothing_wrong_with_a_good_file(
    write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tabml.text._llama.probe import check_loads

    check_loads(write(), "good")
    with monkeypatch.context() as patched:
        patched.setattr(sys, "executable", "/bin/false")
        with pytest.raises(ModelLoadError, match="good: it can't be tried in a process of its own"):
            check_loads(write(), "good")
        patched.setattr(sys, "executable", "/nowhere")
        with pytest.raises(CapacityError, match="no process can be started to try good"):
            check_loads(write(), "good")
    cancelled = Cancellation()
    cancelled.cancel()
    with cancelled.bound(), pytest.raises(CallCancelledError):
        check_loads(write(), "good")


def test_options_that_do_not_go_with_it_are_refused(write: Callable[..., Path], tiny: Callable[[str], Path]) -> None:
    path = write()
    for options, said in (
        ({"dtype": "float32"}, "dtype='float32' does not go with llama.cpp"),
        ({"quantization": "int8"}, "quantization='int8' does not go"),
        ({"context_length": 4096}, "at most 128"),
        ({"context_length": 1}, "context_length=1 must be"),
        ({"device": "cuda"}, "no GPU"),
        ({"device": "cuda:1"}, "which takes all; use 'cuda'"),
    ):
        with pytest.raises(OptionError, match=said):
            TextGenerator(path, engine="llama.cpp", **options).load()  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="reads GGUF"):
        TextGenerator(tiny("llama_chat"), engine="llama.cpp").load()


def test_without_it_auto_takes_torch_and_its_name_says_what_to_install(
    write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith(("xllamacpp", "tabml.text._llama"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    monkeypatch.setattr("tabml.text.generation.find_spec", lambda _: None)
    with TextGenerator(NAME, context_length=64) as opened:
        assert (opened.engine, opened.context_length) == ("torch", 64)
    with pytest.raises(MissingExtraError, match=r"tabml\[llama\]"):
        TextGenerator(write(), engine="llama.cpp").load()


def test_the_catalog_is_trusted_by_content_not_by_name(write: Callable[..., Path], tmp_path: Path) -> None:
    from tabml.text._llama.loading import _is_of_catalog

    entry = find(NAME)
    genuine = tmp_path / "genuine.gguf"
    genuine.write_bytes(read_bytes(default_provider(), entry.ref))
    assert _is_of_catalog(genuine, entry.ref)
    assert not _is_of_catalog(write(), entry.ref)
    assert not _is_of_catalog(genuine, FileRef("elsewhere", entry.file))


@pytest.mark.parametrize("name", ["llama.cpp", "torch"])
def test_a_grammar_that_cannot_be_followed_is_an_error_not_another_text(
    name: str, model: TextGenerator, other: TextGenerator
) -> None:
    schema = {"type": "object", "properties": {f"p{number}": {"type": "string"} for number in range(2000)}}
    opened = model if name == "llama.cpp" else other
    with pytest.raises(OptionError, match="json_schema is more complicated"):
        opened.generate("x", GenerationOptions(seed=1, max_new_tokens=12, json_schema=schema))
    assert opened.generate("The capital of France is", GREEDY).text.startswith(" Paris")
