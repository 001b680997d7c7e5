"""The contract between the exchange front (accounts, requests, reports) and one symbol's market.

Two markets keep it: `LiveMarket`, a price-time matching engine fed by synthetic participants, and
`ReplayMarket`, a recording against which our orders fill by estimated queue position. Both are
plain synchronous code in virtual time: nothing happens except in `submit`, `amend`, `cancel` and
`step`, and the same calls give the same results.
"""

from decimal import Decimal
from typing import Protocol

from msgspec import Struct

from host.api import Depth, Instrument, MarketEvent, OrderType, RejectReason, Side, TimeInForce

__all__ = ["Ended", "Execution", "Market", "MarketOutput", "VenueOrder"]


class VenueOrder(Struct, eq=False):
    """An order at the venue. `owner` is the account's name, or empty for a synthetic participant.

    `price` is the limit; a market order may carry one too: the worst price that it accepts. The
    market that holds the order keeps `filled` and `is_open` up to date.
    """

    order_id: int
    owner: str
    client_id: str
    symbol: str
    side: Side
    type: OrderType
    time_in_force: TimeInForce
    price: Decimal | None
    qty: Decimal
    post_only: bool = False
    reduce_only: bool = False
    filled: Decimal = Decimal(0)
    is_open: bool = True
    created_ns: int = 0

    @property
    def remaining(self) -> Decimal:
        """Return the quantity that may still trade."""
        return self.qty - self.filled


class Execution(Struct, frozen=True):
    """A trade between two orders; `filled` of both is already updated.

    `maker` or `taker` is None where the other side is the recorded market itself.
    """

    price: Decimal
    qty: Decimal
    maker: VenueOrder | None
    taker: VenueOrder | None
    ts_ns: int


class Ended(Struct, frozen=True):
    """An order left the market without being filled: IOC remainder, FOK, post-only, self-trade."""

    order: VenueOrder
    reason: RejectReason
    ts_ns: int


MarketOutput = MarketEvent | Execution | Ended


class Market(Protocol):
    """One symbol's liquidity, in virtual time. `now_ns` never goes back between calls."""

    instrument: Instrument

    def submit(self, order: VenueOrder, now_ns: int) -> list[MarketOutput]:
        """Match a new, already validated order; rest what remains if its terms allow."""

    def amend(
        self, order: VenueOrder, price: Decimal, qty: Decimal, now_ns: int, *, keeps_place: bool = True
    ) -> list[MarketOutput]:
        """Change a resting order: less quantity at the same price keeps its place, if `keeps_place`."""

    def cancel(self, order: VenueOrder, now_ns: int) -> list[MarketOutput]:
        """Take a resting order out."""

    def next_time_ns(self) -> int | None:
        """Return when the market next does something by itself; None at the end of a recording."""

    def step(self, now_ns: int) -> list[MarketOutput]:
        """Do everything due at or before `now_ns`, in order."""

    def snapshot(self, now_ns: int) -> Depth:
        """Return the whole book as a depth snapshot whose `seq` continues into later changes."""

    def best(self) -> tuple[Decimal | None, Decimal | None]:
        """Return the best bid and ask, own orders included."""
