"""What tabml is compared with: transformers and sentence-transformers, as their users use them."""

from __future__ import annotations

import json
import math
import threading
import time
from pathlib import Path

import numpy as np
import sentence_transformers
import torch
import transformers
from numpy.typing import NDArray
from sentence_transformers.sentence_transformer import modules

from tabml.text._torch.loading import quiet
from tabml.text._torch.unpacking import read_once


class PlainGenerator:
    """A language model of transformers, with its own streamer."""

    def __init__(self, folder: Path) -> None:
        transformers.utils.logging.disable_progress_bar()
        self._tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        self._model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def count(self, text: str) -> int:
        """How many tokens a text has."""
        return len(self._tokenizer(text)["input_ids"])

    def generate(self, prompt: str, tokens: int) -> str:
        """A continuation of exactly so many tokens, read from the streamer."""
        inputs = self._tokenizer(prompt, return_tensors="pt")
        streamer = transformers.TextIteratorStreamer(self._tokenizer, skip_prompt=True)
        limits = {"do_sample": False, "max_new_tokens": tokens, "min_new_tokens": tokens, "pad_token_id": 0}

        def work() -> None:
            with torch.inference_mode():
                self._model.generate(**inputs, **limits, streamer=streamer)

        thread = threading.Thread(target=work)
        thread.start()
        text = "".join(streamer)
        thread.join()
        return text


class BatchGenerator:
    """A language model of transformers that answers several prompts in one call of ``generate``."""

    def __init__(self, folder: Path, device: str, dtype: str) -> None:
        transformers.utils.logging.disable_progress_bar()
        self._tokenizer = transformers.AutoTokenizer.from_pretrained(folder, padding_side="left")
        self._model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
        self._model = self._model.eval().to(device)
        said = self._model.generation_config.eos_token_id
        self._ends = set(said if isinstance(said, list) else [said]) - {None}
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token

    def generate(self, prompts: list[str], tokens: int, **drawn: float) -> list[tuple[int, ...]]:
        """The tokens of each answer, at most so many, without the one that ends it; the best ones, or drawn as said."""
        inputs = self._tokenizer(prompts, return_tensors="pt", padding=True).to(self._model.device)
        torch.manual_seed(1)
        with torch.inference_mode():
            out = self._model.generate(
                input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], do_sample=bool(drawn),
                max_new_tokens=tokens, pad_token_id=self._tokenizer.pad_token_id, **drawn,
            )  # fmt: skip
        found = []
        for row in out[:, inputs["input_ids"].shape[1] :].tolist():
            ends = [at for at, token in enumerate(row) if token in self._ends]
            found.append(tuple(row[: ends[0]] if ends else row))
        return found


def has_cuda() -> bool:
    """Whether torch sees a GPU of CUDA."""
    return bool(torch.cuda.is_available())


class PlainEmbedder:
    """``SentenceTransformer.encode``."""

    def __init__(self, folder: Path, device: str = "cpu", dtype: str = "float32") -> None:
        self._model = sentence_transformers.SentenceTransformer(
            str(folder), device=device, model_kwargs={"dtype": getattr(torch, dtype)}
        )

    def embed(self, texts: list[str]) -> NDArray[np.float32]:
        """A vector for each text."""
        return np.asarray(self._model.encode(texts, show_progress_bar=False), np.float32)


def unpack(file: Path, folder: Path) -> None:
    """Write a GGUF file's model in the layout of transformers, in float32."""
    options = {"gguf_file": file.name}
    with quiet():
        with read_once():
            model = transformers.AutoModelForCausalLM.from_pretrained(file.parent, dtype=torch.float32, **options)
            tokenizer = transformers.AutoTokenizer.from_pretrained(file.parent, **options)
        plain = transformers.AutoModelForCausalLM.from_config(model.config, dtype=torch.float32)
        plain.load_state_dict(model.state_dict())  # the other one calls itself quantised, and can't be saved
        if hasattr(plain.config, "quantization_config"):
            del plain.config.quantization_config
        plain.generation_config = model.generation_config
        plain.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def bandwidth() -> float:
    """Bytes a second that all threads read from memory."""
    block = torch.ones(64 << 20)
    best = 0.0
    for _ in range(5):
        began = time.perf_counter()
        block.sum()
        best = max(best, block.numel() * block.element_size() / (time.perf_counter() - began))
    return best


def _word_level(folder: Path, count: int, **said: object) -> None:
    """A tokenizer of whole words: ``w0``, ``w1`` and so on."""
    vocabulary = {"[UNK]": 0, **{f"w{number}": number for number in range(1, count)}}
    content = {
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": {"type": "Whitespace"},
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"},
    }
    (folder / "tokenizer.json").write_text(json.dumps(content))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "[UNK]", "pad_token": "[UNK]", **said}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def random_llama(folder: Path, size: int, layers: int) -> int:
    """Write a language model of random float32 weights in five shards; gives its bytes, which are about ``size``."""
    wide = max(1, round(math.sqrt(size / layers / 64) / 64)) * 64
    config = transformers.LlamaConfig(
        vocab_size=512, hidden_size=wide, intermediate_size=4 * wide, num_attention_heads=wide // 64,
        num_hidden_layers=layers, max_position_embeddings=1024,
    )  # fmt: skip
    torch.manual_seed(0)
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(config)
    block = torch.randn(1 << 20) * 0.02
    state = {
        name: block.repeat(-(-each.numel() // len(block)))[: each.numel()].view(each.shape)
        for name, each in model.state_dict().items()
    }
    total: int = sum(each.numel() * 4 for each in state.values())
    transformers.utils.logging.disable_progress_bar()
    model.save_pretrained(folder, state_dict=state, max_shard_size=f"{total // 5 // 1000 + 1}KB")
    _word_level(folder, 512)
    return total


def random_embedder(folder: Path) -> None:
    """Write a sentence-transformers model of random weights that costs little and gives vectors of 768 numbers."""
    torch.manual_seed(0)
    plain = folder / "plain"
    config = transformers.BertConfig(
        vocab_size=64, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=64,
    )  # fmt: skip
    transformers.BertModel(config).save_pretrained(plain)
    _word_level(plain, 64, model_max_length=64)
    body = modules.Transformer(str(plain), max_seq_length=32)
    parts = [body, modules.Pooling(32), modules.Dense(32, 768)]
    sentence_transformers.SentenceTransformer(modules=parts, device="cpu").save(str(folder), create_model_card=False)
