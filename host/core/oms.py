"""The order management system: every order, amend and cancel of a node goes through here.

What a strategy wants becomes commands in this order: the slot's next step (`host/core/quoter.py`), the risk
checks, the journal entry, which changes the state, and the outbox (`host/core/outbox.py`), which lets each
command through the gate to its adapter. What the venue says becomes journal entries the same way, and
strategies hear of it last. All of it is synchronous and deterministic: time comes in as an argument.
"""

from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any, Final

from host.api import (
    AmendRejected,
    AmendSupport,
    BookTop,
    CancelRejected,
    ExchangeAdapter,
    Fill,
    Instrument,
    InstrumentKind,
    Order,
    OrderRefused,
    OrderRequest,
    OrderStatus,
    OrderType,
    Side,
    TimeInForce,
)
from host.core import entries as e
from host.core.channel import Channel
from host.core.client_id import ClientIdMaker
from host.core.gate import Gate
from host.core.outbox import Outbox
from host.core.quoter import Quoter
from host.core.quoting import QuoteLane
from host.core.risk import Refusal, RiskEngine
from host.core.state import Outcome, TradingState

__all__ = ["Oms"]

_ZERO: Final = Decimal(0)
_RESTING: Final = (OrderStatus.OPEN, OrderStatus.PARTIALLY_FILLED)


class Oms:
    """Turns wishes into journaled commands and venue reports into journaled state.

    `append(entry, now_ns)` appends to the journal and returns the LSN.
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
        self.state: Final = state
        self.risk: Final = risk
        self.outbox: Final = Outbox(state, risk, gate, append, on_breach, self.commit)
        self._on_change = on_change
        self._channels: dict[tuple[str, str], Channel] = {}
        self._top_of: Final = top_of
        self.quoter: Final = Quoter(self.outbox, self._channels, top_of)

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
            self.outbox.ports[account],
            instrument,
            quoting,
            self.risk.lane(instance, account, instrument),
            ids,
        )
        for order in self.state.orders.values():
            if order.instance == instance and order.symbol == symbol and order.slot >= 0:
                self.quoter.adopt(channel, order)
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
                self.quoter.work(channel, slot, top, now_ns)

    def _pull(self, channel: Channel, reason: str, now_ns: int) -> None:
        for slot in channel.quoting.slots():
            slot.clear()
        for order in list(self.state.orders.values()):
            if (order.instance, order.symbol) == (channel.instance, channel.symbol) and order.slot >= 0:
                self.outbox.cancel(order.client_id, reason, now_ns)

    def close_channels(self, instance: str) -> None:
        """Forget the channels of an instance that is gone; its orders stay known."""
        for key in [key for key in self._channels if key[0] == instance]:
            del self._channels[key]

    def switch_adapter(self, account: str, adapter: ExchangeAdapter[Any]) -> None:
        """Send whatever goes out from here on, commands that wait for the disk too, through `adapter`."""
        self.outbox.ports[account] = adapter
        for channel in self._channels.values():
            if channel.account == account:
                channel.adapter = adapter
                channel.can_amend = adapter.amend_support is AmendSupport.NATIVE

    # -- what strategies want --------------------------------------------------------------------

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
        self.outbox.check_request(channel, "place", request, now_ns)
        refusal = channel.risk.check(
            request.side, request.price, request.qty, top, now_ns, is_post_only=request.post_only
        )
        if refusal is not None:
            self.outbox.risk_refused(channel, "place", refusal, now_ns)
            raise OrderRefused(refusal.reason, refusal.detail)
        return self.outbox.send_place(
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
            self.outbox.refuse(channel, "amend", "NO_AMENDS", detail, now_ns)
            raise OrderRefused("NO_AMENDS", detail)
        request = OrderRequest(symbol=order.symbol, side=order.side, qty=qty, price=price)
        self.outbox.check_request(channel, "amend", request, now_ns)
        open_qty = qty - order.filled
        refusal = channel.risk.check(
            order.side, price, open_qty, top, now_ns, order, is_post_only=order.post_only
        )
        if refusal is not None:
            self.outbox.risk_refused(channel, "amend", refusal, now_ns)
            raise OrderRefused(refusal.reason, refusal.detail)
        self.outbox.send_amends(channel, [order], [e.Change(order.client_id, price, qty)], now_ns, by)

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
        return self.outbox.send_place(
            channel, side, OrderType.MARKET, TimeInForce.IOC, None, qty, False, reduce_only, -1, now_ns
        )

    def pull_quotes(self, instance: str, reason: str, now_ns: int) -> None:
        """Want no quotes of `instance` any more and cancel the ones that rest."""
        for (owner, _symbol), channel in self._channels.items():
            if owner == instance:
                for slot in channel.quoting.slots():
                    slot.clear()
        for order in list(self.state.orders.values()):
            if order.instance == instance and order.slot >= 0:
                self.outbox.cancel(order.client_id, reason, now_ns)

    def cancel_all(self, orders: Iterable[Order], reason: str, now_ns: int, by: str = "") -> int:
        """Cancel these orders; quotes among them are no longer wanted. Return how many were asked."""
        asked = 0
        for order in list(orders):
            channel = self._channels.get((order.instance, order.symbol))
            if channel is not None and order.slot >= 0:
                channel.quoting.slot(order.side, order.slot).clear()
            asked += self.outbox.cancel(order.client_id, reason, now_ns, by)
        return asked

    def retry_cancels(self, now_ns: int) -> None:
        """Cancel again what was to go and rests nevertheless: its cancel was lost or refused."""
        if not self.outbox.gate.permit(now_ns):
            return
        for client_id, (again_ns, reason) in list(self.outbox.cancelling.items()):
            order = self.state.orders.get(client_id)
            if order is None or self.quoter.is_wanted(order):
                del self.outbox.cancelling[client_id]
            elif order.status in _RESTING and now_ns >= again_ns:
                self.outbox.send_cancel(order, reason, now_ns)

    # -- what the venue says ---------------------------------------------------------------------

    def commit(self, entry: e.Entry, now_ns: int) -> Outcome | None:
        """Journal an entry that the venue caused, and let risk, quoting and strategies follow."""
        outcome = self.outbox.record(entry, now_ns)
        if outcome is None:
            return None
        if outcome.anomaly is not None:
            kind, _, text = outcome.anomaly.partition(": ")
            self.outbox.record(e.Alert(kind, text), now_ns)
        order, fill = outcome.order, outcome.fill
        if fill is not None:
            self.risk.filled(fill)
        if order is not None:
            self.follow(order, outcome.before, now_ns)
        if fill is not None or (order is not None and outcome.anomaly is None):
            self._on_change(order, fill)
        if order is not None and order.slot >= 0:
            self.quoter.after_change(order, _is_refusal(entry), now_ns)
        return outcome

    def follow(self, order: Order, before: OrderStatus | None, now_ns: int) -> None:
        """Bring risk exposure and the order's slot in line with the order."""
        self.risk.order_changed(order)
        if order.status.is_terminal:
            self.quoter.let_go(order, before, now_ns)


def _least_ticks(tolerance_bps: float) -> int:
    return 1 if tolerance_bps else 0


def _is_refusal(entry: e.Entry) -> bool:
    if isinstance(entry, e.Reported):
        return isinstance(entry.report, AmendRejected | CancelRejected)
    return isinstance(entry, e.CommandRefused)
