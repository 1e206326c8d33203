"""Files over http(s), from a server that cuts, stalls and lies."""

from __future__ import annotations

import socket
import time

import pytest
from web_server import Server, busy, cut_at, silence, stall

from tabml.errors import (
    ModelFileNotFoundError,
    OptionError,
    ProviderAccessError,
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
)
from tabml.files import FileRef, Transport, UrlProvider, read_bytes
from tabml.files.url import open_url

REF = FileRef("maker/faces", "model.tflite")
CONTENT = bytes(range(256)) * 3000
FAST = Transport(timeout_s=0.4, connect_timeout_s=1.0, attempts=3, backoff_s=0.01)


@pytest.fixture
def provider(server: Server) -> UrlProvider:
    server.files["/maker/faces/model.tflite"] = CONTENT
    return UrlProvider(server.url, transport=FAST)


def test_a_cut_transfer_goes_on_where_it_stopped(server: Server, provider: UrlProvider) -> None:
    server.troubles = [cut_at(100_000), cut_at(400_000)]
    assert read_bytes(provider, REF) == CONTENT
    asked = [headers.get("Range") for _, headers in server.requests]
    assert asked[0] is None
    assert all(span is not None for span in asked[1:])
    assert server.requests[1][1]["If-Range"].startswith('"')


def test_a_server_without_ranges_starts_over_and_nothing_doubles(server: Server, provider: UrlProvider) -> None:
    server.troubles = [cut_at(300_000), lambda handler: handler.serve(ranges=False)]
    assert read_bytes(provider, REF) == CONTENT


def test_a_transfer_that_stalls_is_resumed(server: Server, provider: UrlProvider) -> None:
    server.troubles = [stall]
    assert read_bytes(provider, REF) == CONTENT


@pytest.mark.parametrize("code", [408, 429, 500, 502, 503, 504])
def test_a_busy_server_is_asked_again(server: Server, provider: UrlProvider, code: int) -> None:
    server.troubles = [busy(code), busy(code)]
    assert read_bytes(provider, REF) == CONTENT


def test_retry_after_is_honoured(server: Server, provider: UrlProvider) -> None:
    server.troubles = [busy(503, Retry_After="0.3")]
    begun = time.monotonic()
    assert read_bytes(provider, REF) == CONTENT
    assert time.monotonic() - begun >= 0.3


@pytest.mark.parametrize(
    ("trouble", "error"),
    [
        (busy(404), ModelFileNotFoundError),
        (busy(410), ModelFileNotFoundError),
        (busy(401), ProviderAccessError),
        (busy(403), ProviderAccessError),
        (busy(418), ProviderError),
        (busy(503), ProviderUnavailableError),
        (silence, ProviderTimeoutError),
    ],
)
def test_each_refusal_has_its_error(server: Server, provider: UrlProvider, trouble, error) -> None:
    server.troubles = [trouble] * 3
    with pytest.raises(error) as caught:
        provider.open(REF)
    assert type(caught.value) is error
    assert "\n" not in str(caught.value)


def test_a_transfer_that_is_always_cut_fails_as_unavailable(server: Server, provider: UrlProvider) -> None:
    server.troubles = [cut_at(10), busy(500), busy(500)]
    with pytest.raises(ProviderUnavailableError), provider.open(REF) as stream:
        list(stream)


def test_a_transfer_that_always_stalls_fails_as_timeout(server: Server, provider: UrlProvider) -> None:
    server.troubles = [stall, silence, silence]
    with pytest.raises(ProviderTimeoutError), provider.open(REF) as stream:
        list(stream)


def test_a_long_transfer_may_be_cut_more_often_than_attempts(server: Server) -> None:
    server.files["/a/b"] = bytes(6 << 20)
    server.troubles = [cut_at((megabytes << 20) + 5) for megabytes in (1, 2, 3, 4, 5)]
    assert len(read_bytes(UrlProvider(server.url, transport=FAST), FileRef("a", "b"))) == 6 << 20


@pytest.mark.parametrize("ranges", [True, False])
def test_a_file_that_changes_between_attempts_is_refused(server: Server, provider: UrlProvider, ranges: bool) -> None:
    def changed(handler) -> None:
        server.files[handler.path] = CONTENT[::-1]
        handler.serve(ranges=ranges, ETag="")  # even where nothing but the bytes tells

    server.troubles = [cut_at(100_000, ETag=""), changed]
    if ranges:
        server.troubles[1] = lambda handler: handler.serve(ETag='"another"')
        server.troubles[0] = cut_at(100_000)
    with pytest.raises(ProviderError, match="changed"), provider.open(REF) as stream:
        list(stream)


