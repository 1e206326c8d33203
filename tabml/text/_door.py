"""The way to the heavy libraries: without them an error that names what to install."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tabml.errors import MissingExtraError


@contextmanager
def text_extra() -> Iterator[None]:
    """Around an import of ``tabml.text._torch``.

    Raises:
        MissingExtraError: one of its libraries is not installed.
    """
    try:
        yield
    except ImportError as problem:
        raise MissingExtraError("text", (problem.name or "torch").partition(".")[0]) from problem


@contextmanager
def llama_extra() -> Iterator[None]:
    """Around an import of ``tabml.text._llama``.

    Raises:
        MissingExtraError: xllamacpp is not installed.
    """
    try:
        yield
    except ImportError as problem:
        raise MissingExtraError("llama", (problem.name or "xllamacpp").partition(".")[0]) from problem
