"""Whether an adapter that is not live yet sees the account that we trade."""

from typing import TYPE_CHECKING, Any, Final

from host.api import (
    AccountSnapshot,
    ExchangeAdapter,
    FillsSnapshot,
    OpenOrdersSnapshot,
    OrderStatus,
    QueryAccount,
    QueryFills,
    QueryOpenOrders,
    Report,
)
from host.core.client_id import parse_client_id
from host.core.doubts import FILL_OVERLAP_NS
from host.core.drift import drift

if TYPE_CHECKING:
    from host.runtime.engine import Engine

__all__ = ["AccountView"]

ASK_AGAIN_NS: Final = 500_000_000
"""How long answers are waited for before the questions are put again."""
COMPARE_AGAIN_NS: Final = 50_000_000
"""The same where the answers differ, because something was in motion."""
ANSWERS: Final = (OpenOrdersSnapshot, FillsSnapshot, AccountSnapshot)
_RESTING: Final = (OrderStatus.OPEN, OrderStatus.PARTIALLY_FILLED)


class AccountView:
    """Asks an adapter for open orders, fills and balances until they are what the journal says.

    Where the live version has lost touch there is nothing to compare with (`is_comparable`): then
    answers are enough, and the account is reconciled after the swap.
    """

    def __init__(
        self, engine: "Engine", account: str, adapter: ExchangeAdapter[Any], *, is_comparable: bool
    ) -> None:
        self._engine = engine
        self._state = engine.state
        self._account = account
        self._adapter = adapter
        self._is_comparable = is_comparable
        self._answers: dict[type[Report], Any] = {}
        self._asked_ns = 0
        self._fills_when_asked = 0
        self._difference = ""
        self._has_agreed = False

    def take(self, report: Report) -> bool:
        """Take in an answer; return False for a report that is none."""
        if not isinstance(report, ANSWERS):
            return False
        if self._asked_ns and not self._has_agreed:
            self._answers[type(report)] = report
            if len(self._answers) == len(ANSWERS):
                self._difference = self._compare()
                self._has_agreed = not self._difference
        return True

    def waiting_for(self, now_ns: int) -> str:
        """Ask, where it is time to; say in words what is missing or different, or nothing.

        Raises what the adapter's `send` raises.
        """
        if self._has_agreed:
            return ""
        pause_ns = COMPARE_AGAIN_NS if self._difference else ASK_AGAIN_NS
        if not self._asked_ns or now_ns - self._asked_ns >= pause_ns:
            self._ask(now_ns)
        if self._difference:
            return self._difference
        names = {OpenOrdersSnapshot: "open orders", FillsSnapshot: "fills", AccountSnapshot: "balances"}
        missing = [name for kind, name in names.items() if kind not in self._answers]
        return f"no answer yet about {', '.join(missing)}" if missing else ""

    def _ask(self, now_ns: int) -> None:
        self._answers.clear()
        self._asked_ns = now_ns
        self._fills_when_asked = self._state.fills_booked.get(self._account, 0)
        deadline_ns = now_ns + self._engine.settings.order_window_ns
        since_ns = max(self._state.last_fill_ns.get(self._account, now_ns) - FILL_OVERLAP_NS, 0)
        for query in (QueryOpenOrders(), QueryFills(since_ns), QueryAccount()):
            self._adapter.send(query, deadline_ns)

    def _compare(self) -> str:
        if not self._is_comparable:
            return ""
        return (
            self._orders(self._answers[OpenOrdersSnapshot])
            or self._fills(self._answers[FillsSnapshot])
            or self._balances(self._answers[AccountSnapshot])
        )

    def _orders(self, snapshot: OpenOrdersSnapshot) -> str:
        made_ns = min(self._asked_ns, snapshot.ts_ns)
        at_venue = {order.client_id: order for order in snapshot.orders}
        for order in self._state.orders.values():
            seen = at_venue.pop(order.client_id, None)
            if order.account != self._account or order.status not in _RESTING or order.updated_ns >= made_ns:
                continue  # not the account's, or in motion
            if seen is None:
                return f"order {order.client_id} is open here, it does not see it"
            if (seen.price, seen.qty) != (order.price, order.qty):
                return (
                    f"order {order.client_id} is {order.qty} at {order.price} here, "
                    f"it sees {seen.qty} at {seen.price}"
                )
        for client_id in at_venue:
            retired = self._state.retired.get(client_id)
            is_ours = parse_client_id(client_id, self._engine.settings.order_id_prefix) is not None
            if is_ours and (retired is None or retired.updated_ns < made_ns):
                return f"it sees order {client_id}, which is not open here"
        return ""

    def _fills(self, snapshot: FillsSnapshot) -> str:
        for fill in snapshot.fills:
            order = self._state.orders.get(fill.client_id) or self._state.retired.get(fill.client_id)
            if order is not None and fill.trade_id not in order.trade_ids and fill.ts_ns < self._asked_ns:
                return f"it sees fill {fill.trade_id} of order {fill.client_id}, which is not known here"
        return ""

    def _balances(self, snapshot: AccountSnapshot) -> str:
        if self._fills_when_asked != self._state.fills_booked.get(self._account, 0):
            return "fills came while balances were asked for"
        return "; ".join(drift(self._state, self._account, snapshot))
