"""Finding out the truth from the venue: after a restart or takeover, and whenever in doubt.

One code path serves both. An order is in doubt when a request got no answer, when the process
restarted while it lived, or when the venue's list of open orders disagrees with ours. In doubt it
is asked for by client id until the venue proves its fate; nothing is ever declared dead without
that proof. Sans-IO: queries go out through the OMS's outbox, answers come in as reports.
"""

from decimal import Decimal
from typing import Final

from msgspec import Struct

from host.api import (
    AccountSnapshot,
    Fill,
    FillsSnapshot,
    InstrumentKind,
    OpenOrdersSnapshot,
    Order,
    OrderCancelled,
    OrderExpired,
    OrderFilled,
    OrderNotFound,
    OrderSnapshot,
    OrderStatus,
    OrderType,
    QueryAccount,
    QueryFills,
    QueryOpenOrders,
    QueryOrder,
    RequestUnanswered,
    TimeInForce,
)
from host.core import entries as e
from host.core.client_id import parse_client_id
from host.core.gate import FOREVER_NS
from host.core.oms import Oms

__all__ = ["AccountRecovery", "Reconciler"]

ASK_AGAIN_NS: Final = 500_000_000
"""How long an answer is waited for before the question is put again."""
AUDIT_EVERY_NS: Final = 30_000_000_000
"""How often our open orders are compared with the venue's list while nothing is in doubt."""
FILL_OVERLAP_NS: Final = 60_000_000_000
"""Fills are asked for from this long before the newest known one: venues stamp out of order."""
DRIFTS_BEFORE_ADJUSTING: Final = 3
"""A drift of position or balance must show in so many answers in a row, for fills may be under way."""

_PENDING: Final = (OrderStatus.PENDING_NEW, OrderStatus.PENDING_CANCEL, OrderStatus.PENDING_AMEND)
_ZERO: Final = Decimal(0)


class _Doubt(Struct):
    """An order whose fate is being asked for."""

    account: str
    symbol: str
    since_ns: int
    ask_at_ns: int
    asked: int = 0
    not_found: int = 0
    expected_filled: Decimal = _ZERO
    """What the venue says is filled in total; our own count may be behind."""


class AccountRecovery(Struct):
    """How far the first reconciliation of an account is. Times are host time, 0: not yet."""

    started_ns: int = 0
    asked_ns: int = 0
    open_orders_ns: int = 0
    fills_ns: int = 0
    account_ns: int = 0
    ask_balances_ns: int = 0
    drifts: int = 0
    ready_ns: int = 0


