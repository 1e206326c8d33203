"""What can run code is refused, unless the program that opens the model says that it trusts the model's author."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tabml.errors import CorruptModelError, ModelFileNotFoundError, OptionError, UnsafeModelError
from tabml.files import DirectoryProvider, FileRef, MemoryProvider
from tabml.pipelines import model_spec, open_pipeline
from tabml.text import GenerationOptions, TextEmbedder, TextGenerator

TinyModels = Callable[[str], Path]
GREEDY = GenerationOptions(max_new_tokens=6, temperature=0)


class Evil:
    """Runs code when it is read by a plain unpickler."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def pickled(folder: Path, to: Path, *names: str, wrapped: bool = False, **others: Any) -> Path:
    """A copy whose weights are pickled, over as many files as there are names."""
    shutil.copytree(folder, to, ignore=shutil.ignore_patterns("model.safetensors"))
    tensors = load_file(folder / "model.safetensors")
    keys = sorted(tensors)
    for at, name in enumerate(names):
        part: dict[str, Any] = {key: tensors[key] for key in keys[at :: len(names)]}
        torch.save({"state_dict": part, "epoch": 3} if wrapped else {**part, **others}, to / name)
    return to


@pytest.mark.parametrize(
    "names",
    [
        ("pytorch_model.bin",),
        ("pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"),
        ("weights.ckpt",),
        ("model.pt",),
        ("model.pth",),
        ("model.pkl",),
    ],
)
def test_pickled_weights_are_refused_and_read_where_they_are_allowed(
    names: tuple[str, ...], tiny: TinyModels, tmp_path: Path
) -> None:
    folder = pickled(tiny("llama_chat"), tmp_path / "pickled", *names, wrapped=names[0].endswith(".ckpt"))
    torch.save({"lr": 1.0}, folder / "training_args.bin")
    torch.save({"lr": 1.0}, folder / "optimizer.pt")
    with TextGenerator(folder) as model, pytest.raises(UnsafeModelError, match=rf"{names[0]}.*allow_pickle=True"):
        model.load()
    with TextGenerator(folder, allow_pickle=True) as model, TextGenerator(tiny("llama_chat")) as plain:
        assert model.generate("hello", GREEDY).text == plain.generate("hello", GREEDY).text


def test_a_pickled_file_that_is_meant_is_the_one_that_is_read(tiny: TinyModels, tmp_path: Path) -> None:
    folder = pickled(tiny("classifier"), tmp_path / "pickled", "pytorch_model.bin")
    shutil.copy(tiny("classifier") / "model.safetensors", folder)
    with (
        open_pipeline("text-classification", folder / "pytorch_model.bin") as model,
        pytest.raises(UnsafeModelError, match=r"pytorch_model.bin, a format that can run code"),
    ):
        model.load()
    with open_pipeline("text-classification", folder / "pytorch_model.bin", allow_pickle=True) as model:
        assert model.labels == ("bad", "fair", "good")


def test_a_file_of_weights_that_is_meant_is_not_the_one_beside_it(tiny: TinyModels, tmp_path: Path) -> None:
    folder = tmp_path / "two"
    shutil.copytree(tiny("llama_chat"), folder)
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    (folder / "model.safetensors").write_bytes(b"damaged")
    with TextGenerator(folder / "other.safetensors") as model, TextGenerator(tiny("llama_chat")) as plain:
        assert model.generate("hello", GREEDY).text == plain.generate("hello", GREEDY).text
    with TextGenerator(folder / "model.safetensors") as model, pytest.raises(CorruptModelError):
        model.load()


def test_a_model_may_lie_in_a_folder_of_a_repository(tiny: TinyModels, tmp_path: Path) -> None:
    shutil.copytree(tiny("llama_chat"), tmp_path / "repo" / "inner")
    with TextGenerator(FileRef("repo", "inner/config.json"), files=DirectoryProvider(tmp_path)) as model:
        assert model.count_tokens("hello")
        model.generate("hello", GREEDY)


def test_no_code_runs_even_then(tiny: TinyModels, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    folder = pickled(tiny("llama_chat"), tmp_path / "pickled", "pytorch_model.bin", evil=Evil(mark))
    for allowed in (False, True):
        with TextGenerator(folder, allow_pickle=allowed) as model, pytest.raises(UnsafeModelError):
            model.load()
    assert not mark.exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no zip", b"\x80\x02]q\x00.", b"\x80\x04N."])
