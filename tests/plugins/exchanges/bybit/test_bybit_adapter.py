"""The adapter at a venue that speaks Bybit: what is sent, what is told, and what is never assumed."""

from decimal import Decimal

import msgspec
import pytest
from bybit_adapter import QTY, SYMBOLS, Desk, desk, new_adapter
from bybit_venue import bybit_venue
from exchange_tools import FakeHost, eventually, story

from host.api import (
    CancelRejected,
    Depth,
    ExchangeError,
    OrderAccepted,
    OrderAmended,
    OrderCancelled,
    OrderFilled,
    OrderRejected,
    OrderSnapshot,
    OrderStatus,
    QueryOrder,
    RejectReason,
    RequestUnanswered,
    Side,
    Ticker,
    TimeInForce,
    Trade,
)
from host.core.books import Book, DepthResult
from plugins.exchanges._shared.rest import RestAnswer
from plugins.exchanges.bybit import queries
from plugins.exchanges.bybit.answers import Answer
from plugins.exchanges.bybit.rest_client import Unknown, VenueRefused
from venue.protocols.bybit import orders
from venue.protocols.faults import FaultKind


@story
async def test_books_quotes_trades_and_summaries_arrive_and_agree() -> None:
    async with desk() as at:
        await at.has_books(*SYMBOLS)
        await at.has(Trade, *SYMBOLS)
        for symbol in SYMBOLS:
            book = Book(symbol)
            for depth in at.host.of(Depth):
                if depth.symbol == symbol:
                    assert book.apply_depth(depth) in (DepthResult.APPLIED, DepthResult.SNAPSHOT)
            assert book.is_valid
        await at.has(Ticker, *SYMBOLS)
        assert at.adapter._private is not None and not at.adapter._private.bad_frames
        assert not any(market.bad_frames for market in at.adapter._markets.values())


@story
async def test_orders_go_over_the_socket() -> None:
    symbol = "BTC-USDT"
    async with desk((symbol,)) as at:
        place = at.place("c1", symbol)
        accepted = await at.host.heard(OrderAccepted)
        assert (accepted.client_id, accepted.venue_id != "") == ("c1", True)
        assert place.price is not None
        at.amend(place, place.price - 50, QTY[symbol] * 2)
        amended = await at.host.heard(OrderAmended)
        assert (amended.price, amended.qty) == (place.price - 50, QTY[symbol] * 2)
        at.cancel(place)
        cancelled = await at.host.heard(OrderCancelled)
        assert (cancelled.client_id, cancelled.reason, cancelled.filled) == ("c1", "", Decimal(0))
        sent = [
            (line.kind, line.client_id, line.verdict, line.transport)
            for line in at.venue.lines()
            if line.client_id
        ]
        assert sent == [
            ("place", "c1", "accepted", "ws"),
            ("amend", "c1", "accepted", "ws"),
            ("cancel", "c1", "accepted", "ws"),
        ]


@story
async def test_reduce_only_is_kept_by_the_venue_and_means_selling_on_spot() -> None:
    async with desk(("BTC-USDT", "BTC-USDT-PERP")) as at:
        at.place("r1", "BTC-USDT-PERP", Side.SELL, reduce_only=True)
        assert (await at.host.heard(OrderRejected)).reason is RejectReason.REDUCE_ONLY
        with pytest.raises(ExchangeError, match="reduce-only"):
            at.place("r2", "BTC-USDT", Side.BUY, reduce_only=True)


@story
async def test_orders_go_over_rest_while_the_socket_is_away_or_not_wanted() -> None:
    async with desk(("BTC-USDT",), order_entry="rest") as at:
        place = at.place("c1")
        await at.host.heard(OrderAccepted)
        at.cancel(place)
        await at.host.heard(OrderCancelled)
        at.cancel(place)
        assert (await at.host.heard(CancelRejected)).reason is RejectReason.UNKNOWN_ORDER
        assert {line.transport for line in at.venue.lines() if line.client_id} == {"rest"}


@pytest.mark.parametrize("entry", ["websocket", "rest"])
@story
async def test_what_a_turn_sends_beyond_a_quotes_two_sides_goes_out_in_batches(entry: str) -> None:
    async with desk(SYMBOLS, order_entry=entry, answer_timeout_ms=10_000.0) as at:
        await at.has_books(*SYMBOLS)
        at.adapter._limits.take_order = lambda *_args, **_more: None  # type: ignore[method-assign]  # room for all
        places = [at.place(f"c{number}", SYMBOLS[number % 3]) for number in range(39)]
        await at.host.heard(OrderAccepted, 39)
        for place in places:
            at.cancel(place)
        await at.host.heard(OrderCancelled, 39)
        methods = [line.method for line in at.venue.lines() if line.client_id]
        verbs = {verb: sum(method.endswith(verb) for method in methods) for verb in VERBS}
        # A line per order: two and one alone, the others with those of their product.
        assert verbs == {"create": 2, "create-batch": 37, "cancel": 1, "cancel-batch": 38}
        requests = {(line.arrived_ns, line.method) for line in at.venue.lines() if "batch" in line.method}
        assert len(requests) == 8  # spot takes 10 in one, the others 20


