"""``python -m tabml``: results as JSON Lines on stdout, everything else on stderr."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from tabml import __version__
from tabml.errors import TabmlError

DEBUG_VARIABLE = "TABML_DEBUG"
"""Environment variable: 1 shows the traceback of an error."""


_TEXT = {
    "generate": "continue a prompt",
    "chat": "answer a message, or talk when none is given",
    "embed": "vectors of texts",
    "rank": "order documents (from the second TEXT on) by how well they answer a query (the first)",
    "classify": "the model's labels of texts; --set labels=a,b for labels of your own",
    "extract": "labelled pieces of texts, such as names",
    "answer": "find the answer to a question (the first TEXT) in a context (the second)",
    "fill": "words for the mask in a text",
    "translate": "texts in another language: --set source=en --set target=de",
    "summarize": "texts made short",
    "tokenize": "texts as tokens",
    "detokenize": "the text of token ids",
    "infill": "what is missing between two pieces of code, as it is written",
}

_WORDS = {"infill": "PREFIX SUFFIX", "detokenize": "ID"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0; 1 when something could not be done; 2 for a wrong command line; 130 when interrupted.
    """
    options = _parser().parse_args(argv)
    try:
        code: int = options.run(options)
        sys.stdout.flush()
        return code
    except (TabmlError, OSError) as problem:
        if isinstance(problem, BrokenPipeError):  # whoever read us has enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            return 0
        if os.environ.get(DEBUG_VARIABLE) == "1":
            raise
        report(problem)
        return 1
    except KeyboardInterrupt:
        return 130


