"""Orders, fills and quotes, as a plugin author sees them."""

from decimal import Decimal
from enum import StrEnum

from msgspec import Struct

__all__ = [
    "Fill",
    "Liquidity",
    "Order",
    "OrderRequest",
    "OrderStatus",
    "OrderType",
    "Quote",
    "Side",
    "TimeInForce",
]


class Side(StrEnum):
    """Buy or sell, from our point of view."""

    BUY = "buy"
    SELL = "sell"

    @property
    def opposite(self) -> "Side":
        """Return the other side."""
        return Side.SELL if self is Side.BUY else Side.BUY


class OrderType(StrEnum):
    """Limit orders carry a price, market orders do not."""

    LIMIT = "limit"
    MARKET = "market"


class TimeInForce(StrEnum):
    """How long an order may rest."""

    GTC = "gtc"
    """Good till cancelled."""
    IOC = "ioc"
    """Immediate or cancel: fill what crosses now, cancel the rest."""
    FOK = "fok"
    """Fill or kill: fill all of it now or none."""


class OrderStatus(StrEnum):
    """Where an order is in its life; `host/core/lifecycle.py` holds the table of moves."""

    # Enum's own hash is a Python function; statuses are looked up several times for every order.
    __hash__ = str.__hash__

    PENDING_NEW = "pending_new"
    OPEN = "open"
    PARTIALLY_FILLED = "partially_filled"
    PENDING_CANCEL = "pending_cancel"
    PENDING_AMEND = "pending_amend"
    UNKNOWN = "unknown"
    """The venue has not told us; it is live until the venue proves that it is not."""
    FILLED = "filled"
    CANCELLED = "cancelled"
    REJECTED = "rejected"
    EXPIRED = "expired"

    @property
    def is_terminal(self) -> bool:
        """Return whether the order can no longer trade, by the venue's own word."""
        return self in _TERMINAL


_TERMINAL = frozenset({OrderStatus.FILLED, OrderStatus.CANCELLED, OrderStatus.REJECTED, OrderStatus.EXPIRED})


class Liquidity(StrEnum):
    """Whether our order rested (maker) or crossed (taker)."""

    MAKER = "maker"
    TAKER = "taker"


class OrderRequest(Struct, frozen=True, kw_only=True):
    """An imperative order: exactly this, once. `price` is None for a market order."""

    symbol: str
    side: Side
    qty: Decimal
    price: Decimal | None = None
    type: OrderType = OrderType.LIMIT
    time_in_force: TimeInForce = TimeInForce.GTC
    post_only: bool = False
    reduce_only: bool = False

    def as_order(
        self,
        client_id: str,
        instance: str,
        account: str,
        status: "OrderStatus",
        now_ns: int,
        reason: str = "",
    ) -> "Order":
        """Return the order that this asks for, in a state in which nothing of it has traded; `now_ns` is since 1970."""
        return Order(
            client_id,
            instance,
            account,
            self.symbol,
            self.side,
            self.type,
            self.time_in_force,
            self.price,
            self.qty,
            status,
            post_only=self.post_only,
            reduce_only=self.reduce_only,
            created_ns=now_ns,
            updated_ns=now_ns,
            reason=reason,
        )


class Order(Struct):
    """One of our orders. Plugins read it; only the fold in `host/core/state.py` writes it."""

    client_id: str
    instance: str
    account: str
    symbol: str
    side: Side
    type: OrderType
    time_in_force: TimeInForce
    price: Decimal | None
    qty: Decimal
    status: OrderStatus
    filled: Decimal = Decimal(0)
    post_only: bool = False
    reduce_only: bool = False
    slot: int = -1
    """Quote level this order works for (0 is the best), or -1 for an imperative order."""
    venue_id: str = ""
    pending_price: Decimal | None = None
    pending_qty: Decimal | None = None
    created_ns: int = 0
    updated_ns: int = 0
    reason: str = ""
    trade_ids: list[str] = []
    placed_by: str = ""
    """Who placed it by hand; empty: its instance's own code did."""

    @property
    def remaining(self) -> Decimal:
        """Return the quantity that may still trade."""
        return self.qty - self.filled


class Fill(Struct, frozen=True):
    """One execution of one of our orders. `fee` is positive when we pay, in `fee_currency`."""

    client_id: str
    instance: str
    account: str
    symbol: str
    side: Side
    price: Decimal
    qty: Decimal
    fee: Decimal
    fee_currency: str
    liquidity: Liquidity
    trade_id: str
    ts_ns: int


class Quote(Struct, frozen=True, gc=False):
    """The bid and the ask that a strategy wants in the market; None leaves that side empty.

    Prices are floats: the OMS rounds a bid down and an ask up to the tick.
    """

    bid: float | None
    bid_qty: Decimal
    ask: float | None
    ask_qty: Decimal

    @staticmethod
    def around(fair: float, half_spread_bps: float, size: Decimal) -> "Quote":
        """Quote `size` on both sides, `half_spread_bps` basis points away from `fair`."""
        offset = fair * half_spread_bps * 1e-4
        return Quote(fair - offset, size, fair + offset, size)
