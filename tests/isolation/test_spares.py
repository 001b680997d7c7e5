"""Worker processes in reserve."""

import asyncio
import errno
import os
import signal
from pathlib import Path

import pytest
from isolation_tools import children, is_alive, until, worker_desk

import host.isolation.spares as module


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SOON_S", 0.0)


def test_one_that_is_lost_is_replaced_by_the_one_in_reserve(tmp_path: Path) -> None:
    async def run() -> None:
        async with worker_desk(tmp_path) as desk:
            spares = desk.workers.spares
            desk.add("q", backoff_ns=1_000_000, deadline_ns=30_000_000_000)
            pid = await desk.started()
            spares.keep(1)
            await until(lambda: spares.ready, "one is in reserve")
            (reserve,) = set(children()) - {pid}
            os.kill(pid, signal.SIGKILL)
            await until(lambda: desk.of["q"].restarts == 1, "it is started again")
            assert await desk.started() == reserve
            await until(lambda: spares.ready, "another one is in reserve")
        await until(lambda: not children(), "none is left")

    asyncio.run(run())


def test_one_that_died_in_reserve_is_not_taken(tmp_path: Path) -> None:
    async def run() -> None:
        async with worker_desk(tmp_path) as desk:
            spares = desk.workers.spares
            spares.keep(1)
            await until(lambda: spares.ready, "one is in reserve")
            (reserve,) = children()
            os.kill(reserve, signal.SIGKILL)
            await until(lambda: not is_alive(reserve), "it is gone")
            desk.add("q")
            assert await desk.started() != reserve

    asyncio.run(run())


def test_those_that_are_not_needed_any_more_end(tmp_path: Path) -> None:
    async def run() -> None:
        async with worker_desk(tmp_path) as desk:
            desk.workers.spares.keep(2)
            await until(lambda: desk.workers.spares.ready == 2, "two are in reserve")
            desk.workers.spares.keep(0)
            await until(lambda: not children(), "none is left")

    asyncio.run(run())


def test_one_that_is_given_up_while_it_starts_is_not_left_behind(tmp_path: Path) -> None:
    async def run() -> None:
        for turns in range(6):
            async with worker_desk(tmp_path / str(turns)) as desk:
                desk.add("q")
                for _ in range(turns):
                    await asyncio.sleep(0.001)

    asyncio.run(run())
    asyncio.run(until(lambda: not children(), "none is left"))


def test_one_that_the_host_has_no_descriptor_for_is_not_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []

    def fail(pid: int) -> int:
        tried.append(pid)
        raise OSError(errno.EMFILE, "Too many open files")

    async def run() -> None:
        async with worker_desk(tmp_path) as desk:
            with monkeypatch.context() as full:
                full.setattr(os, "pidfd_open", fail)
                desk.add("q", backoff_ns=1_000_000, crashes=1000)
                await until(lambda: desk.alerts("worker_lost"), "it is told")
            text = desk.alerts("worker_lost")[0]
            assert "its process could not be started: [Errno 24] Too many open files" in text
            await desk.started()
            assert [pid for pid in tried if Path(f"/proc/{pid}").exists()] == []

    asyncio.run(run())


def test_one_that_no_thread_can_start_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    async def run() -> None:
        async with worker_desk(tmp_path) as desk:
            with monkeypatch.context() as full:
                full.setattr(asyncio, "to_thread", fail)
                desk.add("q", backoff_ns=1_000_000, crashes=1000)
                await until(lambda: desk.alerts("worker_lost"), "it is told")
            assert "could not be started: can't start new thread" in desk.alerts("worker_lost")[0]
            await desk.started()

    asyncio.run(run())
