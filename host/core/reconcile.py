"""Finding out the truth from the venue: after a restart or takeover, and now and then after that.

One code path serves both. The venue's open orders, fills, balances and positions are asked for and
compared with ours; orders that differ are in doubt (`host/core/doubts.py`) until the venue settles
their fate, and balances are compared last of all, because fills found on the way change what they
should be. Sans-IO: queries go out through the OMS's outbox, answers come in as reports.
"""

from typing import Final

from msgspec import Struct

from host.api import (
    AccountSnapshot,
    FillsSnapshot,
    OpenOrdersSnapshot,
    Order,
    OrderSnapshot,
    OrderStatus,
    QueryAccount,
    QueryFills,
    QueryOpenOrders,
)
from host.core import entries as e
from host.core.doubts import ASK_AGAIN_NS, FILL_OVERLAP_NS, Doubts
from host.core.drift import adjustments, drift
from host.core.oms import Oms

__all__ = ["AccountRecovery", "Reconciler"]

AUDIT_EVERY_NS: Final = 30_000_000_000
"""How often open orders and fills are compared with the venue's while nothing is in doubt."""
AUDIT_BACK_NS: Final = 6 * AUDIT_EVERY_NS
"""An audit looks at the fills of so long: the answers to the last few may have been lost."""
BALANCES_EVERY_NS: Final = 300_000_000_000
"""How often balances and positions are compared while an account trades: a deposit, a payment of funding,
somebody else's order move them, and no report says so."""
POSITIONS_EVERY_NS: Final = 10_000_000_000
"""How often they are asked for where a limit needs to know how far a position is from its liquidation."""
BALANCES_AGAIN_NS: Final = 10_000_000_000
"""How long after a question they are asked for again while an account trades."""
DRIFTS_BEFORE_ADJUSTING: Final = 3
"""A drift of position or balance must show in so many answers in a row, for fills may be under way."""

_RESTING: Final = (OrderStatus.OPEN, OrderStatus.PARTIALLY_FILLED)


class AccountRecovery(Struct):
    """How far the reconciliation of an account is. Times are host time, 0: not yet."""

    started_ns: int = 0
    asked_ns: int = 0
    open_orders_ns: int = 0
    fills_ns: int = 0
    account_ns: int = 0
    """When the balances last agreed; 0 when they are to be compared, again or for the first time."""
    ask_balances_ns: int = 0
    """When balances may be asked for again."""
    fills_when_asked: int = -1
    """How many fills were booked when the balances were asked for; -1 while no answer is awaited."""
    drifts: int = 0
    ready_ns: int = 0
    audit_ns: int = 0
    """When the open orders are compared next."""


