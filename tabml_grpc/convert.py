"""Between messages and values: each pair of functions is the other's inverse, up to 32-bit floats.

Messages of many small messages are slow to build one by one; where they are many, their bytes are laid out by numpy
and read at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from tabml.errors import CapacityError, OptionError
from tabml.pipelines import PIPELINES, Pipeline, Value
from tabml.vision import landmarks as tables
from tabml.vision.frame import Frame
from tabml.vision.results import (
    Box,
    FaceDetection,
    FaceDetections,
    FaceMeshes,
    FaceMeshResult,
    Hand,
    Hands,
    Holistic,
    Irises,
    ObjectDetections,
    Objects3D,
    Pose,
    Poses,
    Segmentation,
    TrackedObjects,
)
from tabml_grpc.arrays import columns, landmark_messages, packed, table
from tabml_grpc.calls import MAX_RESPONSE
from tabml_grpc.convert_eyes import irises_to_v1
from tabml_grpc.convert_objects import objects_to_v1
from tabml_grpc.convert_objects3d import objects3d_to_v1
from tabml_grpc.ml import ml_inference_pb2 as ml
from tabml_grpc.v1 import vision_pb2 as v1

Result = (
    FaceDetections
    | FaceMeshes
    | Hands
    | Holistic
    | Irises
    | ObjectDetections
    | Objects3D
    | Poses
    | Segmentation
    | TrackedObjects
)

TASKS: dict[int, Pipeline] = {
    v1.VISION_TASK_FACE_DETECTION: PIPELINES["face-detection"],
    v1.VISION_TASK_FACE_MESH: PIPELINES["face-landmarks"],
    v1.VISION_TASK_HANDS: PIPELINES["hand-landmarks"],
    v1.VISION_TASK_POSE: PIPELINES["pose-landmarks"],
    v1.VISION_TASK_SEGMENTATION: PIPELINES["image-segmentation"],
    v1.VISION_TASK_IRISES: PIPELINES["iris-tracking"],
    v1.VISION_TASK_OBJECTS: PIPELINES["object-detection"],
    v1.VISION_TASK_OBJECT_TRACKING: PIPELINES["object-tracking"],
    v1.VISION_TASK_HOLISTIC: PIPELINES["holistic-landmarks"],
    v1.VISION_TASK_OBJECTS_3D: PIPELINES["object-detection-3d"],
}
FORMATS: dict[int, str] = {
    v1.FRAME_FORMAT_UNSPECIFIED: "", v1.FRAME_FORMAT_RGB: "rgb", v1.FRAME_FORMAT_BGR: "bgr",
    v1.FRAME_FORMAT_RGBA: "rgba", v1.FRAME_FORMAT_GRAY: "gray", v1.FRAME_FORMAT_YUV420: "yuv420",
    v1.FRAME_FORMAT_NV12: "nv12", v1.FRAME_FORMAT_JPEG: "jpeg", v1.FRAME_FORMAT_PNG: "png",
    v1.FRAME_FORMAT_WEBP: "webp", v1.FRAME_FORMAT_H264: "h264", v1.FRAME_FORMAT_VP8: "vp8",
    v1.FRAME_FORMAT_VP9: "vp9",
}  # fmt: skip
MASK_NAMES: dict[int, str] = {
    v1.MASK_FORMAT_UNSPECIFIED: "gray8", v1.MASK_FORMAT_GRAY8: "gray8", v1.MASK_FORMAT_FLOAT32: "float32",
    v1.MASK_FORMAT_PNG: "png",
}  # fmt: skip
MASK_NUMBERS = {"gray8": v1.MASK_FORMAT_GRAY8, "float32": v1.MASK_FORMAT_FLOAT32, "png": v1.MASK_FORMAT_PNG}
_EXTRAS = frozenset({"model", "mask_format", "stride", "timestamp_ms", "frame_number"})


def frame_from_v1(message: v1.Frame, data: bytes | memoryview | None = None) -> Frame:
    """A frame of the new contract; ``data`` where its bytes were taken out of the message.

    Raises:
        FrameError: it can't be used.
    """
    return Frame.from_named(
        message.data if data is None else data,
        FORMATS.get(message.format, f"number {message.format}"),
        width=message.width,
        height=message.height,
        stride=message.stride,
        timestamp_ms=message.timestamp_ms,
        frame_number=message.frame_number,
    )


def frame_to_v1(frame: Frame) -> v1.Frame:
    """A frame as bare pixels."""
    numbers = {name: number for number, name in FORMATS.items()}
    return v1.Frame(
        data=frame.pixels.tobytes(),
        format=cast("v1.FrameFormat", numbers[frame.format]),
        width=frame.width,
        height=frame.height,
        timestamp_ms=frame.timestamp_ms or 0,
        frame_number=frame.frame_number or 0,
    )


def options_from_v1(config: v1.VisionConfig) -> dict[str, Value]:
    """The options that are set, as the library calls them; floats as their shortest decimals."""
    return {field.name: _plain(value) for field, value in config.ListFields() if field.name not in _EXTRAS}


def options_to_v1(options: dict[str, Value]) -> v1.VisionConfig:
    """The inverse of :func:`options_from_v1`."""
    return v1.VisionConfig(**cast("dict[str, Any]", options))


def _plain(value: Any) -> Value:
    return float(str(np.float32(value))) if isinstance(value, float) else cast("Value", value)


def mask_format(number: int) -> str:
    """The name of a mask format.

    Raises:
        OptionError: there is none of that number.
    """
    if number not in MASK_NAMES:
        raise OptionError(f"mask_format={number} must be from 0 to {max(MASK_NAMES)}")
    return MASK_NAMES[number]


# The old contract.


def faces_to_ml(result: FaceDetections) -> ml.FaceDetectionResponse:
    """Faces; a keypoint has its face's score."""
    return ml.FaceDetectionResponse(faces=[_face_to_ml(face) for face in result])