VERBS = ("create", "create-batch", "cancel", "cancel-batch")


@pytest.mark.parametrize("entry", ["websocket", "rest"])
@story
async def test_each_order_of_a_batch_has_its_own_outcome(entry: str) -> None:
    async with desk(("BTC-USDT",), order_entry=entry) as at:
        await at.has_books("BTC-USDT")
        for number in range(2):
            at.place(f"c{number}")
        at.place("c2")
        at.place("poor", qty=Decimal(10_000_000))
        at.place("c4")
        assert (await at.host.heard(OrderRejected)).client_id == "poor"
        await at.host.heard(OrderAccepted, 4)
        assert {each.client_id for each in at.host.of(OrderAccepted)} == {"c0", "c1", "c2", "c4"}


@pytest.mark.parametrize("entry", ["websocket", "rest"])
@story
async def test_what_the_answer_to_a_batch_does_not_tell_is_in_doubt(entry: str) -> None:
    async with desk(("BTC-USDT",), order_entry=entry) as at:
        await at.has_books("BTC-USDT")
        at.venue.fault(FaultKind.HALF_BATCH)
        for number in range(6):
            at.place(f"c{number}")
        await at.host.heard(RequestUnanswered, 2)
        assert {each.client_id for each in at.host.of(RequestUnanswered)} == {"c4", "c5"}
        assert at.host.of(OrderRejected) == []


@story
async def test_an_order_goes_out_before_its_own_cancel() -> None:
    async with desk(("BTC-USDT",)) as at:
        await at.has_books("BTC-USDT")
        places = [at.place(f"c{number}") for number in range(4)]
        at.cancel(places[3])
        assert (await at.host.heard(OrderCancelled)).client_id == "c3"
        methods = [
            (line.method, line.client_id) for line in at.venue.lines() if line.client_id in ("c2", "c3")
        ]
        assert methods == [("order.create-batch", "c2"), ("order.create-batch", "c3"), ("order.cancel", "c3")]


@story
async def test_a_clock_that_is_wrong_is_measured_again() -> None:
    async with desk(("BTC-USDT",)) as at:
        number = at.venue.fault(FaultKind.CLOCK_SKEW, skew_ms=20_000.0)
        at.place("c1")
        assert (await at.host.heard(OrderRejected)).reason is RejectReason.EXPIRED_REQUEST
        now_ns = at.host.now_ns()
        await eventually(
            lambda: at.adapter._clock.time_ns(now_ns) - now_ns > 19_000_000_000, "measured again"
        )
        at.place("c2")
        assert (await at.host.heard(OrderAccepted)).client_id == "c2"
        assert (
            abs((await at.host.heard(OrderAccepted)).ts_ns - now_ns) < 10_000_000_000
        )  # host time, not the venue's
        assert at.venue.server.faults.remove(number)


@story
async def test_duplicate_and_late_events_are_told_once() -> None:
    async with desk(("BTC-USDT",)) as at:
        at.venue.fault(FaultKind.DUPLICATE, request="private")
        place = at.place("c1")
        await at.host.heard(OrderAccepted)
        at.cancel(place)
        await at.host.heard(OrderCancelled)
        at.place("c2")
        await eventually(lambda: at.host.of(OrderAccepted)[-1].client_id == "c2", "the next order")
        assert [report.client_id for report in at.host.of(OrderAccepted)] == ["c1", "c2"]
        assert len(at.host.of(OrderCancelled)) == 1


def fills_of(at: Desk, client_id: str) -> list[Decimal]:
    """Return the quantities that an order was told to have traded."""
    return [fill.qty for fill in at.host.of(OrderFilled) if fill.client_id == client_id]


@story
async def test_an_execution_that_was_lost_shows_in_the_order_itself() -> None:
    async with desk(("BTC-USDT",)) as at:
        _, ask = at.venue.best("BTC-USDT")
        # The order is pushed as new, then its first execution: that one is lost.
        at.venue.fault(FaultKind.DROP, request="private", skip=1, count=1)
        place = at.place("c1", price=ask + 1, time_in_force=TimeInForce.IOC)
        seen = await at.host.heard(OrderSnapshot)
        assert (seen.client_id, seen.status, seen.filled) == ("c1", OrderStatus.FILLED, place.qty)
        assert sum(fill.qty for fill in at.host.of(OrderFilled)) < place.qty
        at.place("c2", price=ask + 1, time_in_force=TimeInForce.IOC)
        await eventually(
            lambda: sum(f.qty for f in at.host.of(OrderFilled) if f.client_id == "c2") == place.qty, "fill"
        )
        at.adapter.send(QueryOrder("c2", "BTC-USDT"), 0)
        assert (
            await at.host.heard(OrderSnapshot, 2)
        ).client_id == "c2"  # the answer, and nothing unasked for


