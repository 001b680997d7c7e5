"""The venue changes its terms while a strategy in another process runs: it knows before anything else happens."""

import asyncio
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from attached_tools import client_desk
from desk_tools import BTC, ETH, Desk, spot
from isolation_tools import until, worker_desk
from session_tools import Peer

HALF = Decimal("0.5")


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Peer]:
    peer = Peer(tmp_path, window=4, most_waiting=8)
    yield peer
    peer.desk.journal.close()


def relist(desk: Desk, **terms: Any) -> None:
    """Have the adapter hand over a list in which BTC-USDT has other terms."""
    desk.venue.ctx.listed([msgspec.structs.replace(spot(BTC), **terms), spot(ETH)])


def kinds(peer: Peer) -> list[str]:
    return [event["type"] for event in peer.events()]


def test_it_is_told_before_what_becomes_of_its_quotes_by_that(peer: Peer) -> None:
    peer.hello()
    peer.desk.top()
    quote = {"bid": 59_999.99, "bid_qty": "1", "ask": 60_001.01, "ask_qty": "1"}
    peer.turn({"type": "quote", "symbol": BTC, "quotes": [quote]})
    peer.turn()
    told = len(peer.events())
    relist(peer.desk, tick_size=HALF)
    peer.desk.settle()
    peer.turn()
    later = peer.events()[told:]
    assert [event["type"] for event in later] == ["instruments", "reports", "reports"]
    (instrument,) = later[0]["data"]
    assert (instrument["symbol"], instrument["tick_size"]) == (BTC, "0.5")
    assert {order["price"] for order in peer.reports("order")[-2:]} == {"59999.5", "60001.5"}


def test_it_is_left_out_never_however_slow_the_peer_is(peer: Peer) -> None:
    peer.hello()
    for number in range(20):
        peer.desk.top(60_000.0 + number, 60_000.1 + number)
    relist(peer.desk, tick_size=HALF)
    for number in range(20):
        peer.desk.top(61_000.0 + number, 61_000.1 + number)
    relist(peer.desk, tick_size=HALF, is_trading=False)
    for _ in range(8):
        peer.turn()
    told = [event["data"][0] for event in peer.events("instruments")]
    assert [(one["tick_size"], one.get("is_trading", True)) for one in told] == [
        ("0.5", True),
        ("0.5", False),
    ]
    assert kinds(peer).index("missed") > kinds(peer).index("instruments")
    assert peer.events("book")[-1]["data"]["bid"] == 61_019.0


def test_terms_of_symbols_that_are_not_its_own_are_not_told(peer: Peer) -> None:
    peer.hello()
    peer.desk.venue.ctx.listed([spot(BTC), msgspec.structs.replace(spot(ETH), tick_size=HALF)])
    assert peer.events("instruments") == []


def test_one_that_comes_later_is_given_the_terms_of_now(peer: Peer) -> None:
    relist(peer.desk, tick_size=HALF)
    peer.hello()
    assert peer.welcome["instruments"][0]["tick_size"] == "0.5"
    assert peer.events("instruments") == []


ROUNDER = """
from decimal import Decimal

from host.api import BookTop, NoParams, State, Strategy


class Seen(State):
    ticks: list[str] = []


class Rounder(Strategy[NoParams]):
    state: Seen

    def on_book(self, book: BookTop) -> None:
        instrument = self.ctx.instrument(book.symbol)
        self.state.ticks.append(str(instrument.tick_size))
        self.buy_limit(book.symbol, Decimal(1), instrument.price_floor(book.bid - 100))
"""


def test_a_strategy_in_a_worker_rounds_by_the_new_terms(tmp_path: Path) -> None:
    async def run() -> None:
        async with worker_desk(tmp_path) as desk:
            instance = desk.add("q", ROUNDER)
            await desk.started()
            desk.desk.top(60_000.3, 60_001.0)
            await until(lambda: len(desk.open()) == 1, "its first order")
            relist(desk.desk, tick_size=HALF)
            desk.desk.top(60_000.4, 60_001.0)
            await until(lambda: len(desk.open()) == 2, "its second order")
            assert sorted(str(order.price) for order in desk.open()) == ["59900.0", "59900.3"]
            await until(lambda: len(desk.saved().get("ticks", ())) == 2, "its state is saved")
            assert desk.saved()["ticks"] == ["0.01", "0.5"]
            assert instance.instrument(BTC).tick_size == HALF

    asyncio.run(run())


def test_a_client_knows_them_too(tmp_path: Path) -> None:
    async def run() -> None:
        async with client_desk(tmp_path) as desk:
            desk.open_door()
            client = desk.client()
            await asyncio.to_thread(client.connect)
            assert client.instrument(BTC) == spot(BTC)
            relist(desk.desk, tick_size=HALF)
            desk.desk.top()
            heard = await asyncio.to_thread(lambda: next(client.events()))
            assert heard.symbol == BTC
            assert client.instrument(BTC).tick_size == HALF
            await asyncio.to_thread(client.close)

    asyncio.run(run())
