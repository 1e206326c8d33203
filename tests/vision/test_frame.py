"""Frames from everything a picture can come as."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps
from strategies import pixels

from tabml.errors import FrameError, FrameTooLargeError, OptionError
from tabml.vision import DecodeLimits, Frame


def encoded(image: Image.Image, kind: str, **more: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **more)
    return out.getvalue()


@given(pixels())
def test_any_memory_layout_gives_the_same_pixels(array: Any) -> None:
    for same in (np.asfortranarray(array), array[::-1][::-1], np.repeat(array, 2, axis=1)[:, ::2]):
        frame = Frame.from_array(same)
        assert np.array_equal(frame.pixels, array)
        assert frame.pixels.flags.c_contiguous
        assert not frame.pixels.flags.writeable


@given(pixels())
def test_bgr_and_rgb_are_inverse(array: Any) -> None:
    assert np.array_equal(Frame.from_array(array[:, :, ::-1], "bgr").to_rgb(), array)


@given(pixels())
def test_png_gives_back_every_pixel(array: Any) -> None:
    assert np.array_equal(Frame.from_bytes(Frame.from_array(array).encode("png")).pixels, array)


@given(pixels(4))
def test_transparency_survives_png(array: Any) -> None:
    frame = Frame.from_bytes(Frame.from_array(array).encode("png"))
    assert frame.format == "rgba"
    assert np.array_equal(frame.pixels, array)
    assert np.array_equal(frame.to_rgb(), array[:, :, :3])


@given(pixels(None))
def test_gray_is_gray_in_every_channel(array: Any) -> None:
    rgb = Frame.from_array(array).to_rgb()
    assert all(np.array_equal(rgb[:, :, channel], array) for channel in range(3))


@given(pixels(None, even=True))
def test_a_gray_yuv_picture_is_gray(luma: Any) -> None:
    height, width = luma.shape
    planes = np.concatenate([luma.ravel(), np.full(height * width // 2, 128, np.uint8)]).tobytes()
    for kind in ("yuv420", "nv12"):
        frame = Frame.from_raw(planes, width=width, height=height, format=kind)  # type: ignore[arg-type]
        assert (frame.width, frame.height) == (width, height)
        rgb = frame.to_rgb().astype(int)
        assert np.ptp(rgb, axis=2).max() <= 1
        expected = np.clip((luma.astype(float) - 16) * 255 / 219, 0, 255)
        assert np.abs(rgb[:, :, 0] - expected).max() <= 2


def test_nv12_and_i420_of_one_picture_are_one_picture() -> None:
    generator = np.random.default_rng(0)
    luma, u, v = (generator.integers(0, 256, shape, dtype=np.uint8) for shape in ((8, 6), (4, 3), (4, 3)))
    planar = np.concatenate([luma.ravel(), u.ravel(), v.ravel()]).tobytes()
    paired = np.concatenate([luma.ravel(), np.stack([u, v], axis=2).ravel()]).tobytes()
    frames = [
        Frame.from_raw(planar, width=6, height=8, format="yuv420"),
        Frame.from_raw(paired, width=6, height=8, format="nv12"),
    ]
    assert np.array_equal(frames[0].pixels, frames[1].pixels)


RAW = {"rgb": 3, "bgr": 3, "rgba": 4, "gray": 1}


@given(st.sampled_from(sorted(RAW)), st.integers(1, 9), st.integers(1, 9), st.integers(0, 5), st.integers(-20, 20))
def test_the_length_of_raw_pixels_must_be_exact(kind: Any, width: int, height: int, pad: int, off: int) -> None:
    stride = width * RAW[kind] + pad
    data = bytes(i % 251 for i in range(max(0, stride * height + off)))
    arguments = {"width": width, "height": height, "format": kind, "stride": stride}
    if off:
        with pytest.raises(FrameError, match="bytes"):
            Frame.from_raw(data, **arguments)  # type: ignore[arg-type]
        return
    frame = Frame.from_raw(data, **arguments)  # type: ignore[arg-type]
    row = np.frombuffer(data, np.uint8).reshape(height, stride)[:, : width * RAW[kind]]
    assert np.array_equal(frame.pixels.reshape(height, -1), row)


@pytest.mark.parametrize("side", [0, -1, 2**40, 1.5, "4", True, None])
def test_impossible_sides_are_refused(side: Any) -> None:
    for width, height in ((side, 4), (4, side)):
        with pytest.raises(FrameError, match=r"width|height"):
            Frame.from_raw(bytes(48), width=width, height=height, format="rgb")


@pytest.mark.parametrize(
    ("kind", "stride", "width"), [("yuv420", 8, 8), ("yuv420", None, 7), ("rgb", 5, 4), ("rgb", -12, 4)]
)
def test_impossible_strides_are_refused(kind: Any, stride: Any, width: int) -> None:
    with pytest.raises(FrameError):
        Frame.from_raw(bytes(96), width=width, height=8, format=kind, stride=stride)
    with pytest.raises(FrameError, match="format"):
        Frame.from_raw(bytes(96), width=4, height=8, format="h265")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((2, 2, 2, 2, 2)), np.zeros(4), np.array(object()), np.zeros((2, 2), object), np.zeros((0, 2, 3)),
        np.zeros((2, 2, 3), complex), np.full((2, 2), 1.5), np.full((2, 2), -0.1), np.full((2, 2), np.nan),
        np.full((2, 2), 256), np.full((2, 2), -1), np.zeros((2, 2, 2), np.uint8), [[1, 2], [3]], "text", None,
    ],
)  # fmt: skip
def test_arrays_that_are_no_picture_are_refused(wrong: Any) -> None:
    with pytest.raises(FrameError) as caught:
        Frame.from_array(wrong)
    assert "\n" not in str(caught.value)


def test_other_numbers_are_scaled() -> None:
    assert Frame.from_array(np.array([[0.0, 0.5, 1.0]])).pixels.tolist() == [[0, 128, 255]]
    assert Frame.from_array(np.array([[True, False]])).pixels.tolist() == [[255, 0]]
    assert Frame.from_array(np.array([[0, 255]], np.int64)).pixels.tolist() == [[0, 255]]
    assert Frame.from_array(np.array([[0, 65535, 256]], np.uint16)).pixels.tolist() == [[0, 255, 1]]
    assert Frame.from_array(np.zeros((3, 4, 1), np.uint8)).format == "gray"


def test_a_frame_keeps_its_own_pixels_unless_told_to_share() -> None:
    array = np.zeros((2, 2, 3), np.uint8)
    own, shared = Frame.from_array(array), Frame.from_array(array, copy=False)
    array[:] = 9
    assert own.pixels.max() == 0
    assert shared.pixels.min() == 9
    array.flags.writeable = False
    assert Frame.from_array(array).pixels.min() == 9


def test_rgb_costs_nothing() -> None:
    frame = Frame.from_array(np.zeros((2, 2, 3), np.uint8))
    assert frame.to_rgb() is frame.pixels


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_exif_turns_the_picture_upright(orientation: int, kind: str) -> None:
    gradient = np.zeros((24, 40, 3), np.uint8)
    gradient[:12, :20], gradient[12:, 20:] = 255, 120
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(gradient), kind, exif=exif, **({"quality": 95} if kind == "JPEG" else {}))
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    frame = Frame.from_bytes(data)
    assert frame.pixels.shape == expected.shape
    assert np.abs(frame.pixels.astype(int) - expected).max() < 12


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I", "HSV", "LAB"])
def test_pillow_images_of_any_mode_work(mode: str) -> None:
    image = Image.new("I;16", (5, 4), 40000) if mode == "I;16" else Image.new("RGB", (5, 4), (200, 100, 50))
    image = image if mode == "I;16" else image.convert("L").convert(mode) if mode == "PA" else (
        image.convert("I") if mode == "I" else Image.new("LAB", (5, 4)) if mode == "LAB" else image.convert(mode))  # fmt: skip
    frame = Frame.from_pil(image)
    assert (frame.width, frame.height) == (5, 4)
    assert frame.format in ("rgb", "rgba")


def test_files_of_every_kind_are_read(tmp_path: Path) -> None:
    image = Image.new("RGB", (9, 7), (200, 100, 50))
    for kind in ("png", "jpeg", "webp", "bmp", "gif"):
        file = tmp_path / f"picture.{kind}"
        image.save(file)
        frame = Frame.from_file(file, timestamp_ms=5, frame_number=2)
        assert (frame.width, frame.height, frame.timestamp_ms, frame.frame_number) == (9, 7, 5, 2)
        assert np.abs(frame.to_rgb()[3, 4].astype(int) - (200, 100, 50)).max() < 8
    Image.fromarray(np.full((4, 4), 40000, np.uint16)).save(tmp_path / "deep.png")
    assert Frame.from_file(tmp_path / "deep.png").pixels[0, 0].tolist() == [156] * 3
    image.convert("CMYK").save(tmp_path / "cmyk.jpg")
    assert Frame.from_file(tmp_path / "cmyk.jpg").format == "rgb"
    Image.new("L", (1, 1), 7).save(tmp_path / "one.jpg")
    assert Frame.from_file(tmp_path / "one.jpg").pixels.shape == (1, 1, 3)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path, tmp_path / "fifo", "/dev/zero", "https://host/a.jpg", "rtsp://camera", "a\x00b"):
        with pytest.raises(FrameError):
            Frame.from_file(path)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        Frame.from_file(tmp_path / "missing.png")
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(FrameError, match="not a picture"):
        Frame.from_file(tmp_path / "text.png")
    big = tmp_path / "big.png"
    with big.open("wb") as file:
        file.truncate(65 << 20)
    with pytest.raises(FrameTooLargeError, match="max_bytes"):
        Frame.from_file(big)


def test_save_and_encode_say_what_they_can(tmp_path: Path) -> None:
    frame = Frame.from_array(np.full((4, 6, 4), 90, np.uint8))
    for name in ("a.png", "a.jpg", "a.webp"):
        assert Frame.from_file(frame.save(tmp_path / name)).width == 6
    with pytest.raises(OptionError, match=r"\.png"):
        frame.save(tmp_path / "a.tiff")
    with pytest.raises(OptionError, match="quality"):
        frame.encode(quality=0)
    with pytest.raises(OptionError, match="format"):
        frame.encode("bmp")  # type: ignore[arg-type]
    assert frame._repr_png_().startswith(b"\x89PNG")


def test_crop_and_resize_keep_the_stream_data() -> None:
    frame = Frame.from_array(np.arange(48, dtype=np.uint8).reshape(4, 4, 3), timestamp_ms=3, frame_number=1)
    part = frame.crop(1, -5, 3, 99)
    assert np.array_equal(part.pixels, frame.pixels[:, 1:3])
    assert part.timestamp_ms == 3
    assert frame.resize(8, 2).pixels.shape == (2, 8, 3)
    with pytest.raises(FrameError):
        frame.crop(3, 0, 3, 4)
    with pytest.raises(FrameError):
        frame.resize(0, 4)


@pytest.mark.parametrize("name", ["timestamp_ms", "frame_number"])
def test_stream_data_are_whole_numbers(name: str) -> None:
    for wrong in (1.5, "1", True, float("nan")):
        with pytest.raises(FrameError, match=name):
            Frame.from_array(np.zeros((2, 2), np.uint8), **{name: wrong})  # type: ignore[arg-type]
    assert "timestamp_ms=7" in repr(Frame.from_array(np.zeros((2, 2), np.uint8), timestamp_ms=7))


def test_the_constructor_checks_too() -> None:
    good = np.zeros((2, 2, 3), np.uint8)
    for wrong in (
        {"pixels": good, "format": "gray"}, {"pixels": good, "format": "hsv"}, {"pixels": good[:, ::-1], "format": "rgb"},
        {"pixels": good.astype(float), "format": "rgb"}, {"pixels": np.zeros((4, 4), np.uint8), "format": "yuv420"},
    ):  # fmt: skip
        with pytest.raises(FrameError):
            Frame(**wrong)  # type: ignore[arg-type]


def test_limits_can_be_set() -> None:
    data = encoded(Image.new("RGB", (50, 40)), "PNG")
    assert Frame.from_bytes(data, limits=DecodeLimits(max_pixels=2000)).width == 50
    for limits in (DecodeLimits(max_pixels=1999), DecodeLimits(max_side=49), DecodeLimits(max_bytes=20)):
        with pytest.raises(FrameTooLargeError):
            Frame.from_bytes(data, limits=limits)
