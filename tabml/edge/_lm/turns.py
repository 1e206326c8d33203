"""Whose turn it is: LiteRT-LM computes one answer at a time, and remembers what was said.

A thread answers requests, first come, first served. Each runs on a clone of the conversation that has read the longest
part of its prompt already, because a cancelled conversation is of no use afterwards; what was read and written stays for the
next turn.
"""

from __future__ import annotations

import atexit
import os
import queue
import random
import re
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tabml.cancellation import Cancellation
from tabml.edge._lm.native import Limits, NativeConversation, NativeEngine, Sampler
from tabml.edge._lm.parts import Part
from tabml.errors import CapacityError, InferenceError, ModelClosedError, ModelForkedError, OptionError
from tabml.generation.calls import Answers, handed_over
from tabml.generation.options import GenerationOptions
from tabml.generation.results import Delta, FinishReason, Usage
from tabml.generation.streaming import StopScanner

MAX_WAITING = 1024
_LOOK_S = 0.02
_MOST_PIECES = 1 << 14
_SEEDS = 1 << 31
_BAN = -100.0
_EVERY = 1 << 24
_TOKEN_CHARACTERS = 256
"""More than any vocabulary's longest token has, which are spaces."""
_TOO_LONG = re.compile("Exceeding the maximum number of tokens|exceeds available state entries")


@dataclass(eq=False)
class _Kept:
    """A conversation whose past may be the beginning of a prompt."""

    native: NativeConversation
    sampler: Sampler
    text: str
    """All that it has read and written."""
    parts: tuple[bytes, ...]
    """Digests of the pictures and sounds that it has read."""
    tokens: int
    ended: bool
    """It has also written a token that ends answers."""


@dataclass(eq=False)
class _Request:
    """All answers to one prompt."""

    prompt: str
    parts: Sequence[Part]
    prompt_tokens: int
    """Of its text, until its pictures and sounds have been read."""
    limits: Limits
    options: GenerationOptions
    cancellation: Cancellation
    out: Answers = field(default_factory=queue.SimpleQueue)
    started: float = field(default_factory=time.monotonic)
    first_token: float | None = None
    cached: int = 0
    written: int = 0
    gone: bool = False

    @property
    def over(self) -> bool:
        return self.gone or self.cancellation.cancelled

    @property
    def late(self) -> bool:
        most = self.options.max_time_s
        return most is not None and time.monotonic() - self.started > most

    def leave(self) -> None:
        """Nobody listens any more; the next request takes it out of those that wait."""
        self.gone = True

    def usage(self) -> Usage:
        now = time.monotonic()
        return Usage(
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.written,
            cached_tokens=self.cached,
            time_to_first_token_s=(self.first_token or now) - self.started,
            seconds=now - self.started,
        )

    def say(self, index: int, text: str, tokens: Sequence[int] = (), reason: FinishReason | None = None) -> None:
        last = reason is not None and index == self.options.n - 1
        usage = self.usage() if last else None
        self.out.put(Delta(text=text, index=index, token_ids=tuple(tokens), finish_reason=reason, usage=usage))


@dataclass(eq=False)
class _Said:
    """What came of one answer."""

    text: str
    pieces: int
    tokens: int
    """Of the text."""
    reason: FinishReason | None
    """None where the model ended, or had no more room."""


_OPEN: weakref.WeakSet[Turns] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """An engine that outlives the interpreter calls into it."""
    for turns in list(_OPEN):
        turns.close()


