"""What makes time pass: turns for due work, and for adapters that live in this process.

Live, the loop sleeps until the next due time. A replay at full speed never sleeps: it puts the
clock to the next due time and goes on, so the order of events is the same at any speed.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from host.api import SteppedAdapter
from host.runtime.clock import LiveClock, VirtualClock
from host.runtime.engine import Engine

__all__ = ["LiveDriver", "ReplayDriver"]

YIELD_EVERY_TURNS = 256
"""How often a replay at full speed lets other tasks of the loop run."""
MAX_SLEEP_S = 0.05


class ReplayDriver:
    """Drives stepped adapters through virtual time, `speed` times as fast as real time, or at once.

    `adapters` is looked at anew before each turn: a reload puts versions in and takes others out.
    """

    def __init__(
        self,
        engine: Engine,
        clock: VirtualClock,
        adapters: list[SteppedAdapter[Any]],
        speed: float | None,
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._adapters = adapters
        self._speed = speed

    async def run(self, is_over: Callable[[], bool], until_ns: int | None = None) -> str:
        """Run until `is_over()`, until `until_ns`, or to the end of the market; return which it was."""
        engine, clock, adapters = self._engine, self._clock, self._adapters
        pace = _Pace(clock.now_ns(), self._speed) if self._speed is not None else None
        turns = 0
        while not is_over():
            due_ns: int | None = None
            next_adapter: SteppedAdapter[Any] | None = None
            for adapter in adapters:
                time_ns = adapter.next_time_ns()
                if time_ns is not None and (due_ns is None or time_ns < due_ns):
                    due_ns, next_adapter = time_ns, adapter
            if due_ns is None or next_adapter is None:
                return "the recording ended"
            timer_ns = engine.upkeep.next_time_ns()
            if timer_ns <= due_ns:
                due_ns, next_adapter = max(timer_ns, clock.now_ns()), None
            if until_ns is not None and due_ns > until_ns:
                clock.set(until_ns)
                return "the time was up"
            if pace is not None:
                await pace.wait_for(due_ns)
            clock.set(due_ns)
            if next_adapter is None:
                engine.upkeep.on_time(due_ns)
            else:
                _step(engine, self._adapters, next_adapter, due_ns)
            turns += 1
            if turns % YIELD_EVERY_TURNS == 0:
                await asyncio.sleep(0)
        return "stopped"


def _step(
    engine: Engine, adapters: list[SteppedAdapter[Any]], adapter: SteppedAdapter[Any], now_ns: int
) -> None:
    """Give an adapter its turn; one that raises gets no other."""
    try:
        adapter.step(now_ns)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - plugin boundary: the account is given up
        adapters.remove(adapter)
        engine.feeds[adapter.ctx.account].step_failed(adapter, error)


class _Pace:
    """Keeps virtual time at a multiple of real time."""

    def __init__(self, start_ns: int, speed: float) -> None:
        self._start_ns = start_ns
        self._speed = speed
        self._loop = asyncio.get_running_loop()
        self._started_s = self._loop.time()

    async def wait_for(self, due_ns: int) -> None:
        delay = (due_ns - self._start_ns) / 1e9 / self._speed - (self._loop.time() - self._started_s)
        if delay > 0:
            await asyncio.sleep(delay)


class LiveDriver:
    """Gives the engine and in-process adapters their turns in real time; `adapters` as in a replay."""

    def __init__(self, engine: Engine, clock: LiveClock, adapters: list[SteppedAdapter[Any]]) -> None:
        self._engine = engine
        self._clock = clock
        self._adapters = adapters

    async def run(
        self, is_over: Callable[[], bool], until_ns: int | None = None, *, most_s: float = MAX_SLEEP_S
    ) -> str:
        """Run until `is_over()`, asked every `most_s` at least, or `until_ns`; return which it was."""
        engine, clock = self._engine, self._clock
        while not is_over():
            now_ns = clock.now_ns()
            if until_ns is not None and now_ns >= until_ns:
                return "the time was up"
            due_ns = engine.upkeep.next_time_ns()
            if due_ns <= now_ns:
                engine.upkeep.on_time(now_ns)
            for adapter in tuple(self._adapters):
                time_ns = adapter.next_time_ns()
                # Read the clock anew: "due at once" is told as the adapter's own, later, reading of it.
                if time_ns is not None and time_ns <= (now_ns := clock.now_ns()):
                    _step(engine, self._adapters, adapter, now_ns)
                    time_ns = adapter.next_time_ns()
                if time_ns is not None:
                    due_ns = min(due_ns, time_ns)
            # At least one pass of the loop, for sockets and signals.
            await asyncio.sleep(min(max((due_ns - clock.now_ns()) / 1e9, 0.0), most_s))
        return "stopped"
