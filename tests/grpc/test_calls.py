"""What every call passes through, where no client can bring it about when a test wants it."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from tabml.errors import CallCancelledError
from tabml_grpc.calls import Call, MethodCount


class Gone:
    """A context whose caller was killed while an answer was written: what gRPC raises then, 1 time in 8."""

    def invocation_metadata(self) -> None:
        return None

    async def write(self, message: bytes) -> None:
        raise grpc.aio.InternalError('Failed "execute_batch"')


def test_a_connection_that_breaks_in_the_middle_of_an_answer_is_the_callers_end() -> None:
    async def main() -> None:
        context: Any = Gone()
        await Call("/a.B/C", context, MethodCount()).send(b"answer")

    with pytest.raises(CallCancelledError, match="gone"):
        asyncio.run(main())
