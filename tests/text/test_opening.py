"""Where a model is: any folder whatever it is called, links, the hub's cache; who waits for a load, and who ends it."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tabml.cancellation import Cancellation
from tabml.errors import (
    CallCancelledError,
    ModelClosedError,
    ModelFileNotFoundError,
    ModelLoadError,
    OptionError,
)
from tabml.files import DirectoryProvider, FileInfo, FileRef, FileStream
from tabml.pipelines import open_pipeline
from tabml.text import TextGenerator, Tokenizer

TinyModels = Callable[[str], Path]


@pytest.mark.parametrize("name", ["a:b", "back\\slash", "tab\there", "...", "-x", " ", "ümlaut", "x" * 200])
def test_a_folder_may_have_any_name(name: str, tiny: TinyModels, tmp_path: Path) -> None:
    shutil.copytree(tiny("llama_chat"), tmp_path / name)
    with Tokenizer(tmp_path / name) as model:
        assert model.count("hello")


def test_a_folder_may_be_the_one_that_one_is_in(
    tiny: TinyModels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny("llama_chat"))
    for path in (Path("."), Path(".."), tmp_path / "link" / ".."):
        if path == Path("."):
            with Tokenizer(path) as model:
                assert model.count("hello")
        else:
            with pytest.raises(ModelFileNotFoundError):
                Tokenizer(path).load()


def test_a_link_to_a_folder_or_a_file_is_followed(tiny: TinyModels, tmp_path: Path) -> None:
    import tiny_gguf

    (tmp_path / "link").symlink_to(tiny("llama_chat"))
    with Tokenizer(tmp_path / "link") as model:
        assert model.count("hello")
    (tmp_path / "elsewhere").mkdir()
    tiny_gguf.write(tmp_path / "elsewhere" / "model.gguf")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "link.gguf").symlink_to(tmp_path / "elsewhere" / "model.gguf")
    with TextGenerator(tmp_path / "here" / "link.gguf", engine="torch") as generator:
        assert generator.count_tokens("hello")


def test_a_snapshot_of_the_hubs_cache_is_opened(tiny: TinyModels, tmp_path: Path) -> None:
    cached = tmp_path / "models--me--tiny"
    (cached / "blobs").mkdir(parents=True)
    snapshot = cached / "snapshots" / "0123abcd"
    snapshot.mkdir(parents=True)
    for path in tiny("llama_chat").iterdir():
        blob = cached / "blobs" / f"{abs(hash(path.name)):x}"
        shutil.copy(path, blob)
        (snapshot / path.name).symlink_to(os.path.relpath(blob, snapshot))
    with TextGenerator(snapshot) as model, Tokenizer(snapshot / "config.json") as tokenizer:
        model.load()
        assert tokenizer.count("hello") == model.count_tokens("hello")


def test_links_that_leave_a_folder_are_not_followed(tiny: TinyModels, tmp_path: Path) -> None:
    folder = tmp_path / "models" / "tiny"
    shutil.copytree(tiny("llama_chat"), folder)
    (folder / "config.json").rename(tmp_path / "secret.json")
    (folder / "config.json").symlink_to(tmp_path / "secret.json")
    with Tokenizer(folder) as model, pytest.raises(ModelFileNotFoundError, match=r"config\.json"):
        model.load()


@pytest.mark.parametrize("path", ["zero\0byte", "x" * 5000, "no/such/folder"])
def test_paths_that_are_none_are_told(path: str) -> None:
    with pytest.raises(ModelFileNotFoundError, match="model="):
        Tokenizer(Path(path))


@pytest.mark.parametrize("files", ["hub:", 5, Path(".")])
def test_files_must_be_a_provider(files: object) -> None:
    with pytest.raises(OptionError, match=r"files=.* must be a FileProvider; open_provider\('hub:'\) gives one"):
        open_pipeline("tokenization", "me/model", files=files)  # type: ignore[call-overload]


def test_a_device_has_a_number_of_few_digits() -> None:
    with pytest.raises(OptionError, match="device="):
        Tokenizer(Path("."), device="cuda:99999999999999999999")


class Stalling:
    """A provider whose weights never come: the edge of the world."""

    def __init__(self, folder: Path) -> None:
        self._inner = DirectoryProvider(folder.parent)
        self.asked = threading.Event()

    def open(self, ref: FileRef) -> FileStream:
        if not ref.path.endswith(".safetensors"):
            return self._inner.open(ref)
        ended = threading.Event()

        def chunks() -> Iterator[bytes]:
            self.asked.set()
            while not ended.wait(0.05):
                yield b""
            yield b""

        return FileStream(chunks(), cancel=ended.set)

    def list(self, repo: str, revision: str | None = None) -> Sequence[FileInfo]:
        return self._inner.list(repo, revision)


def test_who_waits_for_the_load_of_another_can_be_cancelled_alone(tiny: TinyModels) -> None:
    provider = Stalling(tiny("llama_chat"))
    told: list[BaseException] = []

    def load(cancellation: Cancellation) -> None:
        try:
            with cancellation.bound():
                model.load()
        except CallCancelledError as problem:
            told.append(problem)

    with TextGenerator(tiny("llama_chat").name, files=provider) as model:
        first, second = Cancellation(), Cancellation()
        threads = [threading.Thread(target=load, args=(each,)) for each in (first, second)]
        threads[0].start()
        assert provider.asked.wait(20)
        threads[1].start()
        second.cancel("enough")
        threads[1].join(20)
        assert not threads[1].is_alive()
        assert str(told[0]) == "enough"
        assert threads[0].is_alive()
        first.cancel()
        threads[0].join(20)
        assert len(told) == 2


def test_a_close_gives_up_the_load_that_runs(tiny: TinyModels) -> None:
    provider = Stalling(tiny("llama_chat"))
    model = TextGenerator(tiny("llama_chat").name, files=provider)
    told: list[BaseException] = []

    def load() -> None:
        try:
            model.load()
        except ModelClosedError as problem:
            told.append(problem)

    thread = threading.Thread(target=load)
    thread.start()
    assert provider.asked.wait(20)
    model.close()
    thread.join(20)
    assert not thread.is_alive()
    assert len(told) == 1


def test_whatever_a_file_does_to_a_library_is_typed(
    tiny: TinyModels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise ZeroDivisionError("deep inside")

    monkeypatch.setattr("tabml.text._torch.causal._end_ids", fails)
    with TextGenerator(tiny("llama_chat")) as model, pytest.raises(ModelLoadError, match="ZeroDivisionError: deep"):
        model.load()


@pytest.mark.parametrize(
    ("recipe", "task", "unasked"),
    [
        ("llama_chat", "text-generation", {"source.spm", "vocab.txt", "merges.txt", "tokenizer.model", "modules.json"}),
        ("marian", "translation", {"vocab.txt", "merges.txt", "tokenizer.model", "spiece.model"}),
    ],
)
def test_only_the_files_that_the_type_of_model_needs_are_asked_for(
    recipe: str, task: str, unasked: set[str], tiny: TinyModels
) -> None:
    asked: set[str] = set()

    class Asked:
        inner = DirectoryProvider(tiny(recipe).parent)

        def open(self, ref: FileRef) -> FileStream:
            asked.add(ref.path)
            return self.inner.open(ref)

        def list(self, repo: str, revision: str | None = None) -> Sequence[FileInfo]:
            return self.inner.list(repo, revision)

    with open_pipeline(task, tiny(recipe).name, files=Asked()) as model:
        model.load()
    assert {path.name for path in tiny(recipe).iterdir()} <= asked
    assert not asked & unasked
    assert len(asked) <= 14


def test_a_tokenizer_that_never_reads_its_json_gets_its_vocabulary(tiny: TinyModels, tmp_path: Path) -> None:
    shutil.copytree(tiny("masked"), tmp_path / "model")
    letters = ["<cls>", "<pad>", "<eos>", "<unk>", *"ACDEFGHIKLMNPQRSTVWY", "<mask>"]
    (tmp_path / "model" / "vocab.txt").write_text("\n".join(letters))
    (tmp_path / "model" / "tokenizer_config.json").write_text('{"tokenizer_class": "EsmTokenizer"}')
    with Tokenizer(tmp_path / "model") as model:
        assert model.encode("M K T", special_tokens=False).tokens == ("M", "K", "T")


def test_the_table_of_such_tokenizers_is_that_of_transformers() -> None:
    from transformers import TokenizersBackend
    from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES, tokenizer_class_from_name

    from tabml.text.repository import _OWN_VOCABULARIES

    others = {
        "clvp",
        "dia",
        "mgpstr",
        "rag",
        "siglip",
        "speech2text",
        "speecht5",
        "vits",
        "wav2vec2ctc",
        "wav2vec2phonemectc",
    }
    seen = set()
    for name in set(filter(None, TOKENIZER_MAPPING_NAMES.values())):
        kind = tokenizer_class_from_name(name)
        if kind is None or issubclass(kind, TokenizersBackend):
            continue
        short = name.removesuffix("Tokenizer").lower()
        seen.add(short)
        if short not in others:
            wanted = set((getattr(kind, "vocab_files_names", None) or {}).values())
            assert wanted - {"tokenizer_config.json", "tokenizer.json"} == set(_OWN_VOCABULARIES[short]), name
    assert set(_OWN_VOCABULARIES) <= seen
