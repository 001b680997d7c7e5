"""A node of a cell: it leads or stands by, and goes from one to the other, within one process.

    stand by   the journal comes from the primary; own market data; strategies run muted
    take over  epoch in the journal → accounts agree with their venues → instances go on → first order
    lead       as a node alone does, with the gate held to the lease
    step down  nothing is written or sent any more; the journal is opened anew, as a standby's

What a takeover does after the first step is what a node alone does when it starts: one code path.
"""

import asyncio
import logging
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Final

import msgspec

from failover.clock import boottime_ns
from failover.replication import Mode, PeerTls, Replica, StandbyView
from failover.replication.events import MarketSeen, VersionCame, VersionTaken
from failover.signals import Health, Succession
from failover.states import State
from host.api import TandemError
from host.assembly import NodeNotStarted
from host.comparing import MarketComparison, seen_by
from host.config import ConfigSource, FailoverSection, NodeConfig, RunOptions
from host.control.subject import Subject
from host.control.tail import JournalTail
from host.controlling import Control
from host.core import entries as e
from host.core.state import Outcome
from host.journal import JournalError
from host.leading import NodeLeadership
from host.membership import Membership, Term
from host.reloading import archive_of, load_catalog
from host.runtime.clock import LiveClock
from host.runtime.dead_man import DeadMan
from host.runtime.driver import LiveDriver
from host.runtime.engine import Engine
from host.runtime.facts import EngineFacts
from host.runtime.fill_history import FillHistory
from host.runtime.instance_control import InstanceControl, with_api_instances
from host.runtime.progress import Condition, Progress, ProgressSettings
from host.runtime.report import RunReport, make_report
from host.runtime.watchdog import LoopWatchdog
from host.sharing import VersionSharing
from host.store import StoreWriter
from host.takeover import Steps
from host.terminal import TerminalView
from host.trading import Trading, Waiting, make_engine, start_store, stop_store, stop_trading
from host.view import ViewMaker

__all__ = ["Member", "NodeMustRestart"]

_log = logging.getLogger("tandem.node")

LOOK_S: Final = 0.005
"""How soon a leading node reacts to its membership at the latest."""
STANDBY_LOOK_S: Final = 0.02
"""How often a standby lets its strategies' timers fire."""
RECOVERING_LOOK_S: Final = 0.001
"""How soon a takeover goes on once the venues have answered."""
HEALTH_S: Final = 0.1
SAMPLE_S: Final = 1.0
"""How often standbys are shown what this node sees of its markets."""
BUILD_WITHIN_S: Final = 5.0
"""How long a node that has won the lease may still get ready; then it is better to let others lead."""
BUILD_AGAIN_S: Final = 3.0
"""How long a standby that could not get ready waits before it tries again."""
EPOCH_ZERO_S: Final = 1_577_836_800
"""2020-01-01: a cell without a record begins with the seconds since then, so that client order ids of an
earlier one, whose store and journals are gone, do not come back."""
VIEW_EVERY_S: Final = 0.25


class NodeMustRestart(TandemError):  # noqa: N818 - the fact, in the words operators see
    """This process cannot go on, and a new one can: its guardian starts it."""


