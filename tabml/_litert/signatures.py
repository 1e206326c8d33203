"""A model's signatures, read from its file: LiteRT sorts them by name, here they are in the order of the graph."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tabml._litert.tables import Flatbuffer, Table


@dataclass(frozen=True, slots=True)
class Places:
    """Where a signature's tensors are."""

    name: str
    """The signature's."""
    graph: int
    """Which subgraph it runs."""
    inputs: tuple[int, ...]
    """Numbers of its tensors."""
    outputs: tuple[int, ...]
    """See ``inputs``."""
    input_names: tuple[str, ...]
    """One for each input."""
    output_names: tuple[str, ...]
    """One for each output."""


def read_signatures(model: bytes, main: Places) -> Iterator[Places]:
    """The main graph's own tensors, and then the signatures of a .tflite file.

    Raises:
        CorruptModelError: its tables lead outside of it.
    """
    yield main
    root = Flatbuffer(model).root()
    graphs = list(root.tables(2))
    for signature in root.tables(7):
        number = signature.number(4, "I")
        graph = graphs[number]
        given = {entry.number(1, "I"): entry.text(0) for entry in signature.tables(0)}
        inputs = graph.whole(1)
        got = _sorted([(entry.number(1, "I"), entry.text(0)) for entry in signature.tables(1)], graph.whole(2))
        tensors: list[Table] = [] if given.keys() >= set(inputs) else list(graph.tables(0))
        yield Places(
            name=signature.text(2),
            graph=number,
            inputs=inputs,
            outputs=tuple(place for place, _ in got),
            input_names=tuple(given[each] if each in given else tensors[each].text(3) for each in inputs),
            output_names=tuple(name for _, name in got),
        )


def _sorted(found: Sequence[tuple[int, str]], order: Sequence[int]) -> list[tuple[int, str]]:
    places = {place: at for at, place in enumerate(order)}
    return sorted(found, key=lambda each: (places.get(each[0], len(places)), each[1]))
