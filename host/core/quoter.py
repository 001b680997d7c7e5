"""Has every instance's orders follow the quotes that it wants.

`host/core/quoting.py` names the next step of each slot; here it is checked, journaled and put into the outbox.
"""

from collections.abc import Callable, Mapping, Sequence
from math import ceil, floor
from typing import Final

from host.api import AmendOrder, BookTop, Order, OrderStatus, OrderType, Quote, Side, TimeInForce
from host.core import entries as e
from host.core.channel import Channel
from host.core.order_checks import size_fault
from host.core.outbox import Outbox
from host.core.quoting import TICK_NOISE, Slot, Step

__all__ = ["Quoter"]

_NOTHING: Final = Step.NOTHING
_AMEND: Final = Step.AMEND
_RESTING: Final = (OrderStatus.OPEN, OrderStatus.PARTIALLY_FILLED)
_OPEN: Final = OrderStatus.OPEN
_Change, _AmendSent = e.Change, e.AmendSent
_BUY: Final = Side.BUY
_SELL: Final = Side.SELL
_NEVER: Final = (0, "")
_FAR: Final = 1e15
"""A price that no straight line is needed for."""
MOST_AMEND_REFUSALS: Final = 3
"""After so many in a row an order that cannot be amended is cancelled and placed anew."""
MOST_TRADES: Final = 200
"""So is one that has traded so often. Topped up again and again it would never end, and the ids of its trades, by which
none is counted twice, are copied with every change of it."""


