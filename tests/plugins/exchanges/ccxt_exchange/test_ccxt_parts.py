"""The parts of the ccxt adapter that need no venue: verdicts, numbers, orders, the queue."""

import asyncio
import importlib
from decimal import Decimal
from typing import Any, ClassVar

import pytest
from exchange_tools import eventually, story
from hypothesis import given
from hypothesis import strategies as st

from host.api import (
    ExchangeError,
    Instrument,
    InstrumentKind,
    OrderAccepted,
    OrderAmended,
    OrderCancelled,
    OrderExpired,
    OrderRejected,
    OrderStatus,
    OrderType,
    PlaceOrder,
    RejectReason,
    Side,
    TimeInForce,
)
from plugins.exchanges._shared.verdicts import Action
from plugins.exchanges.ccxt_exchange.calls import Calls
from plugins.exchanges.ccxt_exchange.codec import balances_of, fill_of, levels_of, position_of, status_of
from plugins.exchanges.ccxt_exchange.errors import NotSent, verdict_on
from plugins.exchanges.ccxt_exchange.numbers import BadData, as_float, decimal_of, read_number, reading
from plugins.exchanges.ccxt_exchange.order_finder import OrderFinder
from plugins.exchanges.ccxt_exchange.order_tracker import OrderTracker
from plugins.exchanges.ccxt_exchange.params import CcxtParams
from plugins.exchanges.ccxt_exchange.products import Listing
from plugins.exchanges.ccxt_exchange.throttle import CANCEL, ORDER, QUESTION, CancelsFirst, Turn, taking_turns

ccxt = pytest.importorskip("ccxt", reason="ccxt is a development dependency; install .[dev]")

D = Decimal
SWAP = Listing(
    Instrument(
        symbol="BTC-USDT-PERP",
        kind=InstrumentKind.LINEAR,
        base="BTC",
        quote="USDT",
        tick_size=D("0.1"),
        lot_size=D("0.01"),
    ),
    "BTC/USDT:USDT",
    D("0.01"),
)
"""A contract is worth 0.01 BTC."""


def row(**fields: Any) -> dict[str, Any]:
    usual = {"id": "v1", "clientOrderId": "mm1", "side": "buy", "type": "limit", "status": "open"}
    return usual | {"price": "100.5", "amount": "3", "filled": "0"} | fields


def place(**terms: Any) -> PlaceOrder:
    usual: dict[str, Any] = {
        "client_id": "mm1",
        "symbol": SWAP.symbol,
        "side": Side.BUY,
        "type": OrderType.LIMIT,
        "time_in_force": TimeInForce.GTC,
        "price": D("100.5"),
        "qty": D("0.03"),
        "post_only": False,
        "reduce_only": False,
    }
    return PlaceOrder(**(usual | terms))


# -- verdicts ----------------------------------------------------------------------------------------


def test_every_error_class_of_the_library_has_a_verdict_and_none_but_a_plain_no_ends_an_order() -> None:
    said_no = {
        "AuthenticationError", "PermissionDenied", "AccountNotEnabled", "AccountSuspended", "ArgumentsRequired",
        "BadRequest", "BadSymbol", "OperationRejected", "NoChange", "MarginModeAlreadySet", "MarketClosed",
        "ManualInteractionNeeded", "RestrictedLocation", "InsufficientFunds", "InvalidOrder", "OrderNotFound",
        "OrderNotCached", "OrderImmediatelyFillable", "OrderNotFillable", "ContractUnavailable", "NotSupported",
        "RateLimitExceeded", "InvalidNonce",
    }  # fmt: skip
    errors = vars(importlib.import_module("ccxt.base.errors")).values()
    classes = [cls for cls in errors if isinstance(cls, type) and issubclass(cls, ccxt.BaseError)]
    assert len(classes) > 35
    found = {cls.__name__ for cls in classes if verdict_on(cls("text")).action is not Action.UNKNOWN}
    assert found == said_no


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("InsufficientFunds", RejectReason.INSUFFICIENT_FUNDS),
        ("OrderImmediatelyFillable", RejectReason.WOULD_TAKE),
        ("OrderNotFillable", RejectReason.NOT_FILLABLE),
        ("OrderNotFound", RejectReason.UNKNOWN_ORDER),
        ("BadSymbol", RejectReason.UNKNOWN_SYMBOL),
        ("RateLimitExceeded", RejectReason.RATE_LIMIT),
        ("InvalidNonce", RejectReason.EXPIRED_REQUEST),
        ("MarketClosed", RejectReason.UNAVAILABLE),
    ],
)
def test_errors_are_told_in_our_words(name: str, reason: RejectReason) -> None:
    assert verdict_on(getattr(ccxt, name)("text")).reason is reason


