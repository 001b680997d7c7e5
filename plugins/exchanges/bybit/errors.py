"""What Bybit's return codes mean for an order: whose fault, whether it lives, what to do.

Codes and their texts are in the venue's error page; each one that an order, amend or cancel can meet
is named here, and any other refusal is `OTHER`: the venue said no, the request did nothing.
"""

from typing import Final

from host.api import RejectReason

from .._shared.verdicts import Action, ErrorTable, Verdict

__all__ = ["CLOCK_CODE", "ERRORS", "OK_CODE", "RATE_CODES", "UNKNOWN_CODES", "is_already_so", "reason_of_end"]

OK_CODE: Final = 0
CLOCK_CODE: Final = 10002
"""The request's time lies outside its window: our clock, or too slow a line."""

UNKNOWN_CODES: Final = frozenset({10000, 10016, 170007, 170032, 170035, 170146, 170147, 170310})
"""The venue does not say whether it acted: a timeout or fault inside it. Asked by client id, never assumed."""

RATE_CODES: Final = frozenset({10006, 10018, 10429, 20003, 429, 170005, 170222})
"""Too many requests; nothing was done."""

_FATAL_CODES: Final = frozenset(
    {10003, 10004, 10005, 10007, 10008, 10009, 10010, 10024, 10027, 10028, 33004, -2015}
)
"""Key, signature, permission, address or region: no request of this account will pass until a person acts."""

_ALREADY_SO_CODES: Final = frozenset({110025, 110026, 110027, 110043})
"""A setting is as asked for already."""

_R = RejectReason

_REASONS: Final[dict[int, RejectReason]] = {
    -1: _R.EXPIRED_REQUEST,
    CLOCK_CODE: _R.EXPIRED_REQUEST,
    10019: _R.UNAVAILABLE,  # the order-entry service restarts and takes nothing new
    10029: _R.UNKNOWN_SYMBOL,
    30208: _R.PRICE_BAND,
    30209: _R.PRICE_BAND,
    30228: _R.REDUCE_ONLY,
    110001: _R.UNKNOWN_ORDER,
    110003: _R.PRICE_BAND,
    110004: _R.INSUFFICIENT_FUNDS,
    110006: _R.INSUFFICIENT_FUNDS,
    110007: _R.INSUFFICIENT_FUNDS,
    110008: _R.UNKNOWN_ORDER,
    110010: _R.UNKNOWN_ORDER,
    110012: _R.INSUFFICIENT_FUNDS,
    110014: _R.INSUFFICIENT_FUNDS,
    110017: _R.REDUCE_ONLY,
    110019: _R.UNKNOWN_ORDER,
    110022: _R.INVALID_QTY,
    110023: _R.REDUCE_ONLY,
    110042: _R.REDUCE_ONLY,
    110044: _R.INSUFFICIENT_FUNDS,
    110045: _R.INSUFFICIENT_FUNDS,
    110051: _R.INSUFFICIENT_FUNDS,
    110052: _R.INSUFFICIENT_FUNDS,
    110053: _R.INSUFFICIENT_FUNDS,
    110063: _R.UNAVAILABLE,
    110064: _R.INVALID_QTY,
    110066: _R.UNAVAILABLE,
    110072: _R.DUPLICATE_ID,
    110074: _R.UNAVAILABLE,
    110079: _R.UNAVAILABLE,
    110094: _R.MIN_NOTIONAL,
    110103: _R.WOULD_TAKE,
    110118: _R.NOT_FILLABLE,
    110120: _R.PRICE_BAND,
    110121: _R.PRICE_BAND,
    170001: _R.UNAVAILABLE,
    170033: _R.INSUFFICIENT_FUNDS,
    170121: _R.UNKNOWN_SYMBOL,
    170124: _R.INVALID_QTY,
    170131: _R.INSUFFICIENT_FUNDS,
    170132: _R.PRICE_BAND,
    170133: _R.PRICE_BAND,
    170134: _R.INVALID_PRICE,
    170136: _R.INVALID_QTY,
    170137: _R.INVALID_QTY,
    170139: _R.UNKNOWN_ORDER,
    170140: _R.MIN_NOTIONAL,
    170141: _R.DUPLICATE_ID,
    170142: _R.UNKNOWN_ORDER,
    170143: _R.UNKNOWN_ORDER,
    170144: _R.UNAVAILABLE,
    170148: _R.INVALID_QTY,
    170151: _R.UNAVAILABLE,
    170157: _R.UNAVAILABLE,
    170190: _R.UNKNOWN_ORDER,
    170191: _R.UNAVAILABLE,
    170192: _R.PRICE_BAND,
    170193: _R.PRICE_BAND,
    170194: _R.PRICE_BAND,
    170212: _R.UNAVAILABLE,
    170213: _R.UNKNOWN_ORDER,
    170217: _R.WOULD_TAKE,
    170218: _R.WOULD_TAKE,
    170234: _R.UNAVAILABLE,
    170313: _R.INVALID_QTY,
    170341: _R.INVALID_QTY,
    170371: _R.PRICE_BAND,
    170372: _R.PRICE_BAND,
    170381: _R.INVALID_QTY,
    170382: _R.INVALID_QTY,
}

