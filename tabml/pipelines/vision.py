"""Vision models that calls share."""

from __future__ import annotations

import inspect
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import tabml.vision
from tabml.errors import OptionError, TabmlError
from tabml.files import FileRef, HeldFiles
from tabml.pipelines import ModelSpec, Pipeline, Value, find_pipeline

if TYPE_CHECKING:
    from typing import Self

    from tabml.vision._model import VisionModel
    from tabml.vision.frame import Frame


def make(
    pipeline: Pipeline, model: str | FileRef, options: Mapping[str, Value], files: HeldFiles | None, *, stream: bool
) -> VisionModel[Any]:
    """A vision model; nothing is opened yet.

    Raises:
        OptionError: an option is unknown, not allowed, or not what the model has.
    """
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
    if model_id.startswith("objectron_"):
        category = model_id.removeprefix("objectron_")
        if said.setdefault("category", category) != category:
            raise OptionError(f"category={said['category']!r} is not what model_id={model_id!r} has")
    kind = getattr(tabml.vision, pipeline.classes[stream])
    known = inspect.signature(kind).parameters
    taken: dict[str, object] = {
        name: _value(known[name].default, value) for name, value in said.items() if name in known
    }
    if "threads" in known:
        taken["threads"] = 1  # calls and streams run side by side
    opened: VisionModel[Any] = kind(model=model, files=files, **taken)
    return opened


def _value(default: object, value: Value) -> object:
    """A value as the class takes it: None and sequences have none of their own here."""
    if default is None:
        return value or None
    if isinstance(default, tuple):
        return tuple(filter(None, (each.strip() for each in str(value).split(","))))
    return value


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
        self.pipeline = find_pipeline(spec.pipeline)
        """What it is."""
        self.rss_bytes = 0
        """Growth of the process while it was loaded, where that was measured."""
        self._lock = threading.Lock()
        self._idle: list[tuple[_Key, VisionModel[Any]]] = []
        self._most_idle = os.cpu_count() or 1
        self._closed = False
        self._others: dict[str, LoadedVision] = {}

    def serving(self, pipeline: Pipeline) -> LoadedVision:
        """The same files as another pipeline's model; options of the load that it doesn't know are left out."""
        if pipeline is self.pipeline:
            return self
        with self._lock:
            found = self._others.get(pipeline.name)
            if found is None:
                known = {option.name for option in pipeline.options}
                options = tuple((name, value) for name, value in self.spec.options if name in known)
                found = LoadedVision(replace(self.spec, pipeline=pipeline.name, options=options), self.files)
                found._closed = self._closed
                self._others[pipeline.name] = found
        return found

    def load(self) -> Self:
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
        return key, make(self.pipeline, self.spec.ref, said, self.files, stream=False).load()

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
            make(self.pipeline, self.spec.ref, said, self.files, stream=False)
            return None
        return make(self.pipeline, self.spec.ref, said, self.files, stream=True)

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
            others = list(self._others.values())
        for other in others:
            other.close()
        for _, model in idle:
            model.close()
        self.files.close()  # twice is fine

    def _said(self, options: Mapping[str, Value] | None) -> dict[str, Value]:
        return {**dict(self.spec.options), **(options or {})}
