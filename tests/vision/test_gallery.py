"""The pictures of the documentation are what the code draws, and every model has a page and one of them."""

from __future__ import annotations

import inspect
import re
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tabml.vision
from tabml.vision import Frame
from tabml.vision._model import VisionModel

DOCS = Path(__file__).parents[2] / "docs"
GALLERY = runpy.run_path(str(DOCS / "vision" / "gallery.py"))
DRAWINGS: dict[str, Callable[[], Frame]] = GALLERY["DRAWINGS"]


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_picture_is_what_the_code_draws(name: str, pictures: Any) -> None:
    if name in ("hands", "pose", "holistic"):
        pictures("hand_thumb_up.jpg")
    kept = Frame.from_file(DOCS / "images" / f"{name}.jpg").to_rgb().astype(int)
    drawn = Frame.from_bytes(DRAWINGS[name]().encode("jpeg", quality=80)).to_rgb()
    assert kept.shape == drawn.shape
    assert np.abs(kept - drawn).mean() < 0.5


def test_every_model_has_a_page_with_a_picture_in_it() -> None:
    table = (DOCS / "vision.md").read_text("utf-8")
    rows = {
        name: page
        for names, page in re.findall(r"^\| \[([^]]+)\]\((vision/\w+\.md)\)", table, re.MULTILINE)
        for name in re.findall(r"`(\w+)`", names)
    }
    classes = {
        name for name in tabml.vision.__all__
        if inspect.isclass(kind := getattr(tabml.vision, name)) and issubclass(kind, VisionModel)
    }  # fmt: skip
    assert classes <= set(rows)
    for page in set(rows.values()):
        assert re.search(r"!\[[^]]+\]\(\.\./images/\w+\.jpg\)", (DOCS / page).read_text("utf-8")), page


def test_the_gallery_shows_every_picture_and_leads_to_every_page() -> None:
    page = (DOCS / "vision" / "gallery.md").read_text("utf-8")
    assert set(re.findall(r"images/(\w+)\.jpg", page)) == set(DRAWINGS)
    pages = {each.name for each in (DOCS / "vision").glob("*.md")} - {"gallery.md", "sources.md"}
    assert set(re.findall(r"\]\((\w+\.md)\)", page)) == pages
