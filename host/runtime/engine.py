"""The engine: one thread, one turn per event, everything a node trades with wired together.

A turn is: an event comes in, state and books follow, strategies react, their wishes become journal
entries, the entries are written with one system call, and only then do commands leave through the
gate. Nothing in here awaits or does other I/O than that write; what drives the turns (sockets, the
clock, a recording) is outside.
"""

import logging
from collections.abc import Callable, Collection, Sequence
from time import perf_counter_ns
from typing import Any, Final

from msgspec import Struct

from host.api import (
    AmendRejected,
    BookTop,
    CancelRejected,
    ExchangeAdapter,
    Fill,
    Instrument,
    Order,
    OrderRejected,
    OrderStatus,
    SteppedAdapter,
    VenuePosition,
)
from host.core import entries as e
from host.core.gate import Gate
from host.core.oms import Oms
from host.core.reconcile import Reconciler
from host.core.risk import RiskEngine
from host.core.risk_limits import Refusal, RiskConfig
from host.core.state import Outcome, TradingState
from host.journal import Journal, JournalError
from host.runtime.blocking import Blocks
from host.runtime.by_hand import ByHand
from host.runtime.clock import Clock
from host.runtime.declared import check_declared
from host.runtime.feed import AccountFeed
from host.runtime.fill_history import FillHistory
from host.runtime.latency import Histogram
from host.runtime.risk_settings import RiskSettings
from host.runtime.roster import Roster
from host.runtime.safety import Safety
from host.runtime.scheduler import Scheduler
from host.runtime.stops import Stops
from host.runtime.upkeep import Upkeep

__all__ = ["Engine", "EngineSettings"]

_log = logging.getLogger("tandem.engine")
_PENDING: Final = (
    OrderStatus.PENDING_NEW,
    OrderStatus.PENDING_AMEND,
    OrderStatus.PENDING_CANCEL,
    OrderStatus.UNKNOWN,
)


class EngineSettings(Struct, frozen=True, kw_only=True):
    """What the engine is told once. Times in ns, counts in entries."""

    order_id_prefix: str = "td"
    order_window_ns: int = 2_000_000_000
    """A request older than this must not be accepted by the venue any more."""
    state_save_ns: int = 1_000_000_000
    equity_every_ns: int = 1_000_000_000
    snapshot_every: int = 100_000
    digest_every: int = 10_000
    snapshot_in_thread: bool = True
    """Off in a replay, whose result must not depend on when a thread runs."""


