"""A pair keeps to schedules: what one node's clock began, the other one's ends, and no trigger is lost or doubled."""

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from failover.guardian import release
from failover.lease import open_store
from host.client import Control
from host.core import entries as e
from host.core.entries import InstanceState
from host.journal import read
from host.runtime.clock import LiveClock
from host.runtime.shadowing import Shadowing
from tandem.v1 import plugin_pb2 as pb
from tests.cell.cell_tools import CELL, Cell

RUNNING, PAUSED = InstanceState.RUNNING, InstanceState.PAUSED
SECOND = 1_000_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
MAKER = """
from decimal import Decimal
from host.api import BookTop, Params, Quote, State, Strategy

class TimedState(State):
    calls: dict[str, int] = {}

class Timed(Strategy[Params]):
    state: TimedState

    def on_timer(self, name: str) -> None:
        self.state.calls = {**self.state.calls, name: self.state.calls.get(name, 0) + 1}

    def on_book(self, book: BookTop) -> None:
        self.quote(book.symbol, Quote(book.bid * 0.99, Decimal("0.01"), book.ask * 1.01, Decimal("0.01")))
"""
INSTANCE = """
[[instance]]
name = "{name}"
plugin = "timed"
account = "acc"
symbols = ["BTC-USDT"]
[instance.schedule]
windows = ["{window}"]
triggers = {{ flat = "{flat}", each = "* * * * * *", look = "every 200ms" }}
catch_up_s = 600
"""


class Winding:
    """Puts the clocks of all nodes ahead of the real one, by as much as a test says, and never back."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._real = LiveClock()
        self._ahead_ns = 0
        read_clock = LiveClock.now_ns
        self._read = read_clock
        monkeypatch.setattr(LiveClock, "now_ns", lambda clock: read_clock(clock) + self._ahead_ns)

    def now_ns(self) -> int:
        return self._real.now_ns()

    def to(self, time_ns: int) -> None:
        """Have it be that time, or leave the clocks where they are if it is later by now."""
        self._ahead_ns = max(self._ahead_ns, time_ns - self._read(self._real))


def clock(time_ns: int, form: str) -> str:
    return f"{datetime.fromtimestamp(time_ns // SECOND, UTC):{form}}"


@pytest.fixture
def sockets() -> Iterator[Path]:
    """A folder whose path is short enough for a socket's."""
    folder = Path(tempfile.mkdtemp(prefix="tandem-cell-"))
    yield folder
    shutil.rmtree(folder)


def fired(*folders: Path) -> list[tuple[str, str, int]]:
    """Return the triggers that fired: each of them once for all nodes that hold the same entry of it."""
    entries = {
        (record.lsn, record.ts_ns, record.entry)
        for folder in folders
        for record in read(folder / "journal")
        if isinstance(record.entry, e.TriggerFired)
    }
    return sorted((entry.instance, entry.trigger, entry.due_ns) for _, _, entry in entries)


