"""Vectors of texts: those of sentence-transformers, whatever the batches."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tabml.cancellation import Cancellation
from tabml.errors import (
    CallCancelledError,
    CorruptModelError,
    ModelClosedError,
    ModelKindError,
    ModelLoadError,
    OptionError,
    UnsafeModelError,
)
from tabml.text.embedding import TextEmbedder
from tabml.text.generation import TextGenerator

TEXTS = [
    "hello world, how are you today?",
    "the lazy dog",
    " a photo of a cat. ",
    "日本語 café ☃",
    "the quick brown fox jumps over the lazy dog " * 2,
    "",
    "NUL \0 and \x1b[31m control",
]
TinyModels = Callable[[str], Path]


def theirs(folder: Path, texts: list[str], **options: Any) -> np.ndarray[Any, Any]:
    """What sentence-transformers gives."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sentence_transformers import SentenceTransformer

        found: np.ndarray[Any, Any] = SentenceTransformer(str(folder), device="cpu").encode(
            texts, show_progress_bar=False, **options
        )
    return found


@pytest.fixture(scope="module")
def embedder(tiny: TinyModels) -> Iterator[TextEmbedder]:
    with TextEmbedder(tiny("sentence_bert")) as model:
        yield model


@pytest.mark.parametrize(
    ("recipe", "options"),
    [
        ("sentence_bert", {}),
        ("sentence_bert", {"prompt_name": "query"}),
        ("sentence_bert", {"prompt": "the fox: "}),
        ("sentence_inside", {}),
        ("sentence_dense", {}),
        ("sentence_dense", {"prompt": ""}),
        ("bert", {}),
        ("sentence_causal", {}),
        ("sentence_t5", {}),
    ],
)
def test_vectors_are_those_of_sentence_transformers(recipe: str, options: dict[str, str], tiny: TinyModels) -> None:
    folder = tiny(recipe)
    texts = [text for text in TEXTS if text or recipe != "sentence_causal"]
    with TextEmbedder(folder) as model:
        found = model.embed(texts, truncate=True, **options)
        wanted = theirs(folder, texts, **options)
        assert found.vectors.shape == wanted.shape == (len(texts), model.dimensions)
        np.testing.assert_allclose(found.vectors, wanted, atol=1e-5)
        assert found.vectors.dtype == np.float32
        assert not found.vectors.flags.writeable


def test_real_weights_give_the_same_vectors_and_make_sense(minilm: Path) -> None:
    texts = ["A cat sits on a mat.", "A kitten rests on a rug.", "Shares fell sharply."]
    texts += ["word " * count for count in range(1, 200, 13)]
    with TextEmbedder(minilm) as model:
        found = model.embed(texts)
        np.testing.assert_allclose(found.vectors, theirs(minilm, texts), atol=1e-5)
        cat, kitten, shares = found.vectors[:3]
        assert cat @ kitten > 0.5 > 0.2 > cat @ shares
        assert (model.dimensions, model.max_tokens) == (384, 256)


def test_no_texts_give_no_vectors(embedder: TextEmbedder) -> None:
    found = embedder.embed([])
    assert found.vectors.shape == (0, 32)
    assert found.prompt_tokens == 0
    assert embedder.embed([], dimensions=8).vectors.shape == (0, 8)


def test_a_text_has_the_same_vector_alone_and_among_others(embedder: TextEmbedder) -> None:
    together = embedder.embed(TEXTS)
    for at, text in enumerate(TEXTS):
        np.testing.assert_allclose(embedder.embed([text])[0], together[at], atol=1e-6)


def test_threads_get_their_own_vectors(embedder: TextEmbedder) -> None:
    wanted = {text: embedder.embed([text])[0] for text in TEXTS}

    def ask(at: int) -> None:
        mine = TEXTS[at % 3 :]
        for _ in range(5):
            for text, vector in zip(mine, embedder.embed(mine), strict=True):
                np.testing.assert_allclose(vector, wanted[text], atol=1e-6)

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(ask, range(12)))


def test_prompts_of_different_callers_do_not_mix(tiny: TinyModels) -> None:
    with TextEmbedder(tiny("sentence_dense")) as model:
        prompts = ["", "hello you: ", "the lazy dog jumps "]
        wanted = {prompt: model.embed(TEXTS[:2], prompt=prompt).vectors for prompt in prompts}

        def ask(prompt: str) -> None:
            for _ in range(10):
                np.testing.assert_allclose(model.embed(TEXTS[:2], prompt=prompt).vectors, wanted[prompt], atol=1e-5)

        with ThreadPoolExecutor(3) as threads:
            list(threads.map(ask, prompts))


