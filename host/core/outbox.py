"""What goes out: journaled first, handed to the adapter through the gate once the journal has it."""

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, Final

from host.api import (
    AmendOrder,
    CancelOrder,
    Command,
    ExchangeAdapter,
    ExchangeError,
    Order,
    OrderRefused,
    OrderRequest,
    OrderStatus,
    OrderType,
    PlaceOrder,
    RequestUnanswered,
    Side,
    TimeInForce,
)
from host.core import entries as e
from host.core.channel import Channel
from host.core.gate import Gate
from host.core.order_checks import request_fault
from host.core.risk import Refusal, RiskEngine
from host.core.state import Outcome, TradingState

__all__ = ["Outbox", "Outgoing"]

REFUSAL_REPEAT_NS: Final = 1_000_000_000
"""The same refusal, tick after tick, is journaled at most once in this time."""
CANCEL_AGAIN_NS: Final = 500_000_000
"""An order that still rests so long after its cancel was sent is cancelled again."""
_ACTIONS: Final[dict[type[Any], str]] = {PlaceOrder: "place", AmendOrder: "amend", CancelOrder: "cancel"}

Outgoing = tuple[int, int, str, tuple[Command, ...]]
"""Commands on their way out: LSN and time of their intent (LSN 0: queries, which have none), account."""


