"""The cache: what it keeps, what it lets go, and what it never hands out."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tabml.errors import CorruptModelError, ModelFileNotFoundError, OptionError, ProviderError, ProviderUnavailableError
from tabml.files import CachingProvider, FileInfo, FileProvider, FileRef, FileStream, read_bytes

REF = FileRef("maker/faces", "model.tflite")
CONTENT = bytes(range(256)) * 2000
SUM = hashlib.sha256(CONTENT).hexdigest()


class Source:
    """A provider that counts, and whose files, sizes and checksums can be anything."""

    def __init__(self, files: dict[FileRef, bytes], *, promise: str | None = None) -> None:
        self.files, self.promise = files, promise
        self.opened = 0
        self.before: Callable[[], None] = lambda: None
        self.announced: int | None = None

    def open(self, ref: FileRef) -> FileStream:
        self.opened += 1
        self.before()
        if ref not in self.files:
            raise ModelFileNotFoundError(f"{ref} is not here")
        content = self.files[ref]
        return FileStream([content], size=self.announced if self.announced is not None else len(content))

    def list(self, repo: str, revision: str | None = None) -> Sequence[FileInfo]:
        return [FileInfo(ref.path) for ref in self.files if ref.repo == repo]

    def sha256(self, ref: FileRef) -> str | None:
        return self.promise if ref in self.files else None


def blobs(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "blobs").iterdir())


def test_a_file_is_fetched_once_even_by_another_cache_of_the_same_root(tmp_path: Path) -> None:
    source = Source({REF: CONTENT})
    for _ in range(3):
        assert read_bytes(CachingProvider(source, tmp_path), REF) == CONTENT
    assert source.opened == 1
    assert blobs(tmp_path) == [SUM]


def test_names_with_the_same_bytes_share_them(tmp_path: Path) -> None:
    other = FileRef("maker/faces", "copy.tflite", "v2")
    cache = CachingProvider(Source({REF: CONTENT, other: CONTENT}), tmp_path)
    assert read_bytes(cache, REF) == read_bytes(cache, other) == CONTENT
    assert blobs(tmp_path) == [SUM]


@pytest.mark.parametrize("damage", [b"", CONTENT[:-1], CONTENT[:-1] + b"x", b"x" * len(CONTENT)])
@pytest.mark.parametrize("promise", [None, SUM])
def test_a_damaged_file_is_fetched_again(tmp_path: Path, damage: bytes, promise: str | None) -> None:
    source = Source({REF: CONTENT}, promise=promise)
    cache = CachingProvider(source, tmp_path)
    read_bytes(cache, REF)
    (tmp_path / "blobs" / SUM).write_bytes(damage)
    assert read_bytes(cache, REF) == CONTENT
    assert source.opened == 2
    assert (tmp_path / "blobs" / SUM).read_bytes() == CONTENT


def test_a_damaged_file_is_gone_even_when_it_can_not_be_fetched_again(tmp_path: Path) -> None:
    source = Source({REF: CONTENT})
    cache = CachingProvider(source, tmp_path)
    read_bytes(cache, REF)
    (tmp_path / "blobs" / SUM).write_bytes(b"damage")
    source.files.clear()
    with pytest.raises(ModelFileNotFoundError):
        cache.open(REF)
    assert blobs(tmp_path) == []


@pytest.mark.parametrize("note", [b"", b"{}", b"[]", b"null", b'{"sha256": 5}', b'{"sha256": "../../x"}', b"\xff\xfe"])
def test_a_damaged_note_is_fetched_again(tmp_path: Path, note: bytes) -> None:
    source = Source({REF: CONTENT})
    cache = CachingProvider(source, tmp_path)
    read_bytes(cache, REF)
    next((tmp_path / "refs").iterdir()).write_bytes(note)
    assert read_bytes(cache, REF) == CONTENT
    assert source.opened == 2


def test_a_note_can_not_point_out_of_the_cache(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    cache = CachingProvider(Source({REF: CONTENT}), tmp_path / "cache")
    read_bytes(cache, REF)
    next((tmp_path / "cache" / "refs").iterdir()).write_text(json.dumps({"sha256": str(secret)}))
    assert cache.local_path(REF) is None
    assert read_bytes(cache, REF) == CONTENT


def test_bytes_other_than_promised_are_never_kept(tmp_path: Path) -> None:
    cache = CachingProvider(Source({REF: b"an error page"}, promise=SUM), tmp_path)
    with pytest.raises(CorruptModelError, match="not kept"):
        cache.open(REF)
    assert blobs(tmp_path) == []


@pytest.mark.parametrize("announced", [0, len(CONTENT) - 1, len(CONTENT) + 1])
def test_a_length_that_lies_is_never_kept(tmp_path: Path, announced: int) -> None:
    source = Source({REF: CONTENT})
    source.announced = announced
    with pytest.raises(ProviderUnavailableError):
        CachingProvider(source, tmp_path).open(REF)
    assert blobs(tmp_path) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, ProviderError])
def test_a_fetch_that_is_interrupted_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    def chunks():
        yield CONTENT
        raise error("stop")

    source = Source({REF: CONTENT})
    source.open = lambda ref: FileStream(chunks())  # type: ignore[method-assign]
    with pytest.raises(error):
        CachingProvider(source, tmp_path).open(REF)
    assert blobs(tmp_path) == []


def test_a_stream_survives_the_eviction_of_its_file(tmp_path: Path) -> None:
    other = FileRef("a", "b")
    cache = CachingProvider(Source({REF: CONTENT, other: b"x" * 100}), tmp_path, max_bytes=10)
    read_bytes(cache, REF)
    with cache.open(REF) as stream:
        read_bytes(cache, other)
        assert SUM not in blobs(tmp_path)
        assert b"".join(stream) == CONTENT


def test_files_left_by_a_process_that_died_go_after_a_day(tmp_path: Path) -> None:
    cache = CachingProvider(Source({REF: CONTENT}), tmp_path)
    (tmp_path / "blobs").mkdir()
    old, new = tmp_path / "blobs" / ".part-old", tmp_path / "blobs" / ".part-new"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 90_000,) * 2)
    read_bytes(cache, REF)
    assert not old.exists()
    assert new.exists()


def test_a_folder_or_a_fifo_in_the_place_of_a_file_harms_nothing(tmp_path: Path) -> None:
    source = Source({REF: CONTENT}, promise=SUM)
    cache = CachingProvider(source, tmp_path)
    (tmp_path / "blobs" / SUM).mkdir(parents=True)
    assert read_bytes(cache, REF) == CONTENT
    (tmp_path / "blobs" / SUM).rmdir()
    os.mkfifo(tmp_path / "blobs" / SUM)
    assert read_bytes(cache, REF) == CONTENT
    assert read_bytes(cache, REF) == CONTENT
    assert source.opened == 2


def test_a_full_disk_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def write(self, _: bytes) -> int:
            raise OSError(28, "No space left on device")

        def close(self) -> None:
            pass

    cache = CachingProvider(Source({REF: CONTENT}), tmp_path)
    monkeypatch.setattr(cache, "_new_part", lambda: (Full(), None))
    with pytest.raises(ProviderError, match=r"No space left.*TABML_HOME"):
        cache.open(REF)


def test_eight_threads_that_want_one_file_make_one_fetch(tmp_path: Path) -> None:
    source = Source({REF: CONTENT})
    source.before = lambda: time.sleep(0.1)
    cache = CachingProvider(source, tmp_path)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: read_bytes(cache, REF), range(8)))
    assert found == [CONTENT] * 8
    assert source.opened == 1


def test_a_slow_fetch_does_not_hold_up_another_file(tmp_path: Path) -> None:
    other, waiting = FileRef("a", "b"), threading.Event()
    source = Source({REF: CONTENT, other: b"x"})
    cache = CachingProvider(source, tmp_path)
    read_bytes(cache, other)
    source.before = lambda: waiting.wait(5) and None
    slow = threading.Thread(target=lambda: cache.open(REF).close())
    slow.start()
    begun = time.monotonic()
    assert read_bytes(cache, other) == b"x"
    assert time.monotonic() - begun < 2
    waiting.set()
    slow.join()


def _churn(root: str, seed: int, problems: multiprocessing.Queue) -> None:  # type: ignore[type-arg]
    import random

    try:
        files = {FileRef("r", str(number)): bytes([number]) * 40_000 for number in range(8)}
        cache = CachingProvider(Source(files), root, max_bytes=150_000)
        draw = random.Random(seed)
        for _ in range(150):
            ref = draw.choice(list(files))
            if read_bytes(cache, ref) != files[ref]:
                problems.put(f"{ref}: other bytes")
            if draw.random() < 0.1 and (path := cache.local_path(ref)):
                path.write_bytes(b"damage")
    except Exception as problem:
        problems.put(repr(problem))


def test_three_processes_may_share_a_root_while_files_are_damaged_and_evicted(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    problems = context.Queue()
    processes = [context.Process(target=_churn, args=(str(tmp_path), seed, problems)) for seed in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    assert problems.empty(), problems.get()
    problems.close()
    assert not [name for name in blobs(tmp_path) if name.startswith(".")]


def test_a_cap_that_is_not_positive_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="max_bytes"):
        CachingProvider(Source({}), tmp_path, max_bytes=0)


class CacheMachine(RuleBasedStateMachine):
    """The cache against a dict of what it should hold, least recently used first."""

    CAP = 100

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.root = Path(self.folder.name)
        self.source = Source({})
        self.cache: FileProvider = CachingProvider(self.source, self.root, max_bytes=self.CAP)
        self.names: dict[FileRef, bytes] = {}
        """What each name had when it was first fetched."""
        self.held: dict[str, bytes] = {}
        """What should be on disk, least recently used first."""

    refs = st.builds(FileRef, st.sampled_from(["a", "b"]), st.sampled_from(["x", "y/z"]), st.sampled_from([None, "v1"]))
    contents = st.integers(0, 5).flatmap(lambda seed: st.just(bytes([seed]) * (seed * 17)))

    @rule(ref=refs, content=contents)
    def publish(self, ref: FileRef, content: bytes) -> None:
        self.source.files[ref] = content

    @rule(ref=refs)
    def withdraw(self, ref: FileRef) -> None:
        self.source.files.pop(ref, None)

    @rule(ref=refs)
    def read(self, ref: FileRef) -> None:
        first = self.names.get(ref)
        held = first is not None and hashlib.sha256(first).hexdigest() in self.held
        expected = first if held else self.source.files.get(ref)
        before = self.source.opened
        if expected is None:
            with pytest.raises(ModelFileNotFoundError):
                self.cache.open(ref)
            return
        assert read_bytes(self.cache, ref) == expected
        assert self.source.opened == before + (not held)
        self.names[ref] = expected
        self._use(expected, evict=not held)

    def _use(self, content: bytes, *, evict: bool) -> None:
        name = hashlib.sha256(content).hexdigest()
        self.held.pop(name, None)
        self.held[name] = content
        while evict and sum(map(len, self.held.values())) > self.CAP and len(self.held) > 1:
            del self.held[next(iter(self.held))]

    @rule(ref=refs, damage=st.binary(max_size=5))
    def damage(self, ref: FileRef, damage: bytes) -> None:
        content = self.names.get(ref)
        name = hashlib.sha256(content).hexdigest() if content is not None else ""
        if content is not None and name in self.held and damage != content:
            path = self.root / "blobs" / name
            path.unlink()  # as a damaged disk would: the entry is worthless now
            del self.held[name]

    @rule()
    def open_again(self) -> None:
        self.cache = CachingProvider(self.source, self.root, max_bytes=self.CAP)

    @rule(ref=refs)
    def the_local_path_is_the_file(self, ref: FileRef) -> None:
        content = self.names.get(ref)
        path = self.cache.local_path(ref)  # type: ignore[attr-defined]
        if content is None or hashlib.sha256(content).hexdigest() not in self.held:
            assert path is None
        else:
            assert path.read_bytes() == content

    @invariant()
    def the_disk_holds_what_the_model_holds(self) -> None:
        on_disk = set(blobs(self.root)) if (self.root / "blobs").exists() else set()
        assert on_disk == set(self.held)
        for name in on_disk:
            assert hashlib.sha256((self.root / "blobs" / name).read_bytes()).hexdigest() == name

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.folder.cleanup()


TestCacheAgainstADict = CacheMachine.TestCase
TestCacheAgainstADict.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
