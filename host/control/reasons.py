"""Why a call is refused: one stable reason each, with its status code; and which of our errors is which.

A client decides by the reason (`google.rpc.ErrorInfo`, domain `tandem`), a person by the message.
Reasons are never renamed or given another code.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from google.rpc import code_pb2, error_details_pb2, status_pb2
from msgspec import Struct

from host.api import ExchangeError, OrderRefused, TandemError
from host.control.principal import NotAuthenticated
from host.journal import JournalError, JournalPruned
from host.loader import InstanceFailed, ParamsInvalid, PluginRejected, UnknownPlugin
from host.runtime.instance import StateNotCarried
from host.runtime.instance_control import NotNow
from host.runtime.scope import NotKnown
from host.runtime.stops import NotStopped
from host.runtime.turn import Halted

__all__ = ["DOMAIN", "REASONS", "Refused", "Violation", "check_count", "refusal_of", "status_of"]

DOMAIN: Final = "tandem"

REASONS: Final[Mapping[str, int]] = {
    # The request itself
    "INVALID_FIELD": code_pb2.INVALID_ARGUMENT,
    "INVALID_REQUEST": code_pb2.INVALID_ARGUMENT,
    "INVALID_PARAMS": code_pb2.INVALID_ARGUMENT,
    "INVALID_PAGE_TOKEN": code_pb2.INVALID_ARGUMENT,
    "REQUEST_ID_REUSED": code_pb2.INVALID_ARGUMENT,
    "LSN_TOO_OLD": code_pb2.OUT_OF_RANGE,
    "LSN_TOO_NEW": code_pb2.OUT_OF_RANGE,
    # Who asks
    "NOT_AUTHENTICATED": code_pb2.UNAUTHENTICATED,
    "ROLE_TOO_LOW": code_pb2.PERMISSION_DENIED,
    # What it asks for
    "INSTANCE_NOT_FOUND": code_pb2.NOT_FOUND,
    "PLUGIN_NOT_FOUND": code_pb2.NOT_FOUND,
    "VERSION_NOT_FOUND": code_pb2.NOT_FOUND,
    "ACCOUNT_NOT_FOUND": code_pb2.NOT_FOUND,
    "ORDER_NOT_FOUND": code_pb2.NOT_FOUND,
    "BOOK_NOT_FOUND": code_pb2.NOT_FOUND,
    "SYMBOL_NOT_FOUND": code_pb2.NOT_FOUND,
    "SCOPE_NOT_FOUND": code_pb2.NOT_FOUND,
    "STANDBY_NOT_FOUND": code_pb2.NOT_FOUND,
    "INSTANCE_EXISTS": code_pb2.ALREADY_EXISTS,
    "ETAG_MISMATCH": code_pb2.ABORTED,
    # The state that things are in
    "WRONG_STATE": code_pb2.FAILED_PRECONDITION,
    "HELD_BY_SCHEDULE": code_pb2.FAILED_PRECONDITION,
    "CONFIGURED_IN_FILE": code_pb2.FAILED_PRECONDITION,
    "PLUGIN_FAILED": code_pb2.FAILED_PRECONDITION,
    "ORDER_REFUSED": code_pb2.FAILED_PRECONDITION,
    "NOT_PRIMARY": code_pb2.FAILED_PRECONDITION,
    "NO_FAILOVER": code_pb2.FAILED_PRECONDITION,
    "NOT_ELIGIBLE": code_pb2.FAILED_PRECONDITION,
    "SWITCH_REFUSED": code_pb2.FAILED_PRECONDITION,
    "ON_PROBATION": code_pb2.FAILED_PRECONDITION,
    "ACCOUNT_UNAVAILABLE": code_pb2.FAILED_PRECONDITION,
    "REFUSED": code_pb2.FAILED_PRECONDITION,
    # The node or its surroundings
    "DEADLINE_EXCEEDED": code_pb2.DEADLINE_EXCEEDED,
    "EXCHANGE_UNAVAILABLE": code_pb2.UNAVAILABLE,
    "SWITCH_FAILED": code_pb2.UNAVAILABLE,
    "HALTED": code_pb2.UNAVAILABLE,
    "STARTING": code_pb2.UNAVAILABLE,
    "ROLE_CHANGED": code_pb2.UNAVAILABLE,
    "STOPPING": code_pb2.UNAVAILABLE,
    "AUDIT_FAILED": code_pb2.UNAVAILABLE,
    "JOURNAL_FAILED": code_pb2.UNAVAILABLE,
    "WATCHER_TOO_SLOW": code_pb2.RESOURCE_EXHAUSTED,
    "TOO_MANY_WATCHES": code_pb2.RESOURCE_EXHAUSTED,
    "INTERNAL": code_pb2.INTERNAL,
}
"""The `google.rpc.Code` of every reason."""

_OF_ERRORS: Final[Mapping[type[TandemError], str]] = {
    NotAuthenticated: "NOT_AUTHENTICATED",
    ParamsInvalid: "INVALID_PARAMS",
    UnknownPlugin: "PLUGIN_NOT_FOUND",
    InstanceFailed: "PLUGIN_FAILED",
    PluginRejected: "PLUGIN_FAILED",
    StateNotCarried: "PLUGIN_FAILED",
    OrderRefused: "ORDER_REFUSED",
    NotStopped: "WRONG_STATE",
    ExchangeError: "EXCHANGE_UNAVAILABLE",
    JournalPruned: "LSN_TOO_OLD",
    JournalError: "JOURNAL_FAILED",
    Halted: "HALTED",
    TandemError: "REFUSED",
}
"""Errors that other parts raise; the nearest class of an error's own ancestry counts."""


