"""What the pushes about our orders mean: each is told to the host once, as the report that it is.

OKX's answer to an order, amend or cancel says only that it was taken in; what became of it is pushed
on the `orders` channel, as the whole order each time, with the trade that caused the push if one did.
This remembers, per order, what was told already: so duplicates and late pushes say nothing new. A
post-only order that would cross is taken in and then cancelled: to the host it was rejected.
"""

from collections import OrderedDict
from decimal import Decimal
from typing import Final

from msgspec import Struct

from host.api import (
    AmendOrder,
    AmendRejected,
    OrderAccepted,
    OrderAmended,
    OrderCancelled,
    OrderExpired,
    OrderRejected,
    RejectReason,
    Report,
)

from .errors import ERRORS, code_number, reason_of_cancel
from .frames import OrderRow
from .order_codec import ends_by_itself, fill_of, is_live, is_trade, price_of, snapshot_of, time_ns
from .products import Listing

__all__ = ["OrderTracker"]

_MOST_REMEMBERED: Final = 10_000
"""Orders whose end was told are kept so many deep, against what is told again late."""
_ASKED_FOR: Final = frozenset({"", "1"})
"""`cancelSource` of an order that its owner cancelled."""
_AMENDED: Final = "0"
_NOT_AMENDED: Final = "-1"


class _Told(Struct):
    """What the host knows of one order."""

    is_accepted: bool = False
    is_done: bool = False
    price: Decimal | None = None
    qty: Decimal | None = None
    """None: not known, as after a change of the adapter's version."""
    filled: Decimal = Decimal(0)
    trade_ids: set[str] = set()
    updated_ns: int = 0
    refused: str = ""
    """The refused amend that was told last, so that it is not told twice."""


class OrderTracker:
    """Turns order rows into reports, for one account."""

    def __init__(self) -> None:
        self._told: OrderedDict[str, _Told] = OrderedDict()

    def amend_sent(self, amend: AmendOrder) -> None:
        """Note an amend on its way: of an order of before this adapter, the host knows that it is there."""
        if amend.client_id not in self._told:
            self._remember(amend.client_id, _Told(is_accepted=True))

    def reports(self, listing: Listing, row: OrderRow, ts_ns: int) -> list[Report]:
        """Return what a push says that the host does not know; raise `BadFrame`.

        `ts_ns` is the host's time.
        """
        client_id = row.cl_ord_id
        if not client_id:
            return []  # placed by hand elsewhere, or by the venue: not one of ours
        live, updated_ns = is_live(row), time_ns(row.u_time)
        fill = fill_of(listing, row, time_ns(row.fill_time) or updated_ns) if is_trade(row) else None
        told = self._told.get(client_id)
        if told is None:
            told = self._remember(client_id, _Told())
        out: list[Report] = []
        is_late = told.is_done or updated_ns < told.updated_ns
        if not (is_late or told.is_accepted) and (live or fill is not None):
            told.is_accepted = True
            out.append(OrderAccepted(client_id, row.ord_id, ts_ns))
        if fill is not None and fill.trade_id not in told.trade_ids:
            told.trade_ids.add(fill.trade_id)
            told.filled += fill.qty
            out.append(fill)  # money has moved, however late it is told
        if is_late:
            return out
        told.updated_ns = updated_ns
        out += self._amends(told, listing, row, ts_ns)
        if not live:
            told.is_done = True
            out += self._ended(told, listing, row, ts_ns)
            told.is_accepted = True
        return out

    def _amends(self, told: _Told, listing: Listing, row: OrderRow, ts_ns: int) -> list[Report]:
        if row.amend_result == _NOT_AMENDED:
            refused = f"{row.req_id} {row.u_time}"
            if refused == told.refused:
                return []
            told.refused = refused
            reason = ERRORS.verdict(code_number(row.code), row.msg).reason
            return [AmendRejected(row.cl_ord_id, reason, row.msg or f"code {row.code}", ts_ns)]
        price, qty = price_of(row), listing.qty(row.sz)
        is_known = told.qty is not None
        is_changed = (price, qty) != (told.price, told.qty)
        told.price, told.qty = price, qty
        if price is None or not is_changed or not (is_known or row.amend_result == _AMENDED):
            return []
        return [OrderAmended(row.cl_ord_id, price, qty, ts_ns)]

    def _ended(self, told: _Told, listing: Listing, row: OrderRow, ts_ns: int) -> list[Report]:
        client_id, filled = row.cl_ord_id, listing.qty(row.acc_fill_sz)
        if row.state == "filled":
            # Its trades say it all. If some were missed, the host asks for them when it sees the total.
            return [] if told.filled == filled else [snapshot_of(listing, row, ts_ns)]
        reason, source = reason_of_cancel(row.cancel_source), row.cancel_source
        if reason is RejectReason.WOULD_TAKE and not told.is_accepted and not filled:
            return [OrderRejected(client_id, reason, "post-only: it would have crossed", ts_ns)]
        accepted = [] if told.is_accepted else [OrderAccepted(client_id, row.ord_id, ts_ns)]
        if ends_by_itself(row) and source != "1":
            return [*accepted, OrderExpired(client_id, ts_ns, RejectReason.NOT_FILLABLE.value, filled)]
        if reason is not RejectReason.OTHER:
            text = reason.value
        else:
            text = "" if source in _ASKED_FOR else row.cancel_source_reason or f"cancelSource {source}"
        return [*accepted, OrderCancelled(client_id, ts_ns, text, filled)]

    def _remember(self, client_id: str, told: _Told) -> _Told:
        self._told[client_id] = told
        if len(self._told) > _MOST_REMEMBERED:
            oldest = next((key for key, value in self._told.items() if value.is_done), None)
            if oldest is not None:
                del self._told[oldest]
        return told
