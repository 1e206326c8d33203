"""Text over the wire: both contracts, streams that end when nobody reads, and what is refused."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from child import Child, fails, serving
from hypothesis import given
from hypothesis import strategies as st

from tabml.generation.options import MAX_LOGPROBS
from tabml.generation.results import Delta, TokenLogprob, ToolCall, Usage, joined
from tabml.text import GenerationOptions, TextEmbedder, TextGenerator
from tabml.text.results import Embeddings, read_only
from tabml_grpc.ml import ml_inference_pb2 as ml
from tabml_grpc.ml import ml_inference_pb2_grpc as ml_grpc
from tabml_grpc.v1 import models_pb2, runtime_pb2, text_pb2, text_pb2_grpc

S = grpc.StatusCode
MODELS = {
    "org/chat": ("text-generation", "llama_chat"), "org/code": ("text-generation", "code_fim"),
    "org/embed": ("feature-extraction", "sentence_bert"), "org/rank": ("text-ranking", "cross_encoder"),
    "org/label": ("text-classification", "classifier"), "org/zero": ("zero-shot-classification", "inference_bart"),
    "org/words": ("token-classification", "token_classifier"), "org/ask": ("question-answering", "question_answerer"),
    "org/mask": ("fill-mask", "masked"), "org/translate": ("translation", "nllb"), "org/short": ("summarization", "bart"),
    "org/tokens": ("tokenization", "bert"),
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny models as repositories of one folder."""
    import tiny

    root = tmp_path_factory.mktemp("models")
    for name, (_, recipe) in MODELS.items():
        tiny.build(getattr(tiny, recipe), root / name)
    tiny.build(tiny.llama_chat, root / "org/adapted")
    tiny.lora(root / "org/mine", root / "org/adapted", 1)
    return root


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Child]:
    with serving(files=f"dir:{folder}") as child:
        for name, (pipeline, _) in MODELS.items():
            child.models.LoadModel(ml.LoadModelRequest(model_id=name, pipeline_type=pipeline), timeout=120)
        yield child


@pytest.fixture(scope="module")
def text(server: Child) -> Any:
    return text_pb2_grpc.TextServiceStub(server.channel)  # type: ignore[no-untyped-call]


@pytest.fixture(scope="module")
def transformers(server: Child) -> Any:
    return ml_grpc.TransformersServiceStub(server.channel)  # type: ignore[no-untyped-call]


@pytest.fixture(scope="module")
def library(folder: Path) -> Iterator[TextGenerator]:
    with TextGenerator(folder / "org" / "chat") as model:
        yield model


def whole(responses: Any) -> Any:
    from tabml_grpc.convert_text import delta_from_v1

    return joined([delta_from_v1(response.delta) for response in responses])


SAMPLING = text_pb2.Sampling(temperature=0, max_new_tokens=12)
GREEDY = GenerationOptions(temperature=0, max_new_tokens=12)


def test_a_generation_is_that_of_the_library(text: Any, library: TextGenerator) -> None:
    found = whole(text.Generate(text_pb2.GenerateRequest(model="org/chat", prompt="hello", sampling=SAMPLING)))
    want = library.generate("hello", GREEDY)
    assert found.choices == want.choices
    assert found.usage.prompt_tokens == want.usage.prompt_tokens
    assert found.usage.time_to_first_token_s > 0


def test_a_chat_is_that_of_the_library(text: Any, library: TextGenerator) -> None:
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]
    request = text_pb2.ChatRequest(
        model="org/chat", messages=[text_pb2.Message(**each) for each in messages], sampling=SAMPLING
    )
    assert whole(text.Chat(request)).choices == library.chat(messages, GREEDY).choices


def test_code_is_filled_in(text: Any, folder: Path) -> None:
    request = text_pb2.InfillRequest(model="org/code", prefix="def add", suffix="\n", sampling=SAMPLING)
    with TextGenerator(folder / "org" / "code") as coder:
        assert whole(text.Infill(request)).choices == coder.infill("def add", "\n", GREEDY).choices
    with fails(S.FAILED_PRECONDITION, "middle"):
        list(text.Infill(text_pb2.InfillRequest(model="org/chat", prefix="a", suffix="b")))


