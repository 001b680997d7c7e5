"""The engine: one thread, one turn per event, everything a node trades with wired together.

A turn is: an event comes in, state and books follow, strategies react, their wishes become journal
entries, the entries are written with one system call, and only then do commands leave through the
gate. Nothing in here awaits or does other I/O than that write; what drives the turns (sockets, the
clock, a recording) is outside.
"""

import asyncio
import logging
import traceback
from collections.abc import Callable, Coroutine, Mapping, Sequence
from decimal import Decimal
from time import perf_counter_ns
from typing import Any, Final

import msgspec
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
    QuoteModel,
    Strategy,
    TandemError,
)
from host.core import entries as e
from host.core.accounting import fees_in_settle, total, unrealised
from host.core.client_id import ClientIdMaker
from host.core.entries import InstanceState
from host.core.features import FeatureMaker
from host.core.gate import Gate
from host.core.oms import Oms
from host.core.reconcile import Reconciler
from host.core.risk import RiskEngine
from host.core.risk_limits import Action, Refusal, RiskConfig
from host.core.state import Outcome, TradingState
from host.journal import Journal, JournalError
from host.runtime.candles import CandleMaker
from host.runtime.clock import Clock
from host.runtime.feed import AccountFeed, SymbolFeed
from host.runtime.instance import Instance
from host.runtime.latency import Histogram
from host.runtime.models import ModelStage

__all__ = ["Engine", "EngineSettings", "InstanceSpec"]

_log = logging.getLogger("tandem.engine")
HOUSEKEEPING_NS: Final = 500_000_000
"""How often due work that no event triggers is looked at."""
ASKING_NS: Final = 20_000_000
"""How often it is looked at while the venue owes us an answer about an order or account in doubt."""
_ZERO: Final = Decimal(0)


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


