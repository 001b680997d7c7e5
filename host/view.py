"""Fills the terminal view from a running engine."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

from host.api import OrderFilled, Side
from host.core import entries as e
from host.core.accounting import total, unrealised
from host.core.entries import InstanceState, VersionState
from host.core.hand import is_hand
from host.core.state import InstanceRecord
from host.journal import Follower
from host.reload_lines import ReloadLines
from host.runtime.engine import Engine
from host.runtime.instance import Instance
from host.runtime.remote import RemoteStrategy
from host.store import StoreWriter
from host.terminal import EventLine, InstanceRow, MarketRow, NodeView

__all__ = ["ViewMaker"]

LOG_LINES: Final = 50
ENTRIES_PER_LOOK: Final = 500
"""Journal entries read each time; a view that falls far behind goes on at the journal's end."""
FAR_BEHIND: Final = 5_000
LAG_SHOWN_NS: Final = 50_000_000
"""From when on a worker that is behind is shown to be."""
_RECEIVING: Final = (InstanceState.RUNNING, InstanceState.PAUSED)
_ERRORS: Final = ("quarantined", "halted", "kill_switch", "account_drift", "rolled_back")


class ViewMaker:
    """Makes a `NodeView` of an engine whenever asked, and keeps the latest alerts for it.

    `state()` is the node's, in words; `node` its name, where that is not the one in the engine's state: a
    standby's state is its primary's.
    """

    def __init__(
        self,
        engine: Engine,
        mode: str,
        store: StoreWriter | None,
        *,
        node: str = "",
        state: Callable[[], str] = lambda: "running",
    ) -> None:
        self._engine = engine
        self._node = node
        self._state = state
        self._mode = mode
        self.store = store
        self._log: deque[EventLine] = deque(maxlen=LOG_LINES)
        self._reloads = ReloadLines()
        self._follower = Follower(engine.journal, max(engine.journal.flushed_lsn, 1))
        self._started_s = self._last_s = time.monotonic()
        self._last_events = 0
        self._rate = 0.0

    def note_alert(self, alert: e.Alert) -> None:
        """Show an alert that the journal may not have room for."""
        self._add(self._engine.clock.now_ns(), _level(alert), f"{alert.kind}: {alert.text}")

    def _add(self, ts_ns: int, level: str, text: str) -> None:
        self._log.append(EventLine(ts_ns, level, text))

    def _read_journal(self) -> None:
        """Take what people want to see from the journal, like any other of its readers."""
        journal = self._engine.journal
        if journal.flushed_lsn - self._follower.next_lsn > FAR_BEHIND:
            self._follower.close()
            self._follower = Follower(journal, journal.flushed_lsn)
        for record in self._follower.poll(ENTRIES_PER_LOOK):
            self._reloads.take(record)
            line = _line(record.entry)
            if line is not None:
                self._add(record.ts_ns, *line)

    def make(self) -> NodeView:
        """Return the state of the node now."""
        engine = self._engine
        self._read_journal()
        now_s = time.monotonic()
        if now_s - self._last_s >= 0.5:
            self._rate = (engine.events - self._last_events) / (now_s - self._last_s)
            self._last_s, self._last_events = now_s, engine.events
        latency = engine.tick_to_order
        measured = latency.count > 0
        now_ns = engine.clock.now_ns()
        return NodeView(
            node=self._node or engine.state.node,
            state="halted" if engine.halted else self._state(),
            stopped=tuple(f"{scope}: {why}" for scope, why in engine.state.kill_switches.items()),
            epoch=engine.state.epoch,
            mode=self._mode,
            now_ns=now_ns,
            uptime_s=now_s - self._started_s,
            events=engine.events,
            events_per_s=self._rate,
            tick_to_order_p50_us=latency.quantile_us(0.5) if measured else None,
            tick_to_order_p99_us=latency.quantile_us(0.99) if measured else None,
            open_orders=len(engine.state.orders),
            journal_lsn=engine.journal.last_lsn,
            store_lag=None if self.store is None else self.store.lag(engine.journal.last_lsn),
            instances=tuple(self._instance_rows()),
            markets=self._market_rows(now_ns),
            reloads=self._reloads.lines(now_ns),
            log=tuple(self._log),
        )

    def _instance_rows(self) -> Iterator[InstanceRow]:
        engine = self._engine
        if engine.is_following:
            for record in engine.state.instances.values():
                listed = engine.state.instruments.get(record.account, {})
                for symbol in record.symbols:
                    if symbol in listed and not is_hand(record.instance):
                        yield self._followed_row(record, symbol)
            return
        for instance in engine.roster.instances.values():
            for symbol in instance.symbols:
                yield self._instance_row(instance, symbol)

    def _followed_row(self, record: InstanceRecord, symbol: str) -> InstanceRow:
        """Return the row of an instance that runs on the primary, from what it journaled."""
        engine = self._engine
        instrument = engine.state.instruments[record.account][symbol]
        holding = engine.state.holding(record.instance, symbol)
        mark = engine.upkeep.mark(record.account, symbol)
        if mark is None:
            mark = engine.state.position(record.instance, symbol).average_price
        best = {
            order.side: order.price
            for order in engine.state.orders.values()
            if order.instance == record.instance and order.symbol == symbol and order.slot == 0
        }
        return InstanceRow(
            name=record.instance,
            plugin=record.plugin,
            digest=record.digest,
            state=record.state,
            symbol=symbol,
            bid=best.get(Side.BUY),
            ask=best.get(Side.SELL),
            position=holding.qty,
            inventory_ratio=0.0,
            realised=holding.realised,
            unrealised=unrealised(holding, instrument, mark) if holding.qty else holding.qty,
            pnl=total(holding, instrument, mark) if holding.fills else holding.qty,
            currency=instrument.settle,
            fills=holding.fills,
        )

    def _instance_row(self, instance: Instance, symbol: str) -> InstanceRow:
        engine = self._engine
        channel = instance.channels[symbol]
        record = engine.state.instances[instance.instance]
        holding = engine.state.holding(instance.instance, symbol)
        instrument = channel.instrument
        mark = engine.upkeep.mark(instance.account, symbol)
        if mark is None:
            mark = engine.state.position(instance.instance, symbol).average_price
        lane = channel.quoting
        bid, ask = lane.bids[0].order, lane.asks[0].order
        return InstanceRow(
            name=instance.instance,
            plugin=record.plugin,
            digest=record.digest,
            state=_state_of(instance),
            symbol=symbol,
            bid=None if bid is None else bid.price,
            ask=None if ask is None else ask.price,
            position=holding.qty,
            inventory_ratio=channel.risk.inventory_ratio,
            realised=holding.realised,
            unrealised=unrealised(holding, instrument, mark) if holding.qty else holding.qty,
            pnl=total(holding, instrument, mark) if holding.fills else holding.qty,
            currency=instrument.settle,
            fills=holding.fills,
        )

    def _market_rows(self, now_ns: int) -> tuple[MarketRow, ...]:
        rows = []
        for feed in self._engine.feeds.values():
            for symbol, symbol_feed in feed.symbols.items():
                top = symbol_feed.book.top
                if top is not None and symbol in feed.listed:
                    tick = feed.listed[symbol].tick_size
                    digits = max(0, -int(tick.normalize().as_tuple().exponent))
                    rows.append(
                        MarketRow(
                            symbol=symbol,
                            bid=top.bid,
                            ask=top.ask,
                            age_ms=(now_ns - top.ts_recv) / 1e6,
                            digits=digits,
                        )
                    )
        return tuple(rows)