def test_the_old_contract_sends_deltas_and_a_last_message(transformers: Any, library: TextGenerator) -> None:
    request = ml.TextRequest(prompt="hello", model="org/chat", max_length=12, temperature=0, top_p=0.9)
    found = list(transformers.GenerateText(request))
    assert "".join(each.text for each in found) == library.generate("hello", GREEDY).text
    assert [each.done for each in found] == [False] * (len(found) - 1) + [True]
    assert (found[-1].finish_reason, found[-1].tokens_generated, found[-1].completion_tokens) == ("length", 12, 12)
    assert found[-1].request_id
    metadata = (("tabml-options-bin", SAMPLING.SerializeToString()),)
    chat = ml.ChatRequest(messages=[ml.ChatMessage(role="user", content="hi")], model="org/chat", temperature=0.7)
    answers = list(transformers.ChatCompletion(chat, metadata=metadata))
    assert "".join(each.content for each in answers) == library.chat([{"role": "user", "content": "hi"}], GREEDY).text
    assert answers[-1].done


def test_vectors_are_those_of_the_library(text: Any, transformers: Any, folder: Path) -> None:
    texts = ["hello world", "rain", "the quick brown fox"]
    with TextEmbedder(folder / "org" / "embed") as model:
        want = model.embed(texts)
    found = text.Embed(text_pb2.EmbedRequest(model="org/embed", texts=texts))
    vectors = np.frombuffer(found.vectors, "<f4").reshape(3, found.dimensions)
    assert np.allclose(vectors, want.vectors, atol=1e-6)
    old = transformers.GenerateEmbeddings(ml.GenerateEmbeddingsRequest(texts=texts, model="org/embed"))
    assert np.allclose([each.values for each in old.embeddings], want.vectors, atol=1e-6)
    assert (old.prompt_tokens, old.dim) == (want.prompt_tokens, want.dimensions)
    few = text.Embed(text_pb2.EmbedRequest(model="org/embed", texts=texts, dimensions=8, normalize=True))
    assert np.allclose(np.linalg.norm(np.frombuffer(few.vectors, "<f4").reshape(3, 8), axis=1), 1, atol=1e-5)


def test_every_other_call_answers(text: Any, transformers: Any) -> None:
    documents = ["a dog", "hello world", "rain"]
    ranked = text.Rerank(text_pb2.RerankRequest(model="org/rank", query="hello", documents=documents, top_n=2))
    assert len(ranked.results) == 2
    assert ranked.results[0].score >= ranked.results[1].score
    old = transformers.Rerank(ml.RerankRequest(model="org/rank", query="hello", documents=documents))
    assert sorted(each.index for each in old.results) == [0, 1, 2]
    labels = text.Classify(text_pb2.ClassifyRequest(model="org/label", texts=["hello", "rain"]))
    assert [sum(each.score for each in one.labels) for one in labels.results] == pytest.approx([1, 1], abs=1e-4)
    zero = text.Classify(text_pb2.ClassifyRequest(model="org/zero", texts=["hello"], labels=["a", "b"]))
    assert {each.label for each in zero.results[0].labels} == {"a", "b"}
    words = text.ExtractEntities(text_pb2.ExtractEntitiesRequest(model="org/words", texts=["hello world"]))
    assert all("hello world"[each.start : each.end] == each.text for each in words.results[0].entities)
    answers = text.Answer(text_pb2.AnswerRequest(model="org/ask", question="who?", context="the quick brown fox"))
    assert all("the quick brown fox"[each.start : each.end] == each.text for each in answers.answers)
    assert len(text.FillMask(text_pb2.FillMaskRequest(model="org/mask", text="hello [MASK]", top_k=3)).fills) == 3
    request = text_pb2.TranslateRequest(
        model="org/translate", texts=["hello"], source="eng_Latn", target="fra_Latn", max_new_tokens=5
    )
    assert len(text.Translate(request).texts) == 1
    assert (
        len(text.Summarize(text_pb2.SummarizeRequest(model="org/short", texts=["hello"], max_new_tokens=5)).texts) == 1
    )
    tokens = text.Tokenize(text_pb2.TokenizeRequest(model="org/tokens", text="hello world"))
    assert text.Detokenize(text_pb2.DetokenizeRequest(model="org/tokens", ids=tokens.ids)).text == "hello world"


