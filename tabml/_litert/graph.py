"""One model in LiteRT's interpreter: one call at a time, nothing near it that it can't bear.

LiteRT checks neither the type nor the length of what it is given, resizes silently, and one interpreter in two
threads answers wrongly or raises. Importing it costs 0.1 s.
"""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from tabml._imports import silence
from tabml._litert.signatures import Places, read_signatures
from tabml._litert.specs import MAX_THREADS, Signature, TensorSpec
from tabml.errors import (
    InferenceError,
    MissingExtraError,
    ModelClosedError,
    ModelForkedError,
    ModelLoadError,
    OptionError,
)

try:
    import ai_edge_litert
    from ai_edge_litert.interpreter import Interpreter
except ImportError:
    raise MissingExtraError("vision", "ai-edge-litert") from None

_NO_PLACE = "the model's inputs and outputs have no fixed place in memory; use run"
Answer = TypeVar("Answer")
Array = NDArray[Any]

for _library in Path(ai_edge_litert.__path__[0]).glob("libpywrap_litert_common.*"):
    silence(ctypes.CDLL(str(_library)))


class _Memory:
    """What the views of tensors keep alive: LiteRT's interpreter, and the bytes its constants lie in."""

    __slots__ = ("__weakref__", "model", "native")

    def __init__(self, native: Any, model: bytes) -> None:
        self.native, self.model = native, model


@dataclass(slots=True)
class _Entry:
    """A signature as it is now."""

    spec: Signature
    places: Places


class Lent:
    """LiteRT's own memory of one signature, for one holder at a time; made by :meth:`LiteGraph.lend`."""

    def __init__(self, inputs: Sequence[Array], outputs: Sequence[Array], invoke: Callable[[], None]) -> None:
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)
        self.invoke = invoke


