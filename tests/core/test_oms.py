"""The order manager: the fewest commands, journal before send, and every answer a venue can give."""

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from core_tools import (
    ACCOUNT,
    BTC,
    BUY,
    INSTANCE,
    MS,
    SECOND,
    SELL,
    START_NS,
    WINDOW_NS,
    Core,
    ScriptedVenue,
    VenueWithoutAmends,
    both,
    broken_line,
    filled,
    instrument,
    limit,
    top,
)

from host.api import (
    AmendOrder,
    AmendRejected,
    CancelOrder,
    CancelRejected,
    OrderAccepted,
    OrderAmended,
    OrderCancelled,
    OrderExpired,
    OrderRefused,
    OrderRejected,
    OrderRequest,
    OrderStatus,
    OrderType,
    PlaceOrder,
    QueryAccount,
    Quote,
    RejectReason,
    RequestUnanswered,
    TimeInForce,
)
from host.core import entries as e
from host.core.quoting import FIRST_BACKOFF_NS
from host.journal import Journal

D = Decimal
S = OrderStatus
BUSY, GONE = RejectReason.UNAVAILABLE, RejectReason.UNKNOWN_ORDER


@pytest.fixture
def core(tmp_path: Path) -> Iterator[Core]:
    with Core(tmp_path) as core:
        yield core


def without_amends(folder: Path) -> Core:
    return Core(folder, VenueWithoutAmends())


def kinds(commands: list[Any]) -> list[str]:
    return [type(command).__name__ for command in commands]


# -- declarative quotes --------------------------------------------------------------------------


def test_a_quote_becomes_one_order_a_side(core: Core) -> None:
    core.quote(both(99.0, 101.0, "1.5"))
    ask, bid = core.sent()
    assert isinstance(bid, PlaceOrder)
    assert isinstance(ask, PlaceOrder)
    assert (bid.side, bid.price, bid.qty, bid.post_only, bid.type) == (
        BUY,
        D(99),
        D("1.5"),
        True,
        OrderType.LIMIT,
    )
    assert (ask.side, ask.price, ask.qty, ask.post_only) == (SELL, D(101), D("1.5"), True)
    assert core.state.orders[bid.client_id].status is S.PENDING_NEW


def test_the_same_quote_again_sends_nothing(core: Core) -> None:
    core.quote(both(99.0, 101.0))
    core.sent()
    core.quote(both(99.0, 101.0))
    assert core.sent() == []
    for client_id in core.state.orders:
        core.say(OrderAccepted(client_id, "v", core.now_ns))
    core.quote(both(99.0, 101.0))
    assert core.sent() == []


def test_a_moved_quote_is_amended_in_place(core: Core) -> None:
    bid, ask = core.quoted()
    core.quote(both(98.0, 101.0))
    assert core.sent() == [AmendOrder(bid.client_id, BTC, BUY, D(98), D(1), f"v-{bid.client_id}")]
    assert (bid.status, bid.price, bid.pending_price) == (S.PENDING_AMEND, D(99), D(98))
    core.say(OrderAmended(bid.client_id, D(98), D(1), core.now_ns))
    assert (bid.status, bid.price, bid.pending_price) == (S.OPEN, D(98), None)
    assert ask.status is S.OPEN
    assert core.sent() == []


def test_both_moves_of_one_quote_are_one_entry_and_the_retreating_side_goes_first(core: Core) -> None:
    bid, ask = core.quoted()
    core.quote(both(99.5, 102.0))
    assert [command.client_id for command in core.sent() if isinstance(command, AmendOrder)] == [
        ask.client_id,
        bid.client_id,
    ]
    (entry,) = core.journaled(e.AmendSent)
    assert {change.client_id for change in entry.changes} == {ask.client_id, bid.client_id}


def test_where_a_venue_cannot_amend_an_order_is_cancelled_and_placed_when_it_is_gone(tmp_path: Path) -> None:
    with without_amends(tmp_path) as core:
        bid, _ = core.quoted()
        core.quote(both(98.0, 101.0))
        assert kinds(core.sent()) == ["CancelOrder"]
        core.quote(both(97.0, 101.0))
        assert core.sent() == []  # not before the old one is gone
        core.say(OrderCancelled(bid.client_id, core.now_ns))
        (placed,) = core.sent()
        assert isinstance(placed, PlaceOrder)
        assert (placed.side, placed.price) == (BUY, D(97))


