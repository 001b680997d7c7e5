"""Placing: what every adapter makes of each kind of order, and of a venue that says no."""

from decimal import Decimal
from typing import Any

from conformance_desk import At, behaviour
from conformance_reasons import NO_POSITIONS
from exchange_tools import eventually

from host.api import (
    ExchangeError,
    OrderAccepted,
    OrderCancelled,
    OrderExpired,
    OrderFilled,
    OrderRejected,
    OrderStatus,
    OrderType,
    RejectReason,
    Side,
    TimeInForce,
)

NOTHING = Decimal(0)
NEVER_WAS = (OrderRejected, OrderExpired)


@behaviour("limit: rests, found, cancelled")
async def test_a_limit_order_rests_is_found_and_is_cancelled(at: At) -> None:
    place = at.place("c1")
    accepted = await at.about("c1", OrderAccepted)
    found = await at.found("c1")
    assert (found.venue_id, found.price, found.qty) == (accepted.venue_id, place.price, place.qty)
    assert (found.side, found.status, found.filled) == (Side.BUY, OrderStatus.OPEN, NOTHING)
    at.cancel("c1")
    cancelled = await at.about("c1", OrderCancelled)
    assert cancelled.filled == 0 and not at.site.open_ids()
    found = await at.found("c1")
    assert found.status is OrderStatus.CANCELLED


@behaviour("limit: refused for funds")
async def test_an_order_beyond_our_means_is_refused_and_says_so(at: At) -> None:
    at.place("c1", qty=at.qty * 1_000_000)
    refused = await at.about("c1", OrderRejected)
    assert refused.reason is RejectReason.INSUFFICIENT_FUNDS, refused
    assert not at.told("c1", OrderAccepted) and not at.site.open_ids()


@behaviour("limit: refused for tick, lot, notional")
async def test_an_order_off_the_instruments_grid_is_refused_and_says_so(at: At) -> None:
    instrument = at.instruments[at.symbol]
    least = instrument.min_qty or instrument.lot_size
    wrongs: tuple[tuple[str, dict[str, Any], set[RejectReason]], ...] = (
        ("tick", {"price": at.price(20) + instrument.tick_size / 2}, {RejectReason.INVALID_PRICE}),
        # Binance's -1111 does not say of which number it speaks.
        (
            "lot",
            {"qty": at.qty + instrument.lot_size / 2},
            {RejectReason.INVALID_QTY, RejectReason.INVALID_PRICE},
        ),
        # A venue may name either rule that it breaks.
        ("notional", {"qty": least}, {RejectReason.MIN_NOTIONAL, RejectReason.INVALID_QTY}),
    )
    for client_id, terms, reasons in wrongs:
        if client_id == "notional" and least * at.price(20) >= instrument.min_notional:
            continue  # the least quantity is worth enough
        try:
            at.place(client_id, **terms)
        except ExchangeError as error:
            assert "nothing was sent" in str(error)
            continue
        refused = await at.about(client_id, OrderRejected)
        assert refused.reason in reasons, refused
    assert not at.site.open_ids()


@behaviour("market: filled at once")
async def test_a_market_order_is_filled_at_once(at: At) -> None:
    at.place("c1", type=OrderType.MARKET)
    await eventually(lambda: at.filled("c1") == at.qty, "filled")
    assert {fill.price for fill in at.told("c1", OrderFilled)} == {at.price(0, Side.SELL)}
    found = await at.found("c1")
    assert found.status is OrderStatus.FILLED
    assert not at.told("c1", OrderCancelled, OrderExpired, OrderRejected)


