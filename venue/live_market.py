"""A market with a real matching engine: accounts and synthetic participants meet in one book."""

from collections.abc import Sequence
from decimal import Decimal

from host.api import BookTop, Depth, Instrument, Side, Trade
from venue.market import Ended, Execution, MarketOutput, VenueOrder
from venue.matching import BookSide, MatchingBook, SelfTrade
from venue.participants import Action, CancelResting, Participants, SubmitOrder

__all__ = ["LiveMarket"]


class LiveMarket:
    """Keeps the `Market` contract over a `MatchingBook`, driven by `participants` (None: nobody).

    Every call publishes what it did: trades, a `BookTop` for each change of a best price or size,
    and one `Depth` with the levels that changed. `seq` counts changes of the book; the `Depth`
    messages span it without gaps. `Execution` and `Ended` come out only where an account has a
    part in them. Market data has no delay of its own: `ts_event` and `ts_recv` are the time of the
    call.
    """

    def __init__(
        self,
        instrument: Instrument,
        participants: Participants | None = None,
        self_trade: SelfTrade = SelfTrade.CANCEL_TAKER,
    ) -> None:
        self.instrument = instrument
        self._participants = participants
        self._book = MatchingBook(self_trade)
        self._view = _View(self._book)
        self._seq = 0
        self._published_seq = 0
        self._trade_id = 0
        self._participant_order_id = 0
        self._top: tuple[Decimal, Decimal, Decimal, Decimal] | None = None

    def submit(self, order: VenueOrder, now_ns: int) -> list[MarketOutput]:
        """Match a new order; rest what remains if its terms allow."""
        out: list[MarketOutput] = []
        self._publish(self._book.submit(order, now_ns), now_ns, out)
        self._publish_depth(now_ns, out)
        return out

    def amend(
        self, order: VenueOrder, price: Decimal, qty: Decimal, now_ns: int, *, keeps_place: bool = True
    ) -> list[MarketOutput]:
        """Change a resting order: less quantity at the same price keeps its place, if `keeps_place`."""
        out: list[MarketOutput] = []
        self._publish(self._book.amend(order, price, qty, now_ns, keeps_place=keeps_place), now_ns, out)
        self._publish_depth(now_ns, out)
        return out

    def cancel(self, order: VenueOrder, now_ns: int) -> list[MarketOutput]:
        """Take a resting order out; no effect on one that is done."""
        out: list[MarketOutput] = []
        if self._book.cancel(order):
            self._publish([], now_ns, out)
            self._publish_depth(now_ns, out)
        return out

    def next_time_ns(self) -> int | None:
        """Return when a participant next acts, None without participants."""
        return None if self._participants is None else self._participants.next_time_ns()

    def step(self, now_ns: int) -> list[MarketOutput]:
        """Let the participants act at each of their times up to `now_ns`."""
        out: list[MarketOutput] = []
        participants = self._participants
        if participants is None:
            return out
        while (due_ns := participants.next_time_ns()) <= now_ns:
            for action in participants.act(self._view, due_ns):
                self._publish(self._carry_out(action, due_ns), due_ns, out)
            self._publish_depth(due_ns, out)
        return out

    def snapshot(self, now_ns: int) -> Depth:
        """Return the whole book; the next change has `first_seq` = this `seq` + 1."""
        return Depth(
            self.instrument.symbol,
            _floats(self._book.bids.levels()),
            _floats(self._book.asks.levels()),
            is_snapshot=True,
            first_seq=self._published_seq,
            seq=self._published_seq,
            ts_event=now_ns,
            ts_recv=now_ns,
        )

    def best(self) -> tuple[Decimal | None, Decimal | None]:
        """Return the best bid and ask, every order included."""
        return self._view.best_bid(), self._view.best_ask()

    def _carry_out(self, action: Action, now_ns: int) -> Sequence[Execution | Ended]:
        if isinstance(action, CancelResting):
            if self._book.cancel(action.order):
                self._view.forget(action.order)
            return ()
        order = self._new_order(action, now_ns)
        events = self._book.submit(order, now_ns)
        if order.is_open:
            self._view.remember(order)
        return events

    def _new_order(self, action: SubmitOrder, now_ns: int) -> VenueOrder:
        # Negative numbers never meet the ids that the exchange gives to the accounts' orders.
        self._participant_order_id -= 1
        return VenueOrder(
            self._participant_order_id,
            "",
            "",
            self.instrument.symbol,
            action.side,
            action.type,
            action.time_in_force,
            action.price,
            action.qty,
            post_only=action.post_only,
            created_ns=now_ns,
        )

    def _publish(self, events: Sequence[Execution | Ended], now_ns: int, out: list[MarketOutput]) -> None:
        """Append trades, the accounts' executions and, if a best price or size moved, a BookTop."""
        symbol = self.instrument.symbol
        for event in events:
            if isinstance(event, Execution):
                maker, taker = event.maker, event.taker
                assert maker is not None and taker is not None, "both sides of a live trade are known"
                if not maker.is_open and not maker.owner:
                    self._view.forget(maker)
                if maker.owner or taker.owner:
                    out.append(event)
                self._trade_id += 1
                out.append(
                    Trade(
                        symbol,
                        float(event.price),
                        float(event.qty),
                        taker.side is Side.BUY,
                        self._trade_id,
                        now_ns,
                        now_ns,
                    )
                )
            elif event.order.owner:
                out.append(event)
        self._publish_top(now_ns, out)

    def _publish_top(self, now_ns: int, out: list[MarketOutput]) -> None:
        book = self._book
        if not (book.bids.changed or book.asks.changed):
            return
        self._seq += 1
        bid = book.bids.best()
        ask = book.asks.best()
        if bid is None or ask is None:
            # A one-sided book has no top to publish; the Depth still tells it.
            self._top = None
            return
        top = (bid.price, bid.total, ask.price, ask.total)
        if top != self._top:
            self._top = top
            out.append(
                BookTop(
                    self.instrument.symbol,
                    float(bid.price),
                    float(bid.total),
                    float(ask.price),
                    float(ask.total),
                    now_ns,
                    now_ns,
                    self._seq,
                )
            )

    def _publish_depth(self, now_ns: int, out: list[MarketOutput]) -> None:
        bids, asks = self._book.bids, self._book.asks
        if not (bids.changed or asks.changed):
            return
        first_seq = self._published_seq + 1
        self._published_seq = self._seq
        out.append(
            Depth(
                self.instrument.symbol,
                _drain_changes(bids),
                _drain_changes(asks),
                is_snapshot=False,
                first_seq=first_seq,
                seq=self._seq,
                ts_event=now_ns,
                ts_recv=now_ns,
            )
        )


