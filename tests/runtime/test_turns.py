"""A turn ends whatever happens in it: what it journaled is written, and the next one trades."""

from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from desk_tools import ACCOUNT, BTC, START_NS, Desk, Quoter, ScriptedVenue, spot

from host.api import (
    BookTop,
    Candle,
    Command,
    Depth,
    FillsSnapshot,
    OpenOrdersSnapshot,
    PriceBand,
    Side,
    Trade,
)
from host.core import entries as e
from host.runtime.declared import NotAsDeclared

NONE: Any = None


class Touchy(ScriptedVenue):
    """A venue whose adapter has a fault."""

    is_at_fault = False

    def resync(self, symbol: str) -> None:
        super().resync(symbol)
        if self.is_at_fault:
            raise ValueError("no resync today")


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path, Touchy())
    yield desk
    desk.journal.close()


class Candles(Quoter):
    """Quotes, and wants candles, so that trades are counted."""

    candle_seconds = 60

    def on_candle(self, candle: Candle) -> None: ...


def gap(desk: Desk) -> None:
    desk.depth(1, 1, is_snapshot=True)
    desk.venue.is_at_fault = True  # type: ignore[attr-defined]
    desk.depth(5, 5)


def no_number(desk: Desk) -> None:
    desk.feed.market(BookTop(BTC, NONE, 1.0, 60_000.0, 1.0, START_NS, START_NS, 10**6))


def no_levels(desk: Desk) -> None:
    desk.feed.market(Depth(BTC, NONE, NONE, True, 1, 1, -1, START_NS, START_NS))


def no_price(desk: Desk) -> None:
    desk.feed.market(Trade(BTC, 60_000.0, 1.0, True, 1, START_NS, START_NS))
    desk.feed.market(Trade(BTC, NONE, 1.0, True, 2, START_NS, START_NS))


def no_report(desk: Desk) -> None:
    desk.feed.report(NONE)


def no_quantity(desk: Desk) -> None:
    (bid, *_) = desk.venue.open()
    fill = desk.venue.trade(bid, "0.1")
    desk.venue.waiting.clear()
    desk.feed.report(msgspec.structs.replace(fill, qty=NONE))


def assert_trades(desk: Desk) -> None:
    assert desk.engine.depth == 0
    assert desk.journal.last_lsn == desk.journal.flushed_lsn
    desk.venue.is_at_fault = False  # type: ignore[attr-defined]
    sent = len(desk.venue.sent)
    desk.top(60_010.0, 60_010.1)
    assert len(desk.venue.sent) == sent + 2
    assert not desk.engine.halted


@pytest.mark.parametrize("event", [gap, no_number, no_levels, no_price, no_report, no_quantity])
def test_what_raises_in_a_turn_goes_on_to_the_adapter_and_the_next_one_trades(
    desk: Desk, event: Callable[[Desk], None]
) -> None:
    desk.run("mm", Candles())
    desk.top()
    with pytest.raises((TypeError, ValueError, NotAsDeclared)):
        event(desk)
    assert_trades(desk)


def test_what_the_turn_journaled_before_it_raised_is_written(desk: Desk) -> None:
    desk.run("mm", Candles())
    desk.top()
    with pytest.raises(ValueError, match="no resync today"):
        gap(desk)
    assert desk.entries[-1] == e.Alert("book_fault", desk.alerts("book_fault")[-1]), (
        "the alert of the gap that was to be filled"
    )
    assert_trades(desk)


class Hasty(ScriptedVenue):
    """Answers before `send` returns, and once with something that is no report."""

    is_at_fault = False

    def send(self, command: Command, deadline_ns: int) -> None:
        super().send(command, deadline_ns)
        while self.waiting:
            self.ctx.report(self.waiting.popleft())
        if self.is_at_fault:
            self.is_at_fault = False
            self.ctx.report(NONE)


def test_a_turn_within_a_turn_ends_alone(tmp_path: Path) -> None:
    desk = Desk(tmp_path, Hasty())
    desk.run("mm", Quoter())
    desk.venue.is_at_fault = True  # type: ignore[attr-defined]
    desk.top()
    assert "NotAsDeclared when it sent a place" in desk.alerts("adapter_failed")[0]
    assert len(desk.venue.open()) == 2, "the other order of the same turn left all the same"
    assert desk.engine.depth == 0
    assert desk.journal.last_lsn == desk.journal.flushed_lsn
    desk.journal.close()


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"qty": None}, "OrderFilled.qty should be Decimal, was NoneType None"),
        ({"qty": 0.1}, "OrderFilled.qty should be Decimal, was float 0.1"),
        ({"price": Decimal("NaN")}, r"OrderFilled.price should be Decimal, was Decimal Decimal\('NaN'\)"),
        ({"side": "buy"}, "OrderFilled.side should be Side, was str 'buy'"),
        ({"trade_id": 77}, "OrderFilled.trade_id should be str, was int 77"),
    ],
)
def test_a_report_that_the_journal_could_not_read_again_is_not_taken_in(
    desk: Desk, change: dict[str, Any], what: str
) -> None:
    desk.run("mm", Quoter())
    desk.top()
    bid = next(order for order in desk.venue.open() if order.side is Side.BUY)
    fill = desk.venue.trade(bid, "0.1")
    desk.venue.waiting.clear()
    damaged = msgspec.structs.replace(fill, **change)
    before = desk.entries
    for report in (damaged, FillsSnapshot((damaged,), START_NS)):
        with pytest.raises(NotAsDeclared, match=what):
            desk.feed.report(report)
    assert desk.entries == before
    again = desk.restart()
    assert again.engine.state.position("mm", BTC).qty == Decimal("0.1"), "asked for when it started anew"
    again.journal.close()


def test_terms_that_the_journal_could_not_read_again_are_not_taken_over(desk: Desk) -> None:
    before = desk.entries
    with pytest.raises(NotAsDeclared, match=r"Instrument\.tick_size should be Decimal, was float 0.5"):
        desk.venue.ctx.listed([msgspec.structs.replace(spot(BTC), tick_size=0.5)])
    with pytest.raises(NotAsDeclared, match=r"PriceBand\.up should be Decimal, was NoneType None"):
        desk.venue.ctx.listed([msgspec.structs.replace(spot(BTC), price_band=PriceBand(Decimal(1), NONE))])
    with pytest.raises(NotAsDeclared, match=r"Instrument\.lot_size should be Decimal, was int 1"):
        desk.engine.set_instruments(ACCOUNT, [msgspec.structs.replace(spot(BTC), lot_size=1)], {BTC})
    assert desk.entries == before


@pytest.mark.parametrize("parts", [(None,), (1,), 7, ((),)])
def test_a_snapshot_of_something_else_is_not_taken_in(desk: Desk, parts: Any) -> None:
    with pytest.raises(NotAsDeclared):
        desk.feed.report(OpenOrdersSnapshot(parts, START_NS))
    desk.feed.report(OpenOrdersSnapshot([], START_NS))  # type: ignore[arg-type] # a list is as good