def test_what_ccxt_stumbles_over_itself_leaves_the_outcome_unknown() -> None:
    for error in (KeyError("id"), TypeError(), TimeoutError(), ccxt.ExchangeError("new code")):
        assert verdict_on(error).action is Action.UNKNOWN
    assert verdict_on(NotSent("late")).reason is RejectReason.UNAVAILABLE


# -- numbers -----------------------------------------------------------------------------------------


@given(st.decimals(allow_nan=False, allow_infinity=False, places=18))
def test_numbers_of_the_account_keep_every_digit(value: Decimal) -> None:
    async def read() -> Any:
        reading(is_exact=True)
        return read_number(str(value))

    assert decimal_of(asyncio.run(read()), "it") == value
    assert isinstance(read_number(str(value)), float), "but for the task that asked for it"


@given(st.decimals(min_value=D("1e-8"), max_value=D("1e8"), places=8))
def test_what_is_sent_is_what_was_meant_or_nothing_is(value: Decimal) -> None:
    try:
        sent = as_float(value, "it")
    except ExchangeError:
        assert len(value.normalize().as_tuple().digits) > 15
    else:
        assert D(repr(sent)) == value


@pytest.mark.parametrize("value", [None, "", "NaN", "Infinity", "1,5", float("nan"), {}])
def test_what_is_no_number_is_refused(value: object) -> None:
    with pytest.raises(BadData, match="a price"):
        decimal_of(value, "a price")


# -- what ccxt returns --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({}, OrderStatus.OPEN),
        ({"filled": "1"}, OrderStatus.PARTIALLY_FILLED),
        ({"filled": None}, OrderStatus.OPEN),
        ({"status": "closed", "filled": "3"}, OrderStatus.FILLED),
        ({"status": "closed", "filled": "1"}, OrderStatus.CANCELLED),
        ({"status": "canceled"}, OrderStatus.CANCELLED),
        ({"status": "expired", "filled": "1"}, OrderStatus.EXPIRED),
        ({"status": "rejected"}, OrderStatus.REJECTED),
        ({"status": "rejected", "filled": "1"}, OrderStatus.CANCELLED),
    ],
)
def test_states_of_orders(fields: dict[str, Any], status: OrderStatus) -> None:
    assert status_of(SWAP, row(**fields)) is status


@pytest.mark.parametrize("fields", [{"status": None}, {"status": "odd"}, {"filled": "NaN"}])
def test_a_state_that_is_none_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(BadData):
        status_of(SWAP, row(**fields))


def test_contracts_are_converted_both_ways() -> None:
    fill = fill_of(SWAP, {"id": "7", "side": "sell", "amount": "3", "price": "9", "order": "v1"}, "mm1")
    assert (fill.qty, fill.fee, fill.fee_currency) == (D("0.03"), 0, "USDT")
    assert SWAP.sent_qty(D("0.03")) == 3.0
    position = position_of(SWAP, {"contracts": "5", "side": "short", "entryPrice": "99"})
    assert position is not None and (position.qty, position.entry_price) == (D("-0.05"), 99)
    assert position.liquidation_price == 0
    near = position_of(SWAP, {"contracts": "5", "side": "long", "entryPrice": 99, "liquidationPrice": 66.5})
    assert near is not None and near.liquidation_price == D("66.5")
    assert position_of(SWAP, {"contracts": 0}) is None
    assert levels_of(SWAP, [[10.0, 2.0], [9.0, 1.0, "x"]], 5) == ((10.0, 0.02), (9.0, 0.01))


@pytest.mark.parametrize(
    "fields", [{"id": None}, {"amount": "0"}, {"price": "-1"}, {"side": "both"}, {"amount": None}]
)
def test_a_trade_that_cannot_be_booked_is_refused(fields: dict[str, Any]) -> None:
    good = {"id": "7", "side": "sell", "amount": "3", "price": "9", "order": "v1"}
    with pytest.raises(BadData):
        fill_of(SWAP, good | fields, "mm1")


@pytest.mark.parametrize(
    "levels", [[["x", 1]], [[1.0]], [[0.0, 1.0]], [[1.0, -1.0]], [[float("inf"), 1.0]], [3]]
)
def test_a_level_that_is_none_spoils_the_book(levels: Any) -> None:
    with pytest.raises(BadData):
        levels_of(SWAP, levels, 5)


