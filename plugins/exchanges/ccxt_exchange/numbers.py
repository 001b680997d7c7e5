"""Numbers that come through ccxt and are still what the venue wrote."""

from contextvars import ContextVar
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from host.api import ExchangeError

from .params import EXCHANGE

__all__ = ["BadData", "as_float", "decimal_of", "number_of", "read_number", "reading"]


class BadData(ExchangeError):  # noqa: N818 - it says what is the case
    """ccxt handed over something that is not what it documents."""


_IS_EXACT: Final[ContextVar[bool]] = ContextVar("is_exact", default=False)


def reading(*, is_exact: bool) -> None:
    """Have ccxt hand over numbers as text, in what the running task asks for, or as floats.

    Text is for what reaches an account. ccxt takes it in orders, trades and balances; books it could not sort.
    """
    _IS_EXACT.set(is_exact)


def read_number(text: Any) -> "float | str":
    """Read a number for ccxt, which calls this wherever it hands one over; raise `ValueError` for none."""
    number = float(text)
    return str(text) if _IS_EXACT.get() else number


def decimal_of(value: Any, what: str) -> Decimal:
    """Return a number exactly as it was read; raise `BadData` for none, and for what is not finite."""
    try:
        found = Decimal(str(value))
    except InvalidOperation:
        found = Decimal("NaN")
    if value is None or not found.is_finite():
        raise BadData(f"{EXCHANGE}: expected a number for {what}, was {value!r}")
    return found


def number_of(value: Any, what: str) -> Decimal:
    """Return a number that may be missing, which means zero; raise `BadData`."""
    return Decimal(0) if value is None else decimal_of(value, what)


def as_float(value: Decimal, what: str) -> float:
    """Return a number for ccxt to send; raise `ExchangeError` where a float cannot carry it digit by digit."""
    sent = float(value)
    if Decimal(repr(sent)) != value:
        raise ExchangeError(
            f"{EXCHANGE}: {what} {value} has more digits than ccxt can send; nothing was sent"
        )
    return sent
