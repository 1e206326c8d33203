"""Text against the plain libraries: speeds, perplexities, first tokens, embeddings, loads and the wire."""

from __future__ import annotations

import math
import random
import statistics
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property, partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import TYPE_CHECKING, Any

from tabml.bench import load, text_gpu, wire
from tabml.bench.processes import ended
from tabml.bench.rows import Row, Say, chosen, medians
from tabml.bench.text_stream import FORMATS, PEER, PROMPT, greedy
from tabml.files import default_provider, read_bytes
from tabml.files.catalog import find
from tabml.text import GenerationOptions, TextEmbedder, TextGenerator
from tabml.text._door import llama_extra, text_extra
from tabml.text.engine import ENGINES, Scoring

if TYPE_CHECKING:
    from typing import Self

    from tabml.bench.llama_peer import PlainLlama
    from tabml.bench.peers import PlainEmbedder, PlainGenerator

GENERATOR, EMBEDDER = "smollm2-135m-instruct", "all-minilm-l6-v2"
_NAMES = ("Ann", "Bo", "Cy", "Di", "Ed", "Flo", "Gus", "Hal")
_WORDS = (
    "the", "sea", "is", "calm", "today", "and", "small", "boats", "drift", "slowly", "along", "green", "shores", "while",
    "people", "walk", "home",
)  # fmt: skip
_LENGTHS = (4, 8, 12, 30, 80, 160)
_WINDOW = 256
_WARM = 3
_LIBRARY = {"llama.cpp": "xllamacpp"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How long is measured."""

    turns: int = 3
    """Counted turns; figures are their median."""
    long_turns: int = 2
    """Those of cases whose turns take long."""
    tokens: int = 48
    """Of one stream."""
    chat_tokens: int = 20
    """Of each of eight chats."""
    talk: int = 10
    """Turns of the conversation."""
    text_chars: int = 4000
    """Of the text whose perplexity is measured."""
    texts: int = 1000
    """Mixed texts to embed."""
    requests: int = 640
    """Of sixteen clients, less those that are long."""
    load_bytes: int = 1_800_000_000
    """Weights of the model that is loaded."""
    wire_tokens: int = 400
    """Of a stream over the wire."""


QUICK = Effort(
    turns=1, long_turns=1, tokens=12, chat_tokens=4, talk=3, text_chars=800, texts=100, requests=48,
    load_bytes=120_000_000, wire_tokens=100,
)  # fmt: skip
"""A minute instead of six; its figures scatter."""


class Subjects:
    """The models that are measured, fetched and unpacked when first needed; a ``with`` block."""

    def __init__(self, generator: str = GENERATOR, embedder: str = EMBEDDER) -> None:
        """Nothing is fetched yet.

        Args:
            generator: A language model: a name of the catalog, a folder in transformers' layout or a GGUF file.
            embedder: A model of sentence-transformers: a name of the catalog or a folder.
        """
        self._generator, self._embedder = generator, embedder
        self._open = ExitStack()
        self._root = Path(self._open.enter_context(TemporaryDirectory(prefix="tabml-bench-")))

    @cached_property
    def gguf(self) -> Path | None:
        """The language model's GGUF file; None when it is a folder."""
        path = Path(self._generator)
        if path.is_dir():
            return None
        return path if path.is_file() else self._fetched(self._generator) / find(self._generator).file

    @cached_property
    def generator(self) -> Path:
        """The language model's folder: GGUF is unpacked once, so that all load the same weights."""
        if self.gguf is None:
            return Path(self._generator)
        with text_extra():
            from tabml.bench.peers import unpack
        folder = self._root / "unpacked"
        unpack(self.gguf, folder)
        return folder

    @cached_property
    def embedder(self) -> Path:
        """The folder of the embedding model."""
        path = Path(self._embedder)
        return path if path.is_dir() else self._fetched(self._embedder)

    @cached_property
    def plain_generator(self) -> PlainGenerator:
        """The language model in transformers."""
        with text_extra():
            from tabml.bench.peers import PlainGenerator
        return PlainGenerator(self.generator)

    @cached_property
    def plain_llama(self) -> PlainLlama | None:
        """The GGUF file in llama.cpp's binding; None where there is none of the two."""
        if "llama.cpp" not in self.engines or self.gguf is None:
            return None
        with llama_extra():
            from tabml.bench.llama_peer import PlainLlama
        return PlainLlama(self.gguf, self._root)

    @cached_property
    def plain_embedder(self) -> PlainEmbedder:
        """The embedding model in sentence-transformers."""
        with text_extra():
            from tabml.bench.peers import PlainEmbedder
        return PlainEmbedder(self.embedder)

    @property
    def others(self) -> dict[str, Path]:
        """Engines beside torch that are installed, with their file."""
        return {
            name: self.gguf
            for name in ENGINES
            if name != "torch" and self.gguf is not None and find_spec(_LIBRARY[name]) is not None
        }

    @cached_property
    def engines(self) -> dict[str, TextGenerator]:
        """tabml's generators, loaded: the torch engine in each number format, and every other engine there is."""
        found = {name: TextGenerator(self.generator, engine="torch", **said) for name, said in FORMATS.items()}  # type: ignore[arg-type]
        found |= {name: TextGenerator(path, engine=name) for name, path in self.others.items()}
        for model in found.values():
            self._open.enter_context(model).wait_until_packed()
        return found

    @cached_property
    def bandwidth(self) -> float:
        """Bytes a second that this machine reads from memory now."""
        with text_extra():
            from tabml.bench.peers import bandwidth
        return bandwidth()

    def _fetched(self, name: str) -> Path:
        folder = self._root / name
        entry = find(name)
        for file in entry.files:
            path = folder / file.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(read_bytes(default_provider(), file.ref))
        return folder

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()


def _medians(works: Mapping[str, Callable[[], Any]], turns: int) -> dict[str, float]:
    """Seconds of each, without the threads that loading has left behind, which slow all of them."""
    with text_extra():
        from tabml.text._torch.teams import disband
    disband()
    return medians(works, turns)


def stream(subjects: Subjects, effort: Effort) -> Iterator[Row]:
    """One answer: tokens a second of transformers and of every engine and number format, each in a process of its own."""
    paths = {PEER: subjects.generator, **dict.fromkeys(FORMATS, subjects.generator), **subjects.others}
    found = {
        name: ended("tabml.bench.text_stream", name, path, effort.tokens, max(2, effort.turns))
        for name, path in paths.items()
    }
    for name, told in found.items():
        speed = effort.tokens / told["seconds"]
        if name == PEER:
            share = speed * found["float32"]["bytes_a_token"] / subjects.bandwidth
            said = f"memory {subjects.bandwidth / 1e9:.1f} GB/s"
            yield Row(case="stream", name=name, value=speed, unit="tokens/s", limit_share=share, note=said)
            continue
        note = ""
        if name == "float32":
            note = "same text as the peer" if told["text"] == found[PEER]["text"] else "another text than the peer"
        yield Row(
            case="stream", name=f"tabml {name}", value=speed, unit="tokens/s", peer=PEER,
            ratio=found[PEER]["seconds"] / told["seconds"],
            limit_share=speed * told["bytes_a_token"] / subjects.bandwidth, note=note,
        )  # fmt: skip


def binding(subjects: Subjects, effort: Effort) -> Iterator[Row]:
    """One answer by llama.cpp: its binding called directly, and tabml's engine over it."""
    plain = subjects.plain_llama
    if plain is None:
        return
    tokens, ours = 2 * effort.tokens, subjects.engines["llama.cpp"]
    options = greedy(tokens)
    works = {
        "xllamacpp": lambda: plain.generate(PROMPT, tokens),
        "tabml llama.cpp": lambda: ours.generate(PROMPT, options),
    }
    found = _medians(works, 5 * effort.turns)
    yield Row(case="binding", name="xllamacpp", value=tokens / found["xllamacpp"], unit="tokens/s")
    yield Row(
        case="binding", name="tabml llama.cpp", value=tokens / found["tabml llama.cpp"], unit="tokens/s",
        peer="xllamacpp", ratio=found["xllamacpp"] / found["tabml llama.cpp"],
    )  # fmt: skip


def lookup(subjects: Subjects, effort: Effort) -> Iterator[Row]:
    """An answer that quotes its prompt: with prompt lookup, and without."""
    model, tokens = subjects.engines["float32"], 2 * effort.tokens
    prompt = "\n".join(["def area(width, height):", "    return width * height", ""] * 4)
    options = {
        name: replace(greedy(tokens), prompt_lookup_tokens=most) for name, most in (("without", 0), ("tabml", 8))
    }
    found = _medians({name: partial(model.generate, prompt, each) for name, each in options.items()}, effort.turns)
    said = model.generate(prompt, options["tabml"])
    same = said.text == model.generate(prompt, options["without"]).text
    yield Row(case="lookup", name="without", value=tokens / found["without"], unit="tokens/s")
    yield Row(
        case="lookup", name="tabml prompt lookup", value=tokens / found["tabml"], unit="tokens/s", peer="without",
        ratio=found["without"] / found["tabml"],
        note=f"{said.usage.guessed_tokens} of {tokens} tokens guessed, {'the same' if same else 'another'} text",
    )  # fmt: skip


def perplexity(subjects: Subjects, effort: Effort) -> Iterator[Row]:
    """How much a text surprises each number format: through the layers that compute answers."""
    from pydoc_data.topics import topics  # prose that comes with Python

    text = " ".join(topics["execmodel"].split())[: effort.text_chars]
    whole = math.nan
    for name, model in subjects.engines.items():
        engine = model._ready().engine
        if not isinstance(engine, Scoring):
            continue
        ids, window = engine.encode(text), min(_WINDOW, engine.context_length)
        pieces = [ids[at : at + window] for at in range(0, len(ids) - 1, window)]
        values = [value for piece in pieces if len(piece) > 1 for value in engine.score(piece)]
        loss = -statistics.fmean(values)
        whole = loss if name == "float32" else whole
        yield Row(
            case="perplexity", name=f"tabml {name}", value=math.exp(loss), unit="perplexity",
            peer="" if name == "float32" else "tabml float32", ratio=None if name == "float32" else math.exp(loss - whole),
            note=f"{loss:.4f} nats a token, {len(values)} tokens",
        )  # fmt: skip


def _together(call: Callable[[str], Any], prompts: Sequence[str]) -> None:
    threads = [threading.Thread(target=call, args=(prompt,)) for prompt in prompts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def chats(subjects: Subjects, effort: Effort) -> Iterator[Row]:
    """Eight answers at a time: eight threads of transformers, and tabml's batches."""
    prompts = [f"{PROMPT} {name}" for name in _NAMES]
    plain, options = subjects.plain_generator, greedy(effort.chat_tokens)
    firsts: dict[str, list[float]] = {
        name: [] for name in ("float32", "float16", "int8", "llama.cpp") if name in subjects.engines
    }

    def ours(name: str) -> Callable[[], Any]:
        model, times = subjects.engines[name], firsts[name]
        return lambda: _together(
            lambda prompt: times.append(model.generate(prompt, options).usage.time_to_first_token_s), prompts
        )

    works = {"transformers": lambda: _together(lambda prompt: plain.generate(prompt, effort.chat_tokens), prompts)}
    found = _medians({**works, **{name: ours(name) for name in firsts}}, effort.long_turns)
    for name, seconds in found.items():
        speed, mine = len(prompts) * effort.chat_tokens / seconds, name in firsts
        note = (
            f"first token p50 {statistics.median(firsts[name]):.2f} s, worst {max(firsts[name]):.2f} s" if mine else ""
        )
        yield Row(
            case="chats", name=f"tabml {name}" if mine else name, value=speed, unit="tokens/s",
            peer="transformers" if mine else "", ratio=found["transformers"] / seconds if mine else None, note=note,
        )  # fmt: skip


def talk(subjects: Subjects, effort: Effort) -> Iterator[Row]:
    """The first token of a long conversation's last answer: its turns reused, and all read anew."""
    options = GenerationOptions(temperature=0, max_new_tokens=16)
    messages: list[dict[str, str]] = []
    with TextGenerator(subjects.generator) as model:
        model.wait_until_packed()
        for turn in range(effort.talk):
            messages.append({"role": "user", "content": f"Tell me fact {turn} about the sea and its animals."})
            answer = model.chat(messages, options)
            messages.append({"role": "assistant", "content": answer.text})
    reused = answer.usage.time_to_first_token_s
    with TextGenerator(subjects.generator) as fresh:
        fresh.wait_until_packed()
        fresh.generate("warm", GenerationOptions(max_new_tokens=1))
        anew = fresh.chat(messages[:-1], options).usage
    note = f"turn {effort.talk}, {anew.prompt_tokens} tokens"
    alone = anew.time_to_first_token_s
    yield Row(case="talk", name="all read anew", value=alone * 1e3, unit="ms to the first token", note=note)
    yield Row(
        case="talk", name="tabml", value=reused * 1e3, unit="ms to the first token", peer="all read anew",
        ratio=reused / alone, note=note,
    )  # fmt: skip


def mixed_texts(count: int) -> list[str]:
    """Texts of 4 to 160 words, the same in every run."""
    chosen = random.Random(1)
    return [" ".join(chosen.choices(_WORDS, k=chosen.choice(_LENGTHS))) for _ in range(count)]


def texts(subjects: Subjects, effort: Effort) -> Iterator[Row]:
    """Many texts of mixed lengths in one call."""
    given, plain = mixed_texts(effort.texts), subjects.plain_embedder
    with (
        TextEmbedder(subjects.embedder) as model,
        TextEmbedder(subjects.embedder, dtype="bfloat16") as half,
        TextEmbedder(subjects.embedder, quantization="int8") as quarter,
    ):
        exact = plain.embed(given)  # once each, before anything is timed: kernels are loaded behind the first texts
        apart = float(abs(exact - model.embed(given, truncate=True).vectors).max())
        rounded = {"tabml bfloat16": half, "tabml int8": quarter}
        cosines = {
            name: float((exact * each.embed(given, truncate=True).vectors).sum(1).min())
            for name, each in rounded.items()
        }
        works = {
            "encode": lambda: plain.embed(given),
            "tabml": lambda: model.embed(given, truncate=True),
            "tabml bfloat16": lambda: half.embed(given, truncate=True),
            "tabml int8": lambda: quarter.embed(given, truncate=True),
        }
        found = _medians(works, effort.turns)
    yield Row(
        case="texts", name="encode", value=effort.texts / found["encode"], unit="texts/s", note=f"{len(given)} texts"
    )
    yield Row(
        case="texts", name="tabml", value=effort.texts / found["tabml"], unit="texts/s", peer="encode",
        ratio=found["encode"] / found["tabml"], note=f"apart at most {apart:.1e}",
    )  # fmt: skip
    for name, cosine in cosines.items():
        yield Row(
            case="texts", name=name, value=effort.texts / found[name], unit="texts/s", peer="encode",
            ratio=found["encode"] / found[name], note=f"cosine at least {cosine:.5f}",
        )  # fmt: skip


def clients(subjects: Subjects, effort: Effort) -> Iterator[Row]:
    """Sixteen threads that embed one short text at a time, and the same texts one after another."""
    given = [f"{text} {number}" for number, text in enumerate(mixed_texts(effort.requests)) if len(text) < 90]
    plain = subjects.plain_embedder
    with TextEmbedder(subjects.embedder) as model:

        def together(embed: Callable[[list[str]], object]) -> None:
            def run(share: Sequence[str]) -> None:
                for text in share:
                    embed([text])

            threads = [threading.Thread(target=run, args=(given[number::16],)) for number in range(16)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

        def alone(embed: Callable[[list[str]], object]) -> None:
            for text in given:
                embed([text])

        embed = partial(model.embed, truncate=True)
        for _ in range(_WARM):
            embed(given)  # kernels are loaded behind the first texts
        works = {
            "encode one at a time": partial(alone, plain.embed),
            "encode 16 clients": partial(together, plain.embed),
            "tabml one at a time": partial(alone, embed),
            "tabml 16 clients": partial(together, embed),
        }
        found = {name: len(given) / seconds for name, seconds in _medians(works, effort.turns).items()}
    first = found["encode one at a time"]
    for name, rate in found.items():
        peer = name.replace("16 clients", "one at a time")
        yield Row(
            case="clients", name=name, value=rate, unit="requests/s", peer=peer if peer != name else "",
            ratio=rate / found[peer] if peer != name else None, note=f"{rate / first:.2f} times encode one at a time",
        )  # fmt: skip


def loads(subjects: Subjects, effort: Effort) -> Iterator[Row]:
    """The load of a large sharded model; see :mod:`tabml.bench.load`."""
    return load.measure(effort.load_bytes, effort.turns)


def wires(subjects: Subjects, effort: Effort) -> Iterator[Row]:
    """What the server adds; see :mod:`tabml.bench.wire`."""
    return wire.measure(effort.wire_tokens, effort.turns)


def gpu(subjects: Subjects, effort: Effort) -> Iterator[Row]:
    """A GPU against the plain libraries on it, where there is one; see :mod:`tabml.bench.text_gpu`."""
    if text_gpu.present():
        yield from text_gpu.measure(
            subjects.generator, subjects.embedder, PROMPT, mixed_texts(effort.texts),
            tokens=4 * effort.tokens, turns=effort.turns,
        )  # fmt: skip


CASES: dict[str, Callable[[Subjects, Effort], Iterator[Row]]] = {
    "stream": stream, "binding": binding, "lookup": lookup, "perplexity": perplexity, "chats": chats, "talk": talk, "texts": texts, "clients": clients,
    "load": loads, "wire": wires, "gpu": gpu,
}  # fmt: skip
"""What can be measured, by name."""


def measure(
    names: Sequence[str] = (), *, quick: bool = False, generator: str = GENERATOR, embedder: str = EMBEDDER,
    say: Say = lambda line: None,
) -> list[Row]:  # fmt: skip
    """Measure, one case after another.

    Args:
        names: Of :data:`CASES`; all when empty.
        quick: A few tokens and one turn.
        generator: The language model, as :class:`Subjects` takes it.
        embedder: The embedding model.
        say: Is told what is measured now.

    Raises:
        OptionError: there is no such case.
        MissingExtraError: a library is not installed.
        UnavailableHereError: ``gpu`` is asked for, and there is none.
    """
    if "gpu" in names:
        text_gpu.check()
    effort = QUICK if quick else Effort()
    with Subjects(generator, embedder) as subjects:
        return [row for case in chosen(names, CASES, say) for row in case(subjects, effort)]
