"""The adapters at the venue server, which speaks the protocol and misbehaves on command."""

import asyncio
import random
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
    ExchangeError,
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

    async def cancel_all(self) -> None:
        """Cancel what rests, until the venue lists nothing."""
        while True:
            heard = len(self.host.of(OpenOrdersSnapshot))
            self.ask(QueryOpenOrders())
            listing = await self.host.heard(OpenOrdersSnapshot, heard + 1)
            if not listing.orders:
                return
            for order in listing.orders:
                told = self.told(order.client_id, OrderCancelled, CancelRejected, RequestUnanswered)
                self.cancel(order.client_id)
                while self.told(order.client_id, OrderCancelled, CancelRejected, RequestUnanswered) == told:
                    await asyncio.sleep(0.001)

    def told(self, client_id: str, *kinds: type[Report]) -> int:
        """Return how many reports of these types there were about one order."""
        return sum(
            isinstance(r, kinds) and getattr(r, "client_id", "") == client_id for r in self.host.reports
        )

    async def find_out(self, client_id: str) -> None:
        """Ask for an order until the venue says what it is; a busy machine may leave a question unanswered."""
        while not self.told(client_id, OrderSnapshot, OrderNotFound):
            told = self.told(client_id, OrderSnapshot, OrderNotFound, RequestUnanswered)
            self.ask(QueryOrder(client_id, self.symbol))
            while self.told(client_id, OrderSnapshot, OrderNotFound, RequestUnanswered) == told:
                await asyncio.sleep(0.001)

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


FAULTS: list[dict[str, Any]] = [
    {"kind": "drop", "request": "place", "probability": 0.2},
    {"kind": "drop_request", "request": "place", "probability": 0.2},
    {"kind": "server_error", "request": "place", "probability": 0.2},
    {"kind": "server_error", "request": "cancel", "probability": 0.2},
    {"kind": "drop", "request": "cancel", "probability": 0.2},
    {"kind": "disconnect", "request": "place", "probability": 0.05},
    {"kind": "duplicate", "request": "private", "probability": 0.3},
    {"kind": "reorder", "request": "private", "probability": 0.3, "delay_ms": 5.0},
    {"kind": "drop", "request": "private", "probability": 0.2},
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault['kind']} {fault['request']}")
@both
@story
async def test_after_random_orders_what_the_venue_tells_is_what_the_venue_has(
    fault: dict[str, Any], usdm: bool
) -> None:
    """Whatever went wrong meanwhile, each order's end and fills are found, and none was sent twice."""
    draw = random.Random(fault["kind"] + fault["request"])
    async with at_venue(usdm=usdm, answer_timeout_ms=200.0) as at:
        began_ns = at.host.now_ns() - S
        number = at.venue.fault(**fault)
        sent = []
        for count in range(60):
            client_id = f"r{count}"
            try:
                side = draw.choice(list(Side))
                far = draw.random() < 0.5
                price = at.price(side, "300" if far else "-50")
                at.place(client_id, price, side=side)
                sent.append(client_id)
                if far and draw.random() < 0.7:
                    at.cancel(client_id)
            except ExchangeError as error:  # a connection that is down for a moment
                assert "nothing was sent" in str(error), error
            await asyncio.sleep(0)
        at.venue.server.faults.remove(number)
        await eventually(lambda: at.adapter._orders is not None and len(at.adapter._orders._pending) == 0)
        await eventually(lambda: set(at.channels().values()) == {True})
        await at.cancel_all()
        for client_id in sent:  # as the host does for what is not known, and for what it thinks rests
            await at.find_out(client_id)
        at.ask(QueryFills(began_ns))
        listed = {
            (fill.client_id, fill.trade_id, fill.qty) for fill in (await at.host.heard(FillsSnapshot)).fills
        }
        told = {(fill.client_id, fill.trade_id, fill.qty) for fill in at.host.of(OrderFilled)}
        assert told <= listed
        if fault["request"] != "private":
            assert told == listed or at.venue.lines("place", "lost") or fault["kind"] == "disconnect"
        filled = {order.client_id: order.filled for order in at.host.of(OrderSnapshot)}
        for client_id, total in filled.items():
            assert sum((qty for owner, _, qty in listed if owner == client_id), Decimal(0)) == total
        refused = {report.client_id for report in at.host.of(OrderRejected)}
        assert not refused & {line.client_id for line in at.venue.lines("place")}  # a no was a no
        missing = {report.client_id for report in at.host.of(OrderNotFound)}
        assert not missing & {line.client_id for line in at.venue.lines("place")}
        ids = [line.client_id for line in at.venue.lines("place")]
        assert len(ids) == len(set(ids))