MOST_TEXT: Final = 1000
MOST_VIOLATIONS: Final = 10
MOST_FIELD: Final = 100
MOST_DETAIL: Final = 250
"""Of a refusal so many characters, violations, and characters of each are sent. gRPC's clients drop a call
whose trailers are too large, and tell nothing of what was wrong."""


class Violation(Struct, frozen=True):
    """One thing wrong: `field` is a path in the request, or, where nothing in it is wrong, what is."""

    field: str
    text: str


class Refused(TandemError):  # noqa: N818 - a refusal is an answer, not a malfunction
    """A call is not carried out, and nothing has changed. `reason` is one of `REASONS`.

    `violations` go into `BadRequest` or `PreconditionFailure`, whichever fits the reason's code;
    `metadata` into `ErrorInfo`.
    """

    def __init__(self, reason: str, text: str, *violations: Violation, **metadata: str) -> None:
        super().__init__(text)
        self.code = REASONS[reason]
        self.reason = reason
        self.text = text
        self.violations = violations
        self.metadata = metadata

    @classmethod
    def field(cls, field: str, text: str, reason: str = "INVALID_FIELD") -> "Refused":
        """Return the refusal of one field: `text` names the bound and what was found."""
        return cls(reason, f"{field}: {text}", Violation(field, text))


def refusal_of(error: TandemError) -> Refused:
    """Return any of our errors as the refusal that a client is told."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, NotKnown):
        return Refused(f"{error.kind.upper()}_NOT_FOUND", str(error), name=error.name)
    if isinstance(error, NotNow):
        return Refused(error.reason, str(error), Violation(error.reason, str(error)))
    reason = next(_OF_ERRORS[cls] for cls in type(error).__mro__ if cls in _OF_ERRORS)
    if isinstance(error, ParamsInvalid):
        return Refused(reason, str(error), Violation(error.field, error.detail))
    if isinstance(error, OrderRefused) and error.field:
        return Refused.field(error.field, error.detail)
    if isinstance(error, OrderRefused):
        return Refused(reason, str(error), Violation(error.reason, error.detail), order_reason=error.reason)
    if isinstance(error, NotAuthenticated):
        return Refused(reason, str(error), detail=error.reason)
    if isinstance(error, JournalPruned):
        return Refused(reason, str(error), first_lsn=str(error.first_lsn))
    if REASONS[reason] == code_pb2.FAILED_PRECONDITION:
        return Refused(reason, str(error), Violation(reason, str(error)))
    return Refused(reason, str(error))


def check_count(field: str, count: int, most: int) -> None:
    """Raise `Refused` for a field that holds more than it may: what is many is work for the trading loop."""
    if count > most:
        raise Refused.field(field, f"expected at most {most}, was {count}")


def status_of(refused: Refused) -> status_pb2.Status:
    """Return a refusal as gRPC sends it, with its details; so much of them as fits its 8 KB of trailers."""
    status = status_pb2.Status(code=refused.code, message=_cut(refused.text, MOST_TEXT))
    info = error_details_pb2.ErrorInfo(reason=refused.reason, domain=DOMAIN, metadata=dict(refused.metadata))
    status.details.add().Pack(info)
    if refused.violations and refused.code == code_pb2.INVALID_ARGUMENT:
        bad = error_details_pb2.BadRequest()
        for one in _told(refused.violations):
            bad.field_violations.add(field=one.field, description=one.text, reason=refused.reason)
        status.details.add().Pack(bad)
    elif refused.violations:
        failure = error_details_pb2.PreconditionFailure()
        for one in _told(refused.violations):
            failure.violations.add(type=refused.reason, subject=one.field, description=one.text)
        status.details.add().Pack(failure)
    return status


def _told(violations: Sequence[Violation]) -> list[Violation]:
    told = [Violation(_cut(one.field, MOST_FIELD), _cut(one.text, MOST_DETAIL)) for one in violations]
    more = len(told) - MOST_VIOLATIONS
    return told if more <= 0 else [*told[:MOST_VIOLATIONS], Violation("", f"and {more} more")]


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