class Turns:
    """A loaded model and its conversations. Thread-safe."""

    name = "litert-lm"

    def __init__(
        self, engine: NativeEngine, *, context_length: int, start_token: bool, stops: Sequence[str], keep: int
    ) -> None:
        """Takes the engine over.

        Args:
            engine: A loaded model.
            context_length: Of it.
            start_token: Whether it puts a token before what a conversation begins with.
            stops: What it ends answers with, written as prompts have it.
            keep: How many conversations stay in memory.
        """
        self._engine, self._start = engine, int(start_token)
        self.context_length = context_length
        self._stops, self._keep = tuple(stops), keep
        written = engine.encode(stops[0]) if stops else []
        self._dummy = written[0] if len(written) == 2 else None
        self._pieces: dict[str, tuple[int, ...]] = {}
        self._kept: deque[_Kept] = deque()
        self._process = os.getpid()
        self._tokenizing = threading.Lock()
        self._changed = threading.Condition()
        self._waiting: deque[_Request] = deque()
        self._running: _Request | None = None
        self._closing = False
        self._freed = False
        self._worker: threading.Thread | None = None
        _OPEN.add(self)

    def encode(self, text: str) -> list[int]:
        """The tokens of a text; control tokens written in it are control tokens.

        One text at a time, since 8 MiB take half a gigabyte meanwhile; the engine is not freed before it is done.

        Raises:
            ModelClosedError: :meth:`close` came first.
            ModelForkedError: this process is a fork of the one that opened the model.
        """
        self._check_open()
        with self._tokenizing:
            self._check_open()
            return self._engine.encode(text)

    def stream(
        self, prompt: str, parts: Sequence[Part], options: GenerationOptions, cancellation: Cancellation
    ) -> Iterator[Delta]:
        """The answers, piece by piece; the last delta has the usage.

        ``token_ids`` are those that the tokenizer writes the text with: LiteRT-LM tells text only. ``completion_tokens`` are
        those that it computed; of an answer that was cut by a stop or by time the ``token_ids``. How many tokens pictures and
        sounds are turns out when they are read.

        Args:
            prompt: With as many marks as there are parts.
            parts: Pictures and sounds, in the order of their marks.
            options: Of the answers.
            cancellation: Ends them.

        Raises:
            OptionError: an option is impossible here, or the prompt leaves no room in the context.
            CallCancelledError: ``cancellation`` was set.
            CapacityError: too many wait.
            ModelClosedError: :meth:`close` came first.
        """
        if len(prompt) > _TOKEN_CHARACTERS * self.context_length:
            raise OptionError(
                f"prompt has {len(prompt)} characters; the context of {self.context_length} tokens has no room for them"
            )
        count = len(self.encode(prompt)) + self._start
        if count <= self._start:
            raise OptionError("prompt='' must have at least one token")
        if count >= self.context_length:
            raise OptionError(
                f"prompt has {count} tokens; the context of {self.context_length} leaves no room for an answer"
            )
        limits = self._limits(options, min(options.max_new_tokens, self.context_length - count))
        request = _Request(prompt, parts, count, limits, options, cancellation)
        with self._changed:
            self._check_open()
            self._waiting = deque(each for each in self._waiting if not each.over)
            if len(self._waiting) >= MAX_WAITING:
                raise CapacityError(f"{len(self._waiting)} prompts wait already; try again a little later")
            self._waiting.append(request)
            if self._worker is None:
                self._worker = threading.Thread(target=self._serve, name="litert-lm", daemon=True)
                self._worker.start()
            self._changed.notify_all()
        return handed_over(
            request.out, cancellation, request.leave, patience_s=options.max_time_s,
            give_up=lambda: self._give_up(request),
        )  # fmt: skip

    def close(self) -> None:
        """End what runs and free the model; twice is fine."""
        if os.getpid() != self._process:
            return
        with self._changed:
            self._closing = True
            for request in (*self._waiting, *([self._running] if self._running else [])):
                request.gone = True
                request.out.put(ModelClosedError("the model was closed"))
            self._waiting.clear()
            self._changed.notify_all()
        if self._worker is not None:
            self._worker.join()
        with self._tokenizing:
            if not self._freed:
                self._freed = True
                self._forget(0)
                self._engine.close()

    def _check_open(self) -> None:
        if self._closing:
            raise ModelClosedError("this model is closed; open a new one")
        if os.getpid() != self._process:
            raise ModelForkedError("this model was opened before a fork; open a new one in the child")

    def _give_up(self, request: _Request) -> None:
        """End a request that has waited for too long; one that runs ends by itself."""
        with self._changed:
            if request not in self._waiting:
                return
            self._waiting.remove(request)
        for index in range(request.options.n):
            request.say(index, "", reason="time")

    def _limits(self, options: GenerationOptions, most: int) -> Limits:
        """The options in LiteRT-LM's words.

        Raises:
            OptionError: it has no word for one.
        """
        _refuse(options)
        banned = [token for token, bias in (options.logit_bias or {}).items() if bias <= _BAN]
        if len(banned) != len(options.logit_bias or {}):
            raise OptionError("logit_bias is possible with LiteRT-LM only as -100, which forbids a token")
        for word in options.bad_words:
            for text in (word, f" {word}"):
                ids = self.encode(text)
                if len(ids) != 1:
                    raise OptionError(f"bad_words={word!r:.80} has {len(ids)} tokens, which LiteRT-LM can't forbid")
                banned += ids
        return Limits(
            max_tokens=most,
            repetition_penalty=options.repetition_penalty,
            frequency_penalty=options.frequency_penalty,
            presence_penalty=options.presence_penalty,
            no_repeat_ngram_size=options.no_repeat_ngram_size,
            forbidden=tuple(banned),
        )

    # The thread

    def _serve(self) -> None:
        while (request := self._next()) is not None:
            try:
                for index in range(request.options.n):
                    self._answer(request, index)
                    if request.over:
                        break
            except BaseException as problem:
                known = isinstance(problem, InferenceError | OptionError)
                said = f"LiteRT-LM failed: {type(problem).__name__}: {str(problem)[:200]}"
                request.out.put(problem if known else InferenceError(said))
            finally:
                with self._changed:
                    self._running = None

    def _next(self) -> _Request | None:
        with self._changed:
            while not self._closing:
                while self._waiting:
                    request = self._waiting.popleft()
                    if not request.over:
                        self._running = request
                        return request
                self._changed.wait()
        return None

    def _answer(self, request: _Request, index: int) -> None:
        sampler = _sampler(request.options, index)
        base, rest = self._remembered(request, sampler)
        conversation = base.native.clone() if base is not None else self._engine.converse(sampler)
        keeping = False
        before = base.tokens if base is not None else 0
        if index == 0:
            request.cached = before
        try:
            parts = request.parts[len(base.parts) if base is not None else 0 :]
            content = [{"type": "text", "text": rest}, *(part.to_native() for part in parts)]
            said = self._hear(request, index, conversation, content)
            if said is None:
                return
            read = len(self._engine.encode(rest)) + (self._start if base is None else 0)
            if request.parts and said.pieces:
                read = conversation.read
                request.prompt_tokens = before + read
            tokens = conversation.tokens
            wrote = max(said.pieces, tokens - before - read)
            request.written += wrote if said.reason is None else said.tokens  # one more was being written
            ended = self._ended(said, wrote, request.limits.max_tokens, tokens)
            reason = said.reason or ("stop" if ended else "length")
            if said.reason is None:
                seen = tuple(part.digest for part in request.parts)
                self._kept.append(_Kept(conversation, sampler, request.prompt + said.text, seen, tokens, ended))
                keeping = True
                self._forget(self._keep)
            request.say(index, "", reason=reason)
        finally:
            if not keeping:
                conversation.close()

    def _ended(self, said: _Said, wrote: int, most: int, tokens: int) -> bool:
        """Whether the model wrote a token that ends answers: one that was counted, but not told."""
        if wrote < most:
            return tokens < self.context_length
        return said.pieces == wrote - 1 == len(self._engine.encode(said.text))

    def _hear(
        self, request: _Request, index: int, conversation: NativeConversation, content: list[dict[str, str]]
    ) -> _Said | None:
        """Send a message and hand over what is answered; None when nobody wants it any more."""
        pieces: queue.SimpleQueue[tuple[str, bool, str]] = queue.SimpleQueue()
        heard: list[str] = []
        scanner, count, tokens = StopScanner(request.options.stop), 0, 0
        conversation.send(content, request.limits, lambda *piece: pieces.put(piece))
        while True:
            try:
                text, last, problem = pieces.get(timeout=_LOOK_S)
            except queue.Empty:
                text, last, problem = "", False, ""
            if not last and (request.over or request.late):
                _end(conversation, pieces)
                if request.over:
                    return None
                request.say(index, scanner.rest())
                return _Said("".join(heard), count, tokens, "time")
            if problem:
                raise self._failure(problem)
            if text:
                count += 1
                heard.append(text)
                if request.first_token is None:
                    request.first_token = time.monotonic()
                shown, stopped = scanner.add(text)
                written = self._tokens_of(text)
                tokens += len(written)
                request.say(index, shown, written)
                if stopped:
                    if not last:
                        _end(conversation, pieces)
                    return _Said("".join(heard), count, tokens, "stop")
            if last:
                rest = scanner.rest()
                if rest:
                    request.say(index, rest)
                return _Said("".join(heard), count, tokens, None)

    def _failure(self, problem: str) -> InferenceError | OptionError:
        """What LiteRT-LM says of an answer that failed."""
        if _TOO_LONG.search(problem):
            most = self.context_length
            return OptionError(
                f"the prompt with its pictures and sounds leaves no room in the context of {most} tokens"
            )
        return InferenceError(f"LiteRT-LM failed: {problem}")

    def _tokens_of(self, piece: str) -> Sequence[int]:
        """What the tokenizer writes a piece with, without the space that SentencePiece puts before every text."""
        known = self._pieces.get(piece)
        if known is None:
            tokens = self._engine.encode(piece)
            known = tuple(tokens[1:] if len(tokens) > 1 and tokens[0] == self._dummy else tokens)
            if len(self._pieces) >= _MOST_PIECES:
                self._pieces.clear()
            self._pieces[piece] = known
        return known

    def _remembered(self, request: _Request, sampler: Sampler) -> tuple[_Kept | None, str]:
        """The conversation that knows the most of a prompt, and what of it is left to read."""
        best, rest = None, request.prompt
        if not _may_go_on(request.options):
            return best, rest
        digests = tuple(part.digest for part in request.parts)
        for kept in self._kept:
            if not request.prompt.startswith(kept.text) or not _alike(kept.sampler, sampler):
                continue
            if digests[: len(kept.parts)] != kept.parts:
                continue
            left = request.prompt[len(kept.text) :]
            if kept.ended:
                stop = next((stop for stop in self._stops if left.startswith(stop)), None)
                if stop is None:
                    continue
                left = left[len(stop) :]
            if left and len(left) < len(rest):
                best, rest = kept, left
        if best is not None:  # the last one used is the last one forgotten
            self._kept.remove(best)
            self._kept.append(best)
        return best, rest

    def _forget(self, most: int) -> None:
        while len(self._kept) > most:
            self._kept.popleft().native.close()