class Reconciler:
    """Asks the venue until state and venue agree, and says so in the journal.

    `prefix` is what our client ids start with. Orders with our prefix that the journal does not
    know are cancelled and alerted about; orders of anybody else are left alone.
    """

    def __init__(self, oms: Oms, prefix: str) -> None:
        self._oms = oms
        self._state = oms.state
        self._doubts = Doubts(oms, prefix, self._look_again, self._ask_for_balances)
        self._accounts: dict[str, AccountRecovery] = {}
        self._unsettled: set[str] = set()

    # -- questions -------------------------------------------------------------------------------

    def start(self, account: str, now_ns: int) -> None:
        """Begin to reconcile an account from scratch, as after a restart, takeover or reconnect."""
        self._accounts[account] = AccountRecovery(started_ns=now_ns)
        self._unsettled.add(account)
        self._doubts.on_timer(now_ns)
        self._ask_account(account, now_ns)

    def inherit(self, now_ns: int, *, may_arrive: bool) -> None:
        """Go on with the orders of another node, whose times are by its own clock; before any `start`.

        It has sent nothing since `now_ns`, and what it sent may still take effect if `may_arrive`.
        """
        self._doubts.inherit(now_ns, may_arrive=may_arrive)

    @property
    def is_asking(self) -> bool:
        """Return whether an order or account is in doubt."""
        return bool(self._doubts or self._unsettled)

    def next_time_ns(self) -> int:
        """Return when a question is due; 0, at once, while an account is not settled."""
        return 0 if self._unsettled else self._doubts.next_time_ns()

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
        doubts = list(self._doubts.of(account))
        if doubts:
            names = ", ".join(doubts[:3]) + (", …" if len(doubts) > 3 else "")
            missing.append(f"the fate of {len(doubts)} order{'s' if len(doubts) > 1 else ''} ({names})")
        return ", ".join(missing)

    def on_timer(self, now_ns: int) -> None:
        """Ask what is due, doubt what went unanswered for too long, and cancel again what still rests."""
        self._doubts.on_timer(now_ns)
        self._oms.retry_cancels(now_ns)
        for account, recovery in self._accounts.items():
            if not recovery.ready_ns:
                if now_ns - recovery.asked_ns >= ASK_AGAIN_NS:
                    self._ask_account(account, now_ns)
                self._check_ready(account, recovery, now_ns)
            elif now_ns >= recovery.audit_ns:
                recovery.audit_ns = now_ns + AUDIT_EVERY_NS
                recovery.asked_ns = now_ns
                self._oms.outbox.ask(account, QueryFills(max(now_ns - AUDIT_BACK_NS, 0)), now_ns)
                self._oms.outbox.ask(account, QueryOpenOrders(), now_ns)
            if recovery.ready_ns:
                is_watched = self._oms.risk.needs_positions(account)
                if now_ns - recovery.account_ns >= (POSITIONS_EVERY_NS if is_watched else BALANCES_EVERY_NS):
                    recovery.account_ns = 0
                self._ask_for_balances(account, now_ns)

    # -- answers ---------------------------------------------------------------------------------

    def on_report(self, account: str, report: e.OrderReport, now_ns: int) -> None:
        """Take in what the venue says of one order, and ask further where that leaves a doubt."""
        self._doubts.on_report(account, report, now_ns)

    def on_open_orders(self, account: str, snapshot: OpenOrdersSnapshot, now_ns: int) -> None:
        """Compare the venue's open orders with ours; doubt what differs."""
        recovery = self._accounts.get(account)
        if recovery is None:
            return
        if not recovery.open_orders_ns:
            recovery.open_orders_ns = now_ns
        # What changed after the list was made is newer than it; a late answer is older than its question.
        made_ns = min(recovery.asked_ns, snapshot.ts_ns)
        at_venue = {order.client_id: order for order in snapshot.orders}
        for order in list(self._state.orders.values()):
            if order.account != account:
                continue
            seen = at_venue.pop(order.client_id, None)
            if order.status is OrderStatus.UNKNOWN:
                if seen is not None:
                    self.on_report(account, seen, now_ns)
            elif order.updated_ns < made_ns:
                self._compare(order, seen, now_ns)
        window_ns = self._oms.outbox.gate.order_window_ns
        for seen in at_venue.values():
            retired = self._state.retired.get(seen.client_id)
            # A venue's list may lag behind its reports for a moment: that is no order come back.
            if retired is None or retired.updated_ns + window_ns < made_ns:
                self._doubts.adopt(account, seen, now_ns)
        self._ask_for_balances(account, now_ns)

    def on_fills(self, account: str, snapshot: FillsSnapshot, now_ns: int) -> None:
        """Apply the fills that we did not know."""
        for fill in snapshot.fills:
            self.on_report(account, fill, now_ns)
        self._doubts.fills_listed(account)
        recovery = self._accounts.get(account)
        if recovery is not None and not recovery.fills_ns:
            recovery.fills_ns = now_ns
            self._ask_for_balances(account, now_ns)

    def on_account(self, account: str, snapshot: AccountSnapshot, now_ns: int) -> None:
        """Compare balances and positions with ours; adjust, loudly, what stays different."""
        recovery = self._accounts.get(account)
        if recovery is None or recovery.fills_when_asked < 0:
            return  # asked for by nobody, or told twice
        is_old = recovery.fills_when_asked != self._fills_booked(account)
        recovery.fills_when_asked = -1
        if is_old:  # it may be from before the fills that came meanwhile
            self._ask_at_once(account, recovery, now_ns)
            return
        differences = drift(self._state, account, snapshot)
        is_known = account in self._state.balances
        if differences and is_known and recovery.drifts + 1 < DRIFTS_BEFORE_ADJUSTING:
            recovery.drifts += 1
            recovery.fills_ns = 0  # perhaps a fill was lost: look before the next comparison
            if recovery.drifts == 1:  # as a rule its report is just overtaken
                self._ask_at_once(account, recovery, now_ns)
            return
        if differences:
            text = f"account {account}: {'; '.join(differences)}"
            self._oms.commit(e.Alert("account_drift", text), now_ns)
            for adjustment in adjustments(self._state, account, snapshot):
                self._oms.commit(adjustment, now_ns)
        recovery.drifts = 0
        recovery.account_ns = now_ns
        self._oms.commit(e.AccountReported(account, snapshot), now_ns)
        self._check_ready(account, recovery, now_ns)

    # -- inside ----------------------------------------------------------------------------------

    def _compare(self, order: Order, seen: OrderSnapshot | None, now_ns: int) -> None:
        if seen is None:
            self._doubts.unanswered(order, "not among the venue's open orders", now_ns)
        elif seen.filled > order.filled:
            self.on_report(order.account, seen, now_ns)
        elif order.status in _RESTING and (seen.price, seen.qty) != (order.price, order.qty):
            text = f"{order.qty} at {order.price} here, {seen.qty} at {seen.price} at the venue"
            self._doubts.unanswered(order, text, now_ns)

    def _look_again(self, account: str, now_ns: int) -> None:
        """Have the list of open orders asked for soon: the venue spoke of an order that we do not know."""
        recovery = self._accounts.get(account)
        if recovery is not None:
            recovery.audit_ns = min(recovery.audit_ns, now_ns)
            recovery.open_orders_ns = 0

    def _ask_account(self, account: str, now_ns: int) -> None:
        recovery = self._accounts[account]
        recovery.asked_ns = now_ns
        if not recovery.open_orders_ns:
            self._oms.outbox.ask(account, QueryOpenOrders(), now_ns)
        if not recovery.fills_ns:
            # An account that the journal has never seen brings no history of ours with it.
            newest_ns = self._state.last_fill_ns.get(account, 0)
            is_new = account not in self._state.balances
            since_ns = recovery.started_ns if is_new else max(newest_ns - FILL_OVERLAP_NS, 0)
            self._oms.outbox.ask(account, QueryFills(since_ns), now_ns)
        self._ask_for_balances(account, now_ns)

    def _ask_at_once(self, account: str, recovery: AccountRecovery, now_ns: int) -> None:
        """Ask again without a pause where nobody may trade until the answer agrees."""
        if not recovery.ready_ns:
            recovery.ask_balances_ns = now_ns
            self._ask_account(account, now_ns)

    def _ask_for_balances(self, account: str, now_ns: int) -> None:
        """Ask last of all, because fills found on the way change what the balances should be."""
        recovery = self._accounts.get(account)
        if recovery is None or recovery.account_ns or self._has_doubts(account):
            return
        if not (recovery.open_orders_ns and recovery.fills_ns and now_ns >= recovery.ask_balances_ns):
            return
        orders = self._state.orders.values()
        if account not in self._state.balances and any(order.account == account for order in orders):
            return  # what a new account has cannot be told while its orders may still trade
        recovery.ask_balances_ns = now_ns + (BALANCES_AGAIN_NS if recovery.ready_ns else ASK_AGAIN_NS)
        recovery.fills_when_asked = self._fills_booked(account)
        self._oms.outbox.ask(account, QueryAccount(), now_ns)

    def _fills_booked(self, account: str) -> int:
        return self._state.fills_booked.get(account, 0)

    def _check_ready(self, account: str, recovery: AccountRecovery, now_ns: int) -> None:
        answered = recovery.open_orders_ns and recovery.fills_ns and recovery.account_ns
        if answered and not recovery.ready_ns and not self._has_doubts(account):
            recovery.ready_ns = now_ns
            self._unsettled.discard(account)
            recovery.audit_ns = now_ns + AUDIT_EVERY_NS

    def _has_doubts(self, account: str) -> bool:
        return any(True for _ in self._doubts.of(account))
