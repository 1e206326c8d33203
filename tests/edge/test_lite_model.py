"""``LiteModel``: LiteRT's own answers, by names, types and shapes that are checked; memory that can be lent."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_lite
from hypothesis import given
from hypothesis import strategies as st

from tabml.cancellation import Cancellation
from tabml.edge import LiteModel, LiteOutputs, TensorSpec, shapes
from tabml.errors import (
    CallCancelledError,
    ModelClosedError,
    ModelFileNotFoundError,
    ModelLoadError,
    OptionError,
    UnavailableHereError,
)
from tabml.files import FileRef, MemoryProvider, load_model

MODELS = (
    "face_detector", "selfie_segmenter", "efficientnet_lite0", "efficientnet_lite0_float32", "efficientdet_lite0", "deeplab_v3",
)  # fmt: skip
ROW = np.ones((1, 3), np.float32)


def some(spec: TensorSpec, seed: int = 0) -> Any:
    values = np.random.default_rng(seed).random(spec.shape)
    return (values * 255).astype(spec.dtype) if spec.dtype.kind in "iu" else values.astype(spec.dtype)


def bare(content: bytes, arrays: list[Any]) -> list[Any]:
    """What LiteRT's own interpreter answers."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    for details, array in zip(interpreter.get_input_details(), arrays, strict=True):
        interpreter.set_tensor(details["index"], array)
    interpreter.invoke()
    return [interpreter.get_tensor(details["index"]) for details in interpreter.get_output_details()]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("threads", [1, 2])
def test_answers_are_those_of_the_bare_interpreter(name: str, threads: int) -> None:
    with LiteModel(name, threads=threads) as model:
        arrays = [some(spec) for spec in model.inputs]
        expected = bare(bytes(load_model(name)), arrays)
        found = model.run(arrays)
        assert [array.shape for array in found.values()] == [spec.shape for spec in model.outputs]
        for mine, theirs in zip(found.values(), expected, strict=True):
            np.testing.assert_allclose(mine.astype(float), theirs.astype(float), atol=1e-5)
        assert found.accelerator.name == "cpu"
        assert found.seconds > 0


def test_a_model_says_what_it_takes_and_gives() -> None:
    with LiteModel("efficientnet_lite0") as model:
        (given,), (got,) = model.inputs, model.outputs
        assert (given.name, given.shape, given.dtype, given.zero_point) == ("images", (1, 224, 224, 3), np.uint8, 131)
        assert (got.name, got.shape, got.scale) == ("Softmax", (1, 1000), 1 / 256)
        assert given.is_quantized
        assert not given.is_dynamic
        assert list(model.signatures) == [""]
        assert model.size_bytes == 5434517
    with LiteModel("efficientdet_lite0") as detector:
        assert list(detector.signatures) == ["serving_default"]
        assert [spec.name for spec in detector.outputs] == ["output_1", "output_0"]


def test_inputs_go_by_name_by_place_or_alone() -> None:
    with LiteModel(tiny_lite.sums()) as model:
        x, y = np.array([[1, 2, 3]], np.float32), np.array([[10, 20, 30]], np.float32)
        for inputs in ({"x": x, "y": y}, {"y": y, "x": x}, [x, y], ([[1, 2, 3]], [[10, 20, 30]])):
            assert model.run(inputs)["sum"].tolist() == [[11, 22, 33]]
        assert model.run(x, signature="negate").value.tolist() == [[-1, -2, -3]]
        assert model.run([x[::-1, ::-1]], signature="negate").value.tolist() == [[-3, -2, -1]]


