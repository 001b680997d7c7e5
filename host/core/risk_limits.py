"""What the risk checks are told (limits per scope) and what they answer (refusals).

A scope is the node, one account, one instance or one symbol. Every limit is optional, and an order
must pass the limits of all four of its scopes: a narrower scope can tighten, never loosen.
"""

import math
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Final

from msgspec import Struct

__all__ = [
    "Action",
    "Limits",
    "Money",
    "Refusal",
    "RiskConfig",
    "RiskOverride",
    "RiskReason",
    "SelfTrade",
]


MOST_ORDERS_PER_SECOND: Final = 100_000
"""Each of them is remembered for a second."""


class RiskReason(StrEnum):
    """Why an order was refused: one stable code per check."""

    KILL_SWITCH = "kill_switch"
    NOT_TRADING = "not_trading"
    """The venue lists the symbol no more, or takes no orders for it."""
    DAILY_LOSS = "daily_loss"
    NO_REFERENCE = "no_reference"
    """A check needs a price and there is none."""
    STALE_DATA = "stale_data"
    LIQUIDATION_DISTANCE = "liquidation_distance"
    ORDER_QTY = "order_qty"
    ORDER_NOTIONAL = "order_notional"
    PRICE_COLLAR = "price_collar"
    SELF_TRADE = "self_trade"
    POSITION = "position"
    INVENTORY_NOTIONAL = "inventory_notional"
    CONCENTRATION = "concentration"
    OPEN_ORDERS = "open_orders"
    ORDER_RATE = "order_rate"


class Action(StrEnum):
    """What a breach leads to, mildest first."""

    REFUSE = "refuse"
    """The order is not sent."""
    PULL = "pull"
    """Also, the quotes of the order's instance are pulled."""
    KILL = "kill"
    """Also, the kill switch of the scope trips: all its orders are cancelled, new ones refused."""
    FLATTEN = "flatten"
    """As kill, and the positions of the scope are closed."""


_DEFAULT_ACTIONS = {RiskReason.DAILY_LOSS: Action.KILL, RiskReason.STALE_DATA: Action.PULL}


class SelfTrade(StrEnum):
    """Whether an order may cross one of our own on the same account and symbol."""

    REFUSE = "refuse"
    ALLOW = "allow"


class Refusal(Struct, frozen=True):
    """Why something may not go on. `scope` is written as in `KillSwitchSet`: `instance:mm-btc`.

    `instance` and `symbol` are those of the order; empty where a monitored breach is not about one.
    """

    reason: RiskReason
    scope: str
    detail: str
    action: Action
    instance: str = ""
    symbol: str = ""


class Money(Struct, frozen=True):
    """An amount in one currency, written `500 USDT`."""

    amount: Decimal
    currency: str

    @classmethod
    def parse(cls, text: str) -> "Money":
        """Return the money that `text` states; raise `ValueError`."""
        amount, _, currency = text.partition(" ")
        try:
            value = Decimal(amount)
        except InvalidOperation:
            value = Decimal("NaN")
        if not value.is_finite() or not currency.isalnum():
            raise ValueError(f"expected an amount and a currency like '500 USDT', was {text!r}")
        return cls(value, currency)

    def __str__(self) -> str:
        return f"{self.amount:f} {self.currency}"


class Limits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The limits of one scope; None (left out) means no limit of that kind.

    Notionals are in the quote currency of the symbol; sums over symbols are kept per quote currency.
    Quantities are in base units (contracts for inverse) and hold for each symbol of the scope. A value
    out of bounds raises `ValueError` (on decoding: `msgspec.ValidationError`) as `field: expected ..., was ...`.
    """

    max_order_qty: Decimal | None = None
    max_order_notional: Decimal | None = None
    max_position: Decimal | None = None
    """Largest |position| in one symbol if this and all resting orders of its side filled."""
    max_inventory_notional: Decimal | None = None
    """Largest sum over symbols of that position's value, gross of sign."""
    max_open_orders: int | None = None
    max_orders_per_second: int | None = None
    """In any window of one second; amends count, cancels do not. At most 100,000."""
    price_collar_bps: float | None = None
    """How far through the mid a buy may bid above it, or a sell ask below it."""
    max_data_age_ms: int | None = None
    """How old the latest top of book may be."""
    max_daily_loss: str | None = None
    """Realised + unrealised − fees since the start of the UTC day, like `500 USDT`."""
    max_concentration: float | None = None
    """Largest share, 0 to 1, of one symbol in the scope's inventory notional."""
    concentration_floor: Decimal = Decimal(1000)
    """Concentration is not judged while the inventory notional is at or below this."""
    self_trade: SelfTrade | None = None
    """Refused unless every scope that says something says `allow`."""
    on_breach: Action | dict[RiskReason, Action] | None = None
    """One action for every breach, or one per reason; else loss kills, stale data pulls, the rest refuses."""
    min_liquidation_distance_bps: float | None = None
    """How far the mid must be from the price at which the venue would liquidate the account's position, as a
    part of the mid. Below it, orders that do not reduce that position are refused."""

    def __post_init__(self) -> None:
        for name in _POSITIVE:
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name}: expected a number above 0, was {value}")
        per_second = self.max_orders_per_second
        if per_second is not None and per_second > MOST_ORDERS_PER_SECOND:
            raise ValueError(
                f"max_orders_per_second: expected at most {MOST_ORDERS_PER_SECOND}, was {per_second}"
            )
        share = self.max_concentration
        if share is not None and not 0 < share <= 1:
            raise ValueError(f"max_concentration: expected a share above 0 and at most 1, was {share}")
        floor = self.concentration_floor
        if not (floor.is_finite() and floor >= 0):
            raise ValueError(f"concentration_floor: expected a number of at least 0, was {floor}")
        if self.max_daily_loss is not None:
            try:
                money = Money.parse(self.max_daily_loss)
            except ValueError as error:
                raise ValueError(f"max_daily_loss: {error}") from error
            if money.amount <= 0:
                raise ValueError(f"max_daily_loss: expected an amount above 0, was {self.max_daily_loss!r}")

    @property
    def daily_loss(self) -> Money | None:
        """Return `max_daily_loss` as money."""
        return None if self.max_daily_loss is None else Money.parse(self.max_daily_loss)

    def action(self, reason: RiskReason) -> Action:
        """Return what a breach of this scope leads to.

        A missing price breaches nothing, so only a table that names `no_reference` makes it more
        than a refusal.
        """
        if isinstance(self.on_breach, Action):
            return Action.REFUSE if reason is RiskReason.NO_REFERENCE else self.on_breach
        default = _DEFAULT_ACTIONS.get(reason, Action.REFUSE)
        return default if self.on_breach is None else self.on_breach.get(reason, default)


_POSITIVE = (
    "max_order_qty",
    "max_order_notional",
    "max_position",
    "max_inventory_notional",
    "max_open_orders",
    "max_orders_per_second",
    "price_collar_bps",
    "max_data_age_ms",
    "min_liquidation_distance_bps",
)


class RiskConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The limits of the node and of named accounts, instances and symbols."""

    node: Limits = Limits()
    accounts: dict[str, Limits] = {}
    instances: dict[str, Limits] = {}
    symbols: dict[str, Limits] = {}


class RiskOverride(Struct, frozen=True):
    """Limits of one scope that were set by hand, and what the configuration said of it by then.

    Both are JSON of `Limits`.
    """

    limits: bytes
    configured: bytes
    by: str
    since_ns: int
