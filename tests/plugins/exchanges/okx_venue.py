"""A venue that speaks OKX, in this process: three calm markets, two accounts, no rate limits unless asked."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

from host.api import OrderFilled
from venue.catalog import INSTRUMENTS, calm_market
from venue.clock import VenueClock
from venue.exchange import Exchange
from venue.opening import OpenVenue
from venue.protocols.accounts import DEMO_ACCOUNTS
from venue.protocols.faults import Fault, FaultKind
from venue.protocols.request_log import RequestLine
from venue.protocols.server import ProtocolServer
from venue.protocols.settings import Settings
from venue.running import RunningExchange

MARKETS = {
    "BTC-USDT": Decimal(60_000),
    "BTC-USDT-PERP": Decimal(60_000),
    "ETH-USDT-PERP": Decimal(2_500),
    "BTC-USD-PERP": Decimal(60_000),
}
DEMO, OTHER = DEMO_ACCOUNTS


class OkxVenue:
    """The venue as tests see it."""

    def __init__(self, server: ProtocolServer, exchange: Exchange) -> None:
        self.server = server
        self.exchange = exchange
        self.address = server.addresses["okx"]
        self.rest_url = f"http://{self.address}"
        self.ws_url = f"ws://{self.address}"

    def fault(self, kind: FaultKind, **fields: Any) -> int:
        """Put a fault in force and return its number."""
        return self.server.faults.add(Fault(kind=kind, protocol="okx", **fields))

    def lines(self, kind: str = "", *, account: str = "demo") -> list[RequestLine]:
        """Return the request log's lines of an account, of one kind where one is named."""
        return [
            line for line in self.server.requests.lines if line.account == account and kind in ("", line.kind)
        ]

    def server_lines(self, kind: str) -> list[RequestLine]:
        """Return the request log's lines of one kind, whoever they are of."""
        return [line for line in self.server.requests.lines if line.kind == kind]

    def fills(self, account: str = "demo") -> tuple[OrderFilled, ...]:
        """Return what an account has traded."""
        return self.exchange.records(f"{account}/trading").fills_since(0)

    def cut(self, path: str = "") -> None:
        """Break every WebSocket whose path begins so."""
        for connection in list(self.server.courses["okx"].connections):
            if connection.path.startswith(path):
                connection.abort()

    def best(self, symbol: str) -> tuple[Decimal, Decimal]:
        """Return the best bid and ask."""
        bid, ask = self.exchange.best(symbol)
        assert bid is not None and ask is not None, f"{symbol} has no market yet"
        return bid, ask


@asynccontextmanager
async def okx_venue(
    *, seed: int = 1, has_rate_limits: bool = False, open_market: Any = calm_market
) -> AsyncIterator[OkxVenue]:
    """Serve the venue until the block ends."""
    clock = VenueClock()
    exchange = Exchange(seed=seed)
    for instrument in (INSTRUMENTS[symbol] for symbol in MARKETS):
        exchange.list_instrument(instrument)
        exchange.add_market(open_market(instrument, seed, clock.now_ns(), MARKETS[instrument.symbol]))
    opened = OpenVenue(RunningExchange(exchange, clock), None, False)
    async with serving(opened, seed=seed, has_rate_limits=has_rate_limits) as venue:
        yield venue


@asynccontextmanager
async def serving(
    opened: OpenVenue, *, seed: int = 1, has_rate_limits: bool = False
) -> AsyncIterator[OkxVenue]:
    """Serve a venue that was opened until the block ends."""
    settings = Settings(listen={"okx": "127.0.0.1:0"}, has_rate_limits=has_rate_limits)
    server = ProtocolServer(opened, settings, seed=seed)
    await server.start()
    task = asyncio.create_task(opened.running.run())
    opened.running.step()
    try:
        yield OkxVenue(server, opened.running.exchange)
    finally:
        await server.close()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
