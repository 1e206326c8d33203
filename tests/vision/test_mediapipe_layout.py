"""The structures of our door are mediapipe's own, field by field."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

CODE = """
    import ctypes, importlib, sys
    from tabml.vision import _mediapipe as door

    python = "mediapipe.tasks.python."
    theirs = {
        "BaseOptions": ("core.base_options_c", "MpBaseOptionsC"),
        "ClassifierOptions": ("components.processors.classifier_options_c", "MpClassifierOptionsC"),
        "FaceDetectorOptions": ("vision.face_detector", "MpFaceDetectorOptionsC"),
        "FaceLandmarkerOptions": ("vision.face_landmarker", "MpFaceLandmarkerOptionsC"),
        "HandLandmarkerOptions": ("vision.hand_landmarker", "MpHandLandmarkerOptionsC"),
        "GestureRecognizerOptions": ("vision.gesture_recognizer", "MpGestureRecognizerOptionsC"),
        "PoseLandmarkerOptions": ("vision.pose_landmarker", "MpPoseLandmarkerOptionsC"),
        "ImageSegmenterOptions": ("vision.image_segmenter", "MpImageSegmenterOptionsC"),
        "Landmark": ("components.containers.landmark_c", "MpNormalizedLandmarkC"),
        "Landmarks": ("components.containers.landmark_c", "MpNormalizedLandmarksC"),
        "Category": ("components.containers.category_c", "MpCategoryC"),
        "Categories": ("components.containers.category_c", "MpCategoriesC"),
        "Matrix": ("components.containers.matrix_c", "MpMatrixC"),
        "Rect": ("components.containers.rect_c", "MpRectC"),
        "Keypoint": ("components.containers.keypoint_c", "MpNormalizedKeypointC"),
        "Detection": ("components.containers.detections_c", "MpDetectionC"),
        "DetectionResult": ("components.containers.detections_c", "MpDetectionResultC"),
        "FaceLandmarkerResult": ("vision.face_landmarker", "MpFaceLandmarkerResultC"),
        "HandLandmarkerResult": ("vision.hand_landmarker", "MpHandLandmarkerResultC"),
        "GestureRecognizerResult": ("vision.gesture_recognizer_result_c", "MpGestureRecognizerResultC"),
        "PoseLandmarkerResult": ("vision.pose_landmarker", "MpPoseLandmarkerResultC"),
        "ImageSegmenterResult": ("vision.image_segmenter", "MpImageSegmenterResultC"),
        "StringList": ("vision.image_segmenter", "MpStringListC"),
    }
    ours = {name for name, kind in vars(door).items() if isinstance(kind, type) and issubclass(kind, ctypes.Structure)}
    assert ours - {"Structure"} == set(theirs), ours ^ set(theirs)

    def layout(kind):
        fields = [(name, getattr(kind, name).offset, getattr(kind, name).size) for name, _ in kind._fields_]
        return ctypes.sizeof(kind), fields

    for name, (module, other) in theirs.items():
        found = None
        for place in (python + module, python + module.replace("vision.", "components.containers.")):
            try:
                found = getattr(importlib.import_module(place), other)
                break
            except ModuleNotFoundError:
                pass
        mine = layout(getattr(door, name))
        if sys.argv[1] == "spoilt" and name == "Landmark":
            mine = (mine[0], mine[1][::-1])
        assert mine == layout(found), (name, mine, layout(found))
    print("equal", len(theirs))
"""


def test_every_structure_is_laid_out_as_mediapipes_own(run_python: Callable[..., Any]) -> None:
    ended = run_python(CODE, "as is")
    assert ended.stdout.strip() == "equal 23", ended.stderr


def test_the_comparison_can_fail(run_python: Callable[..., Any]) -> None:
    ended = run_python(CODE, "spoilt")
    assert ended.returncode == 1
    assert "Landmark" in ended.stderr


def test_the_tables_are_mediapipes_own(run_python: Callable[..., Any]) -> None:
    ended = run_python("""
        from mediapipe.tasks.python.vision.face_landmarker import Blendshapes, FaceLandmarksConnections as F
        from mediapipe.tasks.python.vision.hand_landmarker import HandLandmark, HandLandmarksConnections as H
        from mediapipe.tasks.python.vision.pose_landmarker import PoseLandmark, PoseLandmarksConnections as P
        from tabml.vision import landmarks as tables

        def pairs(connections):
            return tuple((c.start, c.end) for c in connections)

        assert tables.HAND_LANDMARKS == tuple(point.name.lower() for point in HandLandmark)
        assert tables.POSE_LANDMARKS == tuple(point.name.lower() for point in PoseLandmark)
        assert tables.HAND_CONNECTIONS == pairs(H.HAND_CONNECTIONS)
        assert tables.POSE_CONNECTIONS == pairs(P.POSE_LANDMARKS)
        for region, edges in tables.FACE_CONTOURS.items():
            assert edges == pairs(getattr(F, f"FACE_LANDMARKS_{region.upper()}")), region
        assert len(tables.BLENDSHAPES) == len(Blendshapes)
        assert [b.replace("_", "").lower() for b in tables.BLENDSHAPES] == [
            b.name.replace("_", "").lower() for b in Blendshapes
        ]
        print("equal")
    """)
    assert ended.stdout.strip() == "equal", ended.stderr
