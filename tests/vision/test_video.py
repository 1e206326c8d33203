"""Videos in and out."""

from __future__ import annotations

import os
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tabml.errors import OptionError, StreamFormatError
from tabml.vision import Frame, VideoWriter, read_video


def frames(count: int, width: int = 64, height: int = 48) -> list[Frame]:
    """A white bar that moves."""
    pictures = np.zeros((count, height, width, 3), np.uint8)
    for number, picture in enumerate(pictures):
        picture[:, number * 4 : number * 4 + 8] = 255
    return [Frame.from_array(picture) for picture in pictures]


def write(path: Path, count: int = 12, **more: Any) -> Path:
    with VideoWriter(path, **more) as video:
        for frame in frames(count):
            video.write(frame)
    return path


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_what_is_written_is_read(suffix: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"clip{suffix}", fps=Fraction(30000, 1001))
    with read_video(path) as video:
        assert (video.width, video.height) == (64, 48)
        assert float(video.fps) == pytest.approx(29.97, abs=0.01)
        found = list(video)
    assert len(found) == 12
    assert [frame.frame_number for frame in found] == list(range(12))
    assert [frame.timestamp_ms for frame in found] == [round(i * 1001 / 30) for i in range(12)]
    for mine, read in zip(frames(12), found, strict=True):
        assert np.abs(mine.pixels.astype(int) - read.pixels).mean() < 12


def test_a_real_clip_is_read_whole(pictures: Callable[[str], Path]) -> None:
    with read_video(pictures("hand_test_video.mp4")) as video:
        assert video.frame_count == 202
        stamps = [frame.timestamp_ms for frame in video]
    assert len(stamps) == 202
    assert all(b > a for a, b in pairwise(stamps))  # type: ignore[operator]


def test_odd_sizes_lose_a_line(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "odd.mp4") as video:
        video.write(Frame.from_array(np.zeros((33, 17, 3), np.uint8)))
    with read_video(tmp_path / "odd.mp4") as video:
        assert (video.width, video.height) == (16, 32)


def test_an_error_leaves_no_half_file(tmp_path: Path) -> None:
    path = tmp_path / "half.mp4"
    with pytest.raises(ZeroDivisionError), VideoWriter(path) as video:  # noqa: PT012
        video.write(frames(1)[0])
        raise ZeroDivisionError
    assert not path.exists()
    with VideoWriter(tmp_path / "none.mp4"):
        pass
    assert not (tmp_path / "none.mp4").exists()


def test_frames_of_another_size_are_refused(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "clip.mp4") as video:
        video.write(frames(1)[0])
        with pytest.raises(StreamFormatError, match="resize"):
            video.write(frames(1, width=32)[0])
        video.write(frames(1)[0])
    with VideoWriter(tmp_path / "dot.mp4") as video, pytest.raises(StreamFormatError, match="too small"):
        video.write(Frame.from_array(np.zeros((1, 1, 3), np.uint8)))
    with VideoWriter(tmp_path / "no" / "clip.mp4") as video, pytest.raises(FileNotFoundError, match="folder"):
        video.write(frames(1)[0])


@pytest.mark.parametrize("wrong", [{"fps": 0}, {"fps": -1}, {"fps": float("nan")}, {"fps": 10**6}])
def test_options_are_checked(wrong: Any, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="fps"):
        VideoWriter(tmp_path / "a.mp4", **wrong)
    with pytest.raises(OptionError, match=r"\.mp4"):
        VideoWriter(tmp_path / "a.gif")


def test_what_is_no_video_is_refused(tmp_path: Path, portrait: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "text.mp4").write_text("hello")
    (tmp_path / "empty.mp4").touch()
    for path in (
        tmp_path,
        tmp_path / "fifo",
        "rtsp://camera/1",
        "/dev/zero",
        tmp_path / "text.mp4",
        tmp_path / "empty.mp4",
    ):
        with pytest.raises(StreamFormatError) as caught:
            read_video(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(FileNotFoundError):
        read_video(tmp_path / "missing.mp4")


def test_a_damaged_clip_gives_its_good_frames_then_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "clip.mkv", 60)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    seen = 0
    with read_video(path) as video:
        try:
            for _ in video:
                seen += 1
        except StreamFormatError as problem:
            assert f"after frame {seen}" in str(problem)
    assert 0 < seen < 60


def test_leaving_early_closes_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "clip.mp4")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        video = read_video(path)
        next(video)
        video.close()
        video.close()
        with read_video(path) as video:
            next(iter(video))
    assert len(os.listdir("/proc/self/fd")) <= before


def test_a_rotated_clip_is_upright(tmp_path: Path) -> None:
    import av

    path, turned = write(tmp_path / "clip.mp4", 3), tmp_path / "turned.mp4"
    with av.open(str(path)) as source, av.open(str(turned), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        try:
            stream.set_display_rotation(90)  # type: ignore[attr-defined]
        except AttributeError:
            pytest.skip("this PyAV can't write a rotation")
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    with read_video(turned) as video:
        assert next(video).pixels.shape == (64, 48, 3)
