"""Language models on the device: tabml beside LiteRT-LM itself, llama.cpp and transformers, each in a process of its own.

``python -m tabml.bench.edge_lm RUNNER MODEL THREADS TOKENS`` is one of these processes; it prints its figures as JSON.
"""

from __future__ import annotations

import importlib
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tabml.bench.processes import ended
from tabml.bench.rows import Row, Say
from tabml.edge import LiteLM
from tabml.edge._lm.container import read_container
from tabml.edge.lm import ENDINGS
from tabml.errors import InferenceError, OptionError
from tabml.generation.options import GenerationOptions
from tabml.text import TextGenerator

_WORDS = "the sea is calm today and small boats drift slowly along green shores while people walk home "
_STORY = "Once upon a time, in a small village near the sea, there lived"
_TIMES = 7
_ENOUGH = 16
Figures = dict[str, float]
Pieces = Callable[[str, int], Iterator[object]]
"""From a prompt and a number of tokens to what is streamed, a token each."""


def measure(
    model: Path,
    *,
    gguf: Path | None = None,
    folder: Path | None = None,
    threads: int | None = None,
    tokens: int = 128,
    turns: int = 3,
    say: Say = lambda _: None,
) -> list[Row]:
    """Tokens a second read and written, seconds to the first token, and memory.

    Args:
        model: A ``.litertlm`` or ``.task`` file.
        gguf: The same model for llama.cpp, to compare with.
        folder: The same model for transformers, to compare with.
        threads: That compute; the cores of this machine when None.
        tokens: To write.
        turns: Processes of each kind, in turns; figures are their median.
        say: Called with what is measured now.

    Raises:
        OptionError: ``model`` is no such file.
        CorruptModelError: it is not what its ending says.
        ModelKindError: it is no language model.
        InferenceError: one of the processes failed.
    """
    if not model.is_file() or model.suffix not in ENDINGS:
        raise OptionError(f"lm={str(model)!r:.200} must be a .litertlm or .task file")
    read_container(model, model.name)
    threads = threads or len(os.sched_getaffinity(0))
    runners = {"LiteRT-LM benchmark": model, "LiteRT-LM": model, "tabml": model}
    if gguf is not None:
        runners["tabml llama.cpp"] = gguf
    if folder is not None:
        runners["transformers"] = folder
    found: dict[str, list[Figures]] = {name: [] for name in runners}
    for turn in range(turns):
        for name, path in runners.items():
            say(f"language model: {name}, {turn + 1} of {turns}")
            found[name].append(ended("tabml.bench.edge_lm", name, path, threads, tokens))
    medians = {
        name: {key: statistics.median(each[key] for each in all_of) for key in all_of[0]}
        for name, all_of in found.items()
    }
    return list(_rows(medians, model, threads))


def _rows(found: dict[str, Figures], model: Path, threads: int) -> Iterator[Row]:
    read = _memory_bandwidth(threads)
    units = {"decode": "tokens/s", "prefill": "tokens/s", "first": "s", "rss": "MB"}
    for key, unit in units.items():
        peer = "LiteRT-LM benchmark" if key in ("decode", "prefill") else "LiteRT-LM"
        for name, figures in found.items():
            if key not in figures:
                continue
            share = None
            if key == "decode" and "llama.cpp" not in name and name != "transformers":
                share = figures[key] * model.stat().st_size / read
            yield Row(
                case=f"LM, {key}",
                name=name,
                value=figures[key],
                unit=unit,
                peer="" if name == peer else peer,
                ratio=None if name == peer else figures[key] / found[peer][key],
                limit_share=share,
                note=f"memory {read / 1e9:.1f} GB/s, {threads} threads" if name == peer and key == "decode" else "",
            )


def _memory_bandwidth(threads: int) -> float:
    """Bytes a second that so many threads read from memory: the best of several."""
    from concurrent.futures import ThreadPoolExecutor

    import numpy as np

    blocks = [np.ones(8 << 20, np.int64) for _ in range(threads)]
    best = 0.0
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(10):
            began = time.perf_counter()
            list(pool.map(np.max, blocks))
            best = max(best, sum(block.nbytes for block in blocks) / (time.perf_counter() - began))
    return best


