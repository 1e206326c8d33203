"""A video in another shape: a crop that follows what matters, along a path that is solved for.

The camera path is that of Grundmann, Kwatra and Essa, *Auto-Directed Video Stabilization with Robust L1 Optimal Camera
Paths* (CVPR 2011): a linear program whose solutions rest, move evenly or speed up evenly, and do nothing else. What it follows is
chosen as by AutoFlip (Google, 2020): faces before people before other objects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tabml.errors import FrameError, MissingExtraError, OptionError
from tabml.files import FileProvider
from tabml.vision._model import count, thread_count
from tabml.vision.faces import FaceDetector
from tabml.vision.frame import Frame
from tabml.vision.objects import ObjectDetector
from tabml.vision.results import Box, FaceDetection, ObjectDetection
from tabml.vision.scenes import SceneCuts

if TYPE_CHECKING:
    from typing import Self

_STEADY = (10.0, 1.0, 100.0)
"""Costs of velocity, acceleration and jerk, in widths of the picture and frames; the paper's, section 3.2."""
_FOLLOW, _INSIDE, _CENTRE = 1.0, 100.0, 0.002
"""Costs of being off the subject's middle, of cutting into it, and of being off the picture's middle for no reason."""
_MARGIN = 0.1
"""How near the crop's edge a subject may come, as a share of the crop."""
_FACE, _PERSON, _OBJECT = 3.0, 2.0, 0.5
"""How much each kind matters."""
_FURTHEST = 10.0
MOST_HELD_BYTES = 512 << 20
"""Of frames that are held back, whatever ``lookahead`` is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Something that should stay in the picture."""

    box: Box
    """Where it is."""
    weight: float
    """How much it matters, above 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What the crop of one frame should hold, along the axis that is cropped; shares of the picture."""

    middle: float
    """Of what should be inside."""
    half: float
    """Half of its extent."""
    weight: float
    """How much it matters; 0 for nothing in sight."""


def crop_size(width: int, height: int, aspect: float) -> tuple[int, int]:
    """The largest crop of a shape, its sides even.

    Args:
        width: Of the frame, pixels.
        height: Of the frame, pixels.
        aspect: Width over height of the crop.
    """
    wide, high = (height * aspect, float(height)) if width > height * aspect else (float(width), width / aspect)
    return max(2, min(width, round(wide / 2) * 2) & ~1), max(2, min(height, round(high / 2) * 2) & ~1)


def target(subjects: Sequence[Subject], extent: float, *, horizontal: bool) -> Target:
    """Where a crop holds most of what matters.

    Args:
        subjects: What is in the frame.
        extent: The crop's, a share of the picture's along the axis, above 0, at most 1.
        horizontal: Which axis.
    """
    spans = [
        (each.box.x, each.box.x + each.box.width, each.weight)
        if horizontal
        else (each.box.y, each.box.y + each.box.height, each.weight)
        for each in subjects
    ]
    if not spans:
        return Target(middle=0.5, half=0.0, weight=0.0)
    best: list[tuple[float, float, float]] = []
    for start in [low for low, _, _ in spans] + [high - extent for _, high, _ in spans]:
        inside = [span for span in spans if span[0] >= start - 1e-6 and span[1] <= start + extent + 1e-6]
        if sum(span[2] for span in inside) > sum(span[2] for span in best):
            best = inside
    if not best:  # each is larger than the crop: the middle of the one that matters most
        best = [max(spans, key=lambda span: span[2])]
    low, high = min(span[0] for span in best), max(span[1] for span in best)
    return Target(middle=(low + high) / 2, half=(high - low) / 2, weight=sum(span[2] for span in best))


