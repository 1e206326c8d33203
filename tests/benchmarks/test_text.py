"""Text against the plain libraries in the same run: SmolLM2-135M and all-MiniLM-L6-v2, medians of alternating turns."""

from __future__ import annotations

import os
import random
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tabml.files import default_provider, read_bytes
from tabml.files.catalog import find
from tabml.text import GenerationOptions, TextEmbedder, TextGenerator

TURNS = 3
PROMPT = "Once upon a time, in a small village near the sea, there lived"
TOKENS = 48
GREEDY = GenerationOptions(temperature=0, max_new_tokens=TOKENS, min_new_tokens=TOKENS)


def medians(works: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Seconds of each work, taken in turns."""
    found: dict[str, list[float]] = {name: [] for name in works}
    for work in works.values():
        work()
    for _ in range(TURNS):
        for name, work in works.items():
            began = time.perf_counter()
            work()
            found[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in found.items()}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, Path]:
    """SmolLM2 in transformers, with its weights unpacked, and the folder of its file."""
    import torch
    import transformers

    entry = find("smollm2-135m-instruct")
    folder = tmp_path_factory.mktemp("smollm2")
    (folder / entry.file).write_bytes(read_bytes(default_provider(), entry.ref))
    options = {"gguf_file": entry.file}
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **options)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **options).eval()
    return model, tokenizer, folder / entry.file


def generate(model: Any, tokenizer: Any, prompt: str) -> str:
    """As users of transformers do it, with a streamer."""
    import torch
    import transformers

    inputs = tokenizer(prompt, return_tensors="pt")
    streamer = transformers.TextIteratorStreamer(tokenizer, skip_prompt=True)
    arguments = {**inputs, "do_sample": False, "max_new_tokens": TOKENS, "min_new_tokens": TOKENS, "streamer": streamer}

    def work() -> None:
        with torch.inference_mode():
            model.generate(**arguments)

    thread = threading.Thread(target=work)
    thread.start()
    text = "".join(streamer)
    thread.join()
    return text


def bandwidth() -> float:
    """GB/s of reading, all threads."""
    import torch

    block = torch.ones(64 << 20)
    best = 0.0
    for _ in range(5):
        began = time.perf_counter()
        block.sum()
        best = max(best, block.numel() * 4 / (time.perf_counter() - began) / 1e9)
    return best


def test_one_stream(benchmark: Any, plain: tuple[Any, Any, Path]) -> None:
    model, tokenizer, path = plain
    kinds: dict[str, dict[str, str]] = {
        "float32": {}, "bfloat16": {"dtype": "bfloat16"}, "int8": {"quantization": "int8"},
        "int4": {"quantization": "int4"},
    }  # fmt: skip
    engines = {name: TextGenerator(path, **options).load() for name, options in kinds.items()}  # type: ignore[arg-type]
    try:
        works: dict[str, Callable[[], Any]] = {"plain": lambda: generate(model, tokenizer, PROMPT)}
        for name, engine in engines.items():
            works[name] = lambda engine=engine: engine.generate(PROMPT, GREEDY)  # type: ignore[misc]
        found = benchmark.pedantic(lambda: medians(works), rounds=1)
        speed = bandwidth()
        same = engines["float32"].generate(PROMPT, GREEDY).text == generate(model, tokenizer, PROMPT)
        limits = {"plain": 538, "float32": 538, "bfloat16": 269, "int8": 135, "int4": 98}  # MB read a token
        print(f"\nequal text in float32: {same}; memory {speed:.1f} GB/s")
        for name, seconds in found.items():
            share = TOKENS / seconds / (speed * 1e3 / limits[name])
            print(
                f"{name:9} {TOKENS / seconds:6.1f} tokens/s   ratio {found['plain'] / seconds:.2f}   of the limit {share:.2f}"
            )
    finally:
        for engine in engines.values():
            engine.close()


def test_eight_chats(benchmark: Any, plain: tuple[Any, Any, Path]) -> None:
    model, tokenizer, path = plain
    prompts = [f"{PROMPT} {name}" for name in ("Ann", "Bo", "Cy", "Di", "Ed", "Flo", "Gus", "Hal")]
    firsts: list[float] = []

    def together(call: Callable[[str], Any]) -> None:
        threads = [threading.Thread(target=call, args=(prompt,)) for prompt in prompts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    with TextGenerator(path) as whole, TextGenerator(path, quantization="int8") as small:

        def call(engine: TextGenerator) -> Callable[[str], Any]:
            return lambda prompt: firsts.append(engine.generate(prompt, GREEDY).usage.time_to_first_token_s)

        found = benchmark.pedantic(
            lambda: medians(
                {
                    "8 threads of plain generate": lambda: together(lambda prompt: generate(model, tokenizer, prompt)),
                    "tabml float32": lambda: together(call(whole)),
                    "tabml int8": lambda: together(call(small)),
                }
            ),
            rounds=1,
        )
    print()
    for name, seconds in found.items():
        ratio = found["8 threads of plain generate"] / seconds
        print(f"{name:28} {8 * TOKENS / seconds:6.1f} tokens/s   ratio {ratio:.2f}")
    print(f"first token p50 {np.percentile(firsts, 50):.2f} s, p99 {np.percentile(firsts, 99):.2f} s")


def test_the_tenth_turn(benchmark: Any, plain: tuple[Any, Any, Path]) -> None:
    _, _, path = plain
    with TextGenerator(path) as model:
        options = GenerationOptions(temperature=0, max_new_tokens=24)
        messages: list[dict[str, str]] = []

        def talk() -> float:
            for turn in range(10):
                messages.append({"role": "user", "content": f"Tell me fact {turn} about the sea and its animals."})
                answer = model.chat(messages, options)
                messages.append({"role": "assistant", "content": answer.text})
            return answer.usage.time_to_first_token_s

        reused = benchmark.pedantic(talk, rounds=1)
    with TextGenerator(path) as fresh:
        fresh.generate("warm", GenerationOptions(max_new_tokens=1))
        alone = fresh.chat(messages[:-1], options).usage
    print(
        f"\ntenth turn of {alone.prompt_tokens} tokens: first token {reused * 1e3:.0f} ms with reuse, "
        f"{alone.time_to_first_token_s * 1e3:.0f} ms without   ratio {alone.time_to_first_token_s / reused:.1f}"
    )


def mixed_texts(count: int) -> list[str]:
    random_words = random.Random(1)
    words = [
        "the",
        "sea",
        "is",
        "calm",
        "today",
        "and",
        "small",
        "boats",
        "drift",
        "slowly",
        "along",
        "green",
        "shores",
        "while",
        "people",
        "walk",
        "home",
    ]
    return [" ".join(random_words.choices(words, k=random_words.choice((4, 8, 12, 30, 80, 160)))) for _ in range(count)]


@pytest.fixture(scope="module")
def minilm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TextEmbedder, Any]]:
    import sentence_transformers

    folder = tmp_path_factory.mktemp("minilm")
    for entry in find("all-minilm-l6-v2").files:
        (folder / entry.file).parent.mkdir(exist_ok=True)
        (folder / entry.file).write_bytes(read_bytes(default_provider(), entry.ref))
    with TextEmbedder(folder) as model:
        yield model, sentence_transformers.SentenceTransformer(str(folder), device="cpu")


def test_a_thousand_texts(benchmark: Any, minilm: tuple[TextEmbedder, Any]) -> None:
    model, peer = minilm
    count = int(os.environ.get("TABML_BENCH_TEXTS", "1000"))
    texts = mixed_texts(count)
    found = benchmark.pedantic(
        lambda: medians({"encode": lambda: peer.encode(texts), "tabml": lambda: model.embed(texts, truncate=True)}),
        rounds=1,
    )
    apart = float(np.abs(peer.encode(texts) - model.embed(texts, truncate=True).vectors).max())
    print(
        f"\n{count} mixed texts: {count / found['tabml']:.0f}/s, SentenceTransformer.encode {count / found['encode']:.0f}/s   "
        f"ratio {found['encode'] / found['tabml']:.2f}, apart at most {apart:.1e}"
    )


def test_sixteen_clients(benchmark: Any, minilm: tuple[TextEmbedder, Any]) -> None:
    model, _ = minilm
    texts = [f"{text} {number}" for number, text in enumerate(mixed_texts(160)) if len(text) < 90]

    def alone() -> None:
        for text in texts:
            model.embed([text])

    def together() -> None:
        shares = [texts[number::16] for number in range(16)]
        threads = [
            threading.Thread(target=lambda share=share: [model.embed([text]) for text in share]) for share in shares
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    found = benchmark.pedantic(lambda: medians({"alone": alone, "together": together}), rounds=1)
    print(
        f"\n16 clients: {len(texts) / found['together']:.0f} requests/s, one at a time {len(texts) / found['alone']:.0f}   "
        f"ratio {found['alone'] / found['together']:.2f}"
    )
