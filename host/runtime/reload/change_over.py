"""An account between two versions of its adapter: one is live, the other says its last.

What both connections tell reaches the account once, whichever is live, until the live one has got to
where the account is and the other one is closed. Up to then the other one can be called back.
"""

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from host.api import BookTop, ConnectionChanged, Depth, MarketEvent, OrderStatus, Report, RequestUnanswered
from host.core.books import Book
from host.runtime.link import AdapterLink
from host.runtime.reload.overlap import Overlap
from host.runtime.reload.same_reports import SameReports

if TYPE_CHECKING:
    from host.runtime.engine import Engine

__all__ = ["ChangeOver"]

DRAIN_NS: Final = 5_000_000_000
"""How long the old version stays for answers; after that the orders are asked for through the new one.

And how long the new one may take to get to where the account is.
"""
LOOK_AGAIN_S: Final = 0.01
ALL_LEVELS: Final = 1 << 30

_PENDING: Final = (OrderStatus.PENDING_NEW, OrderStatus.PENDING_AMEND, OrderStatus.PENDING_CANCEL)


class ChangeOver:
    """Takes an account from `old_link` to `link`; `on_complete` is called when nothing is left to do."""

    def __init__(
        self,
        engine: "Engine",
        account: str,
        link: AdapterLink,
        old_link: AdapterLink,
        overlap: Overlap,
        reports: SameReports,
        on_complete: Callable[[], None],
    ) -> None:
        self.link = link
        """Of the version that is live."""
        self._engine = engine
        self._account = account
        self._feed = engine.feeds[account]
        self._symbols = frozenset(self._feed.symbols)
        self._old_link: AdapterLink | None = old_link
        self._is_old_good = True
        self._overlap = overlap
        self._reports = reports
        self._on_complete = on_complete
        self._started_ns = 0

    # -- the change ------------------------------------------------------------------------------

    def begin(self, books: dict[str, Book], down: set[str], now_ns: int) -> None:
        """Have everything come from and go to the new version from here on.

        `books` are those that it kept by itself, `down` the channels that are not up.
        """
        feed, was_settled = self._feed, self._feed.is_settled
        assert self._old_link is not None
        self._put_live(self.link, self._old_link, now_ns)
        self._old_link.market = self._overlap.other  # it may be called back
        for report in self._reports.take_ahead():
            feed.report(report)
        told_anew = [symbol for symbol, book in books.items() if not self._is_continued(symbol, book)]
        for event in self._overlap.change():
            feed.market(event)
        # After its quotes, or they would be older than what the whole book says.
        for symbol in told_anew:
            self._tell_book(books[symbol], now_ns)
        for symbol, book in books.items():
            if feed.symbols[symbol].book.top_fault and book.top is not None and not book.top_fault:
                feed.market(book.top)
        if not was_settled:
            feed.reconnected(down, now_ns)
        feed.spawn(self._let_go(self._old_link), "the adapter's version before")

    def call_back(self, now_ns: int) -> bool:
        """Have the old version be the live one again; return False where that cannot be."""
        feed, link, old_link = self._feed, self.link, self._old_link
        is_there = old_link is not None and not old_link.is_closed and self._is_old_good
        if old_link is None or not is_there or self._symbols != feed.symbols.keys():
            return False
        was_settled = feed.is_settled
        self._put_live(old_link, link, now_ns)
        old_link.on_failed = feed.failed
        if not was_settled:
            feed.reconnected(set(), now_ns)
        for symbol, symbol_feed in feed.symbols.items():
            if symbol in link.left_out:
                continue  # of which nobody told anything meanwhile
            if not self._overlap.is_matched(BookTop, symbol):
                symbol_feed.book.forget_numbers()
            if symbol_feed.book.depth_fault or not self._overlap.is_matched(Depth, symbol):
                self._overlap.lose(Depth, symbol)
                self._tell_book_anew(symbol, "the version before numbers it in another way")
        for event in self._overlap.change():
            feed.market(event)
        feed.spawn(self._let_go(link), "the version rolled back")
        return True

    def _put_live(self, link: AdapterLink, old_link: AdapterLink, now_ns: int) -> None:
        """Have orders go to one version, and hear no more of the other than what it answers."""
        self.link, self._old_link, self._started_ns = link, old_link, now_ns
        self._feed.adapter = link.adapter
        self._engine.oms.switch_adapter(self._account, link.adapter)
        old_link.mute()
        old_link.report, old_link.on_failed = self._late_report, self._on_failed_old
        link.market, link.report = self.market, self.report

    def _is_continued(self, symbol: str, own: Book) -> bool:
        """Return whether the new version's depth goes on where the account is; else it is to start anew."""
        live, overlap = self._feed.symbols[symbol].book, self._overlap
        if not overlap.is_matched(BookTop, symbol):
            live.forget_numbers()
        is_quiet = own.seq == live.seq and live.levels(ALL_LEVELS) == own.levels(ALL_LEVELS)
        is_continued = not live.depth_fault and (overlap.is_matched(Depth, symbol) or is_quiet)
        if not is_continued:
            overlap.lose(Depth, symbol)
        return is_continued

    def _tell_book(self, own: Book, now_ns: int) -> None:
        """Have the account take over the whole book that the new version kept by itself."""
        bids, asks = own.levels(ALL_LEVELS)
        if bids and asks:
            book = Depth(
                own.symbol, tuple(bids), tuple(asks), is_snapshot=True, first_seq=own.seq, seq=own.seq,
                ts_event=now_ns, ts_recv=now_ns,
            )  # fmt: skip
            self._feed.market(book)

    # -- what comes in ---------------------------------------------------------------------------

    def market(self, event: MarketEvent) -> None:
        """Take in what the live version delivers, if it is news to the account."""
        feed = self._feed
        if isinstance(event, Depth) and event.is_snapshot and feed.symbols[event.symbol].book.depth_fault:
            self._overlap.owe_nothing(Depth, event.symbol)  # asked for, because the account lost its place
        if self._overlap.live(event, feed.now_ns()):
            feed.market(event)

    def report(self, report: Report) -> None:
        """Take in what the live version reports, if the other one did not."""
        if isinstance(report, ConnectionChanged) and report.channel == "market" and not report.is_up:
            self._overlap.owe_nothing()  # what it misses, it will not repeat
        if self._reports.is_new(report):
            self._feed.report(report)

    def _late_report(self, report: Report) -> None:
        """Take in what the old version still says: answers, but no word of its own connections."""
        if isinstance(report, ConnectionChanged):
            self._is_old_good &= report.is_up
            return
        if isinstance(report, RequestUnanswered):
            order = self._engine.state.orders.get(report.client_id)
            if order is None or order.status not in _PENDING or order.updated_ns > self._started_ns:
                return  # the answer came through the new version
        if self._reports.is_new(report):
            self._feed.report(report)

    def _on_failed_old(self, _error: BaseException) -> None:
        """Let a version on its way out fail as it likes; but it is not gone back to."""
        self._is_old_good = False

    # -- the end ---------------------------------------------------------------------------------

    async def _let_go(self, link: AdapterLink) -> None:
        """Close a version that is live no more, once nothing that it sent is unanswered."""
        await self._while(self._is_awaited)
        if self._old_link is not link:
            return  # it was called back meanwhile
        self._old_link = None
        await self._feed.close_link(link)
        await self._while(lambda: not self._overlap.is_level)
        for symbol in self._overlap.unreached():
            # By its numbers, the venue never gets to where the version before left the account.
            self._tell_book_anew(symbol, "the version before numbered it in another way")
        self._on_complete()

    async def _while(self, is_so: Callable[[], bool]) -> None:
        """Wait while something is so, until `DRAIN_NS` after the swap; a replay may outrun real time."""
        clock, until_s = self._engine.clock, time.monotonic() + DRAIN_NS / 1e9
        while is_so() and clock.now_ns() - self._started_ns < DRAIN_NS and time.monotonic() < until_s:
            await asyncio.sleep(LOOK_AGAIN_S)

    def _is_awaited(self) -> bool:
        """Return whether an order is there whose request went through the old version."""
        return any(
            order.account == self._account
            and order.status in _PENDING
            and order.updated_ns <= self._started_ns
            for order in self._engine.state.orders.values()
        )

    def _tell_book_anew(self, symbol: str, why: str) -> None:
        """Trust no number of a book any more, and have its depth told whole."""
        book = self._feed.symbols[symbol].book
        book.forget_numbers()
        if book.seq:
            book.invalidate(why)
        if book.depth_fault:
            try:
                self._feed.adapter.resync(symbol)
            except Exception as error:  # noqa: BLE001 - plugin boundary: the account is given up
                self._feed.failed(error)
