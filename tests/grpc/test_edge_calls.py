"""Edge models over the wire: tensors and tokens, from files that a parent serves, and what is refused."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from child import Child, fails, serving
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from parent_server import Parent, listening
from PIL import Image

from tabml.edge import LiteModel
from tabml.errors import CapacityError
from tabml.files import default_provider, read_bytes
from tabml.files.catalog import find
from tabml.generation.results import joined
from tabml_grpc.calls import MAX_RESPONSE
from tabml_grpc.convert_edge import DTYPES, array_from_v1, array_to_v1, in_pieces
from tabml_grpc.ml import ml_inference_pb2 as ml
from tabml_grpc.ml import ml_inference_pb2_grpc as ml_grpc
from tabml_grpc.statuses import RequestError
from tabml_grpc.v1 import edge_pb2 as v1
from tabml_grpc.v1 import edge_pb2_grpc, models_pb2, text_pb2, text_pb2_grpc

S = grpc.StatusCode
TINY = Path(__file__).parents[1] / "models" / "tiny-lm" / "i8"
SEEING = TINY.parent / "vision" / "gemma3n.litertlm"
LM, SEG, EYES = "org/tiny/model.litertlm", "org/selfie/model.tflite", "org/eyes/model.litertlm"
GREEDY = text_pb2.Sampling(temperature=0, max_new_tokens=16)
GOLDEN = json.loads((TINY / "golden.json").read_text())["litert_lm_0_18_1_greedy_16"][0]


@pytest.fixture(scope="module")
def segmenter() -> bytes:
    return read_bytes(default_provider(), find("selfie_segmenter").ref)


@pytest.fixture(scope="module")
def server(segmenter: bytes) -> Iterator[Child]:
    """A server whose parent has the files, and nobody else."""
    parent = Parent(
        {
            ("org/tiny", "model.litertlm"): (TINY / "model.litertlm").read_bytes(),
            ("org/selfie", "model.tflite"): segmenter,
            ("org/eyes", "model.litertlm"): SEEING.read_bytes(),
            ("org/broken", "model.tflite"): segmenter[: len(segmenter) // 2],
            ("org/broken", "model.litertlm"): (TINY / "model.litertlm").read_bytes()[:100_000],
        }
    )
    with listening(parent), serving("--file-endpoint", parent.address, files="parent") as child:
        for name, pipeline in ((LM, "litert-lm"), (SEG, "litert"), (EYES, "litert-lm")):
            loaded = child.models.LoadModel(ml.LoadModelRequest(model_id=name, pipeline_type=pipeline), timeout=60)
            assert loaded.success
        yield child


@pytest.fixture(scope="module")
def edge(server: Child) -> Any:
    return edge_pb2_grpc.EdgeServiceStub(server.channel)  # type: ignore[no-untyped-call]


@pytest.fixture(scope="module")
def picture() -> NDArray[np.float32]:
    return np.random.default_rng(1).random((1, 256, 256, 3), np.float32)


def test_a_run_gives_what_the_library_gives(edge: Any, segmenter: bytes, picture: NDArray[np.float32]) -> None:
    with LiteModel(segmenter) as model:
        mine = model.run(picture)
        spec = model.inputs[0]
    for name in ("", spec.name):
        tensor = array_to_v1(name, picture)
        answer = edge.Run(v1.RunRequest(model=SEG, inputs=[tensor]))
        (output,) = answer.outputs
        np.testing.assert_allclose(array_from_v1(output), mine.value, atol=1e-5)
        assert (output.name, answer.accelerator) == (next(iter(mine)), "cpu")
        assert answer.seconds > 0


def test_a_model_is_described(edge: Any, server: Child) -> None:
    found = edge.Describe(v1.EdgeServiceDescribeRequest(model=SEG))
    (signature,) = (each for each in found.signatures if each.name == found.default_signature)
    assert [list(each.shape) for each in signature.inputs] == [[1, 256, 256, 3]]
    assert signature.inputs[0].dtype == "float32"
    assert found.accelerator == "cpu"
    assert found.size_bytes > 200_000
    lm = edge.Describe(v1.EdgeServiceDescribeRequest(model=LM))
    assert (lm.context_length, list(lm.takes), lm.accelerator) == (256, ["text"], "cpu")
    held = {each.model_id: each for each in server.v1_models.ListModels(models_pb2.ListModelsRequest()).models}
    assert held[SEG].pipeline_class == "LiteModel"
    assert held[LM].pipeline_class == "LiteLM"


def test_a_stream_answers_in_order_whatever_comes(edge: Any, picture: NDArray[np.float32]) -> None:
    def requests() -> Iterator[v1.StreamRunRequest]:
        yield v1.StreamRunRequest(config=v1.StreamRunConfig(model=SEG))
        for number in range(12):
            inputs = [array_to_v1("", picture * np.float32(number / 12))]
            yield v1.StreamRunRequest(inputs=v1.RunInputs(id=100 + number, inputs=inputs))

    answers = list(edge.StreamRun(requests()))
    assert [each.id for each in answers] == [100 + number for number in range(12)]
    assert all(each.done for each in answers)
    assert len({each.outputs[0].data for each in answers}) == 12


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dtype": "float31"}, "float31"),
        ({"dtype": "float64"}, "196608 bytes"),
        ({"shape": [1, 256, 256, 4]}, "1048576"),
        ({"shape": [-1, 256, 256, 3]}, "lengths"),
        ({"shape": [1 << 40, 1 << 40]}, "lengths"),
        ({"shape": [0, (1 << 31) - 1, (1 << 31) - 1, 8], "data": b""}, "lengths"),
        ({"dtype": "", "data": b"", "shape": [2001], "texts": [bytes(40_000)] + [b""] * 2000}, "texts are 2001"),
        ({"name": "nobody"}, "nobody"),
        ({"dtype": ""}, "dtype must be set"),
        ({"data": b""}, "0 bytes"),
    ],
    ids=lambda each: next(iter(each)) if isinstance(each, dict) else "",
)
def test_a_tensor_that_lies_is_refused_by_name(edge: Any, change: dict[str, Any], words: str) -> None:
    tensor = {"dtype": "float32", "shape": [1, 256, 256, 3], "data": bytes(256 * 256 * 3 * 4), **change}
    if change.get("dtype") == "float64":
        tensor["data"] = bytes(196_608)
    with fails(S.INVALID_ARGUMENT, words):
        edge.Run(v1.RunRequest(model=SEG, inputs=[v1.Tensor(**tensor)]))


def test_inputs_and_options_are_checked(edge: Any, picture: NDArray[np.float32]) -> None:
    good = array_to_v1("", picture)
    with fails(S.INVALID_ARGUMENT, "signature='x'"):
        edge.Run(v1.RunRequest(model=SEG, inputs=[good], config=v1.RunConfig(signature="x")))
    with fails(S.INVALID_ARGUMENT, "config.outputs='x'"):
        edge.Run(v1.RunRequest(model=SEG, inputs=[good], config=v1.RunConfig(outputs=["x"])))
    with fails(S.INVALID_ARGUMENT, "each output once"):
        output = edge.Describe(v1.EdgeServiceDescribeRequest(model=SEG)).signatures[0].outputs[0].name
        edge.Run(v1.RunRequest(model=SEG, inputs=[good], config=v1.RunConfig(outputs=[output] * 2)))
    with fails(S.INVALID_ARGUMENT, "NaN"):
        edge.Run(v1.RunRequest(model=SEG, inputs=[array_to_v1("", picture * np.float32("nan"))]))
    with fails(S.INVALID_ARGUMENT, "names"):
        edge.Run(v1.RunRequest(model=SEG, inputs=[good, array_to_v1("x", picture)]))
    with fails(S.INVALID_ARGUMENT, "inputs has 2000 tensors"):
        edge.Run(v1.RunRequest(model=SEG, inputs=[v1.Tensor()] * 2000))
    with fails(S.FAILED_PRECONDITION, "LoadModel first"):
        edge.Run(v1.RunRequest(model="nobody", inputs=[good]))
    with fails(S.FAILED_PRECONDITION, "litert-lm, not for litert"):
        edge.Run(v1.RunRequest(model=LM, inputs=[good]))
    with fails(S.INVALID_ARGUMENT, "config must be set"):
        list(edge.StreamRun(iter([v1.StreamRunRequest(inputs=v1.RunInputs(inputs=[good]))])))
    with fails(S.INVALID_ARGUMENT, "runs=-1"):
        edge.Benchmark(v1.BenchmarkRequest(model=SEG, runs=-1))
    with fails(S.INVALID_ARGUMENT, "decode_tokens=5000"):
        edge.Benchmark(v1.BenchmarkRequest(model=LM, decode_tokens=5000))


def test_files_that_are_cut_short_are_refused_and_the_server_lives(edge: Any, server: Child) -> None:
    for name, pipeline in (("org/broken/model.tflite", "litert"), ("org/broken/model.litertlm", "litert-lm")):
        with pytest.raises(grpc.RpcError) as caught:
            server.models.LoadModel(ml.LoadModelRequest(model_id=name, pipeline_type=pipeline), timeout=60)
        assert caught.value.code() in (S.DATA_LOSS, S.INVALID_ARGUMENT), caught.value
    with fails(S.NOT_FOUND):
        server.models.LoadModel(ml.LoadModelRequest(model_id="org/no/model.tflite", pipeline_type="litert"))
    assert edge.Describe(v1.EdgeServiceDescribeRequest(model=LM)).context_length == 256


def whole(responses: Any) -> Any:
    from tabml_grpc.convert_text import delta_from_v1

    return joined([delta_from_v1(response.delta) for response in responses])


def test_a_language_model_answers_by_every_service(edge: Any, server: Child) -> None:
    parts = [v1.PartsMessage(role="user", parts=[v1.Part(text="hello "), v1.Part(text="world")])]
    request = v1.EdgeServiceGenerateRequest(model=LM, messages=parts, sampling=GREEDY)
    assert whole(edge.Generate(request)).text == GOLDEN
    text = text_pb2_grpc.TextServiceStub(server.channel)  # type: ignore[no-untyped-call]
    messages = [text_pb2.Message(role="user", content="hello world")]
    found = whole(text.Chat(text_pb2.ChatRequest(model=LM, messages=messages, sampling=GREEDY)))
    assert (found.text, found.finish_reason, found.usage.completion_tokens) == (GOLDEN, "length", 16)
    old = ml_grpc.TransformersServiceStub(server.channel)  # type: ignore[no-untyped-call]
    chat = [ml.ChatMessage(role="user", content="hello world")]
    answers = list(
        old.ChatCompletion(
            ml.ChatRequest(model=LM, messages=chat),
            metadata=[("tabml-options-bin", GREEDY.SerializeToString())],
        )
    )
    assert "".join(each.content for each in answers) == GOLDEN
    assert answers[-1].done
    prompt = "<|im_start|>user\nhello world<|im_end|>\n<|im_start|>assistant\n"
    asked = v1.EdgeServiceGenerateRequest(model=LM, prompt=prompt, parse_special=True, sampling=GREEDY)
    assert whole(edge.Generate(asked)).text == GOLDEN


def test_what_a_language_model_can_not_take_is_refused(edge: Any, jpeg: bytes) -> None:
    def ask(*parts: v1.Part, **more: Any) -> None:
        messages = [v1.PartsMessage(role="user", parts=parts)] if parts else []
        list(edge.Generate(v1.EdgeServiceGenerateRequest(model=LM, messages=messages, **more)))

    with fails(S.FAILED_PRECONDITION, "takes text, no image"):
        ask(v1.Part(image=jpeg))
    with fails(S.FAILED_PRECONDITION, "takes text, no image"):  # nor is it decoded
        ask(v1.Part(image=b"no picture"))
    with fails(S.INVALID_ARGUMENT, "no float32"):
        ask(v1.Part(audio=b"abc"))
    with fails(S.INVALID_ARGUMENT, "must each have"):
        ask(v1.Part())
    with fails(S.INVALID_ARGUMENT, "but not both"):
        ask(v1.Part(text="x"), prompt="x")
    with fails(S.INVALID_ARGUMENT, "but not both"):
        ask()
    with fails(S.INVALID_ARGUMENT, "json_object"):
        ask(v1.Part(text="x"), sampling=text_pb2.Sampling(json_object=True))
    with fails(S.FAILED_PRECONDITION, "litert, not for text-generation or litert-lm"):
        list(edge.Generate(v1.EdgeServiceGenerateRequest(model=SEG, prompt="x")))


def test_pictures_are_decoded_one_by_one_and_only_as_many_as_are_taken(edge: Any, server: Child) -> None:
    def ask(*parts: v1.Part) -> None:
        messages = [v1.PartsMessage(role="user", parts=parts)]
        list(edge.Generate(v1.EdgeServiceGenerateRequest(model=EYES, messages=messages, sampling=GREEDY)))

    def most() -> int:
        status = Path(f"/proc/{server.process.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) >> 10

    sink = io.BytesIO()
    Image.new("L", (8000, 5000)).save(sink, "PNG")
    large, small = v1.Part(image=sink.getvalue()), v1.Part(image=b"no picture")
    ask(large)
    before = most()
    with fails(S.INVALID_ARGUMENT, "picture"):
        ask(large, large, large, large, large, large, small)
    assert most() - before < 400  # megabytes; each has 120
    with fails(S.INVALID_ARGUMENT, "must be an RGB array"):
        sink = io.BytesIO()
        Image.new("L", (9000, 1)).save(sink, "PNG")
        ask(v1.Part(image=sink.getvalue()))


def test_a_client_that_goes_away_ends_its_answer(edge: Any) -> None:
    long = text_pb2.Sampling(temperature=0, max_new_tokens=200)
    stream = edge.Generate(v1.EdgeServiceGenerateRequest(model=LM, prompt="hello", sampling=long))
    next(stream)
    stream.cancel()
    assert whole(edge.Generate(v1.EdgeServiceGenerateRequest(model=LM, prompt="hello", sampling=GREEDY))).text


def test_both_kinds_are_measured(edge: Any) -> None:
    lite = edge.Benchmark(v1.BenchmarkRequest(model=SEG, runs=5))
    assert 0 < lite.fastest_ms <= lite.median_ms <= lite.p90_ms
    assert (lite.runs, lite.accelerator) == (5, "cpu")
    lm = edge.Benchmark(v1.BenchmarkRequest(model=LM, prefill_tokens=64, decode_tokens=32))
    assert lm.prefill_tokens_per_second > lm.decode_tokens_per_second > 0
    assert edge.Benchmark(v1.BenchmarkRequest(model=LM)).load_s > 0


def test_a_model_is_unloaded_while_it_is_called(server: Child, edge: Any, picture: NDArray[np.float32]) -> None:
    name = "org/selfie/model.tflite"
    codes: list[Any] = []

    def call() -> None:
        for _ in range(20):
            try:
                edge.Run(v1.RunRequest(model=name, inputs=[array_to_v1("", picture)]))
            except grpc.RpcError as problem:
                codes.append(problem.code())

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    server.models.UnloadModel(ml.UnloadModelRequest(model_id=name))
    for thread in threads:
        thread.join()
    assert set(codes) <= {S.FAILED_PRECONDITION, S.CANCELLED}
    server.models.LoadModel(ml.LoadModelRequest(model_id=name, pipeline_type="litert"), timeout=60)
    assert edge.Run(v1.RunRequest(model=name, inputs=[array_to_v1("", picture)])).outputs


@given(arrays.arrays(st.sampled_from([np.dtype(name) for name in DTYPES]), arrays.array_shapes(min_dims=0, min_side=0)))
def test_arrays_go_over_the_wire_and_come_back(array: NDArray[Any]) -> None:
    back = array_from_v1(v1.Tensor.FromString(array_to_v1("x", array).SerializeToString()))
    assert (back.dtype, back.shape) == (array.dtype, array.shape)
    assert back.tobytes() == array.tobytes()


@given(st.lists(st.binary(max_size=5).filter(lambda text: not text.endswith(b"\0")), min_size=1, max_size=5))
def test_texts_go_over_the_wire_and_come_back(texts: list[bytes]) -> None:
    array = np.array(texts, np.bytes_)
    assert array_from_v1(array_to_v1("x", array)).tolist() == texts


@given(st.lists(st.integers(0, MAX_RESPONSE // 2), min_size=1, max_size=4))
def test_outputs_in_pieces_join_to_the_whole(lengths: list[int]) -> None:
    tensors = [array_to_v1(str(at), np.arange(length, dtype=np.uint16)) for at, length in enumerate(lengths)]
    joined_data: dict[str, bytes] = {}
    for piece in in_pieces(tensors):
        assert sum(tensor.ByteSize() for tensor in piece) < MAX_RESPONSE
        for tensor in piece:
            joined_data[tensor.name] = joined_data.get(tensor.name, b"") + tensor.data
    assert joined_data == {tensor.name: tensor.data for tensor in tensors}


def test_texts_that_no_message_can_have_are_refused() -> None:
    with pytest.raises(CapacityError, match="'x' has texts of"):
        list(in_pieces([v1.Tensor(name="x", shape=[1], texts=[bytes(MAX_RESPONSE)])]))


@given(st.binary(max_size=64), st.lists(st.integers(-2, 1 << 33), max_size=10), st.text(max_size=8))
def test_no_bytes_shape_and_type_together_are_read_beyond_their_end(data: bytes, shape: list[int], dtype: str) -> None:
    for name in (dtype, "float32", "uint8", "bool"):
        message = v1.Tensor(dtype=name, shape=shape, data=data)
        try:
            assert array_from_v1(message).nbytes == len(data)
        except RequestError:
            pass