def test_a_resume_at_the_wrong_place_is_refused(server: Server, provider: UrlProvider) -> None:
    server.troubles = [cut_at(100_000), lambda handler: handler.serve(Content_Range="bytes 5-9/768000")]
    with pytest.raises(ProviderError, match="wrong place"), provider.open(REF) as stream:
        list(stream)


def test_a_length_that_lies_upwards_never_counts_as_whole(server: Server, provider: UrlProvider) -> None:
    server.troubles = [lambda handler: handler.serve(Content_Length=str(len(CONTENT) + 7))] * 3
    with pytest.raises(ProviderError), provider.open(REF) as stream:
        list(stream)


def test_a_file_over_the_cap_is_refused_before_its_bytes(server: Server, provider: UrlProvider) -> None:
    small = UrlProvider(server.url, transport=Transport(max_bytes=1000))
    with pytest.raises(ProviderError, match="max_bytes"):
        small.open(REF)


def test_a_file_of_unknown_length_is_capped_while_it_arrives(server: Server, provider: UrlProvider) -> None:
    server.troubles = [lambda handler: handler.serve(Content_Length="")] * 2
    assert read_bytes(provider, REF) == CONTENT
    with (
        pytest.raises(ProviderError, match="max_bytes"),
        open_url(f"{server.url}/maker/faces/model.tflite", Transport(max_bytes=1000)) as stream,
    ):
        list(stream)


def test_progress_counts_every_byte_once(server: Server, provider: UrlProvider) -> None:
    seen: list[tuple[str, int, int | None]] = []
    server.troubles = [cut_at(100_000)]
    read_bytes(UrlProvider(server.url, transport=FAST, progress=lambda *step: seen.append(step)), REF)
    done = [step[1] for step in seen]
    assert done == sorted(set(done))
    assert seen[-1] == ("model.tflite", len(CONTENT), len(CONTENT))


def test_a_secret_stays_with_the_host_it_is_for(server: Server, provider: UrlProvider) -> None:
    elsewhere = server.url.replace("127.0.0.1", "localhost") + "/maker/faces/model.tflite"
    server.troubles = [busy(302, Location=elsewhere)]
    open_url(f"{server.url}/x", Transport(headers={"authorization": "Bearer secret"})).close()
    assert [headers.get("Authorization") for _, headers in server.requests] == ["Bearer secret", None]


@pytest.mark.parametrize("to", ["http://192.0.2.1/x", "ftp://127.0.0.1/x", "file:///etc/passwd"])
def test_a_redirect_to_anything_but_https_is_not_followed(server: Server, provider: UrlProvider, to: str) -> None:
    server.troubles = [busy(302, Location=to)]
    with pytest.raises(ProviderError):
        provider.open(REF)


def test_a_closed_port_fails_at_once(provider: UrlProvider) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with pytest.raises(ProviderUnavailableError):
        UrlProvider(f"http://127.0.0.1:{port}", transport=FAST).open(REF)


def test_a_name_that_does_not_exist_fails_without_retries() -> None:
    begun = time.monotonic()
    with pytest.raises((ProviderUnavailableError, ProviderTimeoutError)):
        UrlProvider("https://does-not-exist.invalid", transport=Transport(connect_timeout_s=3, backoff_s=5)).open(REF)
    assert time.monotonic() - begun < 60


def test_a_host_that_never_answers_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    from tabml.files import url

    with socket.socket() as full:  # a backlog of one that is taken: further connections hang
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        place = full.getsockname()
        taken = [socket.socket() for _ in range(4)]
        for each in taken:
            each.setblocking(False)
            each.connect_ex(place)
        row = (socket.AF_INET, socket.SOCK_STREAM, 6, "", place)
        monkeypatch.setattr(url, "_addresses", lambda *_: [row] * 16)
        begun = time.monotonic()
        with pytest.raises(TimeoutError):
            url._dial(("many.example", 443), 0.5)
        assert time.monotonic() - begun < 2
        for each in taken:
            each.close()


@pytest.mark.parametrize("base", ["ftp://x", "http://example.com", "file:///x", "", "https://", "http://[", "x"])
def test_an_address_that_is_not_https_is_refused(base: str) -> None:
    with pytest.raises(OptionError, match=r"https|address"):
        UrlProvider(base)


def test_plain_http_is_allowed_where_asked_for() -> None:
    assert "example" in repr(UrlProvider("http://example.com", transport=Transport(allow_http=True)))


@pytest.mark.parametrize(
    "options",
    [{"timeout_s": 0}, {"attempts": 0}, {"max_bytes": -1}, {"backoff_s": -1}, {"connect_timeout_s": float("nan")}],
)
def test_options_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(OptionError, match=next(iter(options))):
        Transport(**options)  # type: ignore[arg-type]
