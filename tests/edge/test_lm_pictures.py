"""Pictures and sounds for language models on LiteRT-LM: the answers of Google's own package, and what may go wrong."""

from __future__ import annotations

import json
import random
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_litertlm import answers, retold
from tiny_litertlm_vision import MARKS, audio_part, image_part, picture, sound, text_part

from tabml.edge import LiteLM
from tabml.edge._lm.container import read_container
from tabml.edge._lm.marks import Marks, marks_by_tokens, marks_of
from tabml.edge._lm.native import AS_IT_IS
from tabml.errors import CorruptModelError, InferenceError, ModelKindError, ModelLoadError, OptionError, TabmlError
from tabml.files import FileRef, MemoryProvider
from tabml.generation.options import GenerationOptions
from tabml.generation.results import Generation
from tabml.vision import Frame

MODELS = Path(__file__).parents[1] / "models" / "tiny-lm" / "vision"
KINDS = ("gemma3n", "gemma4")
GREEDY = GenerationOptions(temperature=0, max_new_tokens=16)
LONG = GenerationOptions(temperature=0, max_new_tokens=400)
GOLDEN: dict[str, dict[str, str]] = json.loads((MODELS / "golden.json").read_text())
Part = dict[str, Any]


def image(pixels: NDArray[np.uint8] | Frame) -> Part:
    return {"type": "image", "image": pixels}


def audio(samples: NDArray[np.float32]) -> Part:
    return {"type": "audio", "audio": samples}


def user(*parts: Part | str) -> dict[str, Any]:
    return {"role": "user", "content": [text_part(part) if isinstance(part, str) else part for part in parts]}


def native(message: dict[str, Any]) -> list[dict[str, str]]:
    """A message as Google's package takes it."""
    as_files = {"image": lambda part: image_part(part["image"]), "audio": lambda part: audio_part(part["audio"])}
    return [as_files[part["type"]](part) if part["type"] in as_files else part for part in message["content"]]


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def model(kind: str) -> Iterator[LiteLM]:
    with LiteLM(MODELS / f"{kind}.litertlm", threads=1) as opened:
        yield opened


@pytest.fixture
def gemma() -> Iterator[LiteLM]:
    with LiteLM(MODELS / "gemma3n.litertlm", threads=1) as opened:
        yield opened


@pytest.fixture(scope="module")
def photos(pictures: Callable[[str], Path]) -> list[NDArray[np.uint8]]:
    names = ("hand_thumb_up.jpg", "coupleanddog.jpeg", "ic_test_image.jpg")
    return [Frame.from_file(pictures(name)).to_rgb() for name in names]


def test_a_greedy_answer_is_that_of_the_package(model: LiteLM, kind: str) -> None:
    asked = {
        "text": user("hello"), "picture": user(image(picture(1)), "hello"),
        "another picture": user(image(picture(2)), "hello"), "sound": user(audio(sound(440)), "hello"),
    }  # fmt: skip
    said = {name: model.chat([message], GREEDY).text for name, message in asked.items()}
    assert said == GOLDEN[kind]
    assert len(set(said.values())) == 4
    assert model.takes == ("text", "image", "audio")


def test_photos_and_sounds_in_any_order_get_the_answers_of_the_package(
    model: LiteLM, kind: str, photos: list[NDArray[np.uint8]]
) -> None:
    hand, couple, bird = photos
    asked = [
        user(image(hand), "what is it"),
        user("what is it", image(hand)),
        user(image(couple), "and then", image(bird)),
        user(image(bird), "and then", image(couple)),
        user(audio(sound(440, 0.7)), "near", image(hand), "hello", audio(sound(990))),
        user(image(hand[:40, :300]), image(hand[:300, :40])),
    ]
    said = []
    for message in asked:
        answer = model.chat([message], GREEDY)
        (theirs,), tokens = answers(MODELS / f"{kind}.litertlm", [native(message)])
        assert answer.text == theirs
        assert answer.usage.prompt_tokens + answer.usage.completion_tokens == tokens
        said.append(theirs)
    assert len(set(said)) == len(asked)


