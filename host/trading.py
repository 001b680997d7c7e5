"""An engine with all that is put into it: the catalog of plugins, accounts, instances, and their reloads.

The only place that knows how these are put together; `host/node.py` runs one for as long as it lives,
`host/member.py` one for each role that a node of a cell has.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final

from host.assembly import Assembly
from host.config import NodeConfig, RunOptions
from host.core.state import TradingState
from host.journal import Journal, JournalError
from host.loader import Catalog
from host.reloading import Reloading
from host.runtime.clock import LiveClock, VirtualClock
from host.runtime.driver import LiveDriver, ReplayDriver
from host.runtime.engine import Engine, EngineSettings
from host.runtime.fill_history import FillHistory
from host.runtime.instance_control import with_api_instances
from host.store import StoreWriter

__all__ = ["Trading", "Waiting", "make_engine", "start_store", "stop_store", "stop_trading"]

_log = logging.getLogger("tandem.node")
SAY_WAITING_EVERY_S: Final = 5.0


def make_engine(
    config: NodeConfig,
    options: RunOptions,
    clock: LiveClock | VirtualClock,
    journal: Journal,
    state: TradingState,
    fills: FillHistory | None = None,
    *,
    is_following: bool = False,
) -> Engine:
    """Return an engine as configured, on a journal and the state that was read from it."""
    node = config.node
    settings = EngineSettings(
        order_window_ns=node.order_window_ms * 1_000_000,
        state_save_ns=node.state_save_ms * 1_000_000,
        equity_every_ns=node.equity_every_ms * 1_000_000,
        snapshot_every=node.snapshot_every_entries,
        digest_every=node.digest_every_entries,
        snapshot_in_thread=not options.is_simulated,
    )
    return Engine(
        clock=clock,
        journal=journal,
        state=state,
        risk_config=config.risk.limits,
        settings=settings,
        fills=fills,
        is_following=is_following,
    )


class Trading:
    """What an engine runs, from the plugins that `reloading` has loaded."""

    def __init__(self, config: NodeConfig, options: RunOptions, engine: Engine, reloading: Reloading) -> None:
        self.engine: Final = engine
        _tell_problems(reloading.catalog, engine)
        self.reloading: Final = reloading
        self.assembly: Final = Assembly(
            with_api_instances(config, engine), options, engine, lambda: self.reloading.catalog
        )

    def start_instances(self, *, takes_over: bool = False, is_simulated: bool = False) -> None:
        """Start what is configured, and follow the files from here on. Raises `NodeNotStarted`."""
        try:
            self.assembly.start_instances(takes_over=takes_over)
        except JournalError as error:
            self.engine.abort_turn(error)
        self.reloading.bind(self.assembly)
        if not is_simulated:
            self.reloading.start(self.assembly, takes_over=takes_over)

    async def close(self) -> None:
        """End reloads and shadows and close every account's connections."""
        if self.assembly.shadows is not None:
            self.assembly.shadows.end()
        await self.reloading.close()
        self.assembly.workers.close()
        engine = self.engine
        for account, feed in list(engine.feeds.items()):
            await feed.close()
            if engine.is_following:  # it may be built again on the same engine
                engine.remove_account(account)


class Waiting:
    """Whether every account agrees with its venue; says now and then what is waited for."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._said_s = 0.0

    def is_over(self) -> bool:
        """Return whether nothing is waited for any more."""
        engine = self._engine
        waiting = {
            a: engine.reconciler.waiting_for(a) for a in engine.feeds if not engine.reconciler.is_ready(a)
        }
        if waiting and time.monotonic() - self._said_s > SAY_WAITING_EVERY_S:
            if self._said_s:
                for account, what in waiting.items():
                    _log.warning("account %s: still waiting for %s", account, what)
            self._said_s = time.monotonic()
        return not waiting


async def stop_trading(
    engine: Engine,
    driver: LiveDriver | ReplayDriver,
    now_ns: Callable[[], int],
    timeout_ms: int,
    why: str,
) -> None:
    """Pull everything and wait until the venue has confirmed it."""
    until_ns = now_ns() + timeout_ms * 1_000_000
    try:
        if not engine.halted:
            engine.stop_trading(why)
            await driver.run(lambda: _is_at_rest(engine) or bool(engine.halted), until_ns)
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


def _is_at_rest(engine: Engine) -> bool:
    return not engine.state.orders and not engine.is_winding_down()


def start_store(config: NodeConfig) -> StoreWriter | None:
    """Start the SQL projection of the journal, where one is configured."""
    if not config.store_url:
        return None
    cell = "" if config.failover is None else config.failover.cell
    store = StoreWriter(config.journal_dir, config.store_url, cell)
    store.start()
    return store


async def stop_store(store: StoreWriter | None, journal: Journal, timeout_ms: int) -> None:
    """Let the projection catch up for so long; say so where it is behind."""
    if store is not None and not await asyncio.to_thread(store.stop, timeout_ms / 1e3):
        behind = store.lag(journal.last_lsn)
        why = store.error or "it did not finish in time"
        _log.warning("the store is %d entries behind, it goes on at the next start: %s", behind, why)


def _tell_problems(catalog: Catalog, engine: Engine) -> None:
    for problem in catalog.problems:
        engine.alert("plugin_refused", str(problem))
    for note in catalog.notes:
        engine.alert("plugin_shadowed", note)
