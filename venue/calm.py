"""A market in which little happens: one maker on each side, a price that walks tick by tick.

Where the synthetic market is believable, this one is predictable: for first steps, examples and
tests of everything but the market itself.
"""

from decimal import Decimal
from random import Random

from host.api import Instrument, OrderType, Side, TimeInForce
from venue.participants import Action, BookView, CancelResting, SubmitOrder

__all__ = ["CalmParticipants"]

_LEVELS = 5
_SPREAD_TICKS = 2
_TAKER_SHARE = 0.3
"""How often a step is a trade instead of a new price."""


class CalmParticipants:
    """Each `every_ns` either takes one lot from the best price or moves all quotes by one tick."""

    def __init__(
        self,
        instrument: Instrument,
        seed: int,
        start_price: Decimal,
        *,
        start_ns: int = 0,
        every_ns: int = 100_000_000,
    ) -> None:
        self._tick = instrument.tick_size
        self._lot = max(instrument.min_qty, instrument.lot_size)
        self._bid = instrument.price_floor(start_price)
        self._random = Random(seed)
        self._next_ns = start_ns
        self._every_ns = every_ns

    def next_time_ns(self) -> int:
        """Return when to call `act` next."""
        return self._next_ns

    def act(self, book: BookView, now_ns: int) -> list[Action]:
        """Quote at first, then trade or walk."""
        self._next_ns = now_ns + self._every_ns
        side = self._random.choice((Side.BUY, Side.SELL))
        if book.own_orders and self._random.random() < _TAKER_SHARE:
            return [SubmitOrder(side, OrderType.MARKET, None, self._lot, TimeInForce.IOC)]
        step = self._tick if side is Side.BUY else -self._tick
        self._bid = max(self._bid + step, self._tick * (_LEVELS + 1))
        actions: list[Action] = [CancelResting(order) for order in book.own_orders]
        for level in range(_LEVELS):
            bid = self._bid - level * self._tick
            ask = self._bid + (_SPREAD_TICKS + level) * self._tick
            size = self._lot * 100 * (level + 1)
            actions.append(SubmitOrder(Side.BUY, OrderType.LIMIT, bid, size))
            actions.append(SubmitOrder(Side.SELL, OrderType.LIMIT, ask, size))
        return actions