def test_a_wish_that_moved_on_before_the_acknowledgement_is_followed_after_it(core: Core) -> None:
    core.quote(both(99.0, None))
    (placed,) = core.sent()
    assert isinstance(placed, PlaceOrder)
    core.quote(both(98.0, None))
    assert core.sent() == []
    core.say(OrderAccepted(placed.client_id, "v", core.now_ns))
    (amend,) = core.sent()
    assert isinstance(amend, AmendOrder)
    assert amend.price == D(98)


def test_a_pulled_quote_is_cancelled_even_before_its_acknowledgement(core: Core) -> None:
    core.quote(both(99.0, None))
    core.sent()
    core.quote()
    assert kinds(core.sent()) == ["CancelOrder"]
    core.quote()
    assert core.sent() == []


def test_levels_that_are_no_longer_quoted_are_pulled(core: Core) -> None:
    core.quote(both(99.0, 101.0), both(98.0, 102.0))
    for order in list(core.state.orders.values()):
        core.say(OrderAccepted(order.client_id, "v", core.now_ns))
    core.sent()
    core.quote(both(99.0, 101.0))
    cancelled = [core.state.orders[c.client_id] for c in core.sent() if isinstance(c, CancelOrder)]
    assert [(order.side, order.price) for order in cancelled] == [(BUY, D(98)), (SELL, D(102))]


def test_a_bad_quote_is_refused_with_its_reason_and_pulls_that_side(core: Core) -> None:
    bid, _ = core.quoted()
    core.quote(both(float("nan"), 101.0))
    assert kinds(core.sent()) == ["CancelOrder"]
    assert bid.status is S.PENDING_CANCEL
    (refused,) = core.journaled(e.CommandRefused)
    assert (refused.action, refused.reason) == ("quote", "BAD_QUOTE")
    assert refused.detail == "bid price must be a positive number, was nan"


def test_the_same_refusal_is_not_journaled_with_every_tick(core: Core) -> None:
    for _ in range(5):
        core.quote(both(float("nan"), None))
    core.now_ns += SECOND
    core.quote(both(float("nan"), None))
    assert len(core.journaled(e.CommandRefused)) == 2


def test_a_quote_too_small_for_the_venue_is_refused(core: Core) -> None:
    core.quote(both(99.0, None, "0.1"))
    assert core.sent() == []
    (refused,) = core.journaled(e.CommandRefused)
    assert refused.detail == "notional must be at least 10 USDT for BTC-USDT, was 9.90"


def test_a_filled_quote_is_not_placed_again_before_the_strategy_says_so(core: Core) -> None:
    bid, _ = core.quoted()
    core.fill(bid, "1")
    assert bid.status is S.FILLED
    assert core.sent() == []
    core.quote(both(99.0, 101.0))
    assert kinds(core.sent()) == ["PlaceOrder"]


def test_a_part_fill_counts_in_the_total_of_the_next_amend(core: Core) -> None:
    bid, _ = core.quoted()
    core.fill(bid, "0.3")
    core.quote(both(98.0, 101.0))
    (amend,) = core.sent()
    assert isinstance(amend, AmendOrder)
    assert amend.qty == D("1.3")


# -- refusals of the venue -----------------------------------------------------------------------


def test_a_rejected_quote_backs_off_longer_each_time(core: Core) -> None:
    waited = 0
    for expected in (FIRST_BACKOFF_NS, 2 * FIRST_BACKOFF_NS, 4 * FIRST_BACKOFF_NS):
        core.quote(both(99.0, None))
        (placed,) = core.sent()
        assert isinstance(placed, PlaceOrder)
        core.say(OrderRejected(placed.client_id, BUSY, "busy", core.now_ns))
        core.now_ns += expected - 1
        core.quote(both(99.0, None))
        assert core.sent() == []
        core.now_ns += 1
        waited += expected
    assert waited == core.now_ns - START_NS


