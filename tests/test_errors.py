"""The error tree: drawn as it is, with stable codes."""

from __future__ import annotations

import inspect
import pickle
import re

from tabml import errors

TREE = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.TabmlError)]

CODES = {
    "TabmlError": "tabml", "OptionError": "option_invalid", "InvalidNameError": "name_invalid",
    "FrameError": "frame_invalid", "FrameTooLargeError": "frame_too_large", "FrameOrderError": "frame_order",
    "SourceError": "source",
    "StreamFormatError": "stream_format", "ModelError": "model", "ModelClosedError": "model_closed",
    "ModelForkedError": "model_forked", "ModelLoadError": "model_load", "CorruptModelError": "model_corrupt",
    "UnsafeModelError": "model_unsafe", "InferenceError": "inference", "ProviderError": "provider",
    "ModelFileNotFoundError": "model_file_not_found", "ProviderAccessError": "provider_access",
    "ProviderUnavailableError": "provider_unavailable", "ProviderTimeoutError": "provider_timeout",
    "MissingExtraError": "missing_extra", "ModelNotLoadedError": "model_not_loaded", "ModelKindError": "model_kind",
    "ModelConflictError": "model_conflict", "ModelInUseError": "model_in_use",
    "PipelineNotFoundError": "pipeline_not_found", "UnavailableHereError": "unavailable_here",
    "CapacityError": "capacity", "CallCancelledError": "cancelled",
    "AccuracyDropError": "accuracy_drop",
}  # fmt: skip


def test_codes_never_change() -> None:
    assert {kind.__name__: kind.code for kind in TREE} == CODES


def test_the_drawing_is_the_tree() -> None:
    drawn = re.findall(r"^ *[│ ]*[├└]── (\w+)(?: \((\w+)\))?", errors.__doc__ or "", re.MULTILINE)
    assert {name for name, _ in drawn} == {kind.__name__ for kind in TREE} - {"TabmlError"}
    for name, builtin in drawn:
        bases = {base.__name__ for base in getattr(errors, name).__mro__}
        assert not builtin or builtin in bases, name


def test_errors_cross_processes() -> None:
    for kind in TREE:
        problem = kind("vision", "cv2") if kind is errors.MissingExtraError else kind("what happened")
        again = pickle.loads(pickle.dumps(problem))
        assert type(again) is kind
        assert str(again) == str(problem)
