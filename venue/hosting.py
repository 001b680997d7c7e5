"""A running exchange that outlives the adapters attached to it.

An adapter that runs the exchange inside its own process must be replaceable while orders rest
there. So the exchange belongs to nobody in particular: each version of the adapter is a session of
it, as each connection is one of a venue that lives elsewhere. The last to leave closes it.
"""

from collections import deque
from collections.abc import Callable, MutableMapping
from typing import Any, Final

from host.api import ExchangeError
from venue.exchange import Exchange, Output
from venue.ledger import Ledger

__all__ = ["HostedExchange", "Session", "attach"]

_PLACE: Final = "venue.hosting"


class Session:
    """One adapter's attachment: it gets every market event and every report from here on."""

    __slots__ = ("host", "outbox")

    def __init__(self, host: "HostedExchange") -> None:
        self.host: Final = host
        self.outbox: deque[Output] = deque()
        """What has come out of the exchange and was not handed over yet."""

    def leave(self) -> None:
        """Get nothing more; the last session to leave closes the venue's log. No effect twice."""
        self.host.leave(self)


class HostedExchange:
    """One exchange and the sessions attached to it. Whichever session steps it, steps it for all."""

    def __init__(
        self, shared: MutableMapping[str, Any], terms: str, exchange: Exchange, ledger: Ledger | None
    ) -> None:
        self.exchange: Final = exchange
        self.terms: Final = terms
        """What cannot change while it runs: another version must ask for the same."""
        self.leader: Session | None = None
        """The session that traded last: latency, faults and account terms are as it wants them."""
        self._shared = shared
        self._ledger = ledger
        self._sessions: tuple[Session, ...] = ()

    def step(self, now_ns: int) -> None:
        """Let everything due at or before `now_ns` happen, and hand the outcome to every session."""
        outputs = self.exchange.step(now_ns)
        for session in self._sessions:
            session.outbox.extend(outputs)

    def join(self) -> Session:
        """Attach one more session."""
        session = Session(self)
        self._sessions = (*self._sessions, session)
        return session

    def leave(self, session: Session) -> None:
        """Detach a session."""
        if session not in self._sessions:
            return
        self._sessions = tuple(other for other in self._sessions if other is not session)
        session.outbox.clear()
        if self.leader is session:
            self.leader = None
        if not self._sessions:
            del self._shared[_PLACE]
            if self._ledger is not None:
                self._ledger.close()


def attach(
    shared: MutableMapping[str, Any],
    terms: str,
    open_exchange: Callable[[], tuple[Exchange, Ledger | None]],
) -> Session:
    """Join the exchange that runs in `shared` (`AdapterContext.shared`), or open one there.

    `terms` says in words what it must be like. Raises `ExchangeError` where the one that runs has
    other terms, and whatever `open_exchange` raises.
    """
    host: HostedExchange | None = shared.get(_PLACE)
    if host is None:
        host = shared[_PLACE] = HostedExchange(shared, terms, *open_exchange())
    elif host.terms != terms:
        raise ExchangeError(
            f"the venue in this process runs with {host.terms}, was to have {terms}; "
            "restart the node to open another one"
        )
    return host.join()
