"""One account's step from one version of its adapter to another, and back if need be: make before break.

The new adapter connects, subscribes and asks for the account beside the old one, and nobody hears of
it. Once its books are good and its view of the account is ours, it takes the old one's place between
two events; the old one stays for the answers to what it has sent, and then closes.
"""

import asyncio
import functools
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from host.api import (
    BookTop,
    ConnectionChanged,
    Depth,
    ExchangeAdapter,
    MarketEvent,
    OrderStatus,
    Report,
    RequestUnanswered,
    TandemError,
)
from host.core.books import Book
from host.loader import Offer
from host.runtime.link import AdapterLink
from host.runtime.plugin_errors import describe_error
from host.runtime.reload.adapter_probation import AdapterProbation
from host.runtime.reload.candidate import LOOK_AGAIN_S, READY_DEADLINE_S, Candidate
from host.runtime.reload.overlap import Overlap
from host.runtime.reload.probation import ProbationLimits
from host.runtime.reload.revision import RevisionFailed
from host.runtime.reload.same_reports import SameReports

if TYPE_CHECKING:
    from host.runtime.engine import Engine

__all__ = ["AdapterRevision", "AdapterUse"]

DRAIN_NS: Final = 5_000_000_000
"""How long the old version stays for answers; after that the orders are asked for through the new one.

And how long the new one may take to get to where the account is.
"""
BACK_PAUSES_S: Final = (0.0, 1.0, 5.0, 15.0, 30.0)
"""When the version before is connected again, after each try that failed."""
ALL_LEVELS: Final = 1 << 30

BUSY_EVENTS: Final = 100
"""So many while the new version connected: silence would be out of the ordinary."""

_PENDING: Final = (OrderStatus.PENDING_NEW, OrderStatus.PENDING_AMEND, OrderStatus.PENDING_CANCEL)


class AdapterUse(Struct, frozen=True):
    """Which offer an account runs, and the adapter's parameters as the node completed them."""

    offer: Offer
    params: Mapping[str, object]


