"""Tensors that a model's files have not are never noise: the load is refused, unless they are those of another one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tabml.errors import CorruptModelError
from tabml.pipelines import open_pipeline
from tabml.text import TextGenerator

TinyModels = Callable[[str], Path]


def copied(folder: Path, to: Path, without: str, *, tied: bool) -> Path:
    from safetensors.torch import load_file, save_file

    to.mkdir()
    for path in folder.iterdir():
        if path.name not in ("model.safetensors", "config.json") and path.is_file():
            (to / path.name).write_bytes(path.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    (to / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": tied}))
    tensors = load_file(folder / "model.safetensors")
    tensors.pop(without, None)
    save_file(tensors, to / "model.safetensors", metadata={"format": "pt"})
    return to


@pytest.mark.parametrize(
    ("recipe", "task", "tensor"),
    [
        ("llama_chat", "text-generation", "lm_head.weight"),
        ("gpt2", "text-generation", "lm_head.weight"),
        ("masked", "fill-mask", "cls.predictions.decoder.weight"),
        ("marian", "translation", "lm_head.weight"),
    ],
)
def test_an_output_layer_may_be_missing_where_it_is_the_embeddings_alone(
    recipe: str, task: str, tensor: str, tiny: TinyModels, tmp_path: Path
) -> None:
    with open_pipeline(task, copied(tiny(recipe), tmp_path / "tied", tensor, tied=True)) as model:
        model.load()
    with pytest.raises(CorruptModelError, match="tensors are missing"):
        open_pipeline(task, copied(tiny(recipe), tmp_path / "apart", tensor, tied=False)).load()


@pytest.mark.parametrize(
    "tensor", ["token_embd.weight", "blk.1.ffn_up.weight", "blk.0.attn_q.weight", "output_norm.weight"]
)
def test_so_are_those_of_a_gguf_file(tensor: str, tmp_path: Path) -> None:
    import tiny_gguf

    with TextGenerator(tiny_gguf.write(tmp_path / "whole.gguf"), engine="torch") as model:
        model.load()
    with pytest.raises(CorruptModelError, match="tensors are missing"):
        TextGenerator(tiny_gguf.write(tmp_path / "part.gguf", without=tensor), engine="torch").load()
