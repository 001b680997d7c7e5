"""After a restart and in doubt: the venue is asked until it has proved every order's fate."""

from collections.abc import Callable, Iterator
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
    account,
    both,
    filled,
    instrument,
    limit,
    view,
)

from host.api import (
    AccountSnapshot,
    AmendOrder,
    AmendRejected,
    Balance,
    CancelOrder,
    CancelRejected,
    FillsSnapshot,
    InstrumentKind,
    Liquidity,
    OpenOrdersSnapshot,
    OrderAccepted,
    OrderAmended,
    OrderCancelled,
    OrderFilled,
    OrderNotFound,
    OrderRejected,
    OrderRequest,
    OrderSnapshot,
    OrderStatus,
    QueryAccount,
    QueryFills,
    QueryOpenOrders,
    QueryOrder,
    RejectReason,
    RequestUnanswered,
    VenuePosition,
)
from host.core import entries as e
from host.core.doubts import FILL_OVERLAP_NS
from host.core.gate import FOREVER_NS
from host.core.reconcile import AUDIT_EVERY_NS, BALANCES_AGAIN_NS, BALANCES_EVERY_NS

D = Decimal
S = OrderStatus
PERP = "BTC-USDT-PERP"
LINEAR = instrument(PERP, InstrumentKind.LINEAR)
GONE = RejectReason.UNKNOWN_ORDER


@pytest.fixture
def core(tmp_path: Path) -> Iterator[Core]:
    with Core(tmp_path) as core:
        core.get_ready()
        yield core


Restart = Callable[[Core], Core]


@pytest.fixture
def restarted(tmp_path: Path) -> Iterator[Restart]:
    """Return a function that ends a core's process and starts the next one, ten seconds later."""
    cores: list[Core] = []

    def restart(core: Core, **more: Any) -> Core:
        core.close()
        after = Core(tmp_path, now_ns=core.now_ns + 10 * SECOND, **more)
        cores.append(after)
        after.reconciler.start(ACCOUNT, after.now_ns)
        after.turn()
        return after

    yield restart
    for core in cores:
        core.close()


def answer(core: Core, *orders: OrderSnapshot, fills: tuple[OrderFilled, ...] = ()) -> None:
    """Answer the questions about the account; the balances come when they are asked for."""
    core.say(OpenOrdersSnapshot(orders, core.now_ns), FillsSnapshot(fills, core.now_ns))


def stray(
    client_id: str, filled_qty: str = "0", status: OrderStatus = S.OPEN, ts_ns: int = 0
) -> OrderSnapshot:
    return OrderSnapshot(client_id, "v9", BTC, BUY, D(99), D(1), D(filled_qty), status, ts_ns)


def open_queries(core: Core) -> list[str]:
    return [type(command).__name__ for command in core.sent()]


# -- readiness -----------------------------------------------------------------------------------


def test_an_account_is_ready_when_orders_fills_and_balances_are_known(core: Core, restarted: Restart) -> None:
    after = restarted(core)
    reconciler = after.reconciler
    assert open_queries(after) == ["QueryOpenOrders", "QueryFills"]
    assert reconciler.waiting_for(ACCOUNT) == "open orders, fills, balances and positions"
    after.say(OpenOrdersSnapshot((), after.now_ns))
    assert reconciler.waiting_for(ACCOUNT) == "fills, balances and positions"
    after.say(FillsSnapshot((), after.now_ns))
    assert reconciler.waiting_for(ACCOUNT) == "balances and positions"
    assert after.sent() == [QueryAccount()]  # last of all
    assert not reconciler.is_ready(ACCOUNT)
    assert reconciler.next_time_ns() == 0
    after.say(account(after.now_ns))
    assert reconciler.is_ready(ACCOUNT)
    assert reconciler.waiting_for(ACCOUNT) == ""
    assert not reconciler.is_asking
    assert reconciler.next_time_ns() == FOREVER_NS


def test_an_account_that_was_not_started_is_not_ready(core: Core) -> None:
    assert not core.reconciler.is_ready("other")
    assert core.reconciler.waiting_for("other") == "not started"


def test_what_is_waited_for_names_the_orders(core: Core, restarted: Restart) -> None:
    for price in ("95", "94", "93", "92"):
        core.rest(price=price)
    after = restarted(core)
    assert after.reconciler.waiting_for(ACCOUNT).endswith(
        "the fate of 4 orders (tdt1i1n1, tdt1i1n2, tdt1i1n3, …)"
    )


def test_lost_answers_are_asked_for_again(core: Core, restarted: Restart) -> None:
    after = restarted(core)
    after.sent()
    after.wait(499 * MS)
    assert after.sent() == []
    after.wait(1 * MS)
    assert open_queries(after) == ["QueryOpenOrders", "QueryFills"]
    answer(after)
    assert after.sent() == [QueryAccount()]
    after.wait(500 * MS)
    assert after.sent() == [QueryAccount()]


