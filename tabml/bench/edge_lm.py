"""Language models on the device: tabml beside LiteRT-LM itself, llama.cpp and transformers, each in a process of its own.

``python -m tabml.bench.edge_lm RUNNER MODEL THREADS READ TOKENS CACHE`` is one of these processes, which reads prompts of ``READ``
tokens, writes ``TOKENS``, and may keep what it repacks in the folder ``CACHE``; it prints its figures as JSON.
"""

from __future__ import annotations

import importlib
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory

from tabml.bench.load import memory_status
from tabml.bench.processes import ended
from tabml.bench.rows import Row, Say
from tabml.edge import LiteLM
from tabml.edge._lm.container import read_container
from tabml.edge.lm import ENDINGS
from tabml.errors import InferenceError, OptionError
from tabml.generation.arguments import whole
from tabml.generation.options import GenerationOptions
from tabml.text import TextGenerator

_WORDS = "the sea is calm today and small boats drift slowly along green shores while people walk home"
_STORY = "Once upon a time, in a small village near the sea, there lived"
_READ = 128
"""Tokens of a prompt, where the context has room for them."""
_PROMPTS = 3
_LEAST_MORE = 0.2
"""Of the time to the first token: twice the prompt must take so much longer for it to tell how quickly prompts are read."""
_ENOUGH = 16
Figures = dict[str, float]
Count = Callable[[str], int]
"""From a text to its tokens."""
Pieces = Callable[[str], Iterable[str]]
"""From a prompt to the pieces of its answer, as they are told: one may have several tokens."""


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
        OptionError: ``model``, ``gguf`` or ``folder`` is no such file, or ``threads`` is out of its range.
        CorruptModelError: it is not what its ending says.
        ModelKindError: it is no language model.
        InferenceError: one of the processes failed.
    """
    if not model.is_file() or model.suffix not in ENDINGS:
        raise OptionError(f"lm={str(model)!r:.200} must be a .litertlm or .task file")
    if gguf is not None and not (gguf.is_file() and gguf.suffix == ".gguf"):
        raise OptionError(f"gguf={str(gguf)!r:.200} must be a .gguf file that is there")
    if folder is not None and not (folder / "config.json").is_file():
        raise OptionError(f"folder={str(folder)!r:.200} must be a folder of transformers, with a config.json")
    context = read_container(model, model.name).context_length or 4 * _READ
    read = min(_READ, (context - _ENOUGH) // 2 - 1)
    tokens = min(tokens, context - read - 1)
    if tokens < _ENOUGH:
        raise OptionError(f"lm={str(model)!r:.200} has a context of {context} tokens, which is too short to measure")
    cores = len(os.sched_getaffinity(0))
    threads = whole("threads", cores if threads is None else threads, 1, cores)
    runners = {"LiteRT-LM benchmark": model, "LiteRT-LM": model, "tabml": model}
    if gguf is not None:
        runners["tabml llama.cpp"] = gguf
    if folder is not None:
        runners["transformers"] = folder
    found: dict[str, list[Figures]] = {name: [] for name in runners}
    with TemporaryDirectory(prefix="tabml-bench-") as cache:
        for turn in range(turns):
            for name, path in runners.items():
                say(f"language model: {name}, {turn + 1} of {turns}")
                found[name].append(ended("tabml.bench.edge_lm", name, path, threads, read, tokens, cache))
    return list(_rows({name: _medians(all_of) for name, all_of in found.items()}, model, threads))


def _medians(found: Sequence[Figures]) -> Figures:
    """Of what all of them have."""
    names = [name for name in found[0] if all(name in each for each in found)]
    return {name: statistics.median(each[name] for each in found) for name in names}


def _rows(found: dict[str, Figures], model: Path, threads: int) -> Iterator[Row]:
    read = _memory_bandwidth(threads)
    units = {"decode": "tokens/s", "prefill": "tokens/s", "first": "s", "memory": "MB"}
    peer = "LiteRT-LM benchmark"
    for key, unit in units.items():
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
                note=_note(key, name, peer, f"memory {read / 1e9:.1f} GB/s, {threads} threads"),
            )


def _note(key: str, name: str, peer: str, machine: str) -> str:
    if key == "decode":
        return machine if name == peer else ""
    return "by what as many tokens again take" if key == "prefill" and name != peer else ""


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


def _streams(pieces: Pieces, count: Count, read: int) -> Iterator[Figures]:
    """What some streams show of their speed.

    LiteRT-LM tells each token a step later, and a prompt's last token is a step of its own: how quickly prompts are read
    is seen in what as many tokens again take.
    """
    _told(pieces, _prompt(count, 2 * _PROMPTS, read))  # what is done once
    for number in range(_PROMPTS):
        first, told = _told(pieces, _prompt(count, number, read))
        longer, _ = _told(pieces, _prompt(count, number + _PROMPTS, 2 * read))
        (opening, begin), (_, end) = told[0], told[-1]
        tokens = count("".join(piece for piece, _ in told))
        if tokens < _ENOUGH or len(told) < 2:
            raise InferenceError(f"the answer has {tokens} tokens; {_ENOUGH} are needed to measure: take another model")
        figures = {"first": first, "decode": (tokens - count(opening)) / (end - begin)}
        yield {**figures, **_prefill(read, first, longer)}


def _prefill(read: int, first: float, longer: float) -> Figures:
    """Tokens a second; nothing where prompts are padded to a length that hides it."""
    return {"prefill": read / (longer - first)} if longer - first > _LEAST_MORE * first else {}


def _told(pieces: Pieces, prompt: str) -> tuple[float, list[tuple[str, float]]]:
    """Seconds to the first piece, and all of them with their times."""
    began = time.perf_counter()
    told = [(piece, time.perf_counter()) for piece in pieces(prompt) if piece]
    if not told:
        raise InferenceError("the model answered nothing: take another model")
    return told[0][1] - began, told


def _with_tabml(path: str, threads: int, read: int, tokens: int, cache: str) -> Iterator[Figures]:
    with LiteLM(Path(path), threads=threads, conversations=0) as model:
        yield from _generated(model, read, tokens)


def _with_llama(path: str, threads: int, read: int, tokens: int, cache: str) -> Iterator[Figures]:
    _keep_to(threads)
    with TextGenerator(Path(path), engine="llama.cpp") as model:
        yield from _generated(model, read, tokens)


def _generated(model: LiteLM | TextGenerator, read: int, tokens: int) -> Iterator[Figures]:
    options = GenerationOptions(temperature=0, max_new_tokens=tokens)
    return _streams(lambda prompt: (delta.text for delta in model.stream(prompt, options)), model.count_tokens, read)


def _with_package(path: str, threads: int, read: int, tokens: int, cache: str) -> Iterator[Figures]:
    lm = importlib.import_module("litert_lm")
    lm.set_min_log_severity(lm.LogSeverity.SILENT)
    engine = lm.Engine(path, backend=lm.Backend.CPU(thread_count=threads), cache_dir=cache)
    greedy = lm.SamplerConfig(top_k=1, temperature=1.0, seed=1)

    def pieces(prompt: str) -> Iterator[str]:
        session = engine.create_session(apply_prompt_template=False, sampler_config=greedy, max_output_tokens=tokens)
        session.run_prefill([prompt])
        for found in session.run_decode_async():
            yield found.texts[0]
        session.close()

    yield from _streams(pieces, lambda text: len(engine.tokenize(text)), read)


def _with_benchmark(path: str, threads: int, read: int, tokens: int, cache: str) -> Iterator[Figures]:
    lm = importlib.import_module("litert_lm")
    lm.set_min_log_severity(lm.LogSeverity.SILENT)
    for _ in range(_PROMPTS):
        found = lm.Benchmark(
            model_path=path, backend=lm.Backend.CPU(thread_count=threads), prefill_tokens=read, decode_tokens=tokens,
            cache_dir=cache,
        ).run()  # fmt: skip
        yield {
            "decode": found.last_decode_tokens_per_second,
            "prefill": found.last_prefill_tokens_per_second,
            "first": found.time_to_first_token_in_second,
        }


def _with_transformers(path: str, threads: int, read: int, tokens: int, cache: str) -> Iterator[Figures]:
    _keep_to(threads)
    from tabml.bench.peers import PlainGenerator

    plain = PlainGenerator(Path(path))

    def seconds(prompt: str, wanted: int) -> float:
        began = time.perf_counter()
        plain.generate(prompt, wanted)
        return time.perf_counter() - began

    seconds(_prompt(plain.count, _PROMPTS, read), 1)  # what is done once
    for number in range(_PROMPTS):
        prompt = _prompt(plain.count, number, read)
        first, whole = seconds(prompt, 1), seconds(prompt, tokens)
        longer = seconds(_prompt(plain.count, number, 2 * read), 1)
        yield {"first": first, "decode": (tokens - 1) / (whole - first), **_prefill(read, first, longer)}


def _keep_to(cores: int) -> None:
    """Leave what is loaded from now on so many cores."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])


def _prompt(count: Count, number: int, tokens: int) -> str:
    """One of so many tokens, with that which begins a conversation; each number's begins otherwise: no cache knows it."""
    prompt, words = f"{number} {_STORY}", ""
    for word in cycle(_WORDS.split()):
        if count(prompt) >= tokens - 1:
            break
        words += f"{word} "
        prompt = f"{number} {words}{_STORY}"
    return prompt


_RUNNERS: dict[str, Callable[[str, int, int, int, str], Iterator[Figures]]] = {
    "tabml": _with_tabml, "tabml llama.cpp": _with_llama, "LiteRT-LM": _with_package,
    "LiteRT-LM benchmark": _with_benchmark, "transformers": _with_transformers,
}  # fmt: skip


def main() -> None:
    """One process: the medians of a few streams, and its resident memory at the peak, the load included."""
    name, path, threads, read, tokens, cache = sys.argv[1:]
    found = list(_RUNNERS[name](path, int(threads), int(read), int(tokens), cache))
    print(json.dumps({**_medians(found), "memory": memory_status()["VmHWM"] / 1e6}), flush=True)
    os._exit(0)  # LiteRT-LM's own objects free themselves in whatever order


if __name__ == "__main__":
    main()
