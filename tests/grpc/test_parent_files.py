"""Files from the parent: whole and checked, or an error that says what was wrong; the next honest transfer works."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from parent_server import Parent, listening

from tabml.cancellation import Cancellation
from tabml.errors import (
    CallCancelledError,
    CorruptModelError,
    InvalidNameError,
    ModelFileNotFoundError,
    OptionError,
    ProviderAccessError,
    ProviderTimeoutError,
    ProviderUnavailableError,
)
from tabml.files import FileInfo, FileRef, ResidentFiles, read_bytes
from tabml.testing import FileProviderContract, hostile_names
from tabml_grpc.ml import ml_inference_pb2 as ml
from tabml_grpc.parent import ParentFiles
from tabml_grpc.v1 import files_pb2 as v1

REF = FileRef("model", "weights.bin")
CONTENT = bytes(range(256)) * 40
SHA256 = hashlib.sha256(CONTENT).hexdigest()
KINDS = pytest.mark.parametrize("only_ml", [False, True], ids=["ReadFile", "GetModelFile"])


@contextmanager
def connected(only_ml: bool = False, **more: Any) -> Iterator[tuple[Parent, ParentFiles]]:
    """An honest parent, and a provider that asks it."""
    with listening(Parent({("model", "weights.bin"): CONTENT}, only_ml=only_ml)) as parent:
        files = ParentFiles(parent.address, **more)
        try:
            yield parent, files
        finally:
            files.close()


class _Contract(FileProviderContract):
    only_ml = False

    @contextmanager
    def provide(self, files: Mapping[tuple[str, str], bytes]) -> Iterator[ParentFiles]:
        with listening(Parent(dict(files), only_ml=self.only_ml)) as parent:
            provider = ParentFiles(parent.address)
            yield provider
            provider.close()


class TestParentFiles(_Contract):
    pass


class TestParentFilesOfTheOldContract(_Contract):
    only_ml = True
    can_list = False


@KINDS
def test_a_file_arrives_whole(only_ml: bool) -> None:
    with connected(only_ml) as (parent, files):
        parent.chunk = 100
        for _ in range(2):
            with files.open(REF) as stream:
                assert stream.size == len(CONTENT)
                assert b"".join(stream) == CONTENT
        parent.files["model", "empty"] = b""
        assert read_bytes(files, FileRef("model", "empty")) == b""


@settings(max_examples=30)
@given(st.binary(max_size=3000), st.integers(1, 3500), st.booleans())
def test_any_content_arrives_in_any_chunks(content: bytes, chunk: int, only_ml: bool) -> None:
    parent, files = _shared(only_ml)
    parent.files["model", "any"] = content
    parent.chunk = chunk
    assert read_bytes(files, FileRef("model", "any")) == content
    assert bytes(ResidentFiles(files).hold(FileRef("model", "any")).view()) == content


_open: dict[bool, tuple[Parent, ParentFiles, Any]] = {}


def _shared(only_ml: bool) -> tuple[Parent, ParentFiles]:
    if only_ml not in _open:
        context = connected(only_ml)
        _open[only_ml] = (*context.__enter__(), context)
    return _open[only_ml][:2]


@pytest.fixture(autouse=True)
def _honest_again() -> Iterator[None]:
    """One test that fails must not spoil the next."""
    yield
    for parent, *_ in _open.values():
        parent.reply, parent.chunk, parent.files = None, 1 << 20, {("model", "weights.bin"): CONTENT}


@pytest.fixture(scope="module", autouse=True)
def _hang_up() -> Iterator[None]:
    yield
    for *_, context in _open.values():
        context.__exit__(None, None, None)


def parts(*ranges: tuple[int, int], total: int = len(CONTENT), **more: Any) -> list[dict[str, Any]]:
    return [{"data": CONTENT[a:b], "offset": a, "total_size": total, **more} for a, b in ranges]


N = len(CONTENT)
LIES: dict[str, list[dict[str, Any]]] = {
    "a gap": parts((0, 10), (20, N)),
    "an overlap": parts((0, 20), (10, N)),
    "out of order": parts((10, N), (0, 10)),
    "not from the start": parts((10, N)),
    "another total": [*parts((0, 10)), *parts((10, N), total=N + 1)],
    "a negative total": parts((0, 10), total=-1),
    "more than its total": parts((0, 10), (10, 30), total=20),
    "an empty chunk": [*parts((0, 10)), *parts((10, 10)), *parts((10, N))],
    "an empty chunk at the end": parts((0, N), (N, N)),
    "nothing at all": [],
    "a checksum of something else": [{**part, "sha256": "0" * 64} for part in parts((0, N))],
    "a checksum of something else, at the end": [*parts((0, 10)), {**parts((10, N))[0], "sha256": "ab" * 32}],
    "a checksum of something else, at the start": [{**parts((0, 10))[0], "sha256": "ab" * 32}, *parts((10, N))],
    "another total, and less": [*parts((0, 10)), *parts((10, 20), total=20)],
    "swapped in the middle": parts((0, 10), (20, 30), (10, 20), (30, N)),
    "one chunk twice": parts((0, 10), (0, 10), (10, N)),
    "empty, and then not": [*parts((0, 0), total=0), *parts((0, N))],
    "empty, twice": parts((0, 0), (0, 0), total=0),
    "two checksums": [{**parts((0, 10))[0], "sha256": "ab" * 32}, {**parts((10, N))[0], "sha256": SHA256}],
    "no checksum": [{**part, "sha256": "zzz"} for part in parts((0, N))],
}
LIES_OF_THE_END = {
    "never last": parts((0, 10), (10, N)),
    "last too early": [{**parts((0, 10))[0], "is_last": True}, {**parts((10, N))[0], "is_last": True}],
    "last and then more": [{**parts((0, N))[0], "is_last": True}, *parts((N, N), is_last=True)],
    "last twice": [{**parts((0, N))[0], "is_last": True}, {**parts((0, N))[0], "is_last": True}],
    "last twice, and empty": parts((0, 0), (0, 0), total=0, is_last=True),
    "last, and short": [{**parts((0, 10))[0], "is_last": True}],
}


def told(chunks: list[dict[str, Any]], only_ml: bool) -> Any:
    def reply(request: Any, context: Any) -> Iterator[Any]:
        for number, chunk in enumerate(chunks):
            if not only_ml:
                yield v1.ReadFileResponse(**chunk)
            elif "is_last" in chunk or chunks in LIES_OF_THE_END.values():
                yield ml.ModelFileChunk(**chunk)
            else:
                yield ml.ModelFileChunk(**chunk, is_last=number == len(chunks) - 1)

    return reply


CASES = [(name, only_ml) for name in LIES for only_ml in (False, True)] + [(name, True) for name in LIES_OF_THE_END]


@pytest.mark.parametrize(("lie", "only_ml"), CASES, ids=str)
def test_a_transfer_that_contradicts_itself_is_not_used(lie: str, only_ml: bool) -> None:
    parent, files = _shared(only_ml)
    parent.files["model", "weights.bin"] = CONTENT
    resident = ResidentFiles(files)
    parent.reply = told(LIES.get(lie) or LIES_OF_THE_END.get(lie) or [], only_ml)
    with pytest.raises(CorruptModelError, match=r"model/weights\.bin"):
        resident.hold(REF)
    with pytest.raises(CorruptModelError):
        read_bytes(files, REF)
    parent.reply = None
    assert bytes(resident.hold(REF).view()) == CONTENT


@KINDS
def test_an_honest_checksum_is_fine(only_ml: bool) -> None:
    parent, files = _shared(only_ml)
    parent.reply = told([{**part, "sha256": SHA256.upper()} for part in parts((0, 99), (99, N))], only_ml)
    with files.open(REF) as stream:
        assert stream.sha256 == SHA256, "known at once, to be compared with what others say"
        assert b"".join(stream) == CONTENT
    assert read_bytes(files, REF) == CONTENT
    parent.reply = told([*parts((0, 99)), {**parts((99, N))[0], "sha256": SHA256}], only_ml)
    with files.open(REF) as stream:
        assert stream.sha256 is None
        assert b"".join(stream) == CONTENT
        assert stream.sha256 == SHA256


@pytest.mark.parametrize("only_ml", [False, True], ids=["ReadFile", "GetModelFile"])
def test_an_empty_file_that_never_ends_is_given_up(only_ml: bool) -> None:
    with connected(only_ml) as (parent, files):

        def endless(request: Any, context: Any) -> Iterator[Any]:
            while context.is_active():
                yield (ml.ModelFileChunk if only_ml else v1.ReadFileResponse)(total_size=0)

        parent.reply = endless
        problems: list[BaseException] = []

        def read() -> None:
            try:
                read_bytes(files, REF)
            except CorruptModelError as problem:
                problems.append(problem)

        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        thread.join(10)
        assert len(problems) == 1
        assert parent.ended.wait(10)


@KINDS
def test_a_transfer_cut_short_says_so(only_ml: bool) -> None:
    parent, files = _shared(only_ml)

    def cut(request: Any, context: Any) -> Iterator[Any]:
        kind = ml.ModelFileChunk if only_ml else v1.ReadFileResponse
        yield kind(**parts((0, 10))[0])
        context.abort(grpc.StatusCode.UNAVAILABLE, "the disk is gone")

    for reply, word in ((cut, "disk is gone"), (told(parts((0, 10)), False), "10 of 10240 bytes")):
        if only_ml and reply is not cut:
            continue  # there the missing end is the lie
        parent.reply = reply
        with pytest.raises(ProviderUnavailableError, match=word):
            read_bytes(files, REF)
    parent.reply = None
    parent.files["model", "weights.bin"] = CONTENT
    assert read_bytes(files, REF) == CONTENT


def test_the_stream_itself_says_that_it_was_cut_short() -> None:
    parent, files = _shared(False)
    parent.reply = told(parts((0, 10)), False)
    with files.open(REF) as stream:
        assert next(stream) == CONTENT[:10]
        with pytest.raises(ProviderUnavailableError, match="10 of 10240 bytes"):
            next(stream)


def test_a_parent_that_dies_cuts_the_transfer_and_one_that_is_back_serves_it() -> None:
    go_on = threading.Event()

    def halfway(request: Any, context: Any) -> Iterator[Any]:
        yield v1.ReadFileResponse(**parts((0, 10))[0])
        go_on.wait(20)

    with listening(Parent({("model", "weights.bin"): CONTENT})) as parent:
        parent.reply = halfway
        files = ParentFiles(parent.address)
        stream = files.open(REF)
        assert next(stream) == CONTENT[:10]
    with pytest.raises(ProviderUnavailableError):
        next(stream)
    stream.close()
    go_on.set()
    with listening(Parent({("model", "weights.bin"): CONTENT}), int(parent.address.rpartition(":")[2])):
        assert eventually(files) == CONTENT
    files.close()


@KINDS
def test_the_methods_absence_in_the_middle_is_no_absence(only_ml: bool) -> None:
    parent, files = _shared(only_ml)

    def leave(request: Any, context: Any) -> Iterator[Any]:
        yield (ml.ModelFileChunk if only_ml else v1.ReadFileResponse)(**parts((0, 10))[0])
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "gone")

    parent.reply = leave
    with pytest.raises(ProviderUnavailableError, match="UNIMPLEMENTED: gone"):
        read_bytes(files, REF)


@KINDS
def test_a_transfer_that_is_slow_but_goes_on_is_not_given_up(only_ml: bool) -> None:
    with connected(only_ml, stall_s=1.0) as (parent, files):
        pause = threading.Event()

        def slow(request: Any, context: Any) -> Iterator[Any]:
            for chunk in told(parts(*((at, at + N // 8) for at in range(0, N, N // 8))), only_ml)(request, context):
                yield chunk
                pause.wait(0.2)

        parent.reply = slow
        assert read_bytes(files, REF) == CONTENT


@KINDS
@pytest.mark.parametrize("first", [True, False], ids=["after a chunk", "at once"])
def test_a_transfer_that_stalls_is_given_up(only_ml: bool, first: bool) -> None:
    go_on = threading.Event()
    with connected(only_ml, stall_s=0.4) as (parent, files):

        def stall(request: Any, context: Any) -> Iterator[Any]:
            if first:
                yield (ml.ModelFileChunk if only_ml else v1.ReadFileResponse)(**parts((0, 10))[0])
            go_on.wait(20)

        parent.reply = stall
        with pytest.raises(ProviderTimeoutError, match=r"0\.4 s"):
            read_bytes(files, REF)
        assert parent.ended.wait(5)
        go_on.set()
        parent.reply = None
        assert read_bytes(files, REF) == CONTENT


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (grpc.StatusCode.NOT_FOUND, ModelFileNotFoundError),
        (grpc.StatusCode.PERMISSION_DENIED, ProviderAccessError),
        (grpc.StatusCode.UNAUTHENTICATED, ProviderAccessError),
        (grpc.StatusCode.DEADLINE_EXCEEDED, ProviderTimeoutError),
        (grpc.StatusCode.DATA_LOSS, CorruptModelError),
        (grpc.StatusCode.UNAVAILABLE, ProviderUnavailableError),
        (grpc.StatusCode.INTERNAL, ProviderUnavailableError),
    ],
)
@KINDS
def test_the_parents_own_status_comes_through(code: Any, error: type[Exception], only_ml: bool) -> None:
    parent, files = _shared(only_ml)

    def refuse(request: Any, context: Any) -> Iterator[Any]:
        context.abort(code, "because")
        yield

    parent.reply = refuse
    with pytest.raises(error, match="because"):
        files.open(REF)
    parent.reply = None


@KINDS
def test_what_the_parent_says_is_told_in_one_short_line(only_ml: bool) -> None:
    parent, files = _shared(only_ml)

    def refuse(request: Any, context: Any) -> Iterator[Any]:
        context.abort(grpc.StatusCode.INTERNAL, "first\nsecond " + "x" * 2000)
        yield

    parent.reply = refuse
    with pytest.raises(ProviderUnavailableError, match="first second xxx") as caught:
        files.open(REF)
    assert len(str(caught.value)) < 400


def test_the_old_contract_is_asked_from_then_on_and_the_new_one_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.monotonic()
    monkeypatch.setattr("tabml_grpc.parent.time", SimpleNamespace(monotonic=lambda: now))
    with connected(only_ml=True) as (parent, files):
        for _ in range(3):
            assert read_bytes(files, REF) == CONTENT
        assert parent.called == ["ReadFile", "GetModelFile", "GetModelFile", "GetModelFile"]
        parent.called.clear()
        parent.only_ml = False
        now += 61
        assert read_bytes(files, REF) == CONTENT
        assert parent.called == ["ReadFile"]


def test_a_parent_that_serves_no_files_is_named_and_asked_anew_once_it_does() -> None:
    with connected(only_ml=True) as (parent, files):
        parent.serves_nothing = True
        with pytest.raises(ProviderUnavailableError, match="neither ModelFileService nor GetModelFile"):
            files.open(REF)
        parent.serves_nothing = parent.only_ml = False
        assert read_bytes(files, REF) == CONTENT
        assert parent.called == ["ReadFile", "GetModelFile", "ReadFile"]


def test_the_parent_is_told_what_is_wanted() -> None:
    with connected() as (parent, files):
        read_bytes(files, FileRef("model", "weights.bin", "v1.2"))
        files.list("model", "v1.2")
        assert parent.requests == [
            v1.ReadFileRequest(model_id="model", path="weights.bin", revision="v1.2", chunk_bytes=1 << 20),
            v1.ListFilesRequest(model_id="model", revision="v1.2"),
        ]
    with connected(only_ml=True) as (parent, files):
        read_bytes(files, FileRef("model", "weights.bin", "v1.2"))
        assert parent.requests == [ml.ModelFileRequest(model_id="model", file_path="weights.bin")]


def test_a_listing_has_what_the_parent_knows() -> None:
    with connected() as (parent, files):
        parent.listing = [
            v1.ModelFile(path="z"),
            v1.ModelFile(path="b", size=0, sha256="AB" * 32),
            v1.ModelFile(path="a/c", size=7),
        ]
        assert list(files.list("model")) == [FileInfo("a/c", 7), FileInfo("b", 0, "ab" * 32), FileInfo("z")]


def test_a_listing_that_nobody_answers_says_so() -> None:
    with listening(Parent()) as parent:
        files = ParentFiles(parent.address)
    with pytest.raises(ProviderUnavailableError, match="start the program that serves model files"):
        files.list("model")
    files.close()


def eventually(files: ParentFiles) -> bytes:
    """The content, once the connection was tried again: once a second."""
    wait = threading.Event()
    for _ in range(100):
        try:
            return read_bytes(files, REF)
        except ProviderUnavailableError:
            wait.wait(0.1)
    pytest.fail("not within 10 s")


def test_nobody_listens_and_then_somebody_does() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    files = ParentFiles(f"127.0.0.1:{port}")
    with pytest.raises(ProviderUnavailableError, match="start the program that serves model files"):
        files.open(REF)
    with listening(Parent({("model", "weights.bin"): CONTENT}), port):
        assert eventually(files) == CONTENT
    files.close()


@given(hostile_names())
@example("../x")
@example("/etc/passwd")
@example("a\\b")
@example("a\0b")
@example("")
def test_names_that_are_paths_never_reach_the_parent(name: str) -> None:
    parent, files = _shared(False)
    before = len(parent.called)
    for refused in (
        lambda: files.open(FileRef("model", name)),
        lambda: files.open(FileRef(name, "weights.bin")),
        lambda: files.open(FileRef("model", "weights.bin", name)),
        lambda: files.list(name),
    ):
        with pytest.raises(InvalidNameError):
            refused()
    assert len(parent.called) == before


def test_the_test_above_would_see_a_name_that_reaches_the_parent() -> None:
    parent, files = _shared(False)
    before = len(parent.called)
    files.list("model")
    read_bytes(files, REF)
    assert parent.called[before:] == ["ListFiles", "ReadFile"]


def test_a_parent_that_lists_paths_is_not_believed() -> None:
    with connected() as (parent, files):
        parent.files["model", "../../etc/passwd"] = b""
        with pytest.raises(InvalidNameError):
            files.list("model")


def test_a_parent_of_the_old_contract_can_not_list() -> None:
    _, files = _shared(True)
    with pytest.raises(ModelFileNotFoundError, match="can't list"):
        files.list("model")


def test_chunks_of_128_mib_are_accepted() -> None:
    content = os.urandom(1 << 20) * 128
    with connected() as (parent, files):
        parent.files["model", "large"] = content
        parent.chunk = len(content)
        file = ResidentFiles(files).hold(FileRef("model", "large"))
        assert file.view() == content


@KINDS
@pytest.mark.parametrize("first", [True, False], ids=["after a chunk", "at once"])
def test_a_cancelled_hold_ends_the_transfer_at_the_parent(only_ml: bool, first: bool) -> None:
    with connected(only_ml) as (parent, files):
        started = threading.Event()

        def endless(request: Any, context: Any) -> Iterator[Any]:
            if first:
                yield (ml.ModelFileChunk if only_ml else v1.ReadFileResponse)(**parts((0, 10))[0])
            else:
                started.set()
            parent.ended.wait(20)

        parent.reply = endless
        cancellation = Cancellation()
        problems: list[BaseException] = []

        def hold() -> None:
            try:
                ResidentFiles(files).hold(REF, cancellation=cancellation, progress=lambda *_: started.set())
            except CallCancelledError as problem:
                problems.append(problem)

        thread = threading.Thread(target=hold)
        thread.start()
        assert started.wait(10)
        cancellation.cancel()
        thread.join(10)
        assert len(problems) == 1
        assert parent.ended.wait(5)
        parent.reply = None
        assert bytes(ResidentFiles(files).hold(REF).view()) == CONTENT


@pytest.mark.parametrize("stop", ["cancelled", "closed", "hung up"])
@KINDS
def test_a_stream_that_is_let_go_ends_the_call_at_the_parent(only_ml: bool, stop: str) -> None:
    with connected(only_ml) as (parent, files):

        def endless(request: Any, context: Any) -> Iterator[Any]:
            yield (ml.ModelFileChunk if only_ml else v1.ReadFileResponse)(**parts((0, 10))[0])
            parent.ended.wait(20)

        parent.reply = endless
        stream = files.open(REF)
        assert next(stream)
        {"cancelled": stream.cancel, "closed": stream.close, "hung up": files.close}[stop]()
        assert parent.ended.wait(10)
        stream.close()


def test_a_lie_ends_the_call_at_the_parent() -> None:
    with connected() as (parent, files):

        def lie(request: Any, context: Any) -> Iterator[Any]:
            yield v1.ReadFileResponse(**parts((10, 20))[0])
            parent.ended.wait(20)

        parent.reply = lie
        before = watchers()
        with pytest.raises(CorruptModelError) as caught:
            files.open(REF)
        assert caught.value is not None  # its traceback holds the call: it must not end for want of references
        assert parent.ended.wait(10)
        assert watchers() <= before


def watchers() -> int:
    """Threads that watch over transfers, once those that are about to end have ended."""
    wait = threading.Event()
    for _ in range(50):
        found = sum(thread.name == "file-watch" for thread in threading.enumerate())
        if not found:
            break
        wait.wait(0.1)
    return found


def test_a_transfer_that_is_over_is_forgotten_by_its_cancellation() -> None:
    _, files = _shared(False)
    cancellation = Cancellation()
    assert bytes(ResidentFiles(files).hold(REF, cancellation=cancellation).view()) == CONTENT
    assert not cancellation._callbacks


def test_eight_who_want_one_file_cause_one_transfer() -> None:
    with connected() as (parent, files):
        resident, found = ResidentFiles(files), []
        gate, second = threading.Barrier(8), threading.Event()

        def unhurried(request: Any, context: Any) -> Iterator[Any]:
            if len(parent.asked) > 1:
                second.set()
            second.wait(0.3)  # so that the others are there before it is
            yield from told(parts((0, N)), False)(request, context)

        parent.reply = unhurried

        def hold() -> None:
            gate.wait()
            found.append(resident.hold(REF))

        threads = [threading.Thread(target=hold) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 8
        assert len({id(file) for file in found}) == 1
        assert parent.asked == ["weights.bin"]


def test_many_transfers_leave_nothing_behind() -> None:
    parent, files = _shared(False)
    parent.reply = None

    def state() -> tuple[int, int]:
        return threading.active_count(), len(os.listdir("/proc/self/fd"))

    for _ in range(20):
        read_bytes(files, REF)
    before = state()
    for number in range(200):
        parent.reply = told(LIES["a gap"], False) if number % 3 == 0 else None
        try:
            ResidentFiles(files).hold(REF)
        except CorruptModelError:
            assert number % 3 == 0
    parent.reply = None
    wait = threading.Event()
    for _ in range(50):
        after = state()
        if after[0] <= before[0] + 3 and after[1] <= before[1] + 3:
            return
        wait.wait(0.1)
    pytest.fail(f"{before} became {after}")


@pytest.mark.parametrize(
    "address",
    [
        "example.com:50052", "10.0.0.1:1", "0.0.0.0:1", "50052", "", "[2001:db8::1]:1", "localhost.example.com:1",
        "dns:///example.com:1", "ipv4:10.0.0.1:1", "localhost:1,example.com:2", "127.0.0.1@example.com:1", "127.1:1",
        "http://localhost:1", "unix-abstract:name", "vsock:2:1",
    ],
)  # fmt: skip
def test_other_machines_are_not_asked(address: str) -> None:
    with pytest.raises(OptionError, match="file_endpoint="):
        ParentFiles(address)


@pytest.mark.parametrize("where", ["unix", "unix://", "[::1]:0", "localhost:0"])
def test_every_address_of_this_machine_works(where: str) -> None:
    with TemporaryDirectory() as folder:  # a socket's path must be short
        at = {"unix": f"unix:{folder}/files", "unix://": f"unix://{folder}/files"}.get(where, where)
        with listening(Parent({("model", "weights.bin"): CONTENT}), at=at) as parent:
            files = ParentFiles(parent.address)
            assert read_bytes(files, REF) == CONTENT
            assert files.list("model") == [FileInfo("weights.bin", N)]
            files.close()


def test_no_proxy_comes_between(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "no_grpc_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("grpc_proxy", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with connected() as (_, files):
        assert read_bytes(files, REF) == CONTENT


def test_the_token_is_sent() -> None:
    with connected(token="s3cret") as (parent, files):
        read_bytes(files, REF)
        files.list("model")
        assert parent.tokens == ["Bearer s3cret"] * 2
    with connected(only_ml=True, token="s3cret") as (parent, files):
        read_bytes(files, REF)
        assert parent.called == ["ReadFile", "GetModelFile"]
        assert parent.tokens == ["Bearer s3cret"] * 2
    with connected() as (parent, files):
        read_bytes(files, REF)
        files.list("model")
        assert parent.tokens == []
