"""The venue server with Binance's protocol in this process: a spot and a perpetual market around 60,000."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

from host.api import Instrument
from venue.catalog import INSTRUMENTS, calm_market
from venue.clock import VenueClock
from venue.exchange import Exchange
from venue.market import Market
from venue.opening import OpenVenue
from venue.protocols.accounts import DEMO_ACCOUNTS
from venue.protocols.faults import Fault, FaultKind
from venue.protocols.request_log import RequestLine
from venue.protocols.server import ProtocolServer
from venue.protocols.settings import Settings
from venue.running import RunningExchange

SPOT, PERPETUAL = "BTC-USDT", "BTC-USDT-PERP"
MID = Decimal(60_000)
"""About where the markets are."""
DEMO = DEMO_ACCOUNTS[0]


class BinanceVenue:
    """The venue as tests see it."""

    def __init__(self, server: ProtocolServer, exchange: Exchange) -> None:
        self.server = server
        self.exchange = exchange
        self.url = f"http://{server.addresses['binance']}"

    def fault(self, *, kind: str, **fields: Any) -> int:
        """Put a fault in force and return its number."""
        return self.server.faults.add(Fault(protocol="binance", kind=FaultKind(kind), **fields))

    def lines(self, kind: str, verdict: str = "accepted") -> list[RequestLine]:
        """Return the request log's lines of one kind and verdict."""
        return [line for line in self.server.requests.lines if (line.kind, line.verdict) == (kind, verdict)]

    def cut(self) -> None:
        """Break every connection."""
        for connection in list(self.server.courses["binance"].connections):
            connection.abort()


@asynccontextmanager
async def binance_venue(
    *, open_market: Callable[[Instrument, int, int, Decimal | None], Market] = calm_market
) -> AsyncIterator[BinanceVenue]:
    """Serve the venue until the block ends, without rate limits."""
    clock = VenueClock()
    exchange = Exchange(seed=1)
    for symbol in (SPOT, PERPETUAL):
        exchange.list_instrument(INSTRUMENTS[symbol])
        exchange.add_market(open_market(INSTRUMENTS[symbol], 1, clock.now_ns(), MID))
    running = RunningExchange(exchange, clock)
    settings = Settings(listen={"binance": "127.0.0.1:0"}, has_rate_limits=False)
    server = ProtocolServer(OpenVenue(running, None, False), settings, seed=1)
    await server.start()
    task = asyncio.create_task(running.run())
    running.step()
    try:
        yield BinanceVenue(server, exchange)
    finally:
        await server.close()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
