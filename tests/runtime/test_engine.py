"""One bad strategy, one good one: the bad one is taken out, the good one goes on."""

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from desk_tools import BTC, Desk, Quoter

from host.api import (
    BookTop,
    Candle,
    Fill,
    Order,
    OrderStatus,
    Trade,
)
from host.core.entries import InstanceState


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path / "journal")
    yield desk
    desk.journal.close()


class Faulty(Quoter):
    """Quotes until it raises in the callback named by `where`."""

    def __init__(self, where: str = "") -> None:
        super().__init__()
        self.where = where

    def _maybe(self, where: str) -> None:
        if where == self.where:
            raise RuntimeError("on purpose")

    def on_start(self) -> None:
        self._maybe("on_start")
        self.ctx.set_timer("tick", 1.0)

    def on_timer(self, name: str) -> None:
        self._maybe("on_timer")

    def on_book(self, book: BookTop) -> None:
        super().on_book(book)
        if self.books > 1:
            self._maybe("on_book")

    def on_trade(self, trade: Trade) -> None:
        self._maybe("on_trade")

    def on_candle(self, candle: Candle) -> None:
        self._maybe("on_candle")

    def on_fill(self, fill: Fill) -> None:
        super().on_fill(fill)
        self._maybe("on_fill")

    def on_order(self, order: Order) -> None:
        super().on_order(order)
        if order.status is OrderStatus.OPEN and self.books > 1:
            self._maybe("on_order")
        if self.where == "state" and self.books > 1:
            self.state.junk = 2**70  # no msgpack integer


def trade(desk: Desk, price: float = 60_000.0) -> None:
    now_ns = desk.clock.now_ns()
    desk.feed.market(Trade(BTC, price, 0.5, True, 1, now_ns, now_ns))


@pytest.mark.parametrize(
    "where", ["on_start", "on_book", "on_trade", "on_fill", "on_order", "on_timer", "on_candle", "state"]
)
def test_strategy_that_raises_is_quarantined_and_its_neighbour_goes_on(desk: Desk, where: str) -> None:
    good = Quoter()
    desk.run("good", good)
    desk.run("bad", Faulty(where))
    desk.top()
    trade(desk)
    desk.top(60_001.0, 60_001.1)
    for order in desk.venue.open():
        desk.venue.trade(order, "0.5")
    desk.settle()
    desk.advance(61.0)
    trade(desk)
    desk.settle()

    assert desk.state_of("bad") is InstanceState.QUARANTINED
    reason = desk.engine.state.instances["bad"].reason
    assert where in reason
    if where != "state":
        assert "RuntimeError: on purpose" in reason
        assert "test_engine.py, line" in reason
    assert desk.orders("bad") == []
    assert len(desk.alerts("quarantined")) == 1
    assert desk.state_of("good") is InstanceState.RUNNING
    before = good.books
    desk.top(60_002.0, 60_002.1)
    assert good.books == before + 1
    assert {order.price for order in desk.orders("good")} == {Decimal("60001.98"), Decimal("60002.12")}


def test_quarantined_strategy_with_a_timer_leaves_nothing_due_for_ever(desk: Desk) -> None:
    desk.run("bad", Faulty("on_book"))
    desk.top()
    desk.top(60_001.0, 60_001.1)
    desk.advance(5.0)

    assert desk.state_of("bad") is InstanceState.QUARANTINED
    assert desk.engine.upkeep.next_time_ns() > desk.clock.now_ns()


def test_stopped_strategy_with_a_timer_leaves_nothing_due_for_ever(desk: Desk) -> None:
    instance = desk.run("mm", Faulty())
    desk.engine.roster.stop(instance, "enough")
    desk.advance(5.0)

    assert desk.engine.upkeep.next_time_ns() > desk.clock.now_ns()
