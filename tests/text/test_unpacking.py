"""GGUF files read once: what comes out is what transformers alone reads, and the libraries are left as they were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import pytest
import tiny_gguf
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, modeling_gguf_pytorch_utils

from tabml.text._torch.loading import quiet
from tabml.text._torch.unpacking import read_once


def load(path: Path) -> tuple[Any, Any]:
    where: Any = {"pretrained_model_name_or_path": path.parent, "gguf_file": path.name}
    with quiet():
        return AutoModelForCausalLM.from_pretrained(**where), AutoTokenizer.from_pretrained(**where)


def functions() -> tuple[Any, ...]:
    return gguf.GGUFReader, gguf.get_tensor_name_map, modeling_gguf_pytorch_utils.tqdm


def test_a_file_that_is_read_once_gives_what_transformers_reads(tmp_path: Path) -> None:
    before = functions()
    paths = [
        tiny_gguf.write(tmp_path / "long.gguf"),
        tiny_gguf.write(tmp_path / "short.gguf", **{"llama.context_length": 64}),
    ]
    expected = [load(path) for path in paths]
    with read_once():
        assert not set(functions()) & set(before)
        found = [load(path) for path in paths]
    assert functions() == before
    assert [model.config.max_position_embeddings for model, _ in found] == [128, 64]
    for (ours, our_tokenizer), (theirs, their_tokenizer) in zip(found, expected, strict=True):
        assert ours.config.to_dict() == theirs.config.to_dict()
        assert our_tokenizer.get_vocab() == their_tokenizer.get_vocab()
        mine, yours = ours.state_dict(), theirs.state_dict()
        assert mine.keys() == yours.keys()
        assert all(torch.equal(mine[name], yours[name]) for name in yours)


def test_a_file_that_is_none_leaves_the_libraries_as_they_were(tmp_path: Path) -> None:
    before = functions()
    (tmp_path / "no.gguf").write_bytes(bytes(64))
    with pytest.raises(ValueError, match="magic"), read_once():
        load(tmp_path / "no.gguf")
    assert functions() == before
