"""The door to LiteRT-LM: its C interface, called directly.

Its Python package can't clone a conversation, and its objects free themselves in whatever order Python drops them, which
ends the process. Every error has its reason only in the library's last message.
"""

from __future__ import annotations

import ctypes
import json
import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from tabml._imports import LOG, silence
from tabml.cancellation import Cancellation
from tabml.errors import InferenceError, MissingExtraError, ModelLoadError

_SILENT, _VERBOSE = 1000, 0
_LOOK_S = 0.02
_TOP_P = 2
_TEXT = 0
_pointer, _text, _int, _float, _bool = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_float, ctypes.c_bool
_Callback = ctypes.CFUNCTYPE(None, _pointer, _pointer)

_FUNCTIONS: Mapping[str, tuple[Any, ...]] = {  # result, arguments
    "set_min_log_level": (None, _int),
    "get_last_error_message": (_text,),
    "clear_last_error": (None,),
    "engine_settings_create": (_pointer, _text, _text, _text, _text),
    "engine_settings_delete": (None, _pointer),
    "engine_settings_set_num_threads": (None, _pointer, _int),
    "engine_settings_set_audio_num_threads": (None, _pointer, _int),
    "engine_settings_set_max_num_tokens": (None, _pointer, _int),
    "engine_settings_set_cache_dir": (None, _pointer, _text),
    "engine_settings_enable_benchmark": (None, _pointer),
    "engine_settings_set_num_prefill_tokens": (None, _pointer, _int),
    "engine_settings_set_num_decode_tokens": (None, _pointer, _int),
    "engine_create": (_pointer, _pointer),
    "engine_delete": (None, _pointer),
    "engine_tokenize": (_pointer, _pointer, _text),
    "tokenize_result_get_num_tokens": (ctypes.c_size_t, _pointer),
    "tokenize_result_get_tokens": (ctypes.POINTER(_int), _pointer),
    "tokenize_result_delete": (None, _pointer),
    "engine_detokenize": (_pointer, _pointer, ctypes.POINTER(_int), ctypes.c_size_t),
    "detokenize_result_get_string": (_text, _pointer),
    "detokenize_result_delete": (None, _pointer),
    "sampler_params_create": (_pointer, _int),
    "sampler_params_delete": (None, _pointer),
    "sampler_params_set_top_k": (None, _pointer, _int),
    "sampler_params_set_top_p": (None, _pointer, _float),
    "sampler_params_set_temperature": (None, _pointer, _float),
    "sampler_params_set_seed": (None, _pointer, _int),
    "session_config_create": (_pointer,),
    "session_config_delete": (None, _pointer),
    "session_config_set_sampler_params": (None, _pointer, _pointer),
    "conversation_config_create": (_pointer,),
    "conversation_config_delete": (None, _pointer),
    "conversation_config_set_session_config": (None, _pointer, _pointer),
    "conversation_config_set_prompt_template": (None, _pointer, _text),
    "conversation_create": (_pointer, _pointer, _pointer),
    "conversation_clone": (_pointer, _pointer),
    "conversation_delete": (None, _pointer),
    "conversation_send_message_stream": (_int, _pointer, _text, _text, _pointer, _Callback, _pointer),
    "conversation_cancel_process": (None, _pointer),
    "conversation_get_token_count": (_int, _pointer),
    "conversation_get_benchmark_info": (_pointer, _pointer),
    "conversation_optional_args_create": (_pointer,),
    "conversation_optional_args_delete": (None, _pointer),
    "conversation_optional_args_set_max_output_tokens": (None, _pointer, _int),
    "conversation_optional_args_set_repetition_penalty_config": (None, _pointer, _pointer),
    "conversation_optional_args_set_no_repeat_ngram_config": (None, _pointer, _pointer),
    "conversation_optional_args_set_suppress_tokens_config": (None, _pointer, _pointer),
    "repetition_penalty_config_create": (_pointer,),
    "repetition_penalty_config_delete": (None, _pointer),
    "repetition_penalty_config_set_repetition_penalty": (None, _pointer, _float),
    "repetition_penalty_config_set_presence_penalty": (None, _pointer, _float),
    "repetition_penalty_config_set_frequency_penalty": (None, _pointer, _float),
    "no_repeat_ngram_config_create": (_pointer,),
    "no_repeat_ngram_config_delete": (None, _pointer),
    "no_repeat_ngram_config_set_no_repeat_ngram_size": (None, _pointer, _int),
    "suppress_tokens_config_create": (_pointer,),
    "suppress_tokens_config_delete": (None, _pointer),
    "suppress_tokens_config_set_suppress_tokens": (None, _pointer, ctypes.POINTER(_int), ctypes.c_size_t),
    "stream_chunk_get_text": (_text, _pointer),
    "stream_chunk_is_final": (_bool, _pointer),
    "stream_chunk_get_error": (_text, _pointer),
    "engine_create_session": (_pointer, _pointer, _pointer),
    "session_delete": (None, _pointer),
    "session_cancel_process": (None, _pointer),
    "session_generate_content": (_pointer, _pointer, ctypes.POINTER(_pointer), ctypes.c_size_t),
    "session_get_benchmark_info": (_pointer, _pointer),
    "responses_delete": (None, _pointer),
    "input_data_create": (_pointer, _int, _text, ctypes.c_size_t),
    "input_data_delete": (None, _pointer),
    "benchmark_info_delete": (None, _pointer),
    "benchmark_info_get_time_to_first_token": (ctypes.c_double, _pointer),
    "benchmark_info_get_total_init_time_in_second": (ctypes.c_double, _pointer),
    "benchmark_info_get_num_prefill_turns": (_int, _pointer),
    "benchmark_info_get_num_decode_turns": (_int, _pointer),
    "benchmark_info_get_prefill_token_count_at": (_int, _pointer, _int),
    "benchmark_info_get_prefill_tokens_per_sec_at": (ctypes.c_double, _pointer, _int),
    "benchmark_info_get_decode_token_count_at": (_int, _pointer, _int),
    "benchmark_info_get_decode_tokens_per_sec_at": (ctypes.c_double, _pointer, _int),
}
"""Of LiteRT-LM 0.18's engine.h, each with ``litert_lm_`` before it."""

