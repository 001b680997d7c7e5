"""Workers killed at any moment of a market: no order is unaccounted for, and each fill is heard exactly once.

    TANDEM_WORKER_KILLS=1000 pytest --timeout=0 tests/isolation/test_kills.py

runs as many kills as the proof asks for; by default there are few.
"""

import asyncio
import os
import random
import signal
from decimal import Decimal
from pathlib import Path
from typing import Any

from desk_tools import BTC
from isolation_tools import CHAINED, WorkerDesk, Written, chain_of, until, worker_desk

from host.api import Trade
from host.core import entries as e

KILLS = int(os.environ.get("TANDEM_WORKER_KILLS", "6"))
MS = 1_000_000
SETTINGS: dict[str, Any] = {
    "crashes": 10**9,
    "backoff_ns": MS,
    "most_backoff_ns": MS,
    "deadline_ns": 30_000 * MS,
}

TAKER = (
    CHAINED
    + """
    def on_order(self, order: Order) -> None:
        if order.slot < 0 and order.status.is_terminal:
            self.ctx.log.info("done: %s", order.client_id)

    def on_trade(self, trade) -> None:
        self.buy_limit(trade.symbol, Decimal("0.5"), Decimal(str(trade.price)))
"""
)


def test_random_kills_lose_no_order_and_no_fill(tmp_path: Path) -> None:
    draw = random.Random(7)

    async def market(desk: WorkerDesk) -> None:
        """Let something happen: the price moves, an order of ours trades, or time passes."""
        inner = desk.desk
        inner.advance(draw.choice((0.001, 0.02, 0.3)))
        price = 60_000.0 + draw.randrange(-50, 50)
        inner.top(price, price + 0.1)
        if draw.random() < 0.3:
            show_trade(desk, price - 1)
        resting = [order for order in desk.open() if order.status in ("open", "partially_filled")]
        if resting and draw.random() < 0.5:
            order = draw.choice(resting)
            remaining = order.qty - order.filled
            # In lots, as a venue does: halves of halves come to more digits than a Decimal adds up exactly.
            half = (remaining / 2).quantize(Decimal("0.001"))
            inner.venue.trade(order, str(remaining if draw.random() < 0.3 or not half else half))
        inner.settle()
        await asyncio.sleep(draw.choice((0.0, 0.0, 0.002)))  # the worker's share of the processor

    async def run() -> None:
        async with worker_desk(tmp_path) as desk:
            desk.add("q", on_loss=draw.choice(("pull", "keep")), source=TAKER, **SETTINGS)
            await desk.started()
            show_trade(desk, 59_000.0)
            await until(desk.open, "an order of its own rests")
            placed = Written(desk, e.PlaceSent)
            for _ in range(KILLS):
                for _ in range(draw.randrange(1, 40)):
                    await market(desk)
                process = desk.of["q"].process
                assert process is not None
                os.kill(process.pid, signal.SIGKILL)
                lost = desk.of["q"].restarts
                for _ in range(draw.randrange(0, 10)):
                    await market(desk)  # before and after the host notices
                await until(lambda lost=lost: desk.of["q"].restarts > lost, "another one starts")  # type: ignore[misc]
                for _ in range(draw.randrange(0, 10)):
                    await market(desk)
                await desk.started()
                assert (
                    placed.entries
                )  # read while the journal has them: of many kills it keeps the last alone
            await market(desk)
            await desk.handled()
            check(desk, placed.entries)

    asyncio.run(run())


def show_trade(desk: WorkerDesk, price: float) -> None:
    now_ns = desk.desk.clock.now_ns()
    desk.desk.feed.market(Trade(BTC, price, 1.0, True, 1, now_ns, now_ns))


def check(desk: WorkerDesk, placed_orders: list[e.PlaceSent]) -> None:
    inner = desk.desk
    inner.settle()
    venue, state = inner.venue, inner.engine.state
    heard = desk.saved()
    trades = [fill.trade_id for fill in venue.fills]
    assert len(trades) > KILLS
    assert (heard["fills"], heard["chain"]) == (len(trades), chain_of(trades)), "each fill once, in order"
    held = sum((f.qty if f.side == "buy" else -f.qty for f in venue.fills), Decimal(0))
    assert state.position("q", BTC).qty == held == Decimal(heard["traded"])
    assert {order.client_id for order in venue.open()} == set(state.orders)
    placed = [order.client_id for order in placed_orders]
    assert len(placed) == len(set(placed))
    assert set(venue.orders) == set(placed)
    assert heard["starts"] <= KILLS + 1
    assert inner.engine.halted == ""
    assert state.anomalies == {}
    assert any(order.slot < 0 for order in placed_orders)