def test_normalize_and_dimensions(embedder: TextEmbedder, tiny: TinyModels) -> None:
    text = TEXTS[:2]
    assert np.linalg.norm(embedder.embed(text).vectors, axis=1) == pytest.approx(1)
    assert np.linalg.norm(embedder.embed(text, normalize=False).vectors, axis=1) != pytest.approx(1)
    cut = embedder.embed(text, dimensions=8)
    assert cut.dimensions == 8
    wanted = theirs(tiny("sentence_bert"), text, truncate_dim=8, normalize_embeddings=True)
    np.testing.assert_allclose(cut.vectors, wanted, atol=1e-5)
    with TextEmbedder(tiny("sentence_dense"), truncate_dim=5) as model:
        assert model.dimensions == 5
        assert model.embed(text).vectors.shape == (2, 5)
        assert model.embed(text, dimensions=7).vectors.shape == (2, 7)
        assert np.linalg.norm(model.embed(text).vectors, axis=1) != pytest.approx(1)
    with TextEmbedder(tiny("bert"), truncate_dim=33) as model, pytest.raises(OptionError, match="truncate_dim=33"):
        model.embed(text)


def test_prompts_by_name(embedder: TextEmbedder) -> None:
    assert embedder.prompts["query"] == "query: "
    named = embedder.embed(["a cat"], prompt_name="query")
    np.testing.assert_array_equal(named.vectors, embedder.embed(["query: a cat"]).vectors)
    assert named.prompt_tokens > embedder.embed(["a cat"]).prompt_tokens
    with pytest.raises(OptionError, match="'query'"):
        embedder.embed(["a cat"], prompt_name="nothing")
    with pytest.raises(OptionError, match="don't go together"):
        embedder.embed(["a cat"], prompt_name="query", prompt="x")


def test_a_text_over_the_limit_is_refused_or_cut(embedder: TextEmbedder, tiny: TinyModels) -> None:
    long = "the quick brown fox " * 40
    with pytest.raises(OptionError, match=r"texts\[1\] has \d+ tokens; this model reads 32.*truncate=True"):
        embedder.embed(["short", long])
    cut = embedder.embed(["short", long], truncate=True)
    assert cut.prompt_tokens < 40
    np.testing.assert_allclose(cut.vectors, theirs(tiny("sentence_bert"), ["short", long]), atol=1e-5)


def test_control_tokens_in_a_text_are_text(embedder: TextEmbedder) -> None:
    plain = embedder.embed(["dog fox"]).prompt_tokens
    assert embedder.embed(["dog [SEP] fox"]).prompt_tokens > plain + 1


@pytest.mark.parametrize(
    "texts",
    ["one text", b"bytes", 5, None, [1], ["fine", None], ["half \ud800"], ["x" * (2 << 20)], ["é" * (600 << 10)]],
)
def test_what_is_no_list_of_texts_is_refused(texts: Any, embedder: TextEmbedder) -> None:
    with pytest.raises(OptionError, match="texts"):
        embedder.embed(texts)


@pytest.mark.parametrize(
    "options",
    [
        {"dimensions": 0},
        {"dimensions": 33},
        {"dimensions": True},
        {"dimensions": 2.5},
        {"prompt": 5},
        {"prompt": "\ud800"},
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], embedder: TextEmbedder) -> None:
    with pytest.raises(OptionError):
        embedder.embed(["a"], **options)


