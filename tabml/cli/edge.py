"""``tabml edge``: look at .tflite files, run and measure them, make them smaller, make them of PyTorch modules."""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tabml.edge.comparison import Comparison
from tabml.edge.conversion import convert as convert_module
from tabml.edge.inspection import Inspection, TensorInfo, inspect_model
from tabml.edge.models import LiteModel
from tabml.edge.quantizing import quantize as quantize_model
from tabml.edge.saving import check_target, save
from tabml.errors import OptionError, UnsafeModelError

_NOT_CODE = (".pt", ".pth", ".pt2", ".pkl", ".pickle", ".bin", ".ckpt", ".ts", ".torchscript")
_ACCURACY = {"agreement": "agreement", "yours": "share right"}


def edge(options: argparse.Namespace) -> int:
    """One action."""
    actions = {
        "inspect": _inspect, "run": _run, "classify": _classify, "benchmark": _benchmark, "quantize": _quantize,
        "convert": _convert,
    }  # fmt: skip
    return actions[options.action](options)


def source(name: str) -> str | Path:
    """A name of the catalog, or a path."""
    return Path(name) if "/" in name or name.endswith((".tflite", ".task")) or Path(name).is_file() else name


def _inspect(options: argparse.Namespace) -> int:
    found = inspect_model(source(options.model), member=options.member)
    if options.json:
        print(json.dumps(found.to_dict()))
    else:
        print("\n".join(_described(found, options.model, tensors=options.tensors)))
    return 0


def _described(found: Inspection, name: str, *, tensors: bool) -> list[str]:
    lines = [f"{name}: {found.bytes / 1e6:.2f} MB, sha256 {found.sha256}"]
    for signature in found.signatures:
        lines.append(f"signature {signature.name}" if signature.name else "one graph, without a named signature")
        lines += [f"  in   {_line(each)}" for each in signature.inputs]
        lines += [f"  out  {_line(each)}" for each in signature.outputs]
    lines.append("operators  " + ", ".join(f"{count} {each}" for each, count in found.operators.items()))
    lines.append(
        "weights    " + (", ".join(f"{size / 1e6:.2f} MB {each}" for each, size in found.weights.items()) or "none")
    )
    said = found.metadata
    if said is None:
        lines.append("metadata   none")
    else:
        lines.append(
            "metadata   " + ", ".join(each for each in (said.name, said.version, said.author, said.license) if each)
        )
        lines += [f"  mean {each.mean}, deviation {each.std} of {each.name}" for each in said.inputs if each.std]
        lines += [f"  {len(each.labels)} classes of {each.name}" for each in said.outputs if each.labels]
        lines += [f"  file {each}" for each in said.files]
    if tensors:
        lines += ["tensors", *(f"  {_line(each)}" for each in found.tensors)]
    return [
        line if line.isprintable() else "".join(each if each.isprintable() else "?" for each in line) for line in lines
    ]


def _line(tensor: TensorInfo) -> str:
    shape = ", ".join("any" if each == -1 else str(each) for each in tensor.shape)
    more = f", {tensor.constant_bytes} bytes" if tensor.constant_bytes else ""
    return f"{tensor.name}: {tensor.dtype} ({shape}){more}" + (f", {tensor.scales} scales" if tensor.scales else "")


def _run(options: argparse.Namespace) -> int:
    from tabml.cli.samples import picture_input, read_arrays

    path = Path(options.inputs)
    with LiteModel(source(options.model), member=options.member, threads=options.threads) as model:
        given = read_arrays(path) if path.suffix.lower() == ".npz" else picture_input(model, path)
        found = model.run(given, signature=options.signature)
    if options.out:
        arrays = io.BytesIO()
        np.savez(arrays, allow_pickle=False, **dict(found))
        save(arrays.getvalue(), options.out, path)
    if options.json:
        print(found.to_json())
        return 0
    for name, array in found.items():
        shown = f", from {array.min():.6g} to {array.max():.6g}" if array.size and array.dtype.kind in "iuf" else ""
        print(f"{name}: {array.dtype} {array.shape}{shown}")
    return 0


def _classify(options: argparse.Namespace) -> int:
    from tabml.edge.classification import LiteClassifier
    from tabml.vision import Frame

    with LiteClassifier(source(options.model), max_results=options.num, member=options.member) as model:
        for name in options.pictures:
            print(json.dumps({"source": name, **model.classify(Frame.from_file(name)).to_dict()}))
    return 0


def _benchmark(options: argparse.Namespace) -> int:
    from tabml.bench.edge import measure
    from tabml.bench.rows import check_picture, table, written

    check_picture()
    folder = Path(options.out)
    if folder.exists() and not folder.is_dir():
        raise OptionError(f"--out {options.out!r:.200} is a file; give a folder")
    rows = measure(source(options.model), threads=_threads(options.threads), runs=options.runs, member=options.member)
    print(json.dumps([row.to_dict() for row in rows], indent=1) if options.json else table(rows))
    for path in written(rows, folder, "model"):
        print(path.resolve(), file=sys.stderr)
    return 0