def _face_to_ml(face: FaceDetection) -> ml.FaceDetection:
    box, score = face.box, face.score
    message = ml.FaceDetection(x=box.x, y=box.y, width=box.width, height=box.height, confidence=score)
    for name, (x, y) in zip(tables.FACE_KEYPOINTS, face.keypoints.tolist(), strict=False):
        message.keypoints.add(x=x, y=y, confidence=score, name=name)
    return message


def faces_from_ml(message: ml.FaceDetectionResponse, width: int, height: int) -> FaceDetections:
    """Faces of a picture of ``width`` by ``height``."""
    faces = tuple(
        FaceDetection(
            box=Box(x=face.x, y=face.y, width=face.width, height=face.height),
            score=face.confidence,
            keypoints=columns(face.keypoints, "xy").reshape(-1, 2),
        )
        for face in message.faces
    )
    return FaceDetections(items=faces, width=width, height=height, **_when(message))


@cache
def contours() -> tuple[int, ...]:
    """The edges of the face's contours, flat."""
    return tuple(point for edges in tables.FACE_CONTOURS.values() for edge in edges for point in edge)


@cache
def _mesh_tail() -> bytes:
    return ml.FaceMesh(contours=contours(), confidence=1.0).SerializeToString()


def meshes_to_ml(result: FaceMeshes) -> ml.FaceMeshResponse:
    """Meshes."""
    response = ml.FaceMeshResponse()
    for face in result:
        mesh_to_ml(face, response.faces.add())
    return response


def mesh_to_ml(face: FaceMeshResult, message: ml.FaceMesh) -> None:
    """One mesh into its message."""
    content = landmark_messages(1, face.landmarks) + _mesh_tail()
    if face.blendshapes is not None:
        content += packed(50, face.blendshapes)
    if face.transform is not None:
        content += packed(51, face.transform)
    message.MergeFromString(content)


def meshes_from_ml(message: ml.FaceMeshResponse, width: int, height: int) -> FaceMeshes:
    """Meshes of a picture of ``width`` by ``height``."""
    return FaceMeshes(items=tuple(map(mesh_from_ml, message.faces)), width=width, height=height, **_when(message))


def mesh_from_ml(face: ml.FaceMesh) -> FaceMeshResult:
    """One mesh."""
    return FaceMeshResult(
        landmarks=columns(face.landmarks, "xyz"),
        blendshapes=table(face.blendshapes, 1)[:, 0] if face.blendshapes else None,
        transform=table(face.transform, 4) if face.transform else None,
    )


