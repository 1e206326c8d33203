"""Models for LiteRT: any .tflite file, with names, types and shapes that are checked."""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from operator import index
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from tabml._litert.bundle import chosen
from tabml._litert.specs import Signature, TensorSpec, thread_count
from tabml.cancellation import current_cancellation
from tabml.edge.results import Accelerator, Benchmark, LiteOutputs, OperatorTime, Profile
from tabml.edge.shapes import KnownShapes
from tabml.edge.tensors import Inputs, arrays_for, by_row
from tabml.errors import CorruptModelError, MissingExtraError, OptionError, UnavailableHereError
from tabml.files import FileProvider, FileRef
from tabml.files.lite import load_lite_model
from tabml.generation.arguments import one_of, whole
from tabml.lifecycle import LazyModel

if TYPE_CHECKING:
    from tabml._litert.compiled import CompiledGraph
    from tabml._litert.graph import Lent, LiteGraph
    from tabml._litert.metadata import ModelMetadata

ModelSource = str | os.PathLike[str] | FileRef | bytes | memoryview
"""A name of the catalog; the path of a file, as a ``Path``; a file of ``files``; or the bytes of one."""
AcceleratorName = Literal["cpu", "gpu", "npu", "auto"]

_MAIN = "serving_default"


@dataclass(frozen=True, slots=True)
class _Opened:
    """A model in memory."""

    graph: LiteGraph | CompiledGraph
    content: bytes
    accelerator: Accelerator
    signatures: dict[str, int]
    default: int
    shapes: KnownShapes
    any_length: bool
    """Whether runs may have other shapes."""


class LiteBuffers:
    """LiteRT's own memory of one signature: what is written to ``inputs`` is what the model reads."""

    def __init__(self, lent: Lent, signature: Signature) -> None:
        self._lent: Lent | None = lent
        self.inputs: Mapping[str, NDArray[Any]] = dict(zip(_names(signature.inputs), lent.inputs, strict=True))
        """Views to write to; none when the block has ended."""
        self.outputs: Mapping[str, NDArray[Any]] = dict(zip(_names(signature.outputs), lent.outputs, strict=True))
        """Read-only views of what the last run gave."""
        for view in self.outputs.values():
            view.flags.writeable = False

    def run(self) -> None:
        """Run the model once on what ``inputs`` hold. Nothing is checked: a NaN goes in as it is.

        Raises:
            OptionError: the block has ended.
            InferenceError: LiteRT failed.
            ModelClosedError: the model is closed.
        """
        if self._lent is None:
            raise OptionError("the buffers were given back; run inside of the block")
        self._lent.invoke()

    def _give_back(self) -> None:
        self._lent, self.inputs, self.outputs = None, {}, {}