def test_a_new_account_brings_no_history_with_it(tmp_path: Path) -> None:
    with Core(tmp_path) as core:
        core.reconciler.start(ACCOUNT, core.now_ns)
        core.turn()
        assert QueryFills(START_NS) in core.sent()


def test_fills_are_asked_for_from_well_before_the_newest_known(core: Core, restarted: Restart) -> None:
    core.fill(core.rest(), "1")
    assert QueryFills(START_NS - FILL_OVERLAP_NS) in restarted(core).sent()


# -- each answer about an order ------------------------------------------------------------------


def test_known_and_open_is_adopted_with_its_slot(core: Core, restarted: Restart) -> None:
    bid, ask = core.quoted()
    after = restarted(core)
    orders = after.state.orders
    assert {order.status for order in orders.values()} == {S.UNKNOWN}
    answer(after, view(bid, after.now_ns, S.OPEN), view(ask, after.now_ns, S.OPEN))
    assert {order.status for order in orders.values()} == {S.OPEN}
    after.say(account(after.now_ns))
    assert after.reconciler.is_ready(ACCOUNT)
    after.sent()
    after.quote(both(98.0, 101.0))
    (amend,) = after.sent()
    assert amend == AmendOrder(bid.client_id, BTC, BUY, D(98), D(1), "v")


@pytest.mark.parametrize("status", [S.CANCELLED, S.EXPIRED, S.REJECTED])
def test_known_but_not_open_is_asked_for_and_ended(
    core: Core, restarted: Restart, status: OrderStatus
) -> None:
    order = core.rest()
    after = restarted(core)
    after.wait(20 * MS)
    assert QueryOrder(order.client_id, BTC) in after.sent()
    answer(after)
    assert after.state.orders[order.client_id].status is S.UNKNOWN
    after.say(view(order, after.now_ns, status))
    assert after.state.retired[order.client_id].status is status
    assert after.sent() == [QueryAccount()]


def test_filled_meanwhile_is_ended_only_with_its_fills(core: Core, restarted: Restart) -> None:
    order = core.rest()
    after = restarted(core)
    after.say(view(order, after.now_ns, S.FILLED, "1"))
    assert after.state.orders[order.client_id].status is S.UNKNOWN
    answer(after, fills=(filled(order.client_id, BUY, "1", "99", "t1", START_NS),))
    assert after.state.retired[order.client_id].status is S.FILLED
    assert after.state.holding(INSTANCE, BTC).qty == 1


def test_missing_fills_are_fetched_and_counted_once(core: Core) -> None:
    order = core.rest()
    core.fill(order, "0.2", "t1")
    core.say(OrderCancelled(order.client_id, core.now_ns, "", D("0.7")))
    assert (order.status, order.filled) == (S.CANCELLED, D("0.2"))
    core.wait(0)
    assert core.sent() == [QueryFills(START_NS - FILL_OVERLAP_NS)]
    fills = tuple(
        filled(order.client_id, BUY, qty, "99", trade_id) for qty, trade_id in [("0.2", "t1"), ("0.5", "t2")]
    )
    core.say(FillsSnapshot(fills, core.now_ns))
    core.say(FillsSnapshot(fills, core.now_ns))
    assert (order.filled, core.state.holding(INSTANCE, BTC).qty) == (D("0.7"), D("0.7"))
    assert not core.reconciler.is_asking


def test_an_intent_that_the_venue_does_not_know_is_dead_only_after_its_window(core: Core) -> None:
    client_id = core.place(limit(BUY, "99", "1"))
    core.say(RequestUnanswered(client_id, "timeout", core.now_ns))
    core.now_ns += SECOND
    core.wait(0)
    assert QueryOrder(client_id, BTC) in core.sent()
    core.say(OrderNotFound(client_id, core.now_ns))
    assert core.state.orders[client_id].status is S.UNKNOWN
    core.wait(START_NS + WINDOW_NS - core.now_ns)
    assert core.sent() == []
    core.wait(1)
    assert core.sent() == [QueryOrder(client_id, BTC)]
    core.say(OrderNotFound(client_id, START_NS + WINDOW_NS))  # still from within the window
    assert client_id in core.state.orders
    core.say(OrderNotFound(client_id, core.now_ns))
    assert core.state.retired[client_id].status is S.REJECTED
    (proof,) = core.journaled(e.OrderResolved)
    assert proof.proof == "the venue does not know it after its validity window ended"
    assert core.alerts() == []


def test_an_order_that_lived_is_forgotten_only_after_its_fills_were_asked_for(core: Core) -> None:
    order = core.rest()
    core.now_ns += 10 * SECOND
    core.say(RequestUnanswered(order.client_id, "line lost", core.now_ns))
    core.say(OrderNotFound(order.client_id, core.now_ns))
    core.say(OrderNotFound(order.client_id, core.now_ns))  # told twice proves no more than once
    assert order.status is S.UNKNOWN
    core.wait(0)
    assert core.sent() == [QueryFills(START_NS - FILL_OVERLAP_NS), QueryOrder(order.client_id, BTC)]
    core.say(FillsSnapshot((), core.now_ns), OrderNotFound(order.client_id, core.now_ns))
    assert core.state.retired[order.client_id].status is S.EXPIRED
    assert core.alerts() == ["order_forgotten"]


