"""The files under ``tests/models/tiny-lm``: a two-layer Llama of random weights for LiteRT-LM, and variants of it.

``python tests/recipes/tiny_litertlm.py FOLDER`` makes them again (12 s) where ``litert-torch==0.10.0``, ``accelerate`` and
``sentencepiece`` are installed beside ``tabml[edge]``; no foreign data is in them. :func:`retold` needs ``tabml[edge]`` alone.
"""

from __future__ import annotations

import json
import random
import shutil
import sys
import tempfile
import types
import zipfile
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

WORDS = "the quick brown fox jumps over a lazy dog and then it sleeps under the warm sun near river hello world what is your name"
TOKENS = 384
CONTEXT = 256
RECIPES = {"i8": "dynamic_wi8_afp32", "i4": "dynamic_wi4_afp32", "f32": "none"}
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for c in message['content'] %}"
    "{% if c['type'] == 'text' %}{{ c['text'] }}{% endif %}{% endfor %}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def retold(source: Path, target: Path, change: Callable[[Any], None]) -> Path:
    """A ``.litertlm`` file with other metadata: ``change`` is called with the ``LlmMetadata`` message."""
    from google.protobuf import text_format
    from litert_lm_builder import pack, unpack
    from litert_lm_builder.runtime.proto import llm_metadata_pb2

    with tempfile.TemporaryDirectory() as folder:
        table = unpack(str(source), str(Path(folder) / "parts"))
        told = Path(folder) / "parts" / "LlmMetadataProto.pbtext"
        message = text_format.Parse(told.read_text(), llm_metadata_pb2.LlmMetadata())
        change(message)
        told.write_text(text_format.MessageToString(message))
        pack(table, str(target))
    return target


def make(folder: Path) -> None:
    """All of them, with the text that plain transformers writes greedily beside each."""
    for name, recipe in RECIPES.items():
        export(folder / name, recipe)
    with_sentencepiece(folder / "i8" / "model.litertlm", folder / "sp")
    as_task(folder / "sp" / "model.litertlm", folder / "task")