AS_IT_IS = (
    "{% for m in messages %}{% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for c in m['content'] %}{% if c['type'] == 'text' %}{{ c['text'] }}{% endif %}{% endfor %}{% endif %}{% endfor %}"
)
"""The template of every conversation: what is sent has been rendered already, where a template that never ends is killed."""


@cache
def library() -> Any:
    """The library, its functions declared.

    Raises:
        MissingExtraError: it isn't installed.
    """
    try:
        path = Path(str(resources.files("litert_lm"))) / "liblitert-lm.so"
        found = ctypes.CDLL(str(path))
    except (ModuleNotFoundError, OSError):
        raise MissingExtraError("edge", "litert-lm-api") from None
    silence(found)
    for name, (result, *arguments) in _FUNCTIONS.items():
        function = getattr(found, f"litert_lm_{name}")
        function.restype, function.argtypes = result, arguments
    wanted = os.environ.get(LOG, "").lower() not in ("", "off")
    found.litert_lm_set_min_log_level(_VERBOSE if wanted else _SILENT)
    return found


def last_error(otherwise: str) -> str:
    """What the library says of its last failure in this thread, as one line."""
    said = library().litert_lm_get_last_error_message()
    return " ".join(said.decode(errors="replace").split())[:300] if said else otherwise


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampler:
    """How tokens are drawn, for the whole of a conversation."""

    top_k: int
    """At least 1; 1 is greedy."""
    top_p: float
    """Above 0, at most 1."""
    temperature: float
    """Above 0."""
    seed: int
    """0 to 2^31 - 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What holds for one answer."""

    max_tokens: int
    """At least 1."""
    repetition_penalty: float = 1.0
    """1 for none."""
    frequency_penalty: float = 0.0
    """0 for none."""
    presence_penalty: float = 0.0
    """0 for none."""
    no_repeat_ngram_size: int = 0
    """0 for none."""
    forbidden: tuple[int, ...] = ()
    """Tokens that are never drawn."""