def test_a_refused_amend_backs_off_and_after_three_the_order_is_replaced(core: Core) -> None:
    bid, _ = core.quoted()
    for _ in range(3):
        core.quote(both(98.0, 101.0))
        assert kinds(core.sent()) == ["AmendOrder"]
        core.say(AmendRejected(bid.client_id, BUSY, "busy", core.now_ns))
        assert (bid.status, bid.price, bid.pending_price, bid.pending_qty) == (S.OPEN, D(99), None, None)
        core.quote(both(98.0, 101.0))
        assert core.sent() == []
        core.now_ns += SECOND
    core.quote(both(98.0, 101.0))
    assert kinds(core.sent()) == ["CancelOrder"]
    core.say(OrderCancelled(bid.client_id, core.now_ns))
    (placed,) = core.sent()
    assert isinstance(placed, PlaceOrder)
    assert placed.price == D(98)


def test_a_refused_amend_does_not_keep_a_quote_from_being_pulled(core: Core) -> None:
    bid, _ = core.quoted()
    core.quote(both(98.0, 101.0))
    core.sent()
    core.say(AmendRejected(bid.client_id, BUSY, "busy", core.now_ns))
    core.quote(both(None, 101.0))
    assert kinds(core.sent()) == ["CancelOrder"]


def test_an_amend_of_an_order_that_is_gone_leaves_its_fate_to_be_asked(core: Core) -> None:
    bid, _ = core.quoted()
    core.quote(both(98.0, 101.0))
    core.sent()
    core.say(AmendRejected(bid.client_id, GONE, "unknown order", core.now_ns))
    assert bid.status is S.UNKNOWN
    core.quote(both(97.0, 101.0))
    assert core.sent() == []


def test_a_refused_cancel_is_not_repeated_with_every_tick_but_with_time(core: Core) -> None:
    bid, _ = core.quoted()
    core.quote(both(None, 101.0))
    assert kinds(core.sent()) == ["CancelOrder"]
    core.say(CancelRejected(bid.client_id, RejectReason.RATE_LIMIT, "slow down", core.now_ns))
    assert bid.status is S.OPEN
    core.quote(both(None, 101.0))
    assert core.sent() == []
    core.wait(500 * MS)
    assert kinds(core.sent()) == ["CancelOrder"]


def test_an_order_that_was_to_be_cancelled_is_cancelled_again_until_it_is_gone(core: Core) -> None:
    order = core.rest()
    core.cancel(order.client_id)
    core.sent()
    for _ in range(3):
        core.say(CancelRejected(order.client_id, RejectReason.RATE_LIMIT, "slow down", core.now_ns))
        core.wait(500 * MS)
        assert kinds(core.sent()) == ["CancelOrder"]
    core.say(OrderCancelled(order.client_id, core.now_ns))
    core.wait(SECOND)
    assert core.sent() == []


def test_a_quote_wanted_again_is_not_cancelled_for_an_earlier_wish(core: Core) -> None:
    bid, _ = core.quoted()
    core.quote(both(None, 101.0))
    core.say(CancelRejected(bid.client_id, RejectReason.RATE_LIMIT, "slow down", core.now_ns))
    core.quote(both(99.0, 101.0))
    core.sent()
    core.wait(SECOND)
    assert core.sent() == []


# -- fills ---------------------------------------------------------------------------------------


def test_a_fill_may_come_before_the_acknowledgement(core: Core) -> None:
    client_id = core.place(limit(BUY, "99", "1"))
    order = core.state.orders[client_id]
    core.fill(order, "0.4")
    assert (order.status, order.filled) == (S.PARTIALLY_FILLED, D("0.4"))
    core.say(OrderAccepted(client_id, "v1", core.now_ns))
    assert (order.status, order.venue_id) == (S.PARTIALLY_FILLED, "v1")
    assert core.alerts() == []


def test_a_cancel_may_lose_to_a_fill(core: Core) -> None:
    order = core.rest()
    core.cancel(order.client_id)
    core.fill(order, "1")
    assert order.status is S.FILLED
    core.say(CancelRejected(order.client_id, GONE, "unknown order", core.now_ns))
    assert order.status is S.FILLED
    assert core.alerts() == []


