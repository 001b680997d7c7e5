"""The order management system: every order, amend and cancel of a node goes through here.

What a strategy wants becomes commands in this order: the slot's next step, the risk checks, the
journal entry (which changes the state), the outbox. `flush` then lets each command through the gate
to its adapter. What the venue says becomes journal entries the same way, and strategies hear of it
last. All of it is synchronous and deterministic: time comes in as an argument.
"""

from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from math import ceil, floor
from typing import Any, Final

from host.api import (
    AmendOrder,
    AmendRejected,
    AmendSupport,
    BookTop,
    CancelOrder,
    CancelRejected,
    Command,
    ExchangeAdapter,
    ExchangeError,
    Fill,
    Instrument,
    InstrumentKind,
    Order,
    OrderRefused,
    OrderRequest,
    OrderStatus,
    OrderType,
    PlaceOrder,
    Quote,
    RequestUnanswered,
    Side,
    TandemError,
    TimeInForce,
)
from host.core import entries as e
from host.core.client_id import ClientIdMaker
from host.core.gate import Gate
from host.core.quoting import TICK_NOISE, QuoteLane, Slot, Step
from host.core.risk import Lane, Refusal, RiskEngine
from host.core.state import Outcome, TradingState

__all__ = ["Channel", "Oms", "request_fault"]

_ZERO: Final = Decimal(0)
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
REFUSAL_REPEAT_NS: Final = 1_000_000_000
"""The same refusal, tick after tick, is journaled at most once in this time."""


MOST_AMEND_REFUSALS: Final = 3
"""After so many in a row an order that cannot be amended is cancelled and placed anew."""
CANCEL_AGAIN_NS: Final = 500_000_000
"""An order that still rests so long after its cancel was sent is cancelled again."""


Outgoing = tuple[int, int, str, tuple[Command, ...]]
"""Commands on their way out: LSN and time of their intent (LSN 0: queries, which have none), account."""


class Channel:
    """What one instance needs to trade one symbol: its quoting, its risk lane, its order ids."""

    __slots__ = (
        "account",
        "adapter",
        "can_amend",
        "commands",
        "ids",
        "instance",
        "instrument",
        "last_refusal_ns",
        "last_refusal_text",
        "quoting",
        "refusals",
        "risk",
        "symbol",
    )

    def __init__(
        self,
        instance: str,
        account: str,
        adapter: ExchangeAdapter[Any],
        instrument: Instrument,
        quoting: QuoteLane,
        risk: Lane,
        ids: ClientIdMaker,
    ) -> None:
        self.instance: Final = instance
        self.account: Final = account
        self.adapter = adapter
        self.can_amend = adapter.amend_support is AmendSupport.NATIVE
        self.symbol: Final = instrument.symbol
        self.instrument = instrument
        self.quoting: Final = quoting
        self.risk: Final = risk
        self.ids: Final = ids
        self.last_refusal_text = ""
        self.last_refusal_ns = 0
        self.commands = 0
        """Orders and amends sent, ever."""
        self.refusals = 0
        """Wishes refused by risk checks or because they make no order, ever."""


