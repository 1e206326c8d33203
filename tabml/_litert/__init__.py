"""The door to LiteRT: what a model file says, whether it can be trusted, and one graph in memory.

Nothing heavy is imported before a graph is wanted: a file is checked without LiteRT.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tabml._litert.graph import LiteGraph
    from tabml._litert.specs import TensorSpec

__all__ = ["LiteGraph", "TensorSpec"]

_LAZY = {"LiteGraph": "graph", "TensorSpec": "specs"}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