@story
async def test_hedge_mode_is_refused() -> None:
    async with bybit_venue() as venue:
        adapter = new_adapter(venue, FakeHost())
        await adapter.connect()
        ask = adapter._rest.ask

        async def answers_as_in_hedge_mode(query: queries.Query) -> Answer:
            answer = await ask(query)
            return msgspec.structs.replace(
                answer,
                result=msgspec.Raw(bytes(answer.result).replace(b'"positionIdx":0', b'"positionIdx":1')),
            )

        adapter._rest.ask = answers_as_in_hedge_mode  # type: ignore[method-assign]  # this venue has no such mode
        with pytest.raises(ExchangeError, match="hedge mode"):
            await adapter.subscribe(["BTC-USDT-PERP"])
        await adapter.close()


@story
async def test_a_cancel_that_crosses_its_fill_does_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orders, "LATE_CANCEL_MS", 60_000)  # however busy the machine is
    async with desk(("BTC-USDT-PERP",)) as at:
        _, ask = at.venue.best("BTC-USDT-PERP")
        place = at.place("c1", "BTC-USDT-PERP", price=ask + 1, time_in_force=TimeInForce.IOC)
        at.cancel(place)  # the venue takes it in, and pushes the order a second time as filled
        await eventually(lambda: at.venue.lines("cancel"), "the cancel")
        assert at.venue.lines("cancel")[0].verdict == "accepted"
        await eventually(lambda: sum(f.qty for f in at.host.of(OrderFilled)) == place.qty, "filled")
        at.place("c2", "BTC-USDT-PERP")
        await at.host.heard(OrderAccepted, 2)
        assert not at.host.of(OrderCancelled) and not at.host.of(CancelRejected)


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (503, b'{"retCode":10001,"retMsg":"no"}', Unknown),  # whatever it says: it may have acted
        (502, b"<html>bad gateway</html>", Unknown),
        (200, b"", Unknown),
        (200, b'{"retCode":10016,"retMsg":"Server error."}', Unknown),
        (200, b'{"retCode":110007,"retMsg":"ab not enough"}', VenueRefused),
        (403, b"", VenueRefused),
        (429, b"slow down", VenueRefused),
    ],
)
@story
async def test_what_an_http_answer_means(status: int, body: bytes, error: type[Exception]) -> None:
    async with desk(("BTC-USDT",)) as at:
        with pytest.raises(error):
            at.adapter._rest._answer("/v5/order/create", RestAnswer(status, body, {}))
        if status in (403, 429):
            with pytest.raises(ExchangeError, match="told us to stop"):
                at.place("c1")


@story
async def test_leverage_and_margin_mode_are_set_once_and_again_without_harm() -> None:
    async with bybit_venue() as venue:
        for _ in range(2):
            host = FakeHost()
            leverage = {"BTC-USDT-PERP": Decimal(5)}
            adapter = new_adapter(venue, host, leverage=leverage, margin_mode="isolated")
            await adapter.connect()
            await adapter.subscribe(["BTC-USDT-PERP"])
            await adapter.close()
            await host.stop()
        verdicts = [(line.method, line.verdict) for line in venue.lines("setting")]
        assert verdicts == [
            ("POST /v5/account/set-margin-mode", "accepted"),
            ("POST /v5/position/set-leverage", "accepted"),
            ("POST /v5/account/set-margin-mode", "accepted"),
            ("POST /v5/position/set-leverage", "refused"),
        ]


@story
async def test_symbols_that_are_added_later_are_followed_on_the_same_connection() -> None:
    async with desk(("BTC-USDT-PERP",)) as at:
        connections = len(at.venue.server.courses["bybit"].connections)
        await at.adapter.subscribe(["ETH-USDT-PERP"])
        await at.has_books("ETH-USDT-PERP")
        assert len(at.venue.server.courses["bybit"].connections) == connections
        with pytest.raises(ExchangeError, match="DOGE-USDT"):
            await at.adapter.subscribe(["DOGE-USDT"])


@story
async def test_the_dead_mans_switch_is_the_connection_and_can_be_let_go() -> None:
    async with desk(("BTC-USDT",), has_disconnect_cancel=True) as at:
        assert at.adapter.dead_man is not None
        await at.adapter.arm_dead_man(10_000)
        await at.adapter.arm_dead_man(10_000)
        armed = [line for line in at.venue.lines("setting") if "disconnected" in line.method]
        assert [(line.asked["timeWindow"], line.asked["product"]) for line in armed] == [
            (10, "SPOT"),
            (10, "DERIVATIVES"),
        ]
        await eventually(lambda: at.venue.lines("subscribe")[-1].asked.get("op") == "subscribe", "watched")
        await at.adapter.arm_dead_man(0)
        await eventually(lambda: at.venue.lines("subscribe")[-1].asked.get("op") == "unsubscribe", "let go")
    async with desk(("BTC-USDT",)) as at:
        assert at.adapter.dead_man is None


@story
async def test_nothing_is_handed_over_after_close() -> None:
    async with desk(("BTC-USDT",)) as at:
        await at.has_books("BTC-USDT")
        await at.adapter.close()
        told = len(at.host.events) + len(at.host.reports)
        at.venue.cut()
        await eventually(lambda: not at.venue.server.courses["bybit"].connections, "gone")
        assert len(at.host.events) + len(at.host.reports) == told