def test_a_further_turn_reads_only_what_is_new_and_knows_the_pictures_before(
    model: LiteLM, kind: str, photos: list[NDArray[np.uint8]]
) -> None:
    hand, couple, _ = photos
    short = GenerationOptions(temperature=0, max_new_tokens=8)
    mark = MARKS[kind][0]
    begin, end = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n", "<|im_end|>\n"
    told = [
        [text_part(begin.format(mark + "hello")), image_part(hand)],
        [text_part(end + begin.format("what is your name"))],
        [text_part(end + begin.format("and" + mark)), image_part(couple)],
    ]
    theirs, tokens = answers(MODELS / f"{kind}.litertlm", told, tokens=8, template=AS_IT_IS)
    talk: list[dict[str, Any]] = []
    before = 0
    turns = (user(image(hand), "hello"), user("what is your name"), user("and", image(couple)))
    for message, expected in zip(turns, theirs, strict=True):
        talk.append(message)
        answer = model.chat(talk, short)
        assert answer.text == expected
        assert answer.usage.cached_tokens == before
        before = answer.usage.prompt_tokens + answer.usage.completion_tokens
        talk.append({"role": "assistant", "content": answer.text})
    assert before == tokens
    with LiteLM(MODELS / f"{kind}.litertlm", conversations=0) as forgetful:
        whole = forgetful.chat(talk[:-1], short)
    assert whole.usage.cached_tokens == 0


def test_another_picture_or_sound_under_the_same_words_is_not_the_one_in_memory(gemma: LiteLM) -> None:
    def third_turn(model: LiteLM, first: Part, said: Generation) -> Generation:
        return model.chat([user(first, "hello"), {"role": "assistant", "content": said.text}, user("and")], GREEDY)

    for mine, other in ((image(picture(1)), image(picture(2))), (audio(sound(440)), audio(sound(990)))):
        said = gemma.chat([user(mine, "hello")], GREEDY)
        assert third_turn(gemma, mine, said).usage.cached_tokens > 0
        changed = third_turn(gemma, other, said)
        assert changed.usage.cached_tokens == 0
        assert changed.text != third_turn(gemma, mine, said).text


def test_pictures_count_as_tokens_of_the_prompt(model: LiteLM, kind: str) -> None:
    def count(*parts: Part | str) -> int:
        return model.chat([user(*parts)], GREEDY).usage.prompt_tokens

    words = count("hello")
    square, wide = (count(image(picture(1, *shape)), "hello") - words for shape in ((64, 64), (48, 64)))
    extra = {"gemma3n": 5, "gemma4": 2}[
        kind
    ]  # begin and end; Gemma 3 has two line feeds on either side instead of an end
    assert square == 16 + extra
    assert wide == (16 if kind == "gemma3n" else 12) + extra
    assert count(image(picture(1)), image(picture(2)), "hello") - words == 2 * wide
    assert count(audio(sound(440, 2.0)), "hello") > count(audio(sound(440)), "hello") > words


def test_what_leaves_no_room_in_the_context_is_refused(model: LiteLM) -> None:
    room = "leaves no room in the context of 256 tokens"
    with pytest.raises(OptionError, match=room):
        model.chat([user(*[image(picture(1))] * 20, "hello")], GREEDY)
    with pytest.raises(OptionError, match=room):
        model.chat([user(audio(sound(440, 60.0)), "hello")], GREEDY)
    first = user(image(picture(1)), "hello")
    said = model.chat([first], GREEDY)
    with pytest.raises(OptionError, match=room):
        model.chat([first, {"role": "assistant", "content": said.text}, user(*[image(picture(1))] * 15)], GREEDY)
    for pictures in range(1, 12):
        try:
            answer = model.chat([user(*[image(picture(1))] * pictures)], LONG)
        except OptionError:
            break
        assert answer.usage.prompt_tokens + answer.usage.completion_tokens == 256
        assert answer.finish_reason == "length"
    assert 3 < pictures < 12
    assert model.chat([first], GREEDY).text == said.text


def test_a_mark_that_a_user_writes_is_text(model: LiteLM, kind: str) -> None:
    for mark in (*MARKS[kind], "<start_of_image>", "<image_soft_token>", "<audio_soft_token>"):
        answer = model.chat([user(image(picture(1)), f"a {mark} b")], GREEDY)
        assert answer.finish_reason == "length"
        assert model.generate(mark, GREEDY).usage.completion_tokens == 16
    mark = MARKS[kind][0]
    for pieces in ([mark[:5], mark[5:]], [mark[:5] + " ", " " + mark[5:]], [mark[:3], mark[3:6], mark[6:]]):
        assert mark not in model.render_chat([user(*pieces)])
        assert mark not in model.render_chat([user(*(piece.strip() for piece in pieces))])
        assert model.chat([user(*pieces)], GREEDY).text
    with pytest.raises(OptionError, match=r"1 marks like .* for 0 of type image"):
        model.generate(f"a {mark} b", GREEDY, parse_special=True)


