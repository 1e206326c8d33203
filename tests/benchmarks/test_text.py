"""Text against the plain libraries: the cases of ``tabml bench text``, one by one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tabml.bench.rows import table
from tabml.bench.text import CASES, Effort, Subjects


@pytest.fixture(scope="module")
def subjects() -> Iterator[Subjects]:
    with Subjects() as found:
        yield found


@pytest.mark.parametrize("case", [name for name in CASES if name != "load"])
def test_a_case(case: str, subjects: Subjects, benchmark: Any) -> None:
    rows = benchmark.pedantic(lambda: list(CASES[case](subjects, Effort())), rounds=1)
    print(f"\n{table(rows)}")
    assert all(row.value > 0 for row in rows)