def report(problem: Exception) -> None:
    """One line on stderr: the error's code and message."""
    code = getattr(problem, "code", "file")
    print(f"tabml: error: {problem} [{code}]", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tabml", description="Pictures and videos in, typed results out.")
    parser.add_argument("--version", action="version", version=f"tabml {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    detect = commands.add_parser("detect", help="find things in pictures")
    detect.add_argument("what", choices=["faces", "mesh", "irises", "hands", "pose", "holistic", "objects", "mask"])
    detect.add_argument("pictures", nargs="+", metavar="PICTURE")
    detect.add_argument("--annotate", metavar="OUT", help="picture to write; a folder when there are several pictures")
    detect.add_argument(
        "--at",
        action="append",
        default=[],
        metavar="X,Y",
        help="for mask: what is there, 0 to 1 each; again for more places",
    )
    _model_options(detect)
    detect.set_defaults(run=_detect)

    track = commands.add_parser("track", help="follow things through a video")
    track.add_argument("what", choices=["faces", "mesh", "irises", "hands", "pose", "holistic", "objects", "mask"])
    track.add_argument("video", metavar="VIDEO")
    track.add_argument("--annotate", metavar="OUT", help="video to write")
    _model_options(track)
    track.set_defaults(run=_track)

    effect = commands.add_parser("effect", help="change what is behind people in a picture or a video")
    effect.add_argument("what", choices=["blur", "replace", "cutout"])
    effect.add_argument("source", metavar="PICTURE|VIDEO")
    effect.add_argument("out", metavar="OUT", help="picture or video to write")
    effect.add_argument("--background", metavar="COLOUR|PICTURE|VIDEO", help="for replace; a green when not given")
    effect.add_argument("--strength", type=float, metavar="S", help="for blur: above 0, at most 0.2 (default: 0.02)")
    effect.set_defaults(run=_effect)

    for verb, words in _TEXT.items():
        command = commands.add_parser(verb, help=words)
        command.add_argument("texts", nargs="*" if verb == "chat" else "+", metavar=_WORDS.get(verb, "TEXT"))
        command.add_argument(
            "--model", metavar="NAME|FOLDER|FILE", help="a name of the catalog or of --files, or a path"
        )
        command.add_argument("--files", metavar="URI", help="where models come from: dir:FOLDER, hub:, https://…")
        command.add_argument("--device", default="auto")
        command.add_argument("--dtype", default="auto")
        command.add_argument("--quantization", choices=["int8", "int4"])
        command.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="an option of the call")
        if verb == "chat":
            command.add_argument("--system", metavar="TEXT", help="what the model is told first")
            command.add_argument("--tools", metavar="FILE", help="functions it may ask for, as JSON in OpenAI's form")
        if verb in ("generate", "chat", "infill"):
            command.add_argument("--json", action="store_true", help="the whole answer as JSON instead of its text")
            command.add_argument("--engine", default="auto", help="torch, llama.cpp, or auto (the default)")
            command.add_argument("--adapter", metavar="FOLDER", help="a LoRA adapter to use")
            command.add_argument("--context-length", type=int, metavar="TOKENS", help="of prompt and answer together")
        command.set_defaults(run=_text, verb=verb)

    edge = commands.add_parser(
        "edge", help=".tflite files: look into them, run, measure, make smaller or of PyTorch modules"
    )
    _edge_actions(edge.add_subparsers(required=True, metavar="ACTION"))

    models = commands.add_parser("models", help="the models that tabml knows by name")
    actions = models.add_subparsers(required=True, metavar="ACTION")
    for name, words in (
        ("list", "every model, and whether it is here"),
        ("pull", "fetch models (the defaults, or those named)"),
        ("verify", "check what is here against its checksums"),
        ("where", "the folder they are kept in"),
    ):
        action = actions.add_parser(name, help=words)
        if name in ("list", "verify"):
            action.add_argument("--json", action="store_true", help="JSON Lines instead of a table")
        if name == "pull":
            action.add_argument("names", nargs="*", metavar="NAME")
        action.set_defaults(run=_models, action=name)

    doctor = commands.add_parser("doctor", help="what is installed, what is missing, and what mends it")
    doctor.add_argument("--json", action="store_true", help="one JSON document instead of a table")
    doctor.set_defaults(run=_doctor)

    demo = commands.add_parser("demo", help="faces, mesh, pose and mask of a photograph that is already installed")
    demo.add_argument("--out", default="tabml-demo", metavar="FOLDER", help="where to write (default: %(default)s)")
    demo.set_defaults(run=_demo)

    bench = commands.add_parser("bench", help="measure against the plain libraries, in the same run")
    bench.add_argument("what", choices=["text", "vision", "edge"])
    bench.add_argument("--quick", action="store_true", help="a minute instead of six; the figures scatter")
    bench.add_argument(
        "--only",
        default="",
        metavar="NAME,...",
        help="of text: stream, binding, lookup, perplexity, chats, talk, texts, clients, load, wire, gpu; "
        "of vision: objects, together, hands, masks, effects, single, results, streams; "
        "of edge: models, classes, opencv, together, loads, growth",
    )
    bench.add_argument("--video", metavar="FILE", help="for vision: one with a hand in it")
    bench.add_argument("--lm", metavar="FILE", help="for edge: a .litertlm file, measured beside its own benchmark")
    bench.add_argument("--gguf", metavar="FILE", help="with --lm: the same model for llama.cpp")
    bench.add_argument("--folder", metavar="FOLDER", help="with --lm: the same model for transformers")
    bench.add_argument("--threads", type=int, metavar="COUNT", help="with --lm: that compute (default: every core)")
    bench.add_argument("--out", default="tabml-bench", metavar="FOLDER", help="where to write (default: %(default)s)")
    bench.add_argument("--json", action="store_true", help="one JSON document instead of a table")
    bench.add_argument(
        "--model", default="smollm2-135m-instruct", metavar="NAME|FOLDER|FILE", help="the language model"
    )
    bench.add_argument("--embedder", default="all-minilm-l6-v2", metavar="NAME|FOLDER", help="the embedding model")
    bench.set_defaults(run=_bench)
    return parser


def _edge_actions(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    inspect = actions.add_parser("inspect", help="signatures, operators, weights and metadata")
    inspect.add_argument("--tensors", action="store_true", help="every tensor too")
    run = actions.add_parser("run", help="run a model once on the arrays of an .npz file, or on a picture")
    run.add_argument("--signature", metavar="NAME", help="which of the model's")
    run.add_argument("--out", metavar="OUT.npz", help="where the outputs go")
    classify = actions.add_parser("classify", help="the classes of pictures, by a model with metadata")
    classify.add_argument("--num", type=int, default=5, metavar="N", help="the most classes (default: %(default)s)")
    benchmark = actions.add_parser("benchmark", help="milliseconds a call, beside a bare interpreter")
    benchmark.add_argument("--runs", type=int, default=50, metavar="N", help="how often (default: %(default)s)")
    benchmark.add_argument(
        "--threads",
        default="1,2",
        metavar="N,...",
        help="how many share a call; each is measured (default: %(default)s)",
    )
    benchmark.add_argument(
        "--out", default="tabml-bench", metavar="FOLDER", help="where to write (default: %(default)s)"
    )
    quantize = actions.add_parser("quantize", help="make a model smaller, and say what that costs")
    quantize.add_argument("model", metavar="IN", help="a .tflite file, or a name of the catalog")
    quantize.add_argument("out", metavar="OUT", help="the file to write")
    quantize.add_argument("--recipe", choices=["int8-dynamic", "int8", "int4"], default="int8-dynamic")
    quantize.add_argument("--calibrate", metavar="FOLDER", help="pictures or .npz files as the model will see them")
    quantize.add_argument(
        "--evaluate",
        metavar="FOLDER",
        help="what both are compared on; folders in it named as classes are what is right",
    )
    quantize.add_argument(
        "--samples", type=int, default=256, metavar="N", help="the most of a folder (default: %(default)s)"
    )
    quantize.add_argument(
        "--max-drop", type=float, metavar="D", help="write nothing when more accuracy is lost, 0 to 1"
    )
    convert = actions.add_parser("convert", help="make a .tflite file of a PyTorch module")
    convert.add_argument("module", metavar="FILE.py:FUNCTION", help="a function that gives a module and its inputs")
    convert.add_argument("out", metavar="OUT", help="the file to write")
    convert.add_argument(
        "--max-error", type=float, default=1e-3, metavar="E",
        help="write nothing when an answer is further off, as a share of the largest (default: %(default)s)",
    )  # fmt: skip
    for action in (inspect, run, classify, benchmark):
        action.add_argument("model", metavar="MODEL", help="a .tflite or .task file, or a name of the catalog")
    run.add_argument("inputs", metavar="IN.npz|PICTURE")
    classify.add_argument("pictures", nargs="+", metavar="PICTURE")
    for action in (run, quantize, convert):
        action.add_argument(
            "--threads", type=int, metavar="N", default=1, help="how many share a call (default: %(default)s)"
        )
    for name, action in actions.choices.items():
        if name != "convert":
            action.add_argument("--member", metavar="NAME", help="which file of a .task bundle")
        if name != "classify":
            action.add_argument("--json", action="store_true", help="JSON instead of a table")
        action.set_defaults(run=_edge, action=name)


def _model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--num", type=int, metavar="N", help="the most faces, hands or people to find")
    parser.add_argument("--min-confidence", type=float, metavar="C", help="0 to 1, for a thing to be found at all")
    parser.add_argument("--range", choices=["short", "full"], help="full also finds small and many faces")
    parser.add_argument("--model", metavar="NAME|FILE", help="another model: a name of `tabml models list`, or a file")


def _detect(options: argparse.Namespace) -> int:
    from tabml.cli.vision import detect

    return detect(options)


def _track(options: argparse.Namespace) -> int:
    from tabml.cli.vision import track

    return track(options)


def _effect(options: argparse.Namespace) -> int:
    from tabml.cli.effects import effect

    return effect(options)


def _text(options: argparse.Namespace) -> int:
    from tabml.cli.text import run

    return run(options)


def _edge(options: argparse.Namespace) -> int:
    from tabml.cli.edge import edge

    return edge(options)


def _models(options: argparse.Namespace) -> int:
    from tabml.cli import models

    actions = {"list": models.show, "pull": models.pull, "verify": models.verify, "where": models.where}
    return actions[options.action](options)


def _doctor(options: argparse.Namespace) -> int:
    from tabml.cli.doctor import doctor

    return doctor(options)


def _demo(options: argparse.Namespace) -> int:
    from tabml.cli.demo import demo

    return demo(options)


def _bench(options: argparse.Namespace) -> int:
    from tabml.cli.bench import bench

    return bench(options)
