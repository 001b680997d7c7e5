"""The adapter at the venue server, which speaks the protocol and misbehaves on command."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from exchange_tools import FakeHost, eventually, story
from msgspec import Struct
from okx_venue import DEMO, OkxVenue, okx_venue

from host.api import (
    AccountSnapshot,
    AmendOrder,
    BookTop,
    CancelOrder,
    ConnectionChanged,
    Depth,
    FillsSnapshot,
    OpenOrdersSnapshot,
    OrderAccepted,
    OrderAmended,
    OrderCancelled,
    OrderExpired,
    OrderFilled,
    OrderNotFound,
    OrderRejected,
    OrderSnapshot,
    OrderType,
    PlaceOrder,
    QueryAccount,
    QueryFills,
    QueryOpenOrders,
    QueryOrder,
    RejectReason,
    RequestUnanswered,
    Secret,
    Side,
    TimeInForce,
    Trade,
)
from host.core.books import Book, DepthResult
from plugins.exchanges.okx import Okx
from plugins.exchanges.okx.params import OkxParams
from venue.protocols.faults import FaultKind

SYMBOLS = ("BTC-USDT", "BTC-USDT-PERP", "BTC-USD-PERP")
EACH = pytest.mark.parametrize("symbol", SYMBOLS)
INST_IDS = {"BTC-USDT": "BTC-USDT", "BTC-USDT-PERP": "BTC-USDT-SWAP", "BTC-USD-PERP": "BTC-USD-SWAP"}
QTY = {"BTC-USDT": Decimal("0.01"), "BTC-USDT-PERP": Decimal("0.01"), "BTC-USD-PERP": Decimal(100)}
WINDOW_NS = 10_000_000_000


class Desk(Struct):
    """An adapter, its host and its venue."""

    venue: OkxVenue
    host: FakeHost
    adapter: Okx

    def place(
        self, client_id: str, symbol: str = "BTC-USDT", side: Side = Side.BUY, **terms: Any
    ) -> PlaceOrder:
        """Send a limit order 100 away from the best price, unless the terms say otherwise; return it."""
        bid, ask = self.venue.best(symbol)
        away = bid - 100 if side is Side.BUY else ask + 100
        place = PlaceOrder(
            client_id, symbol, side, OrderType.LIMIT, TimeInForce.GTC, away, QTY[symbol], False, False
        )
        place = msgspec.structs.replace(place, **terms)
        self.adapter.send(place, self.deadline_ns())
        return place

    def amend(self, place: PlaceOrder, price: Decimal, qty: Decimal) -> None:
        """Send an amend of an order."""
        amend = AmendOrder(place.client_id, place.symbol, place.side, price, qty)
        self.adapter.send(amend, self.deadline_ns())

    def cancel(self, place: PlaceOrder) -> None:
        """Send a cancel of an order."""
        self.adapter.send(CancelOrder(place.client_id, place.symbol), self.deadline_ns())

    def deadline_ns(self) -> int:
        """Return the end of a usual order window."""
        return self.host.now_ns() + WINDOW_NS

    def open_ids(self) -> set[str]:
        """Return the client ids of what is open at the venue."""
        return {record.order.client_id for record in self.venue.exchange.records("demo/trading").open()}

    async def books_agree(self, symbol: str) -> None:
        """Wait until the book that the events build is the venue's."""
        book, seen = Book(symbol), 0

        def agrees() -> bool:
            nonlocal seen
            for event in self.host.events[seen:]:
                if isinstance(event, Depth) and event.symbol == symbol:
                    book.apply_depth(event)
            seen = len(self.host.events)
            found = self.venue.exchange.snapshot(symbol)
            bids, asks = book.levels(5)
            return bool(bids) and _near(bids, found.bids[:5]) and _near(asks, found.asks[:5])

        await eventually(agrees, f"the book of {symbol}")


def _near(ours: Any, theirs: Any) -> bool:
    return [pytest.approx(level) for level in ours] == [tuple(level) for level in theirs]


@asynccontextmanager
async def adapter_at(venue: OkxVenue, **params: Any) -> AsyncIterator[tuple[FakeHost, Okx]]:
    """Connect an adapter of the demo account."""
    host = FakeHost()
    usual: dict[str, Any] = {
        "api_key": Secret(DEMO.api_key),
        "api_secret": Secret(DEMO.secret),
        "passphrase": Secret(DEMO.passphrase),
        "url": venue.rest_url,
        "answer_timeout_ms": 20_000.0,
        "max_clock_error_ms": 5_000.0,  # this machine may be busy
    }
    adapter = Okx(OkxParams(**(usual | params)))
    adapter.ctx = host
    try:
        await adapter.connect()
        yield host, adapter
    finally:
        await adapter.close()
        await host.stop()


@asynccontextmanager
async def desk(symbols: tuple[str, ...] = SYMBOLS, **params: Any) -> AsyncIterator[Desk]:
    """Open a venue and an adapter that follows `symbols` there."""
    async with okx_venue() as venue, adapter_at(venue, **params) as (host, adapter):
        await adapter.subscribe(symbols)
        yield Desk(venue, host, adapter)


