"""``tabml bench``: figures against the plain libraries, in the same run."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from tabml.bench.rows import check_picture, table
from tabml.errors import OptionError


def bench(options: argparse.Namespace) -> int:
    """Measure, print a table (or JSON), and write ``text.json`` and ``text.png``, or ``vision.json`` and ``vision.png``."""
    check_picture()
    only = [name for name in options.only.split(",") if name]

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    if options.what == "vision":
        from tabml.bench import vision

        video = Path(options.video) if options.video else None
        rows = vision.measure(only, quick=options.quick, video=video, say=say)
        paths = vision.write(rows, Path(options.out))
    else:
        from tabml.bench import text

        if options.video:
            raise OptionError("--video goes with vision, not with text")
        rows = text.measure(only, quick=options.quick, generator=options.model, embedder=options.embedder, say=say)
        paths = text.write(rows, Path(options.out))
    print(json.dumps([row.to_dict() for row in rows], indent=1) if options.json else table(rows))
    for path in paths:
        print(path.resolve(), file=sys.stderr)
    return 0