def hands_to_ml(result: Hands) -> ml.HandDetectionResponse:
    """Hands."""
    response = ml.HandDetectionResponse()
    for hand in result:
        hand_to_ml(hand, response.hands.add())
    return response


def hand_to_ml(hand: Hand, message: ml.HandDetection) -> None:
    """One hand into its message."""
    message.handedness, message.confidence = hand.handedness, hand.handedness_score
    message.MergeFromString(landmark_messages(1, hand.landmarks) + landmark_messages(50, hand.world_landmarks))
    if hand.gesture is not None:
        message.gestures.add(name=hand.gesture, confidence=hand.gesture_score or 0.0)


def hands_from_ml(message: ml.HandDetectionResponse, width: int, height: int) -> Hands:
    """Hands in a picture of ``width`` by ``height``."""
    return Hands(items=tuple(map(hand_from_ml, message.hands)), width=width, height=height, **_when(message))


def hand_from_ml(hand: ml.HandDetection) -> Hand:
    """One hand."""
    return Hand(
        landmarks=columns(hand.landmarks, "xyz"),
        world_landmarks=columns(hand.world_landmarks, "xyz"),
        handedness=cast(Literal["Left", "Right"], hand.handedness),
        handedness_score=hand.confidence,
        gesture=hand.gestures[0].name if hand.gestures else None,
        gesture_score=hand.gestures[0].confidence if hand.gestures else None,
    )


def poses_to_ml(result: Poses) -> ml.PoseDetectionResponse:
    """Poses; the world's landmarks have the visibility of the picture's."""
    response = ml.PoseDetectionResponse()
    for pose in result:
        pose_to_ml(pose, response.poses.add())
    return response


def pose_to_ml(pose: Pose, message: ml.PoseDetection) -> None:
    """One pose into its message."""
    message.confidence = pose.score
    seen = np.stack([pose.visibility, pose.presence], 1)
    message.MergeFromString(
        landmark_messages(1, np.hstack([pose.landmarks, seen]))
        + landmark_messages(3, np.hstack([pose.world_landmarks, seen]))
    )


def poses_from_ml(message: ml.PoseDetectionResponse, width: int, height: int) -> Poses:
    """Poses in a picture of ``width`` by ``height``."""
    poses = tuple(pose_from_ml(pose, width / height) for pose in message.poses)
    return Poses(items=poses, width=width, height=height, **_when(message))


def pose_from_ml(pose: ml.PoseDetection, aspect: float) -> Pose:
    """One pose, in a picture of that width over height."""
    return Pose(
        landmarks=columns(pose.landmarks, "xyz"),
        world_landmarks=columns(pose.world_landmarks, "xyz"),
        visibility=columns(pose.landmarks, ["visibility"])[:, 0],
        presence=columns(pose.landmarks, ["presence"])[:, 0],
        aspect=aspect,
    )


def holistic_to_ml(result: Holistic) -> ml.HolisticTrackingResponse:
    """A person: the left hand before the right one, and no message for what isn't seen."""
    response = ml.HolisticTrackingResponse()
    if result.face is not None:
        mesh_to_ml(result.face, response.face)
    if result.pose is not None:
        pose_to_ml(result.pose, response.pose)
    for hand in result.hands:
        hand_to_ml(hand, response.hands.add())
    return response


def holistic_from_ml(message: ml.HolisticTrackingResponse, width: int, height: int) -> Holistic:
    """A person in a picture of ``width`` by ``height``."""
    hands = {hand.handedness: hand_from_ml(hand) for hand in message.hands}
    return Holistic(
        face=mesh_from_ml(message.face) if message.HasField("face") else None,
        left_hand=hands.get("Left"),
        right_hand=hands.get("Right"),
        pose=pose_from_ml(message.pose, width / height) if message.HasField("pose") else None,
        width=width,
        height=height,
        **_when(message),
    )


def mask_to_ml(result: Segmentation, format: str = "gray8") -> ml.SegmentationResponse:
    """A mask; as PNG where its bytes would be too many for an existing client."""
    data, format = mask_bytes(result, format)
    return ml.SegmentationResponse(mask=data, width=result.width, height=result.height, format=format)


def mask_from_ml(message: ml.SegmentationResponse, kind: Literal["confidence", "category"]) -> Segmentation:
    """A mask of the kind that was asked for."""
    mask = _mask(message.mask, message.format, message.width, message.height, kind)
    return Segmentation(mask=mask, kind=kind, timestamp_ms=message.timestamp_ms, frame_number=message.frame_number)


