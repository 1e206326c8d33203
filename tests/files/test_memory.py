"""Files in memory, and folders of them: shared, checked, never on disk, gone when nobody needs them."""

from __future__ import annotations

import errno
import gc
import hashlib
import mmap
import os
import resource
import stat
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tabml.cancellation import Cancellation, current_cancellation
from tabml.errors import (
    CallCancelledError,
    CapacityError,
    CorruptModelError,
    InvalidNameError,
    ModelClosedError,
    ModelFileNotFoundError,
    ProviderError,
    ProviderUnavailableError,
)
from tabml.files import (
    DirectoryProvider,
    FileInfo,
    FileProvider,
    FileRef,
    FileStream,
    HeldFiles,
    MappedFiles,
    MemoryFile,
    MemoryProvider,
    ResidentFiles,
    Snapshot,
    load_model,
    read_bytes,
    snapshot,
)
from tabml.files.memory import chunks_of_view
from tabml.testing import HOSTILE_NAMES, FileProviderContract, file_names

REF = FileRef("maker/faces", "model.tflite")
CONTENT = bytes(range(256)) * 40
SUM = hashlib.sha256(CONTENT).hexdigest()
PATIENCE_S = 20
"""How long another thread may take: only a test that fails waits for it."""


def descriptors() -> set[str]:
    """What this process has open."""
    return set(os.listdir("/proc/self/fd"))


@pytest.fixture
def _no_descriptor_is_left() -> Iterator[None]:
    before = descriptors()
    yield
    if descriptors() - before:
        gc.collect()
    assert descriptors() <= before


frees_descriptors = pytest.mark.usefixtures("_no_descriptor_is_left")


class Source:
    """A provider that counts, and whose streams are what ``stream`` makes of a content."""

    def __init__(self, files: Mapping[str, bytes] | None = None) -> None:
        self.files = dict(files or {REF.path: CONTENT})
        self.opened: list[FileRef] = []
        self.listed: list[tuple[str, str | None]] = []
        self.closed = 0
        self.promise: str | None = None
        self.stream: Callable[[bytes], FileStream] = lambda content: FileStream([content], size=len(content))

    def open(self, ref: FileRef) -> FileStream:
        self.opened.append(ref)
        if ref.path not in self.files:
            raise ModelFileNotFoundError(f"{ref} is not here")
        stream = self.stream(self.files[ref.path])
        close = stream._close

        def count() -> None:
            self.closed += 1
            if close is not None:
                close()

        stream._close = count
        return stream

    def list(self, repo: str, revision: str | None = None) -> Sequence[FileInfo]:
        self.listed.append((repo, revision))
        return [FileInfo(name) for name in self.files]

    def sha256(self, ref: FileRef) -> str | None:
        return self.promise


class Watched(Cancellation):
    """Tells when work looks at it."""

    def __init__(self) -> None:
        super().__init__()
        self.looked_at = threading.Event()

    def check(self) -> None:
        self.looked_at.set()
        super().check()


# One file


def test_what_is_written_is_there_and_not_on_disk() -> None:
    file = MemoryFile("folder/model.tflite")
    file.write(CONTENT)
    file.write(memoryview(b"end"))
    assert file.size == len(CONTENT) + 3
    assert bytes(file.view()) == Path(file.path).read_bytes() == CONTENT + b"end"
    assert file.view().readonly
    assert os.readlink(file.path).startswith("/memfd:tabml:model.tflite")
    assert os.stat(file.path).st_nlink == 0


def test_a_view_is_not_copied_and_made_once() -> None:
    file = MemoryFile()
    file.write(CONTENT)
    first = file.view()
    assert file.view() is first
    assert isinstance(first.obj, mmap.mmap)
    file.write(b"more")
    assert bytes(first) == CONTENT
    assert bytes(file.view()) == CONTENT + b"more"


@frees_descriptors
def test_an_empty_file_has_an_empty_view() -> None:
    file = MemoryFile()
    assert bytes(file.view()) == Path(file.path).read_bytes() == b""
    file.write(b"")
    assert len(file.view()) == 0