class LiteModel(LazyModel[_Opened]):
    """One .tflite file, run by LiteRT: on the CPU by XNNPACK, or on an accelerator.

    One object may be used from several threads; calls on it run one after another. Models in different threads run
    side by side. A file of which the catalog doesn't know the checksum is checked first, and tried in a process of
    its own, which may die of it.
    """

    def __init__(
        self,
        model: ModelSource,
        *,
        files: FileProvider | None = None,
        member: str | None = None,
        threads: int | None = None,
        accelerator: AcceleratorName = "cpu",
        allow_nan: bool = False,
    ) -> None:
        """Check the options; nothing is loaded yet.

        Args:
            model: A name of the catalog; the path of a file, as a ``Path``; a file of ``files``; or its bytes.
            files: Where model files come from; the default provider when None.
            member: Which .tflite file of a .task bundle; needed where it has several.
            threads: How many threads share one run, 1 to 64; every core (at most 8) when None.
            accelerator: ``"cpu"``, ``"gpu"`` or ``"npu"``: there or not at all. ``"auto"``: the GPU when there is one
                that runs the whole model faster than the CPU, which is tried; :attr:`accelerator` says what was found.
            allow_nan: Whether arrays may have NaN in them.

        Raises:
            OptionError: an option is outside its range.
        """
        self._source, self._files, self._member = model, files, member
        self._threads = thread_count("threads", threads)
        self._wanted = one_of("accelerator", accelerator, ("cpu", "gpu", "npu", "auto"))
        self._allow_nan = bool(allow_nan)
        super().__init__(f"{len(model)} bytes" if isinstance(model, bytes | bytearray | memoryview) else str(model))

    @property
    def threads(self) -> int:
        """How many share one run."""
        return self._threads

    @property
    def accelerator(self) -> Accelerator:
        """What the model runs on, and why; loads it."""
        return self._ready().accelerator

    @property
    def signatures(self) -> Mapping[str, Signature]:
        """The ways of calling it, by name; ``""`` is the only one of a model that names none. Loads the model."""
        opened = self._ready()
        return {name: opened.graph.signatures[number] for name, number in opened.signatures.items()}

    @property
    def default_signature(self) -> str:
        """The name of the one that :meth:`run` calls unless told otherwise; loads the model."""
        opened = self._ready()
        return next(name for name, number in opened.signatures.items() if number == opened.default)

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What :meth:`run` takes, in the model's order; loads the model."""
        opened = self._ready()
        return opened.graph.signatures[opened.default].inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What :meth:`run` gives, in the model's order; loads the model."""
        opened = self._ready()
        return opened.graph.signatures[opened.default].outputs

    @property
    def size_bytes(self) -> int:
        """Of the .tflite file; loads the model."""
        return len(self._ready().content)

    @cached_property
    def metadata(self) -> ModelMetadata | None:
        """What the model says about itself; None when it says nothing. Loads the model.

        Raises:
            ModelLoadError: it says something that can't be read.
        """
        from tabml._litert.metadata import read_metadata

        return read_metadata(self._ready().content)

    def associated_file(self, name: str) -> bytes:
        """A file that comes with the model, such as a list of labels; ``metadata.files`` has their names.

        Raises:
            ModelLoadError: there is none of that name, or it is larger than 64 MiB.
        """
        from tabml._litert.metadata import read_file, told

        with told():
            return read_file(self._ready().content, name, 64 << 20)

    def run(
        self, inputs: Inputs, *, signature: str | None = None, quantize: bool = False, dequantize: bool = False
    ) -> LiteOutputs:
        """Run the model once.

        Args:
            inputs: Arrays by name, or in the model's order, or one array; each of exactly its input's type and shape.
                Where an input takes any length, of any from 1.
            signature: Which of ``signatures``; ``serving_default``, or the first, when None.
            quantize: Whether arrays of real numbers are made the whole numbers that a quantised input takes.
            dequantize: Whether quantised outputs are given as real numbers, float32.

        Raises:
            OptionError: an input is missing or unknown, or has another type or shape, or a NaN; or LiteRT can't run the
                model with these shapes, or needs more than 3 GiB or 20 s for them: new ones are tried in another process.
            InferenceError: LiteRT failed; the next run is answered.
            CapacityError: no process can be started for that.
            CallCancelledError: the current cancellation was set meanwhile.
            ModelClosedError: the model is closed.
            ModelForkedError: this process is a fork of the one that loaded the model.
        """
        opened = self._ready()
        number = self._number(opened, signature)
        spec = opened.graph.signatures[number]
        arrays = arrays_for(spec, inputs, quantize=quantize)
        if opened.any_length:
            opened.shapes.check(number, spec, arrays)
        began = time.perf_counter()
        found = opened.graph.run(arrays, _frozen_all, signature=number, allow_nan=self._allow_nan, copied=True)
        seconds = time.perf_counter() - began
        if dequantize:
            found = [_frozen(_real(each, array)) for each, array in zip(spec.outputs, found, strict=True)]
        outputs = {each.name: array for each, array in zip(spec.outputs, found, strict=True)}
        return LiteOutputs(outputs, accelerator=opened.accelerator, seconds=seconds)

    def run_batch(
        self, inputs: Inputs, *, signature: str | None = None, quantize: bool = False, dequantize: bool = False
    ) -> LiteOutputs:
        """Run the model on several rows: at once where its first dimensions take any length, else one after another.

        On a CPU one by one is as quick: all threads share each row.

        Args:
            inputs: As of :meth:`run`, but the first dimension of each array counts rows, from 1.
            signature: Which of ``signatures``.
            quantize: As of :meth:`run`.
            dequantize: As of :meth:`run`.

        Returns:
            Outputs whose first dimension counts the rows.

        Raises:
            OptionError: arrays have different numbers of rows, or none; the model has no first dimension of 1; and as
                :meth:`run`.
            InferenceError: LiteRT failed.
            ModelClosedError: the model is closed.
            ModelForkedError: this process is a fork of the one that loaded the model.
        """
        opened = self._ready()
        spec = opened.graph.signatures[self._number(opened, signature)]
        rows = by_row(spec, inputs)
        if all(each.shape_signature[:1] == (-1,) for each in spec.inputs):
            return self.run(inputs, signature=signature, quantize=quantize, dequantize=dequantize)
        found = [self.run(row, signature=signature, quantize=quantize, dequantize=dequantize) for row in rows]
        joined = {name: _frozen(np.concatenate([each[name] for each in found])) for name in found[0]}
        return LiteOutputs(joined, accelerator=opened.accelerator, seconds=sum(each.seconds for each in found))

    async def run_async(
        self, inputs: Inputs, *, signature: str | None = None, quantize: bool = False, dequantize: bool = False
    ) -> LiteOutputs:
        """:meth:`run` in a thread."""
        return await asyncio.to_thread(self.run, inputs, signature=signature, quantize=quantize, dequantize=dequantize)

    def resize(self, shapes: Mapping[str, Sequence[int]], *, signature: str | None = None) -> None:
        """Give inputs other shapes where the model's own are fixed; tried in another process first.

        Args:
            shapes: By input; the others keep theirs. Lengths from 1.
            signature: Which of ``signatures``.

        Raises:
            OptionError: an input is unknown, a shape no shape, or LiteRT can't run the model with it; the shapes are
                those of before.
            ModelClosedError: the model is closed.
        """
        opened = self._ready()
        number = self._number(opened, signature)
        known = {spec.name: spec for spec in opened.graph.signatures[number].inputs}
        wanted = {spec.name: spec.shape for spec in known.values()}
        for name, shape in shapes.items():
            if name not in known:
                raise OptionError(f"shapes: {name!r:.80} is none of the model's inputs: {', '.join(known)}")
            try:
                lengths = tuple(map(index, shape))
            except TypeError:
                raise OptionError(f"shapes[{name!r}]={shape!r:.80} must be whole numbers") from None
            if len(lengths) != len(known[name].shape) or min(lengths, default=1) < 1:
                raise OptionError(f"shapes[{name!r}]={lengths} must have {len(known[name].shape)} lengths from 1")
            wanted[name] = lengths
        if opened.accelerator.name == "cpu":
            opened.shapes.try_out(number, opened.graph.signatures[number], wanted)
        opened.graph.resize(wanted, signature=number)

    @contextmanager
    def buffers(self, *, signature: str | None = None) -> Iterator[LiteBuffers]:
        """LiteRT's own memory, for runs without a copy; calls of other threads wait until the block ends.

        The views may be kept: what they lie in is freed with the last of them, not before. What is in them changes with
        the model's next run, and while one is held the model keeps its shapes.

        Raises:
            OptionError: outputs have no fixed place in memory, or the model runs on an accelerator.
            ModelClosedError: the model is closed.
        """
        opened = self._ready()
        number = self._number(opened, signature)
        with opened.graph.lend(signature=number) as lent:
            buffers = LiteBuffers(lent, opened.graph.signatures[number])
            try:
                yield buffers
            finally:
                buffers._give_back()

    def reset(self) -> None:
        """Set what the model remembers from run to run, where it does, to what it began with."""
        self._ready().graph.reset()

    def profile(self, *, runs: int = 20, signature: str | None = None) -> Profile:
        """What each operator takes, on one thread of the CPU and on zeros; in a process of its own.

        Args:
            runs: How often it is measured, 1 to 10,000.
            signature: Which of ``signatures``.

        Raises:
            OptionError: ``runs`` is outside its range.
            UnavailableHereError: this release of LiteRT can't be measured.
        """
        from tabml._litert.probe import in_child

        whole("runs", runs, 1, 10_000)
        opened = self._ready()
        number = max(0, self._number(opened, signature) - (1 if len(opened.graph.signatures) > 1 else 0))
        try:
            said = in_child(opened.content, {"do": "profile", "runs": runs, "signature": number})
        except CorruptModelError as problem:
            raise UnavailableHereError(f"this release of LiteRT can't be measured: {problem}") from problem
        if "refused" in said:
            raise UnavailableHereError(str(said["refused"]))
        times = [(row["name"], statistics.median(row["microseconds"]) / 1000) for row in said["rows"]]
        total = sum(time for _, time in times)
        return Profile(
            operators=tuple(
                OperatorTime(name=name, milliseconds=time, share=time / total if total else 0.0) for name, time in times
            ),
            milliseconds=total,
            runs=runs,
        )

    def benchmark(
        self, inputs: Inputs | None = None, *, runs: int = 50, warmup: int = 5, signature: str | None = None
    ) -> Benchmark:
        """How quick :meth:`run` is.

        Args:
            inputs: What it runs on; zeros when None.
            runs: How often, 1 to 1,000,000.
            warmup: How often before, not counted, 0 to 1,000,000.
            signature: Which of ``signatures``.

        Raises:
            OptionError: a number is outside its range; and as :meth:`run`.
            CallCancelledError: the current cancellation was set.
        """
        whole("runs", runs, 1, 1_000_000)
        whole("warmup", warmup, 0, 1_000_000)
        opened = self._ready()
        if inputs is None:
            spec = opened.graph.signatures[self._number(opened, signature)]
            inputs = {each.name: np.zeros(each.shape, each.dtype) for each in spec.inputs}
        times, cancellation = [], current_cancellation()
        for at in range(warmup + runs):
            if cancellation is not None:
                cancellation.check()
            began = time.perf_counter()
            self.run(inputs, signature=signature)
            if at >= warmup:
                times.append((time.perf_counter() - began) * 1000)
        return Benchmark(
            median_ms=statistics.median(times),
            p90_ms=float(np.percentile(times, 90)),
            fastest_ms=min(times),
            runs=runs,
            threads=self._threads,
            accelerator=opened.accelerator,
        )

    def _open(self) -> _Opened:
        file = load_lite_model(self._source, files=self._files)
        content = bytes(chosen(file, self._member, name=f"model={self._shown!r:.200}"))
        try:
            from tabml._litert.graph import LiteGraph
        except MissingExtraError:
            raise MissingExtraError("edge", "ai-edge-litert") from None
        from tabml.edge.accelerators import choose

        accelerator = choose(self._wanted, content, threads=self._threads)
        graph: LiteGraph | CompiledGraph
        if accelerator.name == "cpu":
            graph = LiteGraph(content, threads=self._threads)
        else:
            from tabml._litert.compiled import CompiledGraph

            graph = CompiledGraph(content, kind=accelerator.name, threads=self._threads)
        names = {spec.name: at for at, spec in enumerate(graph.signatures)}
        if len(names) > 1:
            del names[""]  # the same graph as a signature's, with names nobody gave
        any_length = accelerator.name == "cpu" and any(
            spec.is_dynamic for signature in graph.signatures for spec in signature.inputs
        )
        return _Opened(
            graph, content, accelerator, names, names.get(_MAIN, next(iter(names.values()))),
            KnownShapes(content, graph.signatures, threads=self._threads), any_length,
        )  # fmt: skip

    def _free(self, loaded: _Opened) -> None:
        loaded.graph.close()

    def _number(self, opened: _Opened, signature: str | None) -> int:
        if signature is None:
            return opened.default
        try:
            return opened.signatures[signature]
        except (KeyError, TypeError):
            known = ", ".join(map(repr, opened.signatures))
            raise OptionError(f"signature={signature!r:.80} must be one of {known}") from None


def _frozen_all(arrays: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    return [_frozen(array) for array in arrays]


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    array.flags.writeable = False
    return array


def _real(spec: TensorSpec, array: NDArray[Any]) -> NDArray[Any]:
    return spec.dequantize(array) if spec.is_quantized else array


def _names(specs: Sequence[TensorSpec]) -> list[str]:
    return [spec.name for spec in specs]
