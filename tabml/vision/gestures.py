"""Gestures beyond the model's seven: rules over landmarks, and a classifier that learns from a few examples."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tabml.errors import OptionError, StreamFormatError
from tabml.vision.results.found import Float32
from tabml.vision.results.hands import Hand, Hands

FINGERS: Mapping[str, tuple[int, int, int, int]] = MappingProxyType(
    {
        "thumb": (1, 2, 3, 4),
        "index": (5, 6, 7, 8),
        "middle": (9, 10, 11, 12),
        "ring": (13, 14, 15, 16),
        "pinky": (17, 18, 19, 20),
    }
)
"""The four landmarks of each finger, from the palm to the tip."""
ALIASES: Mapping[str, str] = MappingProxyType(
    {"Fist": "Closed_Fist", "Pointing": "Pointing_Up", "Peace": "Victory", "Love": "ILoveYou"}
)
"""Names that other programs use, and the model's own for the same gesture."""
_STRAIGHT, _THUMB_STRAIGHT = 130.0, 145.0
"""Degrees at a finger's middle joint from which it counts as straight."""
_TOUCHING = 0.35
"""How near two tips are to touch, in lengths of the palm."""


@dataclass(frozen=True, slots=True)
class HandShape:
    """What rules look at."""

    straight: frozenset[str]
    """The fingers that are straight, by name."""
    points: NDArray[np.float64]
    """Shape (21, 3): world landmarks in lengths of the palm (wrist to the middle finger's knuckle), the wrist at 0."""

    def only(self, *fingers: str) -> bool:
        """Whether these are straight and no others."""
        return self.straight == frozenset(fingers)

    def apart(self, one: str, other: str) -> float:
        """How far two fingers' tips are from each other, in lengths of the palm."""
        return float(np.linalg.norm(self.points[FINGERS[one][3]] - self.points[FINGERS[other][3]]))


Rule = Callable[[HandShape], bool]


def shape_of(hand: Hand) -> HandShape:
    """A hand as rules see it: the same whatever its size, place and direction."""
    points = np.asarray(hand.world_landmarks, np.float64)
    points = points - points[0]
    palm = float(np.linalg.norm(points[9]))
    points = points / palm if palm > 0 else points
    straight = set()
    for name, (base, low, high, tip) in FINGERS.items():
        joint, ends = (high, (low, tip)) if name == "thumb" else (low, (base, tip))
        if _degrees(points[ends[0]], points[joint], points[ends[1]]) >= (
            _THUMB_STRAIGHT if name == "thumb" else _STRAIGHT
        ):
            straight.add(name)
    return HandShape(frozenset(straight), points)


def fingers_up(hand: Hand) -> tuple[str, ...]:
    """The fingers that are straight, the thumb first."""
    straight = shape_of(hand).straight
    return tuple(name for name in FINGERS if name in straight)


def _ok(shape: HandShape) -> bool:
    others = {"middle", "ring", "pinky"} <= shape.straight
    return others and shape.apart("thumb", "index") < _TOUCHING


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "OK_Sign": _ok,
        "Rock_Sign": lambda shape: shape.straight - {"thumb"} == {"index", "pinky"} and "thumb" not in shape.straight,
        "ILoveYou": lambda shape: shape.only("thumb", "index", "pinky"),
        "Call_Me": lambda shape: shape.only("thumb", "pinky"),
        "Gun": lambda shape: shape.only("thumb", "index"),
        "Pointing": lambda shape: shape.only("index"),
        "Victory": lambda shape: shape.only("index", "middle"),
        "Three": lambda shape: shape.only("index", "middle", "ring"),
        "Four": lambda shape: shape.only("index", "middle", "ring", "pinky"),
        "Open_Palm": lambda shape: len(shape.straight) == 5,
        "Fist": lambda shape: not shape.straight,
    }
)
"""The rules that come with tabml; the first that holds is the gesture."""


class GestureRules:
    """Names gestures by rules over landmarks: fast, without a model, and yours to add to."""

    def __init__(self, rules: Mapping[str, Rule] = RULES) -> None:
        """Take the rules, in the order to ask them.

        Args:
            rules: From a gesture's name to whether a hand's shape is it.
        """
        self._rules = dict(rules)

    def add(self, name: str, rule: Rule, *, first: bool = False) -> None:
        """One rule more, or another one for a name.

        Args:
            name: The gesture.
            rule: Whether a hand's shape is it.
            first: Ask it before all others instead of after them.

        Raises:
            OptionError: the name is empty, or the rule can't be called.
        """
        if not name or not isinstance(name, str) or not callable(rule):
            raise OptionError(f"name={name!r:.80} must be a text and rule a function of a HandShape")
        rest = {key: each for key, each in self._rules.items() if key != name}
        self._rules = {name: rule, **rest} if first else {**rest, name: rule}

    def name(self, hand: Hand) -> str | None:
        """The first gesture whose rule holds; None when no rule does."""
        shape = shape_of(hand)
        return next((name for name, rule in self._rules.items() if rule(shape)), None)

    def named(self, hands: Hands) -> Hands:
        """The same hands, with the rules' gestures where the model has none."""
        items: list[Any] = [self._better(hand) for hand in hands]
        return replace(hands, items=tuple(items))

    def _better(self, hand: Hand) -> Hand:
        if hand.gesture not in (None, "None"):
            return hand
        found = self.name(hand)
        return hand if found is None else replace(hand, gesture=found, gesture_score=1.0)


