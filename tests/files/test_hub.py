"""The hub: who is told the token, and what its answers become."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import pytest
from test_provider_contract import HubHandler
from web_server import Server, busy, cut_at

from tabml.errors import (
    CorruptModelError,
    ModelFileNotFoundError,
    OptionError,
    ProviderAccessError,
    ProviderTimeoutError,
    ProviderUnavailableError,
)
from tabml.files import FileRef, HubProvider, Transport, read_bytes

REF = FileRef("maker/faces", "model.tflite")
CONTENT = bytes(range(256)) * 3000
FAST = Transport(timeout_s=1, attempts=2, backoff_s=0.01)


class TroubledHub(HubHandler):
    """The hub, whose answers to GET ``server.troubles`` may replace."""

    def do_GET(self) -> None:
        if self.command == "GET" and self.server.troubles:
            self.close_connection = True
            self.server.files[self.path] = CONTENT
            trouble = self.server.troubles.pop(0)
            if trouble is not None:
                trouble(self)
                return
        super().do_GET()

    def do_HEAD(self) -> None:
        super().do_GET()


@pytest.fixture
def hub(server: Server) -> Server:
    files = {("maker/faces", "model.tflite"): CONTENT}
    server.RequestHandlerClass = type("Hub", (TroubledHub,), {"files": files})
    return server


def test_a_cut_transfer_is_resumed_at_the_commit_it_began_with(hub: Server) -> None:
    hub.troubles = [cut_at(100_000, ETag=f'"{hashlib.sha256(CONTENT).hexdigest()}"')]
    assert read_bytes(HubProvider(endpoint=hub.url, transport=FAST), REF) == CONTENT
    assert "/resolve/main/" in hub.requests[0][0]
    assert f"/resolve/{'c' * 40}/" in hub.requests[-1][0]


def test_bytes_that_are_not_what_the_hub_announced_are_an_error(hub: Server) -> None:
    def other(handler: HubHandler) -> None:
        handler.server.files[handler.path] = CONTENT[::-1]
        handler.serve()

    hub.troubles = [other]
    with pytest.raises(CorruptModelError, match="sha256"):
        read_bytes(HubProvider(endpoint=hub.url, transport=FAST), REF)


def test_the_token_given_is_used_and_nobody_elses(hub: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_environment")
    read_bytes(HubProvider(endpoint=hub.url, transport=FAST), REF)
    assert not any("Authorization" in headers or "authorization" in headers for _, headers in hub.requests)
    hub.requests.clear()
    provider = HubProvider(endpoint=hub.url, token="hf_given", transport=FAST)
    read_bytes(provider, REF)
    sent = [{name.lower(): value for name, value in headers.items()} for _, headers in hub.requests]
    assert [headers.get("authorization") for headers in sent] == ["Bearer hf_given"] * len(sent)
    assert "hf_given" not in repr(provider)
    assert "hf_given" not in repr(provider._transport)


@pytest.mark.parametrize(
    ("trouble", "error"),
    [
        (busy(401, X_Error_Code="RepoNotFound"), ModelFileNotFoundError),
        (busy(404, X_Error_Code="RevisionNotFound"), ModelFileNotFoundError),
        (busy(403, X_Error_Code="GatedRepo"), ProviderAccessError),
        (busy(403), ProviderAccessError),
        (busy(500), ProviderUnavailableError),
        (busy(503), ProviderUnavailableError),
    ],
)
def test_each_refusal_has_its_error(hub: Server, trouble, error) -> None:
    hub.troubles = [trouble] * 8
    with pytest.raises(error) as caught:
        HubProvider(endpoint=hub.url, transport=FAST).list("maker/faces")
    assert type(caught.value) is error
    assert "\n" not in str(caught.value)


def test_a_hub_that_is_silent_is_a_timeout(hub: Server) -> None:
    hub.troubles = [lambda handler: hub.ending.wait(5) and None] * 2
    with pytest.raises(ProviderTimeoutError):
        HubProvider(endpoint=hub.url, transport=Transport(timeout_s=0.2, attempts=1)).list("maker/faces")


def test_a_hub_that_is_down_is_unavailable() -> None:
    provider = HubProvider(endpoint="http://127.0.0.1:9", transport=FAST)
    with pytest.raises(ProviderUnavailableError):
        provider.open(REF)
    with pytest.raises(ProviderUnavailableError):
        provider.list("maker/faces")


def test_a_name_that_the_hub_does_not_allow_is_not_found(hub: Server) -> None:
    with pytest.raises(ModelFileNotFoundError):
        HubProvider(endpoint=hub.url, transport=FAST).open(FileRef("a/b/c", "x"))


def test_an_endpoint_that_is_not_https_is_refused() -> None:
    with pytest.raises(OptionError, match="https"):
        HubProvider(endpoint="http://example.com")


def test_without_the_hub_library_the_message_names_the_command() -> None:
    check = (
        "import sys; sys.modules['huggingface_hub'] = None\n"
        "import tabml.files\n"
        "from tabml.errors import MissingExtraError\n"
        "try:\n    tabml.files.HubProvider\n"
        "except MissingExtraError as problem:\n    print(problem)\n"
    )
    found = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert "tabml[hub]" in found.stdout
