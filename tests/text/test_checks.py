"""Repositories that are broken or mean harm: told in one line before a library reads them."""

from __future__ import annotations

import base64
import json
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabml.errors import CorruptModelError, UnsafeModelError
from tabml.text import checks
from tabml.text.checks import gguf_header

GOOD = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "num_hidden_layers": 2, "hidden_size": 32,
        "vocab_size": 300, "pad_token_id": -1, "sliding_window": None, "rope_parameters": {"rope_theta": 1e4},
        "tie_word_embeddings": True, "n_inner": None, "attn_implementation": "sdpa"}  # fmt: skip
CONFIGS: list[tuple[Any, type[Exception]]] = [
    ([], CorruptModelError),
    (None, CorruptModelError),
    ({**GOOD, "num_hidden_layers": 10**9}, CorruptModelError),
    ({**GOOD, "n_layer": -1}, CorruptModelError),
    ({**GOOD, "hidden_size": 0}, CorruptModelError),
    ({**GOOD, "vocab_size": 1 << 40}, CorruptModelError),
    ({**GOOD, "vocab_size": 2.5}, CorruptModelError),
    ({**GOOD, "text_config": {"num_attention_heads": 10**7}}, CorruptModelError),
    ({**GOOD, "layer_norm_eps": float("inf")}, CorruptModelError),
    ({**GOOD, "some": 1 << 70}, CorruptModelError),
    ({**GOOD, "model_type": "../../x"}, CorruptModelError),
    ({**GOOD, "architectures": ["os.system"]}, CorruptModelError),
    ({**GOOD, "architectures": "LlamaForCausalLM"}, CorruptModelError),
    ({**GOOD, "auto_map": {"AutoModel": "x.Y"}}, UnsafeModelError),
    ({**GOOD, "vision_config": {"auto_map": {"AutoModel": "x.Y"}}}, UnsafeModelError),
    ({**GOOD, "_attn_implementation": "kernels-community/flash"}, UnsafeModelError),
    ({**GOOD, "text_config": {"_attn_implementation_internal": "org/code"}}, UnsafeModelError),
    ({**GOOD, "quantization_config": {"quant_method": "x"}}, UnsafeModelError),
    ({**GOOD, "text_config": {"quantization_config": {"quant_method": "x"}}}, UnsafeModelError),
    ({**GOOD, "parts": [{"auto_map": {"AutoModel": "x.Y"}}]}, UnsafeModelError),
    ({**GOOD, "parts": [[{"_attn_implementation": "org/code"}]]}, UnsafeModelError),
    ({**GOOD, "attn_implementation": {"text_config": "org/code"}}, UnsafeModelError),
    ({**GOOD, "transformers_weights": "../elsewhere.bin"}, UnsafeModelError),
    ({**GOOD, "num_local_experts": 10**9}, CorruptModelError),
    ({**GOOD, "depths": [2, 10**9]}, CorruptModelError),
    ({**GOOD, "hidden_sizes": [10**12]}, CorruptModelError),
    ({**GOOD, "num_hidden_layers": "2"}, CorruptModelError),
    ({**GOOD, "num_hidden_layers": True}, CorruptModelError),
    ({**GOOD, "some": [float("nan")]}, CorruptModelError),
    ({**GOOD, "text_config": {"model_type": "../x"}}, CorruptModelError),
    ({**GOOD, "my\nexperts": 10**9}, CorruptModelError),
    ({**GOOD, "eos_token_id": "abc"}, CorruptModelError),
    ({**GOOD, "eos_token_id": [[1], [None]]}, CorruptModelError),
    ({**GOOD, "pad_token_id": {}}, CorruptModelError),
    ({**GOOD, "sliding_window": "x"}, CorruptModelError),
    ({**GOOD, "sliding_window": ["1"]}, CorruptModelError),
    ({**GOOD, "return_dict": "no"}, CorruptModelError),
    ({**GOOD, "use_cache": 2}, CorruptModelError),
    ({**GOOD, "output_hidden_states": "x"}, CorruptModelError),
    ({**GOOD, "num_labels": 1_000_000}, CorruptModelError),
    ({**GOOD, "deep": json.loads("[" * 40 + "]" * 40)}, CorruptModelError),
    ({**GOOD, "deep": json.loads('{"a":' * 40 + "1" + "}" * 40)}, CorruptModelError),
]


