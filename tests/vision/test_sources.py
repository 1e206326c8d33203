"""Where frames come from: encoded chunks with losses, framings, folders, addresses, cameras and screens."""

from __future__ import annotations

import asyncio
import base64
import functools
import io
import json
import struct
import threading
import time
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from encoded import encoded, moving
from hypothesis import given, settings
from hypothesis import strategies as st

from tabml.errors import FrameError, FrameTooLargeError, OptionError, SourceError, StreamFormatError, TabmlError
from tabml.vision import DecodeLimits, Frame, read_video
from tabml.vision.sources import (
    Camera,
    ChunkDecoder,
    FrameChannel,
    LiveSource,
    Screen,
    channel,
    in_async,
    native,
    read_folder,
    read_url,
)
from tabml.vision.sources.h264 import FrameNumbers, units

CODECS = ("h264", "vp8", "vp9")


def number_of(frame: Frame) -> int:
    """Which of :func:`encoded.moving` it is."""
    return round((float(frame.pixels[:20, :20].mean()) - 20) / 6)


@functools.cache
def chunks_of(codec: str) -> list[bytes]:
    return encoded(codec, moving(30))


# Encoded chunks.


@pytest.mark.parametrize("codec", CODECS)
def test_each_chunk_is_a_frame_at_once_with_its_own_numbers(codec: Any) -> None:
    decoder = ChunkDecoder(codec)
    for number, chunk in enumerate(chunks_of(codec)):
        (frame,) = decoder.decode(chunk, timestamp_ms=1000 - number, frame_number=7 * number)
        assert number_of(frame) == number
        assert (frame.timestamp_ms, frame.frame_number) == (1000 - number, 7 * number)
        assert (frame.width, frame.height) == (96, 64)
    assert decoder.flush() == []


def test_frames_that_were_reordered_keep_their_own_numbers() -> None:
    decoder, frames = ChunkDecoder("h264"), []
    chunks = encoded("h264", moving(20), gop=20, bf="3", tune="film", preset="medium", g="20")
    for number, chunk in enumerate(chunks):
        frames += decoder.decode(chunk, frame_number=number)
    frames += decoder.flush()
    assert [number_of(frame) for frame in frames] == list(range(20))
    order = [frame.frame_number for frame in frames]
    assert sorted(order) == list(range(20)) != order  # of the chunks


@pytest.mark.parametrize("codec", CODECS)
def test_nothing_before_the_first_keyframe_nor_after_a_loss(codec: Any) -> None:
    chunks, decoder = chunks_of(codec), ChunkDecoder(codec)
    assert decoder.waiting
    for chunk in chunks[1:10]:
        with pytest.raises(FrameError, match="begin with a keyframe"):
            decoder.decode(chunk)
    assert number_of(decoder.decode(chunks[10])[0]) == 10
    decoder.lost()
    with pytest.raises(FrameError, match="keyframe"):
        decoder.decode(chunks[12])
    assert [number_of(frame) for chunk in chunks[20:] for frame in decoder.decode(chunk)] == list(range(20, 30))