def _when(message: Any) -> dict[str, int]:
    return {"timestamp_ms": message.timestamp_ms, "frame_number": message.frame_number}


def mask_bytes(result: Segmentation, format: str) -> tuple[bytes, str]:
    """A mask's bytes, and the format they are in.

    Raises:
        OptionError: a category mask has no floats.
        CapacityError: the mask is larger than a response may be.
    """
    if format == "float32":
        if result.kind == "category":
            raise OptionError("mask_format=float32 goes with kind='confidence' only")
        if result.mask.nbytes <= MAX_RESPONSE:
            return np.ascontiguousarray(result.mask, "<f4").tobytes(), format
    bare = result.mask if result.kind == "category" else np.rint(result.mask * 255)
    pixels = np.ascontiguousarray(bare, np.uint8)
    if format != "png" and pixels.nbytes <= MAX_RESPONSE:
        return pixels.tobytes(), "gray8"
    data = Frame.from_array(pixels, "gray", copy=False).encode("png")
    if len(data) > MAX_RESPONSE:
        raise CapacityError(
            f"a mask of {result.width}×{result.height} is larger than a response may be; send smaller frames"
        )
    return data, "png"


def _mask(data: bytes, format: str, width: int, height: int, kind: str) -> NDArray[Any]:
    if format == "float32":
        return np.frombuffer(data, "<f4").reshape(height, width)
    if format == "png":
        pixels = np.ascontiguousarray(Frame.from_bytes(data).to_rgb()[:, :, 0])
    else:
        pixels = np.frombuffer(data, np.uint8).reshape(height, width)
    mask = pixels if kind == "category" else pixels.astype(np.float32) / np.float32(255)
    mask.flags.writeable = False
    return mask


# The new contract.


def results_to_v1(results: Sequence[Result], mask: str = "gray8") -> v1.Analysis:
    """What the tasks of one frame found."""
    analysis = v1.Analysis()
    for result in results:
        analysis.width, analysis.height = result.width, result.height
        if isinstance(result, FaceDetections):
            for face in result:
                box = v1.Box(x=face.box.x, y=face.box.y, width=face.box.width, height=face.box.height)
                analysis.faces.add(box=box, score=face.score).MergeFromString(packed(3, face.keypoints))
        elif isinstance(result, FaceMeshes):
            for mesh in result:
                analysis.meshes.add().MergeFromString(b"".join(_mesh_to_v1(mesh)))
        elif isinstance(result, Hands):
            for hand in result:
                _hand_to_v1(hand, analysis.hands.add())
        elif isinstance(result, Poses):
            for pose in result:
                _pose_to_v1(pose, analysis.poses.add())
        elif isinstance(result, Holistic):
            person = analysis.holistic
            person.SetInParent()
            if result.face is not None:
                person.face.MergeFromString(b"".join(_mesh_to_v1(result.face)))
            if result.left_hand is not None:
                _hand_to_v1(result.left_hand, person.left_hand)
            if result.right_hand is not None:
                _hand_to_v1(result.right_hand, person.right_hand)
            if result.pose is not None:
                _pose_to_v1(result.pose, person.pose)
        elif isinstance(result, Irises):
            irises_to_v1(result, analysis)
        elif isinstance(result, ObjectDetections | TrackedObjects):
            objects_to_v1(result, analysis)
        elif isinstance(result, Objects3D):
            objects3d_to_v1(result, analysis)
        else:
            data, format = mask_bytes(result, mask)
            analysis.mask.CopyFrom(
                v1.Mask(
                    data=data,
                    format=MASK_NUMBERS[format],
                    width=result.width,
                    height=result.height,
                    kind=result.kind,
                    labels=result.labels,
                )
            )
    return analysis


def _mesh_to_v1(mesh: FaceMeshResult) -> Iterator[bytes]:
    yield packed(1, mesh.landmarks)
    if mesh.blendshapes is not None:
        yield packed(2, mesh.blendshapes)
    if mesh.transform is not None:
        yield packed(3, mesh.transform)