@pytest.mark.parametrize(("config", "kind"), CONFIGS, ids=lambda each: repr(each)[-60:])
def test_a_configuration_that_would_hurt_is_refused(config: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind, match=r"repo/config\.json") as caught:
        checks.check_config(config, "repo")
    assert "\n" not in str(caught.value)


def test_usual_configurations_pass(tiny: Callable[[str], Path]) -> None:
    assert checks.check_config(GOOD, "repo") == GOOD
    for name in ("llama_chat", "gpt2", "code_fim", "bert", "sentence_bert", "t5", "marian", "nllb", "bart",
                 "inference_deberta", "causal_reranker"):  # fmt: skip
        folder = tiny(name)
        for check, file in (
            (checks.check_config, "config.json"),
            (checks.check_generation_config, "generation_config.json"),
            (checks.check_tokenizer_config, "tokenizer_config.json"),
        ):
            if (folder / file).is_file():
                check(json.loads((folder / file).read_text()), name)
        if (folder / "tokenizer.json").is_file():
            checks.check_tokenizer((folder / "tokenizer.json").read_bytes(), name)
        checks.check_safetensors(folder / "model.safetensors", name)
    assert checks.check_modules(json.loads((tiny("sentence_bert") / "modules.json").read_text()), "r") != []


@pytest.mark.parametrize(
    "part",
    [{"num_kv_shared_layers": 0}, {"num_nextn_predict_layers": 0}, {"num_experts": 0}, {"scale_depth": 1.4},
     {"head_dim": None}, {"max_relative_positions": -1}, {"mlp_only_layers": []}, {"intermediate_size": [64, 128]},
     {"layerdrop": 0.0}, {"use_heads": False}, {"max_position_embeddings": 10_485_760}, {"num_labels": 0},
     {"eos_token_id": [[1, 2], 3]}, {"pad_token_id": -1}, {"sliding_window": None}, {"return_dict": False}, {"use_cache": 1},
     {"pad_token_id": -100}, {"sliding_window": [512, None]},
     {"text_config": {"model_type": ""}}, {"_name_or_path": "/home/someone/model"}],
    ids=repr,
)  # fmt: skip
def test_numbers_that_say_none_pass(part: dict[str, Any]) -> None:
    checks.check_config({**GOOD, **part}, "repo")


def test_the_defaults_of_every_architecture_pass() -> None:
    from transformers import AutoConfig

    for kind in ("llama", "mistral", "mixtral", "qwen2", "qwen3", "qwen3_moe", "gemma3_text", "gemma4_text", "phi3",
                 "gpt2", "gpt_neox", "mpt", "falcon", "bloom", "opt", "minicpm3", "nemotron_h", "deepseek_v3", "bert",
                 "roberta", "xlm-roberta", "deberta-v2", "modernbert", "distilbert", "electra", "mpnet", "albert",
                 "t5", "mt5", "bart", "mbart", "marian", "m2m_100", "pegasus", "led", "longformer"):  # fmt: skip
        config = json.loads(AutoConfig.for_model(kind).to_json_string(use_diff=False))
        assert checks.check_config(config, kind)["model_type"] == kind


@pytest.mark.parametrize(
    "config",
    [{"tokenizer_class": "a.b"}, {"vocab_file": ["/etc/passwd"]}, {"merges_file": 5}, {"auto_map": {"AutoTokenizer": ["x.Y", None]}}, {"vocab_file": "../../etc/passwd"},
     {"tokenizer_file": "/etc/passwd"}, {"added_tokens_decoder": []}, "text", {"vocab": "/etc/passwd"}, {"merges": "/dev/zero"},
     {"tokenizer_object": {}}, {"tokenizer_class": "AutoModel"}, {"tokenizer_class": "AutoTokenizer"}, {"tokenizer_class": "LlamaModel"},
     {"model_max_length": "x"}, {"model_max_length": True},
     {"added_tokens_decoder": {str(at): {"content": f"<{at}>"} for at in range(40_000)}}],
    ids=lambda each: repr(each)[:60],
)  # fmt: skip
def test_a_tokenizer_configuration_cannot_lead_elsewhere(config: Any) -> None:
    with pytest.raises((CorruptModelError, UnsafeModelError)):
        checks.check_tokenizer_config(config, "repo")


