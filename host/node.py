"""One node, from configuration to report: the only place where the parts are put together.

The order of starting is the order of trust: the journal first (what do we know?), then the venue
(is it true?), and only then the strategies. Stopping goes the other way.
"""

import asyncio
import gc
import logging
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib.metadata import version
from typing import Final

import uvloop

from host.assembly import Assembly, NodeNotStarted
from host.config import ConfigSource, NodeConfig, RunOptions
from host.control.subject import Subject
from host.control.tail import JournalTail
from host.controlling import Control
from host.journal import Journal, JournalError
from host.loader import Catalog
from host.reloading import Reloading, load_catalog
from host.runtime.clock import LiveClock, VirtualClock
from host.runtime.driver import LiveDriver, ReplayDriver
from host.runtime.engine import Engine, EngineSettings
from host.runtime.instance_control import InstanceControl, with_api_instances
from host.runtime.recovery import recover
from host.runtime.report import RunReport, make_report
from host.store import StoreWriter
from host.terminal import TerminalView
from host.view import ViewMaker

__all__ = ["NodeNotStarted", "run"]

_log = logging.getLogger("tandem.node")

EPOCH_ZERO_S: Final = 1_577_836_800
"""2020-01-01. A new journal's first epoch is the seconds since then, so that a journal that was
deleted does not bring back client order ids that the venue has already seen."""
SIMULATION_START_NS: Final = 1_704_067_200_000_000_000
"""2024-01-01. When a synthetic market in simulated time begins, so that runs can be compared."""
VIEW_EVERY_S: Final = 0.25
SAY_WAITING_EVERY_S: Final = 5.0


def run(config: NodeConfig, options: RunOptions, source: ConfigSource | None = None) -> RunReport:
    """Run one node until it is told to stop, the time is up or the recording ends.

    Stops cleanly on SIGINT and SIGTERM: no order is left open; a second signal ends at once. Raises
    `TandemError` for whatever keeps the node from starting. Edits of `source` are followed while it runs.
    """
    with _logging(config, options), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_Node(config, options, source).run())