def _threads(said: str) -> list[int]:
    try:
        return [int(each) for each in said.split(",")]
    except ValueError:
        raise OptionError(f"--threads {said!r:.80} must be whole numbers with commas between, such as 1,2") from None


def _quantize(options: argparse.Namespace) -> int:
    from tabml.cli.samples import labelled, read_folder

    original = source(options.model)
    target = check_target(options.out, original if isinstance(original, Path) else None)
    with LiteModel(original, member=options.member, threads=1) as model:
        folder = options.evaluate or options.calibrate
        found = quantize_model(
            original,
            recipe=options.recipe,
            calibration=read_folder("--calibrate", options.calibrate, model, options.samples)
            if options.calibrate
            else None,
            evaluation=read_folder("--evaluate", options.evaluate, model, options.samples)
            if options.evaluate
            else None,
            accuracy=labelled("--evaluate", folder, model, options.samples) if options.evaluate else None,
            max_drop=options.max_drop,
            threads=options.threads,
            member=options.member,
        )
    found.save(target)
    comparison = found.comparison
    if options.json:
        print(json.dumps({"out": str(target), **found.to_dict()}))
    else:
        print("\n".join([*_table(comparison), f"{found.quantized_weights:.0%} of the weights are quantised"]))
    if comparison.generated:
        print("tabml: compared on noise, which says little; give --evaluate FOLDER of real input", file=sys.stderr)
    return 0


def _convert(options: argparse.Namespace) -> int:
    target = check_target(options.out, options.module.partition(":")[0])
    module, inputs = _made(options.module)
    found = convert_module(module, inputs, max_error=options.max_error, threads=options.threads)
    found.save(target)
    if options.json:
        print(json.dumps({"out": str(target), **found.to_dict()}))
    else:
        print(
            "\n".join([*_table(found.comparison), f"the largest difference is {found.error:.2g} of the largest answer"])
        )
    return 0


def _made(said: str) -> tuple[Any, Any]:
    """What a function of a user's Python file gives: the module, and what it is called with."""
    name, colon, function = said.partition(":")
    path = Path(name).expanduser()
    if path.suffix.lower() in _NOT_CODE:
        raise UnsafeModelError(
            f"{path}: loading a file of PyTorch's runs the code in it, in a .pt2 file too; write a Python file with a function that "
            "loads what you trust, and give FILE.py:FUNCTION"
        )
    if not colon or path.suffix != ".py" or not function.isidentifier():
        raise OptionError(f"{said!r:.200} must be FILE.py:FUNCTION, of a function that gives a module and its inputs")
    if not path.is_file():
        raise OptionError(f"{str(path)!r} is no file")
    spec = importlib.util.spec_from_file_location(f"tabml_converted_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise OptionError(f"{str(path)!r} can't be imported")
    code = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = code  # torch.export looks classes up by their module
    spec.loader.exec_module(code)
    made = getattr(code, function, None)
    if not callable(made):
        raise OptionError(f"{path.name} has no function {function!r}")
    given = made()
    if not isinstance(given, tuple) or len(given) != 2:
        raise OptionError(
            f"{function}() gave {type(given).__name__}; it must give two: a module, and a tuple or dict of its inputs"
        )
    return given


def _table(found: Comparison) -> list[str]:
    """Before, after, and what that means."""
    lost = f"{-found.drop or 0.0:+.4f}, {_ACCURACY[found.measure]}, {found.samples} sample{'s' if found.samples > 1 else ''}"
    threads = f"{found.threads} thread{'s' if found.threads > 1 else ''}"
    rows: list[Sequence[str]] = [
        ("", "before", "after", ""),
        (
            "file",
            f"{found.bytes_before / 1e6:.2f} MB",
            f"{found.bytes_after / 1e6:.2f} MB",
            f"{found.smaller:.2f} times smaller",
        ),
        (
            f"call, {threads}",
            f"{found.ms_before:.3g} ms",
            f"{found.ms_after:.3g} ms",
            f"{found.quicker:.2f} times as quick",
        ),
        ("accuracy", f"{found.accuracy_before:.4f}", f"{found.accuracy_after:.4f}", lost),
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), row[1].rjust(widths[1]), row[2].rjust(widths[2]), row[3]]).rstrip()
        for row in rows
    ]
    return [
        *lines,
        *(
            f"{each.name}: {each.kind} agree {each.agreement:.4f}, cosine from {each.cosine:.4f}, SQNR {each.sqnr_db:.1f} dB, "
            f"off by at most {each.max_error:.3g}"
            for each in found.outputs
        ),
    ]