def test_hedged_positions_are_refused_with_what_to_do() -> None:
    with pytest.raises(BadData, match="one-way"):
        position_of(SWAP, {"contracts": "5", "side": "long", "hedged": True})


def test_the_profit_of_open_positions_is_no_balance_where_the_venue_says_what_is() -> None:
    told = {"total": {"USDT": "101.5"}, "used": {"USDT": None}}
    assert balances_of(told)[0].total == D("101.5")
    info = {"assets": [{"asset": "USDT", "walletBalance": "100.25"}]}
    assert balances_of(told | {"info": info})[0].total == D("100.25")


# -- what is news ---------------------------------------------------------------------------------------


def test_each_thing_is_told_once() -> None:
    tracker = OrderTracker()
    order = tracker.placed(place())
    assert [type(r) for r in tracker.accepted(order, "v1", 1)] == [OrderAccepted]
    assert tracker.accepted(order, "v1", 2) == ()
    for _ in range(2):
        assert tracker.row(order, SWAP, row(), 3, has_terms=True) == []
    trade = {"id": "t1", "order": "v1", "side": "buy", "amount": "1", "price": "100"}
    assert [fill.client_id for fill in tracker.fills(SWAP, [trade, trade])] == ["mm1"]
    assert tracker.fills(SWAP, [trade]) == []
    (end,) = tracker.row(order, SWAP, row(status="canceled", filled="1"), 4, has_terms=False)
    assert isinstance(end, OrderCancelled) and end.filled == D("0.01")
    assert tracker.row(order, SWAP, row(status="canceled", filled="1"), 5, has_terms=False) == ()
    assert tracker.row(order, SWAP, row(), 6, has_terms=True) == (), "it does not come back"


def test_terms_are_news_only_where_they_are_from_after_the_last_amend() -> None:
    tracker = OrderTracker()
    order = tracker.placed(place())
    tracker.accepted(order, "v1", 1)
    assert tracker.row(order, SWAP, row(price="99"), 2, has_terms=False) == []
    (amended,) = tracker.row(order, SWAP, row(price="99"), 3, has_terms=True)
    assert isinstance(amended, OrderAmended) and (amended.price, amended.qty) == (99, D("0.03"))


def test_an_order_that_ends_before_it_was_accepted() -> None:
    ends = {
        (OrderRejected,): (place(), row(status="rejected")),
        (OrderRejected, True): (place(post_only=True), row(status="canceled")),
        (OrderAccepted, OrderExpired): (place(time_in_force=TimeInForce.IOC), row(status="canceled")),
        (OrderAccepted, OrderCancelled): (place(), row(status="canceled", filled="1")),
        (OrderAccepted,): (place(), row(status="closed", filled="3")),
    }
    for kinds, (command, told) in ends.items():
        tracker = OrderTracker()
        reports = tracker.row(tracker.placed(command), SWAP, told, 1, has_terms=True)
        assert [type(report) for report in reports] == [kind for kind in kinds if kind is not True]


def test_a_post_only_order_that_the_venue_took_in_and_cancelled_would_have_taken() -> None:
    for has_asked, reason in ((False, "would_take"), (True, "")):
        tracker = OrderTracker()
        order = tracker.placed(place(post_only=True))
        order.is_cancelling = has_asked
        tracker.accepted(order, "v1", 1)
        (end,) = tracker.row(order, SWAP, row(status="canceled"), 2, has_terms=False)
        assert isinstance(end, OrderCancelled) and end.reason == reason


def test_trades_of_others_are_left_alone_and_bad_ones_raise() -> None:
    tracker = OrderTracker()
    assert tracker.fills(SWAP, [{"id": "t1", "order": "unknown"}]) == []
    tracker.learned(SWAP.symbol, "v9", "")
    assert tracker.is_told(SWAP.symbol, "v9")
    assert tracker.fills(SWAP, [{"id": "t2", "order": "v9"}]) == []
    with pytest.raises(BadData):
        tracker.fills(
            SWAP, [{"id": "t3", "clientOrderId": "mm1", "side": "buy", "price": "x", "amount": "1"}]
        )


# -- what is asked for ----------------------------------------------------------------------------------


