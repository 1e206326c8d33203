"""Text on the command line, pipelines by their task, and pipelines of another package."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tabml.cli import main
from tabml.errors import ModelKindError, OptionError, PipelineNotFoundError
from tabml.pipelines import open_pipeline
from tabml.text import GenerationOptions, TextClassifier, TextGenerator

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: object) -> tuple[int, str, str]:
        code = main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def test_a_generation_is_text_or_json(run: Run, tiny: Callable[[str], Path]) -> None:
    arguments = ["--model", tiny("llama_chat"), "--set", "temperature=0", "--set", "max_new_tokens=6"]
    code, out, _ = run("generate", "hello", *arguments)
    assert code == 0
    code, whole, _ = run("generate", "hello", *arguments, "--json")
    found = json.loads(whole)
    assert out == found["choices"][0]["text"] + "\n"
    assert found["usage"]["completion_tokens"] == 6
    code, answer, _ = run("chat", "hi", *arguments, "--json")
    assert json.loads(answer)["choices"][0]["finish_reason"] == "length"


def test_an_adapter_is_a_folder(run: Run, tiny: Callable[[str], Path], tmp_path: Path) -> None:
    import tiny as recipes

    base = tiny("llama_chat")
    folder = recipes.lora(tmp_path / "mine", base, 1)
    arguments = ["generate", "hello", "--model", base, "--set", "temperature=0", "--set", "max_new_tokens=6"]
    code, out, err = run(*arguments, "--adapter", folder)
    assert (code, err) == (0, "")
    with TextGenerator(base, adapters={"mine": folder}) as model:
        options = GenerationOptions(temperature=0, max_new_tokens=6, adapter="mine")
        assert out == model.generate("hello", options).text + "\n"
    assert run(*arguments)[1] != out


def test_a_conversation_goes_on_until_its_end(tiny: Callable[[str], Path]) -> None:
    command = [sys.executable, "-m", "tabml", "chat", "--model", str(tiny("llama_chat")), "--set", "max_new_tokens=3"]
    ended = subprocess.run(command, input="hi\nand you?\n", capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == "> > > "


@pytest.mark.parametrize(
    ("arguments", "recipe", "key"),
    [
        (["embed", "a", "b"], "sentence_bert", "vector"),
        (["rank", "hello", "a dog", "rain"], "cross_encoder", "score"),
        (["classify", "a", "b"], "classifier", "labels"),
        (["classify", "a", "b", "--set", "labels=x,y"], "inference_bart", "labels"),
        (["answer", "who?", "the quick brown fox"], "question_answerer", "score"),
        (["fill", "hello [MASK]", "--set", "top_k=2"], "masked", "token"),
        (["translate", "hello", "there", "--set", "source=eng_Latn", "--set", "target=fra_Latn"], "nllb", "text"),
        (["summarize", "a", "b", "--set", "max_new_tokens=5"], "bart", "text"),
        (["tokenize", "a", "b"], "bert", "ids"),
        (["detokenize", "5", "6"], "bert", "text"),
        (["infill", "def f(", "return x", "--json", "--set", "max_new_tokens=3"], "code_fim", "choices"),
    ],
)
def test_every_command_writes_json_lines(
    arguments: list[str], recipe: str, key: str, run: Run, tiny: Callable[[str], Path]
) -> None:
    code, out, err = run(*arguments, "--model", tiny(recipe))
    assert (code, err) == (0, "")
    lines = [json.loads(line) for line in out.splitlines()]
    assert all(key in line for line in lines)
    assert lines


def test_several_answers_come_one_a_line(run: Run, tiny: Callable[[str], Path]) -> None:
    arguments = ["generate", "hello", "--model", tiny("llama_chat"), "--set", "regex=a{3}", "--set", "n=3"]
    assert run(*arguments) == (0, "aaa\n" * 3, "")


def test_labels_may_be_a_list(run: Run, tiny: Callable[[str], Path]) -> None:
    for said in ('["x, or", "true"]', "true, x"):
        out = run("classify", "a", "--model", tiny("inference_bart"), "--set", f"labels={said}")[1]
        labels = {each["label"] for each in json.loads(out)["labels"]}
        assert labels == ({"x, or", "true"} if said[0] == "[" else {"true", "x"})


def test_tokens_may_be_favoured(run: Run, tiny: Callable[[str], Path]) -> None:
    ids = json.loads(run("tokenize", "a", "--model", tiny("llama_chat"), "--set", "special_tokens=false")[1])["ids"]
    bias = json.dumps({str(ids[0]): 100})
    arguments = ["--model", tiny("llama_chat"), "--set", f"logit_bias={bias}", "--set", "max_new_tokens=3"]
    assert run("generate", "hi", *arguments)[1] == "aaa\n"


def test_a_chat_takes_a_system_prompt_and_tools(run: Run, tiny: Callable[[str], Path], tmp_path: Path) -> None:
    tools = tmp_path / "tools.json"
    tools.write_text('[{"type": "function", "function": {"name": "now", "parameters": {}}}]')
    arguments = ["chat", "hi", "--model", tiny("llama_chat"), "--set", "max_new_tokens=3", "--json"]
    usual = json.loads(run(*arguments)[1])["usage"]["prompt_tokens"]
    assert json.loads(run(*arguments, "--system", "Be brief.")[1])["usage"]["prompt_tokens"] > usual
    assert run(*arguments, "--tools", tools)[0] == 0
    tools.write_text("{")
    assert "tools.json" in run(*arguments, "--tools", tools)[2]


def test_stdin_that_is_no_text_is_one_line(tiny: Callable[[str], Path]) -> None:
    command = [sys.executable, "-m", "tabml", "chat", "--model", str(tiny("llama_chat")), "--set", "max_new_tokens=3"]
    ended = subprocess.run(
        command, input=b"hi\n\xff\n", capture_output=True, timeout=120, check=False,
        env={**os.environ, "PYTHONIOENCODING": "utf-8:strict"},
    )  # fmt: skip
    assert ended.returncode == 1
    assert ended.stderr.decode().splitlines()[-1].endswith("stdin is no text in utf-8 [option_invalid]")
    assert b"Traceback" not in ended.stderr


def test_files_may_come_from_a_provider(run: Run, tiny: Callable[[str], Path]) -> None:
    folder = tiny("bert")
    code, out, _ = run("tokenize", "hello", "--model", folder.name, "--files", f"dir:{folder.parent}")
    assert code == 0
    assert json.loads(out)["ids"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["rank", "a", "b"], "--model"),
        (["generate", "a", "--set", "speed=1"], "speed"),
        (["generate", "a", "--set", "temperature"], "NAME=VALUE"),
        (["generate", "a", "--model", "nosuch"], "catalog"),
        (["embed", "a", "--device", "tpu"], "device"),
        (["infill", "a", "--model", "MODEL"], "behind it"),
        (["detokenize", "x", "--model", "MODEL"], "ID must be a whole number"),
        (["generate", "a", "--set", "stop=5", "--model", "MODEL"], "stop=5"),
        (["generate", "a", "--set", 'logit_bias={"x":2}', "--model", "MODEL"], "logit_bias='x'"),
        (["generate", "a", "--set", "n=" + "[" * 100_000, "--model", "MODEL"], "n="),
        (["tokenize", "a", "--set", "foo=1", "--model", "MODEL"], "tokenize has no such option; it has special_tokens"),
        (["tokenize", "a", "--set", "text=1", "--model", "MODEL"], "text: tokenize has no such option"),
        (["tokenize", "a", "--set", "special_tokens=no", "--model", "MODEL"], "must be True or False"),
    ],
)
def test_what_is_wrong_is_one_line(arguments: list[str], words: str, run: Run, tiny: Callable[[str], Path]) -> None:
    code, out, err = run(*(tiny("llama_chat") if each == "MODEL" else each for each in arguments))
    assert (code, out) == (1, "")
    assert words in err
    assert err.count("\n") == 1


def test_a_pipeline_is_opened_by_its_task(tiny: Callable[[str], Path]) -> None:
    with open_pipeline("text-generation", tiny("llama_chat"), dtype="float32") as model:
        assert isinstance(model, TextGenerator)
    assert isinstance(open_pipeline("text_classification", tiny("classifier")), TextClassifier)
    with pytest.raises(PipelineNotFoundError, match="did you mean 'text-generation'"):
        open_pipeline("text-generatoin", "x")
    with pytest.raises(ModelKindError, match="tasks that are opened by name: text-generation"):
        open_pipeline("face-detection", "x")
    with pytest.raises(OptionError, match="'speed' is not an option"):
        open_pipeline("text-generation", tiny("llama_chat"), speed=3)  # type: ignore[call-overload]


PLUGIN = '''
"""A pipeline of another package, as CONTRIBUTING says."""
from tabml.pipelines import Option, Pipeline
from tabml.text import TextEmbedder


class ShoutingEmbedder(TextEmbedder):
    task = "shouting"

    def embed(self, texts, **options):
        return super().embed([text.upper() for text in texts], **options)


PIPELINE = Pipeline(
    name="shouting", family="text", factory="shouting_plugin:ShoutingEmbedder",
    options=(Option(name="device", default="auto", range="'auto' or 'cpu'"),),
    capabilities=("/tabml.v1.TextService/Embed",),
)
'''
USE = """
import sys
from pathlib import Path
from tabml.pipelines import find_pipeline, model_spec, open_pipeline
from tabml.text import TextEmbedder
import numpy as np

folder = Path(sys.argv[1])
with open_pipeline("shouting", folder) as loud, TextEmbedder(folder) as plain:
    assert np.allclose(loud.embed(["hello"]).vectors, plain.embed(["HELLO"]).vectors)
assert model_spec("org/x", pipeline="shouting", options={"device": "cpu"}).pipeline == "shouting"
try:
    find_pipeline("broken")
except NotImplementedError as problem:
    print(problem)
"""


def test_another_package_can_bring_a_pipeline(tmp_path: Path, run_python: Any, tiny: Callable[[str], Path]) -> None:
    (tmp_path / "shouting_plugin.py").write_text(PLUGIN)
    info = tmp_path / "shouting_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shouting-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[tabml.pipelines]\nshouting = shouting_plugin:PIPELINE\nbroken = nosuchmodule:PIPELINE\n"
    )
    ended = run_python(USE, tiny("sentence_bert"), PYTHONPATH=str(tmp_path))
    assert ended.returncode == 0, ended.stderr
    assert "nosuchmodule" in ended.stdout
