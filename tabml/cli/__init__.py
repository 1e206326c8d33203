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
}


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
        command.add_argument("texts", nargs="*" if verb == "chat" else "+", metavar="TEXT")
        command.add_argument(
            "--model", metavar="NAME|FOLDER|FILE", help="a name of the catalog or of --files, or a path"
        )
        command.add_argument("--files", metavar="URI", help="where models come from: dir:FOLDER, hub:, https://…")
        command.add_argument("--device", default="auto")
        command.add_argument("--dtype", default="auto")
        command.add_argument("--quantization", choices=["int8", "int4"])
        command.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="an option of the call")
        if verb in ("generate", "chat"):
            command.add_argument("--json", action="store_true", help="the whole answer as JSON instead of its text")
            command.add_argument("--engine", default="auto", help="torch, llama.cpp, or auto (the default)")
            command.add_argument("--adapter", metavar="FOLDER", help="a LoRA adapter to use")
            command.add_argument("--context-length", type=int, metavar="TOKENS", help="of prompt and answer together")
        command.set_defaults(run=_text, verb=verb)

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
    bench.add_argument("what", choices=["text", "vision"])
    bench.add_argument("--quick", action="store_true", help="a minute instead of six; the figures scatter")
    bench.add_argument(
        "--only",
        default="",
        metavar="NAME,...",
        help="of text: stream, binding, lookup, perplexity, chats, talk, texts, clients, load, wire; "
        "of vision: objects, together, hands, masks, effects, single, results, streams",
    )
    bench.add_argument("--video", metavar="FILE", help="for vision: one with a hand in it")
    bench.add_argument("--out", default="tabml-bench", metavar="FOLDER", help="where to write (default: %(default)s)")
    bench.add_argument("--json", action="store_true", help="one JSON document instead of a table")
    bench.add_argument(
        "--model", default="smollm2-135m-instruct", metavar="NAME|FOLDER|FILE", help="the language model"
    )
    bench.add_argument("--embedder", default="all-minilm-l6-v2", metavar="NAME|FOLDER", help="the embedding model")
    bench.set_defaults(run=_bench)
    return parser


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