class Engine:
    """Owns the trading state and everything that may change it."""

    def __init__(
        self,
        *,
        clock: Clock,
        journal: Journal,
        state: TradingState,
        risk_config: RiskConfig,
        settings: EngineSettings,
        fills: FillHistory | None = None,
        is_following: bool = False,
    ) -> None:
        self.is_following = is_following
        """Whether `state` is folded from another node's entries: then nothing is journaled or sent here."""
        self.clock: Final = clock
        self.journal: Final = journal
        self.state: Final = state
        self.settings: Final = settings
        self.now_ns = clock.now_ns()
        self.gate: Final = Gate(settings.order_window_ns)
        self.risk: Final = RiskEngine(risk_config, state.holding)
        self.fills = 0
        self.oms: Final = Oms(
            state, self.risk, self.gate, journal.append, self._order_changed, self._breach, self.top
        )
        self.reconciler: Final = Reconciler(self.oms, settings.order_id_prefix)
        self.feeds: dict[str, AccountFeed] = {}
        self.stepped: list[SteppedAdapter[Any]] = []
        """The adapters that whatever drives this engine gives their turns; changed in place."""
        self.roster: Final = Roster(self)
        self.safety: Final = Safety(self)
        self.scheduler: Final = Scheduler(self)
        self.blocks = Blocks()
        """What watches for code that blocks the loop, where this process does."""
        self.move_to_worker: Callable[[str, str], bool] = lambda _instance, _why: False
        """Has an instance go on in a worker process, for a reason; returns whether that can be."""
        self.was_led_here = False
        """Whether the process that led before this one was of the same node."""
        self.upkeep: Final = Upkeep(self)
        self.by_hand: Final = ByHand(self)
        self.stops: Final = Stops(self)
        self.risk_settings: Final = RiskSettings(self, risk_config)
        self.fill_history: Final = fills or FillHistory(known_after=state.lsn)
        self.halted = ""
        """Why nothing is sent any more; empty while all is well."""
        self.must_stop = ""
        """Why the node should stop, cleanly, while it still can; empty while all is well."""
        self.stopping = ""
        """Why trading was stopped for good, without a fault; no instance trades from then on."""
        self.standing_back = ""
        """Why no instance may trade for now, though the node goes on; empty while they may."""
        self.events = 0
        self.rejects = 0
        self.tick_to_order: Final = Histogram()
        self.is_succeeded: Callable[[], bool] = lambda: False
        """Returns whether another node takes this one's orders over when it halts: then they are left to it."""
        self.is_winding_down: Callable[[], bool] = lambda: False
        """Returns whether something outside still has its last word to say before the node may end."""
        self.on_alert: Callable[[e.Alert], None] = lambda alert: None
        """Told what the journal has no room for; all other alerts are read from the journal."""
        self.after_turn: list[Callable[[int], None]] = []
        """What is to be done once, between this event and the next, before the turn's entries are written."""
        self.depth = 0
        """How many turns are open: they nest when an adapter answers at once."""
        self._sent_before = 0
        journal.on_trouble(self.safety.journal_trouble)

    # -- recovery --------------------------------------------------------------------------------

    def start_epoch(self, node: str, cell: str, epoch: int, host_version: str) -> None:
        """Say in the journal that this process took up the work; what was in flight is in doubt."""
        self.is_following = False
        self.was_led_here = self.state.node == node
        self.scheduler.took_over_at(self.state.ts_ns)
        self.begin_turn(self.clock.now_ns())
        self.record(e.NodeStarted(node, cell, epoch, host_version), self.now_ns)
        self.risk_settings.take_up(self.now_ns)
        self._rebuild_risk()
        self.end_turn(self.now_ns, 0)

    def _rebuild_risk(self) -> None:
        for order in self.state.orders.values():
            self.risk.order_changed(order)
        for name, by_symbol in self.state.holdings.items():
            record = self.state.instances.get(name)
            if record is not None:
                for symbol in by_symbol:
                    self.risk.position_changed(name, record.account, symbol)
        for scope, reason in self.state.kill_switches.items():
            self.risk.set_kill(scope, True, reason)

    def top(self, account: str, symbol: str) -> BookTop | None:
        """Return the latest top of book, or None where there is none that can be trusted."""
        feed = self.feeds[account].symbols.get(symbol) if account in self.feeds else None
        return None if feed is None or feed.book.top_fault else feed.book.top

    def venue_position(self, account: str, symbol: str) -> VenuePosition | None:
        """Return a derivative position as the venue last told it; None where it has none."""
        return self.state.venue_positions.get(account, {}).get(symbol)

    # -- turns -----------------------------------------------------------------------------------

    def begin_turn(self, now_ns: int) -> None:
        """Enter a turn; turns may nest when an adapter answers at once."""
        self.depth += 1
        self.now_ns = now_ns

    def end_turn(self, now_ns: int, started_ns: int) -> None:
        """Write what the turn journaled, then let its commands out."""
        if self.depth != 1:
            self.depth -= 1
            return
        # It stays 1 while we send: answers that come meanwhile belong to this turn.
        outbox = self.oms.outbox
        journal = self.journal
        if journal.last_lsn == journal.flushed_lsn and not outbox.waiting and not self.after_turn:
            self.depth = 0
            return
        try:
            while True:  # write first, send second; once more for what sending itself led to
                if self.after_turn:
                    self._run_after_turn(now_ns)
                if self.roster.states.touched:
                    # In the same write as what the strategies heard: neither is ever there alone.
                    self.roster.states.save_touched(now_ns)
                journal.flush()
                waiting = outbox.waiting
                if waiting:
                    outbox.flush(now_ns, journal.durable_lsn)
                is_written = journal.last_lsn == journal.flushed_lsn
                left = outbox.waiting
                if is_written and not self.after_turn and (not left or len(left) == len(waiting)):
                    break  # what is left waits for the disk
            sent = outbox.orders_sent + outbox.amends_sent
            if sent != self._sent_before:
                self._sent_before = sent
                if started_ns:
                    self.tick_to_order.add(perf_counter_ns() - started_ns)
            journal.prefault()
        except JournalError as error:
            self.abort_turn(error)
        finally:
            self.depth = 0

    def _run_after_turn(self, now_ns: int) -> None:
        while self.after_turn:
            self.after_turn.pop(0)(now_ns)

    def abort_turn(self, error: JournalError) -> None:
        """End a turn whose entries cannot be written: nothing of it is sent, and nothing ever after."""
        self.depth = 0
        self.oms.outbox.waiting.clear()
        self.after_turn.clear()
        self.roster.states.touched.clear()
        self.halt(f"the journal cannot be written: {error}")

    def record(self, entry: e.Entry, now_ns: int) -> Outcome | None:
        """Append an entry and apply it: the only way in which trading state changes."""
        assert not self.is_following, f"a standby journals nothing of its own, was {entry!r}"
        return self.oms.outbox.record(entry, now_ns)

    def release_durable(self) -> None:
        """Send what waited for the disk; called on the loop when more entries became durable."""
        now_ns = self.clock.now_ns()
        self.begin_turn(now_ns)
        self.end_turn(now_ns, 0)

    def halt(self, reason: str) -> None:
        """Stop trading for good: ask once more for every order to be cancelled, and close the gate."""
        if not self.halted:
            self.halted = reason
            if not self.is_succeeded():
                self.safety.cancel_past_the_journal(self.clock.now_ns())
            self.gate.close()
            _log.critical("trading halted: %s", reason)
            self.on_alert(e.Alert("halted", reason))

    def retire(self, reason: str) -> None:
        """Write and send nothing any more: another node goes on from here, orders and all."""
        self.halted = self.halted or reason
        self.gate.close()

    # -- accounts --------------------------------------------------------------------------------

    def add_account(self, account: str, adapter: ExchangeAdapter[Any], data_dir: str) -> AccountFeed:
        """Wire an adapter in; it is connected by the caller afterwards."""
        feed = AccountFeed(self, account, adapter, data_dir)
        feed.open_link(adapter)
        self.feeds[account] = feed
        self.oms.outbox.ports[account] = adapter
        return feed

    def remove_account(self, account: str) -> None:
        """Forget an account that could not be connected."""
        for link in list(self.feeds[account].links):
            self.feeds[account].forget_link(link)
        del self.feeds[account], self.oms.outbox.ports[account]

    def set_instruments(self, account: str, instruments: Sequence[Instrument], used: set[str]) -> None:
        """Journal what the venue allows for the symbols in use, where it is new or changed.

        Raises `NotAsDeclared` for what could be journaled and not be read again; nothing has changed then.
        """
        in_use = [instrument for instrument in instruments if instrument.symbol in used]
        for instrument in in_use:
            check_declared(instrument, (Instrument,))
        self.begin_turn(self.clock.now_ns())
        self.feeds[account].listed = {instrument.symbol: instrument for instrument in instruments}
        known = self.state.instruments.get(account, {})
        for instrument in in_use:
            if known.get(instrument.symbol) != instrument:
                self.record(e.InstrumentSet(account, instrument), self.now_ns)
        self.end_turn(self.now_ns, 0)

    def start_reconciling(self, account: str) -> None:
        """Begin to compare an account with its venue."""
        now_ns = self.clock.now_ns()
        self.begin_turn(now_ns)
        self.reconciler.start(account, now_ns)
        self.end_turn(now_ns, 0)

    def take_up(self, account: str) -> None:
        """Begin to compare an account with its venue; nobody trades on it before they agree."""
        now_ns = self.clock.now_ns()
        self.begin_turn(now_ns)
        self.feeds[account].take_up(now_ns)
        self.end_turn(now_ns, 0)

    # -- stopping --------------------------------------------------------------------------------

    def stop_trading(self, reason: str) -> None:
        """Stop every instance and ask for every order to be cancelled; none that starts later trades."""
        self.stopping = reason
        for instance in reversed(self.roster.in_order()):
            self.roster.stop(instance, reason, node_stops=True)
        now_ns = self.clock.now_ns()
        self.begin_turn(now_ns)
        self.oms.cancel_all(self.state.orders.values(), reason, now_ns)
        self.end_turn(now_ns, 0)

    def stand_back(self, reason: str, *, pulls: bool) -> None:
        """Let no instance trade until `go_on`; with `pulls` no quote rests meanwhile either."""
        self.standing_back = reason
        now_ns = self.clock.now_ns()
        self.begin_turn(now_ns)
        for instance in self.roster.instances.values():
            self.roster.set_trading(instance)
            if pulls:
                self.oms.pull_quotes(instance.instance, reason, now_ns)
        self.end_turn(now_ns, 0)

    def go_on(self) -> None:
        """Let instances trade again, each once its account agrees with its venue."""
        self.standing_back = ""
        for account in self.feeds:
            self.take_up(account)

    def save_all(self) -> None:
        """Journal the state of every strategy as it is now, for whoever goes on from here."""
        now_ns = self.clock.now_ns()
        self.begin_turn(now_ns)
        for instance in self.roster.instances.values():
            self.roster.states.save(instance, now_ns)
        self.end_turn(now_ns, 0)

    @property
    def is_quiet(self) -> bool:
        """Return whether each request of this node is answered or was given up, and none waits to be sent."""
        pending = any(order.status in _PENDING for order in self.state.orders.values())
        return not pending and not self.oms.outbox.waiting and not self.reconciler.is_asking

    @property
    def live_orders(self) -> Collection[str]:
        """Return the client ids of the orders that may still trade, as far as this node can know."""
        return self.safety.unconfirmed if self.halted else self.state.orders

    def say_stopped(self, reason: str) -> None:
        """Close the journal's account of this process."""
        now_ns = self.clock.now_ns()
        self.begin_turn(now_ns)
        self.upkeep.mark_equity(now_ns)
        self.record(e.NodeStopped(reason), now_ns)
        self.end_turn(now_ns, 0)

    # -- alerts ----------------------------------------------------------------------------------

    def alert(self, kind: str, text: str, instance: str = "") -> None:
        """Journal an alert in a turn of its own."""
        self.begin_turn(self.clock.now_ns())
        self.record_alert(kind, text, instance)
        self.end_turn(self.now_ns, 0)

    def record_alert(self, kind: str, text: str, instance: str = "") -> None:
        """Journal an alert within the current turn; a standby, whose journal is its primary's, logs it only."""
        alert = e.Alert(kind, text, instance)
        if self.is_following:
            self.on_alert(alert)
        else:
            self.record(alert, self.now_ns)
        _log.warning("%s: %s", kind, text)

    def count_report(self, report: object) -> None:
        """Count what the run report shows of the venue's answers."""
        if isinstance(report, OrderRejected | AmendRejected | CancelRejected):
            self.rejects += 1

    # -- what the OMS tells ----------------------------------------------------------------------

    def _order_changed(self, order: Order | None, fill: Fill | None) -> None:
        if fill is not None:
            self.fill_history.add(self.state.last_fill_lsn, fill)
        self.roster.order_changed(order, fill)

    def _breach(self, refusal: Refusal, instance: str) -> None:
        self.safety.breach(refusal, instance)