def _hand_to_v1(hand: Hand, message: v1.Hand) -> None:
    message.handedness, message.handedness_score = hand.handedness, hand.handedness_score
    if hand.gesture is not None:
        message.gesture, message.gesture_score = hand.gesture, hand.gesture_score or 0.0
    message.MergeFromString(packed(1, hand.landmarks) + packed(2, hand.world_landmarks))


def _pose_to_v1(pose: Pose, message: v1.Pose) -> None:
    message.score = pose.score
    message.MergeFromString(
        packed(1, pose.landmarks)
        + packed(2, pose.world_landmarks)
        + packed(3, pose.visibility)
        + packed(4, pose.presence)
    )


def faces_from_v1(analysis: v1.Analysis) -> FaceDetections:
    """The faces of an analysis."""
    faces = tuple(
        FaceDetection(
            box=Box(x=face.box.x, y=face.box.y, width=face.box.width, height=face.box.height),
            score=face.score,
            keypoints=table(face.keypoints, 2),
        )
        for face in analysis.faces
    )
    return FaceDetections(items=faces, **_where(analysis))


def meshes_from_v1(analysis: v1.Analysis) -> FaceMeshes:
    """The meshes of an analysis."""
    return FaceMeshes(items=tuple(map(_mesh_from_v1, analysis.meshes)), **_where(analysis))


def _mesh_from_v1(mesh: v1.Mesh) -> FaceMeshResult:
    return FaceMeshResult(
        landmarks=table(mesh.landmarks, 3),
        blendshapes=table(mesh.blendshapes, 1)[:, 0] if mesh.blendshapes else None,
        transform=table(mesh.transform, 4) if mesh.transform else None,
    )


def hands_from_v1(analysis: v1.Analysis) -> Hands:
    """The hands of an analysis."""
    return Hands(items=tuple(map(_hand_from_v1, analysis.hands)), **_where(analysis))


def _hand_from_v1(hand: v1.Hand) -> Hand:
    return Hand(
        landmarks=table(hand.landmarks, 3),
        world_landmarks=table(hand.world_landmarks, 3),
        handedness=cast(Literal["Left", "Right"], hand.handedness),
        handedness_score=hand.handedness_score,
        gesture=hand.gesture if hand.HasField("gesture") else None,
        gesture_score=hand.gesture_score if hand.HasField("gesture_score") else None,
    )


def poses_from_v1(analysis: v1.Analysis) -> Poses:
    """The poses of an analysis."""
    aspect = analysis.width / analysis.height if analysis.height else 1.0
    return Poses(items=tuple(_pose_from_v1(pose, aspect) for pose in analysis.poses), **_where(analysis))


def _pose_from_v1(pose: v1.Pose, aspect: float) -> Pose:
    return Pose(
        landmarks=table(pose.landmarks, 3),
        world_landmarks=table(pose.world_landmarks, 3),
        visibility=table(pose.visibility, 1)[:, 0],
        presence=table(pose.presence, 1)[:, 0],
        aspect=aspect,
    )


def holistic_from_v1(analysis: v1.Analysis) -> Holistic | None:
    """The person of an analysis, where one was asked for."""
    if not analysis.HasField("holistic"):
        return None
    person, aspect = analysis.holistic, analysis.width / analysis.height
    return Holistic(
        face=_mesh_from_v1(person.face) if person.HasField("face") else None,
        left_hand=_hand_from_v1(person.left_hand) if person.HasField("left_hand") else None,
        right_hand=_hand_from_v1(person.right_hand) if person.HasField("right_hand") else None,
        pose=_pose_from_v1(person.pose, aspect) if person.HasField("pose") else None,
        **_where(analysis),
    )


def mask_from_v1(analysis: v1.Analysis) -> Segmentation | None:
    """The mask of an analysis, where it has one."""
    if not analysis.HasField("mask"):
        return None
    found = analysis.mask
    kind = cast(Literal["confidence", "category"], found.kind)
    mask = _mask(found.data, MASK_NAMES[found.format], found.width, found.height, kind)
    return Segmentation(
        mask=mask,
        kind=kind,
        labels=tuple(found.labels),
        timestamp_ms=analysis.timestamp_ms,
        frame_number=analysis.frame_number,
    )


def _where(analysis: v1.Analysis) -> dict[str, int]:
    return {"width": analysis.width, "height": analysis.height, **_when(analysis)}
