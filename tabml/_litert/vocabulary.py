"""The names of TFLite's operators and types, by their numbers: as LiteRT's own schema has them."""

from __future__ import annotations

from functools import cache

from tabml.errors import MissingExtraError


@cache
def operator_names() -> dict[int, str]:
    """``CONV_2D`` and so on.

    Raises:
        MissingExtraError: LiteRT is not installed.
    """
    return _names("BuiltinOperator")


@cache
def type_names() -> dict[int, str]:
    """``float32``, ``int8``, ``int4`` and so on.

    Raises:
        MissingExtraError: LiteRT is not installed.
    """
    return {number: name.lower() for number, name in _names("TensorType").items()}


def _names(enumeration: str) -> dict[int, str]:
    try:
        from ai_edge_litert import schema_py_generated
    except ImportError as problem:
        raise MissingExtraError("edge", "ai-edge-litert") from problem
    members = vars(getattr(schema_py_generated, enumeration)).items()
    return {value: name for name, value in members if isinstance(value, int) and not name.startswith("_")}
