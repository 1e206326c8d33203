"""Faces as boxes and as meshes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from tabml.vision import landmarks as tables
from tabml.vision.results.found import Box, Float32, Found, bounds, listed, place


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FaceDetection:
    """One face: a box, a score and six keypoints."""

    box: Box
    """Where the face is."""
    score: float
    """The model's confidence, 0 to 1."""
    keypoints: Float32
    """Shape (6, 2), normalised x and y, in the order of ``landmarks.FACE_KEYPOINTS``."""

    def __getitem__(self, name: str) -> Float32:
        """Shape (2,): the keypoint called ``name``, as in ``face["nose_tip"]``."""
        point: Float32 = self.keypoints[place(name, tables.FACE_KEYPOINTS, "face")]
        return point

    def __repr__(self) -> str:
        b = self.box
        return f"FaceDetection(score={self.score:.2f}, box=({b.x:.3f}, {b.y:.3f}, {b.width:.3f}, {b.height:.3f}))"

    def to_dict(self) -> dict[str, Any]:
        """Plain Python values, ready for JSON."""
        return {
            "box": self.box.to_dict(),
            "score": self.score,
            "keypoints": dict(zip(tables.FACE_KEYPOINTS, self.keypoints.tolist(), strict=False)),
        }

    def _points(self) -> Iterator[dict[str, Any]]:
        for name, (x, y) in zip(tables.FACE_KEYPOINTS, self.keypoints.tolist(), strict=False):
            yield {"landmark": name, "x": x, "y": y, "score": self.score}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FaceMeshResult:
    """One face as a dense mesh."""

    landmarks: Float32
    """Shape (478, 3), normalised; z on the scale of x, smaller is nearer. 468 of the mesh, then ten of the irises."""
    blendshapes: Float32 | None = None
    """Shape (52,), 0 to 1, in the order of ``landmarks.BLENDSHAPES``; None unless asked for."""
    transform: Float32 | None = None
    """Shape (4, 4): canonical face to camera, centimetres, y up, looking down −z; None unless asked for."""

    @property
    def mesh(self) -> Float32:
        """Shape (468, 3): the mesh without the irises, a view."""
        return self.landmarks[: tables.FACE_MESH_POINTS]

    @property
    def irises(self) -> dict[str, Float32]:
        """Each shape (5, 3): centre, then four points of the rim; views."""
        return {"right_iris": self.landmarks[468:473], "left_iris": self.landmarks[473:478]}

    @property
    def box(self) -> Box:
        """The tightest box around the mesh."""
        return bounds(self.mesh)

    def __getitem__(self, name: str) -> Float32:
        """Shape (n, 3): the points of a region, as in ``face["left_eye"]``; regions in ``landmarks.FACE_REGIONS``."""
        try:
            return self.landmarks[list(tables.FACE_REGIONS[name])]
        except KeyError:
            known = ", ".join(tables.FACE_REGIONS)
            raise KeyError(f"{name!r} is not a region of the face; there are: {known}") from None

    def blendshape(self, name: str) -> float:
        """One blendshape's weight, 0 to 1.

        Raises:
            KeyError: no such blendshape, or the model was opened without ``blendshapes=True``.
        """
        if self.blendshapes is None:
            raise KeyError(f"{name!r}: no blendshapes here; open the model with blendshapes=True")
        return float(self.blendshapes[place(name, tables.BLENDSHAPES, "blendshape")])

    def __repr__(self) -> str:
        extra = [n for n in ("blendshapes", "transform") if getattr(self, n) is not None]
        return f"FaceMeshResult({len(self.landmarks)} landmarks{''.join(', ' + n for n in extra)})"

    def to_dict(self) -> dict[str, Any]:
        """Plain Python values, ready for JSON."""
        shapes = None
        if self.blendshapes is not None:
            shapes = dict(zip(tables.BLENDSHAPES, self.blendshapes.tolist(), strict=True))
        return {
            "landmarks": self.landmarks.tolist(),
            "blendshapes": shapes,
            "transform": listed(self.transform),
        }

    def _points(self) -> Iterator[dict[str, Any]]:
        for number, (x, y, z) in enumerate(self.landmarks.tolist()):
            yield {"landmark": number, "x": x, "y": y, "z": z}


class FaceDetections(Found[FaceDetection]):
    """The faces of one frame."""

    __slots__ = ()
    _key: ClassVar[str] = "faces"


class FaceMeshes(Found[FaceMeshResult]):
    """The face meshes of one frame."""

    __slots__ = ()
    _key: ClassVar[str] = "meshes"
