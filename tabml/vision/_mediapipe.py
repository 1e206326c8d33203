"""The one door to MediaPipe: owns its native tasks, and lets nothing near them that they can't bear.

tabml calls the C interface of ``libmediapipe`` in the installed ``mediapipe`` distribution. Importing the
Python package on top of it would cost 0.6 s (it pulls in matplotlib), a thread hop a call, and finalizers that
hang when the garbage collector meets a task in a reference cycle. The structures below are the C interface of
mediapipe 1.2; ``tests/vision/test_mediapipe_layout.py`` holds them to mediapipe's own.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import platform
import threading
from collections.abc import Callable
from ctypes import POINTER, Structure, byref, c_bool, c_char_p, c_float, c_int, c_int64, c_uint, c_uint32, c_void_p
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from tabml._imports import libc_address, redirect_imports, silence
from tabml.errors import (
    InferenceError,
    MissingExtraError,
    ModelClosedError,
    ModelForkedError,
    ModelLoadError,
)
from tabml.vision._pixels import check_pixels

Answer = TypeVar("Answer")

ALLOW_NETWORK = "TABML_ALLOW_MEDIAPIPE_NETWORK"
"""Environment variable: 1 lets MediaPipe post its usage record."""

_SRGB = 1
_IMAGE, _VIDEO = 1, 2
_CPU = 0


class BaseOptions(Structure):
    _fields_ = (
        ("model_asset_buffer", c_char_p),
        ("model_asset_buffer_count", c_uint),
        ("model_asset_path", c_char_p),
        ("file_descriptor", c_int),
        ("delegate", c_int),
        ("host_environment", c_int),
        ("host_system", c_int),
        ("host_version", c_char_p),
        ("ca_bundle_path", c_char_p),
        ("app_id", c_char_p),
        ("app_version", c_char_p),
    )


class ClassifierOptions(Structure):
    _fields_ = (
        ("display_names_locale", c_char_p),
        ("max_results", c_int),
        ("score_threshold", c_float),
        ("category_allowlist", c_void_p),
        ("category_allowlist_count", c_uint32),
        ("category_denylist", c_void_p),
        ("category_denylist_count", c_uint32),
    )


class FaceDetectorOptions(Structure):
    _fields_ = (
        ("base_options", BaseOptions),
        ("running_mode", c_int),
        ("min_detection_confidence", c_float),
        ("min_suppression_threshold", c_float),
        ("result_callback", c_void_p),
    )


class FaceLandmarkerOptions(Structure):
    _fields_ = (
        ("base_options", BaseOptions),
        ("running_mode", c_int),
        ("num_faces", c_int),
        ("min_face_detection_confidence", c_float),
        ("min_face_presence_confidence", c_float),
        ("min_tracking_confidence", c_float),
        ("output_face_blendshapes", c_bool),
        ("output_facial_transformation_matrixes", c_bool),
        ("result_callback", c_void_p),
    )


class HandLandmarkerOptions(Structure):
    _fields_ = (
        ("base_options", BaseOptions),
        ("running_mode", c_int),
        ("num_hands", c_int),
        ("min_hand_detection_confidence", c_float),
        ("min_hand_presence_confidence", c_float),
        ("min_tracking_confidence", c_float),
        ("result_callback", c_void_p),
    )


class GestureRecognizerOptions(Structure):
    _fields_ = (
        ("base_options", BaseOptions),
        ("running_mode", c_int),
        ("num_hands", c_int),
        ("min_hand_detection_confidence", c_float),
        ("min_hand_presence_confidence", c_float),
        ("min_tracking_confidence", c_float),
        ("canned_gestures_classifier_options", ClassifierOptions),
        ("custom_gestures_classifier_options", ClassifierOptions),
        ("result_callback", c_void_p),
    )


class PoseLandmarkerOptions(Structure):
    _fields_ = (
        ("base_options", BaseOptions),
        ("running_mode", c_int),
        ("num_poses", c_int),
        ("min_pose_detection_confidence", c_float),
        ("min_pose_presence_confidence", c_float),
        ("min_tracking_confidence", c_float),
        ("output_segmentation_masks", c_bool),
        ("result_callback", c_void_p),
    )


class ImageSegmenterOptions(Structure):
    _fields_ = (
        ("base_options", BaseOptions),
        ("running_mode", c_int),
        ("display_names_locale", c_char_p),
        ("output_confidence_masks", c_bool),
        ("output_category_mask", c_bool),
        ("result_callback", c_void_p),
    )


class Landmark(Structure):
    _fields_ = (
        ("x", c_float),
        ("y", c_float),
        ("z", c_float),
        ("has_visibility", c_bool),
        ("visibility", c_float),
        ("has_presence", c_bool),
        ("presence", c_float),
        ("name", c_char_p),
    )


class Landmarks(Structure):
    _fields_ = (("landmarks", c_void_p), ("landmarks_count", c_uint32))


class Category(Structure):
    _fields_ = (
        ("index", c_int),
        ("score", c_float),
        ("category_name", c_char_p),
        ("display_name", c_char_p),
    )


class Categories(Structure):
    _fields_ = (("categories", POINTER(Category)), ("categories_count", c_uint32))


class Matrix(Structure):
    _fields_ = (("rows", c_uint32), ("cols", c_uint32), ("data", c_void_p))


class Rect(Structure):
    _fields_ = (("left", c_int), ("top", c_int), ("bottom", c_int), ("right", c_int))


class Keypoint(Structure):
    _fields_ = (("x", c_float), ("y", c_float), ("label", c_char_p), ("score", c_float))


class Detection(Structure):
    _fields_ = (
        ("categories", POINTER(Category)),
        ("categories_count", c_uint32),
        ("bounding_box", Rect),
        ("keypoints", c_void_p),
        ("keypoints_count", c_uint32),
    )


class DetectionResult(Structure):
    _fields_ = (("detections", POINTER(Detection)), ("detections_count", c_uint32))


class FaceLandmarkerResult(Structure):
    _fields_ = (
        ("face_landmarks", POINTER(Landmarks)),
        ("face_landmarks_count", c_uint32),
        ("face_blendshapes", POINTER(Categories)),
        ("face_blendshapes_count", c_uint32),
        ("facial_transformation_matrixes", POINTER(Matrix)),
        ("facial_transformation_matrixes_count", c_uint32),
    )


class HandLandmarkerResult(Structure):
    _fields_ = (
        ("handedness", POINTER(Categories)),
        ("handedness_count", c_uint32),
        ("hand_landmarks", POINTER(Landmarks)),
        ("hand_landmarks_count", c_uint32),
        ("hand_world_landmarks", POINTER(Landmarks)),
        ("hand_world_landmarks_count", c_uint32),
    )


class GestureRecognizerResult(Structure):
    _fields_ = (
        ("gestures", POINTER(Categories)),
        ("gestures_count", c_uint32),
        ("handedness", POINTER(Categories)),
        ("handedness_count", c_uint32),
        ("hand_landmarks", POINTER(Landmarks)),
        ("hand_landmarks_count", c_uint32),
        ("hand_world_landmarks", POINTER(Landmarks)),
        ("hand_world_landmarks_count", c_uint32),
    )


class PoseLandmarkerResult(Structure):
    _fields_ = (
        ("segmentation_masks", POINTER(c_void_p)),
        ("segmentation_masks_count", c_uint32),
        ("pose_landmarks", POINTER(Landmarks)),
        ("pose_landmarks_count", c_uint32),
        ("pose_world_landmarks", POINTER(Landmarks)),
        ("pose_world_landmarks_count", c_uint32),
    )


class ImageSegmenterResult(Structure):
    _fields_ = (
        ("confidence_masks", POINTER(c_void_p)),
        ("confidence_masks_count", c_uint32),
        ("category_mask", c_void_p),
        ("has_category_mask", c_uint32),
        ("quality_scores", POINTER(c_float)),
        ("quality_scores_count", c_uint32),
    )


class StringList(Structure):
    _fields_ = (("strings", POINTER(c_char_p)), ("num_strings", c_int))


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskKind:
    """One of MediaPipe's tasks: its prefix and verb in the C interface, and the structure of its answers."""

    prefix: str
    verb: str
    result: type[Structure]


