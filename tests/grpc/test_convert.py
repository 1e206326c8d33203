"""Between messages and values: each pair of functions is the other's inverse, up to 32-bit floats."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tabml.vision import Frame
from tabml.vision import landmarks as tables
from tabml.vision.results import (
    Box,
    FaceDetection,
    FaceDetections,
    FaceMeshes,
    FaceMeshResult,
    Hand,
    Hands,
    Pose,
    Poses,
    Segmentation,
)
from tabml_grpc import convert
from tabml_grpc.calls import MAX_RESPONSE
from tabml_grpc.ml import ml_inference_pb2 as ml
from tabml_grpc.streams import split_bytes
from tabml_grpc.v1 import vision_pb2 as v1

FLOATS = st.floats(width=32, allow_nan=False)
SIDE = st.integers(1, 20_000)
NUMBERS = {"timestamp_ms": st.integers(-(2**63), 2**63 - 1), "frame_number": st.integers(-(2**31), 2**31 - 1)}


def table(*shape: int) -> st.SearchStrategy[Any]:
    """Any 32 bits that are numbers: drawn as one seed, for thousands of drawn floats are slow."""

    def bits(seed: int) -> Any:
        values = np.random.default_rng(seed).integers(0, 2**32, shape, np.uint32).view(np.float32)
        return np.nan_to_num(values, nan=-0.0, posinf=np.inf, neginf=-np.inf)

    return st.integers(0, 2**32 - 1).map(bits)


def ratios(count: int) -> st.SearchStrategy[Any]:
    return st.integers(0, 2**32 - 1).map(lambda seed: np.random.default_rng(seed).random(count, np.float32))


BOXES = st.builds(Box, x=FLOATS, y=FLOATS, width=FLOATS, height=FLOATS)
FACES = st.builds(FaceDetection, box=BOXES, score=FLOATS, keypoints=table(6, 2))
MESHES = st.builds(
    FaceMeshResult,
    landmarks=table(478, 3),
    blendshapes=st.none() | table(52),
    transform=st.none() | table(4, 4),
)
HANDS = st.tuples(st.none() | st.sampled_from(tables.GESTURES), FLOATS).flatmap(
    lambda sign: st.builds(
        Hand,
        landmarks=table(21, 3),
        world_landmarks=table(21, 3),
        handedness=st.sampled_from(["Left", "Right"]),
        handedness_score=FLOATS,
        gesture=st.just(sign[0]),
        gesture_score=st.just(None if sign[0] is None else sign[1]),
    )
)


def poses(aspect: float) -> st.SearchStrategy[Pose]:
    return st.builds(
        Pose, landmarks=table(33, 3), world_landmarks=table(33, 3), visibility=ratios(33), presence=ratios(33),
        aspect=st.just(aspect),
    )  # fmt: skip


def found(kind: Any, items: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.builds(kind, items=st.lists(items, max_size=2).map(tuple), width=SIDE, height=SIDE, **NUMBERS)


POSES = st.tuples(SIDE, SIDE).flatmap(
    lambda size: st.builds(
        Poses,
        items=st.lists(poses(size[0] / size[1]), max_size=2).map(tuple),
        width=st.just(size[0]),
        height=st.just(size[1]),
        **NUMBERS,
    )
)
MASKS = st.tuples(st.integers(1, 30), st.integers(1, 30)).flatmap(
    lambda size: (
        st.builds(
            Segmentation,
            mask=hnp.arrays(np.uint8, size),
            kind=st.just("category"),
            labels=st.just(("a", "b")),
            **NUMBERS,
        )
        | st.builds(
            Segmentation,
            mask=hnp.arrays(np.uint8, size).map(lambda levels: levels.astype(np.float32) / np.float32(255)),
            kind=st.just("confidence"),
            **NUMBERS,
        )
    )
)
SPEED = settings(max_examples=25)


def same(left: Any, right: Any) -> None:
    """Equal in every field, arrays by their bits, and of the same type."""
    assert type(left) is type(right)
    if isinstance(left, np.ndarray):
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(left, right)
        assert not right.flags.writeable
    elif hasattr(left, "__dataclass_fields__"):
        for name in left.__dataclass_fields__:
            same(getattr(left, name), getattr(right, name))
    elif isinstance(left, tuple):
        assert len(left) == len(right)
        for one, other in zip(left, right, strict=True):
            same(one, other)
    else:
        assert left == right


def sent(message: Any, result: Any) -> Any:
    """The message as it arrives, with its numbers."""
    message.timestamp_ms, message.frame_number = result.timestamp_ms, result.frame_number
    return type(message).FromString(message.SerializeToString())


@SPEED
@given(found(FaceDetections, FACES))
def test_faces_round_trip(result: FaceDetections) -> None:
    same(result, convert.faces_from_ml(sent(convert.faces_to_ml(result), result), result.width, result.height))
    same(result, convert.faces_from_v1(sent(convert.results_to_v1([result]), result)))


@SPEED
@given(found(FaceMeshes, MESHES))
def test_meshes_round_trip(result: FaceMeshes) -> None:
    same(result, convert.meshes_from_ml(sent(convert.meshes_to_ml(result), result), result.width, result.height))
    same(result, convert.meshes_from_v1(sent(convert.results_to_v1([result]), result)))


@SPEED
@given(found(Hands, HANDS))
def test_hands_round_trip(result: Hands) -> None:
    same(result, convert.hands_from_ml(sent(convert.hands_to_ml(result), result), result.width, result.height))
    same(result, convert.hands_from_v1(sent(convert.results_to_v1([result]), result)))


@SPEED
@given(POSES)
def test_poses_round_trip(result: Poses) -> None:
    same(result, convert.poses_from_ml(sent(convert.poses_to_ml(result), result), result.width, result.height))
    same(result, convert.poses_from_v1(sent(convert.results_to_v1([result]), result)))


@SPEED
@given(MASKS, st.sampled_from(["gray8", "png", "float32"]))
def test_masks_round_trip(result: Segmentation, format: str) -> None:
    if result.kind == "category" and format == "float32":
        with pytest.raises(ValueError, match="mask_format=float32"):
            convert.mask_to_ml(result, format)
        return
    analysis = sent(convert.results_to_v1([result], format), result)
    again = convert.mask_from_v1(analysis)
    assert again is not None
    same(result, again)
    assert convert.MASK_NAMES[analysis.mask.format] == format
    old = convert.mask_from_ml(sent(convert.mask_to_ml(result, format), result), result.kind)
    np.testing.assert_array_equal(old.mask, result.mask)


@pytest.mark.parametrize("format", ["gray8", "float32"])
def test_a_mask_that_is_too_large_becomes_a_png(format: str) -> None:
    person = np.zeros((2000, 2500), np.float32)
    person[500:1500, 800:1700] = 1
    data, name = convert.mask_bytes(Segmentation(mask=person, kind="confidence"), format)
    assert name == "png"
    assert len(data) < MAX_RESPONSE
    noise = np.random.default_rng(1).random((2000, 2500), np.float32)
    with pytest.raises(RuntimeError, match="smaller frames"):
        convert.mask_bytes(Segmentation(mask=noise, kind="confidence"), format)


@SPEED
@given(st.data(), st.sampled_from(["rgb", "bgr", "rgba", "gray", "yuv420"]))
def test_frames_round_trip(data: st.DataObject, format: Any) -> None:
    height, width = (2 * data.draw(st.integers(1, 8)) for _ in range(2))
    shape = {"rgba": (height, width, 4), "gray": (height, width), "yuv420": (height * 3 // 2, width)}
    pixels = data.draw(hnp.arrays(np.uint8, shape.get(format, (height, width, 3))))
    numbers = {name: data.draw(numbers) for name, numbers in NUMBERS.items()}
    frame = Frame(pixels=pixels, format=format, **numbers)
    message = v1.Frame.FromString(convert.frame_to_v1(frame).SerializeToString())
    same(frame, convert.frame_from_v1(message))


OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "min_detection_confidence": FLOATS.map(lambda value: float(str(np.float32(value)))),
        "num_faces": st.integers(-(2**31), 2**31 - 1),
        "blendshapes": st.booleans(),
        "range": st.text(max_size=5),
    },
)


@given(OPTIONS)
def test_options_round_trip(options: dict[str, Any]) -> None:
    message = v1.VisionConfig.FromString(convert.options_to_v1(options).SerializeToString())
    assert convert.options_from_v1(message) == options


@given(hnp.arrays(np.float32, st.tuples(st.integers(0, 5), st.sampled_from([3, 5])), elements=FLOATS))
def test_landmarks_laid_out_at_once_are_what_protobuf_reads(values: Any) -> None:
    names = ["x", "y", "z", "visibility", "presence"][: values.shape[1]]
    for field, name in ((1, "landmarks"), (50, "world_landmarks")):
        message = ml.HandDetection.FromString(convert.landmark_messages(field, values))
        expected = [ml.Landmark(**dict(zip(names, row, strict=True))) for row in values.tolist()]
        assert list(getattr(message, name)) == expected


@given(hnp.arrays(np.float32, st.integers(0, 300), elements=FLOATS))
def test_packed_floats_are_what_protobuf_reads(values: Any) -> None:
    assert list(ml.FaceMesh.FromString(convert.packed(51, values)).transform) == values.tolist()


FRAMES = st.builds(
    ml.VideoFrame,
    frame_data=st.binary(max_size=300),
    format=st.text(max_size=5),
    width=st.integers(0, 2**31 - 1),
    timestamp_ms=NUMBERS["timestamp_ms"],
    metadata=st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2),
)


@given(FRAMES)
def test_pixels_are_taken_out_of_a_message_without_a_copy(message: ml.VideoFrame) -> None:
    raw = message.SerializeToString()
    data, rest = split_bytes(raw, 1)
    assert (b"" if data is None else bytes(data)) == message.frame_data
    message.ClearField("frame_data")
    assert ml.VideoFrame.FromString(bytes(rest)) == message
    assert data is None or data.obj is raw


@given(st.binary(max_size=40), st.integers(1, 3))
def test_nothing_is_lost_of_any_bytes(raw: bytes, field: int) -> None:
    data, rest = split_bytes(raw, field)
    if data is None:
        assert bytes(rest) == raw
    else:
        head = raw[: len(raw) - len(rest) - len(data)]
        assert head + bytes(data) + bytes(rest) == raw
        assert head[0] == field << 3 | 2