@pytest.mark.parametrize("refusal", [AmendRejected, CancelRejected])
def test_a_request_about_an_order_that_is_gone_has_its_end_asked_for(core: Core, refusal: Any) -> None:
    order = core.rest()
    core.cancel(order.client_id)
    core.sent()
    core.say(refusal(order.client_id, GONE, "", core.now_ns))
    assert order.status is S.UNKNOWN
    core.wait(0)
    assert core.sent() == [QueryOrder(order.client_id, BTC)]


@pytest.mark.parametrize("doing", ["place", "amend", "cancel"])
def test_a_request_without_an_answer_is_doubted_after_its_window(core: Core, doing: str) -> None:
    if doing == "place":
        client_id = core.place(limit(BUY, "99", "1"))
    else:
        bid, _ = core.quoted()
        client_id = bid.client_id
        core.quote(both(98.0, 101.0)) if doing == "amend" else core.quote(both(None, 101.0))
    core.sent()
    core.wait(WINDOW_NS)
    assert core.state.orders[client_id].status is not S.UNKNOWN
    core.wait(1)
    assert core.state.orders[client_id].status is S.UNKNOWN
    assert core.sent() == [QueryOrder(client_id, BTC)]


def test_questions_about_an_order_are_repeated_with_growing_patience(core: Core) -> None:
    order = core.rest()
    core.say(RequestUnanswered(order.client_id, "timeout", core.now_ns))
    gaps = []
    last_ns = core.now_ns
    for _ in range(900):
        core.wait(100 * MS)
        if QueryOrder(order.client_id, BTC) in core.sent():
            gaps.append((core.now_ns - last_ns) / SECOND)
            last_ns = core.now_ns
    assert gaps == [0.1, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0]


# -- answers that prove nothing ------------------------------------------------------------------


def test_a_view_from_before_an_amend_took_effect_does_not_end_the_doubt(core: Core) -> None:
    bid, _ = core.quoted()
    core.quote(both(99.0, 101.0, "5"))
    core.now_ns += SECOND
    core.say(RequestUnanswered(bid.client_id, "timeout", core.now_ns))
    core.say(view(bid, core.now_ns, S.OPEN))  # the amend may still be on its way
    assert (bid.status, bid.pending_qty) == (S.UNKNOWN, D(5))
    core.fill(bid, "1.5")  # it did take effect
    assert bid.filled == D("1.5")
    core.now_ns += WINDOW_NS
    core.say(view(bid, core.now_ns, S.PARTIALLY_FILLED, "1.5", qty=D(5)))
    assert (bid.status, bid.qty, bid.pending_qty) == (S.PARTIALLY_FILLED, D(5), None)


def test_a_view_that_shows_the_amend_is_believed_at_once(core: Core) -> None:
    bid, _ = core.quoted()
    core.quote(both(99.0, 101.0, "2"))
    core.say(RequestUnanswered(bid.client_id, "timeout", core.now_ns))
    core.now_ns += MS
    core.say(view(bid, core.now_ns, S.OPEN, qty=D(2)))
    assert (bid.status, bid.qty) == (S.OPEN, D(2))


def test_a_late_answer_from_an_earlier_doubt_changes_nothing(core: Core) -> None:
    bid, _ = core.quoted()
    late = view(bid, core.now_ns, S.OPEN)
    core.quote(both(98.0, 101.0))
    core.say(OrderAmended(bid.client_id, D(98), D(1), core.now_ns))
    before = core.journal.last_lsn
    core.say(late)
    assert (bid.price, core.journal.last_lsn) == (D(98), before)


def test_a_late_view_does_not_change_an_order_of_which_only_fills_are_missing(core: Core) -> None:
    bid, _ = core.quoted()
    core.now_ns += MS
    late = view(bid, core.now_ns, S.PARTIALLY_FILLED, "0.3")
    core.say(late)
    core.quote(both(98.0, 101.0))
    core.say(OrderAmended(bid.client_id, D(98), D(1), core.now_ns))
    core.say(late)
    assert (bid.status, bid.price) == (S.OPEN, D(98))
    assert core.reconciler.is_asking


def test_a_view_older_than_our_fills_is_not_believed(core: Core) -> None:
    order = core.rest()
    core.fill(order, "0.5")
    core.say(RequestUnanswered(order.client_id, "timeout", core.now_ns))
    core.now_ns += MS
    core.say(view(order, core.now_ns, S.OPEN, "0.2"))
    assert (order.status, order.filled) == (S.UNKNOWN, D("0.5"))


