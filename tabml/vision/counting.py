"""Counting exercises: how often a joint bends and straightens again."""

from __future__ import annotations

from tabml.errors import OptionError


class RepCounter:
    """Counts repetitions from a joint's angle, frame by frame.

    A repetition is a way from above ``straight`` to below ``bent`` and back. Between the two nothing changes (hysteresis), so a trembling
    angle isn't counted twice; frames in which the joint isn't seen change nothing either.
    """

    def __init__(self, *, bent: float = 90.0, straight: float = 150.0) -> None:
        """Begin at 0, with the joint in no known position.

        Args:
            bent: Degrees below which the joint counts as bent, above 0.
            straight: Degrees above which it counts as straight, above ``bent``, at most 180.

        Raises:
            OptionError: they are not in that order.
        """
        numbers = all(isinstance(each, int | float) and not isinstance(each, bool) for each in (bent, straight))
        if not numbers or not 0 < bent < straight <= 180:
            raise OptionError(f"bent={bent!r} and straight={straight!r} must be 0 < bent < straight <= 180 degrees")
        self._bent, self._straight = bent, straight
        self._phase = ""
        self.count = 0
        """Repetitions so far."""

    @property
    def phase(self) -> str:
        """``"straight"``, ``"bent"``, or empty before the first of both."""
        return self._phase

    def update(self, angle: float | None) -> int:
        """The next frame's angle in degrees, or None where the joint isn't seen; gives :attr:`count`."""
        if angle is not None and angle <= self._bent:
            self._phase = "bent"
        elif angle is not None and angle >= self._straight:
            self.count += self._phase == "bent"
            self._phase = "straight"
        return self.count
