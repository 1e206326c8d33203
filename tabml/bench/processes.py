"""Measurements in processes of their own, which print JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from tabml.errors import InferenceError


def ended(*command: object) -> Any:
    """What ``python -m`` with these words has printed, as JSON; its stderr is ours.

    Raises:
        InferenceError: it failed.
    """
    words = [str(word) for word in command]
    done = subprocess.run([sys.executable, "-m", *words], stdout=subprocess.PIPE, check=False)
    if done.returncode:
        raise InferenceError(f"python -m {' '.join(words)} ended with {done.returncode}; it says why above")
    return json.loads(done.stdout)
