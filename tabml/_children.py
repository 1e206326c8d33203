"""What a Python process that this one starts must know."""

from __future__ import annotations

import os
import sys


def paths_for_child() -> str:
    """Where this process imports from, as ``PYTHONPATH`` of another one.

    Without the folders of packages: OpenCV puts its own there while another thread imports it, and ``cv2/typing`` is not
    the ``typing`` that the child needs.
    """
    folders = [each or os.getcwd() for each in sys.path]
    return os.pathsep.join(each for each in folders if not os.path.exists(os.path.join(each, "__init__.py")))
