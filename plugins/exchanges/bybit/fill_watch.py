"""Executions that were not told: an order's own pushes say how much of it traded.

Both come on one stream in no fixed order, so what is missing is looked at a moment later. Then the host is
shown the order as the venue has it: more filled than it knows, which it asks the list of fills about.
"""

import asyncio
from collections.abc import Callable
from decimal import Decimal
from typing import Final

from msgspec import Struct

from host.api import OrderSnapshot

__all__ = ["FillWatch"]

LATE_S: Final = 1.0
"""How long after an order's push its executions may come."""
_ZERO: Final = Decimal(0)


class _Watched(Struct):
    trades: set[str]
    told: Decimal
    seen: OrderSnapshot | None = None
    """The order as it was pushed last, while that is to be looked at."""


class FillWatch:
    """Compares what orders say with what executions told. `report` gets an order whose executions are missing."""

    def __init__(self, report: Callable[[OrderSnapshot], None]) -> None:
        self._report: Final = report
        self._watched: Final[dict[str, _Watched]] = {}
        self._timers: Final[dict[str, asyncio.TimerHandle]] = {}

    def fill(self, client_id: str, trade_id: str, qty: Decimal) -> None:
        """Take note of an execution that was told."""
        watched = self._of(client_id)
        if trade_id not in watched.trades:
            watched.trades.add(trade_id)
            watched.told += qty

    def order(self, order: OrderSnapshot) -> None:
        """Take note of an order's push; one without any trade is no matter."""
        if order.filled == _ZERO:
            if order.status.is_terminal:
                self._watched.pop(order.client_id, None)
            return
        self._of(order.client_id).seen = order
        if order.client_id not in self._timers:
            loop = asyncio.get_running_loop()
            self._timers[order.client_id] = loop.call_later(LATE_S, self._look, order.client_id)

    def close(self) -> None:
        """Look at nothing more."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _of(self, client_id: str) -> _Watched:
        return self._watched.setdefault(client_id, _Watched(set(), _ZERO))

    def _look(self, client_id: str) -> None:
        del self._timers[client_id]
        watched = self._watched[client_id]
        seen, watched.seen = watched.seen, None
        if seen is None:
            return
        if seen.status.is_terminal:
            del self._watched[client_id]
        if seen.filled > watched.told:
            self._report(seen)
