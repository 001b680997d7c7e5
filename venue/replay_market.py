"""A recorded market in which our orders fill by estimated queue position.

The recording plays whatever we do: our orders take nothing out of it and move no price. What that
biases, and by which rules an order fills, is in `docs/recordings.md`.
"""

import math
from collections.abc import Iterator
from decimal import Decimal
from typing import Final

from host.api import BookTop, Depth, MarketEvent, OrderType, RejectReason, Side, TimeInForce, Trade
from venue.market import Ended, Execution, MarketOutput, VenueOrder
from venue.matching import SelfTrade
from venue.queue_model import LevelQueue, QueuedOrder, ShareAhead, proportional
from venue.recorded_book import RecordedBook
from venue.recording import Recording, RecordingError

__all__ = ["ReplayMarket"]

_NEVER: Final = 1 << 63
_LOT_NOISE: Final = 1e-6
"""Added, in lots, before a float volume is cut to whole lots: sums of floats fall a hair short."""


class ReplayMarket:
    """Keeps the `Market` contract over one recording.

    `step` returns the recorded events unchanged, each followed by what it did to our orders. It
    raises `RecordingError` at a bad line, after everything before that line was returned.
    `share_ahead` says which part of the cancels at our price happens ahead of us.
    """

    def __init__(
        self,
        recording: Recording,
        share_ahead: ShareAhead = proportional,
        self_trade: SelfTrade = SelfTrade.CANCEL_TAKER,
    ) -> None:
        self.instrument = recording.instrument
        self._events: Iterator[MarketEvent] = recording.events()
        self._next: MarketEvent | None = None
        self._next_ns = 0
        self._error: RecordingError | None = None
        self._book = RecordedBook(recording.symbol, float(self.instrument.tick_size))
        self._share_ahead = share_ahead
        self._self_trade = self_trade
        self._lot = float(self.instrument.lot_size)
        self._bids: dict[float, LevelQueue] = {}
        self._asks: dict[float, LevelQueue] = {}
        # The prices of our best resting orders, so that most events are dismissed by comparison.
        self._own_bid = -math.inf
        self._own_ask = math.inf
        self._venue_ns = 0
        self._advance()

    def next_time_ns(self) -> int | None:
        """Return the receive time of the next recorded event, None after the last one."""
        return None if self._next_ns == _NEVER else self._next_ns

    def step(self, now_ns: int) -> list[MarketOutput]:
        """Play every event received at or before `now_ns`."""
        out: list[MarketOutput] = []
        book = self._book
        while self._next_ns <= now_ns:
            event = self._next
            if event is None:
                if out:
                    return out
                self._next_ns = _NEVER
                assert self._error is not None, "only a bad line leaves a time without an event"
                raise self._error
            out.append(event)
            if type(event) is BookTop:
                if book.on_top(event) and (self._bids or self._asks):
                    self._on_book(out)
            elif type(event) is Trade:
                if event.price <= self._own_bid or event.price >= self._own_ask:
                    self._on_trade(event, out)
            elif type(event) is Depth:
                book.on_depth(event)
                if self._bids or self._asks:
                    self._on_book(out, is_snapshot=event.is_snapshot)
            self._venue_ns = max(self._venue_ns, event.ts_event)
            self._advance()
        return out

    def submit(self, order: VenueOrder, now_ns: int) -> list[MarketOutput]:
        """Take what the recorded book shows at the order's price or better; rest what remains."""
        if not self._is_crossing(order):
            return self._rest(order, now_ns)
        if order.post_only:
            return [_end(order, RejectReason.WOULD_TAKE, now_ns)]
        if order.time_in_force is TimeInForce.FOK and self._fillable(order) < order.remaining:
            return [_end(order, RejectReason.NOT_FILLABLE, now_ns)]
        out = self._take(order, now_ns)
        if order.is_open:
            out.extend(self._rest(order, now_ns))
        return out

    def amend(
        self, order: VenueOrder, price: Decimal, qty: Decimal, now_ns: int, *, keeps_place: bool = True
    ) -> list[MarketOutput]:
        """Change a resting order; any change but less quantity at the same price queues anew, and that if not
        `keeps_place`.

        `qty` must be above what is filled. A post-only order that would trade is taken out.
        """
        if keeps_place and price == order.price and qty <= order.qty:
            order.qty = qty
            return []
        self._leave(order)
        order.price, order.qty = price, qty
        return self.submit(order, now_ns)

    def cancel(self, order: VenueOrder, now_ns: int) -> list[MarketOutput]:
        """Take a resting order out; no effect on one that is done."""
        if order.is_open:
            self._leave(order)
            order.is_open = False
        return []

    def snapshot(self, now_ns: int) -> Depth:
        """Return the recorded book without our orders, which recorded changes never include."""
        return self._book.snapshot(now_ns)

    def best(self) -> tuple[Decimal | None, Decimal | None]:
        """Return the best bid and ask, own orders included."""
        bid = max(self._book.best_bid, self._own_bid)
        ask = min(self._book.best_ask, self._own_ask)
        return (
            self._price(bid) if bid > 0.0 else None,
            self._price(ask) if ask < math.inf else None,
        )

    # -- what a recorded event does to resting orders --------------------------------------------

    def _advance(self) -> None:
        try:
            event = next(self._events, None)
        except RecordingError as error:
            # Raised by the next step, so that the events before it are not lost.
            self._next, self._error = None, error
            return
        self._next = event
        if event is None:
            self._next_ns = _NEVER
        elif event.ts_recv > self._next_ns:
            self._next_ns = event.ts_recv

    def _on_trade(self, trade: Trade, out: list[MarketOutput]) -> None:
        price, is_buy, event_ns = trade.price, trade.taker_is_buyer, trade.ts_event
        for level in self._best_first(Side.BUY, price):
            if level.price > price:
                self._fill_through(level, event_ns, out)
            elif not is_buy:
                self._fill_in_queue(level, trade, out)
        for level in self._best_first(Side.SELL, price):
            if level.price < price:
                self._fill_through(level, event_ns, out)
            elif is_buy:
                self._fill_in_queue(level, trade, out)

    def _fill_through(self, level: LevelQueue, event_ns: int, out: list[MarketOutput]) -> None:
        # A trade at a worse price than ours: whoever made it had to go through our price first,
        # unless it happened before our order was there and was only reported late.
        for queued in level.orders:
            if not 0 < event_ns < queued.venue_ns:
                self._fill(queued.order, queued.order.remaining, out)

    def _fill_in_queue(self, level: LevelQueue, trade: Trade, out: list[MarketOutput]) -> None:
        for order, volume in level.on_trade(trade.qty, trade.ts_event, self._next_ns):
            self._fill(order, min(self._lots(volume), order.remaining), out)

    def _on_book(self, out: list[MarketOutput], *, is_snapshot: bool = False) -> None:
        book = self._book
        if book.best_ask <= self._own_bid:
            self._match_crossed(Side.BUY, out)
        if book.best_bid >= self._own_ask:
            self._match_crossed(Side.SELL, out)
        for levels, sizes in ((self._bids, book.bids), (self._asks, book.asks)):
            for level in levels.values():
                size = sizes.get(level.price, 0.0)
                if is_snapshot:
                    level.requeue(size)
                elif size != level.displayed:
                    level.on_size(size, self._next_ns)

    def _match_crossed(self, side: Side, out: list[MarketOutput]) -> None:
        """Fill our orders of `side` with the recorded opposite sizes that now reach their price."""
        reached = self._book.best_ask if side is Side.BUY else self._book.best_bid
        for level in self._best_first(side, reached):
            for queued in level.orders:
                for price, size in self._book.available(side.opposite, level.price):
                    qty = min(self._lots(size), queued.order.remaining)
                    if qty > 0:
                        self._book.take(side.opposite, price, float(qty))
                        self._fill(queued.order, qty, out)

    def _fill(self, order: VenueOrder, qty: Decimal, out: list[MarketOutput]) -> None:
        if qty <= 0:
            return
        price = order.price
        assert price is not None, "a resting order has a price"
        order.filled += qty
        if order.filled == order.qty:
            self._leave(order)
            order.is_open = False
        out.append(Execution(price, qty, order, None, self._next_ns))

    # -- taking ----------------------------------------------------------------------------------

    def _is_crossing(self, order: VenueOrder) -> bool:
        if order.side is Side.BUY:
            best = min(self._book.best_ask, self._own_ask)
            return best < math.inf and _limit(order) >= best
        best = max(self._book.best_bid, self._own_bid)
        return best > 0.0 and _limit(order) <= best

    def _liquidity(self, order: VenueOrder) -> Iterator[tuple[float, Decimal, VenueOrder | None]]:
        """Yield what `order` may trade with, in priority order: (price, quantity, our order or None)."""
        side, limit = order.side.opposite, _limit(order)
        recorded = dict(self._book.available(side, limit))
        own = {level.price: level for level in self._best_first(side, limit)}
        prices = sorted(recorded.keys() | own.keys()) if own else list(recorded)
        if own and side is Side.BUY:
            prices.reverse()
        for price in prices:
            left = recorded.get(price, 0.0)
            for queued in own[price].orders if price in own else ():
                before = min(queued.ahead, left)
                left -= before
                if before > 0.0:
                    yield price, self._lots(before), None
                yield price, queued.order.remaining, queued.order
            yield price, self._lots(left), None

    def _fillable(self, order: VenueOrder) -> Decimal:
        found = Decimal(0)
        for _, qty, maker in self._liquidity(order):
            if found >= order.remaining or (maker is not None and maker.owner == order.owner):
                break
            found += qty
        return found

    def _take(self, order: VenueOrder, now_ns: int) -> list[MarketOutput]:
        out: list[MarketOutput] = []
        for price, offered, maker in self._liquidity(order):
            if maker is not None and maker.owner == order.owner:
                if self._self_trade is SelfTrade.CANCEL_TAKER:
                    out.append(_end(order, RejectReason.SELF_TRADE, now_ns))
                    break
                self._leave(maker)
                out.append(_end(maker, RejectReason.SELF_TRADE, now_ns))
                continue
            qty = min(offered, order.remaining)
            if qty <= 0:
                continue
            order.filled += qty
            if maker is None:
                self._book.take(order.side.opposite, price, float(qty))
            else:
                maker.filled += qty
                if maker.filled == maker.qty:
                    self._leave(maker)
                    maker.is_open = False
            out.append(Execution(self._price(price), qty, maker, order, now_ns))
            if order.filled == order.qty:
                order.is_open = False
                break
        return out

    # -- resting ---------------------------------------------------------------------------------

    def _rest(self, order: VenueOrder, now_ns: int) -> list[MarketOutput]:
        if order.type is OrderType.MARKET or order.time_in_force is not TimeInForce.GTC:
            return [_end(order, RejectReason.NOT_FILLABLE, now_ns)]
        levels = self._bids if order.side is Side.BUY else self._asks
        price = _limit(order)
        level = levels.get(price)
        if level is None:
            displayed = self._book.size_at(order.side, price)
            level = levels[price] = LevelQueue(price, displayed, self._share_ahead)
            self._note_best()
        level.join(order, self._venue_ns)
        return []

    def _leave(self, order: VenueOrder) -> None:
        levels = self._bids if order.side is Side.BUY else self._asks
        level = levels[_limit(order)]
        level.leave(order)
        if not level.orders:
            del levels[level.price]
            self._note_best()

    def _note_best(self) -> None:
        self._own_bid = max(self._bids, default=-math.inf)
        self._own_ask = min(self._asks, default=math.inf)

    def _best_first(self, side: Side, reached: float) -> list[LevelQueue]:
        """Return our levels of `side` at `reached` or better, best first."""
        if side is Side.BUY:
            return [self._bids[price] for price in sorted(self._bids, reverse=True) if price >= reached]
        return [self._asks[price] for price in sorted(self._asks) if price <= reached]

    def queue_of(self, order: VenueOrder) -> QueuedOrder | None:
        """Return the queue estimate of a resting order, None when it does not rest."""
        level = (self._bids if order.side is Side.BUY else self._asks).get(_limit(order))
        queues = level.orders if level is not None else []
        return next((queued for queued in queues if queued.order is order), None)

    def _lots(self, volume: float) -> Decimal:
        return int(volume / self._lot + _LOT_NOISE) * self.instrument.lot_size

    def _price(self, price: float) -> Decimal:
        return self.instrument.price_floor(price)


def _limit(order: VenueOrder) -> float:
    """Return the worst price that `order` accepts; a market order without one accepts any."""
    if order.price is not None:
        return float(order.price)
    return math.inf if order.side is Side.BUY else 0.0


def _end(order: VenueOrder, reason: RejectReason, now_ns: int) -> Ended:
    order.is_open = False
    return Ended(order, reason, now_ns)
