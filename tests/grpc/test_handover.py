"""Deltas between a thread and the event loop: none lost, none out of order, fewer messages where the caller is slow."""

from __future__ import annotations

import asyncio
import threading
import time

from tabml.generation.results import Delta, TokenLogprob, ToolCall, Usage
from tabml_grpc.handover import Handover

USAGE = Usage(prompt_tokens=1, completion_tokens=2)


def handed(
    deltas: list[Delta], *, one_by_one: bool = False, reader_s: float = 0.0, pause_s: float = 0.0
) -> list[Delta]:
    async def main() -> list[Delta]:
        handover, found, seen = Handover(), [], threading.Semaphore(0)

        def make() -> None:
            for delta in deltas:
                handover.put(delta)
                if one_by_one:
                    assert seen.acquire(timeout=10)
                time.sleep(pause_s)
            handover.put(None)

        thread = threading.Thread(target=make)
        thread.start()
        async for delta in handover.deltas():
            found.append(delta)
            seen.release()
            await asyncio.sleep(reader_s)
        thread.join()
        return found

    return asyncio.run(asyncio.wait_for(main(), 20))


def some(count: int, index: int = 0) -> list[Delta]:
    return [
        Delta(
            text=f"{number} ",
            index=index,
            token_ids=(number,),
            logprobs=(TokenLogprob(token_id=number, text=f"{number} ", logprob=-1.0),),
        )
        for number in range(count)
    ]


def test_who_reads_at_once_gets_each_delta_as_it_is() -> None:
    deltas = some(20)
    assert handed(deltas, one_by_one=True) == deltas


def test_what_has_gathered_goes_as_one() -> None:
    deltas = [*some(200), Delta(text="end", finish_reason="stop", usage=USAGE)]
    found = handed(deltas, reader_s=0.02)
    assert len(found) < 10
    assert max(len(delta.token_ids) for delta in found) <= 64
    assert "".join(delta.text for delta in found) == "".join(delta.text for delta in deltas)
    assert [token for delta in found for token in delta.token_ids] == list(range(200))
    assert [one.token_id for delta in found for one in delta.logprobs] == list(range(200))
    assert [delta.finish_reason for delta in found] == [None] * (len(found) - 1) + ["stop"]
    assert found[-1].usage == USAGE


def test_tokens_that_come_faster_than_anybody_looks_go_as_few_messages() -> None:
    found = handed([*some(100), Delta(text="", finish_reason="stop", usage=USAGE)], pause_s=0.001)
    assert [token for delta in found for token in delta.token_ids] == list(range(100))
    assert len(found) < 50
    assert found[-1].usage == USAGE


def test_tokens_that_come_slowly_go_one_by_one() -> None:
    deltas = some(5)
    assert handed(deltas, pause_s=0.1) == deltas


def test_several_answers_gather_each_for_itself() -> None:
    turns = [delta for all_ in zip(*(some(40, index) for index in range(4)), strict=True) for delta in all_]
    ends = [Delta(text="", index=index, finish_reason="stop") for index in (2, 0, 3)]
    found = handed([*turns, *ends, Delta(text="", index=1, finish_reason="stop", usage=USAGE)], reader_s=0.01)
    for index in range(4):
        mine = [delta for delta in found if delta.index == index]
        assert [token for delta in mine for token in delta.token_ids] == list(range(40))
        assert [delta.finish_reason for delta in mine] == [None] * (len(mine) - 1) + ["stop"]
    assert len(found) < 40
    assert found[-1].usage == USAGE


def test_the_end_of_one_answer_does_not_wait_for_the_others() -> None:
    ends = [Delta(text="", index=0, finish_reason="stop")]
    more = [Delta(text="", index=1, finish_reason="stop", usage=USAGE)]
    found = handed([*some(3), *ends, *some(2000, index=1), *more], reader_s=0.01, pause_s=0.0001)
    at = next(number for number, delta in enumerate(found) if delta.index == 0 and delta.finish_reason)
    assert at <= 4


def test_joined_deltas_keep_every_tool_call() -> None:
    calls = [ToolCall(name=name, arguments="{}", id=name) for name in ("one", "two")]
    deltas = [
        Delta(text="a"),
        *(Delta(text="", tool_calls=(call,)) for call in calls),
        Delta(text="b", finish_reason="tool_calls", usage=USAGE),
    ]
    found = handed(deltas)
    assert [call for delta in found for call in delta.tool_calls] == calls
    assert len(found) < len(deltas)


def test_answers_are_not_mixed_and_ends_stay_ends() -> None:
    end = Delta(text="", finish_reason="length")
    deltas = [*some(3), end, *some(3, index=1), Delta(text="", index=1, finish_reason="stop", usage=USAGE)]
    found = handed(deltas)
    for index in (0, 1):
        mine = [delta for delta in found if delta.index == index]
        assert "".join(delta.text for delta in mine) == "0 1 2 "
        assert mine[-1].finish_reason == ("stop" if index else "length")
        assert not any(delta.finish_reason for delta in mine[:-1])


def test_a_loop_that_has_ended_stops_nobody() -> None:
    async def make() -> Handover:
        return Handover()

    handover = asyncio.run(make())
    for delta in some(3):
        handover.put(delta)
