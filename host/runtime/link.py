"""One version of an adapter on its account: what it hands over, and what it keeps running."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Final

from host.api import ExchangeAdapter, ExchangeError, Instrument, MarketEvent, Report
from host.runtime.plugin_errors import describe_error
from host.runtime.relisting import is_gone

if TYPE_CHECKING:
    from host.runtime.feed import AccountFeed

__all__ = ["AdapterLink"]

_log = logging.getLogger("tandem.link")
CLOSE_DEADLINE_S: Final = 5.0
"""For an orderly goodbye to the venue; after it the adapter's tasks are ended all the same."""


class AdapterLink:
    """The host's side of one adapter (`AdapterContext`).

    `market` and `report` are the account's own functions, called without a detour, while the
    adapter is live; a reload puts others in their place before and after that.
    """

    __slots__ = (
        "_feed",
        "_is_closed",
        "_tasks",
        "account",
        "adapter",
        "data_dir",
        "left_out",
        "market",
        "now_ns",
        "on_failed",
        "report",
        "shared",
    )

    def __init__(
        self,
        feed: "AccountFeed",
        adapter: ExchangeAdapter[Any],
        on_failed: Callable[[BaseException], None],
    ) -> None:
        self._feed: Final = feed
        self.account: str = feed.account
        self.data_dir: str = feed.data_dir
        self.shared: dict[str, Any] = feed.shared
        self.now_ns: Callable[[], int] = feed.now_ns
        self.adapter: Final = adapter
        self.market: Callable[[MarketEvent], None] = feed.market
        self.report: Callable[[Report], None] = feed.report
        self.on_failed = on_failed
        """Called when the adapter's code raised where nobody waits for it."""
        self.left_out: frozenset[str] = frozenset()
        """Symbols of the account that the adapter was not asked to follow, for the venue traded them no more."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_closed = False
        adapter.ctx = self

    @property
    def is_closed(self) -> bool:
        """Return whether `close` was called."""
        return self._is_closed

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> "asyncio.Task[None]":
        """Run a coroutine until it ends or the adapter retires; an error in it is the adapter's."""
        task = asyncio.get_running_loop().create_task(work, name=f"{self.account}: {name}")
        self._tasks.add(task)
        task.add_done_callback(self._task_done)
        return task

    def listed(self, instruments: Sequence[Instrument]) -> None:
        """Take the venue's list of instruments as it is now, from the version that is live."""
        if self.adapter is self._feed.adapter and not self._is_closed:
            self._feed.relist(instruments)
            known = self._feed.known_instruments
            back = {
                i.symbol for i in instruments if i.symbol in self.left_out and not is_gone(known[i.symbol], i)
            }
            if back:
                self.left_out -= back
                self.spawn(self._follow(back), f"market data of {', '.join(sorted(back))}, listed again")

    async def _follow(self, symbols: set[str]) -> None:
        for symbol in symbols:
            self._feed.symbols[symbol].book.invalidate("it is listed again, and followed anew")
        try:
            await self.adapter.subscribe(sorted(symbols))
        except ExchangeError as error:
            self.left_out |= symbols  # until the list is read again
            _log.error("account %s: %s", self.account, error)

    def mute(self) -> None:
        """Take nothing from the adapter any more."""
        self.market = self.report = _ignore

    async def close(self) -> None:
        """Close the adapter and end its tasks. No effect twice."""
        if self._is_closed:
            return
        self._is_closed = True
        closing = asyncio.ensure_future(self.adapter.close())
        done, _ = await asyncio.wait({closing}, timeout=CLOSE_DEADLINE_S)
        if not done:
            closing.cancel()
            _log.error("account %s: its adapter did not close in %g s", self.account, CLOSE_DEADLINE_S)
        elif not closing.cancelled() and (error := closing.exception()) is not None:
            _log.error("account %s: its adapter could not be closed: %s", self.account, describe_error(error))
        self.mute()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            # A task that eats its cancellation must not hold up the others, or the node.
            await asyncio.wait(tasks, timeout=CLOSE_DEADLINE_S)

    def _task_done(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not self._is_closed:
            self.on_failed(error)


def _ignore(_message: MarketEvent | Report) -> None:
    pass
