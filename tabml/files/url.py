"""Files over https: time limits, retries with backoff, resumed by Range where a transfer is cut."""

from __future__ import annotations

import hashlib
import http.client
import random
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

from tabml.errors import (
    ModelFileNotFoundError,
    OptionError,
    ProviderAccessError,
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
)
from tabml.files.types import CHUNK_BYTES, MAX_MODEL_BYTES, FileInfo, FileRef, FileStream, Progress, check_name

_RETRIED = (408, 425, 429, 500, 502, 503, 504)
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_LONGEST_WAIT_S = 30.0
_CUT = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Transport:
    """How patient a transfer is, and what it may fetch."""

    timeout_s: float = 30.0
    """Seconds without a byte before an attempt counts as failed."""
    connect_timeout_s: float = 10.0
    """Seconds to find the host and reach it, over all its addresses."""
    attempts: int = 4
    """How often to try; counted anew once a further MiB has arrived."""
    backoff_s: float = 0.5
    """Seconds before the second attempt, doubled (with jitter) before each further one."""
    max_bytes: int = MAX_MODEL_BYTES
    """A larger file is refused."""
    allow_http: bool = False
    """Plain http to other machines too; for networks that are trusted."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Sent to the host that was asked, and to no host it redirects to."""

    def __post_init__(self) -> None:
        for name in ("timeout_s", "connect_timeout_s", "attempts", "max_bytes"):
            if not getattr(self, name) > 0:
                raise OptionError(f"{name}={getattr(self, name)!r} must be positive")
        if not self.backoff_s >= 0:
            raise OptionError(f"backoff_s={self.backoff_s!r} must not be negative")


_DEFAULT = Transport()


class UrlProvider:
    """Files at ``base/repo/path`` (``base/repo/revision/path`` when a revision is asked for). It can't list."""

    def __init__(self, base: str, *, transport: Transport = _DEFAULT, progress: Progress | None = None) -> None:
        """Check the options.

        Args:
            base: An https address; http only on this machine's loopback, or where ``transport`` allows it.
            transport: Time limits, retries and size cap.
            progress: Called as bytes arrive.

        Raises:
            OptionError: ``base`` is not such an address.
        """
        self._base = check_url(base, allow_http=transport.allow_http).rstrip("/")
        self._transport, self._progress = transport, progress

    def __repr__(self) -> str:
        return f"UrlProvider({self._base!r})"

    def open(self, ref: FileRef) -> FileStream:
        """The file as a stream of bytes."""
        parts = [ref.repo, *([ref.revision] if ref.revision else []), ref.path]
        return open_url(f"{self._base}/{quote('/'.join(parts))}", self._transport, progress=self._progress)

    def list(self, repo: str, revision: str | None = None) -> Sequence[FileInfo]:
        """Plain web servers have no listing: always fails."""
        check_name("repo", repo)
        raise ModelFileNotFoundError(f"{self._base} can't list {repo}: plain web servers have no listing")


def check_url(url: str, *, allow_http: bool = False) -> str:
    """``url``, when it is https, or http on this machine's loopback.

    Raises:
        OptionError: it isn't.
    """
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError as problem:
        raise OptionError(f"url={url!r} is not an address: {problem}") from problem
    plain = parts.scheme == "http" and (allow_http or host in _LOOPBACK)
    if not host or not (parts.scheme == "https" or plain):
        raise OptionError(f"url={url!r} must be https, or http on the loopback")
    return url


def open_url(url: str, transport: Transport = _DEFAULT, *, progress: Progress | None = None) -> FileStream:
    """One address as a stream of bytes; the first answer is awaited here, so that a missing file fails here.

    Raises:
        ModelFileNotFoundError: 404 or 410.
        ProviderAccessError: 401 or 403.
        ProviderTimeoutError: no byte came in time, in every attempt.
        ProviderUnavailableError: the server can't be reached, or the transfer was cut, in every attempt.
        ProviderError: the file is too large, or changed on its way.
    """
    transfer = _Transfer(check_url(url, allow_http=transport.allow_http), transport, progress)
    transfer.connect()
    return FileStream(transfer.chunks(), size=transfer.total, close=transfer.close)


