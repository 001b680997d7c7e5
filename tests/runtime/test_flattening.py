"""Closing the positions of a scope: until they are flat, or it is said why they are not."""

from decimal import Decimal
from pathlib import Path

import pytest
from desk_tools import ACCOUNT, BTC, ETH, Desk, Quoter, ScriptedVenue

from host.api import (
    Command,
    OrderCancelled,
    OrderRejected,
    OrderRequest,
    OrderType,
    PlaceOrder,
    RejectReason,
    Report,
    Side,
)
from host.core import entries as e
from host.core.risk_limits import Limits

D = Decimal
HAND = f"hand@{ACCOUNT}"


class Taker(ScriptedVenue):
    """Fills market orders at once, up to `depth` each; refuses them while `refuses` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.depth = D(1_000)
        self.refuses = False
        self.closing: list[PlaceOrder] = []

    def _answer(self, command: Command) -> list[Report]:
        if not isinstance(command, PlaceOrder) or command.type is not OrderType.MARKET:
            return super()._answer(command)
        self.closing.append(command)
        now_ns = self.ctx.now_ns()
        if self.refuses:
            return [OrderRejected(command.client_id, RejectReason.NOT_FILLABLE, "nothing there", now_ns)]
        reports = super()._answer(command)
        self._change(command.client_id, price=D(60_000))
        qty = min(command.qty, self.depth)
        self.trade(self.orders[command.client_id], str(qty))
        if qty < command.qty:
            self.waiting.append(OrderCancelled(command.client_id, now_ns, "ioc", qty))
        return reports


@pytest.fixture
def venue() -> Taker:
    return Taker()


@pytest.fixture
def desk(tmp_path: Path, venue: Taker) -> Desk:
    desk = Desk(tmp_path, venue)
    desk.top()
    return desk


def hold(desk: Desk, qty: str, symbol: str = BTC, side: Side = Side.BUY) -> None:
    """Have the account's people hold something."""
    price = D(59_000) if side is Side.BUY else D(61_000)
    request = OrderRequest(symbol=symbol, side=side, qty=D(qty), price=price)
    order = desk.engine.by_hand.place(ACCOUNT, request, "ann")
    desk.settle()
    desk.venue.trade(desk.venue.orders[order.client_id], qty)
    desk.settle()


def qty_of(desk: Desk, instance: str = HAND, symbol: str = BTC) -> Decimal:
    return desk.engine.state.position(instance, symbol).qty


def flatten(desk: Desk, scope: str = "node") -> int:
    asked = desk.engine.stops.panic_stop(scope, "ann", "test", flatten=True)
    desk.settle()
    return asked


def ends(desk: Desk) -> list[str]:
    return [entry.reason for entry in desk.entries if isinstance(entry, e.FlattenSet) and not entry.is_on]


@pytest.mark.parametrize("side", [Side.BUY, Side.SELL])
def test_longs_and_shorts_are_closed_and_the_scope_stays_stopped(
    desk: Desk, venue: Taker, side: Side
) -> None:
    desk.run("mm", Quoter())
    desk.top()
    hold(desk, "0.7", side=side)
    assert flatten(desk) == 2
    desk.advance(1.0)
    assert [(c.side, c.qty, c.reduce_only) for c in venue.closing] == [(side.opposite, D("0.7"), False)]
    assert qty_of(desk) == 0
    assert ends(desk) == ["flat"]
    assert "node" in desk.engine.state.kill_switches


def test_the_positions_of_each_instance_are_closed_by_itself_and_only_inside_the_scope(
    desk: Desk, venue: Taker
) -> None:
    desk.run("mm", Quoter())
    desk.top()
    bid = next(order for order in venue.open() if order.side is Side.BUY)
    venue.trade(bid, "1")
    desk.settle()
    hold(desk, "0.5")
    hold(desk, "2", ETH)
    flatten(desk, f"symbol:{BTC}")
    desk.advance(1.0)
    assert (qty_of(desk), qty_of(desk, "mm"), qty_of(desk, symbol=ETH)) == (D(0), D(0), D(2))
    owners = {desk.engine.by_hand.find(c.client_id).instance: c.qty for c in venue.closing}
    assert owners == {HAND: D("0.5"), "mm": D(1)}


def test_a_thin_book_takes_more_than_one_order(desk: Desk, venue: Taker) -> None:
    hold(desk, "1")
    venue.depth = D("0.125")
    flatten(desk)
    desk.advance(10.0)
    assert [c.qty for c in venue.closing] == [D(1) - n * D("0.125") for n in range(8)]
    assert ends(desk) == ["flat"]


