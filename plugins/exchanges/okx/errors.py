"""What OKX's codes mean for an order: whose fault, whether it lives, what to do.

The codes are in `errors/okx_from_sdks.json` of the venue vectors; each one that an order, amend or
cancel can meet is named here, and any other refusal is `OTHER`: the venue said no, the request did
nothing.
"""

from typing import Final

from host.api import RejectReason

from .._shared.verdicts import Action, ErrorTable, Verdict

__all__ = ["ERRORS", "OK", "UNKNOWN_ORDER_CODE", "code_number", "is_instrument_code", "reason_of_cancel"]

OK: Final = 0
UNKNOWN_ORDER_CODE: Final = 51603
"""A query found no such order."""

_CLOCK: Final = frozenset({50102, 50112, 60004, 60006})
"""The request's time is too far from the venue's clock."""

_UNKNOWN: Final = frozenset({50004, 50026, 51054, 51149})
"""The venue does not say whether it acted. Asked by client id, never assumed."""

_LIMITS: Final = frozenset({50011, 50061, 51113, 60014, 60023})
"""Too many requests; nothing was done."""

_FATAL: Final = frozenset(
    {
        *(50007, 50008, 50027, 50030, 50034, 50035, 50100, 50101, 50103, 50104, 50105, 50106, 50107),
        *(50110, 50111, 50113, 50114, 51009, 51024, 60001, 60002, 60003, 60005, 60007, 60009, 60024, 60032),
        *(4001, 4007, 4088),
    }
)
"""Key, signature, permission, address or account: no request will pass until a person acts."""

_R = RejectReason

_REASONS: Final[dict[RejectReason, frozenset[int]]] = {
    _R.EXPIRED_REQUEST: frozenset({50036, 50037}),
    _R.UNAVAILABLE: frozenset(
        {
            *(
                50001,
                50005,
                50009,
                50012,
                50013,
                50017,
                50018,
                50019,
                50020,
                50021,
                50022,
                50023,
                50033,
                50038,
            ),
            *(50062, 51021, 51022, 51027, 51028, 51029, 51030, 51110, 51124, 51404),
        }
    ),
    _R.UNKNOWN_SYMBOL: frozenset({51001, 51002, 51012, 51014, 51015, 51026}),
    _R.INSUFFICIENT_FUNDS: frozenset({51004, 51008, 51017, 51119, 51127, 51131, 51502}),
    _R.DUPLICATE_ID: frozenset({51011, 51016}),
    _R.PRICE_BAND: frozenset({51006, 51031, 51116, 51122, 51135, 51136, 51137, 51138}),
    _R.INVALID_PRICE: frozenset({51150, 51204}),
    _R.INVALID_QTY: frozenset({51005, 51007, 51020, 51101, 51105, 51106, 51120, 51121, 51202, 51203}),
    _R.MIN_NOTIONAL: frozenset({51100, 51118}),
    _R.REDUCE_ONLY: frozenset({51112, 51148, 51205, 51206, 51169, 51170}),
    _R.NOT_FILLABLE: frozenset({51109}),
    _R.WOULD_TAKE: frozenset({51511}),
    _R.UNKNOWN_ORDER: frozenset({51400, 51401, 51402, 51503, 51509, 51510, UNKNOWN_ORDER_CODE}),
}

_CANCELS: Final[dict[str, RejectReason]] = {"31": _R.WOULD_TAKE, "32": _R.SELF_TRADE, "13": _R.NOT_FILLABLE}
"""`cancelSource` of an order that the venue ended by itself."""


def _table() -> dict[int, Verdict]:
    verdicts = {code: Verdict(Action.FIX, reason) for reason, codes in _REASONS.items() for code in codes}
    again = (_R.UNAVAILABLE, _R.EXPIRED_REQUEST)
    verdicts |= {code: Verdict(Action.RETRY, reason) for reason in again for code in _REASONS[reason]}
    verdicts |= {code: Verdict(Action.UNKNOWN) for code in _UNKNOWN}
    verdicts |= {code: Verdict(Action.FATAL) for code in _FATAL}
    verdicts |= {code: Verdict(Action.RETRY, _R.RATE_LIMIT, is_limit=True) for code in _LIMITS}
    verdicts |= {code: Verdict(Action.RETRY, _R.EXPIRED_REQUEST, is_clock=True) for code in _CLOCK}
    return verdicts


ERRORS: Final = ErrorTable(_table())
"""The verdict on each code."""


def code_number(code: str) -> int:
    """Return a code as a number; -1 for one that is none, of which nothing is known."""
    return int(code) if code.isascii() and code.isdigit() else -1


def is_instrument_code(code: int, text: str) -> bool:
    """Return whether the venue did not take the name by which a request meant its instrument."""
    return code == 51001 or "instidcode" in text.lower()


def reason_of_cancel(cancel_source: str) -> RejectReason:
    """Return our word for why the venue ended an order; `OTHER` where it was asked to."""
    return _CANCELS.get(cancel_source, _R.OTHER)
