"""Objects, tracked or not, between messages and values."""

from __future__ import annotations

from typing import Any

import numpy as np

from tabml.vision.results import Box, ObjectDetection, ObjectDetections, TrackedObject, TrackedObjects
from tabml_grpc.arrays import frozen, packed, table
from tabml_grpc.ml import ml_inference_pb2 as ml
from tabml_grpc.v1 import vision_pb2 as v1


def objects_to_ml(result: ObjectDetections) -> ml.ObjectDetectionResponse:
    """Objects that nobody follows: their ``track_id`` is 0."""
    return ml.ObjectDetectionResponse(
        objects=[
            ml.ObjectDetection(label=each.label, confidence=each.score, bbox=ml.BoundingBox(**each.box.to_dict()))
            for each in result
        ]
    )


def tracks_to_ml(result: TrackedObjects) -> ml.ObjectTrackingResponse:
    """Objects that are followed."""
    response = ml.ObjectTrackingResponse()
    for each in result:
        message = response.objects.add(
            track_id=each.track_id, label=each.label, confidence=each.score, bbox=ml.BoundingBox(**each.box.to_dict())
        )
        for x, y, width, height in each.trajectory.tolist():
            message.trajectory.add(x=x, y=y, width=width, height=height)
    return response


def objects_from_ml(message: ml.ObjectDetectionResponse, width: int, height: int) -> ObjectDetections:
    """Objects in a picture of ``width`` by ``height``; the numbers of their classes are not in this message."""
    items = tuple(
        ObjectDetection(box=_box(each.bbox), label=each.label, score=each.confidence, index=-1)
        for each in message.objects
    )
    return ObjectDetections(items=items, width=width, height=height, **_when(message))


def tracks_from_ml(message: ml.ObjectTrackingResponse, width: int, height: int) -> TrackedObjects:
    """Objects that are followed in a video of ``width`` by ``height``; the numbers of their classes are not in it."""
    items = tuple(
        TrackedObject(
            track_id=each.track_id,
            box=_box(each.bbox),
            label=each.label,
            score=each.confidence,
            index=-1,
            trajectory=frozen(
                np.array([(box.x, box.y, box.width, box.height) for box in each.trajectory], np.float32).reshape(-1, 4)
            ),
        )
        for each in message.objects
    )
    return TrackedObjects(items=items, width=width, height=height, **_when(message))


def objects_to_v1(result: ObjectDetections | TrackedObjects, analysis: v1.Analysis) -> None:
    """Objects into an analysis."""
    for each in result:
        message = analysis.objects.add(
            box=v1.Box(**each.box.to_dict()), label=each.label, score=each.score, index=each.index
        )
        if isinstance(each, TrackedObject):
            message.track_id = each.track_id
            message.MergeFromString(packed(6, each.trajectory))


def objects_from_v1(analysis: v1.Analysis) -> ObjectDetections:
    """The objects of an analysis that nobody follows."""
    items = tuple(
        ObjectDetection(box=_box(each.box), label=each.label, score=each.score, index=each.index)
        for each in analysis.objects
        if not each.track_id
    )
    return ObjectDetections(items=items, width=analysis.width, height=analysis.height, **_when(analysis))


def tracks_from_v1(analysis: v1.Analysis) -> TrackedObjects:
    """The objects of an analysis that are followed."""
    items = tuple(
        TrackedObject(
            track_id=each.track_id,
            box=_box(each.box),
            label=each.label,
            score=each.score,
            index=each.index,
            trajectory=table(each.trajectory, 4),
        )
        for each in analysis.objects
        if each.track_id
    )
    return TrackedObjects(items=items, width=analysis.width, height=analysis.height, **_when(analysis))


def _box(message: Any) -> Box:
    return Box(x=message.x, y=message.y, width=message.width, height=message.height)


def _when(message: Any) -> dict[str, int]:
    return {"timestamp_ms": message.timestamp_ms, "frame_number": message.frame_number}
