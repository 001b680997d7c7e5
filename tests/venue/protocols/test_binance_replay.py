"""A recording through the venue's streams: every message once, with its own ids, whoever came when."""

import msgspec
import pytest
from protocol_tools import START_NS, Binance, connected, open_protocols, until
from recording_tools import depth, script, top, trade

from host.api import MarketEvent, Side
from venue.replay_market import ReplayMarket

STEP_NS = 1_000_000
CHANGES = 50


def events() -> list[MarketEvent]:
    """A book and then, each millisecond, a change of three ids, a top and a trade."""
    told: list[MarketEvent] = [depth(START_NS, [(100.0, 5.0)], [(101.0, 5.0)], 10, is_snapshot=True)]
    for number in range(1, CHANGES + 1):
        at_ns = START_NS + number * STEP_NS
        change = depth(at_ns, [(100.0, 5.0 + number)], [(101.0 + number % 3, number)], 10 + 3 * number)
        told.append(top(at_ns, 100.0, 5.0 + number, 101.0, 5.0, seq=change.seq))
        told.append(msgspec.structs.replace(change, first_seq=change.seq - 2))
        told.append(trade(at_ns, 101.0, 0.5, Side.BUY))
    return told


@pytest.mark.parametrize("before", [0, 7])
async def test_every_recorded_message_is_sent_once_with_its_own_ids(before: int) -> None:
    streams = "xyzusdt@depth@100ms/xyzusdt@bookTicker/xyzusdt@trade"
    async with open_protocols(recorded=ReplayMarket(script(*events()))) as venue:
        for _ in range(before):
            venue.clock.advance(STEP_NS / 1e9)
            venue.running.step()
        async with connected(venue, f"/stream?streams={streams}") as socket:
            await until(lambda: bool(venue.server.courses["binance"].connections))
            for _ in range(CHANGES - before):
                venue.clock.advance(STEP_NS / 1e9)
                venue.running.step()
            told = [await socket.next() for _ in range(3 * (CHANGES - before))]
        book = (await Binance(venue).public("/api/v3/depth", symbol="XYZUSDT")).body

    changes = [each["data"] for each in told if each["stream"].endswith("@100ms")]
    assert [(each["U"], each["u"]) for each in changes] == [
        (8 + 3 * number, 10 + 3 * number) for number in range(before + 1, CHANGES + 1)
    ]
    assert [each["data"]["u"] for each in told if each["stream"].endswith("bookTicker")] == [
        each["u"] for each in changes
    ]
    assert sum(each["stream"].endswith("@trade") for each in told) == len(changes)
    assert book["lastUpdateId"] == 10 + 3 * CHANGES
