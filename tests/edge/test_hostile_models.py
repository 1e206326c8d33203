"""Model files nobody vouches for: told, each by its fault, before LiteRT sees them, or tried where their end is survived."""

from __future__ import annotations

import io
import os
import random
import struct
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import tiny_lite

from tabml._litert import probe, tables
from tabml._litert.bundle import MAX_MEMBERS, graphs_in, open_bundle
from tabml._litert.check import check_tflite
from tabml._litert.tables import Flatbuffer
from tabml.cancellation import Cancellation
from tabml.edge import LiteModel
from tabml.errors import (
    CallCancelledError,
    CorruptModelError,
    InferenceError,
    ModelLoadError,
    OptionError,
    TabmlError,
    UnsafeModelError,
)
from tabml.files import load_catalog, load_model

CATALOG = [name for name, entry in load_catalog().items() if entry.file.endswith(".tflite")]


def here(name: str) -> bytes:
    try:
        return bytes(load_model(name))
    except TabmlError as problem:  # no source of it on this network
        pytest.skip(str(problem))


def changed(model: bytes, change: Callable[[Any], None]) -> bytes:
    """The model with a change of what its tables say."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    tables = schema.ModelT.InitFromPackedBuf(model, 0)
    change(tables)
    builder = flatbuffers.Builder(len(model) + 4096)
    builder.Finish(tables.Pack(builder), b"TFL3")
    return bytes(builder.Output())


@pytest.mark.parametrize(
    "name", ["face_detector", "selfie_segmenter", "efficientdet_lite0", "efficientnet_lite0_float32", "deeplab_v3"]
)
def test_sound_models_are_sound(name: str) -> None:
    check_tflite(here(name))


@pytest.mark.parametrize("make", [tiny_lite.sums, tiny_lite.chosen_words, tiny_lite.remembering, tiny_lite.quantized])
def test_what_the_recipes_make_is_sound(make: Callable[[], bytes]) -> None:
    check_tflite(make())
    probe.try_model(make())


def test_a_file_that_is_cut_short_is_told_at_every_length() -> None:
    content = here("face_detector")
    end = content.rindex(b"PK\5\6")  # an empty archive, which may be missing
    lengths = sorted({*range(0, 64, 3), *random.Random(0).sample(range(64, end), 120), end - 1})
    for length in lengths:
        with pytest.raises(CorruptModelError):
            check_tflite(content[:length])
    check_tflite(content)


def _graph(tables: Any, number: int = 0) -> Any:
    return tables.subgraphs[number]


def _set(path: str, value: Any) -> Callable[[Any], None]:
    """Sets what a path like ``subgraphs.0.tensors.1.shape`` leads to."""
    *steps, last = path.split(".")

    def change(tables: Any) -> None:
        for step in steps:
            tables = tables[int(step)] if step.isdigit() else getattr(tables, step)
        if last.isdigit():
            tables[int(last)] = value
        else:
            setattr(tables, last, value)

    return change


LIES: dict[str, tuple[Callable[[], bytes], Callable[[Any], None], str]] = {
    "another version": (tiny_lite.sums, _set("version", 2), "version 2"),
    "no subgraph": (tiny_lite.sums, _set("subgraphs", []), "0 subgraphs"),
    "an unknown type": (tiny_lite.sums, _set("subgraphs.0.tensors.0.type", 99), "subgraph 0, tensor 0 is of type 99"),
    "a negative length": (tiny_lite.sums, _set("subgraphs.0.tensors.0.shape", [-5, 3]), r"shape \[-5, 3\]"),
    "a length beyond all memory": (tiny_lite.sums, _set("subgraphs.0.tensors.0.shape", [2**31 - 1] * 2), "would need"),
    "a length whose product overflows": (tiny_lite.sums, _set("subgraphs.0.tensors.0.shape", [2**31 - 1] * 9), "would need"),
    "forty dimensions": (tiny_lite.sums, _set("subgraphs.0.tensors.0.shape", [1] * 40), "has the shape"),
    "two shapes": (tiny_lite.sums, _set("subgraphs.0.tensors.0.shapeSignature", [-1, 9]), "signature"),
    "a buffer that isn't there": (tiny_lite.sums, _set("subgraphs.0.tensors.0.buffer", 77), "names buffer 77"),
    "a constant that is too short": (tiny_lite.constant_out, _set("buffers.1.data", np.zeros(7, np.uint8)), "has 7 bytes, not the 8"),
    "a constant that is too long": (tiny_lite.constant_out, _set("buffers.1.data", np.zeros(9, np.uint8)), "has 9 bytes"),
    "an input that isn't there": (tiny_lite.sums, _set("subgraphs.0.inputs", [0, 99]), "names tensor 99"),
    "an input twice": (tiny_lite.sums, _set("subgraphs.0.inputs", [0, 0]), "twice"),
    "an output that isn't there": (tiny_lite.sums, _set("subgraphs.0.outputs", [-1]), "names tensor -1"),
    "an output that nobody computes": (tiny_lite.sums, _set("subgraphs.0.operators", []), "never computed"),
    "a constant as an input": (tiny_lite.constant_out, _set("subgraphs.0.inputs", [0, 1]), "is a constant"),
    "an operator's code that isn't there": (tiny_lite.sums, _set("subgraphs.0.operators.0.opcodeIndex", 9), "names code 9"),
    "an operand that isn't there": (tiny_lite.sums, _set("subgraphs.0.operators.0.inputs", [0, 1000]), "names tensor 1000"),
    "a result that isn't there": (tiny_lite.sums, _set("subgraphs.0.operators.0.outputs", [3]), "names tensor 3"),
    "a use before the computation": (tiny_lite.sums, _set("subgraphs.0.operators.0.inputs", [0, 2]), "before it is computed"),
    "a constant that would be written": (tiny_lite.constant_out, _set("subgraphs.0.operators.0.outputs", [1]), "write a constant"),
    "an operator without a name": (tiny_lite.sums, _set("operatorCodes.0.builtinCode", 32), "no name"),
    "scales that are no numbers": (tiny_lite.quantized, _set("subgraphs.0.tensors.0.quantization.scale", [float("nan")]), "no number"),
    "more zero points than scales": (tiny_lite.quantized, _set("subgraphs.0.tensors.0.quantization.zeroPoint", [1, 2, 3]), "3 zero points"),
    "scales of channels that aren't there": (tiny_lite.quantized, _set("subgraphs.0.tensors.0.quantization.scale", [1.0] * 7), "7 scales for 1"),
    "a signature of no subgraph": (tiny_lite.sums, _set("signatureDefs.0.subgraphIndex", 5), "subgraph 5 of 2"),
    "a signature of another's tensor": (tiny_lite.sums, _set("signatureDefs.0.inputs.0.tensorIndex", 2), "names tensor 2"),
    "a signature without a name": (tiny_lite.sums, _set("signatureDefs.0.signatureKey", ""), "no name"),
    "subgraphs in a circle": (tiny_lite.circle, lambda tables: None, "circle"),
    "a loop's subgraph that isn't there": (tiny_lite.endless, _set("subgraphs.0.operators.0.builtinOptions.bodySubgraphIndex", 8), "subgraph 8"),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_told_before_litert_sees_it(lie: str) -> None:
    make, change, said = LIES[lie]
    with pytest.raises(CorruptModelError, match=said):
        check_tflite(changed(make(), change))
    check_tflite(changed(make(), lambda tables: None)) if make is not tiny_lite.circle else None


def test_weights_in_other_files_are_refused() -> None:
    def elsewhere(tables: Any) -> None:
        from ai_edge_litert import schema_py_generated as schema

        group, buffer = schema.ExternalBufferGroupT(), schema.ExternalBufferT()
        group.name = "/etc/passwd"
        tables.externalBufferGroups, tables.externalBuffers = [group], [buffer]

    with pytest.raises(UnsafeModelError, match="other files"):
        LiteModel(changed(tiny_lite.sums(), elsewhere)).load()


def test_offsets_behind_the_tables_stay_inside_of_the_file() -> None:
    def far(offset: int, size: int) -> Callable[[Any], None]:
        def change(tables: Any) -> None:
            tables.buffers[1].data, tables.buffers[1].offset, tables.buffers[1].size = None, offset, size

        return change

    for offset, size in ((2**40, 8), (8, 2**63), (2**64 - 4, 8)):
        with pytest.raises(CorruptModelError, match="leads to"):
            check_tflite(changed(tiny_lite.constant_out(), far(offset, size)))
    with pytest.raises(CorruptModelError, match="has 12 bytes"):
        check_tflite(changed(tiny_lite.constant_out(), far(16, 12)))


def test_constant_strings_stay_inside_of_their_buffer() -> None:
    def with_words(content: bytes) -> bytes:
        graph = tiny_lite.Graph()
        graph.tensor("words", "S", (2,), constant=np.frombuffer(content, np.uint8))
        graph.outputs = [0]
        return tiny_lite.packed([graph])

    good = struct.pack("<4i", 2, 16, 18, 19) + b"abc"
    check_tflite(with_words(good))
    for bad in (
        struct.pack("<4i", 3, 16, 18, 19) + b"abc",
        struct.pack("<4i", 2, 4, 18, 19) + b"abc",
        struct.pack("<4i", 2, 16, 18, 99) + b"abc",
        struct.pack("<4i", 2, 18, 16, 19) + b"abc",
        b"\2",
    ):
        with pytest.raises(CorruptModelError, match="strings"):
            check_tflite(with_words(bad))


@pytest.mark.parametrize(("operators", "inputs", "said"), [(5000, 1, "tables"), (300, 10_000, "again and again")])
def test_little_that_leads_to_much_is_not_read_to_its_end(
    operators: int, inputs: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_lite.repeated(operators, inputs)
    check_tflite(model)
    monkeypatch.setattr(tables, "MAX_TABLES", 4000)
    monkeypatch.setattr(tables, "MAX_VECTOR_BYTES", 10 << 20)
    with pytest.raises(CorruptModelError, match=said):
        check_tflite(model)


def test_what_litert_dies_of_is_survived_and_told() -> None:
    check_tflite(tiny_lite.deadly())
    for _ in range(2):
        with pytest.raises(CorruptModelError, match=r"LiteRT dies of it.*not used"):
            LiteModel(tiny_lite.deadly()).load()
    with LiteModel(tiny_lite.sums()) as model:
        assert model.run([np.ones((1, 3), np.float32)] * 2)["sum"].tolist() == [[2, 2, 2]]


def test_what_never_ends_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    check_tflite(tiny_lite.endless())
    monkeypatch.setattr(probe, "_START_S", 1.0)
    with pytest.raises(CorruptModelError, match="did not end with it in 1 s"):
        LiteModel(tiny_lite.endless()).load()


def test_a_cancelled_load_does_not_wait_for_the_trial() -> None:
    cancellation = Cancellation()
    timer = threading.Timer(0.5, cancellation.cancel)
    timer.start()
    began = time.monotonic()
    with cancellation.bound(), pytest.raises(CallCancelledError):
        LiteModel(tiny_lite.endless()).load()
    assert time.monotonic() - began < 15  # the trial itself may take 20 s
    timer.join()


def test_what_wants_all_memory_is_refused() -> None:
    probe.try_model(tiny_lite.enlarging(100))
    with pytest.raises((CorruptModelError, ModelLoadError)):
        LiteModel(tiny_lite.enlarging(12_000)).load()  # 9 GB


def test_a_shape_that_litert_dies_of_is_refused_and_the_model_lives() -> None:
    with LiteModel(tiny_lite.enlarging(100)) as model:
        with pytest.raises(OptionError, match="with the shapes"):
            model.resize({"given": (40_000, 1, 1, 16)})  # 25 GB
        assert model.run(np.ones((1, 1, 1, 16), np.float32)).value.shape == (1, 100, 100, 16)


def test_what_the_catalog_knows_is_not_tried(run_python: Callable[..., Any]) -> None:
    ended = run_python("""
        import os, sys, tempfile
        from pathlib import Path
        from tabml.edge import LiteModel
        from tabml.files import load_model
        from tabml._litert import probe, tables
        content = bytes(load_model("face_detector"))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "mine.tflite")
            path.write_bytes(content)
            for model in ("face_detector", path, content):
                LiteModel(model).load().close()
        assert not probe._current
        LiteModel(content + b" ").load().close()
        print(probe._current[0]._child.pid)
    """)
    assert ended.returncode == 0, ended.stderr
    with pytest.raises(ProcessLookupError):  # it went with its parent
        os.kill(int(ended.stdout), 0)


def test_a_file_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from tabml._litert import unknown

    tried = []
    monkeypatch.setattr(unknown, "try_model", lambda content: tried.append(len(content)))
    content = tiny_lite.sums(columns=11)
    for _ in range(3):
        LiteModel(content).load().close()
    assert tried == [len(content)]


def test_many_unknown_files_may_come_at_once() -> None:
    problems: list[BaseException] = []

    def work(columns: int) -> None:
        try:
            with LiteModel(tiny_lite.sums(columns=columns)) as model:
                model.run([np.ones((1, columns), np.float32)] * 2)
        except BaseException as problem:
            problems.append(problem)

    threads = [threading.Thread(target=work, args=(columns,)) for columns in range(20, 36)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not problems


def test_a_trial_process_that_is_gone_is_started_anew() -> None:
    probe.try_model(tiny_lite.sums())
    before = probe._current[0]
    before._child.kill()
    before._child.wait()
    probe.try_model(tiny_lite.sums())
    assert probe._current[0] is not before


def test_a_trial_process_without_work_ends(run_python: Callable[..., Any]) -> None:
    ended = run_python("""
        import sys, time
        sys.path.insert(0, "tests/recipes")
        import tiny_lite
        from tabml._litert import probe, tables
        probe._IDLE_S = 0.3
        for _ in range(2):
            probe.try_model(tiny_lite.sums())
            child = probe._current[0]._child
            assert child.wait(20) == 0
        print("ended")
    """)
    assert ended.stdout == "ended\n", ended.stderr


def _bundle(members: dict[str, bytes], **options: Any) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", options.pop("compression", zipfile.ZIP_STORED), **options) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


def _twice() -> bytes:
    two = _bundle({"a.tflite": tiny_lite.sums(), "b.tflite": tiny_lite.deadly()})
    return two.replace(b"b.tflite", b"a.tflite")


BUNDLES: dict[str, tuple[Callable[[], bytes], str]] = {
    "a bomb": (lambda: _bundle({"a.tflite": bytes(200 << 20)}, compression=zipfile.ZIP_DEFLATED), "bytes long"),
    "too many members": (lambda: _bundle({f"{at}.tflite": b"" for at in range(MAX_MEMBERS + 1)}), "members"),
    "a name twice": (_twice, "twice"),
    "a member that was damaged": (lambda: _bundle({"a.tflite": tiny_lite.sums()}).replace(b"main_x", b"main_y", 1), "unpacked"),
    "a deadly member": (lambda: _bundle({"a.tflite": tiny_lite.sums(), "b.tflite": tiny_lite.deadly()}), "b.tflite: LiteRT dies"),
    "a deadly member of a bundle in it": (lambda: _bundle({"a.task": _bundle({"b.tflite": tiny_lite.deadly()})}), "a.task/b.tflite"),
    "a member that is cut short": (lambda: _bundle({"a.tflite": tiny_lite.sums()[:500]}), "a.tflite: an offset"),
    "half a directory": (lambda: _bundle({"a.tflite": tiny_lite.sums()})[40:], "unpacked|read"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BUNDLES)
def test_a_bundle_can_do_no_harm(kind: str) -> None:
    make, said = BUNDLES[kind]
    with pytest.raises((CorruptModelError, ModelLoadError), match=said):
        LiteModel(make(), member="a.tflite").load()


def test_bundles_in_each_other_share_one_limit() -> None:
    inner = _bundle({"a.tflite": tiny_lite.sums(), "b.bin": bytes(100_000)})
    bundle = _bundle({f"{at}.task": inner for at in range(4)})
    assert len(list(graphs_in(bundle))) == 4
    with pytest.raises(CorruptModelError, match="bytes long"):
        list(graphs_in(bundle, room=600_000))


def test_a_sound_bundle_opens() -> None:
    bundle = _bundle({"a.tflite": tiny_lite.sums(), "notes.txt": b"hello" * 100}, compression=zipfile.ZIP_DEFLATED)
    with LiteModel(bundle) as model:
        assert list(model.signatures) == ["add", "negate"]
    with open_bundle(bundle) as archive:
        assert archive.namelist() == ["a.tflite", "notes.txt"]


@pytest.mark.parametrize("content", [b"", b"x", b"PK", b"TFL3", b"\0" * 100, b"<!DOCTYPE html>" * 50])
def test_what_is_no_model_is_told(content: bytes) -> None:
    with pytest.raises(CorruptModelError, match=r"neither a \.tflite nor a \.task file"):
        LiteModel(content).load()


def _tables_of(model: bytes) -> list[tuple[int, int]]:
    """Where the file is no weights."""
    weights = sorted(
        (start, start + length)
        for start, length in (buffer.vector(0, 1) or (0, 0) for buffer in Flatbuffer(model).root().tables(4))
        if length > 64
    )
    spans, at = [], 0
    for start, end in weights:
        if start > at:
            spans.append((at, start))
        at = max(at, end)
    return [*spans, (at, len(model))] if at < len(model) else spans


def mutants(count: int, seed: int) -> Iterator[bytes]:
    """Truncations, flipped bits, other bytes, lengths and offsets that lie; all but the first outside of the weights."""
    sources = [
        here("face_detector"),
        here("selfie_segmenter"),
        tiny_lite.sums(),
        tiny_lite.remembering(),
        tiny_lite.endless(),
    ]
    places = [[at for span in _tables_of(model) for at in range(*span)] for model in sources]
    rng = random.Random(seed)
    for _ in range(count):
        number = rng.randrange(len(sources))
        model = bytearray(sources[number])
        kind = rng.choice(("cut", "bit", "bits", "byte", "word", "word", "near"))
        if kind == "cut":
            del model[rng.randrange(len(model)) :]
        for _ in range({"cut": 0, "bits": 6}.get(kind, 1)):
            at = rng.choice(places[number])
            word = min(at & ~3, len(model) - 4)
            if kind in ("bit", "bits"):
                model[at] ^= 1 << rng.randrange(8)
            elif kind == "byte":
                model[at] = rng.randrange(256)
            elif kind == "word":
                lie = rng.choice((0, 1, 4, 2**31 - 1, 2**31, 2**32 - 1, len(model), rng.randrange(2**32)))
                struct.pack_into("<I", model, word, lie)
            else:
                (before,) = struct.unpack_from("<I", model, word)
                struct.pack_into("<I", model, word, (before + rng.choice((-8, -4, -1, 1, 4, 8))) % 2**32)
        yield bytes(model)


def survived(model: bytes) -> str:
    """What became of a mutant: the error it was refused by, or that it ran."""
    try:
        with LiteModel(model, threads=1) as opened:
            for name, signature in opened.signatures.items():
                try:
                    opened.run([np.zeros(spec.shape, spec.dtype) for spec in signature.inputs], signature=name)
                except (InferenceError, OptionError):
                    return "ran into an error"
            return "ran"
    except TabmlError as problem:
        assert "\n" not in str(problem)
        return type(problem).__name__


def fuzz(count: int, seed: int) -> dict[str, int]:
    found: dict[str, int] = {}
    for model in mutants(count, seed):
        what = survived(model)
        found[what] = found.get(what, 0) + 1
    return found


def test_mutants_are_refused_or_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "_START_S", 3.0)  # of loops without an end
    found = fuzz(150, seed=1)
    assert sum(found.values()) == 150
    assert found["CorruptModelError"] > 30
    assert found["ran"] > 10


@pytest.mark.soak
@pytest.mark.parametrize("seed", [2, 3])
def test_thousands_of_mutants_are_refused_or_run(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "_START_S", 3.0)
    found = fuzz(2500, seed)
    print(found)
    assert sum(found.values()) == 2500
    assert found["ran"] > 200


def test_without_descriptors_it_is_told_and_later_it_works(run_python: Callable[..., Any]) -> None:
    ended = run_python("""
        import os, resource, sys
        sys.path.insert(0, "tests/recipes")
        import tiny_lite
        from tabml._litert import probe, tables
        from tabml.errors import CapacityError
        probe.try_model(tiny_lite.sums())
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 1, before[1]))
        try:
            probe.try_model(tiny_lite.sums())
        except CapacityError as problem:
            print("told")
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        descriptors = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            probe.try_model(tiny_lite.sums())
        print(len(os.listdir("/proc/self/fd")) - descriptors)
    """)
    assert ended.stdout.split() == ["told", "0"], ended.stderr
