"""What the vision models answer: frozen values over read-only float32 arrays.

Coordinates called *normalised* are fractions of the picture: x of its width, y of its height, both
growing right and down from the top left corner, 0 to 1 inside the picture (landmarks may lie
outside). ``left`` and ``right`` are always the person's own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from tabml.errors import MissingExtraError
from tabml.vision import landmarks as tables
from tabml.vision.angles import joint_angles

if TYPE_CHECKING:
    import pandas as pd

Float32 = NDArray[np.float32]


class _Finding(Protocol):
    def to_dict(self) -> dict[str, Any]: ...
    def _points(self) -> Iterator[dict[str, Any]]: ...


Item = TypeVar("Item", bound=_Finding, covariant=True)


def _listed(array: Float32 | None) -> Any:
    return None if array is None else array.tolist()


def _place(name: str, names: tuple[str, ...], kind: str) -> int:
    try:
        return names.index(name)
    except ValueError:
        raise KeyError(f"{name!r} is not a {kind} landmark; there are: {', '.join(names)}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """An upright rectangle, normalised."""

    x: float
    """Left edge, fraction of the picture's width."""
    y: float
    """Top edge, fraction of the picture's height."""
    width: float
    """Fraction of the picture's width, 0 to 1."""
    height: float
    """Fraction of the picture's height, 0 to 1."""

    def to_pixels(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Left, top, right, bottom in pixels of a ``width`` by ``height`` picture."""
        return (
            round(self.x * width),
            round(self.y * height),
            round((self.x + self.width) * width),
            round((self.y + self.height) * height),
        )

    def to_dict(self) -> dict[str, float]:
        """The four fields by name."""
        return {"x": self.x, "y": self.y, "width": self.width, "height": self.height}


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
        point: Float32 = self.keypoints[_place(name, tables.FACE_KEYPOINTS, "face")]
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
        return _bounds(self.mesh)

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
        return float(self.blendshapes[_place(name, tables.BLENDSHAPES, "blendshape")])

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
            "transform": _listed(self.transform),
        }

    def _points(self) -> Iterator[dict[str, Any]]:
        for number, (x, y, z) in enumerate(self.landmarks.tolist()):
            yield {"landmark": number, "x": x, "y": y, "z": z}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Hand:
    """One hand: 21 landmarks, which hand it is, and what it signs."""

    landmarks: Float32
    """Shape (21, 3), normalised; z on the scale of x, relative to the wrist, smaller is nearer."""
    world_landmarks: Float32
    """Shape (21, 3), metres, origin at the hand's geometric centre."""
    handedness: Literal["Left", "Right"]
    """The person's own hand, on a picture that is not mirrored."""
    handedness_score: float
    """Confidence of the handedness, 0 to 1."""
    gesture: str | None = None
    """One of ``landmarks.GESTURES``; ``"None"`` when the model knows no gesture in it, None when not asked for."""
    gesture_score: float | None = None
    """Confidence of the gesture, 0 to 1."""

    @property
    def box(self) -> Box:
        """The tightest box around the landmarks."""
        return _bounds(self.landmarks)

    def __getitem__(self, name: str) -> Float32:
        """Shape (3,): one landmark by name, as in ``hand["index_finger_tip"]``."""
        point: Float32 = self.landmarks[_place(name, tables.HAND_LANDMARKS, "hand")]
        return point

    def __repr__(self) -> str:
        sign = f", gesture={self.gesture!r} {self.gesture_score:.2f}" if self.gesture is not None else ""
        return f"Hand({self.handedness!r} {self.handedness_score:.2f}{sign})"

    def to_dict(self) -> dict[str, Any]:
        """Plain Python values, ready for JSON."""
        return {
            "landmarks": dict(zip(tables.HAND_LANDMARKS, self.landmarks.tolist(), strict=True)),
            "world_landmarks": dict(zip(tables.HAND_LANDMARKS, self.world_landmarks.tolist(), strict=True)),
            "handedness": self.handedness,
            "handedness_score": self.handedness_score,
            "gesture": self.gesture,
            "gesture_score": self.gesture_score,
        }

    def _points(self) -> Iterator[dict[str, Any]]:
        rows = zip(tables.HAND_LANDMARKS, self.landmarks.tolist(), self.world_landmarks.tolist(), strict=True)
        for name, (x, y, z), (wx, wy, wz) in rows:
            yield {
                "landmark": name, "x": x, "y": y, "z": z, "world_x": wx, "world_y": wy, "world_z": wz,
                "handedness": self.handedness, "gesture": self.gesture,
            }  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pose:
    """One body: 33 landmarks in the picture and in metres."""

    landmarks: Float32
    """Shape (33, 3), normalised; z on the scale of x, relative to the hips, smaller is nearer."""
    world_landmarks: Float32
    """Shape (33, 3), metres, origin midway between the hips, y down."""
    visibility: Float32
    """Shape (33,), 0 to 1: likely inside the picture and not hidden."""
    presence: Float32
    """Shape (33,), 0 to 1: likely inside the picture."""
    aspect: float = 1.0
    """Width over height of the picture, so that angles in the picture are true ones."""

    @property
    def score(self) -> float:
        """Mean presence of the landmarks, 0 to 1: the model itself reports none for the whole pose."""
        return float(self.presence.mean())

    @property
    def box(self) -> Box:
        """The tightest box around the landmarks."""
        return _bounds(self.landmarks)

    def __getitem__(self, name: str) -> Float32:
        """Shape (3,): one landmark by name, as in ``pose["left_elbow"]``."""
        point: Float32 = self.landmarks[_place(name, tables.POSE_LANDMARKS, "pose")]
        return point

    def angles(
        self, *, space: Literal["world", "image"] = "world", min_visibility: float = 0.5
    ) -> dict[str, float | None]:
        """Joint angles in degrees, 0 to 180, by joint; None where a point is less visible than asked.

        Definition and source: :func:`tabml.vision.angles.joint_angles`.

        Args:
            space: ``"world"`` measures in metres in three dimensions; ``"image"`` measures the flat
                picture (up to 35 degrees off where a limb points at the camera).
            min_visibility: 0 to 1; 0 gives every angle.
        """
        return joint_angles(self, space=space, min_visibility=min_visibility)

    def __repr__(self) -> str:
        return f"Pose({int((self.visibility >= 0.5).sum())} of 33 landmarks visible)"

    def to_dict(self) -> dict[str, Any]:
        """Plain Python values, ready for JSON; angles from world landmarks."""
        names = tables.POSE_LANDMARKS
        return {
            "landmarks": dict(zip(names, self.landmarks.tolist(), strict=True)),
            "world_landmarks": dict(zip(names, self.world_landmarks.tolist(), strict=True)),
            "visibility": dict(zip(names, self.visibility.tolist(), strict=True)),
            "presence": dict(zip(names, self.presence.tolist(), strict=True)),
            "angles": self.angles(),
        }

    def _points(self) -> Iterator[dict[str, Any]]:
        rows = zip(
            tables.POSE_LANDMARKS,
            self.landmarks.tolist(),
            self.world_landmarks.tolist(),
            self.visibility.tolist(),
            self.presence.tolist(),
            strict=True,
        )
        for name, (x, y, z), (wx, wy, wz), visibility, presence in rows:
            yield {
                "landmark": name, "x": x, "y": y, "z": z, "world_x": wx, "world_y": wy, "world_z": wz,
                "visibility": visibility, "presence": presence,
            }  # fmt: skip


def _bounds(points: Float32) -> Box:
    low, high = points[:, :2].min(axis=0), points[:, :2].max(axis=0)
    return Box(x=float(low[0]), y=float(low[1]), width=float(high[0] - low[0]), height=float(high[1] - low[1]))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Found(Sequence[Item]):
    """What one frame holds, in the model's own order; empty when there is nothing."""

    _key: ClassVar[str]

    items: tuple[Item, ...]
    """The findings."""
    width: int
    """The frame's width, pixels."""
    height: int
    """The frame's height, pixels."""
    timestamp_ms: int | None = None
    """The frame's own timestamp, milliseconds, as it came in."""
    frame_number: int | None = None
    """The frame's own number, as it came in."""

    def __len__(self) -> int:
        return len(self.items)

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Item, ...]: ...
    def __getitem__(self, index: int | slice) -> Item | tuple[Item, ...]:
        return self.items[index]

    def __repr__(self) -> str:
        inside = ", ".join(map(repr, self.items))
        return f"{type(self).__name__}([{inside}], {self.width}×{self.height})"

    def to_dict(self) -> dict[str, Any]:
        """Plain Python values, ready for JSON."""
        return {
            "type": self._key,
            "width": self.width,
            "height": self.height,
            "timestamp_ms": self.timestamp_ms,
            "frame_number": self.frame_number,
            self._key: [item.to_dict() for item in self.items],
        }

    def to_json(self, *, indent: int | None = None) -> str:
        """:meth:`to_dict` as one JSON document."""
        return json.dumps(self.to_dict(), indent=indent, allow_nan=False)

    def to_pandas(self) -> pd.DataFrame:
        """One row a landmark: the frame's number and timestamp, the finding's index, then its values.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError:
            raise MissingExtraError("pandas", "pandas") from None
        return pd.DataFrame(
            [
                {"frame_number": self.frame_number, "timestamp_ms": self.timestamp_ms, "index": index, **row}
                for index, item in enumerate(self.items)
                for row in item._points()
            ]
        )

    def _repr_html_(self) -> str:
        rows = "".join(f"<li><code>{escape(repr(item))}</code></li>" for item in self.items)
        title = f"<b>{type(self).__name__}</b>: {len(self)} in {self.width}×{self.height}"
        return f"{title}<ul>{rows}</ul>"


class FaceDetections(Found[FaceDetection]):
    """The faces of one frame."""

    __slots__ = ()
    _key: ClassVar[str] = "faces"


class FaceMeshes(Found[FaceMeshResult]):
    """The face meshes of one frame."""

    __slots__ = ()
    _key: ClassVar[str] = "meshes"


class Hands(Found[Hand]):
    """The hands of one frame."""

    __slots__ = ()
    _key: ClassVar[str] = "hands"


class Poses(Found[Pose]):
    """The bodies of one frame."""

    __slots__ = ()
    _key: ClassVar[str] = "poses"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Segmentation:
    """A mask as large as the frame."""

    mask: NDArray[np.float32] | NDArray[np.uint8]
    """Shape (height, width). ``confidence``: float32, 0 to 1, how surely the pixel is the person.
    ``category``: uint8, the pixel's class as an index into ``labels``."""
    kind: Literal["confidence", "category"]
    """Which of the two the mask is."""
    labels: tuple[str, ...] = ("background", "person")
    """The names of the classes."""
    timestamp_ms: int | None = None
    """The frame's own timestamp, milliseconds, as it came in."""
    frame_number: int | None = None
    """The frame's own number, as it came in."""

    @property
    def width(self) -> int:
        """Pixels."""
        return int(self.mask.shape[1])

    @property
    def height(self) -> int:
        """Pixels."""
        return int(self.mask.shape[0])

    def selected(self, threshold: float = 0.5) -> NDArray[np.bool_]:
        """Shape (height, width): True where something other than background is."""
        return self.mask >= threshold if self.kind == "confidence" else self.mask > 0

    @property
    def coverage(self) -> float:
        """The share of the frame that is not background, 0 to 1."""
        return float(self.selected().mean())

    def __repr__(self) -> str:
        return f"Segmentation({self.kind}, {self.width}×{self.height}, {self.coverage:.0%} selected)"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON; the mask as run lengths of :meth:`selected`.

        ``runs`` are the lengths of alternating runs in row-major order; the first counts unselected pixels.
        """
        flat = self.selected().ravel()
        edges = np.flatnonzero(np.diff(flat, prepend=False, append=~flat[-1:]))
        return {
            "type": "mask",
            "kind": self.kind,
            "width": self.width,
            "height": self.height,
            "timestamp_ms": self.timestamp_ms,
            "frame_number": self.frame_number,
            "labels": list(self.labels),
            "coverage": self.coverage,
            "runs": np.diff(edges, prepend=0).tolist(),
        }

    def to_json(self, *, indent: int | None = None) -> str:
        """:meth:`to_dict` as one JSON document."""
        return json.dumps(self.to_dict(), indent=indent, allow_nan=False)

    def to_pandas(self) -> pd.DataFrame:
        """One row a class: its label, its pixels and its share of the frame.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError:
            raise MissingExtraError("pandas", "pandas") from None
        classes = self.mask if self.kind == "category" else self.selected()
        counts = np.bincount(classes.ravel().astype(np.intp), minlength=len(self.labels))
        return pd.DataFrame(
            {"label": self.labels, "pixels": counts[: len(self.labels)], "share": counts / self.mask.size}
        )

    def _repr_html_(self) -> str:
        return f"<code>{escape(repr(self))}</code>"
