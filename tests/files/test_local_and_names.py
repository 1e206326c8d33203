"""Names, folders, memory, the chain, and the packages: what the contract doesn't reach."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given

from tabml.errors import (
    InvalidNameError,
    ModelFileNotFoundError,
    OptionError,
    ProviderAccessError,
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
)
from tabml.files import (
    DirectoryProvider,
    FallbackProvider,
    FileRef,
    MemoryProvider,
    PackageProvider,
    open_provider,
    read_bytes,
)
from tabml.testing import file_refs, hostile_names


@given(file_refs())
def test_plain_names_make_a_file_and_any_folder_provider_takes_them(ref: FileRef) -> None:
    memory = MemoryProvider({(ref.repo, ref.path): b"x"})
    assert read_bytes(memory, ref) == b"x"
    assert ref.path in str(ref)
    assert hash(ref) == hash(FileRef(ref.repo, ref.path, ref.revision))


@given(hostile_names())
def test_hostile_names_make_no_file(name: str) -> None:
    for make in (lambda: FileRef(name, "x"), lambda: FileRef("x", name), lambda: FileRef("x", "y", name)):
        with pytest.raises(InvalidNameError) as caught:
            make()
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 200


@pytest.mark.parametrize("name", [None, 5, b"x", Path("x"), ["x"]])
def test_what_is_not_text_is_no_name(name: object) -> None:
    with pytest.raises(InvalidNameError):
        FileRef(name, "x")  # type: ignore[arg-type]


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    repo = tmp_path / "root" / "repo"
    repo.mkdir(parents=True)
    (repo / "link").symlink_to(tmp_path / "secret")
    (repo / "circle").symlink_to(repo / "circle")
    (tmp_path / "root" / "out").symlink_to(tmp_path)
    provider = DirectoryProvider(tmp_path / "root")
    for ref in (FileRef("repo", "link"), FileRef("repo", "circle"), FileRef("out", "secret")):
        assert provider.local_path(ref) is None
        with pytest.raises(ModelFileNotFoundError):
            provider.open(ref)
    assert provider.list("repo") == []
    with pytest.raises(ModelFileNotFoundError):
        provider.list("out")


def test_a_revision_can_not_leave_the_folder(tmp_path: Path) -> None:
    with pytest.raises(InvalidNameError):
        DirectoryProvider(tmp_path).list("repo", "../..")


def test_a_fifo_is_not_a_file(tmp_path: Path) -> None:
    (tmp_path / "repo").mkdir()
    os.mkfifo(tmp_path / "repo" / "fifo")
    with pytest.raises(ModelFileNotFoundError):
        DirectoryProvider(tmp_path).open(FileRef("repo", "fifo"))


def test_a_name_longer_than_the_disk_allows_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(ModelFileNotFoundError):
        DirectoryProvider(tmp_path).open(FileRef("repo", "x" * 900))


class Failing:
    def __init__(self, error: type[Exception]) -> None:
        self.error = error

    def open(self, ref: FileRef):
        raise self.error("it broke")

    def list(self, repo: str, revision: str | None = None):
        raise self.error("it broke")

    def __repr__(self) -> str:
        return f"Failing({self.error.__name__})"


@pytest.mark.parametrize("error", [ModelFileNotFoundError, ProviderUnavailableError, ProviderTimeoutError])
def test_a_provider_that_fails_is_followed_by_the_next(error: type[Exception]) -> None:
    chain = FallbackProvider([Failing(error), MemoryProvider({("a", "b"): b"x"})])
    assert read_bytes(chain, FileRef("a", "b")) == b"x"
    assert [info.path for info in chain.list("a")] == ["b"]


def test_the_error_of_a_chain_lists_every_attempt_and_is_what_can_be_mended() -> None:
    chain = FallbackProvider(
        [Failing(ModelFileNotFoundError), Failing(ProviderAccessError), Failing(ModelFileNotFoundError)]
    )
    with pytest.raises(ProviderAccessError) as caught:
        chain.open(FileRef("a", "b"))
    assert str(caught.value).count("it broke") == 3
    with pytest.raises(ModelFileNotFoundError):
        FallbackProvider([Failing(ModelFileNotFoundError)] * 2).open(FileRef("a", "b"))


def test_a_mistake_is_not_taken_for_a_missing_file() -> None:
    with pytest.raises(ZeroDivisionError):
        FallbackProvider([Failing(ZeroDivisionError), MemoryProvider({})]).open(FileRef("a", "b"))


def test_an_empty_chain_is_refused() -> None:
    with pytest.raises(OptionError):
        FallbackProvider([])


def test_a_chain_hands_out_only_the_path_of_the_file_it_would_open(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_bytes(b"disk")
    disk, ref = DirectoryProvider(tmp_path), FileRef("a", "b")
    assert FallbackProvider([disk, MemoryProvider({})]).local_path(ref) == tmp_path / "a" / "b"
    assert FallbackProvider([MemoryProvider({("a", "b"): b"memory"}), disk]).local_path(ref) is None


@pytest.mark.parametrize(
    ("repo", "revision"),
    [
        ("--index-url", "x"), ("-rfile", None), ("numpy", "1 --pre"), ("numpy", "-1"), ("a b", None),
        ("numpy;import os", None), ("numpy[extra]", None), ("numpy@file", None), ("a/b", None), ("numpy", "1,2"),
    ],
)  # fmt: skip
def test_pip_is_never_handed_an_option_or_an_address(repo: str, revision: str | None) -> None:
    provider = PackageProvider(pip_options=["--no-index"])
    with pytest.raises(InvalidNameError):
        provider.open(FileRef(repo, "x", revision))


def test_a_python_without_pip_says_how_to_mend_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "", f"{sys.executable}: No module named pip\n")

    monkeypatch.setattr("tabml.files.package.subprocess.run", run)
    with pytest.raises(ProviderError, match="ensurepip"):
        PackageProvider().open(FileRef("tabml-no-such-package", "x"))


def test_pip_that_takes_too_long_is_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    slow = tmp_path / "slow"
    slow.write_text("#!/bin/sh\nexec sleep 30\n")
    slow.chmod(0o755)
    monkeypatch.setattr("tabml.files.package.sys.executable", str(slow))
    with pytest.raises(ProviderTimeoutError, match=r"0\.2 s"):
        PackageProvider(timeout_s=0.2).open(FileRef("tabml-no-such-package", "x"))


def test_an_index_that_can_not_be_reached_is_not_called_empty() -> None:
    with pytest.raises(ProviderUnavailableError) as caught:
        PackageProvider(
            pip_options=["--isolated", "--index-url=http://127.0.0.1:9/simple", "--retries=1", "--timeout=1"]
        ).open(FileRef("tabml-no-such-package", "x"))
    assert "\n" not in str(caught.value)


def test_a_wheel_that_is_damaged_is_refused(tmp_path: Path) -> None:
    from test_provider_contract import write_wheel

    write_wheel(tmp_path)
    wheel = next(tmp_path.glob("*.whl"))
    content = bytearray(wheel.read_bytes())
    at = content.index(b"TFL3")
    content[at : at + 4] = b"XXXX"
    wheel.write_bytes(content)
    provider = PackageProvider(pip_options=["--no-index", f"--find-links={tmp_path}"])
    try:
        with pytest.raises(ProviderUnavailableError, match="damaged"):
            provider.open(FileRef("tabml-test-models", "tabml_test_models/model.tflite", "1.0"))
    finally:
        provider.close()
        provider.close()


def test_uris_name_providers(tmp_path: Path) -> None:
    folder = tmp_path / "with space"
    (folder / "a").mkdir(parents=True)
    (folder / "a" / "b").write_bytes(b"x")
    for uri in (f"dir:{folder}", f"dir://{str(folder).replace(' ', '%20')}"):
        assert read_bytes(open_provider(uri), FileRef("a", "b")) == b"x"
    assert "UrlProvider" in repr(open_provider("https://example.com/models"))
    assert "HubProvider" in repr(open_provider("hub:http://127.0.0.1:9"))
    assert "PackageProvider" in repr(open_provider("package:"))
    assert "CatalogProvider" in repr(open_provider("catalog:"))
    for uri in ("", "dir:", "ftp://x/y", "http://example.com", "unknown:x", "memory:"):
        with pytest.raises(OptionError):
            open_provider(uri)


@pytest.fixture
def plug_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tabml_plugin_example.py").write_text(
        "from tabml.files import MemoryProvider\n"
        "def make(rest):\n    return MemoryProvider({('a', 'b'): rest.encode()})\n"
        "def broken(rest):\n    raise KeyError('x')\n"
        "def wrong(rest):\n    return 5\n"
    )
    note = tmp_path / "tabml_plugin_example-1.dist-info"
    note.mkdir()
    (note / "METADATA").write_text("Metadata-Version: 2.1\nName: tabml-plugin-example\nVersion: 1\n")
    (note / "entry_points.txt").write_text(
        "[tabml.files]\nexample = tabml_plugin_example:make\n"
        "broken = tabml_plugin_example:broken\nwrong = tabml_plugin_example:wrong\n"
        "absent = tabml_plugin_no_such_module:make\n"
    )
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("plug_in")
def test_an_installed_plug_in_brings_a_scheme() -> None:
    assert read_bytes(open_provider("example:text"), FileRef("a", "b")) == b"text"
    for scheme in ("broken", "wrong", "absent"):
        with pytest.raises(ProviderError, match=scheme):
            open_provider(f"{scheme}:x")
    with pytest.raises(OptionError, match="example"):
        open_provider("unknown:x")
