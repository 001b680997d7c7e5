"""What an exception of ccxt means for the request it ended.

ccxt sorts the venues' errors into classes. Those that say "no" for certain end a request; whatever else
happened, the request may have had its effect, and is asked about. The classes are known by name here, so
that a node without such an account does not load the library.
"""

from collections.abc import Mapping
from typing import Final

from host.api import ExchangeError, RejectReason

from .._shared.verdicts import Action, Verdict

__all__ = ["NotSent", "verdict_on"]


class NotSent(ExchangeError):  # noqa: N818 - it says what is the case
    """A request waited for its turn for so long that it must not be sent any more."""


_UNKNOWN: Final = Verdict(Action.UNKNOWN)
_SAID_NO: Final = Verdict(Action.FIX)
_CLASSES: Final[Mapping[str, Verdict]] = {
    "AuthenticationError": Verdict(Action.FATAL),
    "InsufficientFunds": Verdict(Action.FIX, RejectReason.INSUFFICIENT_FUNDS),
    "InvalidOrder": _SAID_NO,
    "OrderImmediatelyFillable": Verdict(Action.FIX, RejectReason.WOULD_TAKE),
    "OrderNotFillable": Verdict(Action.FIX, RejectReason.NOT_FILLABLE),
    "OrderNotFound": Verdict(Action.FIX, RejectReason.UNKNOWN_ORDER),
    # Nothing is sent twice: whose id it is, the venue must say.
    "DuplicateOrderId": _UNKNOWN,
    "ContractUnavailable": Verdict(Action.RETRY, RejectReason.UNAVAILABLE),
    "BadRequest": _SAID_NO,
    "BadSymbol": Verdict(Action.FIX, RejectReason.UNKNOWN_SYMBOL),
    "ArgumentsRequired": _SAID_NO,
    "NotSupported": _SAID_NO,
    "OperationRejected": _SAID_NO,
    "MarketClosed": Verdict(Action.RETRY, RejectReason.UNAVAILABLE),
    # A code that ccxt does not know is a bare ExchangeError: it may be "try again later", after the fact.
    "ExchangeError": _UNKNOWN,
    # NetworkError, RequestTimeout, ExchangeNotAvailable, OnMaintenance, DDoSProtection, BadResponse, ...
    "OperationFailed": _UNKNOWN,
    "RateLimitExceeded": Verdict(Action.RETRY, RejectReason.RATE_LIMIT, is_limit=True),
    "InvalidNonce": Verdict(Action.RETRY, RejectReason.EXPIRED_REQUEST, is_clock=True),
    "ChecksumError": _UNKNOWN,
}
"""By the names in `ccxt.base.errors`. Of an exception's class and those above it, the first that is here counts."""


def verdict_on(error: Exception) -> Verdict:
    """Return what an exception means; anything that ccxt does not raise on purpose leaves the outcome unknown."""
    if isinstance(error, NotSent):
        return Verdict(Action.RETRY, RejectReason.UNAVAILABLE)
    for cls in type(error).__mro__:
        if cls.__module__.startswith("ccxt.") and cls.__name__ in _CLASSES:
            return _CLASSES[cls.__name__]
    return _UNKNOWN
