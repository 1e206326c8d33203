"""Renders one chat template, as the child of :mod:`tabml.text.templates`: the template is foreign code.

Only the standard library and jinja2, so that it starts quickly. A message is its length in 4 bytes and JSON.
The environment is that of transformers: same whitespace, extensions, filters and globals.
"""

import json
import resource
import struct
import sys
from datetime import datetime
from typing import Any, BinaryIO

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox

_MEMORY = 1 << 30


class Refused(Exception):
    """The template does not want these messages."""


class Generation(jinja2.ext.Extension):
    """``{% generation %}``: of use in training only, so its body is rendered as it is."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        """The nodes inside."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class PlainDict:
    """``dict(…)``, without the attributes of the type."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)


class PlainNamespace(jinja2.utils.Namespace):
    """``namespace(…)``, without names that begin with an underscore."""

    def __setitem__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            raise jinja2.exceptions.SecurityError(f"{name!r} can't be set on a namespace")
        super().__setitem__(name, value)


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


def main() -> None:
    """Serve until stdin ends: say that we are there, read the template, then values to render it with."""
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    for limit, value in ((resource.RLIMIT_AS, _MEMORY), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_CORE, 0)):
        resource.setrlimit(limit, (value, value))
    sink.write(b"!")  # started: from here on time counts
    sink.flush()
    first = read(source)
    if first is None:
        return
    try:
        template = environment().from_string(first["template"])
    except (jinja2.exceptions.TemplateError, RecursionError, MemoryError) as problem:
        write(sink, {"broken": f"{type(problem).__name__}: {problem}"[:500]})
        return
    write(sink, {"ready": True})
    while (request := read(source)) is not None:
        write(sink, render(template, request["values"], request["most"]))


if __name__ == "__main__":
    main()
