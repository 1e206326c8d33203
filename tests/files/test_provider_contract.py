"""Every provider of tabml against the contract that users' providers inherit too."""

from __future__ import annotations

import hashlib
import json
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import ClassVar
from urllib.parse import unquote

import pytest
from web_server import Handler, Server

from tabml.files import (
    CachingProvider,
    CatalogProvider,
    DirectoryProvider,
    FallbackProvider,
    FileProvider,
    FileRef,
    HubProvider,
    MemoryProvider,
    PackageProvider,
    Transport,
    UrlProvider,
    load_catalog,
)
from tabml.testing import EXAMPLE_FILES, FileProviderContract

Files = Mapping[tuple[str, str], bytes]


class TestMemory(FileProviderContract):
    @contextmanager
    def provide(self, files: Files) -> Iterator[FileProvider]:
        yield MemoryProvider(files)


class TestDirectory(FileProviderContract):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.root = tmp_path

    @contextmanager
    def provide(self, files: Files) -> Iterator[FileProvider]:
        for (repo, path), content in files.items():
            place = self.root / repo / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
        yield DirectoryProvider(self.root)


class TestDirectoryWithRevisions(TestDirectory):
    revision = "v1.2"

    @contextmanager
    def provide(self, files: Files) -> Iterator[FileProvider]:
        with super().provide({(f"{repo}/v1.2", path): content for (repo, path), content in files.items()}) as provider:
            yield provider


class TestCaching(FileProviderContract):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.root = tmp_path / "cache"

    @contextmanager
    def provide(self, files: Files) -> Iterator[FileProvider]:
        yield CachingProvider(MemoryProvider(files), self.root)


class TestCachingOfCaching(TestCaching):
    @contextmanager
    def provide(self, files: Files) -> Iterator[FileProvider]:
        inner = CachingProvider(MemoryProvider(files), self.root / "inner")
        yield CachingProvider(inner, self.root / "outer", max_bytes=1)


class TestCachingWhereNothingCanBeWritten(TestCaching):
    @contextmanager
    def provide(self, files: Files) -> Iterator[FileProvider]:
        self.root.write_bytes(b"a file where the folder should be")
        yield CachingProvider(MemoryProvider(files), self.root)


class TestFallback(FileProviderContract):
    @contextmanager
    def provide(self, files: Files) -> Iterator[FileProvider]:
        faces = {key: content for key, content in files.items() if key[0] == "maker/faces"}
        yield FallbackProvider([MemoryProvider({}), MemoryProvider(faces), MemoryProvider(files)])


class TestUrl(FileProviderContract):
    can_list = False

    @pytest.fixture(autouse=True)
    def _server(self, server: Server) -> None:
        self.server = server

    @contextmanager
    def provide(self, files: Files) -> Iterator[FileProvider]:
        self.server.files = {f"/{repo}/{path}": content for (repo, path), content in files.items()}
        yield UrlProvider(self.server.url)


class HubHandler(Handler):
    """What the hub answers at its resolve and api addresses."""

    files: ClassVar[Files] = {}
    commit = "c" * 40

    def do_GET(self) -> None:
        self.close_connection = True
        path = unquote(self.path.partition("?")[0])
        self.server.requests.append((path, dict(self.headers)))
        if path.startswith("/api/models/"):
            self.api(path.removeprefix("/api/models/").partition("/revision/")[0])
            return
        repo, _, rest = path.removeprefix("/").partition("/resolve/")
        if repo not in {name for name, _ in self.files}:
            self.refuse(401, X_Error_Code="RepoNotFound")
            return
        content = self.files.get((repo, rest.partition("/")[2]))
        if content is None:
            self.refuse(404, X_Error_Code="EntryNotFound")
            return
        self.server.files[self.path] = content
        self.serve(ETag=f'"{hashlib.sha256(content).hexdigest()}"', X_Repo_Commit=self.commit)

    do_HEAD = do_GET

    def api(self, repo: str) -> None:
        siblings = [
            {
                "rfilename": path,
                "size": len(content),
                "lfs": {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 1},
            }
            for (name, path), content in self.files.items()
            if name == repo
        ]
        if not siblings:
            self.refuse(401, X_Error_Code="RepoNotFound")
            return
        body = json.dumps({"id": repo, "sha": self.commit, "siblings": siblings}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class TestHub(FileProviderContract):
    @pytest.fixture(autouse=True)
    def _server(self, server: Server) -> None:
        self.server = server

    @contextmanager
    def provide(self, files: Files) -> Iterator[FileProvider]:
        self.server.RequestHandlerClass = type("Hub", (HubHandler,), {"files": files})
        yield HubProvider(endpoint=self.server.url, transport=Transport(timeout_s=5, attempts=2))


PACKAGE_FILES = {("tabml-test-models", f"tabml_test_models/{path}"): data for (_, path), data in EXAMPLE_FILES.items()}


def write_wheel(folder: Path, files: Files = PACKAGE_FILES) -> None:
    """A wheel that pip takes."""
    name, note = "tabml_test_models", "tabml_test_models-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
        for (_, path), content in files.items():
            wheel.writestr(path, content)
        wheel.writestr(f"{note}/METADATA", "Metadata-Version: 2.1\nName: tabml-test-models\nVersion: 1.0\n")
        wheel.writestr(
            f"{note}/WHEEL", "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{note}/RECORD", "".join(f"{path},,\n" for _, path in files))


@pytest.fixture(scope="module")
def fetched_package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PackageProvider]:
    """One provider for all its tests: pip takes a second for each wheel."""
    folder = tmp_path_factory.mktemp("index")
    write_wheel(folder)
    provider = PackageProvider(pip_options=["--no-index", f"--find-links={folder}"])
    yield provider
    provider.close()


