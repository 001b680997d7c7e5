"""The exchange behind every venue of the suite: a market in which nothing happens unless a test has it happen."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Final

from host.api import Instrument, InstrumentKind, OrderType, Side
from venue.catalog import INSTRUMENTS
from venue.clock import VenueClock
from venue.exchange import Exchange
from venue.live_market import LiveMarket
from venue.participants import Action, BookView, SubmitOrder

__all__ = ["INVERSE", "LINEAR", "MID", "SPOT", "STEP", "open_exchange"]

SPOT, LINEAR = INSTRUMENTS["BTC-USDT"], INSTRUMENTS["BTC-USDT-PERP"]
INVERSE: Final = Instrument(
    symbol="BTC-USD-PERP",
    kind=InstrumentKind.INVERSE,
    base="BTC",
    quote="USD",
    tick_size=Decimal("0.1"),
    lot_size=Decimal(1),
    min_qty=Decimal(1),
    min_notional=Decimal(5),
    maker_fee=Decimal("0.0002"),
    taker_fee=Decimal("0.00055"),
)
MID: Final = Decimal(60_000)
STEP: Final = Decimal(10)
"""Best prices are a step from the middle, levels a step from each other."""
LEVELS: Final = 5
DAY_NS: Final = 86_400_000_000_000


class _Still:
    """Quotes once, ten apart on both sides of 60,000, and never again."""

    def __init__(self, instrument: Instrument, start_ns: int) -> None:
        self._size = Decimal(100_000) if instrument.kind is InstrumentKind.INVERSE else Decimal(1)
        self._next_ns = start_ns

    def next_time_ns(self) -> int:
        """Return when to call `act` next."""
        return self._next_ns

    def act(self, book: BookView, now_ns: int) -> list[Action]:
        """Quote."""
        self._next_ns = now_ns + 10_000 * DAY_NS
        return [
            SubmitOrder(side, OrderType.LIMIT, MID + sign * STEP * level, self._size)
            for level in range(1, LEVELS + 1)
            for side, sign in ((Side.BUY, -1), (Side.SELL, 1))
        ]


def still_market(instrument: Instrument, now_ns: int) -> LiveMarket:
    """Open a market in which nothing happens by itself."""
    return LiveMarket(instrument, _Still(instrument, now_ns))


def open_exchange(instruments: Sequence[Instrument], clock: VenueClock) -> Exchange:
    """Open an exchange with these markets."""
    exchange = Exchange(seed=1)
    for instrument in instruments:
        exchange.list_instrument(instrument)
        exchange.add_market(still_market(instrument, clock.now_ns()))
    return exchange