class Reconciler:
    """Asks the venue until state and venue agree, and says so in the journal.

    `prefix` is what our client ids start with. Orders with our prefix that the journal does not
    know are cancelled and alerted about; orders of anybody else are left alone.
    """

    def __init__(self, oms: Oms, prefix: str) -> None:
        self._oms = oms
        self._state = oms.state
        self._prefix = prefix
        self._doubts: dict[str, _Doubt] = {}
        self._accounts: dict[str, AccountRecovery] = {}
        self._unsettled: set[str] = set()
        self._next_audit_ns: dict[str, int] = {}
        self._audit_asked_ns: dict[str, int] = {}

    # -- questions -------------------------------------------------------------------------------

    def start(self, account: str, now_ns: int) -> None:
        """Begin to reconcile an account from scratch, as after a restart, takeover or reconnect."""
        self._accounts[account] = AccountRecovery(started_ns=now_ns)
        self._unsettled.add(account)
        for order in self._state.orders.values():
            if order.account == account and order.status is OrderStatus.UNKNOWN:
                self._doubt(order, now_ns)
        self._ask_account(account, now_ns)

    @property
    def is_asking(self) -> bool:
        """Return whether an order or account is in doubt."""
        return bool(self._doubts or self._unsettled)

    def next_time_ns(self) -> int:
        """Return when a question is due; 0, at once, while an account is not settled."""
        if self._unsettled:
            return 0
        return min((doubt.ask_at_ns for doubt in self._doubts.values()), default=FOREVER_NS)

    def is_ready(self, account: str) -> bool:
        """Return whether every order of the account is settled and its balances are known."""
        recovery = self._accounts.get(account)
        return recovery is not None and recovery.ready_ns > 0

    def waiting_for(self, account: str) -> str:
        """Say in words what the account's recovery still waits for; empty when it is ready."""
        recovery = self._accounts.get(account)
        if recovery is None:
            return "not started"
        if recovery.ready_ns:
            return ""
        missing = [
            name
            for name, answered in (
                ("open orders", recovery.open_orders_ns),
                ("fills", recovery.fills_ns),
                ("balances and positions", recovery.account_ns),
            )
            if not answered
        ]
        doubts = [client_id for client_id, doubt in self._doubts.items() if doubt.account == account]
        if doubts:
            missing.append(f"the fate of {len(doubts)} orders ({', '.join(doubts[:3])}, …)")
        return ", ".join(missing)

    def on_timer(self, now_ns: int) -> None:
        """Ask what is due, and doubt requests that went unanswered for too long."""
        window_ns = self._oms.gate.order_window_ns
        for order in list(self._state.orders.values()):
            if order.status in _PENDING and now_ns - order.updated_ns > window_ns:
                self.on_report(
                    order.account,
                    RequestUnanswered(order.client_id, f"no answer for {window_ns / 1e9:g} s", now_ns),
                    now_ns,
                )
        for client_id, doubt in list(self._doubts.items()):
            if now_ns >= doubt.ask_at_ns:
                self._ask_order(client_id, doubt, now_ns)
        for account, recovery in self._accounts.items():
            if not recovery.ready_ns:
                if now_ns - recovery.asked_ns >= ASK_AGAIN_NS:
                    self._ask_account(account, now_ns)
                self._check_ready(account, recovery, now_ns)
            elif now_ns >= self._next_audit_ns.get(account, 0):
                self._next_audit_ns[account] = now_ns + AUDIT_EVERY_NS
                self._audit_asked_ns[account] = now_ns
                self._oms.ask(account, QueryOpenOrders())

    # -- answers ---------------------------------------------------------------------------------

    def on_report(self, account: str, report: e.OrderReport, now_ns: int) -> None:
        """Take in what the venue says of one order, and ask further where that leaves a doubt."""
        client_id = report.client_id
        order = self._state.orders.get(client_id) or self._state.retired.get(client_id)
        if order is None:
            self._stranger(account, report, now_ns)
            return
        if isinstance(report, OrderFilled) and report.trade_id in order.trade_ids:
            return  # told twice; nothing changes, so nothing is journaled
        self._oms.commit(e.Reported(account, report), now_ns)
        if isinstance(report, OrderSnapshot):
            self._on_snapshot(order, report, now_ns)
        elif isinstance(report, OrderNotFound):
            self._on_not_found(order, report, now_ns)
        elif isinstance(report, OrderCancelled | OrderExpired) and (report.filled or _ZERO) > order.filled:
            self._miss_fills(order, report.filled or _ZERO, now_ns)
        doubt = self._doubts.get(client_id)
        if order.status is OrderStatus.UNKNOWN:
            if doubt is None:
                self._doubt(order, now_ns)
        elif doubt is not None and order.filled >= doubt.expected_filled:
            del self._doubts[client_id]
            self._ask_for_balances(account, now_ns)

    def on_open_orders(self, account: str, snapshot: OpenOrdersSnapshot, now_ns: int) -> None:
        """Compare the venue's open orders with ours; doubt what differs."""
        recovery = self._accounts[account]
        is_audit = recovery.ready_ns > 0
        asked_ns = self._audit_asked_ns.get(account, 0) if is_audit else recovery.asked_ns
        if not recovery.open_orders_ns:
            recovery.open_orders_ns = now_ns
        at_venue = {order.client_id: order for order in snapshot.orders}
        for order in list(self._state.orders.values()):
            if order.account != account:
                continue
            seen = at_venue.pop(order.client_id, None)
            # What changed after the question was put is newer than the answer.
            if order.updated_ns >= asked_ns and order.status is not OrderStatus.UNKNOWN:
                continue
            if seen is not None:
                if order.status is OrderStatus.UNKNOWN or seen.filled > order.filled:
                    self.on_report(account, seen, now_ns)
            elif order.status is not OrderStatus.UNKNOWN:
                self.on_report(
                    account,
                    RequestUnanswered(order.client_id, "not among the venue's open orders", now_ns),
                    now_ns,
                )
        for seen in at_venue.values():
            if seen.client_id not in self._state.retired:
                self._adopt_stray(account, seen, now_ns)
        self._ask_for_balances(account, now_ns)

    def on_fills(self, account: str, snapshot: FillsSnapshot, now_ns: int) -> None:
        """Apply the fills that we did not know."""
        for fill in snapshot.fills:
            self.on_report(account, fill, now_ns)
        recovery = self._accounts[account]
        if not recovery.fills_ns:
            recovery.fills_ns = now_ns
        self._ask_for_balances(account, now_ns)

    def on_account(self, account: str, snapshot: AccountSnapshot, now_ns: int) -> None:
        """Compare balances and positions with ours; adjust, loudly, what stays different."""
        recovery = self._accounts[account]
        if account in self._state.balances:
            drift = self._drift(account, snapshot)
            if drift and recovery.drifts + 1 < DRIFTS_BEFORE_ADJUSTING:
                recovery.drifts += 1
                recovery.account_ns = 0
                return
            if drift:
                self._oms.commit(e.Alert("account_drift", f"account {account}: {'; '.join(drift)}"), now_ns)
                self._adjust_positions(account, snapshot, now_ns)
        recovery.drifts = 0
        recovery.account_ns = now_ns
        self._oms.commit(e.AccountReported(account, snapshot), now_ns)
        self._check_ready(account, recovery, now_ns)

    # -- inside ----------------------------------------------------------------------------------

    def _ask_account(self, account: str, now_ns: int) -> None:
        recovery = self._accounts[account]
        recovery.asked_ns = now_ns
        if not recovery.open_orders_ns:
            self._oms.ask(account, QueryOpenOrders())
        if not recovery.fills_ns:
            # An account that the journal has never seen brings no history of ours with it.
            newest_ns = self._state.last_fill_ns.get(account, 0)
            is_new = account not in self._state.balances
            since_ns = recovery.started_ns if is_new else max(newest_ns - FILL_OVERLAP_NS, 0)
            self._oms.ask(account, QueryFills(since_ns))
        self._ask_for_balances(account, now_ns)

    def _ask_for_balances(self, account: str, now_ns: int) -> None:
        """Ask last of all, because fills found on the way change what the balances should be."""
        recovery = self._accounts[account]
        if recovery.ready_ns or recovery.account_ns or self._has_doubts(account):
            return
        if recovery.open_orders_ns and recovery.fills_ns and now_ns >= recovery.ask_balances_ns:
            recovery.ask_balances_ns = now_ns + ASK_AGAIN_NS
            self._oms.ask(account, QueryAccount())

    def _check_ready(self, account: str, recovery: AccountRecovery, now_ns: int) -> None:
        answered = recovery.open_orders_ns and recovery.fills_ns and recovery.account_ns
        if answered and not self._has_doubts(account):
            recovery.ready_ns = now_ns
            self._unsettled.discard(account)
            self._next_audit_ns[account] = now_ns + AUDIT_EVERY_NS

    def _has_doubts(self, account: str) -> bool:
        return any(doubt.account == account for doubt in self._doubts.values())

    def _doubt(self, order: Order, now_ns: int) -> _Doubt:
        doubt = self._doubts.get(order.client_id)
        if doubt is None:
            doubt = _Doubt(order.account, order.symbol, order.updated_ns, now_ns)
            self._doubts[order.client_id] = doubt
        return doubt

    def _miss_fills(self, order: Order, expected: Decimal, now_ns: int) -> None:
        doubt = self._doubt(order, now_ns)
        doubt.expected_filled = expected

    def _ask_order(self, client_id: str, doubt: _Doubt, now_ns: int) -> None:
        # Fills first: a finished order is settled only when its fills are known.
        if doubt.expected_filled or doubt.not_found:
            order = self._state.orders.get(client_id) or self._state.retired.get(client_id)
            if order is not None:
                self._oms.ask(doubt.account, QueryFills(max(order.created_ns - FILL_OVERLAP_NS, 0)))
        if client_id in self._state.orders:
            self._oms.ask(doubt.account, QueryOrder(client_id, doubt.symbol))
        doubt.asked += 1
        doubt.ask_at_ns = now_ns + min(ASK_AGAIN_NS << min(doubt.asked, 6), AUDIT_EVERY_NS)

    def _on_snapshot(self, order: Order, report: OrderSnapshot, now_ns: int) -> None:
        if report.filled > order.filled:
            self._miss_fills(order, report.filled, now_ns)
            self._doubts[order.client_id].ask_at_ns = now_ns

    def _on_not_found(self, order: Order, report: OrderNotFound, now_ns: int) -> None:
        if order.status is not OrderStatus.UNKNOWN:
            return
        doubt = self._doubt(order, now_ns)
        sent_by_ns = doubt.since_ns + self._oms.gate.order_window_ns
        if report.ts_ns <= sent_by_ns or now_ns <= sent_by_ns:
            # The request may still be under way; its validity window has to pass first.
            doubt.ask_at_ns = sent_by_ns + 1
            return
        doubt.not_found += 1
        was_seen = bool(order.venue_id) or order.filled > _ZERO
        if was_seen and doubt.not_found < 2:
            doubt.ask_at_ns = now_ns  # it lived once: ask for its fills before believing that it is over
            return
        status = OrderStatus.EXPIRED if was_seen else OrderStatus.REJECTED
        proof = "the venue does not know it after its validity window ended"
        self._oms.commit(e.OrderResolved(order.client_id, status, proof), now_ns)
        self._doubts.pop(order.client_id, None)
        if was_seen:
            self._oms.commit(
                e.Alert("order_forgotten", f"order {order.client_id}: {proof}", order.instance), now_ns
            )

    def _stranger(self, account: str, report: e.OrderReport, now_ns: int) -> None:
        """Handle a report of an order that we do not have: ours from long ago, or somebody else's."""
        parsed = parse_client_id(report.client_id, self._prefix)
        if parsed is None:
            return
        if not isinstance(report, OrderFilled):
            return
        known_ns = self._state.last_fill_ns.get(account, 0)
        if report.ts_ns <= known_ns:
            return  # an old fill within the overlap asked for, whose order is retired and forgotten
        instance = next(
            (r.instance for r in self._state.instances.values() if r.number == parsed.instance_number), ""
        )
        fill = Fill(
            report.client_id,
            instance,
            account,
            report.symbol,
            report.side,
            report.price,
            report.qty,
            report.fee,
            report.fee_currency,
            report.liquidity,
            report.trade_id,
            report.ts_ns,
        )
        self._oms.commit(e.FillAdopted(fill), now_ns)
        text = f"trade {report.trade_id} of order {report.client_id} is ours by its id, but no entry says so"
        self._oms.commit(e.Alert("fill_adopted", text, instance), now_ns)

    def _adopt_stray(self, account: str, seen: OrderSnapshot, now_ns: int) -> None:
        """Take charge of an open order with our prefix that the journal does not know: cancel it."""
        parsed = parse_client_id(seen.client_id, self._prefix)
        if parsed is None:
            return
        instance = next(
            (r.instance for r in self._state.instances.values() if r.number == parsed.instance_number), ""
        )
        order = Order(
            seen.client_id,
            instance,
            account,
            seen.symbol,
            seen.side,
            OrderType.LIMIT,
            TimeInForce.GTC,
            seen.price,
            seen.qty,
            OrderStatus.OPEN,
            venue_id=seen.venue_id,
            created_ns=now_ns,
            updated_ns=now_ns,
            reason="found at the venue",
        )
        self._oms.commit(e.OrderAdopted(order), now_ns)
        self._oms.commit(
            e.Alert("order_adopted", f"order {seen.client_id} was live, but no entry says so", instance),
            now_ns,
        )
        if seen.filled > _ZERO:
            self._miss_fills(self._state.orders[seen.client_id], seen.filled, now_ns)
        self._oms.cancel(seen.client_id, "unknown to the journal", now_ns)

    def _drift(self, account: str, snapshot: AccountSnapshot) -> list[str]:
        ours = self._state.balances[account]
        venue = {balance.currency: balance.total for balance in snapshot.balances}
        drift = [
            f"balance {currency}: ours {ours.get(currency, _ZERO)}, the venue's {venue.get(currency, _ZERO)}"
            for currency in sorted(ours.keys() | venue.keys())
            if ours.get(currency, _ZERO) != venue.get(currency, _ZERO)
        ]
        drift += [
            f"position {symbol}: ours {mine}, the venue's {theirs}"
            for symbol, mine, theirs in self._position_drift(account, snapshot)
        ]
        return drift

    def _position_drift(self, account: str, snapshot: AccountSnapshot) -> list[tuple[str, Decimal, Decimal]]:
        """Return (symbol, ours, the venue's) where they differ; spot holdings are balances."""
        venue = {position.symbol: position.qty for position in snapshot.positions}
        rows = []
        for symbol, instrument in self._state.instruments.get(account, {}).items():
            if instrument.kind is InstrumentKind.SPOT:
                continue
            mine, theirs = self._state.account_qty(account, symbol), venue.get(symbol, _ZERO)
            if mine != theirs:
                rows.append((symbol, mine, theirs))
        return rows

    def _adjust_positions(self, account: str, snapshot: AccountSnapshot, now_ns: int) -> None:
        entry_prices = {position.symbol: position.entry_price for position in snapshot.positions}
        for symbol, mine, theirs in self._position_drift(account, snapshot):
            self._oms.commit(
                e.PositionAdjusted(
                    account,
                    "",
                    symbol,
                    theirs - mine,
                    entry_prices.get(symbol, _ZERO),
                    "the venue's position differs",
                ),
                now_ns,
            )