_BAD_PARAMETER: Final[dict[str, Verdict]] = {
    "price invalid": Verdict(Action.FIX, _R.INVALID_PRICE),
    "qty invalid": Verdict(Action.FIX, _R.INVALID_QTY),
    "symbol invalid": Verdict(Action.FIX, _R.UNKNOWN_SYMBOL),
}
"""10001 is said of any parameter: which one it was is in the text alone."""

_ENDS: Final[dict[str, RejectReason]] = {
    "EC_PostOnlyWillTakeLiquidity": _R.WOULD_TAKE,
    "EC_NoImmediateQtyToFill": _R.NOT_FILLABLE,
    "EC_ReachMaxTradeNum": _R.NOT_FILLABLE,
    "EC_NoEnoughQtyToFill": _R.NOT_FILLABLE,
    "EC_InvalidSymbolStatus": _R.UNAVAILABLE,
    "EC_MarketQuoteNoSuppSell": _R.NOT_FILLABLE,
    "EC_DisorderOrderID": _R.DUPLICATE_ID,
    "EC_InvalidBaseValue": _R.INVALID_QTY,
    "EC_LoadOrderCanMatch": _R.UNAVAILABLE,
    "EC_SecurityStatusFail": _R.UNAVAILABLE,
    "EC_ReachRiskPriceLimit": _R.PRICE_BAND,
    "EC_OrderNotExist": _R.UNKNOWN_ORDER,
    "EC_SelfMatch": _R.SELF_TRADE,
    "INSUFFICIENT_MARGIN": _R.INSUFFICIENT_FUNDS,
}


def _table() -> dict[int, Verdict]:
    verdicts = {code: Verdict(Action.FIX, reason) for code, reason in _REASONS.items()}
    again = _R.UNAVAILABLE, _R.EXPIRED_REQUEST
    verdicts |= {code: Verdict(Action.RETRY, reason) for code, reason in _REASONS.items() if reason in again}
    verdicts |= {code: Verdict(Action.UNKNOWN) for code in UNKNOWN_CODES}
    verdicts |= {code: Verdict(Action.FATAL) for code in _FATAL_CODES}
    verdicts |= {code: Verdict(Action.RETRY, _R.RATE_LIMIT, is_limit=True) for code in RATE_CODES}
    verdicts[CLOCK_CODE] = Verdict(Action.RETRY, _R.EXPIRED_REQUEST, is_clock=True)
    return verdicts


ERRORS: Final = ErrorTable(_table(), {10001: _BAD_PARAMETER})
"""The verdict on each return code."""


def reason_of_end(reject_reason: str) -> RejectReason:
    """Return our word for the `rejectReason` with which the matching engine ended an order."""
    return _ENDS.get(reject_reason, _R.OTHER)


def is_already_so(code: int) -> bool:
    """Return whether a setting was refused only because it is in force already."""
    return code in _ALREADY_SO_CODES
