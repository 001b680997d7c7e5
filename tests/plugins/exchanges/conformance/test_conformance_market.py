"""Instruments and market data: what every adapter hands over, and that a book is right or known not to be."""

from decimal import Decimal

import msgspec
import pytest
from conformance_book import Followed
from conformance_desk import At, behaviour
from exchange_tools import eventually

from host.api import BookTop, Depth, ExchangeError, Instrument, Side, Trade
from host.core.books import DepthResult


def terms(at: At, instrument: Instrument) -> Instrument:
    """Return an instrument without what the venue does not list: OKX has no least notional there."""
    least = Decimal(0) if at.column.protocol == "okx" else instrument.min_notional
    return msgspec.structs.replace(instrument, price_band=None, max_qty=None, min_notional=least)


@behaviour("instruments: filters, kind, fees")
async def test_an_instrument_is_listed_with_its_filters_and_our_fees(at: At) -> None:
    theirs = at.site.exchange.instrument(at.symbol)
    ours = at.instruments[at.symbol]
    assert terms(at, ours) == terms(at, theirs)
    if ours.price_band is not None:  # not every venue lists one
        assert ours.price_band.down < 1 < ours.price_band.up


@behaviour("instruments: one not listed, refused by name")
async def test_a_symbol_that_is_not_listed_is_refused_by_its_name(at: At) -> None:
    with pytest.raises(ExchangeError, match="DOGE-USDT"):
        await at.adapter.subscribe(["DOGE-USDT"])


@behaviour("top of book")
async def test_the_top_of_the_book_is_the_venues(at: At) -> None:
    at.move()
    bid, ask = float(at.price(-0.3)), float(at.price(0, Side.SELL))
    await eventually(lambda: any((top.bid, top.ask) == (bid, ask) for top in at.host.of(BookTop)), "the move")
    top = at.host.of(BookTop)[-1]
    assert (top.symbol, top.bid_size) == (at.symbol, float(at.qty))
    assert top.ts_recv > 0


@behaviour("depth: snapshot, changes, as the venue has it")
async def test_the_book_is_the_venues_after_every_change(at: At) -> None:
    followed = Followed(at)
    await eventually(lambda: followed.is_right, "the first book")
    for number in range(2):
        rival = at.move()
        await eventually(lambda: followed.is_right, f"the book after change {number}")
        at.site.rival_cancels(at.symbol, rival)
        await eventually(lambda: followed.is_right, f"the book after cancel {number}")
    assert DepthResult.GAP not in followed.results and DepthResult.APPLIED in followed.results


@behaviour("depth: a gap is seen, the book comes back right")
async def test_a_lost_change_is_seen_and_the_book_comes_back_right(at: At) -> None:
    followed = Followed(at)
    await eventually(lambda: followed.is_right, "the first book")
    await followed.lose_a_change()
    # The venue sends what changed in a moment together: each of these is a message of its own.
    while DepthResult.GAP not in followed.results:
        seen = len(at.host.of(Depth))
        at.move()
        await at.host.heard(Depth, seen + 1)
    await eventually(lambda: followed.is_right, "the book is right again")
    assert followed.results.count(DepthResult.GAP) == 1
    at.move()
    await eventually(lambda: followed.is_right, "and stays so")


@behaviour("depth: a resync brings the whole book")
async def test_a_resync_brings_the_whole_book(at: At) -> None:
    before = sum(depth.is_snapshot for depth in at.host.of(Depth))
    at.adapter.resync(at.symbol)
    await eventually(lambda: sum(depth.is_snapshot for depth in at.host.of(Depth)) > before, "a snapshot")
    followed = Followed(at)
    await eventually(lambda: followed.is_right, "the whole book")


@behaviour("trades: price, size, side")
async def test_a_trade_is_told_with_price_size_and_side(at: At) -> None:
    at.take(at.price(0), at.qty)
    at.take(at.price(0, Side.SELL), at.qty / 2, Side.BUY)
    await at.host.heard(Trade, 2)
    told = [(trade.price, trade.qty, trade.taker_is_buyer) for trade in at.host.of(Trade)]
    assert told == [
        (float(at.price(0)), float(at.qty), False),
        (float(at.price(0, Side.SELL)), float(at.qty / 2), True),
    ]
