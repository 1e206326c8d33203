"""The torch engine: one thread that computes a token of every running answer at each step.

Answers join and leave between two steps; each has its own sampler, stops, grammar and cancellation. A long prompt is
read in pieces between which the others go on.
"""

from __future__ import annotations

import atexit
import logging
import os
import queue
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import torch
from transformers import PreTrainedTokenizerFast

from tabml.cancellation import Cancellation
from tabml.errors import CapacityError, InferenceError, ModelClosedError, OptionError, TabmlError
from tabml.generation.calls import Answers, handed_over, room_of
from tabml.generation.options import GenerationOptions
from tabml.generation.results import Delta, FinishReason, TokenLogprob, Usage
from tabml.generation.streaming import Detokenizer, StopScanner
from tabml.text._torch.adapters import Adapter, Rows, put_into, read_adapter
from tabml.text._torch.cache import SlotCache
from tabml.text._torch.compiled import CompiledLayers
from tabml.text._torch.grammar import Grammars
from tabml.text._torch.lanes import changes_with_length
from tabml.text._torch.lookup import PromptLookup
from tabml.text._torch.packing import weight_bytes
from tabml.text._torch.recording import cuda_recorder
from tabml.text._torch.sampling import NONE_LEFT, Sampler, draw, log_probabilities
from tabml.text._torch.steps import MOST_ROWS, MOST_TOKENS, Step, Steps, rows_for
from tabml.text._torch.teams import disband
from tabml.text.engine import NO_BEAMS, EngineName
from tabml.text.grammars import TOO_COMPLICATED
from tabml.text.repository import Repository

log = logging.getLogger("tabml.text")

MAX_TOGETHER = 32
"""Answers that run at a time on a CPU; the rest wait. In steps of fixed shape it is ``MOST_ROWS``."""
MAX_WAITING = 1024
_PIECE = 256
"""Tokens of a prompt that are read while other answers wait."""
_PADDED = 8192
"""Those of several prompts that a GPU reads together, padding among them."""
_KEPT_BYTES = 1 << 30
_PACK_AFTER_S = 0.25
"""Without a request, before the first; a parent that loads a model asks it something soon."""
_COMPILE_AFTER_S, _COMPILE_AFTER_STEPS = 2.0, 300
"""Without a request, or with many: a script that asks for a few tokens ends without waiting for a compiler."""
_POLL_S = 0.02
_NO_SLOTS = ("bloom", "mpt", "falcon", "gpt_neo", "xlnet", "reformer")
_FULL, _SLIDING = "full_attention", "sliding_attention"


@dataclass(eq=False)
class _Request:
    """All answers to one prompt."""

    prompt: tuple[int, ...]
    options: GenerationOptions
    cancellation: Cancellation
    out: Answers = field(default_factory=queue.SimpleQueue)
    started: float = field(default_factory=time.monotonic)
    first_token: float | None = None
    cached: int = 0
    generated: int = 0
    guessed: int = 0
    left: int = 0
    gone: bool = False

    def leave(self) -> None:
        """Nobody listens any more."""
        self.gone = True

    @property
    def unwanted(self) -> bool:
        """Nobody listens, or somebody has said to stop."""
        return self.gone or self.cancellation.cancelled

    def late(self, now: float) -> bool:
        """Whether its ``max_time_s`` is over."""
        most = self.options.max_time_s
        return most is not None and now - self.started > most

    def usage(self) -> Usage:
        now = time.monotonic()
        return Usage(
            prompt_tokens=len(self.prompt),
            completion_tokens=self.generated,
            cached_tokens=self.cached,
            guessed_tokens=self.guessed,
            time_to_first_token_s=(self.first_token or now) - self.started,
            seconds=now - self.started,
        )


