"""Language models made for devices: ``.litertlm`` and ``.task`` files, run by Google's LiteRT-LM."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tabml.cancellation import Cancellation, current_cancellation
from tabml.errors import CapacityError, MissingExtraError, ModelKindError, OptionError
from tabml.files import FileProvider
from tabml.files.sources import ModelSource, resolve
from tabml.generation.arguments import check_text, one_of, whole
from tabml.generation.generator import Generator
from tabml.generation.messages import MAX_PROMPT_BYTES, Message, check_messages
from tabml.generation.options import GenerationOptions
from tabml.generation.results import Delta
from tabml.generation.templates import ChatTemplate
from tabml.generation.tools import with_tool_calls
from tabml.lifecycle import LazyModel

if TYPE_CHECKING:
    from tabml.edge._lm.loading import Device, OpenedLm
    from tabml.edge._lm.parts import Part

ENDINGS = (".litertlm", ".task")
_DEVICES = ("cpu", "gpu")
_JOINER = "\u2060"
_MAX_THREADS = 64
_PREFILL, _DECODE = 256, 128
_measuring = threading.Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class LmSpeed:
    """LiteRT-LM's own measurement of a model."""

    prefill_tokens_per_second: float
    """Of a prompt."""
    decode_tokens_per_second: float
    """Of an answer."""
    time_to_first_token_s: float
    """Seconds from the prompt to the first token."""
    load_s: float
    """Seconds to open the engine."""
    threads: int
    """That computed."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


class LiteLM(LazyModel["OpenedLm"], Generator):
    """A language model on LiteRT-LM: ``generate`` and ``stream`` for prompts, ``chat`` and ``stream_chat`` for messages.

    Calls of several threads are answered one after another. Each further turn of a chat reads only what is new: the last
    ``conversations`` stay in memory.
    """

    task = "litert-lm"

    def __init__(
        self,
        model: ModelSource,
        *,
        files: FileProvider | None = None,
        revision: str | None = None,
        device: str = "cpu",
        threads: int | None = None,
        context_length: int | None = None,
        conversations: int = 4,
    ) -> None:
        """Nothing is fetched yet.

        Args:
            model: The path of a ``.litertlm`` or ``.task`` file as a ``Path``; a file of ``files`` as a
                :class:`~tabml.files.FileRef`; or a name of the catalog.
            files: Where the file comes from; the catalog when None.
            revision: The version, where ``files`` knows versions.
            device: ``cpu``, or ``gpu``, which is tried in a process of its own and never replaced by the other.
            threads: For ``cpu``, 1 to 64; the cores of this machine when None.
            context_length: Tokens of prompt and answer together, at least 16; as the file says when None. A shorter one is
                quicker where the file allows it, since the whole of it is read for every token.
            conversations: How many stay in memory, 0 to 64; each may take as much as the context.

        Raises:
            OptionError: an option is not allowed.
            ModelFileNotFoundError: ``model`` is neither of the catalog nor of ``files``.
        """
        super().__init__(str(model))
        one_of("device", device, _DEVICES)
        self._device: Device = "gpu" if device == "gpu" else "cpu"
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._threads = min(cores, _MAX_THREADS) if threads is None else whole("threads", threads, 1, _MAX_THREADS)
        if context_length is not None:
            whole("context_length", context_length, 16, 1 << 24)
        self._context_length = context_length
        self._keep = whole("conversations", conversations, 0, 64)
        self._provider, self._ref = resolve(model, files, revision)
        if not self._ref.path.endswith(ENDINGS):
            raise OptionError(f"model={str(model)!r:.80} must be a file that ends with {' or '.join(ENDINGS)}")

    def _open(self) -> OpenedLm:
        try:
            from tabml.edge._lm.loading import open_lm
        except ImportError as problem:
            raise MissingExtraError("edge", (problem.name or "litert-lm-api").partition(".")[0]) from problem
        return open_lm(
            self._provider, self._ref, device=self._device, threads=self._threads,
            context_length=self._context_length, keep=self._keep,
        )  # fmt: skip

    def _free(self, loaded: OpenedLm) -> None:
        loaded.close()

    @property
    def context_length(self) -> int:
        """Tokens of prompt and answer together, at the most; loads the model."""
        return self._ready().turns.context_length

    @property
    def engine(self) -> str:
        """Which engine runs it; loads the model."""
        return self._ready().turns.name

    @property
    def device(self) -> str:
        """``cpu`` or ``gpu``: where it runs, or fails to load."""
        return self._device

    @property
    def threads(self) -> int:
        """How many compute on a CPU."""
        return self._threads

    @property
    def takes(self) -> tuple[str, ...]:
        """What messages may hold: ``text``, and ``image`` and ``audio`` where the file has what they need; loads the model."""
        return self._ready().takes

    def count_tokens(self, text: str) -> int:
        """How many tokens a text has, without any that the model adds."""
        opened = self._ready()
        return len(opened.turns.encode(_as_text(check_text("text", text, MAX_PROMPT_BYTES), opened.control_texts)))

    def stream(
        self, prompt: str, options: GenerationOptions | None = None, *, parse_special: bool = False
    ) -> Iterator[Delta]:
        """:meth:`generate`, piece by piece: the texts of the deltas join to the whole. Closing it ends the work.

        Control tokens that are text get a word joiner (U+2060) behind their first character: LiteRT-LM takes text only.
        """
        opened = self._ready()
        text = check_text("prompt", prompt, MAX_PROMPT_BYTES)
        return _run(opened, text if parse_special else _as_text(text, opened.control_texts), [], options)

    def stream_chat(
        self,
        messages: Sequence[Message],
        options: GenerationOptions | None = None,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        continue_last: bool = False,
        template_options: Mapping[str, Any] | None = None,
    ) -> Iterator[Delta]:
        """:meth:`chat`, piece by piece. Tool calls come whole, with the last delta.

        A content may be a list of parts: ``{"type": "text", "text": …}``; for a model that :attr:`takes` them
        ``{"type": "image", "image": array}`` with shape (height, width, 3), uint8, RGB, or a ``tabml.vision.Frame``, and
        ``{"type": "audio", "audio": array}`` with shape (samples,), float32, -1 to 1, 16 kHz. They stand where the model's
        template puts them, and count as ``prompt_tokens``; how many they are turns out when they are read.
        """
        opened = self._ready()
        chat = check_messages(messages)
        parts: list[Part] = []
        for message in chat:
            _prepare(opened, str(self._ref), message, parts)
        text = _template(opened, str(self._ref)).render(
            chat, tools=tools, add_generation_prompt=not continue_last, continue_final_message=continue_last,
            extra=template_options,
        )  # fmt: skip
        deltas = _run(opened, text, parts, options)
        return with_tool_calls(deltas) if tools else deltas

    def render_chat(self, messages: Sequence[Message], *, tools: Sequence[Mapping[str, Any]] | None = None) -> str:
        """The prompt that the model's template makes of a conversation."""
        opened = self._ready()
        chat = check_messages(messages)
        for message in chat:
            _prepare(opened, str(self._ref), message, [])
        return _template(opened, str(self._ref)).render(chat, tools=tools)

    def benchmark(self, *, prefill_tokens: int | None = None, decode_tokens: int | None = None) -> LmSpeed:
        """LiteRT-LM's own measurement, with an engine of its own beside this one, for which the file is fetched again.

        Args:
            prefill_tokens: To read, 1 to the context's length; when None 256, or half of a context that is shorter than 512.
            decode_tokens: To write, the same; when None 128, or a quarter of it.

        Raises:
            OptionError: together they are more than the context.
            CapacityError: a language model is measured in this process already.
            ModelFileNotFoundError: the file is there no more.
            ProviderError: the provider could not deliver it again.
            CallCancelledError: the current cancellation was set, which ends the measurement within a step; loading goes on
                to its end.
            InferenceError: LiteRT-LM failed.
            ModelLoadError: it can't load the file a second time.
            ModelClosedError: the model is closed.
        """
        length = self.context_length
        prefill_tokens = min(_PREFILL, length // 2) if prefill_tokens is None else prefill_tokens
        decode_tokens = min(_DECODE, length // 4) if decode_tokens is None else decode_tokens
        for name, value in (("prefill_tokens", prefill_tokens), ("decode_tokens", decode_tokens)):
            whole(name, value, 1, length)
        if prefill_tokens + decode_tokens > length:
            raise OptionError(f"prefill_tokens + decode_tokens must be at most {length}, the length of the context")
        from tabml.edge._lm.loading import measure_lm

        if not _measuring.acquire(blocking=False):
            raise CapacityError("a language model is measured already; try again when that has ended")
        try:
            load, first, read, wrote = measure_lm(
                self._provider, self._ref, device=self._device, threads=self._threads, context_length=length,
                tokens=(prefill_tokens, decode_tokens),
            )  # fmt: skip
        finally:
            _measuring.release()
        return LmSpeed(
            prefill_tokens_per_second=read, decode_tokens_per_second=wrote, time_to_first_token_s=first, load_s=load,
            threads=self._threads,
        )  # fmt: skip


def _prepare(opened: OpenedLm, name: str, message: dict[str, Any], parts: list[Part]) -> None:
    """Make the content of a message what the template takes, and put its pictures and sounds to the others."""
    content = message.get("content")
    if isinstance(content, str):
        message["content"] = _as_text(content, opened.control_texts)
    elif content is not None:
        message["content"] = list(_shown(opened, name, content, parts))


def _shown(opened: OpenedLm, name: str, content: Sequence[Any], parts: list[Part]) -> Iterator[dict[str, str]]:
    """What the template sees of a list of parts."""
    from tabml.edge._lm.parts import add_part

    seam = _Seam(opened.control_texts)
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind == "text":
            text = _as_text(check_text("text", part.get("text")), opened.control_texts)
            yield {"type": "text", "text": seam.add(text)}
            continue
        if kind not in ("image", "audio"):
            raise OptionError(f"content={part!r:.60} must be parts of type text, image or audio")
        if kind not in opened.takes:
            raise ModelKindError(f"{name} takes {' and '.join(opened.takes)}, no {kind}")
        add_part(parts, kind, part.get(kind))
        yield {"type": kind}


class _Seam:
    """Texts of one message, which a template may put side by side, trimmed or not: no control token may come of two."""

    def __init__(self, control_texts: frozenset[str]) -> None:
        self._texts = control_texts
        self._most = max(map(len, control_texts), default=1)
        self._before = self._trimmed = ""

    def add(self, text: str) -> str:
        """The next text, with a joiner before it where it would complete a token."""
        if any(
            each in joined for joined in (self._before + text, self._trimmed + text.strip()) for each in self._texts
        ):
            text = _JOINER + text
        self._before = (self._before + text)[-self._most :]
        self._trimmed = (self._trimmed + text.strip())[-self._most :]
        return text


def _run(opened: OpenedLm, prompt: str, parts: Sequence[Part], options: GenerationOptions | None) -> Iterator[Delta]:
    found = opened.marks.kinds(prompt)
    for kind in ("image", "audio"):
        given = sum(part.kind == kind for part in parts)
        if found.count(kind) != given:
            raise OptionError(
                f"the prompt has {found.count(kind)} marks like {getattr(opened.marks, kind)[0]} for {given} of type {kind}: "
                f"{'the chat template has no place for them' if parts else 'give them by chat, in a content'}"
            )
    cancellation = current_cancellation() or Cancellation()
    prompt = prompt.removeprefix(opened.start_text)  # LiteRT-LM writes it itself
    return opened.turns.stream(prompt, parts, options or GenerationOptions(), cancellation)


def _template(opened: OpenedLm, name: str) -> ChatTemplate:
    if opened.template is None:
        raise ModelKindError(f"{name} has no chat template; use generate with a prompt of your own")
    return opened.template


def _as_text(text: str, control_texts: frozenset[str]) -> str:
    """The text with its control tokens broken, so that they are read as text."""
    for token in control_texts:
        if token in text:
            text = text.replace(token, token[0] + _JOINER + token[1:])
    return text
