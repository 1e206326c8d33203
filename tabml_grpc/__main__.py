"""``python -m tabml_grpc``: the order of what happens here matters, see the comments."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from tabml_grpc import process

EXIT_BUG, EXIT_FLAGS, EXIT_TAKEN, EXIT_ORPHAN = 1, 2, 3, 4

_HELLO = """tabml_grpc listens on {address}, for the program that starts it and for nobody else on the network.
Try it from another terminal:  python examples/grpc_client.py {address} PICTURE
Models come from {files}; for the ones that tabml knows by name say --files catalog:
Ctrl-C ends it. The contract: docs/grpc.md
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until told to end; gives the exit code."""
    for descriptor in (1, 2):  # before anything could write
        process.never_block(descriptor)
    from tabml_grpc.flags import read_flags

    settings = read_flags(arguments)
    if not settings.stdin_watch:
        process.detach_stdin()
    by_hand = os.isatty(2)
    stdout = process.keep_stdout_for_one_line()
    process.tune_allocator()  # before gRPC allocates
    os.environ["GRPC_VERBOSITY"] = "NONE"

    from tabml_grpc.logs import LogStream, start_logging

    try:
        ring = start_logging(settings.log_level, settings.log_file)
    except OSError as problem:
        return _say(f"log_file={settings.log_file!r} can't be written: {problem.strerror}", EXIT_FLAGS)
    try:
        import asyncio

        from tabml.errors import TabmlError
        from tabml_grpc.server import AddressTakenError, Server, ready_line
    except ImportError as problem:
        return _say(f"{problem}; run: python -m pip install 'tabml[grpc]'", EXIT_FLAGS)

    def ready(address: str) -> None:
        if by_hand:
            _write(2, _HELLO.format(address=address, files=" then ".join(settings.files)).encode())
        _write(stdout, ready_line(address))

    try:
        server = Server(settings, ring)
        if settings.parent_watch:
            process.watch_parent(lambda: os._exit(EXIT_ORPHAN))
        sys.stdout = sys.stderr = LogStream("stderr")

        async def serve() -> None:
            if settings.stdin_watch:
                loop = asyncio.get_running_loop()
                process.watch_stdin(lambda: loop.call_soon_threadsafe(server.drain))
            await server.run(ready)

        process.run_loop(serve())
    except AddressTakenError as problem:
        return _say(f"{problem}; stop the program that listens there, or take --port 0", EXIT_TAKEN)
    except TabmlError as problem:
        return _say(str(problem), EXIT_FLAGS)
    except Exception:
        import logging

        logging.getLogger("tabml_grpc").exception("the server failed")
        return EXIT_BUG
    return 0


def _say(message: str, code: int) -> int:
    _write(2, f"tabml_grpc: {message}\n".encode())
    return code


def _write(descriptor: int, content: bytes) -> None:
    try:
        os.write(descriptor, content)
    except OSError:  # nobody there
        pass


def run(*more: str) -> None:
    """:func:`main` with the command line and ``more``, then the end: threads in native code are not waited for."""
    os._exit(main([*sys.argv[1:], *more]))


if __name__ == "__main__":
    run()
