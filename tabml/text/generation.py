"""Text generation: continue a prompt, answer a chat, fill in the middle of code; whole or as a stream."""

from __future__ import annotations

import re
import secrets
from collections.abc import Collection, Iterator, Mapping, Sequence
from importlib.util import find_spec
from os import PathLike
from typing import Any

from tabml.cancellation import Cancellation, current_cancellation
from tabml.errors import ModelKindError, OptionError
from tabml.files import FileProvider, FileRef, Progress
from tabml.files.sources import ModelSource, resolve
from tabml.generation.arguments import check_text, flag, one_of, whole
from tabml.generation.generator import Generator
from tabml.generation.messages import MAX_PROMPT_BYTES, Message, check_messages, with_plain_text
from tabml.generation.options import GenerationOptions
from tabml.generation.results import Delta, Generation, joined
from tabml.generation.templates import ChatTemplate
from tabml.generation.tools import with_tool_calls
from tabml.text._door import llama_extra, text_extra
from tabml.text._model import TextModel
from tabml.text.engine import ENGINES, Adapting, Engine, Packing
from tabml.text.repository import ADAPTER_CONFIG, Repository

_ADAPTER_NAME = re.compile(r"[\w.-]{1,64}", re.ASCII)
_INFILL = (
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),  # Qwen2.5-Coder, CodeGemma
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),  # StarCoder
    ("<fim-prefix>", "<fim-suffix>", "<fim-middle>"),  # SantaCoder
    ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),  # DeepSeek-Coder
    ("▁<PRE>", "▁<SUF>", "▁<MID>"),  # Code Llama
)
"""Control tokens of fill-in-the-middle, as the models' cards give them: before the code, the hole, the answer."""


_CHARACTERS = 16
"""Of a prompt, for each token of the context, at which it is looked at whether the rest can fit."""
_MARGIN = 64


