"""What no event triggers: timers, candles, questions to the venue, saves, marks, snapshots."""

import asyncio
from collections.abc import Callable
from decimal import Decimal
from time import perf_counter_ns
from typing import TYPE_CHECKING, Final

from host.core import entries as e
from host.core.accounting import fees_in_settle, total, unrealised
from host.core.entries import InstanceState
from host.journal import JournalError

if TYPE_CHECKING:
    from host.runtime.engine import Engine

__all__ = ["Upkeep"]

HOUSEKEEPING_NS: Final = 500_000_000
"""How often due work that no event triggers is looked at."""
ASKING_NS: Final = 20_000_000
"""How often it is looked at while the venue owes us an answer about an order or account in doubt."""
ERRANDS_NS: Final = 10_000_000
"""How often errands are run while there are any."""
CHECKPOINT_NS: Final = 5_000_000_000
"""How often strategies' states are remembered for warm-ups, which so replay the last 5 to 10 s."""


class Upkeep:
    """Does, in turns of its own, whatever is due."""

    def __init__(self, engine: "Engine") -> None:
        settings = engine.settings
        self._engine = engine
        self.duties: list[Callable[[int], None]] = []
        """What others want done with each housekeeping."""
        self.errands: list[Callable[[int], None]] = []
        """Small pieces of others' work that must not wait for the housekeeping; each takes a fraction of a ms."""
        self._next_housekeeping_ns = self._last_housekeeping_ns = self._next_errands_ns = 0
        self._next_state_save_ns = self._next_checkpoint_ns = 0
        self._next_equity_ns = 0
        self._next_snapshot_lsn = engine.journal.last_lsn + settings.snapshot_every
        self._next_digest_lsn = engine.journal.last_lsn + settings.digest_every
        self.digest_lsn = 0
        """The latest digest of the state that this engine journaled; 0 while one is due that somebody waits for."""
        self._snapshot_task: asyncio.Future[None] | None = None
        self.oldest_needed_lsn: Callable[[], int | None] = lambda: None
        """Returns the first entry that somebody else still reads, and pruning leaves; None: there is none."""
        self._last_equity: dict[tuple[str, str], tuple[Decimal, Decimal]] = {}

    def begin(self, last_lsn: int) -> None:
        """Count towards the next snapshot and digest from here on: until now another node wrote the journal."""
        self._next_snapshot_lsn = last_lsn + self._engine.settings.snapshot_every
        self._next_digest_lsn = last_lsn + self._engine.settings.digest_every

    def digest_soon(self) -> None:
        """Have the state's digest journaled with the next housekeeping, for somebody to compare theirs with."""
        self._next_digest_lsn = self.digest_lsn = 0

    def after_recovery(self, entries_read: int) -> None:
        """Have the next snapshot so early that a start never reads more than is configured.

        Without this a node that keeps dying young would read a longer journal each time.
        """
        self._next_snapshot_lsn -= entries_read

    def next_time_ns(self) -> int:
        """Return when `on_time` wants to be called next."""
        due = min(self._next_housekeeping_ns, self._engine.scheduler.due_ns)
        if self._engine.reconciler.is_asking:
            due = min(
                due, max(self._engine.reconciler.next_time_ns(), self._last_housekeeping_ns + ASKING_NS)
            )
        if self.errands:
            due = min(due, self._next_errands_ns)
        for instance in self._engine.roster.instances.values():
            timer_ns = instance.next_timer_ns()
            if timer_ns is not None and timer_ns < due:
                due = timer_ns
        return due

    def on_time(self, now_ns: int) -> None:
        """Do what is due: timers, candles, questions to the venue, saves, marks, snapshots."""
        started_ns = perf_counter_ns()
        engine = self._engine
        if engine.halted:
            self._last_housekeeping_ns = now_ns
            self._next_housekeeping_ns = now_ns + HOUSEKEEPING_NS
            return
        engine.begin_turn(now_ns)
        try:
            engine.scheduler.on_time(now_ns)
            for instance in engine.roster.in_order():
                if instance.timers and instance.state in (InstanceState.RUNNING, InstanceState.PAUSED):
                    engine.roster.call(instance, instance.run_timers, now_ns, "on_timer")
            if self.errands and now_ns >= self._next_errands_ns:
                self._next_errands_ns = now_ns + ERRANDS_NS
                for errand in list(self.errands):
                    errand(now_ns)
            if now_ns >= self._next_housekeeping_ns or engine.reconciler.is_asking:
                self._last_housekeeping_ns = now_ns
                self._next_housekeeping_ns = now_ns + HOUSEKEEPING_NS
                self._housekeeping(now_ns)
        except JournalError as error:
            engine.abort_turn(error)
        else:
            engine.end_turn(now_ns, started_ns)

    def _housekeeping(self, now_ns: int) -> None:
        for feed in self._engine.feeds.values():
            for symbol in feed.symbols.values():
                for maker in symbol.candle_makers:
                    maker.on_time(now_ns)
        self._engine.reconciler.on_timer(now_ns)
        for feed in self._engine.feeds.values():
            if not feed.is_settled:
                feed.settle()
        for refusal in self._engine.risk.monitor(now_ns, self._engine.top, self._engine.venue_position):
            self._engine.safety.breach(refusal, refusal.instance)
        self._engine.safety.flattening.go_on(now_ns)
        if now_ns >= self._next_state_save_ns:
            self._next_state_save_ns = now_ns + self._engine.settings.state_save_ns
            for instance in self._engine.roster.instances.values():
                self._engine.roster.states.save(instance, now_ns)
        if now_ns >= self._next_checkpoint_ns:
            self._next_checkpoint_ns = now_ns + CHECKPOINT_NS
            self._engine.roster.states.take_checkpoints()
        for duty in self.duties:
            duty(now_ns)
        if now_ns >= self._next_equity_ns:
            self._next_equity_ns = now_ns + self._engine.settings.equity_every_ns
            self.mark_equity(now_ns)
        lsn = self._engine.journal.last_lsn
        if lsn >= self._next_digest_lsn:
            self._next_digest_lsn = lsn + self._engine.settings.digest_every
            self._engine.record(e.StateDigest(self._engine.state.digest()), now_ns)
            self.digest_lsn = self._engine.journal.last_lsn
        if lsn >= self._next_snapshot_lsn and self._snapshot_task is None:
            self._next_snapshot_lsn = lsn + self._engine.settings.snapshot_every
            self.snapshot(now_ns)

    def snapshot(self, now_ns: int) -> None:
        """Write the state down, so that a restart reads only what came after, and prune the journal."""
        # This flush is in the middle of a turn, whose reports must not be there without what heard them.
        self._engine.roster.states.save_touched(now_ns)
        self._engine.journal.flush()
        self.snapshot_of(self._engine.state.lsn, self._engine.state.encode())

    def snapshot_of(self, lsn: int, data: bytes) -> None:
        """Write `data` down as the state of entry `lsn`, and prune the journal before it."""
        if self._snapshot_task is not None:
            return
        if not self._engine.settings.snapshot_in_thread:
            self._write_snapshot(lsn, data)
            self._engine.journal.prune(lsn)
            return
        loop = asyncio.get_running_loop()
        self._snapshot_task = loop.run_in_executor(None, self._write_snapshot, lsn, data)
        self._snapshot_task.add_done_callback(lambda done: self._snapshot_done(done, lsn))

    async def snapshot_written(self) -> None:
        """Wait for a snapshot that is being written; how it went is alerted."""
        if self._snapshot_task is not None:
            await asyncio.wait([self._snapshot_task])

    def _write_snapshot(self, lsn: int, data: bytes) -> None:
        self._engine.journal.write_snapshot(lsn, data)

    def _snapshot_done(self, done: "asyncio.Future[None]", lsn: int) -> None:
        self._snapshot_task = None
        if done.cancelled():
            return
        error = done.exception()  # looked at in any case
        if self._engine.halted or self._engine.journal.is_closed:
            return  # whatever is in that folder by now is another engine's
        try:
            if error is not None:
                raise error
            needed = self.oldest_needed_lsn()
            self._engine.journal.prune(lsn if needed is None else min(lsn, needed))
        except (JournalError, OSError) as error:
            # The journal that was to be pruned is still whole: nothing is lost but room.
            self._engine.alert("snapshot_failed", str(error))

    def mark(self, account: str, symbol: str) -> Decimal | None:
        """Return the mid at which holdings are valued, exactly between two ticks; None without one."""
        top = self._engine.top(account, symbol)
        if top is None:
            return None
        instrument = self._engine.state.instruments[account][symbol]
        return (instrument.price_floor(top.bid) + instrument.price_ceil(top.ask)) / 2

    def mark_equity(self, now_ns: int) -> None:
        """Journal profit and loss of every holding that changed, at the current mid."""
        for name, by_symbol in self._engine.state.holdings.items():
            record = self._engine.state.instances.get(name)
            if record is None:
                continue
            for symbol, holding in by_symbol.items():
                mark = self.mark(record.account, symbol)
                if mark is None or self._last_equity.get((name, symbol)) == (mark, holding.volume):
                    continue
                self._last_equity[name, symbol] = (mark, holding.volume)
                instrument = self._engine.state.instruments[record.account][symbol]
                self._engine.record(
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
