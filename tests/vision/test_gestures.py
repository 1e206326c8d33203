"""Gestures by rules and by examples, and landmarks without jitter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tabml.errors import FrameOrderError, OptionError, StreamFormatError
from tabml.vision import Frame, Hand, HandDetector, Hands, HandTracker, read_video
from tabml.vision.gestures import FINGERS, RULES, GestureClassifier, GestureRules, fingers_up, upright
from tabml.vision.smoothing import LandmarkSmoother, OneEuroFilter

Find = Callable[[str], Path]


def hand_with(*straight: str, side: Any = "Right", touch: bool = False) -> Hand:
    """A hand made of sticks: straight fingers point up, the others are bent back to the palm."""
    points = np.zeros((21, 3))
    for at, (name, joints) in enumerate(FINGERS.items()):
        x = -0.04 + 0.02 * at
        base = np.array([x, 0.08 if name != "thumb" else 0.03, 0.0])
        step = np.array([0.0, 0.03, 0.0]) if name != "thumb" else np.array([-0.03, 0.015, 0.0])
        for number, joint in enumerate(joints):
            points[joint] = base + step * number
        if name not in straight:
            points[joints[2]] = points[joints[1]] + (0.005, -0.01, 0.02)
            points[joints[3]] = points[joints[1]] + (0.005, -0.03, 0.01)
    points[9] = (0.0, 0.08, 0.0)
    if touch:
        points[8] = points[4] + 0.002
        points[6], points[7] = points[5] + (0, 0.02, 0.02), points[8] + (0, 0.02, 0.01)
    array = points.astype(np.float32)
    return Hand(landmarks=array, world_landmarks=array, handedness=side, handedness_score=1.0)


@pytest.mark.parametrize(
    ("straight", "name"),
    [
        ((), "Fist"), (("index",), "Pointing"), (("index", "middle"), "Victory"), (tuple(FINGERS), "Open_Palm"),
        (("index", "pinky"), "Rock_Sign"), (("thumb", "index", "pinky"), "ILoveYou"), (("thumb", "pinky"), "Call_Me"),
        (("thumb", "index"), "Gun"), (("index", "middle", "ring"), "Three"),
        (("index", "middle", "ring", "pinky"), "Four"), (("ring",), None),
    ],
)  # fmt: skip
def test_rules_name_what_the_fingers_do(straight: tuple[str, ...], name: str | None) -> None:
    hand = hand_with(*straight)
    assert set(fingers_up(hand)) == set(straight)
    assert GestureRules().name(hand) == name


def test_an_ok_sign_is_a_ring_of_thumb_and_index() -> None:
    assert GestureRules().name(hand_with("thumb", "middle", "ring", "pinky", touch=True)) == "OK_Sign"


@settings(max_examples=60)
@given(st.sampled_from(sorted(RULES)), st.integers(0, 2**32 - 1), st.floats(0.2, 5))
def test_size_place_and_direction_do_not_matter(name: str, seed: int, scale: float) -> None:
    random = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(random.normal(size=(3, 3)))
    turn = turn if np.linalg.det(turn) > 0 else -turn
    for straight in [(), ("index",), ("index", "pinky"), ("thumb", "index"), tuple(FINGERS)]:
        hand = hand_with(*straight)
        moved = (hand.world_landmarks @ turn.T * scale + random.normal(size=3)).astype(np.float32)
        changed = replace(hand, world_landmarks=moved)
        assert fingers_up(changed) == fingers_up(hand)
        np.testing.assert_allclose(upright(changed), upright(hand), atol=1e-3)
        mirrored = replace(changed, world_landmarks=moved * np.float32([-1, 1, 1]), handedness="Left")
        np.testing.assert_allclose(upright(mirrored), upright(hand), atol=1e-3)


def test_rules_of_ones_own_come_first_or_last(pictures: Find) -> None:
    rules = GestureRules()
    rules.add("Ring", lambda shape: shape.only("ring"))
    assert rules.name(hand_with("ring")) == "Ring"
    rules.add("Any", lambda shape: True, first=True)
    assert rules.name(hand_with("ring")) == "Any"
    with pytest.raises(OptionError, match="name=''"):
        rules.add("", lambda shape: True)
    with HandDetector() as detector:
        found = detector.detect(Frame.from_file(pictures("hand_thumb_up.jpg")))
    assert found[0].gesture == "Thumb_Up"
    assert rules.named(found)[0].gesture == "Thumb_Up"  # the model's own stay
    unnamed = replace(found, items=tuple(replace(hand, gesture="None") for hand in found))
    assert rules.named(unnamed)[0].gesture == "Any"


def noisy(hand: Hand, seed: int, deviation: float = 0.004) -> Hand:
    noise = np.random.default_rng(seed).normal(0, deviation, (21, 3)).astype(np.float32)
    return replace(hand, world_landmarks=hand.world_landmarks + noise)


def test_a_few_examples_are_enough() -> None:
    kinds = {
        "none": (),
        "one": ("index",),
        "two": ("index", "middle"),
        "rock": ("index", "pinky"),
        "all": tuple(FINGERS),
    }
    classifier = GestureClassifier()
    for name, straight in kinds.items():
        assert classifier.learn(name, [noisy(hand_with(*straight), seed) for seed in range(3)]) == 3
    assert classifier.gestures == tuple(kinds)
    again = GestureClassifier.from_json(classifier.to_json())
    for name, straight in kinds.items():
        for seed in range(10, 30):
            hand = noisy(hand_with(*straight, side="Right"), seed)
            left = replace(hand, world_landmarks=hand.world_landmarks * np.float32([-1, 1, 1]), handedness="Left")
            assert classifier.classify(hand)[0] == classifier.classify(left)[0] == again.classify(hand)[0] == name
    strange = replace(hand_with(), world_landmarks=np.random.default_rng(1).normal(0, 0.3, (21, 3)).astype(np.float32))
    assert classifier.classify(strange) == ("None", 0.0)


def test_real_hands_are_learnt(pictures: Find) -> None:
    with HandDetector() as detector:
        thumb = detector.detect(Frame.from_file(pictures("hand_thumb_up.jpg")))
        with read_video(pictures("hand_test_video.mp4")) as video:
            others = [
                found
                for found in (detector.detect(frame) for frame, _ in zip(video, range(120), strict=False))
                if found
            ]
    classifier = GestureClassifier()
    classifier.learn("up", thumb)
    classifier.learn("film", [others[0][0], others[len(others) // 2][0]])
    assert classifier.named(thumb)[0].gesture == "up"
    assert {classifier.named(found)[0].gesture for found in others} <= {"film", "None"}


def test_wrong_arguments_of_the_classifier_are_named() -> None:
    with pytest.raises(OptionError, match="learn first"):
        GestureClassifier().classify(hand_with())
    with pytest.raises(OptionError, match="at least one Hand"):
        GestureClassifier().learn("x", [])
    for wrong in ({"neighbours": 0}, {"max_distance": 0}):
        with pytest.raises(OptionError, match=next(iter(wrong))):
            GestureClassifier(**wrong)
    for text in ("", "[]", '{"names": ["a"], "examples": []}', '{"names": [1], "examples": [[[0, 0, 0]]]}'):
        with pytest.raises(StreamFormatError, match="to_json"):
            GestureClassifier.from_json(text)


# Smoothing.


def test_what_rests_trembles_less_and_what_moves_hardly_lags() -> None:
    random = np.random.default_rng(4)
    still, moving = OneEuroFilter(beta=0.5), OneEuroFilter(beta=0.5)
    raw = [random.normal(0, 0.1, 20) for _ in range(150)]
    smooth = [still.filter(values, 33 * at) for at, values in enumerate(raw, 1)]
    assert np.std(smooth[30:]) < 0.55 * np.std(raw[30:])
    path = [np.full(3, 50.0 * at) for at in range(60)]
    followed = [moving.filter(values, 33 * at) for at, values in enumerate(path, 1)]
    assert np.abs(followed[-1] - path[-1]).max() < 10


@given(st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=30), st.floats(0.1, 10), st.floats(0, 5))
def test_a_smoothed_value_is_among_those_that_came(values: list[float], cutoff: float, beta: float) -> None:
    euro = OneEuroFilter(min_cutoff=cutoff, beta=beta)
    for at, value in enumerate(values):
        found = float(euro.filter(np.array([value]))[0])
        seen = values[: at + 1]
        assert min(seen) - 1e-3 <= found <= max(seen) + 1e-3


def test_filters_say_what_they_can_not_take() -> None:
    euro = OneEuroFilter()
    euro.filter(np.zeros(3), 10)
    with pytest.raises(FrameOrderError, match="timestamp_ms=10"):
        euro.filter(np.zeros(3), 10)
    with pytest.raises(OptionError, match="finite"):
        euro.filter(np.array([np.nan]))
    with pytest.raises(OptionError, match="scale=0"):
        euro.filter(np.zeros(3), 20, scale=0)
    np.testing.assert_array_equal(euro.filter(np.ones(4), 30), np.ones(4))  # another shape begins anew
    for wrong in ({"min_cutoff": 0}, {"beta": -1}, {"derivative_cutoff": float("inf")}):
        with pytest.raises(OptionError, match=next(iter(wrong))):
            LandmarkSmoother(**wrong)


def test_tracked_hands_tremble_less(pictures: Find) -> None:
    smoother, before, after = LandmarkSmoother(), [], []
    with HandTracker(num_hands=1, gestures=False) as tracker, read_video(pictures("hand_test_video.mp4")) as video:
        for _, hands in tracker.track_stream(video):
            steady = smoother.smooth(hands)
            assert len(steady) == len(hands)
            if hands:
                before.append(hands[0].landmarks)
                after.append(steady[0].landmarks)
    jerks = [np.abs(np.diff(np.stack(series), 2, axis=0)).mean() for series in (before, after)]
    assert jerks[1] < 0.6 * jerks[0]
    assert np.abs(np.stack(after) - np.stack(before)).max() < 0.1


def test_two_hands_keep_their_own_filters() -> None:
    def frame(order: int, at: int) -> Hands:
        pair = []
        for x, side in ((0.2, "Left"), (0.7, "Right")):
            points = np.random.default_rng(1).uniform(x, x + 0.1, (21, 3)).astype(np.float32)
            pair.append(Hand(landmarks=points, world_landmarks=points, handedness=side, handedness_score=1.0))  # type: ignore[arg-type]
        return Hands(items=tuple(pair[::order]), width=640, height=480, timestamp_ms=at)

    smoother = LandmarkSmoother()
    for number in range(1, 9):
        given_ = frame(-1 if number % 2 else 1, 33 * number)
        for raw, smooth in zip(given_, smoother.smooth(given_), strict=True):
            np.testing.assert_allclose(smooth.landmarks, raw.landmarks, atol=1e-5)
    with pytest.raises(FrameOrderError):
        smoother.smooth(frame(1, 33))
    with pytest.raises(OptionError, match="found must"):
        smoother.smooth("hands")  # type: ignore[type-var]
