"""One term as the leader: take over, trade while the lease holds, hand over.

What a takeover does after its first entry is what a node alone does when it starts: one code path.
"""

import asyncio
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import TYPE_CHECKING, Final

from failover.replication import Mode
from failover.signals import Succession
from host.comparing import seen_by
from host.control.subject import Subject
from host.controlling import Control
from host.core.gate import FOREVER_NS
from host.errors import NodeMustRestart
from host.held_gate import Term
from host.journal import JournalError
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
CONNECT_WITHIN_S: Final = 10.0
"""How long a takeover may take to connect what this node could not connect as a standby."""
SAMPLE_S: Final = 1.0
"""How often standbys are shown what this node sees of its markets."""
LAPSED: Final = "the lease has run out"
NOT_HELD: Final = "no standby holds what is sent"


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
            if not self._must_leave() and await self._take_over():
                await self._open_control(subject, control)
            await self._go_on()
            if engine.halted and not self._term.over:
                raise NodeMustRestart(engine.halted)
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
        """Go from the first entry of the epoch to the first order; return whether it came to that.

        A node that is told to stop, or loses the lease, meanwhile does not begin to trade.
        """
        member, engine, assembly = self._member, self._engine, self._trading.assembly
        self.steps.done("apply")
        self._begin_epoch()
        self.steps.done("epoch")
        assembly.configure(with_api_instances(member.config, engine))
        try:
            async with asyncio.timeout(CONNECT_WITHIN_S):
                await assembly.connect()  # what could not be connected before, or has come since
                await assembly.take_up()
        except TimeoutError:
            raise NodeMustRestart(
                f"it leads, and its accounts were not connected in {CONNECT_WITHIN_S:g} s"
            ) from None
        waiting = Waiting(engine)
        await self._drive(lambda: waiting.is_over() or self._is_to_end(), RECOVERING_LOOK_S)
        self.steps.done("reconcile")
        if self._is_to_end():
            return False
        if member.section.dead_man_ms:
            self._dead_man = DeadMan(engine, member.section.dead_man_ms)
            await self._dead_man.begin()
            if self._is_to_end():
                return False
            engine.upkeep.duties.append(self._dead_man.on_duty)
        self._trading.start_instances(takes_over=True)
        self.steps.done("instances")
        return True

    def _begin_epoch(self) -> None:
        """Make the journal this node's: its first entry says so."""
        member, membership, engine = self._member, self._member.membership, self._engine
        lead, node = self._term.lead, self._member.config.node
        engine.upkeep.begin(engine.journal.last_lsn)
        membership.gate.hold(engine, self._term)
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
        member, membership = self._member, self._member.membership
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
            await self._drive(lambda: membership.changed.is_set() or bool(self._why_stop()), LOOK_S, until_ns)
            member.sharing.keep_up(self._engine.state)
            self._show_market()

    def _follow_membership(self) -> None:
        """Trade only while the gate is open and, with durability `replica`, somebody holds what is sent."""
        engine, membership = self._engine, self._member.membership
        durability = membership.durability
        # Compared with why it stands back already: that may have been for something that left the quotes.
        if self._term.is_lapsed:
            if engine.standing_back != LAPSED:
                engine.stand_back(LAPSED, pulls=False)
        elif durability is not None and durability.mode in (Mode.HALTING, Mode.HALTED):
            if engine.standing_back != NOT_HELD:
                engine.stand_back(NOT_HELD, pulls=True)
        elif engine.standing_back and not self._term.drain and not membership.gate.has_pulled:
            engine.go_on()

    def _show_market(self) -> None:
        if time.monotonic() >= self._next_sample_s:
            self._next_sample_s = time.monotonic() + SAMPLE_S
            self._member.membership.server.show_market(seen_by(self._engine))

    # -- handing over ----------------------------------------------------------------------------

    async def _drain(self) -> None:
        """Let quotes rest, finish what is under way, and say so once the heir holds all of it."""
        engine, term = self._engine, self._term
        engine.stand_back(term.drain, pulls=False)
        are_states_there = engine.roster.states.ask(engine.roster.instances.values())
        await self._drive(
            lambda: (engine.is_quiet and are_states_there()) or self._is_drain_off(), RECOVERING_LOOK_S
        )
        if not self._is_drain_off():
            engine.save_all()
            await self._drive(lambda: self._is_held() or self._is_drain_off(), RECOVERING_LOOK_S)
        if not self._is_drain_off():
            # The gate is closed when this returns, and nothing was written since the heir held it all.
            self._member.membership.drained()

    def _is_drain_off(self) -> bool:
        """Return whether the handover was given up, or the term is over without it."""
        return not self._term.drain or self._must_leave()

    def _is_held(self) -> bool:
        """Return whether the heir holds every entry; without one, whether there is nobody to wait for."""
        heir, last_lsn = self._term.heir, self._engine.journal.flushed_lsn
        views = self._member.membership.standbys()
        if heir:
            return any(view.node == heir and view.acked_lsn >= last_lsn for view in views)
        able = [view.acked_lsn for view in views if view.is_eligible]
        return not able or max(able) >= last_lsn

    async def _stop(self) -> None:
        """Leave: orders go to a standby that could lead; where there is none they are cancelled first."""
        member, membership, why = self._member, self._member.membership, self._why_stop()
        member.ask_to_stop(why)
        if not membership.has_successor():
            timeout_ms = member.config.node.stop_timeout_ms
            await stop_trading(self._engine, self._driver, member.clock.now_ns, timeout_ms, why)
            if self._must_leave():
                return  # another node has the orders by now, and arms the switch
            self.left_open = len(self._engine.state.orders)
            if self._dead_man is not None:
                await self._dead_man.end()
        membership.stop()
        while not self._must_leave() and not self._term.drain:
            membership.changed.clear()
            await self._drive(membership.changed.is_set, LOOK_S)
        if self._term.drain:
            await self._drain()

    async def _drive(self, is_over: Callable[[], bool], most_s: float, until_ns: int = FOREVER_NS) -> None:
        """Have the engine do what is due until `is_over()` or `until_ns`; say meanwhile how this node is.

        A leader that cannot take over or hand over may be just the one that should yield.
        """
        member = self._member
        while True:
            now_ns = member.clock.now_ns()
            if is_over() or now_ns >= until_ns:
                return
            look_ns = min(now_ns + int(HEALTH_S * 1e9), until_ns)
            await self._driver.run(is_over, look_ns, most_s=most_s)
            member.membership.set_health(member.health.of_leader())

    def _is_to_end(self) -> bool:
        """Return whether this term is not to begin trading: it is over, or the node is to stop."""
        return self._must_leave() or bool(self._why_stop())

    def _must_leave(self) -> bool:
        return bool(self._term.over or self._member.membership.retired or self._engine.halted)

    def _why_stop(self) -> str:
        return self._member.stop_reason or self._engine.must_stop
