"""What the command line says."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

FAMILIES = ("vision", "text", "edge")
LEVELS = ("debug", "info", "warning", "error")
DEFAULT_ENDPOINT = "localhost:50052"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How the server was asked to run."""

    port: int = 50051
    uds: str | None = None
    file_endpoint: str = DEFAULT_ENDPOINT
    files: tuple[str, ...] = ("parent",)
    services: tuple[str, ...] = FAMILIES
    token_env: str | None = None
    log_file: str | None = None
    log_level: str = "info"
    parent_watch: bool = True
    stdin_watch: bool = False
    reflection: bool = True
    prewarm: bool = True
    grace_s: float = 10.0
    max_streams: int = 64
    max_calls: int = 64


def _number(low: int, high: int) -> type[int]:
    def read(text: str) -> int:
        value = int(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{value} is not from {low} to {high}")
        return value

    read.__name__ = "number"
    return read  # type: ignore[return-value]


def _families(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    for name in names:
        if name not in FAMILIES:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(FAMILIES)}")
    return names


def read_flags(arguments: Sequence[str] | None = None) -> Settings:
    """The settings; says what is wrong and exits with 2 when something is."""
    parser = argparse.ArgumentParser(
        prog="python -m tabml_grpc",
        description="Serves tabml to the program that starts it: loopback only, one line on stdout when ready.",
        epilog="Exit codes: 0 drained, 1 a bug, 2 wrong flags, 3 the address is taken, 4 the parent is gone.",
    )
    add = parser.add_argument
    add("--port", type=_number(0, 65535), default=50051, help="loopback port; 0 takes a free one (default: 50051)")
    add("--uds", metavar="PATH", help="a Unix socket in a folder of mode 0700, instead of a port")
    add(
        "--file-endpoint",
        metavar="HOST:PORT",
        default=DEFAULT_ENDPOINT,
        help=f"where the parent serves model files (default: {DEFAULT_ENDPOINT})",
    )
    add("--rust-port", type=_number(1, 65535), metavar="N", help="the old name: --file-endpoint localhost:N")
    add(
        "--files",
        action="append",
        metavar="URI",
        help="where model files come from: parent (the default), catalog:, dir:FOLDER, ...; may be repeated",
    )
    add("--services", type=_families, default=FAMILIES, metavar="LIST", help="what to serve: vision,text,edge")
    add("--token-env", metavar="NAME", help="environment variable with the token that every call must bear")
    add("--log-file", metavar="PATH", help="also log to a file")
    add("--log-level", choices=LEVELS, default="info")
    add("--no-parent-watch", dest="parent_watch", action="store_false", help="outlive the program that starts it")
    add("--stdin-watch", action="store_true", help="stop when stdin ends (else stdin is never read)")
    add("--no-reflection", dest="reflection", action="store_false", help="don't describe the services to callers")
    add("--no-prewarm", dest="prewarm", action="store_false", help="import libraries at the first call that needs them")
    add("--grace-s", type=float, default=10.0, metavar="S", help="how long running calls may take after SIGTERM")
    add("--max-streams", type=_number(1, 4096), default=64, metavar="N", help="streams of frames at a time")
    add("--max-calls", type=_number(1, 4096), default=64, metavar="N", help="other calls at a time")
    given = vars(parser.parse_args(arguments))
    old = given.pop("rust_port")
    if old is not None:
        given["file_endpoint"] = f"localhost:{old}"
    given["files"] = tuple(given["files"] or ("parent",))
    return Settings(**given)