def test_a_generation_configuration_cannot_bring_code() -> None:
    checks.check_generation_config(None, "repo")
    checks.check_generation_config({"eos_token_id": [1, 2]}, "repo")
    for bad in ({"custom_generate": "x"}, {"max_length": 1 << 80}, [], {"eos_token_id": ["x"]}):
        with pytest.raises((CorruptModelError, UnsafeModelError)):
            checks.check_generation_config(bad, "repo")


@pytest.mark.parametrize(
    "kind", ["os.system", "torch.nn.Linear", "sentence_transformersx.A", "sentence_transformers", 5]
)
def test_modules_are_of_one_package(kind: Any) -> None:
    with pytest.raises(UnsafeModelError):
        checks.check_modules([{"type": kind, "path": ""}], "repo")


def test_modules_stay_in_the_repository() -> None:
    kind = "sentence_transformers.models.Pooling"
    assert checks.check_modules([{"type": kind, "path": "1_Pooling"}, {"type": kind, "path": ""}], "r") == ["1_Pooling"]
    for path in ("../x", "/etc", "a/../../b", "x\0y"):
        with pytest.raises(UnsafeModelError):
            checks.check_modules([{"type": kind, "path": path}], "r")
    with pytest.raises(CorruptModelError):
        checks.check_modules({}, "r")


def test_an_index_names_files_beside_it() -> None:
    found = checks.check_index({"weight_map": {"b": "2.safetensors", "a": "1.safetensors", "c": "1.safetensors"}}, "r")
    assert found == ["1.safetensors", "2.safetensors"]
    for bad in (
        "../1.safetensors",
        "/a.safetensors",
        "a.bin",
        "a/b.safetensors",
        5,
        "x.safetensors\n",
        ["a.safetensors"],
        None,
    ):
        with pytest.raises(UnsafeModelError):
            checks.check_index({"weight_map": {"a": bad}}, "r")
    for broken in ({}, [], {"weight_map": {}}, {"weight_map": []}):
        with pytest.raises(CorruptModelError):
            checks.check_index(broken, "r")


def tokenizer(**parts: Any) -> bytes:
    words = {"[UNK]": 0, "a": 1, "b": 2}
    return json.dumps(
        {"version": "1.0", "added_tokens": [], "normalizer": None, "pre_tokenizer": None, "post_processor": None,
         "decoder": None, "model": {"type": "WordLevel", "vocab": words, "unk_token": "[UNK]"}, **parts}
    ).encode()  # fmt: skip


def padding(**more: Any) -> dict[str, Any]:
    return {
        "padding": {
            "strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0,
            "pad_type_id": 0, "pad_token": "[UNK]", **more,
        }
    }  # fmt: skip


def sequence(*rules: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "normalizers": list(rules)}


def model(kind: str, **more: Any) -> dict[str, Any]:
    return {"model": {"type": kind, "vocab": {"a": 0, "b": 1, "ab": 2}, **more}}


def charsmap(content: bytes) -> dict[str, Any]:
    return {"normalizer": {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(content).decode()}}