def test_a_standby_that_takes_over_in_a_window_goes_on_with_it_to_its_end(
    tmp_path: Path, sockets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    winding = Winding(monkeypatch)
    monkeypatch.delenv("TANDEM__CONTROL__LISTEN", raising=False)
    begin_ns = winding.now_ns() // SECOND * SECOND
    end_ns, flat_ns = begin_ns + HOUR, begin_ns + 30 * MINUTE
    window = f"{clock(begin_ns - HOUR, '%H:%M:%S')}-{clock(end_ns, '%H:%M:%S')}"
    flat = clock(flat_ns, "%-S %-M %-H * * *")
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "timed.py").write_text(MAKER)

    async def story() -> None:
        options: dict[str, Any] = {
            "node": f'plugin_dirs = ["{tmp_path}/plugins"]',
            "instances": "".join(INSTANCE.format(name=n, window=window, flat=flat) for n in ("day", "held")),
            "segment_kb": 1024,
        }
        async with Cell.open(tmp_path, **options) as cell:
            for name in "ab":
                cell[name].rewrite("[store]", f'[control]\nlisten = ["unix:{sockets}/{name}"]\n[store]')
            cell["a"].start()
            await cell.until_trading("a")
            async with Control([f"unix:{sockets}/a"]) as control:
                closed = f"{clock(end_ns + HOUR, '%H:%M:%S')}-{clock(end_ns + 2 * HOUR, '%H:%M:%S')}"
                made = pb.Instance(
                    plugin="timed",
                    account="accounts/acc",
                    symbols=["BTC-USDT"],
                    schedule=pb.InstanceSchedule(windows=[closed]),
                )
                create = pb.CreateInstanceRequest(instance_id="made", instance=made)
                await control.plugins.create_instance(create)
                cell["b"].start()
                await cell.until_ready("a", "b")

                # The standby has a copy of it by now; this one is another, under the same name.
                await control.plugins.remove_instance(pb.RemoveInstanceRequest(name="instances/made"))
                made.schedule.CopyFrom(
                    pb.InstanceSchedule(windows=[window], triggers={"flat": flat}, after=["instances/day"])
                )
                create = pb.CreateInstanceRequest(instance_id="made", instance=made)
                await control.plugins.create_instance(create)
                await control.plugins.pause_instance(
                    pb.PauseInstanceRequest(name="instances/held", reason="wide market")
                )
            primary = cell["a"].member.engine
            await cell.until(lambda: resting(cell, "a") == {"day", "made"}, "a to quote")
            await cell.until(lambda: "held" not in resting(cell, "b"), "b to know of it")
            winding.to(flat_ns - 40 * SECOND)
            soon_ns = flat_ns - 40 * SECOND
            await cell.until(
                lambda: any(
                    name == "day" and trigger == "each" and due_ns >= soon_ns
                    for name, trigger, due_ns in fired(tmp_path / "a")
                ),
                "a to call on the second",
            )
            lsn = primary.journal.last_lsn
            await cell.until(lambda: cell["b"].member.engine.state.lsn >= lsn, "b to hold it all")

            # It dies; meanwhile a trigger comes due; then the other one knows that it leads.
            session = cell["a"].member.membership.session
            await cell["a"].lose()
            winding.to(flat_ns + 10 * SECOND)
            store = open_store(cell.lease)
            await release(store, CELL, session, 60.0, 60.0)
            await store.close()
            await cell.until_trading("b")
            engine = cell["b"].member.engine
            states = {name: one.state for name, one in engine.roster.instances.items()}
            assert states == {"day": RUNNING, "held": PAUSED, "made": RUNNING}
            await cell.until(lambda: resting(cell, "b") == {"day", "made"}, "b to quote")
            await cell.until(
                lambda: {("day", "flat", flat_ns), ("made", "flat", flat_ns)} <= set(fired(tmp_path / "b")),
                "what came due in between to be made up for",
            )

            winding.to(end_ns + SECOND)
            await cell.until(lambda: not engine.state.orders, "no quote to rest")
            held, day, made_ = (engine.state.instances[name] for name in ("held", "day", "made"))
            assert (day.state, day.by) == (made_.state, made_.by) == (PAUSED, "schedule")
            assert (held.state, held.by) == (PAUSED, "")
            assert "wide market" in held.reason

            winding.to(begin_ns + 23 * HOUR + SECOND)
            await cell.until(lambda: resting(cell, "b") == {"day", "made"}, "b to quote when it opens again")
            assert engine.state.instances["held"].reason == held.reason
            for name in ("day", "made"):
                assert calls_of(cell, name)["flat"] == 1
            assert "flat" not in calls_of(cell, "held")
        calls = fired(tmp_path / "a", tmp_path / "b")
        assert len(calls) == len(set(calls)), "none fired twice, whoever led"
        assert [one for one in calls if one[1] == "flat"] == [
            ("day", "flat", flat_ns),
            ("made", "flat", flat_ns),
        ]

    asyncio.run(story())


