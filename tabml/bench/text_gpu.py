"""Tokens and vectors a second on a GPU in bfloat16, against transformers and sentence-transformers on the same one."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tabml.bench.rows import Row, medians
from tabml.errors import UnavailableHereError
from tabml.text import GenerationOptions, TextEmbedder, TextGenerator
from tabml.text._door import text_extra

BATCHES = (1, 2, 4, 8, 16, 32, 64)
DTYPE = "bfloat16"
_RECORDED_AFTER = 2
"""Runs after which a GPU has what it needs again."""
_SHORT_TURNS = 8


def present() -> bool:
    """Whether torch sees a GPU of CUDA."""
    with text_extra():
        from tabml.bench.peers import has_cuda
    return has_cuda()


def check() -> None:
    """Nothing, when there is one.

    Raises:
        UnavailableHereError: there is none.
    """
    if not present():
        raise UnavailableHereError("only='gpu': torch sees no GPU of CUDA here; leave it out")


def measure(
    generator: Path,
    embedder: Path,
    prompt: str,
    texts: Sequence[str],
    *,
    tokens: int,
    turns: int,
    device: str = "cuda",
    batches: Sequence[int] = BATCHES,
) -> Iterator[Row]:
    """Answers of batches of prompts, then vectors of batches of texts.

    Args:
        generator: A language model's folder.
        embedder: An embedding model's.
        prompt: What all prompts begin with.
        texts: To embed.
        tokens: Of each answer, at the most.
        turns: Figures are their median.
        device: Where.
        batches: Prompts, or texts, at a time.
    """
    yield from _generated(generator, prompt, tokens, turns, device, batches)
    yield from _embedded(embedder, texts, turns, device, batches)


def _generated(
    folder: Path, prompt: str, tokens: int, turns: int, device: str, batches: Sequence[int]
) -> Iterator[Row]:
    from tabml.bench.peers import BatchGenerator

    plain = BatchGenerator(folder, device, DTYPE)
    greedy = GenerationOptions(temperature=0, max_new_tokens=tokens)
    drawing = GenerationOptions(temperature=0.8, top_p=0.95, seed=1, max_new_tokens=tokens)
    cases = [(size, greedy) for size in batches]
    cases += [(size, drawing) for size in dict.fromkeys((batches[0], batches[-1]))]
    with (
        TextGenerator(folder, engine="torch", device=device, dtype=DTYPE) as model,
        ThreadPoolExecutor(max(batches)) as callers,
    ):
        model.wait_until_packed()
        for size, options in cases:
            prompts = [f"{prompt} {number}" for number in range(size)]
            drawn = {} if options.greedy else {"temperature": options.temperature, "top_p": options.top_p}
            works: dict[str, Callable[[], Any]] = {
                "transformers": partial(plain.generate, prompts, tokens, **drawn),
                "tabml": partial(_answers, model, options, callers, prompts),
            }
            wanted, found = works["transformers"](), works["tabml"]()
            for _ in range(_RECORDED_AFTER):
                works["tabml"]()
            seconds = medians(works, turns)
            speeds = {
                "transformers": sum(map(len, wanted)) / seconds["transformers"],
                "tabml": sum(map(len, found)) / seconds["tabml"],
            }
            same = sum(_agree(one, other) for one, other in zip(wanted, found, strict=True)) / size
            note = "drawn" if drawn else f"{same:.0%} of the tokens until the first other one"
            case = f"gpu, batch {size}{', drawn' if drawn else ''}"
            yield from _pair(case, speeds, "transformers", "tokens/s", note)


def _answers(
    model: TextGenerator, options: GenerationOptions, callers: ThreadPoolExecutor, prompts: Sequence[str]
) -> list[tuple[int, ...]]:
    """The tokens of each prompt's answer, each asked for by a thread."""
    found = callers.map(model.generate, prompts, [options] * len(prompts))
    return [each.choices[0].token_ids for each in found]


def _agree(one: Sequence[int], other: Sequence[int]) -> float:
    """The part of two answers up to where they differ; bfloat16 decides near ties by the shape of a product."""
    longest = max(len(one), len(other), 1)
    return next((at for at, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), longest) / longest


def _embedded(folder: Path, texts: Sequence[str], turns: int, device: str, batches: Sequence[int]) -> Iterator[Row]:
    from tabml.bench.peers import PlainEmbedder

    plain = PlainEmbedder(folder, device, DTYPE)
    chosen = random.Random(2)
    with TextEmbedder(folder, device=device, dtype=DTYPE) as model:
        for size in (*batches, len(texts)):
            given = list(texts) if size == len(texts) else chosen.sample(list(texts), size)
            works: dict[str, Callable[[], Any]] = {
                "encode": partial(plain.embed, given),
                "tabml": partial(model.embed, given, truncate=True),
            }
            one, other = works["encode"](), works["tabml"]().vectors
            lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
            cosine = float(((one * other).sum(1) / lengths).min())
            for _ in range(_RECORDED_AFTER):
                works["tabml"]()
            seconds = medians(works, _SHORT_TURNS * turns)
            speeds = {name: size / value for name, value in seconds.items()}
            yield from _pair(f"gpu, {size} texts", speeds, "encode", "texts/s", f"cosine at least {cosine:.5f}")


def _pair(case: str, speeds: dict[str, float], peer: str, unit: str, note: str) -> Iterator[Row]:
    yield Row(case=case, name=peer, value=speeds[peer], unit=unit, note=DTYPE)
    yield Row(
        case=case,
        name="tabml",
        value=speeds["tabml"],
        unit=unit,
        peer=peer,
        ratio=speeds["tabml"] / speeds[peer],
        note=note,
    )