class _Open:
    """A loaded model, its template and the calls that run."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        try:
            self.template = ChatTemplate(engine.chat_template, engine.special_tokens) if engine.chat_template else None
        except BaseException:  # a template may be refused
            engine.close()
            raise

    def close(self) -> None:
        self.engine.close()
        if self.template is not None:
            self.template.close()


class TextGenerator(TextModel[_Open], Generator):
    """A language model: ``generate`` and ``stream`` for prompts, ``chat`` and ``stream_chat`` for messages.

    Calls of several threads are computed together.
    """

    task = "text-generation"

    def __init__(
        self,
        model: ModelSource,
        *,
        files: FileProvider | None = None,
        revision: str | None = None,
        architecture: str | None = None,
        engine: str = "auto",
        device: str = "auto",
        dtype: str = "auto",
        quantization: str | None = None,
        progress: Progress | None = None,
        allow_pickle: bool = False,
        trust_remote_code: bool = False,
        context_length: int | None = None,
        adapters: Mapping[str, ModelSource] | None = None,
    ) -> None:
        """Nothing is fetched yet.

        Args:
            model: See :class:`TextModel`.
            files: Where the model's files come from; the catalog when None.
            revision: The version, where ``files`` knows versions.
            architecture: The class or model type that it must be.
            engine: ``torch``, ``llama.cpp`` (for GGUF, with the extra ``llama``), or ``auto``: llama.cpp for GGUF
                where it is installed and the other options allow it, else torch.
            device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
            dtype: ``auto``, ``float32``, ``bfloat16`` or ``float16``: the latter two are half of the memory to read, and so
                half of a token's time. On a CPU ``float16`` are the weights alone, and the arithmetic is float32.
            quantization: ``int8`` or ``int4`` weights, on a CPU, by torch: quicker still. The weights of GGUF are unpacked
                first. The first load on a machine takes some ten seconds longer, as that with ``float16`` does: kernels
                for its processor are compiled.
            progress: See :class:`TextModel`.
            allow_pickle: See :class:`TextModel`; of adapters too.
            trust_remote_code: See :class:`TextModel`.
            context_length: Tokens of prompt and answer together; the model's own when None, with llama.cpp 8,192 at
                the most, because there they cost memory from the load on.
            adapters: LoRA adapters by name, see :meth:`load_adapter`; with engine torch.

        Raises:
            OptionError: an option is not allowed.
            ModelFileNotFoundError: ``model`` is neither of the catalog nor of ``files``.
            ModelKindError: ``model`` is a file that no text model begins with.
        """
        super().__init__(
            model, files=files, revision=revision, architecture=architecture, device=device, dtype=dtype,
            quantization=quantization, progress=progress, allow_pickle=allow_pickle, trust_remote_code=trust_remote_code,
        )  # fmt: skip
        self._files = files
        self._engine = one_of("engine", engine, ("auto", *ENGINES))
        self._context_length = (
            context_length if context_length is None else whole("context_length", context_length, 16, 1 << 24)
        )
        if adapters is not None and not isinstance(adapters, Mapping):
            raise OptionError(f"adapters={adapters!r:.60} must map names to adapters")
        self._adapters = dict(adapters or {})
        for name, source in self._adapters.items():
            _check_adapter_name(name)
            if not isinstance(source, str | PathLike | FileRef):
                raise OptionError(f"adapters[{name!r}]={source!r:.60} must be a name, a Path or a FileRef")

    def _build(self, repository: Repository) -> _Open:
        opened = _Open(self._build_gguf(repository) if repository.is_gguf else self._build_folder(repository))
        try:
            for name, source in self._adapters.items():
                self._put_adapter(opened.engine, name, source, self._files, None)
        except BaseException:
            opened.close()
            raise
        return opened

    def _build_folder(self, repository: Repository) -> Engine:
        if self._engine == "llama.cpp":
            raise OptionError(f"engine='llama.cpp' reads GGUF files, and {repository.name} is none; use engine='torch'")
        repository.fetch_small()
        with text_extra():
            from tabml.text._torch.causal import load_engine
        return load_engine(
            repository, self._placement, architecture=self._architecture, context_length=self._context_length
        )

    def _build_gguf(self, repository: Repository) -> Engine:
        repository.fetch_weights()
        if self._engine == "llama.cpp" or (self._engine == "auto" and self._llama_fits()):
            with llama_extra():
                from tabml.text._llama.loading import load_engine
            return load_engine(repository, self._placement, context_length=self._context_length)
        with text_extra():
            from tabml.text._torch.causal import load_gguf_engine
        return load_gguf_engine(repository, self._placement, context_length=self._context_length)

    def _llama_fits(self) -> bool:
        """Whether llama.cpp is there and can do what is asked for."""
        asked = self._placement
        plain = asked.dtype == "auto" and asked.quantization is None and not self._adapters
        return plain and find_spec("xllamacpp") is not None

    def _free(self, loaded: _Open) -> None:
        loaded.close()

    @property
    def context_length(self) -> int:
        """Tokens of prompt and answer together, at the most; loads the model."""
        return self._ready().engine.context_length

    @property
    def engine(self) -> str:
        """Which engine runs it; loads the model."""
        return self._ready().engine.name

    def wait_until_packed(self, timeout_s: float | None = None) -> bool:
        """Wait until the model is as quick as it gets; loads it.

        With weights as they are, in float32 or bfloat16 on a CPU, the torch engine answers as soon as they are mapped,
        and copies them into a quicker layout while nobody asks or between tokens: about a second for each gigabyte; then
        it loads kernels for this processor, which are compiled the first time on a machine, in some ten seconds. On a GPU one decoder layer is compiled for all, which takes some ten seconds, after 300 tokens or two quiet seconds,
        or once this is called; the model answers meanwhile.

        Args:
            timeout_s: Seconds to wait; None for as long as it takes.

        Returns:
            Whether it is.
        """
        engine = self._ready().engine
        return engine.wait_until_packed(timeout_s) if isinstance(engine, Packing) else True

    @property
    def adapters(self) -> tuple[str, ...]:
        """The names of the LoRA adapters that are loaded; loads the model."""
        engine = self._ready().engine
        return engine.adapters if isinstance(engine, Adapting) else ()

    def load_adapter(
        self, name: str, adapter: ModelSource, *, files: FileProvider | None = None, revision: str | None = None
    ) -> None:
        """Load a LoRA adapter in PEFT's layout; ``GenerationOptions(adapter=name)`` asks for it.

        Answers with different adapters, or none, are computed together. One of the same name is replaced.

        Args:
            name: 1 to 64 letters, digits, ``.``, ``_`` and ``-``.
            adapter: A folder with ``adapter_config.json`` and ``adapter_model.safetensors``, or a repository of
                ``files``.
            files: Where it comes from; where the model came from when None.
            revision: The version, where ``files`` knows versions.

        Raises:
            OptionError: the name is not allowed, or the engine has no adapters.
            ModelFileNotFoundError: a file of it is missing.
            CorruptModelError: it is made for another model, or damaged.
            ModelKindError: it is no plain LoRA adapter: DoRA, biases and whole layers are refused.
            ModelClosedError: the model is closed.
        """
        _check_adapter_name(name)
        self._put_adapter(self._ready().engine, name, adapter, files or self._files, revision)

    def unload_adapter(self, name: str) -> None:
        """Forget an adapter; answers that run with it go on.

        Raises:
            OptionError: there is none of this name.
        """
        engine = self._ready().engine
        if not isinstance(engine, Adapting):
            raise OptionError(f"adapter={name!r:.80} is not loaded: {engine.name} has no adapters")
        _check_adapter_name(name)
        engine.unload_adapter(name)

    def _put_adapter(
        self, engine: Engine, name: str, adapter: ModelSource, files: FileProvider | None, revision: str | None
    ) -> None:
        if not isinstance(engine, Adapting):
            raise OptionError(f"adapters are not possible with {engine.name}; use engine='torch'")
        with Repository(
            *resolve(adapter, files, revision, begin=ADAPTER_CONFIG, what="adapter"), **self._reading
        ) as repository:
            repository.fetch_adapter()
            engine.load_adapter(repository, name)

    def count_tokens(self, text: str) -> int:
        """How many tokens a text has, without any that the model adds."""
        return len(self._ready().engine.encode(check_text("text", text, MAX_PROMPT_BYTES), parse_special=False))

    def stream(
        self, prompt: str, options: GenerationOptions | None = None, *, parse_special: bool = False
    ) -> Iterator[Delta]:
        """:meth:`generate`, piece by piece: the texts of the deltas join to the whole. Closing it ends the work."""
        engine = self._ready().engine
        text = check_text("prompt", prompt, MAX_PROMPT_BYTES)
        ids = _encoded(engine, text, special_tokens=True, parse_special=flag("parse_special", parse_special))
        return self._run(engine, ids, options)

    def stream_chat(
        self,
        messages: Sequence[Message],
        options: GenerationOptions | None = None,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        continue_last: bool = False,
        template_options: Mapping[str, Any] | None = None,
    ) -> Iterator[Delta]:
        """:meth:`chat`, piece by piece. Tool calls come whole, with the last delta."""
        extra = template_options or {}
        if not isinstance(extra, Mapping):
            raise OptionError(f"template_options={extra!r:.60} must map names to values")
        if tools is not None and not (
            isinstance(tools, list | tuple) and all(isinstance(each, Mapping) for each in tools)
        ):
            raise OptionError(f"tools={tools!r:.60} must be a list of functions, each a dictionary in OpenAI's form")
        opened = self._ready()
        ids = self._chat_ids(
            opened, with_plain_text(check_messages(messages)), tools, flag("continue_last", continue_last), extra
        )
        deltas = self._run(opened.engine, ids, options)
        return with_tool_calls(deltas) if tools else deltas

    def render_chat(self, messages: Sequence[Message], *, tools: Sequence[Mapping[str, Any]] | None = None) -> str:
        """The prompt that the model's template makes of a conversation."""
        return self._template(self._ready()).render(with_plain_text(check_messages(messages)), tools=tools)

    def infill(self, prefix: str, suffix: str, options: GenerationOptions | None = None) -> Generation:
        """Write what is missing between two pieces of code.

        Raises:
            ModelKindError: the model has no tokens for it.
        """
        return joined(list(self.stream_infill(prefix, suffix, options)))

    def stream_infill(self, prefix: str, suffix: str, options: GenerationOptions | None = None) -> Iterator[Delta]:
        """:meth:`infill`, piece by piece."""
        engine = self._ready().engine
        texts = [check_text("prefix", prefix, MAX_PROMPT_BYTES), check_text("suffix", suffix, MAX_PROMPT_BYTES)]
        for tokens in _INFILL:
            marks = [engine.encode(token) for token in tokens]
            if all(len(mark) == 1 for mark in marks):
                before, after = (_encoded(engine, text, parse_special=False) for text in texts)
                return self._run(engine, [*marks[0], *before, *marks[1], *after, *marks[2]], options)
        raise ModelKindError(
            f"{self._ref.repo} can't fill in the middle: it has no control tokens for it; use a model of code that has"
        )

    def _run(self, engine: Engine, ids: Sequence[int], options: GenerationOptions | None) -> Iterator[Delta]:
        cancellation = current_cancellation() or Cancellation()
        options = GenerationOptions() if options is None else options
        if not isinstance(options, GenerationOptions):
            raise OptionError(f"options={options!r:.60} must be GenerationOptions")
        return engine.stream(ids, options, cancellation)

    def _template(self, opened: _Open) -> ChatTemplate:
        if opened.template is None:
            raise ModelKindError(f"{self._ref.repo} has no chat template; use generate with a prompt of your own")
        return opened.template

    def _chat_ids(
        self,
        opened: _Open,
        messages: list[dict[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None,
        continue_last: bool,
        extra: Mapping[str, Any],
    ) -> list[int]:
        """The tokens of a conversation; control tokens in what callers say are text."""
        engine = opened.engine
        held = _Held(engine.control_tokens)
        try:
            messages = [held.message(message) for message in messages]
            tools, extra = held.without_tokens(tools), held.without_tokens(extra)
        except RecursionError:
            raise OptionError(
                "messages, tools or template_options are nested too deeply; a template can't use them"
            ) from None
        text = self._template(opened).render(
            messages, tools=tools, add_generation_prompt=not continue_last, continue_final_message=continue_last,
            extra=extra,
        )  # fmt: skip
        ids: list[int] = []
        for piece, is_held in held.pieces(text):
            ids += _encoded(engine, piece, parse_special=not is_held)
        return ids


def _encoded(engine: Engine, text: str, *, special_tokens: bool = False, parse_special: bool) -> list[int]:
    """The tokens of a text; one that is many times too long is not tokenized to its end.

    Raises:
        OptionError: it can't fit into the context.
    """
    begin = text[: _CHARACTERS * (engine.context_length + _MARGIN)]
    if len(begin) < len(text):
        count = len(engine.encode(begin, parse_special=parse_special))
        if count > 2 * engine.context_length + _MARGIN:
            raise OptionError(
                f"prompt begins with {count} tokens and goes on; the context of {engine.context_length} leaves no room for "
                "an answer"
            )
    return engine.encode(text, special_tokens=special_tokens, parse_special=parse_special)


def _check_adapter_name(name: object) -> None:
    if not isinstance(name, str) or not _ADAPTER_NAME.fullmatch(name):
        raise OptionError(f"adapter={name!r:.80} must have 1 to 64 letters, digits, '.', '_' and '-'")


class _Held:
    """Texts with control tokens, which a template gets marks for that nobody can guess."""

    def __init__(self, control_tokens: Collection[str]) -> None:
        longest_first = sorted(filter(None, control_tokens), key=len, reverse=True)
        self._any = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        self._begin = f"held-{secrets.token_hex(16)}-"
        self._texts: list[str] = []

    def message(self, said: Mapping[str, Any]) -> dict[str, Any]:
        """The message, its content held as a whole where there is a control token in it."""
        known = ("content", "role") if said["role"].isidentifier() else ("content",)
        found: dict[str, Any] = self.without_tokens({name: said[name] for name in said if name not in known})
        found.update((name, said[name]) for name in known if name in said)
        content = said.get("content")
        if isinstance(content, str) and self._any.search(content):
            found["content"] = self._mark(content)
        return found

    def without_tokens(self, said: Any) -> Any:
        """A value of JSON with a mark for each control token in its texts: a template may write it as JSON again."""
        if isinstance(said, str):
            return self._any.sub(lambda found: self._mark(found[0]), said)
        if isinstance(said, Mapping):
            return {self.without_tokens(name): self.without_tokens(value) for name, value in said.items()}
        return [self.without_tokens(each) for each in said] if isinstance(said, list | tuple) else said

    def pieces(self, rendered: str) -> Iterator[tuple[str, bool]]:
        """A rendered text in pieces, and whether each is one that was held."""
        for at, piece in enumerate(re.split(f"{self._begin}(\\d+)-", rendered)):
            if at % 2:
                yield self._texts[int(piece)], True
            elif piece:
                yield piece, False

    def _mark(self, said: str) -> str:
        self._texts.append(said)
        return f"{self._begin}{len(self._texts) - 1}-"
