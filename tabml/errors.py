"""Every error tabml raises on purpose, as one tree with stable codes.

::

    TabmlError
    ├── OptionError (ValueError)                    an option out of its range, or unknown
    │   └── InvalidNameError                        a model id or file name that is not a plain name
    ├── FrameError (ValueError)                     a picture or frame that cannot be used
    │   ├── FrameTooLargeError                      refused by its header, before decoding
    │   └── FrameOrderError                         a timestamp that does not go forward
    ├── StreamFormatError (ValueError)              a video or byte stream that cannot be read
    ├── SourceError (OSError)                       a camera, a screen or an address that gives no frames
    ├── ModelError (RuntimeError)
    │   ├── ModelClosedError                        used after close()
    │   ├── ModelForkedError                        a native model used in a forked child
    │   ├── ModelLoadError                          the native library refused the model
    │   ├── CorruptModelError (ValueError)          bytes that are not what they claim to be
    │   ├── UnsafeModelError (ValueError)           a model that would run code or leave its folder
    │   ├── ModelNotLoadedError                     a call that needs a loaded model
    │   ├── ModelKindError                          a loaded model of another kind than the call needs
    │   ├── ModelConflictError                      loaded already, with other options
    │   ├── ModelInUseError                         calls that would not end in time for an unload
    │   ├── InferenceError                          the native library failed on a good input
    │   └── AccuracyDropError                       smaller or converted, a model answers too differently
    ├── PipelineNotFoundError (LookupError)         no pipeline of that name
    ├── UnavailableHereError (NotImplementedError)  known, but not in this release or installation
    ├── CapacityError (RuntimeError)                too much is going on; try again a little later
    ├── CallCancelledError (RuntimeError)           the caller does not want the answer any more
    ├── ProviderError (OSError)
    │   ├── ModelFileNotFoundError (FileNotFoundError)
    │   ├── ProviderAccessError (PermissionError)   the source says who you are is not enough
    │   ├── ProviderUnavailableError (ConnectionError)
    │   └── ProviderTimeoutError (TimeoutError)
    └── MissingExtraError (ImportError)             an optional dependency is not installed

A message is one line: the argument, what was given, the remedy.
"""

from __future__ import annotations

import math
from typing import ClassVar


class TabmlError(Exception):
    """Root of the tree. ``code`` never changes between releases; messages may."""

    code: ClassVar[str] = "tabml"


class OptionError(TabmlError, ValueError):
    """An option is unknown or outside its range."""

    code = "option_invalid"


class InvalidNameError(OptionError):
    """A model id or file name is empty, a path, or carries control characters."""

    code = "name_invalid"


class FrameError(TabmlError, ValueError):
    """A picture or frame cannot be used as given."""

    code = "frame_invalid"


class FrameTooLargeError(FrameError):
    """A picture's header promises more pixels, bytes or scans than the limits allow."""

    code = "frame_too_large"


class FrameOrderError(FrameError):
    """A frame's timestamp is not later than the one before it."""

    code = "frame_order"


class StreamFormatError(TabmlError, ValueError):
    """A video or byte stream is not in a format that can be read or written."""

    code = "stream_format"


class SourceError(TabmlError, OSError):
    """A camera, a screen or an address gives no frames."""

    code = "source"


class ModelError(TabmlError, RuntimeError):
    """A model cannot be loaded or run."""

    code = "model"


class ModelClosedError(ModelError):
    """A model was used after ``close()``."""

    code = "model_closed"


class ModelForkedError(ModelError):
    """A model opened before ``fork()`` was used in the child."""

    code = "model_forked"


class ModelLoadError(ModelError):
    """The native library refused to build the model."""

    code = "model_load"


class CorruptModelError(ModelError, ValueError):
    """Model bytes differ from their checksum, size or format."""

    code = "model_corrupt"


class UnsafeModelError(ModelError, ValueError):
    """A model repository asks for code to run or for files outside itself."""

    code = "model_unsafe"


class InferenceError(ModelError):
    """The native library failed on an input that passed every check."""

    code = "inference"


class ModelNotLoadedError(ModelError):
    """A call names a model that is not loaded."""

    code = "model_not_loaded"


class ModelKindError(ModelError):
    """A call names a loaded model of another kind."""

    code = "model_kind"


class ModelConflictError(ModelError):
    """The model is loaded already, with other options."""

    code = "model_conflict"


class ModelInUseError(ModelError):
    """Calls still use a model that should be unloaded."""

    code = "model_in_use"


class AccuracyDropError(ModelError):
    """A quantised or converted model answers more differently than it may."""

    code = "accuracy_drop"

    def __init__(self, message: str, drop: float = math.nan, limit: float = math.nan) -> None:
        super().__init__(message, drop, limit)
        self.drop = drop
        """How much was lost, 0 to 1."""
        self.limit = limit
        """How much might have been."""

    def __str__(self) -> str:
        return str(self.args[0])


class PipelineNotFoundError(TabmlError, LookupError):
    """There is no pipeline of that name."""

    code = "pipeline_not_found"


class UnavailableHereError(TabmlError, NotImplementedError):
    """Known, but not in this release or not installed."""

    code = "unavailable_here"


class CapacityError(TabmlError, RuntimeError):
    """Too many calls, streams or models at once."""

    code = "capacity"

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message, retry_after_s)
        self.retry_after_s = retry_after_s
        """Seconds after which trying again makes sense."""

    def __str__(self) -> str:
        return str(self.args[0])


class CallCancelledError(TabmlError, RuntimeError):
    """The caller cancelled, or the model was unloaded under the call."""

    code = "cancelled"


class ProviderError(TabmlError, OSError):
    """A file provider could not deliver."""

    code = "provider"


class ModelFileNotFoundError(ProviderError, FileNotFoundError):
    """No provider has the file."""

    code = "model_file_not_found"


class ProviderAccessError(ProviderError, PermissionError):
    """The source refused access."""

    code = "provider_access"


class ProviderUnavailableError(ProviderError, ConnectionError):
    """The source cannot be reached, or the transfer was cut short."""

    code = "provider_unavailable"


class ProviderTimeoutError(ProviderError, TimeoutError):
    """The source stopped answering."""

    code = "provider_timeout"


class MissingExtraError(TabmlError, ImportError):
    """An optional dependency is missing; the message names the command that installs it."""

    code = "missing_extra"

    def __init__(self, extra: str, package: str) -> None:
        super().__init__(
            f"{package} is not installed; run: python -m pip install 'tabml[{extra}]'",
            name=package,
        )
        self._package = package
        self.extra = extra
        """The tabml extra that brings the package."""

    def __reduce__(self) -> tuple[type[MissingExtraError], tuple[str, str]]:
        return type(self), (self.extra, self._package)
