"""Placing, changing and cancelling: what every adapter makes of an order, and of a venue that says no."""

from decimal import Decimal
from typing import Any

import pytest
from conformance_columns import WITHOUT_PERPETUALS
from conformance_desk import At, behaviour
from exchange_tools import eventually

from host.api import (
    AmendOrder,
    AmendRejected,
    AmendSupport,
    CancelRejected,
    ExchangeError,
    OrderAccepted,
    OrderAmended,
    OrderCancelled,
    OrderExpired,
    OrderFilled,
    OrderRejected,
    OrderStatus,
    OrderType,
    RejectReason,
    RequestUnanswered,
    Side,
    TimeInForce,
)
from host.core.client_id import ClientIdMaker

NO_POSITIONS = {"spot holds balances, not positions": WITHOUT_PERPETUALS}
NOT_IN_PLACE = {
    "Binance spot changes no price in place: keepPriority only shrinks an order, all else is a new one": (
        "binance spot",
    )
}
NOTHING = Decimal(0)
NEVER_WAS = (OrderRejected, OrderExpired)


def filled(at: At, client_id: str) -> Decimal:
    """Return how much of an order was told to have traded."""
    return sum((fill.qty for fill in at.told(client_id, OrderFilled)), Decimal(0))


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
    await eventually(lambda: filled(at, "c1") == at.qty, "filled")
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
    await eventually(lambda: filled(at, "c1") == at.qty, "the part that was there")
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
    await eventually(lambda: filled(at, "c1") == at.qty / 2, "half of it")


@behaviour("IOC: nothing there, expires")
async def test_an_ioc_order_that_meets_nobody_expires(at: At) -> None:
    at.place("c1", time_in_force=TimeInForce.IOC)
    ended = await at.about("c1", OrderExpired)
    assert not ended.filled and not at.site.open_ids() and not at.site.fills


@behaviour("FOK: filled whole")
async def test_a_fok_order_is_filled_whole(at: At) -> None:
    at.place("c1", price=at.price(0, Side.SELL), time_in_force=TimeInForce.FOK)
    await eventually(lambda: filled(at, "c1") == at.qty, "all of it")


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
    await eventually(lambda: filled(at, "c1") == at.qty, "a position")
    at.place("c2", type=OrderType.MARKET, side=Side.SELL, reduce_only=True)
    await eventually(lambda: filled(at, "c2") == at.qty, "reduced")
    assert not [position for position in at.site.account.snapshot(0).positions if position.qty]


@behaviour("reduce-only: refused without a position", absent=NO_POSITIONS)
async def test_a_reduce_only_order_without_a_position_is_refused(at: At) -> None:
    at.place("c1", side=Side.SELL, reduce_only=True)
    refused = await at.about("c1", OrderRejected)
    assert refused.reason is RejectReason.REDUCE_ONLY
    assert not at.site.open_ids()


async def queue_of_two(at: At, qty: Decimal) -> Decimal:
    """Place c1 inside the spread, and the rival's order behind it; return the price."""
    place = await at.rest("c1", steps=-0.5, qty=qty)
    assert place.price is not None
    at.site.rival(at.symbol, Side.BUY, at.qty, place.price)
    return place.price


@behaviour("amend: another price, to the end of the queue", absent=NOT_IN_PLACE)
async def test_an_amend_to_another_price_goes_to_the_end_of_its_queue(at: At) -> None:
    place = await at.rest("c1")
    price = at.price(-0.5)
    at.site.rival(at.symbol, Side.BUY, at.qty, price)
    at.amend(place, price, at.qty)
    amended = await at.about("c1", OrderAmended)
    assert (amended.price, amended.qty) == (price, at.qty)
    at.take(price, at.qty)
    found = await at.found("c1")
    assert (found.price, found.qty, found.filled) == (price, at.qty, NOTHING)


@behaviour("amend: less at the same price, the venue's rule", absent=NOT_IN_PLACE)
async def test_an_amend_to_less_keeps_its_place_where_the_venue_has_it_so(at: At) -> None:
    price = await queue_of_two(at, at.qty)
    await at.about("c1", OrderAccepted)
    at.send(AmendOrder("c1", at.symbol, Side.BUY, price, at.qty / 2))
    amended = await at.about("c1", OrderAmended)
    assert (amended.price, amended.qty) == (price, at.qty / 2)
    at.take(price, at.qty / 2)
    found = await at.found("c1")
    assert found.filled == (at.qty / 2 if at.column.keeps_place else 0)


@behaviour("amend: more, to the end of the queue", absent=NOT_IN_PLACE)
async def test_an_amend_to_more_goes_to_the_end_of_the_queue(at: At) -> None:
    price = await queue_of_two(at, at.qty)
    await at.about("c1", OrderAccepted)
    at.send(AmendOrder("c1", at.symbol, Side.BUY, price, at.qty * 2))
    amended = await at.about("c1", OrderAmended)
    assert (amended.price, amended.qty) == (price, at.qty * 2)
    at.take(price, at.qty)
    found = await at.found("c1")
    assert (found.qty, found.filled) == (at.qty * 2, NOTHING)


