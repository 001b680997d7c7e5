"""Orders in doubt: which they are, what is asked about each, and what counts as proof.

An order is in doubt when a request about it got no answer, when the process restarted while it
lived, or when the venue knows more of it than we do. It is then asked for by client id until the
venue proves its fate; nothing is ever declared dead without that proof:

    found resting, after every request of ours took effect or became invalid   it is live as shown
    ended, and its fills are known                                             it is done
    not found, after its validity window, and its fills were asked for         it never was, or is over

Orders with our prefix that the journal does not know are taken into it with their fills, cancelled
and alerted about; orders of anybody else are left alone.
"""

from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from host.api import (
    Order,
    OrderAccepted,
    OrderAmended,
    OrderCancelled,
    OrderExpired,
    OrderFilled,
    OrderNotFound,
    OrderSnapshot,
    OrderStatus,
    OrderType,
    QueryFills,
    QueryOrder,
    RequestUnanswered,
    TimeInForce,
)
from host.core import entries as e
from host.core.client_id import parse_client_id
from host.core.gate import FOREVER_NS
from host.core.oms import Oms
from host.core.state import fill_of

__all__ = ["ASK_AGAIN_NS", "FILL_OVERLAP_NS", "Doubts"]

ASK_AGAIN_NS: Final = 500_000_000
"""How long an answer is waited for before the question is put again; doubled each time."""
MOST_PATIENCE_NS: Final = 30_000_000_000
FILL_OVERLAP_NS: Final = 60_000_000_000
"""Fills are asked for from this long before they can have happened: venues stamp out of order."""

_PENDING: Final = (OrderStatus.PENDING_NEW, OrderStatus.PENDING_CANCEL, OrderStatus.PENDING_AMEND)
_ZERO: Final = Decimal(0)


class _Doubt(Struct):
    """What is being asked about one order. Times are host time."""

    account: str
    symbol: str
    since_ns: int
    """No request about the order was made after this."""
    ask_at_ns: int
    asked: int = 0
    is_missing: bool = False
    """The venue did not find it: its fills are asked for before that is believed."""
    has_fills: bool = False
    """A list of fills came after it was asked for."""
    expected_filled: Decimal = _ZERO
    """What the venue says is filled in total; our own count may be behind."""
    fills: list[OrderFilled] = []
    """Fills that wait until the venue has told what order, unknown to the journal, they are of."""


