"""Boxes in three dimensions, between messages and values."""

from __future__ import annotations

from tabml.vision.results import Box, Object3D, Objects3D
from tabml_grpc.arrays import columns, landmark_messages, packed, table
from tabml_grpc.ml import ml_inference_pb2 as ml
from tabml_grpc.v1 import vision_pb2 as v1


def objects3d_to_ml(result: Objects3D) -> ml.ObjectDetection3DResponse:
    """Objects with their poses, angles in degrees."""
    response = ml.ObjectDetection3DResponse()
    for each in result:
        (roll, pitch, yaw), (x, y, z) = each.angles, each.translation.tolist()
        message = response.objects.add(
            label=each.label,
            confidence=each.score,
            bbox=ml.BoundingBox(**each.box.to_dict()),
            pose=ml.Pose3D(x=x, y=y, z=z, roll=roll, pitch=pitch, yaw=yaw),
        )
        message.MergeFromString(
            landmark_messages(5, each.keypoints_3d)
            + landmark_messages(50, each.keypoints)
            + packed(51, each.rotation)
            + packed(52, each.size)
        )
    return response


def objects3d_from_ml(message: ml.ObjectDetection3DResponse, width: int, height: int) -> Objects3D:
    """Objects in a picture of ``width`` by ``height``."""
    items = tuple(
        Object3D(
            label=each.label,
            score=each.confidence,
            box=Box(x=each.bbox.x, y=each.bbox.y, width=each.bbox.width, height=each.bbox.height),
            keypoints=columns(each.keypoints_2d, "xy"),
            keypoints_3d=columns(each.keypoints_3d, "xyz"),
            rotation=table(each.rotation, 3),
            size=table(each.size, 1)[:, 0],
        )
        for each in message.objects
    )
    return Objects3D(
        items=items, width=width, height=height, timestamp_ms=message.timestamp_ms, frame_number=message.frame_number
    )


def objects3d_to_v1(result: Objects3D, analysis: v1.Analysis) -> None:
    """Objects into an analysis."""
    for each in result:
        analysis.objects_3d.add(label=each.label, score=each.score, box=v1.Box(**each.box.to_dict())).MergeFromString(
            packed(4, each.keypoints) + packed(5, each.keypoints_3d) + packed(6, each.rotation) + packed(7, each.size)
        )


def objects3d_from_v1(analysis: v1.Analysis) -> Objects3D:
    """The objects of an analysis."""
    items = tuple(
        Object3D(
            label=each.label,
            score=each.score,
            box=Box(x=each.box.x, y=each.box.y, width=each.box.width, height=each.box.height),
            keypoints=table(each.keypoints, 2),
            keypoints_3d=table(each.keypoints_3d, 3),
            rotation=table(each.rotation, 3),
            size=table(each.size, 1)[:, 0],
        )
        for each in analysis.objects_3d
    )
    return Objects3D(
        items=items, width=analysis.width, height=analysis.height, timestamp_ms=analysis.timestamp_ms,
        frame_number=analysis.frame_number,
    )  # fmt: skip