class ListingClient:
    """Lists the account's trades ten at a time, from a time on, as venues do; knows whose orders they are of."""

    has: ClassVar[dict[str, bool]] = {"fetchOrders": True}

    def __init__(self, times_ms: list[int]) -> None:
        self.trades = [
            {"id": f"t{n}", "order": f"v{n % 3}", "timestamp": ms} for n, ms in enumerate(times_ms)
        ]
        self.asked: list[str] = []

    async def fetch_my_trades(self, _wire: str, since_ms: int | None) -> list[dict[str, Any]]:
        if since_ms is None:
            return self.trades[-10:]
        return [trade for trade in self.trades if trade["timestamp"] >= since_ms][:10]

    async def fetch_order(self, venue_id: str, _wire: str) -> dict[str, Any]:
        self.asked.append(venue_id)
        if venue_id == "v2":
            raise ccxt.OrderNotFound("too old")
        return {"id": venue_id, "clientOrderId": {"v0": "mm0", "v1": None}[venue_id]}


def finder_of(client: ListingClient) -> tuple[OrderFinder, OrderTracker]:
    def spawn(work: Any, _name: str) -> None:
        raise AssertionError(f"nothing is to be spawned: {work}")

    tracker = OrderTracker()
    return OrderFinder(Calls(client, CcxtParams(venue="scripted"), spawn), tracker), tracker


@story
async def test_trades_are_asked_for_page_after_page() -> None:
    times_ms = [10, *range(20, 35), *[40] * 10, *range(50, 65)]
    finder, _ = finder_of(ListingClient(times_ms))
    assert [row["id"] for row in await finder.trades(SWAP, 15)] == [f"t{n}" for n in range(1, len(times_ms))]
    assert [row["timestamp"] for row in await finder.trades(SWAP, None)] == times_ms[-10:]
    assert await finder.trades(SWAP, 65) == []


@story
async def test_trades_that_name_no_client_id_are_attributed_by_their_orders_once() -> None:
    client = ListingClient([10, 20, 30, 40, 50, 60])
    finder, tracker = finder_of(client)
    for _ in range(2):
        trades = await finder.trades(SWAP, 0)
    owners = [tracker.client_id_of(SWAP.symbol, trade) for trade in trades]
    assert owners == ["mm0", "", "", "mm0", "", ""], (
        "others' trades are nobody's, and so are those too old to tell"
    )
    assert sorted(client.asked) == ["v0", "v1", "v2"]


# -- the queue ------------------------------------------------------------------------------------------


class Gate:
    """Stands where ccxt's throttle is: lets one request through at a time, when it is told to."""

    def __init__(self) -> None:
        self.let_in = asyncio.Semaphore(0)
        self.waiting = 0

    async def __call__(self, cost: Any) -> None:
        self.waiting += 1
        await self.let_in.acquire()
        self.waiting -= 1


@story
async def test_cancels_go_before_orders_and_orders_before_questions() -> None:
    gate, sent = Gate(), list[str]()
    queue = CancelsFirst(gate, lambda: 0)

    async def request(name: str, rank: int) -> None:
        taking_turns(Turn(rank))
        await queue(1)
        sent.append(name)

    asked = [("q1", QUESTION), ("q2", QUESTION), ("o1", ORDER), ("c1", CANCEL), ("o2", ORDER), ("c2", CANCEL)]
    tasks = [asyncio.ensure_future(request(name, rank)) for name, rank in asked]
    await eventually(lambda: gate.waiting == 1)
    for _ in asked:
        gate.let_in.release()
    await asyncio.gather(*tasks)
    assert sent == ["q1", "c1", "c2", "o1", "o2", "q2"], "the first was in the throttle already"


@story
async def test_a_request_whose_time_is_over_is_not_sent_and_takes_no_room() -> None:
    gate, now_ns = Gate(), 100
    queue = CancelsFirst(gate, lambda: now_ns)

    async def request(until_ns: int | None) -> None:
        taking_turns(Turn(ORDER, until_ns))
        await queue(1)

    first = asyncio.ensure_future(request(150))
    second = asyncio.ensure_future(request(160))
    third = asyncio.ensure_future(request(None))
    await eventually(lambda: gate.waiting == 1)
    now_ns = 200
    gate.let_in.release()
    gate.let_in.release()
    outcomes = await asyncio.gather(first, second, third, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [NotSent, NotSent, type(None)]
    assert gate.let_in.locked(), "the second one did not ask for room"


@story
async def test_one_that_gives_up_waiting_blocks_nobody() -> None:
    gate = Gate()
    queue = CancelsFirst(gate, lambda: 0)
    tasks = [asyncio.ensure_future(queue(1)) for _ in range(4)]
    await eventually(lambda: gate.waiting == 1)
    tasks[1].cancel()
    tasks[0].cancel()
    await asyncio.gather(*tasks[:2], return_exceptions=True)
    tasks[2].cancel()
    gate.let_in.release()
    await tasks[3]
    assert [task.cancelled() for task in tasks] == [True, True, True, False]