@frees_descriptors
@pytest.mark.parametrize("on_disk", [False, True])
def test_a_view_stays_valid_when_its_file_is_gone(on_disk: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if on_disk:
        monkeypatch.delattr(os, "memfd_create")
    before = descriptors()
    file = MemoryFile()
    file.write(CONTENT)
    path = file.path
    link = Path(path) if on_disk else Path(os.readlink(path))
    with open(path, "rb") as opened:
        view = file.view()
        assert link.exists() == on_disk
        assert not on_disk or stat.S_IMODE(link.stat().st_mode) == 0o600
        del file
        gc.collect()
        assert not link.exists()
        assert bytes(view) == opened.read() == CONTENT
    del view
    assert descriptors() == before


@frees_descriptors
@pytest.mark.parametrize("name", ["x" * 1024, "字" * 1024, "é" * 1024, "a/" * 100 + "字" * 255, ""])
def test_any_name_will_do(name: str) -> None:
    file = MemoryFile(name)
    file.write(CONTENT)
    assert bytes(file.view()) == CONTENT


@frees_descriptors
def test_a_process_without_descriptors_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "memfd_create", refuse)
    with pytest.raises(CapacityError, match=r"no room for model\.tflite in memory: Too many open files"):
        MemoryFile("model.tflite")


@frees_descriptors
def test_a_machine_without_memory_is_told() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    file = MemoryFile()
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))
    try:
        with pytest.raises(CapacityError, match="does not fit into memory"):
            file.write(CONTENT)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert bytes(file.view()) == CONTENT[:5000]


@given(st.lists(st.binary(max_size=2000), max_size=8))
def test_chunks_of_any_size_are_one_file(chunks: list[bytes]) -> None:
    file = MemoryFile()
    views = []
    for at, chunk in enumerate(chunks):
        file.write(chunk)
        views.append((file.view(), b"".join(chunks[: at + 1])))
    assert all(bytes(view) == content for view, content in views)
    assert Path(file.path).read_bytes() == b"".join(chunks)


@given(st.binary(max_size=300), st.integers(1, 400))
def test_a_view_falls_into_chunks_of_any_size(content: bytes, size: int) -> None:
    chunks = list(chunks_of_view(memoryview(content), size))
    assert b"".join(chunks) == content
    assert [len(chunk) for chunk in chunks[:-1]] == [size] * (len(chunks) - 1)
    assert all(0 < len(chunk) <= size for chunk in chunks)


# Files that are shared


@frees_descriptors
def test_a_file_is_fetched_once_while_anyone_holds_it() -> None:
    source = Source()
    resident = ResidentFiles(source)
    assert resident.inner is source
    first, second = resident.hold(REF), resident.hold(REF)
    assert first is second is resident.held("maker/faces", "model.tflite")
    assert bytes(first.view()) == CONTENT
    assert source.opened == [REF]
    del first
    gc.collect()
    assert resident.hold(REF) is second
    del second
    gc.collect()
    assert resident.held("maker/faces", "model.tflite") is None
    assert bytes(resident.hold(REF).view()) == CONTENT
    assert source.opened == [REF, REF]
    assert source.closed == 2


def test_other_names_and_revisions_are_other_files() -> None:
    resident = ResidentFiles(source := Source({"a": b"a", "b": b"b"}))
    refs = [FileRef("r", "a"), FileRef("r", "b"), FileRef("r", "a", "v1"), FileRef("s", "a")]
    files = [resident.hold(ref) for ref in refs]
    assert len({id(file) for file in files}) == 4
    assert source.opened == refs
    assert resident.held("s", "a") is files[3]
    assert resident.held("r", "c") is None


def _stalled(source: Source, ends: Callable[[], bytes] = lambda: CONTENT) -> tuple[threading.Event, threading.Event]:
    """Have every stream stand still before its last chunk; gives what tells that, and what lets it go on."""
    waiting, going = threading.Event(), threading.Event()

    def chunks() -> Iterator[bytes]:
        yield CONTENT[:10]
        waiting.set()
        assert going.wait(PATIENCE_S)
        yield ends()[10:]

    source.stream = lambda content: FileStream(chunks(), size=len(content), cancel=going.set)
    return waiting, going


def _others_wait(pool: ThreadPoolExecutor, resident: ResidentFiles, count: int) -> list[Future[MemoryFile]]:
    """Threads that want the file, too, and have looked at least once whether they should go on waiting."""
    others = []
    for _ in range(count):
        watched = Watched()
        others.append(pool.submit(resident.hold, REF, cancellation=watched))
        assert watched.looked_at.wait(PATIENCE_S)
    return others


