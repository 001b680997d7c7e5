"""What an account holds."""

from decimal import Decimal

from msgspec import Struct

__all__ = ["Balance", "Position"]


class Balance(Struct, frozen=True):
    """Money in one currency, as the venue states it. `locked` backs open orders or positions."""

    currency: str
    total: Decimal
    locked: Decimal = Decimal(0)

    @property
    def free(self) -> Decimal:
        """Return what is not locked."""
        return self.total - self.locked


class Position(Struct, frozen=True):
    """A signed holding that our fills built up: positive is long.

    `qty` is in base units (contracts for inverse), `average_price` in quote per base, `realised`
    in the settlement currency and before fees.
    """

    account: str
    symbol: str
    qty: Decimal = Decimal(0)
    average_price: Decimal = Decimal(0)
    realised: Decimal = Decimal(0)
