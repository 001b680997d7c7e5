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

from host.assembly import NodeNotStarted
from host.config import ConfigSource, NodeConfig, RunOptions
from host.control.subject import Subject
from host.control.tail import JournalTail
from host.controlling import Control
from host.errors import NodeMustRestart
from host.journal import Journal, JournalError
from host.member import Member
from host.reloading import Reloading
from host.runtime.blocking import Blocks
from host.runtime.clock import LiveClock, VirtualClock
from host.runtime.driver import LiveDriver, ReplayDriver
from host.runtime.engine import Engine
from host.runtime.instance_control import InstanceControl
from host.runtime.recovery import recover
from host.runtime.report import RunReport, make_report
from host.store import StoreWriter
from host.terminal import TerminalView
from host.trading import Trading, Waiting, make_engine, start_store, stop_store, stop_trading
from host.view import ViewMaker

__all__ = ["NodeMustRestart", "NodeNotStarted", "run"]

_log = logging.getLogger("tandem.node")

EPOCH_ZERO_S: Final = 1_577_836_800
"""2020-01-01. A new journal's first epoch is the seconds since then, so that a journal that was
deleted does not bring back client order ids that the venue has already seen."""
SIMULATION_START_NS: Final = 1_704_067_200_000_000_000
"""2024-01-01. When a synthetic market in simulated time begins, so that runs can be compared."""
VIEW_EVERY_S: Final = 0.25


def run(config: NodeConfig, options: RunOptions, source: ConfigSource | None = None) -> RunReport:
    """Run one node until it is told to stop, the time is up or the recording ends.

    Stops cleanly on SIGINT and SIGTERM: no order is left open; a second signal ends at once. Raises
    `TandemError` for whatever keeps the node from starting. Edits of `source` are followed while it runs.
    """
    with _logging(config, options), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if config.failover is not None and not options.is_simulated:
            return runner.run(Member(config, config.failover, options, source).run())
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
            engine = self._start_engine(journal, clock)
            # What is here by now lives until the end: the collector need not look at it again. Plugins
            # are loaded after this, because a retired version must be collectable.
            gc.collect()
            gc.freeze()
            view = ViewMaker(engine, _mode(options), None)
            engine.on_alert = view.note_alert
            trading = Trading(config, options, engine, await Reloading.load(config, engine, self._source))
            store = start_store(config)
            view.store = store
            try:
                return await self._run_trading(trading, clock, view, store)
            finally:
                await trading.close()
                await stop_store(store, journal, config.node.stop_timeout_ms)
        finally:
            gc.unfreeze()
            _close(journal, has_halted=engine is not None and bool(engine.halted))

    # -- starting --------------------------------------------------------------------------------

    def _start_engine(self, journal: Journal, clock: LiveClock | VirtualClock) -> Engine:
        node = self._config.node
        if journal.repaired is not None:
            _log.warning("the journal's torn tail was cut off: %s", journal.repaired)
        recovered = recover(journal, lambda count: _log.info("read %d journal entries", count))
        state = recovered.state
        engine = make_engine(self._config, self._options, clock, journal, state, recovered.fills)
        engine.upkeep.after_recovery(recovered.entries_read)
        epoch = state.epoch + 1 if state.epoch else max(clock.now_ns() // 1_000_000_000 - EPOCH_ZERO_S, 1)
        engine.start_epoch(node.name, journal.cell, epoch, version("tandem"))
        if node.durability == "disk":
            loop = asyncio.get_running_loop()
            journal.on_durable(lambda _lsn: engine.release_durable(), call_soon=loop.call_soon_threadsafe)
        return engine

    async def _run_trading(
        self, trading: Trading, clock: LiveClock | VirtualClock, view: ViewMaker, store: StoreWriter | None
    ) -> RunReport:
        control = Control(self._config, self._options, self._subject(trading, store))
        try:
            # First of all: an address that is taken is no reason to have connected to a venue.
            await control.start()
            return await self._trade(trading, clock, view, control)
        finally:
            await control.close()

    def _subject(self, trading: Trading, store: StoreWriter | None) -> Subject:
        engine, reloading, assembly = trading.engine, trading.reloading, trading.assembly
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
        self, trading: Trading, clock: LiveClock | VirtualClock, view: ViewMaker, control: Control
    ) -> RunReport:
        options, engine, assembly = self._options, trading.engine, trading.assembly
        started_s, started_ns = time.monotonic(), clock.now_ns()
        await assembly.connect()
        await assembly.take_up()
        driver = self._make_driver(engine, clock)
        self._listen_for_signals()
        blocks = Blocks(self._config.watchdog, self._config.node.data_dir)
        blocks.look_at(engine)
        if not options.is_simulated:
            blocks.start()
            engine.upkeep.duties.append(lambda _now_ns: blocks.tell(engine.alert))
        with TerminalView() if options.ui else nullcontext() as screen:
            showing = asyncio.ensure_future(_show(screen, view)) if screen is not None else None
            try:
                waiting = Waiting(engine)
                await driver.run(lambda: waiting.is_over() or bool(self._why_stop(engine)))
                if not self._why_stop(engine):
                    try:
                        trading.start_instances(is_simulated=options.is_simulated)
                    except NodeNotStarted as error:
                        await self._stop(engine, driver, clock, str(error))
                        raise
                await control.running()
                # From here, not from the process's start: how long that takes is the machine's affair.
                until_ns = (
                    None if options.duration_s is None else clock.now_ns() + int(options.duration_s * 1e9)
                )
                why = await driver.run(lambda: bool(self._why_stop(engine)), until_ns)
                why = self._why_stop(engine) or why
                await control.stopping()
                if not engine.halted:
                    trading.reloading.stop(why)
                await self._stop(engine, driver, clock, why)
            finally:
                blocks.stop()
                if showing is not None:
                    showing.cancel()
        return make_report(
            engine,
            stopped=why,
            ran_s=(clock.now_ns() - started_ns) / 1e9,
            wall_s=time.monotonic() - started_s,
            skipped=assembly.skipped,
            reloads=trading.reloading.reloads,
        )

    def _make_driver(self, engine: Engine, clock: LiveClock | VirtualClock) -> LiveDriver | ReplayDriver:
        if isinstance(clock, VirtualClock):
            return ReplayDriver(engine, clock, engine.stepped, self._options.speed)
        return LiveDriver(engine, clock, engine.stepped)

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
        await stop_trading(engine, driver, clock.now_ns, self._config.node.stop_timeout_ms, why)


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