class Oms:
    """Turns wishes into journaled commands and venue reports into journaled state.

    `append(entry, now_ns)` appends to the journal and returns the LSN; `record` also applies to `state`.
    `on_change(order, fill)` is called after the venue changed an order. `on_breach(refusal)` is
    called when a risk check asks for more than a refusal. `top_of(account, symbol)` is the latest
    top of book that can be trusted.
    """

    def __init__(
        self,
        state: TradingState,
        risk: RiskEngine,
        gate: Gate,
        append: Callable[[e.Entry, int], int],
        on_change: Callable[[Order | None, Fill | None], None],
        on_breach: Callable[[Refusal, str], None],
        top_of: Callable[[str, str], BookTop | None],
    ) -> None:
        self.state = state
        self.risk = risk
        self.gate = gate
        self.ports: dict[str, ExchangeAdapter[Any]] = {}
        self.orders_sent = 0
        self.amends_sent = 0
        self.cancels_sent = 0
        self.refused = 0
        self.append = append
        self._on_change = on_change
        self._on_breach = on_breach
        self.outbox: list[Outgoing] = []
        self._channels: dict[tuple[str, str], Channel] = {}
        self._cancelling: dict[str, tuple[int, str]] = {}
        """When to cancel again, and why, by client id: an order is not let go of before it is done."""
        self._top_of = top_of

    # -- wiring ----------------------------------------------------------------------------------

    def open_channel(
        self, instance: str, account: str, symbol: str, ids: ClientIdMaker, tolerance_bps: float
    ) -> Channel:
        """Let `instance` trade `symbol`; adopt its live quotes as the lane's own."""
        instrument = self.state.instruments[account][symbol]
        quoting = QuoteLane(instrument, tolerance_bps, _least_ticks(tolerance_bps))
        channel = Channel(
            instance,
            account,
            self.ports[account],
            instrument,
            quoting,
            self.risk.lane(instance, account, instrument),
            ids,
        )
        for order in self.state.orders.values():
            if order.instance == instance and order.symbol == symbol and order.slot >= 0:
                self._adopt_into_slot(channel, order)
        self._channels[instance, symbol] = channel
        return channel

    def channel(self, instance: str, symbol: str) -> Channel | None:
        """Return the channel of `instance` in `symbol`, if it was opened."""
        return self._channels.get((instance, symbol))

    def set_tolerance(self, instance: str, tolerance_bps: float) -> None:
        """Let the wanted quotes of `instance` move so far before their orders follow."""
        for (owner, _symbol), channel in self._channels.items():
            if owner == instance:
                channel.quoting.set_tolerance(tolerance_bps, _least_ticks(tolerance_bps))

    def take_instrument(self, account: str, instrument: Instrument, now_ns: int) -> None:
        """Have quotes and checks of a symbol follow its other terms, which are in `state` already.

        Resting quotes move to the new grid; where the symbol does not trade any more they are pulled.
        """
        self.risk.take_instrument(account, instrument)
        top = self._top_of(account, instrument.symbol)
        for channel in self._channels.values():
            if channel.account != account or channel.symbol != instrument.symbol:
                continue
            channel.instrument = instrument
            channel.quoting.take_instrument(instrument)
            if not instrument.is_trading:
                self._pull(channel, "the venue does not trade it", now_ns)
                continue
            for slot in channel.quoting.slots():
                self._work(channel, slot, top, now_ns)

    def _pull(self, channel: Channel, reason: str, now_ns: int) -> None:
        for slot in channel.quoting.slots():
            slot.clear()
        for order in list(self.state.orders.values()):
            if (order.instance, order.symbol) == (channel.instance, channel.symbol) and order.slot >= 0:
                self.cancel(order.client_id, reason, now_ns)

    def close_channels(self, instance: str) -> None:
        """Forget the channels of an instance that is gone; its orders stay known."""
        for key in [key for key in self._channels if key[0] == instance]:
            del self._channels[key]

    def switch_adapter(self, account: str, adapter: ExchangeAdapter[Any]) -> None:
        """Send whatever goes out from here on, commands that wait for the disk too, through `adapter`."""
        self.ports[account] = adapter
        for channel in self._channels.values():
            if channel.account == account:
                channel.adapter = adapter
                channel.can_amend = adapter.amend_support is AmendSupport.NATIVE

    def record(self, entry: e.Entry, now_ns: int) -> Outcome | None:
        """Append an entry and apply it: the only way in which trading state changes."""
        return self.state.apply(self.append(entry, now_ns), now_ns, entry)

    # -- what strategies want --------------------------------------------------------------------

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
        append = self.append  # a function that an attribute holds is called faster so, up to Python 3.11
        lsn = append(entry, now_ns)
        self.state.apply(lsn, now_ns, entry)
        self.amends_sent += 2
        channel.commands += 2
        self.outbox.append((lsn, now_ns, channel.account, commands))

    def set_quotes(self, channel: Channel, quotes: Sequence[Quote], top: BookTop | None, now_ns: int) -> None:
        """Work towards exactly these quotes, best level first; none pulls them all."""
        levels = len(quotes)
        lane = channel.quoting
        if levels > len(lane.bids):
            lane.grow(levels)
        for level, quote in enumerate(quotes):
            fault = lane.want(level, quote, top)
            if fault:
                self._refuse(channel, "quote", "BAD_QUOTE", fault, now_ns)
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
                self._work(channel, slot, top, now_ns)

    def place(
        self,
        channel: Channel,
        request: OrderRequest,
        top: BookTop | None,
        now_ns: int,
        by: str = "",
        client_id: str = "",
    ) -> str:
        """Send an imperative order and return its client id; raise `OrderRefused`.

        `by` is who places it by hand, `client_id` an id that was reserved for it.
        """
        self._check_request(channel, "place", request, now_ns)
        refusal = channel.risk.check(
            request.side, request.price, request.qty, top, now_ns, is_post_only=request.post_only
        )
        if refusal is not None:
            self._risk_refused(channel, "place", refusal, now_ns)
            raise OrderRefused(refusal.reason, refusal.detail)
        return self._send_place(
            channel,
            request.side,
            request.type,
            request.time_in_force,
            request.price,
            request.qty,
            request.post_only,
            request.reduce_only,
            -1,
            now_ns,
            by,
            client_id,
        ).client_id

    def amend(
        self,
        channel: Channel,
        order: Order,
        price: Decimal,
        qty: Decimal,
        top: BookTop | None,
        now_ns: int,
        by: str = "",
    ) -> None:
        """Change a resting imperative order's price and total quantity; raise `OrderRefused`.

        The order must rest and `qty` be more than what is filled of it. `by` is who amends it by hand.
        """
        if not channel.can_amend:
            detail = f"the venue of account {channel.account} amends no order; cancel it and place another"
            self._refuse(channel, "amend", "NO_AMENDS", detail, now_ns)
            raise OrderRefused("NO_AMENDS", detail)
        request = OrderRequest(symbol=order.symbol, side=order.side, qty=qty, price=price)
        self._check_request(channel, "amend", request, now_ns)
        open_qty = qty - order.filled
        refusal = channel.risk.check(
            order.side, price, open_qty, top, now_ns, order, is_post_only=order.post_only
        )
        if refusal is not None:
            self._risk_refused(channel, "amend", refusal, now_ns)
            raise OrderRefused(refusal.reason, refusal.detail)
        self._send_amends(channel, [order], [e.Change(order.client_id, price, qty)], now_ns, by)

    def close_position(self, channel: Channel, now_ns: int) -> Order | None:
        """Close what the channel holds and no open order closes yet; return the order that does, if any.

        Sent as a market order that may only reduce (a spot venue knows no such thing: its orders trade
        what is there), which passes limits and kill switch. A position beyond the venue's largest
        order takes more than one call, what is left below its smallest lot stays.
        """
        position, instrument = channel.risk.position, channel.instrument
        if not position:
            return None
        side = Side.SELL if position > _ZERO else Side.BUY
        qty = channel.risk.closable(side)
        if instrument.max_qty is not None:
            qty = min(qty, instrument.max_qty)
        qty = instrument.qty_floor(qty)
        if qty <= _ZERO or channel.risk.check(side, None, qty, None, now_ns, is_closing=True) is not None:
            return None
        reduce_only = instrument.kind is not InstrumentKind.SPOT
        return self._send_place(
            channel, side, OrderType.MARKET, TimeInForce.IOC, None, qty, False, reduce_only, -1, now_ns
        )

    def cancel(self, client_id: str, reason: str, now_ns: int, by: str = "") -> bool:
        """Ask the venue to cancel; return False when the order is done or already being cancelled.

        Also where the order's account could not be connected: there is nobody to ask. `by` is who
        cancels it by hand.
        """
        order = self.state.orders.get(client_id)
        if order is None or order.status is OrderStatus.PENDING_CANCEL or order.account not in self.ports:
            return False
        self._send_cancel(order, reason, now_ns, by)
        return True

    def pull_quotes(self, instance: str, reason: str, now_ns: int) -> None:
        """Want no quotes of `instance` any more and cancel the ones that rest."""
        for (owner, _symbol), channel in self._channels.items():
            if owner == instance:
                for slot in channel.quoting.slots():
                    slot.clear()
        for order in list(self.state.orders.values()):
            if order.instance == instance and order.slot >= 0:
                self.cancel(order.client_id, reason, now_ns)

    def cancel_all(self, orders: Iterable[Order], reason: str, now_ns: int, by: str = "") -> int:
        """Cancel these orders; quotes among them are no longer wanted. Return how many were asked."""
        asked = 0
        for order in list(orders):
            channel = self._channels.get((order.instance, order.symbol))
            if channel is not None and order.slot >= 0:
                channel.quoting.slot(order.side, order.slot).clear()
            asked += self.cancel(order.client_id, reason, now_ns, by)
        return asked

    def retry_cancels(self, now_ns: int) -> None:
        """Cancel again what was to go and rests nevertheless: its cancel was lost or refused."""
        if not self.gate.permit(now_ns):
            return
        for client_id, (again_ns, reason) in list(self._cancelling.items()):
            order = self.state.orders.get(client_id)
            if order is None or self._is_wanted(order):
                del self._cancelling[client_id]
            elif order.status in _RESTING and now_ns >= again_ns:
                self._send_cancel(order, reason, now_ns)

    # -- what the venue says ---------------------------------------------------------------------

    def commit(self, entry: e.Entry, now_ns: int) -> Outcome | None:
        """Journal an entry that the venue caused, and let risk, quoting and strategies follow."""
        outcome = self.record(entry, now_ns)
        if outcome is None:
            return None
        if outcome.anomaly is not None:
            kind, _, text = outcome.anomaly.partition(": ")
            self.record(e.Alert(kind, text), now_ns)
        order, fill = outcome.order, outcome.fill
        if fill is not None:
            self.risk.filled(fill)
        if order is not None:
            self.follow(order, outcome.before, now_ns)
        if fill is not None or (order is not None and outcome.anomaly is None):
            self._on_change(order, fill)
        if order is not None and order.slot >= 0:
            self._after_change(order, _is_refusal(entry), now_ns)
        return outcome

    def follow(self, order: Order, before: OrderStatus | None, now_ns: int) -> None:
        """Bring risk exposure and the order's slot in line with the order."""
        self.risk.order_changed(order)
        if order.status.is_terminal:
            slot = self._slot_of(order)
            if slot is not None:
                _release(slot, order, before, now_ns)

    # -- the way out -----------------------------------------------------------------------------

    def flush(self, now_ns: int, durable_lsn: int) -> None:
        """Hand out every command whose intent is durable, through the gate.

        A request's validity counts from its intent, however long it waited for the disk: so an order
        that the venue does not know when that time is over never was and never will be.
        """
        outbox = iter(self.outbox)
        self.outbox = []
        gate = self.gate
        if gate.clock_ns is not None:
            now_ns = gate.clock_ns()
        ports = self.ports
        window_ns = gate.order_window_ns
        for lsn, intent_ns, account, commands in outbox:
            if lsn > durable_lsn:
                self.outbox = [(lsn, intent_ns, account, commands), *outbox, *self.outbox]
                return
            # `Gate.deadline_ns`, without its call.
            deadline_ns = intent_ns + window_ns
            for command in commands:
                # Asked for each, for sending may close the gate.
                if deadline_ns > gate.valid_until_ns:
                    deadline_ns = gate.valid_until_ns
                if now_ns >= deadline_ns and lsn:
                    reason = "TOO_LATE" if gate.permit(now_ns) else "GATE_CLOSED"
                    self._not_sent(command, reason, f"the right to send ended at {deadline_ns}", now_ns)
                    continue
                try:
                    ports[account].send(command, deadline_ns)
                except ExchangeError as error:
                    self._not_sent(command, "NOT_SENT", str(error), now_ns)
                except TandemError:
                    raise
                except Exception as error:  # noqa: BLE001 - plugin boundary: the order's fate is asked for
                    self._send_failed(account, command, error, now_ns)

    def ask(self, account: str, command: Command, now_ns: int) -> None:
        """Queue a query; it needs no journal entry, for it changes nothing, and passes a closed gate."""
        self.outbox.append((0, now_ns, account, (command,)))

    # -- inside ----------------------------------------------------------------------------------

    def _work(self, channel: Channel, slot: Slot, top: BookTop | None, now_ns: int) -> None:
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
            again_ns, _ = self._cancelling.get(order.client_id, _NEVER)
            if now_ns >= again_ns:  # a cancel just refused is not sent again with every tick
                self._send_cancel(order, "quote pulled", now_ns)

    def _is_wanted(self, order: Order) -> bool:
        slot = self._slot_of(order)
        return slot is not None and slot.wanted_ticks > 0

    def _place_quote(self, channel: Channel, slot: Slot, top: BookTop | None, now_ns: int) -> None:
        price = channel.quoting.price(slot.wanted_ticks)
        qty = slot.wanted_qty
        fault = _size_fault(channel.instrument, price, qty)
        if fault is not None:
            slot.clear()
            self._refuse(channel, "place", "INVALID_ORDER", fault, now_ns)
            return
        refusal = channel.risk.check(slot.side, price, qty, top, now_ns, is_post_only=True)
        if refusal is not None:
            slot.back_off(now_ns)
            self._risk_refused(channel, "place", refusal, now_ns)
            return
        slot.sent_ticks = slot.wanted_ticks
        slot.order = self._send_place(
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
            if not channel.can_amend or slot.refusals_in_a_row >= MOST_AMEND_REFUSALS:
                self._send_cancel(order, "quote moved", now_ns)
                continue
            price, qty = lane.price(slot.wanted_ticks), slot.wanted_qty
            is_resized = qty != order.qty or bool(order.filled)
            if is_resized:
                # Sent by itself: the next check has to count what this one adds.
                self._send_amends(channel, repriced, changes, now_ns)
                repriced, changes = [], []
                refusal = risk.check(slot.side, price, qty, top, now_ns, order, is_post_only=True)
                qty += order.filled
            else:
                refusal = risk.check_reprice(order, price, top, now_ns)
            if refusal is not None:
                # A refusal may pull quotes or worse, so what passed before it is sent before it. And
                # what rests is not what is wanted and may not become it: out is the safe side.
                self._send_amends(channel, repriced, changes, now_ns)
                repriced, changes = [], []
                slot.back_off(now_ns)
                self._risk_refused(channel, "amend", refusal, now_ns)
                self.cancel(order.client_id, f"amend refused: {refusal.reason}", now_ns)
                continue
            slot.sent_ticks = slot.wanted_ticks
            repriced.append(order)
            changes.append(e.Change(order.client_id, price, qty))
            if is_resized:
                self._send_amends(channel, repriced, changes, now_ns)
                repriced, changes = [], []
        self._send_amends(channel, repriced, changes, now_ns)

    def _send_amends(
        self,
        channel: Channel,
        orders: Sequence[Order],
        changes: Sequence[e.Change],
        now_ns: int,
        by: str = "",
    ) -> None:
        if not changes:
            return
        self.record(e.AmendSent(tuple(changes), by), now_ns)
        risk, lsn, outbox = channel.risk, self.state.lsn, self.outbox
        account, symbol = channel.account, channel.symbol
        self.amends_sent += len(changes)
        channel.commands += len(changes)
        for order, change in zip(orders, changes, strict=True):
            price, qty = change.price, change.qty
            if qty != order.qty:
                risk.order_changed(order)
            command = AmendOrder(order.client_id, symbol, order.side, price, qty, order.venue_id)
            outbox.append((lsn, now_ns, account, (command,)))

    def _send_place(
        self,
        channel: Channel,
        side: Side,
        type_: OrderType,
        time_in_force: TimeInForce,
        price: Decimal | None,
        qty: Decimal,
        post_only: bool,
        reduce_only: bool,
        slot: int,
        now_ns: int,
        by: str = "",
        client_id: str = "",
    ) -> Order:
        client_id = client_id or channel.ids.make()
        account, symbol = channel.account, channel.symbol
        self.record(
            e.PlaceSent(
                client_id,
                channel.instance,
                account,
                symbol,
                side,
                type_,
                time_in_force,
                price,
                qty,
                post_only,
                reduce_only,
                slot,
                by,
            ),
            now_ns,
        )
        order = self.state.orders[client_id]
        self.risk.order_changed(order)
        self.orders_sent += 1
        channel.commands += 1
        self.outbox.append(
            (
                self.state.lsn,
                now_ns,
                account,
                (
                    PlaceOrder(
                        client_id, symbol, side, type_, time_in_force, price, qty, post_only, reduce_only
                    ),
                ),
            )
        )
        return order

    def _send_cancel(self, order: Order, reason: str, now_ns: int, by: str = "") -> None:
        self.record(e.CancelSent(order.client_id, reason, by), now_ns)
        self._cancelling[order.client_id] = (now_ns + CANCEL_AGAIN_NS, reason)
        self.cancels_sent += 1
        self.outbox.append(
            (
                self.state.lsn,
                now_ns,
                order.account,
                (CancelOrder(order.client_id, order.symbol, order.venue_id),),
            )
        )

    def _not_sent(self, command: Command, reason: str, detail: str, now_ns: int) -> None:
        self.refused += 1
        if not isinstance(command, PlaceOrder | AmendOrder | CancelOrder):
            return  # a query is asked again by whoever needs its answer
        action, client_id = _ACTIONS[type(command)], command.client_id
        order = self.state.orders.get(client_id) or self.state.retired.get(client_id)
        if order is not None:
            instance, account, symbol = order.instance, order.account, order.symbol
            refused = e.CommandRefused(instance, account, symbol, action, reason, detail, client_id)
            self.commit(refused, now_ns)

    def _send_failed(self, account: str, command: Command, error: Exception, now_ns: int) -> None:
        """Note that an adapter broke while sending: the command may have left or not."""
        action, client_id = _ACTIONS.get(type(command), "query"), getattr(command, "client_id", "")
        order = self.state.orders.get(client_id)
        text = f"adapter of {account} raised {type(error).__name__} when it sent a {action}: {error}"
        self.record(e.Alert("adapter_failed", text, "" if order is None else order.instance), now_ns)
        if action != "query":
            self.commit(e.Reported(account, RequestUnanswered(client_id, text, now_ns)), now_ns)

    def _check_request(self, channel: Channel, action: str, request: OrderRequest, now_ns: int) -> None:
        """Raise `OrderRefused` for what may not be sent now, or is no order that the venue could take."""
        if not self.gate.permit(now_ns):
            detail = "this node may not send orders now"
            self._refuse(channel, action, "GATE_CLOSED", detail, now_ns)
            raise OrderRefused("GATE_CLOSED", detail)
        fault = request_fault(request, channel.instrument)
        if fault is not None:
            field, text = fault
            self._refuse(channel, action, "INVALID_ORDER", text, now_ns)
            raise OrderRefused("INVALID_ORDER", text, field)

    def _risk_refused(self, channel: Channel, action: str, refusal: Refusal, now_ns: int) -> None:
        self._refuse(channel, action, refusal.reason, refusal.detail, now_ns)
        self._on_breach(refusal, channel.instance)

    def _refuse(self, channel: Channel, action: str, reason: str, detail: str, now_ns: int) -> None:
        self.refused += 1
        channel.refusals += 1
        # Compared without the detail, whose numbers change with every tick.
        text = f"{action} {reason}"
        if text == channel.last_refusal_text and now_ns - channel.last_refusal_ns < REFUSAL_REPEAT_NS:
            return
        channel.last_refusal_text, channel.last_refusal_ns = text, now_ns
        self.record(
            e.CommandRefused(channel.instance, channel.account, channel.symbol, action, reason, detail),
            now_ns,
        )

    def _slot_of(self, order: Order) -> Slot | None:
        if order.slot < 0:
            return None
        channel = self._channels.get((order.instance, order.symbol))
        if channel is None:
            return None
        slot = channel.quoting.slot(order.side, order.slot)
        return slot if slot.order is order else None

    def _after_change(self, order: Order, was_refused: bool, now_ns: int) -> None:
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
            self._work(channel, slot, self._top_of(order.account, order.symbol), now_ns)

    def _adopt_into_slot(self, channel: Channel, order: Order) -> None:
        slot = channel.quoting.slot(order.side, order.slot)
        slot.order = order
        if order.price is not None:
            slot.sent_ticks = channel.quoting.ticks(order.price)
            # What the last process wanted here is wanted until the strategy says something else.
            slot.wanted_ticks = channel.quoting.ticks(order.pending_price or order.price)
            slot.wanted_qty = (order.pending_qty or order.qty) - order.filled


def _least_ticks(tolerance_bps: float) -> int:
    return 1 if tolerance_bps else 0


_ACTIONS: Final[dict[type[Any], str]] = {PlaceOrder: "place", AmendOrder: "amend", CancelOrder: "cancel"}


def _order_of(slot: Slot) -> Order:
    order = slot.order
    if order is None:
        raise AssertionError("a slot without an order has nothing to amend or cancel")
    return order


def _is_refusal(entry: e.Entry) -> bool:
    if isinstance(entry, e.Reported):
        return isinstance(entry.report, AmendRejected | CancelRejected)
    return isinstance(entry, e.CommandRefused)


def _release(slot: Slot, order: Order, before: OrderStatus | None, now_ns: int) -> None:
    slot.order = None
    if order.status is OrderStatus.FILLED:
        # The position changed: the strategy says anew what it wants here.
        slot.clear()
    elif order.status is not OrderStatus.CANCELLED or before is not OrderStatus.PENDING_CANCEL:
        # The venue ended it, not we: trying the same again at once would be a storm.
        slot.clear()
        slot.back_off(now_ns)


def _size_fault(instrument: Instrument, price: Decimal, qty: Decimal) -> str | None:
    fault = _qty_fault(instrument, qty)
    if fault is not None:
        return fault
    notional = instrument.notional(price, qty)
    if notional < instrument.min_notional:
        return (
            f"notional must be at least {instrument.min_notional} {instrument.quote} "
            f"for {instrument.symbol}, was {notional}"
        )
    return None


def _qty_fault(instrument: Instrument, qty: Decimal) -> str | None:
    if qty < instrument.min_qty:
        return f"quantity must be at least {instrument.min_qty} of {instrument.symbol}, was {qty}"
    if instrument.max_qty is not None and qty > instrument.max_qty:
        return f"quantity must be at most {instrument.max_qty} of {instrument.symbol}, was {qty}"
    return None


def request_fault(request: OrderRequest, instrument: Instrument) -> tuple[str, str] | None:
    """Return the field of a request that cannot be, and why."""
    if not _is_on_grid(request.qty, instrument.lot_size):
        return "qty", (
            f"quantity must be a positive multiple of the lot {instrument.lot_size} "
            f"of {instrument.symbol}, was {request.qty}"
        )
    if request.type is OrderType.MARKET:
        if request.price is not None:
            return "price", f"a market order has no price, was {request.price}"
        fault = _qty_fault(instrument, request.qty)
        return None if fault is None else ("qty", fault)
    if request.price is None or not _is_on_grid(request.price, instrument.tick_size):
        return "price", (
            f"price must be a positive multiple of the tick {instrument.tick_size} "
            f"of {instrument.symbol}, was {request.price}"
        )
    fault = _size_fault(instrument, request.price, request.qty)
    return None if fault is None else ("qty", fault)


def _is_on_grid(value: Decimal, step: Decimal) -> bool:
    # Not `value % step`, which raises where the quotient has more digits than the context.
    return value.is_finite() and value > _ZERO and (value / step).to_integral_value() * step == value
