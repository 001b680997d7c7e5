"""Orders by hand: whose they are, what may be asked of them, and what is left of them after a crash."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from desk_tools import ACCOUNT, BTC, ETH, Desk, Quoter, ScriptedVenue

from host.api import (
    AmendOrder,
    AmendSupport,
    CancelOrder,
    OrderRefused,
    OrderRequest,
    OrderStatus,
    OrderType,
    PlaceOrder,
    Side,
    TimeInForce,
)
from host.core import entries as e
from host.core.risk_limits import Action, Limits, RiskConfig
from host.runtime.scope import NotKnown
from host.runtime.stops import NotStopped
from host.runtime.turn import Halted

D = Decimal
HAND = f"hand@{ACCOUNT}"


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    desk = Desk(tmp_path)
    desk.top()
    return desk


def bid(price: str = "59000", qty: str = "1", **more: Any) -> OrderRequest:
    return OrderRequest(symbol=BTC, side=Side.BUY, qty=D(qty), price=D(price), **more)


def place(desk: Desk, request: OrderRequest | None = None, by: str = "ann") -> str:
    """Place an order by hand, have the venue accept it, and return its client id."""
    order = desk.engine.by_hand.place(ACCOUNT, request or bid(), by)
    desk.settle()
    return order.client_id


def fill(desk: Desk, client_id: str, qty: str) -> None:
    desk.venue.trade(desk.venue.orders[client_id], qty)
    desk.settle()


def test_an_order_by_hand_is_journaled_with_its_sender_and_owned_by_the_accounts_people(desk: Desk) -> None:
    order = desk.engine.by_hand.place(ACCOUNT, bid(), "ann")
    assert (order.instance, order.placed_by, order.status) == (HAND, "ann", OrderStatus.PENDING_NEW)
    desk.settle()
    assert order.status is OrderStatus.OPEN
    (sent,) = [entry for entry in desk.entries if isinstance(entry, e.PlaceSent)]
    assert (sent.client_id, sent.instance, sent.by) == (order.client_id, HAND, "ann")


def test_its_fills_make_a_position_of_its_own(desk: Desk) -> None:
    desk.run("mm", Quoter())
    fill(desk, place(desk), "0.4")
    assert desk.engine.state.position(HAND, BTC).qty == D("0.4")
    assert desk.engine.state.position("mm", BTC).qty == 0
    (booked,) = desk.engine.fill_history.newest_first()
    (reported,) = [
        lsn
        for lsn, entry in enumerate(desk.entries, 1)
        if isinstance(entry, e.Reported) and type(entry.report).__name__ == "OrderFilled"
    ]
    assert (booked.fill.instance, booked.fill.qty, booked.lsn) == (HAND, D("0.4"), reported)


@pytest.mark.parametrize(
    ("request_", "field", "words"),
    [
        (bid(qty="0.0005"), "qty", "multiple of the lot"),
        (bid(qty="0"), "qty", "positive"),
        (bid(qty="NaN"), "qty", "positive"),
        (bid("59000.001"), "price", "multiple of the tick"),
        (bid("-1"), "price", "positive"),
        (OrderRequest(symbol=BTC, side=Side.BUY, qty=D(1)), "price", "needs a price"),
        (bid(type=OrderType.MARKET), "price", "has no price"),
        (
            OrderRequest(symbol=BTC, side=Side.BUY, qty=D(1), type=OrderType.MARKET, post_only=True),
            "post_only",
            "has to cross",
        ),
        (bid(post_only=True, time_in_force=TimeInForce.IOC), "time_in_force", "use gtc"),
        (bid(reduce_only=True), "reduce_only", "spot"),
    ],
)
def test_a_request_that_cannot_be_names_its_field_and_sends_nothing(
    desk: Desk, request_: OrderRequest, field: str, words: str
) -> None:
    sent = len(desk.venue.sent)
    with pytest.raises(OrderRefused, match=words) as caught:
        desk.engine.by_hand.place(ACCOUNT, request_, "ann")
    assert (caught.value.reason, caught.value.field) == ("INVALID_ORDER", field)
    assert len(desk.venue.sent) == sent
    assert not desk.engine.state.orders


def test_unknown_names_are_told_with_those_there_are(desk: Desk) -> None:
    by_hand = desk.engine.by_hand
    with pytest.raises(NotKnown, match=f"no account other: connected are {ACCOUNT}"):
        by_hand.place("other", bid(), "ann")
    with pytest.raises(NotKnown, match=f"no symbol SOL-USDT: account {ACCOUNT} follows {BTC}, {ETH}"):
        by_hand.place(ACCOUNT, OrderRequest(symbol="SOL-USDT", side=Side.BUY, qty=D(1), price=D(1)), "ann")
    for ask in (by_hand.find, lambda name: by_hand.cancel(name, "ann")):
        with pytest.raises(NotKnown, match="no order tdt1i1n9"):
            ask("tdt1i1n9")
    for scope in ("node:x", "account:x", "instance:x", "symbol:x", "all", ""):
        with pytest.raises(NotKnown):
            desk.engine.stops.cancel_all(scope, "ann")


def test_limits_of_account_symbol_and_node_hold_for_orders_by_hand(tmp_path: Path) -> None:
    limits = RiskConfig(symbols={BTC: Limits(max_position=D(2))}, node=Limits(max_order_qty=D(3)))
    desk = Desk(tmp_path, risk=limits)
    desk.top()
    with pytest.raises(OrderRefused, match="order_qty"):
        place(desk, bid(qty="4"))
    place(desk, bid(qty="2"))
    with pytest.raises(OrderRefused, match="position"):
        place(desk, bid(qty="1"))
    assert len(desk.orders(HAND)) == 1


def test_what_is_refused_has_changed_nothing_and_trips_nothing(tmp_path: Path) -> None:
    limits = Limits(max_order_qty=D(3), max_orders_per_second=2, on_breach=Action.KILL)
    desk = Desk(tmp_path, risk=RiskConfig(node=limits))
    desk.top()
    before = desk.engine.state.digest()
    for _ in range(5):
        with pytest.raises(OrderRefused, match="order_qty"):
            place(desk, bid(qty="4"))
        desk.engine.by_hand.check_place(ACCOUNT, bid())
    assert desk.engine.state.digest() == before
    client_id = place(desk)
    before = desk.engine.state.digest()
    for _ in range(5):
        desk.engine.by_hand.check_amend(client_id, D(58_000), None)
    assert desk.engine.state.digest() == before
    place(desk)
    with pytest.raises(OrderRefused, match="order_rate"):
        place(desk)


def test_nothing_is_placed_while_the_account_is_out_of_touch_or_the_gate_closed(desk: Desk) -> None:
    desk.connection("private", is_up=False)
    with pytest.raises(OrderRefused, match="not in touch with its venue") as caught:
        place(desk)
    assert caught.value.reason == "NOT_CONNECTED"
    desk.connection("private", is_up=True)
    desk.settle()
    desk.advance(1.0)
    desk.engine.gate.close()
    with pytest.raises(OrderRefused, match="may not send orders now"):
        place(desk)
    assert not desk.engine.state.orders


def test_a_halted_node_refuses_everything(desk: Desk) -> None:
    client_id = place(desk)
    desk.engine.halt("the test says so")
    for ask in (
        lambda: desk.engine.by_hand.place(ACCOUNT, bid(), "ann"),
        lambda: desk.engine.by_hand.cancel(client_id, "ann"),
        lambda: desk.engine.stops.panic_stop("node", "ann"),
    ):
        with pytest.raises(Halted, match="the test says so"):
            ask()


# -- amends --------------------------------------------------------------------------------------


def test_an_amend_changes_price_and_total_quantity_and_is_journaled_with_its_sender(desk: Desk) -> None:
    client_id = place(desk)
    fill(desk, client_id, "0.25")
    order = desk.engine.by_hand.amend(client_id, D("59001"), None, "bob")
    assert (order.status, order.pending_price, order.pending_qty) == (
        OrderStatus.PENDING_AMEND,
        D("59001"),
        D(1),
    )
    desk.settle()
    desk.engine.by_hand.amend(client_id, None, D("0.5"), "bob")
    desk.settle()
    assert (order.price, order.qty, order.remaining) == (D("59001"), D("0.5"), D("0.25"))
    amends = [entry for entry in desk.entries if isinstance(entry, e.AmendSent)]
    assert [(amend.by, amend.changes[0].qty) for amend in amends] == [("bob", D(1)), ("bob", D("0.5"))]


def test_an_amend_to_what_is_already_so_sends_nothing(desk: Desk) -> None:
    client_id = place(desk)
    desk.engine.by_hand.amend(client_id, D("59000"), D(1), "ann")
    assert not [command for command in desk.venue.sent if isinstance(command, AmendOrder)]


@pytest.mark.parametrize(
    ("price", "qty", "field"),
    [
        (None, D("0.25"), "qty"),
        (None, D("NaN"), "qty"),
        (None, D("0.7505"), "qty"),
        (D("0.001"), None, "price"),
        (D(0), None, "price"),
    ],
)
def test_an_amend_that_cannot_be_names_its_field(
    desk: Desk, price: Decimal | None, qty: Decimal | None, field: str
) -> None:
    client_id = place(desk)
    fill(desk, client_id, "0.25")
    with pytest.raises(OrderRefused) as caught:
        desk.engine.by_hand.amend(client_id, price, qty, "ann")
    assert (caught.value.reason, caught.value.field) == ("INVALID_ORDER", field)
    assert desk.engine.by_hand.find(client_id).pending_qty is None


def test_an_amend_passes_the_limits_with_what_it_adds(tmp_path: Path) -> None:
    desk = Desk(tmp_path, risk=RiskConfig(node=Limits(max_position=D(2))))
    desk.top()
    client_id = place(desk)
    desk.engine.by_hand.amend(client_id, None, D(2), "ann")
    desk.settle()
    with pytest.raises(OrderRefused, match="position"):
        desk.engine.by_hand.amend(client_id, None, D("2.001"), "ann")


def test_only_orders_by_hand_that_rest_can_be_amended(desk: Desk) -> None:
    desk.run("mm", Quoter())
    desk.top()
    quote = desk.orders("mm")[0]
    with pytest.raises(OrderRefused, match="instance mm, which prices it itself"):
        desk.engine.by_hand.amend(quote.client_id, None, D(2), "ann")
    client_id = place(desk)
    fill(desk, client_id, "1")
    with pytest.raises(OrderRefused, match="is filled: only one that rests"):
        desk.engine.by_hand.amend(client_id, None, D(2), "ann")


class NoAmends(ScriptedVenue):
    """A venue where an order can only be cancelled and placed anew."""

    amend_support = AmendSupport.NONE


def test_a_venue_without_amends_says_what_to_do_instead(tmp_path: Path) -> None:
    desk = Desk(tmp_path, NoAmends())
    desk.top()
    with pytest.raises(OrderRefused, match="cancel it and place another"):
        desk.engine.by_hand.amend(place(desk), None, D(2), "ann")


# -- cancels -------------------------------------------------------------------------------------


def test_any_order_can_be_cancelled_once_and_asking_again_changes_nothing(desk: Desk) -> None:
    instance = desk.run("mm", Quoter())
    desk.top()
    desk.engine.roster.resume(instance, "test")
    for client_id in (place(desk), desk.orders("mm")[0].client_id):
        assert desk.engine.by_hand.cancel(client_id, "ann", "mistake").status is OrderStatus.PENDING_CANCEL
        assert desk.engine.by_hand.cancel(client_id, "bob").status is OrderStatus.PENDING_CANCEL
        desk.settle()
        with pytest.raises(OrderRefused, match="is cancelled: there is nothing to cancel"):
            desk.engine.by_hand.cancel(client_id, "ann")
    cancels = [entry for entry in desk.entries if isinstance(entry, e.CancelSent)]
    assert [(cancel.by, cancel.reason) for cancel in cancels] == [("ann", "mistake")] * 2


@pytest.mark.parametrize(
    ("scope", "asked"),
    [
        ("node", 4),
        (f"account:{ACCOUNT}", 4),
        ("instance:mm", 2),
        (f"instance:{HAND}", 2),
        (f"symbol:{ETH}", 1),
    ],
)
def test_a_scope_is_cancelled_and_nothing_else(desk: Desk, scope: str, asked: int) -> None:
    desk.run("mm", Quoter())
    desk.top()
    place(desk)
    place(desk, OrderRequest(symbol=ETH, side=Side.BUY, qty=D(1), price=D(2000)))
    assert desk.engine.stops.cancel_all(scope, "ann") == asked
    desk.settle()
    assert len(desk.venue.open()) == 4 - asked


# -- stopping ------------------------------------------------------------------------------------


def test_a_panic_stop_cancels_and_refuses_until_it_is_released(desk: Desk) -> None:
    desk.run("mm", Quoter())
    desk.top()
    place(desk)
    assert desk.engine.stops.panic_stop("node", "ann", "odd prices") == 3
    desk.settle()
    desk.top(60_010.0, 60_010.1)
    assert not desk.venue.open()
    with pytest.raises(OrderRefused, match=r"kill_switch: .* odd prices"):
        place(desk)
    desk.engine.stops.release("node", "bob", "over")
    desk.advance(2.0)  # a quote that was refused is not tried again at once
    desk.top(60_020.0, 60_020.1)
    place(desk)
    assert len(desk.venue.open()) == 3
    said = [(entry.is_on, entry.by) for entry in desk.entries if isinstance(entry, e.KillSwitchSet)]
    assert said == [(True, "ann"), (False, "bob")]
    with pytest.raises(NotStopped, match="no kill switch is on for node; on are: none"):
        desk.engine.stops.release("node", "bob")


# -- over restarts -------------------------------------------------------------------------------


def start(desk: Desk) -> None:
    """Do what a node does when its accounts agree with their venues."""
    desk.engine.by_hand.take_up()
    desk.engine.roster.cancel_strays("its instance does not run")
    desk.engine.safety.enforce_kill_switches()
    desk.settle()


def test_an_order_by_hand_outlives_the_process_and_can_still_be_changed(desk: Desk) -> None:
    client_id = place(desk)
    again = desk.restart()
    start(again)
    again.top()
    order = again.engine.by_hand.find(client_id)
    assert (order.status, order.placed_by) == (OrderStatus.OPEN, "ann")
    again.engine.by_hand.amend(client_id, D("59002"), None, "bob")
    again.settle()
    assert order.price == D("59002")
    other = place(again)  # the ids of another epoch
    assert other != client_id
    assert {order.client_id for order in again.orders(HAND)} == {client_id, other}


def test_what_filled_while_the_node_was_away_is_booked_and_counts_for_limits(tmp_path: Path) -> None:
    desk = Desk(tmp_path, risk=RiskConfig(node=Limits(max_position=D(2))))
    desk.top()
    client_id = place(desk)
    desk.venue.trade(desk.venue.orders[client_id], "1")
    again = desk.restart()
    start(again)
    again.top()
    assert again.engine.state.position(HAND, BTC).qty == 1
    place(again, bid(qty="1"))
    with pytest.raises(OrderRefused, match="position"):
        place(again, bid(qty="0.001"))


def test_a_lost_intent_is_proved_dead_like_any_other(desk: Desk) -> None:
    desk.venue.is_deaf = True
    client_id = place(desk)
    desk.venue.is_deaf = False
    again = desk.restart(after_s=10.0)
    again.advance(5.0)
    start(again)
    assert again.engine.by_hand.find(client_id).status.is_terminal
    assert not again.venue.orders


def test_nothing_is_kept_for_a_strategy_that_there_is_not(desk: Desk) -> None:
    fill(desk, place(desk), "1")
    assert HAND not in desk.engine.state.unheard


def test_a_clean_stop_leaves_no_order_by_hand(desk: Desk) -> None:
    place(desk)
    desk.engine.stop_trading("test")
    desk.settle()
    assert not desk.venue.open()
    assert [type(c) for c in desk.venue.sent if isinstance(c, PlaceOrder | CancelOrder)] == [
        PlaceOrder,
        CancelOrder,
    ]


def test_the_fills_after_the_newest_snapshot_are_there_after_a_restart(desk: Desk) -> None:
    fill(desk, place(desk), "0.25")
    again = desk.restart()
    assert [booked.fill.qty for booked in again.engine.fill_history.newest_first()] == [D("0.25")]
    assert again.engine.fill_history.first_lsn == 1
    again.engine.upkeep.snapshot(again.clock.now_ns())
    taken = again.engine.state.lsn
    last = again.restart()
    assert not list(last.engine.fill_history.newest_first())
    assert last.engine.fill_history.first_lsn == taken + 1
