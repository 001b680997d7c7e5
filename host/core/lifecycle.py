"""The life of one order, as a table.

Every move of an order's status goes through `next_status`. A pair that the table does not hold is
an illegal move: the caller leaves the order as it is and reports an anomaly. Fills are never
illegal, because money has moved: a fill may come before its acknowledgement and after a cancel.
"""

from decimal import Decimal
from enum import Enum, auto
from typing import Final

from host.api import OrderStatus

__all__ = ["TRANSITIONS", "OrderEvent", "next_status"]


class OrderEvent(Enum):
    """What can happen to an order, by our action or by the venue's word."""

    __hash__ = object.__hash__  # as for OrderStatus: not Enum's, which is a Python function

    ACCEPTED = auto()
    REJECTED = auto()
    FILLED_PART = auto()
    FILLED_ALL = auto()
    CANCEL_SENT = auto()
    CANCEL_REFUSED = auto()
    CANCELLED = auto()
    AMEND_SENT = auto()
    AMENDED = auto()
    AMEND_REFUSED = auto()
    EXPIRED = auto()
    UNANSWERED = auto()
    """A request about this order got no usable answer, or the node restarted."""
    FOUND_OPEN = auto()
    """Asked by client id, the venue showed the order resting."""
    ORDER_GONE = auto()
    """A cancel or amend was refused because the venue no longer has the order; its end is not told."""


class _Resting(Enum):
    """Stands for OPEN or PARTIALLY_FILLED, whichever the filled quantity says."""

    RESTING = auto()


RESTING: Final = _Resting.RESTING

_S = OrderStatus
_E = OrderEvent