def test_an_overfill_by_an_amend_that_we_heard_nothing_of_is_cleared_up(core: Core) -> None:
    order = core.rest(qty="1")
    fill = filled(order.client_id, BUY, "1.5", "99", "t1")
    core.say(fill)
    assert core.alerts() == ["overfill"]
    assert (order.status, order.filled) == (S.UNKNOWN, 0)
    core.now_ns += MS
    core.say(view(order, core.now_ns, S.PARTIALLY_FILLED, "1.5", qty=D(2)))
    core.wait(0)
    assert QueryFills(START_NS - FILL_OVERLAP_NS) in core.sent()
    core.say(FillsSnapshot((fill,), core.now_ns))
    assert (order.status, order.filled, order.qty) == (S.PARTIALLY_FILLED, D("1.5"), D(2))
    assert not core.reconciler.is_asking


def test_an_unheard_amend_of_an_order_that_is_filled_is_cleared_up(core: Core) -> None:
    order = core.rest(qty="1")
    core.say(RequestUnanswered(order.client_id, "timeout", core.now_ns))
    core.now_ns += MS
    core.say(view(order, core.now_ns, S.FILLED, "2", qty=D(2)))
    core.say(filled(order.client_id, BUY, "2", "99", "t1"))
    core.say(view(order, core.now_ns, S.FILLED, "2", qty=D(2)))
    assert (order.status, order.filled) == (S.FILLED, D(2))
    assert core.alerts() == []


# -- orders that the journal does not know -------------------------------------------------------


def test_an_open_order_of_ours_that_the_journal_does_not_know_is_taken_over_and_cancelled(core: Core) -> None:
    client_id = "tdt1i1nff"
    core.wait(AUDIT_EVERY_NS)
    core.sent()
    core.say(OpenOrdersSnapshot((stray(client_id, ts_ns=core.now_ns),), core.now_ns))
    order = core.state.orders[client_id]
    assert (order.instance, order.slot, order.status) == (INSTANCE, -1, S.PENDING_CANCEL)
    assert [type(command) for command in core.sent()] == [CancelOrder]
    assert core.alerts() == ["order_adopted"]
    core.say(OrderCancelled(client_id, core.now_ns))
    assert client_id in core.state.retired


def test_a_lost_cancel_of_such_an_order_is_sent_again(core: Core) -> None:
    client_id = "tdt1i1nff"
    core.wait(AUDIT_EVERY_NS)
    core.say(OpenOrdersSnapshot((stray(client_id, ts_ns=core.now_ns),), core.now_ns))
    core.wait(WINDOW_NS + 1)
    core.sent()
    core.now_ns += MS
    core.say(stray(client_id, ts_ns=core.now_ns))
    assert core.state.orders[client_id].status is S.OPEN
    core.wait(0)
    assert [type(command) for command in core.sent()] == [CancelOrder]


def test_its_fills_are_asked_for_from_the_beginning(core: Core) -> None:
    client_id = "tdt1i1nff"
    core.wait(AUDIT_EVERY_NS)
    core.say(OpenOrdersSnapshot((stray(client_id, "0.4", S.PARTIALLY_FILLED, core.now_ns),), core.now_ns))
    core.sent()
    core.wait(0)
    assert QueryFills(0) in core.sent()
    core.say(FillsSnapshot((filled(client_id, BUY, "0.4", "99", "t1"),), core.now_ns))
    assert core.state.holding(INSTANCE, BTC).qty == D("0.4")


def test_a_fill_of_an_unknown_order_is_counted_once_its_order_was_told(core: Core) -> None:
    client_id = "tdt1i1nff"
    fills = tuple(filled(client_id, BUY, "0.5", "99", trade_id) for trade_id in ("t1", "t2"))
    core.say(*fills, fills[0])
    assert core.state.holding(INSTANCE, BTC).qty == 0
    core.wait(0)
    assert core.sent() == [QueryOrder(client_id, BTC)]
    core.say(stray(client_id, "1", S.FILLED, core.now_ns))
    assert core.state.holding(INSTANCE, BTC).qty == 1
    assert core.state.retired[client_id].status is S.FILLED
    core.say(FillsSnapshot(fills, core.now_ns))
    assert core.state.holding(INSTANCE, BTC).qty == 1
    assert core.alerts() == ["order_adopted"]
    assert not core.reconciler.is_asking


def test_fills_of_an_order_that_the_venue_has_forgotten_are_counted_by_themselves(core: Core) -> None:
    fills = tuple(filled("tdt1i1nff", BUY, "0.5", "99", trade_id) for trade_id in ("t1", "t2"))
    core.say(*fills, fills[0], OrderNotFound("tdt1i1nff", core.now_ns))
    assert core.state.holding(INSTANCE, BTC).qty == 1
    assert core.alerts() == ["fill_adopted", "fill_adopted"]
    core.say(*fills, OrderNotFound("tdt1i1nff", core.now_ns))
    assert core.state.holding(INSTANCE, BTC).qty == 1


