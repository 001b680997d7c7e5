"""What the pushes about our orders mean: each is told to the host once, as the report that it is.

Bybit's answer to an order, amend or cancel says only that it was taken in; what became of it is
pushed on the `order` topic, as the whole order each time. This remembers, per order, what was told
already: so duplicates, late frames and the second `Filled` that a late cancel causes say nothing
new. A post-only order that would cross is taken in and then cancelled: to the host it was rejected.
"""

from collections import OrderedDict
from collections.abc import Sequence
from decimal import Decimal
from typing import Final

from msgspec import Struct

from host.api import (
    AmendOrder,
    OrderAccepted,
    OrderAmended,
    OrderCancelled,
    OrderExpired,
    OrderRejected,
    RejectReason,
    Report,
)

from .errors import reason_of_end
from .frames import OrderRow
from .order_codec import amount, is_live, price_of

__all__ = ["OrderTracker"]

_MOST_REMEMBERED: Final = 10_000
"""Orders whose end was told are kept so many deep, against what is told again late."""
_ASKED_FOR: Final = frozenset({"", "UNKNOWN", "CancelByUser"})
_ZERO: Final = Decimal(0)


class _Told(Struct):
    """What the host knows of one order."""

    is_accepted: bool = False
    is_done: bool = False
    price: Decimal | None = None
    qty: Decimal | None = None
    """None: not known, as after a change of the adapter's version."""
    updated_ms: int = 0
    asked: tuple[Decimal, Decimal] | None = None
    """Price and quantity of the amend that was sent last and is not confirmed."""


class OrderTracker:
    """Turns order rows into reports, for one account."""

    def __init__(self) -> None:
        self._told: OrderedDict[str, _Told] = OrderedDict()

    def amend_sent(self, amend: AmendOrder) -> None:
        """Note an amend on its way, so that it is recognised when it took effect."""
        told = self._told.get(amend.client_id)
        if told is None:
            # An order of before this adapter: the host knows that it is there.
            told = self._remember(amend.client_id, _Told(is_accepted=True))
        told.asked = amend.price, amend.qty

    def amend_refused(self, client_id: str) -> None:
        """Note that the last amend did nothing."""
        told = self._told.get(client_id)
        if told is not None:
            told.asked = None

    def reports(self, row: OrderRow, ts_ns: int) -> Sequence[Report]:
        """Return what a push says that the host does not know; raise `BadFrame`.

        `ts_ns` is the row's own time, as host time.
        """
        client_id = row.order_link_id
        if not client_id:
            return ()  # placed by hand elsewhere: not one of ours
        live = is_live(row)
        told = self._told.get(client_id)
        if told is None:
            told = self._remember(client_id, _Told())
        if told.is_done or row.updated_time < told.updated_ms:
            return ()
        told.updated_ms = row.updated_time
        if live:
            return self._live(told, row, ts_ns)
        told.is_done = True
        reports = self._ended(told, row, ts_ns)
        told.is_accepted = True
        return reports

    def _live(self, told: _Told, row: OrderRow, ts_ns: int) -> Sequence[Report]:
        reports: list[Report] = []
        price = price_of(row)
        if not told.is_accepted:
            told.is_accepted = True
            reports.append(OrderAccepted(row.order_link_id, row.order_id, ts_ns))
        now = (price, row.qty)
        was = (told.price, told.qty)
        is_changed = now == told.asked if told.qty is None else now != was
        if price is not None and is_changed:
            reports.append(OrderAmended(row.order_link_id, price, row.qty, ts_ns))
        if now == told.asked:
            told.asked = None
        if told.qty is not None or told.asked is None:
            told.price, told.qty = now
        return reports

    def _ended(self, told: _Told, row: OrderRow, ts_ns: int) -> Sequence[Report]:
        client_id, filled = row.order_link_id, amount(row.cum_exec_qty)
        accepted = [] if told.is_accepted else [OrderAccepted(client_id, row.order_id, ts_ns)]
        if row.order_status == "Filled":
            return accepted  # its executions say the rest
        reason = reason_of_end(row.reject_reason)
        never_was = not told.is_accepted and filled == _ZERO
        if row.order_status == "Rejected" or reason is RejectReason.WOULD_TAKE:
            if never_was:
                return [OrderRejected(client_id, reason, row.reject_reason, ts_ns)]
            return [*accepted, OrderCancelled(client_id, ts_ns, _words(reason, row), filled)]
        if reason is RejectReason.NOT_FILLABLE:
            return [*accepted, OrderExpired(client_id, ts_ns, reason.value, filled)]
        return [*accepted, OrderCancelled(client_id, ts_ns, _words(reason, row), filled)]

    def _remember(self, client_id: str, told: _Told) -> _Told:
        self._told[client_id] = told
        if len(self._told) > _MOST_REMEMBERED:
            oldest = next((key for key, value in self._told.items() if value.is_done), None)
            if oldest is not None:
                del self._told[oldest]
        return told


def _words(reason: RejectReason, row: OrderRow) -> str:
    """Say why an order ended: our word, else the venue's; nothing where we asked for it."""
    if reason is not RejectReason.OTHER:
        return reason.value
    return "" if row.cancel_type in _ASKED_FOR else row.cancel_type
