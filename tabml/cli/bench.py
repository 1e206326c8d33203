"""``tabml bench``: figures against the plain libraries, in the same run."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from tabml.bench.rows import check_picture, table, written
from tabml.errors import OptionError


def bench(options: argparse.Namespace) -> int:
    """Measure, print a table (or JSON), and write both a JSON file and a picture, ``text.json`` and ``text.png``."""
    check_picture()
    only = [name for name in options.only.split(",") if name]

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    for name in ("gguf", "folder", "threads"):
        if getattr(options, name) is not None and not options.lm:
            raise OptionError(f"--{name} goes with --lm")
    if options.what == "vision":
        from tabml.bench import vision

        video = Path(options.video) if options.video else None
        rows = vision.measure(only, quick=options.quick, video=video, say=say)
    elif options.what == "edge":
        from tabml.bench import edge_lm, edge_models

        if options.video:
            raise OptionError("--video goes with vision, not with edge")
        rows = edge_models.measure(only, quick=options.quick, say=say) if only or not options.lm else []
        if options.lm:
            rows += edge_lm.measure(
                Path(options.lm),
                gguf=Path(options.gguf) if options.gguf else None,
                folder=Path(options.folder) if options.folder else None,
                threads=options.threads,
                turns=1 if options.quick else 3,
                say=say,
            )
    else:
        from tabml.bench import text

        if options.video:
            raise OptionError("--video goes with vision, not with text")
        rows = text.measure(only, quick=options.quick, generator=options.model, embedder=options.embedder, say=say)
    print(json.dumps([row.to_dict() for row in rows], indent=1) if options.json else table(rows))
    for path in written(rows, Path(options.out), options.what):
        print(path.resolve(), file=sys.stderr)
    return 0
