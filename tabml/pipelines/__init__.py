"""What can be loaded by name: the table of pipelines, their options, and models of them that calls share."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypedDict, overload

from tabml.errors import (
    ModelFileNotFoundError,
    ModelKindError,
    OptionError,
    PipelineNotFoundError,
    UnavailableHereError,
)
from tabml.files import FileRef, HeldFiles
from tabml.files.catalog import find, load_catalog
from tabml.files.types import check_name

if TYPE_CHECKING:
    from typing import Self, Unpack

    from tabml.edge import LiteLM, LiteModel
    from tabml.files import FileProvider, Progress
    from tabml.files.sources import ModelSource
    from tabml.lifecycle import LazyModel
    from tabml.text import (
        MaskFiller,
        QuestionAnswerer,
        Reranker,
        Summarizer,
        TextClassifier,
        TextEmbedder,
        TextGenerator,
        TokenClassifier,
        Tokenizer,
        Translator,
        ZeroShotClassifier,
    )

    class TextOptions(TypedDict, total=False):
        """What every text model takes."""

        files: FileProvider | None
        revision: str | None
        architecture: str | None
        device: str
        dtype: str
        quantization: str | None
        progress: Progress | None
        allow_pickle: bool
        trust_remote_code: bool


Value = bool | int | float | str
Family = Literal["vision", "text", "audio", "edge"]
MAX_MODEL_ID = 256
_ONE_FILE: Mapping[str, tuple[str, ...]] = {"text": (".gguf",), "edge": (".tflite", ".litertlm", ".task")}
"""How names of models end that are one file."""


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
    factory: str = ""
    """Of other families: ``module:Class``."""
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

    def shares_models(self, other: Pipeline) -> bool:
        """Whether a model that was loaded for this pipeline serves the other one too."""
        return self is other or bool(set(self.models) & set(other.models))

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
        if (category := options.get("category")) is not None and f"objectron_{category}" in self.models:
            return f"objectron_{category}"
        if options.get("gestures") is False:
            return "hand_landmarker"
        return self.models[0]


def _confidence(name: str) -> Option:
    return Option(name=name, default=0.5, range="a number from 0 to 1")


_MANY = "a whole number from 1 to 100"
_TRACKING = tuple(_confidence(f"min_{what}_confidence") for what in ("detection", "presence", "tracking"))
_RANGE = Option(name="range", default="short", range="'short' or 'full'")
_SCORE = _confidence("score_threshold")
_SUPPRESSION = Option(name="min_suppression_threshold", default=0.3, range="a number from 0 to 1")
_CATEGORIES = tuple(
    Option(name=f"category_{kind}list", default="", range="names, separated by commas") for kind in ("allow", "deny")
)
_ML = "/ml.MediapipeService/"
_TEXT, _EDGE = "/tabml.v1.TextService/", "/tabml.v1.EdgeService/"
_ANALYZE = ("/tabml.v1.VisionService/Analyze", "/tabml.v1.VisionService/StreamAnalyze")


def _later(family: Family, *names: str) -> tuple[Pipeline, ...]:
    return tuple(
        Pipeline(name=name, family=family, reason=f"{name} comes with a later release of tabml") for name in names
    )


def _text(
    name: str, factory: str, *capabilities: str, models: tuple[str, ...] = (), options: tuple[Option, ...] = ()
) -> Pipeline:
    return Pipeline(
        name=name,
        family="text",
        factory=f"tabml.text.{factory}",
        models=models,
        options=(*_PLACEMENT, *options),
        capabilities=tuple(f"{_TEXT}{rpc}" for rpc in capabilities),
    )


_PLACEMENT = (
    Option(name="device", default="auto", range="'auto', 'cpu', 'cuda', 'cuda:N' or 'mps'"),
    Option(name="dtype", default="auto", range="'auto', 'float32', 'bfloat16' or 'float16'"),
    Option(name="quantization", default="", range="'int8', 'int4', or empty for none"),
)
_GENERATOR = (
    Option(name="engine", default="auto", range="'auto', 'torch' or 'llama.cpp'"),
    Option(name="context_length", default=0, range="tokens from 16 to the model's own, or 0 for that"),
    Option(name="adapters", default="", range="LoRA adapters as name=repository, with commas between them"),
)
TEXT_PIPELINES = (
    _text("text-generation", "generation:TextGenerator", "Generate", "Chat", "Infill", "Tokenize", "Detokenize",
          models=("smollm2-135m-instruct",), options=_GENERATOR),
    _text("feature-extraction", "embedding:TextEmbedder", "Embed", models=("all-minilm-l6-v2",)),
    _text("text-ranking", "ranking:Reranker", "Rerank"),
    _text("text-classification", "classification:TextClassifier", "Classify"),
    _text("zero-shot-classification", "classification:ZeroShotClassifier", "Classify"),
    _text("token-classification", "entities:TokenClassifier", "ExtractEntities"),
    _text("translation", "translation:Translator", "Translate"),
    _text("summarization", "summarization:Summarizer", "Summarize"),
    _text("question-answering", "questions:QuestionAnswerer", "Answer"),
    _text("fill-mask", "masks:MaskFiller", "FillMask"),
    _text("tokenization", "tokenizer:Tokenizer", "Tokenize", "Detokenize"),
)  # fmt: skip

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
                _SUPPRESSION,
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
            options=(
                Option(name="kind", default="confidence", range="'confidence' or 'category'"),
                Option(name="classes", default="", range="names, separated by commas"),
                Option(name="size", default="frame", range="'frame' or 'model'"),
            ),
            classes=("Segmenter", "Segmenter"),
            verbs=("segment", "segment"),
            capabilities=(f"{_ML}StreamSelfieSegmentation", *_ANALYZE),
        ),
        Pipeline(
            name="hair-segmentation",
            family="vision",
            options=(Option(name="size", default="frame", range="'frame' or 'model'"),),
            classes=("HairSegmenter", "HairSegmenter"),
            verbs=("segment", "segment"),
            capabilities=(f"{_ML}StreamHairSegmentation",),
        ),
        Pipeline(
            name="iris-tracking",
            family="vision",
            models=("face_landmarker", "face_landmarker_full_range"),
            options=(
                Option(name="num_faces", default=1, range=_MANY),
                _RANGE,
                Option(name="blink_threshold", default=0.2, range="a number from 0 to 1"),
                Option(name="focal_length_px", default=0.0, range="a number of pixels; 0 when it is unknown"),
                *_TRACKING,
            ),
            classes=("IrisDetector", "IrisTracker"),
            capabilities=(f"{_ML}StreamIrisTracking", *_ANALYZE),
        ),
        Pipeline(
            name="object-detection",
            family="vision",
            models=("efficientdet_lite0",),
            options=(_SCORE, Option(name="max_results", default=0, range=f"{_MANY}; 0 for all"), *_CATEGORIES, _SUPPRESSION),
            classes=("ObjectDetector", "ObjectDetector"),
            verbs=("detect", "detect"),
            capabilities=(f"{_ML}StreamObjectDetection", *_ANALYZE),
        ),
        Pipeline(
            name="object-tracking",
            family="vision",
            models=("efficientdet_lite0",),
            options=(
                _SCORE,
                Option(name="low_score_threshold", default=0.1, range="a number from 0 to 1"),
                Option(name="lost_ms", default=1000.0, range="a number of milliseconds"),
                Option(name="trajectory_length", default=64, range="a whole number from 1 to 10000"),
                Option(name="max_results", default=0, range=f"{_MANY}; 0 for all; in single pictures only"),
                *_CATEGORIES,
                _SUPPRESSION,
            ),
            classes=("ObjectDetector", "ObjectTracker"),
            capabilities=(f"{_ML}StreamObjectTracking", *_ANALYZE),
        ),
        Pipeline(
            name="holistic-landmarks",
            family="vision",
            models=("pose_landmarker_full", "pose_landmarker_lite", "pose_landmarker_heavy", "holistic_landmarker"),
            options=(Option(name="blendshapes", default=False, range="true or false"), *_TRACKING),
            classes=("HolisticDetector", "HolisticTracker"),
            capabilities=(f"{_ML}StreamHolisticTracking", *_ANALYZE),
        ),
        Pipeline(
            name="image-classification",
            family="vision",
            models=("efficientnet_lite0", "efficientnet_lite0_float32"),
            options=(
                Option(name="max_results", default=5, range=_MANY),
                Option(name="score_threshold", default=0.0, range="a number from 0 to 1"),
                *_CATEGORIES,
            ),
            classes=("ImageClassifier", "ImageClassifier"),
            verbs=("classify", "classify"),
            capabilities=("/tabml.v1.VisionService/ClassifyImage",),
        ),
        Pipeline(
            name="image-feature-extraction",
            family="vision",
            models=("efficientnet_lite0_float32", "efficientnet_lite0"),
            options=(
                Option(name="l2_normalize", default=True, range="true or false"),
                Option(name="layer", default="auto", range="'auto', 'features' or 'output'"),
            ),
            classes=("ImageEmbedder", "ImageEmbedder"),
            verbs=("embed", "embed"),
            capabilities=("/tabml.v1.VisionService/EmbedImage",),
        ),
        *(
            Pipeline(name=name, family="vision", reason=f"{name} needs no model to be loaded; call {rpc}")
            for name, rpc in (
                ("template-matching", "StreamTemplateMatching"),
                ("auto-flip", "StreamAutoFlip"),
                ("media-sequence", "ProcessMediaSequence"),
            )
        ),
        Pipeline(
            name="object-detection-3d",
            family="vision",
            models=("objectron_chair", "objectron_cup", "objectron_camera", "objectron_sneakers"),
            options=(
                Option(name="category", default="chair", range="'chair', 'cup', 'camera' or 'sneakers'"),
                Option(name="max_objects", default=5, range=_MANY),
                _confidence("min_detection_confidence"),
                _confidence("min_presence_confidence"),
                Option(name="focal_length_px", default=0.0, range="a number of pixels; 0 when it is unknown"),
            ),
            classes=("ObjectDetector3D", "ObjectDetector3D"),
            verbs=("detect", "detect"),
            capabilities=(f"{_ML}StreamObjectDetection3D", *_ANALYZE),
        ),
        *_later(
            "vision",
            "image-to-text",
        ),
        *TEXT_PIPELINES,
        *_later(
            "audio", "automatic-speech-recognition", "text-to-speech", "audio-classification",
            "audio-feature-extraction",
        ),
        Pipeline(
            name="litert",
            family="edge",
            factory="tabml.edge.models:LiteModel",
            options=(
                Option(name="threads", default=0, range="a whole number from 1 to 64; 0 for every core"),
                Option(name="accelerator", default="cpu", range="'cpu', 'gpu', 'npu' or 'auto'"),
                Option(name="member", default="", range="a .tflite file of a .task bundle, or empty for its only one"),
                Option(name="allow_nan", default=False, range="true or false"),
            ),
            capabilities=tuple(f"{_EDGE}{rpc}" for rpc in ("Describe", "Run", "StreamRun", "Benchmark")),
        ),
        Pipeline(
            name="litert-lm",
            family="edge",
            factory="tabml.edge.lm:LiteLM",
            options=(
                Option(name="device", default="cpu", range="'cpu' or 'gpu'"),
                Option(name="threads", default=0, range="a whole number from 1 to 64; 0 for every core"),
                Option(name="context_length", default=0, range="tokens, at least 16; 0 for what the file says"),
                Option(name="conversations", default=4, range="a whole number from 0 to 64"),
            ),
            capabilities=(
                *(f"{_EDGE}{rpc}" for rpc in ("Describe", "Generate", "Benchmark")),
                *(f"{_TEXT}{rpc}" for rpc in ("Generate", "Chat")),
            ),
        ),
    )
}  # fmt: skip
"""Every pipeline by name. The names of text and audio are the Hugging Face hub's."""