class Outbox:
    """Where every command is journaled, waits for the disk, and leaves.

    `append(entry, now_ns)` appends to the journal and returns the LSN; `record` also applies to `state`.
    `on_breach(refusal, instance)` is called when a risk check asks for more than a refusal. `commit` is told
    entries about commands that could not leave.
    """

    def __init__(
        self,
        state: TradingState,
        risk: RiskEngine,
        gate: Gate,
        append: Callable[[e.Entry, int], int],
        on_breach: Callable[[Refusal, str], None],
        commit: Callable[[e.Entry, int], Outcome | None],
    ) -> None:
        self.state: Final = state
        self.risk: Final = risk
        self.gate: Final = gate
        self.append = append
        self.on_breach = on_breach
        self.ports: dict[str, ExchangeAdapter[Any]] = {}
        self.waiting: list[Outgoing] = []
        self.cancelling: dict[str, tuple[int, str]] = {}
        """When to cancel again, and why, by client id: an order is not let go of before it is done."""
        self.orders_sent = 0
        self.amends_sent = 0
        self.cancels_sent = 0
        self.refused = 0
        self._commit: Final = commit

    def record(self, entry: e.Entry, now_ns: int) -> Outcome | None:
        """Append an entry and apply it: the only way in which trading state changes."""
        return self.state.apply(self.append(entry, now_ns), now_ns, entry)

    def ask(self, account: str, command: Command, now_ns: int) -> None:
        """Queue a query; it needs no journal entry, for it changes nothing, and passes a closed gate."""
        self.waiting.append((0, now_ns, account, (command,)))

    def send_place(
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
        """Place an order that passed its checks; `slot` is its level, -1 for one that is no quote."""
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
        self.waiting.append(
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

    def send_amends(
        self,
        channel: Channel,
        orders: Sequence[Order],
        changes: Sequence[e.Change],
        now_ns: int,
        by: str = "",
    ) -> None:
        """Amend orders to what passed its checks, each to its change, in one journal entry."""
        if not changes:
            return
        self.record(e.AmendSent(tuple(changes), by), now_ns)
        risk, lsn, waiting = channel.risk, self.state.lsn, self.waiting
        account, symbol = channel.account, channel.symbol
        self.amends_sent += len(changes)
        channel.commands += len(changes)
        for order, change in zip(orders, changes, strict=True):
            price, qty = change.price, change.qty
            if qty != order.qty:
                risk.order_changed(order)
            command = AmendOrder(order.client_id, symbol, order.side, price, qty, order.venue_id)
            waiting.append((lsn, now_ns, account, (command,)))

    def cancel(self, client_id: str, reason: str, now_ns: int, by: str = "") -> bool:
        """Ask the venue to cancel; return False when the order is done or already being cancelled.

        Also where the order's account could not be connected: there is nobody to ask. `by` is who
        cancels it by hand.
        """
        order = self.state.orders.get(client_id)
        if order is None or order.status is OrderStatus.PENDING_CANCEL or order.account not in self.ports:
            return False
        self.send_cancel(order, reason, now_ns, by)
        return True

    def send_cancel(self, order: Order, reason: str, now_ns: int, by: str = "") -> None:
        """Cancel an order, whatever was asked of the venue before."""
        self.record(e.CancelSent(order.client_id, reason, by), now_ns)
        self.cancelling[order.client_id] = (now_ns + CANCEL_AGAIN_NS, reason)
        self.cancels_sent += 1
        self.waiting.append(
            (
                self.state.lsn,
                now_ns,
                order.account,
                (CancelOrder(order.client_id, order.symbol, order.venue_id),),
            )
        )

    def check_request(self, channel: Channel, action: str, request: OrderRequest, now_ns: int) -> None:
        """Raise `OrderRefused` for what may not be sent now, or is no order that the venue could take."""
        if not self.gate.permit(now_ns):
            detail = "this node may not send orders now"
            self.refuse(channel, action, "GATE_CLOSED", detail, now_ns)
            raise OrderRefused("GATE_CLOSED", detail)
        fault = request_fault(request, channel.instrument)
        if fault is not None:
            field, text = fault
            self.refuse(channel, action, "INVALID_ORDER", text, now_ns)
            raise OrderRefused("INVALID_ORDER", text, field)

    def risk_refused(self, channel: Channel, action: str, refusal: Refusal, now_ns: int) -> None:
        """Note what a risk check refused, and have what it asks for done."""
        self.refuse(channel, action, refusal.reason, refusal.detail, now_ns)
        self.on_breach(refusal, channel.instance)

    def refuse(self, channel: Channel, action: str, reason: str, detail: str, now_ns: int) -> None:
        """Journal that a wish came to nothing; again and again for the same reason, at most once a second."""
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

    def flush(self, now_ns: int, durable_lsn: int) -> None:
        """Hand out every command whose intent is durable, through the gate.

        A request's validity counts from its intent, however long it waited for the disk: so an order
        that the venue does not know when that time is over never was and never will be.
        """
        waiting = iter(self.waiting)
        self.waiting = []
        gate = self.gate
        if gate.clock_ns is not None:
            now_ns = gate.clock_ns()
        ports = self.ports
        window_ns = gate.order_window_ns
        for lsn, intent_ns, account, commands in waiting:
            if lsn > durable_lsn:
                self.waiting = [(lsn, intent_ns, account, commands), *waiting, *self.waiting]
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
                except Exception as error:  # noqa: BLE001 - plugin boundary: the order's fate is asked for
                    self._send_failed(account, command, error, now_ns)

    def _not_sent(self, command: Command, reason: str, detail: str, now_ns: int) -> None:
        self.refused += 1
        if not isinstance(command, PlaceOrder | AmendOrder | CancelOrder):
            return  # a query is asked again by whoever needs its answer
        action, client_id = _ACTIONS[type(command)], command.client_id
        order = self.state.orders.get(client_id) or self.state.retired.get(client_id)
        if order is not None:
            instance, account, symbol = order.instance, order.account, order.symbol
            refused = e.CommandRefused(instance, account, symbol, action, reason, detail, client_id)
            self._commit(refused, now_ns)

    def _send_failed(self, account: str, command: Command, error: Exception, now_ns: int) -> None:
        """Note that an adapter broke while sending: the command may have left or not."""
        action, client_id = _ACTIONS.get(type(command), "query"), getattr(command, "client_id", "")
        order = self.state.orders.get(client_id)
        text = f"adapter of {account} raised {type(error).__name__} when it sent a {action}: {error}"
        self.record(e.Alert("adapter_failed", text, "" if order is None else order.instance), now_ns)
        if action != "query":
            self._commit(e.Reported(account, RequestUnanswered(client_id, text, now_ns)), now_ns)