def test_threads_that_want_one_file_make_one_fetch() -> None:
    source = Source()
    waiting, going = _stalled(source)
    resident = ResidentFiles(source)
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(resident.hold, REF)
        assert waiting.wait(PATIENCE_S)
        others = _others_wait(pool, resident, 3)
        assert resident.held(REF.repo, REF.path) is None
        going.set()
        assert {other.result() for other in others} == {first.result()}
    assert source.opened == [REF]


def test_a_fetch_that_fails_is_tried_again_by_who_waited() -> None:
    def fail() -> bytes:
        failing.append(1)
        if len(failing) == 1:
            raise ProviderUnavailableError("the line is dead")
        return CONTENT

    failing: list[int] = []
    source = Source()
    waiting, going = _stalled(source, fail)
    resident = ResidentFiles(source)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(resident.hold, REF)
        assert waiting.wait(PATIENCE_S)
        (second,) = _others_wait(pool, resident, 1)
        going.set()
        with pytest.raises(ProviderUnavailableError, match="the line is dead"):
            first.result()
        assert bytes(second.result().view()) == CONTENT
    assert len(source.opened) == source.closed == 2


def test_a_slow_fetch_does_not_hold_up_another_file() -> None:
    source = Source({REF.path: CONTENT, "other": b"x"})
    waiting, going = _stalled(source)
    resident = ResidentFiles(source)
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(resident.hold, REF)
        assert waiting.wait(PATIENCE_S)
        source.stream = lambda content: FileStream([content])
        assert bytes(resident.hold(FileRef(REF.repo, "other")).view()) == b"x"
        assert not slow.done()
        going.set()


@frees_descriptors
@pytest.mark.parametrize("announced", ["by the stream", "by the stream's end", "by the provider"])
def test_a_damaged_transfer_is_not_kept_and_the_next_one_is_right(announced: str) -> None:
    source = Source({REF.path: b"damage"})
    if announced == "by the provider":
        source.promise = SUM
    else:

        def with_checksum(content: bytes) -> FileStream:
            def chunks() -> Iterator[bytes]:
                yield content
                stream.sha256 = SUM

            stream = FileStream(chunks(), sha256=SUM if announced == "by the stream" else None)
            return stream

        source.stream = with_checksum
    resident = ResidentFiles(source)
    with pytest.raises(CorruptModelError, match=r"maker/faces/model\.tflite: sha256 is"):
        resident.hold(REF)
    assert resident.held(REF.repo, REF.path) is None
    source.files[REF.path] = CONTENT
    assert bytes(resident.hold(REF).view()) == CONTENT
    assert source.closed == 2


def test_a_stream_and_its_provider_must_both_be_right() -> None:
    source = Source()
    source.promise = SUM
    source.stream = lambda content: FileStream([content], sha256="0" * 64)
    with pytest.raises(CorruptModelError):
        ResidentFiles(source).hold(REF)


@frees_descriptors
@pytest.mark.parametrize("announced", [0, len(CONTENT) - 1, len(CONTENT) + 1])
def test_a_length_that_lies_is_not_kept(announced: int) -> None:
    source = Source()
    source.stream = lambda content: FileStream([content], size=announced)
    resident = ResidentFiles(source)
    with pytest.raises(ProviderUnavailableError, match=f"{len(CONTENT)} of {announced} bytes arrived"):
        resident.hold(REF)
    assert resident.held(REF.repo, REF.path) is None
    source.stream = lambda content: FileStream([content], size=None)
    assert resident.hold(REF).size == len(CONTENT)


@frees_descriptors
def test_a_file_that_is_too_large_is_not_read_to_its_end() -> None:
    def endless() -> Iterator[bytes]:
        while True:
            read.append(1)
            assert len(read) < 100
            yield bytes(1000)

    read: list[int] = []
    source = Source()
    resident = ResidentFiles(source, max_bytes=len(CONTENT))
    assert resident.hold(REF).size == len(CONTENT)
    source.stream = lambda _: FileStream(endless())
    with pytest.raises(ProviderError, match=rf"maker/faces/model\.tflite is larger than max_bytes={len(CONTENT)}"):
        resident.hold(REF)
    assert len(read) == len(CONTENT) // 1000 + 1
    assert source.closed == 2