_OTHER_NAMES: Mapping[str, str] = {
    "ner": "token-classification", "sentiment-analysis": "text-classification", "translation-": "translation",
    "text2text-generation": "summarization", "sentence-similarity": "feature-extraction",
    "embedding": "feature-extraction", "chat": "text-generation", "conversational": "text-generation",
    "rerank": "text-ranking",
}  # fmt: skip
"""How names begin that the Hugging Face hub, transformers and users have for some."""


@cache
def _plugged_in() -> Mapping[str, Pipeline]:
    """Pipelines of other packages: entry points of the group ``tabml.pipelines``, each a :class:`Pipeline`."""
    from importlib import metadata

    found = {}
    for entry in metadata.entry_points(group="tabml.pipelines"):
        try:
            pipeline = entry.load()
        except Exception as problem:
            pipeline = Pipeline(name=entry.name, family="text", reason=f"{entry.value} failed: {problem}")
        if not isinstance(pipeline, Pipeline):
            pipeline = Pipeline(name=entry.name, family="text", reason=f"{entry.value} is not a Pipeline")
        found[pipeline.name] = pipeline
    return found


def known_pipelines() -> Mapping[str, Pipeline]:
    """:data:`PIPELINES`, and those of installed packages."""
    return {**_plugged_in(), **PIPELINES}


