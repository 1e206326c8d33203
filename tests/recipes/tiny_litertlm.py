"""The files under ``tests/models/tiny-lm``: a two-layer Llama of random weights for LiteRT-LM, and variants of it.

``python tests/recipes/tiny_litertlm.py FOLDER`` makes them again (a minute) where ``litert-torch==0.10.0``, ``accelerate`` and
``sentencepiece`` are installed beside ``tabml[edge]``; no foreign data is in them. The weights come out the same to the byte, the
stop tokens in any order. :func:`retold` and :func:`answers` need ``tabml[edge]`` alone.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import tempfile
import types
import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import chdir
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

WORDS = "the quick brown fox jumps over a lazy dog and then it sleeps under the warm sun near river hello world what is your name"
TOKENS = 384
CONTEXT = 256
PROMPT = "hello world"
RECIPES = {"i8": "dynamic_wi8_afp32", "i4": "dynamic_wi4_afp32", "f32": "none"}
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for c in message['content'] %}"
    "{% if c['type'] == 'text' %}{{ c['text'] }}{% endif %}{% endfor %}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

_PACKAGE = """
import json, os, sys
import litert_lm
path, turns, tokens, template = json.load(sys.stdin)
wants = {part["type"] for turn in turns for part in turn}
cpu = litert_lm.Backend.CPU(thread_count=1)
engine = litert_lm.Engine(
    path, backend=cpu, cache_dir=":nocache",
    vision_backend=cpu if "image" in wants else None, audio_backend=cpu if "audio" in wants else None,
)
greedy = litert_lm.SamplerConfig(top_k=1, temperature=1.0, seed=1)
talk = engine.create_conversation(sampler_config=greedy, chat_template=template)
said = []
for turn in turns:
    heard = talk.send_message_async({"role": "user", "content": turn}, max_output_tokens=tokens)
    said.append("".join(str(each.contents) for each in heard))
print(json.dumps([said, talk.token_count]), flush=True)
os._exit(0)
"""


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


def answers(
    path: Path, turns: Sequence[Sequence[Mapping[str, str]]], *, tokens: int = 16, template: str | None = None
) -> tuple[list[str], int]:
    """What Google's own package answers greedily, in a process of its own, and how many tokens it has then read and written.

    Args:
        path: The model.
        turns: What is said to it, one after another in a conversation; each is a list of parts as the package has them.
        tokens: Of an answer.
        template: Instead of the file's own.
    """
    told = json.dumps([str(path), turns, tokens, template])
    ended = subprocess.run([sys.executable, "-c", _PACKAGE], input=told, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise RuntimeError(ended.stderr[-2000:])
    said, count = json.loads(ended.stdout)
    return said, count


def write_golden(folder: Path, name: str = "model.litertlm", **more: Any) -> None:
    """``golden.json``: the package's answer to a prompt, and what else is known."""
    said, _ = answers(folder / name, [[{"type": "text", "text": PROMPT}]])
    golden = {"prompt": PROMPT, **more, "litert_lm_0_18_1_greedy_16": said}
    (folder / "golden.json").write_text(json.dumps(golden, indent=1))


def make(folder: Path) -> None:
    """All of them, with the answers of the package beside each, and of plain transformers beside the one in float32."""
    for name, recipe in RECIPES.items():
        export(folder / name, recipe)
    with_sentencepiece(folder / "i8" / "model.litertlm", folder / "sp")
    as_task(folder / "sp" / "model.litertlm", folder / "task")


def export(folder: Path, recipe: str) -> None:
    """A ``model.litertlm`` with the tokenizer of Hugging Face."""
    source = folder / "hf"
    tokenizer = byte_level_bpe()
    never = [at for at in range(TOKENS) if at < 3 or not all(32 <= ord(each) < 127 for each in tokenizer.decode([at]))]
    model = llama(source, tokenizer, never)
    stand_in_for_tensorflow()
    from litert_torch.generative.export_hf import export as export_hf

    export_hf.export(
        model=str(source),
        output_dir=str(folder),
        prefill_lengths=[16],
        cache_length=CONTEXT,
        quantization_recipe=recipe,
    )
    shutil.rmtree(source)
    if recipe != "none":
        write_golden(folder)
        return
    asked = [{"role": "user", "content": PROMPT}]
    ids = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answer = model.generate(**ids, max_new_tokens=16, do_sample=False)[0][ids["input_ids"].shape[1] :].tolist()
    write_golden(folder, float_greedy=answer, text=tokenizer.decode(answer))


def llama(folder: Path, tokenizer: Any, never: Sequence[int]) -> Any:
    """A model of random weights, saved with its tokenizer; tokens of ``never`` are improbable, so that answers go on."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(1234)
    config = LlamaConfig(
        vocab_size=TOKENS, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=32, max_position_embeddings=512, rms_norm_eps=1e-5, tie_word_embeddings=True,
        bos_token_id=1, eos_token_id=2, pad_token_id=2, initializer_range=0.3, architectures=["LlamaForCausalLM"],
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        model.model.embed_tokens.weight[never] *= 1e-3
    model.save_pretrained(folder)
    ends = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    (folder / "generation_config.json").write_text(json.dumps(ends))
    return model


def byte_level_bpe(*controls: str) -> Any:
    """A tokenizer of words, with further control tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    chance = random.Random(0)
    corpus = [" ".join(chance.choice(WORDS.split()) for _ in range(12)) for _ in range(200)]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=TOKENS,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>", *controls],
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
    source, folder = source.absolute(), folder.absolute()
    with tempfile.TemporaryDirectory() as room, chdir(room):  # SentencePiece writes the paths into the model
        corpus = Path("corpus.txt")
        corpus.write_text("\n".join(" ".join(chance.choice(WORDS.split()) for _ in range(12)) for _ in range(400)))
        sentencepiece.SentencePieceTrainer.train(
            input=str(corpus), model_prefix="sp", vocab_size=TOKENS, model_type="bpe", byte_fallback=True,
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
        shutil.copy("sp.model", parts)
        (theirs,) = (each.name for each in parts.iterdir() if "HF_Tokenizer" in each.name)
        text = table.read_text().replace('section_type = "HF_Tokenizer"', 'section_type = "SP_Tokenizer"')
        table.write_text(text.replace(theirs, "sp.model"))
        pack(str(table), str(folder / "model.litertlm"))
    write_golden(folder)


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
    write_golden(folder, "model.task")


def stand_in_for_tensorflow() -> None:
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