@behaviour("amend: of a done order, refused", absent=NOT_IN_PLACE)
async def test_an_amend_of_an_order_that_is_done_is_refused(at: At) -> None:
    place = await at.rest("c1")
    at.cancel("c1")
    await at.about("c1", OrderCancelled)
    at.amend(place, at.price(25), at.qty)
    refused = await at.about("c1", AmendRejected)
    assert refused.reason is RejectReason.UNKNOWN_ORDER


@behaviour("amend: off the grid, the order stays as it is", absent=NOT_IN_PLACE)
async def test_an_amend_that_is_refused_leaves_the_order_as_it_is(at: At) -> None:
    place = await at.rest("c1")
    tick = at.instruments[at.symbol].tick_size
    at.amend(place, at.price(25) + tick / 2, at.qty)
    refused = await at.about("c1", AmendRejected)
    assert refused.reason is RejectReason.INVALID_PRICE
    found = await at.found("c1")
    assert (found.price, found.status) == (place.price, OrderStatus.OPEN)


@behaviour("amend: support is told before it is tried")
async def test_what_amends_the_venue_has_is_told_and_kept(at: At) -> None:
    place = await at.rest("c1")
    if at.adapter.amend_support is AmendSupport.NONE:
        with pytest.raises(ExchangeError, match="nothing was sent"):
            at.amend(place, at.price(25), at.qty)
        assert at.site.open_ids() == {"c1"}
    else:
        at.amend(place, at.price(25), at.qty)
        await at.about("c1", OrderAmended)


@behaviour("cancel: of a part-filled order tells what filled")
async def test_a_cancel_of_a_part_filled_order_tells_what_was_filled(at: At) -> None:
    place = await at.rest("c1", steps=-0.5)
    assert place.price is not None
    at.take(place.price, at.qty / 2)
    await at.about("c1", OrderFilled)
    at.cancel("c1")
    cancelled = await at.about("c1", OrderCancelled)
    assert cancelled.filled == at.qty / 2 == filled(at, "c1")


@behaviour("cancel: of a done order, refused")
async def test_a_cancel_of_an_order_that_is_done_is_refused(at: At) -> None:
    await at.rest("c1")
    at.cancel("c1")
    await at.about("c1", OrderCancelled)
    at.cancel("c1")
    refused = await at.about("c1", CancelRejected)
    assert refused.reason is RejectReason.UNKNOWN_ORDER
    at.cancel("never")
    refused = await at.about("never", CancelRejected)
    assert refused.reason is RejectReason.UNKNOWN_ORDER


@behaviour("cancel all: of one turn, nothing stays")
async def test_cancels_of_everything_in_one_turn_leave_nothing_open(at: At) -> None:
    ids = [f"c{number}" for number in range(5)]
    for number, client_id in enumerate(ids):
        await at.rest(client_id, steps=20 + number)
    for client_id in ids:
        at.cancel(client_id)
    for client_id in ids:
        assert (await at.about(client_id, OrderCancelled)).filled == 0
    assert not at.site.open_ids() and not at.host.of(CancelRejected)


@behaviour("batch: each of a turn has its own outcome")
async def test_of_several_commands_in_one_turn_each_has_its_own_outcome(at: At) -> None:
    await at.rest("c1")
    await at.rest("c2", steps=21)
    at.place("c3", steps=22)
    at.cancel("c1")
    at.cancel("gone")
    at.place("poor", qty=at.qty * 1_000_000)
    at.cancel("c2")
    assert (await at.about("gone", CancelRejected)).reason is RejectReason.UNKNOWN_ORDER
    await at.about("poor", OrderRejected)
    for client_id in ("c1", "c2"):
        await at.about(client_id, OrderCancelled)
    await at.about("c3", OrderAccepted)
    assert at.site.open_ids() == {"c3"}


@behaviour("client id: the longest of ours is taken")
async def test_the_longest_of_our_ids_comes_back_as_it_was(at: At) -> None:
    longest = ClientIdMaker("tandem", 16**7 - 1, 16**3 - 1)
    client_id = longest.make()
    client_id += "f" * (32 - len(client_id))
    at.place(client_id)
    await at.about(client_id, OrderAccepted)
    found = await at.found(client_id)
    assert found.client_id == client_id
    at.cancel(client_id)
    await at.about(client_id, OrderCancelled)


@behaviour("client id: a duplicate is not a second order")
async def test_a_client_id_that_is_in_use_makes_no_second_order(at: At) -> None:
    first = await at.rest("c1")
    await at.about("c1", OrderAccepted)
    at.place("c1", steps=30)
    told = await at.about("c1", OrderRejected, RequestUnanswered)
    # Refused as what it is, or in doubt: then asking finds the first one, which is ours.
    if isinstance(told, OrderRejected):
        assert told.reason is RejectReason.DUPLICATE_ID
    found = await at.found("c1")
    assert found.price == first.price
    assert [record.order.price for record in at.site.records.open()] == [first.price]
