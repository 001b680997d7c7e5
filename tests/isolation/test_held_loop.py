"""A loop that is held up does not take it for the fault of its workers."""

import asyncio
import os
import time
from pathlib import Path

import uvloop
from isolation_tools import QUOTER, until, worker_desk

MS = 1_000_000
DEADLINE_MS = 600


def test_no_worker_is_lost_for_what_the_loop_had_not_read(tmp_path: Path) -> None:
    """On the loop of nodes, which looks at its timers before it reads; what holds it came from a socket."""

    async def run() -> None:
        reads, writes = os.pipe()
        bids = iter((60_000.0, 60_010.0, 60_020.0))
        held: list[float] = []

        def hold() -> None:
            os.read(reads, 1)
            bid = next(bids)
            desk.desk.top(bid, bid + 0.1)  # workers answer while nobody listens
            time.sleep(2 * DEADLINE_MS / 1e3)
            held.append(bid)

        async with worker_desk(tmp_path) as desk:
            for name in "qr":
                desk.add(name, QUOTER, deadline_ns=DEADLINE_MS * MS, heartbeat_ns=50 * MS)
            for name in "qr":
                await desk.started(name)
            asyncio.get_running_loop().add_reader(reads, hold)
            for times in range(1, 4):
                os.write(writes, b"x")
                await until(lambda times=times: len(held) == times, "the loop was held")  # type: ignore[misc]
                for name in "qr":
                    await until(lambda name=name: not desk.session(name).outlet.behind, "all is handled")  # type: ignore[misc]
            asyncio.get_running_loop().remove_reader(reads)
            assert desk.alerts("worker_lost") == []
        os.close(reads)
        os.close(writes)

    uvloop.run(run())