class GestureClassifier:
    """Learns gestures from examples: nearest neighbours among hands that are turned and scaled alike.

    A left hand counts as the right hand that it mirrors. ``examples`` of each gesture are kept, so more may be added at any time.
    """

    def __init__(self, *, neighbours: int = 3, max_distance: float = 0.35) -> None:
        """Know nothing yet.

        Args:
            neighbours: How many of the nearest examples vote, above 0.
            max_distance: How far the nearest example is at most, in lengths of the palm (root mean square over the
                landmarks), for a hand to be a gesture at all.

        Raises:
            OptionError: an option is outside its range.
        """
        if isinstance(neighbours, bool) or not isinstance(neighbours, int) or neighbours < 1:
            raise OptionError(f"neighbours={neighbours!r} must be a whole number above 0")
        if isinstance(max_distance, bool) or not isinstance(max_distance, int | float) or not max_distance > 0:
            raise OptionError(f"max_distance={max_distance!r} must be a number above 0")
        self._neighbours, self._furthest = neighbours, float(max_distance)
        self._names: list[str] = []
        self._examples: list[Float32] = []

    @property
    def gestures(self) -> tuple[str, ...]:
        """The names that were learnt, in order."""
        return tuple(dict.fromkeys(self._names))

    def learn(self, name: str, hands: Iterable[Hand]) -> int:
        """Examples of one gesture; gives how many there are of it now.

        Raises:
            OptionError: the name is empty, or there are no hands.
        """
        examples = [upright(hand) for hand in hands]
        if not name or not isinstance(name, str) or not examples:
            raise OptionError(f"name={name!r:.80} must be a text, and hands at least one Hand")
        self._names += [name] * len(examples)
        self._examples += examples
        return self._names.count(name)

    def classify(self, hand: Hand) -> tuple[str, float]:
        """The gesture and its share of the votes, 0 to 1; ``("None", 0.0)`` when nothing learnt is near.

        Raises:
            OptionError: nothing was learnt yet.
        """
        if not self._examples:
            raise OptionError("nothing was learnt yet; call learn first")
        steps = np.stack(self._examples) - upright(hand)
        far = np.sqrt(np.square(steps).sum(axis=2).mean(axis=1))
        nearest = np.argsort(far, kind="stable")[: self._neighbours]
        if far[nearest[0]] > self._furthest:
            return "None", 0.0
        votes: dict[str, float] = {}
        for at in nearest.tolist():
            votes[self._names[at]] = votes.get(self._names[at], 0.0) + 1.0 / (float(far[at]) + 1e-6)
        best = max(votes, key=lambda name: votes[name])
        return best, votes[best] / sum(votes.values())

    def named(self, hands: Hands) -> Hands:
        """The same hands with the gestures that were learnt."""
        items: list[Any] = []
        for hand in hands:
            name, score = self.classify(hand)
            items.append(replace(hand, gesture=name, gesture_score=score))
        return replace(hands, items=tuple(items))

    def to_json(self) -> str:
        """Everything that was learnt."""
        rows: Sequence[object] = [each.round(5).tolist() for each in self._examples]
        return json.dumps({"names": self._names, "examples": rows})

    @classmethod
    def from_json(cls, text: str, *, neighbours: int = 3, max_distance: float = 0.35) -> GestureClassifier:
        """What :meth:`to_json` wrote.

        Raises:
            StreamFormatError: it is something else.
        """
        made = cls(neighbours=neighbours, max_distance=max_distance)
        try:
            said = json.loads(text)
            names, examples = said["names"], np.asarray(said["examples"], np.float32)
            if not all(isinstance(name, str) for name in names) or not np.isfinite(examples).all():
                raise ValueError("names must be texts and examples finite")
            made._examples = list(examples.reshape(len(names), 21, 3))
            made._names = list(names)
        except (ValueError, TypeError, KeyError, RecursionError) as problem:
            raise StreamFormatError(f"text is not what GestureClassifier.to_json wrote: {str(problem)[:200]}") from None
        return made


def upright(hand: Hand) -> Float32:
    """Shape (21, 3): world landmarks turned so that the palm faces one way, in lengths of the palm, as of a right hand."""
    points = np.asarray(hand.world_landmarks, np.float64)
    points = points - points[0]
    if hand.handedness == "Left":
        points = points * (-1, 1, 1)
    along = _unit(points[9])
    across = points[5] - points[17]
    across = _unit(across - along * float(across @ along))
    frame = np.stack([across, along, np.cross(across, along)])
    palm = float(np.linalg.norm(points[9]))
    turned: Float32 = (points @ frame.T / (palm or 1.0)).astype(np.float32)
    return turned


def _unit(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    length = float(np.linalg.norm(vector))
    return vector / length if length else vector


def _degrees(a: NDArray[np.float64], joint: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    cosine = float(_unit(a - joint) @ _unit(b - joint))
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))