class InstanceSpec(Struct, frozen=True, kw_only=True):
    """An instance as configured, with its plugin's version."""

    name: str
    account: str
    symbols: tuple[str, ...]
    plugin: str
    digest: str
    params_json: bytes
    tolerance_bps: float = 0.5
    start_paused: bool = False


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
    ) -> None:
        self.clock: Final = clock
        self.journal: Final = journal
        self.state: Final = state
        self.settings: Final = settings
        self.now_ns = clock.now_ns()
        self.gate: Final = Gate(settings.order_window_ns)
        self.risk: Final = RiskEngine(risk_config, state.holding)
        self.oms: Final = Oms(
            state, self.risk, self.gate, self.record, self._order_changed, self._breach, self._top
        )
        self.reconciler: Final = Reconciler(self.oms, settings.order_id_prefix)
        self.feeds: dict[str, AccountFeed] = {}
        self.instances: dict[str, Instance] = {}
        self.halted = ""
        """Why nothing is sent any more; empty while all is well."""
        self.events = 0
        self.fills = 0
        self.rejects = 0
        self.tick_to_order: Final = Histogram()
        self.on_alert: Callable[[e.Alert], None] = lambda alert: None
        self._missed: dict[str, list[Outcome]] = {}
        self._depth = 0
        self._sent_before = 0
        self._touched: set[str] = set()
        self._flattening: set[str] = set()
        self._new_versions: set[str] = set()
        self._next_housekeeping_ns = self._last_housekeeping_ns = 0
        self._next_state_save_ns = 0
        self._next_equity_ns = 0
        self._next_snapshot_lsn = journal.last_lsn + settings.snapshot_every
        self._next_digest_lsn = journal.last_lsn + settings.digest_every
        self._snapshot_task: asyncio.Future[None] | None = None
        self._last_equity: dict[tuple[str, str], tuple[Decimal, Decimal]] = {}
        journal.on_trouble(lambda trouble: self._journal_trouble(str(trouble.text)))

    # -- recovery --------------------------------------------------------------------------------

    def take_over_missed(self, missed: Mapping[str, list[Outcome]]) -> None:
        """Keep what happened to each instance's orders after its state was last saved."""
        self._missed = dict(missed)

    def start_epoch(self, node: str, cell: str, epoch: int, host_version: str) -> None:
        """Say in the journal that this process took up the work; what was in flight is in doubt."""
        self.begin_turn(self.clock.now_ns())
        self.record(e.NodeStarted(node, cell, epoch, host_version), self.now_ns)
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

    def _top(self, account: str, symbol: str) -> BookTop | None:
        feed = self.feeds[account].symbols.get(symbol) if account in self.feeds else None
        return None if feed is None or feed.book.top_fault else feed.book.top

    # -- turns -----------------------------------------------------------------------------------

    def begin_turn(self, now_ns: int) -> None:
        """Enter a turn; turns may nest when an adapter answers at once."""
        self._depth += 1
        self.now_ns = now_ns

    def end_turn(self, now_ns: int, started_ns: int) -> None:
        """Write what the turn journaled, then let its commands out."""
        self._depth -= 1
        if self._depth:
            return
        if self._touched:
            self._save_touched_states(now_ns)
        oms, journal = self.oms, self.journal
        if journal.last_lsn == journal.flushed_lsn and not oms.outbox:
            return
        self._depth = 1  # answers that come while we send belong to this turn
        try:
            self._write_and_send(now_ns)
            sent = oms.orders_sent + oms.amends_sent
            if sent != self._sent_before:
                self._sent_before = sent
                if started_ns:
                    self.tick_to_order.add(perf_counter_ns() - started_ns)
        except JournalError as error:
            self.halt(f"the journal cannot be written: {error}")
        finally:
            self._depth = 0

    def _write_and_send(self, now_ns: int) -> None:
        """Write first, send second; once more for what sending itself led to."""
        oms, journal = self.oms, self.journal
        while True:
            journal.flush()
            waiting = len(oms.outbox)
            if waiting:
                oms.flush(now_ns, journal.durable_lsn)
            if journal.last_lsn == journal.flushed_lsn and (not oms.outbox or len(oms.outbox) == waiting):
                return  # what is left waits for the disk

    def record(self, entry: e.Entry, now_ns: int) -> Outcome | None:
        """Append an entry and apply it: the only way in which trading state changes."""
        return self.state.apply(self.journal.append(entry, now_ns), now_ns, entry)

    def release_durable(self) -> None:
        """Send what waited for the disk; called on the loop when more entries became durable."""
        now_ns = self.clock.now_ns()
        self.begin_turn(now_ns)
        self.end_turn(now_ns, 0)

    def halt(self, reason: str) -> None:
        """Stop trading for good: close the gate. Orders at the venue stay until somebody acts."""
        if not self.halted:
            self.halted = reason
            self.gate.close()
            _log.critical("trading halted: %s", reason)
            self.on_alert(e.Alert("halted", reason))

    # -- accounts --------------------------------------------------------------------------------

    def add_account(self, account: str, adapter: ExchangeAdapter[Any], data_dir: str) -> AccountFeed:
        """Wire an adapter in; it is connected by the caller afterwards."""
        feed = AccountFeed(self, account, adapter, data_dir)
        adapter.ctx = feed
        self.feeds[account] = feed
        self.oms.ports[account] = adapter
        return feed

    def remove_account(self, account: str) -> None:
        """Forget an account that could not be connected."""
        del self.feeds[account], self.oms.ports[account]

    def market_data_lost(self, feed: AccountFeed, why: str, now_ns: int) -> None:
        """Trust no book of an account any more, and pull the quotes that rest on them."""
        for symbol_feed in feed.symbols.values():
            symbol_feed.book.invalidate(f"market data connection lost: {why}")
        for instance in self.instances.values():
            if instance.account == feed.account:
                self.oms.pull_quotes(instance.instance, "market data lost", now_ns)

    def set_instruments(self, account: str, instruments: Sequence[Instrument], used: set[str]) -> None:
        """Journal what the venue allows for the symbols in use, where it is new or changed."""
        self.begin_turn(self.clock.now_ns())
        known = self.state.instruments.get(account, {})
        for instrument in instruments:
            if instrument.symbol in used and known.get(instrument.symbol) != instrument:
                self.record(e.InstrumentSet(account, instrument), self.now_ns)
        self.end_turn(self.now_ns, 0)

    def start_reconciling(self, account: str) -> None:
        """Begin to compare an account with its venue."""
        now_ns = self.clock.now_ns()
        self.begin_turn(now_ns)
        self.reconciler.start(account, now_ns)
        self.end_turn(now_ns, 0)

    # -- instances -------------------------------------------------------------------------------

    def plugin_loaded(self, name: str, path: str, digest: str, offers: tuple[str, ...]) -> None:
        """Say in the journal which bytes run under a plugin's name."""
        self.begin_turn(self.clock.now_ns())
        self.record(e.PluginLoaded(name, path, digest, offers), self.now_ns)
        self.end_turn(self.now_ns, 0)

    def add_instance(
        self,
        spec: InstanceSpec,
        strategy: Strategy[Any],
        models: Sequence[tuple[str, QuoteModel[Any]]],
        spawn: Callable[[Coroutine[Any, Any, None], str], "asyncio.Task[None]"],
    ) -> Instance:
        """Create an instance, restore its state and let it hear of the market; it cannot trade yet.

        Raises `StateNotCarried` where its saved state does not fit, and whatever a model's
        `on_start` raises; nothing has changed then but the journal's note of the instance.
        """
        now_ns = self.clock.now_ns()
        self.begin_turn(now_ns)
        try:
            known = self.state.instances.get(spec.name)
            if known is None or known.digest != spec.digest:
                self._new_versions.add(spec.name)
            number = known.number if known is not None else self.state.next_instance_number
            self.record(
                e.InstanceAdded(
                    spec.name, number, spec.plugin, spec.digest, spec.account, spec.symbols, spec.params_json
                ),
                now_ns,
            )
            record = self.state.instances[spec.name]
            stages = [ModelStage(name, model, self.clock, spawn) for name, model in models]
            for _, model in models:
                model.on_start()
            instance = Instance(self, spec.name, spec.account, spec.symbols, strategy, stages)
            instance.restore_state(record.state_version, record.strategy_state)
            self._connect(
                instance, ClientIdMaker(self.settings.order_id_prefix, self.state.epoch, number), spec
            )
            self.instances[spec.name] = instance
        finally:
            self.end_turn(now_ns, 0)
        return instance

    def start_instance(self, instance: Instance, *, paused: bool = False) -> None:
        """Run `on_start`, hand over what the saved state has not seen, then let it trade."""
        now_ns = self.clock.now_ns()
        self.begin_turn(now_ns)
        self._set_state(instance, InstanceState.STARTING, "")
        self.call(instance, lambda _: instance.strategy.on_start(), None)
        for outcome in self._missed.pop(instance.instance, []):
            if outcome.order is not None:
                self.call(instance, instance.strategy.on_order, outcome.order)
            if outcome.fill is not None:
                self.call(instance, instance.strategy.on_fill, outcome.fill)
        if instance.state is InstanceState.STARTING:
            self._set_state(instance, InstanceState.PAUSED if paused else InstanceState.RUNNING, "")
            self._touched.add(instance.instance)
        self._rewire()
        self.end_turn(now_ns, 0)

    def is_new_version(self, instance: str) -> bool:
        """Return whether the instance runs other plugin bytes than when the node last ran."""
        return instance in self._new_versions

    def keep_quarantined(self, instance: Instance, reason: str) -> None:
        """Leave an instance in quarantine: the same bytes would misbehave again."""
        instance.state = InstanceState.QUARANTINED
        self.alert(
            "quarantined", f"instance {instance.instance} stays quarantined: {reason}", instance.instance
        )

    def cancel_strays(self, reason: str) -> None:
        """Cancel the orders of instances that are not there any more."""
        now_ns = self.clock.now_ns()
        self.begin_turn(now_ns)
        strays = [order for order in self.state.orders.values() if order.instance not in self.instances]
        self.oms.cancel_all(strays, reason, now_ns)
        self.end_turn(now_ns, 0)

    def pause_instance(self, instance: Instance, reason: str) -> None:
        """Pull its quotes; it goes on receiving."""
        self._move(instance, InstanceState.PAUSED, reason)

    def resume_instance(self, instance: Instance, reason: str) -> None:
        """Let it trade again."""
        self._move(instance, InstanceState.RUNNING, reason)

    def stop_instance(self, instance: Instance, reason: str) -> None:
        """Run `on_stop`, pull all its orders; it no longer receives."""
        now_ns = self.clock.now_ns()
        self.begin_turn(now_ns)
        if instance.state in (InstanceState.RUNNING, InstanceState.PAUSED):
            self.call(instance, lambda _: instance.strategy.on_stop(), None)
        self._save_state(instance, now_ns)
        if instance.state is not InstanceState.QUARANTINED:
            self._set_state(instance, InstanceState.STOPPED, reason)
        self._pull_all(instance, reason, now_ns)
        self._rewire()
        self.end_turn(now_ns, 0)

    def quarantine(self, instance: Instance, error: BaseException, where: str) -> None:
        """Take an instance whose code raised out of service; the others do not notice."""
        text = f"{where} raised {type(error).__name__}: {error}{_origin(error)}"
        _log.error("instance %s quarantined: %s", instance.instance, text)
        self._set_state(instance, InstanceState.QUARANTINED, text)
        self.record_alert("quarantined", f"instance {instance.instance}: {text}", instance.instance)
        self._pull_all(instance, "quarantined", self.now_ns)
        self._rewire()

    def call(self, instance: Instance, handle: Callable[[Any], None], event: Any) -> None:
        """Call a strategy's code; whatever it raises stays with that instance."""
        try:
            handle(event)
        except JournalError:
            raise
        except (Exception, SystemExit) as error:  # noqa: BLE001 - plugin boundary: quarantined
            self.misbehaved(instance, error, handle)

    def misbehaved(self, instance: Instance, error: BaseException, handle: Callable[[Any], None]) -> None:
        """Quarantine an instance for what its callback raised."""
        self.quarantine(instance, error, getattr(handle, "__name__", "callback"))

    # -- what no event triggers ------------------------------------------------------------------

    def next_time_ns(self) -> int:
        """Return when `on_time` wants to be called next."""
        due = self._next_housekeeping_ns
        if self.reconciler.is_asking:
            due = min(due, max(self.reconciler.next_time_ns(), self._last_housekeeping_ns + ASKING_NS))
        for instance in self.instances.values():
            timer_ns = instance.next_timer_ns()
            if timer_ns is not None and timer_ns < due:
                due = timer_ns
        return due

    def on_time(self, now_ns: int) -> None:
        """Do what is due: timers, candles, questions to the venue, saves, marks, snapshots."""
        started_ns = perf_counter_ns()
        self.begin_turn(now_ns)
        try:
            for instance in list(self.instances.values()):
                if instance.timers and instance.state in (InstanceState.RUNNING, InstanceState.PAUSED):
                    self.call(instance, instance.run_timers, now_ns)
            if now_ns >= self._next_housekeeping_ns or self.reconciler.is_asking:
                self._last_housekeeping_ns = now_ns
                self._next_housekeeping_ns = now_ns + HOUSEKEEPING_NS
                self._housekeeping(now_ns)
        finally:
            self.end_turn(now_ns, started_ns)

    def _housekeeping(self, now_ns: int) -> None:
        if self.halted:
            return
        for feed in self.feeds.values():
            for symbol in feed.symbols.values():
                for maker in symbol.candle_makers:
                    maker.on_time(now_ns)
        self.reconciler.on_timer(now_ns)
        for refusal in self.risk.monitor(now_ns, self._top):
            self._breach(refusal, refusal.instance)
        if self._flattening:
            self._go_on_flattening(now_ns)
        if now_ns >= self._next_state_save_ns:
            self._next_state_save_ns = now_ns + self.settings.state_save_ns
            for instance in self.instances.values():
                self._save_state(instance, now_ns)
        if now_ns >= self._next_equity_ns:
            self._next_equity_ns = now_ns + self.settings.equity_every_ns
            self.mark_equity(now_ns)
        lsn = self.journal.last_lsn
        if lsn >= self._next_digest_lsn:
            self._next_digest_lsn = lsn + self.settings.digest_every
            self.record(e.StateDigest(self.state.digest()), now_ns)
        if lsn >= self._next_snapshot_lsn and self._snapshot_task is None:
            self._next_snapshot_lsn = lsn + self.settings.snapshot_every
            self.snapshot(now_ns)

    def snapshot(self, now_ns: int) -> None:
        """Write the state down, so that a restart reads only what came after, and prune the journal."""
        # First every strategy's state: the journal before the snapshot is not read again.
        for instance in self.instances.values():
            self._save_state(instance, now_ns, force=True)
        self.journal.flush()
        lsn, data = self.state.lsn, self.state.encode()
        if not self.settings.snapshot_in_thread:
            self._write_snapshot(lsn, data)
            self.journal.prune(lsn)
            return
        loop = asyncio.get_running_loop()
        self._snapshot_task = loop.run_in_executor(None, self._write_snapshot, lsn, data)
        self._snapshot_task.add_done_callback(lambda done: self._snapshot_done(done, lsn))

    def _write_snapshot(self, lsn: int, data: bytes) -> None:
        self.journal.write_snapshot(lsn, data)

    def _snapshot_done(self, done: "asyncio.Future[None]", lsn: int) -> None:
        self._snapshot_task = None
        if done.cancelled():
            return
        error = done.exception()
        if error is not None:
            self.alert("snapshot_failed", str(error))
        else:
            self.journal.prune(lsn)

    def mark(self, account: str, symbol: str) -> Decimal | None:
        """Return the mid at which holdings are valued, exactly between two ticks; None without one."""
        top = self._top(account, symbol)
        if top is None:
            return None
        instrument = self.state.instruments[account][symbol]
        return (instrument.price_floor(top.bid) + instrument.price_ceil(top.ask)) / 2

    def mark_equity(self, now_ns: int) -> None:
        """Journal profit and loss of every holding that changed, at the current mid."""
        for name, by_symbol in self.state.holdings.items():
            record = self.state.instances.get(name)
            if record is None:
                continue
            for symbol, holding in by_symbol.items():
                mark = self.mark(record.account, symbol)
                if mark is None or self._last_equity.get((name, symbol)) == (mark, holding.volume):
                    continue
                self._last_equity[name, symbol] = (mark, holding.volume)
                instrument = self.state.instruments[record.account][symbol]
                self.record(
                    e.EquityMarked(
                        record.account,
                        name,
                        symbol,
                        mark,
                        holding.qty,
                        holding.realised,
                        unrealised(holding, instrument, mark),
                        fees_in_settle(holding, instrument, mark),
                        total(holding, instrument, mark),
                    ),
                    now_ns,
                )

    # -- stopping --------------------------------------------------------------------------------

    def stop_trading(self, reason: str) -> None:
        """Stop every instance and ask for every order to be cancelled."""
        for instance in list(self.instances.values()):
            self.stop_instance(instance, reason)
        now_ns = self.clock.now_ns()
        self.begin_turn(now_ns)
        self.oms.cancel_all(self.state.orders.values(), reason, now_ns)
        self.end_turn(now_ns, 0)

    def say_stopped(self, reason: str) -> None:
        """Close the journal's account of this process."""
        now_ns = self.clock.now_ns()
        self.begin_turn(now_ns)
        self.mark_equity(now_ns)
        self.record(e.NodeStopped(reason), now_ns)
        self.end_turn(now_ns, 0)

    # -- safety ----------------------------------------------------------------------------------

    def alert(self, kind: str, text: str, instance: str = "") -> None:
        """Journal an alert in a turn of its own."""
        self.begin_turn(self.clock.now_ns())
        self.record_alert(kind, text, instance)
        self.end_turn(self.now_ns, 0)

    def record_alert(self, kind: str, text: str, instance: str = "") -> None:
        """Journal an alert within the current turn."""
        alert = e.Alert(kind, text, instance)
        self.record(alert, self.now_ns)
        _log.warning("%s: %s", kind, text)
        self.on_alert(alert)

    def set_kill_switch(self, scope: str, is_on: bool, reason: str) -> None:
        """Trip or release a kill switch; tripping cancels every order of the scope."""
        now_ns = self.now_ns
        self.record(e.KillSwitchSet(scope, is_on, reason), now_ns)
        self.risk.set_kill(scope, is_on, reason)
        if is_on:
            self.record_alert("kill_switch", f"{scope}: {reason}")
            orders = [order for order in self.state.orders.values() if in_scope(order, scope)]
            self.oms.cancel_all(orders, f"kill switch: {reason}", now_ns)

    def flatten(self, scope: str) -> None:
        """Close the positions of a scope, now and again with each housekeeping until they are flat."""
        self._flattening.add(scope)
        self._go_on_flattening(self.now_ns)

    def _go_on_flattening(self, now_ns: int) -> None:
        for scope in sorted(self._flattening):
            channels = [
                channel
                for instance in self.instances.values()
                for symbol, channel in instance.channels.items()
                if _covers(scope, instance, symbol)
            ]
            # all() would stop at the first that is not flat yet; every one is to be worked on.
            if sum(not self.oms.close_position(channel, now_ns) for channel in channels) == 0:
                self._flattening.discard(scope)

    def book_fault(self, feed: SymbolFeed, fault: str) -> None:
        """Say once, until it is good again, that a book cannot be trusted; nothing is quoted on it."""
        kind = fault.partition(":")[0]
        if feed.fault != kind:
            feed.fault = kind
            self.record_alert("book_fault", f"{feed.account} {feed.symbol}: {fault}")

    def count_report(self, report: object) -> None:
        """Count what the run report shows of the venue's answers."""
        if isinstance(report, OrderRejected | AmendRejected | CancelRejected):
            self.rejects += 1

    # -- inside ----------------------------------------------------------------------------------

    def _order_changed(self, order: Order | None, fill: Fill | None) -> None:
        if fill is not None:
            self.fills += 1
        name = order.instance if order is not None else fill.instance if fill is not None else ""
        instance = self.instances.get(name)
        if instance is None:
            if name:  # the instance is not there yet: it hears of this when it starts
                self._missed.setdefault(name, []).append(Outcome(order, fill))
            return
        if instance.state is InstanceState.LOADED:
            self._missed.setdefault(name, []).append(Outcome(order, fill))
            return
        self._touched.add(name)
        if instance.state not in (InstanceState.RUNNING, InstanceState.PAUSED):
            return
        if fill is not None:
            self.call(instance, instance.strategy.on_fill, fill)
        if order is not None and instance.state in (InstanceState.RUNNING, InstanceState.PAUSED):
            self.call(instance, instance.strategy.on_order, order)

    def _breach(self, refusal: Refusal, instance: str) -> None:
        if refusal.action is Action.REFUSE:
            return
        if refusal.action is Action.PULL:
            name = instance or refusal.scope.partition(":")[2]
            if name in self.instances:
                self.oms.pull_quotes(name, refusal.reason, self.now_ns)
            return
        if refusal.scope in self.state.kill_switches:
            return
        self.set_kill_switch(refusal.scope, True, f"{refusal.reason}: {refusal.detail}")
        if refusal.action is Action.FLATTEN:
            self.flatten(refusal.scope)

    def _journal_trouble(self, text: str) -> None:
        if "node" not in self.state.kill_switches:
            self.begin_turn(self.clock.now_ns())
            self.set_kill_switch("node", True, f"journal: {text}")
            self.end_turn(self.now_ns, 0)

    def _connect(self, instance: Instance, ids: ClientIdMaker, spec: InstanceSpec) -> None:
        feed = self.feeds[instance.account]
        for symbol in instance.symbols:
            if symbol not in self.state.instruments.get(instance.account, {}):
                known = ", ".join(sorted(self.state.instruments.get(instance.account, {}))) or "none"
                raise TandemError(
                    f"instance {instance.instance}: account {instance.account} has no symbol {symbol}; "
                    f"it offers {known}"
                )
        for symbol in instance.symbols:
            symbol_feed = feed.symbols[symbol]
            if instance.models and symbol_feed.features is None:
                symbol_feed.features = FeatureMaker()
            instance.feeds[symbol] = symbol_feed
            instance.channels[symbol] = self.oms.open_channel(
                instance.instance, instance.account, symbol, ids, spec.tolerance_bps
            )

    def _rewire(self) -> None:
        """Rebuild who hears of what, from the instances that receive."""
        receiving = [
            i
            for i in self.instances.values()
            if i.state in (InstanceState.STARTING, InstanceState.RUNNING, InstanceState.PAUSED)
        ]
        for feed in self.feeds.values():
            for symbol, symbol_feed in feed.symbols.items():
                here = [i for i in receiving if i.account == feed.account and symbol in i.symbols]
                symbol_feed.on_book = tuple((i, i.strategy.on_book) for i in here if i.overrides("on_book"))
                symbol_feed.on_depth = tuple(
                    (i, i.strategy.on_depth) for i in here if i.overrides("on_depth")
                )
                symbol_feed.on_trade = tuple(
                    (i, i.strategy.on_trade) for i in here if i.overrides("on_trade")
                )
                symbol_feed.on_ticker = tuple(
                    (i, i.strategy.on_ticker) for i in here if i.overrides("on_ticker")
                )
                symbol_feed.candle_makers = tuple(
                    CandleMaker(symbol, i.strategy.candle_seconds, _candle_sink(feed, i))
                    for i in here
                    if i.overrides("on_candle")
                )

    def _move(self, instance: Instance, state: InstanceState, reason: str) -> None:
        if instance.state not in (InstanceState.RUNNING, InstanceState.PAUSED):
            raise TandemError(
                f"instance {instance.instance} is {instance.state}; only a running or paused one can become {state}"
            )
        now_ns = self.clock.now_ns()
        self.begin_turn(now_ns)
        if instance.state is not state:
            self._set_state(instance, state, reason)
            if state is InstanceState.PAUSED:
                self.oms.pull_quotes(instance.instance, reason, now_ns)
        self.end_turn(now_ns, 0)

    def _set_state(self, instance: Instance, state: InstanceState, reason: str) -> None:
        instance.state = state
        instance.is_trading = state is InstanceState.RUNNING
        self.record(e.InstanceChanged(instance.instance, state, reason), self.now_ns)

    def _pull_all(self, instance: Instance, reason: str, now_ns: int) -> None:
        self.oms.pull_quotes(instance.instance, reason, now_ns)
        own = [order for order in self.state.orders.values() if order.instance == instance.instance]
        self.oms.cancel_all(own, reason, now_ns)

    def _save_touched_states(self, now_ns: int) -> None:
        for name in sorted(self._touched):
            instance = self.instances.get(name)
            if instance is not None:
                self._save_state(instance, now_ns, force=True)
        self._touched.clear()

    def _save_state(self, instance: Instance, now_ns: int, *, force: bool = False) -> None:
        """Journal a strategy's state if it changed.

        `force` writes it even if not, because the entry also says up to where the strategy has seen
        its orders and fills; it is skipped where neither has anything new to say.
        """
        if instance.state is InstanceState.LOADED:
            return
        try:
            data = instance.encode_state()
        except (TypeError, ValueError, msgspec.MsgspecError) as error:
            if instance.state is not InstanceState.QUARANTINED:
                self.quarantine(instance, error, "encoding its state")
            return
        if data != instance.saved_state or (force and type(instance.strategy).state_type.__struct_fields__):
            instance.saved_state = data
            version = instance.strategy.state_type.state_version
            self.record(e.StrategyStateSaved(instance.instance, version, data), now_ns)


def in_scope(order: Order, scope: str) -> bool:
    """Return whether an order belongs to a scope (`node`, `account:…`, `instance:…`, `symbol:…`)."""
    kind, _, name = scope.partition(":")
    return (
        kind == "node"
        or (kind == "account" and order.account == name)
        or (kind == "instance" and order.instance == name)
        or (kind == "symbol" and order.symbol == name)
    )


def _covers(scope: str, instance: Instance, symbol: str) -> bool:
    kind, _, name = scope.partition(":")
    return (
        kind == "node"
        or (kind == "account" and instance.account == name)
        or (kind == "instance" and instance.instance == name)
        or (kind == "symbol" and symbol == name)
    )


def _candle_sink(feed: AccountFeed, instance: Instance) -> Callable[[Any], None]:
    return lambda candle: feed.emit_candle(instance, candle)


def _origin(error: BaseException) -> str:
    """Return ` (file, line N)` of the deepest frame of the error."""
    frames = traceback.extract_tb(error.__traceback__)
    return f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