@EACH
@story
async def test_tops_books_and_trades_come_and_the_book_is_the_venues(symbol: str) -> None:
    async with desk() as at:
        await eventually(lambda: any(top.symbol == symbol for top in at.host.of(BookTop)))
        await eventually(lambda: any(trade.symbol == symbol for trade in at.host.of(Trade)))
        await at.books_agree(symbol)


@story
async def test_each_instrument_has_its_own_fees() -> None:
    async with desk() as at:
        for instrument in at.adapter._listings.instruments:
            ours = at.venue.exchange.instrument(instrument.symbol)
            assert (instrument.maker_fee, instrument.taker_fee) == (ours.maker_fee, ours.taker_fee)


@EACH
@story
async def test_an_order_is_placed_amended_and_cancelled(symbol: str) -> None:
    async with desk() as at:
        placed = at.place("c1", symbol)
        assert (await at.host.heard(OrderAccepted)).client_id == "c1"
        assert placed.price is not None
        at.amend(placed, placed.price - 1, placed.qty * 2)
        amended = await at.host.heard(OrderAmended)
        assert (amended.price, amended.qty) == (placed.price - 1, placed.qty * 2)
        at.cancel(placed)
        assert (await at.host.heard(OrderCancelled)).filled == 0
        assert at.open_ids() == set()
        lines = [line for line in at.venue.lines() if line.kind in ("place", "amend", "cancel")]
        assert [(line.kind, line.transport) for line in lines] == [
            ("place", "ws"),
            ("amend", "ws"),
            ("cancel", "ws"),
        ]


@EACH
@story
async def test_a_fill_is_told_once_and_agrees_with_the_list_and_the_balances(symbol: str) -> None:
    async with desk() as at:
        at.adapter.send(QueryAccount(), 0)
        before = await at.host.heard(AccountSnapshot)
        ask = at.venue.best(symbol)[1]
        at.place("c1", symbol, price=ask + 1000)
        await eventually(lambda: sum(fill.qty for fill in at.host.of(OrderFilled)) == QTY[symbol])
        at.adapter.send(QueryFills(at.host.now_ns() - 60_000_000_000), 0)
        listed = (await at.host.heard(FillsSnapshot)).fills
        told = at.host.of(OrderFilled)
        assert [fill.trade_id for fill in listed] == [fill.trade_id for fill in told]
        assert [(f.price, f.qty, f.fee, f.fee_currency) for f in listed] == [
            (f.price, f.qty, f.fee, f.fee_currency) for f in told
        ]
        at.adapter.send(QueryAccount(), 0)
        after = await at.host.heard(AccountSnapshot, 2)
        if symbol == "BTC-USDT":
            fees = sum((fill.fee for fill in told), Decimal(0))
            gained = total(after, "BTC") - total(before, "BTC")
            assert {fill.fee_currency for fill in told} == {"BTC"}
            assert gained == QTY[symbol] - fees
            assert after.positions == ()
        else:
            (position,) = after.positions
            assert (position.symbol, position.qty) == (symbol, QTY[symbol])


def total(account: AccountSnapshot, currency: str) -> Decimal:
    return next(balance.total for balance in account.balances if balance.currency == currency)


@story
async def test_a_post_only_order_that_would_cross_was_rejected() -> None:
    async with desk() as at:
        at.place("c1", price=at.venue.best("BTC-USDT")[1] + 100, post_only=True)
        assert (await at.host.heard(OrderRejected)).reason is RejectReason.WOULD_TAKE


@pytest.mark.parametrize("time_in_force", [TimeInForce.IOC, TimeInForce.FOK])
def test_what_cannot_be_filled_at_once_expires(time_in_force: TimeInForce) -> None:
    @story
    async def run() -> None:
        async with desk() as at:
            at.place("c1", time_in_force=time_in_force)
            assert (await at.host.heard(OrderExpired)).filled == 0

    run()


@story
async def test_a_reduce_only_order_without_a_position_is_refused() -> None:
    async with desk() as at:
        at.place("c1", "BTC-USDT-PERP", Side.SELL, reduce_only=True)
        assert (await at.host.heard(OrderRejected)).reason is RejectReason.REDUCE_ONLY


@story
async def test_cancelling_everything_leaves_nothing_open() -> None:
    async with desk() as at:
        placed = [at.place(f"c{number}", SYMBOLS[number % 3]) for number in range(45)]
        await at.host.heard(OrderAccepted, 45)
        for place in placed:
            at.cancel(place)
        await at.host.heard(OrderCancelled, 45)
        assert at.open_ids() == set()
        methods = [line.method for line in at.venue.lines()]
        counts = {
            each: methods.count(each)
            for each in ("order", "batch-orders", "cancel-order", "batch-cancel-orders")
        }
        # A line per order: 2 and 43 in batches, 1 and 44.
        assert counts == {"order": 2, "batch-orders": 43, "cancel-order": 1, "batch-cancel-orders": 44}


