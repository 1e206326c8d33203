"""Text models that calls share."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tabml.errors import MissingExtraError, ModelLoadError, OptionError
from tabml.files import FileRef, HeldFiles
from tabml.files.types import check_name
from tabml.pipelines import ModelSpec, Pipeline, find_pipeline
from tabml.text.repository import ADAPTER_CONFIG

if TYPE_CHECKING:
    from typing import Self

    from tabml.files import FileProvider
    from tabml.text._model import TextModel


def class_of(pipeline: Pipeline) -> Any:
    """The class of a text pipeline.

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


def make_text(pipeline: Pipeline, spec: ModelSpec, files: FileProvider | None) -> TextModel[Any]:
    """A text model; nothing is fetched yet.

    Raises:
        OptionError: an option is unknown or not allowed.
        ModelLoadError: the plug-in's class can't be imported.
    """
    said: dict[str, Any] = {name: value for name, value in spec.options if value != pipeline.option(name).default}
    if "adapters" in said:
        said["adapters"] = _adapters(said["adapters"])
    model: TextModel[Any] = class_of(pipeline)(spec.ref, files=files, architecture=spec.architecture or None, **said)
    return model


def _adapters(written: str) -> dict[str, FileRef]:
    """Adapters by name, out of ``name=repository,name=repository``."""
    found = {}
    for each in written.split(","):
        name, equals, repo = (part.strip() for part in each.partition("="))
        if not (name and equals and repo):
            raise OptionError(f"adapters={written[:80]!r} must be name=repository, with commas between them")
        check_name("adapters", repo)
        found[name] = FileRef(repo, ADAPTER_CONFIG)
    return found


class LoadedText:
    """A text model that calls share; it batches them itself."""

    def __init__(self, spec: ModelSpec, files: HeldFiles) -> None:
        """Nothing is fetched yet.

        Args:
            spec: Which model.
            files: Where its files come from; closed with the model.
        """
        self.spec = spec
        """What it was loaded with."""
        self.files = files
        """Its files: let go of once the model is built."""
        self.pipeline = find_pipeline(spec.pipeline)
        """What it is."""
        self.rss_bytes = 0
        """Growth of the process while it was loaded, where that was measured."""
        self.model = make_text(self.pipeline, spec, files)
        """The model itself."""

    def load(self) -> Self:
        """Fetch the files and build the model.

        Raises:
            TabmlError: as :meth:`tabml.text.TextGenerator.load`.
        """
        self.model.load()
        return self

    def close(self) -> None:
        """Free the model; calls that run on it end first."""
        self.model.close()
        self.files.close()
