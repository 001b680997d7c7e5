"""A node of a cell: it leads or stands by, and goes from one to the other, within one process.

stand by   (`host/standing_by.py`) the journal comes from the primary; own market data; strategies muted
lead       (`host/leading_term.py`) take over, trade with the gate held to the lease, hand over
step down  nothing is written or sent any more; the journal is opened anew, as a standby's
"""

import asyncio
import logging
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from importlib.metadata import version
from typing import Final

import msgspec

from failover.clock import boottime_ns
from failover.replication import PeerTlsFiles, Replica, StandbyView
from failover.replication.events import VersionCame, VersionTaken
from failover.states import State
from host.config import ConfigSource, FailoverSection, NodeConfig, RunOptions
from host.control.subject import Subject
from host.control.tail import JournalTail
from host.controlling import Control
from host.core import entries as e
from host.core.state import Outcome
from host.errors import NodeMustRestart
from host.health import NodeHealth
from host.held_gate import Term
from host.journal import JournalError
from host.leading import NodeLeadership
from host.leading_term import LeadingTerm
from host.loading import archive_of
from host.membership import Membership
from host.runtime.clock import LiveClock
from host.runtime.engine import Engine
from host.runtime.fill_history import FillHistory
from host.runtime.report import RunReport, make_report
from host.sharing import VersionSharing
from host.standing_by import StandingBy
from host.takeover import Steps
from host.terminal import TerminalView
from host.trading import Trading, make_engine
from host.view import ViewMaker

__all__ = ["Member"]

_log = logging.getLogger("tandem.node")

EPOCH_ZERO_S: Final = 1_577_836_800
"""2020-01-01: a cell without a record begins with the seconds since then, so that client order ids of an
earlier one, whose store and journals are gone, do not come back."""
SETTLE_LOOK_S: Final = 0.005
VIEW_EVERY_S: Final = 0.25


