"""Misbehaviour on command: which fault strikes which request or event, drawn under a seed.

A fault is a rule. It is addressed by protocol, account, kind of request or event, symbol and
transport, passes the first `skip` matches by, strikes each further one with its probability, and at
most `count` times. The generator is seeded, so equal requests in equal order are struck alike.
"""

from collections.abc import Mapping
from enum import StrEnum
from random import Random
from typing import Any

import msgspec
from msgspec import Struct

from host.api import TandemError
from venue.protocols.kinds import EventKind, Kind

__all__ = ["Fault", "FaultError", "FaultKind", "FaultPlan", "parse_fault"]


class FaultError(TandemError):
    """A fault that cannot be: an unknown kind or field, or a value out of range."""


class FaultKind(StrEnum):
    """What goes wrong."""

    LATENCY = "latency"
    """A request reaches the matching engine, or an event its client, late by `delay_ms` plus up to
    `jitter_ms`. Order within a connection is kept."""
    ANSWER_LATENCY = "answer_latency"
    """The answer leaves late; the request was carried out in time."""
    DROP_REQUEST = "drop_request"
    """A request is never looked at and never answered."""
    DROP = "drop"
    """A request is carried out, but its answer is lost; an event is lost."""
    DUPLICATE = "duplicate"
    """A request is carried out twice, as by a proxy that retries; an event is sent twice."""
    REORDER = "reorder"
    """A request or an event is late as with `latency`, and others overtake it."""
    DISCONNECT = "disconnect"
    """The connection breaks: after the request was carried out (before, where `is_executed` is
    false) and without an answer; or in place of the event."""
    SERVER_ERROR = "server_error"
    """HTTP 5xx, or what the venue says instead: after the request was carried out, or
    (`is_executed` false) without."""
    RATE_LIMIT = "rate_limit"
    """The request is refused as one too many."""
    CLOCK_SKEW = "clock_skew"
    """The protocol's clock is off by `skew_ms`: the time that it shows and the one it judges by."""
    SEQUENCE_GAP = "sequence_gap"
    """A change of a book is lost."""
    STALE_BOOK = "stale_book"
    """No market data of the symbol comes any more and its book stands still, while the connection lives."""
    HALF_BATCH = "half_batch"
    """A batch is carried out whole, but the answer tells the outcome of its first half only."""
    MAINTENANCE = "maintenance"
    """Every request is refused as the venue does while it is being serviced."""