def test_a_venue_that_keeps_refusing_is_given_up_on_and_said_so(desk: Desk, venue: Taker) -> None:
    hold(desk, "1")
    venue.refuses = True
    flatten(desk)
    desk.advance(10.0)
    assert len(venue.closing) == 5
    (said,) = desk.alerts("not_flat")
    assert f"{HAND} in {BTC}: 5 orders in a row traded nothing, not_fillable: nothing there" in said
    assert not desk.engine.state.flattening
    venue.refuses = False
    flatten(desk)
    desk.advance(1.0)
    assert qty_of(desk) == 0


def test_one_position_that_cannot_be_closed_does_not_keep_the_others(desk: Desk, venue: Taker) -> None:
    hold(desk, "1")
    hold(desk, "2", ETH)
    desk.engine.state.holdings[HAND][BTC].qty = D("0.0004")  # dust, as fees in the base currency leave it
    desk.engine.risk.position_changed(HAND, ACCOUNT, BTC)
    flatten(desk)
    desk.advance(1.0)
    assert qty_of(desk, symbol=ETH) == 0
    (said,) = desk.alerts("not_flat")
    assert "0.0004 is less than the venue's smallest order 0.001" in said


def test_an_order_that_may_still_fill_is_waited_for(desk: Desk, venue: Taker) -> None:
    hold(desk, "1")
    order = desk.engine.by_hand.place(
        ACCOUNT, OrderRequest(symbol=BTC, side=Side.BUY, qty=D(1), price=D(58_000)), "ann"
    )
    desk.settle()
    venue.is_deaf = True  # the cancel is lost, and so is the first closing order
    flatten(desk)
    venue.is_deaf = False
    venue.trade(venue.orders[order.client_id], "1")
    desk.settle()
    desk.advance(10.0)
    assert qty_of(desk) == 0
    assert not venue.open()
    assert ends(desk) == ["flat"]


def test_a_scope_without_a_position_is_flat_only_once_no_order_may_open_one(desk: Desk, venue: Taker) -> None:
    order = desk.engine.by_hand.place(
        ACCOUNT, OrderRequest(symbol=BTC, side=Side.BUY, qty=D(1), price=D(58_000)), "ann"
    )
    desk.settle()
    venue.is_deaf = True
    flatten(desk)
    desk.advance(2.0)
    assert desk.engine.state.flattening
    venue.is_deaf = False
    venue.trade(venue.orders[order.client_id], "1")
    desk.settle()
    desk.advance(2.0)
    assert qty_of(desk) == 0
    assert ends(desk) == ["flat"]


def test_a_restart_goes_on_with_it_and_releases_nothing(desk: Desk, venue: Taker) -> None:
    hold(desk, "1")
    venue.refuses = True
    flatten(desk)
    again = desk.restart(after_s=5.0)
    venue.refuses = False
    again.advance(5.0)
    assert qty_of(again) == 0
    assert ends(again) == ["flat"]
    assert "node" in again.engine.state.kill_switches


def test_a_position_of_an_instance_that_runs_no_more_is_closed_too(desk: Desk, venue: Taker) -> None:
    desk.run("gone", Quoter())
    desk.top()
    venue.trade(next(order for order in venue.open() if order.side is Side.SELL), "1")
    desk.settle()
    again = desk.restart()
    assert not again.engine.roster.instances
    again.top()
    flatten(again, "instance:gone")
    again.advance(1.0)
    assert qty_of(again, "gone") == 0


def test_releasing_a_scope_ends_it(desk: Desk, venue: Taker) -> None:
    hold(desk, "1")
    venue.refuses = True
    flatten(desk)
    desk.engine.stops.release("node", "bob", "enough")
    venue.refuses = False
    desk.advance(5.0)
    assert qty_of(desk) == 1
    assert ends(desk) == ["released: enough"]


def test_nothing_is_sent_and_nothing_given_up_while_the_account_is_out_of_touch(
    desk: Desk, venue: Taker
) -> None:
    hold(desk, "1")
    desk.connection("orders", is_up=False)
    flatten(desk)
    desk.advance(30.0)
    assert not venue.closing
    assert desk.engine.state.flattening
    desk.connection("orders", is_up=True)
    desk.settle()
    desk.advance(2.0)
    assert qty_of(desk) == 0


def test_limits_do_not_keep_a_position_open(tmp_path: Path, venue: Taker) -> None:
    desk = Desk(tmp_path, venue)
    desk.top()
    hold(desk, "1")
    desk.engine.risk_settings.set("node", Limits(max_order_qty=D("0.001")), "ann")
    flatten(desk)
    desk.advance(1.0)
    assert qty_of(desk) == 0