def _end(conversation: NativeConversation, pieces: queue.SimpleQueue[tuple[str, bool, str]]) -> None:
    """Cancel an answer and wait for its end."""
    conversation.cancel()
    while not pieces.get()[1]:
        pass


def _may_go_on(options: GenerationOptions) -> bool:
    """Whether an answer may begin in the middle of a conversation: with a seed it would not be the same again."""
    return options.greedy or (options.seed is None and options.n == 1)


def _alike(one: Sampler, other: Sampler) -> bool:
    """Whether two conversations draw tokens alike, whatever their seeds are."""
    return (one.top_k, one.top_p, one.temperature) == (other.top_k, other.top_p, other.temperature)


def _sampler(options: GenerationOptions, index: int) -> Sampler:
    if options.greedy:
        return Sampler(top_k=1, top_p=1.0, temperature=1.0, seed=0)
    seed = random.getrandbits(31) if options.seed is None else (options.seed + index) % _SEEDS
    return Sampler(top_k=options.top_k or _EVERY, top_p=options.top_p, temperature=options.temperature, seed=seed)


_OFF: Mapping[str, Any] = {
    "min_p": 0.0, "typical_p": 1.0, "min_new_tokens": 0, "num_beams": 1, "logprobs": None, "adapter": None,
    "prompt_lookup_tokens": 0, "stop_token_ids": (),
}  # fmt: skip


def _refuse(options: GenerationOptions) -> None:
    for name, off in _OFF.items():
        if getattr(options, name) != off:
            raise OptionError(f"{name}={getattr(options, name)!r:.80} is not possible with LiteRT-LM")
    if options.repetition_penalty < 1:
        raise OptionError(f"repetition_penalty={options.repetition_penalty} must be at least 1 with LiteRT-LM")
    if options.grammar is not None:
        raise OptionError(
            f"{options.grammar} is not possible with LiteRT-LM 0.18: its grammars take a space for another character"
        )
