"""Fetching whole books: one at a time for each symbol, not too often, and again while it is wanted.

The rules of sequence numbers are the host's (`host.api.Depth` says what the numbers mean): it holds
changes back until a snapshot connects to them, and calls `resync` when something is missing. What is
left to an adapter is to fetch the snapshot, on every new connection and at every `resync`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

from host.api import ExchangeError

from .backoff import Backoff

__all__ = ["SnapshotFetcher"]


class SnapshotFetcher:
    """Fetches a symbol's book when it is wanted.

    `fetch(symbol)` asks for the book and hands it over; it raises `ExchangeError` when there was no answer,
    and is called again after a pause. A wish during a fetch leads to one more fetch after it, for the
    book that is on its way may be older than the wish. `on_failed(symbol, text)` hears of each failure.
    """

    def __init__(
        self,
        spawn: Callable[[Coroutine[Any, Any, None], str], "asyncio.Task[None]"],
        fetch: Callable[[str], Awaitable[None]],
        on_failed: Callable[[str, str], None],
        *,
        make_backoff: Callable[[], Backoff] = lambda: Backoff(0.2, 10.0),
    ) -> None:
        self._spawn: Final = spawn
        self._fetch: Final = fetch
        self._on_failed: Final = on_failed
        self._make_backoff: Final = make_backoff
        self._wanted: Final[dict[str, bool]] = {}
        """The symbols that are being fetched; True: once more after that."""

    def want(self, symbol: str) -> None:
        """Have the book of a symbol fetched."""
        if symbol in self._wanted:
            self._wanted[symbol] = True
            return
        self._wanted[symbol] = False
        self._spawn(self._run(symbol), f"book of {symbol}")

    async def _run(self, symbol: str) -> None:
        backoff = self._make_backoff()
        try:
            while True:
                self._wanted[symbol] = False
                try:
                    await self._fetch(symbol)
                except ExchangeError as error:
                    self._on_failed(symbol, str(error))
                    self._wanted[symbol] = True
                if not self._wanted[symbol]:
                    return
                # A book that does not connect, again and again, costs weight each time.
                await asyncio.sleep(backoff.next_s())
        finally:
            del self._wanted[symbol]
