"""A running web server, and a catalog that forgets which hosts it could not reach."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from web_server import Server

from tabml.files import catalog


@pytest.fixture
def server() -> Iterator[Server]:
    """A running server."""
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.ending.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def _every_host_may_be_asked() -> Iterator[None]:
    catalog._UNREACHABLE.clear()
    yield
    catalog._UNREACHABLE.clear()


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's client asks, whatever other tests have told it: the hubs here are servers of these tests."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
