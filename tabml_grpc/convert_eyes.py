"""Irises between messages and values."""

from __future__ import annotations

from typing import Literal, cast

from tabml.vision.results import Eye, FaceIrises, Irises
from tabml_grpc.arrays import columns, landmark_messages, packed, table
from tabml_grpc.ml import ml_inference_pb2 as ml
from tabml_grpc.v1 import vision_pb2 as v1

_HEAD = ("head_yaw", "head_pitch", "head_roll")


def irises_to_ml(result: Irises) -> ml.IrisTrackingResponse:
    """Irises: two eyes a face, the left one first; an eye has its face's score."""
    response = ml.IrisTrackingResponse()
    for face in result:
        for eye in face.eyes:
            response.eyes.add(
                eye=eye.side,
                confidence=face.score,
                aspect_ratio=eye.aspect_ratio,
                closed=eye.closed,
                yaw=eye.yaw,
                pitch=eye.pitch,
                distance_mm=eye.distance_mm,
            ).MergeFromString(
                landmark_messages(1, eye.iris)
                + landmark_messages(2, eye.region)
                + packed(52, eye.gaze)
                + packed(53, eye.gaze_in_camera)
            )
    return response


def eyes_from_ml(message: ml.IrisTrackingResponse) -> list[tuple[Eye, float]]:
    """The eyes and their scores; the angles of the heads are not in this message."""
    return [
        (
            Eye(
                side=cast(Literal["left", "right"], eye.eye),
                iris=columns(eye.iris_landmarks, "xyz"),
                region=columns(eye.eye_landmarks, "xyz"),
                aspect_ratio=eye.aspect_ratio,
                closed=eye.closed,
                gaze=table(eye.gaze, 1)[:, 0],
                gaze_in_camera=table(eye.gaze_in_camera, 1)[:, 0],
                yaw=eye.yaw,
                pitch=eye.pitch,
                distance_mm=eye.distance_mm if eye.HasField("distance_mm") else None,
            ),
            eye.confidence,
        )
        for eye in message.eyes
    ]


def irises_to_v1(result: Irises, analysis: v1.Analysis) -> None:
    """Irises into an analysis."""
    for face in result:
        message = analysis.irises.add(score=face.score, **{name: getattr(face, name) for name in _HEAD})
        for eye, place in ((face.left, message.left), (face.right, message.right)):
            place.aspect_ratio, place.closed, place.yaw, place.pitch = eye.aspect_ratio, eye.closed, eye.yaw, eye.pitch
            if eye.distance_mm is not None:
                place.distance_mm = eye.distance_mm
            place.MergeFromString(
                packed(1, eye.iris) + packed(2, eye.region) + packed(5, eye.gaze) + packed(6, eye.gaze_in_camera)
            )


def irises_from_v1(analysis: v1.Analysis) -> Irises:
    """The irises of an analysis."""
    faces = tuple(
        FaceIrises(
            left=_eye(face.left, "left"),
            right=_eye(face.right, "right"),
            score=face.score,
            head_yaw=face.head_yaw,
            head_pitch=face.head_pitch,
            head_roll=face.head_roll,
        )
        for face in analysis.irises
    )
    return Irises(
        items=faces,
        width=analysis.width,
        height=analysis.height,
        timestamp_ms=analysis.timestamp_ms,
        frame_number=analysis.frame_number,
    )


def _eye(message: v1.Eye, side: Literal["left", "right"]) -> Eye:
    return Eye(
        side=side,
        iris=table(message.iris, 3),
        region=table(message.region, 3),
        aspect_ratio=message.aspect_ratio,
        closed=message.closed,
        gaze=table(message.gaze, 1)[:, 0],
        gaze_in_camera=table(message.gaze_in_camera, 1)[:, 0],
        yaw=message.yaw,
        pitch=message.pitch,
        distance_mm=message.distance_mm if message.HasField("distance_mm") else None,
    )
