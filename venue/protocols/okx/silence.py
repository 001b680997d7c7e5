"""Connections that are silent both ways are closed, as OKX does: a client has to ping."""

import asyncio
from collections.abc import Callable
from typing import Final

from venue.protocols.connection import Connection

__all__ = ["CLOSE_CODE", "SILENT_S", "Silence"]

SILENT_S: Final = 30.0
CLOSE_CODE: Final = 4004
_WORDS: Final = "No data received in 30s"


class Silence:
    """Watches connections; `clock` tells the time in seconds and `after` calls back later."""

    def __init__(
        self,
        clock: Callable[[], float] = lambda: asyncio.get_running_loop().time(),
        after: Callable[[float, Callable[[], None]], asyncio.TimerHandle] = lambda seconds, call: (
            asyncio.get_running_loop().call_later(seconds, call)
        ),
    ) -> None:
        self._clock: Final = clock
        self._after: Final = after
        self._heard_s: Final[dict[Connection, float]] = {}
        self._timers: Final[dict[Connection, asyncio.TimerHandle]] = {}
        self._closing: Final[set[asyncio.Task[None]]] = set()

    def watch(self, connection: Connection) -> None:
        """Begin to watch a connection."""
        self._heard_s[connection] = self._clock()
        self._timers[connection] = self._after(SILENT_S, lambda: self._look(connection))

    def broken(self, connection: Connection) -> None:
        """Note that something was sent or received."""
        if connection in self._heard_s:
            self._heard_s[connection] = self._clock()

    def forget(self, connection: Connection) -> None:
        """Watch a connection no more."""
        self._heard_s.pop(connection, None)
        timer = self._timers.pop(connection, None)
        if timer is not None:
            timer.cancel()

    def close(self) -> None:
        """Watch nothing more."""
        for connection in list(self._timers):
            self.forget(connection)
        for task in self._closing:
            task.cancel()

    def _look(self, connection: Connection) -> None:
        left_s = self._heard_s[connection] + SILENT_S - self._clock()
        if left_s > 0:
            self._timers[connection] = self._after(left_s, lambda: self._look(connection))
            return
        self.forget(connection)
        task = asyncio.get_running_loop().create_task(connection.close(CLOSE_CODE, _WORDS))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
