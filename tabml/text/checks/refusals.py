"""How a file is refused: in one line, whatever its names and values hold."""

from __future__ import annotations

from typing import Any, NoReturn, TypeGuard

from tabml.errors import CorruptModelError, UnsafeModelError


def line(what: str) -> str:
    """One line, whatever the file's names and values hold."""
    return what if what.isprintable() else "".join(each if each.isprintable() else "\ufffd" for each in what)


def corrupt(name: str, what: str) -> NoReturn:
    """Raise CorruptModelError."""
    raise CorruptModelError(line(f"{name}: {what}"))


def unsafe(name: str, what: str) -> NoReturn:
    """Raise UnsafeModelError."""
    raise UnsafeModelError(line(f"{name}: {what}"))


def object_of(value: Any, name: str) -> dict[str, Any]:
    """``value``, when it is a JSON object."""
    if not isinstance(value, dict):
        corrupt(name, "must be a JSON object")
    return value


def wholes(value: Any, most: int) -> TypeGuard[list[int]]:
    """Whether it is a list of at most ``most`` sizes or places in a file."""
    if not isinstance(value, list) or len(value) > most:
        return False
    return all(type(each) is int and 0 <= each < 1 << 48 for each in value)
