"""Trading by hand: what a person may ask of a node's orders, each in a turn of its own.

An order by hand belongs to the account's own instance for people (`host/core/hand.py`) and passes the
checks that all orders pass. Its sender is journaled with it. It outlives the session that asked for it
and the process too: it rests until it is filled or cancelled, or the node is stopped.
"""

from decimal import Decimal
from typing import TYPE_CHECKING, Final

from host.api import (
    AmendSupport,
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
from host.core.channel import Channel
from host.core.hand import hand_of, is_hand
from host.core.order_checks import request_fault
from host.runtime.scope import NotKnown
from host.runtime.turn import Halted, turn

if TYPE_CHECKING:
    from host.runtime.engine import Engine

__all__ = ["ByHand"]

_RESTING: Final = (OrderStatus.OPEN, OrderStatus.PARTIALLY_FILLED)


class ByHand:
    """Places, amends and cancels orders for people.

    Every method raises `NotKnown` for a name that is not there, `OrderRefused` for what may not be
    done now (its `field` says which part of a request cannot be), and `Halted`. What is refused has
    changed nothing: a person's mistake is no breach that would stop a scope. `by` is who asks.
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
        """Send an order and return it."""
        engine = self._engine
        self.check_place(account, request)
        with turn(engine) as now_ns:
            channel = self._open(account, request.symbol)
            top = engine.top(account, request.symbol)
            client_id = engine.oms.place(channel, request, top, now_ns, by)
        return self.find(client_id)

    def check_place(self, account: str, request: OrderRequest) -> None:
        """Raise what `place` would raise, and send nothing."""
        engine = self._engine
        self._check_market(account, request.symbol)
        _check_terms(request, engine.state.instruments[account][request.symbol])
        self._check_send(account, request, None)

    def amend(self, client_id: str, price: Decimal | None, qty: Decimal | None, by: str) -> Order:
        """Change a resting order by hand; None keeps the price or the total quantity as it is.

        A strategy's order cannot be amended: the strategy would amend it back.
        """
        engine = self._engine
        self.check_amend(client_id, price, qty)
        order = self.find(client_id)
        wanted = _amended(order, price, qty)
        if wanted == (order.price, order.qty):
            return order
        with turn(engine) as now_ns:
            channel = self._open(order.account, order.symbol)
            engine.oms.amend(channel, order, *wanted, engine.top(order.account, order.symbol), now_ns, by)
        return order

    def check_amend(self, client_id: str, price: Decimal | None, qty: Decimal | None) -> None:
        """Raise what `amend` would raise, and send nothing."""
        order = self.find(client_id)
        if not is_hand(order.instance):
            raise OrderRefused(
                "NOT_BY_HAND",
                f"order {client_id} belongs to instance {order.instance}, which prices it itself; "
                "cancel it, or change the instance's parameters",
            )
        if order.status not in _RESTING or order.price is None:
            detail = f"order {client_id} is {order.status}: only one that rests can change"
            raise OrderRefused("NOT_RESTING", detail)
        if self._engine.feeds[order.account].adapter.amend_support is not AmendSupport.NATIVE:
            detail = f"the venue of account {order.account} amends no order; cancel it and place another"
            raise OrderRefused("NO_AMENDS", detail)
        new_price, new_qty = _amended(order, price, qty)
        if not (new_qty.is_finite() and new_qty > order.filled):
            detail = (
                f"quantity must be more than the {order.filled} filled of order {client_id}, was {new_qty}"
            )
            raise OrderRefused("INVALID_ORDER", detail, "qty")
        request = OrderRequest(
            symbol=order.symbol, side=order.side, qty=new_qty, price=new_price, post_only=order.post_only
        )
        self._check_send(order.account, request, order)

    def cancel(self, client_id: str, by: str, reason: str = "by hand") -> Order:
        """Ask for an order to be cancelled, anybody's; no effect while that is under way already.

        A strategy that runs may quote again at once.
        """
        order = self.check_cancel(client_id)
        with turn(self._engine) as now_ns:
            self._engine.oms.cancel_all([order], reason, now_ns, by)
        return order

    def check_cancel(self, client_id: str) -> Order:
        """Return the order that `cancel` would cancel, or raise what it would raise."""
        order = self.find(client_id)
        if order.status.is_terminal:
            detail = f"order {client_id} is {order.status}: there is nothing to cancel"
            raise OrderRefused("ORDER_DONE", detail)
        return order

    def find(self, client_id: str) -> Order:
        """Return an order that may still trade, or one of the latest that ended."""
        state = self._engine.state
        order = state.orders.get(client_id) or state.retired.get(client_id)
        if order is None:
            raise NotKnown("order", client_id, "it was never placed here, or ended long ago: see the store")
        return order

    # -- inside ----------------------------------------------------------------------------------

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

    def _check_send(self, account: str, request: OrderRequest, replaces: Order | None) -> None:
        """Raise `OrderRefused` for what the account, the gate, the instrument or a limit says no to."""
        engine, symbol = self._engine, request.symbol
        if engine.halted:
            raise Halted(engine.halted)
        if engine.must_stop:
            raise OrderRefused("NODE_STOPS", f"this node stops: {engine.must_stop}")
        feed = engine.feeds[account]
        if not feed.is_settled:
            why = feed.failure or f"waits for {engine.reconciler.waiting_for(account) or 'a connection'}"
            raise OrderRefused("NOT_CONNECTED", f"account {account} is not in touch with its venue: {why}")
        now_ns = engine.clock.now_ns()
        if not engine.gate.permit(now_ns):
            raise OrderRefused("GATE_CLOSED", "this node may not send orders now")
        instrument = engine.state.instruments[account][symbol]
        fault = request_fault(request, instrument)
        if fault is not None:
            raise OrderRefused("INVALID_ORDER", fault[1], fault[0])
        lane = engine.risk.lane(hand_of(account), account, instrument)
        open_qty = request.qty if replaces is None else request.qty - replaces.filled
        top = engine.top(account, symbol)
        refusal = lane.check(
            request.side, request.price, open_qty, top, now_ns, replaces, is_post_only=request.post_only
        )
        if refusal is not None:
            raise OrderRefused(refusal.reason, refusal.detail)
        lane.forget_last()

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


def _amended(order: Order, price: Decimal | None, qty: Decimal | None) -> tuple[Decimal, Decimal]:
    """Return the price and total quantity that a resting order is to have."""
    assert order.price is not None, "a market order does not rest"
    return (order.price if price is None else price, order.qty if qty is None else qty)


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
