"""Whatever happens to a worker is found out, and concerns nobody else."""

import asyncio
import os
import shutil
import signal
import tempfile
from pathlib import Path
from typing import Any

import pytest
from isolation_tools import QUOTER, is_alive, until, worker_desk

from host.core import entries as e
from host.core.entries import InstanceState

MS = 1_000_000
AT_ONCE: dict[str, Any] = {"deadline_ns": 30_000 * MS, "backoff_ns": MS}
SOON: dict[str, Any] = {"deadline_ns": 500 * MS, "heartbeat_ns": 50 * MS, "backoff_ns": MS}
"""For what only a deadline finds out; on a busy machine another one may be missed, too."""


def misbehaving(code: str) -> str:
    """Return a quoter that runs `code` once the bid is above 70,000."""
    return QUOTER.replace("p = self.params", f"p = self.params\n        if book.bid > 70_000: {code}")


HANG = misbehaving("\n            while True: pass")
SEGFAULT = misbehaving("import ctypes; ctypes.string_at(0)")
LEAK = misbehaving(
    "\n            self.kept = [b'x' * (1 << 20) for _ in range(200)]\n            while True: pass"
)
EXIT = misbehaving("import os; os._exit(7)")


@pytest.mark.parametrize(
    ("source", "settings", "why"),
    [
        (HANG, SOON, "it has handled nothing for "),
        (
            SEGFAULT,
            AT_ONCE,
            "it was ended by SIGSEGV; its last words: Fatal Python error: Segmentation fault",
        ),
        (LEAK, {"memory_bytes": 150 << 20, **AT_ONCE}, "the limit is 150"),
        (EXIT, AT_ONCE, "it exited with code 7"),
    ],
    ids=["hang", "segfault", "leak", "exit"],
)
def test_it_is_lost_its_orders_are_pulled_and_another_goes_on(
    tmp_path: Path, source: str, settings: dict[str, Any], why: str
) -> None:
    async def run() -> None:
        async with worker_desk(tmp_path) as desk:
            desk.add("q", source, **settings)
            pid = await desk.started()
            await desk.top_and_quotes()
            desk.desk.top(70_001.0, 70_002.0)
            await until(lambda: desk.alerts("worker_lost"), "it is lost")
            text, *_ = desk.alerts("worker_lost")
            assert text.startswith("instance q: ")
            assert why in text
            assert desk.open() == []
            await until(lambda: not is_alive(pid), "its process ends")
            desk.desk.top(60_000.0, 60_000.1)
            await desk.started()
            await until(lambda: desk.rests_at(59_999.98, 60_000.12), "another one quotes")
            assert desk.desk.state_of("q") is InstanceState.RUNNING
            assert desk.of["q"].process is not None
            assert desk.of["q"].process.pid != pid

    asyncio.run(run())


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_signal_from_outside_is_found_out(tmp_path: Path, number: signal.Signals) -> None:
    async def run() -> None:
        async with worker_desk(tmp_path) as desk:
            desk.add("q", **SOON)
            pid = await desk.started()
            await desk.top_and_quotes()
            os.kill(pid, number)
            await until(lambda: desk.alerts("worker_lost"), "it is lost")
            assert desk.open() == []
            await desk.top_and_quotes(60_100.0, 60_100.1)
            assert not is_alive(pid)

    asyncio.run(run())


def test_its_orders_stay_where_that_is_configured(tmp_path: Path) -> None:
    async def run() -> None:
        async with worker_desk(tmp_path) as desk:
            desk.add("q", on_loss="keep", **AT_ONCE)
            pid = await desk.started()
            await desk.top_and_quotes()
            before = {order.client_id for order in desk.open()}
            os.kill(pid, signal.SIGKILL)
            await until(lambda: desk.alerts("worker_lost"), "it is lost")
            await desk.started()
            await desk.handled()
            assert {order.client_id for order in desk.open()} == before

    asyncio.run(run())


def test_one_that_is_lost_again_and_again_is_quarantined(tmp_path: Path) -> None:
    async def run() -> None:
        async with worker_desk(tmp_path) as desk:
            desk.desk.top(70_001.0, 70_002.0)
            desk.add("q", EXIT, crashes=3, **AT_ONCE)
            await desk.reach(InstanceState.QUARANTINED)
            assert len(desk.alerts("worker_lost")) == 3
            (text,) = desk.desk.alerts("quarantined")
            assert "its worker was lost 3 times, the last time: it exited with code 7" in text
            assert desk.of["q"].process is None
            assert not desk.of["q"].is_wanted

    asyncio.run(run())


