"""The adapters against a scripted venue: what they send, what they report, and what they never assume."""

import json
import logging
import time
from decimal import Decimal
from typing import Any

import pytest
from binance_script import API_KEY, API_SECRET, BinanceScript, S, Trader, listed, scripted_binance, trading
from exchange_tools import eventually, story

from host.api import (
    AccountSnapshot,
    AmendRejected,
    BookTop,
    CancelRejected,
    Depth,
    ExchangeError,
    FillsSnapshot,
    OpenOrdersSnapshot,
    OrderAccepted,
    OrderAmended,
    OrderCancelled,
    OrderFilled,
    OrderNotFound,
    OrderRejected,
    OrderSnapshot,
    OrderStatus,
    QueryAccount,
    QueryFills,
    QueryOpenOrders,
    QueryOrder,
    RejectReason,
    RequestUnanswered,
    Trade,
)
from host.core.books import Book, DepthResult

both = pytest.mark.parametrize("usdm", [False, True], ids=["spot", "usdm"])


def quote(update_id: int, bid: str = "100.00") -> dict[str, Any]:
    return {"u": update_id, "s": "BTCUSDT", "b": bid, "B": "1", "a": "101.00", "A": "2"}


def change(first: int, last: int, prev: int) -> dict[str, Any]:
    return {
        "e": "depthUpdate",
        "E": 1,
        "s": "BTCUSDT",
        "U": first,
        "u": last,
        "pu": prev,
        "b": [["100.00", "3"]],
        "a": [],
    }


def execution(kind: str, status: str, client_id: str = "c1", **changes: Any) -> dict[str, Any]:
    fields = {
        "s": "BTCUSDT", "c": client_id, "S": "BUY", "q": "0.50", "p": "100.00", "x": kind, "X": status, "i": 77,
        "l": "0", "z": "0", "L": "0", "T": 1_700_000_000_000, "t": -1, "n": "0", "N": None, "m": False, **changes,
    }  # fmt: skip
    return {"e": "executionReport", "E": 1, **fields}


# -- market data ---------------------------------------------------------------------------------


@both
@story
async def test_quotes_books_and_trades_arrive(usdm: bool) -> None:
    async with trading(usdm=usdm) as (script, trader):
        await script.push("btcusdt@bookTicker", quote(7))
        await script.push(
            "btcusdt@trade", {"s": "BTCUSDT", "p": "100.5", "q": "2", "m": True, "t": 5, "T": 9}
        )
        top = await trader.host.heard(BookTop)
        trade = await trader.host.heard(Trade)
        book = await trader.host.heard(Depth)
        assert (top.symbol, top.bid, top.ask_size, top.seq) == (trader.symbol, 100.0, 2.0, 7)
        assert (trade.taker_is_buyer, trade.trade_id) == (False, 5)
        assert book.is_snapshot and book.seq == 100 and book.bids == ((100.0, 1.0),)


@both
@story
async def test_a_gap_is_closed_by_a_new_book_when_the_host_asks(usdm: bool) -> None:
    async with trading(usdm=usdm) as (script, trader):
        book = Book(trader.symbol)
        await trader.host.heard(Depth)
        for event in ((101, 101, 100), (105, 106, 104)):  # 102 to 104 are missing
            await script.push("btcusdt@depth@100ms", change(*event))
        await trader.host.heard(Depth, 3)
        results = [book.apply_depth(depth) for depth in trader.host.of(Depth)]
        assert results == [DepthResult.SNAPSHOT, DepthResult.APPLIED, DepthResult.GAP]
        script.book_id = 106
        trader.adapter.resync(trader.symbol)
        fresh = await trader.host.heard(Depth, 4)
        assert book.apply_depth(fresh) is DepthResult.SNAPSHOT
        assert book.is_valid or not book.depth_fault
        asked = [params for path, params in script.rest_calls if path.endswith("/depth")]
        assert asked[-1]["symbol"] == "BTCUSDT"
        assert asked[-1]["limit"] == "1000"


