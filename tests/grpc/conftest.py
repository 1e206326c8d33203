"""A server for all tests that leave it as it was."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from child import Child, serving


@pytest.fixture(scope="session")
def server() -> Iterator[Child]:
    """One server for all tests that leave it as it was."""
    with serving() as child:
        yield child


@pytest.fixture(scope="session")
def jpeg(portrait: Path) -> bytes:
    """One face."""
    return portrait.read_bytes()