def test_a_fill_told_after_the_cancel_counts(core: Core) -> None:
    order = core.rest()
    core.say(OrderCancelled(order.client_id, core.now_ns))
    core.fill(order, "0.4")
    assert (order.status, order.filled) == (S.CANCELLED, D("0.4"))
    assert core.state.holding(INSTANCE, BTC).qty == D("0.4")
    assert core.alerts() == []


def test_a_fill_told_twice_counts_once_and_is_journaled_once(core: Core) -> None:
    order = core.rest()
    core.fill(order, "0.4")
    before = core.journal.last_lsn
    core.fill(order, "0.4")
    assert order.filled == D("0.4")
    assert core.journal.last_lsn == before
    assert len(core.heard) == 2  # the acknowledgement and the fill


def test_an_overfill_is_refused_with_an_alert_and_changes_no_money(core: Core) -> None:
    order = core.rest(qty="1")
    core.fill(order, "0.8")
    holding = core.state.holding(INSTANCE, BTC)
    cash = holding.cash
    core.fill(order, "0.3", "t2")
    assert (order.filled, holding.qty, holding.cash, order.trade_ids) == (D("0.8"), D("0.8"), cash, ["t1"])
    assert core.alerts() == ["overfill"]


def test_strategies_hear_of_every_change_once_and_after_it_is_counted(core: Core) -> None:
    order = core.rest()
    core.fill(order, "0.4")
    (_, none), (heard, fill) = core.heard
    assert none is None
    assert heard is order
    assert fill is not None
    assert (fill.qty, fill.instance) == (D("0.4"), INSTANCE)
    assert core.channels[INSTANCE, BTC].risk.position == D("0.4")


@pytest.mark.parametrize(
    "late",
    [
        lambda i, t: OrderAccepted(i, "v", t),
        OrderCancelled,
        lambda i, t: OrderAmended(i, D(98), D(2), t),
        lambda i, t: AmendRejected(i, BUSY, "", t),
        lambda i, t: CancelRejected(i, BUSY, "", t),
        lambda i, t: RequestUnanswered(i, "timeout", t),
        OrderExpired,
    ],
)
def test_late_reports_do_not_change_an_order_that_is_done(core: Core, late: Any) -> None:
    order = core.rest()
    core.say(OrderCancelled(order.client_id, core.now_ns))
    core.say(late(order.client_id, core.now_ns))
    assert (order.status, order.price, order.qty) == (S.CANCELLED, D(99), D(1))
    assert core.alerts() == []
    assert core.sent() == []


def test_an_illegal_move_changes_nothing_and_is_alerted(core: Core) -> None:
    order = core.rest()
    core.say(OrderRejected(order.client_id, BUSY, "no", core.now_ns))
    assert order.status is S.OPEN
    assert core.alerts() == ["illegal_move"]
    assert core.state.anomalies == {"illegal_move": 1}


def test_reports_of_strangers_orders_are_left_alone(core: Core) -> None:
    before = core.journal.last_lsn
    core.say(
        OrderAccepted("web-1", "v", core.now_ns),
        filled("web-1", BUY, "1", "99", "t9"),
        OrderCancelled("web-1", core.now_ns),
    )
    assert core.journal.last_lsn == before


# -- imperative orders ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "fault"),
    [
        (limit(BUY, "99.2", "1"), "price must be a positive multiple of the tick 0.5 of BTC-USDT, was 99.2"),
        (limit(BUY, "-1", "1"), "price must be a positive multiple of the tick 0.5 of BTC-USDT, was -1"),
        (
            OrderRequest(symbol=BTC, side=BUY, qty=D(1)),
            "price must be a positive multiple of the tick 0.5 of BTC-USDT, was None",
        ),
        (
            limit(BUY, "99", "0.15"),
            "quantity must be a positive multiple of the lot 0.1 of BTC-USDT, was 0.15",
        ),
        (limit(BUY, "99", "0"), "quantity must be a positive multiple of the lot 0.1 of BTC-USDT, was 0"),
        (limit(BUY, "99", "0.1"), "notional must be at least 10 USDT for BTC-USDT, was 9.9"),
        (
            OrderRequest(symbol=BTC, side=BUY, qty=D(1), price=D(99), type=OrderType.MARKET),
            "a market order has no price, was 99",
        ),
        (
            limit(BUY, "NaN", "1"),
            "price must be a positive multiple of the tick 0.5 of BTC-USDT, was NaN",
        ),
        (
            limit(BUY, "99", "NaN"),
            "quantity must be a positive multiple of the lot 0.1 of BTC-USDT, was NaN",
        ),
        (
            limit(BUY, "99", "Infinity"),
            "quantity must be a positive multiple of the lot 0.1 of BTC-USDT, was Infinity",
        ),
    ],
)
def test_an_order_that_the_venue_would_refuse_is_refused_here(
    core: Core, request_: OrderRequest, fault: str
) -> None:
    with pytest.raises(OrderRefused) as refused:
        core.place(request_)
    assert (refused.value.reason, refused.value.detail) == ("INVALID_ORDER", fault)
    assert core.sent() == []
    (entry,) = core.journaled(e.CommandRefused)
    assert (entry.action, entry.reason, entry.detail) == ("place", "INVALID_ORDER", fault)