class AdapterRevision:
    """Takes one account from the adapter that runs to one of a new version."""

    def __init__(
        self,
        engine: "Engine",
        account: str,
        make: Callable[[], ExchangeAdapter[Any]],
        limits: ProbationLimits,
        on_fault: Callable[["AdapterRevision", str], None],
    ) -> None:
        self.name: Final = f"account {account}"
        self.place: Final = "adapter"
        self.probation: AdapterProbation | None = None
        self._engine = engine
        self._feed = engine.feeds[account]
        self._account = account
        self._make = make
        self._limits = limits
        self._on_fault = on_fault
        self._make_before: Callable[[], ExchangeAdapter[Any]] | None = None
        self._new: ExchangeAdapter[Any] | None = None
        self._candidate: Candidate | None = None
        """The new version beside the old one; until the swap."""
        self._link: AdapterLink | None = None
        """Of the version that this revision made live."""
        self._old_link: AdapterLink | None = None
        """Of the version before, until it is closed."""
        self._overlap: Overlap | None = None
        self._reports: SameReports | None = None
        """What each of the two told, until the live one has got to where the account is."""
        self._symbols: frozenset[str] = frozenset()
        self._swap_ns = 0
        self._is_old_good = True

    # -- beside the old one ----------------------------------------------------------------------

    def build(self) -> str:
        """Construct the new adapter with the account's parameters."""
        self._new = self._make()
        return f"{self.name}: adapter constructed"

    async def warm_up(self) -> str:
        """Connect it beside the old one and wait until both know the same."""
        assert self._new is not None, "built before"
        old_link = await self._until_direct()
        self._old_link = old_link
        self._make_before = functools.partial(type(old_link.adapter), old_link.adapter.params)
        self._candidate = Candidate(self._engine, self._account, self._new, old_link)
        return f"{self.name}: {await self._candidate.get_ready()}"

    async def _until_direct(self) -> AdapterLink:
        """Wait until the change before this one is complete; return the live version's link."""
        feed, give_up_s = self._feed, time.monotonic() + READY_DEADLINE_S
        while True:
            link = next((link for link in feed.links if link.adapter is feed.adapter), None)
            if link is not None and link.market == feed.market:
                return link
            if time.monotonic() >= give_up_s:
                raise RevisionFailed(
                    f"{self.name}: the change of its adapter before this one did not end within "
                    f"{READY_DEADLINE_S:g} s; reload it again"
                )
            await asyncio.sleep(LOOK_AGAIN_S)

    def abandon(self) -> None:
        """Close the new adapter, if it did not go live. No effect twice."""
        candidate, self._candidate = self._candidate, None
        if candidate is not None:
            candidate.close()

    # -- the swap --------------------------------------------------------------------------------

    def prepare(self, now_ns: int) -> None:
        """See that it is still as good as the live version."""
        assert self._candidate is not None, "warmed up before"
        if why := self._candidate.waiting_for(now_ns):
            raise RevisionFailed(f"{self.name}: {why}")

    def succeed(self, previous: object) -> None:
        """Take the place of a revision on probation: go back to what that would go back to."""
        assert isinstance(previous, AdapterRevision)
        self._make_before = previous._make_before
        previous.settle(self._engine.now_ns)

    def swap(self, now_ns: int) -> None:
        """Have everything come from and go to the new version, from the next event on."""
        feed, candidate, old_link = self._feed, self._candidate, self._old_link
        assert candidate is not None and old_link is not None, "warmed up before"
        candidate.leave_live()
        self._candidate = None
        self._overlap, self._reports = candidate.overlap, candidate.reports
        self._symbols = frozenset(feed.symbols)
        books = [symbol.book for symbol in feed.symbols.values()]
        was_settled = feed.is_settled
        self._put_in_place(candidate.link, old_link, now_ns)
        candidate.link.on_failed, old_link.on_failed = self._on_failed_live, self._on_failed_old
        old_link.market = self._overlap.other  # it may be called back
        for report in candidate.reports.take_ahead():
            feed.report(report)
        for symbol, own in candidate.books.items():
            self._hand_over_book(symbol, own, candidate.overlap, now_ns)
        for event in candidate.overlap.change():
            feed.market(event)
        if not was_settled:
            feed.reconnected({channel for channel, is_up in candidate.channels.items() if not is_up}, now_ns)
        was_busy = candidate.live_events >= BUSY_EVENTS
        self.probation = AdapterProbation(books, self._limits, self._engine.clock.now_ns, was_busy=was_busy)
        feed.spawn(self._let_go(old_link), "the adapter's version before")

    def _put_in_place(self, link: AdapterLink, old_link: AdapterLink, now_ns: int) -> None:
        """Have orders go to one version, and hear no more of the other than what it answers."""
        self._link, self._old_link, self._swap_ns = link, old_link, now_ns
        self._feed.adapter = link.adapter
        self._engine.oms.switch_adapter(self._account, link.adapter)
        old_link.mute()
        old_link.report = self._late_report
        link.market, link.report = self._live_market, self._live_report

    def _hand_over_book(self, symbol: str, own: Book, overlap: Overlap, now_ns: int) -> None:
        """Give the live book what only the new version's connection can tell it."""
        live = self._feed.symbols[symbol].book
        if not overlap.is_matched(BookTop, symbol):
            live.forget_numbers()
        bids, asks = own.levels(ALL_LEVELS)
        is_quiet = own.seq == live.seq and live.levels(ALL_LEVELS) == (bids, asks)
        if live.depth_fault or not (overlap.is_matched(Depth, symbol) or is_quiet):
            overlap.lose(Depth, symbol)
            if bids and asks:
                book = Depth(
                    symbol, tuple(bids), tuple(asks), is_snapshot=True, first_seq=own.seq, seq=own.seq,
                    ts_event=now_ns, ts_recv=now_ns,
                )  # fmt: skip
                self._feed.market(book)
        if live.top_fault and own.top is not None and not own.top_fault:
            self._feed.market(own.top)

    # -- after it --------------------------------------------------------------------------------

    def _live_market(self, event: MarketEvent) -> None:
        feed, overlap = self._feed, self._overlap
        if overlap is not None:
            if isinstance(event, Depth) and event.is_snapshot and feed.symbols[event.symbol].book.depth_fault:
                overlap.owe_nothing(Depth, event.symbol)  # asked for, because the account lost its place
            if not overlap.live(event, feed.now_ns()):
                return
        feed.market(event)

    def _live_report(self, report: Report) -> None:
        probation, is_loss = self.probation, isinstance(report, ConnectionChanged) and not report.is_up
        if probation is not None:
            probation.losses += is_loss
            probation.unanswered += isinstance(report, RequestUnanswered)
        if is_loss and self._overlap is not None:
            self._overlap.owe_nothing()  # what it missed, it will not repeat
        if self._reports is None or self._reports.is_new(report):
            self._feed.report(report)
        if probation is not None and isinstance(report, ConnectionChanged | RequestUnanswered):
            self._give_back_at(probation.fault())

    def _give_back_at(self, fault: str) -> None:
        """Have the version taken back at once, before more than the connections is lost."""
        if fault:
            engine = self._engine
            engine.begin_turn(engine.clock.now_ns())
            self._on_fault(self, fault)
            engine.end_turn(engine.now_ns, 0)

    def _late_report(self, report: Report) -> None:
        """Take in what the old version still says: answers, but no word of its own connections."""
        if isinstance(report, ConnectionChanged):
            self._is_old_good &= report.is_up
            return
        if isinstance(report, RequestUnanswered):
            order = self._engine.state.orders.get(report.client_id)
            if order is None or order.status not in _PENDING or order.updated_ns > self._swap_ns:
                return  # the answer came through the new version
        if self._reports is None or self._reports.is_new(report):
            self._feed.report(report)

    async def _let_go(self, link: AdapterLink) -> None:
        """Close a version that is live no more, once nothing that it sent is unanswered."""
        await self._while(self._is_awaited)
        if self._old_link is not link:
            return  # it was called back meanwhile
        self._old_link = None
        await self._feed.close_link(link)
        await self._while(lambda: self._overlap is not None and not self._overlap.is_level)
        if self._old_link is None:
            self._complete()

    async def _while(self, is_so: Callable[[], bool]) -> None:
        """Wait while something is so, until `DRAIN_NS` after the swap; a replay may outrun real time."""
        clock, until_s = self._engine.clock, time.monotonic() + DRAIN_NS / 1e9
        while is_so() and clock.now_ns() - self._swap_ns < DRAIN_NS and time.monotonic() < until_s:
            await asyncio.sleep(LOOK_AGAIN_S)

    def _complete(self) -> None:
        """Have nothing between the live adapter and the account any more but what watches it."""
        overlap, self._overlap, self._reports = self._overlap, None, None
        for symbol in overlap.unreached() if overlap is not None else ():
            # Where the version before left the account, the venue never gets: by its numbers at least.
            self._tell_book_anew(symbol, "the version before numbered it in another way")
        self._straighten()

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

    def _is_awaited(self) -> bool:
        """Return whether an order is there whose request went through the old version."""
        return any(
            order.account == self._account and order.status in _PENDING and order.updated_ns <= self._swap_ns
            for order in self._engine.state.orders.values()
        )

    def _on_failed_live(self, error: BaseException) -> None:
        """Stop trading on the account and have the version taken back, instead of giving up."""
        if self.probation is None:
            self._engine.safety.adapter_failed(self._account, error)
            return
        engine, why = self._engine, f"its code raised {describe_error(error)}"
        self.probation.failure = why
        engine.begin_turn(engine.clock.now_ns())
        self._feed.is_settled, self._feed.failure = False, why
        engine.safety.market_data_lost(self._feed, why)
        engine.safety.out_of_touch(self._feed, why, engine.now_ns)
        engine.end_turn(engine.now_ns, 0)
        self._give_back_at(why)

    def _on_failed_old(self, _error: BaseException) -> None:
        """Let a version on its way out fail as it likes; but it is not gone back to."""
        self._is_old_good = False

    def settle(self, now_ns: int) -> None:
        """End probation: nothing is taken back from here on."""
        self.probation = None
        self._straighten()

    def _straighten(self) -> None:
        """Take this revision's functions out of the way, those that have nothing left to do."""
        link, feed = self._link, self._feed
        # Another version on its way in may be listening: then they stay where they are.
        if link is None or self._overlap is not None:
            return
        if link.market == self._live_market:
            link.market = feed.market
        if self.probation is None:
            if link.report == self._live_report:
                link.report = feed.report
            if link.on_failed == self._on_failed_live:
                link.on_failed = feed.failed

    def roll_back(self, reason: str, policy: str, now_ns: int) -> None:
        """Call the old version back while it is there, or else connect it anew and then change over.

        Resting orders are the account's; policies for them are a matter of strategies.
        """
        self.probation = None
        feed, link, old_link, overlap = self._feed, self._link, self._old_link, self._overlap
        assert link is not None, "swapped before"
        is_there = old_link is not None and not old_link.is_closed and self._is_old_good
        if old_link is None or overlap is None or not is_there or self._symbols != feed.symbols.keys():
            self._engine.record_alert("adapter_back", f"{self.name}: the version before is connected again")
            feed.spawn(self._connect_before(), "connecting the version before")
            return
        was_settled = feed.is_settled
        self._put_in_place(old_link, link, now_ns)
        link.on_failed, old_link.on_failed = self._on_failed_old, feed.failed
        if not was_settled:
            feed.reconnected(set(), now_ns)
        for symbol, symbol_feed in feed.symbols.items():
            if not overlap.is_matched(BookTop, symbol):
                symbol_feed.book.forget_numbers()
            if not overlap.is_matched(Depth, symbol) or symbol_feed.book.depth_fault:
                overlap.lose(Depth, symbol)
                self._tell_book_anew(symbol, "the version before numbers it in another way")
        for event in overlap.change():
            feed.market(event)
        feed.spawn(self._let_go(link), "the version rolled back")

    async def _connect_before(self) -> None:
        bad, make_before = self._feed.adapter, self._make_before
        assert make_before is not None, "swapped before"
        for pause_s in BACK_PAUSES_S:
            await asyncio.sleep(pause_s)
            if self._feed.adapter is not bad:
                return  # somebody was quicker
            back = AdapterRevision(self._engine, self._account, make_before, self._limits, self._on_fault)
            try:
                back.build()
                await back.warm_up()
            except TandemError as error:
                back.abandon()
                self._engine.alert("adapter_not_back", f"{self.name}: {error}")
                continue
            engine, now_ns = self._engine, self._engine.clock.now_ns()
            engine.begin_turn(now_ns)
            back.swap(now_ns)
            back.settle(now_ns)
            engine.end_turn(now_ns, 0)
            return