class LiteGraph:
    """A model for LiteRT. Calls of several threads run one after another; graphs in different threads side by side."""

    def __init__(self, model: bytes | memoryview, *, threads: int = 1) -> None:
        """Load it.

        Args:
            model: The bytes of a .tflite file that someone vouches for; used where they lie.
            threads: How many threads share one call, 1 to 64.

        Raises:
            OptionError: ``threads`` is outside its range.
            ModelLoadError: LiteRT refused the model.
        """
        if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= MAX_THREADS:
            raise OptionError(f"threads={threads!r} must be a whole number from 1 to {MAX_THREADS}")
        content = bytes(model)  # LiteRT takes nothing else; bytes stay where they are
        self._lock = threading.RLock()
        self._process = os.getpid()
        self._lent: list[weakref.ref[Array]] = []
        self._ready: set[int] = set()  # graphs whose tensors have memory
        self._ran: set[int] = set()  # graphs that have run since they got it
        self._moving: set[int] = set()  # graphs with outputs that get their memory only in a run
        with _told(ModelLoadError, "LiteRT can't open the model"):
            self._memory: _Memory | None = _Memory(
                Interpreter(model_content=content, num_threads=threads)._interpreter, content
            )
            self._entries = [
                _Entry(self._described(places), places) for places in read_signatures(content, self._main())
            ]
            self._allocate(self._entries[0].places.graph)  # and sets ``_signatures``

    @property
    def signatures(self) -> tuple[Signature, ...]:
        """All ways of calling it; the first is the main graph, with its tensors' own names."""
        return self._signatures

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What the main graph takes, in the model's order."""
        return self._entries[0].spec.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What the main graph gives, in the model's order."""
        return self._entries[0].spec.outputs

    def run(
        self,
        arrays: Sequence[Array],
        read: Callable[[Sequence[Array]], Answer],
        *,
        signature: int = 0,
        allow_nan: bool = True,
        copied: bool = False,
    ) -> Answer:
        """Run the model once.

        Args:
            arrays: One for each input, of exactly its shape and dtype; where the model takes any length, of any from 1.
            read: Turns the outputs into an answer; the arrays it is given are LiteRT's own memory and live only
                during this call, unless ``copied``: copy what is kept.
            signature: The number of one of ``signatures``.
            allow_nan: Whether arrays may have NaN in them.
            copied: Whether ``read`` is given copies.

        Raises:
            InferenceError: an array has another shape or dtype, or LiteRT failed.
            OptionError: arrays have other lengths than before, and views of :meth:`lend` are held, or LiteRT can't run
                them; or an array has a NaN.
            ModelClosedError: :meth:`close` came first.
            ModelForkedError: this process is a fork of the one that loaded the model.
        """
        with self._lock:
            memory, entry = self._usable(), self._entries[signature]
            inputs = entry.spec.inputs
            if len(arrays) != len(inputs):
                raise InferenceError(f"the model takes {len(inputs)} arrays, not {len(arrays)}")
            wanted: dict[str, tuple[int, ...]] = {}
            for spec, array in zip(inputs, arrays, strict=True):
                if not (spec.holds(array.dtype) and (array.shape == spec.shape or spec.accepts(array.shape))):
                    raise InferenceError(f"input {spec.name!r} must be {spec}, not {array.dtype} {array.shape}")
                if array.shape != spec.shape:
                    wanted[spec.name] = array.shape
            if wanted:
                self._resize(entry, wanted)
            native, graph = memory.native, entry.places.graph
            if graph not in self._ready:
                self._allocate(graph)
            given: list[Array] = []
            lent = any(view() is not None for view in self._lent)
            if lent and not allow_nan:
                check_no_nan(inputs, arrays)  # what is lent stays as it is
            try:
                for place, array in zip(entry.places.inputs, arrays, strict=True):
                    if array.dtype.kind == "S":
                        native.SetTensor(place, array.astype(object), graph)
                        given.append(array)
                    else:
                        view = native.tensor(memory, place, graph)
                        view[...] = array
                        given.append(view)
            except (ValueError, RuntimeError) as problem:
                raise InferenceError(f"LiteRT can't take the inputs: {_said(problem)}") from problem
            if not (lent or allow_nan):
                check_no_nan(inputs, given)  # copies, which are in the processor's cache
            self._invoke(memory, graph)
            places = zip(entry.places.outputs, entry.spec.outputs, strict=True)
            return read([self._output(memory, place, graph, spec.dtype, copied) for place, spec in places])

    def resize(self, shapes: Mapping[str, tuple[int, ...]], *, signature: int = 0) -> None:
        """Give inputs other shapes, also where the model doesn't say that they may have any; the memory moves.

        Raises:
            OptionError: LiteRT can't run the model with these shapes; it has its old ones.
            ModelClosedError: :meth:`close` came first.
            ModelForkedError: this process is a fork of the one that loaded the model.
        """
        with self._lock:
            self._usable()
            self._resize(self._entries[signature], shapes)

    @contextmanager
    def lend(self, *, signature: int = 0) -> Iterator[Lent]:
        """LiteRT's own memory of one signature; other threads' calls wait until it is given back.

        Its views stay valid for as long as they are held: what they lie in isn't freed before.

        Raises:
            OptionError: the memory can't be lent: an output has no place of its own before the run.
            ModelClosedError: :meth:`close` came first.
            ModelForkedError: this process is a fork of the one that loaded the model.
        """
        with self._lock:
            memory, entry = self._usable(), self._entries[signature]
            graph = entry.places.graph
            if graph not in self._ready:
                self._allocate(graph)
            if graph in self._moving or any(
                spec.dtype.kind == "S" for spec in (*entry.spec.inputs, *entry.spec.outputs)
            ):
                raise OptionError(_NO_PLACE)
            every = (*entry.places.inputs, *entry.places.outputs)
            views = self._views(memory, every, graph)
            before, count = [_address(view) for view in views], len(entry.places.inputs)
            if graph not in self._ran:
                for view in views[:count]:
                    view[...] = 0
                self._invoke(memory, graph)
                memory.native.ResetVariableTensors()  # as if it hadn't run
                views = self._views(memory, every, graph)
            if [_address(view) for view in views] != before or any(_within(view, memory.model) for view in views):
                raise OptionError(_NO_PLACE)
            self._lent = [view for view in self._lent if view() is not None] + [weakref.ref(view) for view in views]

            def invoke() -> None:
                current = self._usable()
                self._invoke(current, graph)
                if [_address(view) for view in self._views(current, every, graph)] != before:
                    raise InferenceError("the model's memory moved in a run; use run instead")

            yield Lent(views[:count], views[count:], invoke)

    def reset(self) -> None:
        """Set the model's variables, where it has any, to what they began with."""
        with self._lock:
            self._usable().native.ResetVariableTensors()

    def close(self) -> None:
        """Free the model, after a call that is running; twice is fine."""
        with self._lock:
            was_open, self._memory = self._memory is not None, None
        if was_open:
            with suppress(AttributeError, OSError):  # glibc keeps what is freed, unless asked
                ctypes.CDLL(None).malloc_trim(0)

    def _usable(self) -> _Memory:
        if self._memory is None:
            raise ModelClosedError("the model is closed; open a new one")
        if self._process != os.getpid():
            raise ModelForkedError("the model was opened before fork() and can't be used in the child; open one there")
        return self._memory

    def _main(self) -> Places:
        memory = self._memory
        assert memory is not None
        native = memory.native
        inputs, outputs = (tuple(map(int, found)) for found in (native.InputIndices(), native.OutputIndices()))
        names = [native.TensorName(place, 0) for place in (*inputs, *outputs)]
        return Places("", 0, inputs, outputs, tuple(names[: len(inputs)]), tuple(names[len(inputs) :]))

    def _described(self, places: Places) -> Signature:
        inputs, outputs = (
            tuple(self._spec(name, place, places.graph) for name, place in zip(names, found, strict=True))
            for names, found in ((places.input_names, places.inputs), (places.output_names, places.outputs))
        )
        return Signature(name=places.name, inputs=inputs, outputs=outputs)

    def _spec(self, name: str, place: int, graph: int) -> TensorSpec:
        memory = self._memory
        assert memory is not None
        native = memory.native
        scale, zero_point = native.TensorQuantization(place, graph)
        shape, signature = native.TensorSize(place, graph), native.TensorSizeSignature(place, graph)
        return TensorSpec(
            name=name,
            shape=tuple(map(int, shape)),
            dtype=np.dtype(native.TensorType(place, graph)),
            scale=float(scale),
            zero_point=int(zero_point),
            shape_signature=tuple(map(int, signature)),
        )

    def _allocate(self, graph: int) -> None:
        """Give a graph's tensors memory, see which outputs have none yet, and describe anew what it takes and gives."""
        memory = self._usable()
        with _told(ModelLoadError, "LiteRT can't give the model its memory"):
            memory.native.AllocateTensors(graph)
        self._ready.add(graph)
        self._ran.discard(graph)
        for entry in self._entries:
            if entry.places.graph != graph:
                continue
            entry.spec = self._described(entry.places)
            for place, spec in zip(entry.places.outputs, entry.spec.outputs, strict=True):
                if spec.dtype.kind != "S":
                    try:
                        memory.native.tensor(memory, place, graph)
                    except ValueError:
                        self._moving.add(graph)
        self._signatures = tuple(entry.spec for entry in self._entries)

    def _resize(self, entry: _Entry, shapes: Mapping[str, tuple[int, ...]]) -> None:
        if any(view() is not None for view in self._lent):
            raise OptionError("views of the model's buffers are held; let go of them before it gets other shapes")
        self._lent.clear()
        before = {spec.name: spec.shape for spec in entry.spec.inputs}
        try:
            self._reshape(entry, {**before, **shapes})
        except OptionError:
            self._reshape(entry, before)
            raise

    def _reshape(self, entry: _Entry, shapes: Mapping[str, tuple[int, ...]]) -> None:
        native = self._usable().native
        self._ready.discard(entry.places.graph)
        with _told(OptionError, f"LiteRT can't run the model with the shapes {dict(shapes)}"):
            for place, spec in zip(entry.places.inputs, entry.spec.inputs, strict=True):
                native.ResizeInputTensor(place, np.array(shapes[spec.name], np.int32), False, entry.places.graph)
            native.AllocateTensors(entry.places.graph)  # as an option's fault
        self._allocate(entry.places.graph)

    def _output(self, memory: _Memory, place: int, graph: int, dtype: np.dtype[Any], copied: bool) -> Array:
        native = memory.native
        copied = copied or dtype.kind == "S"  # a view of strings would be one of pointers that lead nowhere
        try:
            found: Array = native.GetTensor(place, graph) if copied else native.tensor(memory, place, graph)
        except ValueError:  # an output without any element has no memory
            shape = tuple(map(int, native.TensorSize(place, graph)))
            if 0 not in shape:
                raise InferenceError("LiteRT gave no output") from None
            found = np.zeros(shape, dtype)
        return found

    def _views(self, memory: _Memory, places: Sequence[int], graph: int) -> list[Array]:
        try:
            return [memory.native.tensor(memory, place, graph) for place in places]
        except ValueError:
            raise OptionError(_NO_PLACE) from None

    def _invoke(self, memory: _Memory, graph: int) -> None:
        try:
            memory.native.Invoke(graph)
            self._ran.add(graph)
        except (ValueError, RuntimeError) as problem:
            raise InferenceError(f"LiteRT failed: {_said(problem)}") from problem


def check_no_nan(specs: Sequence[TensorSpec], arrays: Sequence[Array]) -> None:
    """Nothing, when no array has a NaN.

    Raises:
        OptionError: one has.
    """
    for spec, array in zip(specs, arrays, strict=True):
        if array.dtype.kind == "f" and array.size:
            lowest = array.min()  # NaN where there is one
            if lowest != lowest:
                raise OptionError(
                    f"inputs[{spec.name!r}] has a NaN; open the model with allow_nan=True if it takes them"
                )


@contextmanager
def _told(kind: type[Exception], what: str) -> Iterator[None]:
    """LiteRT's refusals as an error of ours."""
    try:
        yield
    except (ValueError, RuntimeError) as problem:
        if isinstance(problem, kind):
            raise
        raise kind(f"{what}: {_said(problem)}") from problem


def _said(problem: BaseException) -> str:
    return " ".join(str(problem).split())[:300] or "it does not say why"


def _address(view: Array) -> int:
    return int(view.__array_interface__["data"][0])


def _within(view: Array, model: bytes) -> bool:
    """Whether it is a constant of the file's."""
    start = _address(np.frombuffer(model, np.uint8))
    return start <= _address(view) < start + len(model)