def _state_of(instance: Instance) -> str:
    """Return an instance's state and, where its worker is not at work or lags, that."""
    if not isinstance(instance.strategy, RemoteStrategy) or instance.state not in _RECEIVING:
        return instance.state
    now = instance.strategy.status()
    if now.state != "running":
        return f"{instance.state}, {now.state}"
    if now.lag_ns > LAG_SHOWN_NS:
        return f"{instance.state}, {now.behind} behind"
    return instance.state


def _level(alert: e.Alert) -> str:
    return "error" if alert.kind in _ERRORS else "warning"


def _line(entry: e.Entry) -> tuple[str, str] | None:
    """Return (level, text) for an entry that people want to see, else None."""
    match entry:
        case e.Alert():
            return _level(entry), f"{entry.kind}: {entry.text}"
        case e.NodeStarted():
            return "info", f"node {entry.node} started, epoch {entry.epoch}"
        case e.InstanceChanged():
            reason = f": {entry.reason}" if entry.reason else ""
            return "info", f"instance {entry.instance} is {entry.state}{reason}"
        case e.ParamsChanged():
            return "info", f"instance {entry.instance} has new parameters from {entry.who}"
        case e.ConfigApplied():
            return "info", f"configuration changed: {'; '.join(entry.changes)}"
        case e.StageReported():
            level = "info" if entry.outcome == "passed" else "warning"
            took = f"{entry.duration_us / 1e3:.1f} ms"
            return level, f"plugin {entry.plugin} {entry.digest[:6]}: {entry.stage} {entry.outcome}, {took}"
        case e.VersionMoved(state=VersionState.REFUSED | VersionState.ROLLED_BACK):
            return None  # an alert says it, in full
        case e.VersionMoved():
            return "info", f"plugin {entry.plugin} {entry.digest[:6]} is {entry.state}: {entry.reason}"
        case e.Reported(report=OrderFilled() as fill):
            return "info", f"{fill.symbol}: {fill.side} {fill.qty} at {fill.price}, {fill.liquidity}"
        case _:
            return None