def test_calls_have_the_options_of_the_library(text: Any) -> None:
    long = "hello world " * 400
    with fails(S.INVALID_ARGUMENT, "instruction"):  # is for rerankers of another kind
        text.Rerank(text_pb2.RerankRequest(model="org/rank", query="a", documents=["b"], instruction="judge"))
    entities = text_pb2.ExtractEntitiesRequest(model="org/words", texts=[long])
    with fails(S.INVALID_ARGUMENT, "truncate"):
        text.ExtractEntities(entities)
    entities.stride = 2
    assert len(text.ExtractEntities(entities).results) == 1
    question = text_pb2.AnswerRequest(model="org/ask", question="who?", context="the quick brown fox", top_k=100)
    assert any(" " in each.text for each in text.Answer(question).answers)
    question.max_answer_tokens, question.impossible = 1, True
    pieces = [each.text for each in text.Answer(question).answers]
    assert "" in pieces
    assert not any(" " in piece for piece in pieces)
    fills = text.FillMask(text_pb2.FillMaskRequest(model="org/mask", text="a [MASK]", targets=["the", "a"])).fills
    assert {each.token for each in fills} == {"the", "a"}
    translation = text_pb2.TranslateRequest(
        model="org/translate", texts=[long], source="eng_Latn", target="fra_Latn", max_new_tokens=2
    )
    with fails(S.INVALID_ARGUMENT, "truncate"):
        text.Translate(translation)
    translation.truncate = True
    assert len(text.Translate(translation).texts) == 1
    tokens = text_pb2.TokenizeRequest(model="org/tokens", text="a [SEP]")
    as_text = text.Tokenize(tokens).ids
    tokens.parse_special = True
    assert len(text.Tokenize(tokens).ids) < len(as_text)


def test_what_is_wrong_gets_its_status(text: Any, transformers: Any) -> None:
    with fails(S.FAILED_PRECONDITION, "not loaded"):
        list(text.Generate(text_pb2.GenerateRequest(model="org/none", prompt="x")))
    with fails(S.FAILED_PRECONDITION, "feature-extraction", "text-generation"):
        list(text.Generate(text_pb2.GenerateRequest(model="org/embed", prompt="x")))
    with fails(S.INVALID_ARGUMENT, "model=''"):
        text.Rerank(text_pb2.RerankRequest(query="x", documents=["y"]))
    with fails(S.INVALID_ARGUMENT, "top_p"):
        sampling = text_pb2.Sampling(top_p=2)
        list(text.Generate(text_pb2.GenerateRequest(model="org/chat", prompt="x", sampling=sampling)))
    with fails(S.INVALID_ARGUMENT, "temperature"):
        list(transformers.GenerateText(ml.TextRequest(prompt="x", model="org/chat", temperature=float("nan"))))
    with fails(S.INVALID_ARGUMENT, "messages"):
        list(text.Chat(text_pb2.ChatRequest(model="org/chat")))
    with fails(S.INVALID_ARGUMENT, "tools_json"):
        list(text.Chat(text_pb2.ChatRequest(model="org/chat", tools_json="{")))
    with fails(S.INVALID_ARGUMENT, "texts"):
        text.Embed(text_pb2.EmbedRequest(model="org/embed", texts=["x " * 500]))
    with fails(S.INVALID_ARGUMENT, "texts has 40000 texts; vectors of"):  # 4 MiB are what clients receive
        text.Embed(text_pb2.EmbedRequest(model="org/embed", texts=["a"] * 40000))
    with fails(S.INVALID_ARGUMENT, "texts has 40000 texts; vectors of"):
        transformers.GenerateEmbeddings(ml.GenerateEmbeddingsRequest(model="org/embed", texts=["a"] * 40000))
    with fails(S.INVALID_ARGUMENT, "ask for less"):
        text.Tokenize(text_pb2.TokenizeRequest(model="org/tokens", text="a b " * (1 << 18)))
    with fails(S.INVALID_ARGUMENT):
        metadata = (("tabml-options-bin", b"\xff\xff"),)
        list(transformers.GenerateText(ml.TextRequest(prompt="x", model="org/chat"), metadata=metadata))