class TestPackageOfTheIndex(FileProviderContract):
    files = PACKAGE_FILES
    revision = "1.0"

    @pytest.fixture(autouse=True)
    def _fetched(self, fetched_package: PackageProvider) -> None:
        self.fetched = fetched_package

    @contextmanager
    def provide(self, files: Files) -> Iterator[FileProvider]:
        yield self.fetched


class TestPackageThatIsInstalled(FileProviderContract):
    files = PACKAGE_FILES
    revision = "1.0"

    @pytest.fixture(autouse=True)
    def _installed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write_wheel(tmp_path)
        with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
            wheel.extractall(tmp_path / "site")
        monkeypatch.syspath_prepend(tmp_path / "site")

    @contextmanager
    def provide(self, files: Files) -> Iterator[FileProvider]:
        provider = PackageProvider(pip_options=["--no-index"])
        yield provider
        provider.close()


@cache
def a_catalog_with_small_models() -> Files:
    return {("little", "little.tflite"): b"TFL3" * 9, ("bigger", "bigger.tflite"): bytes(range(256)) * 9000}


class TestCatalog(FileProviderContract):
    files = a_catalog_with_small_models()

    @pytest.fixture(autouse=True)
    def _entries(self, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        from tabml.files import catalog

        entries = {}
        for (name, file), content in self.files.items():
            server.files[f"/{file}"] = content
            entries[name] = catalog.CatalogEntry(
                name=name, task="t", file=file, sha256=hashlib.sha256(content).hexdigest(), size=len(content),
                license="Apache-2.0", model_card="none", url=f"{server.url}/{file}",
            )  # fmt: skip
        monkeypatch.setattr(catalog, "load_catalog", lambda: entries)

    @contextmanager
    def provide(self, files: Files) -> Iterator[FileProvider]:
        provider = CatalogProvider(sources=["url"])
        yield provider
        provider.close()


class Forgetful:
    """A provider that breaks the contract in every way that the contract looks for."""

    def __init__(self, files: Files, fault: str) -> None:
        self._good, self._fault = MemoryProvider(files), fault
        self._lock = threading.Lock()

    def open(self, ref: FileRef):
        stream = self._good.open(ref if self._fault != "found" else FileRef("maker/faces", "model.tflite"))
        if self._fault == "size":
            stream.size = (stream.size or 0) + 1
        if self._fault == "short":
            stream._chunks = iter(list(stream)[:-1])
        if self._fault == "empty chunk":
            stream._chunks = iter([b"", *stream])
        return stream

    def list(self, repo: str, revision: str | None = None):
        infos = list(self._good.list(repo, revision))
        return infos[::-1] if self._fault == "order" else infos


@pytest.mark.parametrize(
    ("fault", "test"),
    [
        ("size", "test_every_file_arrives_whole_and_as_announced"),
        ("short", "test_every_file_arrives_whole_and_as_announced"),
        ("empty chunk", "test_every_file_arrives_whole_and_as_announced"),
        ("found", "test_a_missing_file_is_not_found"),
        ("order", "test_a_listing_is_sorted_and_true"),
    ],
)
def test_the_contract_finds_a_provider_that_breaks_it(fault: str, test: str) -> None:
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        getattr(TestMemory(), test)(Forgetful(EXAMPLE_FILES, fault))


def test_the_real_catalog_is_well_formed() -> None:
    for name, entry in load_catalog().items():
        assert entry.name == name
        assert entry.ref == FileRef(name, entry.file)
        assert len(bytes.fromhex(entry.sha256)) == 32
        assert entry.license == "Apache-2.0"
        assert entry.task
        assert entry.model_card
        official = (
            "https://storage.googleapis.com/mediapipe-models/",
            "https://huggingface.co/",
            "https://cdn.jsdelivr.net/npm/@mediapipe/",
        )
        assert entry.url is None or entry.url.startswith(official)
        assert entry.url or entry.packages or entry.bundle or entry.npm
    assert len({entry.sha256 for entry in load_catalog().values()}) == len(load_catalog())
