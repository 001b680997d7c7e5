"""Which requests the exchange lets through to a market, and why it refuses the others."""

from decimal import Decimal
from typing import Final

from host.api import AmendOrder, Instrument, OrderType, PlaceOrder, RejectReason, Side, TimeInForce
from venue.client import Client
from venue.market import Market, VenueOrder
from venue.validation import Refusal, check_order, mid_price

__all__ = ["MARKET_ORDER_PROTECTION", "new_order", "refuse_amend", "refuse_place"]

MARKET_ORDER_PROTECTION: Final = Decimal("0.05")
"""A market order trades up to this fraction beyond the best price; the rest expires.

It bounds what a market order can cost, so that funds can be checked before it trades.
"""

_ONE = Decimal(1)
_PROBE_ID = 0
"""Order ids start at 1: an order that is only asked about locks nothing yet."""


def refuse_place(client: Client, market: Market, place: PlaceOrder) -> Refusal | None:
    """Return why a new order is refused, or None if the market may have it."""
    instrument = market.instrument
    is_market = place.type is OrderType.MARKET
    if (place.price is None) is not is_market:
        return RejectReason.INVALID_PRICE, f"{place.symbol}: {place.type} order with price {place.price}"
    if place.post_only and (is_market or place.time_in_force is not TimeInForce.GTC):
        return RejectReason.OTHER, "post-only goes with a good-till-cancelled limit order only"
    refusal = check_order(instrument, place.price, place.qty, mid_price(*market.best()))
    if refusal is not None:
        return refusal
    if place.reduce_only and not client.may_reduce(instrument, place.side, place.qty):
        return RejectReason.REDUCE_ONLY, f"{place.symbol}: {place.side} {place.qty} would not only reduce"
    order = new_order(client, market, place, _PROBE_ID, 0)
    if order.price is None:
        return RejectReason.NOT_FILLABLE, f"{place.symbol}: nobody to trade with"
    return _check_funds(client, instrument, order, order.price, place.qty)


def refuse_amend(client: Client, market: Market, order: VenueOrder, amend: AmendOrder) -> Refusal | None:
    """Return why a change of an open order is refused, or None if the market may make it."""
    instrument = market.instrument
    refusal = check_order(instrument, amend.price, amend.qty, mid_price(*market.best()))
    if refusal is not None:
        return refusal
    if amend.qty <= order.filled:
        text = f"{amend.symbol}: total quantity must be above the filled {order.filled}, was {amend.qty}"
        return RejectReason.INVALID_QTY, text
    if order.reduce_only and not client.may_reduce(instrument, order.side, amend.qty - order.qty):
        return RejectReason.REDUCE_ONLY, f"{amend.symbol}: {amend.qty} would not only reduce"
    return _check_funds(client, instrument, order, amend.price, amend.qty - order.filled)


def new_order(client: Client, market: Market, place: PlaceOrder, order_id: int, now_ns: int) -> VenueOrder:
    """Build the order that the market gets; a market order carries its protective price, if any."""
    price = place.price
    if place.type is OrderType.MARKET:
        price = _protective_price(market, place.side)
    return VenueOrder(
        order_id,
        client.account.name,
        place.client_id,
        place.symbol,
        place.side,
        place.type,
        place.time_in_force,
        price,
        place.qty,
        post_only=place.post_only,
        reduce_only=place.reduce_only,
        created_ns=now_ns,
    )


def _protective_price(market: Market, side: Side) -> Decimal | None:
    """Return the worst price that a market order accepts, None where nobody is on the other side."""
    bid, ask = market.best()
    if side is Side.BUY:
        return None if ask is None else market.instrument.price_ceil(ask * (_ONE + MARKET_ORDER_PROTECTION))
    if bid is None:
        return None
    lowest = market.instrument.price_floor(bid * (_ONE - MARKET_ORDER_PROTECTION))
    return max(lowest, market.instrument.tick_size)


def _check_funds(
    client: Client, instrument: Instrument, order: VenueOrder, price: Decimal, qty: Decimal
) -> Refusal | None:
    missing = client.account.shortfall(instrument, order, price, qty)
    if not missing:
        return None
    return RejectReason.INSUFFICIENT_FUNDS, f"{order.symbol}: {missing.normalize():f} too little is free"