def test_an_old_fill_of_an_order_long_done_and_forgotten_is_not_counted_again(core: Core) -> None:
    core.fill(core.rest(), "1", "t5")
    core.say(filled("tdt1i1n0", BUY, "1", "99", "t0", START_NS - 1))
    assert core.state.holding(INSTANCE, BTC).qty == 1
    assert not core.reconciler.is_asking


def test_an_acknowledgement_of_an_unknown_order_has_the_open_orders_asked_for(core: Core) -> None:
    core.say(OrderAccepted("tdt1i1nff", "v9", core.now_ns))
    core.wait(0)
    assert QueryOpenOrders() in core.sent()


def test_orders_of_others_are_left_alone(core: Core) -> None:
    core.wait(AUDIT_EVERY_NS)
    before = core.journal.last_lsn
    core.sent()
    theirs = (stray("web-1", "0.5"), stray("xxt1i1n1"))
    core.say(OpenOrdersSnapshot(theirs, core.now_ns), filled("web-1", BUY, "0.5", "99", "t1"), *theirs)
    assert core.sent() == []
    assert core.journal.last_lsn == before


def test_an_order_that_is_alive_against_all_proof_is_taken_back_and_cancelled(core: Core) -> None:
    order = core.rest()
    core.fill(order, "0.4")
    core.say(OrderCancelled(order.client_id, core.now_ns))
    core.wait(AUDIT_EVERY_NS)
    core.sent()
    core.say(OpenOrdersSnapshot((view(order, core.now_ns, S.PARTIALLY_FILLED, "0.4"),), core.now_ns))
    revived = core.state.orders[order.client_id]
    assert (revived.status, revived.filled, revived.trade_ids) == (S.PENDING_CANCEL, D("0.4"), ["t1"])
    assert core.alerts() == ["order_adopted"]
    assert [type(command) for command in core.sent()] == [CancelOrder]


def test_a_list_that_lags_behind_the_reports_brings_no_order_back(core: Core) -> None:
    order = core.rest()
    core.wait(AUDIT_EVERY_NS)
    core.say(OrderCancelled(order.client_id, core.now_ns))
    core.say(OpenOrdersSnapshot((view(order, core.now_ns, S.OPEN),), core.now_ns))
    assert order.client_id in core.state.retired
    assert core.alerts() == []


# -- the audit -----------------------------------------------------------------------------------


def test_an_order_lost_without_a_word_is_found_by_the_audit(core: Core) -> None:
    order = core.rest()
    core.wait(AUDIT_EVERY_NS)
    assert QueryOpenOrders() in core.sent()
    core.say(OpenOrdersSnapshot((), core.now_ns))
    assert order.status is S.UNKNOWN
    core.wait(0)
    assert core.sent() == [QueryOrder(order.client_id, BTC)]


def test_an_order_that_changed_after_the_question_is_not_doubted(core: Core) -> None:
    core.wait(AUDIT_EVERY_NS)
    order = core.rest()
    core.say(OpenOrdersSnapshot((), core.now_ns))
    assert order.status is S.OPEN


def test_a_late_list_does_not_doubt_what_is_newer_than_it(core: Core) -> None:
    made_ns = core.now_ns
    core.now_ns += SECOND
    order = core.rest()
    core.wait(AUDIT_EVERY_NS)
    core.say(OpenOrdersSnapshot((), made_ns))
    assert order.status is S.OPEN


def test_a_price_or_size_that_differs_at_the_venue_is_asked_about(core: Core) -> None:
    order = core.rest()
    core.wait(AUDIT_EVERY_NS)
    seen = view(order, core.now_ns, S.OPEN, qty=D(3))
    core.say(OpenOrdersSnapshot((seen,), core.now_ns))
    assert order.status is S.UNKNOWN
    core.now_ns += MS
    core.say(view(order, core.now_ns, S.OPEN, qty=D(3)))
    assert (order.status, order.qty) == (S.OPEN, D(3))


def test_a_fill_lost_on_a_resting_order_is_found_by_the_audit(core: Core) -> None:
    order = core.rest()
    core.wait(AUDIT_EVERY_NS)
    core.say(OpenOrdersSnapshot((view(order, core.now_ns, S.PARTIALLY_FILLED, "0.3"),), core.now_ns))
    core.sent()
    core.wait(0)
    assert QueryFills(START_NS - FILL_OVERLAP_NS) in core.sent()
    core.say(filled(order.client_id, BUY, "0.3", "99", "t1"))
    assert (order.filled, order.status) == (D("0.3"), S.PARTIALLY_FILLED)