def camera_path(targets: Sequence[Target], extent: float, *, before: Sequence[float] = ()) -> NDArray[np.float64]:
    """The crop's middle for each frame of one scene.

    Minimises, over paths within the picture, the sum of absolute distances from the targets and of absolute velocities,
    accelerations and jerks.

    Args:
        targets: Of each frame.
        extent: The crop's, a share of the picture's along the axis, above 0, at most 1.
        before: The last middles of the path so far, to go on from without a jolt; empty at a scene's start.

    Returns:
        Shape (n,), each from ``extent`` / 2 to 1 - ``extent`` / 2.
    """
    try:
        from scipy import sparse
        from scipy.optimize import linprog
    except ImportError:
        raise MissingExtraError("vision", "scipy") from None
    n, past = len(targets), list(before)[-3:]
    if not n or extent >= 1:
        return np.full(n, 0.5)
    middles = np.array([each.middle for each in targets])
    weights = np.array([each.weight for each in targets])
    weights = np.minimum(_FACE, weights)
    room = np.maximum(0.0, extent * (0.5 - _MARGIN) - np.array([each.half for each in targets]))
    whole = n + len(past)
    identity = sparse.identity(n, format="csr")
    lead = sparse.hstack([sparse.csr_matrix((n, len(past))), identity], format="csr")
    rows: list[Any] = [lead, lead, lead]  # the absolute values that cost something: |rows @ path - offsets|
    offsets, costs = [middles, np.full(n, 0.5), middles], [_FOLLOW * weights, np.full(n, _CENTRE), _INSIDE * weights]
    slack = [np.zeros(n), np.zeros(n), room]  # what of it costs nothing
    step = sparse.identity(whole, format="csr")
    for cost in _STEADY:
        step = step[1:] - step[:-1]
        if not step.shape[0]:
            break
        rows.append(step)
        offsets.append(np.zeros(step.shape[0]))
        costs.append(np.full(step.shape[0], cost))
        slack.append(np.zeros(step.shape[0]))
    terms = sparse.vstack(rows, format="csr")
    offset, free = np.concatenate(offsets), np.concatenate(slack)
    spare = sparse.identity(terms.shape[0], format="csr")
    bounds = [(each, each) for each in past] + [(extent / 2, 1 - extent / 2)] * n + [(0, None)] * terms.shape[0]
    solved = linprog(
        np.concatenate([np.zeros(whole), np.concatenate(costs)]),
        A_ub=sparse.vstack([sparse.hstack([terms, -spare]), sparse.hstack([-terms, -spare])], format="csr"),
        b_ub=np.concatenate([offset + free, free - offset]),
        bounds=bounds,
        method="highs",
    )
    if not solved.success:  # never so far: the program always has a solution
        return np.full(n, min(max(float(np.median(middles)), extent / 2), 1 - extent / 2))
    path: NDArray[np.float64] = np.clip(solved.x[len(past) : whole], extent / 2, 1 - extent / 2)
    return path


def subjects(faces: Iterable[FaceDetection], objects: Iterable[ObjectDetection]) -> list[Subject]:
    """What is to stay in the picture: faces before people before other objects, large before small."""
    found = [Subject(box=each.box, weight=max(1e-6, _FACE * each.score)) for each in faces]
    for thing in objects:
        kind = _PERSON if thing.label == "person" else _OBJECT
        size = (thing.box.width * thing.box.height) ** 0.5
        found.append(Subject(box=thing.box, weight=max(1e-6, kind * thing.score * size)))
    return found