@both
@story
async def test_a_lost_market_connection_is_told_and_books_are_fetched_anew(usdm: bool) -> None:
    async with trading(usdm=usdm) as (script, trader):
        await trader.host.heard(Depth)
        await script.sockets["btcusdt@depth@100ms"][0].close()
        await trader.back_up("market")
        await trader.host.heard(Depth, 2)
        await script.push("btcusdt@depth@100ms", change(101, 101, 100))
        assert not (await trader.host.heard(Depth, 3)).is_snapshot


@story
async def test_a_depth_change_that_cannot_be_read_has_its_book_fetched_anew(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bad = [
        '{"stream":"btcusdt@depth@100ms","data":{"s":"BTCUSDT","U":1,"u":"x","b":[],"a":[]}}',
        '{"stream":"btcusdt@depth@100ms","data":{"s":"BTCUSDT","U":1,"u":2,"b":null,"a":[]}}',
        "this is not JSON",
    ]
    async with trading() as (script, trader):
        for count, text in enumerate(bad, start=2):
            await trader.host.heard(Depth, count - 1)
            with caplog.at_level(logging.WARNING):
                await script.push_raw("btcusdt@depth@100ms", text)
                assert (await trader.host.heard(Depth, count)).is_snapshot
        assert trader.channel_news("market") == [True]
    assert "others of this kind are counted only" in caplog.text


@story
async def test_a_message_of_5_megabytes_is_left_out_and_the_stream_goes_on() -> None:
    async with trading() as (script, trader):
        await script.push_raw(
            "btcusdt@bookTicker", json.dumps({"stream": "x@bookTicker", "data": "y" * 5_000_000})
        )
        await script.push("btcusdt@bookTicker", quote(8))
        assert (await trader.host.heard(BookTop)).seq == 8
        assert trader.channel_news("market") == [True]


@story
async def test_many_symbols_share_few_connections_and_more_can_be_added() -> None:
    async with scripted_binance() as script:
        names = [f"A{n}" for n in range(40)]
        script.symbols = [listed(name) for name in names]
        trader = Trader(script, streams_per_connection=100)
        await trader.adapter.connect()
        symbols = [f"{name}-USDT" for name in names]
        await trader.adapter.subscribe(symbols[:30])
        await trader.adapter.subscribe(symbols[30:])
        assert len(script.subscribed) == len(set(script.subscribed)) == 160
        # 40 quotes on one; 120 others on two; and the WebSocket API.
        assert len(script.venue.live) == 4
        await eventually(lambda: len(trader.host.of(Depth)) == 40)
        await trader.stop()


@story
async def test_a_planned_renewal_is_not_noticed() -> None:
    async with trading() as (script, trader):
        await trader.host.heard(Depth)
        await script.push_raw("btcusdt@trade", '{"e":"serverShutdown","E":1}')
        await eventually(lambda: len(script.sockets["btcusdt@bookTicker"]) == 2)
        await eventually(lambda: len(script.sockets["btcusdt@trade"]) == 2)
        await script.push("btcusdt@trade", {"s": "BTCUSDT", "p": "1", "q": "2", "m": True, "t": 5, "T": 9})
        await trader.host.heard(Trade)
        await script.push("btcusdt@trade", {"s": "BTCUSDT", "p": "1", "q": "2", "m": True, "t": 6, "T": 9})
        await trader.host.heard(Trade, 2)
        assert [trade.trade_id for trade in trader.host.of(Trade)] == [5, 6]  # each once, on two connections
        assert trader.channel_news("market") == [True]


# -- orders --------------------------------------------------------------------------------------


@both
@story
async def test_an_order_is_placed_amended_filled_and_cancelled(usdm: bool) -> None:
    async with trading(usdm=usdm) as (script, trader):
        trader.place()
        accepted = await trader.host.heard(OrderAccepted)
        (sent,) = script.calls("order.place")
        assert (accepted.client_id, accepted.venue_id) == ("c1", "1001")
        assert (sent["newClientOrderId"], sent["price"], sent["quantity"]) == ("c1", "100.00", "0.50")
        assert sent["type"] == ("LIMIT" if usdm else "LIMIT_MAKER")
        assert sent.get("timeInForce") == ("GTX" if usdm else None)
        if usdm:
            trader.amend()
            amended = await trader.host.heard(OrderAmended)
            assert (amended.price, amended.qty) == (Decimal("99.00"), Decimal("0.40"))
        trader.cancel()
        cancelled = await trader.host.heard(OrderCancelled)
        assert (cancelled.client_id, cancelled.filled) == ("c1", Decimal(0))


@story
async def test_private_events_become_reports_and_a_cancel_names_the_order() -> None:
    async with trading() as (script, trader):
        await script.event(execution("NEW", "NEW"))
        await script.event(
            execution(
                "TRADE", "PARTIALLY_FILLED", l="0.20", z="0.20", L="99.99", t=5, n="0.01", N="USDT", m=True
            )
        )
        await script.event(execution("CANCELED", "CANCELED", "cancel-9", C="c1", z="0.20"))
        assert (await trader.host.heard(OrderAccepted)).venue_id == "77"
        fill = await trader.host.heard(OrderFilled)
        assert (fill.price, fill.qty, fill.fee, fill.trade_id) == (
            Decimal("99.99"),
            Decimal("0.20"),
            Decimal("0.01"),
            "5",
        )
        cancelled = await trader.host.heard(OrderCancelled)
        assert (cancelled.client_id, cancelled.filled) == ("c1", Decimal("0.20"))


@both
@story
async def test_the_window_ends_no_later_than_the_deadline_on_the_venues_clock(usdm: bool) -> None:
    async with scripted_binance() as script:
        script.skew_ms = -40_000
        trader = await Trader(script, usdm=usdm).start()
        deadline_ns = trader.place()
        await trader.host.heard(OrderAccepted)
        (sent,) = script.calls("order.place")
        ends_ms = sent["timestamp"] + sent["recvWindow"] - script.skew_ms
        assert ends_ms <= deadline_ns // 1_000_000
        assert abs(sent["timestamp"] - script.skew_ms - time.time_ns() // 1_000_000) < 30_000
        await trader.stop()


@story
async def test_an_order_is_refused_while_the_clock_is_not_known_and_a_cancel_is_not() -> None:
    async with trading() as (script, trader):
        trader.adapter._clock.doubt()
        with pytest.raises(ExchangeError, match="clock is not known"):
            trader.place()
        trader.cancel()
        await trader.host.heard(OrderCancelled)
        assert not script.calls("order.place")


@both
@story
async def test_a_clock_rejection_rejects_the_order_and_has_the_clock_measured(usdm: bool) -> None:
    async with trading(usdm=usdm) as (script, trader):
        asked = len([path for path, _ in script.rest_calls if path.endswith("/time")])
        script.api["order.place"] = lambda params: (400, {"code": -1021, "msg": "Timestamp ahead"})
        trader.place()
        assert (await trader.host.heard(OrderRejected)).reason is RejectReason.EXPIRED_REQUEST
        await eventually(lambda: len([p for p, _ in script.rest_calls if p.endswith("/time")]) > asked)
        del script.api["order.place"]
        await eventually(lambda: trader.adapter._clock.error_ns(trader.host.now_ns()) >= 0)
        trader.place("c2")
        await trader.host.heard(OrderAccepted)


REFUSALS = [
    (400, -2010, "Account has insufficient balance for requested action.", RejectReason.INSUFFICIENT_FUNDS),
    (400, -2010, "Order would immediately match and take.", RejectReason.WOULD_TAKE),
    (400, -5022, "Post Only order will be rejected.", RejectReason.WOULD_TAKE),
    (400, -1013, "Filter failure: PRICE_FILTER", RejectReason.INVALID_PRICE),
    (400, -1013, "Filter failure: NOTIONAL", RejectReason.MIN_NOTIONAL),
    (400, -2022, "ReduceOnly Order is rejected.", RejectReason.REDUCE_ONLY),
    (429, -1015, "Too many new orders.", RejectReason.RATE_LIMIT),
    (401, -2015, "Invalid API-key, IP, or permissions for action.", RejectReason.UNAVAILABLE),
    (400, -31415, "A code that nobody knows.", RejectReason.OTHER),
]


@pytest.mark.parametrize(("status", "code", "message", "reason"), REFUSALS)
@story
async def test_a_refusal_is_told_in_our_words(
    status: int, code: int, message: str, reason: RejectReason
) -> None:
    async with trading() as (script, trader):
        script.api["order.place"] = lambda params: (status, {"code": code, "msg": message})
        trader.place()
        rejected = await trader.host.heard(OrderRejected)
        assert (rejected.client_id, rejected.reason) == ("c1", reason)
        assert message in rejected.text


UNKNOWN = [
    (400, -1006, "Unexpected response. Execution status unknown."),
    (400, -1007, "Timeout. Send status unknown; execution status unknown."),
    (500, -1000, "An unknown error occurred."),
    (503, -1001, "Internal error."),
    (503, -1008, "Server is currently overloaded."),  # a no with status 400, but any 5xx may be a yes
    (400, -2010, "Duplicate order sent."),  # it is there, from a request whose answer was lost
]


@pytest.mark.parametrize(("status", "code", "message"), UNKNOWN)
@both
@story
async def test_an_unknown_outcome_is_told_as_such_and_found_out_by_client_id(
    usdm: bool, status: int, code: int, message: str
) -> None:
    async with trading(usdm=usdm) as (script, trader):
        if code == -2010 and usdm:
            code = -4116
        script.api["order.place"] = lambda params: (status, {"code": code, "msg": message})
        trader.place()
        unanswered = await trader.host.heard(RequestUnanswered)
        assert unanswered.client_id == "c1"
        path = "GET /fapi/v1/order" if usdm else "GET /api/v3/order"
        script.rest[path] = lambda params: (200, script.order("c1", "NEW", "0.10"))
        trader.adapter.send(QueryOrder("c1", trader.symbol), trader.deadline_ns())
        seen = await trader.host.heard(OrderSnapshot)
        assert (seen.status, seen.filled) == (OrderStatus.PARTIALLY_FILLED, Decimal("0.10"))
        script.rest[path] = lambda params: (400, {"code": -2013, "msg": "Order does not exist."})
        trader.adapter.send(QueryOrder("c1", trader.symbol), trader.deadline_ns())
        assert (await trader.host.heard(OrderNotFound)).client_id == "c1"
        assert not trader.host.of(OrderRejected)


@story
async def test_an_answer_that_never_comes_is_told_and_a_late_one_is_ignored() -> None:
    async with trading(answer_timeout_ms=30.0) as (script, trader):
        script.api["order.place"] = lambda params: None
        trader.place()
        unanswered = await trader.host.heard(RequestUnanswered)
        assert "no answer within" in unanswered.text
        await script.api_sockets[0].send_str('{"id":"o1","status":200,"result":{"orderId":5}}')
        await script.event(execution("NEW", "NEW", "c2"))
        assert (await trader.host.heard(OrderAccepted)).client_id == "c2"


@both
@story
async def test_a_lost_order_connection_leaves_its_orders_unanswered_and_comes_back(usdm: bool) -> None:
    async with trading(usdm=usdm, answer_timeout_ms=60_000.0) as (script, trader):
        script.api["order.place"] = lambda params: None
        trader.place()
        await eventually(lambda: script.calls("order.place"))
        await script.api_sockets[-1].close()
        unanswered = await trader.host.heard(RequestUnanswered)
        assert "connection was lost" in unanswered.text
        await trader.back_up("orders")
        if not usdm:
            await trader.back_up("private")
            assert len(script.calls("userDataStream.subscribe.signature")) == 2
        del script.api["order.place"]
        trader.place("c2")
        assert (await trader.host.heard(OrderAccepted)).client_id == "c2"


@both
@story
async def test_rest_carries_orders_while_the_connection_is_down(usdm: bool) -> None:
    async with trading(usdm=usdm) as (script, trader):
        path = "/fapi/v1/order" if usdm else "/api/v3/order"
        script.rest[f"POST {path}"] = script.placed
        script.rest[f"DELETE {path}"] = lambda params: (400, {"code": -2011, "msg": "Unknown order sent."})
        script.venue.refuses = True
        await trader_api(script).close()
        await eventually(lambda: trader.channel_news("orders") == [True, False])
        trader.place()
        assert (await trader.host.heard(OrderAccepted)).client_id == "c1"
        trader.cancel()
        assert (await trader.host.heard(CancelRejected)).reason is RejectReason.UNKNOWN_ORDER
        script.rest[f"POST {path}"] = lambda params: (503, {"code": -1000, "msg": "?"})
        trader.place("c2")
        assert (await trader.host.heard(RequestUnanswered)).client_id == "c2"


def trader_api(script: BinanceScript) -> Any:
    (socket,) = script.venue.live_at("/ws-")
    return socket


@story
async def test_spot_amends_nothing_and_says_what_to_do() -> None:
    async with trading() as (script, trader):
        with pytest.raises(ExchangeError, match="nothing was sent; cancel it and place another"):
            trader.amend()
        assert [method for method, _ in script.api_calls] == ["userDataStream.subscribe.signature"]


@story
async def test_refused_amends_and_cancels_say_so() -> None:
    async with trading(usdm=True) as (script, trader):
        script.api["order.modify"] = lambda params: (400, {"code": -2013, "msg": "Order does not exist."})
        script.api["order.cancel"] = lambda params: (400, {"code": -2011, "msg": "Unknown order sent."})
        trader.amend()
        assert (await trader.host.heard(AmendRejected)).reason is RejectReason.UNKNOWN_ORDER
        trader.cancel()
        assert (await trader.host.heard(CancelRejected)).reason is RejectReason.UNKNOWN_ORDER
        # A post-only order amended into the other side is cancelled by the venue: the stream tells, or the query.
        script.api["order.modify"] = lambda params: (200, script.order("c1", "CANCELED"))
        trader.amend()
        assert (await trader.host.heard(RequestUnanswered)).client_id == "c1"


# -- limits --------------------------------------------------------------------------------------


@story
async def test_orders_stop_before_the_venue_stops_them_and_cancels_go_on() -> None:
    async with scripted_binance() as script:
        limits = [{"rateLimitType": "ORDERS", "interval": "SECOND", "intervalNum": 10, "limit": 20}]
        script.rest["GET /api/v3/exchangeInfo"] = lambda params: (
            200,
            {"symbols": script.symbols, "rateLimits": limits},
        )
        trader = await Trader(script).start()
        for number in range(18):
            trader.place(f"c{number}")
        with pytest.raises(ExchangeError, match="18 of 20 ORDERS 10 SECOND are used; nothing was sent"):
            trader.place("c18")
        trader.cancel("c0")
        await trader.host.heard(OrderCancelled)
        assert len(script.calls("order.place")) == 18
        await trader.stop()


@story
async def test_a_429_stops_everything_for_as_long_as_the_venue_says() -> None:
    async with trading() as (script, trader):
        script.rest["GET /api/v3/openOrders"] = lambda params: (
            429,
            {"code": -1003, "msg": "Too much request weight used.", "_headers": {"Retry-After": "30"}},
        )
        trader.adapter.send(QueryOpenOrders(), trader.deadline_ns())
        await trader.host.heard(RequestUnanswered)
        with pytest.raises(ExchangeError, match=r"stop for another (30\.0|2\d\.\d) s"):
            trader.place()
        trader.host.shift_ns = 31 * S
        trader.cancel()
        await trader.host.heard(OrderCancelled)


@story
async def test_the_venues_own_counts_are_believed() -> None:
    async with trading() as (script, trader):
        script.rest["GET /api/v3/account"] = lambda params: (
            200,
            {"balances": [], "_headers": {"X-MBX-USED-WEIGHT-1M": "5999"}},
        )
        trader.adapter.send(QueryAccount(), trader.deadline_ns())
        await trader.host.heard(AccountSnapshot)
        trader.adapter.send(QueryOpenOrders(), trader.deadline_ns())
        unanswered = await trader.host.heard(RequestUnanswered)
        assert "5999 of 6000" in unanswered.text


# -- queries -------------------------------------------------------------------------------------


@both
@story
async def test_open_orders_and_the_account_are_told(usdm: bool) -> None:
    async with trading(usdm=usdm) as (script, trader):
        root = "GET /fapi/v1" if usdm else "GET /api/v3"
        script.rest[f"{root}/openOrders"] = lambda params: (
            200,
            [script.order("c1", "NEW"), script.order("x", "NEW")],
        )
        script.rest["GET /fapi/v3/positionRisk"] = lambda params: (
            200,
            [
                {"symbol": "BTCUSDT", "positionAmt": "-0.5", "entryPrice": "100.5", "liquidationPrice": "0"},
                {"symbol": "ETHUSDT", "positionAmt": "0.0", "entryPrice": "0.0"},
            ],
        )
        asked_ns = trader.host.now_ns()
        trader.adapter.send(QueryOpenOrders(), trader.deadline_ns())
        listing = await trader.host.heard(OpenOrdersSnapshot)
        assert [order.client_id for order in listing.orders] == ["c1", "x"]
        assert listing.orders[0].symbol == trader.symbol
        assert listing.ts_ns >= asked_ns
        trader.adapter.send(QueryAccount(), trader.deadline_ns())
        account = await trader.host.heard(AccountSnapshot)
        assert [(b.currency, b.total) for b in account.balances] == [("USDT", Decimal(1000))]
        positions = [(p.symbol, p.qty, p.entry_price) for p in account.positions]
        assert positions == ([("BTC-USDT-PERP", Decimal("-0.5"), Decimal("100.5"))] if usdm else [])


def trade(trade_id: int, order_id: int, time_ms: int) -> dict[str, Any]:
    return {
        "symbol": "BTCUSDT",
        "id": trade_id,
        "orderId": order_id,
        "price": "100",
        "qty": "0.1",
        "commission": "0.001",
        "commissionAsset": "USDT",
        "time": time_ms,
        "isBuyer": True,
        "isMaker": True,
    }


@story
async def test_fills_are_found_over_days_and_pages_and_named_by_client_id() -> None:
    async with trading() as (script, trader):
        now_ms = script.now_ms()
        since_ms = now_ms - 60 * 3600 * 1000
        trades = [trade(n, 500, since_ms + n // 2) for n in range(1500)] + [trade(5000, 501, now_ms - 1000)]

        def my_trades(params: dict[str, str]) -> tuple[int, Any]:
            begin, end = int(params["startTime"]), int(params["endTime"])
            assert end - begin < 24 * 3600 * 1000, "the venue refuses longer spans"
            return 200, [item for item in trades if begin <= item["time"] <= end][: int(params["limit"])]

        script.rest["GET /api/v3/myTrades"] = my_trades
        script.rest["GET /api/v3/order"] = lambda params: (
            200,
            script.order(f"id{params['orderId']}", "FILLED"),
        )
        trader.adapter.send(QueryFills(since_ms * 1_000_000), trader.deadline_ns())
        listing = await trader.host.heard(FillsSnapshot)
        assert [fill.trade_id for fill in listing.fills] == [*(str(n) for n in range(1500)), "5000"]
        assert {fill.client_id for fill in listing.fills} == {"id500", "id501"}
        orders_asked = [params for path, params in script.rest_calls if path == "GET /api/v3/order"]
        assert len(orders_asked) == 2  # each order once


@story
async def test_a_trade_whose_order_the_venue_has_forgotten_is_listed_without_a_client_id() -> None:
    async with trading() as (script, trader):
        now_ms = script.now_ms()
        script.rest["GET /api/v3/myTrades"] = lambda params: (200, [trade(1, 500, now_ms)])
        script.rest["GET /api/v3/order"] = lambda params: (
            400,
            {"code": -2013, "msg": "Order does not exist."},
        )
        trader.adapter.send(QueryFills((now_ms - 1000) * 1_000_000), trader.deadline_ns())
        (fill,) = (await trader.host.heard(FillsSnapshot)).fills
        assert (fill.client_id, fill.trade_id) == ("", "1")


@story
async def test_an_answer_that_cannot_be_read_answers_nothing() -> None:
    async with trading() as (script, trader):
        script.rest["GET /api/v3/openOrders"] = lambda params: (200, {"what": "is this"})
        trader.adapter.send(QueryOpenOrders(), trader.deadline_ns())
        assert "QueryOpenOrders" in (await trader.host.heard(RequestUnanswered)).text


# -- private events in doubt ---------------------------------------------------------------------


@story
async def test_a_private_event_that_cannot_be_read_has_the_host_ask() -> None:
    async with trading() as (script, trader):
        await script.event({"e": "executionReport", "s": "BTCUSDT", "c": "c1", "x": "TRADE"})
        await trader.back_up("private")
        await script.event(execution("EATEN_BY_A_DOG", "NEW"))
        await eventually(lambda: trader.channel_news("private") == [True, False, True, False, True])
        await script.event(execution("NEW", "NEW"))
        await trader.host.heard(OrderAccepted)


@story
async def test_an_ended_event_stream_is_opened_again() -> None:
    async with trading() as (script, trader):
        await script.event({"e": "eventStreamTerminated", "E": 1})
        await trader.back_up("private", "orders")
        assert len(script.calls("userDataStream.subscribe.signature")) == 2


@story
async def test_an_expired_listen_key_is_replaced() -> None:
    async with trading(usdm=True) as (script, trader):
        (private,) = script.venue.live_at("listenKey=LK1")
        await private.send_str('{"e":"listenKeyExpired","E":1,"listenKey":"LK1"}')
        await trader.back_up("private")
        assert len([path for path, _ in script.rest_calls if path == "POST /fapi/v1/listenKey"]) == 2
        await script.venue.live_at("listenKey")[-1].send_str(
            json.dumps({"e": "ORDER_TRADE_UPDATE", "o": execution("NEW", "NEW")})
        )
        await trader.host.heard(OrderAccepted)


@story
async def test_a_listen_key_that_is_refused_for_now_is_asked_for_again_and_one_refused_for_good_is_not() -> (
    None
):
    async with trading(usdm=True) as (script, trader):
        asked = 0

        def refuse(params: dict[str, str]) -> tuple[int, Any]:
            nonlocal asked
            asked += 1
            if asked < 3:
                return 400, {"code": -1008, "msg": "Server is currently overloaded."}
            return 401, {"code": -2015, "msg": "Invalid API-key, IP, or permissions for action."}

        script.rest["POST /fapi/v1/listenKey"] = refuse
        (private,) = script.venue.live_at("listenKey=LK1")
        await private.close()
        running = next(task for task in trader.host.tasks if task.get_name() == "binance_usdm private")
        with pytest.raises(ExchangeError, match="check the key"):
            await running
        assert asked == 3
        trader.host.tasks.remove(running)


@story
async def test_a_shutdown_notice_beside_answers_renews_the_connection() -> None:
    async with trading(usdm=True) as (script, trader):
        trader.place()
        await trader.host.heard(OrderAccepted)
        await trader_api(script).send_str('{"event":{"e":"serverShutdown","E":1}}')
        await eventually(
            lambda: len([path for path in script.venue.paths if path.startswith("/ws-fapi")]) == 2
        )
        assert trader.channel_news("orders") == [True]


# -- perpetuals ----------------------------------------------------------------------------------


@story
async def test_leverage_and_margin_mode_are_set_and_no_change_is_fine() -> None:
    async with scripted_binance() as script:
        script.rest["POST /fapi/v1/marginType"] = lambda params: (
            400,
            {"code": -4046, "msg": "No need to change."},
        )
        trader = await Trader(script, usdm=True, leverage=5, margin_mode="isolated").start()
        set_to = {path: params for path, params in script.rest_calls if path.startswith("POST /fapi/v1/")}
        assert set_to["POST /fapi/v1/leverage"]["leverage"] == "5"
        assert set_to["POST /fapi/v1/marginType"]["marginType"] == "ISOLATED"
        await trader.stop()


@story
async def test_hedge_mode_is_refused_with_the_next_step() -> None:
    async with scripted_binance() as script:
        script.rest["GET /fapi/v1/positionSide/dual"] = lambda params: (200, {"dualSidePosition": True})
        trader = Trader(script, usdm=True)
        await trader.adapter.connect()
        with pytest.raises(ExchangeError, match="one-way mode is needed"):
            await trader.adapter.subscribe([trader.symbol])
        await trader.stop()


@story
async def test_the_dead_mans_switch_is_wound_up_before_the_first_order_and_kept_so() -> None:
    async with trading(usdm=True, dead_man_s=0.03) as (script, trader):
        path = "POST /fapi/v1/countdownCancelAll"
        assert not [p for p, _ in script.rest_calls if p == path]
        trader.place()
        await eventually(lambda: len([p for p, _ in script.rest_calls if p == path]) >= 3)
        calls = [params for p, params in script.rest_calls if p == path]
        assert all((call["symbol"], call["countdownTime"]) == ("BTCUSDT", "30") for call in calls)


@story
async def test_a_position_near_its_liquidation_is_told_and_senseless_ones_do_no_harm(
    caplog: pytest.LogCaptureFixture,
) -> None:
    position = {
        "symbol": "BTCUSDT",
        "positionAmt": "1",
        "entryPrice": "100",
        "markPrice": "100",
        "liquidationPrice": "NaN",
    }
    with caplog.at_level(logging.WARNING):
        async with trading(usdm=True, liquidation_alarm=0.1, liquidation_every_s=0.005) as (script, _):
            script.rest["GET /fapi/v3/positionRisk"] = lambda params: (200, [position])
            await eventually(lambda: "liquidation must be a finite number, was NaN" in caplog.text)
            position["liquidationPrice"] = "80"
            asked = len(script.rest_calls)
            await eventually(lambda: len(script.rest_calls) >= asked + 3)
            assert "from liquidation" not in caplog.text
            position["liquidationPrice"] = "95"
            await eventually(
                lambda: "BTCUSDT: the mark price 100 is 5.0 % from liquidation at 95" in caplog.text
            )


# -- connecting ----------------------------------------------------------------------------------


@both
@story
async def test_a_venue_that_is_not_there_says_so(usdm: bool) -> None:
    async with scripted_binance() as script:
        trader = Trader(script, usdm=usdm, url="http://127.0.0.1:1")
        with pytest.raises(ExchangeError, match=r"cannot connect to http://127\.0\.0\.1:1"):
            await trader.adapter.connect()
        await trader.stop()


@story
async def test_bad_settings_say_what_is_wrong() -> None:
    async with scripted_binance() as script:
        for changes, text in (
            ({"api_key": None}, r"params\.api_key is missing; store it with `tandem secret set"),
            ({"url": "127.0.0.1:80"}, "url must be http://host:port"),
        ):
            with pytest.raises(ExchangeError, match=text):
                await Trader(script, **changes).adapter.connect()
        trader = Trader(script)
        await trader.adapter.connect()
        with pytest.raises(ExchangeError, match=r"was BTC-EUR \(there are: BTC-USDT\)"):
            await trader.adapter.subscribe(["BTC-EUR"])
        await trader.stop()


@story
async def test_a_key_that_is_refused_ends_the_attempt() -> None:
    async with scripted_binance() as script:
        script.api["userDataStream.subscribe.signature"] = lambda params: (
            401,
            {"code": -2015, "msg": "Invalid API-key, IP, or permissions for action."},
        )
        with pytest.raises(ExchangeError, match="check the key"):
            await Trader(script).start()


@story
async def test_an_instrument_that_vanished_takes_no_orders_and_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with trading(instruments_every_s=0.01) as (script, trader):
        with caplog.at_level(logging.WARNING):
            script.symbols = [listed("ETH")]
            await eventually(lambda: "BTC-USDT is no longer listed" in caplog.text)
        with pytest.raises(ExchangeError, match="must be listed"):
            trader.place()
        trader.cancel()  # what rests there can still be pulled
        await trader.host.heard(OrderCancelled)


@both
@story
async def test_nothing_shows_the_credentials(usdm: bool, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        async with trading(usdm=usdm, answer_timeout_ms=20.0) as (script, trader):
            script.api["order.place"] = lambda params: None
            trader.place()
            await trader.host.heard(RequestUnanswered)
            script.rest["GET /api/v3/openOrders"] = lambda params: (
                401,
                {"code": -2015, "msg": "Invalid API-key"},
            )
            trader.adapter.send(QueryOpenOrders(), trader.deadline_ns())
            await trader_api(script).close()
            await trader.back_up("orders")
            shown = [
                repr(trader.adapter.params),
                repr(vars(trader.adapter)),
                repr(trader.host.reports),
                repr(trader.host.shared),
            ]
    shown.append(caplog.text)
    for secret in (API_SECRET, API_KEY):
        assert not [text for text in shown if secret in text]