def test_a_fill_lost_under_a_cancel_that_does_not_tell_of_it_is_found_by_the_audit(core: Core) -> None:
    order = core.rest()
    core.say(OrderCancelled(order.client_id, core.now_ns))
    core.wait(AUDIT_EVERY_NS)
    (asked,) = [command for command in core.sent() if isinstance(command, QueryFills)]
    assert asked.since_ns <= START_NS
    core.say(FillsSnapshot((filled(order.client_id, BUY, "0.3", "99", "t1"),), core.now_ns))
    assert order.filled == D("0.3")


def test_audits_are_repeated(core: Core) -> None:
    for _ in range(3):
        core.wait(AUDIT_EVERY_NS)
        assert QueryOpenOrders() in core.sent()


def test_answers_that_nobody_asked_for_are_harmless(tmp_path: Path) -> None:
    with Core(tmp_path) as core:
        core.say(OpenOrdersSnapshot((), START_NS), FillsSnapshot((), START_NS), account(START_NS))
        assert not core.reconciler.is_ready(ACCOUNT)
        assert core.journaled(e.AccountReported) == []


# -- balances and positions ----------------------------------------------------------------------


def test_a_drift_is_looked_into_before_the_third_answer_in_a_row_is_believed(
    core: Core, restarted: Restart
) -> None:
    after = restarted(core)
    answer(after)
    for pause_ns in (0, 500 * MS):  # trading waits for it, so the first look is at once
        after.sent()
        after.say(account(after.now_ns, USDT=D(99_000)))
        assert not after.reconciler.is_ready(ACCOUNT)
        assert after.alerts() == []
        if pause_ns:
            assert after.sent() == []
            after.wait(pause_ns)
        assert [type(command) for command in after.sent()] == [QueryFills]
        after.say(FillsSnapshot((), after.now_ns))
        assert after.sent() == [QueryAccount()]
    after.say(account(after.now_ns, USDT=D(99_000)))
    assert after.reconciler.is_ready(ACCOUNT)
    (alert,) = after.journaled(e.Alert)
    assert (alert.kind, alert.text) == (
        "account_drift",
        "account acc: balance USDT: ours 100000, the venue's 99000",
    )
    assert after.state.balances[ACCOUNT]["USDT"] == D(99_000)


def test_a_drift_that_a_lost_fill_explains_is_none(core: Core, restarted: Restart) -> None:
    order = core.rest()
    core.say(OrderCancelled(order.client_id, core.now_ns))
    after = restarted(core)
    answer(after)
    told = account(after.now_ns, USDT=D("99970.2"), BTC=D("50.3"))
    after.say(told)
    after.say(FillsSnapshot((filled(order.client_id, BUY, "0.3", "99", "t1"),), after.now_ns), told)
    assert after.reconciler.is_ready(ACCOUNT)
    assert after.alerts() == []
    assert after.state.balances[ACCOUNT] == {"USDT": D("99970.2"), "BTC": D("50.3")}


def test_balances_from_before_a_fill_are_asked_for_again_at_once(core: Core, restarted: Restart) -> None:
    order = core.rest()
    after = restarted(core)
    after.now_ns += MS
    answer(after, view(order, after.now_ns, S.OPEN))
    after.sent()
    after.say(filled(order.client_id, BUY, "1", "99", "t1", after.now_ns))
    after.say(account(after.now_ns))  # made before the fill
    assert not after.reconciler.is_ready(ACCOUNT)
    assert after.state.balances[ACCOUNT]["BTC"] == D(51)
    assert after.sent() == [QueryAccount()]
    after.say(account(after.now_ns, USDT=D("99900.9"), BTC=D(51)))
    assert after.reconciler.is_ready(ACCOUNT)
    assert after.alerts() == []


def test_an_answer_told_twice_is_compared_once(core: Core, restarted: Restart) -> None:
    after = restarted(core)
    answer(after)
    for _ in range(5):
        after.say(account(after.now_ns, USDT=D(99_000)))
    assert after.alerts() == []


def test_a_late_answer_after_the_account_is_ready_changes_nothing(core: Core) -> None:
    core.fill(core.rest(), "1")
    balances = dict(core.state.balances[ACCOUNT])
    core.say(account(core.now_ns))
    assert core.state.balances[ACCOUNT] == balances


def test_balances_are_compared_again_while_the_account_trades(core: Core) -> None:
    for _ in range(3):
        core.wait(BALANCES_EVERY_NS - 1)
        assert QueryAccount() not in core.sent()
        core.wait(1)
        assert QueryAccount() in core.sent()
        before = len(core.journaled(e.AccountReported))
        core.say(account(core.now_ns))
        assert len(core.journaled(e.AccountReported)) == before + 1
    assert core.alerts() == []