# Read a row as: an order in this status moves on that event to the status named. The two fill
# events are legal everywhere (see the module's first lines) and so stand in every row.
TRANSITIONS: Final[dict[OrderStatus, dict[OrderEvent, OrderStatus | _Resting]]] = {
    _S.PENDING_NEW: {
        _E.ACCEPTED: _S.OPEN,
        _E.REJECTED: _S.REJECTED,
        _E.FILLED_PART: _S.PARTIALLY_FILLED,
        _E.FILLED_ALL: _S.FILLED,
        _E.CANCEL_SENT: _S.PENDING_CANCEL,
        _E.CANCELLED: _S.CANCELLED,
        _E.EXPIRED: _S.EXPIRED,
        _E.UNANSWERED: _S.UNKNOWN,
        _E.FOUND_OPEN: RESTING,
    },
    _S.OPEN: {
        _E.ACCEPTED: _S.OPEN,
        _E.FILLED_PART: _S.PARTIALLY_FILLED,
        _E.FILLED_ALL: _S.FILLED,
        _E.CANCEL_SENT: _S.PENDING_CANCEL,
        _E.CANCEL_REFUSED: _S.OPEN,
        _E.CANCELLED: _S.CANCELLED,
        _E.AMEND_SENT: _S.PENDING_AMEND,
        _E.AMENDED: _S.OPEN,
        _E.AMEND_REFUSED: _S.OPEN,
        _E.EXPIRED: _S.EXPIRED,
        _E.UNANSWERED: _S.UNKNOWN,
        _E.FOUND_OPEN: RESTING,
        _E.ORDER_GONE: _S.UNKNOWN,
    },
    _S.PARTIALLY_FILLED: {
        _E.ACCEPTED: _S.PARTIALLY_FILLED,  # the fill came before its acknowledgement
        _E.FILLED_PART: _S.PARTIALLY_FILLED,
        _E.FILLED_ALL: _S.FILLED,
        _E.CANCEL_SENT: _S.PENDING_CANCEL,
        _E.CANCEL_REFUSED: _S.PARTIALLY_FILLED,
        _E.CANCELLED: _S.CANCELLED,
        _E.AMEND_SENT: _S.PENDING_AMEND,
        _E.AMENDED: _S.PARTIALLY_FILLED,
        _E.AMEND_REFUSED: _S.PARTIALLY_FILLED,
        _E.EXPIRED: _S.EXPIRED,
        _E.UNANSWERED: _S.UNKNOWN,
        _E.FOUND_OPEN: RESTING,
        _E.ORDER_GONE: _S.UNKNOWN,
    },
    _S.PENDING_CANCEL: {
        _E.ACCEPTED: _S.PENDING_CANCEL,
        _E.REJECTED: _S.REJECTED,
        _E.FILLED_PART: _S.PENDING_CANCEL,
        _E.FILLED_ALL: _S.FILLED,
        _E.CANCEL_SENT: _S.PENDING_CANCEL,
        _E.CANCEL_REFUSED: RESTING,
        _E.CANCELLED: _S.CANCELLED,
        _E.AMENDED: _S.PENDING_CANCEL,
        _E.AMEND_REFUSED: _S.PENDING_CANCEL,
        _E.EXPIRED: _S.EXPIRED,
        _E.UNANSWERED: _S.UNKNOWN,
        _E.FOUND_OPEN: _S.PENDING_CANCEL,  # asked before the cancel got there
        _E.ORDER_GONE: _S.UNKNOWN,
    },
    _S.PENDING_AMEND: {
        _E.ACCEPTED: _S.PENDING_AMEND,
        _E.FILLED_PART: _S.PENDING_AMEND,
        _E.FILLED_ALL: _S.FILLED,
        _E.CANCEL_SENT: _S.PENDING_CANCEL,
        _E.CANCEL_REFUSED: _S.PENDING_AMEND,
        _E.CANCELLED: _S.CANCELLED,
        _E.AMENDED: RESTING,
        _E.AMEND_REFUSED: RESTING,
        _E.EXPIRED: _S.EXPIRED,
        _E.UNANSWERED: _S.UNKNOWN,
        _E.FOUND_OPEN: _S.PENDING_AMEND,
        _E.ORDER_GONE: _S.UNKNOWN,
    },
    _S.UNKNOWN: {
        # Live until proved otherwise: only an answer about the order itself leads out of here.
        _E.ACCEPTED: RESTING,
        _E.REJECTED: _S.REJECTED,
        _E.FILLED_PART: _S.UNKNOWN,
        _E.FILLED_ALL: _S.FILLED,
        _E.CANCEL_SENT: _S.UNKNOWN,
        _E.CANCEL_REFUSED: _S.UNKNOWN,
        _E.CANCELLED: _S.CANCELLED,
        _E.AMENDED: RESTING,
        _E.AMEND_REFUSED: _S.UNKNOWN,
        _E.EXPIRED: _S.EXPIRED,
        _E.UNANSWERED: _S.UNKNOWN,
        _E.FOUND_OPEN: RESTING,
        _E.ORDER_GONE: _S.UNKNOWN,
    },
    _S.FILLED: {
        _E.FILLED_PART: _S.FILLED,
        _E.FILLED_ALL: _S.FILLED,
        _E.ACCEPTED: _S.FILLED,
        _E.CANCEL_REFUSED: _S.FILLED,  # the cancel lost to the fill
        _E.AMENDED: _S.FILLED,
        _E.AMEND_REFUSED: _S.FILLED,
        _E.ORDER_GONE: _S.FILLED,
        _E.UNANSWERED: _S.FILLED,
    },
    _S.CANCELLED: {
        _E.FILLED_PART: _S.CANCELLED,  # traded before the cancel, told after it
        _E.FILLED_ALL: _S.FILLED,
        _E.ACCEPTED: _S.CANCELLED,
        _E.CANCELLED: _S.CANCELLED,
        _E.CANCEL_REFUSED: _S.CANCELLED,
        _E.AMENDED: _S.CANCELLED,
        _E.AMEND_REFUSED: _S.CANCELLED,
        _E.ORDER_GONE: _S.CANCELLED,
        _E.EXPIRED: _S.CANCELLED,
        _E.UNANSWERED: _S.CANCELLED,
    },
    _S.REJECTED: {
        _E.FILLED_PART: _S.REJECTED,
        _E.FILLED_ALL: _S.FILLED,
        _E.REJECTED: _S.REJECTED,
        _E.CANCEL_REFUSED: _S.REJECTED,
        _E.ORDER_GONE: _S.REJECTED,
        _E.UNANSWERED: _S.REJECTED,
    },
    _S.EXPIRED: {
        _E.FILLED_PART: _S.EXPIRED,
        _E.FILLED_ALL: _S.FILLED,
        _E.ACCEPTED: _S.EXPIRED,
        _E.CANCELLED: _S.EXPIRED,
        _E.CANCEL_REFUSED: _S.EXPIRED,
        _E.AMENDED: _S.EXPIRED,
        _E.AMEND_REFUSED: _S.EXPIRED,
        _E.EXPIRED: _S.EXPIRED,
        _E.ORDER_GONE: _S.EXPIRED,
        _E.UNANSWERED: _S.EXPIRED,
    },
}

_ZERO: Final = Decimal(0)


def next_status(status: OrderStatus, event: OrderEvent, filled: Decimal) -> OrderStatus | None:
    """Return the status after `event`, or None where the move is illegal.

    `filled` is the quantity filled so far, the event's own fill included.
    """
    target = TRANSITIONS[status].get(event)
    if target is RESTING:
        return OrderStatus.PARTIALLY_FILLED if filled > _ZERO else OrderStatus.OPEN
    return target