def replace(pattern: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


HARMFUL: dict[str, dict[str, Any]] = {
    "fixed padding": padding(strategy={"Fixed": 10**10}),
    "multiples": padding(pad_to_multiple_of=10**10),
    "rules that blow up": {"normalizer": {"type": "Sequence", "normalizers": [replace({"String": "a"}, "a" * 50)] * 8}},
    "decoders that blow up": {
        "decoder": {"type": "Sequence", "decoders": [replace({"String": "a"}, "a" * 50)] * 8}
    },
    "a table that lies about its size": charsmap(b"\xff\xff\xff\xff"),
    "a table that is cut short": charsmap(b"\4\0\0\0"),
    "a table of other bytes": charsmap(b"\4\0\0\0" + bytes(4) + b"\xff\0"),
    "pieces of no length": {"pre_tokenizer": {"type": "FixedLength", "length": 0}},
    "a strip of more than there is": {"decoder": {"type": "Strip", "content": "a", "start": 0, "stop": 10}},
    "a token that is not there": {
        "post_processor": {
            "type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "[Q]", "type_id": 0}}], "pair": [],
            "special_tokens": {},
        }
    },
    "merges shorter than their prefix": model("BPE", merges=[["a", "b"]], continuing_subword_prefix="#" * 9),
}  # fmt: skip
REFUSED: dict[str, dict[str, Any]] = {
    **HARMFUL,
    "rules that match nothing": {"normalizer": sequence(*[replace({"Regex": "q*"}, "a")] * 40)},
    "rules for no text": {"normalizer": sequence(*[replace({"String": ""}, "a")] * 40)},
    "bytes of bytes": {"normalizer": sequence(*[{"type": "ByteLevel"}] * 40)},
    "prefixes": {"normalizer": sequence(*[{"type": "Prepend", "prepend": "x" * 1000}] * 200)},
    "long replacements": charsmap(b"\4\0\0\0" + bytes(4) + b"a" * 5000),
    "long words": model("WordPiece", max_input_chars_per_word=10**9),
    "another model": model("Evil"),
    "a negative id": model("WordLevel", vocab={"a": -1}),
    "an id of 40 bits": model("WordLevel", vocab={"a": 1 << 40}),
    "a score without a token": model("Unigram", vocab=[5]),
    "a list for words": model("WordPiece", vocab=[["a", 0.0]]),
    "a merge of one": model("BPE", merges=[["a"]]),
    "a number for a merge": model("BPE", merges=[5]),
    "a number for a token": {"added_tokens": [5]},
    "tokens that take half a minute to add": {
        "added_tokens": [{"id": at, "content": f"<{at}>"} for at in range(40_000)]
    },
    "a template of many pieces": {
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"Sequence": {"id": "A", "type_id": 0}}] * 1000,
            "pair": [],
            "special_tokens": {},
        }
    },
    "a template of many tokens": {
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "a", "type_id": 0}}],
            "pair": [],
            "special_tokens": {"a": {"id": "a", "ids": [1] * 1000, "tokens": ["a"] * 1000}},
        }
    },
    "large multiples": padding(pad_to_multiple_of=1 << 18),
    "a text for padding": {"padding": "x"},
    "truncation": {"truncation": {"max_length": 1 << 70, "stride": 0}},
    "expressions that blow up": {
        "normalizer": {"type": "Sequence", "normalizers": [replace({"Regex": "."}, "a" * 10)] * 8}
    },
    "a long expression": {"normalizer": replace({"Regex": "a" * 5000}, "b")},
    "no pattern": {"normalizer": {"type": "Replace", "content": "x"}},
    "no vocabulary": {"model": {"type": "BPE"}},
    "merges": {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": 5}},
    "many rules": {"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}] * 500}},
    "rules that are none": {"decoder": {"type": "Sequence", "decoders": 7}},
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_tokenizer_that_would_hurt_is_refused(name: str) -> None:
    with pytest.raises((UnsafeModelError, CorruptModelError), match=r"repo/tokenizer\.json"):
        checks.check_tokenizer(tokenizer(**REFUSED[name]), "repo")


@pytest.mark.parametrize("name", HARMFUL)
def test_the_library_would_not_have_lived_through_it(name: str, tmp_path: Path) -> None:
    """The check of the check: without it, encoding a short text ends the process or fills its memory."""
    path = tmp_path / "tokenizer.json"
    path.write_bytes(tokenizer(**HARMFUL[name]))
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (2 << 30,) * 2); resource.setrlimit(resource.RLIMIT_CORE, (0, 0))\n"
        "from tokenizers import Tokenizer\n"
        "try:\n"
        f"    tokenizer = Tokenizer.from_file({str(path)!r})\n"
        "    tokenizer.encode_batch(['a', 'a b'])\n"
        "    tokenizer.decode([1])\n"
        "except Exception:\n"
        "    pass  # an error that can be told\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=False)
    assert ended.returncode != 0


def test_rules_of_real_models_pass() -> None:
    spaces = [replace({"Regex": " {2,}"}, " "), replace({"Regex": r"\s+"}, " "), replace({"String": "``"}, '"')] * 4
    checks.check_tokenizer(tokenizer(normalizer=sequence(*spaces)), "albert")
    decoder = {
        "type": "Sequence",
        "decoders": [replace({"String": "▁"}, " "), {"type": "ByteFallback"}, {"type": "Fuse"},
                     {"type": "Strip", "content": " ", "start": 1, "stop": 0}],
    }  # fmt: skip
    checks.check_tokenizer(tokenizer(decoder=decoder), "llama")
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    merges = model("BPE", merges=["a b"], continuing_subword_prefix=None)
    checks.check_tokenizer(tokenizer(pre_tokenizer=level, decoder=level, post_processor=level, **merges), "gpt2")
    pieces = charsmap(struct.pack("<I", 4) + bytes(4) + b"a" * 33 + b"\0")["normalizer"]
    rules = sequence(pieces, replace({"Regex": " {2,}"}, "▁"))
    checks.check_tokenizer(tokenizer(normalizer=rules, **model("Unigram", vocab=[["<unk>", 0.0], ["a", -1]])), "t5")


def test_a_large_tokenizer_is_checked_about_as_fast_as_it_is_read() -> None:
    words = {f"token{number:06}": number for number in range(300_000)}
    merges = [[f"token{number:06}", f"token{number:06}"] for number in range(300_000)]
    content = tokenizer(**model("BPE", vocab=words, merges=merges))
    begin = time.process_time()
    json.loads(content)
    reading = time.process_time() - begin
    checks.check_tokenizer(content, "repo")
    assert time.process_time() - begin - reading < 3 * reading + 0.5


def test_usual_rules_pass() -> None:
    rules = [{"type": "Prepend", "prepend": "▁"}, replace({"String": " "}, "▁"), {"type": "NFC"}]
    checks.check_tokenizer(tokenizer(normalizer={"type": "Sequence", "normalizers": rules}, **padding()), "repo")
    with pytest.raises(CorruptModelError, match="not JSON"):
        checks.check_tokenizer(b"[" * 100_000, "repo")


def safetensors(header: Any, body: bytes = bytes(8), *, length: int | None = None) -> bytes:
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(content) if length is None else length) + content + body


