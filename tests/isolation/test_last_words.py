"""A worker that ends of its own accord: what it said last counts, though its end is noticed first."""

import asyncio
from pathlib import Path

import pytest
from isolation_tools import PATIENCE_S, QUOTER, until, worker_desk

from host.core.entries import InstanceState
from host.isolation.process import ENDED_BY_ITSELF

RAISING = QUOTER.replace(
    "p = self.params", "p = self.params\n        if book.bid > 70_000: raise ValueError('too high')"
)
LEAVING = QUOTER.replace(
    "p = self.params", "p = self.params\n        if book.bid > 70_000: __import__('os')._exit(0)"
)


def test_what_it_raised_is_why_it_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("host.isolation.seat.LAST_WORDS_S", 2 * PATIENCE_S)

    async def run() -> None:
        async with worker_desk(tmp_path) as desk:
            desk.add("q", RAISING)
            await desk.started()
            worker = desk.proxy().worker
            assert worker is not None and worker._seat is not None
            worker._seat._exited(ENDED_BY_ITSELF)  # what says so came before what it said
            desk.desk.top(70_001.0, 70_002.0)
            await desk.reach(InstanceState.QUARANTINED)
            assert "on_book raised ValueError: too high" in desk.alerts("quarantined")[0]
            assert desk.alerts("worker_lost") == []

    asyncio.run(run())


def test_one_that_said_nothing_is_lost_all_the_same(tmp_path: Path) -> None:
    async def run() -> None:
        async with worker_desk(tmp_path) as desk:
            desk.add("q", LEAVING)
            await desk.started()
            desk.desk.top(70_001.0, 70_002.0)
            await until(lambda: desk.alerts("worker_lost"), "it is lost")
            assert ENDED_BY_ITSELF in desk.alerts("worker_lost")[0]

    asyncio.run(run())
