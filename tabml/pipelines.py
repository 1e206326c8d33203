"""What can be loaded by name: the table of pipelines, their options, and models of them that calls share."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from tabml.errors import (
    ModelFileNotFoundError,
    ModelKindError,
    OptionError,
    PipelineNotFoundError,
    TabmlError,
    UnavailableHereError,
)
from tabml.files import FileRef, HeldFiles
from tabml.files.catalog import find, load_catalog
from tabml.files.types import check_name

if TYPE_CHECKING:
    from tabml.vision._model import VisionModel
    from tabml.vision.frame import Frame

Value = bool | int | float | str
Family = Literal["vision", "text", "audio", "edge"]
MAX_MODEL_ID = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option of a pipeline."""

    name: str
    """As the library calls it."""
    default: Value
    """Where nothing is said; its type is the option's."""
    range: str
    """What is allowed, in words."""

    def parse(self, text: str) -> Value:
        """The value that ``text`` writes.

        Raises:
            OptionError: it is none of this option's type.
        """
        kind = type(self.default)
        with suppress(ValueError):
            if kind is bool and text.lower() in ("true", "1", "false", "0"):
                return text.lower() in ("true", "1")
            if kind is int:
                return int(text)
            if kind is float:
                return float(text)
            if kind is str:
                return text
        raise OptionError(f"{self.name}={text[:80]!r} must be {self.range}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """One kind of model."""

    name: str
    """What callers call it."""
    family: Family
    """Which part of tabml it is in."""
    models: tuple[str, ...] = ()
    """Models of the catalog that it takes, the default first."""
    options: tuple[Option, ...] = ()
    """What may be said when a model of it is opened."""
    classes: tuple[str, str] = ("", "")
    """Of :mod:`tabml.vision`: for single pictures, and for one stream."""
    verbs: tuple[str, str] = ("detect", "track")
    """Their methods."""
    capabilities: tuple[str, ...] = ()
    """The RPCs that use it."""
    reason: str = ""
    """Why it isn't available; empty when it is."""

    def option(self, name: str) -> Option:
        """One option.

        Raises:
            OptionError: it has no such option.
        """
        for option in self.options:
            if option.name == name:
                return option
        known = ", ".join(option.name for option in self.options)
        raise OptionError(f"{name[:80]!r} is not an option of {self.name}; there are: {known}")

    def parse(self, options: Mapping[str, str]) -> dict[str, Value]:
        """Options as they come in texts.

        Raises:
            OptionError: one is unknown, or not of its type.
        """
        return {name: self.option(name).parse(text) for name, text in options.items()}

    def default_model(self, options: Mapping[str, Value]) -> str:
        """The model of the catalog that these options ask for."""
        if options.get("range") == "full":
            return f"{self.models[0]}_full_range"
        if options.get("gestures") is False:
            return "hand_landmarker"
        return self.models[0]


def _confidence(name: str) -> Option:
    return Option(name=name, default=0.5, range="a number from 0 to 1")


_MANY = "a whole number from 1 to 100"
_TRACKING = tuple(_confidence(f"min_{what}_confidence") for what in ("detection", "presence", "tracking"))
_RANGE = Option(name="range", default="short", range="'short' or 'full'")
_ML = "/ml.MediapipeService/"
_ANALYZE = ("/tabml.v1.VisionService/Analyze", "/tabml.v1.VisionService/StreamAnalyze")


def _later(family: Family, *names: str) -> tuple[Pipeline, ...]:
    return tuple(
        Pipeline(name=name, family=family, reason=f"{name} comes with a later release of tabml") for name in names
    )


PIPELINES: Mapping[str, Pipeline] = {
    pipeline.name: pipeline
    for pipeline in (
        Pipeline(
            name="face-detection",
            family="vision",
            models=("face_detector", "face_detector_full_range"),
            options=(
                _RANGE,
                _confidence("min_detection_confidence"),
                Option(name="min_suppression_threshold", default=0.3, range="a number from 0 to 1"),
            ),
            classes=("FaceDetector", "FaceDetector"),
            verbs=("detect", "detect"),
            capabilities=(f"{_ML}DetectFaces", f"{_ML}StreamFaceDetection", *_ANALYZE),
        ),
        Pipeline(
            name="face-landmarks",
            family="vision",
            models=("face_landmarker", "face_landmarker_full_range"),
            options=(
                _RANGE,
                Option(name="num_faces", default=1, range=_MANY),
                Option(name="blendshapes", default=False, range="true or false"),
                Option(name="transform", default=False, range="true or false"),
                *_TRACKING,
            ),
            classes=("FaceMesh", "FaceMeshTracker"),
            capabilities=(f"{_ML}StreamFaceMesh", *_ANALYZE),
        ),
        Pipeline(
            name="hand-landmarks",
            family="vision",
            models=("gesture_recognizer", "hand_landmarker"),
            options=(
                Option(name="num_hands", default=2, range=_MANY),
                Option(name="gestures", default=True, range="true or false"),
                *_TRACKING,
            ),
            classes=("HandDetector", "HandTracker"),
            capabilities=(f"{_ML}DetectHands", f"{_ML}StreamHandTracking", *_ANALYZE),
        ),
        Pipeline(
            name="pose-landmarks",
            family="vision",
            models=("pose_landmarker_full", "pose_landmarker_lite", "pose_landmarker_heavy"),
            options=(Option(name="num_poses", default=1, range=_MANY), *_TRACKING),
            classes=("PoseDetector", "PoseTracker"),
            capabilities=(f"{_ML}DetectPose", f"{_ML}StreamPoseTracking", *_ANALYZE),
        ),
        Pipeline(
            name="image-segmentation",
            family="vision",
            models=("selfie_segmenter", "deeplab_v3"),
            options=(Option(name="kind", default="confidence", range="'confidence' or 'category'"),),
            classes=("Segmenter", "Segmenter"),
            verbs=("segment", "segment"),
            capabilities=(f"{_ML}StreamSelfieSegmentation", *_ANALYZE),
        ),
        *_later(
            "vision", "holistic-landmarks", "iris-tracking", "object-detection", "object-tracking",
            "object-detection-3d", "hair-segmentation", "template-matching", "auto-flip", "media-sequence",
            "image-classification", "image-feature-extraction", "image-to-text",
        ),
        *_later(
            "text", "text-generation", "feature-extraction", "text-ranking", "text-classification",
            "zero-shot-classification", "token-classification", "translation", "summarization",
        ),
        *_later(
            "audio", "automatic-speech-recognition", "text-to-speech", "audio-classification",
            "audio-feature-extraction",
        ),
        *_later("edge", "litert", "litert-lm"),
    )
}  # fmt: skip
"""Every pipeline by name. The names of text and audio are the Hugging Face hub's."""


def find_pipeline(name: str) -> Pipeline:
    """A pipeline by name; ``_`` counts as ``-``, capitals as small letters.

    Raises:
        PipelineNotFoundError: there is none of that name.
        UnavailableHereError: there is, but not in this release.
    """
    pipeline = PIPELINES.get(name.lower().replace("_", "-"))
    if pipeline is None:
        import difflib

        near = difflib.get_close_matches(name.lower(), PIPELINES, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "see ListPipelines"
        raise PipelineNotFoundError(f"pipeline={name[:80]!r} is not known; {hint}")
    if pipeline.reason:
        raise UnavailableHereError(f"pipeline={pipeline.name!r}: {pipeline.reason}")
    return pipeline


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """What a load asks for; two loads are the same when these are equal."""

    pipeline: str
    """A name of :data:`PIPELINES`."""
    ref: FileRef
    """Its file."""
    options: tuple[tuple[str, Value], ...] = ()
    """The defaults of calls that use it, sorted by name."""

    def __str__(self) -> str:
        said = ", ".join(f"{name}={value!r}" for name, value in self.options)
        return f"{self.pipeline} {self.ref}{' ' + said if said else ''}"


def model_spec(
    model_id: str,
    *,
    pipeline: str = "",
    architecture: str = "",
    options: Mapping[str, Value] | Mapping[str, str] | None = None,
    file: str = "",
    revision: str = "",
) -> ModelSpec:
    """What a model's name and options mean.

    Args:
        model_id: A model of the catalog, or one that only the provider knows.
        pipeline: A name of :data:`PIPELINES`; may be empty for models of the catalog.
        architecture: Must be empty for vision models, which have one each.
        options: The pipeline's options, as values or as texts.
        file: The model's file; needed where it isn't in the catalog.
        revision: The version, where the provider knows versions.

    Raises:
        InvalidNameError: ``model_id``, ``file`` or ``revision`` is not a plain name.
        ModelFileNotFoundError: the model is not in the catalog, and no pipeline or file is said.
        PipelineNotFoundError: there is no such pipeline.
        UnavailableHereError: the pipeline is not in this release.
        ModelKindError: the catalog knows the model as another pipeline's.
        OptionError: an option is unknown or not allowed.
    """
    check_name("model_id", model_id)
    if len(model_id) > MAX_MODEL_ID:
        raise OptionError(f"model_id={model_id[:40]!r}… must have at most {MAX_MODEL_ID} characters")
    for what, name in (("file", file), ("revision", revision)):
        if name:
            check_name(what, name)
    entry = load_catalog().get(model_id)
    asked = find_pipeline(pipeline) if pipeline else None
    found = next((one for one in PIPELINES.values() if model_id in one.models), None)
    if found is not None and asked is not None and asked is not found:
        raise ModelKindError(f"model_id={model_id!r} is a model for {found.name}, not for {asked.name}")
    chosen = asked or found
    if chosen is None:
        if entry is None:
            find(model_id)  # says what there is
        raise OptionError(f"pipeline='' must be given for model_id={model_id!r}; see ListPipelines")
    if architecture and architecture.lower() not in (chosen.name, model_id.lower()):
        raise OptionError(f"architecture={architecture[:80]!r} must be empty: {chosen.name} has only one")
    if entry is not None and (not file or file == entry.file):
        ref = FileRef(model_id, entry.file, revision or None)
    elif file:
        ref = FileRef(model_id, file, revision or None)
    else:
        raise ModelFileNotFoundError(
            f"model_id={model_id!r} is not in the catalog; say its file, or take one of {', '.join(chosen.models)}"
        )
    values = {
        name: chosen.option(name).parse(value) if isinstance(value, str) else value
        for name, value in (options or {}).items()
    }
    _check_options(chosen, model_id, values)
    return ModelSpec(pipeline=chosen.name, ref=ref, options=tuple(sorted(values.items())))


def _check_options(pipeline: Pipeline, model_id: str, options: Mapping[str, Value]) -> None:
    """Ask the class itself, which opens nothing yet."""
    _make(pipeline, model_id, options, None, stream=False)


def _make(
    pipeline: Pipeline, model: str | FileRef, options: Mapping[str, Value], files: HeldFiles | None, *, stream: bool
) -> VisionModel[Any]:
    import tabml.vision

    for name in options:
        pipeline.option(name)
    model_id = model.repo if isinstance(model, FileRef) else model
    said = dict(options)
    if "range" in said and (said["range"] == "full") != model_id.endswith("_full_range"):
        raise OptionError(f"range={said['range']!r} is not what model_id={model_id!r} has")
    if model_id == "hand_landmarker" and said.setdefault("gestures", False):
        raise OptionError("gestures=True needs a gesture recognizer; model_id='hand_landmarker' is none")
    if model_id == "gesture_recognizer" and not said.get("gestures", True):
        raise OptionError("gestures=False needs model_id='hand_landmarker'; 'gesture_recognizer' is none")
    kind = getattr(tabml.vision, pipeline.classes[stream])
    opened: VisionModel[Any] = kind(model=model, files=files, **said)
    return opened


_Key = tuple[tuple[str, Value], ...]


class LoadedVision:
    """A vision model that calls share: its bytes once, and as many native tasks as run at a time.

    What keeps nothing between frames is lent from a pool; a stream's tracker is made for it alone.
    """

    def __init__(self, spec: ModelSpec, files: HeldFiles) -> None:
        """Nothing is fetched yet.

        Args:
            spec: Which model.
            files: Where its files come from; closed with the model.
        """
        self.spec = spec
        """What it was loaded with."""
        self.files = files
        """Its files in memory."""
        self.pipeline = PIPELINES[spec.pipeline]
        """What it is."""
        self._lock = threading.Lock()
        self._idle: list[tuple[_Key, VisionModel[Any]]] = []
        self._most_idle = os.cpu_count() or 1
        self._closed = False

    def load(self) -> LoadedVision:
        """Fetch the file and open one task, so that a bad model is told now.

        Raises:
            TabmlError: as :meth:`tabml.vision.FaceDetector.load`.
        """
        with self.detector():
            pass
        return self

    @contextmanager
    def detector(self, options: Mapping[str, Value] | None = None) -> Iterator[VisionModel[Any]]:
        """A model for single pictures, lent for one call.

        Raises:
            OptionError: an option is unknown or not allowed.
        """
        key, model = self._lend(options)
        try:
            yield model
        except TabmlError:  # a bad frame does no harm to the task
            self._take_back(key, model)
            raise
        except BaseException:
            model.close()
            raise
        self._take_back(key, model)

    def _lend(self, options: Mapping[str, Value] | None) -> tuple[_Key, VisionModel[Any]]:
        said = self._said(options)
        key = tuple(sorted(said.items()))
        with self._lock:
            for at, (known, model) in enumerate(self._idle):
                if known == key:
                    del self._idle[at]
                    return key, model
        return key, _make(self.pipeline, self.spec.ref, said, self.files, stream=False).load()

    def _take_back(self, key: _Key, model: VisionModel[Any]) -> None:
        with self._lock:
            self._idle.append((key, model))
            late = [self._idle.pop(0)[1]] if len(self._idle) > self._most_idle or self._closed else []
        for each in late:
            each.close()

    def tracker(self, options: Mapping[str, Value] | None = None) -> VisionModel[Any] | None:
        """A model of its own for one stream, which closes it; None where the pipeline keeps nothing between frames.

        Raises:
            OptionError: an option is unknown or not allowed.
        """
        said = self._said(options)
        if self.pipeline.classes[0] == self.pipeline.classes[1]:
            _make(self.pipeline, self.spec.ref, said, self.files, stream=False)
            return None
        return _make(self.pipeline, self.spec.ref, said, self.files, stream=True)

    def answer(self, frame: Frame, options: Mapping[str, Value] | None, tracker: VisionModel[Any] | None) -> Any:
        """The result of one frame, by the stream's tracker or else by one that is lent."""
        if tracker is not None:
            return getattr(tracker, self.pipeline.verbs[1])(frame)
        with self.detector(options) as model:
            return getattr(model, self.pipeline.verbs[0])(frame)

    def close(self) -> None:
        """Free the idle tasks and let go of the files; those that are lent go when they come back."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for _, model in idle:
            model.close()
        self.files.close()

    def _said(self, options: Mapping[str, Value] | None) -> dict[str, Value]:
        return {**dict(self.spec.options), **(options or {})}


def prewarm(family: str) -> None:
    """Import what a family needs, so that the first call doesn't wait for it.

    Raises:
        MissingExtraError: its extra is not installed.
    """
    if family != "vision":
        return
    import tabml.vision
    from tabml.vision import _mediapipe

    _mediapipe.library()
    tabml.vision.Frame.from_named(bytes(6), "yuv420", width=2, height=2).to_rgb()
