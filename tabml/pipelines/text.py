"""Text models that calls share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tabml.errors import OptionError
from tabml.files import FileRef
from tabml.files.types import check_name
from tabml.pipelines import ModelSpec, Pipeline
from tabml.pipelines.shared import class_of
from tabml.text.repository import ADAPTER_CONFIG

if TYPE_CHECKING:
    from tabml.files import FileProvider
    from tabml.text._model import TextModel


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
