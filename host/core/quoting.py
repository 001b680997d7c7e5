"""From wanted quotes to the fewest orders, amends and cancels.

A `QuoteLane` is one instance's quoting in one symbol; each level and side is a `Slot` that works at
most one order at a time. The slot compares what is wanted with what its order says and names the
one next step; `host/core/quoter.py` carries it out. Waiting is a step too: a slot never sends while an
earlier request of its order is unanswered, and never places beside an order whose fate is unknown.
"""

from decimal import Decimal
from enum import Enum, auto
from math import ceil, floor, inf
from typing import Final

from host.api import BookTop, Instrument, Order, OrderStatus, Quote, Side

__all__ = ["TICK_NOISE", "QuoteLane", "Slot", "Step"]

_ZERO: Final = Decimal(0)
TICK_NOISE: Final = 1e-6
"""Float noise, in ticks, that must not push a price to the next tick."""

MAX_BACKOFF_NS: Final = 5_000_000_000
FIRST_BACKOFF_NS: Final = 100_000_000
"""After a refusal a slot waits this long, doubled each time in a row, up to `MAX_BACKOFF_NS`."""


class Step(Enum):
    """What a slot needs next."""

    NOTHING = auto()
    PLACE = auto()
    AMEND = auto()
    CANCEL = auto()


# Looked up once: these are compared with every quote.
_OPEN: Final = OrderStatus.OPEN
_PARTIALLY_FILLED: Final = OrderStatus.PARTIALLY_FILLED
_NOTHING: Final = Step.NOTHING
_AMEND: Final = Step.AMEND


class Slot:
    """One level of one side: what is wanted there and the order that works for it."""

    __slots__ = (
        "backoff_until_ns",
        "level",
        "order",
        "refusals_in_a_row",
        "sent_ticks",
        "side",
        "wanted_qty",
        "wanted_ticks",
    )

    def __init__(self, side: Side, level: int) -> None:
        self.side: Final = side
        self.level: Final = level
        self.wanted_ticks = 0
        self.wanted_qty = _ZERO
        self.order: Order | None = None
        self.sent_ticks = 0
        self.backoff_until_ns = 0
        self.refusals_in_a_row = 0

    def clear(self) -> None:
        """Want nothing here."""
        self.wanted_ticks = 0
        self.wanted_qty = _ZERO

    def step(self, tolerance_ticks: int, now_ns: int) -> Step:
        """Name the next step from the order's state to what is wanted."""
        order = self.order
        if order is None:
            if self.wanted_ticks and now_ns >= self.backoff_until_ns:
                return Step.PLACE
            return _NOTHING
        status = order.status
        if not self.wanted_ticks:
            if status is OrderStatus.PENDING_CANCEL or status is OrderStatus.UNKNOWN:
                return _NOTHING
            return Step.CANCEL
        if status is not _OPEN and status is not _PARTIALLY_FILLED:
            return _NOTHING
        moved = self.wanted_ticks - self.sent_ticks
        if -tolerance_ticks <= moved <= tolerance_ticks and not self._needs_resize(order):
            return _NOTHING
        return _AMEND if now_ns >= self.backoff_until_ns else _NOTHING

    def _needs_resize(self, order: Order) -> bool:
        if order.filled == _ZERO:
            return self.wanted_qty != order.qty
        # Adding quantity gives up the place in the queue, so a part fill is topped up only once
        # less than half of the wanted quantity is left.
        remaining = order.qty - order.filled
        return remaining > self.wanted_qty or remaining + remaining < self.wanted_qty

    def back_off(self, now_ns: int) -> None:
        """Wait before the next request: the last one was refused."""
        delay = min(FIRST_BACKOFF_NS << min(self.refusals_in_a_row, 10), MAX_BACKOFF_NS)
        self.refusals_in_a_row += 1
        self.backoff_until_ns = now_ns + delay