def test_damaged_pickles_are_told(content: bytes, tiny: TinyModels, tmp_path: Path) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(tiny("llama_chat"), folder, ignore=shutil.ignore_patterns("model.safetensors"))
    (folder / "pytorch_model.bin").write_bytes(content)
    with (
        TextGenerator(folder, allow_pickle=True) as model,
        pytest.raises((CorruptModelError, UnsafeModelError), match=r"pytorch_model.bin"),
    ):
        model.load()


def test_a_model_without_weights_is_not_called_unsafe(tiny: TinyModels, tmp_path: Path) -> None:
    folder = tmp_path / "none"
    shutil.copytree(tiny("llama_chat"), folder, ignore=shutil.ignore_patterns("model.safetensors"))
    torch.save({"lr": 1.0}, folder / "training_args.bin")
    with (
        TextGenerator(folder, allow_pickle=True) as model,
        pytest.raises(ModelFileNotFoundError, match=r"neither model.safetensors"),
    ):
        model.load()


def test_tied_tensors_may_share_their_memory(tiny: TinyModels, tmp_path: Path) -> None:
    folder = pickled(tiny("gpt2"), tmp_path / "tied", "pytorch_model.bin")
    tensors = torch.load(folder / "pytorch_model.bin")
    tensors["lm_head.weight"] = tensors["transformer.wte.weight"]
    torch.save(tensors, folder / "pytorch_model.bin")
    with TextGenerator(folder, allow_pickle=True) as model, TextGenerator(tiny("gpt2")) as plain:
        assert model.generate("hello", GREEDY).text == plain.generate("hello", GREEDY).text


CODE = """
from transformers import LlamaConfig, LlamaForCausalLM, BertConfig, BertModel
from .helper import FACTOR

class OwnConfig({config}):
    model_type = "own"

class OwnModel({model}):
    config_class = OwnConfig

    def __init__(self, config):
        super().__init__(config)
        self.factor = FACTOR
"""


def with_code(folder: Path, to: Path, auto: str, base: str) -> Path:
    shutil.copytree(folder, to)
    config = json.loads((to / "config.json").read_text())
    names = {"AutoConfig": "own_code.OwnConfig", auto: "own_code.OwnModel"}
    config |= {"model_type": "own", "architectures": ["OwnModel"], "auto_map": names}
    (to / "config.json").write_text(json.dumps(config))
    (to / "own_code.py").write_text(
        CODE.format(config=base.split("For")[0].removesuffix("Model") + "Config", model=base)
    )
    (to / "helper.py").write_text(f"import os\nos.mkdir({str(to / 'ran')!r})\nFACTOR = 2\n")
    return to


