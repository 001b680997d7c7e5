"""An exchange whose listeners fail: who failed misses something and is told so, everybody else goes on."""

import asyncio
import logging
from typing import Any

import pytest

from host.api import BookTop
from venue.catalog import INSTRUMENTS, calm_market
from venue.clock import VenueClock
from venue.exchange import Exchange
from venue.execution import ExecutionReport
from venue.perpetuals import FundingPayment
from venue.running import RunningExchange


class Hearer:
    """Counts tops, and raises at some of them."""

    def __init__(self, fails_at: tuple[int, ...] = ()) -> None:
        self.tops = 0
        self.failures: list[Exception] = []
        self._fails_at = fails_at

    def on_output(self, account: str | None, output: Any) -> None:
        if isinstance(output, BookTop):
            self.tops += 1
            if self.tops in self._fails_at:
                raise ValueError("cannot be encoded")

    def on_execution(self, report: ExecutionReport) -> None:
        pass

    def on_funding(self, payment: FundingPayment) -> None:
        pass

    def on_failure(self, error: Exception) -> None:
        self.failures.append(error)

    def __str__(self) -> str:
        return "the hearer"


def running() -> RunningExchange:
    exchange, clock = Exchange(seed=1), VenueClock()
    instrument = INSTRUMENTS["BTC-USDT"]
    exchange.list_instrument(instrument)
    exchange.add_market(calm_market(instrument, 1, clock.now_ns(), None))
    return RunningExchange(exchange, clock)


def test_a_listener_that_fails_is_told_so_and_the_others_hear_everything(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def story() -> None:
        bad, good = Hearer(fails_at=(1, 2)), Hearer()
        venue = running()
        venue.watch(bad)
        venue.watch(good)
        task = asyncio.create_task(venue.run())
        async with asyncio.timeout(30):
            while good.tops < 4:
                await asyncio.sleep(0)
        assert not task.done()
        task.cancel()
        await asyncio.wait([task])

        assert bad.tops == good.tops
        assert [str(error) for error in bad.failures] == ["cannot be encoded"] * 2

    with caplog.at_level(logging.ERROR):
        asyncio.run(story())
    (record,) = caplog.records
    assert "the hearer failed" in record.getMessage()
    assert record.exc_info is not None