TENSOR = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
BROKEN: list[bytes] = [
    b"", bytes(7), safetensors({"a": TENSOR}, bytes(4)), safetensors({"a": TENSOR}, bytes(12)),
    safetensors({"a": TENSOR}, length=1 << 60), safetensors(b"{"), safetensors([]), safetensors({"a": 5}),
    safetensors({"a": {**TENSOR, "dtype": "X"}}), safetensors({"a": {**TENSOR, "shape": [3]}}),
    safetensors({"a": {**TENSOR, "shape": [-2]}}), safetensors({"a": {**TENSOR, "shape": [True, 2]}}),
    safetensors({"a": {**TENSOR, "data_offsets": [8, 0]}}), safetensors({"a": TENSOR, "b": TENSOR}),
    safetensors({"a": {**TENSOR, "data_offsets": [4, 12]}}, bytes(12)),
    safetensors({"a": {**TENSOR, "shape": [1 << 40, 1 << 40]}}),
    safetensors({"a": {**TENSOR, "shape": [1 << 47] * 200_000}}), safetensors({"a": {**TENSOR, "shape": [2.0]}}),
]  # fmt: skip


@pytest.mark.parametrize("content", BROKEN, ids=lambda each: repr(each)[:60])
def test_weights_that_contradict_their_header_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(CorruptModelError, match="repo/model"):
        checks.check_safetensors(path, "repo/model")


