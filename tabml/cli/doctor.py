"""``tabml doctor``: what is installed, what is missing, and the command that mends it."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tabml import __version__
from tabml.cli.models import DEFAULTS, cached
from tabml.files import cache_folder
from tabml.files.catalog import find

_EXTRAS = {
    "vision": ("mediapipe", "pillow", "opencv-contrib-python", "av"),
    "hub": ("huggingface_hub",),
    "text": ("torch", "numba", "transformers", "sentence-transformers"),
    "llama": ("xllamacpp", "jinja2", "llguidance"),
    "quantize": ("ai-edge-quantizer",),
    "edge": ("ai-edge-litert", "litert-lm-api", "litert-lm-builder", "protobuf", "jinja2"),
    "grpc": ("grpcio", "grpcio-health-checking", "grpcio-reflection", "grpcio-status", "protobuf"),
}

_VECTORS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
"""What text models are the quicker for, by Linux' names."""


def version_of(distribution: str) -> str | None:
    """The installed version, or None."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def vectors(processors: str) -> list[str]:
    """Which of the vector instructions that matter here a processor has, from the content of ``/proc/cpuinfo``."""
    first = next((line for line in processors.splitlines() if line.startswith("flags")), "")
    return [name for name in _VECTORS if name in first.split()]


def examine() -> dict[str, Any]:
    """Everything the doctor looks at, with ``mend`` as a list of problems, commands, and whether vision needs them."""
    extras = {extra: {name: version_of(name) for name in names} for extra, names in _EXTRAS.items()}
    models = {name: cached(find(name)) for name in DEFAULTS}
    processors = Path("/proc/cpuinfo")
    mend: list[dict[str, Any]] = []
    for extra, found in extras.items():
        missing = [name for name, version in found.items() if version is None]
        if missing:
            command = f"python -m pip install 'tabml[{extra}]'"
            mend.append({"missing": ", ".join(missing), "run": command, "needed": extra == "vision"})
    if not all(models.values()):
        names = [name for name, here in models.items() if not here]
        mend.append({"missing": f"models: {', '.join(names)}", "run": "python -m tabml models pull", "needed": False})
    plain, contrib = version_of("opencv-python"), version_of("opencv-contrib-python")
    if plain and contrib and plain != contrib:
        mend.append(
            {
                "missing": f"one OpenCV: opencv-python {plain} and opencv-contrib-python {contrib} own the same folder",
                "run": "python -m pip uninstall -y opencv-python && "
                "python -m pip install --force-reinstall --no-deps opencv-contrib-python",
                "needed": True,
            }
        )
    if sys.platform == "linux" and find_spec("mediapipe") is not None:
        from tabml.errors import TabmlError
        from tabml.vision import _mediapipe

        try:
            _mediapipe.library()
        except TabmlError as problem:
            mend.append({"missing": str(problem), "run": "see the message", "needed": True})
    return {
        "tabml": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "vectors": vectors(processors.read_text()) if processors.is_file() else [],
        "accelerators": [str(path) for path in sorted(Path("/dev").glob("nvidia[0-9]*"))],
        "extras": extras,
        "models": models,
        "cache": str(cache_folder()),
        "mend": mend,
    }


def doctor(options: argparse.Namespace) -> int:
    """Print it; fails when something that vision needs is missing."""
    found = examine()
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        print(f"tabml {found['tabml']}, Python {found['python']}, {found['platform']}, {found['cores']} cores")
        print(f"vector instructions: {', '.join(found['vectors']) or 'none known'}")
        print(f"accelerators: {', '.join(found['accelerators']) or 'none'}")
        for extra, packages in found["extras"].items():
            print(f"{extra:8}", ", ".join(f"{name} {version or 'MISSING'}" for name, version in packages.items()))
        here = [name for name, is_here in found["models"].items() if is_here]
        print(f"models   {len(here)} of {len(found['models'])} defaults in {found['cache']}")
        for problem in found["mend"]:
            print(f"{'needed' if problem['needed'] else 'optional'}: {problem['missing']}\n    {problem['run']}")
        if not found["mend"]:
            print("nothing is missing")
    return int(any(problem["needed"] for problem in found["mend"]))