class Fault(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One rule. An empty address field matches everything.

    Raises `FaultError` for what could never strike or cannot be.
    """

    kind: FaultKind
    protocol: str = ""
    account: str = ""
    request: str = ""
    """A kind of request (`place`, `cancel`, `query`, …) or of event (`private`, `depth`, `top`, `trade`,
    `ticker`)."""
    symbol: str = ""
    """As the protocol spells it."""
    transport: str = ""
    """`rest` or `ws`."""
    probability: float = 1.0
    count: int | None = None
    """How often it strikes at most; None for ever."""
    skip: int = 0
    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    skew_ms: float = 0.0
    status: int = 0
    """The HTTP status instead of the usual one."""
    is_executed: bool = True
    retry_after_s: int = 1

    def __post_init__(self) -> None:
        # A word in place of the enumeration's member would be compared by identity and never strike.
        if not isinstance(self.kind, FaultKind):
            raise FaultError(
                f"kind must be a FaultKind, was {self.kind!r}; write FaultKind({self.kind!r}), "
                f"or have parse_fault read it; kinds are {', '.join(FaultKind)}"
            )
        if self.request and self.request not in _ADDRESSES:
            raise FaultError(
                f"request must be one of {', '.join(_ADDRESSES)}, was {self.request!r}; change the fault"
            )
        if self.request and not _may_strike(self.kind, self.request):
            raise FaultError(
                f"{self.kind} never strikes {self.request!r}: it is about {_about(self.kind)}; change the fault"
            )
        if not 0.0 <= self.probability <= 1.0:
            raise FaultError(f"probability must be 0 to 1, was {self.probability}; change the fault")
        if self.delay_ms < 0 or self.jitter_ms < 0 or self.skip < 0 or (self.count or 0) < 0:
            raise FaultError("delay_ms, jitter_ms, skip and count must not be negative; change the fault")


_ADDRESSES = (*Kind, *EventKind)
_STANDING = frozenset({FaultKind.CLOCK_SKEW, FaultKind.STALE_BOOK})
"""These are states of the venue, not events: they hold as long as the rule is there."""
_EVENTS_ONLY = frozenset({FaultKind.SEQUENCE_GAP})
_OF_EVENTS = frozenset(
    {FaultKind.LATENCY, FaultKind.DROP, FaultKind.DUPLICATE, FaultKind.REORDER, FaultKind.DISCONNECT}
)


def _may_strike(kind: FaultKind, request: str) -> bool:
    if kind in _EVENTS_ONLY:
        return request == EventKind.DEPTH
    if kind is FaultKind.HALF_BATCH:
        return request == Kind.BATCH
    return kind not in _STANDING and (request in tuple(Kind) or kind in _OF_EVENTS)


def _about(kind: FaultKind) -> str:
    if kind in _STANDING:
        return "the venue as a whole, so leave `request` empty"
    if kind in _EVENTS_ONLY:
        return f"changes of a book ({EventKind.DEPTH})"
    return f"batches ({Kind.BATCH})" if kind is FaultKind.HALF_BATCH else f"requests ({', '.join(Kind)})"


class _Rule:
    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.matched = 0
        self.struck = 0


class FaultPlan:
    """The faults in force. Change them at any time; it counts for what comes from then on."""

    def __init__(self, seed: int = 0) -> None:
        self._random = Random(seed)
        self._rules: dict[int, _Rule] = {}
        self._last = 0

    def add(self, fault: Fault) -> int:
        """Put a fault in force and return its number."""
        self._last += 1
        self._rules[self._last] = _Rule(fault)
        return self._last

    def remove(self, number: int) -> bool:
        """Take a fault back; return whether it was there."""
        return self._rules.pop(number, None) is not None

    def clear(self) -> None:
        """Take every fault back."""
        self._rules.clear()

    def listed(self) -> dict[int, dict[str, Any]]:
        """Return every fault by number, with how often it matched and struck."""
        return {
            number: {**msgspec.to_builtins(rule.fault), "matched": rule.matched, "struck": rule.struck}
            for number, rule in self._rules.items()
        }

    def on_request(
        self, protocol: str, account: str, kind: str, symbol: str, transport: str
    ) -> tuple[Fault, ...]:
        """Draw which faults strike this request."""
        if not self._rules:
            return ()
        return tuple(
            rule.fault
            for rule in self._rules.values()
            if rule.fault.kind not in _STANDING
            and rule.fault.kind not in _EVENTS_ONLY
            and (rule.fault.kind is not FaultKind.HALF_BATCH or kind == "batch")
            and self._strikes(rule, protocol, account, kind, symbol, transport)
        )

    def on_event(self, protocol: str, account: str, kind: str, symbol: str) -> tuple[Fault, ...]:
        """Draw which faults strike this event of a stream. An event is only struck by name."""
        if not self._rules:
            return ()
        return tuple(
            rule.fault
            for rule in self._rules.values()
            if (
                (rule.fault.kind is FaultKind.SEQUENCE_GAP and kind == "depth")
                or (rule.fault.kind in _OF_EVENTS and rule.fault.request == kind)
            )
            and self._strikes(rule, protocol, account, kind, symbol, "ws")
        )

    def skew_ns(self, protocol: str) -> int:
        """Return by how much this protocol's clock is off now."""
        return sum(
            int(rule.fault.skew_ms * 1e6)
            for rule in self._rules.values()
            if rule.fault.kind is FaultKind.CLOCK_SKEW and rule.fault.protocol in ("", protocol)
        )

    def is_stale(self, protocol: str, symbol: str) -> bool:
        """Return whether the market data of this symbol stands still."""
        return any(
            rule.fault.kind is FaultKind.STALE_BOOK
            and rule.fault.protocol in ("", protocol)
            and rule.fault.symbol in ("", symbol)
            for rule in self._rules.values()
        )

    def delay_s(self, fault: Fault) -> float:
        """Draw for how long a late request, answer or event is late."""
        jitter_ms = self._random.random() * fault.jitter_ms if fault.jitter_ms else 0.0
        return (fault.delay_ms + jitter_ms) / 1e3

    def _strikes(
        self, rule: _Rule, protocol: str, account: str, kind: str, symbol: str, transport: str
    ) -> bool:
        fault = rule.fault
        if (
            fault.protocol not in ("", protocol)
            or fault.account not in ("", account)
            or fault.request not in ("", kind)
            or fault.symbol not in ("", symbol)
            or fault.transport not in ("", transport)
        ):
            return False
        rule.matched += 1
        if rule.matched <= fault.skip or (fault.count is not None and rule.struck >= fault.count):
            return False
        if fault.probability < 1.0 and self._random.random() >= fault.probability:
            return False
        rule.struck += 1
        return True


def parse_fault(source: str | Mapping[str, Any]) -> Fault:
    """Read a fault from a mapping, or from `kind,field=value,...` as a command line has it.

    Raises `FaultError`.
    """
    if isinstance(source, str):
        kind, *fields = source.split(",")
        pairs = [text.partition("=") for text in fields]
        wrong = next((text for text, (_, sign, _) in zip(fields, pairs, strict=True) if not sign), None)
        if wrong is not None:
            raise FaultError(f"a fault is KIND,FIELD=VALUE,..., was {wrong!r} in {source!r}")
        source = {"kind": kind.strip(), **{name.strip(): value.strip() for name, _, value in pairs}}
    try:
        return msgspec.convert(source, Fault, strict=False)
    except msgspec.ValidationError as error:
        names = ", ".join(FaultKind)
        raise FaultError(f"not a fault: {error}; kinds are {names}") from error
