"""An adapter's new version beside the live one: connected, heard by nobody, and compared."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Final

from host.api import (
    BookTop,
    ConnectionChanged,
    Depth,
    ExchangeAdapter,
    Instrument,
    MarketEvent,
    Report,
    TandemError,
    Ticker,
    Trade,
)
from host.core.books import Book, DepthResult
from host.runtime.link import AdapterLink
from host.runtime.plugin_errors import describe_error
from host.runtime.reload.account_view import AccountView
from host.runtime.reload.gone_symbols import check_listed, check_nothing_is_left
from host.runtime.reload.overlap import Overlap
from host.runtime.reload.revision import RevisionFailed
from host.runtime.reload.same_reports import SameReports

if TYPE_CHECKING:
    from host.runtime.engine import Engine

__all__ = ["Candidate"]

CONNECT_DEADLINE_S: Final = 10.0
"""For `connect`, and again for `subscribe`."""
READY_DEADLINE_S: Final = 20.0
"""For good books and an account that agrees, once it is connected."""
MATCH_PATIENCE_S: Final = 3.0
"""How long an event that both connections deliver is waited for; venues may number each by itself."""
LOOK_AGAIN_S: Final = 0.01
RECENT_EVENTS: Final = 4_000
"""How far back the last thing that strategies heard of each stream is looked for."""


class Candidate:
    """Connects an adapter, keeps books of its own for it, and says what it lacks to go live.

    `books`, `channels`, `overlap` and `reports` are what it has heard so far, for the change-over.
    """

    def __init__(
        self, engine: "Engine", account: str, adapter: ExchangeAdapter[Any], live_link: AdapterLink
    ) -> None:
        self.adapter: Final = adapter
        self.channels: dict[str, bool] = {}
        """Whether each of its connections is up."""
        history = engine.feeds[account].history
        recent = history.since(max(history.sequence - RECENT_EVENTS, 0))
        self.overlap: Final = Overlap(e for e in recent if isinstance(e, BookTop | Depth | Trade | Ticker))
        self.reports: Final = SameReports()
        self.live_events = 0
        """How many market events the live version delivered meanwhile."""
        self._engine = engine
        self._feed = engine.feeds[account]
        self._account = account
        self._name = f"account {account}"
        self._live_link = live_link
        self._failure = ""
        self._is_patient = True
        self._stirred = asyncio.Event()
        self._view: AccountView | None = None
        self.books: Final = {symbol: Book(symbol) for symbol in self._feed.symbols}
        self.link: Final = self._feed.open_link(adapter, self._on_failed, is_driven=False)
        self.link.market, self.link.report = self._other_market, self._other_report
        self._untap: Callable[[], None] | None = self._tap()

    async def get_ready(self) -> str:
        """Connect, subscribe and wait until market and account are as the live version has them.

        Returns how long that took. Raises `RevisionFailed`.
        """
        started_s = time.monotonic()
        instruments = await self._bounded(self.adapter.connect(), "connect")
        connected_s = time.monotonic()
        self._check_instruments(instruments)
        await self._bounded(self.adapter.subscribe(sorted(self.books)), "subscribe")
        self._feed.give_turns(self.link)
        is_comparable = self._feed.is_settled
        self._view = AccountView(self._engine, self._account, self.adapter, is_comparable=is_comparable)
        await self._until_ready()
        return (
            f"connected in {connected_s - started_s:.3f} s, books of {len(self.books)} symbols "
            f"and the account agree after {time.monotonic() - started_s:.3f} s"
        )

    async def _bounded(self, work: Coroutine[Any, Any, Any], what: str) -> Any:
        task = asyncio.ensure_future(_without_exit(work))
        try:
            done, _ = await asyncio.wait({task}, timeout=CONNECT_DEADLINE_S)
        except asyncio.CancelledError:
            task.cancel()
            raise
        if not done:
            task.cancel()  # not waited for: it may hang in its cancellation too
            raise RevisionFailed(f"{self._name}: {what} did not end within {CONNECT_DEADLINE_S:g} s")
        error = task.exception()
        if isinstance(error, TandemError):
            raise RevisionFailed(f"{self._name}: {what}: {error}") from error
        if error is not None:
            raise RevisionFailed(f"{self._name}: {what} raised {describe_error(error)}") from error
        return task.result()

    def _check_instruments(self, instruments: Sequence[Instrument]) -> None:
        """See that it lists what is in use, and leave out what the venue trades no more."""
        listed = {instrument.symbol: instrument for instrument in instruments}
        gone = check_listed(self._engine.state, self._account, self.books.keys(), listed)
        self.link.left_out = gone
        for symbol in gone:
            del self.books[symbol]
            self.overlap.forget(symbol)

    async def _until_ready(self) -> None:
        """Wait until `_waiting_for` says nothing; in real time, which a replay may outrun."""
        started_s = time.monotonic()
        while why := self.waiting_for(self._engine.clock.now_ns()):
            waited_s = time.monotonic() - started_s
            if waited_s >= READY_DEADLINE_S:
                raise RevisionFailed(f"{self._name}: not ready after {READY_DEADLINE_S:g} s: {why}")
            if waited_s >= MATCH_PATIENCE_S:
                self._is_patient = False
            # With each message: a replay at full speed covers much time between two looks at the clock.
            self._stirred.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stirred.wait(), LOOK_AGAIN_S)

    def waiting_for(self, now_ns: int) -> str:
        """Say what the new version still lacks; raise `RevisionFailed` where it broke."""
        if self._failure:
            raise RevisionFailed(f"{self._name}: {self._failure}")
        if self._feed.adapter is not self._live_link.adapter:
            raise RevisionFailed(f"{self._name}: its adapter was replaced meanwhile; reload it again")
        check_nothing_is_left(self._engine.state, self._account, self.link.left_out)
        if self._feed.symbols.keys() - self.link.left_out != self.books.keys():
            raise RevisionFailed(f"{self._name}: symbols were added meanwhile; reload it again")
        for channel, is_up in self.channels.items():
            if not is_up:
                return f"its {channel} connection is down"
        is_live_good = self._feed.is_settled
        for symbol, book in self.books.items():
            live = self._feed.symbols[symbol].book
            # A market that is closed or one-sided is no fault of the new version.
            if not book.is_valid and (live.is_valid or not is_live_good):
                return f"{symbol}: {book.invalid_reason}"
        if is_live_good and (why := self.overlap.waiting_for(now_ns, is_patient=self._is_patient)):
            return why
        assert self._view is not None
        try:
            return self._view.waiting_for(now_ns)
        except TandemError as error:
            raise RevisionFailed(f"{self._name}: {error}") from error
        except Exception as error:
            raise RevisionFailed(f"{self._name}: send raised {describe_error(error)}") from error

    def _tap(self) -> Callable[[], None]:
        """Hear what the live version delivers, until the function that this returns is called."""
        link, overlap, reports, books = self._live_link, self.overlap, self.reports, self.books
        engine, now_ns = self._engine, self._engine.clock.now_ns
        market, report = link.market, link.report

        def tap_market(event: MarketEvent) -> None:
            self.live_events += 1
            self._stirred.set()
            events = engine.events
            market(event)
            if event.symbol not in books:
                return
            if engine.events != events:
                overlap.live(event, now_ns())
            else:  # not handed over: the change before this one is not complete
                overlap.repeated(event)

        def tap_report(message: Report) -> None:
            report(message)
            reports.live(message)

        def untap() -> None:
            # Whoever took the live version out of service meanwhile has put others in place.
            if link.market is tap_market:
                link.market = market
            if link.report is tap_report:
                link.report = report

        link.market, link.report = tap_market, tap_report
        return untap

    def _other_market(self, event: MarketEvent) -> None:
        self._stirred.set()
        book = self.books.get(event.symbol)
        if book is None:
            return
        if isinstance(event, Depth):
            if book.apply_depth(event) is DepthResult.GAP:
                self.overlap.lose(Depth, event.symbol)
                self.adapter.resync(event.symbol)
        elif isinstance(event, BookTop):
            book.apply_top(event)
        self.overlap.other(event)

    def _other_report(self, report: Report) -> None:
        self._stirred.set()
        if isinstance(report, ConnectionChanged):
            self.channels[report.channel] = report.is_up
            if report.channel == "market" and not report.is_up:
                self.overlap.lose()
                for book in self.books.values():
                    book.invalidate(f"market data connection lost: {report.text}")
        elif self._view is None or not self._view.take(report):
            self.reports.other(report)

    def _on_failed(self, error: BaseException) -> None:
        self._failure = f"its code raised {describe_error(error)}"

    def leave_live(self) -> None:
        """Listen to the live version no more. No effect twice."""
        if self._untap is not None:
            self._untap()
            self._untap = None

    def close(self) -> None:
        """Close an adapter that does not go live; the live one never noticed."""
        self.leave_live()
        self.link.mute()
        self._feed.take_turns(self.link)
        self._feed.spawn(self._feed.close_link(self.link), "closing a refused adapter")


async def _without_exit(work: Coroutine[Any, Any, Any]) -> Any:
    """Await a plugin's coroutine; one that exits the process must not end the loop."""
    try:
        return await work
    except SystemExit as error:
        raise RuntimeError(f"it called sys.exit({error.code})") from error