def test_a_deposit_is_taken_over_with_an_alert_when_three_answers_say_so(core: Core) -> None:
    core.wait(BALANCES_EVERY_NS)
    for _ in range(2):
        core.say(account(core.now_ns, USDT=D(150_000)))
        assert core.alerts() == []
        core.sent()
        core.wait(BALANCES_AGAIN_NS)
        assert QueryAccount() not in core.sent()  # first of all the fills, as with each audit
        core.wait(AUDIT_EVERY_NS)
        assert any(isinstance(command, QueryFills) for command in core.sent())
        core.say(FillsSnapshot((), core.now_ns))
        assert core.sent() == [QueryAccount()]
    assert core.reconciler.is_ready(ACCOUNT)  # trading goes on meanwhile
    core.say(account(core.now_ns, USDT=D(150_000)))
    assert core.alerts() == ["account_drift"]
    assert core.state.balances[ACCOUNT]["USDT"] == D(150_000)


def test_balances_that_a_fill_overtook_are_asked_for_again_later(core: Core) -> None:
    order = core.rest()
    core.wait(BALANCES_EVERY_NS)
    core.say(OpenOrdersSnapshot((view(order, core.now_ns, S.OPEN),), core.now_ns))
    core.sent()
    core.say(filled(order.client_id, BUY, "1", "99", "t1", core.now_ns))
    core.say(account(core.now_ns))  # made before the fill
    assert core.state.balances[ACCOUNT]["BTC"] == D(51)
    core.wait(BALANCES_AGAIN_NS - 1)
    assert QueryAccount() not in core.sent()
    core.wait(1)
    assert QueryAccount() in core.sent()
    core.say(account(core.now_ns, USDT=D("99900.9"), BTC=D(51)))
    assert core.alerts() == []


@pytest.mark.parametrize(("theirs", "price"), [("3", "120"), ("0", None), ("-1", "110")])
def test_a_position_that_differs_is_set_right_with_an_alert(
    tmp_path: Path, theirs: str, price: str | None
) -> None:
    with Core(tmp_path, instruments=[instrument(), LINEAR]) as core:
        core.get_ready()
        fill = OrderFilled(
            core.place(_perp_order("2")),
            PERP,
            BUY,
            "t1",
            D(100),
            D(2),
            D(0),
            "USDT",
            Liquidity.MAKER,
            START_NS,
        )
        core.say(fill)
        core.reconciler.start(ACCOUNT, core.now_ns)
        core.turn()
        answer(core)
        positions = () if price is None else (VenuePosition(PERP, D(theirs), D(price)),)
        for _ in range(3):
            core.say(_snapshot(core, positions))
            core.wait(500 * MS)
            core.say(FillsSnapshot((), core.now_ns))
        assert core.state.account_qty(ACCOUNT, PERP) == D(theirs)
        (adjusted,) = core.journaled(e.PositionAdjusted)
        assert adjusted.qty == D(theirs) - 2
        assert adjusted.price == D(price or 100)  # what is not there any more goes at what it cost
        assert core.alerts() == ["account_drift"]
        assert core.state.holding(INSTANCE, PERP).qty == 2  # what the instance's own fills built up


def test_a_position_from_before_our_time_is_taken_over_with_an_alert(tmp_path: Path) -> None:
    with Core(tmp_path, instruments=[instrument(), LINEAR]) as core:
        core.reconciler.start(ACCOUNT, core.now_ns)
        core.turn()
        answer(core)
        core.say(_snapshot(core, (VenuePosition(PERP, D(4), D(90)),)))
        assert core.reconciler.is_ready(ACCOUNT)
        assert core.state.account_qty(ACCOUNT, PERP) == 4
        assert core.alerts() == ["account_drift"]


def test_the_venues_rounding_of_derivative_profit_is_no_drift(tmp_path: Path) -> None:
    with Core(tmp_path, instruments=[instrument(), LINEAR]) as core:
        core.get_ready()
        client_id = core.place(_perp_order("2"))
        core.say(
            OrderFilled(client_id, PERP, BUY, "t1", D(100), D(2), D(0), "USDT", Liquidity.MAKER, START_NS)
        )
        core.reconciler.start(ACCOUNT, core.now_ns)
        core.turn()
        answer(core)
        rounded = VenuePosition(PERP, D(2), D("100.000000005"))
        core.say(_snapshot(core, (rounded,), usdt="100000.00000001"))
        assert core.reconciler.is_ready(ACCOUNT)
        assert core.alerts() == []


def test_fills_told_in_another_order_than_they_happened_are_no_drift(tmp_path: Path) -> None:
    with Core(tmp_path, instruments=[instrument(), LINEAR]) as core:
        core.get_ready()
        told = [(SELL, "101"), (BUY, "99"), (BUY, "100")]  # the venue had bought at 100 first
        for number, (side, price) in enumerate(told):
            request = OrderRequest(symbol=PERP, side=side, qty=D(1), price=D(price))
            client_id, trade_id = core.place(request), f"t{number}"
            core.say(
                OrderFilled(
                    client_id, PERP, side, trade_id, D(price), D(1), D(0), "USDT", Liquidity.MAKER, START_NS
                )
            )
        assert core.state.balances[ACCOUNT]["USDT"] == D(100_002)
        core.reconciler.start(ACCOUNT, core.now_ns)
        core.turn()
        answer(core)
        core.say(_snapshot(core, (VenuePosition(PERP, D(1), D(99)),), usdt="100001"))
        assert core.reconciler.is_ready(ACCOUNT)
        assert core.alerts() == []
        assert core.state.balances[ACCOUNT]["USDT"] == D(100_001)
        assert core.state.net_holdings[ACCOUNT][PERP].open_cost == D(99)


