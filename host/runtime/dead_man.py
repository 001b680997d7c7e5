"""The dead man's switch: while there is something to cancel, the venue would do it, should every node be gone.

A venue that has such a switch cancels orders unless it is armed again in time (`ExchangeAdapter.arm_dead_man`).
Failover does not depend on it: it is for the day on which nobody is left to take over.
"""

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from host.api import DeadManTerms, ExchangeAdapter, ExchangeError
from host.core.client_id import epoch_tag, parse_client_id
from host.core.entries import InstanceState

if TYPE_CHECKING:
    from host.runtime.engine import Engine
    from host.runtime.feed import AccountFeed

__all__ = ["DeadMan"]

REARMS: Final = 3
"""How often a switch is armed within its own time: two in a row may be lost."""
RETRIES: Final = 10
"""The same after one was lost."""
BEGIN_WITHIN_S: Final = 0.5
"""How long the first order waits for the switches at most: without an answer they may cancel it, no worse."""
MAY_QUOTE: Final = (InstanceState.LOADED, InstanceState.STARTING, InstanceState.RUNNING)


class _Covered(Struct, frozen=True):
    """What one timer of a venue is for."""

    account: str
    symbol: str
    tag: str

    def __str__(self) -> str:
        return " ".join(part for part in (f"account {self.account}", self.symbol, self.tag) if part)


class _Timer(Struct):
    due_ns: int = 0
    arming: "asyncio.Task[None] | None" = None
    has_failed: bool = False


class DeadMan:
    """Keeps the switches of all accounts armed while anything rests there or may be quoted.

    Inert until `begin`. `after_ms` is how long a venue waits, within what it allows; a third of it is how
    often it is armed again. A failure is alerted once, tried again, and stops nothing.
    """

    def __init__(self, engine: "Engine", after_ms: int) -> None:
        self._engine: Final = engine
        self._after_ms: Final = after_ms
        self._timers: dict[_Covered, _Timer] = {}
        self._is_active = False

    async def begin(self) -> None:
        """Arm every switch, and keep them armed from here on; to be called before the first order.

        What another node armed goes on at the venue, and would cancel this one's orders when it runs out: so this
        returns once it was replaced, or could not be. A switch with tags cannot reach orders of a later epoch,
        and nobody waits for it.
        """
        self._is_active = True
        now_ns = self._engine.clock.now_ns()
        for feed, terms in self._switches():
            for covered in self._covered(feed, terms):
                self._arm(feed, terms, covered, now_ns)
        waited = [
            timer.arming
            for feed, terms in self._switches()
            for covered, timer in self._timers.items()
            if covered.account == feed.account and timer.arming is not None and not terms.is_tagged
        ]
        if waited:
            await asyncio.wait(waited, timeout=BEGIN_WITHIN_S)

    def on_duty(self, now_ns: int) -> None:
        """Arm what is due, and disarm what covers nothing any more; for `Upkeep.duties`."""
        if not self._is_active or self._engine.halted:
            return
        wanted: set[_Covered] = set()
        for feed, terms in self._switches():
            for covered in self._covered(feed, terms):
                wanted.add(covered)
                timer = self._timers.get(covered)
                if timer is None or (timer.arming is None and now_ns >= timer.due_ns):
                    self._arm(feed, terms, covered, now_ns)
            idle = [covered for covered in self._timers if covered.account == feed.account]
            for covered in idle:
                if covered not in wanted and self._timers[covered].arming is None:
                    del self._timers[covered]
                    feed.spawn(self._disarm(feed.adapter, covered), "dead man's switch")

    async def end(self) -> None:
        """Disarm what covers no live order, at a clean stop; what is left open stays covered."""
        is_covered = {order.account for order in self._engine.state.orders.values()}
        timers = self.forget()
        disarming = [
            feed.spawn(self._disarm(feed.adapter, covered), "dead man's switch")
            for feed, _terms in self._switches()
            for covered in timers
            if covered.account == feed.account and feed.account not in is_covered
        ]
        if disarming:
            await asyncio.wait(disarming)

    def forget(self) -> list[_Covered]:
        """Arm and disarm nothing any more: another node does. Return what is armed."""
        self._is_active = False
        timers, self._timers = self._timers, {}
        for timer in timers.values():
            if timer.arming is not None:
                timer.arming.cancel()
        return list(timers)

    # -- what is covered -------------------------------------------------------------------------

    def _switches(self) -> "Iterator[tuple[AccountFeed, DeadManTerms]]":
        """Return the accounts that can be armed now."""
        for feed in self._engine.feeds.values():
            terms = feed.adapter.dead_man
            if terms is not None and not feed.failure:
                yield feed, terms

    def _covered(self, feed: "AccountFeed", terms: DeadManTerms) -> Iterator[_Covered]:
        """Return the timers of an account that have something to cancel, or may have at any time."""
        engine = self._engine
        prefix, state = engine.settings.order_id_prefix, engine.state
        pairs: set[tuple[str, int]] = set()
        for order in state.orders.values():
            made = parse_client_id(order.client_id, prefix)
            if order.account == feed.account and made is not None:
                pairs.add((order.symbol, made.epoch))
        for instance in engine.roster.instances.values():
            if instance.account == feed.account and instance.state in MAY_QUOTE:
                pairs.update((symbol, state.epoch) for symbol in instance.symbols)
        for symbol, epoch in sorted(pairs):
            yield _Covered(
                feed.account,
                symbol if terms.is_per_symbol else "",
                epoch_tag(prefix, epoch) if terms.is_tagged else "",
            )

    def _after(self, terms: DeadManTerms) -> int:
        """Return how long the venue is to wait, in ms, as it allows."""
        steps = -(-self._after_ms // terms.step_ms)
        return min(max(steps * terms.step_ms, terms.least_ms), terms.most_ms)

    # -- arming ----------------------------------------------------------------------------------

    def _arm(self, feed: "AccountFeed", terms: DeadManTerms, covered: _Covered, now_ns: int) -> None:
        timer = self._timers.setdefault(covered, _Timer())
        if timer.arming is None:
            work = self._keep_armed(feed.adapter, self._after(terms), covered, timer, now_ns)
            timer.arming = feed.spawn(work, "dead man's switch")

    async def _keep_armed(
        self, adapter: ExchangeAdapter[Any], after_ms: int, covered: _Covered, timer: _Timer, now_ns: int
    ) -> None:
        """Arm one switch; the time of the next attempt counts from before this one."""
        after_ns = after_ms * 1_000_000
        try:
            async with asyncio.timeout(after_ms / 1e3 / REARMS):
                await adapter.arm_dead_man(after_ms, symbol=covered.symbol, tag=covered.tag)
        except (ExchangeError, TimeoutError) as error:
            timer.due_ns = now_ns + after_ns // RETRIES
            self._failed(covered, timer, error)
        else:
            timer.due_ns = now_ns + after_ns // REARMS
            timer.has_failed = False
        finally:
            timer.arming = None

    async def _disarm(self, adapter: ExchangeAdapter[Any], covered: _Covered) -> None:
        try:
            async with asyncio.timeout(self._after_ms / 1e3 / REARMS):
                await adapter.arm_dead_man(0, symbol=covered.symbol, tag=covered.tag)
        except (ExchangeError, TimeoutError) as error:
            self._failed(covered, _Timer(), error)

    def _failed(self, covered: _Covered, timer: _Timer, error: Exception) -> None:
        if not timer.has_failed and not self._engine.halted:
            timer.has_failed = True
            why = str(error) or "no answer"
            self._engine.alert("dead_man_failed", f"{covered}: its dead man's switch was not set: {why}")
