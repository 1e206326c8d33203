"""Video files in and out, through PyAV."""

from __future__ import annotations

import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from tabml.errors import MissingExtraError, OptionError, SourceError, StreamFormatError
from tabml.vision.frame import Frame

if TYPE_CHECKING:
    from typing import Self


def av_library() -> Any:
    """PyAV, quiet.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import av
    except ImportError:
        raise MissingExtraError("vision", "av") from None
    av.logging.set_level(None)
    return av


class VideoReader:
    """The frames of a video file, upright, one after another: an iterator that closes its file.

    Timestamps are the file's own in milliseconds and always grow; frame numbers count from 0. A file that is cut
    short gives its good frames, then :class:`~tabml.errors.StreamFormatError`.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open the file.

        Raises:
            FileNotFoundError: there is no such file.
            StreamFormatError: it is not a regular file, or holds no video that can be read.
        """
        av = av_library()
        name = os.fspath(path)
        place = Path(name).expanduser()
        if "://" in name:
            raise StreamFormatError(f"path={name!r} is an address; only files are read here")
        if not place.exists():
            raise FileNotFoundError(f"path={name!r} does not exist")
        if not place.is_file():
            raise StreamFormatError(f"path={name!r} is not a regular file")
        self._open(av, f"path={name!r}", str(place.resolve()), {"protocol_whitelist": "file"})

    def _open(self, av: Any, name: str, source: str, options: dict[str, str], timeout_s: float | None = None) -> None:
        self._name = name
        self._errors: Any = av.error.FFmpegError
        try:
            self._container = av.open(source, options=options, timeout=timeout_s)
        except (self._errors, ValueError, OSError) as problem:
            raise StreamFormatError(f"{name} is not a video that can be read: {problem}") from problem
        if not self._container.streams.video:
            self._container.close()
            raise StreamFormatError(f"{name} holds no video")
        stream = self._container.streams.video[0]
        stream.thread_type = "AUTO"
        self.width: int = stream.codec_context.width
        """Pixels, before rotation."""
        self.height: int = stream.codec_context.height
        """Pixels, before rotation."""
        self.fps = Fraction(stream.average_rate or stream.guessed_rate or 30)
        """Frames a second, on average."""
        self.frame_count: int | None = stream.frames or None
        """How many frames the file says it has; None when it doesn't say."""
        self._frames = self._read(stream)

    def __iter__(self) -> Iterator[Frame]:
        return self

    def __next__(self) -> Frame:
        return next(self._frames)

    def _read(self, stream: Any) -> Iterator[Frame]:
        number, last = 0, -1
        try:
            for picture in self._container.decode(stream):
                pixels = picture.to_ndarray(format="rgb24")
                turns = round(getattr(picture, "rotation", 0) / 90) % 4
                if turns:
                    pixels = np.ascontiguousarray(np.rot90(pixels, turns))
                at = None if picture.time is None else round(picture.time * 1000)
                last = max(last + 1, round(number * 1000 / self.fps) if at is None else at)
                yield Frame(pixels=pixels, format="rgb", timestamp_ms=last, frame_number=number)
                number += 1
        except (self._errors, ValueError) as problem:
            raise StreamFormatError(f"{self._name} is damaged after frame {number}: {problem}") from problem
        finally:
            self._container.close()

    def close(self) -> None:
        """Close the file; twice is fine."""
        self._frames.close()  # type: ignore[attr-defined]
        self._container.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_video(path: str | os.PathLike[str]) -> VideoReader:
    """The frames of a video file: ``for frame in read_video("run.mp4")``.

    Raises:
        FileNotFoundError: there is no such file.
        StreamFormatError: it is not a regular file, or holds no video that can be read.
    """
    return VideoReader(path)


_ADDRESSES = ("http", "https", "rtsp", "rtsps")


class _UrlReader(VideoReader):
    def __init__(self, url: str, timeout_s: float) -> None:
        av = av_library()
        options = {"protocol_whitelist": "http,https,tcp,tls,crypto,rtp,udp,rtsp,hls"}
        if url.lower().startswith("rtsp"):
            options["rtsp_transport"] = "tcp"  # lost packets would be lost pictures
        self._open(av, f"url={url.partition('?')[0]!r:.200}", url, options, timeout_s)