class NativeEngine:
    """A loaded model. Closed after its conversations, or the process ends."""

    def __init__(
        self,
        path: Path,
        *,
        name: str,
        backend: str,
        threads: int,
        context_length: int | None,
        cache: Path | None,
        vision: bool = False,
        audio: bool = False,
        benchmark: tuple[int, int] | None = None,
    ) -> None:
        """Load it.

        Args:
            path: A ``.litertlm`` or ``.task`` file; the ending tells which.
            name: For messages.
            backend: ``cpu`` or ``gpu``.
            threads: For ``cpu``.
            context_length: Tokens of prompt and answer together; the file's own when None.
            cache: A folder for repacked weights; none are kept when None, which takes twice the memory.
            vision: Load what reads pictures.
            audio: Load what hears.
            benchmark: Tokens to read and to write, for :meth:`benchmark`.

        Raises:
            ModelLoadError: LiteRT-LM refused the file.
        """
        native = self._native = library()
        chosen = backend.encode()
        native.litert_lm_clear_last_error()
        settings = native.litert_lm_engine_settings_create(
            os.fsencode(path), chosen, chosen if vision else None, b"cpu" if audio else None
        )
        if not settings:
            raise ModelLoadError(f"LiteRT-LM can't read {name}: {last_error('it does not say why')}")
        if backend == "cpu":
            native.litert_lm_engine_settings_set_num_threads(settings, threads)
        if audio:
            native.litert_lm_engine_settings_set_audio_num_threads(settings, threads)
        if context_length is not None:
            native.litert_lm_engine_settings_set_max_num_tokens(settings, context_length)
        native.litert_lm_engine_settings_set_cache_dir(settings, os.fsencode(cache) if cache else b":nocache")
        if benchmark is not None or vision or audio:  # only so it tells how many tokens a picture is
            native.litert_lm_engine_settings_enable_benchmark(settings)
        if benchmark is not None:
            native.litert_lm_engine_settings_set_num_prefill_tokens(settings, benchmark[0])
            native.litert_lm_engine_settings_set_num_decode_tokens(settings, benchmark[1])
        self._handle: int | None = native.litert_lm_engine_create(settings)
        native.litert_lm_engine_settings_delete(settings)
        if not self._handle:
            remedy = "; device='cpu' needs no GPU" if backend == "gpu" else ""
            raise ModelLoadError(f"LiteRT-LM can't open {name}: {last_error('it does not say why')}{remedy}")
        if vision or audio:
            self._load_the_rest(name)

    def _load_the_rest(self, name: str) -> None:
        """Begin a conversation: only then what sees and hears is read from the file."""
        try:
            self.converse(Sampler(top_k=1, top_p=1.0, temperature=1.0, seed=0)).close()
        except InferenceError as problem:
            self.close()
            raise ModelLoadError(f"{name} has nothing that sees or hears for LiteRT-LM: {problem}") from None

    def encode(self, text: str) -> list[int]:
        """The tokens of a text; control tokens written in it are control tokens. For NUL, which ends a text in C, stands U+0001."""
        native = self._native
        found = native.litert_lm_engine_tokenize(self._handle, text.replace("\0", "\1").encode())
        if not found:
            raise InferenceError(f"LiteRT-LM can't tokenize: {last_error('it does not say why')}")
        try:
            count = native.litert_lm_tokenize_result_get_num_tokens(found)
            return list(native.litert_lm_tokenize_result_get_tokens(found)[:count]) if count else []
        finally:
            native.litert_lm_tokenize_result_delete(found)

    def decode(self, tokens: list[int]) -> str:
        """The text of tokens."""
        native = self._native
        found = native.litert_lm_engine_detokenize(self._handle, (_int * len(tokens))(*tokens), len(tokens))
        if not found:
            raise InferenceError(f"LiteRT-LM can't detokenize: {last_error('it does not say why')}")
        try:
            return str((native.litert_lm_detokenize_result_get_string(found) or b"").decode(errors="replace"))
        finally:
            native.litert_lm_detokenize_result_delete(found)

    def converse(self, sampler: Sampler) -> NativeConversation:
        """A conversation without a past.

        Raises:
            InferenceError: LiteRT-LM failed.
        """
        native = self._native
        session, conversation = native.litert_lm_session_config_create(), native.litert_lm_conversation_config_create()
        drawn = native.litert_lm_sampler_params_create(_TOP_P)
        for name in ("top_k", "top_p", "temperature", "seed"):
            getattr(native, f"litert_lm_sampler_params_set_{name}")(drawn, getattr(sampler, name))
        native.litert_lm_session_config_set_sampler_params(session, drawn)
        native.litert_lm_conversation_config_set_session_config(conversation, session)
        native.litert_lm_conversation_config_set_prompt_template(conversation, AS_IT_IS.encode())
        try:
            return NativeConversation(native.litert_lm_conversation_create(self._handle, conversation))
        finally:
            native.litert_lm_conversation_config_delete(conversation)
            native.litert_lm_session_config_delete(session)
            native.litert_lm_sampler_params_delete(drawn)

    def benchmark(self, cancellation: Cancellation | None = None) -> tuple[float, float, float, float]:
        """LiteRT-LM's own measurement.

        Args:
            cancellation: Ends it within a step.

        Returns:
            Seconds to load, to the first token; tokens a second read, and written.

        Raises:
            InferenceError: LiteRT-LM failed.
            CallCancelledError: ``cancellation`` was set.
        """
        native, text = self._native, b"benchmark"
        session = native.litert_lm_engine_create_session(self._handle, None)
        if not session:
            raise InferenceError(f"LiteRT-LM can't measure: {last_error('it does not say why')}")
        given = native.litert_lm_input_data_create(_TEXT, text, len(text))

        running = Future[str]()

        def generate() -> None:
            try:
                answers = native.litert_lm_session_generate_content(session, (_pointer * 1)(given), 1)
                if answers:
                    native.litert_lm_responses_delete(answers)
                running.set_result("" if answers else last_error("it does not say why"))
            except BaseException as problem:
                running.set_exception(problem)

        worker = threading.Thread(target=generate, name="litert-lm", daemon=True)
        info: int | None = None
        try:
            worker.start()
            self._until_done(running, session, cancellation)
            if cancellation is not None:
                cancellation.check()
            info = native.litert_lm_session_get_benchmark_info(session)
            said = running.result()
            if said or not info:
                raise InferenceError(f"LiteRT-LM can't measure: {said or last_error('it does not say why')}")
            read, wrote = (
                getattr(native, f"litert_lm_benchmark_info_get_{what}_tokens_per_sec_at")(
                    info, getattr(native, f"litert_lm_benchmark_info_get_num_{what}_turns")(info) - 1
                )
                for what in ("prefill", "decode")
            )
            seconds = native.litert_lm_benchmark_info_get_total_init_time_in_second(info)
            first = native.litert_lm_benchmark_info_get_time_to_first_token(info)
            return seconds, first, read, wrote
        finally:
            if info:
                native.litert_lm_benchmark_info_delete(info)
            native.litert_lm_input_data_delete(given)
            native.litert_lm_session_delete(session)

    def _until_done(self, running: Future[str], session: int, cancellation: Cancellation | None) -> None:
        """Wait, however often the user interrupts: what runs must not be freed. An interrupt ends it, as a cancel does."""
        interrupted: BaseException | None = None
        while not running.done():
            try:
                wait([running], timeout=_LOOK_S)
                if interrupted is not None or (cancellation is not None and cancellation.cancelled):
                    self._native.litert_lm_session_cancel_process(session)
            except BaseException as problem:
                interrupted = problem
        if interrupted is not None:
            raise interrupted

    def close(self) -> None:
        """Free the model; twice is fine."""
        handle, self._handle = self._handle, None
        if handle:
            self._native.litert_lm_engine_delete(handle)


