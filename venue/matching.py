"""One symbol's order book with price-time priority: who trades with whom, and in which order.

The best price trades first and, at one price, the order that has waited longest; every trade
happens at the resting order's price. Orders come in already validated (grid, funds, limits): this
module knows none of that, only the queue.
"""

from bisect import bisect_left, insort
from decimal import Decimal
from enum import StrEnum

from host.api import OrderType, RejectReason, Side, TimeInForce
from venue.market import Ended, Execution, VenueOrder

__all__ = ["BookSide", "MatchingBook", "SelfTrade"]

_ZERO = Decimal(0)


class SelfTrade(StrEnum):
    """What happens when an order would trade with one of the same owner."""

    CANCEL_TAKER = "cancel_taker"
    """The incoming order's remainder is cancelled; the resting one stays. Most venues' default."""
    CANCEL_MAKER = "cancel_maker"
    """The resting order is cancelled and the incoming one goes on."""


class _Level:
    """The queue at one price. A dict keeps arrival order and removes from anywhere in O(1)."""

    __slots__ = ("orders", "price", "total")

    def __init__(self, price: Decimal) -> None:
        self.price = price
        self.total = _ZERO
        self.orders: dict[int, VenueOrder] = {}


class BookSide:
    """The levels of one side, best last.

    Sorted by a key that grows with attractiveness (the price for bids, minus the price for asks),
    so that both sides share one code path and the best level is popped from the cheap end.
    """

    def __init__(self, side: Side) -> None:
        self._is_bid = side is Side.BUY
        self.changed: set[Decimal] = set()
        """Prices whose size changed since the set was last cleared."""
        self._keys: list[Decimal] = []
        self._levels: dict[Decimal, _Level] = {}

    def key(self, price: Decimal) -> Decimal:
        """Return the sort key of `price` on this side."""
        return price if self._is_bid else -price

    def best(self) -> _Level | None:
        """Return the level that trades next, None on an empty side."""
        return self._levels[self._keys[-1]] if self._keys else None

    def is_crossed_by(self, price: Decimal | None) -> bool:
        """Return whether an opposite order at `price` (None: at any price) would trade here."""
        if not self._keys:
            return False
        return price is None or self._keys[-1] >= self.key(price)

    def size_at(self, price: Decimal) -> Decimal:
        """Return the total quantity at `price`."""
        level = self._levels.get(self.key(price))
        return level.total if level is not None else _ZERO

    def levels(self, count: int | None = None) -> list[tuple[Decimal, Decimal]]:
        """Return up to `count` (price, total) pairs, best first."""
        keys = self._keys if count is None else self._keys[-count:] if count > 0 else []
        levels = self._levels
        return [(level.price, level.total) for level in (levels[key] for key in reversed(keys))]

    def add(self, order: VenueOrder, price: Decimal) -> None:
        """Put `order` at the end of the queue at `price`."""
        key = self.key(price)
        level = self._levels.get(key)
        if level is None:
            level = self._levels[key] = _Level(price)
            insort(self._keys, key)
        level.orders[order.order_id] = order
        level.total += order.remaining
        self.changed.add(price)

    def remove(self, order: VenueOrder, price: Decimal) -> None:
        """Take `order` out of the queue at `price`; raise KeyError where it is not there."""
        level = self._levels[self.key(price)]
        del level.orders[order.order_id]
        self.reduce(level, order.remaining)

    def reduce(self, level: _Level, qty: Decimal) -> None:
        """Lower the total of `level` by `qty`, and drop the level once nobody queues there."""
        level.total -= qty
        self.changed.add(level.price)
        if not level.orders:
            key = self.key(level.price)
            del self._levels[key]
            del self._keys[bisect_left(self._keys, key)]

    def level_at(self, price: Decimal) -> _Level:
        """Return the level at `price`; raise KeyError where nobody queues."""
        return self._levels[self.key(price)]

    def fillable(self, order: VenueOrder) -> Decimal:
        """Return how much of `order` could trade here now; counts no order of the same owner."""
        found = _ZERO
        limit = None if order.price is None else self.key(order.price)
        for key in reversed(self._keys):
            if (limit is not None and key < limit) or found >= order.remaining:
                break
            for maker in self._levels[key].orders.values():
                if order.owner and maker.owner == order.owner:
                    return found
                found += maker.remaining
        return found