def find_pipeline(name: str, *, argument: Literal["pipeline", "task"] = "pipeline") -> Pipeline:
    """A pipeline by name; ``_`` counts as ``-``, capitals as small letters.

    Args:
        name: The name.
        argument: What the caller calls it, for messages: a ``task`` is opened by its name, which pipelines on pictures
            are not.

    Raises:
        PipelineNotFoundError: there is none of that name; the message lists those there are.
        UnavailableHereError: there is, but not in this release.
        OptionError: it is no text.
    """
    if not isinstance(name, str):
        raise OptionError(f"{argument}={name!r:.80} must be a name, such as 'text-generation'")
    pipelines = known_pipelines()
    plain = name.lower().replace("_", "-")
    pipeline = pipelines.get(plain)
    if pipeline is None:
        import difflib

        there = [each for each in pipelines.values() if not each.reason and (each.factory or argument == "pipeline")]
        names = [each.name for each in there]
        other = next((other for begin, other in _OTHER_NAMES.items() if plain.startswith(begin)), None)
        near = [other] if other else difflib.get_close_matches(plain, names, n=1)
        hint = f"did you mean {near[0]!r}? There are" if near else "there are"
        raise PipelineNotFoundError(f"{argument}={name[:80]!r} is not known; {hint}: {', '.join(names)}")
    if pipeline.reason:
        raise UnavailableHereError(f"{argument}={pipeline.name!r}: {pipeline.reason}")
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
    architecture: str = ""
    """The class or model type that it must be; empty for any."""

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
        architecture: For text models the class (``LlamaForCausalLM``) or model type (``llama``) that it must be;
            empty for vision models, which have one each.
        options: The pipeline's options, as values or as texts.
        file: The model's file; needed for a model that isn't in the catalog, unless ``model_id`` ends with the name of
            one, as in ``me/model/model.litertlm``, or is a folder of a text model.
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
    known = [one for one in PIPELINES.values() if model_id in one.models]
    if known and asked is not None and asked not in known and asked.family != "edge":
        raise ModelKindError(
            f"model_id={model_id!r} is a model for {' and '.join(one.name for one in known)}, not for {asked.name}"
        )
    chosen = asked or next(iter(known), None)
    if chosen is None:
        if entry is None:
            find(model_id)  # says what there is
        names = ", ".join(one.name for one in known_pipelines().values() if not one.reason)
        raise OptionError(f"pipeline='' must be given for model_id={model_id!r}; there are: {names}")
    is_text = chosen.family == "text"
    if architecture and not is_text and architecture.lower() not in (chosen.name, model_id.lower()):
        raise OptionError(f"architecture={architecture[:80]!r} must be empty: {chosen.name} has only one")
    if entry is not None and (not file or file == entry.file):
        ref = FileRef(model_id, entry.file, revision or None)
    elif file:
        ref = FileRef(model_id, file, revision or None)
    elif (parts := model_id.rpartition("/"))[0] and parts[2].endswith(_ONE_FILE.get(chosen.family, ())):
        ref = FileRef(parts[0], parts[2], revision or None)
    elif is_text:
        ref = FileRef(model_id, "config.json", revision or None)
    else:
        others = f", or take one of {', '.join(chosen.models)}" if chosen.models else ""
        raise ModelFileNotFoundError(f"model_id={model_id!r} is not in the catalog; say its file{others}")
    values = {
        name: chosen.option(name).parse(value) if isinstance(value, str) else value
        for name, value in (options or {}).items()
    }
    spec = ModelSpec(
        pipeline=chosen.name,
        ref=ref,
        options=tuple(sorted(values.items())),
        architecture=architecture if is_text else "",
    )
    _check_options(chosen, spec)
    return spec