FACE_DETECTOR = TaskKind(prefix="MpFaceDetector", verb="Detect", result=DetectionResult)
FACE_LANDMARKER = TaskKind(prefix="MpFaceLandmarker", verb="Detect", result=FaceLandmarkerResult)
HAND_LANDMARKER = TaskKind(prefix="MpHandLandmarker", verb="Detect", result=HandLandmarkerResult)
GESTURE_RECOGNIZER = TaskKind(prefix="MpGestureRecognizer", verb="Recognize", result=GestureRecognizerResult)
POSE_LANDMARKER = TaskKind(prefix="MpPoseLandmarker", verb="Detect", result=PoseLandmarkerResult)
IMAGE_SEGMENTER = TaskKind(prefix="MpImageSegmenter", verb="Segment", result=ImageSegmenterResult)

_library: ctypes.CDLL | None = None
_library_lock = threading.Lock()


def library() -> ctypes.CDLL:
    """The native library, loaded once, cut off the network and silenced.

    Raises:
        MissingExtraError: mediapipe is not installed.
        ModelLoadError: its version isn't the one this door knows, or it can't be cut off the network.
    """
    global _library
    with _library_lock:
        if _library is None:
            _library = _open_library()
        return _library


def _open_library() -> ctypes.CDLL:
    spec = importlib.util.find_spec("mediapipe")
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError("vision", "mediapipe")
    version = metadata.version("mediapipe")
    if version.split(".")[:2] != ["1", "2"]:
        raise ModelLoadError(
            f"mediapipe {version} is installed, and tabml knows the C interface of 1.2; "
            "run: python -m pip install 'mediapipe>=1.2.2,<1.3'"
        )
    suffix = {"Darwin": "dylib", "Windows": "dll"}.get(platform.system(), "so")
    path = Path(spec.submodule_search_locations[0], "tasks", "c", f"libmediapipe.{suffix}")
    try:
        loaded = ctypes.CDLL(str(path))
    except OSError as problem:
        raise ModelLoadError(
            f"mediapipe's native library can't be loaded ({problem}); "
            "on Debian and Ubuntu run: apt-get install libegl1 libgles2"
        ) from problem
    _cut_off_the_network(loaded)
    silence(loaded)
    loaded.MpErrorFree.argtypes = (c_void_p,)
    loaded.MpErrorFree.restype = None
    loaded.MpImageFree.argtypes = (c_void_p,)
    loaded.MpImageFree.restype = None
    for reader in ("Width", "Height", "Channels", "WidthStep"):
        getattr(loaded, f"MpImageGet{reader}").argtypes = (c_void_p,)
    return loaded


