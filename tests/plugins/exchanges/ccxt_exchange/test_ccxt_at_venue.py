"""The adapter trades through ccxt's own classes at a venue that speaks three protocols."""

import asyncio
import sys
from decimal import Decimal

import pytest
from ccxt_tools import DEMO, QTY, SITES, desk, params_at, url_of
from exchange_tools import FakeHost, eventually, story

from host.api import (
    AccountSnapshot,
    AmendSupport,
    BookTop,
    CancelOrder,
    CancelRejected,
    ConnectionChanged,
    Depth,
    ExchangeError,
    FillsSnapshot,
    Liquidity,
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
from plugins.exchanges.ccxt_exchange import CcxtExchange
from plugins.exchanges.ccxt_exchange.params import Product

pytest.importorskip("ccxt.pro", reason="ccxt is a development dependency; install .[dev]")

EACH = pytest.mark.parametrize("name", SITES)
ONE_OF_EACH = pytest.mark.parametrize("name", ["binance spot", "okx linear", "bybit spot"])


@EACH
@story
async def test_an_order_is_placed_found_amended_and_cancelled(name: str) -> None:
    async with desk(name) as at:
        place = at.place("mm0a1", post_only=True)
        accepted = await at.host.heard(OrderAccepted)
        at.send(QueryOrder("mm0a1", at.symbol))
        at.send(QueryOpenOrders())
        found = await at.host.heard(OrderSnapshot)
        (listed,) = (await at.host.heard(OpenOrdersSnapshot)).orders
        assert (found.venue_id, found.price, found.qty) == (accepted.venue_id, place.price, place.qty)
        assert (found.status, found.filled, listed.client_id) == (OrderStatus.OPEN, 0, "mm0a1")
        if at.adapter.amend_support is AmendSupport.NATIVE:
            assert place.price is not None
            at.amend(place, place.price - 10, place.qty * 2)
            amended = await at.host.heard(OrderAmended)
            assert (amended.price, amended.qty) == (place.price - 10, place.qty * 2)
            (theirs,) = at.venue.exchange.records(at.site.wallet).open()
            assert (theirs.order.price, theirs.order.qty) == (place.price - 10, place.qty * 2)
        at.cancel(place)
        cancelled = await at.host.heard(OrderCancelled)
        assert (cancelled.client_id, cancelled.filled) == ("mm0a1", 0)
        assert list(at.venue.exchange.records(at.site.wallet).open()) == []
        at.cancel(place)
        assert (await at.host.heard(CancelRejected)).reason is RejectReason.UNKNOWN_ORDER
        at.send(QueryOrder("mm0nobody", at.symbol))
        assert (await at.host.heard(OrderNotFound)).client_id == "mm0nobody"
        assert [line.client_id for line in at.lines("place", "batch") if line.verdict == "accepted"] == [
            "mm0a1"
        ]


@EACH
@story
async def test_what_trades_is_told_once_to_the_last_digit_and_money_is_what_the_venue_has(name: str) -> None:
    async with desk(name) as at:
        _, ask = at.best()
        at.place("mm0f1", price=ask + 500, time_in_force=TimeInForce.IOC)
        await eventually(lambda: at.venue.exchange.records(at.site.wallet).fills_since(0), "a fill")
        await at.host.heard(OrderFilled)
        at.send(QueryFills(0))
        listed = (await at.host.heard(FillsSnapshot)).fills
        theirs = at.venue.exchange.records(at.site.wallet).fills_since(0)
        await eventually(lambda: len(at.host.of(OrderFilled)) == len(theirs), "every fill")
        told = {(fill.price, fill.qty, fill.fee) for fill in theirs}
        assert {(fill.price, fill.qty, fill.fee) for fill in at.host.of(OrderFilled)} == told
        assert {(fill.price, fill.qty, fill.fee) for fill in listed} == told
        assert {(fill.client_id, fill.side, fill.liquidity) for fill in listed} == {
            ("mm0f1", Side.BUY, Liquidity.TAKER)
        }
        ids = [fill.trade_id for fill in at.host.of(OrderFilled)]
        assert len(ids) == len(set(ids)) and set(ids) == {fill.trade_id for fill in listed}
        at.send(QueryAccount())
        account = await at.host.heard(AccountSnapshot)
        wallet = at.venue.exchange.account(at.site.wallet)
        ours = {balance.currency: balance.total for balance in account.balances}
        held = {currency: total for currency, total in wallet.balances.items() if currency in ours}
        assert {currency: ours[currency] for currency in held} == pytest.approx(held, abs=Decimal("1E-8"))
        assert {"BTC", "USDT"} & held.keys()
        if at.site.product != "spot":
            (position,) = account.positions
            assert (position.symbol, position.qty) == (at.symbol, wallet.position(at.symbol))
            assert position.entry_price > 0 and position.liquidation_price >= 0


@EACH
@story
async def test_instruments_books_and_trades_are_the_venues(name: str) -> None:
    async with desk(name) as at:
        theirs = at.venue.exchange.instrument(at.symbol)
        (ours,) = [item for item in at.adapter._listings.instruments if item.symbol == at.symbol]
        assert (ours.kind, ours.base, ours.quote) == (theirs.kind, theirs.base, theirs.quote)
        assert (ours.tick_size, ours.lot_size, ours.min_qty) == (
            theirs.tick_size,
            theirs.lot_size,
            theirs.min_qty,
        )
        assert ours.contract_size == theirs.contract_size
        depth, top = at.host.of(Depth)[-1], at.host.of(BookTop)[-1]
        assert depth.is_snapshot and depth.symbol == top.symbol == at.symbol
        bids = [price for price, _ in depth.bids]
        assert bids == sorted(bids, reverse=True) and top.bid < top.ask
        shown = {price for price, _ in at.venue.exchange.snapshot(at.symbol).bids}
        assert set(bids) & shown
        before = len(at.host.of(Depth))
        at.adapter.resync(at.symbol)
        await at.host.heard(Depth, before + 1)
        at.place("mm0t1", type=OrderType.MARKET, price=None)
        qty = QTY[at.site.product]
        await eventually(
            lambda: any(t.taker_is_buyer and t.qty <= qty for t in at.host.of(Trade)), "our trade"
        )


@story
async def test_the_list_of_instruments_is_read_again_and_handed_over() -> None:
    async with desk("okx linear", instruments_every_s=0.2) as at:
        await eventually(lambda: len(at.host.lists) >= 2, "the list, twice")
        assert {item.symbol for item in at.host.lists[0]} == {"BTC-USDT-PERP", "ETH-USDT-PERP"}


@story
async def test_an_order_that_is_not_found_is_not_looked_after() -> None:
    async with desk("bybit spot", streams=False) as at:
        at.send(QueryOrder("mm0nobody", at.symbol))
        await at.host.heard(OrderNotFound)
        asked = len(at.lines("query"))
        await at.host.heard(Depth, len(at.host.of(Depth)) + 6)
        assert len(at.lines("query")) == asked


@ONE_OF_EACH
@story
async def test_all_of_it_works_without_streams(name: str) -> None:
    async with desk(name, streams=False) as at:
        place = at.place("mm0p1")
        await at.host.heard(OrderAccepted)
        at.place("mm0p2", type=OrderType.MARKET, price=None)
        await at.host.heard(OrderFilled)
        at.cancel(place)
        assert (await at.host.heard(OrderCancelled)).client_id == "mm0p1"
        await at.host.heard(Depth, 3)
        assert at.lines("subscribe", "login") == []


@ONE_OF_EACH
@story
async def test_terms_of_orders_are_kept(name: str) -> None:
    async with desk(name) as at:
        bid, ask = at.best()
        at.place("mm0maker", price=ask + 500, post_only=True)
        for number, terms in enumerate((TimeInForce.IOC, TimeInForce.FOK)):
            at.place(f"mm0t{number}", price=bid - 500, time_in_force=terms)

        def ended() -> set[str]:
            return {end.client_id for kind in (OrderExpired, OrderRejected) for end in at.host.of(kind)}

        await eventually(lambda: {"mm0t0", "mm0t1"} <= ended(), "both ended")

        def why() -> set[str]:
            rejected = {r.reason.value for r in at.host.of(OrderRejected) if r.client_id == "mm0maker"}
            return rejected | {r.reason for r in at.host.of(OrderCancelled) if r.client_id == "mm0maker"}

        await eventually(why, "the maker's end")
        assert why() == {"would_take"}
        assert at.host.of(OrderFilled) == []
        place = at.place("mm0big", qty=Decimal(10_000_000))
        await eventually(lambda: place.client_id in ended(), "the refusal")


@story
async def test_an_order_of_before_this_process_is_known_by_its_ids_alone() -> None:
    async with desk("bybit spot") as at:
        first = at.place("mm0old")
        at.place("mm0second")
        await at.host.heard(OrderAccepted, 2)
        host = FakeHost()
        later = CcxtExchange(params_at(at.site, url_of(at.venue), streams=False))
        later.ctx = host
        await later.connect()
        await later.subscribe([at.symbol])
        try:
            later.send(QueryOpenOrders(), 0)
            listed = (await host.heard(OpenOrdersSnapshot)).orders
            assert {order.client_id for order in listed} == {"mm0old", "mm0second"}
            at.place("mm0taken", type=OrderType.MARKET, price=None)
            await at.host.heard(OrderFilled)
            later.send(QueryFills(0), 0)
            assert {fill.client_id for fill in (await host.heard(FillsSnapshot)).fills} == {"mm0taken"}

            def ended() -> set[str]:
                return {end.client_id for end in host.of(OrderCancelled)}

            later.send(CancelOrder("mm0second", at.symbol), 0)
            await eventually(lambda: "mm0second" in ended(), "its end")
            at.cancel(first)
            await eventually(
                lambda: "mm0old" in ended(), "the end of one that was listed: it is looked after"
            )
        finally:
            await later.close()
            await host.stop()


# -- outcomes that are not known -------------------------------------------------------------------


@ONE_OF_EACH
@story
async def test_an_order_that_was_taken_though_the_answer_was_an_error_is_unknown_until_it_is_asked_for(
    name: str,
) -> None:
    async with desk(name) as at:
        at.fault("server_error", count=1, request="batch" if at.site.venue == "okx" else "place")
        at.place("mm0u1")
        unanswered = await at.host.heard(RequestUnanswered)
        assert unanswered.client_id == "mm0u1"
        at.send(QueryOrder("mm0u1", at.symbol))
        assert (await at.host.heard(OrderSnapshot)).status is OrderStatus.OPEN
        assert at.host.of(OrderAccepted) == []
        assert len(list(at.venue.exchange.records(at.site.wallet).open())) == 1


@ONE_OF_EACH
@story
async def test_an_order_that_was_not_taken_is_not_found(name: str) -> None:
    async with desk(name) as at:
        kind = "batch" if at.site.venue == "okx" else "place"
        at.fault("server_error", count=1, request=kind, is_executed=False)
        at.place("mm0u2")
        await at.host.heard(RequestUnanswered)
        at.send(QueryOrder("mm0u2", at.symbol))
        assert (await at.host.heard(OrderNotFound)).client_id == "mm0u2"


@story
async def test_an_answer_that_never_comes_is_told_and_what_came_of_the_order_is_found() -> None:
    async with desk("bybit spot", request_timeout_s=1.0) as at:
        at.fault("drop", count=1, request="place")
        place = at.place("mm0lost")
        assert (await at.host.heard(RequestUnanswered)).client_id == "mm0lost"
        at.cancel(place)
        assert (await at.host.heard(OrderCancelled)).client_id == "mm0lost"
        assert len(at.lines("place")) == 1


@story
async def test_too_many_requests_is_a_refusal() -> None:
    async with desk("bybit spot") as at:
        at.fault("rate_limit", count=1, request="place")
        at.place("mm0much")
        assert (await at.host.heard(OrderRejected)).reason is RejectReason.RATE_LIMIT


@story
async def test_an_order_whose_time_is_over_is_not_sent() -> None:
    async with desk("bybit spot", rate_limit=True) as at:
        place = at.place("mm0late")
        await at.host.heard(OrderAccepted)
        command = type(place)("mm0late2", *[getattr(place, f) for f in place.__struct_fields__[1:]])
        at.adapter.send(command, at.host.now_ns())
        rejected = await at.host.heard(OrderRejected)
        assert (rejected.client_id, rejected.reason) == ("mm0late2", RejectReason.UNAVAILABLE)
        assert "nothing was sent" in rejected.text
        assert [line.client_id for line in at.lines("place")] == ["mm0late"]


@story
async def test_a_venue_that_is_gone_is_told_and_so_is_its_return() -> None:
    async with desk("bybit spot", streams=False, request_timeout_s=0.5) as at:
        at.place("mm0here")
        await at.host.heard(OrderAccepted)
        at.fault("maintenance", count=10_000)
        await eventually(
            lambda: (
                {c.channel for c in at.host.of(ConnectionChanged) if not c.is_up} >= {"market", "private"}
            ),
            "both channels lost",
        )
        at.venue.server.faults.clear()

        def states() -> dict[str, bool]:
            return {change.channel: change.is_up for change in at.host.of(ConnectionChanged)}

        await eventually(lambda: states() == {"market": True, "private": True, "orders": True}, "all back")


# -- what is refused before anything is sent ---------------------------------------------------------


async def refused(name: str = "bybit spot", **params: object) -> str:
    site = SITES[name]
    async with site.serve() as venue:
        adapter, host = CcxtExchange(params_at(site, **({"url": url_of(venue)} | params))), FakeHost()
        adapter.ctx = host
        try:
            with pytest.raises(ExchangeError) as error:
                await adapter.connect()
        finally:
            await adapter.close()
            await host.stop()
        return str(error.value)


@ONE_OF_EACH
@story
async def test_a_wrong_key_is_said_and_not_shown(name: str) -> None:
    text = await refused(name, api_secret=Secret("wrong-and-secret-5be1"))
    assert "AuthenticationError" in text or "ExchangeError" in text
    assert not any(shown in text for shown in ("wrong-and-secret-5be1", DEMO.api_key))


@story
async def test_a_missing_library_names_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "ccxt.pro", None)
    assert "pip install 'tandem[ccxt]'" in await refused()


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({"venue": "krakn"}, 'was "krakn"; did you mean "kraken"'),
        ({"venue": ""}, "ccxt.exchanges lists them all"),
        ({"api_secret": None}, "params.api_secret is missing"),
        ({"url": "127.0.0.1:1"}, "url must be http://host:port"),
        ({"venue": "bigone", "amend": "native"}, "does not offer editOrder"),
        ({"venue": "bigone", "product": Product.LINEAR}, "does not offer fetchPositions"),
        ({"venue": "bigone", "sandbox": True}, "no test site"),
        ({"venue": "upbit"}, "does not offer fetchMyTrades"),
    ],
)
def test_what_cannot_work_is_refused_with_what_to_do(params: dict[str, object], says: str) -> None:
    @story
    async def run() -> None:
        assert says in await refused(**params)

    run()


@story
async def test_what_ccxt_cannot_say_is_not_sent() -> None:
    async with desk("bybit spot") as at:
        with pytest.raises(ExchangeError, match="more digits"):
            at.place("mm0digits", price=Decimal("60000.123456789012345"))
        with pytest.raises(ExchangeError, match="reduce-only"):
            at.place("mm0reduce", reduce_only=True)
        with pytest.raises(ExchangeError, match=r"was DOGE-USDT \(there are: none like it\)"):
            at.place("mm0doge", symbol="DOGE-USDT")
        await asyncio.sleep(0)
        assert at.lines("place") == []