class _Transfer:
    """One file on its way, over as many connections as it takes."""

    def __init__(self, url: str, transport: Transport, progress: Progress | None) -> None:
        self._url, self._limits, self._progress = url, transport, progress
        self._opener = _opener(url, transport)
        self._left, self._pause_s = transport.attempts, transport.backoff_s
        self._response: Any = None
        self._etag: str | None = None
        self._seen = hashlib.sha256()
        self._done = 0
        self._counted = 0
        self.total: int | None = None

    def connect(self) -> None:
        """Open the connection, retrying; leaves the response at byte ``done``."""
        while True:
            self._left -= 1
            try:
                return self._connect_once()
            except ProviderError:
                self.close()
                raise
            except _CUT as problem:
                self.close()
                self._wait_or_fail(problem)

    def _connect_once(self) -> None:
        headers = {"User-Agent": "tabml", "Accept-Encoding": "identity", **self._limits.headers}
        if self._done:
            headers["Range"] = f"bytes={self._done}-"
            if self._etag and not self._etag.startswith("W/"):
                headers["If-Range"] = self._etag
        try:
            self._response = self._opener.open(
                urllib.request.Request(self._url, headers=headers), timeout=self._limits.timeout_s
            )
        except urllib.error.HTTPError as problem:
            with problem:
                self._refused(problem)
            raise
        response = self._response
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise ProviderError(f"{self._url} answered in an encoding that was not asked for")
        etag = response.headers.get("ETag")
        if self._done and self._etag and etag and etag != self._etag:
            raise ProviderError(f"{self._url} changed while it was fetched; try again")
        self._etag = etag or self._etag
        if response.status == 206:
            self._resumed(response.headers.get("Content-Range", ""))
        else:
            self._started(response)

    def _refused(self, problem: urllib.error.HTTPError) -> None:
        """Raise where another attempt can't help."""
        if problem.code in (404, 410):
            raise ModelFileNotFoundError(f"{self._url} does not exist ({problem.code})") from None
        if problem.code in (401, 403):
            raise ProviderAccessError(f"{self._url} refuses access ({problem.code})") from None
        if problem.code == 407:
            raise ProviderAccessError("the proxy asks for a name and password; set them in HTTPS_PROXY") from None
        if problem.code not in _RETRIED:
            raise ProviderError(f"{self._url} answered {problem.code} {problem.reason}") from None

    def _resumed(self, span: str) -> None:
        """Check that a partial answer goes on where the last one stopped."""
        where, _, total = span.removeprefix("bytes ").partition("/")
        if where.partition("-")[0] != str(self._done) or (
            self.total is not None and total not in ("*", str(self.total))
        ):
            raise ProviderError(f"{self._url} resumed at the wrong place ({span!r}); try again")

    def _started(self, response: Any) -> None:
        """A whole answer: read over what is here already, which must be the same."""
        length = response.headers.get("Content-Length", "")
        total = int(length) if length.isdigit() else None
        if self._done and total != self.total:
            raise ProviderError(f"{self._url} changed while it was fetched; try again")
        if total is not None and total > self._limits.max_bytes:
            raise ProviderError(f"{self._url} has {total} bytes, more than max_bytes={self._limits.max_bytes}")
        self.total = total
        left, again = self._done, hashlib.sha256()
        while left:
            piece = response.read1(min(left, CHUNK_BYTES))
            if not piece:
                raise ConnectionError("cut short again")
            again.update(piece)
            left -= len(piece)
        if again.digest() != self._seen.digest():
            raise ProviderError(f"{self._url} changed while it was fetched; try again")

    def chunks(self) -> Iterator[bytes]:
        """The bytes, whatever happens to the connections."""
        name = self._url.rpartition("/")[2]
        while self.total is None or self._done < self.total:
            try:
                chunk = self._response.read1(CHUNK_BYTES)
                if not chunk and self.total is not None:
                    raise ConnectionError(f"{self._done} of {self.total} bytes arrived")
            except _CUT as problem:
                self.close()
                if self._done - self._counted >= CHUNK_BYTES:
                    self._counted = self._done
                    self._left, self._pause_s = self._limits.attempts - 1, self._limits.backoff_s
                self._wait_or_fail(problem)
                self.connect()
                continue
            if not chunk:
                return
            if self._done + len(chunk) > min(self._limits.max_bytes, self.total or self._limits.max_bytes):
                raise ProviderError(f"{self._url} sends more than it said, or than max_bytes={self._limits.max_bytes}")
            self._done += len(chunk)
            self._seen.update(chunk)
            if self._progress is not None:
                self._progress(name, self._done, self.total)
            yield chunk

    def _wait_or_fail(self, problem: Exception) -> None:
        reason = getattr(problem, "reason", problem)
        if self._left > 0 and not isinstance(reason, socket.gaierror | ssl.SSLCertVerificationError):
            time.sleep(max(self._pause_s * random.uniform(0.5, 1.5), _asked_wait_s(problem)))
            self._pause_s = min(self._pause_s * 2, _LONGEST_WAIT_S)
            return
        if isinstance(reason, TimeoutError):
            raise ProviderTimeoutError(f"{self._url} stopped answering") from problem
        raise ProviderUnavailableError(f"{self._url} can't be fetched: {reason}") from problem

    def close(self) -> None:
        """Let go of the connection."""
        response, self._response = self._response, None
        if response is not None:
            response.close()


