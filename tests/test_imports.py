"""``import tabml`` is light; what is heavy waits until it is needed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

HEAVY = ("numpy", "cv2", "PIL", "av", "mediapipe", "matplotlib", "torch", "transformers", "huggingface_hub", "pandas")
CODE = """
    import importlib, sys
    importlib.import_module(sys.argv[1])
    print(",".join(sorted(name for name in sys.argv[2].split(",") if name in sys.modules)))
"""


@pytest.mark.parametrize(
    ("module", "allowed"),
    [
        ("tabml", ""),
        ("tabml.errors", ""),
        ("tabml.cli", ""),
        ("tabml_grpc", ""),
        ("tabml.files", ""),
        ("tabml.files.catalog", ""),
        ("tabml.edge", ""),
        ("tabml.vision", "numpy"),
    ],
)
def test_an_import_loads_nothing_heavy(module: str, allowed: str, run_python: Callable[..., Any]) -> None:
    ended = run_python(CODE, module, ",".join(HEAVY))
    assert ended.stdout.strip() == allowed, ended.stderr


def test_the_test_above_can_fail(run_python: Callable[..., Any]) -> None:
    assert "PIL" in run_python(CODE, "PIL.Image", ",".join(HEAVY)).stdout


def test_a_whole_detection_imports_neither_mediapipe_nor_matplotlib(run_python: Callable[..., Any]) -> None:
    ended = run_python("""
        import sys
        import numpy as np
        from tabml.vision import FaceDetector, Frame
        with FaceDetector() as detector:
            detector.detect(Frame.from_array(np.zeros((48, 48, 3), np.uint8)))
        print([name for name in ("mediapipe", "matplotlib", "sounddevice") if name in sys.modules])
    """)
    assert ended.stdout.strip() == "[]", ended.stderr


def test_a_missing_extra_names_the_command(run_python: Callable[..., Any]) -> None:
    ended = run_python("""
        import sys
        sys.modules["cv2"] = sys.modules["PIL"] = sys.modules["av"] = None
        import numpy as np
        from tabml.vision import Frame, read_video
        for act in (
            lambda: Frame.from_array(np.zeros((4, 4), np.uint8)).to_rgb(),
            lambda: Frame.from_bytes(b"x"),
            lambda: read_video("x.mp4"),
        ):
            try:
                act()
            except ImportError as problem:
                print(problem)
    """)
    lines = ended.stdout.splitlines()
    assert len(lines) == 3, ended.stderr
    assert all("python -m pip install 'tabml[vision]'" in line for line in lines)
