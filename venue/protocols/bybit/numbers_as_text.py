"""How Bybit writes numbers: as text, in plain digits."""

from decimal import Decimal

__all__ = ["rounded", "text"]


def text(value: Decimal | float | int) -> str:
    """Write a number in plain digits, without zeros at the end of a fraction."""
    exact = value if isinstance(value, Decimal) else Decimal(repr(value))
    plain = f"{exact:f}"
    return (plain.rstrip("0").rstrip(".") or "0") if "." in plain else plain


def rounded(value: Decimal) -> str:
    """Write a number with eight decimals at most."""
    return text(value.quantize(Decimal("1e-8")))