def export(folder: Path, recipe: str) -> None:
    """A ``model.litertlm`` with the tokenizer of Hugging Face."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    source = folder / "hf"
    source.mkdir(parents=True, exist_ok=True)
    tokenizer = _byte_level_bpe()
    tokenizer.save_pretrained(source)
    torch.manual_seed(1234)
    config = LlamaConfig(
        vocab_size=TOKENS, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=32, max_position_embeddings=512, rms_norm_eps=1e-5, tie_word_embeddings=True,
        bos_token_id=1, eos_token_id=2, pad_token_id=2, initializer_range=0.3, architectures=["LlamaForCausalLM"],
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    never = [at for at in range(TOKENS) if at < 3 or not all(32 <= ord(each) < 127 for each in tokenizer.decode([at]))]
    with torch.no_grad():  # control tokens and what isn't ASCII stay improbable, so that answers go on
        model.model.embed_tokens.weight[never] *= 1e-3
    model.save_pretrained(source)
    (source / "generation_config.json").write_text(
        json.dumps({"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2})
    )
    _stand_in_for_tensorflow()
    from litert_torch.generative.export_hf import export as export_hf

    options = {} if recipe == "none" else {"quantization_recipe": recipe}
    export_hf.export(model=str(source), output_dir=str(folder), prefill_lengths=[16], cache_length=CONTEXT, **options)
    asked = [{"role": "user", "content": "hello world"}]
    ids = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answer = model.generate(**ids, max_new_tokens=16, do_sample=False)[0][ids["input_ids"].shape[1] :].tolist()
    golden = {"prompt": "hello world", "float_greedy": answer, "text": tokenizer.decode(answer)}
    (folder / "golden.json").write_text(json.dumps(golden))
    shutil.rmtree(source)


def _byte_level_bpe() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    chance = random.Random(0)
    corpus = [" ".join(chance.choice(WORDS.split()) for _ in range(12)) for _ in range(200)]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=TOKENS,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(corpus, trainer)
    found = PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<|im_end|>", unk_token="<|endoftext|>"
    )
    found.chat_template = TEMPLATE
    found.bos_token = None  # the template begins with <|im_start|>, and LiteRT-LM would write a declared one again
    return found


def with_sentencepiece(source: Path, folder: Path) -> None:
    """The same weights with a SentencePiece model."""
    import sentencepiece
    from google.protobuf import text_format
    from litert_lm_builder import pack, unpack
    from litert_lm_builder.runtime.proto import llm_metadata_pb2

    folder.mkdir(parents=True, exist_ok=True)
    chance = random.Random(0)
    with tempfile.TemporaryDirectory() as room:
        corpus = Path(room) / "corpus.txt"
        corpus.write_text("\n".join(" ".join(chance.choice(WORDS.split()) for _ in range(12)) for _ in range(400)))
        sentencepiece.SentencePieceTrainer.train(
            input=str(corpus), model_prefix=f"{room}/sp", vocab_size=TOKENS, model_type="bpe", byte_fallback=True,
            hard_vocab_limit=True, character_coverage=1.0, unk_id=0, bos_id=1, eos_id=2, pad_id=-1,
            bos_piece="<|im_start|>", eos_piece="<|im_end|>", minloglevel=2,
            user_defined_symbols=["<|im_start|>", "<|im_end|>"],
        )  # fmt: skip
        parts = Path(room) / "parts"
        table = Path(unpack(str(source), str(parts)))
        told = parts / "LlmMetadataProto.pbtext"
        message = text_format.Parse(told.read_text(), llm_metadata_pb2.LlmMetadata())
        del message.stop_tokens[:]
        message.stop_tokens.add().token_ids.ids.append(2)
        message.ClearField("pad_token")
        message.ClearField("start_token")
        told.write_text(text_format.MessageToString(message))
        shutil.copy(f"{room}/sp.model", parts)
        (theirs,) = (each.name for each in parts.iterdir() if "HF_Tokenizer" in each.name)
        text = table.read_text().replace('section_type = "HF_Tokenizer"', 'section_type = "SP_Tokenizer"')
        table.write_text(text.replace(theirs, "sp.model"))
        pack(str(table), str(folder / "model.litertlm"))


def as_task(source: Path, folder: Path) -> None:
    """The same as a ``.task`` bundle: a zip whose members lie uncompressed, at multiples of 64 bytes."""
    from google.protobuf import text_format
    from litert_lm_builder import unpack
    from litert_lm_builder.runtime.proto import llm_metadata_pb2

    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as room:
        parts = Path(room) / "parts"
        unpack(str(source), str(parts))
        message = text_format.Parse((parts / "LlmMetadataProto.pbtext").read_text(), llm_metadata_pb2.LlmMetadata())
        message.start_token.token_ids.ids.append(1)  # without one, it is taken for an older kind of message
        (model,) = parts.glob("*.tflite")
        (tokenizer,) = (each for each in parts.iterdir() if "SP_Tokenizer" in each.name)
        members = {
            "TF_LITE_PREFILL_DECODE": model.read_bytes(),
            "TOKENIZER_MODEL": tokenizer.read_bytes(),
            "METADATA": message.SerializeToString(),
        }
        with zipfile.ZipFile(folder / "model.task", "w", zipfile.ZIP_STORED) as archive:
            for name, content in members.items():
                member = zipfile.ZipInfo(name)
                gap = -(archive.fp.tell() + 30 + len(name) + 4) % 64  # type: ignore[union-attr]
                member.extra = b"\0\0" + gap.to_bytes(2, "little") + bytes(gap)
                archive.writestr(member, content)


def _stand_in_for_tensorflow() -> None:
    """litert-torch 0.10 imports one generated module of tensorflow without asking for it; ai_edge_litert has the same."""
    from ai_edge_litert import schema_py_generated

    names = ("tensorflow", "tensorflow.lite", "tensorflow.lite.python")
    for name in names:
        module = types.ModuleType(name)
        module.__path__ = []
        module.__spec__ = ModuleSpec(name, None, is_package=True)
        sys.modules.setdefault(name, module)
    sys.modules.setdefault(f"{names[2]}.schema_py_generated", schema_py_generated)
    sys.modules[names[2]].schema_py_generated = schema_py_generated  # type: ignore[attr-defined]


if __name__ == "__main__":
    make(Path(sys.argv[1]))
