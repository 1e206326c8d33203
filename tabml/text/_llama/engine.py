"""The llama.cpp engine: GGUF files as they are, answers computed together by llama.cpp's own server.

A thread for each slot hands requests over, first come, first served, when what they may need of the cache is free:
llama.cpp ends all answers when it runs out of it. What may be shown of an answer, and when it ends, is decided here.
"""

from __future__ import annotations

import atexit
import os
import queue
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tabml.cancellation import Cancellation
from tabml.errors import (
    CapacityError,
    InferenceError,
    ModelClosedError,
    ModelForkedError,
    OptionError,
)
from tabml.generation.calls import Answers, handed_over, room_of
from tabml.generation.options import GenerationOptions
from tabml.generation.results import Delta, FinishReason, TokenLogprob, Usage
from tabml.generation.streaming import StopScanner
from tabml.text._llama.native import Event, NativeServer
from tabml.text.engine import NO_BEAMS, EngineName
from tabml.text.grammars import TOO_COMPLICATED, Follower, lark

SLOTS = 8
"""Answers that run at a time; the rest wait."""
MAX_WAITING = 1024
_CONTROL = 3
_SEEDS = (1 << 32) - 1
_NEVER = False
"""What llama.cpp writes for a bias of minus infinity."""


@dataclass(eq=False)
class _Choice:
    """One answer."""

    scanner: StopScanner
    follower: Follower | None
    tokens: list[int] = field(default_factory=list)
    """Told to us, not yet said."""
    logprobs: list[TokenLogprob] = field(default_factory=list)
    generated: int = 0
    ended: bool = False


@dataclass(eq=False)
class _Request:
    """All answers to one prompt."""

    body: Event
    options: GenerationOptions
    cancellation: Cancellation
    prompt_tokens: int
    cells: int
    """Of the cache, at the most."""
    choices: list[_Choice]
    out: Answers = field(default_factory=queue.SimpleQueue)
    started: float = field(default_factory=time.monotonic)
    first_token: float | None = None
    cached: int = 0
    gone: bool = False

    @property
    def over(self) -> bool:
        return self.gone or self.cancellation.cancelled or all(choice.ended for choice in self.choices)

    def leave(self) -> None:
        """Nobody listens any more."""
        self.gone = True

    @property
    def late(self) -> bool:
        most = self.options.max_time_s
        return most is not None and time.monotonic() - self.started > most

    def usage(self) -> Usage:
        now = time.monotonic()
        return Usage(
            prompt_tokens=self.prompt_tokens,
            completion_tokens=sum(choice.generated for choice in self.choices),
            cached_tokens=self.cached,
            time_to_first_token_s=(self.first_token or now) - self.started,
            seconds=now - self.started,
        )

    def say(self, index: int, text: str, reason: FinishReason | None = None) -> None:
        choice = self.choices[index]
        choice.ended = choice.ended or reason is not None
        self.out.put(
            Delta(
                text=text,
                index=index,
                token_ids=tuple(choice.tokens),
                logprobs=tuple(choice.logprobs),
                finish_reason=reason,
                usage=self.usage() if reason is not None and all(each.ended for each in self.choices) else None,
            )
        )
        choice.tokens, choice.logprobs = [], []

    def end_late(self) -> None:
        for index, choice in enumerate(self.choices):
            if not choice.ended:
                self.say(index, choice.scanner.rest(), "time")


_OPEN: weakref.WeakSet[LlamaEngine] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """Python ends the threads of a process that ends within llama.cpp's code, which then aborts."""
    for engine in list(_OPEN):
        engine.close()


