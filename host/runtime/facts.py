"""What an engine shows of its progress, for `host.runtime.progress` to judge."""

import os
from typing import TYPE_CHECKING, Final

from host.api import BookTop, Order, OrderStatus
from host.core.entries import InstanceState
from host.runtime.progress import AccountFacts, Facts

if TYPE_CHECKING:
    from host.runtime.engine import Engine
    from host.runtime.feed import AccountFeed

__all__ = ["EngineFacts"]

_IN_FLIGHT = frozenset(
    {
        OrderStatus.PENDING_NEW,
        OrderStatus.PENDING_AMEND,
        OrderStatus.PENDING_CANCEL,
        OrderStatus.UNKNOWN,
    }
)


class EngineFacts:
    """Looks at one engine; `now` takes a tenth of a millisecond with a hundred live orders."""

    def __init__(self, engine: "Engine") -> None:
        self._engine: Final = engine
        self._events: dict[str, int] = {}
        self._waiting: dict[str, int] = {}
        """Since when each order in flight waits, as of the last look."""
        self._seen: dict[tuple[str, str], tuple[BookTop | None, int]] = {}

    def now(self, loop_blocked_ns: int = 0) -> Facts:
        """Return what is the case.

        As a standby an engine has no requests of its own: those of the primary say nothing of this node's lines.
        """
        engine = self._engine
        in_flight: dict[str, dict[str, int]] = {}
        if not engine.is_following:
            for order in engine.state.orders.values():
                if order.status in _IN_FLIGHT:
                    in_flight.setdefault(order.account, {})[order.client_id] = self._since(order)
            self._waiting = {name: since for by_id in in_flight.values() for name, since in by_id.items()}
        return Facts(
            accounts={
                name: AccountFacts(
                    events=self._count(feed),
                    follows=bool(feed.symbols),
                    is_connected=feed.is_connected,
                    text=feed.failure or "a connection is lost",
                    in_flight=in_flight.get(name, {}),
                )
                for name, feed in engine.feeds.items()
            },
            loop_blocked_ns=loop_blocked_ns,
            disk_free_bytes=_free_bytes(engine),
            faulty_plugins={
                name: record.reason
                for name, record in engine.state.instances.items()
                if record.state is InstanceState.QUARANTINED
            },
        )

    def _since(self, order: Order) -> int:
        """Return since when an order waits for an answer: that another question got none is no answer."""
        if order.status is OrderStatus.UNKNOWN:
            return self._waiting.get(order.client_id, order.updated_ns)
        return order.updated_ns

    def _count(self, feed: "AccountFeed") -> int:
        """Count the symbols whose book has moved since the last look: counting events would cost each of them."""
        moved = 0
        for symbol in feed.symbols.values():
            key, mark = (feed.account, symbol.symbol), (symbol.book.top, symbol.book.seq)
            before = self._seen.get(key)
            if before is None or before[0] is not mark[0] or before[1] != mark[1]:
                self._seen[key] = mark
                moved += mark != (None, 0)
        self._events[feed.account] = count = self._events.get(feed.account, 0) + moved
        return count


def _free_bytes(engine: "Engine") -> int:
    found = os.statvfs(engine.journal.folder)
    return found.f_bavail * found.f_frsize