def _cut_off_the_network(loaded: ctypes.CDLL) -> None:
    """Leave the library no way to find a server: no name service, and no proxy from the environment.

    ``revoke``, kept by glibc for its ABI's sake, does nothing and returns −1, as ``getaddrinfo`` does
    without a name server; ``pthread_mutexattr_destroy`` does nothing and returns 0, as ``getenv`` does for an
    unset variable. The rest of the library's network code is raw system calls, which need an address first.
    """
    if os.environ.get(ALLOW_NETWORK) == "1":
        return
    wanted = {"getaddrinfo": "revoke", "getenv": "pthread_mutexattr_destroy"}
    done: set[str] = set()
    if platform.system() == "Linux":
        done = redirect_imports(loaded, {name: libc_address(to) for name, to in wanted.items()})
    if done != set(wanted):
        raise ModelLoadError(
            "mediapipe posts a usage record to the network, and on this system tabml can't stop it; "
            f"set {ALLOW_NETWORK}=1 to run it all the same"
        )


class NativeTask:
    """Owns one MediaPipe task: one call at a time, torn down by hand, made anew when its graph has died."""

    _statuses: ClassVar[dict[int, str]] = {
        3: "invalid argument", 5: "not found", 8: "resource exhausted", 9: "failed precondition",
        12: "unimplemented", 13: "internal",
    }  # fmt: skip

    def __init__(self, kind: TaskKind, options: Structure, model: bytes | memoryview, *, video: bool) -> None:
        """Build the task.

        Args:
            kind: Which of MediaPipe's tasks.
            options: Its options, without base options and running mode, which are filled in here.
            model: The bytes of the model; used where they lie as long as the task lives.
            video: True for a task that carries state from frame to frame.

        Raises:
            ModelLoadError: MediaPipe refused the model or the options.
        """
        self._kind = kind
        self._video = video
        self._model = model
        self._options: Any = options
        self._options.running_mode = _VIDEO if video else _IMAGE
        base = self._options.base_options
        base.model_asset_buffer = np.frombuffer(model, np.uint8).ctypes.data
        base.model_asset_buffer_count = len(model)
        base.file_descriptor = -1
        base.delegate = _CPU
        self._lock = threading.Lock()
        self._library = library()
        mode = "ForVideo" if video else "Image"
        self._call = getattr(self._library, f"{kind.prefix}{kind.verb}{mode}")
        self._free_result = getattr(self._library, f"{kind.prefix}CloseResult")
        self._free_result.restype = None
        self._handle: c_void_p | None = None
        self._closed = False
        self._process = os.getpid()
        self._clock = 0
        self._create()

    def run(self, pixels: NDArray[np.uint8], convert: Callable[[Any], Answer], *, after_ms: int = 33) -> Answer:
        """Run the task on one picture.

        Args:
            pixels: Shape (height, width, 3), uint8, RGB, C-contiguous.
            convert: Turns the native answer into a value; it lives only during this call.
            after_ms: For video: milliseconds since the picture before, at least 1.

        Raises:
            FrameError: the array is not as above.
            InferenceError: MediaPipe failed; the task is made anew for the next call.
            ModelClosedError: :meth:`close` came first.
            ModelForkedError: this process is a fork of the one that made the task.
        """
        check_pixels(pixels)
        height, width, _ = pixels.shape
        image, error = c_void_p(), c_char_p()
        with self._lock:
            self._check_owner()
            if self._handle is None:
                self._create()
            status = self._library.MpImageCreateFromUint8Data(
                _SRGB, width, height, c_void_p(pixels.ctypes.data), c_int(pixels.size), byref(image), byref(error)
            )
            if status:
                raise InferenceError(f"mediapipe refused a {width}×{height} picture: {self._reason(status, error)}")
            result = self._kind.result()
            try:
                if self._video:
                    self._clock += max(1, after_ms)
                    status = self._call(self._handle, image, None, c_int64(self._clock), byref(result), byref(error))
                else:
                    status = self._call(self._handle, image, None, byref(result), byref(error))
                if status:
                    self._destroy()
                    raise InferenceError(
                        f"mediapipe failed on a {width}×{height} picture: {self._reason(status, error)}; "
                        "the task was made anew for the next one (a model of another kind fails on every picture)"
                    )
                try:
                    return convert(result)
                finally:
                    self._free_result(byref(result))
            finally:
                self._library.MpImageFree(image)

    def close(self) -> None:
        """Free the native task, after a call that is running; twice is fine."""
        with self._lock:
            self._closed = True
            if self._process == os.getpid():
                self._destroy()
            self._handle = None

    def labels(self) -> tuple[str, ...]:
        """The class names of a segmenter's model; empty when it carries none."""
        strings, error = StringList(), c_char_p()
        with self._lock:
            self._check_owner()
            if self._library.MpImageSegmenterGetLabels(self._handle, byref(strings), byref(error)):
                self._reason(0, error)
                return ()
            try:
                return tuple(strings.strings[i].decode() for i in range(strings.num_strings))
            finally:
                self._library.MpStringListFree(byref(strings))

    def _check_owner(self) -> None:
        if self._closed:
            raise ModelClosedError("the model is closed; open a new one")
        if self._process != os.getpid():
            raise ModelForkedError("the model was opened before fork() and can't be used in the child; open one there")

    def _create(self) -> None:
        handle, error = c_void_p(), c_char_p()
        create = getattr(self._library, f"{self._kind.prefix}Create")
        status = create(byref(self._options), byref(handle), byref(error))
        if status or not handle.value:
            raise ModelLoadError(f"mediapipe can't open the model: {self._reason(status, error)}")
        self._handle = handle
        self._clock = 0

    def _destroy(self) -> None:
        handle, self._handle = self._handle, None
        if handle is not None:
            error = c_char_p()
            if getattr(self._library, f"{self._kind.prefix}Close")(handle, byref(error)):
                self._reason(0, error)  # a dead graph reports its old failure again

    def _reason(self, status: int, error: c_char_p) -> str:
        """The native message as one line; frees it."""
        text = ""
        if error.value is not None:
            text = " ".join(error.value.decode(errors="replace").split())
            self._library.MpErrorFree(ctypes.cast(error, c_void_p))
        return text[:300] or self._statuses.get(status, f"status {status}")


