"""Binance's error codes in our words, for spot and USDⓈ-M.

Sources: the official error pages (spot) and the public SDKs' lists (USDⓈ-M). Codes -2010 and -2011
carry the real reason in their text.
"""

from typing import Final

from host.api import RejectReason

from .._shared.verdicts import Action, ErrorTable, Verdict

__all__ = ["ERRORS"]

_R = RejectReason
_UNKNOWN: Final = Verdict(Action.UNKNOWN)
_FATAL: Final = Verdict(Action.FATAL, _R.UNAVAILABLE)
_BUSY: Final = Verdict(Action.RETRY, _R.UNAVAILABLE)
_LIMIT: Final = Verdict(Action.RETRY, _R.RATE_LIMIT, is_limit=True)


def _fix(reason: RejectReason) -> Verdict:
    return Verdict(Action.FIX, reason)


_FILTERS: Final = {
    "price_filter": _fix(_R.INVALID_PRICE),
    "percent_price": _fix(_R.PRICE_BAND),
    "market_lot_size": _fix(_R.INVALID_QTY),
    "lot_size": _fix(_R.INVALID_QTY),
    "notional": _fix(_R.MIN_NOTIONAL),  # MIN_NOTIONAL and NOTIONAL
    "max_position": _fix(_R.INVALID_QTY),
    "max_num": Verdict(Action.RETRY, _R.RATE_LIMIT),
    "price": _fix(_R.INVALID_PRICE),
    "quantity": _fix(_R.INVALID_QTY),
}

ERRORS: Final = ErrorTable(
    {
        -1000: _UNKNOWN,  # "an unknown error occurred while processing the request"
        -1001: _UNKNOWN,  # "unable to process your request": whether it was before or after is not said
        -1002: _FATAL,
        -1003: _LIMIT,
        -1006: _UNKNOWN,
        -1007: _UNKNOWN,
        -1008: _BUSY,
        -1013: _fix(_R.OTHER),
        -1015: Verdict(Action.RETRY, _R.RATE_LIMIT),
        -1016: _BUSY,
        -1021: Verdict(Action.RETRY, _R.EXPIRED_REQUEST, is_clock=True),
        -1022: _FATAL,
        -1034: _LIMIT,
        -1111: _fix(_R.INVALID_PRICE),
        -1121: _fix(_R.UNKNOWN_SYMBOL),
        -1122: _fix(_R.UNKNOWN_SYMBOL),
        -2010: _fix(_R.OTHER),
        -2011: _fix(_R.UNKNOWN_ORDER),
        -2013: _fix(_R.UNKNOWN_ORDER),
        -2014: _FATAL,
        -2015: _FATAL,
        -2018: _fix(_R.INSUFFICIENT_FUNDS),
        -2019: _fix(_R.INSUFFICIENT_FUNDS),
        -2020: _fix(_R.NOT_FILLABLE),
        -2022: _fix(_R.REDUCE_ONLY),
        -2023: _fix(_R.UNAVAILABLE),  # the account is being liquidated
        -2024: _fix(_R.REDUCE_ONLY),  # the position is not large enough
        -2026: _fix(_R.UNKNOWN_ORDER),
        -2027: _fix(_R.INSUFFICIENT_FUNDS),  # beyond the largest position at this leverage
        -2028: _fix(_R.INSUFFICIENT_FUNDS),
        -2039: _fix(_R.UNKNOWN_ORDER),
        -4001: _fix(_R.INVALID_PRICE),
        -4002: _fix(_R.INVALID_PRICE),
        -4003: _fix(_R.INVALID_QTY),
        -4004: _fix(_R.INVALID_QTY),
        -4005: _fix(_R.INVALID_QTY),
        -4013: _fix(_R.INVALID_PRICE),
        -4014: _fix(_R.INVALID_PRICE),
        -4015: _fix(_R.OTHER),
        -4016: _fix(_R.PRICE_BAND),
        -4023: _fix(_R.INVALID_QTY),
        -4024: _fix(_R.PRICE_BAND),
        -4025: _fix(_R.INVALID_QTY),
        -4029: _fix(_R.INVALID_PRICE),
        -4030: _fix(_R.INVALID_QTY),
        -4051: _fix(_R.INSUFFICIENT_FUNDS),
        -4061: _fix(_R.OTHER),  # the order's position side is not the account's mode
        -4116: _fix(_R.DUPLICATE_ID),
        -4131: _fix(_R.PRICE_BAND),  # the best price on the other side is too far away
        -4140: _fix(_R.UNKNOWN_SYMBOL),
        -4164: _fix(_R.MIN_NOTIONAL),
        -5021: _fix(_R.NOT_FILLABLE),
        -5022: _fix(_R.WOULD_TAKE),
        -5027: _fix(_R.OTHER),  # an amend that changes nothing
    },
    {
        -1013: _FILTERS,
        -1111: {"quantity": _fix(_R.INVALID_QTY), "price": _fix(_R.INVALID_PRICE)},
        -2010: {
            "insufficient": _fix(_R.INSUFFICIENT_FUNDS),
            "immediately match": _fix(_R.WOULD_TAKE),
            "duplicate": _fix(_R.DUPLICATE_ID),
            "market is closed": _fix(_R.UNAVAILABLE),
            "self trade": _fix(_R.SELF_TRADE),
            "self-trade": _fix(_R.SELF_TRADE),
            "not permitted for this symbol": _fix(_R.UNKNOWN_SYMBOL),
            "may not place": _FATAL,
            **_FILTERS,
        },
    },
)
"""Verdicts on every code that needs one; any other code of a proper answer is a plain no."""
