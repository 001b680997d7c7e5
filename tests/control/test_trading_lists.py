"""What the lists and watches of TradingService show, and what they promise about it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from trading_tools import ACCOUNT, BTC, HAND, PERP, SECOND, START_NS, Site, refused, run

from host.api import ConnectionChanged, OrderRequest, Side, TimeInForce
from host.control.plain import timestamp
from host.core import entries as e
from host.core.risk_limits import Limits, RiskConfig
from tandem.v1 import trading_pb2 as pb

UNFILLABLE = OrderRequest(
    symbol=PERP, side=Side.BUY, qty=Decimal("0.001"), price=Decimal(50_000), time_in_force=TimeInForce.FOK
)


def at(seconds: float) -> Timestamp:
    return timestamp(START_NS + round(seconds * SECOND))


async def pages(call: Callable[[Any], Awaitable[Any]], request: Any, field: str) -> list[list[Any]]:
    """Return every page of a list."""
    found = []
    while True:
        answer = await call(request)
        found.append(list(getattr(answer, field)))
        if not answer.next_page_token:
            return found
        request.page_token = answer.next_page_token


# -- lists ---------------------------------------------------------------------------------------


def test_orders_come_newest_first_in_pages_that_new_ones_do_not_move(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        names = []
        for _ in range(5):
            names.append((await site.rest()).name)
            await site.advance(0.1)
        wanted = pb.TradingFilter(instance=HAND)
        request = pb.ListOrdersRequest(page_size=2, filter=wanted)
        first = await site.trader.ListOrders(request)
        await site.rest()
        request.page_token = first.next_page_token
        rest = await pages(site.trader.ListOrders, request, "orders")
        assert [o.name for o in first.orders] == [names[4], names[3]]
        assert [[o.name for o in page] for page in rest] == [[names[2], names[1]], [names[0]]]

    run(Site(tmp_path), story)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {"spot buy", "perp sell", "bid", "ask"}),
        ({"include_done": True}, {"spot buy", "perp sell", "bid", "ask", "cancelled"}),
        ({"statuses": [pb.ORDER_STATUS_CANCELLED]}, {"cancelled"}),
        ({"statuses": [pb.ORDER_STATUS_OPEN]}, {"spot buy", "perp sell", "bid", "ask"}),
        ({"statuses": [pb.ORDER_STATUS_UNKNOWN]}, set()),
        (
            {"filter": pb.TradingFilter(account=f"accounts/{ACCOUNT}")},
            {"spot buy", "perp sell", "bid", "ask"},
        ),
        ({"filter": pb.TradingFilter(account="accounts/other")}, set()),
        ({"filter": pb.TradingFilter(instance="instances/mm")}, {"bid", "ask"}),
        ({"filter": pb.TradingFilter(symbol=PERP)}, {"perp sell"}),
        ({"filter": pb.TradingFilter(instance=HAND, side=1)}, {"spot buy"}),  # type: ignore[arg-type]
        ({"until": at(0)}, set()),
        ({"since": at(3_600)}, set()),
        ({"since": at(0), "until": at(3_600)}, {"spot buy", "perp sell", "bid", "ask"}),
    ],
)
def test_all_that_is_asked_for_of_an_order_must_fit(
    fields: dict[str, Any], expected: set[str], tmp_path: Path
) -> None:
    async def story(site: Site) -> None:
        named = {}
        gone = await site.rest()
        await site.trader.CancelOrder(pb.CancelOrderRequest(name=gone.name))
        await site.advance(0.1)
        named[gone.name] = "cancelled"
        named[(await site.rest()).name] = "spot buy"
        named[(await site.rest(symbol=PERP, side=2, price=site.price(1.1, PERP))).name] = "perp sell"
        for order in site.engine.state.orders.values():
            if order.instance == "mm":
                named[f"orders/{order.client_id}"] = "bid" if order.side == "buy" else "ask"
        answer = await site.trader.ListOrders(pb.ListOrdersRequest(**fields))
        assert {named[order.name] for order in answer.orders} == expected

    run(Site(tmp_path), story)


def test_fills_are_listed_with_the_entry_that_booked_them_and_narrowed_by_time(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        await site.hold("0.01", BTC)
        await site.advance(5.0)
        later = timestamp(site.clock.now_ns())
        await site.hold("0.01", PERP, side=2)
        answer = await site.trader.ListFills(pb.ListFillsRequest())
        assert {(fill.symbol, fill.side) for fill in answer.fills} == {(BTC, 1), (PERP, 2)}
        assert [fill.lsn for fill in answer.fills] == sorted((f.lsn for f in answer.fills), reverse=True)
        booked = site.journaled(e.Reported)
        for fill in answer.fills:
            assert fill.trade_id in {getattr(entry.report, "trade_id", "") for entry in booked}
            assert fill.instance == HAND
        narrowed: list[tuple[dict[str, Any], set[str]]] = [
            ({"since": later}, {PERP}),
            ({"until": later}, {BTC}),
            ({"filter": pb.TradingFilter(symbol=BTC)}, {BTC}),
            ({"filter": pb.TradingFilter(side=2)}, {PERP}),  # type: ignore[arg-type]
            ({"filter": pb.TradingFilter(instance="instances/mm")}, set()),
        ]
        for fields, symbols in narrowed:
            found = await pages(site.trader.ListFills, pb.ListFillsRequest(page_size=1, **fields), "fills")
            assert {fill.symbol for page in found for fill in page} == symbols

    run(Site(tmp_path), story)


def test_positions_add_up_to_the_fills_and_are_valued_at_the_mark(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        await site.hold("0.01", BTC)
        await site.hold("0.02", PERP, side=2)
        ((btc,), (perp,)) = await pages(
            site.trader.ListPositions, pb.ListPositionsRequest(page_size=1), "positions"
        )
        assert [p.name for p in (btc, perp)] == [f"{HAND}/positions/{s}" for s in (BTC, PERP)]
        assert [Decimal(p.qty) for p in (btc, perp)] == [Decimal("0.01"), Decimal("-0.02")]
        for held in (btc, perp):
            mark, average = Decimal(held.mark_price), Decimal(held.average_price)
            profit = (mark - average) * Decimal(held.qty)
            assert abs(Decimal(held.unrealised) - profit) < Decimal("0.0001")
        await site.hold("0.02", PERP, side=1)
        open_ = await site.trader.ListPositions(pb.ListPositionsRequest())
        both = await site.trader.ListPositions(pb.ListPositionsRequest(include_flat=True))
        assert [p.symbol for p in open_.positions] == [BTC]
        assert [p.symbol for p in both.positions] == [BTC, PERP]

    run(Site(tmp_path), story)


def test_balances_books_and_limits_are_listed_by_name(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        balances = await pages(site.trader.ListBalances, pb.ListBalancesRequest(page_size=1), "balances")
        assert [page[0].currency for page in balances] == ["BTC", "USDT"]
        books = await pages(site.trader.ListBooks, pb.ListBooksRequest(page_size=1), "books")
        assert [page[0].symbol for page in books] == [BTC, PERP]
        limits = await pages(site.trader.ListRiskLimits, pb.ListRiskLimitsRequest(page_size=1), "limits")
        names = [page[0].name for page in limits]
        assert names == ["instances/not-here/riskLimits", "node/riskLimits"]

    tight = Limits(max_order_qty=Decimal(5))
    run(Site(tmp_path, RiskConfig(node=tight, instances={"not-here": tight})), story)


def test_a_book_has_as_many_levels_as_asked_for_and_says_when_it_cannot_be_trusted(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        name = f"accounts/{ACCOUNT}/books/{BTC}"
        await site.advance(5.0)
        book = (await site.trader.GetBook(pb.GetBookRequest(name=name, depth=3))).book
        assert (len(book.bids), len(book.asks), book.fault, book.tick_size) == (3, 3, "", "0.1")
        assert [level.price for level in book.bids] == sorted((b.price for b in book.bids), reverse=True)
        best = (await site.trader.ListBooks(pb.ListBooksRequest())).books[0]
        assert (len(best.bids), len(best.asks)) == (1, 1)
        feed = site.engine.feeds[ACCOUNT]
        feed.report(ConnectionChanged("market", False, "scripted", site.clock.now_ns()))
        book = (await site.trader.GetBook(pb.GetBookRequest(name=name))).book
        assert "connection lost" in book.fault

    run(Site(tmp_path), story)


# -- watches -------------------------------------------------------------------------------------


def answers(call: Any) -> AsyncIterator[Any]:
    """Return the answers of a watch one after the other."""
    found: AsyncIterator[Any] = call.__aiter__()
    return found


async def until_told(watch: AsyncIterator[Any], is_it: Callable[[Any], bool]) -> Any:
    """Read a watch until an answer is what is waited for."""
    async for answer in watch:
        if is_it(answer):
            return answer
    raise AssertionError("the watch ended")


def test_a_watch_of_orders_begins_with_what_is_open_and_goes_on_with_what_changes(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        order = await site.rest()
        watch = answers(
            site.trader.WatchOrders(pb.WatchOrdersRequest(filter=pb.TradingFilter(instance=HAND)))
        )
        first = await anext(watch)
        assert (first.snapshot, [o.name for o in first.orders]) == (True, [order.name])
        await site.trader.AmendOrder(pb.AmendOrderRequest(name=order.name, qty="0.02"))
        await site.advance(0.1)
        told = await until_told(watch, lambda one: one.orders[0].qty == "0.02")
        assert not told.snapshot
        await site.trader.CancelOrder(pb.CancelOrderRequest(name=order.name))
        await site.advance(0.1)
        await until_told(watch, lambda one: one.orders[0].status == pb.ORDER_STATUS_CANCELLED)

    run(Site(tmp_path), story)


def test_an_order_that_came_and_went_between_two_answers_is_told_too(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        await site.rest()
        watch = answers(
            site.trader.WatchOrders(pb.WatchOrdersRequest(filter=pb.TradingFilter(instance=HAND)))
        )
        await anext(watch)
        # No await that lets the watch look in between: what it finds is over.
        order = site.engine.by_hand.place(ACCOUNT, UNFILLABLE, "test")
        while order.client_id not in site.engine.state.retired:
            adapter = site.engine.stepped[0]
            due_ns = adapter.next_time_ns()
            assert due_ns is not None
            site.clock.set(max(due_ns, site.clock.now_ns()))
            adapter.step(site.clock.now_ns())
        told = await until_told(watch, lambda one: True)
        assert [one.client_id for one in told.orders] == [order.client_id]
        assert told.orders[0].status in (pb.ORDER_STATUS_REJECTED, pb.ORDER_STATUS_EXPIRED)

    run(Site(tmp_path), story)


def test_a_watch_of_fills_tells_each_once_and_resumes_where_it_was_left(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        await site.hold("0.01", PERP)
        told = await anext(answers(site.trader.WatchFills(pb.WatchFillsRequest(from_lsn=1))))
        first = [fill.trade_id for fill in told.fills]
        await site.hold("0.01", PERP)
        resumed = answers(site.trader.WatchFills(pb.WatchFillsRequest(from_lsn=told.next_lsn)))
        second = [fill.trade_id for fill in (await anext(resumed)).fills]
        listed = (await site.trader.ListFills(pb.ListFillsRequest())).fills
        assert [*first, *second] == [fill.trade_id for fill in reversed(listed)]

    run(Site(tmp_path), story)


def test_a_watch_of_fills_says_at_once_where_to_resume(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        watch = answers(site.trader.WatchFills(pb.WatchFillsRequest()))
        told = await anext(watch)
        assert not told.fills
        await site.hold("0.01", PERP)
        assert len((await anext(watch)).fills) == 1
        resumed = answers(site.trader.WatchFills(pb.WatchFillsRequest(from_lsn=told.next_lsn)))
        assert len((await anext(resumed)).fills) == 1

    run(Site(tmp_path), story)


def test_fills_that_are_not_kept_any_more_are_out_of_range(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        site.engine.upkeep.snapshot(site.clock.now_ns())

    run(Site(tmp_path), story)

    async def after_restart(site: Site) -> None:
        refusal = await refused(site.trader, "WatchFills", pb.WatchFillsRequest(from_lsn=1))
        assert (refusal.code, refusal.reason) == ("OUT_OF_RANGE", "LSN_TOO_OLD")
        assert f"from entry {site.engine.fill_history.first_lsn} on" in refusal.text

    run(Site(tmp_path), after_restart)


def test_watches_of_positions_balances_and_books_tell_what_changed(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        trader = site.trader
        positions = answers(trader.WatchPositions(pb.WatchPositionsRequest()))
        balances = answers(trader.WatchBalances(pb.WatchBalancesRequest(account=f"accounts/{ACCOUNT}")))
        books = answers(trader.WatchBooks(pb.WatchBooksRequest(names=[f"accounts/{ACCOUNT}/books/{PERP}"])))
        assert not (await anext(positions)).positions
        before = {balance.currency: balance.total for balance in (await anext(balances)).balances}
        await anext(books)
        await site.hold("0.01", BTC)
        told = await until_told(positions, lambda one: bool(one.positions))
        assert [position.symbol for position in told.positions] == [BTC]
        changed = (await until_told(balances, lambda one: bool(one.balances))).balances
        assert {balance.currency for balance in changed} <= set(before)
        assert all(balance.total != before[balance.currency] for balance in changed)
        await site.advance(5.0)
        book = (await anext(books)).books[0]
        assert (book.symbol, len(book.bids)) == (PERP, 1)

    run(Site(tmp_path), story)
