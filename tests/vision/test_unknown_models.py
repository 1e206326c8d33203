"""Model files that the catalog doesn't know, given to vision: told or tried, and the process lives."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_lite

from tabml.errors import CorruptModelError, ModelLoadError, TabmlError
from tabml.files import FileRef, MemoryProvider, load_model
from tabml.vision import FaceDetector, FaceMesh, Frame, HolisticDetector, ObjectDetector3D

REF = FileRef("mine", "model.tflite")


def given(content: bytes) -> MemoryProvider:
    return MemoryProvider({(REF.repo, REF.path): content})


@pytest.fixture(scope="module")
def detector() -> bytes:
    return bytes(load_model("face_detector"))


def flipped(model: bytes, at: int) -> bytes:
    changed = bytearray(model)
    changed[at // 8] ^= 1 << at % 8
    return bytes(changed)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.99])
def test_a_face_detector_that_is_cut_short_is_told(share: float, detector: bytes) -> None:
    with pytest.raises(CorruptModelError, match=r"model='mine/model.tflite'"):
        FaceDetector(model=REF, files=given(detector[: int(len(detector) * share)])).load()


def test_a_face_detector_with_flipped_bits_answers_or_is_told(detector: bytes, portrait: Path) -> None:
    frame = Frame.from_file(portrait)
    told = 0
    for at in range(32, 40_000, 1777):  # in its tables
        try:
            with FaceDetector(model=REF, files=given(flipped(detector, at))) as model:
                model.detect(frame)
        except TabmlError as problem:
            assert "\n" not in str(problem)
            told += 1
    assert told > 3
    with FaceDetector() as model:
        assert len(model.detect(frame)) == 1


def test_a_model_of_ones_own_works_after_its_trial(detector: bytes, portrait: Path, tmp_path: Path) -> None:
    frame = Frame.from_file(portrait)
    with FaceDetector() as known:
        expected = known.detect(frame).to_json()
    path = tmp_path / "mine.tflite"
    path.write_bytes(detector + bytes(8))  # the catalog knows it no more
    for model in (FaceDetector(model=path), FaceDetector(model=REF, files=given(detector + bytes(8)))):
        with model:
            assert model.detect(frame).to_json() == expected


@pytest.mark.parametrize(
    "make",
    [
        lambda files: FaceDetector(model=REF, files=files),
        lambda files: ObjectDetector3D(detector=REF, files=files, category="cup"),
        lambda files: HolisticDetector(model=REF, files=files),
        lambda files: HolisticDetector(hands=REF, files=files),
        lambda files: HolisticDetector(face=REF, files=files),
    ],
)
def test_every_way_in_has_the_same_door(make: Callable[[Any], Any]) -> None:
    class Mixed:
        """The deadly file, and the catalog's others."""

        def __init__(self) -> None:
            from tabml.files import default_provider

            self._mine, self._others = given(tiny_lite.deadly()), default_provider()

        def open(self, ref: FileRef) -> Any:
            return (self._mine if ref == REF else self._others).open(ref)

        def list(self, repo: str, revision: str | None = None) -> Any:
            return self._mine.list(repo, revision)

    with pytest.raises(CorruptModelError, match="LiteRT dies of it"):
        make(Mixed()).load()


def test_a_bundle_s_members_are_tried_each() -> None:
    with zipfile.ZipFile(io.BytesIO(load_model("face_landmarker"))) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    for name, content, said in (
        ("face_blendshapes.tflite", tiny_lite.deadly(), "face_blendshapes.tflite: LiteRT dies of it"),
        ("face_detector.tflite", members["face_detector.tflite"][:5000], "face_detector.tflite: an offset"),
    ):
        with pytest.raises(CorruptModelError, match=said):
            FaceMesh(model=REF, files=given(bundled({**members, name: content}))).load()
    with FaceMesh(model=REF, files=given(bundled({**members, "mine.txt": b"hello"}))) as model:
        model.load()


def test_a_bomb_is_not_unpacked() -> None:
    bomb = bundled(
        {"face_detector.tflite": bytes(300 << 20), "face_landmarks_detector.tflite": b""}, zipfile.ZIP_DEFLATED
    )
    assert len(bomb) < 1 << 20
    with pytest.raises((CorruptModelError, ModelLoadError), match="bytes long"):
        FaceMesh(model=REF, files=given(bomb)).load()


def bundled(members: dict[str, bytes], kind: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", kind) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()