def _check_options(pipeline: Pipeline, spec: ModelSpec) -> None:
    """Ask the class itself, which opens nothing yet."""
    if pipeline.family == "vision":
        from tabml.pipelines.vision import make

        make(pipeline, spec.ref.repo, dict(spec.options), None, stream=False)
    else:
        _shared(pipeline, spec, None)


def _shared(pipeline: Pipeline, spec: ModelSpec, files: HeldFiles | None) -> Any:
    """A model of another family than vision; nothing is fetched yet."""
    if pipeline.family == "edge":
        from tabml.pipelines.edge import make_edge

        return make_edge(pipeline, spec, files)
    from tabml.pipelines.text import make_text

    return make_text(pipeline, spec, files)


@overload
def open_pipeline(
    task: Literal["text-generation"],
    model: ModelSource,
    *,
    engine: str = "auto",
    context_length: int | None = None,
    **options: Unpack[TextOptions],
) -> TextGenerator: ...
@overload
def open_pipeline(
    task: Literal["feature-extraction"], model: ModelSource, **options: Unpack[TextOptions]
) -> TextEmbedder: ...
@overload
def open_pipeline(task: Literal["text-ranking"], model: ModelSource, **options: Unpack[TextOptions]) -> Reranker: ...
@overload
def open_pipeline(
    task: Literal["text-classification"], model: ModelSource, **options: Unpack[TextOptions]
) -> TextClassifier: ...
@overload
def open_pipeline(
    task: Literal["zero-shot-classification"], model: ModelSource, **options: Unpack[TextOptions]
) -> ZeroShotClassifier: ...
@overload
def open_pipeline(
    task: Literal["token-classification"], model: ModelSource, **options: Unpack[TextOptions]
) -> TokenClassifier: ...
@overload
def open_pipeline(task: Literal["translation"], model: ModelSource, **options: Unpack[TextOptions]) -> Translator: ...
@overload
def open_pipeline(task: Literal["summarization"], model: ModelSource, **options: Unpack[TextOptions]) -> Summarizer: ...
@overload
def open_pipeline(
    task: Literal["question-answering"], model: ModelSource, **options: Unpack[TextOptions]
) -> QuestionAnswerer: ...
@overload
def open_pipeline(task: Literal["fill-mask"], model: ModelSource, **options: Unpack[TextOptions]) -> MaskFiller: ...
@overload
def open_pipeline(task: Literal["tokenization"], model: ModelSource, **options: Unpack[TextOptions]) -> Tokenizer: ...
@overload
def open_pipeline(
    task: Literal["litert-lm"],
    model: ModelSource,
    *,
    files: FileProvider | None = None,
    revision: str | None = None,
    device: str = "cpu",
    threads: int | None = None,
    context_length: int | None = None,
    conversations: int = 4,
) -> LiteLM: ...
@overload
def open_pipeline(
    task: Literal["litert"],
    model: ModelSource,
    *,
    files: FileProvider | None = None,
    member: str | None = None,
    threads: int | None = None,
    accelerator: str = "cpu",
    allow_nan: bool = False,
) -> LiteModel: ...
@overload
def open_pipeline(task: str, model: ModelSource, **options: Any) -> LazyModel[Any]: ...
def open_pipeline(task: str, model: ModelSource, **options: Any) -> Any:
    """A text or edge model by its task; nothing is fetched yet.

    Args:
        task: A name of the families ``text`` and ``edge`` in :func:`known_pipelines`, such as ``text-generation``.
        model: As its class takes it, such as :class:`tabml.text.TextGenerator`.
        **options: Of its class; for text ``files``, ``revision``, ``architecture``, ``device``, ``dtype``,
            ``quantization``, ``progress``, ``allow_pickle``, ``trust_remote_code``, and for ``text-generation`` also
            ``engine`` and ``context_length``.

    Raises:
        PipelineNotFoundError: there is no such task; the message lists those there are.
        ModelKindError: it is a task on pictures.
        OptionError: an option is not allowed.
    """
    pipeline = find_pipeline(task, argument="task")
    if not pipeline.factory:
        tasks = ", ".join(each.name for each in known_pipelines().values() if each.factory)
        raise ModelKindError(f"task={task!r:.80} is one of {pipeline.family}; tasks that are opened by name: {tasks}")
    from tabml.pipelines.shared import class_of

    kind = class_of(pipeline)
    unknown = sorted(set(options) - set(inspect.signature(kind).parameters))
    if unknown:
        raise OptionError(f"{unknown[0]!r:.80} is not an option of {pipeline.name}")
    return kind(model, **options)