def test_a_worker_hears_of_a_trigger_that_came_due_while_nobody_led(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not there yet when its node has taken over."""
    winding = Winding(monkeypatch)
    begin_ns = winding.now_ns() // SECOND * SECOND
    flat_ns = begin_ns + 30 * MINUTE
    window = f"{clock(begin_ns - HOUR, '%H:%M:%S')}-{clock(begin_ns + HOUR, '%H:%M:%S')}"
    instance = INSTANCE.format(name="day", window=window, flat=clock(flat_ns, "%-S %-M %-H * * *"))
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "timed.py").write_text(MAKER)

    async def story() -> None:
        options: dict[str, Any] = {
            "node": f'plugin_dirs = ["{tmp_path}/plugins"]',
            "instances": instance.replace(
                "[instance.schedule]", 'isolation = "process"\n[instance.schedule]'
            ),
            "segment_kb": 1024,
        }
        async with Cell.open(tmp_path, **options) as cell:
            await cell.start()
            await cell.until(lambda: resting(cell, "a") == {"day"}, "a to quote")
            session = cell["a"].member.membership.session
            await cell["a"].lose()
            winding.to(flat_ns + 10 * SECOND)
            store = open_store(cell.lease)
            await release(store, CELL, session, 60.0, 60.0)
            await store.close()
            await cell.until_trading("b")
            await cell.until(lambda: ("day", "flat", flat_ns) in fired(tmp_path / "b"), "the trigger")
            record = cell["b"].member.engine.state.instances["day"]
            await cell.until(
                lambda: msgspec.msgpack.decode(record.strategy_state)["calls"].get("flat") == 1,
                "the worker to have been called",
            )

    asyncio.run(story())


def test_what_was_made_anew_a_moment_before_a_takeover_counts_in_it(
    tmp_path: Path, sockets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TANDEM__CONTROL__LISTEN", raising=False)
    now_ns = LiveClock().now_ns()
    closed = f"{clock(now_ns + 2 * HOUR, '%H:%M:%S')}-{clock(now_ns + 3 * HOUR, '%H:%M:%S')}"

    async def story() -> None:
        async with Cell.open(tmp_path) as cell:
            cell["a"].rewrite("[store]", f'[control]\nlisten = ["unix:{sockets}/a"]\n[store]')
            cell["b"].rewrite("[store]", "[control]\nlisten = []\n[store]")
            cell["a"].start()
            await cell.until_trading("a")
            made = pb.Instance(plugin="two_sided", account="accounts/acc", symbols=["BTC-USDT"])
            async with Control([f"unix:{sockets}/a"]) as control:
                create = pb.CreateInstanceRequest(instance_id="made", instance=made)
                await control.plugins.create_instance(create)
                cell["b"].start()
                await cell.until_ready("a", "b")
                # From here on the standby does not come to bring its copies in line.
                monkeypatch.setattr(Shadowing, "refresh", lambda _self: None)
                await control.plugins.remove_instance(pb.RemoveInstanceRequest(name="instances/made"))
                made.schedule.windows.append(closed)
                create = pb.CreateInstanceRequest(instance_id="made", instance=made)
                await control.plugins.create_instance(create)
            lsn = cell["a"].member.engine.journal.last_lsn
            await cell.until(lambda: cell["b"].member.engine.state.lsn >= lsn, "b to hold it all")
            await cell["a"].die(cell.lease)
            await cell.until_trading("b")
            record = cell["b"].member.engine.state.instances["made"]
            assert (record.state, record.by) == (PAUSED, "schedule")

    asyncio.run(story())


def calls_of(cell: Cell, instance: str) -> dict[str, int]:
    """Return how often b's strategy was called by each trigger, those before the takeover included."""
    strategy: Any = cell["b"].member.engine.roster.instances[instance].strategy
    calls: dict[str, int] = strategy.state.calls
    return calls


def resting(cell: Cell, name: str) -> set[str]:
    """Return whose orders rest, by what a node knows."""
    return {order.instance for order in cell[name].member.engine.state.orders.values()}