def test_adapters_are_loaded_with_a_model_and_chosen_by_a_call(server: Child, text: Any, folder: Path) -> None:
    server.models.LoadModel(
        ml.LoadModelRequest(
            model_id="org/adapted", pipeline_type="text-generation", options={"adapters": "mine=org/mine"}
        ),
        timeout=120,
    )
    with TextGenerator(folder / "org" / "adapted", adapters={"mine": folder / "org" / "mine"}) as model:
        wanted = {name: model.generate("hello", replace(GREEDY, adapter=name or None)).text for name in ("", "mine")}
    assert wanted[""] != wanted["mine"]
    for name, expected in wanted.items():
        sampling = text_pb2.Sampling(temperature=0, max_new_tokens=12, adapter=name or None)
        assert (
            whole(text.Generate(text_pb2.GenerateRequest(model="org/adapted", prompt="hello", sampling=sampling))).text
            == expected
        )
    with fails(S.INVALID_ARGUMENT, "adapter='yours' is not loaded; there are: mine"):
        list(
            text.Generate(
                text_pb2.GenerateRequest(
                    model="org/adapted", prompt="hello", sampling=text_pb2.Sampling(adapter="yours")
                )
            )
        )


def test_a_load_that_does_not_fit_says_so(server: Child) -> None:
    for request, code, words in (
        (ml.LoadModelRequest(model_id="org/embed2", pipeline_type="feature-extraction"), S.NOT_FOUND, "config.json"),
        (ml.LoadModelRequest(model_id="org/tokens", pipeline_type="text-generation"), S.ALREADY_EXISTS, "loaded"),
        (
            ml.LoadModelRequest(model_id="x", pipeline_type="text-generation", options={"dtype": "int3"}),
            S.INVALID_ARGUMENT,
            "dtype",
        ),
        (
            ml.LoadModelRequest(model_id="x", pipeline_type="text-generation", options={"a": "b"}),
            S.INVALID_ARGUMENT,
            "'a'",
        ),
        (ml.LoadModelRequest(model_id="../x", pipeline_type="text-generation"), S.INVALID_ARGUMENT, "model_id"),
        (ml.LoadModelRequest(model_id="org/new", pipeline_type="text-guessing"), S.NOT_FOUND, "text-guessing"),
    ):
        with fails(code, words):
            server.models.LoadModel(request)


def test_a_model_says_what_it_is(server: Child) -> None:
    found = server.v1_models.ListModels(models_pb2.ListModelsRequest()).models
    chat = next(each for each in found if each.model_id == "org/chat")
    assert chat.pipeline_class == "TextGenerator"
    assert "/tabml.v1.TextService/Chat" in chat.capabilities
    assert chat.load_seconds > 0


def idle(server: Child, method: str) -> bool:
    stats = server.stats(method)
    return stats is not None and stats.active == 0


def test_a_caller_that_goes_away_ends_its_generation(server: Child, text: Any) -> None:
    sampling = text_pb2.Sampling(seed=1, max_new_tokens=240)
    for _ in range(5):
        call = text.Generate(text_pb2.GenerateRequest(model="org/chat", prompt="hello", sampling=sampling))
        next(iter(call))
        call.cancel()
    server.until(lambda: idle(server, "TextService/Generate"), "generations end")
    request = text_pb2.GenerateRequest(model="org/chat", prompt="hello", sampling=SAMPLING)
    assert whole(text.Generate(request)).text


def test_a_model_can_be_unloaded_under_a_generation(server: Child, text: Any, folder: Path) -> None:
    import shutil

    shutil.copytree(folder / "org" / "chat", folder / "org" / "again")
    server.models.LoadModel(ml.LoadModelRequest(model_id="org/again", pipeline_type="text-generation"))
    sampling = text_pb2.Sampling(seed=1, max_new_tokens=240)
    call = text.Generate(text_pb2.GenerateRequest(model="org/again", prompt="hello", sampling=sampling))
    next(iter(call))
    request = models_pb2.UnloadModelsRequest(model_ids=["org/again"], mode=models_pb2.UNLOAD_MODE_CANCEL)
    server.v1_models.UnloadModels(request)
    with fails(S.CANCELLED, "unloaded"):
        list(call)


