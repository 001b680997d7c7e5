"""Trading by hand: what a person may ask of a node's orders, each in a turn of its own.

An order by hand belongs to the account's own instance for people (`host/core/hand.py`) and passes the
checks that all orders pass. Its sender is journaled with it. It outlives the session that asked for it
and the process too: it rests until it is filled or cancelled, or the node is stopped.
"""

from collections.abc import Iterable
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from host.api import (
    Instrument,
    InstrumentKind,
    Order,
    OrderRefused,
    OrderRequest,
    OrderStatus,
    OrderType,
    TimeInForce,
)
from host.core import entries as e
from host.core.hand import hand_of, is_hand
from host.core.oms import Channel
from host.runtime.scope import NotKnown, check_scope, is_in_scope
from host.runtime.turn import turn

if TYPE_CHECKING:
    from host.runtime.engine import Engine

__all__ = ["ByHand", "Stopped"]

_RESTING: Final = (OrderStatus.OPEN, OrderStatus.PARTIALLY_FILLED)


class Stopped(OrderRefused):
    """A scope is not as the request needs it: there is no kill switch to release."""


class ByHand:
    """Places, amends and cancels orders for people, and stops trading for them.

    Every method raises `NotKnown` for a name that is not there, `OrderRefused` for what may not be
    done now (its `field` says which part of a request cannot be), and `Halted`. `by` is who asks.
    """

    def __init__(self, engine: "Engine") -> None:
        self._engine: Final = engine

    def take_up(self) -> None:
        """Have risk checks count the positions and orders by hand that the journal knows."""
        with turn(self._engine):
            for record in list(self._engine.state.instances.values()):
                if is_hand(record.instance) and record.account in self._engine.feeds:
                    for symbol in record.symbols:
                        self._open(record.account, symbol)

    # -- single orders ---------------------------------------------------------------------------

    def place(self, account: str, request: OrderRequest, by: str) -> Order:
        """Send an order and return it, as it is when the adapter has it."""
        engine = self._engine
        self._check_market(account, request.symbol)
        _check_terms(request, engine.state.instruments[account][request.symbol])
        with turn(engine) as now_ns:
            self._check_touch(account)
            channel = self._open(account, request.symbol)
            top = engine.top(account, request.symbol)
            client_id = engine.oms.place(channel, request, top, now_ns, by)
        return self.find(client_id)

    def amend(self, client_id: str, price: Decimal | None, qty: Decimal | None, by: str) -> Order:
        """Change a resting order by hand; None keeps the price or the total quantity as it is.

        A strategy's order cannot be amended: the strategy would amend it back.
        """
        engine = self._engine
        order = self.find(client_id)
        if not is_hand(order.instance):
            raise OrderRefused(
                "NOT_BY_HAND",
                f"order {client_id} belongs to instance {order.instance}, which prices it itself; "
                "cancel it, or change the instance's parameters",
            )
        if order.status not in _RESTING or order.price is None:
            raise OrderRefused(
                "NOT_RESTING", f"order {client_id} is {order.status}: only one that rests can change"
            )
        price = order.price if price is None else price
        qty = order.qty if qty is None else qty
        if not (qty.is_finite() and qty > order.filled):
            detail = f"quantity must be more than the {order.filled} filled of order {client_id}, was {qty}"
            raise OrderRefused("INVALID_ORDER", detail, "qty")
        if (price, qty) == (order.price, order.qty):
            return order
        with turn(engine) as now_ns:
            self._check_touch(order.account)
            channel = self._open(order.account, order.symbol)
            top = engine.top(order.account, order.symbol)
            engine.oms.amend(channel, order, price, qty, top, now_ns, by)
        return self.find(client_id)

    def cancel(self, client_id: str, by: str, reason: str = "") -> Order:
        """Ask for an order to be cancelled, anybody's; no effect while that is under way already.

        A strategy that runs may quote again at once.
        """
        order = self.find(client_id)
        if order.status.is_terminal:
            raise OrderRefused(
                "ORDER_DONE", f"order {client_id} is {order.status}: there is nothing to cancel"
            )
        self._cancel([order], _said(by, reason), by)
        return self.find(client_id)

    def find(self, client_id: str) -> Order:
        """Return an order that may still trade, or one of the latest that ended."""
        state = self._engine.state
        order = state.orders.get(client_id) or state.retired.get(client_id)
        if order is None:
            raise NotKnown("order", client_id, "it was never placed here, or ended long ago: see the store")
        return order

    # -- many orders -----------------------------------------------------------------------------

    def cancel_all(self, scope: str, by: str, reason: str = "") -> int:
        """Ask for every order of a scope to be cancelled; return for how many.

        Strategies that run may quote again at once: pause them first, or use `panic_stop`.
        """
        check_scope(self._engine, scope)
        return self._cancel(self.orders_in(scope), _said(by, reason), by)

    def orders_in(self, scope: str) -> list[Order]:
        """Return the orders of a scope that may still trade."""
        return [
            order
            for order in self._engine.state.orders.values()
            if is_in_scope(scope, order.account, order.instance, order.symbol)
        ]

    def panic_stop(self, scope: str, by: str, reason: str = "", *, flatten: bool = False) -> int:
        """Refuse new orders of a scope from here on, over restarts too, and cancel what is open.

        With `flatten` its positions are closed as well, until none is left. Returns how many orders
        were asked to be cancelled; doing it again cancels again.
        """
        engine = self._engine
        check_scope(engine, scope)
        before = engine.oms.cancels_sent
        with turn(engine):
            engine.safety.set_kill_switch(scope, True, _said(by, reason), by)
            asked = engine.oms.cancels_sent - before
            if flatten:
                engine.safety.flattening.begin(scope, _said(by, reason), by)
        return asked

    def release(self, scope: str, by: str, reason: str = "") -> None:
        """Let a scope trade again, whoever or whatever stopped it; closing its positions ends."""
        engine = self._engine
        stopped = engine.state.kill_switches
        if scope not in stopped:
            detail = f"no kill switch is on for {scope}; on are: {', '.join(stopped) or 'none'}"
            raise Stopped("NOT_STOPPED", detail)
        with turn(engine):
            if scope in engine.state.flattening:
                engine.safety.flattening.end(scope, f"released: {_said(by, reason)}", by)
            engine.safety.set_kill_switch(scope, False, _said(by, reason), by)

    # -- inside ----------------------------------------------------------------------------------

    def _cancel(self, orders: Iterable[Order], reason: str, by: str) -> int:
        with turn(self._engine) as now_ns:
            return self._engine.oms.cancel_all(orders, reason, now_ns, by)

    def _check_market(self, account: str, symbol: str) -> None:
        engine = self._engine
        feed = engine.feeds.get(account)
        if feed is None:
            raise NotKnown("account", account, f"connected are {', '.join(engine.feeds) or 'none'}")
        if symbol not in feed.symbols or symbol not in engine.state.instruments.get(account, {}):
            raise NotKnown(
                "symbol",
                symbol,
                f"account {account} follows {', '.join(feed.symbols) or 'none'}; "
                "name it in the symbols of an instance to have it followed",
            )

    def _check_touch(self, account: str) -> None:
        engine = self._engine
        if engine.must_stop:
            raise OrderRefused("NODE_STOPS", f"this node stops: {engine.must_stop}")
        feed = engine.feeds.get(account)
        if feed is None or not feed.is_settled:
            why = "" if feed is None else feed.failure or engine.reconciler.waiting_for(account)
            detail = f"account {account} is not in touch with its venue" + (f": {why}" if why else "")
            raise OrderRefused("NOT_CONNECTED", detail)

    def _open(self, account: str, symbol: str) -> Channel:
        """Return the channel of the account's people in a symbol; make the instance on first use."""
        engine, name = self._engine, hand_of(account)
        channel = engine.oms.channel(name, symbol)
        if channel is not None:
            return channel
        record = engine.state.instances.get(name)
        number = engine.state.next_instance_number if record is None else record.number
        symbols = () if record is None else record.symbols
        if symbol not in symbols:
            added = e.InstanceAdded(name, number, "", "", account, (*symbols, symbol), b"{}")
            engine.record(added, engine.now_ns)
        return engine.oms.open_channel(name, account, symbol, engine.roster.ids_of(name, number), 0.0)


def _said(by: str, reason: str) -> str:
    return f"{reason} (by {by})" if reason else f"by {by}"


def _check_terms(request: OrderRequest, instrument: Instrument) -> None:
    """Raise `OrderRefused` for terms that contradict each other; what the venue allows is checked later."""
    if request.type is OrderType.LIMIT and request.price is None:
        raise OrderRefused("INVALID_ORDER", "a limit order needs a price, was none", "price")
    if request.post_only and request.type is OrderType.MARKET:
        raise OrderRefused(
            "INVALID_ORDER", "a market order cannot be post-only: it has to cross", "post_only"
        )
    if request.post_only and request.time_in_force is not TimeInForce.GTC:
        text = f"a post-only order rests, and {request.time_in_force} never does; use gtc"
        raise OrderRefused("INVALID_ORDER", text, "time_in_force")
    if request.reduce_only and instrument.kind is InstrumentKind.SPOT:
        text = f"{instrument.symbol} is spot, where no order is reduce-only; leave it out"
        raise OrderRefused("INVALID_ORDER", text, "reduce_only")
