"""The page about files: its blocks run, and its provider keeps the contract."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tabml.errors import ProviderError
from tabml.files import FileProvider
from tabml.testing import FileProviderContract

PAGE = Path(__file__).parents[2] / "docs" / "files.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=[block.strip().splitlines()[0][:40] for block in BLOCKS])
def test_every_block_of_the_page_runs(block: str) -> None:
    try:
        exec(compile(block, str(PAGE), "exec"), {"__name__": "docs"})
    except ProviderError as problem:
        pytest.skip(f"the models can't be fetched here: {problem}")


class TestShelf(FileProviderContract):
    files = {("shelf", "model.tflite"): b"TFL3..."}  # noqa: RUF012

    @contextmanager
    def provide(self, files: Mapping[tuple[str, str], bytes]) -> Iterator[FileProvider]:
        names: dict[str, type] = {"__name__": "docs"}  # type: ignore[dict-item]
        exec(next(block for block in BLOCKS if "class Shelf" in block), names)
        yield names["Shelf"]()