@pytest.mark.parametrize("codec", CODECS)
def test_a_spoilt_chunk_leads_to_the_next_keyframe(codec: Any) -> None:
    """Whatever is spoilt: what comes out after the next keyframe is right."""
    chunks = chunks_of(codec)
    for spoilt in (chunks[3][: len(chunks[3]) // 2], chunks[3][:4] + bytes(len(chunks[3])), chunks[3][::-1]):
        decoder, seen = ChunkDecoder(codec), {}
        for number, chunk in enumerate([*chunks[:3], spoilt, *chunks[4:]]):
            try:
                for frame in decoder.decode(chunk, frame_number=number):
                    seen[frame.frame_number] = number_of(frame)
            except FrameError:
                pass
        assert all(seen[number] == number for number in (0, 1, 2, *range(10, 30)))


X264 = {
    "no reordering": {},
    "frames that nothing is built on": {"bf": "3", "tune": "film", "preset": "medium"},
    "a pyramid of them": {"bf": "5", "preset": "slow", "tune": "film", "x264-params": "b-pyramid=normal:ref=4"},
    "slices": {"slices": "4"},
    "matrices of its own": {"preset": "medium", "x264-params": "cqm=jvt"},
    "fields": {"preset": "medium", "x264-params": "tff=1"},
    "open groups": {"preset": "medium", "bf": "2", "x264-params": "open-gop=1"},
    "intra refresh": {"x264-params": "intra-refresh=1"},
}


@pytest.mark.parametrize("name", X264)
def test_a_picture_that_is_missing_is_seen_in_what_h264_says(name: str) -> None:
    chunks = encoded("h264", moving(40), gop=20, **X264[name])
    kinds = [{(unit[0] & 31, bool(unit[0] & 96)) for unit in units(chunk)} for chunk in chunks]
    key, built_on = [(5, True) in each for each in kinds], [bool(each & {(1, True), (5, True)}) for each in kinds]
    whole = FrameNumbers()
    assert not any(whole.missing(chunk) for chunk in chunks)
    seen = 0
    for lost in range(1, len(chunks) - 1):
        if key[lost] or key[lost + 1]:  # what comes then begins anew
            continue
        order = FrameNumbers()
        told = [order.missing(chunk) for number, chunk in enumerate(chunks) if number != lost]
        assert told[lost] == built_on[lost], lost
        seen += told[lost]
    assert seen > 10


@pytest.mark.parametrize("lost", [1, 5, 18, 19])
def test_nothing_is_painted_on_a_missing_picture(lost: int) -> None:
    decoder, chunks = ChunkDecoder("h264"), encoded("h264", moving(30), gop=20)
    problems = []
    for number, chunk in enumerate(chunks):
        if number == lost:
            continue
        try:
            (frame,) = decoder.decode(chunk, frame_number=number)
        except FrameError as problem:
            problems.append(number)
            assert "keyframe" in str(problem)
        else:
            assert number_of(frame) == number == frame.frame_number
    assert problems == list(range(lost + 1, 20))


@given(st.binary(max_size=80), st.integers(0, 29), st.integers(0, 60))
def test_what_h264_says_is_read_of_any_bytes(noise: bytes, number: int, cut: int) -> None:
    order, chunks = FrameNumbers(), chunks_of("h264")
    for chunk in (
        chunks[0],
        noise,
        b"\0\0\1" + noise,
        chunks[number][:cut] + noise,
        b"\0\0\1\x67" + noise,
        chunks[number],
    ):
        assert order.missing(chunk) in (True, False)


def test_frames_larger_than_the_limits_are_refused() -> None:
    for codec in CODECS:
        decoder = ChunkDecoder(codec, limits=DecodeLimits(max_pixels=1000))
        with pytest.raises(FrameError):
            decoder.decode(chunks_of(codec)[0])
        small = ChunkDecoder(codec, limits=DecodeLimits(max_side=90))
        with pytest.raises(FrameTooLargeError, match="96×64"):
            small.decode(chunks_of(codec)[0])
    with pytest.raises(FrameTooLargeError, match="max_bytes"):
        ChunkDecoder("vp8", limits=DecodeLimits(max_bytes=10)).decode(bytes(11))


def test_other_framings_and_codecs_are_named() -> None:
    with pytest.raises(FrameError, match="annexb"):
        ChunkDecoder("h264").decode(struct.pack(">I", 5) + b"\x65abcd")
    with pytest.raises(FrameError, match="not vp8"):
        ChunkDecoder("vp8").decode(chunks_of("h264")[0])
    with pytest.raises(FrameError, match="not vp9"):
        ChunkDecoder("vp9").decode(b"")
    with pytest.raises(OptionError, match="codec='h265'"):
        ChunkDecoder("h265")  # type: ignore[arg-type]


@settings(max_examples=150)
@given(st.sampled_from(CODECS), st.lists(st.tuples(st.integers(0, 29), st.integers(0, 2**32 - 1)), max_size=12))
def test_whatever_comes_is_a_frame_or_an_error_of_ours(codec: Any, steps: list[tuple[int, int]]) -> None:
    decoder = ChunkDecoder(codec)
    for at, seed in steps:
        random = np.random.default_rng(seed)
        chunk = bytearray(chunks_of(codec)[at])
        for place in random.integers(0, len(chunk), seed % 5):
            chunk[int(place)] = int(random.integers(0, 256))
        try:
            frames = decoder.decode(bytes(chunk[: None if seed % 3 else len(chunk) // 2]))
        except FrameError:
            continue
        assert all(frame.pixels.dtype == np.uint8 for frame in frames)


# The data channel.


def test_the_channels_messages_come_back_as_frames() -> None:
    pixels = moving(1)[0]
    link = FrameChannel()
    for format, data in (("rgb", pixels.tobytes()), ("bgr", pixels[..., ::-1].tobytes())):
        (frame,) = link.receive(channel.write_message(data, format, width=96, height=64, timestamp_ms=2**40))  # type: ignore[arg-type]
        np.testing.assert_array_equal(frame.to_rgb(), pixels)
        assert frame.timestamp_ms == 2**40
    jpeg = Frame.from_array(pixels).encode("jpeg")
    (frame,) = link.receive(channel.write_message(jpeg, "jpeg", width=0, height=0))
    assert (frame.width, frame.height) == (96, 64)
    for format in ("h264", "vp8"):
        for number, chunk in enumerate(chunks_of(format)[:12]):
            message = channel.write_message(chunk, format, width=96, height=64, timestamp_ms=number)  # type: ignore[arg-type]
            (frame,) = link.receive(message)
            assert (number_of(frame), frame.timestamp_ms) == (number, number)
    link.close()


def test_the_header_is_the_contracts() -> None:
    message = channel.write_message(b"xyz", "jpeg", width=3, height=2, timestamp_ms=1)
    assert message == bytes([1, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0, 4]) + b"xyz"
    assert channel.read_header(message) == (1, 3, 2, "jpeg")
    for wrong in ({"width": -1}, {"height": 2**32}, {"timestamp_ms": 2**64}):
        with pytest.raises(FrameError, match=next(iter(wrong))):
            channel.write_message(b"", "rgb", **{"width": 1, "height": 1, **wrong})  # type: ignore[arg-type]


@settings(max_examples=300)
@given(
    st.binary(max_size=80)
    | st.builds(lambda n, rest: struct.pack("<QIIB", 5, 4, 2, n) + rest, st.integers(0, 6), st.binary(max_size=30))
)
def test_any_message_is_frames_or_an_error_of_ours(message: bytes) -> None:
    try:
        frames = FrameChannel().receive(message)
    except FrameError as problem:
        assert str(problem)
    else:
        assert all((frame.width, frame.height) == (4, 2) for frame in frames)


# Native messaging.


@given(
    st.lists(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(),
            lambda x: st.lists(x) | st.dictionaries(st.text(), x),
            max_leaves=8,
        )
    )
)
def test_messages_come_back_as_they_were(messages: list[Any]) -> None:
    stream = io.BytesIO()
    for message in messages:
        native.write_message(stream, message)
    stream.seek(0)
    assert list(native.read_messages(stream)) == messages


def test_the_limits_of_both_ways_are_kept() -> None:
    stream = io.BytesIO()
    native.write_message(stream, "x" * (native.MOST_TO_CHROME - 2))
    with pytest.raises(StreamFormatError, match="1048576 is the most"):
        native.write_message(stream, "x" * (native.MOST_TO_CHROME - 1))
    stream.seek(0)
    assert len(list(native.read_messages(stream))) == 1
    native.write_message(io.BytesIO(), "x" * 2_000_000, max_bytes=native.MOST_FROM_CHROME)
    lie = struct.pack("=I", native.MOST_FROM_CHROME + 1) + b"[]"
    with pytest.raises(StreamFormatError, match="67108865"):
        list(native.read_messages(io.BytesIO(lie)))
    short = struct.pack("=I", native.MOST_FROM_CHROME) + b"[]"
    with pytest.raises(StreamFormatError, match="after 2 of"):
        list(native.read_messages(io.BytesIO(short)))
    for message in ({"a": float("nan")}, {"a": object()}):
        with pytest.raises(StreamFormatError, match="can't be written"):
            native.write_message(io.BytesIO(), message)


@settings(max_examples=200)
@given(st.binary(max_size=60))
def test_any_bytes_are_messages_or_an_error_of_ours(data: bytes) -> None:
    try:
        list(native.read_messages(io.BytesIO(data)))
        list(native.read_messages(io.BytesIO(struct.pack("=I", len(data)) + data)))
    except StreamFormatError as problem:
        assert str(problem)


def test_frames_travel_in_messages() -> None:
    frame = Frame.from_array(moving(1)[0], timestamp_ms=5, frame_number=6)
    stream = io.BytesIO()
    native.write_message(stream, native.frame_to_message(frame))
    stream.seek(0)
    (message,) = native.read_messages(stream)
    received = native.frame_from_message(message)
    assert (received.width, received.height, received.timestamp_ms, received.frame_number) == (96, 64, 5, 6)
    raw = {"data": base64.b64encode(frame.pixels).decode(), "format": "rgb", "width": 96, "height": 64}
    np.testing.assert_array_equal(native.frame_from_message(raw).pixels, frame.pixels)


@pytest.mark.parametrize(
    ("message", "word"),
    [
        ([], "object"), ({"data": 3}, "data"), ({"data": "?"}, "base64"), ({"data": "", "width": "9"}, "width='9'"),
        ({"data": "AAAA", "format": 3}, "format=3"), ({"data": "AAAA", "format": "rgb", "width": 9, "height": 9}, "rgb"),
    ],
)  # fmt: skip
def test_messages_that_are_no_frames_say_why(message: Any, word: str) -> None:
    with pytest.raises(FrameError, match=word):
        native.frame_from_message(message)


@settings(max_examples=200)
@given(
    st.dictionaries(
        st.sampled_from(["data", "format", "width", "height", "timestamp_ms"]),
        st.none()
        | st.integers()
        | st.text(max_size=9)
        | st.binary(max_size=40).map(lambda b: base64.b64encode(b).decode()),
    )
)
def test_any_object_is_a_frame_or_an_error_of_ours(message: dict[str, Any]) -> None:
    try:
        native.frame_from_message(json.loads(json.dumps(message)))
    except TabmlError as problem:
        assert isinstance(problem, FrameError)


# Folders and addresses.


def test_a_folders_pictures_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for number in (10, 9, 1):
        Frame.from_array(np.full((8, 8, 3), number, np.uint8)).save(tmp_path / f"frame{number}.png")
    (tmp_path / "notes.txt").write_text("none")
    (tmp_path / "more.png.d").mkdir()
    frames = list(read_folder(tmp_path, fps=10))
    assert [int(frame.pixels[0, 0, 0]) for frame in frames] == [1, 9, 10]
    assert [(frame.timestamp_ms, frame.frame_number) for frame in frames] == [(0, 0), (100, 1), (200, 2)]
    (tmp_path / "frame2.png").write_bytes(b"spoilt")
    with pytest.raises(FrameError, match="frame2"):
        list(read_folder(tmp_path))
    assert [frame.frame_number for frame in read_folder(tmp_path, skip_bad=True)] == [0, 2, 3]
    with pytest.raises(FileNotFoundError):
        read_folder(tmp_path / "none")
    with pytest.raises(OptionError, match="fps=0"):
        read_folder(tmp_path, fps=0)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(tmp_path))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", tmp_path
        server.shutdown()
        thread.join()


def test_a_video_behind_an_address(web: tuple[str, Path], pictures: Callable[[str], Path]) -> None:
    address, folder = web
    (folder / "hand.mp4").write_bytes(pictures("hand_test_video.mp4").read_bytes())
    with read_url(f"{address}/hand.mp4") as video:
        frames = [next(video) for _ in range(5)]
    assert [frame.frame_number for frame in frames] == list(range(5))
    (folder / "no.mp4").write_text("no video")
    with pytest.raises(StreamFormatError, match=r"not a video|no video"):
        read_url(f"{address}/no.mp4")
    with pytest.raises(SourceError):
        read_url(f"{address}/none.mp4")
    with pytest.raises(SourceError):
        read_url("http://127.0.0.1:9/x.mp4", timeout_s=2)
    for wrong in ("file:///etc/passwd", "/etc/passwd", "ftp://x/y", "concat:a|b"):
        with pytest.raises(OptionError, match="url="):
            read_url(wrong)


def test_a_playlist_opens_no_files(web: tuple[str, Path], pictures: Callable[[str], Path]) -> None:
    address, folder = web
    (folder / "list.m3u8").write_text(
        f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile://{pictures('hand_test_video.mp4')}\n#EXT-X-ENDLIST\n"
    )
    with pytest.raises((StreamFormatError, SourceError)):
        list(read_url(f"{address}/list.m3u8"))


# Live ones.


class _Counting(LiveSource):
    """A device at the edge of the world."""

    def __init__(self, count: int, pause_s: float = 0.0, problem: Exception | None = None) -> None:
        super().__init__()
        self._left, self._pause, self._why = count, pause_s, problem
        self.released = 0

    def _grab(self) -> Frame | None:
        time.sleep(self._pause)
        if not self._left:
            if self._why is not None:
                raise self._why
            return None
        self._left -= 1
        return Frame.from_array(np.zeros((2, 2, 3), np.uint8))

    def _release(self) -> None:
        self.released += 1


def test_who_is_slow_gets_the_newest_frame() -> None:
    with _Counting(10_000, 0.001) as source:
        first = next(source)
        time.sleep(0.1)
        later = next(source)
        assert later.frame_number is not None
        assert first.frame_number is not None
        assert later.frame_number > first.frame_number + 10
        assert later.timestamp_ms is not None
        assert later.timestamp_ms >= 80
    assert source.released == 1
    source.close()
    assert source.released == 1
    assert list(source) == []


def test_a_source_ends_with_its_device_and_tells_its_problem() -> None:
    source = _Counting(1)
    assert len(list(source)) == 1
    source.close()
    assert source.released == 1
    with pytest.raises(SourceError, match="unplugged"):
        list(_Counting(2, 0.01, SourceError("unplugged")))
    untouched = _Counting(1)
    untouched.close()
    assert untouched.released == 1


def test_live_sources_are_async_too() -> None:
    async def run() -> list[int | None]:
        source = _Counting(3, 0.02)
        found = [frame.frame_number async for frame in source]
        await source.aclose()
        return found

    assert asyncio.run(run()) == [0, 1, 2]


def test_closing_from_another_thread_ends_who_waits() -> None:
    source = _Counting(1, 0.2)
    next(source)
    threading.Timer(0.05, source.close).start()
    assert list(source) == []


class _Device:
    """OpenCV's capture, without a camera."""

    opened = True

    def __init__(self, index: int) -> None:
        self.index, self.released, self.left = index, False, 3
        self.said: dict[int, float] = {}

    def isOpened(self) -> bool:
        return self.opened

    def set(self, name: int, value: float) -> None:
        self.said[name] = value

    def read(self) -> tuple[bool, Any]:
        self.left -= 1
        blue = np.zeros((4, 6, 3), np.uint8)
        blue[..., 0] = 200
        return self.left >= 0, blue

    def release(self) -> None:
        self.released = True


def test_a_cameras_frames_are_rgb_and_its_device_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    import cv2

    monkeypatch.setattr(cv2, "VideoCapture", _Device)
    with Camera(2, width=640, fps=30) as camera:
        device = camera._capture
        assert device.said == {cv2.CAP_PROP_FRAME_WIDTH: 640, cv2.CAP_PROP_FPS: 30}
        assert tuple(next(camera).to_rgb()[0, 0]) == (0, 0, 200)
        with pytest.raises(SourceError, match="unplugged"):
            list(camera)
    assert device.released
    monkeypatch.setattr(_Device, "opened", False)
    with pytest.raises(SourceError, match="index=0"):
        Camera()


def test_wrong_arguments_of_live_sources_are_named() -> None:
    for wrong in ({"index": -1}, {"width": 0}, {"fps": "fast"}):
        with pytest.raises(OptionError, match=next(iter(wrong))):
            Camera(**wrong)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="max_fps"):
        Screen(max_fps=0)


def test_a_screen_is_read_or_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    import mss

    monkeypatch.delenv("DISPLAY", raising=False)
    with pytest.raises(SourceError, match="screen can't be read"):
        Screen()

    class Shots:
        monitors = ({"left": 0, "top": 0, "width": 8, "height": 4}, {"left": 2, "top": 1, "width": 6, "height": 3})
        closed = 0

        def grab(self, area: dict[str, int]) -> Any:
            bgra = np.zeros((area["height"], area["width"], 4), np.uint8)
            bgra[..., 2] = 10 * area["left"] + area["top"]
            return type("Shot", (), {"bgra": bgra.tobytes(), "width": area["width"], "height": area["height"]})

        def close(self) -> None:
            Shots.closed += 1

        def __enter__(self) -> Shots:
            return self

        def __exit__(self, *_: Any) -> None: ...

    monkeypatch.setattr(mss, "mss", Shots)
    with Screen(1, region=(1, 1, 2, 2), max_fps=100) as screen:
        frame = next(screen)
        assert (frame.width, frame.height) == (2, 2)
        assert tuple(frame.to_rgb()[0, 0]) == (32, 0, 0)
    assert Shots.closed == 1
    for wrong in ({"monitor": 2}, {"region": (5, 0, 2, 2)}, {"region": (0, 0, 0, 1)}):
        with pytest.raises(OptionError, match=next(iter(wrong))):
            Screen(**wrong)  # type: ignore[arg-type]


def test_files_are_read_beside_an_event_loop_and_closed(pictures: Callable[[str], Path], tmp_path: Path) -> None:
    for number in range(3):
        Frame.from_array(np.full((8, 8, 3), number, np.uint8)).save(tmp_path / f"{number}.png")

    async def run() -> tuple[list[int | None], list[int | None], bool]:
        folder = [frame.frame_number async for frame in in_async(read_folder(tmp_path))]
        video = read_video(pictures("hand_test_video.mp4"))
        stream, some = in_async(video), []
        async for frame in stream:
            some.append(frame.frame_number)
            if len(some) == 4:
                break
        await stream.aclose()  # type: ignore[attr-defined]
        return folder, some, next(video, None) is None

    assert asyncio.run(run()) == ([0, 1, 2], [0, 1, 2, 3], True)