@behaviour("market: what the book has not, ends")
async def test_a_market_order_takes_what_is_there_and_its_rest_ends(at: At) -> None:
    book = at.site.exchange.snapshot(at.symbol)
    there = sum(Decimal(str(size)) for _, size in book.bids)
    for price, size in book.bids:
        at.take(Decimal(str(price)), Decimal(str(size)))
    at.site.rival(at.symbol, Side.BUY, at.qty, at.price(0))
    assert there > at.qty
    at.place("c1", type=OrderType.MARKET, side=Side.SELL, qty=at.qty * 2)
    await at.about("c1", OrderExpired, OrderCancelled)
    await eventually(lambda: at.filled("c1") == at.qty, "the part that was there")
    at.place("c2", type=OrderType.MARKET, side=Side.SELL)
    ended = await at.about("c2", *NEVER_WAS, OrderCancelled)
    assert not at.told("c2", OrderFilled), ended
    assert not at.site.open_ids()


@behaviour("post-only: rests as maker")
async def test_a_post_only_order_rests_and_trades_as_a_maker(at: At) -> None:
    place = at.place("c1", steps=-0.5, post_only=True)
    await at.about("c1", OrderAccepted)
    assert place.price is not None
    at.take(place.price, at.qty)
    fill = await at.about("c1", OrderFilled)
    assert (fill.liquidity, fill.price, fill.qty) == ("maker", place.price, at.qty)


@behaviour("post-only: refused when it would take")
async def test_a_post_only_order_that_would_take_was_never_live(at: At) -> None:
    at.place("c1", steps=-5, post_only=True)
    refused = await at.about("c1", OrderRejected)
    assert refused.reason is RejectReason.WOULD_TAKE
    assert not at.site.fills and not at.told("c1", OrderAccepted, OrderCancelled)


@behaviour("IOC: fills what is there, rest ends")
async def test_an_ioc_order_fills_what_is_there_and_its_rest_expires(at: At) -> None:
    inside = at.price(-0.3, Side.SELL)
    at.site.rival(at.symbol, Side.SELL, at.qty / 2, inside)
    at.place("c1", price=inside, time_in_force=TimeInForce.IOC)
    expired = await at.about("c1", OrderExpired)
    assert expired.filled == at.qty / 2
    await eventually(lambda: at.filled("c1") == at.qty / 2, "half of it")


@behaviour("IOC: nothing there, expires")
async def test_an_ioc_order_that_meets_nobody_expires(at: At) -> None:
    at.place("c1", time_in_force=TimeInForce.IOC)
    ended = await at.about("c1", OrderExpired)
    assert not ended.filled and not at.site.open_ids() and not at.site.fills


@behaviour("FOK: filled whole")
async def test_a_fok_order_is_filled_whole(at: At) -> None:
    at.place("c1", price=at.price(0, Side.SELL), time_in_force=TimeInForce.FOK)
    await eventually(lambda: at.filled("c1") == at.qty, "all of it")


@behaviour("FOK: not whole, then not at all")
async def test_a_fok_order_that_cannot_be_filled_whole_is_not_filled_at_all(at: At) -> None:
    inside = at.price(-0.3, Side.SELL)
    at.site.rival(at.symbol, Side.SELL, at.qty / 2, inside)
    at.place("c1", price=inside, time_in_force=TimeInForce.FOK)
    ended = await at.about("c1", *NEVER_WAS)
    assert isinstance(ended, OrderExpired) or ended.reason is RejectReason.NOT_FILLABLE
    assert not at.site.fills and not at.site.open_ids()


@behaviour("reduce-only: reduces", absent=NO_POSITIONS)
async def test_a_reduce_only_order_reduces_the_position(at: At) -> None:
    at.place("c1", type=OrderType.MARKET)
    await eventually(lambda: at.filled("c1") == at.qty, "a position")
    at.place("c2", type=OrderType.MARKET, side=Side.SELL, reduce_only=True)
    await eventually(lambda: at.filled("c2") == at.qty, "reduced")
    assert not [position for position in at.site.account.snapshot(0).positions if position.qty]


@behaviour("reduce-only: refused without a position", absent=NO_POSITIONS)
async def test_a_reduce_only_order_without_a_position_is_refused(at: At) -> None:
    at.place("c1", side=Side.SELL, reduce_only=True)
    refused = await at.about("c1", OrderRejected)
    assert refused.reason is RejectReason.REDUCE_ONLY
    assert not at.site.open_ids()
