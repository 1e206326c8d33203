"""The canonical face in a bundle: read right, and refused when it is something else."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabml.errors import ModelLoadError
from tabml.files import load_model
from tabml.vision._graphs.geometry import HeadGeometry


@pytest.fixture(scope="module")
def metadata() -> bytes:
    with zipfile.ZipFile(io.BytesIO(bytes(load_model("face_landmarker")))) as bundle:
        return bundle.read("geometry_pipeline_metadata_landmarks.binarypb")


@pytest.mark.parametrize(("scale", "turn"), [(1.0, 0.0), (0.5, 0.3), (1.7, -0.2)])
def test_a_head_that_a_camera_sees_is_placed_where_it_is(metadata: bytes, scale: float, turn: float) -> None:
    geometry = HeadGeometry(metadata)
    face = np.zeros((geometry._count, 3))
    face[geometry._rows] = geometry._face
    face[np.setdiff1d(np.arange(len(face)), geometry._rows)] = geometry._face.mean(axis=0)
    cosine, sine = np.cos(turn), np.sin(turn)
    matrix = np.eye(4)
    matrix[:3, :3] = [[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]]
    matrix[:3, 3] = [3.0, -2.0, -50.0 / scale]
    seen = face @ matrix[:3, :3].T + matrix[:3, 3]
    width, height = 640, 480
    high = 2 * np.tan(np.radians(31.5))
    wide = high * width / height
    flat = seen[:, :2] / -seen[:, 2:]
    middle = -seen[:, 2].mean()
    points = np.stack(
        [flat[:, 0] / wide + 0.5, 0.5 - flat[:, 1] / high, -(seen[:, 2] + middle) / middle / wide], axis=1
    )
    found = geometry.transform(points.astype(np.float32), (width, height))
    assert found is not None
    np.testing.assert_allclose(found[:3, :3], matrix[:3, :3], atol=0.05)
    np.testing.assert_allclose(found[:3, 3], matrix[:3, 3], rtol=0.05, atol=0.3)


def test_a_face_that_is_but_a_dot_has_no_place(metadata: bytes) -> None:
    assert HeadGeometry(metadata).transform(np.full((478, 3), 0.5, np.float32), (64, 48)) is None


def test_a_canonical_face_that_is_cut_short_is_refused(metadata: bytes) -> None:
    for end in (0, 1, 5, 1000, len(metadata) // 2):
        with pytest.raises(ModelLoadError, match="another kind"):
            HeadGeometry(metadata[:end])


@given(st.binary(max_size=200))
def test_bytes_that_are_no_canonical_face_are_refused(content: bytes) -> None:
    with pytest.raises(ModelLoadError):
        HeadGeometry(content)