@story
async def test_an_answer_that_is_lost_is_no_news_and_the_push_is() -> None:
    async with desk() as at:
        at.venue.fault(FaultKind.DROP, request="place", count=1)
        at.place("c1")
        assert (await at.host.heard(OrderAccepted)).client_id == "c1"
        assert at.host.of(RequestUnanswered) == []


@story
async def test_a_request_that_is_lost_is_unanswered_and_then_not_found() -> None:
    async with desk(answer_timeout_ms=400.0) as at:
        at.venue.fault(FaultKind.DROP_REQUEST, request="place", count=1)
        at.place("c1")
        assert (await at.host.heard(RequestUnanswered)).client_id == "c1"
        at.adapter.send(QueryOrder("c1", "BTC-USDT"), 0)
        assert (await at.host.heard(OrderNotFound)).client_id == "c1"


@story
async def test_a_server_error_with_the_order_accepted_is_unknown_until_asked() -> None:
    async with desk(order_entry="rest", answer_timeout_ms=20_000.0) as at:
        at.venue.fault(FaultKind.SERVER_ERROR, request="place", count=1)
        at.venue.fault(FaultKind.DROP, request="private", count=1)  # nor does the stream tell
        at.place("c1")
        assert (await at.host.heard(RequestUnanswered)).client_id == "c1"
        at.adapter.send(QueryOrder("c1", "BTC-USDT"), 0)
        assert (await at.host.heard(OrderSnapshot)).client_id == "c1"
        assert len([line for line in at.venue.lines("place") if line.verdict == "accepted"]) == 1


@story
async def test_a_request_that_is_held_past_its_window_is_never_live() -> None:
    async with desk() as at:
        at.venue.fault(FaultKind.LATENCY, request="place", count=1, delay_ms=3000.0)
        bid, _ = at.venue.best("BTC-USDT")
        place = PlaceOrder("c1", "BTC-USDT", Side.BUY, OrderType.LIMIT, TimeInForce.GTC, bid - 100,
                           QTY["BTC-USDT"], False, False)  # fmt: skip
        at.adapter.send(place, at.host.now_ns() + 2_500_000_000)
        assert (await at.host.heard(RequestUnanswered)).client_id == "c1"  # 51149 does not say
        at.adapter.send(QueryOrder("c1", "BTC-USDT"), 0)
        await at.host.heard(OrderNotFound)
        assert at.open_ids() == set()


@story
async def test_after_a_broken_connection_everything_is_found_again() -> None:
    async with desk() as at:
        placed = at.place("c1")
        await at.host.heard(OrderAccepted)
        at.venue.cut()
        await eventually(
            lambda: [c.channel for c in at.host.of(ConnectionChanged) if not c.is_up].count("market") == 1
        )
        await eventually(lambda: len([c for c in at.host.of(ConnectionChanged) if c.is_up]) == 6)
        at.adapter.send(QueryOpenOrders(), 0)
        (found,) = (await at.host.heard(OpenOrdersSnapshot)).orders
        assert (found.client_id, found.price) == ("c1", placed.price)
        at.cancel(placed)
        await at.host.heard(OrderCancelled)
        await at.books_agree("BTC-USDT")


@story
async def test_a_gap_is_noticed_and_mended() -> None:
    async with desk(("BTC-USDT",)) as at:
        at.venue.fault(FaultKind.SEQUENCE_GAP, request="depth", skip=2, count=1)
        book, seen, gaps = Book("BTC-USDT"), 0, 0

        def is_mended() -> bool:
            nonlocal seen, gaps
            for event in at.host.events[seen:]:
                if isinstance(event, Depth) and book.apply_depth(event) is DepthResult.GAP:
                    gaps += 1
                    at.adapter.resync("BTC-USDT")
            seen = len(at.host.events)
            return gaps == 1 and not book.depth_fault

        await eventually(is_mended, "the book after a gap")
        await at.books_agree("BTC-USDT")


@story
async def test_a_wrong_clock_at_the_venue_is_measured_again() -> None:
    async with desk() as at:
        number = at.venue.fault(FaultKind.CLOCK_SKEW, skew_ms=60_000.0)
        at.place("c1")  # its window ended a minute ago, by the venue's new clock
        assert (await at.host.heard(RequestUnanswered)).client_id == "c1"
        at.adapter.send(QueryOrder("c1", "BTC-USDT"), 0)  # refused for its time, which has the clock measured
        await eventually(lambda: at.adapter._clock.time_ns(0) > 55_000_000_000, "the new clock")
        at.place("c2")
        assert (await at.host.heard(OrderAccepted)).client_id == "c2"
        at.venue.server.faults.remove(number)


@story
async def test_the_dead_mans_switch_is_set_at_the_venue_under_the_orders_tag() -> None:
    async with desk() as at:
        at.place("tdmt1ai1n1")
        await at.host.heard(OrderAccepted)
        await at.adapter.arm_dead_man(10_000, tag="tdmt1ai")
        (record,) = at.venue.exchange.records("demo/trading").open()
        front: Any = at.venue.server.courses["okx"].front
        assert set(front._switches._timers) == {("demo", record.terms.tag)}
        await at.adapter.arm_dead_man(0, tag="tdmt1ai")
        assert not front._switches._timers
