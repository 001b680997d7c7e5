"""One term as the leader: take over, trade while the lease holds, hand over.

What a takeover does after its first entry is what a node alone does when it starts: one code path.
"""

import asyncio
import time
from importlib.metadata import version
from typing import TYPE_CHECKING, Final

from failover.replication import Mode
from failover.signals import Succession
from host.comparing import seen_by
from host.control.subject import Subject
from host.controlling import Control
from host.errors import NodeMustRestart
from host.journal import JournalError
from host.membership import Term
from host.runtime.dead_man import DeadMan
from host.runtime.driver import LiveDriver
from host.runtime.instance_control import InstanceControl, with_api_instances
from host.store import StoreWriter
from host.takeover import Steps
from host.trading import Trading, Waiting, start_store, stop_store, stop_trading

if TYPE_CHECKING:
    from host.member import Member

__all__ = ["LeadingTerm"]

LOOK_S: Final = 0.005
"""How soon a leading node reacts to its membership at the latest."""
RECOVERING_LOOK_S: Final = 0.001
"""How soon a takeover goes on once the venues have answered."""
HEALTH_S: Final = 0.1
SAMPLE_S: Final = 1.0
"""How often standbys are shown what this node sees of its markets."""


class LeadingTerm:
    """Leads with the member's engine and all that was made ready for it as a standby.

    `steps` are the times of the takeover; `is_trading` says whether that is done.
    """

    def __init__(self, member: "Member", term: Term, trading: Trading) -> None:
        self.steps: Final = Steps(term.lead, term.asked_ns)
        self.is_trading = False
        self.left_open = 0
        """Orders that were not confirmed cancelled when the node stopped without a successor."""
        self._member: Final = member
        self._term: Final = term
        self._trading: Final = trading
        self._engine: Final = member.engine
        self._driver: Final = LiveDriver(member.engine, member.clock, member.engine.stepped)
        self._dead_man: DeadMan | None = None
        self._store: StoreWriter | None = None
        self._next_sample_s = 0.0

    async def run(self, subject: Subject, control: Control) -> None:
        """Lead until the term is over; nothing is written or sent any more when this returns.

        Raises `NodeMustRestart` where this process cannot go on.
        """
        engine = self._engine
        try:
            if await self._take_over():
                await self._open_control(subject, control)
                await self._go_on()
        except JournalError as error:
            engine.abort_turn(error)
            raise NodeMustRestart(f"the journal cannot be written: {error}") from error
        finally:
            self.is_trading = False
            if self._dead_man is not None:
                self._dead_man.forget()
            engine.retire(self._term.over or "this node does not lead any more")
            await control.running(is_primary=False)
            await stop_store(self._store, engine.journal, self._member.config.node.stop_timeout_ms)

    # -- taking over -----------------------------------------------------------------------------

    async def _take_over(self) -> bool:
        """Go from the first entry of the epoch to the first order; return whether it came to that."""
        member, engine, assembly = self._member, self._engine, self._trading.assembly
        self.steps.done("apply")
        self._begin_epoch()
        self.steps.done("epoch")
        assembly.configure(with_api_instances(member.config, engine))
        await assembly.connect()
        await assembly.take_up()
        waiting = Waiting(engine)
        await self._driver.run(lambda: waiting.is_over() or self._must_leave(), most_s=RECOVERING_LOOK_S)
        self.steps.done("reconcile")
        if self._must_leave():
            return False
        if member.section.dead_man_ms:
            self._dead_man = DeadMan(engine, member.section.dead_man_ms)
            await self._dead_man.begin()
            engine.upkeep.duties.append(self._dead_man.on_duty)
        self._trading.start_instances(takes_over=True)
        self.steps.done("instances")
        return True

    def _begin_epoch(self) -> None:
        """Make the journal this node's: its first entry says so."""
        member, membership, engine = self._member, self._member.membership, self._engine
        lead, node = self._term.lead, self._member.config.node
        engine.upkeep.begin(engine.journal.last_lsn)
        membership.hold(engine)
        engine.start_epoch(node.name, engine.journal.cell, lead.epoch, version("tandem"))
        may_arrive = lead.succession is Succession.ABANDONED
        engine.reconciler.inherit(engine.clock.now_ns(), may_arrive=may_arrive)
        if node.durability == "disk":
            loop = asyncio.get_running_loop()
            engine.journal.on_durable(
                lambda _lsn: engine.release_durable(), call_soon=loop.call_soon_threadsafe
            )
        elif node.durability == "replica":
            engine.journal.on_durable(lambda _lsn: engine.release_durable())
        membership.serve(engine, member.replica, lead.epoch)

    async def _open_control(self, subject: Subject, control: Control) -> None:
        member, engine = self._member, self._engine
        reloading, assembly = self._trading.reloading, self._trading.assembly
        reloading.reloader.share = member.sharing.share
        subject.take_role(
            engine=engine,
            tail=subject.tail,
            reloader=reloading.reloader,
            instances=InstanceControl(
                engine, reloading.reloader, assembly.maker, lambda: reloading.config, assembly.skipped
            ),
            reload=reloading.reload,
        )
        await control.running()
        self.is_trading = True
        lead = self._term.lead
        engine.alert("takeover", f"epoch {lead.epoch}, {lead.succession.value}: {self.steps}")
        self._store = member.view.store = start_store(member.config)

    # -- trading ---------------------------------------------------------------------------------

    async def _go_on(self) -> None:
        """Trade until the term is over, or nothing can be traded any more."""
        member, membership, engine = self._member, self._member.membership, self._engine
        while not self._must_leave():
            membership.changed.clear()
            self._follow_membership()
            if self._term.drain:
                await self._drain()
                continue
            if self._why_stop():
                await self._stop()
                continue
            until_ns = member.clock.now_ns() + int(HEALTH_S * 1e9)
            await self._driver.run(
                lambda: membership.changed.is_set() or bool(self._why_stop()), until_ns, most_s=LOOK_S
            )
            membership.set_health(member.health.of_leader())
            self._show_market()
        if engine.halted and not self._term.over:
            raise NodeMustRestart(engine.halted)

    def _follow_membership(self) -> None:
        """Trade only while the gate is open and, with durability `replica`, somebody holds what is sent."""
        engine, membership = self._engine, self._member.membership
        durability = membership.durability
        if self._term.is_lapsed:
            if not engine.standing_back:
                engine.stand_back("the lease has run out", pulls=False)
        elif durability is not None and durability.mode in (Mode.HALTING, Mode.HALTED):
            if not engine.standing_back:
                engine.stand_back("no standby holds what is sent", pulls=True)
        elif engine.standing_back and not self._term.drain and not membership.is_ending:
            engine.go_on()

    def _show_market(self) -> None:
        if time.monotonic() >= self._next_sample_s:
            self._next_sample_s = time.monotonic() + SAMPLE_S
            self._member.membership.server.show_market(seen_by(self._engine))

    # -- handing over ----------------------------------------------------------------------------

    async def _drain(self) -> None:
        """Let quotes rest, finish what is under way, and say so once a standby holds all of it."""
        engine, term = self._engine, self._term
        engine.stand_back(term.drain, pulls=False)
        await self._driver.run(lambda: engine.is_quiet or self._is_drain_off(), most_s=RECOVERING_LOOK_S)
        if not self._is_drain_off():
            engine.save_all()
            await self._driver.run(lambda: self._is_held() or self._is_drain_off(), most_s=RECOVERING_LOOK_S)
        if not self._is_drain_off():
            # The gate is closed when this returns, and nothing was written since the standby held it all.
            self._member.membership.drained()

    def _is_drain_off(self) -> bool:
        """Return whether the handover was given up, or the term is over without it."""
        return not self._term.drain or self._must_leave()

    def _is_held(self) -> bool:
        """Return whether a standby that could lead holds every entry; True where there is none to wait for."""
        able = [view.acked_lsn for view in self._member.membership.standbys() if view.is_eligible]
        return not able or max(able) >= self._engine.journal.flushed_lsn

    async def _stop(self) -> None:
        """Leave: orders go to a standby that could lead; where there is none they are cancelled first."""
        member, membership, why = self._member, self._member.membership, self._why_stop()
        member.ask_to_stop(why)
        if not membership.has_successor():
            timeout_ms = member.config.node.stop_timeout_ms
            await stop_trading(self._engine, self._driver, member.clock.now_ns, timeout_ms, why)
            self.left_open = len(self._engine.state.orders)
            if self._dead_man is not None:
                await self._dead_man.end()
        membership.stop()
        while not self._must_leave() and not self._term.drain:
            membership.changed.clear()
            await self._driver.run(membership.changed.is_set, most_s=LOOK_S)
        if self._term.drain:
            await self._drain()

    def _must_leave(self) -> bool:
        return bool(self._term.over or self._member.membership.retired or self._engine.halted)

    def _why_stop(self) -> str:
        return self._member.stop_reason or self._engine.must_stop