def test_progress_tells_of_every_chunk() -> None:
    told: list[tuple[str, int, int | None]] = []
    source = Source()
    source.stream = lambda content: FileStream([content[:100], content[100:]], size=len(content))
    resident = ResidentFiles(source)
    file = resident.hold(REF, progress=lambda *said: told.append(said))
    assert told == [("model.tflite", 100, len(CONTENT)), ("model.tflite", len(CONTENT), len(CONTENT))]
    assert resident.hold(REF, progress=lambda *said: told.append(said)) is file
    assert len(told) == 2


def test_a_fetch_that_is_cancelled_beforehand_opens_nothing() -> None:
    source, cancellation = Source(), Cancellation()
    cancellation.cancel("enough")
    with pytest.raises(CallCancelledError, match="enough"):
        ResidentFiles(source).hold(REF, cancellation=cancellation)
    assert source.opened == []


@frees_descriptors
@pytest.mark.parametrize("size", [None, len(CONTENT)])
@pytest.mark.parametrize("how", ["an error", "its end", "a chunk"])
def test_a_cancel_wakes_a_fetch_that_stalls(how: str, size: int | None) -> None:
    source, cancellation = Source(), Cancellation()
    waiting, woken = threading.Event(), threading.Event()

    def chunks() -> Iterator[bytes]:
        yield CONTENT[:10]
        waiting.set()
        assert woken.wait(PATIENCE_S)
        if how == "an error":
            raise ProviderUnavailableError("the line was cut")
        if how == "a chunk":
            yield CONTENT[10:]

    source.stream = lambda _: FileStream(chunks(), size=size, cancel=woken.set)
    resident = ResidentFiles(source)
    with ThreadPoolExecutor(1) as pool:
        fetch = pool.submit(resident.hold, REF, cancellation=cancellation)
        assert waiting.wait(PATIENCE_S)
        cancellation.cancel("enough")
        with pytest.raises(CallCancelledError, match="enough"):
            fetch.result()
    assert resident.held(REF.repo, REF.path) is None
    assert source.closed == 1
    source.stream = lambda content: FileStream([content])
    assert bytes(resident.hold(REF).view()) == CONTENT


def test_a_cancel_after_the_fetch_leaves_its_stream_alone() -> None:
    source, cancellation = Source(), Cancellation()
    source.stream = lambda content: FileStream([content], cancel=lambda: pytest.fail("it was cancelled"))
    file = ResidentFiles(source).hold(REF, cancellation=cancellation)
    cancellation.cancel()
    assert bytes(file.view()) == CONTENT


def test_a_provider_that_waits_in_its_open_finds_the_cancellation() -> None:
    source, cancellation = Source(), Cancellation()

    def stream(_: bytes) -> FileStream:
        assert current_cancellation() is cancellation
        cancellation.cancel("enough")
        raise ProviderUnavailableError("the line was cut")

    source.stream = stream
    with pytest.raises(CallCancelledError, match="enough"):
        ResidentFiles(source).hold(REF, cancellation=cancellation)
    assert current_cancellation() is None


def test_who_waits_for_the_fetch_of_another_can_be_cancelled_alone() -> None:
    source, watched = Source(), Watched()
    waiting, going = _stalled(source)
    resident = ResidentFiles(source)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(resident.hold, REF)
        assert waiting.wait(PATIENCE_S)
        second = pool.submit(resident.hold, REF, cancellation=watched)
        assert watched.looked_at.wait(PATIENCE_S)
        watched.cancel("enough")
        with pytest.raises(CallCancelledError, match="enough"):
            second.result(PATIENCE_S)
        assert not first.done()
        going.set()
        assert bytes(first.result().view()) == CONTENT


# The files of one model


class TestHeldFiles(FileProviderContract):
    @contextmanager
    def provide(self, files: Mapping[tuple[str, str], bytes]) -> Iterator[FileProvider]:
        with HeldFiles(ResidentFiles(MemoryProvider(files))) as held:
            yield held


