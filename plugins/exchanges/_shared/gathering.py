"""Commands of one turn that go out together, but for the first few."""

import asyncio
from collections.abc import Callable
from typing import Final, Generic, TypeVar

__all__ = ["Gathering"]

T = TypeVar("T")


class Gathering(Generic[T]):
    """Gathers what comes within one turn of the event loop, and hands it over right after it.

    The first `alone` of a turn are not gathered: whoever sends one or two commands at a time waits for nothing, and
    a batch begins to pay with those that follow.
    """

    def __init__(self, alone: int, send: Callable[[list[T]], None]) -> None:
        self._alone: Final = alone
        self._send: Final = send
        self._waiting: list[T] = []
        self._count = 0
        self._end: asyncio.Handle | None = None

    def is_alone(self) -> bool:
        """Count one command of this turn; return whether it goes out by itself, and else `add` it."""
        self._count += 1
        if self._end is None:
            self._end = asyncio.get_running_loop().call_soon(self._on_end)
        return self._count <= self._alone

    def add(self, item: T) -> None:
        """Have it go out after the turn."""
        self._waiting.append(item)

    def waits(self, is_it: Callable[[T], bool]) -> bool:
        """Return whether something like that has not gone out yet."""
        return any(is_it(item) for item in self._waiting)

    def flush(self) -> None:
        """Hand over now what waits: something else depends on it."""
        waiting, self._waiting = self._waiting, []
        if waiting:
            self._send(waiting)

    def close(self) -> None:
        """Hand over nothing more."""
        self._waiting = []
        if self._end is not None:
            self._end.cancel()

    def _on_end(self) -> None:
        self._end = None
        self._count = 0
        self.flush()
