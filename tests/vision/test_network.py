"""Nothing leaves the machine: the usage record that mediapipe posts is stopped, for its library alone."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

USE = """
    import sys, time
    import numpy as np
    from tabml.files import load_model
    from tabml.vision import _mediapipe as door

    options = door.FaceDetectorOptions(min_detection_confidence=0.5, min_suppression_threshold=0.3)
    task = door.NativeTask(door.FACE_DETECTOR, options, load_model("face_detector"), video=False)
    task.run(np.zeros((64, 64, 3), np.uint8), lambda found: None)
    task.close()
    time.sleep(2)
    print("done")
"""


def heard(run_python: Callable[..., Any], **environment: str) -> bytes:
    """What arrives at a proxy of ours while a detector is opened, used and closed."""
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        proxy.settimeout(0.5)
        address = f"http://127.0.0.1:{proxy.getsockname()[1]}"
        ended = run_python(USE, https_proxy=address, HTTPS_PROXY=address, ALL_PROXY=address, **environment)
        assert ended.stdout == "done\n", ended.stderr
        try:
            connection, _ = proxy.accept()
        except TimeoutError:
            return b""
        with connection:
            connection.settimeout(2)
            return connection.recv(200)


def test_no_record_reaches_a_proxy(run_python: Callable[..., Any]) -> None:
    assert heard(run_python) == b""


def test_the_test_above_can_fail(run_python: Callable[..., Any]) -> None:
    assert b"CONNECT play.googleapis.com:443" in heard(run_python, TABML_ALLOW_MEDIAPIPE_NETWORK="1")


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_no_name_is_looked_up_and_nothing_is_connected(tmp_path: Path) -> None:
    def connections(**environment: str) -> list[str]:
        log = tmp_path / "strace.log"
        subprocess.run(
            [
                "strace",
                "-f",
                "-qq",
                "-e",
                "trace=connect,sendto,sendmsg,sendmmsg",
                "-o",
                str(log),
                sys.executable,
                "-c",
                textwrap.dedent(USE),
            ],
            env={**os.environ, **environment},
            check=True,
            capture_output=True,
            timeout=120,
        )
        return re.findall(r"^\d+ +((?:connect|send\w+)\(.*)", log.read_text(), re.MULTILINE)

    assert connections() == []
    assert connections(TABML_ALLOW_MEDIAPIPE_NETWORK="1") != []


def test_the_rest_of_the_process_keeps_its_network_and_environment(run_python: Callable[..., Any]) -> None:
    ended = run_python(
        """
        import os, socket, ctypes
        from tabml.vision import _mediapipe
        _mediapipe.library()
        assert socket.getaddrinfo("localhost", 80)
        libc = ctypes.CDLL(None)
        libc.getenv.restype = ctypes.c_char_p
        assert libc.getenv(b"TABML_PROBE") == b"here"
        print("kept")
        """,
        TABML_PROBE="here",
    )
    assert ended.stdout == "kept\n", ended.stderr


def test_a_system_where_it_can_not_be_stopped_is_refused(run_python: Callable[..., Any]) -> None:
    code = """
        import platform, sys
        platform.system = lambda: "Linux"
        from tabml.vision import _mediapipe
        _mediapipe.redirect_imports = lambda *_: set()
        try:
            _mediapipe.library()
        except _mediapipe.ModelLoadError as problem:
            print(problem)
    """
    assert "set TABML_ALLOW_MEDIAPIPE_NETWORK=1" in run_python(code).stdout


def test_native_logs_are_silent_unless_asked_for(run_python: Callable[..., Any]) -> None:
    assert run_python(USE).stderr == ""
    assert "XNNPACK" in run_python(USE, TABML_LOG="info").stderr


def test_stderr_stays_the_process_own(run_python: Callable[..., Any]) -> None:
    code = USE.replace('print("done")', 'import os; os.write(2, b"mine\\n"); print("also", file=sys.stderr)')
    assert run_python(code).stderr == "mine\nalso\n"
