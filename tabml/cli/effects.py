"""``tabml effect``: blur or replace what is behind people, or cut them out, in a picture or a video."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from PIL import ImageColor

from tabml.cli.progress import watched
from tabml.errors import FrameError, FrameTooLargeError, OptionError
from tabml.vision import Frame, Segmenter, VideoReader, VideoWriter, read_video
from tabml.vision.effects import Colour, MaskSmoother, blur_background, cut_out, replace_background
from tabml.vision.results import Segmentation

Behind = Iterator[Frame | Colour]
Effect = Callable[[Frame, Segmentation], Frame]


def effect(options: argparse.Namespace) -> int:
    """One picture or video out."""
    if options.background is not None and options.what != "replace":
        raise OptionError(f"--background goes with replace, not with {options.what}")
    if options.strength is not None and options.what != "blur":
        raise OptionError(f"--strength goes with blur, not with {options.what}")
    with ExitStack() as stack:
        source = _opened(options.source, stack)
        change = _effect(options, stack)
        segmenter = stack.enter_context(Segmenter(size="model"))
        if isinstance(source, Frame):
            change(source, segmenter.segment(source)).save(options.out)
            return 0
        if options.what == "cutout":
            raise OptionError("cutout makes transparent pictures, which a video can't hold; use replace instead")
        smoother = MaskSmoother()
        writer = stack.enter_context(VideoWriter(options.out, fps=source.fps))
        for frame, mask in watched(segmenter.segment_stream(source), source.frame_count, "frame"):
            writer.write(change(frame, smoother.smooth(mask)))
    return 0


def _effect(options: argparse.Namespace, stack: ExitStack) -> Effect:
    if options.what == "cutout":
        return cut_out
    if options.what == "blur":
        strength = 0.02 if options.strength is None else options.strength
        return lambda frame, mask: blur_background(frame, mask, strength=strength)
    behind = _behind(options.background or "#00b140", stack)
    return lambda frame, mask: replace_background(frame, mask, next(behind))


def _opened(name: str, stack: ExitStack) -> Frame | VideoReader:
    """A picture, or else a video."""
    try:
        return Frame.from_file(name)
    except FrameTooLargeError:
        if Path(name).suffix.lower() in (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif"):
            raise
    except FrameError:
        pass
    return stack.enter_context(read_video(name))


def _behind(background: str, stack: ExitStack) -> Behind:
    """A colour or a picture again and again, or a video's frames, from the start again when it ends."""
    if not Path(background).expanduser().exists():
        try:
            red, green, blue, *_ = ImageColor.getrgb(background)
        except ValueError:
            raise OptionError(
                f"--background {background!r:.80} is neither a file nor a colour such as '#00b140'"
            ) from None
        return itertools.repeat((red, green, blue))
    opened = _opened(background, stack)
    return itertools.repeat(opened) if isinstance(opened, Frame) else _looped(opened, background, stack)


def _looped(video: VideoReader, name: str, stack: ExitStack) -> Behind:
    while True:
        shown = False
        for frame in video:
            shown = True
            yield frame
        if not shown:
            raise OptionError(f"--background {name!r:.80} has no frames")
        video = stack.enter_context(read_video(name))
