"""``tabml models``: what the catalog knows, what is here, and fetching the rest."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys

from tabml.cli import report
from tabml.cli.progress import Fetching
from tabml.errors import TabmlError
from tabml.files import cache_folder
from tabml.files.asking import read_bytes
from tabml.files.caching import CachingProvider
from tabml.files.catalog import CatalogEntry, CatalogProvider, find, load_catalog

DEFAULTS = (
    "face_detector", "face_landmarker", "gesture_recognizer", "pose_landmarker_full", "selfie_segmenter",
)  # fmt: skip
"""What the vision models use when told nothing else."""


def cached(entry: CatalogEntry) -> bool:
    """True when the model is in the cache, with all of its files."""
    return all((cache_folder() / "blobs" / each.sha256).is_file() for each in entry.files)


def size_of(entry: CatalogEntry) -> int:
    """Bytes of all files whose size is known."""
    return sum(each.size or 0 for each in entry.files)


def show(options: argparse.Namespace) -> int:
    """``models list``."""
    for entry in load_catalog().values():
        here = cached(entry)
        if options.json:
            row = {"name": entry.name, "task": entry.task, "file": entry.file, "bytes": size_of(entry) or None}
            print(json.dumps({**row, "sha256": entry.sha256, "license": entry.license, "here": here}))
        else:
            size = f"{size_of(entry) / 1e6:6.1f} MB" if size_of(entry) else " " * 9
            print(f"{entry.name:28} {'here' if here else '-':5} {size}  {entry.task}")
    return 0


def pull(options: argparse.Namespace) -> int:
    """``models pull``: a model that can't be fetched is reported, and the next one taken."""
    failed = False
    with Fetching() as fetching:
        catalog = CatalogProvider(progress=fetching)
        provider = CachingProvider(catalog, cache_folder())
        catalog.take_parts_from(provider)
        try:
            for entry in [find(name) for name in options.names or DEFAULTS]:
                try:
                    was_here = cached(entry)
                    size = sum(len(read_bytes(provider, each.ref)) for each in entry.files)
                except TabmlError as problem:
                    report(problem)
                    failed = True
                    continue
                print(f"{entry.name}: {size} bytes, {'was here' if was_here else 'fetched'}", file=sys.stderr)
        finally:
            catalog.close()
    return int(failed)


def verify(options: argparse.Namespace) -> int:
    """``models verify``: fails when a file is not what its checksum says."""
    bad = 0
    for entry in load_catalog().values():
        if not cached(entry):
            continue
        good = all(
            hashlib.sha256((cache_folder() / "blobs" / each.sha256).read_bytes()).hexdigest() == each.sha256
            for each in entry.files
        )
        bad += not good
        if options.json:
            print(json.dumps({"name": entry.name, "good": good}))
        else:
            print(f"{entry.name:28} {'good' if good else 'DAMAGED; run: python -m tabml models pull ' + entry.name}")
    return int(bad > 0)


def where(options: argparse.Namespace) -> int:
    """``models where``."""
    print(cache_folder())
    return 0
