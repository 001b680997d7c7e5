"""One account's step from one version of its adapter to another, and back if need be: make before break.

The new adapter connects, subscribes and asks for the account beside the old one, and nobody hears of
it. Once its books are good and its view of the account is ours, it takes the old one's place between
two events; the old one stays for the answers to what it has sent, and then closes.
"""

import asyncio
import contextlib
import functools
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from host.api import (
    BookTop,
    ConnectionChanged,
    Depth,
    ExchangeAdapter,
    Instrument,
    MarketEvent,
    OrderStatus,
    Report,
    RequestUnanswered,
    TandemError,
)
from host.core.books import Book, DepthResult
from host.loader import Offer
from host.runtime.link import AdapterLink
from host.runtime.plugin_errors import describe_error
from host.runtime.reload.account_view import AccountView
from host.runtime.reload.overlap import Overlap, SameReports
from host.runtime.reload.probation import ProbationLimits
from host.runtime.reload.revision import RevisionFailed

if TYPE_CHECKING:
    from host.runtime.engine import Engine

__all__ = ["AdapterProbation", "AdapterRevision", "AdapterUse"]

CONNECT_DEADLINE_S: Final = 10.0
"""For `connect`, and again for `subscribe`."""
READY_DEADLINE_S: Final = 20.0
"""For good books and an account that agrees, once it is connected."""
MATCH_PATIENCE_S: Final = 3.0
"""How long an event that both connections deliver is waited for; venues may number each by itself."""
LOOK_AGAIN_S: Final = 0.01
DRAIN_NS: Final = 5_000_000_000
"""How long the old version stays for answers; after that the orders are asked for through the new one."""
BACK_PAUSES_S: Final = (0.0, 1.0, 5.0, 15.0, 30.0)
"""When the version before is connected again, after each try that failed."""
ALL_LEVELS: Final = 1 << 30

BUSY_EVENTS: Final = 100
"""So many while the new version connected: silence would be out of the ordinary."""
MOST_LOSSES: Final = 2
MOST_UNANSWERED: Final = 5
MOST_BOOK_FAULT_NS: Final = 3_000_000_000
MOST_SILENCE_NS: Final = 10_000_000_000
"""Of all books together, where the version before delivered events all the time."""

_PENDING: Final = (OrderStatus.PENDING_NEW, OrderStatus.PENDING_AMEND, OrderStatus.PENDING_CANCEL)


class AdapterUse(Struct, frozen=True):
    """Which offer an account runs, and the adapter's parameters as the node completed them."""

    offer: Offer
    params: Mapping[str, object]


