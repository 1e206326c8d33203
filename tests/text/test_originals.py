"""Weights whose memory is given back while they are packed: nothing that is still used may go."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from tabml.files import DirectoryProvider, FileInfo, FileRef, FileStream, HeldFiles, ResidentFiles
from tabml.text import GenerationOptions, TextGenerator
from tabml.text._torch.originals import Originals
from tabml.text._torch.packing import pack

GREEDY = GenerationOptions(temperature=0, max_new_tokens=8, min_new_tokens=8)
PROMPT = "w1 w2 w3"


class Bytes:
    """A folder's files without their paths."""

    def __init__(self, root: Path) -> None:
        self._folder = DirectoryProvider(root)

    def open(self, ref: FileRef) -> FileStream:
        return self._folder.open(ref)

    def list(self, repo: str, revision: str | None = None) -> Any:
        found: list[FileInfo] = list(self._folder.list(repo, revision))
        return found


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose layers are large enough to be packed, in five shards."""
    from tabml.bench.peers import random_llama

    folder = tmp_path_factory.mktemp("root")
    random_llama(folder / "model", 1 << 22, 2)
    return folder


@pytest.mark.parametrize(
    "said", [{}, {"dtype": "bfloat16"}, {"dtype": "float16"}, {"quantization": "int8"}, {"quantization": "int4"}]
)
def test_a_model_from_memory_answers_as_one_from_a_folder(root: Path, said: dict[str, Any]) -> None:
    with TextGenerator(root / "model", **said) as local, TextGenerator("model", files=Bytes(root), **said) as fetched:
        assert fetched.generate(PROMPT, GREEDY).choices == local.generate(PROMPT, GREEDY).choices
        assert local.generate(PROMPT, GREEDY).usage.completion_tokens == 8


def test_files_that_another_model_has_too_stay_whole(root: Path) -> None:
    resident = ResidentFiles(Bytes(root))
    names = [path.name for path in (root / "model").glob("*.safetensors")]
    assert len(names) > 3
    with HeldFiles(resident) as other:
        kept = {name: other.hold(FileRef("model", name)) for name in names}
        with TextGenerator("model", files=HeldFiles(resident)) as model:
            model.generate(PROMPT, GREEDY)
            for name, file in kept.items():
                assert bytes(file.view()) == (root / "model" / name).read_bytes()


def test_two_models_over_the_same_held_files_are_both_right(root: Path) -> None:
    held = HeldFiles(ResidentFiles(Bytes(root)))
    with TextGenerator("model", files=held).load() as first, TextGenerator("model", files=held) as second:
        assert second.generate(PROMPT, GREEDY).choices == first.generate(PROMPT, GREEDY).choices


def test_no_more_than_two_shards_are_on_their_way(root: Path) -> None:
    running, most, opened = [0], [0], []

    class Counted(Bytes):
        def open(self, ref: FileRef) -> FileStream:
            if ref.path.endswith(".safetensors"):
                opened.append(ref.path)
                running[0] += 1
                most[0] = max(most[0], running[0])
                time.sleep(0.05)
                running[0] -= 1
            return super().open(ref)

    with TextGenerator("model", files=Counted(root)) as model:
        model.load()
    assert len(opened) == len(list((root / "model").glob("*.safetensors")))
    assert most[0] <= 2


def test_a_load_from_memory_needs_the_weights_once(run_python: Callable[..., Any], tmp_path: Path) -> None:
    from tabml.bench.peers import random_llama

    size = random_llama(tmp_path / "model", 200_000_000, 4)
    ended = run_python(
        """
        import sys
        from pathlib import Path
        from tabml.bench.load import Streamed, first_token, measured
        from tabml.text import TextGenerator
        root = Path(sys.argv[1])
        for files, model in ((None, root / "model"), (Streamed(root), "model")):
            print(int(measured(lambda: first_token(TextGenerator(model, files=files)))["bytes"]))
        """,
        tmp_path,
    )
    for peak in map(int, ended.stdout.split()):
        assert 0.9 * size < peak < 1.5 * size, ended.stderr
    assert len(ended.stdout.split()) == 2, ended.stderr


def test_only_what_nobody_uses_any_more_is_dropped(tmp_path: Path) -> None:
    side = 64
    size = side * side * 4
    names = ("tied", "viewed", "kept", "alone")
    (tmp_path / "weights").write_bytes(torch.randn(len(names) * side, side).numpy().tobytes())
    mapped = torch.from_file(str(tmp_path / "weights"), shared=True, size=len(names) * side * side).view(-1, side, side)
    model = nn.Sequential()
    for at, name in enumerate(names):
        model.add_module(name, nn.Linear(side, side, bias=False))
        model.get_submodule(name).weight = nn.Parameter(mapped[at], requires_grad=False)
    model.register_module("embedding", nn.Embedding(side, side))
    model.get_submodule("embedding").weight = model.get_submodule("tied").weight
    model.register_buffer("part", mapped[1, 10:12])
    kept = model.get_submodule("kept").weight
    before = mapped.clone()
    dropped: list[tuple[int, int]] = []
    file = SimpleNamespace(
        inode=(tmp_path / "weights").stat().st_ino, drop=lambda begin, end: dropped.append((begin, end))
    )
    assert pack(model, None, Originals(model, [file])) == len(names)  # type: ignore[list-item]
    assert dropped == [(3 * size, 4 * size)]
    assert torch.equal(mapped, before)
    assert torch.equal(kept, before[2])