class QuoteLane:
    """One instance's quotes in one symbol.

    `tolerance_bps` of the price, but at least `tolerance_ticks`, is how far a wanted price may move
    before the resting order follows: a wobble costs neither rate limit nor queue position.
    """

    __slots__ = (
        "asks",
        "best_ask",
        "best_bid",
        "bids",
        "instrument",
        "inverse_tick",
        "levels",
        "lot_qty",
        "raw_qty",
        "tick",
        "tick_estimate",
        "tolerance_rate",
        "tolerance_ticks",
    )

    def __init__(self, instrument: Instrument, tolerance_bps: float, tolerance_ticks: int) -> None:
        self.instrument = instrument
        self.set_tolerance(tolerance_bps, tolerance_ticks)
        self.bids: list[Slot] = [Slot(Side.BUY, 0)]
        self.asks: list[Slot] = [Slot(Side.SELL, 0)]
        self.best_bid = self.bids[0]
        self.best_ask = self.asks[0]
        self.levels = 1
        """How many levels there are slots for."""
        self.tick = instrument.tick_size
        self.tick_estimate = float(instrument.tick_size)
        self.inverse_tick = 1.0 / float(instrument.tick_size)
        self.raw_qty = _ZERO
        self.lot_qty = _ZERO

    def take_instrument(self, instrument: Instrument) -> None:
        """Go by other terms: what is wanted is rounded anew, away from the other side.

        An order whose price is not on the new grid counts as moved, whatever the tolerance.
        """
        before = self.tick
        self.instrument = instrument
        self.tick = instrument.tick_size
        self.tick_estimate = float(instrument.tick_size)
        self.inverse_tick = 1.0 / float(instrument.tick_size)
        self.raw_qty = self.lot_qty = _ZERO
        for slot in self.slots():
            if slot.wanted_ticks:
                price = slot.wanted_ticks * before
                is_bid = slot.side is Side.BUY
                slot.wanted_qty = instrument.qty_floor(slot.wanted_qty)
                slot.wanted_ticks = (
                    self.ticks(instrument.price_floor(price) if is_bid else instrument.price_ceil(price))
                    if slot.wanted_qty
                    else 0
                )
            price = slot.sent_ticks * before
            slot.sent_ticks = 0 if price % self.tick else self.ticks(price)

    def set_tolerance(self, bps: float, ticks: int) -> None:
        """Let wanted prices move so far, from the next one on, before their orders follow."""
        self.tolerance_rate = bps * 1e-4
        self.tolerance_ticks = ticks

    def slots(self) -> list[Slot]:
        """Return all slots, bids first."""
        return [*self.bids, *self.asks]

    def slot(self, side: Side, level: int) -> Slot:
        """Return the slot of a level, made when it is new."""
        self.grow(level + 1)
        return (self.bids if side is Side.BUY else self.asks)[level]

    def price(self, ticks: int) -> Decimal:
        """Return the exact price of a number of ticks."""
        return ticks * self.tick

    def ticks(self, price: Decimal) -> int:
        """Return a price on the grid as a number of ticks."""
        return int(price / self.tick)

    def grow(self, levels: int) -> None:
        """Make sure that there are slots for so many levels."""
        self.levels = max(self.levels, levels)
        for level in range(len(self.bids), levels):
            self.bids.append(Slot(Side.BUY, level))
            self.asks.append(Slot(Side.SELL, level))

    def want(self, level: int, quote: Quote, top: BookTop | None) -> str:
        """Set what is wanted at a level: bids rounded down, asks up to the tick, never crossing `top`.

        A quote is a maker's wish: a bid stays below the best ask and an ask above the best bid.
        Returns what is wrong with a price that is no positive number or a quantity that is none at
        all; nothing is wanted there then.
        """
        inverse_tick, tick = self.inverse_tick, self.tick_estimate
        fault = ""
        slot, price = self.bids[level], quote.bid
        slot.wanted_ticks = 0
        if price is not None:
            if 0.0 < price * inverse_tick < inf:
                qty = quote.bid_qty
                slot.wanted_qty = qty = self.lot_qty if qty is self.raw_qty else self._lots(qty)
                if qty:
                    ticks = floor(price * inverse_tick + TICK_NOISE)
                    # Nearer than a tick to the other side? Further away the bound cannot matter.
                    if top is not None and price + tick > top.ask:
                        highest = ceil(top.ask * inverse_tick - TICK_NOISE) - 1
                        if ticks > highest:
                            ticks = highest
                    if ticks > 0:
                        slot.wanted_ticks = ticks
                elif not quote.bid_qty.is_finite():
                    fault = f"bid quantity must be a number, was {quote.bid_qty}"
            else:
                fault = f"bid price must be a positive number, was {price!r}"
        slot, price = self.asks[level], quote.ask
        slot.wanted_ticks = 0
        if price is not None:
            if 0.0 < price * inverse_tick < inf:
                qty = quote.ask_qty
                slot.wanted_qty = qty = self.lot_qty if qty is self.raw_qty else self._lots(qty)
                if qty:
                    ticks = ceil(price * inverse_tick - TICK_NOISE)
                    if top is not None and price - tick < top.bid:
                        lowest = floor(top.bid * inverse_tick + TICK_NOISE) + 1
                        if ticks < lowest:
                            ticks = lowest
                    slot.wanted_ticks = ticks
                elif not quote.ask_qty.is_finite():
                    fault = f"ask quantity must be a number, was {quote.ask_qty}"
            else:
                fault = f"ask price must be a positive number, was {price!r}"
        return fault

    def tolerance(self, ticks: int) -> int:
        """Return the tolerated move, in ticks, of a price of so many ticks."""
        by_bps = int(ticks * self.tolerance_rate)
        return by_bps if by_bps > self.tolerance_ticks else self.tolerance_ticks

    def stay(self, bid_ticks: int, ask_ticks: int) -> bool:
        """Want these prices at the best level if no order has to move for it; else change nothing.

        Both sides have an order that rests in the lane's size. False means that one has to move.
        """
        bid, ask = self.best_bid, self.best_ask
        bid_move, ask_move = abs(bid_ticks - bid.sent_ticks), abs(ask_ticks - ask.sent_ticks)
        if bid_move > self.tolerance(bid_ticks) or ask_move > self.tolerance(ask_ticks):
            return False
        bid.wanted_ticks, ask.wanted_ticks = bid_ticks, ask_ticks
        bid.wanted_qty = ask.wanted_qty = self.lot_qty
        return True

    def _lots(self, qty: Decimal) -> Decimal:
        # Strategies quote the same size object again and again: `want` divides it only once.
        self.lot_qty = self.instrument.qty_floor(qty) if qty.is_finite() and qty > _ZERO else _ZERO
        self.raw_qty = qty
        return self.lot_qty