@pytest.mark.parametrize(
    "options", [{"truncate_dim": 0}, {"dtype": "int3"}, {"device": "toaster"}, {"quantization": "x"}]
)
def test_options_of_the_model_are_checked_before_anything_is_fetched(options: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(OptionError):
        TextEmbedder(tmp_path, **options)


def test_the_async_twin_gives_the_same(embedder: TextEmbedder) -> None:
    found = asyncio.run(embedder.embed_async(TEXTS, prompt_name="query", dimensions=5, truncate=True))
    wanted = embedder.embed(TEXTS, prompt_name="query", dimensions=5, truncate=True)
    np.testing.assert_allclose(found.vectors, wanted.vectors, atol=1e-6)
    assert found.to_dict()["prompt_tokens"] == wanted.prompt_tokens


def test_a_closed_model_says_so(tiny: TinyModels) -> None:
    before = threading.active_count()
    model = TextEmbedder(tiny("sentence_bert"))
    model.embed(["a"])
    model.close()
    model.close()
    assert threading.active_count() == before
    with pytest.raises(ModelClosedError):
        model.embed(["a"])


def test_a_cancelled_call_stops(embedder: TextEmbedder) -> None:
    cancellation = Cancellation()
    cancellation.cancel()
    with cancellation.bound(), pytest.raises(CallCancelledError):
        embedder.embed(["a"])


def copied(source: Path, target: Path) -> Path:
    shutil.copytree(source, target)
    return target


@pytest.mark.parametrize(
    ("recipe", "fits"),
    [("classifier", "text-classification"), ("gpt2", "text-generation"), ("t5", "translation"), ("masked", None)],
)
def test_a_model_of_another_kind_names_the_task_that_fits(recipe: str, fits: str | None, tiny: TinyModels) -> None:
    with TextEmbedder(tiny(recipe)) as model:
        if fits is None:
            assert model.embed(["a"]).dimensions == 32
            return
        with pytest.raises(ModelKindError, match=fits):
            model.load()


def test_an_architecture_that_is_not_meant_is_refused(tiny: TinyModels) -> None:
    with TextEmbedder(tiny("sentence_bert"), architecture="BertModel") as model:
        model.load()
    with TextEmbedder(tiny("sentence_bert"), architecture="llama") as model, pytest.raises(ModelKindError):
        model.load()


def _without_a_tensor(folder: Path, file: str) -> None:
    from safetensors.numpy import load_file, save_file

    weights = load_file(folder / file)
    weights.pop(sorted(key for key in weights if "pooler" not in key)[0])
    save_file(weights, folder / file, {"format": "pt"})


@pytest.mark.parametrize("file", ["model.safetensors", "2_Dense/model.safetensors"])
def test_missing_tensors_are_never_made_up(file: str, tiny: TinyModels, tmp_path: Path) -> None:
    folder = copied(tiny("sentence_dense"), tmp_path / "model")
    _without_a_tensor(folder, file)
    with TextEmbedder(folder) as model, pytest.raises(CorruptModelError):
        model.load()


def _change(path: Path, **values: Any) -> None:
    said = json.loads(path.read_text())
    path.write_text(json.dumps({**said, **values}))


@pytest.mark.parametrize(
    ("file", "values"),
    [
        ("2_Dense/config.json", {"activation_function": "os.system"}),
        ("2_Dense/config.json", {"activation_function": "torch.hub.load"}),
        ("2_Dense/config.json", {"in_features": 10**9}),
        ("2_Dense/config.json", {"out_features": "many"}),
        ("3_LayerNorm/config.json", {"dimension": -1}),
        ("1_Pooling/config.json", {"pooling_mode": "magic"}),
        ("1_Pooling/config.json", {"pooling_mode": ["mean"] * 1000}),
        ("1_Pooling/config.json", {"pooling_mode": []}),
        ("1_Pooling/config.json", {"pooling_mode": 5}),
        ("sentence_bert_config.json", {"max_seq_length": 0}),
        ("sentence_bert_config.json", {"max_seq_length": "x"}),
        ("sentence_bert_config.json", {"tokenizer_name_or_path": "/etc"}),
        ("sentence_bert_config.json", {"model_args": {"trust_remote_code": True}}),
        ("sentence_bert_config.json", {"model_args": 5}),
        ("config_sentence_transformers.json", {"prompts": ["a"]}),
    ],
)
def test_hostile_settings_are_refused(file: str, values: dict[str, Any], tiny: TinyModels, tmp_path: Path) -> None:
    folder = copied(tiny("sentence_dense"), tmp_path / "model")
    _change(folder / file, **values)
    with (
        TextEmbedder(folder) as model,
        pytest.raises((UnsafeModelError, CorruptModelError, ModelKindError, ModelLoadError)),
    ):
        model.load()


def test_a_pooling_without_its_configuration_is_not_the_mean(tiny: TinyModels, tmp_path: Path) -> None:
    folder = copied(tiny("sentence_bert"), tmp_path / "model")
    for content in (None, "[]", "null"):
        if content is None:
            (folder / "1_Pooling/config.json").unlink()
        else:
            (folder / "1_Pooling/config.json").write_text(content)
        with TextEmbedder(folder) as model, pytest.raises(CorruptModelError, match=r"model/1_Pooling/config\.json"):
            model.load()


def test_pickled_layers_behind_the_pooling_are_refused_and_read_where_they_are_allowed(
    tiny: TinyModels, tmp_path: Path
) -> None:
    import torch
    from safetensors.torch import load_file

    folder = copied(tiny("sentence_dense"), tmp_path / "model")
    weights = folder / "2_Dense" / "model.safetensors"
    torch.save(load_file(weights), folder / "2_Dense" / "pytorch_model.bin")
    weights.unlink()
    with TextEmbedder(folder) as model, pytest.raises(UnsafeModelError, match=r"2_Dense/pytorch_model\.bin"):
        model.load()
    with TextEmbedder(folder, allow_pickle=True) as model, TextEmbedder(tiny("sentence_dense")) as plain:
        assert (model.embed(["hello"]).vectors == plain.embed(["hello"]).vectors).all()


def test_a_file_that_is_no_text_model_is_told_at_once(tmp_path: Path) -> None:
    for name in ("README.md", "model.litertlm", "model.tflite"):
        (tmp_path / name).write_text("#")
        for kind in (TextEmbedder, TextGenerator):
            with pytest.raises(ModelKindError, match="give a folder in the layout of transformers"):
                kind(tmp_path / name)


def test_bfloat16_is_close(minilm: Path) -> None:
    texts = ["A cat sits on a mat.", "Shares fell sharply.", "word " * 100]
    with TextEmbedder(minilm) as exact, TextEmbedder(minilm, dtype="bfloat16") as rough:
        cosines = (exact.embed(texts).vectors * rough.embed(texts).vectors).sum(1)
    assert cosines.min() > 0.99


def test_the_folder_of_a_model_inside_is_checked_as_the_main_one(tiny: TinyModels, tmp_path: Path) -> None:
    folder = copied(tiny("sentence_inside"), tmp_path / "model")
    with TextEmbedder(folder) as model:
        assert (model.max_tokens, model.dimensions) == (20, 16)
    _change(folder / "0_Transformer/config.json", auto_map={"AutoModel": "evil.Model"})
    with TextEmbedder(folder) as model, pytest.raises(UnsafeModelError, match=r"model/0_Transformer/config\.json"):
        model.load()
    for path in ("../sentence_inside", "/etc", "0_Transformer/.."):
        listed = json.loads((folder / "modules.json").read_text())
        listed[0]["path"] = path
        (folder / "modules.json").write_text(json.dumps(listed))
        with TextEmbedder(folder) as model, pytest.raises(UnsafeModelError, match=r"modules\.json"):
            model.load()


def test_a_text_without_tokens_is_refused(tiny: TinyModels) -> None:
    with TextEmbedder(tiny("sentence_causal")) as model, pytest.raises(OptionError, match=r"texts\[1\] has no tokens"):
        model.embed(["a", ""])


def test_a_gguf_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF")
    with TextEmbedder(path) as model, pytest.raises(ModelKindError, match="text-generation"):
        model.load()


MODULES = "embedding ranking classification entities questions masks translation summarization tokenizer"


def test_importing_the_models_imports_no_heavy_library(run_python: Callable[..., Any]) -> None:
    done = run_python(
        """
        import importlib, sys
        for name in sys.argv[1:]:
            importlib.import_module(f"tabml.text.{name}")
        print(sorted({"torch", "transformers", "tokenizers", "sentence_transformers"} & set(sys.modules)))
        """,
        *MODULES.split(),
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_without_torch_the_error_names_what_to_install(run_python: Callable[..., Any], tiny: TinyModels) -> None:
    done = run_python(
        """
        import sys
        from pathlib import Path
        sys.modules["torch"] = None
        from tabml.errors import MissingExtraError
        from tabml.text.embedding import TextEmbedder
        try:
            TextEmbedder(Path(sys.argv[1])).load()
        except MissingExtraError as problem:
            print(problem)
        """,
        tiny("bert"),
    )
    assert done.stdout.strip() == "torch is not installed; run: python -m pip install 'tabml[text]'", done.stderr


def test_embedding_does_not_need_sentence_transformers(run_python: Callable[..., Any], tiny: TinyModels) -> None:
    done = run_python(
        """
        import sys
        from pathlib import Path
        from tabml.text.embedding import TextEmbedder
        with TextEmbedder(Path(sys.argv[1])) as model:
            print(model.embed(["a"]).vectors.shape, "sentence_transformers" in sys.modules)
        """,
        tiny("sentence_dense"),
    )
    assert done.stdout.strip() == "(1, 24) False", done.stderr
    assert not done.stderr