class LlamaEngine:
    """A GGUF file, computed by llama.cpp."""

    name: EngineName = "llama.cpp"

    def __init__(self, native: NativeServer, metadata: dict[str, Any], *, name: str, context_length: int) -> None:
        """Takes the server over.

        Args:
            native: A loaded model.
            metadata: Of its file, with the tokens and their types.
            name: For messages.
            context_length: Of the server.
        """
        self._native, self._name = native, name
        self.context_length = context_length
        template = metadata.get("tokenizer.chat_template")
        self.chat_template: str | None = template if isinstance(template, str) and template else None
        tokens, kinds = (_listed(metadata, key) for key in ("tokens", "token_type"))
        self._vocabulary = len(tokens)
        self._longest = max((len(token.encode()) for token in tokens), default=1)
        self._control_ids = frozenset(at for at, kind in enumerate(kinds[: len(tokens)]) if kind == _CONTROL)
        self.control_tokens = frozenset(tokens[at] for at in self._control_ids if tokens[at])
        ends = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
        ids = {key: metadata.get(f"tokenizer.ggml.{word}_token_id") for key, word in ends.items()}
        self.special_tokens: Mapping[str, str] = {
            key: tokens[at] for key, at in ids.items() if isinstance(at, int) and 0 <= at < len(tokens)
        }
        self._written: dict[int, str] = {}
        self._process = os.getpid()
        self._changed = threading.Condition()
        self._waiting: deque[_Request] = deque()
        self._running: set[_Request] = set()
        self._closing = False
        self._freed = False
        self._workers: list[threading.Thread] = []
        _OPEN.add(self)

    def encode(self, text: str, *, special_tokens: bool = False, parse_special: bool = True) -> list[int]:
        """The tokens of a text; see :class:`tabml.text.engine.Engine`.

        Raises:
            OptionError: the text is longer than any that fits into the context.
        """
        size, most = len(text.encode()), self.context_length * self._longest
        if size > most:
            raise OptionError(
                f"the text has {size} bytes; {self.context_length} tokens of this model have at most {most}"
            )
        body = {"content": text, "add_special": special_tokens, "parse_special": parse_special}
        ids: list[int] = self._call("/tokenize", body)["tokens"]
        return ids

    def decode(self, token_ids: Sequence[int], *, special_tokens: bool = False) -> str:
        """The text of tokens."""
        ids = [int(token) for token in token_ids if special_tokens or token not in self._control_ids]
        text: str = self._call("/detokenize", {"tokens": ids})["content"]
        return text

    def _call(self, path: str, body: Event) -> Event:
        self._check_open()
        return self._native.call(path, body)

    def _check_open(self) -> None:
        if self._closing:
            raise ModelClosedError("this model is closed; open a new one")
        if os.getpid() != self._process:
            raise ModelForkedError("this model was opened before a fork; open a new one in the child")

    def _text_of(self, token: int) -> str:
        """What a token writes by itself."""
        text = self._written.get(token)
        if text is None:
            text = self._written[token] = self.decode([token])
        return text

    def stream(self, prompt: Sequence[int], options: GenerationOptions, cancellation: Cancellation) -> Iterator[Delta]:
        """The answers, piece by piece; see :class:`tabml.text.engine.Engine`.

        ``token_ids`` of a character that has several tokens are those that the tokenizer writes it with: llama.cpp
        tells the last one only.
        """
        self._check_open()
        request = self._request(prompt, options, cancellation)
        with self._changed:
            if self._closing:
                raise ModelClosedError("this model is closed; open a new one")
            if len(self._waiting) >= MAX_WAITING:
                raise CapacityError(f"{len(self._waiting)} prompts wait already; try again a little later")
            self._waiting.append(request)
            if len(self._workers) < min(SLOTS, len(self._waiting) + len(self._running)):
                worker = threading.Thread(target=self._serve, name="llama.cpp", daemon=True)
                self._workers.append(worker)
                worker.start()
            self._changed.notify_all()
        return handed_over(
            request.out, cancellation, request.leave, patience_s=options.max_time_s,
            give_up=lambda: self._give_up(request),
        )  # fmt: skip

    def _give_up(self, request: _Request) -> None:
        """End a request that has waited for too long; one that runs ends by itself."""
        with self._changed:
            if request not in self._waiting:
                return
            self._waiting.remove(request)
        request.end_late()

    def _request(self, prompt: Sequence[int], options: GenerationOptions, cancellation: Cancellation) -> _Request:
        room = room_of(prompt, context_length=self.context_length, vocabulary=self._vocabulary, answers=options.n)
        most = min(options.max_new_tokens, room)
        body = {"prompt": [int(token) for token in prompt], "n_predict": most, **self._body(options, most)}
        grammar = lark(options)
        if grammar is not None:
            body["grammar"] = grammar
        return _Request(
            body=body,
            options=options,
            cancellation=cancellation,
            prompt_tokens=len(prompt),
            cells=min(len(prompt) + options.n * most, self.context_length),
            choices=[
                _Choice(StopScanner(options.stop), Follower(grammar) if grammar is not None else None)
                for _ in range(options.n)
            ],
        )

    def _body(self, options: GenerationOptions, most: int) -> Event:
        """The options in llama.cpp's words.

        Raises:
            OptionError: it has no word for one.
        """
        self._refuse(options, most)
        body: Event = {
            "stream": True, "verbose": True, "return_tokens": True, "return_progress": True,
            "n_cmpl": options.n, "seed": _SEEDS if options.seed is None else options.seed % _SEEDS,
            "temperature": options.temperature, "repeat_penalty": options.repetition_penalty,
            "repeat_last_n": self.context_length, "ignore_eos": 0 < most <= options.min_new_tokens,
        }  # fmt: skip
        chain = ["penalties"] if options.repetition_penalty != 1 else []
        chain.append("temperature")
        if not options.greedy:
            limits = (("top_k", 0, "top_k"), ("top_p", 1, "top_p"), ("min_p", 0, "min_p"), ("typical_p", 1, "typ_p"))
            for name, off, word in limits:
                if getattr(options, name) != off:
                    body[name] = getattr(options, name)
                    chain.append(word)
        body["samplers"] = chain
        biases: list[list[Any]] = [[token, bias] for token, bias in (options.logit_bias or {}).items()]
        body["logit_bias"] = biases + [[token, _NEVER] for token in self._bad_tokens(options)]
        if options.logprobs is not None:
            body["n_probs"] = max(1, options.logprobs)
        return body

    def _refuse(self, options: GenerationOptions, most: int) -> None:
        if options.n > SLOTS:
            raise OptionError(f"n={options.n} must be at most {SLOTS} with llama.cpp")
        if 0 < options.min_new_tokens < most:
            raise OptionError(
                f"min_new_tokens={options.min_new_tokens} is not possible with llama.cpp, unless it is max_new_tokens; "
                "use engine='torch'"
            )
        for name, tokens in (("logit_bias", options.logit_bias or {}), ("stop_token_ids", options.stop_token_ids)):
            if any(token >= self._vocabulary for token in tokens):
                raise OptionError(f"{name} has tokens beyond the vocabulary of {self._vocabulary}")
        if options.num_beams > 1:
            raise OptionError(f"num_beams={options.num_beams} {NO_BEAMS}")
        elsewhere = {"frequency_penalty": 0, "presence_penalty": 0, "no_repeat_ngram_size": 0, "adapter": None}
        for name, off in elsewhere.items():
            if getattr(options, name) != off:
                raise OptionError(
                    f"{name}={getattr(options, name)!r:.80} is not possible with llama.cpp; use engine='torch'"
                )

    def _bad_tokens(self, options: GenerationOptions) -> list[int]:
        found = []
        for word in options.bad_words:
            for text in (word, f" {word}"):
                ids = self.encode(text)
                if len(ids) > 1:
                    raise OptionError(
                        f"bad_words={word!r:.80} has {len(ids)} tokens, which llama.cpp can't forbid; use engine='torch'"
                    )
                found += ids
        return found

    def close(self) -> None:
        """End what runs and free the model; twice is fine."""
        if os.getpid() != self._process:
            return
        with self._changed:
            self._closing = True
            for request in (*self._waiting, *self._running):
                request.gone = True
                request.out.put(ModelClosedError("the model was closed"))
            self._waiting.clear()
            self._changed.notify_all()
        for worker in self._workers:
            worker.join()
        with self._changed:
            freed, self._freed = self._freed, True
        if not freed:
            self._native.close()

    # The threads

    def _serve(self) -> None:
        while (request := self._next()) is not None:
            try:
                self._native.complete(request.body, partial(self._hear, request))
                if not request.over:
                    request.out.put(InferenceError("llama.cpp ended without an answer"))
            except BaseException as problem:
                request.out.put(InferenceError(f"llama.cpp failed: {type(problem).__name__}: {str(problem)[:200]}"))
            finally:
                with self._changed:
                    self._running.discard(request)
                    self._changed.notify_all()

    def _next(self) -> _Request | None:
        """The request that came first, once there is room for it; None at the end."""
        with self._changed:
            while not self._closing:
                while self._waiting and self._waiting[0].over:
                    self._waiting.popleft()
                if self._waiting and self._fits(self._waiting[0]):
                    request = self._waiting.popleft()
                    self._running.add(request)
                    return request
                self._changed.wait()
        return None

    def _fits(self, request: _Request) -> bool:
        slots = sum(len(each.choices) for each in self._running) + len(request.choices)
        return slots <= SLOTS and sum(each.cells for each in self._running) + request.cells <= self.context_length

    def _hear(self, request: _Request, event: Event) -> bool:
        """One event of llama.cpp; True ends the request.

        Nothing may be raised from here: the binding would go on.
        """
        try:
            if "error" in event:
                request.out.put(_as_error(event["error"]))
                request.gone = True
            elif not request.over:
                if request.late:
                    request.end_late()
                elif "prompt_progress" not in event and (told := event.get("__verbose")) is not None:
                    self._hear_tokens(request, event, told)
        except BaseException as problem:
            request.out.put(InferenceError(f"llama.cpp said {str(event)[:100]}: {type(problem).__name__}: {problem}"))
            request.gone = True
        return request.over

    def _hear_tokens(self, request: _Request, event: Event, told: Event) -> None:
        index: int = told["index"]
        choice, options = request.choices[index], request.options
        if choice.ended:
            return
        if told["stop"]:
            cached = (event.get("timings") or {}).get("cache_n", 0)
            request.cached = max(request.cached, cached)
            choice.generated = told["tokens_predicted"]
            self._end(request, index, told["stop_type"])
            return
        if request.first_token is None:
            request.first_token = time.monotonic()
        missing = told["tokens_predicted"] - choice.generated - len(told["tokens"])
        choice.generated = told["tokens_predicted"]
        text, tokens = told["content"], told["tokens"]
        if any(token in options.stop_token_ids for token in tokens):
            request.say(index, choice.scanner.rest(), "stop")
            return
        if choice.follower is not None and not choice.follower.add(text):  # llama.cpp goes on without its grammar
            request.out.put(OptionError(f"{options.grammar} {TOO_COMPLICATED}"))
            request.gone = True
            return
        choice.tokens += self._with_missing(text, tokens, missing)
        if options.logprobs is not None:
            choice.logprobs += self._probabilities(event, options.logprobs)
        shown, stopped = choice.scanner.add(text)
        if stopped:
            request.say(index, shown, "stop")
        elif shown:
            request.say(index, shown)

    def _with_missing(self, text: str, tokens: list[int], missing: int) -> list[int]:
        """The tokens of a text, when ``missing`` of them were not told."""
        if missing <= 0:
            return tokens
        usual: list[int] = self._native.call("/tokenize", {"content": text, "parse_special": False})["tokens"]
        return usual

    def _end(self, request: _Request, index: int, why: str) -> None:
        choice = request.choices[index]
        if why == "limit":
            request.say(index, choice.scanner.rest(), "length")
            return
        if choice.tokens:  # the last one is that which ends texts
            last = choice.tokens.pop()
            if choice.logprobs and choice.logprobs[-1].token_id == last:
                choice.logprobs.pop()
        request.say(index, choice.scanner.rest(), "stop")

    def _probabilities(self, event: Event, most: int) -> list[TokenLogprob]:
        told = (event["choices"][0].get("logprobs") or {}).get("content") or []
        return [
            TokenLogprob(
                token_id=each["id"],
                text=self._text_of(each["id"]),
                logprob=min(0.0, each["logprob"]),
                alternatives=tuple((other["id"], min(0.0, other["logprob"])) for other in each["top_logprobs"][:most]),
            )
            for each in told
        ]


def _listed(metadata: dict[str, Any], key: str) -> list[Any]:
    values = metadata.get(f"tokenizer.ggml.{key}")
    return values if isinstance(values, list) else []


def _as_error(told: Event) -> Exception:
    said = " ".join(str(told.get("message")).split())[:200]
    if told.get("code") == 400:
        return OptionError(f"llama.cpp refuses the request: {said}")
    return InferenceError(f"llama.cpp failed: {said}")
