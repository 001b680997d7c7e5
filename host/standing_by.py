"""One time as a standby: the journal comes from the primary, and strategies run muted until this node leads."""

import asyncio
import logging
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from host.api import TandemError
from host.errors import NodeMustRestart
from host.held_gate import Term
from host.loading import archive_of
from host.reloading import Reloading
from host.runtime.instance_control import with_api_instances
from host.runtime.shadowing import Shadowing
from host.trading import Trading

if TYPE_CHECKING:
    from host.member import Member

__all__ = ["StandingBy"]

_log = logging.getLogger("tandem.node")

LOOK_S: Final = 0.02
"""How often strategies' timers are looked at."""
HEALTH_S: Final = 0.1
BUILD_WITHIN_S: Final = 5.0
"""How long a node that has won the lease may still get ready; then it is better to let others lead."""
BUILD_AGAIN_S: Final = 3.0
"""How long a standby that could not get ready waits before it tries again."""
BUILD_AGAIN_MOST_S: Final = 60.0
"""The same where only some of its accounts cannot be connected: each attempt costs it all that is warm."""


class StandingBy:
    """Follows whoever leads, on the member's engine, until this node is to lead or to stop."""

    def __init__(self, member: "Member") -> None:
        self._member: Final = member
        self._why_not_built = "it is getting ready"
        self._tried: frozenset[tuple[str, str]] = frozenset()
        """The versions that were there to be loaded when it was built: what of them it does not run, it will not."""
        self._kept = 0
        """How many versions had come by then: one that was damaged may be whole."""
        self._again_s = BUILD_AGAIN_S
        self._build_again_at_s = 0.0
        self._next_health_s = 0.0
        self._next_snapshot_lsn = member.engine.state.lsn + member.engine.settings.snapshot_every

    async def run(self) -> Term | None:
        """Return the term that this node has won; None where it is to stop, or its journal is another one.

        It is ready to lead then, with the member's `trading`; raises `NodeMustRestart` where it is not.
        """
        member, membership = self._member, self._member.membership
        membership.follow(member.replica)
        building = asyncio.create_task(self._build())
        try:
            while membership.term is None and not membership.retired:
                if member.stop_reason:
                    membership.stop()
                if self._has_another_journal():
                    return None
                if membership.followed.failure:
                    raise NodeMustRestart(membership.followed.failure)
                if building.done() and (why := self._why_build_again()):
                    self._why_not_built = why
                    self._tell_health()
                    await member.close_trading()
                    building = asyncio.create_task(self._build())
                membership.changed.clear()
                self._on_time()
                try:
                    async with asyncio.timeout(LOOK_S):
                        await membership.changed.wait()
                except TimeoutError:
                    continue
            if membership.term is not None:
                membership.set_health(membership.health)  # no candidate for another term from here on
                if self._has_another_journal():
                    return None  # what was built is on the journal as it was before
                if not building.done():
                    await asyncio.wait([building], timeout=BUILD_WITHIN_S)
                if self._why_not_built:
                    raise NodeMustRestart(f"it won the lease, and is not ready: {self._why_not_built}")
            return membership.term
        finally:
            building.cancel()
            await asyncio.wait([building])
            await membership.followed.end()

    def _has_another_journal(self) -> bool:
        """Return whether the journal was cut or replaced by a snapshot since the engine was made."""
        return self._member.replica.journal is not self._member.engine.journal

    # -- getting ready ---------------------------------------------------------------------------

    async def _build(self) -> None:
        """Load plugins, connect accounts and start the shadows; try again until it works."""
        while True:
            try:
                await self._try_to_build()
                self._why_not_built = ""
                return
            except TandemError as error:
                self._not_built(str(error))
            except Exception as error:  # noqa: BLE001 - plugin boundary: `connect` may raise anything
                _log.exception("not ready to take over")
                self._not_built(f"getting ready raised {type(error).__name__}: {error}")
            await self._close_what_was_built()
            await asyncio.sleep(BUILD_AGAIN_S)

    async def _close_what_was_built(self) -> None:
        """Close it to the end though this standby is told to make way meanwhile: nobody else would."""
        closing = asyncio.ensure_future(self._member.close_trading())
        try:
            await asyncio.shield(closing)
        except asyncio.CancelledError:
            await asyncio.wait([closing])
            raise

    def _not_built(self, why: str) -> None:
        if self._why_not_built != why:
            self._why_not_built = why
            _log.warning("not ready to take over: %s", why)

    async def _try_to_build(self) -> None:
        member = self._member
        self._tried, self._kept = frozenset(self._permanent()), member.sharing.kept
        reloading = await Reloading.load(member.config, member.engine, member.source)
        trading = Trading(member.config, member.options, member.engine, reloading)
        member.trading = trading
        trading.assembly.check_offers()
        await trading.assembly.connect()
        trading.assembly.shadow(lambda: with_api_instances(member.config, member.engine).instance).refresh()
        if not trading.assembly.skipped_accounts:
            self._again_s = BUILD_AGAIN_S
        self._build_again_at_s = time.monotonic() + self._again_s

    def _why_build_again(self) -> str:
        """Return why what was built is not what this standby would lead with; empty while it is."""
        member = self._member
        trading = member.trading
        if trading is None or self._why_not_built:
            return ""
        waiting = frozenset(self._permanent())
        if waiting and (not waiting <= self._tried or member.sharing.kept > self._kept):
            return "it loads other versions of plugins"
        lost = dict(trading.assembly.skipped_accounts)
        lost |= {name: feed.failure for name, feed in member.engine.feeds.items() if feed.failure}
        if lost and time.monotonic() >= self._build_again_at_s:
            self._again_s = min(2 * self._again_s, BUILD_AGAIN_MOST_S)
            return "; ".join(f"account {name}: {why}" for name, why in lost.items())
        return ""

    def _permanent(self) -> Iterator[tuple[str, str]]:
        """Return the versions that this standby is to run and holds, other than those that it has loaded."""
        member = self._member
        archive = archive_of(member.config)
        loaded = {} if member.trading is None else member.trading.reloading.catalog.versions
        for name, record in member.engine.state.plugins.items():
            runs = loaded.get(name)
            is_loaded = runs is not None and runs.digest == record.permanent
            if record.permanent and not is_loaded and archive.holds(name, record.permanent):
                yield name, record.permanent

    # -- now and then ----------------------------------------------------------------------------

    def _on_time(self) -> None:
        engine = self._member.engine
        now_ns = engine.clock.now_ns()
        shadows = self._shadows()
        if shadows is not None:
            shadows.on_time(now_ns)
        if time.monotonic() >= self._next_health_s:
            self._next_health_s = time.monotonic() + HEALTH_S
            for duty in engine.upkeep.duties:
                duty(now_ns)
            self._tell_health()
            if engine.state.lsn >= self._next_snapshot_lsn:  # so that a start of this standby reads little
                self._next_snapshot_lsn = engine.state.lsn + engine.settings.snapshot_every
                engine.upkeep.snapshot_of(engine.state.lsn, engine.state.encode())

    def _tell_health(self) -> None:
        member, trading = self._member, self._member.trading
        faults = []
        if not member.section.may_lead:
            faults.append("failover.may_lead is false")
        if self._why_not_built:
            faults.append(self._why_not_built)
        if member.membership.why_unchecked:
            faults.append(member.membership.why_unchecked)
        difference = member.replica.difference
        if difference is not None:
            faults.append(f"its state differs from the primary's since entry {difference.lsn}")
        skipped = [] if trading is None else list(trading.assembly.skipped_accounts)
        why_not_current = member.membership.followed.why_not_current()
        health = member.health.of_standby(faults, why_not_current, self._shadows(), skipped)
        member.membership.set_health(health)

    def _shadows(self) -> Shadowing | None:
        trading = self._member.trading
        return None if trading is None else trading.assembly.shadows