def test_many_callers_are_answered_side_by_side(server: Child, text: Any, library: TextGenerator) -> None:
    prompts = [f"hello {number}" for number in range(12)]
    found: dict[str, str] = {}

    def work(prompt: str) -> None:
        request = text_pb2.GenerateRequest(model="org/chat", prompt=prompt, sampling=SAMPLING)
        found[prompt] = whole(text.Generate(request)).text

    threads = [threading.Thread(target=work, args=(prompt,)) for prompt in prompts]
    for thread in threads:
        thread.start()
    server.runtime.GetStats(runtime_pb2.GetStatsRequest(), timeout=10)  # status calls are answered meanwhile
    for thread in threads:
        thread.join(60)
    assert found == {prompt: library.generate(prompt, GREEDY).text for prompt in prompts}


def numbers(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high, width=32)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "temperature": numbers(1, 100), "top_p": numbers(0.125, 1), "top_k": st.integers(0, 1000),
            "min_p": numbers(0, 1), "repetition_penalty": numbers(0.5, 10), "seed": st.integers(0, (1 << 63) - 1),
            "stop": st.lists(st.text(min_size=1, max_size=5), max_size=3).map(tuple),
            "stop_token_ids": st.lists(st.integers(0, 1000), max_size=3).map(tuple), "n": st.integers(1, 64),
            "logprobs": st.integers(0, MAX_LOGPROBS), "json_object": st.booleans(),
            "logit_bias": st.dictionaries(st.integers(0, 1000), numbers(-100, 100), min_size=1, max_size=3),
            "max_time_s": st.floats(0.01, 1000), "adapter": st.text(min_size=1, max_size=9),
        },
    )
)  # fmt: skip
def test_options_travel_unchanged(options: dict[str, Any]) -> None:
    from tabml_grpc.convert_text import sampling_from_v1, sampling_to_v1

    made = GenerationOptions(**options)
    assert sampling_from_v1(sampling_to_v1(made)) == made


@given(
    st.builds(
        Delta,
        text=st.text(max_size=9),
        index=st.integers(0, 63),
        token_ids=st.lists(st.integers(0, 1 << 30), max_size=3).map(tuple),
        logprobs=st.lists(
            st.builds(
                TokenLogprob,
                token_id=st.integers(0, 1000),
                text=st.text(max_size=4),
                logprob=numbers(-100, 0),
                alternatives=st.lists(st.tuples(st.integers(0, 1000), numbers(-100, 0)), max_size=3).map(tuple),
            ),
            max_size=2,
        ).map(tuple),
        finish_reason=st.sampled_from([None, "stop", "length", "time", "tool_calls"]),
        tool_calls=st.lists(
            st.builds(ToolCall, name=st.text(max_size=4), arguments=st.just('{"a": 1}'), id=st.text(max_size=4)),
            max_size=2,
        ).map(tuple),
        usage=st.none() | st.builds(Usage, prompt_tokens=st.integers(0, 99), completion_tokens=st.integers(0, 99)),
    )
)
def test_a_delta_travels_unchanged(delta: Delta) -> None:
    from tabml_grpc.convert_text import delta_from_v1, delta_to_v1

    assert delta_from_v1(delta_to_v1(delta)) == delta


@given(st.integers(0, 5), st.integers(1, 300))
def test_vectors_travel_unchanged(count: int, size: int) -> None:
    from tabml_grpc.convert_text import embeddings_from_v1, embeddings_to_ml, embeddings_to_v1

    vectors = np.random.default_rng(count).normal(size=(count, size)).astype(np.float32)
    found = Embeddings(vectors=read_only(vectors), prompt_tokens=7)
    back = embeddings_from_v1(text_pb2.EmbedResponse.FromString(embeddings_to_v1(found)))
    assert np.array_equal(back.vectors, vectors)
    old = ml.GeneratedEmbeddingsResponse.FromString(embeddings_to_ml(found))
    assert [list(each.values) for each in old.embeddings] == vectors.tolist()
    assert (old.dim, old.prompt_tokens) == (size, 7)


def test_messages_with_calls_reach_the_template() -> None:
    from tabml_grpc.convert_text import messages_from_v1

    call = text_pb2.ToolCall(id="1", name="add", arguments_json=json.dumps({"a": 1}))
    found = messages_from_v1(
        [
            text_pb2.Message(role="assistant", tool_calls=[call]),
            text_pb2.Message(role="tool", content="2", tool_call_id="1"),
        ]
    )
    assert found[0]["tool_calls"][0]["function"] == {"name": "add", "arguments": {"a": 1}}
    assert found[1] == {"role": "tool", "content": "2", "tool_call_id": "1"}
