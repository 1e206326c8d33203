"""``tabml bench``: figures against the plain libraries, in the same run."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from tabml.bench import text
from tabml.bench.rows import check_picture, table


def bench(options: argparse.Namespace) -> int:
    """Measure, print a table (or JSON), and write ``text.json`` and ``text.png``."""
    check_picture()
    rows = text.measure(
        [name for name in options.only.split(",") if name],
        quick=options.quick,
        generator=options.model,
        embedder=options.embedder,
        say=lambda line: print(line, file=sys.stderr, flush=True),
    )
    print(json.dumps([row.to_dict() for row in rows], indent=1) if options.json else table(rows))
    for path in text.write(rows, Path(options.out)):
        print(path.resolve(), file=sys.stderr)
    return 0
