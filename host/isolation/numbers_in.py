"""Numbers from another process, before any arithmetic of the host's meets them."""

from decimal import Decimal
from math import inf
from typing import Final

from host.api import OrderRefused, OrderRequest
from host.wire.messages import PutQuotes

__all__ = ["check_order", "check_quotes"]

MOST_LEVELS: Final = 64
MOST_PRICE: Final = 1e15
MOST_DIGITS: Final = 24
"""The venue decides what a sensible price is; this keeps host arithmetic from what it was not made for."""


def check_quotes(request: PutQuotes) -> None:
    """Raise `OrderRefused` for prices beyond reason, quantities that are no numbers, and levels without end."""
    if len(request.quotes) > MOST_LEVELS:
        raise OrderRefused("NO_NUMBER", f"at most {MOST_LEVELS} levels are quoted, was {len(request.quotes)}")
    for quote in request.quotes:
        prices = [price for price in (quote.bid, quote.ask) if price is not None]
        # One that is no number is a wish as well: as of an inline strategy, nothing is quoted there from then on.
        if any(MOST_PRICE <= abs(price) < inf for price in prices):
            raise OrderRefused("NO_NUMBER", f"a price of {request.symbol} is too large: {quote}")
        _check(quote.bid_qty)
        _check(quote.ask_qty)


def check_order(order: OrderRequest) -> None:
    """Raise `OrderRefused` for a quantity or price that is no number."""
    _check(order.qty)
    if order.price is not None:
        _check(order.price)


def _check(number: Decimal) -> None:
    is_long = len(number.as_tuple().digits) > MOST_DIGITS
    if not number.is_finite() or abs(number.adjusted()) > MOST_DIGITS or is_long:
        raise OrderRefused("NO_NUMBER", f"{str(number)[:64]} is no number of at most {MOST_DIGITS} digits")
