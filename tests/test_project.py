"""What the project promises about itself."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def test_the_version_has_one_value() -> None:
    import tabml

    assert tabml.__version__ == PROJECT["version"] == metadata.version("tabml")


def test_every_dependency_is_pinned() -> None:
    pinned = {
        line.partition("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    wanted = [
        *PROJECT["dependencies"],
        *(name for names in PROJECT["optional-dependencies"].values() for name in names),
    ]
    names = {re.split(r"[\[<>=~ ]", name)[0].lower().replace("_", "-") for name in wanted} - {"tabml"}
    assert names <= pinned, names - pinned


def test_one_opencv_is_installed_and_works() -> None:
    import cv2
    import numpy as np

    installed = {name for name in ("opencv-python", "opencv-contrib-python") if _version(name)}
    assert installed == {"opencv-contrib-python"}
    assert cv2.cvtColor(np.zeros((2, 2, 3), np.uint8), cv2.COLOR_BGR2GRAY).shape == (2, 2)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def test_layers_are_held_by_a_linter_that_can_fail(tmp_path: Path) -> None:
    config = (ROOT / "pyproject.toml").read_text("utf-8")
    section = config[config.index("[tool.importlinter]") : config.index("[tool.pytest")]
    broken = section.replace(
        '"tabml.testing", "tabml.files | tabml.registry"', '"tabml.files | tabml.registry", "tabml.testing"'
    )
    assert broken != section
    (tmp_path / "pyproject.toml").write_text(broken)
    command = [Path(sys.executable).with_name("lint-imports"), "--config", tmp_path / "pyproject.toml", "--no-cache"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode != 0
    assert "Nothing travels upward BROKEN" in ended.stdout


@pytest.mark.parametrize("name", ["make", "bash"])
def test_ci_runs_the_tests(name: str) -> None:
    assert "make test" in (ROOT / ".ci" / "run").read_text()
    ended = subprocess.run([name, "--version"], capture_output=True, check=False)
    assert ended.returncode == 0