class MatchingBook:
    """A price-time priority matching engine for one symbol."""

    def __init__(self, self_trade: SelfTrade = SelfTrade.CANCEL_TAKER) -> None:
        self.bids = BookSide(Side.BUY)
        self.asks = BookSide(Side.SELL)
        self._self_trade = self_trade

    def side(self, side: Side) -> BookSide:
        """Return the side on which orders of `side` rest."""
        return self.bids if side is Side.BUY else self.asks

    def submit(self, order: VenueOrder, now_ns: int) -> list[Execution | Ended]:
        """Match `order`, rest what remains if its terms allow, and return what happened, in order.

        The price of a market order, where it has one, is the worst that it accepts. An order that
        stays in the book without trading returns nothing and has `is_open` set.
        """
        opposite = self.asks if order.side is Side.BUY else self.bids
        if not opposite.is_crossed_by(order.price):
            return self._rest(order, now_ns)
        if order.post_only:
            return [_end(order, RejectReason.WOULD_TAKE, now_ns)]
        if order.time_in_force is TimeInForce.FOK and opposite.fillable(order) < order.remaining:
            return [_end(order, RejectReason.NOT_FILLABLE, now_ns)]
        out = self._take(order, opposite, now_ns)
        if order.is_open:
            out.extend(self._rest(order, now_ns))
        return out

    def amend(
        self, order: VenueOrder, price: Decimal, qty: Decimal, now_ns: int, *, keeps_place: bool = True
    ) -> list[Execution | Ended]:
        """Give a resting order a new price and a new total quantity (above what is filled).

        Less quantity at the same price keeps its place in the queue, if `keeps_place`. Anything else goes to the end
        of the queue, as if cancelled and sent anew, and may trade; a post-only order that would
        trade is taken out with `WOULD_TAKE`.
        """
        side = self.side(order.side)
        old = order.price
        assert old is not None, "a resting order has a price"
        if keeps_place and price == old and qty <= order.qty:
            side.reduce(side.level_at(old), order.qty - qty)
            order.qty = qty
            return []
        side.remove(order, old)
        order.price = price
        order.qty = qty
        return self.submit(order, now_ns)

    def cancel(self, order: VenueOrder) -> bool:
        """Take a resting order out; return whether it was still there."""
        if not order.is_open or order.price is None:
            return False
        self.side(order.side).remove(order, order.price)
        order.is_open = False
        return True

    def _take(self, order: VenueOrder, opposite: BookSide, now_ns: int) -> list[Execution | Ended]:
        out: list[Execution | Ended] = []
        price = order.price
        while order.is_open and opposite.is_crossed_by(price):
            level = opposite.best()
            assert level is not None, "a crossed side has a best level"
            maker = next(iter(level.orders.values()))
            if order.owner and maker.owner == order.owner:
                if self._self_trade is SelfTrade.CANCEL_TAKER:
                    out.append(_end(order, RejectReason.SELF_TRADE, now_ns))
                else:
                    self.cancel(maker)
                    out.append(Ended(maker, RejectReason.SELF_TRADE, now_ns))
                continue
            wanted = order.qty - order.filled
            offered = maker.qty - maker.filled
            qty = wanted if wanted < offered else offered
            order.filled += qty
            maker.filled += qty
            if qty == offered:
                maker.is_open = False
                del level.orders[maker.order_id]
            if qty == wanted:
                order.is_open = False
            opposite.reduce(level, qty)
            out.append(Execution(level.price, qty, maker, order, now_ns))
        return out

    def _rest(self, order: VenueOrder, now_ns: int) -> list[Execution | Ended]:
        if order.type is OrderType.MARKET or order.time_in_force is not TimeInForce.GTC:
            return [_end(order, RejectReason.NOT_FILLABLE, now_ns)]
        assert order.price is not None, "a limit order has a price"
        self.side(order.side).add(order, order.price)
        return []


def _end(order: VenueOrder, reason: RejectReason, now_ns: int) -> Ended:
    order.is_open = False
    return Ended(order, reason, now_ns)