def _asked_wait_s(problem: Exception) -> float:
    """What a busy server asks for with Retry-After."""
    if isinstance(problem, urllib.error.HTTPError) and problem.headers is not None:
        with suppress(ValueError):
            return min(float(problem.headers.get("Retry-After", "0")), _LONGEST_WAIT_S)
    return 0.0


def _opener(url: str, transport: Transport) -> urllib.request.OpenerDirector:
    """urllib's machinery, proxies included, with a limit of its own for connecting and strict redirects."""
    limit = transport.connect_timeout_s

    def plain(host: str, **options: Any) -> http.client.HTTPConnection:
        return _patient(http.client.HTTPConnection(host, **options), limit)

    def secure(host: str, **options: Any) -> http.client.HTTPConnection:
        return _patient(http.client.HTTPSConnection(host, **options), limit)

    class Http(urllib.request.HTTPHandler):
        def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(plain, request)

    class Https(urllib.request.HTTPSHandler):
        def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(secure, request)

    handlers: list[urllib.request.BaseHandler] = [Http(), Https(), _Redirects(transport)]
    if urlsplit(url).hostname in _LOOPBACK:  # a proxy would look for it on its own machine
        handlers.append(urllib.request.ProxyHandler({}))
    return urllib.request.build_opener(*handlers)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows no redirect to plain http, and takes no secret to another host."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def redirect_request(
        self, request: urllib.request.Request, answer: Any, code: int, message: str, headers: Any, address: str
    ) -> urllib.request.Request | None:
        """The next request."""
        try:
            check_url(address, allow_http=self._transport.allow_http)
        except OptionError as problem:
            answer.close()
            raise ProviderError(f"{request.full_url} redirects to {address}, which is not https") from problem
        following = super().redirect_request(request, answer, code, message, headers, address)
        if following is not None and urlsplit(address).netloc != urlsplit(request.full_url).netloc:
            for name in self._transport.headers:
                following.remove_header(name.capitalize())
        return following


def _patient(connection: http.client.HTTPConnection, limit_s: float) -> http.client.HTTPConnection:
    """``connection``, reaching its host within ``limit_s`` whatever the timeout for reading."""
    read_timeout = connection.timeout
    reach = connection.connect

    def create(address: tuple[str, int], timeout: object = None, source: object = None) -> socket.socket:
        return _dial(address, limit_s)

    def connect() -> None:
        reach()  # greetings and handshakes, too, in limit_s
        connection.sock.settimeout(read_timeout)

    connection._create_connection = create  # type: ignore[attr-defined]
    connection.connect = connect  # type: ignore[method-assign]
    return connection


def _dial(address: tuple[str, int], limit_s: float) -> socket.socket:
    """A connection to the first address of the host that answers: socket.create_connection waits for each in turn."""
    ends = time.monotonic() + limit_s
    problem: OSError = TimeoutError(f"{address[0]} could not be reached in {limit_s:g} s")
    for family, kind, protocol, _, place in _addresses(address, limit_s):
        left = ends - time.monotonic()
        if left <= 0:
            break
        dialled = socket.socket(family, kind, protocol)
        try:
            dialled.settimeout(max(left / 2, 0.05))
            dialled.connect(place)
        except OSError as failed:
            dialled.close()
            problem = failed
            continue
        dialled.settimeout(limit_s)
        return dialled
    raise problem


def _addresses(address: tuple[str, int], limit_s: float) -> list[Any]:
    """Name resolution with a time limit, which the system's own lacks."""
    found: list[Any] = []
    problems: list[OSError] = []

    def resolve() -> None:
        try:
            found.extend(socket.getaddrinfo(*address, type=socket.SOCK_STREAM))
        except OSError as problem:
            problems.append(problem)

    thread = threading.Thread(target=resolve, name="tabml-resolve", daemon=True)
    thread.start()
    thread.join(limit_s)
    if problems:
        raise problems[0]
    if not found:
        raise TimeoutError(f"the name {address[0]} could not be resolved in {limit_s:g} s")
    return found