_LANDMARK_FLOATS = ctypes.sizeof(Landmark) // 4
_KEYPOINT_FLOATS = ctypes.sizeof(Keypoint) // 4
_CATEGORY_FLOATS = ctypes.sizeof(Category) // 4


def _floats(address: int, rows: int, columns: int) -> NDArray[np.float32]:
    return np.frombuffer(ctypes.string_at(address, rows * columns * 4), np.float32).reshape(rows, columns)


def _frozen(array: NDArray[np.float32]) -> NDArray[np.float32]:
    array = np.ascontiguousarray(array)
    array.flags.writeable = False
    return array


def landmark_rows(native: Any) -> NDArray[np.float32]:
    """A copy of a native landmark list, shape (n, 10): x, y, z, –, visibility, –, presence, –, –, –."""
    return _floats(native.landmarks, native.landmarks_count, _LANDMARK_FLOATS)


def xyz(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Shape (n, 3), read-only."""
    return _frozen(rows[:, :3])


def visibility_and_presence(rows: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Each shape (n,), read-only, 0 to 1."""
    return _frozen(rows[:, 4]), _frozen(rows[:, 6])


def keypoints_xy(detection: Any) -> NDArray[np.float32]:
    """Shape (n, 2), read-only, normalised."""
    return _frozen(_floats(detection.keypoints, detection.keypoints_count, _KEYPOINT_FLOATS)[:, :2])


def scores_by_index(categories: Any) -> NDArray[np.float32]:
    """Shape (n,), read-only: the scores of all categories, each at its index."""
    address = ctypes.cast(categories.categories, c_void_p).value or 0
    rows = _floats(address, categories.categories_count, _CATEGORY_FLOATS)
    scores = np.empty(len(rows), np.float32)
    scores[rows.view(np.int32)[:, 0]] = rows[:, 1]
    scores.flags.writeable = False
    return scores


def best(categories: Any) -> tuple[str, float]:
    """Name and score of the first category, which is the likeliest."""
    first = categories.categories[0]
    return (first.category_name or b"").decode(), float(first.score)


def matrix(native: Any) -> NDArray[np.float32]:
    """Shape (rows, columns), read-only; native storage is column by column."""
    return _frozen(_floats(native.data, native.cols, native.rows).T)


def mask_pixels(image: int | None, dtype: type[np.float32] | type[np.uint8]) -> NDArray[Any]:
    """A copy of a one-channel native picture, shape (height, width), read-only."""
    native = library()
    pointer = c_void_p(image)
    width, height = native.MpImageGetWidth(pointer), native.MpImageGetHeight(pointer)
    if native.MpImageGetChannels(pointer) != 1:
        raise InferenceError("mediapipe answered with a mask of several channels")
    start, error = c_void_p(), c_char_p()
    read = native.MpImageDataFloat32 if dtype is np.float32 else native.MpImageDataUint8
    if read(pointer, byref(start), byref(error)) or not start.value:
        raise InferenceError("mediapipe answered with a mask that can't be read")
    itemsize = np.dtype(dtype).itemsize
    return np.frombuffer(ctypes.string_at(start.value, width * height * itemsize), dtype).reshape(height, width)