class Member:
    """Runs one node of a cell until it is told to stop.

    `replica` is its journal and state, `engine` works on them, `trading` is what was put into the engine;
    all three change with the role. Who leads is the `membership`'s to say.
    """

    def __init__(
        self, config: NodeConfig, section: FailoverSection, options: RunOptions, source: ConfigSource | None
    ) -> None:
        self.config: Final = config
        self.section: Final = section
        self.options: Final = options
        self.source: Final = source
        self.clock: Final = LiveClock()
        self.stop_reason = ""
        """Why the node should stop; empty while it should not."""
        self.trading: Trading | None = None
        self._tls: Final = _peer_tls(config)
        self.membership: Final = Membership(config, section, self.alert, self._tls)
        self.sharing: Final = VersionSharing(self.membership, archive_of(config))
        self.replica: Replica
        self.engine: Engine
        self.view: ViewMaker
        self.health: NodeHealth
        self._leading: LeadingTerm | None = None
        self._fills = FillHistory()
        self._reloads = 0
        self._left_open = 0

    async def run(self) -> RunReport:
        """Stand by, lead, stand by, … until a signal says to stop; everything is closed whatever happens."""
        started_s, started_ns = time.monotonic(), self.clock.now_ns()
        self._open_replica()
        try:
            self._new_engine()
            warning = (lambda: "") if self._tls is None else self._tls.warning
            self.health = NodeHealth(self.config, self.engine, self.alert, warning)
            self.health.blocks.start()
            self._listen()
            subject = self._subject()
            control = Control(self.config, self.options, subject)
            async with AsyncExitStack() as last:  # each of these is closed, whatever becomes of the others
                last.push_async_callback(self.close_trading)
                last.push_async_callback(control.close)
                last.push_async_callback(self.membership.close)
                last.push_async_callback(self.sharing.close)
                last.callback(self.health.blocks.stop)
                await control.start()
                first_epoch = max(self.clock.now_ns() // 1_000_000_000 - EPOCH_ZERO_S, 1)
                await self.membership.start(self.engine.state.epoch, first_epoch)
                self.membership.maintain(bool(self.engine.state.maintenance))
                if self.options.ui:
                    screen = last.enter_context(TerminalView())
                    last.callback(asyncio.ensure_future(self._show(screen)).cancel)
                await self._live(subject, control)
            report = make_report(
                self.engine,
                stopped=self.stop_reason or self.membership.retired,
                ran_s=(self.clock.now_ns() - started_ns) / 1e9,
                wall_s=time.monotonic() - started_s,
                skipped={},
                reloads=self._reloads,
            )
            # Orders that it left to a successor, or never had, are no fault of this node's end.
            return msgspec.structs.replace(report, halted=self.engine.must_stop, open_orders=self._left_open)
        finally:
            self._close_journal()

    async def _live(self, subject: Subject, control: Control) -> None:
        membership = self.membership
        while not membership.retired:
            await control.running(is_primary=False)
            term = await StandingBy(self).run()
            if term is not None:
                await self._lead(term, subject, control)
            elif not membership.retired:
                # The journal was cut, or replaced by a snapshot: everything is made anew on it.
                await self.close_trading()
                self._take_role(subject, control)
        if membership.fault is not None:
            raise membership.fault
        if not self.stop_reason:
            raise NodeMustRestart(membership.retired)

    async def _lead(self, term: Term, subject: Subject, control: Control) -> None:
        assert self.trading is not None
        self._leading = LeadingTerm(self, term, self.trading)
        await self._leading.run(subject, control)
        self._left_open = self._leading.left_open
        await self._step_down(subject, control)

    async def _step_down(self, subject: Subject, control: Control) -> None:
        """Have nothing of the term left, and open the journal as a standby's."""
        membership = self.membership
        await self.close_trading()
        give_up_ns = boottime_ns() + 2 * self.section.ttl_ms * 1_000_000
        while membership.elector.state not in (State.WATCHING, State.RETIRED):
            if boottime_ns() > give_up_ns or membership.elector.state is State.LEADING:
                late = "the lease store did not answer when the lease was to be handed over"
                raise NodeMustRestart(membership.retired or late)
            await asyncio.sleep(SETTLE_LOOK_S)
        membership.release()
        if not membership.retired:
            # The next primary's history may lack the entry that a snapshot still being written is of.
            await self.engine.upkeep.snapshot_written()
            self._close_journal()
            self._open_replica()
            self._take_role(subject, control)

    # -- what changes with the role --------------------------------------------------------------

    def _open_replica(self) -> None:
        config = self.config
        self.replica = Replica.open(
            config.journal_dir,
            node=config.node.name,
            cell=self.section.cell,
            durability=config.node.durability,
            segment_bytes=config.node.journal_segment_kb << 10,
            on_record=self._on_record,
        )

    def _close_journal(self) -> None:
        try:
            self.replica.close()
        except JournalError as error:
            _log.error("the journal's last entries are not written: %s", error)

    def _new_engine(self) -> None:
        """Make an engine that follows, with its gate closed, on the journal as it is now."""
        replica = self.replica
        self._fills = FillHistory(known_after=replica.state.lsn)
        engine = self.engine = make_engine(
            self.config,
            self.options,
            self.clock,
            replica.journal,
            replica.state,
            self._fills,
            is_following=True,
        )
        engine.gate.lease(self.clock.now_ns)
        engine.upkeep.oldest_needed_lsn = self.membership.server.oldest_needed_lsn
        engine.is_succeeded = self.membership.has_successor
        self.view = ViewMaker(engine, "live", None, node=self.config.node.name, state=self._in_words)
        engine.on_alert = self.view.note_alert

    def _take_role(self, subject: Subject, control: Control) -> None:
        self._new_engine()
        self.membership.maintain(bool(self.engine.state.maintenance))  # a snapshot tells it by no entry
        self.health.look_at(self.engine)
        subject.take_role(engine=self.engine, tail=JournalTail(self.engine.journal))
        control.look_after()

    async def close_trading(self) -> None:
        """End everything that was put into the engine."""
        trading, self.trading = self.trading, None
        if trading is not None:
            self._reloads += trading.reloading.reloads
            await trading.close()

    # -- what replication brings -----------------------------------------------------------------

    def _listen(self) -> None:
        membership, sharing = self.membership, self.sharing
        sharing.reloading = lambda: None if self.trading is None else self.trading.reloading
        membership.on_version = self._on_version
        membership.on_market = self.health.on_market
        membership.on_attached = self._on_attached
        loop = asyncio.get_running_loop()
        if self.options.duration_s is not None:
            loop.call_later(self.options.duration_s, self.ask_to_stop, "the time was up")
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._on_signal, number)

    def _on_record(self, record: e.Record, outcome: Outcome | None) -> None:
        """Have the shadows hear of an entry that the state has taken in."""
        if self.replica.journal is not self.engine.journal:
            return  # cut, or replaced by a snapshot: everything is about to be made anew on it
        if isinstance(record.entry, e.MaintenanceSet):
            self.membership.maintain(record.entry.is_on)
        shadows = None if self.trading is None else self.trading.assembly.shadows
        if shadows is not None:
            shadows.on_record(record, outcome)
        elif outcome is not None and outcome.fill is not None:
            self._fills.add(record.lsn, outcome.fill)

    def _on_attached(self, node: str) -> None:
        """Give a standby that has come the versions it needs, and a digest soon: does it come to the same state?"""
        self.sharing.attached(node, self.engine.state)
        self.engine.upkeep.digest_soon()

    def _on_version(self, event: VersionCame | VersionTaken) -> None:
        if isinstance(event, VersionTaken):
            self.sharing.taken(event)
        else:
            self.sharing.came(event)

    # -- what others ask -------------------------------------------------------------------------

    @property
    def is_trading(self) -> bool:
        """Return whether this node leads, and has done all that a takeover does."""
        return self._leading is not None and self._leading.is_trading

    @property
    def takeover(self) -> Steps | None:
        """Return the times of this node's last takeover."""
        return None if self._leading is None else self._leading.steps

    def do_states_agree(self, standbys: Sequence[StandbyView]) -> bool | None:
        """Return whether the standbys' state is the primary's by the latest digest; None: it was not compared yet."""
        if self.membership.engine is None:
            if self.replica.difference is not None:
                return False
            return True if self.replica.compared_lsn and self.membership.followed.primary else None
        if any(view.differs_at_lsn for view in standbys):
            return False
        digest_lsn = self.engine.upkeep.digest_lsn
        have_compared = bool(digest_lsn) and all(view.applied_lsn >= digest_lsn for view in standbys)
        return True if standbys and have_compared else None

    def ask_to_stop(self, reason: str) -> None:
        """Have the node stop, in order; the first reason counts."""
        self.stop_reason = self.stop_reason or reason
        self.membership.changed.set()

    def _subject(self) -> Subject:
        membership = self.membership

        def config() -> NodeConfig:
            return self.config if self.trading is None else self.trading.reloading.config

        return Subject(
            engine=self.engine,
            config=config,
            config_files=() if self.source is None else self.source.files,
            host_version=version("tandem"),
            started_ns=self.clock.now_ns(),
            stop=self.ask_to_stop,
            tail=JournalTail(self.engine.journal),
            leadership=NodeLeadership(self),
            standby_of=lambda: None if membership.engine is not None else membership.followed.primary_control,
        )

    def alert(self, code: str, text: str) -> None:
        """Tell people: in the journal while this node writes one, else in its log and view. Raises nothing.

        Whoever tells something of the lease or of a standby could do nothing about a journal that fails.
        """
        engine = self.engine
        if engine.halted:
            _log.warning("%s: %s", code, text)
            return
        try:
            engine.alert(code, text)
        except JournalError as error:
            engine.abort_turn(error)

    def _in_words(self) -> str:
        """Say what this node is, for its view."""
        membership = self.membership
        if membership.engine is not None:
            return "primary" if self.is_trading else "taking over"
        primary = membership.followed.primary
        return f"standby of {primary}" if primary else "standby, no primary"

    def _on_signal(self, number: signal.Signals) -> None:
        if self.stop_reason:
            sys.exit(128 + number)
        self.ask_to_stop(f"{number.name} received")

    async def _show(self, screen: TerminalView) -> None:
        while True:
            screen.update(self.view.make())
            await asyncio.sleep(VIEW_EVERY_S)


def _peer_tls(config: NodeConfig) -> PeerTlsFiles | None:
    tls = None if config.failover is None else config.failover.tls
    return None if tls is None else PeerTlsFiles(config.node.name, tls.certificate, tls.key, tls.ca)