def test_quantity_bounds_of_the_venue_are_kept(tmp_path: Path) -> None:
    with Core(tmp_path, instruments=[instrument(min_qty=D("0.5"), max_qty=D(5))]) as core:
        for qty, fault in [("0.4", "at least 0.5"), ("5.1", "at most 5")]:
            with pytest.raises(OrderRefused, match=f"quantity must be {fault} of BTC-USDT, was {qty}"):
                core.place(limit(BUY, "99", qty))
            market = OrderRequest(symbol=BTC, side=BUY, qty=D(qty), type=OrderType.MARKET)
            with pytest.raises(OrderRefused, match=f"quantity must be {fault} of BTC-USDT, was {qty}"):
                core.place(market)
        core.place(limit(BUY, "99", "5"))


def test_an_order_goes_out_as_it_was_asked_for(core: Core) -> None:
    request = OrderRequest(
        symbol=BTC,
        side=SELL,
        qty=D("1.5"),
        price=D("100.5"),
        time_in_force=TimeInForce.IOC,
        reduce_only=True,
    )
    client_id = core.place(request)
    assert core.sent() == [
        PlaceOrder(client_id, BTC, SELL, OrderType.LIMIT, TimeInForce.IOC, D("100.5"), D("1.5"), False, True)
    ]


def test_a_breached_limit_refuses_an_order_with_its_reason(tmp_path: Path) -> None:
    with Core(tmp_path, risk={"node": {"max_order_qty": 1}}) as core:
        with pytest.raises(OrderRefused) as refused:
            core.place(limit(BUY, "99", "2"))
        assert refused.value.reason == "order_qty"
        assert [breach.reason for breach in core.breaches] == ["order_qty"]
        assert core.journaled(e.CommandRefused)[0].reason == "order_qty"


def test_an_amend_that_risk_refuses_pulls_the_resting_order(tmp_path: Path) -> None:
    with Core(tmp_path, risk={"node": {"max_order_qty": 1}}) as core:
        bid, _ = core.quoted()
        core.quote(both(99.0, 101.0, "2"))
        assert kinds(core.sent()) == ["CancelOrder", "CancelOrder"]
        assert bid.status is S.PENDING_CANCEL


def test_growing_several_levels_at_once_keeps_to_the_position_limit(tmp_path: Path) -> None:
    with Core(tmp_path, risk={"node": {"max_position": 4}}) as core:
        levels = [both(99.0, None), both(98.0, None)]
        core.quote(*levels)
        for order in list(core.state.orders.values()):
            core.say(OrderAccepted(order.client_id, "v", core.now_ns))
        core.sent()
        core.quote(both(99.0, None, "2.5"), both(98.0, None, "2.5"))
        assert kinds(core.sent()) == ["AmendOrder", "CancelOrder"]


def test_a_breach_that_pulls_quotes_in_the_middle_of_a_quote_amends_nothing_afterwards(
    tmp_path: Path,
) -> None:
    with Core(tmp_path, risk={"node": {"max_order_notional": 100}}) as core:
        bid, ask = core.quoted(98.0, 100.0)
        core.oms.outbox.on_breach = lambda refusal, name: core.oms.pull_quotes(
            name, refusal.reason, core.now_ns
        )
        core.quote(both(97.0, 101.0))
        assert kinds(core.sent()) == ["AmendOrder", "CancelOrder", "CancelOrder"]
        assert {bid.status, ask.status} == {S.PENDING_CANCEL}
        assert core.alerts() == []