@frees_descriptors
def test_files_are_held_until_the_last_who_needs_them_closes() -> None:
    source = Source({"b": b"bb", "a": b"a"})
    resident = ResidentFiles(source)
    ref = FileRef("r", "b")
    with HeldFiles(resident) as first, HeldFiles(resident) as second:
        assert (first.names, first.bytes_held, first.held("b")) == ((), 0, None)
        assert first.hold(ref) is second.hold(ref) is first.held("b") is first.hold(ref)
        assert read_bytes(first, FileRef("r", "a")) == b"a"
        assert (first.names, first.bytes_held) == (("a", "b"), 3)
        assert (second.names, second.bytes_held) == (("b",), 2)
        first.close()
        gc.collect()
        assert (first.names, first.bytes_held) == ((), 0)
        assert resident.held("r", "a") is None
        assert resident.held("r", "b") is second.held("b") is not None
    gc.collect()
    assert resident.held("r", "b") is None
    assert source.opened == [ref, FileRef("r", "a")]


@frees_descriptors
@pytest.mark.parametrize("ask", ["hold", "mapped", "open"])
def test_closed_files_are_not_given(ask: str) -> None:
    held = HeldFiles(ResidentFiles(source := Source()))
    view = held.mapped(REF)
    held.close()
    held.close()
    with pytest.raises(ModelClosedError, match="unloaded"):
        getattr(held, ask)(REF)
    assert source.opened == [REF]
    assert bytes(view) == CONTENT


@frees_descriptors
def test_a_file_that_arrives_after_the_close_is_not_held() -> None:
    source = Source()
    waiting, going = _stalled(source)
    held = HeldFiles(ResidentFiles(source))
    with ThreadPoolExecutor(1) as pool:
        fetch = pool.submit(held.hold, REF)
        assert waiting.wait(PATIENCE_S)
        held.close()
        going.set()
        with pytest.raises(ModelClosedError):
            fetch.result()
    assert (held.names, held.bytes_held) == ((), 0)


def test_what_is_held_can_be_asked_while_more_arrives() -> None:
    """As from another thread: each answer of a size brings another file."""
    arriving = iter("abc")

    class Growing:
        @property
        def size(self) -> int:
            for name in arriving:
                held.hold(FileRef("r", name))
                break
            return 1

    class Resident:
        def hold(self, ref: FileRef, **_: object) -> Any:
            return Growing()

    held = HeldFiles(Resident())  # type: ignore[arg-type]
    held.hold(REF)
    assert [held.bytes_held for _ in range(4)] == [1, 2, 4, 4]
    assert held.names == ("a", "b", "c", "model.tflite")


def test_the_time_of_the_fetches_is_counted() -> None:
    now = iter([10.0, 12.5, 20.0, 21.0])
    held = HeldFiles(ResidentFiles(Source({"a": b"a", "b": b"b"})), clock=lambda: next(now))
    for name, seconds in (("a", 2.5), ("a", 2.5), ("b", 3.5)):
        held.hold(FileRef("r", name))
        assert held.fetch_seconds == seconds


def test_a_model_gets_its_bytes_without_a_copy() -> None:
    held = HeldFiles(ResidentFiles(Source()))
    assert isinstance(held, MappedFiles)
    assert load_model(REF, files=held) is held.hold(REF).view()


def test_cancellation_and_progress_go_along_with_every_fetch() -> None:
    told: list[str] = []
    cancellation = Cancellation()
    held = HeldFiles(
        ResidentFiles(Source({"a": b"a", "b": b"b"})),
        cancellation=cancellation,
        progress=lambda name, *_: told.append(name),
    )
    held.hold(FileRef("r", "a"))
    cancellation.cancel()
    with pytest.raises(CallCancelledError):
        held.hold(FileRef("r", "b"))
    assert told == ["a"]
    assert bytes(held.mapped(FileRef("r", "a"))) == b"a"


# Folders of them

