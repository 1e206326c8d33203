"""Files and configuration agree on every tensor: none is noise, of another model, or made up because a number says so."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tabml.errors import CorruptModelError, ModelKindError
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


def changed(folder: Path, to: Path, *, config: dict[str, Any] | None = None, extra: str = "", **tensor: Any) -> Path:
    """A copy with other values in ``config.json``, or with one tensor more or of another kind."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(folder, to)
    if config is not None:
        said = json.loads((folder / "config.json").read_text())
        (to / "config.json").write_text(json.dumps({**said, **config}))
    tensors = load_file(folder / "model.safetensors")
    if extra:
        tensors[extra] = torch.zeros(4)
    for name, dtype in tensor.items():
        tensors[name.replace("__", ".")] = tensors[name.replace("__", ".")].to(dtype)
    save_file(tensors, to / "model.safetensors", metadata={"format": "pt"})
    return to


@pytest.mark.parametrize(
    ("recipe", "task", "config"),
    [
        ("llama_chat", "text-generation", {"intermediate_size": 8_000_000}),
        ("llama_chat", "text-generation", {"head_dim": 1_000_000}),
        ("sentence_bert", "feature-extraction", {"intermediate_size": 8_000_000}),
        ("t5", "summarization", {"d_ff": 8_000_000}),
    ],
)
def test_sizes_that_the_tensors_have_not_are_told_before_anything_of_them_is_made(
    recipe: str, task: str, config: dict[str, Any], tiny: TinyModels, tmp_path: Path
) -> None:
    folder = changed(tiny(recipe), tmp_path / "wide", config=config)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CorruptModelError, match="another shape than its configuration says, such as"):
        open_pipeline(task, folder).load()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 512 << 10  # KiB; gigabytes before


@pytest.mark.parametrize("config", [{"num_labels": 1_000_000}, {"id2label": {str(at): "x" for at in range(70_000)}}])
def test_a_million_labels_are_refused_at_once(config: dict[str, Any], tiny: TinyModels, tmp_path: Path) -> None:
    with pytest.raises(CorruptModelError, match=r"65536"):
        open_pipeline("text-generation", changed(tiny("llama_chat"), tmp_path / "many", config=config)).load()


@pytest.mark.parametrize(
    ("recipe", "task", "extra", "is_refused"),
    [
        ("llama_chat", "text-generation", "model.layers.0.self_attn.q_proj.bias", True),
        ("llama_chat", "text-generation", "model.layers.2.input_layernorm.weight", True),
        ("llama_chat", "text-generation", "model.layers.0.self_attn.rotary_emb.inv_freq", False),
        ("gpt2", "text-generation", "transformer.h.0.attn.causal_mask", False),
        ("classifier", "text-classification", "loss_fct.weight", False),
        ("classifier", "text-classification", "cls.predictions.bias", False),
        ("classifier", "text-classification", "bert.encoder.layer.9.output.dense.bias", True),
        ("masked", "fill-mask", "bert.encoder.layer.7.output.dense.bias", True),
        ("masked", "fill-mask", "cls.seq_relationship.weight", False),
        ("masked", "fill-mask", "bert.pooler.dense.weight", False),
        ("masked", "feature-extraction", "cls.seq_relationship.weight", False),
        ("masked", "feature-extraction", "bert.encoder.layer.7.output.dense.bias", True),
        ("sentence_bert", "feature-extraction", "encoder.layer.7.output.dense.bias", True),
        ("sentence_bert", "feature-extraction", "classifier.weight", False),
    ],
)
def test_tensors_that_the_model_has_no_place_for_are_refused_but_for_heads_of_pre_training(
    recipe: str, task: str, extra: str, is_refused: bool, tiny: TinyModels, tmp_path: Path
) -> None:
    folder = changed(tiny(recipe), tmp_path / "more", extra=extra)
    with open_pipeline(task, folder) as model:
        if is_refused:
            with pytest.raises(CorruptModelError, match="1 tensors are not of the model"):
                model.load()
        else:
            model.load()