LIES: dict[str, tuple[Any, str]] = {
    "another type": ({"x": ROW.astype(np.float64), "y": ROW}, r"'x'.*float32 \(any, 3\), not float64.*astype"),
    "another shape": ({"x": ROW, "y": np.ones((1, 4), np.float32)}, r"'y'.*not float32 \(1, 4\).*resize"),
    "too few dimensions": ({"x": ROW[0], "y": ROW}, r"'x'.*array\[None\]"),
    "no rows": ({"x": ROW[:0], "y": ROW[:0]}, "'x'"),
    "whole numbers": ([ROW, ROW.astype(np.int32)], "'y'.*int32"),
    "a NaN": ([ROW, np.array([[1, np.nan, 3]], np.float32)], "'y'.*NaN"),
    "a NaN in a list": ([ROW, [[1, float("nan"), 3]]], "'y'.*NaN"),
    "a missing name": ({"x": ROW}, "'y' is missing.*'x': float32"),
    "an unknown name": ({"x": ROW, "z": ROW}, "'z' is none"),
    "too many": ([ROW, ROW, ROW], "3 given"),
    "one of two": (ROW, "1 given"),
    "objects": ([ROW, [[{}, 1, 2]]], "'y'"),
    "ragged lists": ([ROW, [[1, 2], [3]]], "'y'"),
    "a text": ("x", "mapping of names"),
    "nothing": (None, "mapping of names"),
    "texts": ([ROW, [["1", "2", "3"]]], "'y'"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_told_with_the_inputs_name(lie: str) -> None:
    inputs, said = LIES[lie]
    with LiteModel(tiny_lite.sums()) as model:
        with pytest.raises(OptionError, match=said):
            model.run(inputs)
        assert model.run([ROW, ROW])["sum"].tolist() == [[2, 2, 2]]


def test_numbers_that_a_type_can_hold_may_be_lists() -> None:
    with LiteModel(tiny_lite.quantized("i1")) as model:
        assert model.run([[[1, 2, 3, 4]]]).value.dtype == np.int8
        for unfit in ([[300, 2, 3, 4]], [[1.5, 2, 3, 4]]):
            with pytest.raises(OptionError, match=r"'x'\] must be int8"):
                model.run([unfit])


def test_nan_goes_in_where_it_is_allowed() -> None:
    with LiteModel(tiny_lite.sums(), allow_nan=True) as model:
        assert np.isnan(model.run([ROW, ROW * np.float32(np.nan)])["sum"]).all()


def test_where_any_length_will_do_shapes_may_change_from_run_to_run() -> None:
    with LiteModel(tiny_lite.sums()) as model:
        assert [spec.shape_signature for spec in model.inputs] == [(-1, 3)] * 2
        for rows in (1, 7, 2, 1000, 1):
            x = np.random.default_rng(rows).random((rows, 3), np.float32)
            np.testing.assert_array_equal(model.run([x, x])["sum"], x + x)
            assert model.inputs[0].shape == (rows, 3)
        with pytest.raises(OptionError, match="shapes"):
            model.run([np.ones((2, 3), np.float32), np.ones((5, 3), np.float32)])
        assert model.run([ROW, ROW])["sum"].tolist() == [[2, 2, 2]]


@pytest.mark.parametrize("make", [lambda: tiny_lite.sums(columns=-1), tiny_lite.sums_by_shape])
def test_arrays_whose_sum_would_take_gigabytes_are_refused_before_they_do(make: Callable[[], bytes]) -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    column, row = np.ones((40_000, 1), np.float32), np.ones((1, 40_000), np.float32)
    with LiteModel(make()) as model:
        model.load()
        before = resident()
        with pytest.raises(OptionError, match=r"\(40000, 1\).*3 GiB"):
            model.run([column, row])
        assert resident() - before < 256 << 20
        assert model.run([column[:300], row[:, :200]]).value.shape == (300, 200)


def test_shapes_are_tried_elsewhere_only_where_no_longer_ones_were(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []
    monkeypatch.setattr(shapes, "try_model", lambda *_, shapes, **__: tried.append(shapes["x"][0]))
    with LiteModel(tiny_lite.sums()) as model:
        for rows in (1, 5, 3, 5, 9, 7, 1):
            x = np.ones((rows, 3), np.float32)
            model.run([x, x])
        assert tried == [5, 9]
        model.resize({"x": (20, 3), "y": (20, 3)})
        model.run([np.ones((20, 3), np.float32)] * 2)
    assert tried == [5, 9, 20]


def test_shapes_of_the_same_size_are_tried_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []
    monkeypatch.setattr(shapes, "try_model", lambda *_, shapes, **__: tried.append(shapes["x"]))
    wanted = [(rows, 600 // rows) for rows in range(1, 600) if 600 % rows == 0] * 3
    with LiteModel(tiny_lite.sums(columns=-1)) as model:
        for shape in wanted:
            model.run([np.ones(shape, np.float32)] * 2)
    assert tried == wanted[: len(wanted) // 3]


def test_a_refused_nan_leaves_lent_memory_as_it_is() -> None:
    with LiteModel("selfie_segmenter", threads=1) as model, model.buffers() as lent:
        (name,) = lent.inputs
        lent.inputs[name][...] = 0.5
        with pytest.raises(OptionError, match="NaN"):
            model.run(np.full((1, 256, 256, 3), np.nan, np.float32))
        assert (lent.inputs[name] == 0.5).all()


def test_fixed_shapes_may_be_changed_on_request() -> None:
    with LiteModel("selfie_segmenter", threads=1) as model:
        (spec,) = model.inputs
        two = np.concatenate([some(spec, 1), some(spec, 2)])
        with pytest.raises(OptionError, match=r"resize\(\{'input_1': \(2, 256, 256, 3\)\}\)"):
            model.run(two)
        model.resize({"input_1": (2, 256, 256, 3)})
        found = model.run(two).value
        for row in range(2):
            np.testing.assert_allclose(
                found[row : row + 1], bare(bytes(load_model("selfie_segmenter")), [two[row : row + 1]])[0], atol=1e-6
            )
        model.resize({"input_1": (1, 256, 256, 3)})
        np.testing.assert_allclose(model.run(two[:1]).value, found[:1], atol=1e-6)


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        ({"images": (4, 224, 224, 3)}, "can't run the model with the shapes"),
        ({"images": (1, 224, 224)}, "4 lengths"),
        ({"images": 5}, "must be whole numbers"),
        ({"images": (1, 224.5, 224, 3)}, "must be whole numbers"),
        ({"images": (0, 224, 224, 3)}, "lengths from 1"),
        ({"pictures": (1, 224, 224, 3)}, "'pictures' is none of the model's inputs: images"),
    ],
)
def test_a_shape_that_cannot_be_leaves_the_model_as_it_was(shapes: Any, said: str) -> None:
    with LiteModel("efficientnet_lite0") as model:
        array = some(model.inputs[0])
        before = model.run(array).value
        with pytest.raises(OptionError, match=said):
            model.resize(shapes)
        np.testing.assert_array_equal(model.run(array).value, before)


@pytest.mark.parametrize("name", ["efficientnet_lite0", "selfie_segmenter"])
def test_a_batch_is_answered_like_its_rows(name: str) -> None:
    with LiteModel(name) as model:
        (spec,) = model.inputs
        rows = [some(spec, seed) for seed in range(3)]
        found = model.run_batch(np.concatenate(rows)).value
        assert found.shape == (3, *model.outputs[0].shape[1:])
        assert not found.flags.writeable
        for at, row in enumerate(rows):
            np.testing.assert_array_equal(found[at : at + 1], model.run(row).value)


def test_a_batch_of_any_length_runs_at_once_and_unequal_ones_not_at_all() -> None:
    with LiteModel(tiny_lite.sums()) as model:
        x = np.arange(12, dtype=np.float32).reshape(4, 3)
        assert model.run_batch({"x": x, "y": x})["sum"].tolist() == (2 * x).tolist()
        for lie in ({"x": x, "y": x[:2]}, {"x": x[:0], "y": x[:0]}):
            with pytest.raises(OptionError, match="rows"):
                model.run_batch(lie)
    with LiteModel(tiny_lite.chosen_words()) as words, pytest.raises(OptionError, match="first dimension of 1"):
        words.run_batch([np.array([b"a", b"b", b"c"]), np.array([0, 1, 2], np.int32)])


@given(
    st.floats(1e-3, 10), st.integers(-128, 127), st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=50)
)  # fmt: skip
def test_quantised_numbers_come_back_as_near_as_their_step(scale: float, zero: int, values: list[float]) -> None:
    spec = TensorSpec(name="x", shape=(1,), dtype=np.dtype(np.int8), scale=scale, zero_point=zero)
    real = np.array(values)
    stored = spec.quantize(real)
    assert stored.dtype == np.int8
    reachable = np.clip(real, (-128 - zero) * scale, (127 - zero) * scale)
    np.testing.assert_allclose(spec.dequantize(stored), reachable, atol=scale / 2 + 1e-3, rtol=1e-5)
    np.testing.assert_array_equal(spec.quantize(spec.dequantize(stored)), stored)


def test_real_numbers_are_quantised_on_request() -> None:
    with LiteModel(tiny_lite.quantized("i1", scale=0.5, zero_point=-3)) as model:
        values = np.array([[1.0, -2.5, 0.0, 500.0]], np.float32)
        found = model.run(values, quantize=True, dequantize=True).value
        assert found.dtype == np.float32
        assert found.tolist() == [[2.0, -5.0, 0.0, 130.0]]  # 65 is the most that eight bits hold here
        assert model.run(values, quantize=True).value.dtype == np.int8
        with pytest.raises(OptionError, match="quantize=True"):
            model.run(values)
        with pytest.raises(OptionError, match="NaN"):
            model.run(values * np.float32(np.nan), quantize=True)
    with pytest.raises(OptionError, match="isn't quantised"):
        TensorSpec(name="x", shape=(1,), dtype=np.dtype(np.float32)).quantize(values)


def test_signatures_have_their_own_names_and_unknown_ones_are_told() -> None:
    with LiteModel(tiny_lite.sums()) as model:
        assert {name: [spec.name for spec in each.inputs] for name, each in model.signatures.items()} == {
            "add": ["x", "y"], "negate": ["x"],
        }  # fmt: skip
        with pytest.raises(OptionError, match="signature='subtract' must be one of 'add', 'negate'"):
            model.run([ROW, ROW], signature="subtract")


def test_texts_go_in_and_come_out_as_bytes() -> None:
    with LiteModel(tiny_lite.chosen_words()) as model:
        words, places = ["a", "größer", ""], np.array([1, 0], np.int32)
        found = model.run({"words": words, "places": places})
        assert found["found"].tolist() == ["größer".encode(), b"a"]
        assert model.run([np.array([b"x", b"y", b"z" * 1000]), [2, 2]])["found"].tolist() == [b"z" * 1000] * 2
        assert json.loads(found.to_json())["outputs"] == {"found": ["größer", "a"]}
        with pytest.raises(OptionError, match="no fixed place"), model.buffers():
            pass


def test_an_output_may_have_no_element() -> None:
    with LiteModel(tiny_lite.places_of_true()) as model:
        for given_, expected in (([1, 0, 1, 1], [[0], [2], [3]]), ([0] * 4, []), ([1] * 4, [[0], [1], [2], [3]])):
            found = model.run([np.array(given_, bool)]).value
            assert found.shape == (len(expected), 1)
            assert found.tolist() == expected
        with pytest.raises(OptionError, match="no fixed place"), model.buffers():
            pass


def test_what_a_model_remembers_can_be_forgotten() -> None:
    with LiteModel(tiny_lite.remembering()) as model:
        assert [model.run([[[value]]]).value.item() for value in (1.0, 2.0, 3.0)] == [1.0, 3.0, 5.0]
        model.reset()
        with model.buffers() as buffers:  # looks, and leaves what is remembered as it is
            buffers.inputs["given"][...] = 4
            buffers.run()
        assert model.run([[[5.0]]]).value.item() == 9.0


def test_outputs_are_read_only_and_their_own() -> None:
    with LiteModel(tiny_lite.sums()) as model:
        first = model.run([ROW, ROW])
        model.run([ROW * 50, ROW])
        assert first["sum"].tolist() == [[2, 2, 2]]
        with pytest.raises(ValueError, match="read-only"):
            first["sum"][0, 0] = 1
        with pytest.raises(KeyError, match="'total' is not an output; there are: sum"):
            first["total"]
        assert dict(first).keys() == {"sum"}
        assert isinstance(first, LiteOutputs)
    with LiteModel("face_detector") as faces, pytest.raises(OptionError, match="regressors, classificators"):
        faces.run(some(faces.inputs[0])).value  # noqa: B018


def test_buffers_are_litert_s_own_memory() -> None:
    with LiteModel("face_detector", threads=1) as model:
        array = some(model.inputs[0])
        expected = model.run(array)
        with model.buffers() as buffers:
            buffers.inputs["input"][...] = array
            buffers.run()
            for name, view in buffers.outputs.items():
                np.testing.assert_array_equal(view, expected[name])
                assert not view.flags.writeable
            where = buffers.outputs["regressors"].ctypes.data
            buffers.inputs["input"][...] = 0
            buffers.run()
            assert buffers.outputs["regressors"].ctypes.data == where
            assert not np.array_equal(buffers.outputs["regressors"], expected["regressors"])
        with pytest.raises(OptionError, match="given back"):
            buffers.run()
        assert not buffers.outputs
        np.testing.assert_array_equal(model.run(array)["regressors"], expected["regressors"])


def test_a_view_that_is_kept_outlives_the_model() -> None:
    model = LiteModel("face_detector", threads=1).load()
    with model.buffers() as buffers:
        buffers.inputs["input"][...] = some(model.inputs[0])
        buffers.run()
        kept, part = buffers.outputs["regressors"], buffers.outputs["classificators"][0, 5:]
    before = kept.copy(), part.copy()
    model.close()
    del model, buffers
    gc.collect()
    junk = [np.full(200_000, 7, np.float32) for _ in range(50)]
    np.testing.assert_array_equal(kept, before[0])
    np.testing.assert_array_equal(part, before[1])
    assert len(junk) == 50


def test_while_a_view_is_held_the_model_keeps_its_shapes() -> None:
    with LiteModel(tiny_lite.sums()) as model:
        with model.buffers() as buffers:
            kept = buffers.inputs["x"][:, 1:]
            with pytest.raises(OptionError, match="are held"):
                model.run([np.ones((9, 3), np.float32)] * 2)
        with pytest.raises(OptionError, match="are held"):
            model.run([np.ones((9, 3), np.float32)] * 2)
        assert model.run([ROW, ROW])["sum"].tolist() == [[2, 2, 2]]
        del kept
        assert model.run([np.ones((9, 3), np.float32)] * 2)["sum"].shape == (9, 3)


def test_constants_are_never_lent() -> None:
    with LiteModel(tiny_lite.constant_out()) as model:
        assert model.run(np.zeros((1, 2), np.float32))["fixed"].tolist() == [[3, 4]]
        with pytest.raises(OptionError, match="no fixed place"), model.buffers():
            pass


def test_other_threads_wait_while_buffers_are_lent() -> None:
    with LiteModel(tiny_lite.sums()) as model:
        model.load()
        done = threading.Event()

        def work() -> None:
            model.run([ROW, ROW])
            done.set()

        with model.buffers():
            thread = threading.Thread(target=work)
            thread.start()
            assert not done.wait(0.2)
        thread.join(10)
        assert done.is_set()


def test_closing_inside_of_the_block_ends_the_runs_but_not_the_memory() -> None:
    model = LiteModel("face_detector").load()
    with model.buffers() as buffers:
        view = buffers.outputs["regressors"]
        model.close()
        with pytest.raises(ModelClosedError):
            buffers.run()
        assert np.isfinite(view.sum())


def test_several_threads_may_share_a_model() -> None:
    with LiteModel("face_detector", threads=1) as model:
        arrays = [some(model.inputs[0], seed) for seed in range(8)]
        expected = [model.run(array)["classificators"] for array in arrays]
        wrong: list[int] = []

        def work(at: int) -> None:
            for _ in range(20):
                if not np.array_equal(model.run(arrays[at])["classificators"], expected[at]):
                    wrong.append(at)

        threads = [threading.Thread(target=work, args=(at,)) for at in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not wrong


def test_a_closed_model_says_so_and_closing_waits_for_a_run() -> None:
    for _ in range(10):
        model = LiteModel("face_detector").load()
        array, ended = some(model.inputs[0]), []

        def work(model: LiteModel = model, array: Any = array, ended: list[bool] = ended) -> None:
            try:
                while True:
                    model.run(array)
            except ModelClosedError:
                ended.append(True)

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        model.close()
        for thread in threads:
            thread.join(20)
        assert ended == [True] * 3
        model.close()
        with pytest.raises(ModelClosedError):
            model.load()


def test_a_fork_makes_its_own(run_python: Callable[..., Any]) -> None:
    ended = run_python("""
        import os, warnings
        import numpy as np
        from tabml.edge import LiteModel
        from tabml.errors import ModelForkedError
        warnings.simplefilter("ignore")
        model, array = LiteModel("face_detector").load(), np.zeros((1, 128, 128, 3), np.float32)
        model.run(array)
        if not (child := os.fork()):
            code = 1
            try:
                model.run(array)
            except ModelForkedError:
                model.close()
                with LiteModel("face_detector") as own:
                    own.run(array)
                code = 0
            os._exit(code)
        assert os.waitpid(child, 0)[1] == 0
        print("alive")
    """)
    assert ended.stdout == "alive\n", ended.stderr


def test_nothing_reaches_stdout_or_stderr(run_python: Callable[..., Any]) -> None:
    ended = run_python("""
        import numpy as np
        from tabml.edge import LiteModel
        from tabml.files import load_model
        with LiteModel(bytes(load_model("face_detector")) + b" ") as model:
            model.run(np.zeros((1, 128, 128, 3), np.float32))
            model.profile(runs=1)
    """)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def test_models_come_from_paths_bytes_and_providers(tmp_path: Path) -> None:
    content = tiny_lite.sums()
    path = tmp_path / "sums.tflite"
    path.write_bytes(content)
    files = MemoryProvider({("mine", "sums.tflite"): content})
    for model in (
        LiteModel(path), LiteModel(content), LiteModel(memoryview(content)), LiteModel(FileRef("mine", "sums.tflite"), files=files),
    ):  # fmt: skip
        with model:
            assert model.run([ROW, ROW])["sum"].tolist() == [[2, 2, 2]]
    with pytest.raises(ModelFileNotFoundError):
        LiteModel(tmp_path / "none.tflite").load()
    with pytest.raises(ModelFileNotFoundError, match=r"Path\('sums.tflite'\)"):
        LiteModel("sums.tflite").load()
    assert repr(LiteModel(content)) == "LiteModel('928 bytes', not loaded)"


def test_a_bundle_s_members_are_models() -> None:
    with LiteModel("gesture_recognizer", member="hand_landmarker.task/hand_detector.tflite") as model:
        assert model.inputs[0].shape == (1, 192, 192, 3)
    for member in (None, "hand_detector.tflite"):
        with pytest.raises(OptionError, match=r"must be one of 'hand_landmarker.task/hand_detector.tflite'"):
            LiteModel("gesture_recognizer", member=member).load()
    with pytest.raises(OptionError, match="is no bundle"):
        LiteModel("face_detector", member="x.tflite").load()


def test_metadata_are_values_and_files_come_along() -> None:
    with LiteModel("efficientnet_lite0_float32") as model:
        said = model.metadata
        assert said is not None
        assert (said.author, said.version, said.inputs[0].content, said.inputs[0].color) == (
            "MediaPipe",
            "1",
            "image",
            "rgb",
        )
        assert (said.inputs[0].mean, said.inputs[0].std) == ((127.0,), (128.0,))
        assert len(said.outputs[0].labels) == 1000
        (name,) = said.files
        assert model.associated_file(name).decode().splitlines() == list(said.outputs[0].labels)
        with pytest.raises(ModelLoadError, match=r"'none.txt'"):
            model.associated_file("none.txt")
    with LiteModel(tiny_lite.sums()) as silent:
        assert silent.metadata is None
        with pytest.raises(ModelLoadError):
            silent.associated_file("labels.txt")


def test_a_profile_names_what_takes_the_time() -> None:
    with LiteModel("efficientnet_lite0_float32") as model:
        found = model.profile(runs=3)
        assert found.runs == 3
        assert len(found.operators) > 50
        assert sum(each.share for each in found.operators) == pytest.approx(1)
        assert found.milliseconds == pytest.approx(sum(found.by_name().values()))
        assert any("Convolution" in name for name in found.by_name())
        assert "operators, 3 runs" in str(found)
        json.dumps(found.to_dict())
        with pytest.raises(OptionError, match="runs=0"):
            model.profile(runs=0)
    with LiteModel(tiny_lite.sums()) as sums:
        assert len(sums.profile(signature="negate").operators) == 1


def test_a_benchmark_counts_what_it_is_told_to() -> None:
    with LiteModel(tiny_lite.sums(), threads=1) as model:
        found = model.benchmark(runs=20, warmup=1)
        assert (found.runs, found.threads, found.accelerator.name) == (20, 1, "cpu")
        assert 0 < found.fastest_ms <= found.median_ms <= found.p90_ms
        assert "20 runs" in str(found)
        with pytest.raises(OptionError, match="'y' is missing"):
            model.benchmark({"x": ROW})
        for lie in ({"runs": 0}, {"warmup": -1}):
            with pytest.raises(OptionError):
                model.benchmark(**lie)


def test_a_cancelled_benchmark_ends() -> None:
    cancellation = Cancellation()
    with LiteModel(tiny_lite.sums(), threads=1) as model, cancellation.bound():
        threading.Timer(0.1, cancellation.cancel).start()
        with pytest.raises(CallCancelledError):
            model.benchmark(runs=1_000_000)


def test_the_async_twin_answers_the_same() -> None:
    async def both() -> tuple[Any, Any]:
        with LiteModel(tiny_lite.sums()) as model:
            return model.run([ROW, ROW]), await model.run_async([ROW, ROW])

    mine, theirs = asyncio.run(both())
    np.testing.assert_array_equal(mine["sum"], theirs["sum"])


@pytest.mark.parametrize("lie", [{"threads": 0}, {"threads": 65}, {"threads": True}, {"accelerator": "tpu"}])
def test_options_are_checked_before_anything_is_loaded(lie: Any) -> None:
    with pytest.raises(OptionError, match=next(iter(lie))):
        LiteModel("face_detector", **lie)


@pytest.mark.parametrize("wanted", ["gpu", "npu"])
def test_an_accelerator_is_there_or_not_at_all(wanted: Any) -> None:
    array = np.zeros((1, 128, 128, 3), np.float32)
    with LiteModel("face_detector", accelerator=wanted) as model:
        try:
            ran = model.run(array).accelerator.name
        except UnavailableHereError as problem:
            assert str(problem).startswith(f"accelerator='{wanted}': ")
        else:
            assert ran == wanted


def test_auto_says_what_it_chose_and_why() -> None:
    with LiteModel("face_detector", accelerator="auto") as model:
        assert model.accelerator.name in ("cpu", "gpu")
        assert len(model.accelerator.why) > 20
        assert model.run(np.zeros((1, 128, 128, 3), np.float32)).accelerator == model.accelerator
    with LiteModel("face_detector") as plain:
        assert plain.accelerator.why == "asked for"


SWIFTSHADER = Path(os.environ.get("VK_DRIVER_FILES", "/usr/lib/chromium/vk_swiftshader_icd.json"))


@pytest.mark.skipif(
    not SWIFTSHADER.is_file(), reason="needs Debian's chromium-common and libvulkan1: a GPU in software"
)
def test_a_gpu_gives_the_cpu_s_answers(run_python: Callable[..., Any]) -> None:
    ended = run_python(
        """
        import numpy as np
        from tabml.edge import LiteModel
        array = np.random.default_rng(0).random((1, 128, 128, 3), np.float32)
        with LiteModel("face_detector", accelerator="gpu") as gpu, LiteModel("face_detector") as cpu:
            found, expected = gpu.run(array), cpu.run(array)
            for name in expected:
                np.testing.assert_allclose(found[name], expected[name], atol=1e-3)
            assert (found.accelerator.name, found.accelerator.is_complete) == ("gpu", True)
            print(found.accelerator.device, found.accelerator.why)
        with LiteModel("face_detector", accelerator="auto") as auto:
            print(auto.accelerator.name, auto.accelerator.why)
        """,
        VK_DRIVER_FILES=str(SWIFTSHADER),
    )
    assert ended.stdout.splitlines() == [
        "SwiftShader Device (Subzero) asked for (a GPU in software)",
        "cpu the only GPU, SwiftShader Device (Subzero), is software",
    ], ended.stderr


GROWTH = """
    import sys
    import numpy as np
    from tabml.edge import LiteModel
    kind, times = sys.argv[1], int(sys.argv[2])
    model, array = LiteModel("face_detector", threads=1).load(), np.zeros((1, 128, 128, 3), np.float32)

    def cycle():
        with LiteModel("face_detector", threads=1) as each:
            each.run(array)

    act = cycle if kind == "cycles" else lambda: model.run(array)

    def resident():
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * 4096 / 1e6

    for _ in range(times // 4):
        act()
    first = resident()
    for _ in range(times):
        act()
    print(resident() - first)
"""


@pytest.mark.parametrize(
    ("kind", "times"),
    [("runs", 500), ("cycles", 40), pytest.param("runs", 10_000, marks=pytest.mark.soak)],
)
def test_memory_does_not_grow(kind: str, times: int, run_python: Callable[..., Any]) -> None:
    ended = run_python(GROWTH, kind, times, timeout=300, MALLOC_ARENA_MAX="1")
    assert ended.returncode == 0, ended.stderr
    print(f"{times} {kind}: {float(ended.stdout):+.2f} MB")
    assert float(ended.stdout) < 2
