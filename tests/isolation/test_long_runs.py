"""What goes on for weeks: the same again and again leaves nothing behind that was not there after the first time.

    TANDEM_LONG_RUNS=200 pytest --timeout=0 tests/isolation/test_long_runs.py

repeats each of them so often; by default there are two rounds.
"""

import asyncio
import gc
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from attached_tools import client_desk, running
from isolation_tools import QUOTER, WorkerDesk, children, until, worker_desk
from test_changes_of_isolation import BY_CLIENT, IN_WORKER, KEPT, moving_desk
from test_worker_reload import reloads

from host.core.entries import VersionState

ROUNDS = int(os.environ.get("TANDEM_LONG_RUNS", "2"))
OURS = (
    "host.isolation.",
    "host.client.",
    "host.wire.",
    "zmq.sugar.socket.",
    "zmq.sugar.context.",
    "asyncio.",
)
PATIENT: dict[str, Any] = {
    "deadline_ns": 30_000_000_000,
    "backoff_ns": 1_000_000,
    "most_backoff_ns": 1_000_000,
    "crashes": 10**9,
}


def held(folder: Path) -> dict[str, int]:
    """Return how many there are of everything that a process or its folder could fill up with."""
    gc.collect()
    found = Counter(
        kind
        for one in gc.get_objects()
        if (kind := f"{type(one).__module__}.{type(one).__qualname__}").startswith(OURS)
        and not isinstance(one, type)
    )
    found["modules of plugins"] = sum(1 for name in sys.modules if name.startswith("tandem_plugins."))
    found["tasks"] = len(asyncio.all_tasks())
    found["threads"] = sum(
        1 for one in threading.enumerate() if not one.name.startswith("asyncio_")
    )  # a pool's
    found["workers"] = len(children())
    found["files"] = sum(1 for path in folder.rglob("*") if path.suffix in (".sock", ".token", ".tmp"))
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # that with which the folder is read
            found[str(descriptor.readlink()).partition(":")[0]] += 1
    return dict(found)


async def repeated(
    folder: Path, once: Callable[[int], Awaitable[None]], is_at_rest: Callable[[], bool] = lambda: True
) -> None:
    """Do the same again and again; fail where more is held in the end than after the first times."""
    first: dict[str, int] = {}
    for number in range(2 + ROUNDS):
        if number == 2:
            await until(is_at_rest, "it has come to rest")
            first = held(folder)
        await once(number)
    await until(is_at_rest, "it has come to rest")
    ends_s = time.monotonic() + 10.0
    while grown := {k: (first.get(k, 0), n) for k, n in held(folder).items() if n > first.get(k, 0)}:
        assert time.monotonic() < ends_s, grown
        await asyncio.sleep(0.02)


def test_workers_that_are_lost_leave_nothing(tmp_path: Path) -> None:
    async def lose(desk: WorkerDesk, number: int) -> None:
        worker = desk.of["q"]
        assert worker.process is not None
        lost = worker.restarts
        os.kill(worker.process.pid, signal.SIGKILL)
        await until(lambda: worker.restarts > lost, "another one starts")
        await desk.started()
        desk.desk.top(60_000.0 + number % 2, 60_002.0)
        await desk.handled()

    async def run() -> None:
        async with worker_desk(tmp_path) as desk:
            desk.add("q", **PATIENT)
            desk.workers.spares.keep(1)
            await desk.started()
            await repeated(
                tmp_path, lambda number: lose(desk, number), lambda: desk.workers.spares.ready == 1
            )

    asyncio.run(run())


@pytest.mark.parametrize("way", ["a program of its own", "the same program"])
def test_clients_that_come_and_go_leave_nothing(tmp_path: Path, way: str) -> None:
    async def run() -> None:
        async with client_desk(tmp_path) as desk:
            desk.open_door(**PATIENT)
            client = desk.client()

            async def come_and_go(_number: int) -> None:
                program = running(client, desk.cls["q"])
                await desk.attached_to()
                await program.stop()
                await until(lambda: not desk.is_attached(), "it has gone")

            async def attach_again(_number: int) -> None:
                await asyncio.to_thread(client.subscribe, "book", "trade")
                await asyncio.to_thread(lambda: list(client.events(wait_s=0.02)))
                await desk.attached_to()

            if way == "the same program":
                await asyncio.to_thread(client.connect)
                await repeated(tmp_path, attach_again)
                client.close()
            else:
                await repeated(tmp_path, come_and_go)

    asyncio.run(run())


def test_versions_that_come_and_go_leave_nothing(tmp_path: Path) -> None:
    async def run() -> None:
        async with reloads(tmp_path) as there:

            async def save(number: int) -> None:
                is_bad = number % 2
                line = f"raise ValueError('bad {number}')" if is_bad else f"p, _ = self.params, {number}"
                report = await there.save(QUOTER.replace("p = self.params", line))
                if is_bad:
                    assert report.state is VersionState.REFUSED, report.reason
                    return
                assert report.state is VersionState.ACTIVE, report.reason
                await there.moves.until(report.digest, VersionState.PERMANENT, show)

            def show() -> None:
                there.desk.desk.top(60_000.0 + show_count(), 60_100.0)

            def show_count() -> float:
                return there.engine.state.lsn % 7

            def is_at_rest() -> bool:
                there.desk.desk.advance(0.3)
                return there.desk.proxy().session is not None and len(children()) == 1

            show()
            await repeated(tmp_path, save, is_at_rest)

    asyncio.run(run())


def test_an_instance_that_is_moved_leaves_nothing_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        async with moving_desk(tmp_path, monkeypatch) as desk:
            desk.reloader.catalog.add(desk.save_keeper())
            workers = desk.workers
            assert workers is not None

            async def move(_number: int) -> None:
                for place in (IN_WORKER, BY_CLIENT, KEPT):
                    assert not (await desk.edit(place)).problems
                    if place is IN_WORKER:
                        await desk.at_work()

            await repeated(tmp_path, move, lambda: not workers.running and not children())

    asyncio.run(run())
