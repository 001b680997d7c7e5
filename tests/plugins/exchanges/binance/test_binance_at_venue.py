"""The adapters at the venue server, which speaks the protocol and misbehaves on command."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import pytest
from binance_venue import DEMO, MID, PERPETUAL, SPOT, BinanceVenue, binance_venue
from exchange_tools import FakeHost, eventually, story

from host.api import (
    AccountSnapshot,
    AmendOrder,
    BookTop,
    CancelOrder,
    CancelRejected,
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
    OrderStatus,
    OrderType,
    PlaceOrder,
    QueryAccount,
    QueryFills,
    QueryOpenOrders,
    QueryOrder,
    RejectReason,
    Report,
    RequestUnanswered,
    Secret,
    Side,
    TimeInForce,
)
from host.core.books import Book, DepthResult
from plugins.exchanges.binance.adapter import BinanceSpot, BinanceUsdm
from plugins.exchanges.binance.params import BinanceParams, BinanceUsdmParams
from venue.catalog import INSTRUMENTS

S = 1_000_000_000
both = pytest.mark.parametrize("usdm", [False, True], ids=["spot", "usdm"])
QTY = Decimal("0.010")


class AtVenue:
    """An adapter at a venue in this process, with a calm market around 60,000."""

    def __init__(self, venue: BinanceVenue, *, usdm: bool, **params: Any) -> None:
        self.symbol = PERPETUAL if usdm else SPOT
        self.venue = venue
        self.host = FakeHost()
        settings: dict[str, Any] = {
            "api_key": Secret(DEMO.api_key),
            "api_secret": Secret(DEMO.secret),
            "url": venue.url,
            "clock_error_ms": 5000.0,  # this machine may be busy
            **params,
        }
        self.adapter: BinanceSpot | BinanceUsdm = (
            BinanceUsdm(BinanceUsdmParams(**settings)) if usdm else BinanceSpot(BinanceParams(**settings))
        )
        self.adapter.ctx = self.host

    def price(self, side: Side, distance: str) -> Decimal:
        """Return a price so far away from the market that it rests, or across it (negative)."""
        return MID - Decimal(distance) if side is Side.BUY else MID + Decimal(distance)

    def place(
        self, client_id: str, price: Decimal | None, *, deadline_s: float = 30.0, **changes: Any
    ) -> None:
        fields: dict[str, Any] = {
            "client_id": client_id,
            "symbol": self.symbol,
            "side": Side.BUY,
            "type": OrderType.MARKET if price is None else OrderType.LIMIT,
            "time_in_force": TimeInForce.IOC if price is None else TimeInForce.GTC,
            "price": price,
            "qty": QTY,
            "post_only": False,
            "reduce_only": False,
            **changes,
        }
        self.adapter.send(PlaceOrder(**fields), self.host.now_ns() + round(deadline_s * S))

    def ask(self, query: Any) -> None:
        self.adapter.send(query, self.host.now_ns() + 30 * S)

    def cancel(self, client_id: str) -> None:
        self.ask(CancelOrder(client_id, self.symbol))

    def channels(self) -> dict[str, bool]:
        """Return which channels are up, as last told."""
        return {change.channel: change.is_up for change in self.host.of(ConnectionChanged)}

    async def about(self, client_id: str, *kinds: type[Report]) -> Report:
        """Wait for the first report of one of these types about one order."""

        def found() -> list[Report]:
            return [
                report
                for report in self.host.reports
                if isinstance(report, kinds) and getattr(report, "client_id", "") == client_id
            ]

        await eventually(found, f"a report about {client_id}")
        return found()[0]


@asynccontextmanager
async def at_venue(*, usdm: bool = False, **params: Any) -> AsyncIterator[AtVenue]:
    """Serve the venue and connect an adapter to it, until the block ends."""
    async with binance_venue() as venue:
        at = AtVenue(venue, usdm=usdm, **params)
        instruments = {item.symbol: item for item in await at.adapter.connect()}
        listed, expected = instruments[at.symbol], INSTRUMENTS[at.symbol]
        assert (listed.tick_size, listed.lot_size) == (expected.tick_size, expected.lot_size)
        await at.adapter.subscribe([at.symbol])
        await at.host.heard(BookTop)
        yield at
        await at.adapter.close()
        await at.host.stop()


@both
@story
async def test_an_order_rests_is_found_and_is_cancelled(usdm: bool) -> None:
    async with at_venue(usdm=usdm) as at:
        price = at.price(Side.BUY, "500")
        at.place("c1", price, post_only=True)
        accepted = await at.about("c1", OrderAccepted)
        at.ask(QueryOpenOrders())
        listing = await at.host.heard(OpenOrdersSnapshot)
        (order,) = listing.orders
        assert (order.client_id, order.price, order.qty, order.status) == ("c1", price, QTY, OrderStatus.OPEN)
        assert isinstance(accepted, OrderAccepted) and order.venue_id == accepted.venue_id
        at.cancel("c1")
        cancelled = await at.about("c1", OrderCancelled)
        assert isinstance(cancelled, OrderCancelled) and cancelled.filled == 0
        at.cancel("c1")
        refused = await at.about("c1", CancelRejected)
        assert isinstance(refused, CancelRejected) and refused.reason is RejectReason.UNKNOWN_ORDER


@both
@story
async def test_a_fill_is_told_once_with_its_fee_and_listed_the_same(usdm: bool) -> None:
    async with at_venue(usdm=usdm) as at:
        began_ns = at.host.now_ns() - S
        at.place("c1", None)
        fill = await at.about("c1", OrderFilled)
        assert isinstance(fill, OrderFilled)
        await eventually(lambda: sum(f.qty for f in at.host.of(OrderFilled)) == QTY)
        assert fill.side is Side.BUY and fill.fee > 0 and fill.liquidity == "taker"
        at.ask(QueryFills(began_ns))
        listing = await at.host.heard(FillsSnapshot)
        told = {
            item.trade_id: (item.client_id, item.price, item.qty, item.fee)
            for item in at.host.of(OrderFilled)
        }
        assert {i.trade_id: (i.client_id, i.price, i.qty, i.fee) for i in listing.fills} == told
        at.ask(QueryAccount())
        account = await at.host.heard(AccountSnapshot)
        currencies = {balance.currency for balance in account.balances}
        assert currencies >= ({"USDT"} if usdm else {"USDT", "BTC"})
        assert [(p.symbol, p.qty) for p in account.positions] == ([(PERPETUAL, QTY)] if usdm else [])


@story
async def test_a_perpetual_order_is_amended_in_place_and_reduce_only_is_kept() -> None:
    async with at_venue(usdm=True) as at:
        at.place("c1", at.price(Side.BUY, "500"), post_only=True)
        await at.about("c1", OrderAccepted)
        at.ask(AmendOrder("c1", PERPETUAL, Side.BUY, at.price(Side.BUY, "600"), Decimal("0.020")))
        amended = await at.about("c1", OrderAmended)
        assert isinstance(amended, OrderAmended)
        assert (amended.price, amended.qty) == (at.price(Side.BUY, "600"), Decimal("0.020"))
        at.ask(QueryOrder("c1", PERPETUAL))
        seen = await at.about("c1", OrderSnapshot)
        assert isinstance(seen, OrderSnapshot) and (seen.price, seen.qty) == (amended.price, amended.qty)
        at.place("c2", None, side=Side.SELL, reduce_only=True)
        refused = await at.about("c2", OrderRejected)
        assert isinstance(refused, OrderRejected) and refused.reason is RejectReason.REDUCE_ONLY


@story
async def test_the_dead_mans_switch_cancels_what_nobody_looks_after() -> None:
    async with at_venue(usdm=True, dead_man_s=0.6) as at:
        at.place("c1", at.price(Side.BUY, "500"))
        await at.about("c1", OrderAccepted)
        await eventually(lambda: at.adapter._dead_man.wound_up >= 4)  # type: ignore[union-attr]
        at.ask(QueryOrder("c1", PERPETUAL))
        seen = await at.about("c1", OrderSnapshot)
        assert isinstance(seen, OrderSnapshot) and seen.status is OrderStatus.OPEN
        for task in at.host.tasks:  # nobody winds it up any more
            if task.get_name().startswith("dead man"):
                task.cancel()
        await at.about("c1", OrderCancelled)


@pytest.mark.parametrize("way", ["post-only", "IOC", "FOK"])
@both
@story
async def test_orders_that_may_not_rest_or_may_not_take(way: str, usdm: bool) -> None:
    async with at_venue(usdm=usdm) as at:
        if way == "post-only":
            at.place("c1", at.price(Side.BUY, "-100"), post_only=True)  # a bid above the best ask
            rejected = await at.about("c1", OrderRejected)
            assert isinstance(rejected, OrderRejected) and rejected.reason is RejectReason.WOULD_TAKE
            return
        time_in_force = TimeInForce.IOC if way == "IOC" else TimeInForce.FOK
        at.place("c1", at.price(Side.BUY, "500"), time_in_force=time_in_force)
        assert await at.about("c1", OrderExpired, OrderRejected)
        at.ask(QueryOrder("c1", at.symbol))
        await eventually(lambda: at.host.of(OrderSnapshot) or at.host.of(OrderNotFound))
        assert all(order.status.is_terminal for order in at.host.of(OrderSnapshot))


@pytest.mark.parametrize("is_executed", [True, False], ids=["carried out", "not carried out"])
@pytest.mark.parametrize("kind", ["drop", "server_error", "disconnect"])
@both
@story
async def test_an_outcome_that_is_not_known_is_found_out_by_client_id(
    kind: str, is_executed: bool, usdm: bool
) -> None:
    if kind == "drop":
        kind = "drop" if is_executed else "drop_request"
        fault: dict[str, Any] = {"kind": kind, "request": "place", "count": 1}
    else:
        fault = {"kind": kind, "request": "place", "count": 1, "is_executed": is_executed}
    async with at_venue(usdm=usdm, answer_timeout_ms=300.0) as at:
        at.venue.fault(**fault)
        at.place("c1", at.price(Side.BUY, "500"))
        await at.about("c1", RequestUnanswered)
        assert not at.host.of(OrderRejected)
        await eventually(lambda: at.adapter._api is not None and at.adapter._api.is_up)
        at.ask(QueryOrder("c1", at.symbol))
        if is_executed:
            seen = await at.about("c1", OrderSnapshot)
            assert isinstance(seen, OrderSnapshot) and seen.status is OrderStatus.OPEN
        else:
            await at.about("c1", OrderNotFound)
        assert (
            len(at.venue.lines("place")) + len(at.venue.lines("place", "lost")) == 1
        )  # nothing was sent twice


@both
@story
async def test_an_order_that_arrives_after_its_deadline_is_refused_by_the_venue(usdm: bool) -> None:
    async with at_venue(usdm=usdm) as at:
        at.venue.fault(kind="latency", request="place", delay_ms=400.0, count=1)
        at.place("c1", at.price(Side.BUY, "500"), deadline_s=0.3)
        rejected = await at.about("c1", OrderRejected)
        assert isinstance(rejected, OrderRejected) and rejected.reason is RejectReason.EXPIRED_REQUEST
        at.ask(QueryOrder("c1", at.symbol))
        await at.about("c1", OrderNotFound)
        assert not at.venue.lines("place")


@both
@story
async def test_a_venue_whose_clock_is_wrong_is_traded_at_on_its_own_time(usdm: bool) -> None:
    async with at_venue(usdm=usdm) as at:
        at.venue.fault(kind="clock_skew", skew_ms=-20_000.0)
        at.place("c1", at.price(Side.BUY, "500"))  # our timestamp is 20 s ahead of the venue's clock by now
        rejected = await at.about("c1", OrderRejected)
        assert isinstance(rejected, OrderRejected) and rejected.reason is RejectReason.EXPIRED_REQUEST
        await eventually(lambda: at.adapter._clock.error_ns(at.host.now_ns()) >= 0)
        at.place("c2", at.price(Side.BUY, "500"))
        await at.about("c2", OrderAccepted)


@both
@story
async def test_lost_connections_come_back_and_lost_changes_are_seen(usdm: bool) -> None:
    async with at_venue(usdm=usdm) as at:
        book = Book(at.symbol)
        gaps = 0
        taken = 0
        at.venue.cut()
        await eventually(
            lambda: (
                {change.channel for change in at.host.of(ConnectionChanged) if not change.is_up}
                == {"market", "orders", "private"}
            )
        )
        await eventually(lambda: set(at.channels().values()) == {True})
        at.host.events.clear()
        at.adapter.resync(at.symbol)
        at.venue.fault(kind="sequence_gap", request="depth", count=1, skip=3)
        async with asyncio.timeout(30):
            while gaps < 1 or book.depth_fault:
                await asyncio.sleep(0.001)
                depths = at.host.of(Depth)
                for depth in depths[taken:]:
                    if book.apply_depth(depth) is DepthResult.GAP:
                        gaps += 1
                        at.adapter.resync(at.symbol)
                taken = len(depths)
        assert gaps == 1
        at.place("c1", at.price(Side.BUY, "500"))
        await at.about("c1", OrderAccepted)
