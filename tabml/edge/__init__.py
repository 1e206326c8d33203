"""Models for LiteRT, and language models made for devices."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tabml.edge.lm import LiteLM, LmSpeed

__all__ = ["LiteLM", "LmSpeed"]

_LAZY = {"LiteLM": "lm", "LmSpeed": "lm"}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