class _View:
    """The participants' look at the book; `own_orders` supports random picks and O(1) removal."""

    def __init__(self, book: MatchingBook) -> None:
        self.own_orders: list[VenueOrder] = []
        self._place: dict[int, int] = {}
        self._book = book

    def best_bid(self) -> Decimal | None:
        level = self._book.bids.best()
        return None if level is None else level.price

    def best_ask(self) -> Decimal | None:
        level = self._book.asks.best()
        return None if level is None else level.price

    def size_at(self, side: Side, price: Decimal) -> Decimal:
        return self._book.side(side).size_at(price)

    def levels(self, side: Side, count: int) -> list[tuple[Decimal, Decimal]]:
        return self._book.side(side).levels(count)

    def remember(self, order: VenueOrder) -> None:
        self._place[order.order_id] = len(self.own_orders)
        self.own_orders.append(order)

    def forget(self, order: VenueOrder) -> None:
        # The last one takes the place of the one that goes: no shifting, whatever the length.
        index = self._place.pop(order.order_id)
        last = self.own_orders.pop()
        if last is not order:
            self.own_orders[index] = last
            self._place[last.order_id] = index


def _floats(levels: list[tuple[Decimal, Decimal]]) -> tuple[tuple[float, float], ...]:
    return tuple((float(price), float(total)) for price, total in levels)


def _drain_changes(side: BookSide) -> tuple[tuple[float, float], ...]:
    changed = side.changed
    if not changed:
        return ()
    # Sorted, because a set's order may differ between processes and replays must not.
    prices = sorted(changed) if len(changed) > 1 else changed
    changes = tuple([(float(price), float(side.size_at(price))) for price in prices])
    changed.clear()
    return changes