class NativeConversation:
    """What was said, and the memory of it."""

    def __init__(self, handle: int | None) -> None:
        """Takes it over.

        Args:
            handle: Of the library's; None is a failure.

        Raises:
            InferenceError: it is None.
        """
        self._native = library()
        if not handle:
            raise InferenceError(f"LiteRT-LM can't begin a conversation: {last_error('it does not say why')}")
        self._handle: int | None = handle
        self._callback: Any = None

    def clone(self) -> NativeConversation:
        """Another one with the same past; what is said there is not said here.

        Raises:
            InferenceError: LiteRT-LM failed.
        """
        return NativeConversation(self._native.litert_lm_conversation_clone(self._handle))

    @property
    def tokens(self) -> int:
        """How many it has read and written."""
        return max(0, int(self._native.litert_lm_conversation_get_token_count(self._handle)))

    @property
    def read(self) -> int:
        """Tokens of the last message, its pictures and sounds among them; 0 where the engine takes text only."""
        native = self._native
        info = native.litert_lm_conversation_get_benchmark_info(self._handle)
        if not info:
            return 0
        try:
            turns = native.litert_lm_benchmark_info_get_num_prefill_turns(info)
            return native.litert_lm_benchmark_info_get_prefill_token_count_at(info, turns - 1) if turns else 0
        finally:
            native.litert_lm_benchmark_info_delete(info)

    def send(self, content: list[dict[str, str]], limits: Limits, hear: Callable[[str, bool, str], None]) -> None:
        """Say something; the answer is heard from a thread of the library.

        Args:
            content: Parts as ``{"type": "text", "text": …}``, and files in base64 as ``{"type": "image", "blob": …}`` or
                ``{"type": "audio", …}``, as many of each as the text has marks.
            limits: Of the answer.
            hear: Called with a piece of the answer, whether it was the last, and an error or an empty text. May not
                raise.

        Raises:
            InferenceError: LiteRT-LM failed at once; nothing is heard then.
        """
        native = self._native

        def heard(_: int | None, chunk: int) -> None:
            error = native.litert_lm_stream_chunk_get_error(chunk)
            text = native.litert_lm_stream_chunk_get_text(chunk)
            last = bool(error) or native.litert_lm_stream_chunk_is_final(chunk)
            hear(_said(text or b""), last, " ".join(error.decode(errors="replace").split())[:300] if error else "")

        self._callback = _Callback(heard)  # lives as long as the library may call it
        message = json.dumps({"role": "user", "content": content}).encode()
        arguments = _arguments(native, limits)
        try:
            failed = native.litert_lm_conversation_send_message_stream(
                self._handle, message, None, arguments, self._callback, None
            )
        finally:
            native.litert_lm_conversation_optional_args_delete(arguments)
        if failed:
            raise InferenceError(f"LiteRT-LM failed: {last_error('it does not say why')}")

    def cancel(self) -> None:
        """End the answer that is written; this conversation is of no use afterwards."""
        self._native.litert_lm_conversation_cancel_process(self._handle)

    def close(self) -> None:
        """Free it; waits for an answer that is written. Twice is fine."""
        handle, self._handle = self._handle, None
        if handle:
            self._native.litert_lm_conversation_delete(handle)