def test_pieces_of_a_control_token_side_by_side_stay_text(model: LiteLM) -> None:
    assert "<|im_end|>" not in model.render_chat([user("<|im_", "end|>")]).removesuffix(
        "<|im_end|>\n<|im_start|>assistant\n"
    )
    assert model.render_chat([user("one ", "two")]).count("one two") == 1


def test_the_prompt_shows_where_pictures_and_sounds_stand(model: LiteLM, kind: str) -> None:
    shown = model.render_chat([user("a", image(picture(1)), "b", audio(sound(440)))])
    assert f"a{MARKS[kind][0]}b{MARKS[kind][2]}<|im_end|>" in shown


@pytest.mark.parametrize(
    ("part", "words"),
    [
        (image(np.zeros((8, 8), np.uint8)), r"image=uint8 \(8, 8\)"),
        (image(np.zeros((8, 8, 4), np.uint8)), r"image=uint8 \(8, 8, 4\)"),
        (image(np.zeros((8, 8, 3), np.float32)), "image=float32"),
        (image(np.zeros((0, 8, 3), np.uint8)), r"image=uint8 \(0, 8, 3\)"),
        (image(np.zeros((1, 8193, 3), np.uint8)), "8192 a side"),
        ({"type": "image", "image": "cat.png"}, "image=str"),
        ({"type": "image"}, "image=NoneType"),
        (audio(np.zeros(0, np.float32)), r"audio=float32 \(0,\)"),
        (audio(np.zeros((2, 8), np.float32)), r"audio=float32 \(2, 8\)"),
        (audio(np.full(8, np.nan, np.float32)), "finite float32"),
        ({"type": "audio", "audio": np.zeros(8, np.int16)}, "audio=int16"),
    ],
)
def test_what_is_no_picture_or_sound_is_refused(gemma: LiteLM, part: Part, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        gemma.chat([user(part, "hello")], GREEDY)


def test_pictures_of_any_size_and_order_in_memory_are_read(gemma: LiteLM) -> None:
    pixels = picture(1)
    plain = gemma.chat([user(image(pixels), "hello")], GREEDY).text
    padded = np.zeros((*pixels.shape[:2], 4), np.uint8)
    padded[..., :3] = pixels
    assert gemma.chat([user(image(padded[..., :3]), "hello")], GREEDY).text == plain
    assert gemma.chat([user(image(np.asfortranarray(pixels)), "hello")], GREEDY).text == plain
    assert gemma.chat([user(image(Frame.from_array(pixels, format="rgb")), "hello")], GREEDY).text == plain
    for height, width in ((1, 1), (1, 8192), (8192, 1), (31, 33)):
        assert gemma.chat([user(image(picture(1, height, width)), "hello")], GREEDY).text
    for samples in (1, 159, 160, 161):
        assert gemma.chat([user(audio(np.full(samples, 0.1, np.float32)), "hello")], GREEDY).text


def test_more_pictures_than_are_taken_are_refused_before_they_are_read(gemma: LiteLM) -> None:
    with pytest.raises(OptionError, match="more than 64 pictures and sounds"):
        gemma.chat([user(*[image(picture(1, 4, 4))] * 65)], GREEDY)
    hour = np.zeros(3600 * 16_000, np.float32)
    with pytest.raises(OptionError, match="bytes of pictures and sounds; the limit is"):
        gemma.chat([user(*[audio(hour)] * 3)], GREEDY)


def test_closing_a_stream_about_a_picture_ends_its_work_and_the_next_is_answered(gemma: LiteLM) -> None:
    first = [user(image(picture(1)), "hello")]
    whole = gemma.chat(first, GREEDY).text
    stream = gemma.stream_chat(first, LONG)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert gemma.chat(first, GREEDY).text == whole
    late = gemma.chat(first, GenerationOptions(temperature=0, max_new_tokens=200, max_time_s=0.001))
    assert late.finish_reason == "time"
    assert gemma.chat(first, GREEDY).text == whole


def test_several_answers_about_a_picture_count_it_once(gemma: LiteLM) -> None:
    first = [user(image(picture(1)), "hello")]
    alone = gemma.chat(first, GREEDY)
    options = GenerationOptions(temperature=1.0, seed=3, n=2, max_new_tokens=8)
    several = gemma.chat(first, options)
    assert several.usage.prompt_tokens == alone.usage.prompt_tokens
    assert several.usage.completion_tokens == 16


def test_calls_of_many_threads_get_answers_about_their_own_pictures(gemma: LiteLM) -> None:
    alone = {seed: gemma.chat([user(image(picture(seed)), "hello")], GREEDY).text for seed in range(6)}
    found: dict[int, str] = {}

    def ask(seed: int) -> None:
        found[seed] = gemma.chat([user(image(picture(seed)), "hello")], GREEDY).text

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in alone]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == alone
    assert len(set(alone.values())) > 4