class AdapterProbation:
    """Counts what goes wrong on the connections of a version that has just gone live."""

    def __init__(
        self, books: Sequence[Book], limits: ProbationLimits, now_ns: Callable[[], int], *, was_busy: bool
    ) -> None:
        self.losses = 0
        self.unanswered = 0
        self.failure = ""
        """What its code raised."""
        self._books = [book for book in books if book.is_valid]
        self._limits = limits
        self._now_ns = now_ns
        self._started_ns = now_ns()
        self._was_busy = was_busy
        self._bad_since_ns = 0
        """Since when a look at the books has always found a bad one."""

    def fault(self) -> str:
        """Return why the version must go back, or an empty text."""
        now_ns = self._now_ns()
        if all(book.is_valid for book in self._books):
            self._bad_since_ns = 0
        elif not self._bad_since_ns:
            self._bad_since_ns = now_ns
        if self.failure:
            return self.failure
        if self.losses > MOST_LOSSES:
            return f"it lost {self.losses} connections"
        if self.unanswered > MOST_UNANSWERED:
            return f"{self.unanswered} of its requests stayed without an answer"
        if self._bad_since_ns and now_ns - self._bad_since_ns > MOST_BOOK_FAULT_NS:
            [bad, *_] = [book for book in self._books if not book.is_valid]
            return f"its book of {bad.symbol} is no good: {bad.invalid_reason}"
        silent_ns = min((book.age_ns(now_ns) for book in self._books), default=0)
        if self._was_busy and min(silent_ns, now_ns - self._started_ns) > MOST_SILENCE_NS:
            return f"it has delivered nothing for {silent_ns / 1e9:.0f} s"
        return ""

    def is_over(self, now_ns: int) -> bool:
        """Return whether it has been watched for long enough."""
        return now_ns - self._started_ns >= self._limits.seconds * 1e9


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
        self._failure = ""
        self._stirred = asyncio.Event()
        self._channels: dict[str, bool] = {}
        self._books: dict[str, Book] = {}
        self._overlap = Overlap(engine.clock.now_ns())
        self._reports = SameReports()
        self._view: AccountView | None = None
        self._untap: Callable[[], None] | None = None
        self._live_events = 0
        self._swap_ns = 0
        self._is_settled = False

    # -- beside the old one ----------------------------------------------------------------------

    def build(self) -> str:
        """Construct the new adapter with the account's parameters."""
        self._new = self._make()
        return f"{self.name}: adapter constructed"

    async def warm_up(self) -> str:
        """Connect, subscribe and wait until market and account are as the live version has them."""
        new, feed = self._new, self._feed
        assert new is not None, "built before"
        started_s = time.monotonic()
        link = self._link = feed.open_link(new, self._on_failed, is_driven=False)
        link.market, link.report = self._other_market, self._other_report
        self._books = {symbol: Book(symbol) for symbol in feed.symbols}
        self._tap()
        instruments = await self._bounded(new.connect(), "connect")
        connected_s = time.monotonic()
        self._check_instruments(instruments)
        await self._bounded(new.subscribe(sorted(feed.symbols)), "subscribe")
        feed.give_turns(link)
        self._view = AccountView(self._engine, self._account, new, is_comparable=feed.is_settled)
        await self._until_ready()
        return (
            f"{self.name}: connected in {connected_s - started_s:.3f} s, books of {len(self._books)} symbols "
            f"and the account agree after {time.monotonic() - started_s:.3f} s"
        )

    async def _bounded(self, work: Coroutine[Any, Any, Any], what: str) -> Any:
        task = asyncio.ensure_future(work)
        try:
            done, _ = await asyncio.wait({task}, timeout=CONNECT_DEADLINE_S)
        except asyncio.CancelledError:
            task.cancel()
            raise
        if not done:
            task.cancel()  # not waited for: it may hang in its cancellation too
            raise RevisionFailed(f"{self.name}: {what} did not end within {CONNECT_DEADLINE_S:g} s")
        error = task.exception()
        if isinstance(error, TandemError):
            raise RevisionFailed(f"{self.name}: {what}: {error}") from error
        if error is not None:
            raise RevisionFailed(f"{self.name}: {what} raised {describe_error(error)}") from error
        return task.result()

    def _check_instruments(self, instruments: Sequence[Instrument]) -> None:
        known = self._engine.state.instruments.get(self._account, {})
        listed = {instrument.symbol: instrument for instrument in instruments}
        for symbol in self._feed.symbols:
            if symbol not in listed:
                raise RevisionFailed(f"{self.name}: it does not list {symbol}, which is in use")
            if listed[symbol] != known.get(symbol):
                raise RevisionFailed(
                    f"{self.name}: {symbol} is in use as {known.get(symbol)}, was listed as {listed[symbol]}; "
                    "restart the node to trade it on other terms"
                )

    async def _until_ready(self) -> None:
        """Wait until `_waiting_for` says nothing; in real time, which a replay may outrun."""
        started_s = time.monotonic()
        while why := self._waiting_for(self._engine.clock.now_ns()):
            waited_s = time.monotonic() - started_s
            if waited_s >= READY_DEADLINE_S:
                raise RevisionFailed(f"{self.name}: not ready after {READY_DEADLINE_S:g} s: {why}")
            if waited_s >= MATCH_PATIENCE_S:
                self._overlap.give_up_matching()
            # With each message: a replay at full speed covers much time between two looks at the clock.
            self._stirred.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stirred.wait(), LOOK_AGAIN_S)

    def _waiting_for(self, now_ns: int) -> str:
        """Say what the new version still lacks; raise `RevisionFailed` where it broke."""
        if self._failure:
            raise RevisionFailed(f"{self.name}: {self._failure}")
        if self._feed.symbols.keys() != self._books.keys():
            raise RevisionFailed(f"{self.name}: symbols were added meanwhile; reload it again")
        for channel, is_up in self._channels.items():
            if not is_up:
                return f"its {channel} connection is down"
        is_live_good = self._feed.is_settled
        for symbol, book in self._books.items():
            live = self._feed.symbols[symbol].book
            # A market that is closed or one-sided is no fault of the new version.
            if not book.is_valid and (live.is_valid or not is_live_good):
                return f"{symbol}: {book.invalid_reason}"
        if is_live_good and (why := self._overlap.waiting_for(now_ns)):
            return why
        assert self._view is not None
        try:
            return self._view.waiting_for(now_ns)
        except TandemError as error:
            raise RevisionFailed(f"{self.name}: {error}") from error
        except Exception as error:
            raise RevisionFailed(f"{self.name}: send raised {describe_error(error)}") from error

    def _tap(self) -> None:
        """Hear what the live version delivers."""
        link, overlap, reports, now_ns = (
            self._old_link,
            self._overlap,
            self._reports,
            self._engine.clock.now_ns,
        )
        assert link is not None
        market, report = link.market, link.report

        def tap_market(event: MarketEvent) -> None:
            market(event)
            self._live_events += 1
            self._stirred.set()
            overlap.live(event, now_ns())

        def tap_report(message: Report) -> None:
            report(message)
            reports.live(message)

        def untap() -> None:
            link.market, link.report = market, report

        link.market, link.report = tap_market, tap_report
        self._untap = untap

    def _other_market(self, event: MarketEvent) -> None:
        self._stirred.set()
        book = self._books.get(event.symbol)
        if book is None:
            return
        if isinstance(event, Depth):
            if book.apply_depth(event) is DepthResult.GAP and self._new is not None:
                self._new.resync(event.symbol)
        elif isinstance(event, BookTop):
            book.apply_top(event)
        self._overlap.other(event)

    def _other_report(self, report: Report) -> None:
        self._stirred.set()
        if isinstance(report, ConnectionChanged):
            self._channels[report.channel] = report.is_up
        elif self._view is None or not self._view.take(report):
            self._reports.other(report)

    def _on_failed(self, error: BaseException) -> None:
        self._failure = f"its code raised {describe_error(error)}"

    def abandon(self) -> None:
        """Close the new adapter, if it did not go live; the old one never noticed. No effect twice."""
        if self._untap is not None:
            self._untap()
            self._untap = None
        link, self._link = self._link, None
        if link is not None:
            link.mute()
            self._feed.take_turns(link)
            self._feed.spawn(self._feed.close_link(link), "closing a refused adapter")

    # -- the swap --------------------------------------------------------------------------------

    def prepare(self, now_ns: int) -> None:
        """See that it is still as good as the live version."""
        if why := self._waiting_for(now_ns):
            raise RevisionFailed(f"{self.name}: {why}")

    def succeed(self, previous: object) -> None:
        """Take the place of a revision on probation: go back to what that would go back to."""
        assert isinstance(previous, AdapterRevision)
        self._make_before = previous._make_before
        previous.settle(self._engine.now_ns)

    def swap(self, now_ns: int) -> None:
        """Have everything come from and go to the new version, from the next event on."""
        feed, new, link, old_link = self._feed, self._new, self._link, self._old_link
        assert new is not None and link is not None and old_link is not None and self._untap is not None
        self._untap()
        self._untap = None
        self._swap_ns = now_ns
        books = [symbol.book for symbol in feed.symbols.values()]
        was_settled = feed.is_settled
        feed.adapter = new
        self._engine.oms.switch_adapter(self._account, new)
        old_link.mute()
        old_link.report = self._late_report
        old_link.on_failed = _nobody_cares
        link.market, link.report, link.on_failed = self._new_market, self._new_report, self._on_failed_live
        for report in self._reports.take_ahead():
            feed.report(report)
        for symbol in feed.symbols:
            self._hand_over_book(symbol, now_ns)
        for event in self._overlap.ahead():
            feed.market(event)
        self._books.clear()
        self._view = None
        if not was_settled:
            feed.reconnected({channel for channel, is_up in self._channels.items() if not is_up}, now_ns)
        self.probation = AdapterProbation(
            books, self._limits, self._engine.clock.now_ns, was_busy=self._live_events >= BUSY_EVENTS
        )
        feed.spawn(self._let_go(old_link), "the adapter's version before")

    def _hand_over_book(self, symbol: str, now_ns: int) -> None:
        """Give the live book what only the new version's connection can tell it."""
        live, own = self._feed.symbols[symbol].book, self._books[symbol]
        bids, asks = own.levels(ALL_LEVELS)
        is_continued = not live.depth_fault and (
            self._overlap.is_shared(Depth, symbol)
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
        if self._is_settled or self._overlap.is_new(event):
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
        self.probation.failure = self._failure = why
        engine.begin_turn(engine.clock.now_ns())
        self._feed.is_settled, self._feed.failure = False, why
        engine.safety.market_data_lost(self._feed, why)
        engine.safety.out_of_touch(self._feed, why, engine.now_ns)
        engine.end_turn(engine.now_ns, 0)
        self._give_back_at(why)

    def settle(self, now_ns: int) -> None:
        """End probation: from here on nothing is between the adapter and the account."""
        self.probation = None
        self._is_settled = True
        self._straighten()

    def _straighten(self) -> None:
        """Take this revision's functions out of the way, once neither of them has anything left to do."""
        link = self._link
        # Another version on its way in may be listening: then they stay where they are.
        if self._is_settled and self._old_link is None and link is not None:
            if link.market == self._new_market:
                link.market, link.report = self._feed.market, self._feed.report
            if link.on_failed == self._on_failed_live:
                link.on_failed = self._feed.failed

    def roll_back(self, reason: str, policy: str, now_ns: int) -> None:
        """Call the old version back while it is there, or else connect it anew and then change over.

        Resting orders are the account's; policies for them are a matter of strategies.
        """
        self.probation = None
        self._is_settled = True
        feed, link, old_link = self._feed, self._link, self._old_link
        assert link is not None
        if old_link is None or old_link.is_closed:
            self._engine.record_alert("adapter_back", f"{self.name}: the version before is connected again")
            feed.spawn(self._connect_before(), "connecting the version before")
            return
        was_settled = feed.is_settled
        self._swap_ns = now_ns
        feed.adapter = old_link.adapter
        self._engine.oms.switch_adapter(self._account, old_link.adapter)
        link.mute()
        link.report, link.on_failed = self._late_report, _nobody_cares
        old_link.market, old_link.report, old_link.on_failed = feed.market, feed.report, feed.failed
        for symbol, symbol_feed in feed.symbols.items():
            if symbol_feed.book.seq or not was_settled:
                old_link.adapter.resync(symbol)  # what it delivered meanwhile is not in the book
        if not was_settled:
            feed.reconnected(set(), now_ns)
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


def _nobody_cares(_error: BaseException) -> None:
    """Let a version that is on its way out fail as it likes."""