def test_whole_numbers_are_no_weights(tiny: TinyModels, tmp_path: Path) -> None:
    folder = changed(tiny("llama_chat"), tmp_path / "int", model__layers__0__mlp__up_proj__weight=torch.int8)
    with pytest.raises(CorruptModelError, match=r"up_proj.weight' is of I8, which are no weights"):
        open_pipeline("text-generation", folder).load()


@pytest.mark.parametrize("engine", ["torch", "llama.cpp"])
@pytest.mark.parametrize("count", [1, 10_000])
def test_a_gguf_file_has_as_many_layers_as_it_says(engine: str, count: int, tmp_path: Path) -> None:
    import tiny_gguf

    path = tiny_gguf.write(tmp_path / "deep.gguf", **{"llama.block_count": count})
    with pytest.raises(CorruptModelError, match=rf"block_count={count}, and there are tensors of 2 layers"):
        TextGenerator(path, engine=engine).load()


@pytest.mark.parametrize(
    ("recipe", "task", "shared", "kept"),
    [
        ("gpt2", "text-generation", "transformer.wte.weight", "lm_head.weight"),
        ("bart", "summarization", "model.shared.weight", "model.decoder.embed_tokens.weight"),
        ("bart", "summarization", "model.shared.weight", "lm_head.weight"),
        ("t5", "summarization", "shared.weight", "encoder.embed_tokens.weight"),
        ("marian", "translation", "model.shared.weight", "model.encoder.embed_tokens.weight"),
        ("masked", "fill-mask", "bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight"),
        ("masked", "fill-mask", "cls.predictions.bias", "cls.predictions.decoder.bias"),
    ],
)
def test_shared_tensors_may_be_kept_under_any_of_their_names(
    recipe: str, task: str, shared: str, kept: str, tiny: TinyModels, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    shutil.copytree(tiny(recipe), tmp_path / "renamed")
    tensors = load_file(tiny(recipe) / "model.safetensors")
    tensors[kept] = tensors.pop(shared)
    save_file(tensors, tmp_path / "renamed" / "model.safetensors")
    with open_pipeline(task, tmp_path / "renamed") as model:
        model.load()


def test_masks_of_truths_are_no_weights_and_pass(tiny: TinyModels, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    shutil.copytree(tiny("gpt2"), tmp_path / "masks")
    mask = torch.ones(3, 3, dtype=torch.bool)
    tensors = {**load_file(tiny("gpt2") / "model.safetensors"), "transformer.h.0.attn.causal_mask": mask}
    save_file(tensors, tmp_path / "masks" / "model.safetensors")
    with open_pipeline("text-generation", tmp_path / "masks") as model:
        model.load()


def test_what_other_threads_load_by_themselves_is_not_looked_at(tiny: TinyModels) -> None:
    code = """
        import sys, threading
        from pathlib import Path
        import transformers
        from tabml.errors import CorruptModelError
        from tabml.text import TextClassifier

        plain, ours = map(Path, sys.argv[1:])
        began, ended, told = threading.Event(), threading.Event(), []

        def load():
            while not ended.is_set():
                try:
                    transformers.AutoModelForSequenceClassification.from_pretrained(plain, num_labels=5)
                except CorruptModelError as problem:
                    told.append(problem)
                except Exception:  # two loads at once get in each other's way in transformers
                    pass
                began.set()

        thread = threading.Thread(target=load)
        thread.start()
        began.wait(60)
        for _ in range(8):
            try:
                TextClassifier(ours).load()
            except Exception:
                pass
        ended.set()
        thread.join()
        print(len(told))
    """  # in a process of its own: transformers is not the same afterwards
    arguments = [sys.executable, "-c", textwrap.dedent(code), str(tiny("bert")), str(tiny("classifier"))]
    ran = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert ran.stdout.strip() == "0", ran.stderr[-2000:]


def test_a_part_of_a_split_gguf_file_is_called_one(tmp_path: Path) -> None:
    import gguf

    path = tmp_path / "x-00001-of-00002.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(40)
    writer.add_uint16("split.count", 2)
    writer.add_tensor("blk.0.attn_q.weight", np.zeros((32, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with TextGenerator(path, engine="llama.cpp") as model, pytest.raises(ModelKindError, match="llama-gguf-split"):
        model.load()
