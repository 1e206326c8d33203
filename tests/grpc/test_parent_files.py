"""Files from the parent: whole and checked, or an error that says what was wrong; the next honest transfer works."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from hypothesis import given, settings
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
from tabml.files import FileRef, ResidentFiles, read_bytes
from tabml.testing import FileProviderContract
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
    "nothing at all": [],
    "a checksum of something else": [{**part, "sha256": "0" * 64} for part in parts((0, N))],
    "a checksum of something else, at the end": [*parts((0, 10)), {**parts((10, N))[0], "sha256": "ab" * 32}],
    "two checksums": [{**parts((0, 10))[0], "sha256": "ab" * 32}, {**parts((10, N))[0], "sha256": SHA256}],
    "no checksum": [{**part, "sha256": "zzz"} for part in parts((0, N))],
}
LIES_OF_THE_END = {
    "never last": parts((0, 10), (10, N)),
    "last too early": [{**parts((0, 10))[0], "is_last": True}, {**parts((10, N))[0], "is_last": True}],
    "last and then more": [{**parts((0, N))[0], "is_last": True}, *parts((N, N), is_last=True)],
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
    assert read_bytes(files, REF) == CONTENT
    parent.reply = None


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


def test_nobody_listens_and_then_somebody_does() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    files = ParentFiles(f"127.0.0.1:{port}")
    with pytest.raises(ProviderUnavailableError, match="start the program that serves model files"):
        files.open(REF)
    with listening(Parent({("model", "weights.bin"): CONTENT}), port):
        end = threading.Event()
        for _ in range(50):
            try:
                assert read_bytes(files, REF) == CONTENT
                break
            except ProviderUnavailableError:
                end.wait(0.1)  # the connection is tried again once a second
        else:
            pytest.fail("not within 5 s")
    files.close()


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a\\b", "a\0b", "", "a//b", "C:/x"])
def test_names_that_are_paths_never_reach_the_parent(name: str) -> None:
    parent, files = _shared(False)
    before = len(parent.asked)
    with pytest.raises(InvalidNameError):
        files.open(FileRef("model", name))
    with pytest.raises(InvalidNameError):
        files.list(name)
    assert len(parent.asked) == before


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


def test_a_cancelled_hold_ends_the_transfer_at_the_parent() -> None:
    with connected() as (parent, files):
        started = threading.Event()

        def endless(request: Any, context: Any) -> Iterator[Any]:
            yield v1.ReadFileResponse(**parts((0, 10))[0])
            started.set()
            parent.ended.wait(20)

        parent.reply = endless
        cancellation = Cancellation()
        problems: list[BaseException] = []

        def hold() -> None:
            try:
                ResidentFiles(files).hold(REF, cancellation=cancellation)
            except CallCancelledError as problem:
                problems.append(problem)

        thread = threading.Thread(target=hold)
        thread.start()
        assert started.wait(10)
        cancellation.cancel()
        thread.join(10)
        assert len(problems) == 1
        assert parent.ended.wait(5)


def test_eight_who_want_one_file_cause_one_transfer() -> None:
    with connected() as (parent, files):
        resident, found = ResidentFiles(files), []
        gate = threading.Barrier(8)

        def hold() -> None:
            gate.wait()
            found.append(resident.hold(REF))

        threads = [threading.Thread(target=hold) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
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


@pytest.mark.parametrize("address", ["example.com:50052", "10.0.0.1:1", "0.0.0.0:1", "50052", ""])
def test_other_machines_are_not_asked(address: str) -> None:
    with pytest.raises(OptionError, match="file_endpoint="):
        ParentFiles(address)


def test_the_token_is_sent() -> None:
    with connected(token="s3cret") as (parent, files):
        read_bytes(files, REF)
        files.list("model")
        assert parent.tokens == ["Bearer s3cret"] * 2