class AutoFlip:
    """Crops a video to another shape, following faces, people and objects; a ``with`` block.

    Frames are held back until the path of the frames before a cut, or of ``lookahead`` frames, is solved.
    """

    def __init__(
        self,
        aspect_ratio: str | float = "9:16",
        *,
        lookahead: int = 60,
        stride: int = 3,
        threads: int | None = None,
        files: FileProvider | None = None,
    ) -> None:
        """Check the options; nothing is loaded yet.

        Args:
            aspect_ratio: Width over height, as ``"9:16"`` or a number from 0.1 to 10.
            lookahead: Frames that are held back at most, 1 to 1000: the path is the smoother the more there are, and
                the memory is theirs.
            stride: Every so many frames are searched for subjects, 1 to 100; those between are taken to lie between.
            threads: How many threads share one call, 1 to 64; every core (at most 8) when None.
            files: Where model files come from; the default provider when None.

        Raises:
            OptionError: an option is outside its range.
        """
        self.aspect = aspect_of(aspect_ratio)
        """Width over height."""
        self._lookahead, self._stride = lookahead, stride
        self.reframer()  # looks at the options
        workers = thread_count("threads", threads)
        self._faces = FaceDetector(range="full", threads=workers, files=files)
        self._objects = ObjectDetector(score_threshold=0.4, threads=workers, files=files)

    def load(self) -> Self:
        """Fetch and open the models now instead of at the first frame.

        Raises:
            ProviderError: a model can't be had.
        """
        self._faces.load()
        self._objects.load()
        return self

    def subjects(self, frame: Frame) -> list[Subject]:
        """What is to stay in the picture."""
        return subjects(self._faces.detect(frame), self._objects.detect(frame))

    def reframer(self) -> Reframer:
        """For one video whose frames come one by one."""
        return Reframer(self.subjects, aspect=self.aspect, lookahead=self._lookahead, stride=self._stride)

    def flip_stream(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """The frames, cropped, with their own numbers and timestamps; closes ``frames`` however it ends.

        Raises:
            FrameError: a frame has another size than the first.
        """
        reframer = self.reframer()
        try:
            for frame in frames:
                yield from reframer.add(frame)
            yield from reframer.finish()
        finally:
            close = getattr(frames, "close", None)
            if close is not None:
                close()

    def close(self) -> None:
        """Free the models; twice is fine."""
        self._faces.close()
        self._objects.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Reframer:
    """One video on its way through :class:`AutoFlip`: frames in, cropped frames out, later."""

    def __init__(
        self,
        find: Callable[[Frame], list[Subject]],
        *,
        aspect: str | float = "9:16",
        lookahead: int = 60,
        stride: int = 3,
    ) -> None:
        """Begin.

        Args:
            find: What is to stay in the picture.
            aspect: Width over height, as ``"9:16"`` or a number from 0.1 to 10.
            lookahead: Frames that are held back at most, 1 to 1000.
            stride: Every so many frames are searched for subjects, 1 to 100.

        Raises:
            OptionError: an option is outside its range.
        """
        if isinstance(lookahead, bool) or not isinstance(lookahead, int) or not 1 <= lookahead <= 1000:
            raise OptionError(f"lookahead={lookahead!r} must be a whole number from 1 to 1000")
        self._find, self._aspect = find, aspect_of(aspect)
        self._lookahead, self._stride = lookahead, count("stride", stride)
        self._cuts = SceneCuts()
        self._held: list[Frame] = []
        self._bytes = 0
        self._seen: list[Target | None] = []
        self._past: list[float] = []
        self._last: Target | None = None
        self._size: tuple[int, int] | None = None

    def add(self, frame: Frame) -> list[Frame]:
        """Take the next frame; gives those that are ready now.

        Raises:
            FrameError: the frame has another size than the first.
        """
        if not isinstance(frame, Frame):
            raise FrameError(f"frame must be a Frame, not {type(frame).__name__}")
        if self._size is None:
            self._size = (frame.width, frame.height)
        if (frame.width, frame.height) != self._size:
            raise FrameError(
                f"frame is {frame.width}×{frame.height}, the video {self._size[0]}×{self._size[1]}; resize it first"
            )
        ready: list[Frame] = []
        if self._cuts.begins(frame):
            ready = self._solved()
            self._past, self._last = [], None
        elif len(self._held) >= self._lookahead or self._bytes >= MOST_HELD_BYTES:
            ready = self._solved()
        here: Target | None = None
        if len(self._held) % self._stride == 0 or len(self._held) == self._lookahead - 1:
            here = target(self._find(frame), self._extent, horizontal=self._horizontal)
        self._held.append(frame)
        self._bytes += frame.pixels.nbytes
        self._seen.append(here)
        return ready

    def finish(self) -> list[Frame]:
        """The frames that were still held back."""
        ready = self._solved()
        self._past, self._last = [], None
        return ready

    @property
    def _crop(self) -> tuple[int, int]:
        assert self._size is not None
        return crop_size(*self._size, self._aspect)

    @property
    def _horizontal(self) -> bool:
        assert self._size is not None
        return self._crop[0] / self._size[0] < self._crop[1] / self._size[1]

    @property
    def _extent(self) -> float:
        assert self._size is not None
        axis = 0 if self._horizontal else 1
        return self._crop[axis] / self._size[axis]

    def _solved(self) -> list[Frame]:
        if not self._held:
            return []
        path = camera_path(between(self._seen, self._last), self._extent, before=self._past)
        known = [each for each in self._seen if each is not None]
        self._last = known[-1] if known else self._last
        self._past = [*self._past, *path.tolist()][-3:]
        frames = [self._cropped(frame, float(middle)) for frame, middle in zip(self._held, path, strict=True)]
        self._held, self._seen, self._bytes = [], [], 0
        return frames

    def _cropped(self, frame: Frame, middle: float) -> Frame:
        width, height = self._crop
        wide, high = frame.width, frame.height
        x, y = (middle * wide, high / 2) if self._horizontal else (wide / 2, middle * high)
        left = min(max(0, round(x - width / 2)), wide - width)
        top = min(max(0, round(y - height / 2)), high - height)
        return replace(
            frame.crop(left, top, left + width, top + height),
            timestamp_ms=frame.timestamp_ms,
            frame_number=frame.frame_number,
        )


def between(seen: Sequence[Target | None], before: Target | None = None) -> list[Target]:
    """Targets of all frames: those of frames that weren't searched lie between their neighbours' by time."""
    known = [(at, each) for at, each in enumerate(seen) if each is not None]
    if not known:
        return [before or Target(middle=0.5, half=0.0, weight=0.0)] * len(seen)
    places = np.arange(len(seen))
    columns = [
        np.interp(places, [at for at, _ in known], [getattr(each, name) for _, each in known])
        for name in ("middle", "half", "weight")
    ]
    return [Target(middle=float(m), half=float(h), weight=float(w)) for m, h, w in zip(*columns, strict=True)]


def aspect_of(ratio: str | float) -> float:
    """Width over height of ``"9:16"``, or of a number.

    Raises:
        OptionError: it is none, or not from 0.1 to 10.
    """
    try:
        if isinstance(ratio, str):
            wide, _, high = ratio.partition(":")
            value = float(wide) / float(high or 1)
        else:
            value = float(ratio)
    except (ValueError, ZeroDivisionError, TypeError):
        value = 0.0
    if isinstance(ratio, bool) or not 1 / _FURTHEST <= value <= _FURTHEST:
        raise OptionError(f"aspect_ratio={ratio!r:.40} must be like '9:16', or a number from 0.1 to 10")
    return value
