"""Between messages and values: each pair of functions is the other's inverse, up to 32-bit floats."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tabml.errors import FrameError, OptionError
from tabml.vision import Frame
from tabml.vision import landmarks as tables
from tabml.vision.results import (
    Box,
    Eye,
    FaceDetection,
    FaceDetections,
    FaceIrises,
    FaceMeshes,
    FaceMeshResult,
    Hand,
    Hands,
    Irises,
    ObjectDetection,
    ObjectDetections,
    Pose,
    Poses,
    Segmentation,
    TrackedObject,
    TrackedObjects,
)
from tabml_grpc import convert, convert_eyes, convert_objects, vision
from tabml_grpc.calls import MAX_RESPONSE
from tabml_grpc.ml import ml_inference_pb2 as ml
from tabml_grpc.statuses import RequestError
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


def eyes(side: str) -> st.SearchStrategy[Eye]:
    return st.builds(
        Eye, side=st.just(side), iris=table(5, 3), region=table(71, 3), aspect_ratio=FLOATS, closed=st.booleans(),
        gaze=table(3), gaze_in_camera=table(3), yaw=FLOATS, pitch=FLOATS, distance_mm=st.none() | FLOATS,
    )  # fmt: skip


IRISES = st.builds(
    FaceIrises,
    left=eyes("left"),
    right=eyes("right"),
    score=FLOATS,
    head_yaw=FLOATS,
    head_pitch=FLOATS,
    head_roll=FLOATS,
)
NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
INDEXES = st.integers(-(2**31), 2**31 - 1)
OBJECTS = st.builds(ObjectDetection, box=BOXES, label=NAMES, score=FLOATS, index=INDEXES)
TRACKS = st.builds(
    TrackedObject, box=BOXES, label=NAMES, score=FLOATS, index=INDEXES, track_id=st.integers(1, 2**31 - 1),
    trajectory=st.integers(1, 5).flatmap(lambda count: table(count, 4)),
)  # fmt: skip
CONFIDENCES = st.tuples(st.integers(1, 30), st.integers(1, 30)).flatmap(
    lambda size: hnp.arrays(np.float32, size, elements=st.floats(0, 1, width=32))
)
SPEED = settings(max_examples=25)


def same(left: Any, right: Any) -> None:
    """Equal in every field, arrays by their bits, and of the same type."""
    assert type(left) is type(right)
    if isinstance(left, np.ndarray):
        assert left.dtype == right.dtype
        assert left.shape == right.shape
        assert left.tobytes() == right.tobytes()
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
@given(found(Irises, IRISES))
def test_irises_round_trip(result: Irises) -> None:
    same(result, convert_eyes.irises_from_v1(sent(convert.results_to_v1([result]), result)))
    old = convert_eyes.eyes_from_ml(sent(convert_eyes.irises_to_ml(result), result))
    same(tuple((eye, face.score) for face in result for eye in face.eyes), tuple(old))


@SPEED
@given(found(ObjectDetections, OBJECTS))
def test_objects_round_trip(result: ObjectDetections) -> None:
    same(result, convert_objects.objects_from_v1(sent(convert.results_to_v1([result]), result)))
    old = sent(convert_objects.objects_to_ml(result), result)
    bare = replace(result, items=tuple(replace(each, index=-1) for each in result))
    same(bare, convert_objects.objects_from_ml(old, result.width, result.height))


@SPEED
@given(found(TrackedObjects, TRACKS))
def test_tracks_round_trip(result: TrackedObjects) -> None:
    same(result, convert_objects.tracks_from_v1(sent(convert.results_to_v1([result]), result)))
    old = sent(convert_objects.tracks_to_ml(result), result)
    bare = replace(result, items=tuple(replace(each, index=-1) for each in result))
    same(bare, convert_objects.tracks_from_ml(old, result.width, result.height))


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
    same(replace(result, labels=old.labels), old)  # the old contract has no field for labels


@SPEED
@given(CONFIDENCES)
def test_float32_keeps_every_confidence_and_a_byte_the_nearest_of_256(confidences: Any) -> None:
    result = Segmentation(mask=confidences, kind="confidence", timestamp_ms=0, frame_number=0)
    for format in ("float32", "gray8", "png"):
        sent_again = [
            convert.mask_from_ml(sent(convert.mask_to_ml(result, format), result), "confidence"),
            convert.mask_from_v1(sent(convert.results_to_v1([result], format), result)),
        ]
        for again in sent_again:
            assert again is not None
            if format == "float32":
                same(result, again)
            else:
                np.testing.assert_allclose(again.mask, confidences, rtol=0, atol=0.5 / 255 + 1e-6)


def test_an_analysis_without_a_mask_has_none() -> None:
    assert convert.mask_from_v1(v1.Analysis(width=3, height=4)) is None


def test_a_mask_format_that_is_none_is_refused() -> None:
    assert [convert.mask_format(number) for number in sorted(v1.MaskFormat.values())] == [
        "gray8", "gray8", "float32", "png",
    ]  # fmt: skip
    with pytest.raises(OptionError, match="mask_format=4 must be from 0 to 3"):
        convert.mask_format(4)


@pytest.mark.parametrize("format", ["gray8", "float32"])
def test_a_mask_that_is_too_large_becomes_a_png(format: str) -> None:
    person = np.zeros((2000, 2500), np.float32)
    person[500:1500, 800:1700] = 1
    data, name = convert.mask_bytes(Segmentation(mask=person, kind="confidence"), format)
    assert name == "png"
    assert len(data) < MAX_RESPONSE == 3.5 * 2**20
    response = convert.mask_to_ml(Segmentation(mask=person, kind="confidence"), format)
    assert response.ByteSize() < MAX_RESPONSE
    assert np.array_equal(convert.mask_from_ml(response, "confidence").mask, person)
    noise = np.random.default_rng(1).random((2000, 2500), np.float32)
    with pytest.raises(RuntimeError, match="smaller frames"):
        convert.mask_bytes(Segmentation(mask=noise, kind="confidence"), format)


def test_floats_that_are_too_many_become_bytes_before_they_become_a_png() -> None:
    noise = np.random.default_rng(1).random((1000, 1500), np.float32)
    data, name = convert.mask_bytes(Segmentation(mask=noise, kind="confidence"), "float32")
    assert (name, len(data)) == ("gray8", noise.size)


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
    apart = memoryview(message.data)
    message.ClearField("data")
    same(frame, convert.frame_from_v1(message, apart))


@SPEED
@given(st.data(), st.sampled_from(["RGB", "BGR", "RGBA", "GRAY", "YUV420", "NV12"]))
def test_every_raw_format_is_read_as_the_library_reads_it_with_its_padding(data: st.DataObject, name: str) -> None:
    height, width = (2 * data.draw(st.integers(1, 8)) for _ in range(2))
    row = width * {"RGBA": 4, "GRAY": 1, "YUV420": 1, "NV12": 1}.get(name, 3)
    stride = 0 if name in ("YUV420", "NV12") else data.draw(st.sampled_from([0, row, row + 7]))
    rows = height * 3 // 2 if name in ("YUV420", "NV12") else height
    raw = data.draw(st.binary(min_size=(stride or row) * rows, max_size=(stride or row) * rows))
    message = v1.Frame(
        data=raw, format=v1.FrameFormat.Value(f"FRAME_FORMAT_{name}"), width=width, height=height, stride=stride
    )
    expected = Frame.from_raw(
        raw, width=width, height=height, format=name.lower(), stride=stride or None, timestamp_ms=0, frame_number=0  # type: ignore[arg-type]
    )  # fmt: skip
    same(expected, convert.frame_from_v1(message))


@pytest.mark.parametrize("name", ["jpeg", "png", "webp", "unspecified"])
def test_every_encoded_format_is_read_by_its_first_bytes(name: Any) -> None:
    picture = Frame.from_array(np.full((6, 4, 3), 90, np.uint8), "rgb")
    encoded = picture.encode("png" if name == "unspecified" else name)
    message = v1.Frame(data=encoded, format=v1.FrameFormat.Value(f"FRAME_FORMAT_{name.upper()}"))
    np.testing.assert_allclose(convert.frame_from_v1(message).to_rgb(), picture.pixels, atol=3)


def test_every_format_has_a_name_and_a_number_without_one_is_refused() -> None:
    assert set(convert.FORMATS) == set(v1.FrameFormat.values())
    with pytest.raises(FrameError, match="number 77"):
        convert.frame_from_v1(v1.Frame(data=b"abc", format=77, width=1, height=1))  # type: ignore[arg-type]


EXTRAS = {"model", "mask_format", "stride", "timestamp_ms", "frame_number"}
"""What a configuration says that is no option of the library."""
DRAWN = {
    FieldDescriptor.TYPE_FLOAT: FLOATS.map(lambda value: float(str(np.float32(value)))),
    FieldDescriptor.TYPE_INT32: st.integers(-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_BOOL: st.booleans(),
    FieldDescriptor.TYPE_STRING: st.text(max_size=5),
}
OPTIONS = st.fixed_dictionaries(
    {},
    optional={field.name: DRAWN[field.type] for field in v1.VisionConfig.DESCRIPTOR.fields if field.name not in EXTRAS},
)


def test_what_is_no_option_is_not_read_as_one() -> None:
    message = v1.VisionConfig(model="m", mask_format=v1.MASK_FORMAT_PNG, stride=1, timestamp_ms=2, frame_number=3)
    assert {field.name for field, _ in message.ListFields()} == EXTRAS
    assert convert.options_from_v1(message) == {}


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


@pytest.mark.parametrize("count", [0, 1, 31, 32, 33, 4095, 4096, 4097])
def test_the_length_before_the_floats_is_right_where_it_grows_by_a_byte(count: int) -> None:
    values = np.arange(count, dtype=np.float32)
    for field, name in ((1, "landmarks"), (2, "blendshapes"), (3, "transform")):
        assert list(getattr(v1.Mesh.FromString(convert.packed(field, values)), name)) == values.tolist()


@SPEED
@given(found(FaceMeshes, MESHES), found(Hands, HANDS), POSES, found(FaceDetections, FACES))
def test_the_old_contract_says_all_that_it_can(meshes: Any, hands: Any, poses: Any, faces: Any) -> None:
    for old in convert.meshes_to_ml(meshes).faces:
        assert tuple(old.contours) == convert.contours()
        assert len(old.contours) > 200
        assert old.confidence == 1
    for hand, old_hand in zip(hands, convert.hands_to_ml(hands).hands, strict=True):
        assert [(sign.name, sign.confidence) for sign in old_hand.gestures] == (
            [] if hand.gesture is None else [(hand.gesture, hand.gesture_score)]
        )
    for pose, old_pose in zip(poses, convert.poses_to_ml(poses).poses, strict=True):
        seen = [(point.visibility, point.presence) for point in old_pose.landmarks]
        assert seen == list(zip(pose.visibility.tolist(), pose.presence.tolist(), strict=True))
        assert [(point.visibility, point.presence) for point in old_pose.world_landmarks] == seen
        assert old_pose.confidence == np.float32(pose.score)
    for face, old_face in zip(faces, convert.faces_to_ml(faces).faces, strict=True):
        assert [point.name for point in old_face.keypoints] == list(tables.FACE_KEYPOINTS)
        assert {point.confidence for point in old_face.keypoints} == {face.score}


@SPEED
@given(POSES)
def test_the_new_contract_has_the_score_of_a_pose(result: Poses) -> None:
    scores = [pose.score for pose in convert.results_to_v1([result]).poses]
    assert scores == [np.float32(pose.score) for pose in result]


def test_the_results_of_several_tasks_travel_in_one_analysis() -> None:
    mask = Segmentation(mask=np.zeros((4, 3), np.uint8), kind="category")
    box = Box(x=0.0, y=0.25, width=0.5, height=1.0)
    face = FaceDetection(box=box, score=0.5, keypoints=np.zeros((6, 2), np.float32))
    analysis = convert.results_to_v1([FaceDetections(items=(face,), width=3, height=4), mask])
    assert (analysis.width, analysis.height, len(analysis.faces)) == (3, 4, 1)
    found_mask = convert.mask_from_v1(analysis)
    assert found_mask is not None
    assert found_mask.mask.shape == (4, 3)


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


@given(st.binary(max_size=300), st.data())
def test_pixels_that_were_cut_off_are_not_taken(content: bytes, data: st.DataObject) -> None:
    raw = ml.VideoFrame(frame_data=content + b"x", width=7).SerializeToString()
    pixels, rest = split_bytes(raw, 1)
    assert pixels is not None
    end = len(raw) - len(rest)
    cut = raw[: data.draw(st.integers(0, end - 1))]
    assert split_bytes(cut, 1) == (None, cut)


@pytest.mark.parametrize("length", [0, 1, 127, 128, 16383, 16384, 2097151, 2097152])
def test_pixels_of_every_length_are_taken(length: int) -> None:
    raw = ml.VideoFrame(frame_data=bytes(length), width=7).SerializeToString()
    pixels, rest = split_bytes(raw, 1)
    assert (0 if pixels is None else len(pixels)) == length
    assert ml.VideoFrame.FromString(bytes(rest)) == ml.VideoFrame(width=7)


@st.composite
def spoilt(draw: st.DrawFn, messages: st.SearchStrategy[Any]) -> bytes:
    """A message, or two of them, with some of its bytes changed, taken away or put in, or cut short."""
    raw = bytearray(b"".join(each.SerializeToString() for each in draw(st.lists(messages, min_size=1, max_size=2))))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(raw)))
        raw[at : at + draw(st.integers(0, 2))] = draw(st.binary(max_size=2))
    return bytes(raw[: draw(st.integers(0, len(raw)))] if draw(st.booleans()) else raw)


def read_by(contract: Any, raw: bytes) -> tuple[Any, bytes] | None:
    """The message and its pixels as the server reads them; None when it says that the bytes are no message."""
    try:
        message, data = contract.read(raw)
    except RequestError:
        return None
    return message, bytes(data)


def read_by_protobuf(kind: Any, raw: bytes) -> Any:
    try:
        return kind.FromString(raw)
    except DecodeError:
        return None


@settings(max_examples=300)
@given(spoilt(FRAMES))
@example(b"\x0a\x01A\x0a\x01B")
@example(b"\x12\x01A\x0a\x01B")
@example(b"\x0a\x81\x80\x80\x80\x00A")
@example(b"\x0a\x81\x80\x80\x80\x80\x00A")
@example(b"\x0a\x81\x80\x80\x80\x80\x80\x80\x80\x80\x00A")
@example(b"\x0a\x81\x80\x80\x80\x10A")
@example(b"\x0a\x05A")
@example(b"\x0a")
@example(b"")
def test_the_old_contract_reads_any_bytes_as_protobuf_does(raw: bytes) -> None:
    expected = read_by_protobuf(ml.VideoFrame, raw)
    got = read_by(vision._Ml("face-detection", "gray8", v1.VisionConfig()), raw)
    if expected is None or got is None:
        assert got is expected is None
        return
    message, data = got
    assert data == expected.frame_data or not expected.frame_data, "of two fields the last counts, unless it is empty"
    message.ClearField("frame_data")
    expected.ClearField("frame_data")
    assert message == expected


REQUESTS = st.builds(
    v1.StreamAnalyzeRequest,
    frame=st.builds(
        v1.Frame, data=st.binary(max_size=200), format=st.integers(0, 9), width=st.integers(0, 2**31 - 1), **NUMBERS
    ),
) | st.just(v1.StreamAnalyzeRequest(config=v1.StreamConfig(max_fps=5)))


@settings(max_examples=300)
@given(spoilt(REQUESTS))
@example(b"")
@example(b"\x12\x00")
@example(b"\x12\x03\x0a\x01A\x12\x02\x18\x09")
@example(b"\x12\x06\x0a\x01A\x0a\x01B")
@example(b"\x12\x03\x0a\x01A\x0a\x00")
@example(b"\x12\x03\x0a\x05A")
def test_the_new_contract_reads_any_bytes_as_protobuf_does(raw: bytes) -> None:
    expected = read_by_protobuf(v1.StreamAnalyzeRequest, raw)
    got = read_by(vision._V1("gray8", v1.StreamAnalyzeResponse), raw)
    if expected is None or expected.WhichOneof("message") != "frame" or got is None:
        assert got is None
        assert expected is None or expected.WhichOneof("message") != "frame"
        return
    message, data = got
    assert data == expected.frame.data or not expected.frame.data
    message.ClearField("data")
    expected.frame.ClearField("data")
    assert message == expected.frame