def test_quotes_pulled_by_another_levels_refusal_are_not_amended_afterwards(tmp_path: Path) -> None:
    with Core(tmp_path, risk={"node": {"max_order_qty": 1}}) as core:
        core.quoted()
        core.oms.outbox.on_breach = lambda refusal, name: core.oms.pull_quotes(
            name, refusal.reason, core.now_ns
        )
        core.quote(both(98.0, 102.0), both(97.0, None, "2"))
        assert kinds(core.sent()) == ["CancelOrder", "CancelOrder"]
        assert core.state.anomalies == {}
        assert core.oms.outbox.refused == 1


def test_cancelling_what_is_done_or_being_cancelled_asks_nothing(core: Core) -> None:
    order = core.rest()
    assert core.cancel(order.client_id)
    assert not core.cancel(order.client_id)
    core.say(OrderCancelled(order.client_id, core.now_ns))
    assert not core.cancel(order.client_id)
    assert not core.cancel("td-nothing")
    assert kinds(core.sent()) == ["CancelOrder"]


def test_cancel_all_takes_imperative_orders_and_quotes_along(core: Core) -> None:
    core.quoted()
    core.rest(price="95")
    assert core.oms.cancel_all(core.state.orders.values(), "kill switch", core.now_ns) == 3
    core.turn()
    assert kinds(core.sent()) == ["CancelOrder"] * 3
    for order in list(core.state.orders.values()):
        core.say(OrderCancelled(order.client_id, core.now_ns))
    assert core.sent() == []  # the quotes are not wanted any more


def test_pulling_quotes_leaves_imperative_orders(core: Core) -> None:
    core.quoted()
    order = core.rest(price="95")
    core.oms.pull_quotes(INSTANCE, "paused", core.now_ns)
    core.turn()
    assert kinds(core.sent()) == ["CancelOrder"] * 2
    assert order.status is S.OPEN


def test_orders_of_an_account_that_is_not_connected_cannot_be_cancelled(core: Core) -> None:
    order = core.rest()
    del core.oms.outbox.ports[ACCOUNT]
    assert not core.cancel(order.client_id)
    assert order.status is S.OPEN


def test_a_position_is_closed_once_and_only_what_no_order_closes_already(core: Core) -> None:
    channel = core.channels[INSTANCE, BTC]
    assert core.oms.close_position(channel, core.now_ns) is None
    bought = core.rest(qty="2")
    core.fill(bought, "2")
    core.rest(SELL, "105", "0.5")
    assert core.oms.close_position(channel, core.now_ns) is not None
    assert core.oms.close_position(channel, core.now_ns) is None
    core.turn()
    (closing,) = core.sent()
    assert isinstance(closing, PlaceOrder)
    assert (closing.side, closing.type, closing.qty, closing.reduce_only) == (
        SELL,
        OrderType.MARKET,
        D("1.5"),
        False,  # a spot venue knows no reduce-only
    )


# -- the way out ---------------------------------------------------------------------------------


class LaggingJournal(Journal):
    """A journal whose disk is as far as a test says."""

    disk_lsn = 0

    @property
    def durable_lsn(self) -> int:  # type: ignore[override]
        return self.disk_lsn

    @durable_lsn.setter
    def durable_lsn(self, lsn: int) -> None:
        """Take no notice of what the journal itself says."""


@pytest.fixture
def lagging(tmp_path: Path) -> Iterator[tuple[Core, LaggingJournal]]:
    journal = LaggingJournal.open(tmp_path, node="a", segment_bytes=1 << 16)
    with Core(tmp_path, journal=journal) as core:
        yield core, journal


def test_nothing_leaves_before_its_intent_is_on_disk(lagging: tuple[Core, LaggingJournal]) -> None:
    core, journal = lagging
    journal.disk_lsn = journal.last_lsn
    core.quote(both(99.0, 101.0))
    assert core.sent() == []
    journal.disk_lsn = journal.last_lsn - 1  # the first of the two
    core.turn()
    assert [command.side for command in core.sent() if isinstance(command, PlaceOrder)] == [SELL]
    journal.disk_lsn = journal.last_lsn
    core.turn()
    assert [command.side for command in core.sent() if isinstance(command, PlaceOrder)] == [BUY]


