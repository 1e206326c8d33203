"""Edge models that calls share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tabml.pipelines import ModelSpec, Pipeline
from tabml.pipelines.shared import Opening, class_of

if TYPE_CHECKING:
    from tabml.files import FileProvider


def make_edge(pipeline: Pipeline, spec: ModelSpec, files: FileProvider | None) -> Opening:
    """An edge model; nothing is fetched yet. What is 0 in its options is None for its class: the model's own.

    Raises:
        OptionError: an option is unknown or not allowed.
    """
    said: dict[str, Any] = {name: value for name, value in spec.options if value != pipeline.option(name).default}
    model: Opening = class_of(pipeline)(spec.ref, files=files, **said)
    return model