def _timed(pieces: Pieces, prompt: str, tokens: int, prompt_tokens: int) -> Figures:
    """What one stream shows of its speed."""
    began = time.perf_counter()
    first, count, end = 0.0, 0, began
    for _ in pieces(prompt, tokens):
        end = time.perf_counter()
        count += 1
        first = first or end
    if count < _ENOUGH:
        raise InferenceError(f"the answer has {count} tokens; {_ENOUGH} are needed to measure: take another model")
    return {"first": first - began, "decode": (count - 1) / (end - first), "prefill": prompt_tokens / (first - began)}


def _with_tabml(path: str, threads: int, tokens: int) -> Iterator[Figures]:
    with LiteLM(Path(path), threads=threads, conversations=0) as model:
        yield from _streams(model, tokens)


def _with_llama(path: str, threads: int, tokens: int) -> Iterator[Figures]:
    with TextGenerator(Path(path), engine="llama.cpp") as model:
        yield from _streams(model, tokens)


def _streams(model: LiteLM | TextGenerator, tokens: int) -> Iterator[Figures]:
    def pieces(prompt: str, count: int) -> Iterator[object]:
        options = GenerationOptions(temperature=0, max_new_tokens=count)
        return (delta for delta in model.stream(prompt, options) if delta.text)

    for prompt in _prompts():
        yield _timed(pieces, prompt, tokens, model.count_tokens(prompt))


def _with_package(path: str, threads: int, tokens: int) -> Iterator[Figures]:
    lm = importlib.import_module("litert_lm")
    lm.set_min_log_severity(lm.LogSeverity.SILENT)
    engine = lm.Engine(path, backend=lm.Backend.CPU(thread_count=threads), cache_dir=":nocache")
    greedy = lm.SamplerConfig(top_k=1, temperature=1.0, seed=1)

    def pieces(prompt: str, count: int) -> Iterator[object]:
        session = engine.create_session(apply_prompt_template=False, sampler_config=greedy, max_output_tokens=count)
        session.run_prefill([prompt])
        yield from session.run_decode_async()
        session.close()

    for prompt in _prompts():
        yield _timed(pieces, prompt, tokens, len(engine.tokenize(prompt)))


def _with_benchmark(path: str, threads: int, tokens: int) -> Iterator[Figures]:
    lm = importlib.import_module("litert_lm")
    lm.set_min_log_severity(lm.LogSeverity.SILENT)
    for _ in range(3):
        found = lm.Benchmark(
            model_path=path, backend=lm.Backend.CPU(thread_count=threads), prefill_tokens=128, decode_tokens=tokens,
            cache_dir=":nocache",
        ).run()  # fmt: skip
        yield {
            "decode": found.last_decode_tokens_per_second,
            "prefill": found.last_prefill_tokens_per_second,
            "first": found.time_to_first_token_in_second,
        }


def _with_transformers(path: str, threads: int, tokens: int) -> Iterator[Figures]:
    from tabml.bench.peers import PlainGenerator

    plain = PlainGenerator(Path(path))
    for prompt in _prompts():
        began = time.perf_counter()
        plain.generate(prompt, 1)
        first = time.perf_counter() - began
        began = time.perf_counter()
        plain.generate(prompt, tokens)
        whole = time.perf_counter() - began
        yield {"first": first, "decode": (tokens - 1) / (whole - first), "prefill": 128 / first}


def _prompts() -> Iterator[str]:
    """Different ones, or a cache would know them."""
    for number in range(3):
        yield f"{number} {_WORDS * _TIMES}{_STORY}"


_RUNNERS: dict[str, Callable[[str, int, int], Iterator[Figures]]] = {
    "tabml": _with_tabml, "tabml llama.cpp": _with_llama, "LiteRT-LM": _with_package,
    "LiteRT-LM benchmark": _with_benchmark, "transformers": _with_transformers,
}  # fmt: skip


def _resident() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> None:
    """One process: the medians of a few streams, and what memory was in use at their end."""
    name, path, threads, tokens = sys.argv[1:]
    found, resident = [], 0.0
    for figures in _RUNNERS[name](path, int(threads), int(tokens)):
        found.append(figures)
        resident = max(resident, _resident())
    medians = {key: statistics.median(each[key] for each in found) for key in found[0]}
    print(json.dumps({**medians, "rss": resident}), flush=True)
    os._exit(0)  # LiteRT-LM's own objects free themselves in whatever order


if __name__ == "__main__":
    main()
