"""tabml: pictures and videos in, typed results out. ``from tabml.vision import FaceDetector``."""

from __future__ import annotations

__version__ = "0.1.0"