class Doubts:
    """The orders in doubt of all accounts.

    `look_again(account, now_ns)` is called when the list of open orders has to be asked for, and
    `on_settled(account, now_ns)` when a doubt was settled.
    """

    def __init__(
        self,
        oms: Oms,
        prefix: str,
        look_again: Callable[[str, int], None],
        on_settled: Callable[[str, int], None],
    ) -> None:
        self._oms = oms
        self._state = oms.state
        self._prefix = prefix
        self._look_again = look_again
        self._on_settled = on_settled
        self._doubts: dict[str, _Doubt] = {}
        self._inherited: dict[str, int] = {}
        """Since when no request about an order was made, by this node's clock, where another one made the last."""

    def inherit(self, now_ns: int, *, may_arrive: bool) -> None:
        """Take every order over from a node whose clock is not to be compared with this one's.

        It has sent nothing since `now_ns`. With `may_arrive` what it sent last may still take effect, until its
        validity windows have ended; otherwise they have.
        """
        ended_ns = now_ns if may_arrive else now_ns - self._oms.outbox.gate.order_window_ns - 1
        for order in self._state.orders.values():
            has_pending = order.pending_qty is not None or not order.venue_id
            self._inherited[order.client_id] = ended_ns if has_pending else min(order.updated_ns, now_ns)

    def __bool__(self) -> bool:
        return bool(self._doubts)

    def of(self, account: str) -> Iterator[str]:
        """Yield the client ids in doubt of one account."""
        return (client_id for client_id, doubt in self._doubts.items() if doubt.account == account)

    def next_time_ns(self) -> int:
        """Return when a question is due."""
        return min((doubt.ask_at_ns for doubt in self._doubts.values()), default=FOREVER_NS)

    # -- questions -------------------------------------------------------------------------------

    def on_timer(self, now_ns: int) -> None:
        """Doubt what went unanswered for too long, and ask what is due."""
        window_ns = self._oms.outbox.gate.order_window_ns
        for order in list(self._state.orders.values()):
            if order.account not in self._oms.outbox.ports:
                continue
            if order.status is OrderStatus.UNKNOWN:
                self._doubt(order, order.updated_ns, now_ns)
            elif order.status in _PENDING and now_ns - order.updated_ns > window_ns:
                text = f"no answer for {window_ns / 1e9:g} s"
                self.unanswered(order, text, now_ns)
        for client_id, doubt in list(self._doubts.items()):
            if now_ns >= doubt.ask_at_ns:
                self._ask(client_id, doubt, now_ns)

    def unanswered(self, order: Order, text: str, now_ns: int) -> None:
        """Doubt a live order from here on; `text` says why."""
        self.on_report(order.account, RequestUnanswered(order.client_id, text, now_ns), now_ns)

    def _ask(self, client_id: str, doubt: _Doubt, now_ns: int) -> None:
        ask, account = self._oms.outbox.ask, doubt.account
        order = self._find(client_id)
        # Fills first: a finished order is settled only when its fills are known.
        if order is not None and (doubt.is_missing or doubt.expected_filled > order.filled):
            ask(account, QueryFills(max(order.created_ns - FILL_OVERLAP_NS, 0)), now_ns)
        if order is None or not order.status.is_terminal:
            ask(account, QueryOrder(client_id, doubt.symbol), now_ns)
        doubt.asked += 1
        doubt.ask_at_ns = now_ns + min(ASK_AGAIN_NS << min(doubt.asked - 1, 6), MOST_PATIENCE_NS)

    def fills_listed(self, account: str) -> None:
        """Note that a list of the account's fills has just been taken in."""
        for client_id in self.of(account):
            doubt = self._doubts[client_id]
            doubt.has_fills = doubt.is_missing

    # -- answers ---------------------------------------------------------------------------------

    def on_report(self, account: str, report: e.OrderReport, now_ns: int) -> None:
        """Take in what the venue says of one order, and ask further where that leaves a doubt."""
        order = self._find(report.client_id)
        if order is None:
            self._on_stranger(account, report, now_ns)
            return
        if isinstance(report, OrderFilled) and report.trade_id in order.trade_ids:
            return  # told twice; nothing changes, so nothing is journaled
        changed_ns = order.updated_ns
        if isinstance(report, OrderSnapshot | OrderCancelled | OrderExpired):
            if (report.filled or _ZERO) > order.filled:
                self._miss_fills(order, report.filled or _ZERO, now_ns)
            if isinstance(report, OrderSnapshot) and not self._is_proof(order, report, now_ns):
                return
        outcome = self._oms.commit(e.Reported(account, report), now_ns)
        if isinstance(report, OrderNotFound):
            self._on_not_found(order, report, now_ns)
        elif outcome is not None and (outcome.anomaly or "").startswith("overfill") and _is_live(order):
            # Our idea of its quantity may be old: an amend's answer was lost. The venue knows it.
            self.unanswered(order, "filled beyond the quantity that we know", now_ns)
        doubt = self._doubts.get(order.client_id)
        if order.status is OrderStatus.UNKNOWN:
            self._doubt(order, changed_ns, now_ns)
        elif doubt is not None and order.filled >= doubt.expected_filled:
            self._settle(order.client_id, doubt, now_ns)

    def _is_proof(self, order: Order, seen: OrderSnapshot, now_ns: int) -> bool:
        """Return whether a snapshot says something that we do not know and that still holds."""
        if seen.status.is_terminal:
            return _is_live(order)
        doubt = self._doubts.get(order.client_id)
        if doubt is None or order.status is not OrderStatus.UNKNOWN:
            return False  # an answer from an earlier doubt, long settled
        holds_from_ns = doubt.since_ns
        asked_for = (order.pending_price, order.pending_qty)
        if order.pending_qty is not None and (seen.price, seen.qty) != asked_for:
            holds_from_ns += (
                self._oms.outbox.gate.order_window_ns
            )  # until then the amend may still take effect
        if seen.ts_ns <= holds_from_ns or seen.filled < order.filled:
            doubt.ask_at_ns = max(now_ns, holds_from_ns + 1)
            return False
        return True

    def _on_not_found(self, order: Order, report: OrderNotFound, now_ns: int) -> None:
        if order.status is not OrderStatus.UNKNOWN:
            return
        doubt = self._doubt(order, order.updated_ns, now_ns)
        sent_by_ns = doubt.since_ns + self._oms.outbox.gate.order_window_ns
        if report.ts_ns <= sent_by_ns or now_ns <= sent_by_ns:
            # The request may still be under way; its validity window has to pass first.
            doubt.ask_at_ns = max(now_ns, sent_by_ns + 1)
            return
        was_seen = bool(order.venue_id) or order.filled > _ZERO
        if was_seen and not doubt.has_fills:
            if not doubt.is_missing:
                doubt.is_missing, doubt.ask_at_ns = True, now_ns
            return
        status = OrderStatus.EXPIRED if was_seen else OrderStatus.REJECTED
        proof = "the venue does not know it after its validity window ended"
        self._oms.commit(e.OrderResolved(order.client_id, status, proof), now_ns)
        if was_seen:
            text = f"order {order.client_id}: {proof}"
            self._oms.commit(e.Alert("order_forgotten", text, order.instance), now_ns)

    # -- orders that the journal does not know ---------------------------------------------------

    def _on_stranger(self, account: str, report: e.OrderReport, now_ns: int) -> None:
        """Find out about an order that we do not have: ours from long ago, or somebody else's."""
        client_id = report.client_id
        if parse_client_id(client_id, self._prefix) is None:
            return
        doubt = self._doubts.get(client_id)
        if isinstance(report, OrderFilled):
            if report.ts_ns < self._state.last_fill_ns.get(account, 0):
                return  # an old fill within the overlap asked for, whose order is done and forgotten
            if doubt is None:
                doubt = self._doubts[client_id] = _Doubt(account, report.symbol, now_ns, now_ns)
            if report not in doubt.fills:
                doubt.fills.append(report)
        elif isinstance(report, OrderAccepted | OrderAmended):
            self._look_again(account, now_ns)  # it says neither symbol nor size; the list does
        elif isinstance(report, OrderSnapshot) and (
            not report.status.is_terminal or (doubt is not None and doubt.fills)
        ):
            self.adopt(account, report, now_ns)
        elif isinstance(report, OrderSnapshot | OrderNotFound) and doubt is not None:
            for fill in doubt.fills:
                self._adopt_fill(account, fill, now_ns)
            self._settle(client_id, doubt, now_ns)

    def adopt(self, account: str, seen: OrderSnapshot, now_ns: int) -> None:
        """Take an order with our prefix that we believed dead or never knew into the journal.

        If it is live it is cancelled. Its fills are asked for, from the beginning of time.
        """
        if parse_client_id(seen.client_id, self._prefix) is None:
            return
        instance = self._instance_of(seen.client_id)
        order = self._state.retired.get(seen.client_id)
        if order is None:
            order = Order(
                seen.client_id,
                instance,
                account,
                seen.symbol,
                seen.side,
                OrderType.MARKET if seen.price is None else OrderType.LIMIT,
                TimeInForce.GTC,
                seen.price,
                seen.qty,
                OrderStatus.UNKNOWN,
                venue_id=seen.venue_id,
            )
        # Unknown at first, so that it takes the usual way out of doubt; not a quote any more.
        order = replace(
            order, price=seen.price, qty=seen.qty, status=OrderStatus.UNKNOWN, slot=-1, updated_ns=now_ns - 1
        )
        self._oms.commit(e.OrderAdopted(order), now_ns)
        text = f"order {seen.client_id} is {seen.status} at the venue, but no entry says so"
        self._oms.commit(e.Alert("order_adopted", text, instance), now_ns)
        doubt = self._doubts.pop(seen.client_id, None)
        self._doubt(self._state.orders[seen.client_id], seen.ts_ns - 1, now_ns)
        for fill in [] if doubt is None else doubt.fills:
            self.on_report(account, fill, now_ns)
        self.on_report(account, seen, now_ns)
        if not seen.status.is_terminal:
            self._oms.outbox.cancel(seen.client_id, "unknown to the journal", now_ns)

    def _adopt_fill(self, account: str, report: OrderFilled, now_ns: int) -> None:
        fill = fill_of(report, self._instance_of(report.client_id), account)
        self._oms.commit(e.FillAdopted(fill), now_ns)
        text = f"trade {fill.trade_id} of order {fill.client_id} is ours by its id, but no entry says so"
        self._oms.commit(e.Alert("fill_adopted", text, fill.instance), now_ns)

    def _instance_of(self, client_id: str) -> str:
        parsed = parse_client_id(client_id, self._prefix)
        records = self._state.instances.values()
        return next((r.instance for r in records if parsed and r.number == parsed.instance_number), "")

    # -- inside ----------------------------------------------------------------------------------

    def _find(self, client_id: str) -> Order | None:
        return self._state.orders.get(client_id) or self._state.retired.get(client_id)

    def _doubt(self, order: Order, since_ns: int, now_ns: int) -> _Doubt:
        doubt = self._doubts.get(order.client_id)
        if doubt is None:
            since_ns = self._inherited.pop(order.client_id, since_ns)
            doubt = _Doubt(order.account, order.symbol, since_ns, now_ns)
            self._doubts[order.client_id] = doubt
        return doubt

    def _miss_fills(self, order: Order, expected: Decimal, now_ns: int) -> None:
        doubt = self._doubt(order, order.updated_ns, now_ns)
        if expected > doubt.expected_filled:
            doubt.expected_filled = expected
            doubt.ask_at_ns = now_ns

    def _settle(self, client_id: str, doubt: _Doubt, now_ns: int) -> None:
        del self._doubts[client_id]
        self._on_settled(doubt.account, now_ns)


def _is_live(order: Order) -> bool:
    return not order.status.is_terminal