class _Node:
    def __init__(self, config: NodeConfig, options: RunOptions, source: ConfigSource | None) -> None:
        self._config = config
        self._source = source
        self._options = options
        self._stop_reason = ""
        self._said_waiting_s = 0.0

    async def run(self) -> RunReport:
        """Start, trade, stop; the journal and the adapters are closed whatever happens."""
        config, options = self._config, self._options
        clock = VirtualClock(_first_ns(options)) if options.is_simulated else LiveClock()
        journal = Journal.open(
            config.journal_dir,
            node=config.node.name,
            durability=config.node.durability,
            segment_bytes=config.node.journal_segment_kb << 10,
        )
        engine: Engine | None = None
        try:
            engine = self._make_engine(journal, clock)
            # What is here by now lives until the end: the collector need not look at it again. Plugins
            # are loaded after this, because a retired version must be collectable.
            gc.collect()
            gc.freeze()
            catalog = load_catalog(config, engine)
            store = self._start_store()
            try:
                return await self._run_engine(engine, catalog, clock, store)
            finally:
                for feed in engine.feeds.values():
                    await feed.close()
                if store is not None and not store.stop(config.node.stop_timeout_ms / 1e3):
                    behind = store.lag(journal.last_lsn)
                    why = store.error or "it did not finish in time"
                    _log.warning(
                        "the store is %d entries behind, it goes on at the next start: %s", behind, why
                    )
        finally:
            gc.unfreeze()
            _close(journal, has_halted=engine is not None and bool(engine.halted))

    # -- starting --------------------------------------------------------------------------------

    def _make_engine(self, journal: Journal, clock: LiveClock | VirtualClock) -> Engine:
        node = self._config.node
        if journal.repaired is not None:
            _log.warning("the journal's torn tail was cut off: %s", journal.repaired)
        recovered = recover(journal, lambda count: _log.info("read %d journal entries", count))
        state = recovered.state
        settings = EngineSettings(
            order_window_ns=node.order_window_ms * 1_000_000,
            state_save_ns=node.state_save_ms * 1_000_000,
            equity_every_ns=node.equity_every_ms * 1_000_000,
            snapshot_every=node.snapshot_every_entries,
            digest_every=node.digest_every_entries,
            snapshot_in_thread=not self._options.is_simulated,
        )
        engine = Engine(
            clock=clock,
            journal=journal,
            state=state,
            risk_config=self._config.risk.limits,
            settings=settings,
            fills=recovered.fills,
        )
        engine.upkeep.after_recovery(recovered.entries_read)
        epoch = state.epoch + 1 if state.epoch else max(clock.now_ns() // 1_000_000_000 - EPOCH_ZERO_S, 1)
        engine.start_epoch(node.name, journal.cell, epoch, version("tandem"))
        if node.durability == "disk":
            loop = asyncio.get_running_loop()
            journal.on_durable(lambda _lsn: engine.release_durable(), call_soon=loop.call_soon_threadsafe)
        return engine

    def _start_store(self) -> StoreWriter | None:
        url = self._config.store_url
        if not url:
            return None
        store = StoreWriter(self._config.journal_dir, url)
        store.start()
        return store

    async def _run_engine(
        self, engine: Engine, catalog: Catalog, clock: LiveClock | VirtualClock, store: StoreWriter | None
    ) -> RunReport:
        options = self._options
        view = ViewMaker(engine, _mode(options), store)
        engine.on_alert = view.note_alert
        for problem in catalog.problems:
            engine.alert("plugin_refused", str(problem))
        for note in catalog.notes:
            engine.alert("plugin_shadowed", note)
        reloading = Reloading(self._config, engine, catalog, self._source)
        config = with_api_instances(self._config, engine)
        assembly = Assembly(config, options, engine, lambda: reloading.catalog)
        control = Control(self._config, options, self._subject(engine, reloading, assembly, store))
        try:
            # First of all: an address that is taken is no reason to have connected to a venue.
            await control.start()
            return await self._trade(engine, clock, view, reloading, assembly, control)
        finally:
            await control.close()

    def _subject(
        self, engine: Engine, reloading: Reloading, assembly: Assembly, store: StoreWriter | None
    ) -> Subject:
        journal = engine.journal

        def config() -> NodeConfig:
            return reloading.config

        return Subject(
            engine=engine,
            config=config,
            config_files=() if self._source is None else self._source.files,
            host_version=version("tandem"),
            started_ns=engine.clock.now_ns(),
            stop=self._ask_to_stop,
            tail=JournalTail(journal),
            reloader=reloading.reloader,
            instances=InstanceControl(engine, reloading.reloader, assembly.maker, config, assembly.skipped),
            reload=reloading.reload,
            store_lag=lambda: None if store is None else store.lag(journal.last_lsn),
        )

    async def _trade(
        self,
        engine: Engine,
        clock: LiveClock | VirtualClock,
        view: ViewMaker,
        reloading: Reloading,
        assembly: Assembly,
        control: Control,
    ) -> RunReport:
        options = self._options
        started_s, started_ns = time.monotonic(), clock.now_ns()
        await assembly.connect()
        driver = self._make_driver(engine, clock)
        self._listen_for_signals()
        with TerminalView() if options.ui else nullcontext() as screen:
            showing = asyncio.ensure_future(_show(screen, view)) if screen is not None else None
            try:
                await driver.run(lambda: self._is_ready(engine))
                if not self._why_stop(engine):
                    try:
                        assembly.start_instances()
                    except JournalError as error:
                        engine.abort_turn(error)
                    except NodeNotStarted as error:
                        await self._stop(engine, driver, clock, str(error))
                        raise
                reloading.bind(assembly)
                if not options.is_simulated:
                    reloading.start(assembly)
                await control.running()
                # From here, not from the process's start: how long that takes is the machine's affair.
                until_ns = (
                    None if options.duration_s is None else clock.now_ns() + int(options.duration_s * 1e9)
                )
                why = await driver.run(lambda: bool(self._why_stop(engine)), until_ns)
                why = self._why_stop(engine) or why
                await control.stopping()
                if not engine.halted:
                    reloading.stop(why)
                await self._stop(engine, driver, clock, why)
            finally:
                await reloading.close()
                if showing is not None:
                    showing.cancel()
        return make_report(
            engine,
            stopped=why,
            ran_s=(clock.now_ns() - started_ns) / 1e9,
            wall_s=time.monotonic() - started_s,
            skipped=assembly.skipped,
            reloads=reloading.reloads,
        )

    def _make_driver(self, engine: Engine, clock: LiveClock | VirtualClock) -> LiveDriver | ReplayDriver:
        if isinstance(clock, VirtualClock):
            return ReplayDriver(engine, clock, engine.stepped, self._options.speed)
        return LiveDriver(engine, clock, engine.stepped)

    def _is_ready(self, engine: Engine) -> bool:
        """Return whether every account agrees with its venue, or there is no point in waiting."""
        waiting = {
            a: engine.reconciler.waiting_for(a) for a in engine.feeds if not engine.reconciler.is_ready(a)
        }
        if waiting and time.monotonic() - self._said_waiting_s > SAY_WAITING_EVERY_S:
            if self._said_waiting_s:
                for account, what in waiting.items():
                    _log.warning("account %s: still waiting for %s", account, what)
            self._said_waiting_s = time.monotonic()
        return not waiting or bool(self._why_stop(engine))

    def _why_stop(self, engine: Engine) -> str:
        """Return why the node should not go on; empty while it should."""
        return engine.halted or engine.must_stop or self._stop_reason

    # -- stopping --------------------------------------------------------------------------------

    def _listen_for_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._on_signal, number)

    def _on_signal(self, number: signal.Signals) -> None:
        if self._stop_reason:
            sys.exit(128 + number)
        self._stop_reason = f"{number.name} received"

    def _ask_to_stop(self, reason: str) -> None:
        self._stop_reason = self._stop_reason or reason

    async def _stop(
        self, engine: Engine, driver: LiveDriver | ReplayDriver, clock: LiveClock | VirtualClock, why: str
    ) -> None:
        """Pull everything and wait until the venue has confirmed it."""
        until_ns = clock.now_ns() + self._config.node.stop_timeout_ms * 1_000_000
        try:
            if not engine.halted:
                engine.stop_trading(why)
                await driver.run(lambda: not engine.state.orders or bool(engine.halted), until_ns)
            if not engine.halted:
                if engine.state.orders:
                    text = f"{len(engine.state.orders)} orders were not confirmed cancelled in time"
                    engine.alert("orders_left_open", text)
                engine.say_stopped(why)
        except JournalError as error:
            engine.abort_turn(error)
        if engine.halted:
            await driver.run(lambda: not engine.live_orders, until_ns)
        await engine.upkeep.snapshot_written()


