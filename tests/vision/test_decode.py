"""Hostile pictures: refused before decoding, cheaply, with one line."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tabml.errors import FrameError
from tabml.vision import Frame


def saved(kind: str, size: tuple[int, int] = (64, 48), **more: Any) -> bytes:
    noise = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).save(out, kind, **more)
    return out.getvalue()


def lying_jpeg() -> bytes:
    data = bytearray(saved("JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", 65500, 65500)
    return bytes(data)


def lying_png() -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 40000, 40000, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(10_000_000), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def lying_webp() -> bytes:
    extended = struct.pack("<I", 0) + (16383).to_bytes(3, "little") + (16383).to_bytes(3, "little")
    lossless = b"\x2f" + struct.pack("<I", 0x0FFFFFFF)
    return b"RIFF" + struct.pack("<I", 30) + b"WEBPVP8X" + struct.pack("<I", 10) + extended + b"VP8L" + lossless


def many_scans() -> bytes:
    data = saved("JPEG", progressive=True)
    start, end = data.rindex(b"\xff\xda"), data.rindex(b"\xff\xd9")
    return data[:start] + data[start:end] * 2000 + data[end:]


def lying_gif() -> bytes:
    data = bytearray(saved("GIF"))
    data[6:10] = struct.pack("<HH", 65535, 65535)
    return bytes(data)


def lying_bmp() -> bytes:
    data = bytearray(saved("BMP"))
    data[18:26] = struct.pack("<ii", 60000, 60000)
    return bytes(data)


HOSTILE = {make.__name__: make for make in (lying_jpeg, lying_png, lying_webp, many_scans, lying_gif, lying_bmp)}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_lying_header_costs_little(name: str, tmp_path: Path, run_python: Callable[..., Any]) -> None:
    file = tmp_path / "picture"
    file.write_bytes(HOSTILE[name]())
    ended = run_python(
        """
        import json, resource, sys, time
        from tabml.errors import FrameTooLargeError
        from tabml.vision import Frame
        import cv2, PIL.Image
        PIL.Image.init()
        peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        before, begin = peak(), time.perf_counter()
        try:
            Frame.from_file(sys.argv[1])
        except FrameTooLargeError as problem:
            print(json.dumps([time.perf_counter() - begin, peak() - before, str(problem)]))
        """,
        file,
    )
    assert ended.returncode == 0, ended.stderr
    seconds, megabytes, message = json.loads(ended.stdout)
    assert seconds < 1
    assert megabytes < 150
    assert "\n" not in message
    assert "max_" in message


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF"])
def test_a_truncated_picture_is_refused(kind: str) -> None:
    data = saved(kind)
    for length in (1, 4, 12, 30, len(data) // 2, len(data) - 40):
        with pytest.raises(FrameError) as caught:
            Frame.from_bytes(data[:length])
        assert "\n" not in str(caught.value)


def test_a_progressive_picture_is_read() -> None:
    assert Frame.from_bytes(saved("JPEG", progressive=True)).width == 64


@given(st.data())
def test_mutated_pictures_give_a_frame_or_an_error(data: st.DataObject) -> None:
    content = bytearray(data.draw(st.sampled_from([saved(kind) for kind in ("JPEG", "PNG", "WEBP", "BMP", "GIF")])))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert Frame.from_bytes(bytes(content)).pixels.size
    except FrameError as problem:
        assert "\n" not in str(problem)


@given(st.binary(max_size=200))
def test_noise_is_no_picture(noise: bytes) -> None:
    for start in (b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBPVP8 ", b"BM", b"GIF89a"):
        with pytest.raises(FrameError):
            Frame.from_bytes(start + noise)
