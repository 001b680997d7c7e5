"""What the engine says about orders to the protocols that took them: answers and executions.

A house client hears reports (`host.api`); a real venue's protocol tells more: how much of an order
had filled at each trade, what it was worth, what it was called. So the engine also writes an
`Execution report` per thing that happens to an order, in the sense of FIX's ExecType.
"""

from decimal import Decimal
from enum import StrEnum
from typing import Any, Final

from msgspec import Struct

from host.api import OrderFilled, OrderStatus, RejectReason
from venue.market import VenueOrder
from venue.records import OrderRecord
from venue.validation import Refusal

__all__ = ["HOUSE_RULES", "Answer", "EntryRules", "ExecType", "ExecutionReport", "report_of"]


class ExecType(StrEnum):
    """What happened to an order."""

    NEW = "new"
    REPLACED = "replaced"
    TRADE = "trade"
    CANCELED = "canceled"
    EXPIRED = "expired"


class ExecutionReport(Struct, frozen=True):
    """One thing that happened to one order, with the order as it was just after it.

    Prices and quantities are the order's at that moment: the order itself may have moved on since.
    """

    kind: ExecType
    order: VenueOrder
    """Only for what never changes: ids, account, symbol, side, type, terms of validity."""
    terms: Any
    """What the protocol that took the order wanted to remember of it; None after a restart."""
    price: Decimal | None
    qty: Decimal
    filled: Decimal
    quote_filled: Decimal
    """The sum of price × quantity over the fills so far."""
    status: OrderStatus
    ts_ns: int
    fill: OrderFilled | None = None
    realised: Decimal = Decimal(0)
    """The profit that the fill realised, in the settlement currency of a perpetual."""
    reason: str = ""


class EntryRules(Struct, frozen=True):
    """In what venues differ when an order comes in."""

    is_id_unique_ever: bool = True
    """Otherwise a client id may be used again once its order is done."""
    refused: frozenset[RejectReason] = frozenset({RejectReason.WOULD_TAKE, RejectReason.NOT_FILLABLE})
    """With which of these the order is refused; with the others it is accepted and ends at once."""
    amend_keeps_place: bool = True
    """Whether an amend to less at the same price keeps the order's place in the queue."""


HOUSE_RULES: Final = EntryRules()


class Answer(Struct, frozen=True):
    """What came of one request. An order is accepted, changed or cancelled where `refusal` is None."""

    ts_ns: int
    refusal: Refusal | None = None
    record: OrderRecord | None = None
    executions: tuple[ExecutionReport, ...] = ()
    """All that happened to the order in this request, in order."""


def report_of(
    kind: ExecType,
    record: OrderRecord,
    status: OrderStatus,
    ts_ns: int,
    *,
    fill: OrderFilled | None = None,
    realised: Decimal = Decimal(0),
    reason: str = "",
) -> ExecutionReport:
    """Return the execution report of `record` as it is now."""
    order = record.order
    return ExecutionReport(
        kind,
        order,
        record.terms,
        order.price,
        order.qty,
        record.booked,
        record.quote_filled,
        status,
        ts_ns,
        fill,
        realised,
        reason,
    )
