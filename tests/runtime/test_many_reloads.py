"""A quoting strategy is reloaded again and again during a recorded market: nothing is lost, nothing stays.

`TANDEM_RELOADS=10000 pytest -s tests/runtime/test_many_reloads.py` is the long run, with its numbers.
"""

import asyncio
import gc
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from desk_tools import ACCOUNT, BTC, Quoter
from reload_tools import ReloadDesk, maker

from host.api import BookTop, MarketEvent
from host.core import entries as e
from host.core.entries import VersionState
from host.journal import Follower
from host.reloading import THREAD_SWITCH_S
from host.runtime.latency import Histogram
from host.runtime.reload import ProbationLimits, ReloadSettings
from venue.recording import Recording

RELOADS = int(os.environ.get("TANDEM_RELOADS", "200"))
EVENTS_BETWEEN = 10
MOST_GROWTH_MB = 12.0
"""What the history of events and the allocator take in; a version that stayed would be 0.1 MB each."""


def recorded_events() -> Iterator[MarketEvent]:
    folder = Path(os.environ.get("TANDEM_MARKETDATA", Path(__file__).parents[3] / "shared" / "marketdata"))
    recording = folder / "binance_spot_BTCUSDT_20240808-09"
    if not recording.is_dir():
        pytest.skip(f"no recording at {recording}")
    yield from Recording.open(recording, repeat=1_000).events()


def rss_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def others_had_ns() -> int:
    """Return how long this thread was ready to run while others had the processor; 0 where nobody counts."""
    counted = Path("/proc/thread-self/schedstat")
    return int(counted.read_text().split()[1]) if counted.exists() else 0


class Witness(Quoter):
    """Hears what the reloaded strategy hears, and wants nothing."""

    def on_book(self, book: BookTop) -> None:
        self.books += 1


class Market:
    """Feeds recorded events to a desk, in the host's time."""

    def __init__(self, rig: ReloadDesk) -> None:
        self.desk = rig.desk
        self._events = recorded_events()
        self._shift_ns = 0

    def feed(self) -> None:
        """Feed the next event, after whatever is due before it."""
        event = next(self._events)
        desk = self.desk
        self._shift_ns = self._shift_ns or desk.clock.now_ns() - event.ts_recv
        now_ns = event.ts_recv + self._shift_ns
        desk.clock.set(now_ns)
        if desk.engine.upkeep.next_time_ns() <= now_ns:
            desk.engine.upkeep.on_time(now_ns)
        desk.feed.market(msgspec.structs.replace(event, ts_recv=now_ns))
        desk.settle()
        if len(desk.venue.sent) > 1_000:  # the test's own memory is not to grow
            desk.venue.sent.clear()


def makers() -> set[type]:
    """Return the classes named Maker that are there, whichever version's."""
    return {cls for cls in gc.get_objects() if isinstance(cls, type) and cls.__name__ == "Maker"}


@pytest.mark.timeout(3_600)
def test_reloads_of_a_live_quoting_strategy_lose_and_leave_nothing(tmp_path: Path) -> None:
    limits = ProbationLimits(seconds=0.5, events=5, min_commands=10**9)
    of_other_tests = makers()
    rig = ReloadDesk(tmp_path, settings=ReloadSettings(limits=limits), snapshot_every=10_000)
    rig.write(maker(0.02))
    rig.load()
    instance = rig.run("mm")
    witness = Witness()
    rig.desk.run("witness", witness)
    # Read as it is written: the journal keeps no more than what came since its last snapshots.
    follower, stuck = Follower(rig.desk.journal, rig.desk.journal.flushed_lsn), list[str]()

    def read() -> None:
        entries = [record.entry for record in follower.poll(10_000)]
        stuck.extend(one.text for one in entries if isinstance(one, e.Alert) and one.kind == "plugin_stuck")

    market, held = Market(rig), Histogram()
    states: list[VersionState | None] = []
    swaps = Histogram()

    async def story() -> float:
        base_mb = 0.0
        for number in range(RELOADS):
            for _ in range(EVENTS_BETWEEN):
                market.feed()
            rig.write(maker(0.02 + number % 10 / 100, head=f"# edit {number}\n"))
            reloading = asyncio.ensure_future(rig.reload_async())
            while not reloading.done():
                others_ns, began_ns = others_had_ns(), time.perf_counter_ns()
                await asyncio.sleep(0)
                held_ns = time.perf_counter_ns() - began_ns
                held.add(max(held_ns - (others_had_ns() - others_ns), 0))
                market.feed()
            report = reloading.result()
            states.append(report.state)
            swaps.add(report.stages[-1].duration_us * 1000)
            read()
            rig.reports.clear()
            rig.kept.clear()
            if number == max(RELOADS // 10, 100):
                gc.collect()
                base_mb = rss_mb()
        for _ in range(50):
            market.feed()
        return base_mb

    gc.collect()
    gc.freeze()  # as a node does before it trades
    switch_s = sys.getswitchinterval()
    sys.setswitchinterval(THREAD_SWITCH_S)
    started_s = time.monotonic()
    base_mb = asyncio.run(story())
    took_s = time.monotonic() - started_s
    sys.setswitchinterval(switch_s)
    gc.unfreeze()
    rig.desk.advance(40.0)
    gc.collect()
    grown_mb = rss_mb() - base_mb

    assert states == [VersionState.ACTIVE] * RELOADS
    assert instance.strategy.state.books == witness.books
    channel = instance.channels[BTC]
    quoted = {slot.order.client_id for slot in channel.quoting.slots() if slot.order is not None}
    assert {order.client_id for order in rig.desk.venue.open()} == quoted
    assert rig.desk.engine.state.orders.keys() == quoted
    read()
    follower.close()
    assert stuck == []
    assert rig.desk.engine.state.anomalies == {}
    assert len(rig.loaded()) == 2
    assert [type(i.strategy).__name__ for i in rig.desk.engine.roster.instances.values()] == [
        "Maker",
        "Witness",
    ]
    assert len(makers() - of_other_tests) == 1
    assert grown_mb < MOST_GROWTH_MB
    assert rig.desk.engine.top(ACCOUNT, BTC) is not None
    print(
        f"\n{RELOADS} reloads, {rig.desk.engine.events} events in {took_s:.0f} s; "
        f"{1e3 * took_s / RELOADS:.1f} ms each; memory {base_mb:.0f} MB, {grown_mb:+.1f} MB since; "
        f"swap µs p50 {swaps.quantile_us(0.5):.0f} p99 {swaps.quantile_us(0.99):.0f}; "
        f"loop held µs p50 {held.quantile_us(0.5):.0f} p99 {held.quantile_us(0.99):.0f} "
        f"max {held.quantile_us(1.0):.0f}"
    )
    rig.close()
