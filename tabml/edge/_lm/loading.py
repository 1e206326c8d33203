"""A ``.litertlm`` or ``.task`` file from a provider, checked, with an engine around it."""

from __future__ import annotations

import mmap
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tabml._litert.check import check_tflite
from tabml.cancellation import current_cancellation
from tabml.edge._lm.container import Container, read_container
from tabml.edge._lm.marks import Marks, marks_by_tokens
from tabml.edge._lm.native import NativeEngine
from tabml.edge._lm.pages import enlarge
from tabml.edge._lm.probe import check_loads
from tabml.edge._lm.turns import Turns
from tabml.errors import CorruptModelError, ModelKindError, OptionError
from tabml.files import FileRef, Snapshot
from tabml.generation.templates import ChatTemplate

if TYPE_CHECKING:
    from tabml.files import FileProvider

Device = Literal["cpu", "gpu"]
_WRITTEN = re.compile(r"<[^<>\s'\"{}%]{1,60}>|\[[A-Z_/]{2,40}\]")


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedLm:
    """A loaded model, and what turns conversations into prompts for it."""

    turns: Turns
    """The model."""
    container: Container
    """What its file says."""
    template: ChatTemplate | None
    """None where the file has none."""
    marks: Marks
    """What stands for pictures and sounds in its prompts."""
    control_texts: frozenset[str]
    """Control tokens as texts, and the marks: what users write must not hold them."""
    start_text: str
    """How the token is written that LiteRT-LM puts before every prompt; empty where there is none."""

    @property
    def takes(self) -> tuple[str, ...]:
        """What a message may hold: ``text``, ``image`` and ``audio``."""
        image = self.container.takes_pictures and self.marks.image
        audio = self.container.takes_sound and self.marks.audio
        return ("text", *(["image"] if image else []), *(["audio"] if audio else []))

    def close(self) -> None:
        """End what runs and free the model."""
        self.turns.close()
        if self.template is not None:
            self.template.close()


def open_lm(
    provider: FileProvider, ref: FileRef, *, device: Device, threads: int, context_length: int | None, keep: int
) -> OpenedLm:
    """A model from its file.

    Args:
        provider: Where the file comes from.
        ref: The file.
        device: ``cpu`` or ``gpu``.
        threads: For ``cpu``.
        context_length: Tokens of prompt and answer together; the file's own when None.
        keep: Conversations that stay in memory.

    Raises:
        ModelFileNotFoundError: there is no such file.
        ProviderError: the provider could not deliver.
        CorruptModelError: the file contradicts itself, or LiteRT-LM died of it in a process of its own.
        ModelKindError: it is no language model.
        ModelLoadError: LiteRT-LM refused it.
        OptionError: ``context_length`` is more than the model was made for.
    """
    name = str(ref)
    with _fetched(provider, ref) as path:
        container = read_container(path, name)
        _check_models(path, container, name)
        made_for = container.context_length
        if context_length is not None and made_for and context_length > made_for:
            raise OptionError(
                f"context_length={context_length} must be at most {made_for}, which this model was made for"
            )
        length = context_length or made_for
        if not length:
            raise ModelKindError(f"{name} does not say how long its context is; give context_length")
        check_loads(path, name, device=device, threads=threads)
        with private_folder() as cache:
            engine = NativeEngine(
                path, name=name, backend=device, threads=threads, context_length=length, cache=cache,
                vision=container.takes_pictures, audio=container.takes_sound,
            )  # fmt: skip
            try:
                enlarge(cache)
                return _around(engine, container, length, keep)
            except BaseException:
                engine.close()
                raise


def _check_models(path: Path, container: Container, name: str) -> None:
    """Nothing, when no model in the file contradicts itself; their pages are looked at, not read.

    Raises:
        CorruptModelError: one does.
    """
    with path.open("rb") as file:
        content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))  # goes with the last view of it
    for section in container.sections:
        if section.is_model:
            try:
                check_tflite(content[section.begin : section.end])
            except CorruptModelError as problem:
                raise CorruptModelError(f"{name}: {section.kind}: {problem}") from None


def measure_lm(
    provider: FileProvider, ref: FileRef, *, device: Device, threads: int, context_length: int, tokens: tuple[int, int]
) -> tuple[float, float, float, float]:
    """LiteRT-LM's own measurement of a file that was opened before, and is fetched again; see :meth:`NativeEngine.benchmark`."""
    with _fetched(provider, ref) as path, private_folder() as cache:
        engine = NativeEngine(
            path, name=str(ref), backend=device, threads=threads, context_length=context_length, cache=cache,
            benchmark=tokens,
        )  # fmt: skip
        try:
            enlarge(cache)
            return engine.benchmark(current_cancellation())
        finally:
            engine.close()


def _around(engine: NativeEngine, container: Container, length: int, keep: int) -> OpenedLm:
    stops = [_text_of(engine, stop) for stop in container.stop_tokens]
    start = _text_of(engine, container.start_token) if container.start_token is not None else ""
    said = _WRITTEN.findall(container.template or "")
    control = {text for text in {*stops, *said, start} if text and _is_token(engine, text)}
    marks = container.marks or marks_by_tokens(engine.decode)
    turns = Turns(
        engine,
        context_length=length,
        start_token=container.start_token is not None,
        stops=sorted({stop for stop in stops if stop in control}, key=len, reverse=True),
        keep=keep,
    )
    template = ChatTemplate(container.template) if container.template else None
    return OpenedLm(
        turns=turns, container=container, template=template, marks=marks, start_text=start,
        control_texts=frozenset({*control, *marks.all}),
    )  # fmt: skip


def _is_token(engine: NativeEngine, text: str) -> bool:
    return any(engine.decode([token]) == text for token in engine.encode(text))


def _text_of(engine: NativeEngine, token: int | str | tuple[int, ...]) -> str:
    if isinstance(token, str):
        return token
    return engine.decode([token] if isinstance(token, int) else list(token))


@contextmanager
def _fetched(provider: FileProvider, ref: FileRef) -> Iterator[Path]:
    """The file where LiteRT-LM can map it: where it lies, or in memory. Gone once it is mapped."""
    with Snapshot(provider, ref.repo, revision=ref.revision, cancellation=current_cancellation()) as folder:
        folder.add([ref.path])
        yield folder.path / ref.path


@contextmanager
def private_folder() -> Iterator[Path]:
    """A folder in memory, whose files are mapped and then gone."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="tabml-", dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)
