"""How OKX says no: codes and words."""

from typing import Final

from host.api import OrderStatus, RejectReason
from venue.records import OrderRecord

__all__ = ["Refused", "gone", "refusal_of"]


class Refused(Exception):  # noqa: N818 - an answer, not a malfunction
    """A request, or one order of it, that is answered with a code other than 0."""

    def __init__(self, code: str, text: str, *, status: int = 200) -> None:
        super().__init__(f"{code} {text}")
        self.code = code
        self.text = text
        self.status = status
        """Of HTTP, where the request as a whole is refused."""


_R = RejectReason
_REASONS: Final = {
    _R.INSUFFICIENT_FUNDS: ("51008", "Order failed. Insufficient balance in account."),
    _R.REDUCE_ONLY: (
        "51169",
        "Order failed because you don't have any positions in this direction to reduce.",
    ),
    _R.DUPLICATE_ID: ("51016", "Client order ID already exists."),
    _R.INVALID_PRICE: ("51150", "The precision of the number of trades or the price exceeds the limit."),
    _R.INVALID_QTY: ("51121", "Order quantity must be a multiple of the lot size."),
    _R.MIN_NOTIONAL: ("51020", "Your order should meet or exceed the minimum order amount."),
    _R.PRICE_BAND: ("51006", "Order price is not within the price limit."),
    _R.NOT_FILLABLE: ("51109", "No available offer."),
    _R.EXPIRED_REQUEST: ("51149", "Order timed out. Please try again later."),
    _R.UNKNOWN_SYMBOL: ("51001", "Instrument ID doesn't exist."),
    _R.UNAVAILABLE: ("51022", "Contract suspended."),
}


def refusal_of(reason: RejectReason, text: str) -> Refused:
    """Return OKX's words for the engine's reason."""
    return Refused(*_REASONS.get(reason, ("51000", f"Parameter error: {text}")))


def gone(record: OrderRecord | None, *, is_amend: bool) -> Refused:
    """Return why an order that is not open can be neither cancelled nor amended."""
    if record is None:
        return (
            Refused("51503", "Order modification failed as the order does not exist.")
            if is_amend
            else Refused("51400", "Cancellation failed as the order does not exist.")
        )
    if record.status is OrderStatus.FILLED:
        return (
            Refused("51510", "Modification failed as the order has been completed.")
            if is_amend
            else Refused("51402", "Cancellation failed as the order is already completed.")
        )
    return (
        Refused("51509", "Modification failed as the order has been canceled.")
        if is_amend
        else Refused("51401", "Cancellation failed as the order is already canceled.")
    )
