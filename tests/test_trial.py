"""First loads in a process of their own: what comes of them is told by the parent."""

from __future__ import annotations

from pathlib import Path

import pytest

from tabml._trial import try_in_child
from tabml.errors import CorruptModelError, ModelError, ModelLoadError


@pytest.mark.parametrize(
    ("act", "kind", "said"),
    [
        ("raise ModelLoadError('no layers')", ModelLoadError, "^no layers$"),
        (
            "raise ValueError('strange')",
            ModelLoadError,
            r"model\.bin: it can't be tried .*\(status 1\): ValueError: strange",
        ),
        ("os.abort()", CorruptModelError, r"model\.bin: Lib dies of it \(signal 6\)"),
    ],
)
def test_how_a_trial_ends_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: str, kind: type[ModelError], said: str
) -> None:
    code = (
        f"import os\nfrom tabml._trial import report\nfrom tabml.errors import ModelLoadError\ndef act():\n    {act}\n"
    )
    (tmp_path / "tried_here.py").write_text(code + "def main():\n    report(act)\n")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "cv2" / "typing").mkdir(parents=True)  # as it is while another thread imports OpenCV
    for place in ("__init__.py", "typing/__init__.py"):
        (tmp_path / "cv2" / place).touch()
    monkeypatch.syspath_prepend(tmp_path / "cv2")
    file = tmp_path / "model.bin"
    file.write_bytes(b"x")
    with pytest.raises(kind, match=said):
        try_in_child("tried_here", file, "model.bin", library="Lib")