def test_weights_of_many_tensors_pass(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    header = {f"layer.{n}": {**TENSOR, "data_offsets": [8 * n, 8 * n + 8]} for n in range(100_000)}
    path.write_bytes(safetensors(header, bytes(800_000)))
    checks.check_safetensors(path, "repo")
    path.write_bytes(safetensors({"__metadata__": {"format": "pt"}, "a": TENSOR}))
    checks.check_safetensors(path, "repo")


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def gguf(
    tensors: int = 1,
    *,
    version: int = 3,
    shape: tuple[int, ...] = (32,),
    kind: int = 0,
    offset: int = 0,
    body: int = 128,
) -> bytes:
    pairs = [
        text("general.architecture") + struct.pack("<I", 8) + text("llama"),
        text("llama.context_length") + struct.pack("<II", 4, 512),
        text("list") + struct.pack("<IIQ", 9, 8, 2) + text("a") + text("b"),
        text("numbers") + struct.pack("<IIQ", 9, 4, 2) + bytes(8),
    ]
    head = b"GGUF" + struct.pack("<IQQ", version, tensors, len(pairs)) + b"".join(pairs)
    for number in range(tensors):
        dimensions = struct.pack(f"<{len(shape)}Q", *shape)
        head += text(f"t{number}") + struct.pack("<I", len(shape)) + dimensions + struct.pack("<IQ", kind, offset)
    return head + bytes(-len(head) % 32) + bytes(body)


def test_gguf_metadata_is_read(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf())
    found = checks.check_gguf(path, "repo")
    assert found == {"general.architecture": "llama", "llama.context_length": 512, "list": 2, "numbers": 2}


def test_what_the_library_writes_is_read(tmp_path: Path) -> None:
    library = pytest.importorskip("gguf")
    path = tmp_path / "model.gguf"
    writer = library.GGUFWriter(path, "llama")
    writer.add_context_length(8192)
    writer.add_chat_template("{{ messages }}")
    writer.add_token_list(["a", "b", "ä"])
    writer.add_token_scores([0.0, 1.0, 2.0])
    writer.add_tensor("a", np.zeros((4, 64), np.float32))
    writer.add_tensor("b", np.zeros((3, 5), np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = checks.check_gguf(path, "repo")
    assert found["general.architecture"] == "llama"
    assert found["llama.context_length"] == 8192
    assert found["tokenizer.chat_template"] == "{{ messages }}"
    assert found["tokenizer.ggml.tokens"] == found["tokenizer.ggml.scores"] == 3
    path.write_bytes(path.read_bytes()[:-64])
    with pytest.raises(CorruptModelError, match="its tensors need"):
        checks.check_gguf(path, "repo")


@pytest.mark.parametrize(
    "content",
    [b"", b"GGUF", b"GGML" + bytes(100), gguf(version=9), gguf(body=0), gguf(kind=999),
     gguf(shape=(1 << 50,)), gguf(shape=(31,), kind=2), gguf(offset=1 << 40), gguf(offset=1, body=256), gguf(shape=(32, 32, 32, 32, 32)),
     gguf(shape=(0,))],
    ids=lambda each: repr(each)[-30:],
)  # fmt: skip
def test_a_gguf_that_contradicts_itself_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(CorruptModelError):
        checks.check_gguf(path, "repo")


def test_a_gguf_header_cannot_fill_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, 1)
    for pair in (
        text("k") + struct.pack("<IQ", 8, 1 << 40),
        text("k") + struct.pack("<IIQ", 9, 8, 1 << 40),
        text("k") + struct.pack("<IIQQ", 9, 8, 1, 1 << 40),
        text("k") + struct.pack("<IIQ", 9, 10, 15 << 20),
        text("k") + struct.pack("<IIQ", 9, 9, 1),
        text("general.alignment") + struct.pack("<II", 4, 3),
        text("general.alignment") + struct.pack("<II", 4, 0),
    ):
        path.write_bytes(head + pair)
        with pytest.raises(CorruptModelError):
            checks.check_gguf(path, "repo")
    twice = (text("k") + struct.pack("<II", 4, 3)) * 2
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 2) + twice)
    with pytest.raises(CorruptModelError, match="twice"):
        checks.check_gguf(path, "repo")
    path.write_bytes(head + text("numbers") + struct.pack("<IIQ", 9, 10, 100_000) + bytes(800_000) + bytes(64))
    assert checks.check_gguf(path, "repo") == {"numbers": 100_000}


@given(st.binary(max_size=64), st.integers(0, 400))
def test_no_bytes_get_through_the_gguf_header_otherwise(noise: bytes, at: int) -> None:
    import tempfile

    content = bytearray(gguf(3))
    content[at : at + len(noise)] = noise
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        try:
            checks.check_gguf(Path(file.name), "repo")
        except CorruptModelError:
            pass


def test_the_block_sizes_are_those_of_gguf() -> None:
    sizes = pytest.importorskip("gguf").GGML_QUANT_SIZES
    assert {int(kind): size for kind, size in sizes.items()} == gguf_header._BLOCKS