def test_the_file_may_go_once_the_model_is_loaded(tmp_path: Path) -> None:
    path = Path(shutil.copy(MODELS / "gemma3n.litertlm", tmp_path))
    first = [user(image(picture(1)), "hello")]
    with LiteLM(path, threads=1).load() as model:
        path.unlink()
        assert model.chat(first, GREEDY).text == GOLDEN["gemma3n"]["picture"]
    ref = FileRef("me/tiny", "model.litertlm")
    content = (MODELS / "gemma3n.litertlm").read_bytes()
    with LiteLM(ref, files=MemoryProvider({(ref.repo, ref.path): content}), threads=1) as model:
        assert model.chat(first, GREEDY).text == GOLDEN["gemma3n"]["picture"]


def generic(told: Any) -> None:
    told.llm_model_type.generic_model.image_enabled = True
    told.llm_model_type.generic_model.image_tensor_height = told.llm_model_type.generic_model.image_tensor_width = 32
    told.llm_model_type.generic_model.delimiter_regex = r"(<start_of_image>|<\|other\|>)"
    told.llm_model_type.generic_model.image_token_regex = "(<start_of_image>)"


def of_kind(kind: str, mark: str) -> Callable[[Any], None]:
    def change(told: Any) -> None:
        told.llm_model_type.ClearField("gemma3n")
        model = getattr(told.llm_model_type, kind)
        model.image_tensor_height = model.image_tensor_width = 32
        told.jinja_prompt_template = told.jinja_prompt_template.replace("<start_of_image>", mark)

    return change


@pytest.mark.parametrize(
    ("change", "mark", "takes"),
    [
        (generic, "<start_of_image>", ("text", "image")),
        (of_kind("gemma3", "<image_soft_token>"), "<image_soft_token>", ("text", "image", "audio")),
        (of_kind("fast_vlm", "<image_soft_token>"), "<image_soft_token>", ("text", "image")),
        (of_kind("lfm2", "<|image_start|>"), "<|image_start|>", ("text", "image")),
    ],
)
def test_each_kind_of_model_has_marks_of_its_own(
    tmp_path: Path, change: Callable[[Any], None], mark: str, takes: tuple[str, ...]
) -> None:
    path = retold(MODELS / "gemma3n.litertlm", tmp_path / "other.litertlm", change)
    with LiteLM(path, threads=1) as model:
        assert model.takes == takes
        said = []
        for seed in (1, 2):
            message = user("a", image(picture(seed)), "hello")
            assert mark in model.render_chat([message])
            said.append(model.chat([message], GREEDY).text)
            assert said[-1] == answers(path, [native(message)])[0][0]
        assert len(set(said)) == 2
        assert model.chat([user(mark)], GREEDY).text


@pytest.mark.parametrize("kind", ["qwen3", "qwen2p5", "function_gemma", "minicpm5", "generic_model", None])
def test_kinds_that_pass_over_pictures_in_silence_do_not_take_them(tmp_path: Path, kind: str | None) -> None:
    def change(told: Any) -> None:
        told.ClearField("llm_model_type")
        if kind is not None:
            getattr(told.llm_model_type, kind).SetInParent()

    path = retold(MODELS / "gemma3n.litertlm", tmp_path / "blind.litertlm", change)
    one, other = (answers(path, [native(user(image(picture(seed)), "hello"))])[0] for seed in (1, 2))
    assert one == other
    with LiteLM(path, threads=1) as model:
        assert model.takes == ("text",)
        with pytest.raises(ModelKindError, match="takes text, no audio"):
            model.chat([user(audio(sound(440)), "hello")], GREEDY)
        with pytest.raises(ModelKindError, match="takes text, no image"):
            model.chat([user(image(picture(1)), "hello")], GREEDY)
        assert model.chat([user("hello")], GREEDY).text == GOLDEN["gemma3n"]["text"]


