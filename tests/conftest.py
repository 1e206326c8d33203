"""Pictures, profiles, and what several tests need."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("dev", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ci" if os.environ.get("CI") else "dev")

ROOT = Path(__file__).parents[1]
PICTURES = Path(os.environ.get("TABML_TEST_PICTURES", ROOT.parent / "shared" / "pictures"))


@pytest.fixture(scope="session")
def pictures() -> Callable[[str], Path]:
    """A test picture by name; skips where the folder isn't there."""

    def find(name: str) -> Path:
        path = PICTURES / name
        if not path.is_file():
            pytest.skip(f"{name} is not in TABML_TEST_PICTURES={PICTURES}")
        return path

    return find


@pytest.fixture(scope="session")
def portrait() -> Path:
    """One face, upper body: comes with matplotlib."""
    from tabml.cli.demo import portrait

    return portrait()


@pytest.fixture(scope="session")
def astronaut() -> Path:
    """One face, upper body: comes with scikit-image."""
    import skimage

    return Path(skimage.__file__).parent / "data" / "astronaut.png"


@pytest.fixture(scope="session")
def run_python() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run code in a process of its own, with the models at hand."""

    def run(code: str, *arguments: object, timeout: float = 60, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-X", "faulthandler", "-c", textwrap.dedent(code), *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=timeout,
            env={**os.environ, **environment},
            cwd=ROOT,
            check=False,
        )

    return run
