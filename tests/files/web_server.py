"""A web server that can misbehave."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    """Serves ``server.files``; ``server.trouble`` may answer a request instead."""

    server: Server
    protocol_version = "HTTP/1.1"

    def end_headers(self) -> None:
        """One request a connection."""
        self.send_header("Connection", "close")
        super().end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing on stderr."""

    def do_GET(self) -> None:
        """One answer."""
        self.close_connection = True
        self.server.requests.append((self.path, dict(self.headers)))
        trouble = self.server.troubles.pop(0) if self.server.troubles else None
        if trouble is not None:
            trouble(self)
        else:
            self.serve()

    do_HEAD = do_GET

    def serve(self, *, ranges: bool = True, until: int | None = None, **headers: str) -> None:
        """The file as it should be, or cut at byte ``until``."""
        content = self.server.files.get(self.path)
        if content is None:
            self.refuse(404)
            return
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        start = 0
        asked = self.headers.get("Range")
        if asked and ranges:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            self.send_response(206)
            headers.setdefault("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        headers = {"Content-Length": str(len(content) - start), "ETag": tag(content), **headers}
        for name, value in headers.items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content[start:until])

    def refuse(self, code: int, **headers: str) -> None:
        """An answer without a body."""
        self.send_response(code)
        for name, value in {"Content-Length": "0", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()


def tag(content: bytes) -> str:
    """A strong ETag."""
    return f'"{hashlib.sha256(content).hexdigest()[:16]}"'


class Server(ThreadingHTTPServer):
    """On a free port of the loopback."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.troubles: list[Callable[[Handler], None] | None] = []
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.ending = threading.Event()

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, *_: object) -> None:
        """The client went away: that is what some tests are about."""


def stall(handler: Handler) -> None:
    """Promise a file, and send half."""
    content = handler.server.files[handler.path]
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content[: len(content) // 2])
    handler.wfile.flush()
    handler.server.ending.wait(10)


def silence(handler: Handler) -> None:
    """Say nothing at all."""
    handler.server.ending.wait(10)


def cut_at(until: int, **headers: str) -> Callable[[Handler], None]:
    """Break off after ``until`` bytes of the file."""
    return lambda handler: handler.serve(until=until, **headers)


def busy(code: int, **headers: str) -> Callable[[Handler], None]:
    """Answer with a status alone."""
    return lambda handler: handler.refuse(code, **headers)
