"""Renders one chat template, as the child of :mod:`tabml.generation.templates`: the template is foreign code.

Only the standard library and jinja2, so that it starts quickly. A message is its length in 4 bytes and JSON.
The environment is that of transformers: same whitespace, extensions, filters and globals.
"""

import json
import math
import resource
import struct
import sys
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any, BinaryIO

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox

_MEMORY = 1 << 30
_DESCRIPTORS = 16


class Refused(Exception):
    """The template does not want these messages."""


class Generation(jinja2.ext.Extension):
    """``{% generation %}``: of use in training only, so its body is rendered as it is."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.CallBlock:
        """The body as a call block, so that its variables are its own as there."""
        lineno = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("body"), [], [], body, lineno=lineno)

    def body(self, caller: Callable[[], str]) -> str:
        """What it writes."""
        return caller()


class PlainDict:
    """``dict(…)``, without the attributes of the type."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        """As of the type."""
        return dict.fromkeys(*args, **kwargs)


class PlainNamespace(jinja2.utils.Namespace):
    """``namespace(…)``, without names that begin with an underscore."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        given = dict(*args[1:], **kwargs)
        for name in given:
            _check_attribute(name)
        jinja2.utils.Namespace.__init__(args[0], given)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_attribute(name)
        super().__setitem__(name, value)


def _check_attribute(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"{name!r} can't be set on a namespace")


def environment() -> jinja2.sandbox.ImmutableSandboxedEnvironment:
    """What templates are written for."""
    made = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )

    def refuse(message: object) -> None:
        raise Refused(str(message)[:500])

    def tojson(
        value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
    ) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    made.filters["tojson"] = tojson
    made.globals["raise_exception"] = refuse
    made.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    made.globals["dict"] = PlainDict()
    made.globals["namespace"] = PlainNamespace
    return made


def render(template: jinja2.Template, values: dict[str, Any], most: int) -> dict[str, str]:
    """The text, or what went wrong."""
    try:
        pieces, size = [], 0
        for piece in template.generate(values):
            size += len(piece)
            if size > most:
                return {"limit": f"it writes more than {most} characters"}
            pieces.append(piece)
        return {"text": "".join(pieces)}
    except Refused as problem:
        return {"refused": str(problem)}
    except MemoryError:
        return {"limit": "it needs more memory than it may have"}
    except RecursionError:
        return {"limit": "it calls itself without end"}
    except (jinja2.exceptions.SecurityError, OverflowError) as problem:
        return {"limit": f"{type(problem).__name__}: {problem}"[:500]}
    except Exception as problem:
        return {"refused": f"{type(problem).__name__}: {problem}"[:500]}


def read(source: BinaryIO) -> Any:
    """The next message; None at the end."""
    head = source.read(4)
    if len(head) < 4:
        return None
    return json.loads(source.read(struct.unpack("<I", head)[0]))


def write(sink: BinaryIO, message: Any) -> None:
    """Send a message."""
    content = json.dumps(message).encode()
    sink.write(struct.pack("<I", len(content)) + content)
    sink.flush()


def allow(seconds: float) -> None:
    """So much more processor time; then the kernel ends us, should the parent not live to do so."""
    lower(resource.RLIMIT_CPU, math.ceil(time.process_time() + seconds + 1), hard=False)


def lower(limit: int, value: int, *, hard: bool) -> None:
    """Set a limit, or keep a hard one that is lower already."""
    _, most = resource.getrlimit(limit)
    value = value if most == resource.RLIM_INFINITY else min(value, most)
    resource.setrlimit(limit, (value, value if hard else most))


def main() -> None:
    """Serve until stdin ends: say that we are there, read the template, then values to render it with."""
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    for limit, value in (
        (resource.RLIMIT_AS, _MEMORY),
        (resource.RLIMIT_NOFILE, _DESCRIPTORS),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        lower(limit, value, hard=True)
    sink.write(b"!")  # started: from here on time counts
    sink.flush()
    first = read(source)
    if first is None:
        return
    allow(first["seconds"])
    try:
        template = environment().from_string(first["template"])
    except Exception as problem:  # Python's own compiler has its limits too
        write(sink, {"broken": f"{type(problem).__name__}: {problem}"[:500]})
        return
    write(sink, {"ready": True})
    while (request := read(source)) is not None:
        allow(request["seconds"])
        write(sink, render(template, request["values"], request["most"]))


if __name__ == "__main__":
    main()
