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
from host.runtime.reload.candidate import LOOK_AGAIN_S, Candidate
from host.runtime.reload.overlap import SameReports
from host.runtime.reload.probation import ProbationLimits
from host.runtime.reload.revision import RevisionFailed

if TYPE_CHECKING:
    from host.runtime.engine import Engine

__all__ = ["AdapterRevision", "AdapterUse"]

DRAIN_NS: Final = 5_000_000_000
"""How long the old version stays for answers; after that the orders are asked for through the new one."""
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
        old = self._feed.adapter
        self._make_before = functools.partial(type(old), old.params)
        self._old_link: AdapterLink | None = next(link for link in self._feed.links if link.adapter is old)
        self._new: ExchangeAdapter[Any] | None = None
        self._link: AdapterLink | None = None
        self._candidate: Candidate | None = None
        """The new version beside the old one, and what was heard then; until probation ends."""
        self._reports = SameReports()
        self._swap_ns = 0
        self._has_old_failed = False

    # -- beside the old one ----------------------------------------------------------------------

    def build(self) -> str:
        """Construct the new adapter with the account's parameters."""
        self._new = self._make()
        return f"{self.name}: adapter constructed"

    async def warm_up(self) -> str:
        """Connect it beside the old one and wait until both know the same."""
        assert self._new is not None and self._old_link is not None, "built before"
        self._candidate = Candidate(self._engine, self._account, self._new, self._old_link)
        return f"{self.name}: {await self._candidate.get_ready()}"

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
        link, self._reports = candidate.link, candidate.reports
        self._link = link
        self._swap_ns = now_ns
        books = [symbol.book for symbol in feed.symbols.values()]
        was_settled = feed.is_settled
        feed.adapter = candidate.adapter
        self._engine.oms.switch_adapter(self._account, candidate.adapter)
        old_link.mute()
        old_link.report, old_link.on_failed = self._late_report, self._on_failed_old
        link.market, link.report, link.on_failed = self._new_market, self._new_report, self._on_failed_live
        for report in self._reports.take_ahead():
            feed.report(report)
        for symbol, own in candidate.books.items():
            self._hand_over_book(symbol, own, now_ns)
        for event in candidate.overlap.ahead():
            feed.market(event)
        if not was_settled:
            feed.reconnected({channel for channel, is_up in candidate.channels.items() if not is_up}, now_ns)
        was_busy = candidate.live_events >= BUSY_EVENTS
        self.probation = AdapterProbation(books, self._limits, self._engine.clock.now_ns, was_busy=was_busy)
        feed.spawn(self._let_go(old_link), "the adapter's version before")

    def _hand_over_book(self, symbol: str, own: Book, now_ns: int) -> None:
        """Give the live book what only the new version's connection can tell it."""
        assert self._candidate is not None
        live = self._feed.symbols[symbol].book
        bids, asks = own.levels(ALL_LEVELS)
        is_continued = not live.depth_fault and (
            self._candidate.overlap.is_shared(Depth, symbol)
            or (own.seq == live.seq and live.levels(ALL_LEVELS) == (bids, asks))  # a quiet moment
        )
        if bids and asks and not is_continued:
            self._feed.market(
                Depth(
                    symbol, tuple(bids), tuple(asks), is_snapshot=True, first_seq=own.seq, seq=own.seq,
                    ts_event=now_ns, ts_recv=now_ns,
                )
            )  # fmt: skip
        if live.top_fault and own.top is not None and not own.top_fault:
            self._feed.market(own.top)

    # -- after it --------------------------------------------------------------------------------

    def _new_market(self, event: MarketEvent) -> None:
        if self._candidate is None or self._candidate.overlap.is_new(event):
            self._feed.market(event)

    def _new_report(self, report: Report) -> None:
        probation = self.probation
        if probation is not None:
            probation.losses += isinstance(report, ConnectionChanged) and not report.is_up
            probation.unanswered += isinstance(report, RequestUnanswered)
        if self._old_link is None or self._reports.is_new(report):
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
            return
        if isinstance(report, RequestUnanswered):
            order = self._engine.state.orders.get(report.client_id)
            if order is None or order.status not in _PENDING or order.updated_ns > self._swap_ns:
                return  # the answer came through the new version
        if self._reports.is_new(report):
            self._feed.report(report)

    async def _let_go(self, link: AdapterLink) -> None:
        """Close a version that is live no more, once nothing that it sent is unanswered."""
        clock = self._engine.clock
        until_ns, until_s = clock.now_ns() + DRAIN_NS, time.monotonic() + DRAIN_NS / 1e9
        while self._is_awaited() and clock.now_ns() < until_ns and time.monotonic() < until_s:
            await asyncio.sleep(LOOK_AGAIN_S)
        if self._feed.adapter is link.adapter:
            return  # it was called back meanwhile
        self._old_link = None
        await self._feed.close_link(link)
        self._straighten()

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
        self._has_old_failed = True

    def settle(self, now_ns: int) -> None:
        """End probation: from here on nothing is between the adapter and the account."""
        self.probation = self._candidate = None
        self._straighten()

    def _straighten(self) -> None:
        """Take this revision's functions out of the way, once neither of them has anything left to do."""
        link = self._link
        # Another version on its way in may be listening: then they stay where they are.
        if self._candidate is None and self._old_link is None and link is not None:
            if link.market == self._new_market:
                link.market, link.report = self._feed.market, self._feed.report
            if link.on_failed == self._on_failed_live:
                link.on_failed = self._feed.failed

    def roll_back(self, reason: str, policy: str, now_ns: int) -> None:
        """Call the old version back while it is there, or else connect it anew and then change over.

        Resting orders are the account's; policies for them are a matter of strategies.
        """
        self.probation = self._candidate = None
        feed, link, old_link = self._feed, self._link, self._old_link
        assert link is not None, "swapped before"
        if old_link is None or old_link.is_closed or self._has_old_failed:
            self._engine.record_alert("adapter_back", f"{self.name}: the version before is connected again")
            feed.spawn(self._connect_before(), "connecting the version before")
            return
        was_settled = feed.is_settled
        self._swap_ns = now_ns
        feed.adapter = old_link.adapter
        self._engine.oms.switch_adapter(self._account, old_link.adapter)
        link.mute()
        link.report, link.on_failed = self._late_report, self._on_failed_old
        old_link.market, old_link.report, old_link.on_failed = feed.market, feed.report, feed.failed
        if not was_settled:
            feed.reconnected(set(), now_ns)
        try:
            for symbol, symbol_feed in feed.symbols.items():
                if symbol_feed.book.seq or not was_settled:
                    old_link.adapter.resync(symbol)  # what it delivered meanwhile is not in the book
        except Exception as error:  # noqa: BLE001 - plugin boundary: the account is given up
            feed.failed(error)
        feed.spawn(self._let_go(link), "the version rolled back")

    async def _connect_before(self) -> None:
        bad = self._feed.adapter
        for pause_s in BACK_PAUSES_S:
            await asyncio.sleep(pause_s)
            if self._feed.adapter is not bad:
                return  # somebody was quicker
            back = AdapterRevision(
                self._engine, self._account, self._make_before, self._limits, self._on_fault
            )
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
