"""One account's step from one version of its adapter to another, and back if need be: make before break.

The new adapter connects, subscribes and asks for the account beside the old one, and nobody hears of
it. Once its books are good and its view of the account is ours, it takes the old one's place between
two events; the old one stays for the answers to what it has sent, and then closes.
"""

import asyncio
import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from host.api import ConnectionChanged, ExchangeAdapter, Report, RequestUnanswered, TandemError
from host.loader import Offer
from host.runtime.link import AdapterLink
from host.runtime.plugin_errors import describe_error
from host.runtime.reload.adapter_probation import AdapterProbation
from host.runtime.reload.candidate import Candidate
from host.runtime.reload.change_over import ChangeOver
from host.runtime.reload.probation import ProbationLimits
from host.runtime.reload.revision import RevisionFailed

if TYPE_CHECKING:
    from host.runtime.engine import Engine

__all__ = ["AdapterRevision", "AdapterUse"]

BACK_PAUSES_S: Final = (0.0, 1.0, 5.0, 15.0, 30.0)
"""When the version before is connected again, after each try that failed."""
BUSY_EVENTS: Final = 100
"""So many while the new version connected: silence would be out of the ordinary."""


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
        self.instance: Final = None
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
        self._old_link: AdapterLink | None = None
        self._change: ChangeOver | None = None
        """From the swap until nothing is left of the version before, which can be called back so long."""
        self._link: AdapterLink | None = None
        """Of the version that this revision made live."""

    # -- beside the old one ----------------------------------------------------------------------

    def build(self) -> str:
        """Construct the new adapter with the account's parameters."""
        self._new = self._make()
        return f"{self.name}: adapter constructed"

    async def warm_up(self) -> str:
        """Connect it beside the old one and wait until both know the same."""
        assert self._new is not None, "built before"
        feed = self._feed
        old_link = self._old_link = next(link for link in feed.links if link.adapter is feed.adapter)
        self._make_before = functools.partial(type(old_link.adapter), old_link.adapter.params)
        self._candidate = Candidate(self._engine, self._account, self._new, old_link)
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
        candidate, old_link = self._candidate, self._old_link
        assert candidate is not None and old_link is not None, "warmed up before"
        candidate.leave_live()
        self._candidate = self._old_link = None
        link = self._link = candidate.link
        change = self._change = ChangeOver(
            self._engine, self._account, link, old_link, candidate.overlap, candidate.reports, self._complete
        )
        books = [self._feed.symbols[symbol].book for symbol in candidate.books]
        down = {channel for channel, is_up in candidate.channels.items() if not is_up}
        change.begin(candidate.books, down, now_ns)
        link.report, link.on_failed = self._watched_report, self._on_failed
        was_busy = candidate.live_events >= BUSY_EVENTS
        self.probation = AdapterProbation(books, self._limits, self._engine.clock.now_ns, was_busy=was_busy)

    # -- after it --------------------------------------------------------------------------------

    def _watched_report(self, report: Report) -> None:
        """Take in a report of a version on probation, and note what speaks against it."""
        probation = self.probation
        if probation is not None:
            probation.losses += isinstance(report, ConnectionChanged) and not report.is_up
            probation.unanswered += isinstance(report, RequestUnanswered)
        if self._change is not None:
            self._change.report(report)
        else:
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

    def _on_failed(self, error: BaseException) -> None:
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

    def settle(self, now_ns: int) -> None:
        """End probation: nothing is taken back from here on."""
        self.probation = None
        self._straighten()

    def _complete(self) -> None:
        """Have nothing between the live adapter and the account any more but what watches it."""
        change, self._change = self._change, None
        assert change is not None
        self._link = change.link
        if self._link.market == change.market:
            self._link.market = self._feed.market
        if self._link.report == change.report:
            self._link.report = self._feed.report
        self._straighten()

    def _straighten(self) -> None:
        """Watch a version no more that is off probation and past its change-over."""
        link, feed = self._link, self._feed
        # Another version on its way in may be listening: then they stay where they are.
        if link is None or self._change is not None or self.probation is not None:
            return
        if link.report == self._watched_report:
            link.report = feed.report
        if link.on_failed == self._on_failed:
            link.on_failed = feed.failed

    def roll_back(self, reason: str, policy: str, now_ns: int) -> None:
        """Call the old version back while it is there, or else connect it anew and then change over.

        Resting orders are the account's; policies for them are a matter of strategies.
        """
        self.probation = None
        if self._change is None or not self._change.call_back(now_ns):
            text = f"{self.name}: the version before is being connected again"
            self._engine.record_alert("adapter_back", text)
            self._feed.spawn(self._connect_before(), "connecting the version before")

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
            engine.record_alert("adapter_back", f"{self.name}: the version before is live again")
            engine.end_turn(now_ns, 0)
            return
