"""One picture, with its pixel format in its type: what every vision model takes."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from tabml.errors import FrameError, FrameTooLargeError, MissingExtraError, OptionError
from tabml.vision._decode import DEFAULT_LIMITS, DecodeLimits, _pixels, decode

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["DEFAULT_LIMITS", "DecodeLimits", "Frame", "PixelFormat", "RawFormat"]

PixelFormat = Literal["rgb", "bgr", "rgba", "gray", "yuv420"]
"""The layouts of :attr:`Frame.pixels`; ``yuv420`` is planar I420, BT.601, as cameras give it."""
RawFormat = Literal["rgb", "bgr", "rgba", "gray", "yuv420", "nv12"]
"""What :meth:`Frame.from_raw` reads."""

_ALIASES: dict[str, RawFormat | Literal["encoded"]] = {
    "rgb": "rgb", "rgb24": "rgb", "bgr": "bgr", "bgr24": "bgr", "rgba": "rgba", "rgba32": "rgba", "gray": "gray",
    "grey": "gray", "gray8": "gray", "grayscale": "gray", "yuv420": "yuv420", "yuv420p": "yuv420", "i420": "yuv420",
    "nv12": "nv12", "": "encoded", "jpeg": "encoded", "jpg": "encoded", "mjpeg": "encoded", "png": "encoded",
    "webp": "encoded", "bmp": "encoded", "gif": "encoded",
}  # fmt: skip
_CHANNELS = {"rgb": 3, "bgr": 3, "rgba": 4, "gray": 1, "yuv420": 1}
_KINDS = {".jpg": "jpeg", ".jpeg": "jpeg", ".png": "png", ".webp": "webp"}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Frame:
    """A picture. Make one with ``from_file``, ``from_bytes``, ``from_array``, ``from_raw`` or ``from_pil``."""

    pixels: NDArray[np.uint8]
    """uint8, C-contiguous, read-only. Shape (height, width, 3) for rgb and bgr, (height, width, 4) for rgba,
    (height, width) for gray, (height × 3 / 2, width) for yuv420. The constructor shares the array it is given."""
    format: PixelFormat
    """How the pixels are laid out."""
    timestamp_ms: int | None = None
    """When the frame was taken, milliseconds on the stream's own clock."""
    frame_number: int | None = None
    """Which frame of the stream it is."""

    def __post_init__(self) -> None:
        pixels = self.pixels
        if self.format not in _CHANNELS:
            raise FrameError(f"format={self.format!r} must be one of {', '.join(_CHANNELS)}")
        if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or not pixels.flags.c_contiguous:
            raise FrameError("pixels must be a C-contiguous uint8 array; use Frame.from_array")
        channels = _CHANNELS[self.format]
        fits = pixels.ndim == 2 if channels == 1 else pixels.ndim == 3 and pixels.shape[2] == channels
        if not fits or not pixels.size:
            raise FrameError(f"pixels of shape {pixels.shape} are not a {self.format} picture")
        if self.format == "yuv420" and (pixels.shape[0] % 3 or pixels.shape[1] % 2):
            raise FrameError(f"yuv420 needs an even width and height; the planes are {pixels.shape}")
        for name in ("timestamp_ms", "frame_number"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int | np.integer)):
                raise FrameError(f"{name}={value!r} must be a whole number")
        view = pixels.view()
        view.flags.writeable = False
        object.__setattr__(self, "pixels", view)

    @property
    def width(self) -> int:
        """Pixels."""
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        """Pixels."""
        rows = int(self.pixels.shape[0])
        return rows * 2 // 3 if self.format == "yuv420" else rows

    @classmethod
    def from_file(
        cls,
        path: str | os.PathLike[str],
        *,
        limits: DecodeLimits = DEFAULT_LIMITS,
        timestamp_ms: int | None = None,
        frame_number: int | None = None,
    ) -> Frame:
        """A JPEG, PNG, WebP, BMP or GIF file, turned upright as its EXIF says.

        Raises:
            FileNotFoundError: there is no such file.
            FrameTooLargeError: it promises more than ``limits``; nothing was decoded.
            FrameError: it is not a regular file, or not a whole picture.
        """
        name = os.fspath(path)
        if "://" in name:
            raise FrameError(f"path={name!r} is an address; fetch it first, then use Frame.from_bytes")
        place = Path(name).expanduser()
        try:
            status = place.stat()
        except FileNotFoundError:
            raise FileNotFoundError(f"path={name!r} does not exist") from None
        except (OSError, ValueError) as problem:
            raise FrameError(f"path={name[:80]!r} can't be read: {problem}") from None
        if not stat.S_ISREG(status.st_mode):
            raise FrameError(f"path={name!r} is not a regular file")
        if status.st_size > limits.max_bytes:
            raise FrameTooLargeError(f"{name} has {status.st_size} bytes; max_bytes is {limits.max_bytes}")
        try:
            data = place.read_bytes()
        except OSError as problem:
            raise FrameError(f"path={name!r} can't be read: {problem}") from problem
        return cls._of(decode(data, limits, name), timestamp_ms, frame_number)

    @classmethod
    def from_bytes(
        cls,
        data: bytes | bytearray | memoryview,
        *,
        limits: DecodeLimits = DEFAULT_LIMITS,
        timestamp_ms: int | None = None,
        frame_number: int | None = None,
    ) -> Frame:
        """An encoded picture (JPEG, PNG, WebP, BMP or GIF), turned upright as its EXIF says.

        Raises:
            FrameTooLargeError: it promises more than ``limits``; nothing was decoded.
            FrameError: it is not a whole picture.
        """
        return cls._of(decode(bytes(data), limits, "data"), timestamp_ms, frame_number)

    @classmethod
    def from_pil(cls, image: Image, *, timestamp_ms: int | None = None, frame_number: int | None = None) -> Frame:
        """A Pillow image of any mode, turned upright as its EXIF says; transparency gives rgba."""
        from PIL import ImageOps

        return cls._of(_pixels(ImageOps.exif_transpose(image)), timestamp_ms, frame_number)

    @classmethod
    def from_array(
        cls,
        array: Any,
        format: PixelFormat | None = None,
        *,
        copy: bool = True,
        timestamp_ms: int | None = None,
        frame_number: int | None = None,
    ) -> Frame:
        """Any numeric array, in any memory layout.

        Args:
            array: Shape (height, width), (height, width, 1), (height, width, 3) or (height, width, 4). uint8;
                uint16 (its upper eight bits are used); bool (False is 0, True 255); other integers from 0 to
                255; floats from 0 to 1.
            format: gray, rgb and rgba by the shape when None; say ``"bgr"`` for OpenCV's pictures.
            copy: False shares a C-contiguous uint8 array instead of copying it; don't change it afterwards.
            timestamp_ms: See the field.
            frame_number: See the field.

        Raises:
            FrameError: the array is empty, of another shape or type, or has values outside the range.
        """
        try:
            given = np.asarray(array)
        except ValueError as problem:
            raise FrameError(f"array can't be read as one: {problem}") from problem
        if given.ndim == 3 and given.shape[2] == 1:
            given = given[:, :, 0]
        channels = 1 if given.ndim == 2 else given.shape[2] if given.ndim == 3 else 0
        if format is None:
            guesses: dict[int, PixelFormat] = {1: "gray", 3: "rgb", 4: "rgba"}
            if channels not in guesses:
                raise FrameError(
                    f"array of shape {given.shape} is not a picture; it must be (height, width[, 1, 3 or 4])"
                )
            format = guesses[channels]
        pixels = _as_bytes(given)
        if copy and np.shares_memory(pixels, given):
            pixels = pixels.copy()
        return cls(
            pixels=np.ascontiguousarray(pixels), format=format, timestamp_ms=timestamp_ms, frame_number=frame_number
        )

    @classmethod
    def from_raw(
        cls,
        data: bytes | bytearray | memoryview,
        *,
        width: int,
        height: int,
        format: RawFormat,
        stride: int | None = None,
        timestamp_ms: int | None = None,
        frame_number: int | None = None,
    ) -> Frame:
        """Bare pixels, as a camera or a socket gives them. ``bytes`` and views of them are shared, not copied.

        Args:
            data: The rows one after another; for yuv420 the planes Y, U, V; for nv12 the planes Y, UV.
            width: Pixels.
            height: Pixels; even for yuv420 and nv12, as is the width.
            format: How they are laid out.
            stride: Bytes from one row to the next where rows are padded; the planar formats take none.
            timestamp_ms: See the field.
            frame_number: See the field.

        Raises:
            FrameError: the length is not exactly what width, height, format and stride say.
        """
        if format not in get_args(RawFormat):
            raise FrameError(f"format={format!r} must be one of {', '.join(get_args(RawFormat))}")
        for name, side in (("width", width), ("height", height)):
            if isinstance(side, bool) or not isinstance(side, int) or not 0 < side <= DEFAULT_LIMITS.max_side:
                raise FrameError(f"{name}={side!r} must be a whole number from 1 to {DEFAULT_LIMITS.max_side}")
        fixed = isinstance(data.obj if isinstance(data, memoryview) else data, bytes)
        flat = np.frombuffer(data if fixed else bytes(data), np.uint8)
        planar = format in ("yuv420", "nv12")
        if planar and (width % 2 or height % 2 or stride is not None):
            raise FrameError(f"{format} needs an even width and height and no stride; got {width}×{height}")
        row = width * (1 if planar else _CHANNELS[format])
        step = row if stride is None else stride
        rows = height * 3 // 2 if planar else height
        if isinstance(step, bool) or not isinstance(step, int) or step < row:
            raise FrameError(f"stride={stride!r} must be a whole number of at least {row} for {width} {format} pixels")
        if flat.size != step * rows:
            raise FrameError(
                f"data has {flat.size} bytes; {width}×{height} {format} with a stride of {step} takes {step * rows}"
            )
        table = flat.reshape(rows, step)[:, :row]
        if format == "nv12":
            chroma = table[height:].reshape(-1, 2)
            table = np.concatenate([table[:height].ravel(), chroma[:, 0], chroma[:, 1]]).reshape(rows, width)
            format = "yuv420"
        shape = (rows, width, _CHANNELS[format]) if _CHANNELS[format] > 1 else (rows, width)
        return cls(
            pixels=np.ascontiguousarray(table).reshape(shape),
            format=format,
            timestamp_ms=timestamp_ms,
            frame_number=frame_number,
        )

    @classmethod
    def from_named(
        cls,
        data: bytes | memoryview,
        format: str,
        *,
        width: int = 0,
        height: int = 0,
        stride: int = 0,
        timestamp_ms: int | None = None,
        frame_number: int | None = None,
    ) -> Frame:
        """Pixels or an encoded picture, as a message names them.

        Args:
            data: The bytes.
            format: One of :data:`RawFormat` or a common other name of it (``i420``, ``rgb24``, ``grayscale``); or
                ``jpeg``, ``png``, ``webp``, ``bmp``, ``gif`` or empty for an encoded picture, whose first bytes tell
                which one it is.
            width: Pixels. Of an encoded picture 0, or what it must have, before or after EXIF turned it upright.
            height: As ``width``.
            stride: Bytes a row, where rows are padded; 0 for none.
            timestamp_ms: See the field.
            frame_number: See the field.

        Raises:
            FrameTooLargeError: a picture promises more than the limits; nothing was decoded.
            FrameError: the format is unknown, or the bytes are not what the rest says.
        """
        kind = _ALIASES.get(format.lower())
        if kind is None:
            raise FrameError(f"format={format[:40]!r} must be one of {', '.join(name for name in _ALIASES if name)}")
        if kind != "encoded":
            return cls.from_raw(
                data,
                width=width,
                height=height,
                format=kind,
                stride=stride or None,
                timestamp_ms=timestamp_ms,
                frame_number=frame_number,
            )
        frame = cls.from_bytes(data, timestamp_ms=timestamp_ms, frame_number=frame_number)
        size = (frame.width, frame.height)
        if stride:
            raise FrameError(f"stride={stride} does not go with an encoded picture")
        if (width, height) != (0, 0) and (width, height) not in (size, size[::-1]):
            raise FrameError(f"width={width}, height={height} is not the picture's size, {size[0]}×{size[1]}")
        return frame

    @classmethod
    def _of(cls, pixels: NDArray[np.uint8], timestamp_ms: int | None, frame_number: int | None) -> Frame:
        kind: PixelFormat = "rgba" if pixels.shape[2] == 4 else "rgb"
        return cls(pixels=pixels, format=kind, timestamp_ms=timestamp_ms, frame_number=frame_number)

    def to_rgb(self) -> NDArray[np.uint8]:
        """Shape (height, width, 3), uint8, C-contiguous; :attr:`pixels` itself when they are rgb. Alpha is dropped."""
        if self.format == "rgb":
            return self.pixels
        try:
            import cv2
        except ImportError:
            raise MissingExtraError("vision", "opencv-contrib-python") from None
        codes = {
            "bgr": cv2.COLOR_BGR2RGB,
            "rgba": cv2.COLOR_RGBA2RGB,
            "gray": cv2.COLOR_GRAY2RGB,
            "yuv420": cv2.COLOR_YUV2RGB_I420,
        }
        return np.asarray(cv2.cvtColor(self.pixels, codes[self.format]), np.uint8)

    def to_pil(self) -> Image:
        """A Pillow image: RGBA for rgba, L for gray, RGB otherwise."""
        try:
            from PIL import Image as images
        except ImportError:
            raise MissingExtraError("vision", "pillow") from None
        return images.fromarray(self.pixels if self.format in ("rgba", "gray") else self.to_rgb())

    def encode(self, format: Literal["jpeg", "png", "webp"] = "jpeg", *, quality: int = 90) -> bytes:
        """The picture as a file's bytes; jpeg drops transparency.

        Args:
            format: The kind of file.
            quality: 1 to 100, for jpeg and webp.

        Raises:
            OptionError: ``format`` or ``quality`` is neither.
        """
        import io

        if format not in ("jpeg", "png", "webp"):
            raise OptionError(f"format={format!r} must be 'jpeg', 'png' or 'webp'")
        if isinstance(quality, bool) or not isinstance(quality, int) or not 1 <= quality <= 100:
            raise OptionError(f"quality={quality!r} must be a whole number from 1 to 100")
        picture = self.to_pil()
        if format == "jpeg" and picture.mode == "RGBA":
            picture = picture.convert("RGB")
        out = io.BytesIO()
        picture.save(out, format, **({} if format == "png" else {"quality": quality}))
        return out.getvalue()

    def save(self, path: str | os.PathLike[str], *, quality: int = 90) -> Path:
        """Write a .jpg, .png or .webp file, whole or not at all; gives its path.

        Raises:
            OptionError: the name ends in something else.
        """
        place = Path(path).expanduser()
        kind = _KINDS.get(place.suffix.lower())
        if kind is None:
            raise OptionError(f"path={str(path)!r} must end in {', '.join(_KINDS)}")
        content = self.encode(kind, quality=quality)  # type: ignore[arg-type]
        place.write_bytes(content)
        return place

    def crop(self, left: int, top: int, right: int, bottom: int) -> Frame:
        """The part inside these pixel edges, cut at the picture's own; rgb, or rgba where it was.

        Raises:
            FrameError: nothing is left.
        """
        pixels = self.pixels if self.format in ("rgba", "gray") else self.to_rgb()
        part = pixels[max(0, top) : max(0, bottom), max(0, left) : max(0, right)]
        return Frame.from_array(part, timestamp_ms=self.timestamp_ms, frame_number=self.frame_number)

    def resize(self, width: int, height: int) -> Frame:
        """Another size: area averaging when smaller, bilinear when larger.

        Raises:
            FrameError: a side is not from 1 to 16,384.
        """
        import cv2

        if not (0 < width <= DEFAULT_LIMITS.max_side and 0 < height <= DEFAULT_LIMITS.max_side):
            raise FrameError(f"width={width!r}, height={height!r} must be from 1 to {DEFAULT_LIMITS.max_side}")
        pixels = self.pixels if self.format in ("rgba", "gray") else self.to_rgb()
        smaller = width * height < self.width * self.height
        sized = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
        return Frame.from_array(sized, copy=False, timestamp_ms=self.timestamp_ms, frame_number=self.frame_number)

    def __repr__(self) -> str:
        extra = "".join(
            f", {name}={value}"
            for name in ("timestamp_ms", "frame_number")
            if (value := getattr(self, name)) is not None
        )
        return f"Frame({self.width}×{self.height} {self.format}{extra})"

    def _repr_png_(self) -> bytes:
        return self.encode("png")


def _as_bytes(given: NDArray[Any]) -> NDArray[np.uint8]:
    """Any numeric picture as uint8."""
    if not given.size:
        raise FrameError(f"array is empty: shape {given.shape}")
    kind = given.dtype.kind
    if given.dtype == np.uint8:
        return given
    if kind == "b":
        return given.astype(np.uint8) * np.uint8(255)
    if given.dtype == np.uint16:
        return (given >> 8).astype(np.uint8)
    if kind not in "iuf":
        raise FrameError(f"array of dtype {given.dtype} is not a picture; use uint8, or floats from 0 to 1")
    low, high, most = given.min(), given.max(), 1 if kind == "f" else 255
    if not (low >= 0 and high <= most):
        raise FrameError(f"array of dtype {given.dtype} has values from {low} to {high}; they must be 0 to {most}")
    return np.rint(given * 255).astype(np.uint8) if kind == "f" else given.astype(np.uint8)
