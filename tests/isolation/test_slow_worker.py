"""A worker that is too slow for its market gets the newest of it, and nobody waits for it."""

import asyncio
from pathlib import Path

from desk_tools import BTC
from isolation_tools import QUOTER, until, worker_desk

from host.api import BookTop

SLOW = QUOTER.replace("from decimal", "import time\nfrom decimal", 1).replace(
    "p = self.params", "p = self.params\n        time.sleep(0.005)\n        self.state.fills += 1"
)
EVENTS = 3000


def test_it_is_sent_the_newest_and_the_rest_is_counted(tmp_path: Path) -> None:
    async def run() -> None:
        async with worker_desk(tmp_path) as desk:
            desk.add("slow", SLOW, deadline_ns=30_000_000_000)
            desk.add("quick", QUOTER, deadline_ns=30_000_000_000)
            await desk.started("slow")
            await desk.started("quick")
            slow = desk.session("slow").outlet
            most = 0
            for number in range(1, EVENTS + 1):
                now_ns = desk.desk.clock.now_ns()
                price = 60_000.0 + number * 0.01
                desk.desk.feed.market(BookTop(BTC, price, 1.0, price + 0.1, 1.0, now_ns, now_ns, number))
                most = max(most, slow.behind)
                if number % 20 == 0:
                    await asyncio.sleep(0)
            assert most <= 128 + 1024 + 3
            await desk.handled("quick")
            await desk.handled("slow")
            assert slow.conflated > EVENTS / 2
            assert desk.proxy("slow").status().conflated == slow.conflated
            desk.desk.settle()
            last = round(60_000.0 + EVENTS * 0.01 - 0.02, 2)
            await until(
                lambda: (
                    desk.open()
                    and {
                        order.instance: float(order.price or 0)
                        for order in desk.desk.engine.state.orders.values()
                        if order.side == "buy"
                    }
                    == {"slow": last, "quick": last}
                ),
                f"both quote at {last}",
            )
            assert desk.alerts("worker_lost") == []

    asyncio.run(run())