def read_url(url: str, *, timeout_s: float = 10.0) -> VideoReader:
    """The frames of a video behind an address: a file, a HLS playlist or an RTSP camera.

    Nothing but addresses of the network is opened, whatever a playlist names.

    Args:
        url: Begins with http://, https://, rtsp:// or rtsps://.
        timeout_s: Seconds without an answer after which it is given up, above 0.

    Raises:
        OptionError: ``url`` or ``timeout_s`` is not usable.
        SourceError: nothing answers there.
        StreamFormatError: it holds no video that can be read.
    """
    scheme, found, _ = url.partition("://") if isinstance(url, str) else ("", "", "")
    if not found or scheme.lower() not in _ADDRESSES:
        raise OptionError(f"url={url!r:.200} must begin with one of {', '.join(each + '://' for each in _ADDRESSES)}")
    if isinstance(timeout_s, bool) or not isinstance(timeout_s, int | float) or not 0 < timeout_s <= 3600:
        raise OptionError(f"timeout_s={timeout_s!r} must be a number of seconds above 0, at most 3600")
    try:
        return _UrlReader(url, timeout_s)
    except StreamFormatError as problem:
        cause = problem.__cause__
        if cause is None or isinstance(cause, av_library().error.InvalidDataError):
            raise
        raise SourceError(f"url={url.partition('?')[0]!r:.200} gives nothing: {cause}") from problem


class VideoWriter:
    """Frames into a video file, as H.264 where the encoder is there, MPEG-4 otherwise.

    A ``with`` block: when it ends with an error, the unfinished file is removed. All frames take the first one's
    size, cut to even sides.
    """

    def __init__(self, path: str | os.PathLike[str], *, fps: float | Fraction = 30) -> None:
        """Nothing is written before the first frame.

        Args:
            path: A name that ends in .mp4, .mkv or .mov.
            fps: Frames a second, above 0, at most 1000.

        Raises:
            OptionError: ``fps`` or the ending of ``path`` is not usable.
        """
        self._path = Path(path).expanduser()
        if self._path.suffix.lower() not in (".mp4", ".mkv", ".mov"):
            raise OptionError(f"path={str(path)!r} must end in .mp4, .mkv or .mov")
        if not 0 < fps <= 1000:
            raise OptionError(f"fps={fps!r} must be above 0 and at most 1000")
        self._fps = Fraction(fps).limit_denominator(1001)
        self._container: Any = None
        self._stream: Any = None
        self.frames_written = 0
        """How many frames went in."""

    def write(self, frame: Frame) -> None:
        """Append one frame.

        Raises:
            FileNotFoundError: the folder of the file doesn't exist.
            StreamFormatError: the frame's size is not the first frame's, or the encoder refused it.
        """
        av = av_library()
        pixels = frame.to_rgb()
        height, width = (side - side % 2 for side in pixels.shape[:2])
        if not width or not height:
            raise StreamFormatError(f"a video of {frame.width}×{frame.height} is too small; 2×2 is the least")
        if self._container is None:
            self._open(av, width, height)
        if (width, height) != (self._stream.width, self._stream.height):
            raise StreamFormatError(
                f"frame is {width}×{height}, the video {self._stream.width}×{self._stream.height}; resize it first"
            )
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels[:height, :width]), format="rgb24")
        picture.pts = self.frames_written
        for packet in self._stream.encode(picture):
            self._container.mux(packet)
        self.frames_written += 1

    def _open(self, av: Any, width: int, height: int) -> None:
        if not self._path.parent.is_dir():
            raise FileNotFoundError(f"the folder {self._path.parent} does not exist")
        codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
        fast = {"movflags": "+faststart"} if self._path.suffix.lower() != ".mkv" else {}
        self._container = av.open(str(self._path), "w", options=fast)
        self._stream = self._container.add_stream(codec, rate=self._fps)
        self._stream.width, self._stream.height = width, height
        self._stream.pix_fmt = "yuv420p"
        if codec == "libx264":
            self._stream.options = {"crf": "20", "preset": "veryfast"}

    def close(self) -> None:
        """Finish the file; twice is fine."""
        container, self._container = self._container, None
        if container is not None:
            for packet in self._stream.encode():
                container.mux(packet)
            container.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        started = self._container is not None
        self.close()
        if kind is not None and started:
            self._path.unlink(missing_ok=True)