def _arguments(native: Any, limits: Limits) -> int:
    """The limits as the library has them."""
    arguments: int = native.litert_lm_conversation_optional_args_create()
    native.litert_lm_conversation_optional_args_set_max_output_tokens(arguments, limits.max_tokens)
    penalties = {name: getattr(limits, f"{name}_penalty") for name in ("repetition", "frequency", "presence")}
    if penalties != {"repetition": 1.0, "frequency": 0.0, "presence": 0.0}:
        config = native.litert_lm_repetition_penalty_config_create()
        for name, value in penalties.items():
            getattr(native, f"litert_lm_repetition_penalty_config_set_{name}_penalty")(config, value)
        native.litert_lm_conversation_optional_args_set_repetition_penalty_config(arguments, config)
        native.litert_lm_repetition_penalty_config_delete(config)
    if limits.no_repeat_ngram_size:
        config = native.litert_lm_no_repeat_ngram_config_create()
        native.litert_lm_no_repeat_ngram_config_set_no_repeat_ngram_size(config, limits.no_repeat_ngram_size)
        native.litert_lm_conversation_optional_args_set_no_repeat_ngram_config(arguments, config)
        native.litert_lm_no_repeat_ngram_config_delete(config)
    if limits.forbidden:
        config, count = native.litert_lm_suppress_tokens_config_create(), len(limits.forbidden)
        native.litert_lm_suppress_tokens_config_set_suppress_tokens(config, (_int * count)(*limits.forbidden), count)
        native.litert_lm_conversation_optional_args_set_suppress_tokens_config(arguments, config)
        native.litert_lm_suppress_tokens_config_delete(config)
    return arguments


def _said(chunk: bytes) -> str:
    """The text of a piece, which comes as a message; what is none is text itself."""
    text = chunk.decode(errors="replace")
    try:
        return "".join(str(part["text"]) for part in json.loads(text)["content"] if part["type"] == "text")
    except (ValueError, LookupError, TypeError):
        return text
