"""Market data: instruments and the events that a venue publishes.

Market data is `float`: it feeds arithmetic that estimates. Anything that reaches an order or an
account is `Decimal` and is quantised by the instrument. All times are nanoseconds since the Unix
epoch; `ts_recv` comes from the host's clock, `ts_event` from the venue's (0 where it sends none).
"""

from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from enum import StrEnum

from msgspec import Struct

__all__ = [
    "BookTop",
    "Candle",
    "Depth",
    "Instrument",
    "InstrumentKind",
    "Level",
    "MarketEvent",
    "PriceBand",
    "Ticker",
    "Trade",
]

Level = tuple[float, float]
"""One price level: (price, size). Size 0 in a depth change removes the level."""


class InstrumentKind(StrEnum):
    """How a contract turns price and quantity into money."""

    SPOT = "spot"
    LINEAR = "linear"
    """Perpetual settled in the quote currency; profit = quantity × contract_size × price change."""
    INVERSE = "inverse"
    """Perpetual settled in the base currency; one contract is worth `contract_size` of quote currency."""


class PriceBand(Struct, frozen=True):
    """The range of prices that the venue accepts, as multiples of its reference price."""

    down: Decimal
    up: Decimal


class Instrument(Struct, frozen=True, kw_only=True):
    """What the venue allows for one symbol. Quantities are in base units (contracts for inverse)."""

    symbol: str
    kind: InstrumentKind
    base: str
    quote: str
    tick_size: Decimal
    lot_size: Decimal
    min_qty: Decimal = Decimal(0)
    max_qty: Decimal | None = None
    min_notional: Decimal = Decimal(0)
    """Smallest price × quantity that the venue takes, in quote currency."""
    contract_size: Decimal = Decimal(1)
    price_band: PriceBand | None = None
    maker_fee: Decimal = Decimal(0)
    """Rate of the notional; negative for a rebate."""
    taker_fee: Decimal = Decimal(0)
    is_trading: bool = True
    """False once the venue lists it no more, or takes no orders for it at present."""

    @property
    def settle(self) -> str:
        """Return the currency in which profit and loss are paid."""
        return self.base if self.kind is InstrumentKind.INVERSE else self.quote

    def price_floor(self, price: float | Decimal) -> Decimal:
        """Return the highest tick price at or below `price`."""
        return _on_grid(price, self.tick_size, ROUND_FLOOR)

    def price_ceil(self, price: float | Decimal) -> Decimal:
        """Return the lowest tick price at or above `price`."""
        return _on_grid(price, self.tick_size, ROUND_CEILING)

    def qty_floor(self, qty: float | Decimal) -> Decimal:
        """Return the largest multiple of the lot at or below `qty`."""
        return _on_grid(qty, self.lot_size, ROUND_FLOOR)

    def notional(self, price: Decimal, qty: Decimal) -> Decimal:
        """Return the value of `qty` at `price`, in quote currency."""
        if self.kind is InstrumentKind.INVERSE:
            return qty * self.contract_size
        return price * qty * self.contract_size


def _on_grid(value: float | Decimal, step: Decimal, rounding: str) -> Decimal:
    # repr() of a float is the shortest decimal that reads back as it, so 0.3 means 0.3 here and
    # not 0.299999999999999988897769753748, which would floor to the tick below.
    exact = Decimal(repr(value)) if isinstance(value, float) else value
    return (exact / step).to_integral_value(rounding) * step


class BookTop(Struct, frozen=True, gc=False):
    """Best bid and ask with their sizes.

    `seq` orders this event among the symbol's other events from the same venue (0: not known).
    """

    symbol: str
    bid: float
    bid_size: float
    ask: float
    ask_size: float
    ts_event: int = 0
    ts_recv: int = 0
    seq: int = 0

    @property
    def mid(self) -> float:
        """Return the arithmetic middle of bid and ask."""
        return (self.bid + self.ask) * 0.5

    @property
    def spread(self) -> float:
        """Return ask minus bid, in price units."""
        return self.ask - self.bid

    @property
    def microprice(self) -> float:
        """Return the mid weighted by the opposite sizes: it leans to the side about to give way."""
        total = self.bid_size + self.ask_size
        if total <= 0.0:
            return self.mid
        return (self.bid * self.ask_size + self.ask * self.bid_size) / total


class Depth(Struct, frozen=True):
    """A full book (`is_snapshot`) or the levels that changed since `prev_seq`.

    `bids` and `asks` hold (price, new total size); size 0 removes the level. `first_seq` and `seq`
    span the venue's updates in this message; `prev_seq` is the `seq` that must have come before
    (-1: the venue's rule is `first_seq` = previous `seq` + 1).
    """

    symbol: str
    bids: tuple[Level, ...]
    asks: tuple[Level, ...]
    is_snapshot: bool
    first_seq: int
    seq: int
    prev_seq: int = -1
    ts_event: int = 0
    ts_recv: int = 0


class Trade(Struct, frozen=True, gc=False):
    """One public trade. `taker_is_buyer` tells which side crossed the spread."""

    symbol: str
    price: float
    qty: float
    taker_is_buyer: bool
    trade_id: int = 0
    ts_event: int = 0
    ts_recv: int = 0


class Ticker(Struct, frozen=True, gc=False):
    """The venue's rolling 24-hour summary of a symbol."""

    symbol: str
    last: float
    open: float
    high: float
    low: float
    volume: float
    """Base units."""
    ts_event: int = 0
    ts_recv: int = 0


class Candle(Struct, frozen=True, gc=False):
    """Open, high, low and close of the trades in [start_ns, start_ns + interval_ns)."""

    symbol: str
    start_ns: int
    interval_ns: int
    open: float
    high: float
    low: float
    close: float
    volume: float
    """Base units."""
    trades: int


MarketEvent = BookTop | Depth | Trade | Ticker
