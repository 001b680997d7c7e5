"""Time passes: in real time, in a multiple of it, and as fast as it can."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
from desk_tools import BTC, SECOND, START_NS, Desk, Quoter, spot

from host.api import BookTop, Command, Instrument, NoParams, SteppedAdapter, Strategy
from host.runtime.clock import LiveClock, VirtualClock
from host.runtime.driver import LiveDriver, ReplayDriver


class Ticker(SteppedAdapter[NoParams]):
    """A market with one quote each `every_ns`; raises at `fails_at`."""

    def __init__(self, desk: Desk, start_ns: int, every_ns: int = SECOND, count: int = 10) -> None:
        super().__init__(NoParams())
        self.ctx = desk.feed
        self.times = [start_ns + every_ns * i for i in range(1, count + 1)]
        self.steps: list[int] = []
        self.fails_at = -1

    async def connect(self) -> Sequence[Instrument]:
        return [spot(BTC)]

    def send(self, command: Command, deadline_ns: int) -> None:
        raise AssertionError("nobody trades here")

    def next_time_ns(self) -> int | None:
        return self.times[0] if self.times else None

    def step(self, now_ns: int) -> None:
        due_ns = self.times.pop(0)
        self.steps.append(now_ns)
        if len(self.steps) == self.fails_at:
            raise RuntimeError("on purpose")
        self.ctx.market(BookTop(BTC, 100.0, 1.0, 101.0, 1.0, due_ns, now_ns, len(self.steps)))


class Clockwork(Strategy[NoParams]):
    """Writes down what it hears, and when."""

    def __init__(self) -> None:
        super().__init__(NoParams())
        self.heard: list[tuple[str, int]] = []

    def on_start(self) -> None:
        self.ctx.set_timer("tick", 0.75)

    def on_timer(self, name: str) -> None:
        self.heard.append((name, self.ctx.now_ns() - START_NS))

    def on_book(self, book: BookTop) -> None:
        self.heard.append(("book", self.ctx.now_ns() - START_NS))


def never() -> bool:
    return False


def replay(desk: Desk, adapter: Ticker, speed: float | None = None) -> ReplayDriver:
    return ReplayDriver(desk.engine, desk.clock, [adapter], speed)


@pytest.mark.parametrize("speed", [None, 50.0])
def test_replay_hands_out_everything_in_the_order_of_time_at_any_speed(
    tmp_path: Path, speed: float | None
) -> None:
    desk = Desk(tmp_path / "journal")
    strategy = Clockwork()
    desk.run("clock", strategy)
    why = asyncio.run(replay(desk, Ticker(desk, START_NS, count=3), speed).run(never))

    assert why == "the recording ended"
    tenths = [(name, at_ns * 100 // SECOND) for name, at_ns in strategy.heard]
    assert tenths == [
        ("tick", 75), ("book", 100), ("tick", 150), ("book", 200), ("tick", 225), ("tick", 300), ("book", 300)
    ]  # fmt: skip
    desk.journal.close()


def test_replay_stops_at_its_time_and_goes_on_from_there(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "journal")
    adapter = Ticker(desk, START_NS)
    driver = replay(desk, adapter)

    assert asyncio.run(driver.run(never, START_NS + 5 * SECOND // 2)) == "the time was up"
    assert desk.clock.now_ns() == START_NS + 5 * SECOND // 2
    assert asyncio.run(driver.run(lambda: len(adapter.steps) >= 4)) == "stopped"
    assert len(adapter.steps) == 4
    desk.journal.close()


def test_replay_lets_other_tasks_run(tmp_path: Path) -> None:
    async def story() -> bool:
        ran = asyncio.Event()
        asyncio.get_running_loop().call_soon(ran.set)
        await replay(desk, Ticker(desk, START_NS, count=2_000)).run(ran.is_set)
        return ran.is_set()

    desk = Desk(tmp_path / "journal")
    assert asyncio.run(story())
    desk.journal.close()


@pytest.mark.parametrize("kind", ["live", "replay"])
def test_adapter_that_raises_gets_no_other_turn(tmp_path: Path, kind: str) -> None:
    clock = LiveClock() if kind == "live" else VirtualClock(START_NS)
    desk = Desk(tmp_path / "journal", now_ns=clock.now_ns())
    desk.run("mm", Quoter())
    adapter = Ticker(desk, clock.now_ns(), every_ns=1_000_000)
    adapter.fails_at = 3
    driver = (
        LiveDriver(desk.engine, clock, [adapter])
        if isinstance(clock, LiveClock)
        else ReplayDriver(desk.engine, clock, [adapter], None)
    )
    asyncio.run(driver.run(lambda: bool(desk.engine.must_stop)))

    assert len(adapter.steps) == 3
    assert "account acc: its adapter raised RuntimeError: on purpose" in desk.engine.must_stop
    desk.journal.close()


def test_live_events_come_at_their_time_and_not_before(tmp_path: Path) -> None:
    clock = LiveClock()
    desk = Desk(tmp_path / "journal", now_ns=clock.now_ns())
    start_ns = clock.now_ns()
    adapter = Ticker(desk, start_ns, every_ns=5_000_000, count=4)
    due = list(adapter.times)
    asyncio.run(LiveDriver(desk.engine, clock, [adapter]).run(lambda: not adapter.times))

    assert all(at >= when for at, when in zip(adapter.steps, due, strict=True))
    desk.journal.close()


def test_live_run_ends_at_its_time(tmp_path: Path) -> None:
    clock = LiveClock()
    desk = Desk(tmp_path / "journal", now_ns=clock.now_ns())
    until_ns = clock.now_ns() + 20_000_000
    why = asyncio.run(LiveDriver(desk.engine, clock, []).run(never, until_ns))

    assert why == "the time was up"
    assert clock.now_ns() >= until_ns
    desk.journal.close()
