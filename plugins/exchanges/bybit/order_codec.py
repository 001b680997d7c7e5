"""Order and execution rows of Bybit, into what the host calls them."""

from decimal import Decimal, InvalidOperation
from typing import Final

from host.api import Liquidity, OrderFilled, OrderSnapshot, OrderStatus, Side

from .frames import BadFrame, ExecutionRow, OrderRow
from .products import Listing, Product

__all__ = ["MS", "amount", "fill_of", "is_live", "is_trade", "price_of", "side_of", "snapshot_of"]

MS: Final = 1_000_000
"""Nanoseconds of a millisecond."""

_SIDES: Final = {"Buy": Side.BUY, "Sell": Side.SELL}

_LIVE: Final = {
    "Created": OrderStatus.OPEN,
    "New": OrderStatus.OPEN,
    "Active": OrderStatus.OPEN,
    "Untriggered": OrderStatus.OPEN,
    "Triggered": OrderStatus.OPEN,
    "PartiallyFilled": OrderStatus.PARTIALLY_FILLED,
}
_ENDED: Final = {
    "Filled": OrderStatus.FILLED,
    "Cancelled": OrderStatus.CANCELLED,
    "PartiallyFilledCanceled": OrderStatus.CANCELLED,
    "Deactivated": OrderStatus.CANCELLED,
    "Rejected": OrderStatus.REJECTED,
}
_TRADES: Final = frozenset({"Trade", "AdlTrade", "BustTrade", "BlockTrade"})
"""Executions that move quantity; the others are funding and settlement."""

_ZERO: Final = Decimal(0)


def amount(text: str) -> Decimal:
    """Read a number that the venue may leave empty; empty is zero. Raises `BadFrame`."""
    if not text:
        return _ZERO
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise BadFrame("bad number", f"expected a decimal, was {text!r}") from None
    if not value.is_finite():
        raise BadFrame("bad number", f"expected a finite decimal, was {text!r}")
    return value


def side_of(text: str) -> Side:
    """Return which side; raise `BadFrame` for neither."""
    try:
        return _SIDES[text]
    except KeyError:
        raise BadFrame("bad side", f"expected Buy or Sell, was {text!r}") from None


def is_live(row: OrderRow) -> bool:
    """Return whether the order may still trade; raise `BadFrame` for a status that is not known."""
    if row.order_status in _LIVE:
        return True
    if row.order_status in _ENDED:
        return False
    raise BadFrame("unknown order status", row.order_status)


def price_of(row: OrderRow) -> Decimal | None:
    """Return an order's limit; None for a market order, whatever protective price it carries."""
    return None if row.order_type == "Market" else amount(row.price)


def snapshot_of(listing: Listing, row: OrderRow, asked_ns: int) -> OrderSnapshot:
    """Return the venue's view of an order, as true as of when it was asked for. Raises `BadFrame`."""
    filled = amount(row.cum_exec_qty)
    if is_live(row):
        status = OrderStatus.PARTIALLY_FILLED if filled > _ZERO else OrderStatus.OPEN
    else:
        status = _ENDED[row.order_status]
        if status is OrderStatus.REJECTED and filled > _ZERO:
            status = OrderStatus.CANCELLED  # what traded was never refused
    return OrderSnapshot(
        row.order_link_id,
        row.order_id,
        listing.symbol,
        side_of(row.side),
        price_of(row),
        row.qty,
        filled,
        status,
        asked_ns,
    )


def is_trade(row: ExecutionRow) -> bool:
    """Return whether an execution is a trade, rather than funding or settlement."""
    return row.exec_type in _TRADES


def fill_of(listing: Listing, row: ExecutionRow, ts_ns: int) -> OrderFilled:
    """Return one execution as a fill. Raises `BadFrame`."""
    side = side_of(row.side)
    return OrderFilled(
        row.order_link_id,
        listing.symbol,
        side,
        row.exec_id,
        row.exec_price,
        row.exec_qty,
        amount(row.exec_fee),
        row.fee_currency or _usual_fee_currency(listing, side),
        Liquidity.MAKER if row.is_maker else Liquidity.TAKER,
        ts_ns,
        row.order_id,
    )


def _usual_fee_currency(listing: Listing, side: Side) -> str:
    """Return what a fee is paid in where the venue does not say: spot takes it from what one gets."""
    instrument = listing.instrument
    if listing.product is Product.SPOT:
        return instrument.base if side is Side.BUY else instrument.quote
    return instrument.settle