@dataclass(eq=False)
class _Run:
    """One answer."""

    request: _Request
    index: int
    sampler: Sampler
    words: Detokenizer
    scanner: StopScanner
    most: int
    adapter: Adapter | None = None
    lookup: PromptLookup | None = None
    slot: int = -1
    read: int = 0
    """Tokens of the prompt that are in the cache."""
    next_token: int = -1
    """Chosen, not yet in the cache."""
    tokens: list[int] = field(default_factory=list)
    unsaid: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)

    @property
    def left(self) -> int:
        """How many tokens it may still have."""
        return self.most - len(self.tokens)

    @property
    def begun(self) -> bool:
        return self.next_token >= 0

    @property
    def computed_with(self) -> int:
        """The number of the adapter, 0 for none; a slot keeps it, and not the weights of one that is unloaded."""
        return self.adapter.number if self.adapter is not None else 0


class _Ahead(NamedTuple):
    """A step that has begun and the answers it is for, by rows."""

    runs: list[_Run]
    step: Step


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Whatever a tokenizer fails with, as an error of ours; a Rust panic is a BaseException."""
    try:
        yield
    except (MemoryError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as problem:
        raise InferenceError(f"{what}: {type(problem).__name__}: {str(problem)[:200]}") from problem


_OPEN: weakref.WeakSet[TorchEngine] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """A process whose main thread ends while another is within torch is aborted now and then."""
    for engine in list(_OPEN):
        engine.close()


class TorchEngine:
    """A causal language model of transformers, served by one thread."""

    name: EngineName = "torch"

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        chat_template: str | None = None,
        end_ids: Sequence[int] = (),
        context_length: int | None = None,
        packing: Iterator[object] | None = None,
        static: bool | None = None,
        compiled: bool | None = None,
    ) -> None:
        """Starts its thread.

        Args:
            model: In eval mode, on its device.
            tokenizer: Of the model.
            chat_template: The model's own, as Jinja.
            end_ids: Tokens that end an answer.
            context_length: Tokens of prompt and answer together; the model's own when None.
            packing: Makes a layer of the model quicker with each value that is taken. That is done while there is
                nothing else to do, and after the first token also between others.
            static: Compute in few shapes, many prompts at a time; what a GPU wants, where it is the default.
            compiled: Compile the layers of steps of such shapes after the last value of ``packing``, in a thread; the
                default on a GPU.

        Raises:
            OptionError: ``context_length`` is more than the model's own.
        """
        config = model.config.get_text_config()
        self._model, self._tokenizer, self._text_of = model, tokenizer, _decoder(tokenizer)
        self._device = model.device
        trained = int(getattr(config, "max_position_embeddings", 0) or 2048)
        self.context_length = context_length or trained
        if self.context_length > trained:
            raise OptionError(
                f"context_length={context_length} must be at most {trained}, which this model was made for"
            )
        self.chat_template = chat_template
        self.special_tokens: Mapping[str, str] = {
            name: str(value) for name, value in tokenizer.special_tokens_map.items() if isinstance(value, str)
        }
        self.control_tokens = frozenset(
            {*map(str, tokenizer.all_special_tokens)}
            | {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
        )
        self._vocabulary = int(config.vocab_size)
        self._end_ids = tuple(end_ids)
        self._grammars = Grammars(tokenizer, self._vocabulary, self._end_ids)
        self._layers = int(config.num_hidden_layers)
        kinds = set(getattr(config, "layer_types", None) or ())
        self._kinds = kinds
        self._window = int(getattr(config, "sliding_window", None) or 0)
        self._together = config.model_type not in _NO_SLOTS and kinds <= {_FULL, _SLIDING}
        on_gpu = self._device.type == "cuda"
        wanted = on_gpu if static is None else static
        self._static = wanted and self._together and not changes_with_length(model)
        self._recorder = partial(cuda_recorder, self._device) if on_gpu else None
        self._free_bytes = partial(_free_bytes, self._device) if on_gpu else None
        self._added_masks = config._attn_implementation == "eager"
        self._most_together = 1 if not self._together else MOST_ROWS if self._static else MAX_TOGETHER
        wanted = self._static and (on_gpu if compiled is None else compiled)
        self._compiled = self._compilable(model) if wanted else None
        self._layer_run: Callable[..., Any] | None = None
        self._slots: SlotCache
        self._owners: list[_Run | None]
        self._texts: list[list[int]]
        self._kept_with: list[int]
        self._steps: Steps | None
        self._ahead: _Ahead | None
        self._forget()
        self._adapters: dict[str, Adapter] = {}
        self._rows = Rows()
        self._packing: Iterator[object] = chain(packing or (), self._compile())
        self._pack_after, self._changing = _PACK_AFTER_S, threading.Lock()
        self.packed = threading.Event()
        """Every layer is as quick as it gets."""
        self._hurry = threading.Event()
        self._stepped = 0
        self._lock = threading.Condition()
        self._waiting: deque[_Run] = deque()
        self._running: list[_Run] = []
        self._closing = False
        self._process = os.getpid()
        self._thread = threading.Thread(target=self._serve, name="generate", daemon=True)
        self._thread.start()
        _OPEN.add(self)

    def encode(self, text: str, *, special_tokens: bool = False, parse_special: bool = True) -> list[int]:
        """The tokens of a text; see :class:`tabml.text.engine.Engine`."""
        with _told("the text can't be tokenized"):
            ids: list[int] = self._tokenizer(
                text, add_special_tokens=special_tokens, split_special_tokens=not parse_special
            )["input_ids"]
        return ids

    def decode(self, token_ids: Sequence[int], *, special_tokens: bool = False) -> str:
        """The text of tokens."""
        with _told("the tokens can't be decoded"):
            return self._text_of(list(token_ids), skip_special_tokens=not special_tokens)

    def stream(self, prompt: Sequence[int], options: GenerationOptions, cancellation: Cancellation) -> Iterator[Delta]:
        """The answers, piece by piece; see :class:`tabml.text.engine.Engine`."""
        request = _Request(tuple(prompt), options, cancellation)
        runs = self._runs(request)
        request.left = len(runs)
        with self._lock:
            if self._closing:
                raise ModelClosedError("this model is closed; open a new one")
            if len(self._waiting) + len(runs) > MAX_WAITING:
                raise CapacityError(f"{len(self._waiting)} answers wait already; try again a little later")
            self._waiting.extend(runs)
            self._lock.notify_all()
        return handed_over(request.out, cancellation, request.leave)

    def _runs(self, request: _Request) -> list[_Run]:
        options, prompt = request.options, request.prompt
        room = room_of(prompt, context_length=self.context_length, vocabulary=self._vocabulary)
        if options.num_beams > 1:
            raise OptionError(f"num_beams={options.num_beams} {NO_BEAMS}")
        adapter = self._adapter(options.adapter) if options.adapter is not None else None
        end_ids = tuple(dict.fromkeys((*self._end_ids, *options.stop_token_ids)))
        bad = tuple(tuple(self.encode(each)) for word in options.bad_words for each in (word, f" {word}"))
        return [
            _Run(
                request=request,
                index=index,
                sampler=Sampler(
                    options,
                    prompt,
                    vocabulary=self._vocabulary,
                    end_ids=end_ids,
                    bad_ids=tuple(ids for ids in bad if ids),
                    matcher=self._grammars.matcher(options),
                    choice=index,
                ),
                words=Detokenizer(self.decode, prompt),
                scanner=StopScanner(options.stop),
                most=min(options.max_new_tokens, room),
                adapter=adapter,
                lookup=PromptLookup(prompt, options.prompt_lookup_tokens) if options.prompt_lookup_tokens else None,
            )
            for index in range(options.n)
        ]

    @property
    def adapters(self) -> tuple[str, ...]:
        """The names of the LoRA adapters that are loaded."""
        return tuple(self._adapters)

    def wait_until_packed(self, timeout_s: float | None = None) -> bool:
        """Wait until every layer is as quick as it gets; see :class:`tabml.text.engine.Packing`."""
        self._hurry.set()
        return self.packed.wait(timeout_s) and not self._closing

    def load_adapter(self, repository: Repository, name: str) -> None:
        """Load a LoRA adapter; see :class:`tabml.text.engine.Adapting`."""
        adapter = read_adapter(repository, name, self._model)
        if self._compiled is not None:
            self._compiled.stop()  # other modules are not those that were compiled
        with self._changing:
            put_into(self._model, adapter, self._rows)
        self._adapters[name] = adapter

    def unload_adapter(self, name: str) -> None:
        """Forget a LoRA adapter; see :class:`tabml.text.engine.Adapting`."""
        self._adapter(name)
        self._adapters.pop(name, None)

    def _adapter(self, name: str) -> Adapter:
        found = self._adapters.get(name)
        if found is None:
            known = ", ".join(self._adapters) or "none"
            raise OptionError(f"adapter={name!r:.80} is not loaded; there are: {known}")
        return found

    @property
    def bytes_a_token(self) -> int:
        """Bytes of weights that are read for each token of one answer."""
        return weight_bytes(self._model)

    def score(self, tokens: Sequence[int]) -> list[float]:
        """How likely each token is after those before it; see :class:`tabml.text.engine.Scoring`."""
        if not 2 <= len(tokens) <= self.context_length:
            raise OptionError(f"tokens has {len(tokens)} tokens; there must be from 2 to {self.context_length}")
        ids = torch.tensor([list(tokens)], device=self._device)
        with torch.inference_mode():
            scores = self._model(input_ids=ids, use_cache=False).logits[0, :-1].float().log_softmax(-1)
            found: list[float] = scores.gather(1, ids[0, 1:, None])[:, 0].tolist()
        return found

    def close(self) -> None:
        """End what runs and free the model; twice is fine."""
        if os.getpid() != self._process:
            return
        with self._lock:
            self._closing = True
            self._lock.notify_all()
        self._thread.join()
        if self._compiled is not None:
            self._compiled.close()
        self._compiled, self._layer_run = None, None
        self._model = None
        self._steps, self._ahead = None, None
        self._slots = SlotCache(0, 0)

    # The thread

    def _serve(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.set_device(self._device)  # of this thread; recordings are of the current one
        while True:
            with self._lock:
                if not (self._waiting or self._running) and self.packed.is_set():
                    disband()
                while not (self._waiting or self._running or self._closing):
                    if not self._lock.wait(None if self.packed.is_set() else self._pack_after):
                        break
                if self._closing:
                    ending = [*self._running, *self._waiting]
                    self._waiting.clear()
                    self._running = []
                    break
            try:
                with torch.inference_mode():
                    self._step()
            except BaseException as problem:
                self._fail(problem)
            if all(run.begun for run in self._running):
                self._pack()
        self._packing = iter(())
        self.packed.set()  # nobody waits for a model that is closed
        for run in ending:
            run.request.out.put(ModelClosedError("the model was closed"))

    def _pack(self) -> None:
        """Make one layer quicker; what goes wrong with that costs speed alone."""
        self._pack_after = _POLL_S if self._compiled is not None else 0.0
        if self.packed.is_set():
            return
        try:
            with self._changing:
                if next(self._packing, None) is not None:
                    return
        except (RuntimeError, MemoryError) as problem:
            log.warning("the model stays as it was read, which is slower", exc_info=problem)
        self._packing = iter(())
        self.packed.set()

    def _compilable(self, model: Any) -> CompiledLayers | None:
        try:
            return CompiledLayers(model, self._layers)
        except ValueError as problem:
            log.info("layers of this model are not compiled: %s", problem)
            return None

    def _compile(self) -> Iterator[str]:
        """Go on with compiled layers once they are; steps are recorded again."""
        if self._compiled is None:
            return
        idle_since = time.monotonic()
        while not self._hurry.is_set() and self._stepped < _COMPILE_AFTER_STEPS:
            idle_since = time.monotonic() if self._running else idle_since
            if time.monotonic() - idle_since > _COMPILE_AFTER_S:
                break
            yield "nothing yet"
        if self._adapters:
            return
        try:
            yield from self._compiled.compile(self._scores)
        finally:  # also those that were recorded meanwhile: while one thread compiles, torch has all take other ways
            if self._compiled.ready:
                self._layer_run = self._compiled.run
            self._ahead, self._steps = None, self._new_steps()

    def _fail(self, problem: BaseException) -> None:
        """Every running answer ends; what the cache holds is of no use any more."""
        said = f"the model failed: {type(problem).__name__}: {str(problem)[:200]}"
        answer = problem if isinstance(problem, MemoryError) else InferenceError(said)
        log.error("the decode loop failed", exc_info=problem)
        for run in self._running:
            run.request.out.put(answer)
        self._running = []
        self._forget()

    def _forget(self) -> None:
        """Begin with an empty cache."""
        self._slots = SlotCache(self._layers, self.context_length)
        self._owners, self._texts, self._kept_with = [], [], []
        self._steps = self._new_steps()
        self._ahead = None

    def _new_steps(self) -> Steps | None:
        """Of which none is recorded."""
        if not self._static:
            return None
        return Steps(
            self._scores,
            self._slots,
            self._device,
            most_tokens=self.context_length,
            recorder=self._recorder,
            layer_run=self._layer_run,
        )

    def _step(self) -> None:
        """Let answers in and out, read a piece of one prompt, and compute a token of each that has begun."""
        now = time.monotonic()
        for run in list(self._running):
            self._check(run, now)
        self._admit()
        self._end_late(now)
        reading = [run for run in self._running if not run.begun]
        begun = [run for run in self._running if run.begun]
        if reading and self._steps is not None and not any(run.adapter for run in reading):
            self._read_several(reading, self._steps)
        elif reading:
            self._read(reading[0])
        if begun:
            self._decode(begun)

    def _check(self, run: _Run, now: float) -> None:
        request = run.request
        if request.unwanted:
            self._leave(run)
        elif request.late(now):
            self._finish(run, "time")

    def _end_late(self, now: float) -> None:
        """Answers whose time is over while they still wait."""
        with self._lock:
            late = [run for run in self._waiting if run.request.late(now)]
            for run in late:
                self._waiting.remove(run)
        for run in late:
            self._end(run, "time", "")

    def _admit(self) -> None:
        while len(self._running) < self._most_together:
            with self._lock:
                while self._waiting and self._waiting[0].request.unwanted:
                    self._waiting.popleft()
                if not self._waiting or not self._fits(self._waiting[0]):
                    return
                run = self._waiting.popleft()
            self._running.append(run)  # first: when placing fails, it is told
            self._place(run)

    def _fits(self, run: _Run) -> bool:
        """Whether the cache can become as large as this answer and those that run need it; alone it gets what there is."""
        fits = self._has_room(max(rows_for(len(self._running) + 1), len(self._owners)), self._longest(run))
        if self._running or fits:
            return fits
        self._forget()  # what idle slots keep would grow along
        return True

    def _longest(self, *more: _Run) -> int:
        """Tokens that the longest of these answers and those that run may get to, with its prompt."""
        return max(len(run.request.prompt) + run.most for run in (*more, *self._running))

    def _has_room(self, slots: int, tokens: int) -> bool:
        """For so many slots with so many tokens, where memory is a GPU's."""
        if self._free_bytes is None:
            return True
        more = self._slots.growth(slots, tokens)
        return more is not None and (more <= 0 or more <= self._free_bytes())

    def _place(self, run: _Run) -> None:
        """A slot for an answer: the one that already holds most of its prompt's begin."""
        prompt = run.request.prompt
        best, common = -1, 0
        for slot, text in enumerate(self._texts):
            if self._kept_with[slot] != run.computed_with:
                continue
            same = _common(text, prompt, len(prompt) - 1)
            if same > common or (same == common and common and self._owners[best] is not None):
                best, common = slot, same
        if best >= 0 and self._owners[best] is None and common * 2 >= len(self._texts[best]):
            slot = best
        else:
            slot = self._free_slot()
            if best >= 0 and common:
                self._slots.copy(best, slot, common)
        self._owners[slot] = run
        self._kept_with[slot] = run.computed_with
        self._texts[slot] = list(prompt[:common])
        self._slots.keep(slot, common)
        run.slot, run.read = slot, common
        run.request.cached = max(run.request.cached, common)

    def _free_slot(self) -> int:
        """An empty slot, or a new one, or the one that was idle for longest."""
        idle = [slot for slot, owner in enumerate(self._owners) if owner is None]
        empty = [slot for slot in idle if not self._texts[slot]]
        if empty:
            return empty[0]
        enough = len(self._owners) >= 2 * self._most_together or self._slots.bytes_held > _KEPT_BYTES
        if idle and (enough or len(idle) > 4 or not self._has_room(len(self._owners) + 1, self._longest())):
            return min(idle, key=lambda slot: len(self._texts[slot]))
        return self._add_slot()

    def _add_slot(self) -> int:
        self._owners.append(None)
        self._texts.append([])
        self._kept_with.append(0)
        return self._slots.add_slot()

    def _read(self, run: _Run) -> None:
        """A further piece of a prompt; at its end the first token is chosen."""
        prompt = run.request.prompt
        piece = prompt[run.read : run.read + _PIECE]
        scores = self._forward_one(run, piece)
        run.read += len(piece)
        self._texts[run.slot].extend(piece)
        if run.read == len(prompt):
            self._choose(run, scores, -1)

    def _read_several(self, runs: list[_Run], steps: Steps) -> None:
        """The same for one prompt or several, as many as a pass may have tokens."""
        pieces = [run.request.prompt[run.read : run.read + min(_PIECE, MOST_TOKENS)] for run in runs]
        count = max(1, _PADDED // max(map(len, pieces)))
        runs, pieces = runs[:count], pieces[:count]
        self._rows.choose([])
        scores = steps.read({run.slot: piece for run, piece in zip(runs, pieces, strict=True)})
        for run, piece in zip(runs, pieces, strict=True):
            self._slots.lengths[run.slot] += len(piece)
            run.read += len(piece)
            self._texts[run.slot].extend(piece)
        self._choose_all([(row, run) for row, run in enumerate(runs) if run.read == len(run.request.prompt)], scores)

    def _forward_one(self, run: _Run, tokens: Sequence[int], keep: int = 1) -> torch.Tensor:
        """The scores after the last ``keep`` of further tokens of one answer, (keep, vocabulary)."""
        slot = run.slot
        begin = self._slots.lengths[slot]
        self._slots.one(slot, len(tokens))
        ids = torch.tensor([list(tokens)], device=self._device)
        positions = torch.arange(begin, begin + len(tokens), device=self._device)[None]
        self._rows.choose([run.adapter])
        scores = self._model(
            input_ids=ids, position_ids=positions, past_key_values=self._slots, use_cache=True, logits_to_keep=keep
        ).logits
        self._slots.advance(len(tokens))
        return scores[0, -keep:]

    def _decode(self, runs: list[_Run]) -> None:
        """One token of each answer."""
        guesses = len(runs) == 1 and runs[0].lookup is not None
        if self._steps is not None and not guesses and not any(run.adapter for run in runs):
            self._decode_ahead(runs, self._steps)
            return
        self._ahead = None  # what it has written is written again
        if len(runs) == 1:
            self._decode_one(runs[0])
            return
        self._gather(runs)
        runs = sorted(runs, key=lambda run: run.slot)
        mask = self._slots.many(len(runs), self._device)
        ids = torch.tensor([[run.next_token] for run in runs], device=self._device)
        positions = torch.tensor([[self._slots.lengths[run.slot]] for run in runs], device=self._device)
        self._rows.choose([run.adapter for run in runs])
        scores = self._scores(ids, mask, positions)
        self._slots.advance()
        for run in runs:
            self._texts[run.slot].append(run.next_token)
        self._choose_all(list(enumerate(runs)), scores)

    def _decode_ahead(self, runs: list[_Run], steps: Steps) -> None:
        """The same in a step of fixed shape; that after it begins before anybody has looked at its tokens, if it may."""
        wanted = set(runs)
        self._rows.choose([])
        ahead, self._ahead = self._ahead, None
        if ahead is None or wanted.isdisjoint(ahead.runs):
            ahead = self._begin(runs, steps)
        if wanted == set(ahead.runs) and all(run.sampler.plain and run.left > 1 for run in runs):
            following = steps.follow(ahead.step, len(runs))
            self._ahead = _Ahead(ahead.runs, following) if following is not None else None
        still = [(row, run) for row, run in enumerate(ahead.runs) if run in wanted]  # others have ended meanwhile
        best = ahead.step.best()
        for _, run in still:
            self._slots.lengths[run.slot] += 1
            self._texts[run.slot].append(run.next_token)
        self._stepped += 1
        self._choose_all(still, ahead.step.scores, best)

    def _begin(self, runs: list[_Run], steps: Steps) -> _Ahead:
        self._gather(runs)
        runs.sort(key=lambda run: run.slot)
        while len(self._owners) < steps.rows_for(len(runs)):
            self._add_slot()
        return _Ahead(list(runs), steps.begin([run.next_token for run in runs]))

    def _decode_one(self, run: _Run) -> None:
        """One token, and those after it that were guessed rightly."""
        slot, lookup = run.slot, run.lookup
        begin = self._slots.lengths[slot]
        room = min(run.left, self.context_length - begin) - 1
        guess = lookup.guess()[: max(0, room)] if lookup is not None else []
        tokens = [run.next_token, *guess]
        scores = self._forward_one(run, tokens, len(tokens))
        for at, token in enumerate(tokens):
            self._slots.lengths[slot] = begin + at + 1
            self._texts[slot].append(token)
            run.request.guessed += at > 0
            self._choose(run, scores, at)
            if self._owners[slot] is not run or run.next_token not in guess[at : at + 1]:
                break
        if lookup is not None and guess:
            lookup.learn(len(guess), at)

    def _scores(
        self,
        ids: torch.Tensor,
        mask: torch.Tensor,
        positions: torch.Tensor,
        slots: SlotCache | None = None,
    ) -> torch.Tensor:
        """The scores after the last token of each row, (rows, vocabulary); the cache says which slots they are."""
        scores: torch.Tensor = self._model(
            input_ids=ids,
            attention_mask=self._masks(mask, positions),
            position_ids=positions,
            past_key_values=self._slots if slots is None else slots,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        return scores

    def _masks(self, mask: torch.Tensor, positions: torch.Tensor) -> Any:
        """The mask of each kind of layer."""
        if not self._window or self._kinds == {_FULL}:
            return self._mask(mask)
        at = torch.arange(mask.shape[-1], device=mask.device)
        near = self._mask(mask & (at > positions[:, None, :, None] - self._window))
        return {_FULL: self._mask(mask), _SLIDING: near} if self._kinds else near

    def _mask(self, mask: torch.Tensor) -> torch.Tensor:
        """As the model takes it: transformers' own attention, where torch's isn't used, adds it to the scores."""
        if not self._added_masks:
            return mask
        dtype = self._model.dtype
        return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, torch.finfo(dtype).min)

    def _gather(self, runs: list[_Run]) -> None:
        """Have these answers in the first slots."""
        wanted = len(runs)
        holes = [slot for slot in range(wanted) if self._owners[slot] not in runs]
        for run in runs:
            if run.slot >= wanted:
                self._swap(run.slot, holes.pop())

    def _swap(self, one: int, other: int) -> None:
        self._slots.swap(one, other)
        self._owners[one], self._owners[other] = self._owners[other], self._owners[one]
        self._texts[one], self._texts[other] = self._texts[other], self._texts[one]
        self._kept_with[one], self._kept_with[other] = self._kept_with[other], self._kept_with[one]
        for slot in (one, other):
            owner = self._owners[slot]
            if owner is not None:
                owner.slot = slot

    def _choose_all(
        self, rows: Sequence[tuple[int, _Run]], scores: torch.Tensor, best: Sequence[int] | None = None
    ) -> None:
        """Choose for several answers, together where what came before doesn't matter.

        Args:
            rows: Of ``scores``, and whose they are.
            scores: (rows, vocabulary).
            best: The most probable token of each row, where that is known.
        """
        if best is None and any(run.sampler.plain for _, run in rows):
            best = scores.argmax(-1).tolist()
        found = {row: best[row] for row, run in rows if run.sampler.plain} if best is not None else {}
        drawing = {row: run.sampler for row, run in rows if run.sampler.draws}
        if drawing:
            found.update(zip(drawing, draw(list(drawing.values()), scores[list(drawing)]), strict=True))
        for row, run in rows:
            self._choose(run, scores, row, found.get(row))

    def _choose(self, run: _Run, scores: torch.Tensor, row: int, token: int | None = None) -> None:
        """Choose the next token of an answer by its row of the scores, unless it is known, and say it; it may end."""
        request, options = run.request, run.request.options
        raw = scores[row].clone() if options.logprobs is not None else None
        if token is None:
            token = run.sampler.choose(scores[row])
        if token == NONE_LEFT:
            self._refuse(run, _none_left(run, bool(scores[row].isnan().any())))
            return
        if request.first_token is None:
            request.first_token = time.monotonic()
        request.generated += 1
        if token in self._end_ids or token in options.stop_token_ids:
            self._finish(run, "stop")
            return
        run.sampler.accept(token)
        if run.sampler.lost:
            self._refuse(run, OptionError(f"{options.grammar} {TOO_COMPLICATED}"))
            return
        run.tokens.append(token)
        run.unsaid.append(token)
        if options.logprobs is not None and raw is not None:
            value, alternatives = log_probabilities(raw, token, options.logprobs)
            run.logprobs.append(
                TokenLogprob(token_id=token, text=self.decode([token]), logprob=value, alternatives=alternatives)
            )
        run.next_token = token
        if run.lookup is not None:
            run.lookup.add(token)
        text, stopped = run.scanner.add(run.words.add(token))
        if stopped:
            self._finish(run, "stop", text)
        elif run.sampler.complete:
            self._finish(run, "stop", text + self._rest(run))
        elif len(run.tokens) >= run.most:
            self._finish(run, "length", text + self._rest(run))
        elif text:
            self._say(run, text)

    def _refuse(self, run: _Run, problem: TabmlError) -> None:
        """End an answer, and those to the same prompt with it, for what it asks; the others go on."""
        run.request.gone = True
        run.request.out.put(problem)
        self._leave(run)

    @staticmethod
    def _rest(run: _Run) -> str:
        text, stopped = run.scanner.add(run.words.rest())
        return text if stopped else text + run.scanner.rest()

    def _say(self, run: _Run, text: str, reason: FinishReason | None = None, usage: Usage | None = None) -> None:
        run.request.out.put(
            Delta(
                text=text,
                index=run.index,
                token_ids=tuple(run.unsaid),
                logprobs=tuple(run.logprobs),
                finish_reason=reason,
                usage=usage,
            )
        )
        run.unsaid, run.logprobs = [], []

    def _finish(self, run: _Run, reason: FinishReason, text: str | None = None) -> None:
        if text is None:
            text = self._rest(run)
        self._leave(run)
        self._end(run, reason, text)

    def _end(self, run: _Run, reason: FinishReason, text: str) -> None:
        run.request.left -= 1
        self._say(run, text, reason, run.request.usage() if run.request.left == 0 else None)

    def _leave(self, run: _Run) -> None:
        """The slot is free; what it holds may help a later prompt."""
        self._running.remove(run)
        self._owners[run.slot] = None
        del self._texts[run.slot][self._slots.lengths[run.slot] :]


def _decoder(tokenizer: Any) -> Callable[..., str]:
    """What makes text of token ids: of a plain fast tokenizer the library below, as transformers takes eight times as long."""
    if getattr(type(tokenizer), "_decode", None) is PreTrainedTokenizerFast._decode:
        found: Callable[..., str] = tokenizer.backend_tokenizer.decode
        return found
    return partial(tokenizer.decode, clean_up_tokenization_spaces=False)


def _none_left(run: _Run, not_numbers: bool) -> TabmlError:
    """Why no token could be chosen."""
    forbids = run.sampler.forbids
    if forbids and not not_numbers:
        return OptionError(f"{' and '.join(forbids)} together leave no token that may come next; leave one of them out")
    named = f" with the adapter {run.request.options.adapter!r}" if run.adapter is not None else ""
    return InferenceError(f"the model's scores{named} are not numbers")


def _free_bytes(device: torch.device) -> int:
    """Of a GPU's memory, with what torch keeps for later; a part is left for what a pass computes with."""
    free, _ = torch.cuda.mem_get_info(device)
    return int(0.8 * (free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)))


def _common(one: Sequence[int], other: Sequence[int], most: int) -> int:
    """How many tokens both begin with."""
    most = min(len(one), len(other), most)
    for at in range(most):
        if one[at] != other[at]:
            return at
    return max(0, most)