def test_one_that_ends_after_its_node_has_handed_over_is_told_of_to_nobody(tmp_path: Path) -> None:
    """What is journaled then, the next leader never sees."""

    async def run() -> None:
        async with worker_desk(tmp_path) as desk:
            desk.add("q", **AT_ONCE)
            worker, engine = await desk.started(), desk.desk.engine
            wrong: list[dict[str, Any]] = []
            asyncio.get_running_loop().set_exception_handler(lambda _loop, context: wrong.append(context))
            assert desk.workers._looking is not None
            desk.workers._looking.cancel()  # it ends before anybody looks
            engine.retire("another node leads")
            last_lsn = engine.journal.last_lsn
            os.kill(worker, signal.SIGKILL)
            await until(lambda: desk.of["q"].process is None, "its end is seen")
            assert (wrong, engine.journal.last_lsn) == ([], last_lsn)

    asyncio.run(run())


def test_a_neighbour_goes_on_meanwhile(tmp_path: Path) -> None:
    async def run() -> None:
        async with worker_desk(tmp_path) as desk:
            desk.add("bad", HANG, **SOON)
            desk.add("good", QUOTER)
            await desk.started("bad")
            pid = await desk.started("good")
            desk.desk.top(70_001.0, 70_002.0)
            await until(lambda: desk.alerts("worker_lost"), "the bad one is lost")
            await desk.handled("good")
            assert is_alive(pid)
            assert {order.instance for order in desk.desk.engine.state.orders.values()} == {"good"}
            assert all("instance bad" in text for text in desk.alerts("worker_lost"))

    asyncio.run(run())


def test_a_strategy_that_cannot_be_constructed_is_quarantined(tmp_path: Path) -> None:
    source = QUOTER + "\n    def __init__(self, params):\n        raise OSError('no such thing')\n"

    async def run() -> None:
        async with worker_desk(tmp_path) as desk:
            desk.add("q", source)
            await desk.reach(InstanceState.QUARANTINED)
            (text,) = desk.desk.alerts("quarantined")
            assert "no such thing" in text

    asyncio.run(run())


def test_one_that_writes_without_end_waits_and_not_the_host(tmp_path: Path) -> None:
    source = misbehaving("\n            while True: print('x' * 1000)")

    async def run() -> None:
        async with worker_desk(tmp_path) as desk:
            desk.add("q", source, **SOON)
            await desk.started()
            desk.desk.top(70_001.0, 70_002.0)
            await until(lambda: desk.alerts("worker_lost"), "it is lost")
            text = desk.alerts("worker_lost")[0]
            assert "it has handled nothing for " in text

    asyncio.run(run())


def test_one_that_uses_more_than_its_share_of_a_core_is_lost(tmp_path: Path) -> None:
    source = QUOTER.replace(
        "    def on_book", "    def on_timer(self, name):\n        sum(range(300_000))\n\n    def on_book"
    ).replace("self.state.starts += 1", "self.ctx.set_timer('busy', 0.001)")

    async def run() -> None:
        async with worker_desk(tmp_path) as desk:
            desk.add("q", source, cpu_share=0.05, cpu_window_ns=300 * MS, **AT_ONCE)
            await desk.started()
            await until(lambda: desk.alerts("worker_lost"), "it is lost")
            assert " of a core, the limit is 5%" in desk.alerts("worker_lost")[0]

    asyncio.run(run())


def test_each_step_is_in_the_journal(tmp_path: Path) -> None:
    async def run() -> None:
        async with worker_desk(tmp_path) as desk:
            desk.add("q", **AT_ONCE)
            os.kill(await desk.started(), signal.SIGKILL)
            await until(lambda: len(desk.alerts("worker_started")) == 2, "another one starts")
            kinds = [entry.kind for entry in desk.desk.entries if isinstance(entry, e.Alert)]
            assert kinds == ["worker_started", "worker_lost", "worker_started"]
            assert desk.alerts("worker_started")[1].endswith(", restart 1")

    asyncio.run(run())