def test_what_a_new_account_has_is_not_asked_while_its_orders_may_trade(tmp_path: Path) -> None:
    with Core(tmp_path) as core:
        core.reconciler.start(ACCOUNT, core.now_ns)
        core.turn()
        client_id = "tdt1i1nff"
        core.now_ns += MS
        answer(core, stray(client_id, ts_ns=core.now_ns))
        assert QueryAccount() not in core.sent()
        core.say(OrderCancelled(client_id, core.now_ns, "", D(0)))
        core.wait(500 * MS)
        assert QueryAccount() in core.sent()


def test_a_reconnect_compares_everything_again(core: Core) -> None:
    order = core.rest()
    core.now_ns += SECOND
    core.reconciler.start(ACCOUNT, core.now_ns)
    core.turn()
    assert not core.reconciler.is_ready(ACCOUNT)
    assert open_queries(core) == ["QueryOpenOrders", "QueryFills"]
    answer(core, view(order, core.now_ns, S.OPEN))
    core.say(account(core.now_ns))
    assert core.reconciler.is_ready(ACCOUNT)
    assert order.status is S.OPEN


def test_a_rejection_ends_the_doubt(core: Core) -> None:
    client_id = core.place(limit(SELL, "101", "1"))
    core.say(RequestUnanswered(client_id, "timeout", core.now_ns))
    core.say(OrderRejected(client_id, RejectReason.EXPIRED_REQUEST, "late", core.now_ns))
    assert core.state.retired[client_id].status is S.REJECTED
    assert not core.reconciler.is_asking


def _perp_order(qty: str) -> OrderRequest:
    return OrderRequest(symbol=PERP, side=BUY, qty=D(qty), price=D(100))


def _snapshot(core: Core, positions: tuple[VenuePosition, ...], usdt: str = "100000") -> AccountSnapshot:
    balances = (Balance("USDT", D(usdt)), Balance("BTC", D(50)))
    return AccountSnapshot(balances, positions, core.now_ns)


# -- orders of another node ----------------------------------------------------------------------


@pytest.fixture
def taken_over(tmp_path: Path) -> Iterator[Callable[..., Core]]:
    """Return a function that goes on with a core's journal on a node whose clock differs by `ahead_ns`."""
    cores: list[Core] = []

    def take_over(core: Core, *, ahead_ns: int, may_arrive: bool) -> Core:
        core.close()
        after = Core(tmp_path, now_ns=core.now_ns + ahead_ns)
        cores.append(after)
        after.reconciler.inherit(after.now_ns, may_arrive=may_arrive)
        after.reconciler.start(ACCOUNT, after.now_ns)
        after.turn()
        after.sent()
        return after

    yield take_over
    for core in cores:
        core.close()


@pytest.mark.parametrize("ahead_ns", [-5 * SECOND, 0, 5 * SECOND])
def test_what_a_dead_node_sent_last_is_waited_for_by_the_clock_of_the_one_that_took_over(
    core: Core, taken_over: Callable[..., Core], ahead_ns: int
) -> None:
    client_id = core.place(limit(BUY, "99", "1"))
    after = taken_over(core, ahead_ns=ahead_ns, may_arrive=True)
    after.now_ns += WINDOW_NS
    after.say(OrderNotFound(client_id, after.now_ns))
    assert client_id in after.state.orders, "a clock that is ahead must not have it declared dead too early"
    after.now_ns += 1
    after.say(OrderNotFound(client_id, after.now_ns))
    assert after.state.retired[client_id].status is S.REJECTED


@pytest.mark.parametrize("ahead_ns", [-5 * SECOND, 0, 5 * SECOND])
def test_nothing_is_waited_for_where_the_windows_of_a_deposed_node_have_ended(
    core: Core, taken_over: Callable[..., Core], ahead_ns: int
) -> None:
    client_id = core.place(limit(BUY, "99", "1"))
    after = taken_over(core, ahead_ns=ahead_ns, may_arrive=False)
    after.say(OrderNotFound(client_id, after.now_ns))
    assert after.state.retired[client_id].status is S.REJECTED


def test_a_resting_order_of_a_node_whose_clock_is_ahead_is_adopted_at_once(
    core: Core, taken_over: Callable[..., Core]
) -> None:
    order = core.rest()
    after = taken_over(core, ahead_ns=-5 * SECOND, may_arrive=True)
    after.say(view(order, after.now_ns + 1, S.OPEN))
    assert after.state.orders[order.client_id].status is S.OPEN