def test_a_real_disk_journal_releases_orders_once_it_synced(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path, node="a", durability="disk", segment_bytes=1 << 16)
    with Core(tmp_path, journal=journal) as core:
        core.place(limit(BUY, "99", "1"))
        intent_lsn = journal.last_lsn
        if journal.durable_lsn < intent_lsn:
            assert core.sent() == []
        journal.sync()
        assert journal.durable_lsn >= intent_lsn
        core.turn()
        assert kinds(core.sent()) == ["PlaceOrder"]


def test_validity_counts_from_the_intent_not_from_when_the_disk_was_done(
    lagging: tuple[Core, LaggingJournal],
) -> None:
    core, journal = lagging
    core.place(limit(BUY, "99", "1"))
    core.now_ns += SECOND
    journal.disk_lsn = journal.last_lsn
    core.turn()
    assert isinstance(core.venue, ScriptedVenue)
    assert core.venue.deadlines == [START_NS + WINDOW_NS]


def test_an_order_that_waited_for_the_disk_too_long_is_never_sent_and_dead(
    lagging: tuple[Core, LaggingJournal],
) -> None:
    core, journal = lagging
    client_id = core.place(limit(BUY, "99", "1"))
    core.now_ns += WINDOW_NS
    journal.disk_lsn = journal.last_lsn
    core.turn()
    assert core.sent() == []
    assert core.state.retired[client_id].status is S.REJECTED
    (refused,) = core.journaled(e.CommandRefused)
    assert (refused.reason, refused.client_id) == ("TOO_LATE", client_id)


def test_a_closed_gate_refuses_orders_and_says_so_in_the_journal(core: Core) -> None:
    core.oms.outbox.gate.close()
    with pytest.raises(OrderRefused, match="GATE_CLOSED"):
        core.place(limit(BUY, "99", "1"))
    (refused,) = core.journaled(e.CommandRefused)
    assert (refused.action, refused.reason) == ("place", "GATE_CLOSED")
    assert core.journaled(e.PlaceSent) == []


def test_a_gate_that_closes_before_sending_kills_orders_but_not_questions(core: Core) -> None:
    order = core.rest()
    core.oms.quoter.set_quotes(core.channels[INSTANCE, BTC], [both(98.0, 102.0)], top(100.0), core.now_ns)
    core.oms.outbox.cancel(order.client_id, "test", core.now_ns)
    core.oms.outbox.ask(ACCOUNT, QueryAccount(), core.now_ns)
    core.oms.outbox.gate.close()
    core.turn()
    assert core.sent() == [QueryAccount()]
    refused = core.journaled(e.CommandRefused)
    assert [(each.action, each.reason) for each in refused] == [
        ("place", "GATE_CLOSED"),
        ("place", "GATE_CLOSED"),
        ("cancel", "GATE_CLOSED"),
    ]
    assert list(core.state.orders.values()) == [order]
    assert order.status is S.OPEN


def test_the_deadline_of_a_request_is_the_end_of_the_right_to_send(core: Core) -> None:
    core.oms.outbox.gate.valid_until_ns = START_NS + 5
    core.place(limit(BUY, "99", "1"))
    assert isinstance(core.venue, ScriptedVenue)
    assert core.venue.deadlines == [START_NS + 5]


def test_an_order_that_the_adapter_did_not_send_is_dead(core: Core) -> None:
    assert isinstance(core.venue, ScriptedVenue)
    core.venue.fails_with = broken_line()
    client_id = core.place(limit(BUY, "99", "1"))
    assert core.state.retired[client_id].status is S.REJECTED
    (refused,) = core.journaled(e.CommandRefused)
    assert (refused.action, refused.reason, refused.client_id) == ("place", "NOT_SENT", client_id)
    assert refused.detail == "no connection to the venue"