def _first_ns(options: RunOptions) -> int:
    if options.replay is None:
        return SIMULATION_START_NS
    from venue.recording import Recording

    return Recording.open(options.replay).first_ns


def _mode(options: RunOptions) -> str:
    if not options.is_simulated:
        return "live"
    return f"{'simulation' if options.replay is None else 'replay'} ×{options.speed or 'max'}"


def _close(journal: Journal, *, has_halted: bool) -> None:
    try:
        journal.close()
    except JournalError as error:
        if not has_halted:
            raise
        _log.error("the journal's last entries are not written: %s", error)


async def _show(screen: TerminalView, view: ViewMaker) -> None:
    while True:
        screen.update(view.make())
        await asyncio.sleep(VIEW_EVERY_S)


@contextmanager
def _logging(config: NodeConfig, options: RunOptions) -> Iterator[None]:
    """Log to the terminal, or to a file while the terminal shows the view; afterwards all is as before."""
    handler: logging.Handler
    if options.ui and sys.stdout.isatty():
        config.node.data_dir.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(config.node.data_dir / "tandem.log")
    else:
        handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-8s %(name)s: %(message)s"))
    root = logging.getLogger("tandem")
    before, propagated, level = root.handlers[:], root.propagate, root.level
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    root.propagate = False
    try:
        yield
    finally:
        root.handlers[:] = before
        root.propagate = propagated
        root.setLevel(level)
        handler.close()
