"""The engine's gate, held to the lease: open until the right of its own term ends, and no longer."""

from collections.abc import Callable
from typing import Final

from msgspec import Struct

from failover.clock import boottime_ns, on_clock
from failover.signals import Lead
from host.journal import JournalError
from host.runtime.engine import Engine

__all__ = ["HeldGate", "Term"]

PULL_SHARE: Final = 4
"""A leader that may not renew pulls its quotes this part of a ttl before its right ends: 1/4."""


class Term(Struct):
    """One leadership of this node, from the elector's word to its end."""

    lead: Lead
    asked_ns: int
    """When it was won, by CLOCK_BOOTTIME."""
    drain: str = ""
    """Why it is to be handed over; empty while it is not."""
    heir: str = ""
    """Who it is to be handed to; empty if to whoever claims it."""
    over: str = ""
    """Why it is over; empty while it is not."""
    is_lapsed: bool = False
    """Whether the gate was closed for want of a renewal, with the lease still ours as far as we know."""


class HeldGate:
    """Moves the deadline of one engine's gate with the right to send, which `until_ns` of CLOCK_BOOTTIME ends.

    `engine` is whose gate it is, None while this node does not lead. An engine is held for one term: by the right
    of another, should this node win one before it is done with the first, it may not send. What it knows ends
    with its own.
    """

    def __init__(self, ttl_ms: int, on_alert: Callable[[str, str], None]) -> None:
        self.engine: Engine | None = None
        self.has_pulled = False
        """Whether quotes were pulled because the right ends, and it was not renewed since."""
        self._ttl_ns: Final = ttl_ms * 1_000_000
        self._on_alert: Final = on_alert
        self._term: Term | None = None
        self._until_ns = 0

    def hold(self, engine: Engine, term: Term) -> None:
        """Take an engine on for its term; its gate is open if there is a right."""
        self.engine, self._term = engine, term
        self.has_pulled = False
        engine.gate.lease(engine.clock.now_ns)
        if not term.is_lapsed:
            self._move(term)

    def let_go(self) -> None:
        """Close the gate, and have nothing to do with the engine any more."""
        if self.engine is not None:
            self.engine.gate.close()
        self.engine, self._term = None, None

    def open(self, until_ns: int, term: Term | None) -> None:
        """Let the engine send until then, if it is `term` that it is held for."""
        self._until_ns = until_ns
        self.has_pulled = False
        self._move(term)

    def close(self) -> None:
        """Let nothing be sent from here on."""
        self._until_ns = 0
        if self.engine is not None:
            self.engine.gate.close()

    def pull_in_time(self) -> None:
        """Pull all quotes shortly before the right ends, where nothing says that it will be renewed."""
        engine = self.engine
        if engine is None or self.has_pulled or not self._until_ns:
            return
        left_ns = self._until_ns - boottime_ns()
        if not 0 < left_ns < self._ttl_ns // PULL_SHARE:
            return
        self.has_pulled = True
        text = f"the lease was not renewed: quotes are pulled {left_ns / 1e6:.0f} ms before the right ends"
        self._on_alert("lease_ending", text)
        try:
            engine.stand_back("the lease could not be renewed", pulls=True)
        except JournalError as error:
            engine.abort_turn(error)

    def _move(self, term: Term | None) -> None:
        engine = self.engine
        if engine is None or term is None or term is not self._term or term.over:
            return
        if self._until_ns:
            engine.gate.valid_until_ns = on_clock(self._until_ns, engine.clock.now_ns)
