"""Files for LiteRT-LM that lie: a typed error, and the process lives."""

from __future__ import annotations

import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tabml.edge import LiteLM
from tabml.edge._lm.container import read_container
from tabml.errors import CorruptModelError, ModelError, ModelKindError, TabmlError, UnsafeModelError
from tabml.generation.options import GenerationOptions

MODELS = Path(__file__).parents[1] / "models" / "tiny-lm"
GOOD = (MODELS / "i8/model.litertlm").read_bytes()
SHORT = GenerationOptions(temperature=0, max_new_tokens=4)


def put(at: int, layout: str, value: int) -> Callable[[bytearray], None]:
    return lambda content: struct.pack_into(layout, content, at, value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (put(0, "<B", 0x4D), "no .litertlm file"),
        (put(8, "<I", 7), "version 7"),
        (put(24, "<Q", 1 << 60), "header ends at byte"),
        (put(24, "<Q", 8), "header ends at byte"),
        (put(32, "<I", 0xFFFFFFF0), "header"),
    ],
)
def test_a_header_that_lies_is_told_before_native_code_sees_it(
    tmp_path: Path, change: Callable[[bytearray], None], words: str
) -> None:
    content = bytearray(GOOD)
    change(content)
    path = tmp_path / "lying.litertlm"
    path.write_bytes(content)
    with pytest.raises(CorruptModelError, match=words):
        read_container(path, "lying")


def test_what_a_good_file_says() -> None:
    for name in ("i8/model.litertlm", "sp/model.litertlm", "task/model.task"):
        found = read_container(MODELS / name, name)
        assert found.context_length == 256
        assert found.template is not None
        assert (2,) in found.stop_tokens
        assert not found.takes_pictures
        assert not found.takes_sound
        assert sum(section.is_model for section in found.sections) == 1
    assert found.start_token == 1


@pytest.mark.parametrize("length", [0, 4, 31, 32, 400, 16_400, 60_000, 200_000, len(GOOD) - 1])
def test_a_file_that_is_cut_short_is_corrupt(tmp_path: Path, length: int) -> None:
    path = tmp_path / "cut.litertlm"
    path.write_bytes(GOOD[:length])
    with pytest.raises(ModelError), LiteLM(path) as model:
        model.load()


def test_a_bundle_is_looked_at_too(tmp_path: Path) -> None:
    content = (MODELS / "task/model.task").read_bytes()
    path = tmp_path / "cut.task"
    for length in (0, 10, len(content) // 2, len(content) - 30):
        path.write_bytes(content[:length])
        with pytest.raises(CorruptModelError, match=r"no \.task file"):
            LiteLM(path).load()
    lying = bytearray(content)
    entry = lying.rfind(b"TF_LITE_PREFILL_DECODE") - 46  # in the archive's list: APPNOTE.TXT 4.3.12
    struct.pack_into("<II", lying, entry + 20, 1 << 30, 1 << 30)
    path.write_bytes(lying)
    with pytest.raises(CorruptModelError, match=f"the file ends at {len(content)}"):
        LiteLM(path).load()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("TF_LITE_PREFILL_DECODE", bytes(1 << 20))
    with pytest.raises(CorruptModelError, match="compressed member"):
        LiteLM(path).load()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("TOKENIZER_MODEL", b"x")
    with pytest.raises(ModelKindError, match="TF_LITE_PREFILL_DECODE"):
        LiteLM(path).load()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in (("TF_LITE_PREFILL_DECODE", b"x"), ("TOKENIZER_MODEL", b"x"), ("METADATA", bytes(5 << 20))):
            archive.writestr(name, data)
    with pytest.raises(UnsafeModelError, match="metadata"):
        LiteLM(path).load()


def mutated(seed: int) -> bytes:
    """A file with a few bytes changed, half of them among the first, where the tables are."""
    chance = random.Random(seed)
    content = bytearray(GOOD)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(700) if chance.random() < 0.5 else chance.randrange(16_384, len(content))
        content[at] = chance.randrange(256)
    if chance.random() < 0.1:
        del content[chance.randrange(len(content)) :]
    return bytes(content)


def survives(path: Path, seeds: range) -> int:
    """How many of the mutated files are refused; the others answer."""
    refused = 0
    for seed in seeds:
        path.write_bytes(mutated(seed))
        try:
            with LiteLM(path, threads=1) as model:
                model.generate("hello world", SHORT)
        except TabmlError:
            refused += 1
    return refused


def test_mutated_files_are_refused_or_answer(tmp_path: Path) -> None:
    assert 5 < survives(tmp_path / "mutated.litertlm", range(30)) < 30


@pytest.mark.soak
def test_a_thousand_mutated_files_are_refused_or_answer(tmp_path: Path) -> None:
    assert 100 < survives(tmp_path / "mutated.litertlm", range(1000, 2000)) < 1000
