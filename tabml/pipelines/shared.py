"""A model that calls share as it is: it orders them itself."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from tabml.errors import MissingExtraError, ModelLoadError
from tabml.files import HeldFiles
from tabml.pipelines import ModelSpec, Pipeline, find_pipeline

if TYPE_CHECKING:
    from typing import Self


class Opening(Protocol):
    """What can be shared."""

    def load(self) -> Any:
        """Fetch and open it."""
        ...

    def close(self) -> None:
        """Free it; calls that run on it end first."""
        ...


Model = TypeVar("Model", bound=Opening)


def class_of(pipeline: Pipeline) -> Any:
    """The class of a pipeline.

    Raises:
        ModelLoadError: a plug-in's class can't be imported.
        MissingExtraError: an optional dependency is not installed.
    """
    module, _, name = pipeline.factory.partition(":")
    try:
        return getattr(import_module(module), name)
    except MissingExtraError:
        raise
    except (ImportError, AttributeError) as problem:
        raise ModelLoadError(
            f"pipeline={pipeline.name!r}: {pipeline.factory} can't be imported: {problem}"
        ) from problem


class SharedModel(Generic[Model]):
    """A model and its files."""

    def __init__(self, spec: ModelSpec, files: HeldFiles, model: Model) -> None:
        """Nothing is fetched yet.

        Args:
            spec: Which model.
            files: Where its files come from, as long as the model is loaded.
            model: The model.
        """
        self.spec = spec
        """What it was loaded with."""
        self.files = files
        """Where its files come from: those that are in memory only while it is built are fetched again by what measures it."""
        self.pipeline = find_pipeline(spec.pipeline)
        """What it is."""
        self.rss_bytes = 0
        """Growth of the process while it was loaded, where that was measured."""
        self.model = model
        """The model itself."""

    def load(self) -> Self:
        """Fetch the files and build the model.

        Raises:
            TabmlError: as :meth:`tabml.lifecycle.LazyModel.load`.
        """
        self.model.load()
        return self

    def close(self) -> None:
        """Free the model; calls that run on it end first."""
        self.model.close()
        self.files.close()
