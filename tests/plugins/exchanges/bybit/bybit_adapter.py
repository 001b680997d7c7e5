"""The Bybit adapter connected to a venue in this process, as a node would have it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import msgspec
from bybit_venue import DEMO, BybitVenue, bybit_venue
from exchange_tools import FakeHost, eventually
from msgspec import Struct

from host.api import (
    AmendOrder,
    BookTop,
    CancelOrder,
    ConnectionChanged,
    Depth,
    OrderType,
    PlaceOrder,
    Secret,
    Side,
    TimeInForce,
)
from plugins.exchanges.bybit import Bybit
from plugins.exchanges.bybit.params import BybitParams

SYMBOLS = ("BTC-USDT", "BTC-USDT-PERP", "BTC-USD-PERP")
QTY = {"BTC-USDT": Decimal("0.01"), "BTC-USDT-PERP": Decimal("0.01"), "BTC-USD-PERP": Decimal(100)}
WINDOW_NS = 2_000_000_000


class Desk(Struct):
    """An adapter, its host and its venue."""

    venue: BybitVenue
    host: FakeHost
    adapter: Bybit

    def place(
        self, client_id: str, symbol: str = "BTC-USDT", side: Side = Side.BUY, **terms: Any
    ) -> PlaceOrder:
        """Send a limit order 100 away from the best price, unless the terms say otherwise; return it."""
        bid, ask = self.venue.best(symbol)
        away = bid - 100 if side is Side.BUY else ask + 100
        place = PlaceOrder(
            client_id, symbol, side, OrderType.LIMIT, TimeInForce.GTC, away, QTY[symbol], False, False
        )
        place = msgspec.structs.replace(place, **terms)
        self.adapter.send(place, self.deadline_ns())
        return place

    def amend(self, place: PlaceOrder, price: Decimal, qty: Decimal) -> None:
        """Send an amend of an order."""
        amend = AmendOrder(place.client_id, place.symbol, place.side, price, qty)
        self.adapter.send(amend, self.deadline_ns())

    def cancel(self, place: PlaceOrder) -> None:
        """Send a cancel of an order."""
        self.adapter.send(CancelOrder(place.client_id, place.symbol), self.deadline_ns())

    def deadline_ns(self) -> int:
        """Return the end of a usual order window."""
        return self.host.now_ns() + WINDOW_NS

    async def has_books(self, *symbols: str) -> None:
        """Wait for a quote and a whole book of each symbol."""
        for kind in (BookTop, Depth):
            await self.has(kind, *symbols)

    async def has(self, kind: type[Any], *symbols: str) -> None:
        """Wait for a market event of a kind for each symbol."""

        def is_there() -> bool:
            return set(symbols) <= {event.symbol for event in self.host.events if isinstance(event, kind)}

        await eventually(is_there, f"{kind} of {symbols}")

    def channels(self, is_up: bool) -> list[str]:
        """Return which channels were told to be up, or down, in order."""
        return [change.channel for change in self.host.of(ConnectionChanged) if change.is_up is is_up]


def new_adapter(venue: BybitVenue, host: FakeHost, **params: Any) -> Bybit:
    """Return an adapter of the demo account at this venue."""
    usual: dict[str, Any] = {
        "api_key": Secret(DEMO.api_key),
        "api_secret": Secret(DEMO.secret),
        "url": venue.rest_url,
        "ping_after_s": 0.2,
        "lost_after_s": 5.0,
    }
    adapter = Bybit(BybitParams(**(usual | params)))
    adapter.ctx = host
    return adapter


@asynccontextmanager
async def desk(
    symbols: tuple[str, ...] = SYMBOLS, *, has_rate_limits: bool = False, **params: Any
) -> AsyncIterator[Desk]:
    """Open a venue and an adapter that follows `symbols` there."""
    async with bybit_venue(has_rate_limits=has_rate_limits) as venue:
        host = FakeHost()
        adapter = new_adapter(venue, host, **params)
        try:
            await adapter.connect()
            await adapter.subscribe(symbols)
            yield Desk(venue, host, adapter)
        finally:
            await adapter.close()
            await host.stop()
