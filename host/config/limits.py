"""Limits as the configuration file writes them."""

from decimal import Decimal
from typing import Literal

from msgspec import Struct

__all__ = ["Limits", "Money"]


class Money(str):
    """An amount of one currency, written `"500 USDT"`."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> "Money":
        """Read `"500 USDT"`; raise `ValueError` for anything else."""
        amount, _, currency = text.partition(" ")
        if not currency.isalnum() or currency != currency.upper():
            raise ValueError(f'expected an amount and a currency such as "500 USDT", was "{text}"')
        Decimal(amount)
        return cls(text)


class Limits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Risk limits of one scope; None sets none."""

    max_order_qty: Decimal | None = None
    max_order_notional: Money | None = None
    max_position: Decimal | None = None
    max_open_orders: int | None = None
    max_orders_per_second: float | None = None
    price_collar_bps: float | None = None
    max_data_age_ms: float | None = None
    max_daily_loss: Money | None = None
    max_concentration: float | None = None
    self_trade: Literal["refuse", "allow"] | None = None
    on_breach: Literal["refuse", "pull", "kill"] | None = None