def test_an_amend_that_was_not_sent_leaves_the_order_as_it_was_and_is_not_stormed(core: Core) -> None:
    assert isinstance(core.venue, ScriptedVenue)
    bid, _ = core.quoted()
    core.venue.fails_with = broken_line()
    core.quote(both(98.0, 101.0, "2"))
    assert (bid.status, bid.price, bid.pending_price, bid.pending_qty) == (S.OPEN, D(99), None, None)
    assert core.channels[INSTANCE, BTC].risk.scopes[0].exposures[BTC].longest == D(1)
    core.venue.fails_with = None
    core.now_ns += SECOND
    core.quote(both(98.0, 101.0, "2"))
    assert kinds(core.sent()) == ["AmendOrder", "AmendOrder"]


def test_a_cancel_that_was_not_sent_is_sent_when_the_line_is_back(core: Core) -> None:
    assert isinstance(core.venue, ScriptedVenue)
    bid, _ = core.quoted()
    core.venue.fails_with = broken_line()
    core.quote()
    assert bid.status is S.OPEN
    core.venue.fails_with = None
    core.wait(500 * MS)
    assert kinds(core.sent()) == ["CancelOrder", "CancelOrder"]


def test_an_adapter_that_breaks_while_sending_leaves_the_order_in_doubt_and_the_rest_goes_out(
    core: Core,
) -> None:
    assert isinstance(core.venue, ScriptedVenue)
    core.venue.fails_with = RuntimeError("bug")
    core.quote(both(99.0, 101.0))
    assert [order.status for order in core.state.orders.values()] == [S.UNKNOWN, S.UNKNOWN]
    assert core.alerts() == ["adapter_failed", "adapter_failed"]
    core.venue.fails_with = None
    core.wait(20 * MS)
    assert kinds(core.sent()) == ["QueryOrder", "QueryOrder"]


def test_every_intent_is_journaled_before_it_leaves(core: Core) -> None:
    assert isinstance(core.venue, ScriptedVenue)
    seen: list[int] = []
    send = core.venue.send

    def watch(command: Any, deadline_ns: int) -> None:
        seen.append(core.journal.flushed_lsn)
        send(command, deadline_ns)

    core.venue.send = watch
    core.quote(both(99.0, 101.0))
    assert all(lsn >= core.journal.last_lsn for lsn in seen)
    assert len(seen) == 2


# -- taking up earlier orders --------------------------------------------------------------------


def test_a_new_channel_goes_on_with_the_quotes_that_are_live(core: Core) -> None:
    bid, ask = core.quoted()
    core.oms.close_channels(INSTANCE)
    ids = core.channels[INSTANCE, BTC].ids
    channel = core.oms.open_channel(INSTANCE, ACCOUNT, BTC, ids, 0.0)
    core.oms.quoter.set_quotes(channel, [both(98.0, 101.0)], core.tops[BTC], core.now_ns)
    core.turn()
    assert [c.client_id for c in core.sent() if isinstance(c, AmendOrder)] == [bid.client_id]
    assert ask.status is S.OPEN


def test_a_new_channel_does_not_want_again_what_was_pulled_before(core: Core) -> None:
    bid, ask = core.quoted()
    core.oms.pull_quotes(INSTANCE, "moved", core.now_ns)
    core.turn()
    core.oms.close_channels(INSTANCE)
    ids = core.channels[INSTANCE, BTC].ids
    channel = core.oms.open_channel(INSTANCE, ACCOUNT, BTC, ids, 0.0)
    core.sent()
    core.say(OrderCancelled(ask.client_id, core.now_ns))
    core.wait(SECOND)  # the other cancel is lost, and asked for again
    assert {type(command) for command in core.sent()} <= {CancelOrder}
    core.oms.quoter.set_quotes(channel, [both(98.0, 102.0)], core.tops[BTC], core.now_ns)
    core.turn()
    assert [(c.side, c.price) for c in core.sent() if isinstance(c, PlaceOrder)] == [(SELL, D(102))]
    core.say(OrderCancelled(bid.client_id, core.now_ns))
    assert [(c.side, c.price) for c in core.sent() if isinstance(c, PlaceOrder)] == [(BUY, D(98))]


def test_a_quote_is_a_struct_that_may_be_reused(core: Core) -> None:
    quote = Quote(99.0, D(1), None, D(0))
    core.quote(quote)
    core.quote(quote)
    assert kinds(core.sent()) == ["PlaceOrder"]