class Loaded(Protocol):
    """A model that calls share."""

    @property
    def spec(self) -> ModelSpec:
        """What it was loaded with."""
        ...

    @property
    def files(self) -> HeldFiles:
        """Its files, and what fetching them cost."""
        ...

    @property
    def pipeline(self) -> Pipeline:
        """What it is."""
        ...

    rss_bytes: int
    """Growth of the process while it was loaded, where that was measured."""

    def load(self) -> Self:
        """Fetch and open it."""
        ...

    def close(self) -> None:
        """Free it."""
        ...


def open_model(spec: ModelSpec, files: HeldFiles) -> Loaded:
    """A model of any family; nothing is fetched before ``load``.

    Args:
        spec: Which model.
        files: Where its files come from; closed with the model.
    """
    pipeline = find_pipeline(spec.pipeline)
    if pipeline.family == "vision":
        from tabml.pipelines.vision import LoadedVision

        return LoadedVision(spec, files)
    from tabml.pipelines.shared import SharedModel

    return SharedModel(spec, files, _shared(pipeline, spec, files))


def prewarm(family: str) -> None:
    """Import what a family needs, so that the first call doesn't wait for it.

    Raises:
        MissingExtraError: its extra is not installed.
    """
    if family == "text":
        from tabml.text._door import text_extra

        with text_extra():
            import tabml.text._torch.causal
        return
    if family == "edge":
        import tabml._litert.graph
        import tabml.edge.models
    if family != "vision":
        return
    import tabml.vision
    from tabml.vision import _mediapipe

    _mediapipe.library()
    tabml.vision.Frame.from_named(bytes(6), "yuv420", width=2, height=2).to_rgb()