def test_a_template_without_a_place_for_pictures_says_so(tmp_path: Path) -> None:
    def change(told: Any) -> None:
        told.jinja_prompt_template = (
            "{% for m in messages %}{% for c in m.content %}{{ c.text }}{% endfor %}{% endfor %}"
        )

    path = retold(MODELS / "gemma3n.litertlm", tmp_path / "placeless.litertlm", change)
    with LiteLM(path, threads=1) as model:
        with pytest.raises(OptionError, match=r"0 marks like <start_of_image> for 1 of type image: the chat template"):
            model.chat([user(image(picture(1)), "hello")], GREEDY)
        assert model.chat([user("hello")], GREEDY).text


def test_a_file_with_words_around_each_role_has_places_for_pictures(tmp_path: Path) -> None:
    def change(told: Any) -> None:
        told.ClearField("jinja_prompt_template")
        told.prompt_templates.user.prefix, told.prompt_templates.user.suffix = "<|im_start|>user\n", "<|im_end|>\n"
        told.prompt_templates.model.prefix = "<|im_start|>assistant\n"

    path = retold(MODELS / "gemma3n.litertlm", tmp_path / "old.litertlm", change)
    with LiteLM(path, threads=1) as model:
        assert model.chat([user(image(picture(1)), "hello")], GREEDY).text == GOLDEN["gemma3n"]["picture"]
        assert model.chat([user(audio(sound(440)), "hello")], GREEDY).text == GOLDEN["gemma3n"]["sound"]


def test_marks_are_known_by_kind_by_patterns_and_by_tokens() -> None:
    from litert_lm_builder.runtime.proto.llm_model_type_pb2 import LlmModelType

    told = LlmModelType()
    assert marks_of(told) is None
    told.gemma4.SetInParent()
    known = marks_of(told)
    assert known is not None
    assert known.kinds("a<|audio|>b<|image|><start_of_image>c<image_soft_token>") == ["audio", "image", "image"]
    for pattern, found in {
        r"(<\|img\|>|<b>)": ("<|img|>", "<b>"), "<b>": (), "(<b>.*)": (), r"(\d)": (), "((<b>))": (), "(<b>+)": (), "": (),
    }.items():  # fmt: skip
        told = LlmModelType()
        told.generic_model.image_enabled = True
        told.generic_model.delimiter_regex = told.generic_model.image_token_regex = pattern
        assert marks_of(told) == Marks(image=found), pattern
    assert marks_by_tokens(lambda tokens: "<start_of_turn>" if tokens == [105] else "").image
    assert marks_by_tokens(lambda tokens: "i") == Marks()

    def too_few(tokens: list[int]) -> str:
        raise InferenceError("no such token")

    assert marks_by_tokens(too_few) == Marks()


@pytest.mark.parametrize(
    ("kind", "field", "value", "error"),
    [
        ("gemma3n", "image_tensor_height", -5, CorruptModelError),
        ("gemma3n", "image_tensor_height", 64, ModelLoadError),
        ("gemma4", "max_num_patches", 10**6, ModelLoadError),
        ("gemma4", "patch_height", 7, ModelLoadError),
    ],
)
def test_a_file_that_lies_about_the_size_of_pictures_is_refused_when_it_is_loaded(
    tmp_path: Path, kind: str, field: str, value: int, error: type[TabmlError]
) -> None:
    path = retold(
        MODELS / f"{kind}.litertlm", tmp_path / "lying.litertlm",
        lambda told: setattr(getattr(told.llm_model_type, kind), field, value),
    )  # fmt: skip
    with pytest.raises(error):
        LiteLM(path, threads=1).load()


def test_a_file_whose_eyes_or_ears_lie_is_refused_or_answers(tmp_path: Path) -> None:
    good = (MODELS / "gemma3n.litertlm").read_bytes()
    sections = read_container(MODELS / "gemma3n.litertlm", "good").sections
    organs = [each for each in sections if each.kind.startswith(("TF_LITE_VISION", "TF_LITE_AUDIO"))]
    assert len(organs) == 4
    path = tmp_path / "mutated.litertlm"
    refused = answered = 0
    for seed in range(12):
        chance = random.Random(seed)
        content = bytearray(good)
        organ = organs[seed % len(organs)]
        for _ in range(6):
            content[chance.randrange(organ.begin, min(organ.end, organ.begin + 3000))] = chance.randrange(256)
        path.write_bytes(content)
        try:
            with LiteLM(path, threads=1) as model:
                model.chat([user(image(picture(1)), audio(sound(440)), "hello")], GREEDY)
            answered += 1
        except TabmlError:
            refused += 1
    assert refused > 2
    assert answered + refused == 12
