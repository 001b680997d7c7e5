"""Numbers of a venue that are numbers: `NaN` and `Infinity` read as Decimal, but mean nothing."""

from decimal import Decimal

__all__ = ["require_finite"]


def require_finite(what: str, **numbers: Decimal) -> None:
    """Raise `ValueError`, which names the first of `numbers` that is not a finite number."""
    for name, number in numbers.items():
        if not number.is_finite():
            raise ValueError(f"{what}: {name} must be a finite number, was {number}")
