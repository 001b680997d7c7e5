"""A recording through Bybit's book topics: quotes on the one of the best prices, changes on the deeper ones."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from protocol_tools import START_NS, connected, open_protocols
from recording_tools import depth, script, top

from host.api import MarketEvent
from venue.protocols.bybit import public_streams
from venue.replay_market import ReplayMarket

STEP_NS = 1_000_000
QUOTES = 12
EVERY = 4
"""So many quotes come between two changes of the book."""


def events() -> list[MarketEvent]:
    told: list[MarketEvent] = [depth(START_NS, [(100.0, 5.0)], [(101.0, 5.0)], 10, is_snapshot=True)]
    for number in range(1, QUOTES + 1):
        at_ns, seq = START_NS + number * STEP_NS, 10 + 2 * number
        told.append(top(at_ns, 100.0, 5.0 + number, 101.0, 5.0, seq=seq))
        if number % EVERY == 0:
            told.append(depth(at_ns, [(99.0, float(number))], [], seq + 1))
    return told


async def test_each_recorded_quote_and_each_change_is_pushed_by_itself() -> None:
    async with (
        open_protocols("bybit", recorded=ReplayMarket(script(*events()))) as venue,
        connected(venue, "/v5/public/spot", "bybit") as socket,
    ):
        await socket.send({"op": "subscribe", "args": ["orderbook.1.XYZUSDT", "orderbook.50.XYZUSDT"]})
        greetings: list[Any] = []
        while len(greetings) < 2:
            message = await socket.next()
            greetings += [message] if "topic" in message else []
        for _ in range(QUOTES):
            venue.clock.advance(STEP_NS / 1e9)
            venue.running.step()
        told = [await socket.next() for _ in range(QUOTES + QUOTES // EVERY)]

    best = [each for each in told if each["topic"] == "orderbook.1.XYZUSDT"]
    assert [each["data"]["b"] for each in best] == [[["100", str(5 + n)]] for n in range(1, QUOTES + 1)]
    assert [each["data"]["seq"] for each in best] == [10 + 2 * n for n in range(1, QUOTES + 1)]
    assert {each["type"] for each in best} == {"snapshot"}
    deeper = [each for each in told if each["topic"] == "orderbook.50.XYZUSDT"]
    assert [each["data"]["b"][-1] for each in deeper] == [["99", str(n)] for n in (4, 8, 12)]
    numbers = [greetings[1]["data"]["u"], *(each["data"]["u"] for each in deeper)]
    assert numbers == list(range(numbers[0], numbers[0] + 4))


class Timers:
    """The running loop's timers, each of them kept."""

    def __init__(self) -> None:
        self.handles: list[asyncio.Handle] = []

    def get_running_loop(self) -> "Timers":
        return self

    def time(self) -> float:
        return asyncio.get_running_loop().time()

    def call_at(self, due_s: float, act: Callable[..., None], *args: Any) -> asyncio.Handle:
        self.handles.append(asyncio.get_running_loop().call_at(due_s, act, *args))
        return self.handles[-1]


async def test_a_topic_that_is_pushed_before_its_time_has_one_timer_and_not_one_more_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    timers = Timers()
    monkeypatch.setattr(public_streams, "asyncio", timers)
    async with (
        open_protocols("bybit", recorded=ReplayMarket(script(*events()))) as venue,
        connected(venue, "/v5/public/spot", "bybit") as socket,
    ):
        await socket.send({"op": "subscribe", "args": ["orderbook.1.XYZUSDT"]})
        while "topic" not in await socket.next():
            continue
        for _ in range(QUOTES):
            venue.clock.advance(STEP_NS / 1e9)
            venue.running.step()
        assert len(timers.handles) == QUOTES + 1
        assert [handle.cancelled() for handle in timers.handles] == [True] * QUOTES + [False]
