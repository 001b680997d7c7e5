"""The venue changes its terms while orders rest: quotes follow the new grid, and what trades no more is pulled."""

from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from desk_tools import ACCOUNT, BTC, ETH, Desk, Quoter, spot

from host.api import Instrument, OrderRefused, Quote
from host.core import entries as e

MakeDesk = Callable[..., Desk]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.journal.close()


def relist(desk: Desk, **terms: Any) -> None:
    """Have the adapter hand over a list in which BTC-USDT has other terms."""
    changed = msgspec.structs.replace(spot(BTC), **terms)
    hand_over(desk, changed, spot(ETH))


def hand_over(desk: Desk, *instruments: Instrument) -> None:
    desk.venue.ctx.listed(instruments)
    desk.settle()


def resting(desk: Desk, symbol: str = BTC) -> list[tuple[Decimal | None, Decimal]]:
    return sorted((order.price, order.qty) for order in desk.venue.open(symbol))  # type: ignore[type-var]


def set_entries(desk: Desk) -> list[e.InstrumentSet]:
    return [entry for entry in desk.entries if isinstance(entry, e.InstrumentSet)]


def test_resting_quotes_are_rounded_to_a_new_tick_and_lot(desk: Desk) -> None:
    desk.run("mm", Quoter(), BTC)
    desk.top(60_000.0, 60_000.1)
    assert resting(desk) == [(Decimal("59999.98"), 1), (Decimal("60000.12"), 1)]
    relist(desk, tick_size=Decimal("0.5"), lot_size=Decimal("0.3"))
    assert resting(desk) == [(Decimal("59999.5"), Decimal("0.9")), (Decimal("60000.5"), Decimal("0.9"))]
    assert desk.alerts("instrument_changed") == [
        f"account {ACCOUNT}: BTC-USDT: tick_size was 0.01 and is 0.5, lot_size was 0.001 and is 0.3"
    ]
    desk.top(60_010.0, 60_010.1)  # and the strategy's next quotes are on it too
    assert resting(desk) == [(Decimal("60009.5"), Decimal("0.9")), (Decimal("60010.5"), Decimal("0.9"))]


def test_a_finer_grid_leaves_orders_where_they_are(desk: Desk) -> None:
    desk.run("mm", Quoter(), BTC)
    desk.top()
    before = resting(desk)
    sent = len(desk.venue.sent)
    relist(desk, tick_size=Decimal("0.001"), min_notional=Decimal(5))
    assert resting(desk) == before
    assert len(desk.venue.sent) == sent
    assert set_entries(desk)[-1].instrument.min_notional == 5


def test_an_order_off_the_new_grid_moves_however_far_the_tolerance(desk: Desk) -> None:
    desk.run("mm", Quoter(), BTC)
    desk.engine.oms.set_tolerance("mm", 100.0)
    desk.top(60_000.0, 60_000.1)
    relist(desk, tick_size=Decimal("0.5"))
    assert resting(desk) == [(Decimal("59999.5"), 1), (Decimal("60000.5"), 1)]


def test_a_symbol_that_trades_no_more_is_pulled_refused_and_alerted_once(desk: Desk) -> None:
    instance = desk.run("mm", Quoter(), BTC, ETH)
    desk.top()
    desk.top(symbol=ETH)
    hand_over(desk, spot(ETH))
    hand_over(desk, spot(ETH))
    assert resting(desk) == []
    assert len(resting(desk, ETH)) == 2
    assert desk.alerts("instrument_gone") == [
        f"account {ACCOUNT}: BTC-USDT is not traded at the venue any more; its quotes are pulled"
    ]
    desk.top(60_005.0, 60_005.1)
    assert resting(desk) == []
    with pytest.raises(
        OrderRefused, match="not_trading: the venue of account acc takes no orders for BTC-USDT"
    ):
        instance.strategy.buy_limit(BTC, Decimal(1), Decimal(60_000))


def test_a_symbol_that_comes_back_is_quoted_again(desk: Desk) -> None:
    desk.run("mm", Quoter(), BTC)
    desk.top()
    hand_over(desk, spot(ETH))
    relist(desk, tick_size=Decimal("0.1"))
    assert desk.alerts("instrument_back") == [
        f"account {ACCOUNT}: BTC-USDT is traded again; tick_size was 0.01 and is 0.1"
    ]
    desk.top(60_000.0, 60_000.5)
    assert resting(desk) == [(Decimal("59999.9"), 1), (Decimal("60000.6"), 1)]


def test_another_contract_under_the_old_name_is_not_traded(desk: Desk) -> None:
    desk.run("mm", Quoter(), BTC)
    desk.top()
    relist(desk, contract_size=Decimal(10))
    assert resting(desk) == []
    assert "contract_size was 1 and is 10" in desk.alerts("instrument_gone")[0]
    kept = desk.engine.state.instruments[ACCOUNT][BTC]
    assert (kept.contract_size, kept.is_trading) == (1, False)


def test_what_did_not_change_or_was_never_used_is_not_journaled(desk: Desk) -> None:
    desk.run("mm", Quoter(), BTC)
    desk.top()
    before = len(desk.entries)
    hand_over(desk, spot(BTC), spot(ETH), spot("SOL-USDT"))
    assert len(desk.entries) == before
    assert set(desk.feed.listed) == {BTC, ETH, "SOL-USDT"}


def test_the_new_terms_are_there_after_a_restart(desk: Desk) -> None:
    desk.run("mm", Quoter(), BTC)
    desk.top()
    relist(desk, tick_size=Decimal("0.5"))
    folded = {entry.instrument.symbol: entry.instrument for entry in set_entries(desk)}
    assert folded == desk.engine.state.instruments[ACCOUNT]


def test_a_version_on_its_way_in_or_out_says_nothing_of_the_list(desk: Desk) -> None:
    other = desk.feed.open_link(type(desk.venue)())
    other.listed([spot(ETH)])
    assert set(desk.feed.listed) == {BTC, ETH}


def test_quotes_of_several_levels_are_rounded_each(desk: Desk) -> None:
    class Ladder(Quoter):
        def on_book(self, book: Any) -> None:
            self.quote(book.symbol, *(Quote.around(60_000.0, bps, Decimal(1)) for bps in (1.0, 2.0)))

    desk.run("mm", Ladder(), BTC)
    desk.top(60_000.0, 60_000.1)
    relist(desk, tick_size=Decimal(5))
    assert [price for price, _ in resting(desk)] == [59_985, 59_990, 60_010, 60_015]