def test_code_of_a_repository_runs_only_where_it_is_trusted(
    tiny: TinyModels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    folder = with_code(tiny("llama_chat"), tmp_path / "own", "AutoModelForCausalLM", "LlamaForCausalLM")
    with TextGenerator(folder) as model, pytest.raises(UnsafeModelError, match=r"auto_map.*trust_remote_code=True"):
        model.load()
    assert not (folder / "ran").exists()
    with TextGenerator(folder, trust_remote_code=True) as model, TextGenerator(tiny("llama_chat")) as plain:
        assert model.generate("hello", GREEDY).text == plain.generate("hello", GREEDY).text
    assert (folder / "ran").exists()
    assert not (tmp_path / "home").exists()


def test_so_with_embedders(tiny: TinyModels, tmp_path: Path) -> None:
    folder = with_code(tiny("bert"), tmp_path / "own", "AutoModel", "BertModel")
    with TextEmbedder(folder, trust_remote_code=True) as model, TextEmbedder(tiny("bert")) as plain:
        assert abs(model.embed(["hello you"]).vectors - plain.embed(["hello you"]).vectors).max() < 1e-5


@pytest.mark.parametrize(
    "said", ["elsewhere/repo--code.Class", "../code.Class", "code", "a.b.C", "code.Class;x", 5, {"a": 1}]
)
def test_code_of_other_repositories_never_runs(said: object, tiny: TinyModels, tmp_path: Path) -> None:
    folder = tmp_path / "own"
    shutil.copytree(tiny("llama_chat"), folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModelForCausalLM": said}}))
    with TextGenerator(folder, trust_remote_code=True) as model, pytest.raises(UnsafeModelError, match="auto_map"):
        model.load()


@pytest.mark.parametrize("name", ["allow_pickle", "trust_remote_code"])
def test_servers_do_not_offer_it(name: str) -> None:
    with pytest.raises(OptionError, match=f"'{name}' is not an option of text-generation"):
        model_spec("a/model", pipeline="text-generation", options={name: "true"})


def test_who_opens_a_model_sees_how_far_its_files_are(tiny: TinyModels) -> None:
    folder = tiny("llama_chat")
    files = {("me/model", path.name): path.read_bytes() for path in folder.iterdir()}
    seen: dict[str, list[tuple[int, int | None]]] = {}
    with TextGenerator(
        "me/model", files=MemoryProvider(files), progress=lambda name, *step: seen.setdefault(name, []).append(step)
    ) as model:
        model.load()
    size = (folder / "model.safetensors").stat().st_size
    assert seen["model.safetensors"][-1] == (size, size)
    assert {"config.json", "tokenizer.json"} < set(seen)


@pytest.mark.parametrize("name", ["allow_pickle", "trust_remote_code", "progress"])
def test_trust_is_yes_or_no(name: str) -> None:
    with pytest.raises(OptionError, match=name):
        open_pipeline("fill-mask", Path("."), **{name: "yes"})  # type: ignore[call-overload]


def test_the_code_of_one_model_is_never_that_of_another_nor_of_the_programs_own(
    tiny: TinyModels, tmp_path: Path
) -> None:
    folders = [
        with_code(tiny("llama_chat"), tmp_path / name, "AutoModelForCausalLM", "LlamaForCausalLM")
        for name in ("a", "b")
    ]
    for number, folder in enumerate(folders):
        (folder / "helper.py").write_text(f"FACTOR = {number}\n")
    code = """
        import os, sys
        from pathlib import Path
        import transformers
        import tabml.text._torch.causal
        from tabml.text import TextGenerator

        def own(folder):
            return transformers.AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True).factor

        def ours(folder):
            with TextGenerator(Path(folder), trust_remote_code=True) as model:
                return model.load()._ready().engine._model.factor

        for calls in ((own, ours), (ours, own)):  # each in a process where nothing was loaded before
            if not os.fork():
                print([call(folder) for call in (*calls, *calls) for folder in sys.argv[1:]], flush=True)
                os._exit(0)
            os.wait()
    """
    env = {**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, folders)],
        capture_output=True, text=True, env=env, check=False,
    )  # fmt: skip
    assert ran.stdout.splitlines() == ["[0, 1, 0, 1, 0, 1, 0, 1]"] * 2, ran.stderr[-2000:]


def test_a_part_that_is_meant_is_all_of_them(tiny: TinyModels, tmp_path: Path) -> None:
    import transformers

    names = ("pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin")
    folder = pickled(tiny("llama_chat"), tmp_path / "pickled", *names)
    sharded = tmp_path / "sharded"
    shutil.copytree(tiny("llama_chat"), sharded, ignore=shutil.ignore_patterns("model.safetensors"))
    transformers.AutoModelForCausalLM.from_pretrained(tiny("llama_chat")).save_pretrained(
        sharded, max_shard_size="50KB"
    )
    part = sorted(sharded.glob("model-00001-of-*.safetensors"))[0]
    with TextGenerator(tiny("llama_chat")) as plain:
        expected = plain.generate("hello", GREEDY).text
    with TextGenerator(folder / names[1], allow_pickle=True) as one, TextGenerator(part) as other:
        assert one.generate("hello", GREEDY).text == other.generate("hello", GREEDY).text == expected


def test_of_several_pickled_files_the_usual_one_is_read_or_else_none(tiny: TinyModels, tmp_path: Path) -> None:
    folder = pickled(tiny("llama_chat"), tmp_path / "pickled", "pytorch_model.bin")
    for name in ("model.ckpt", "other.pt"):
        (folder / name).write_bytes(b"something else")
    with TextGenerator(folder, allow_pickle=True) as model:
        model.load()
    (folder / "pytorch_model.bin").unlink()
    said = r"model\.ckpt, other\.pt; give the path of the one"
    with TextGenerator(folder, allow_pickle=True) as model, pytest.raises(ModelFileNotFoundError, match=said):
        model.load()