class Member:
    """Runs one node of a cell until it is told to stop."""

    def __init__(
        self, config: NodeConfig, section: FailoverSection, options: RunOptions, source: ConfigSource | None
    ) -> None:
        self.config: Final = config
        self._section: Final = section
        self._options: Final = options
        self._source: Final = source
        self._clock: Final = LiveClock()
        self._stop_reason = ""
        self.membership: Final = Membership(config, section, self._alert, _peer_tls(section))
        self._sharing: Final = VersionSharing(self.membership, archive_of(config))
        self._sharing.reloading = lambda: None if self._trading is None else self._trading.reloading
        self.membership.on_version = self._on_version
        self.membership.on_market = self._on_market
        self.membership.on_attached = lambda node: self._sharing.attached(node, self.engine.state)
        self._replica: Replica | None = None
        self._engine: Engine | None = None
        self._trading: Trading | None = None
        self._store: StoreWriter | None = None
        self._why_not_built = "it is getting ready"
        self._view: ViewMaker | None = None
        self._fills = FillHistory()
        self._facts: EngineFacts | None = None
        self._progress = Progress()
        self._comparison: MarketComparison | None = None
        self._dead_man: DeadMan | None = None
        self._watchdog: Final = LoopWatchdog()
        self._next_sample_s = 0.0
        self._reloads = 0
        self._next_health_s = 0.0
        self._next_snapshot_lsn = 0
        self.takeover: Steps | None = None
        """The times of the last takeover."""
        self._left_open = 0
        """Orders that were not confirmed cancelled when it stopped without a successor."""
        self.is_trading = False
        """Whether it leads, and has done all that a takeover does."""

    @property
    def engine(self) -> Engine:
        """Return the engine of the present role."""
        assert self._engine is not None
        return self._engine

    async def run(self) -> RunReport:
        """Stand by, lead, stand by, … until a signal says to stop; everything is closed whatever happens."""
        config = self.config
        started_s, started_ns = time.monotonic(), self._clock.now_ns()
        replica = self._open_replica()
        try:
            self._listen_for_signals()
            self._watchdog.start()
            engine = self._new_engine(replica)
            subject = self._subject(engine)
            control = Control(config, self._options, subject)
            try:
                await control.start()
                first_epoch = max(self._clock.now_ns() // 1_000_000_000 - EPOCH_ZERO_S, 1)
                await self.membership.start(replica.state.epoch, first_epoch)
                self.membership.maintain(bool(replica.state.maintenance))
                with TerminalView() if self._options.ui else nullcontext() as screen:
                    showing = asyncio.ensure_future(self._show(screen)) if screen is not None else None
                    try:
                        await self._live(subject, control)
                    finally:
                        if showing is not None:
                            showing.cancel()
            finally:
                await self._sharing.close()
                await self.membership.close()
                await control.close()
                if self._trading is not None:
                    await self._trading.close()
            report = make_report(
                self.engine,
                stopped=self._stop_reason or self.membership.retired,
                ran_s=(self._clock.now_ns() - started_ns) / 1e9,
                wall_s=time.monotonic() - started_s,
                skipped={} if self._trading is None else self._trading.assembly.skipped,
                reloads=self._reloads,
            )
            # Orders that it left to a successor, or never had, are no fault of this node's end.
            return msgspec.structs.replace(report, halted=self.engine.must_stop, open_orders=self._left_open)
        finally:
            self._watchdog.stop()
            self._close_journal()

    async def _live(self, subject: Subject, control: Control) -> None:
        membership = self.membership
        while not membership.retired:
            await control.running(is_primary=False)
            term = await self._stand_by()
            if term is not None:
                await self._lead(term, subject, control)
            elif not membership.retired:
                await self._start_anew(subject, control)
        if not self._stop_reason:
            raise NodeMustRestart(membership.retired)

    # -- standing by -----------------------------------------------------------------------------

    def _open_replica(self) -> Replica:
        config = self.config
        self._replica = Replica.open(
            config.journal_dir,
            node=config.node.name,
            cell=self._section.cell,
            durability=config.node.durability,
            segment_bytes=config.node.journal_segment_kb << 10,
            on_record=self._on_record,
        )
        return self._replica

    def _new_engine(self, replica: Replica) -> Engine:
        self._fills = FillHistory(known_after=replica.state.lsn)
        engine = make_engine(
            self.config,
            self._options,
            self._clock,
            replica.journal,
            replica.state,
            self._fills,
            is_following=True,
        )
        engine.gate.lease(self._clock.now_ns)  # closed
        engine.upkeep.oldest_needed_lsn = self.membership.server.oldest_needed_lsn
        engine.is_succeeded = self._has_successor
        self._engine = engine
        self._next_snapshot_lsn = replica.state.lsn + engine.settings.snapshot_every
        self._view = ViewMaker(engine, "live", None, node=self.config.node.name, state=self._in_words)
        engine.on_alert = self._view.note_alert
        self._facts, self._comparison = EngineFacts(engine), MarketComparison(engine)
        disk = 2 * self.config.node.journal_segment_kb << 10
        self._progress = Progress(ProgressSettings(least_disk_bytes=disk))
        return engine

    def _on_record(self, record: e.Record, outcome: Outcome | None) -> None:
        """Have the shadows hear of an entry that the state has taken in."""
        if isinstance(record.entry, e.MaintenanceSet):
            self.membership.maintain(record.entry.is_on)
        shadows = None if self._trading is None else self._trading.assembly.shadows
        if shadows is not None:
            shadows.on_record(record, outcome)
        elif outcome is not None and outcome.fill is not None:
            self._fills.add(record.lsn, outcome.fill)

    def _on_version(self, event: VersionCame | VersionTaken) -> None:
        if isinstance(event, VersionTaken):
            self._sharing.taken(event)
        else:
            self._sharing.came(event)

    def _is_outdated(self) -> bool:
        """Return whether this standby has come to hold other versions of plugins than it has loaded."""
        if self._trading is None or self._why_not_built:
            return False
        versions = self._trading.reloading.catalog.versions
        for name, record in self.engine.state.plugins.items():
            loaded = versions.get(name)
            if loaded is not None and record.permanent not in ("", loaded.digest):
                return archive_of(self.config).holds(name, record.permanent)
        return False

    async def _stand_by(self) -> Term | None:
        """Follow whoever leads until this node is to lead; None where it is to stop, or to begin anew."""
        membership = self.membership
        membership.rejoined = False
        replica = self._replica
        assert replica is not None
        membership.follow(replica)
        building = asyncio.create_task(self._build())
        try:
            while membership.term is None and not membership.retired:
                if self._stop_reason:
                    membership.stop()
                if membership.rejoined:
                    return None
                if membership.failure:
                    raise NodeMustRestart(membership.failure)
                if building.done() and self._is_outdated():
                    self._why_not_built = "it loads other versions of plugins"
                    self.membership.set_health(self._health())
                    await self._close_trading()
                    building = asyncio.create_task(self._build())
                membership.changed.clear()
                self._on_time()
                try:
                    async with asyncio.timeout(STANDBY_LOOK_S):
                        await membership.changed.wait()
                except TimeoutError:
                    continue
            if membership.term is not None and not building.done():
                await asyncio.wait([building])
            return membership.term
        finally:
            building.cancel()
            await asyncio.wait([building])
            await membership.stop_following()

    async def _start_anew(self, subject: Subject, control: Control) -> None:
        """Have a new engine on the journal as it is now: it was cut, or replaced by a snapshot."""
        await self._close_trading()
        assert self._replica is not None
        engine = self._new_engine(self._replica)
        subject.take_role(engine=engine, tail=JournalTail(engine.journal))
        control.look_after()

    async def _build(self) -> None:
        """Load plugins, connect accounts and start the shadows; try again until it works."""
        while True:
            try:
                await self._try_to_build()
                self._why_not_built = ""
                return
            except TandemError as error:
                if self._why_not_built != str(error):
                    self._why_not_built = str(error)
                    _log.warning("not ready to take over: %s", error)
                await self._close_trading()
            await asyncio.sleep(BUILD_AGAIN_S)

    async def _try_to_build(self) -> None:
        # In a thread: importing every plugin takes a while, and there may be a lease to look after.
        catalog = await asyncio.to_thread(load_catalog, self.config, self.engine)
        trading = Trading(self.config, self._options, self._source, self.engine, catalog)
        self._trading = trading
        trading.assembly.check_offers()
        await trading.assembly.connect()
        trading.assembly.shadow().refresh()

    async def _close_trading(self) -> None:
        trading, self._trading = self._trading, None
        if trading is not None:
            self._reloads += trading.reloading.reloads
            await trading.close()

    def _on_time(self) -> None:
        """What a standby has to do now and then."""
        now_ns = self._clock.now_ns()
        engine = self.engine
        shadows = None if self._trading is None else self._trading.assembly.shadows
        if shadows is not None:
            shadows.on_time(now_ns)
        if time.monotonic() >= self._next_health_s:
            self._next_health_s = time.monotonic() + HEALTH_S
            for duty in engine.upkeep.duties:
                duty(now_ns)
            self.membership.set_health(self._health())
            self._keep_snapshot(engine)

    def _keep_snapshot(self, engine: Engine) -> None:
        """Write the state down now and then, so that a start of this standby reads little."""
        if engine.state.lsn >= self._next_snapshot_lsn:
            self._next_snapshot_lsn = engine.state.lsn + engine.settings.snapshot_every
            engine.upkeep.snapshot_of(engine.state.lsn, engine.state.encode())

    def _health(self) -> Health:
        """Return how this standby is."""
        replica = self._replica
        assert replica is not None
        faults = []
        if not self._section.may_lead:
            faults.append("failover.may_lead is false")
        if self._why_not_built:
            faults.append(self._why_not_built)
        if replica.difference is not None:
            faults.append(f"its state differs from the primary's since entry {replica.difference.lsn}")
        ailments: set[str] = set()
        condition = self._condition()
        ailments |= condition.ailments
        if self._trading is not None:
            shadows = self._trading.assembly.shadows
            if shadows is not None:
                faults += shadows.faults.values()
                ailments |= {f"plugin:{name}" for name in shadows.stumbles}
            ailments |= {f"venue:{name}" for name in self._trading.assembly.skipped_accounts}
        if self._comparison is not None:
            ailments |= self._comparison.ailments
        why_not_current = self.membership.why_not_current()
        reason = "; ".join(faults) or why_not_current or condition.reason
        return Health(not faults, not why_not_current, frozenset(ailments), reason)

    def _condition(self) -> Condition:
        """Return how this node is, by its progress; and tell of code that blocked the loop."""
        assert self._facts is not None
        for block in self._watchdog.take():
            where = block.stack.strip().rpartition("\n")[2].strip() or "code that no thread could look at"
            self._alert(
                "loop_blocked", f"the event loop was blocked for {block.lasted_ns / 1e9:.2f} s by {where}"
            )
        return self._progress.look(self._facts.now(self._watchdog.longest_ns()), self._clock.now_ns())

    def _on_market(self, seen: MarketSeen) -> None:
        if self._comparison is not None:
            for text in self._comparison.take(seen):
                self._alert("market_differs", text)

    def do_states_agree(self, standbys: Sequence[StandbyView]) -> bool | None:
        """Return whether the standbys' state is the primary's, as far as digests were compared; None: nobody to ask."""
        if self.membership.engine is None:
            replica = self._replica
            return None if replica is None or not self.membership.primary else replica.difference is None
        return all(not view.differs_at_lsn for view in standbys) if standbys else None

    # -- leading ---------------------------------------------------------------------------------

    async def _lead(self, term: Term, subject: Subject, control: Control) -> None:
        """Take over, trade, and step down when the term is over."""
        engine = self.engine
        try:
            steps = self.takeover = Steps(term.lead, term.asked_ns)
            if self._trading is None or self._why_not_built:
                raise NodeMustRestart(f"it won the lease, and is not ready: {self._why_not_built}")
            await self._trade(term, steps, subject, control)
        except JournalError as error:
            engine.abort_turn(error)
            raise NodeMustRestart(f"the journal cannot be written: {error}") from error
        finally:
            self.is_trading = False
            if self._dead_man is not None:
                self._dead_man.forget()
            engine.retire(term.over or "this node does not lead any more")
            await control.running(is_primary=False)
            store, self._store = self._store, None
            await stop_store(store, engine.journal, self.config.node.stop_timeout_ms)
        await self._step_down(subject, control)

    async def _trade(self, term: Term, steps: Steps, subject: Subject, control: Control) -> None:
        engine, trading = self.engine, self._trading
        assert trading is not None
        driver = LiveDriver(engine, self._clock, engine.stepped)
        steps.done("apply")
        self._begin_epoch(engine, term)
        steps.done("epoch")
        trading.assembly.configure(with_api_instances(self.config, engine))
        await trading.assembly.connect()
        await trading.assembly.take_up()
        waiting = Waiting(engine)
        await driver.run(
            lambda: waiting.is_over() or self._must_leave(term, engine), most_s=RECOVERING_LOOK_S
        )
        steps.done("reconcile")
        if self._must_leave(term, engine):
            return
        if self._section.dead_man_ms:
            self._dead_man = DeadMan(engine, self._section.dead_man_ms)
            await self._dead_man.begin()
            engine.upkeep.duties.append(self._dead_man.on_duty)
        trading.start_instances(takes_over=True)
        steps.done("instances")
        reloading, assembly = trading.reloading, trading.assembly
        reloading.reloader.share = self._sharing.share
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
        engine.alert("takeover", f"epoch {term.lead.epoch}, {term.lead.succession.value}: {steps}")
        self._store = start_store(self.config)
        if self._view is not None:
            self._view.store = self._store
        await self._go_on(term, engine, driver)

    def _begin_epoch(self, engine: Engine, term: Term) -> None:
        """Make the journal this node's: its first entry says so."""
        membership, replica = self.membership, self._replica
        assert replica is not None
        node = self.config.node
        engine.upkeep.begin(engine.journal.last_lsn)
        membership.hold(engine)
        engine.start_epoch(node.name, engine.journal.cell, term.lead.epoch, version("tandem"))
        may_arrive = term.lead.succession is Succession.ABANDONED
        engine.reconciler.inherit(engine.clock.now_ns(), may_arrive=may_arrive)
        if node.durability == "disk":
            loop = asyncio.get_running_loop()
            engine.journal.on_durable(
                lambda _lsn: engine.release_durable(), call_soon=loop.call_soon_threadsafe
            )
        elif node.durability == "replica":
            engine.journal.on_durable(lambda _lsn: engine.release_durable())
        membership.serve(engine, replica, term.lead.epoch)

    async def _go_on(self, term: Term, engine: Engine, driver: LiveDriver) -> None:
        """Trade until the term is over, or nothing can be traded any more."""
        membership = self.membership
        while not self._must_leave(term, engine):
            membership.changed.clear()
            self._follow_membership(term, engine)
            if term.drain:
                await self._drain(term, engine, driver)
                continue
            if self._why_stop(engine):
                await self._stop(term, engine, driver)
                continue
            until_ns = self._clock.now_ns() + int(HEALTH_S * 1e9)
            await driver.run(
                lambda: membership.changed.is_set() or bool(self._why_stop(engine)), until_ns, most_s=LOOK_S
            )
            membership.set_health(self._leaders_health())
            self._show_market(engine)
        if engine.halted and not term.over:
            raise NodeMustRestart(engine.halted)

    def _follow_membership(self, term: Term, engine: Engine) -> None:
        """Trade only while the gate is open and, with durability `replica`, somebody holds what is sent."""
        durability = self.membership.durability
        if term.is_lapsed:
            if not engine.standing_back:
                engine.stand_back("the lease has run out", pulls=False)
        elif durability is not None and durability.mode in (Mode.HALTING, Mode.HALTED):
            if not engine.standing_back:
                engine.stand_back("no standby holds what is sent", pulls=True)
        elif engine.standing_back and not term.drain and not self.membership.is_ending:
            engine.go_on()

    async def _drain(self, term: Term, engine: Engine, driver: LiveDriver) -> None:
        """Let quotes rest, finish what is under way, and say so once a standby holds all of it."""
        membership = self.membership
        engine.stand_back(term.drain, pulls=False)
        await driver.run(
            lambda: engine.is_quiet or not term.drain or self._must_leave(term, engine),
            most_s=RECOVERING_LOOK_S,
        )
        if not term.drain or self._must_leave(term, engine):
            return
        engine.save_all()
        await driver.run(
            lambda: self._is_held(engine) or not term.drain or self._must_leave(term, engine),
            most_s=RECOVERING_LOOK_S,
        )
        if term.drain and not self._must_leave(term, engine):
            membership.drained()

    def _is_held(self, engine: Engine) -> bool:
        """Return whether a standby that could lead holds every entry; True where there is none to wait for."""
        able = [view.acked_lsn for view in self.membership.standbys() if view.is_eligible]
        return not able or max(able) >= engine.journal.flushed_lsn

    async def _stop(self, term: Term, engine: Engine, driver: LiveDriver) -> None:
        """Leave: orders go to a standby that could lead; where there is none they are cancelled first."""
        membership, why = self.membership, self._why_stop(engine)
        self._stop_reason = self._stop_reason or why
        if not self._has_successor():
            await stop_trading(engine, driver, self._clock.now_ns, self.config.node.stop_timeout_ms, why)
            self._left_open = len(engine.state.orders)
            if self._dead_man is not None:
                await self._dead_man.end()
        membership.stop()
        while not self._must_leave(term, engine) and not term.drain:
            membership.changed.clear()
            await driver.run(membership.changed.is_set, most_s=LOOK_S)
        if term.drain:
            await self._drain(term, engine, driver)

    def _has_successor(self) -> bool:
        return any(view.is_eligible and view.health.is_current for view in self.membership.standbys())

    def _must_leave(self, term: Term, engine: Engine) -> bool:
        return bool(term.over or self.membership.retired or engine.halted)

    def _why_stop(self, engine: Engine) -> str:
        return self._stop_reason or engine.must_stop

    def _leaders_health(self) -> Health:
        condition = self._condition()
        return Health(ailments=condition.ailments, reason=condition.reason)

    def _show_market(self, engine: Engine) -> None:
        if time.monotonic() >= self._next_sample_s:
            self._next_sample_s = time.monotonic() + SAMPLE_S
            self.membership.server.show_market(seen_by(engine))

    # -- stepping down ---------------------------------------------------------------------------

    async def _step_down(self, subject: Subject, control: Control) -> None:
        """Have nothing of the term left, and open the journal as a standby's."""
        membership = self.membership
        await self._close_trading()
        give_up_ns = boottime_ns() + 2 * self._section.ttl_ms * 1_000_000
        while membership.elector.state not in (State.WATCHING, State.RETIRED):
            if boottime_ns() > give_up_ns or membership.elector.state is State.LEADING:
                raise NodeMustRestart("the lease store did not answer when the lease was to be handed over")
            await asyncio.sleep(LOOK_S)
        membership.release()
        self._close_journal()
        if membership.retired:
            return
        replica = self._open_replica()
        engine = self._new_engine(replica)
        subject.take_role(engine=engine, tail=JournalTail(engine.journal))
        control.look_after()

    def _close_journal(self) -> None:
        replica, self._replica = self._replica, None
        if replica is not None:
            try:
                replica.close()
            except JournalError as error:
                _log.error("the journal's last entries are not written: %s", error)

    # -- the rest --------------------------------------------------------------------------------

    def _subject(self, engine: Engine) -> Subject:
        membership = self.membership

        def config() -> NodeConfig:
            return self.config if self._trading is None else self._trading.reloading.config

        return Subject(
            engine=engine,
            config=config,
            config_files=() if self._source is None else self._source.files,
            host_version=version("tandem"),
            started_ns=engine.clock.now_ns(),
            stop=self._ask_to_stop,
            tail=JournalTail(engine.journal),
            leadership=NodeLeadership(self),
            standby_of=lambda: None if membership.engine is not None else membership.primary_control,
        )

    def _alert(self, code: str, text: str) -> None:
        """Tell people: in the journal while this node writes one, else in its log and view."""
        engine = self.engine
        if engine is None or engine.halted:
            _log.warning("%s: %s", code, text)
        else:
            engine.alert(code, text)

    def _in_words(self) -> str:
        """Say what this node is, for its view."""
        membership = self.membership
        if membership.engine is not None:
            return "primary" if self.is_trading else "taking over"
        return f"standby of {membership.primary}" if membership.primary else "standby, no primary"

    def _listen_for_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._on_signal, number)

    def _on_signal(self, number: signal.Signals) -> None:
        if self._stop_reason:
            sys.exit(128 + number)
        self._ask_to_stop(f"{number.name} received")

    def _ask_to_stop(self, reason: str) -> None:
        self._stop_reason = self._stop_reason or reason
        self.membership.changed.set()

    async def _show(self, screen: TerminalView) -> None:
        while True:
            if self._view is not None:
                screen.update(self._view.make())
            await asyncio.sleep(VIEW_EVERY_S)


def _peer_tls(section: FailoverSection) -> PeerTls | None:
    tls = section.tls
    if tls is None:
        return None
    return PeerTls(_read(tls.certificate), _read(tls.key), _read(tls.ca))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise NodeNotStarted(f"failover.tls: cannot read {path}: {error.strerror}") from error