class Quoter:
    """Works on the quotes of all channels. `top_of(account, symbol)` is the latest top that can be trusted."""

    def __init__(
        self,
        outbox: Outbox,
        channels: Mapping[tuple[str, str], Channel],
        top_of: Callable[[str, str], BookTop | None],
    ) -> None:
        self._outbox: Final = outbox
        self._state: Final = outbox.state
        self._channels: Final = channels
        self._top_of: Final = top_of

    def set_quote(self, channel: Channel, quote: Quote, top: BookTop | None, now_ns: int) -> None:
        """Work towards exactly this quote: what `set_quotes` does for one level, on a shorter way.

        What a market maker asks most is to move both orders, which rest unfilled in the quote's size:
        so that is written as one straight line. tests/core/test_oms_requote.py holds it to what the
        general way comes to; whatever is not so simple goes there.
        """
        lane = channel.quoting
        bid = lane.best_bid
        ask = lane.best_ask
        buy = bid.order
        sell = ask.order
        bid_price = quote.bid
        ask_price = quote.ask
        tick = lane.tick_estimate
        qty = lane.lot_qty
        if (
            top is None
            or buy is None
            or sell is None
            or buy.status is not _OPEN  # and so without a fill: see the table in host/core/lifecycle.py
            or sell.status is not _OPEN
            or bid_price is None
            or ask_price is None
            or not tick <= bid_price < ask_price < _FAR  # NaN fails it too
            or bid_price + tick > top.ask  # nearer it would have to be kept from crossing
            or ask_price - tick < top.bid
            or quote.bid_qty is not lane.raw_qty  # strategies quote the same size object again and again
            or quote.ask_qty is not lane.raw_qty
            or buy.qty != qty
            or sell.qty != qty
            or lane.levels != 1
        ):
            self.set_quotes(channel, (quote,), top, now_ns)
            return
        bid_ticks = floor(bid_price * lane.inverse_tick + TICK_NOISE)
        ask_ticks = ceil(ask_price * lane.inverse_tick - TICK_NOISE)
        bid_move = bid_ticks - bid.sent_ticks
        ask_move = ask_ticks - ask.sent_ticks
        # The ask's tolerance is the larger one of the two, as its price is.
        reach = lane.tolerance(ask_ticks) if lane.tolerance_rate else lane.tolerance_ticks
        if -reach <= bid_move <= reach or -reach <= ask_move <= reach:
            if not lane.stay(bid_ticks, ask_ticks):
                self.set_quotes(channel, (quote,), top, now_ns)
            return
        if (
            now_ns < bid.backoff_until_ns
            or now_ns < ask.backoff_until_ns
            or bid.refusals_in_a_row
            or ask.refusals_in_a_row
            or not channel.can_amend
            or not channel.risk.pass_repriced_pair(bid_ticks * tick, ask_ticks * tick, qty, top, now_ns)
        ):
            self.set_quotes(channel, (quote,), top, now_ns)
            return
        bid.wanted_qty = ask.wanted_qty = qty
        bid.wanted_ticks = bid.sent_ticks = bid_ticks
        ask.wanted_ticks = ask.sent_ticks = ask_ticks
        buy_id = buy.client_id
        sell_id = sell.client_id
        buy_price = bid_ticks * lane.tick
        sell_price = ask_ticks * lane.tick
        buy_change = _Change(buy_id, buy_price, qty)
        sell_change = _Change(sell_id, sell_price, qty)
        symbol = channel.symbol
        amend_buy = AmendOrder(buy_id, symbol, _BUY, buy_price, qty, buy.venue_id)
        amend_sell = AmendOrder(sell_id, symbol, _SELL, sell_price, qty, sell.venue_id)
        if bid_move > 0:  # the side that retreats goes first, so that our own two never meet on the way
            entry = _AmendSent((sell_change, buy_change))
            commands = (amend_sell, amend_buy)
        else:
            entry = _AmendSent((buy_change, sell_change))
            commands = (amend_buy, amend_sell)
        outbox = self._outbox
        append = outbox.append  # a function that an attribute holds is called faster so, up to Python 3.11
        lsn = append(entry, now_ns)
        self._state.apply(lsn, now_ns, entry)
        outbox.amends_sent += 2
        channel.commands += 2
        outbox.waiting.append((lsn, now_ns, channel.account, commands))

    def set_quotes(self, channel: Channel, quotes: Sequence[Quote], top: BookTop | None, now_ns: int) -> None:
        """Work towards exactly these quotes, best level first; none pulls them all."""
        levels = len(quotes)
        lane = channel.quoting
        if levels > len(lane.bids):
            lane.grow(levels)
        for level, quote in enumerate(quotes):
            fault = lane.want(level, quote, top)
            if fault:
                self._outbox.refuse(channel, "quote", "BAD_QUOTE", fault, now_ns)
        amends: list[Slot] = []
        for bid, ask in zip(lane.bids[:levels], lane.asks, strict=False):
            # The side that retreats goes first, so that our own two quotes never meet on the way.
            for slot in (ask, bid) if bid.wanted_ticks > bid.sent_ticks else (bid, ask):
                step = slot.step(lane.tolerance(slot.wanted_ticks), now_ns)
                if step is _AMEND:
                    amends.append(slot)
                elif step is not _NOTHING:
                    self._take_step(step, channel, slot, top, now_ns)
        if amends:
            self._amend_quotes(channel, amends, top, now_ns)
        if levels < len(lane.bids):
            for slot in [*lane.bids[levels:], *lane.asks[levels:]]:
                slot.clear()
                self.work(channel, slot, top, now_ns)

    def work(self, channel: Channel, slot: Slot, top: BookTop | None, now_ns: int) -> None:
        """Take the slot's next step, if it has one."""
        step = slot.step(channel.quoting.tolerance(slot.wanted_ticks), now_ns)
        if step is _AMEND:
            self._amend_quotes(channel, [slot], top, now_ns)
        elif step is not _NOTHING:
            self._take_step(step, channel, slot, top, now_ns)

    def _take_step(self, step: Step, channel: Channel, slot: Slot, top: BookTop | None, now_ns: int) -> None:
        if step is Step.PLACE:
            self._place_quote(channel, slot, top, now_ns)
        else:
            order = _order_of(slot)
            again_ns, _ = self._outbox.cancelling.get(order.client_id, _NEVER)
            if now_ns >= again_ns:  # a cancel just refused is not sent again with every tick
                self._outbox.send_cancel(order, "quote pulled", now_ns)

    def _place_quote(self, channel: Channel, slot: Slot, top: BookTop | None, now_ns: int) -> None:
        price = channel.quoting.price(slot.wanted_ticks)
        qty = slot.wanted_qty
        fault = size_fault(channel.instrument, price, qty)
        if fault is not None:
            slot.clear()
            self._outbox.refuse(channel, "place", "INVALID_ORDER", fault, now_ns)
            return
        refusal = channel.risk.check(slot.side, price, qty, top, now_ns, is_post_only=True)
        if refusal is not None:
            slot.back_off(now_ns)
            self._outbox.risk_refused(channel, "place", refusal, now_ns)
            return
        slot.sent_ticks = slot.wanted_ticks
        slot.order = self._outbox.send_place(
            channel,
            slot.side,
            OrderType.LIMIT,
            TimeInForce.GTC,
            price,
            qty,
            True,
            False,
            slot.level,
            now_ns,
        )

    def _amend_quotes(
        self, channel: Channel, slots: Sequence[Slot], top: BookTop | None, now_ns: int
    ) -> None:
        """Amend the orders of these slots to what is wanted; one journal entry tells of all new prices."""
        risk, lane = channel.risk, channel.quoting
        repriced: list[Order] = []
        changes: list[e.Change] = []
        for slot in slots:
            order = _order_of(slot)
            if order.status not in _RESTING:
                continue  # another level's refusal had the quotes pulled meanwhile
            if (
                not channel.can_amend
                or slot.refusals_in_a_row >= MOST_AMEND_REFUSALS
                or len(order.trade_ids) >= MOST_TRADES
            ):
                self._outbox.send_cancel(order, "quote moved", now_ns)
                continue
            price, qty = lane.price(slot.wanted_ticks), slot.wanted_qty
            is_resized = qty != order.qty or bool(order.filled)
            if is_resized:
                # Sent by itself: the next check has to count what this one adds.
                self._outbox.send_amends(channel, repriced, changes, now_ns)
                repriced, changes = [], []
                refusal = risk.check(slot.side, price, qty, top, now_ns, order, is_post_only=True)
                qty += order.filled
            else:
                refusal = risk.check_reprice(order, price, top, now_ns)
            if refusal is not None:
                # A refusal may pull quotes or worse, so what passed before it is sent before it. And
                # what rests is not what is wanted and may not become it: out is the safe side.
                self._outbox.send_amends(channel, repriced, changes, now_ns)
                repriced, changes = [], []
                slot.back_off(now_ns)
                self._outbox.risk_refused(channel, "amend", refusal, now_ns)
                self._outbox.cancel(order.client_id, f"amend refused: {refusal.reason}", now_ns)
                continue
            slot.sent_ticks = slot.wanted_ticks
            repriced.append(order)
            changes.append(e.Change(order.client_id, price, qty))
            if is_resized:
                self._outbox.send_amends(channel, repriced, changes, now_ns)
                repriced, changes = [], []
        self._outbox.send_amends(channel, repriced, changes, now_ns)

    def is_wanted(self, order: Order) -> bool:
        """Return whether an order works for a quote that is wanted."""
        slot = self._slot_of(order)
        return slot is not None and slot.wanted_ticks > 0

    def let_go(self, order: Order, before: OrderStatus | None, now_ns: int) -> None:
        """Free the slot of an order that is done; `before` is what it was."""
        slot = self._slot_of(order)
        if slot is not None:
            _release(slot, order, before, now_ns)

    def _slot_of(self, order: Order) -> Slot | None:
        if order.slot < 0:
            return None
        channel = self._channels.get((order.instance, order.symbol))
        if channel is None:
            return None
        slot = channel.quoting.slot(order.side, order.slot)
        return slot if slot.order is order else None

    def after_change(self, order: Order, was_refused: bool, now_ns: int) -> None:
        """Take the next step of the slot whose order just changed: the wish may have moved on."""
        channel = self._channels.get((order.instance, order.symbol))
        if channel is None:
            return
        slot = channel.quoting.slot(order.side, order.slot)
        if slot.order is order and order.price is not None:
            slot.sent_ticks = channel.quoting.ticks(order.price)
            if was_refused:
                slot.back_off(now_ns)
            elif order.status in _RESTING:
                slot.refusals_in_a_row = 0
        if slot.order is None or slot.order is order:
            self.work(channel, slot, self._top_of(order.account, order.symbol), now_ns)

    def adopt(self, channel: Channel, order: Order) -> None:
        """Let a live quote of an earlier process be the channel's own; one that was pulled only takes its place."""
        slot = channel.quoting.slot(order.side, order.slot)
        slot.order = order
        if order.price is not None:
            slot.sent_ticks = channel.quoting.ticks(order.price)
            if order.client_id in self._outbox.cancelling:
                return  # by whoever was here before, in this process: not to be placed once more as it goes
            # What the last process wanted here is wanted until the strategy says something else.
            slot.wanted_ticks = channel.quoting.ticks(order.pending_price or order.price)
            slot.wanted_qty = (order.pending_qty or order.qty) - order.filled


def _order_of(slot: Slot) -> Order:
    order = slot.order
    if order is None:
        raise AssertionError("a slot without an order has nothing to amend or cancel")
    return order


def _release(slot: Slot, order: Order, before: OrderStatus | None, now_ns: int) -> None:
    slot.order = None
    if order.status is OrderStatus.FILLED:
        # The position changed: the strategy says anew what it wants here.
        slot.clear()
    elif order.status is not OrderStatus.CANCELLED or before is not OrderStatus.PENDING_CANCEL:
        # The venue ended it, not we: trying the same again at once would be a storm.
        slot.clear()
        slot.back_off(now_ns)
