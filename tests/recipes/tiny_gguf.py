"""A tiny llama of random weights as a GGUF file, and variants of it that lie."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

WIDTH, INNER, LAYERS, HEADS, KV_HEADS = 64, 128, 2, 4, 2
CONTROL = ["<|im_start|>", "<|im_end|>", "<pad>"]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def byte_tokens() -> list[str]:
    """How GPT-2 writes the 256 bytes."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in plain]
    written = {byte: chr(byte) for byte in plain} | {byte: chr(256 + at) for at, byte in enumerate(rest)}
    return [written[byte] for byte in range(256)]


def write(path: Path, *, without: str | None = None, **changes: Any) -> Path:
    """Write it; ``changes`` replace values of the metadata (``_`` for ``.``), None leaves one out.

    Args:
        path: The file.
        without: A tensor that is left out.
        changes: By name.
    """
    import gguf

    tokens = [*byte_tokens(), *CONTROL, "ab"]
    values: dict[str, Any] = {
        "llama.context_length": 128, "llama.embedding_length": WIDTH, "llama.block_count": LAYERS,
        "llama.feed_forward_length": INNER, "llama.attention.head_count": HEADS,
        "llama.attention.head_count_kv": KV_HEADS, "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.dimension_count": WIDTH // HEADS, "llama.vocab_size": len(tokens),
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "default", "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [1] * 256 + [3] * len(CONTROL) + [1], "tokenizer.ggml.merges": ["a b"],
        "tokenizer.ggml.bos_token_id": 256, "tokenizer.ggml.eos_token_id": 257,
        "tokenizer.ggml.unknown_token_id": 258, "tokenizer.ggml.padding_token_id": 258,
        "tokenizer.chat_template": TEMPLATE,
    }  # fmt: skip
    values.update(changes)
    writer = gguf.GGUFWriter(path, "llama")
    put: dict[type, Callable[[str, Any], None]] = {
        list: writer.add_array, str: writer.add_string, bool: writer.add_bool, float: writer.add_float32,
        int: writer.add_uint32,
    }  # fmt: skip
    for key, value in values.items():
        if value is not None:
            put[type(value)](key, value)
    noise = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (len(tokens), WIDTH), "output_norm.weight": (WIDTH,)}
    for layer in range(LAYERS):
        narrow = WIDTH * KV_HEADS // HEADS
        rows = {"attn_norm": (WIDTH,), "ffn_norm": (WIDTH,), "attn_q": (WIDTH, WIDTH), "attn_k": (narrow, WIDTH),
                "attn_v": (narrow, WIDTH), "attn_output": (WIDTH, WIDTH), "ffn_gate": (INNER, WIDTH),
                "ffn_up": (INNER, WIDTH), "ffn_down": (WIDTH, INNER)}  # fmt: skip
        shapes |= {f"blk.{layer}.{name}.weight": shape for name, shape in rows.items()}
    shapes.pop(without or "", None)
    for name, shape in shapes.items():
        writer.add_tensor(name, (noise.standard_normal(shape) * 0.3).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
