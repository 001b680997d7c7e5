"""Strategies that share a worker process."""

import asyncio
import os
import signal
from itertools import count
from pathlib import Path
from typing import Any

from isolation_tools import QUOTER, children, is_alive, until, worker_desk

from host.core.entries import InstanceState

RAISES = QUOTER.replace("p = self.params", "p = self.params\n        if book.bid > 70_000: raise ValueError")
TOGETHER: dict[str, Any] = {"group": "makers", "deadline_ns": 30_000_000_000, "backoff_ns": 1_000_000}


def test_those_of_a_group_share_a_process_and_others_do_not(tmp_path: Path) -> None:
    async def run() -> None:
        async with worker_desk(tmp_path) as desk:
            for name in ("a", "b"):
                desk.add(name, **TOGETHER)
            desk.add("c")
            one, two, other = [await desk.started(name) for name in ("a", "b", "c")]
            assert one == two != other
            desk.desk.top()
            await until(lambda: len(desk.open()) == 6, "all three quote")
            assert [desk.proxy(name).status().strangers for name in ("a", "b", "c")] == [0, 0, 0]

    asyncio.run(run())


def test_what_one_raises_is_its_own_affair(tmp_path: Path) -> None:
    async def run() -> None:
        async with worker_desk(tmp_path) as desk:
            desk.add("bad", RAISES, **TOGETHER)
            desk.add("good", **TOGETHER)
            pid = await desk.started("bad")
            await desk.started("good")
            desk.desk.top(70_001.0, 70_002.0)
            await desk.reach(InstanceState.QUARANTINED, "bad")
            desk.desk.top(70_003.0, 70_004.0)
            await until(lambda: desk.rests_at(70_002.98, 70_004.02), "the good one quotes")
            assert is_alive(pid)
            assert desk.alerts("worker_lost") == []
            desk.desk.engine.roster.stop(desk.desk.engine.roster.instances["good"], "enough")
            await until(lambda: not is_alive(pid), "the process ends with the last")

    asyncio.run(run())


def test_the_end_of_the_process_is_the_end_of_all_and_they_start_again_together(tmp_path: Path) -> None:
    async def run() -> None:
        async with worker_desk(tmp_path) as desk:
            for name in ("a", "b"):
                desk.add(name, **TOGETHER)
            pid = await desk.started("a")
            await desk.started("b")
            os.kill(pid, signal.SIGKILL)
            await until(lambda: len(desk.alerts("worker_lost")) == 2, "both are lost")
            assert ["shared its process with b" in text for text in sorted(desk.alerts("worker_lost"))] == [
                True,
                False,
            ]
            assert await desk.started("a") == await desk.started("b") != pid
            assert len(children()) == 1

    asyncio.run(run())


def test_one_that_is_started_later_has_its_own(tmp_path: Path) -> None:
    async def run() -> None:
        async with worker_desk(tmp_path) as desk:
            desk.add("a", **TOGETHER)
            pid = await desk.started("a")
            desk.add("b", **TOGETHER)
            assert await desk.started("b") != pid

    asyncio.run(run())


def test_the_code_of_one_who_left_is_run_no_more(tmp_path: Path) -> None:
    written = tmp_path / "written"
    source = QUOTER.replace("self.state.starts += 1", "self.ctx.set_timer('often', 0.001)")
    source += f"\n    def on_timer(self, name):\n        open({str(written)!r}, 'a').write('x')\n"

    async def run() -> None:
        async with worker_desk(tmp_path) as desk:
            instance = desk.add("a", source, **TOGETHER)
            desk.add("b", **TOGETHER)
            pid = await desk.started("a")
            await desk.started("b")
            await until(written.exists, "its timer runs")
            desk.desk.engine.roster.quarantine_for(instance, "an operator's word")

            bids = count(60_000.0)

            async def goes_on() -> bool:
                before = written.stat().st_size
                for _ in range(20):
                    bid = next(bids)
                    await desk.top_and_quotes(bid, bid + 0.1)
                return written.stat().st_size > before

            while await goes_on():
                assert next(bids) < 62_000.0, "its timer runs for ever"
            assert is_alive(pid)

    asyncio.run(run())


def test_one_who_left_before_the_process_started_has_no_part_in_it(tmp_path: Path) -> None:
    async def run() -> None:
        async with worker_desk(tmp_path) as desk:
            instance = desk.add("a", **TOGETHER)
            desk.add("b", **TOGETHER)
            await asyncio.sleep(0)  # both are on their way
            desk.desk.engine.roster.stop(instance, "changed my mind")
            await desk.started("b")
            process = desk.of["b"].process
            assert process is not None
            assert (process.members, process.others) == (1, "")
            assert process.memory_limit == desk.of["b"].settings.memory_bytes

    asyncio.run(run())