FILES = {
    "config.json": b"{}",
    "model.safetensors": CONTENT,
    "onnx/model.onnx": b"onnx",
    "onnx/deep/er.json": b"[]",
    "empty.txt": b"",
}


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where snapshots are made: nothing else is."""
    make, place = tempfile.mkdtemp, tmp_path / "shelf"
    place.mkdir()
    monkeypatch.setattr("tabml.files.folder.tempfile.mkdtemp", lambda prefix, dir: make(prefix=prefix, dir=place))
    return place


def content_of(folder: Snapshot) -> dict[str, bytes]:
    """Every file, by its name."""
    found = [path for path in folder.path.rglob("*") if not path.is_dir()]
    return {path.relative_to(folder.path).as_posix(): path.read_bytes() for path in found}


@frees_descriptors
def test_a_folder_has_all_files_and_is_gone_when_it_is_closed() -> None:
    before = descriptors()
    folder = snapshot(Source(FILES), "r")
    assert len(descriptors() - before) == len(FILES) + 1  # the folder's lock
    assert content_of(folder) == FILES
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    assert folder.path.parent == Path("/dev/shm" if os.access("/dev/shm", os.W_OK) else tempfile.gettempdir())
    assert all(path.is_symlink() for path in folder.path.rglob("*.*"))
    folder.close()
    assert not folder.path.exists()
    assert descriptors() <= before
    folder.close()


@frees_descriptors
def test_what_was_opened_or_mapped_before_the_close_stays_valid(shelf: Path) -> None:
    with ExitStack() as stack:
        with snapshot(Source(FILES), "r") as folder:
            opened = stack.enter_context(open(folder.path / "model.safetensors", "rb"))
            mapped = stack.enter_context(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ))
        assert list(shelf.iterdir()) == []
        assert opened.read() == mapped[:] == CONTENT


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["*"], set(FILES)),
        (["*.json"], {"config.json", "onnx/deep/er.json"}),
        (["onnx/*"], {"onnx/model.onnx", "onnx/deep/er.json"}),
        (["config.json"], {"config.json"}),
        (["config.json", "*.json", "config.json"], {"config.json", "onnx/deep/er.json"}),
        (["m?del.safetensors", "empty.txt"], {"model.safetensors", "empty.txt"}),
        (["model.[rs]afetensors"], {"model.safetensors"}),
        ([], set()),
    ],
)
def test_patterns_and_names_say_which_files(shelf: Path, patterns: list[str], expected: set[str]) -> None:
    source = Source(FILES)
    with snapshot(source, "r", patterns) as folder:
        assert content_of(folder) == {name: FILES[name] for name in expected}
    assert sorted(ref.path for ref in source.opened) == sorted(expected)


@frees_descriptors
@pytest.mark.parametrize("patterns", [["*.bin"], ["*.JSON"], ["*.json", "missing.txt"], ["*.json", "*.bin"]])
def test_what_must_be_there_and_is_not_is_told(shelf: Path, patterns: list[str]) -> None:
    with pytest.raises(ModelFileNotFoundError, match=r"\*\.bin|\*\.JSON|missing\.txt"):
        snapshot(Source(FILES), "r", patterns)
    assert list(shelf.iterdir()) == []


def test_what_is_optional_may_be_missing(shelf: Path) -> None:
    optional = ["empty.txt", "missing.txt", "config.json", "empty.txt"]
    with snapshot(Source(FILES), "r", ["*.json"], optional=optional) as folder:
        assert set(content_of(folder)) == {"config.json", "onnx/deep/er.json", "empty.txt"}


@frees_descriptors
def test_what_is_optional_must_not_fail_otherwise(shelf: Path) -> None:
    source = Source(FILES)
    source.stream = lambda content: FileStream([content], size=7)
    with pytest.raises(ProviderUnavailableError):
        snapshot(source, "r", [], optional=["config.json"])
    assert list(shelf.iterdir()) == []


def test_names_need_no_listing(shelf: Path) -> None:
    class Mute(Source):
        def list(self, repo: str, revision: str | None = None) -> Sequence[FileInfo]:
            raise ProviderError("it can't list")

    with snapshot(Mute(FILES), "r", ["config.json"]) as folder:
        assert set(content_of(folder)) == {"config.json"}
    with pytest.raises(ProviderError, match="can't list"):
        snapshot(Mute(FILES), "r", ["*"])
    assert list(shelf.iterdir()) == []


@frees_descriptors
@pytest.mark.parametrize("name", HOSTILE_NAMES)
@pytest.mark.parametrize("how", ["listed", "listed among others", "named", "optional"])
def test_no_name_leads_out_of_the_folder(shelf: Path, name: str, how: str) -> None:
    source = Source({"good.txt": b"good", name: b"bad"})
    patterns = {"listed": ["*"], "listed among others": ["good*"], "named": ["good.txt", name]}.get(how, ["good.txt"])
    with pytest.raises(InvalidNameError):
        snapshot(source, "r", patterns, optional=[name] if how == "optional" else [])
    assert list(shelf.iterdir()) == []
    assert name not in {ref.path for ref in source.opened}


@frees_descriptors
@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_no_link_is_made_out_of_the_folder(shelf: Path, name: str) -> None:
    with snapshot(Source(), "r", []) as folder:
        with pytest.raises(InvalidNameError):
            folder.link(name, "/dev/null")
        assert content_of(folder) == {}
        assert list(shelf.iterdir()) == [folder.path]


@frees_descriptors
@pytest.mark.parametrize("names", [("a", "a/b"), ("a/b", "a"), ("a/b/c", "a/b"), ("x" * 256,)])
def test_names_that_no_folder_can_have_are_told(shelf: Path, names: tuple[str, ...]) -> None:
    with pytest.raises(ProviderError, match="can't be put into a folder"):
        snapshot(Source(dict.fromkeys(names, b"")), "r")
    assert list(shelf.iterdir()) == []


@frees_descriptors
def test_files_of_this_machine_are_linked_where_they_lie(shelf: Path, tmp_path: Path) -> None:
    place = tmp_path / "models" / "r" / "onnx" / "model.onnx"
    place.parent.mkdir(parents=True)
    place.write_bytes(CONTENT)
    before = descriptors()
    for provider in (DirectoryProvider(tmp_path / "models"), ResidentFiles(DirectoryProvider(tmp_path / "models"))):
        with snapshot(provider, "r") as folder:
            assert Path(os.readlink(folder.path / "onnx" / "model.onnx")) == place
            assert content_of(folder) == {"onnx/model.onnx": CONTENT}
            assert len(descriptors() - before) == 1  # the folder's lock
        with pytest.raises(ModelFileNotFoundError):
            snapshot(provider, "r", ["missing"])
    assert place.read_bytes() == CONTENT
    assert list(shelf.iterdir()) == []


def test_a_file_that_lies_at_a_relative_path_is_found_from_everywhere(
    shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Near(Source):
        def local_path(self, ref: FileRef) -> Path | None:
            return Path(ref.path)

    (tmp_path / "near.txt").write_bytes(b"near")
    monkeypatch.chdir(tmp_path)
    with snapshot(Near({"near.txt": b""}), "r") as folder:
        monkeypatch.chdir("/")
        assert content_of(folder) == {"near.txt": b"near"}


def test_a_revision_is_asked_for_everywhere(shelf: Path) -> None:
    source = Source(FILES)
    snapshot(source, "r", ["*.json"], optional=["empty.txt"], revision="v2").close()
    assert {ref.revision for ref in source.opened} == {"v2"}
    assert {ref.path for ref in source.opened} == {"config.json", "onnx/deep/er.json", "empty.txt"}
    assert source.listed == [("r", "v2")]


def test_folders_share_the_files_that_are_in_memory(shelf: Path) -> None:
    source = Source(FILES)
    resident = ResidentFiles(source)
    with HeldFiles(resident) as model:
        model.hold(FileRef("r", "model.safetensors"))
        with snapshot(resident, "r", ["model.safetensors"]) as one, snapshot(resident, "r") as other:
            names = [os.readlink(folder.path / "model.safetensors") for folder in (one, other)]
            assert names[0] == names[1]
            one.close()
            assert content_of(other) == FILES
    assert len(source.opened) == len(FILES)


@frees_descriptors
def test_a_transfer_into_a_folder_can_be_watched_and_cancelled(shelf: Path) -> None:
    told: list[tuple[str, int, int | None]] = []
    cancellation = Cancellation()

    def progress(*said: Any) -> None:
        told.append(said)
        cancellation.cancel("enough")

    with pytest.raises(CallCancelledError, match="enough"):
        snapshot(Source(FILES), "r", ["config.json", "empty.txt"], cancellation=cancellation, progress=progress)
    assert set(told) <= {("config.json", 2, 2), ("empty.txt", 0, 0)}  # several at a time
    assert told
    assert list(shelf.iterdir()) == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(files=st.dictionaries(file_names(), st.binary(max_size=50), min_size=1, max_size=6))
def test_any_files_make_a_folder(shelf: Path, files: dict[str, bytes]) -> None:
    folders = {name[:at] for name in files for at, letter in enumerate(name) if letter == "/"}
    files = {name: content for name, content in files.items() if name not in folders}
    with snapshot(MemoryProvider({("r", name): content for name, content in files.items()}), "r") as folder:
        assert content_of(folder) == files
    assert list(shelf.iterdir()) == []


# Files that are one user's alone


def test_a_file_is_taken_by_its_only_user_and_fetched_anew_for_others() -> None:
    resident = ResidentFiles(source := Source())
    with HeldFiles(resident) as first, HeldFiles(resident) as second:
        assert first.take(REF) is None
        mine = first.hold(REF)
        assert first.take(REF) is mine
        assert (first.names, first.bytes_held, first.bytes_fetched) == ((), 0, len(CONTENT))
        assert first.take(REF) is None
        assert second.hold(REF) is not mine
        assert source.opened == [REF, REF]


@pytest.mark.parametrize("ask", ["hold", "held", "mapped", "other", "resident", "resident held"])
def test_a_file_that_anybody_else_was_given_is_not_taken(ask: str) -> None:
    resident = ResidentFiles(Source())
    with HeldFiles(resident) as first, HeldFiles(resident) as second:
        file = first.hold(REF)
        {
            "hold": lambda: first.hold(REF),
            "held": lambda: first.held(REF.path),
            "mapped": lambda: first.mapped(REF),
            "other": lambda: second.hold(REF),
            "resident": lambda: resident.hold(REF),
            "resident held": lambda: resident.held(REF.repo, REF.path),
        }[ask]()
        assert first.take(REF) is None
        assert first.hold(REF) is file


def test_two_folders_over_the_same_files_take_nothing_from_each_other() -> None:
    held = HeldFiles(ResidentFiles(Source()))
    with Snapshot(held, REF.repo) as one, Snapshot(held, REF.repo) as other:
        one.add([REF.path])
        other.add([REF.path])
        assert one.take([REF.path]) == other.take([REF.path]) == []
    with Snapshot(Source(), REF.repo) as alone:
        alone.add([REF.path])
        (file,) = alone.take([REF.path, "of another folder"])
        assert (alone.path / REF.path).read_bytes() == CONTENT
        assert file.size == len(CONTENT)


def test_dropped_pages_are_zero_and_take_no_memory() -> None:
    part = 1 << 22
    file = MemoryFile()
    file.write(b"x" * 4 * part)
    view = file.view()
    assert view[part : 3 * part] == b"x" * 2 * part
    file.drop(part, 3 * part)
    status = os.stat(file.path)
    assert status.st_ino == file.inode
    assert status.st_blocks * 512 < 3 * part
    assert view == b"x" * part + bytes(2 * part) + b"x" * part


def test_folders_of_killed_processes_are_swept_and_those_of_others_stay(tmp_path: Path) -> None:
    code = """
        import os, sys, pathlib
        from tabml.files import MemoryProvider, Snapshot
        from tabml.files import folder
        folder._MEMORY = pathlib.Path(sys.argv[1])
        held = Snapshot(MemoryProvider({("me", "a"): b"x"}), "me")
        held.add(["a"])
        print(held.path, flush=True)
        sys.stdin.read()
        os._exit(9)
    """

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    with start() as killed, start() as living:
        assert killed.stdout is not None
        assert living.stdout is not None
        left, kept = (Path(each.stdout.readline().strip()) for each in (killed, living) if each.stdout)
        killed.kill()
        killed.wait()
        assert left.is_dir()
        for folder in (left, kept):
            os.utime(folder, (0, 0))
        with start() as sweeping:
            assert sweeping.stdout is not None
            assert Path(sweeping.stdout.readline().strip()).is_dir()
            assert not left.exists()
            assert (kept / "a").is_symlink()
            sweeping.kill()
        living.kill()


def test_a_child_that_was_forked_leaves_the_folder_of_its_parent() -> None:
    code = """
        import os, sys
        from tabml.files import MemoryProvider, Snapshot
        held = Snapshot(MemoryProvider({("me", "a"): b"x"}), "me")
        held.add(["a"])
        if not os.fork():
            sys.exit(0)
        os.wait()
        print(held.path.is_dir())
        held.close()
        print(held.path.exists())
    """
    ran = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["True", "False"]