def test_a_worker_is_given_nothing_of_the_nodes_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TANDEM_MASTER_KEY", "very secret")
    source = QUOTER.replace(
        "self.state.starts += 1",
        "import os; self.state.trades.extend(n for n in os.environ if n.startswith('TANDEM'))",
    )

    async def run() -> None:
        async with worker_desk(tmp_path) as desk:
            instance = desk.add("q", source)
            await desk.started()
            desk.desk.engine.roster.stop(instance, "enough")
            await until(lambda: not desk.workers.are_busy, "it says bye")
            assert desk.saved().get("trades", []) == []

    asyncio.run(run())


@pytest.mark.parametrize("end", ["os._exit(7)", "os.kill(os.getpid(), 9)"])
def test_what_it_started_goes_with_it(tmp_path: Path, end: str) -> None:
    left = tmp_path / "left"
    start = f"open({str(left)!r}, 'w').write(str(subprocess.Popen(['sleep', '600']).pid))"

    async def run() -> None:
        async with worker_desk(tmp_path) as desk:
            desk.add("q", misbehaving(f"import os, subprocess; {start}; {end}"), **AT_ONCE)
            await desk.started()
            desk.desk.top(70_001.0, 70_002.0)
            await until(lambda: desk.alerts("worker_lost"), "it is lost")
            await until(lambda: not is_alive(int(left.read_text())), "its child ends")

    asyncio.run(run())


def importing(code: str) -> str:
    """Return a quoter whose file runs `code` when a worker imports it."""
    return f"import sys, time\nif 'host.isolation.worker' in sys.orig_argv: {code}\n{QUOTER}"


def test_one_that_writes_much_while_it_is_imported_starts(tmp_path: Path) -> None:
    async def run() -> None:
        async with worker_desk(tmp_path) as desk:
            desk.add("q", importing("print('x' * 200_000)"), **AT_ONCE)
            await desk.started()
            assert desk.alerts("worker_lost") == []

    asyncio.run(run())


def test_its_limits_hold_while_it_is_imported(tmp_path: Path) -> None:
    source = importing("kept = b'x' * (200 << 20); time.sleep(1000)")

    async def run() -> None:
        async with worker_desk(tmp_path) as desk:
            desk.add("q", source, memory_bytes=150 << 20, start_ns=600_000 * MS, crashes=1)
            await until(lambda: desk.alerts("worker_lost"), "it is lost")
            assert desk.alerts("worker_lost")[0].endswith(" MiB, the limit is 150")

    asyncio.run(run())


def test_one_for_whose_sockets_there_is_no_room_is_tried_again(short_path: Path) -> None:
    folder = short_path / "workers"

    async def run() -> None:
        async with worker_desk(short_path) as desk:
            instance = desk.add("q", **AT_ONCE | {"crashes": 1000, "most_backoff_ns": 10 * MS})
            desk.add("r", **AT_ONCE)
            pid, other = await desk.started(), await desk.started("r")
            shutil.rmtree(folder)
            os.kill(pid, signal.SIGKILL)
            await until(lambda: len(desk.alerts("worker_lost")) > 2, "it cannot start")
            assert "its sockets could not be opened: No such file" in desk.alerts("worker_lost")[2]
            # As little can it start when somebody asks for that; the others do not notice.
            desk.add("s", **AT_ONCE | {"crashes": 1})
            assert desk.desk.state_of("s") is InstanceState.RUNNING
            await desk.reach(InstanceState.QUARANTINED, "s")
            folder.mkdir()
            await desk.started()
            assert instance.state is InstanceState.RUNNING
            assert await desk.started("r") == other
            assert all("instance r" not in text for text in desk.alerts("worker_lost"))

    asyncio.run(run())


@pytest.mark.parametrize("length", [75, 90, 110])
def test_it_starts_however_long_the_path_of_the_folder_is(tmp_path: Path, length: int) -> None:
    with tempfile.TemporaryDirectory(prefix="t-") as short:
        folder = Path(short, "x" * (length - len(short) - len("//workers")))
        folder.mkdir()

        async def run() -> None:
            async with worker_desk(folder) as desk:
                assert len(str(folder / "workers")) == length
                desk.add("q")
                await desk.started()

        asyncio.run(run())
