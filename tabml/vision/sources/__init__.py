"""Where frames come from: cameras, screens, folders, addresses, and encoded chunks of other programs."""

from __future__ import annotations

from tabml.vision.sources.alignment import Missing, aligned, aligned_async, resampled, resampled_async
from tabml.vision.sources.channel import FrameChannel
from tabml.vision.sources.chunks import ChunkDecoder, Codec
from tabml.vision.sources.folders import read_folder
from tabml.vision.sources.live import Camera, LiveSource, Screen
from tabml.vision.sources.waiting import in_async
from tabml.vision.video import VideoReader, read_url, read_video

__all__ = [
    "Camera",
    "ChunkDecoder",
    "Codec",
    "FrameChannel",
    "LiveSource",
    "Missing",
    "Screen",
    "VideoReader",
    "aligned",
    "aligned_async",
    "in_async",
    "read_folder",
    "read_url",
    "read_video",
    "resampled",
    "resampled_async",
]
