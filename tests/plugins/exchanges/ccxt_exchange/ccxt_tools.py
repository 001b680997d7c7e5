"""The ccxt adapter connected to a venue in this process, as a node would have it."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from decimal import Decimal
from typing import Any

import msgspec
from binance_venue import DEMO, binance_venue
from bybit_venue import bybit_venue
from exchange_tools import FakeHost, eventually
from msgspec import Struct
from okx_venue import okx_venue

from host.api import (
    AmendOrder,
    BookTop,
    CancelOrder,
    Command,
    Depth,
    OrderType,
    PlaceOrder,
    Secret,
    Side,
    TimeInForce,
)
from plugins.exchanges.ccxt_exchange import CcxtExchange
from plugins.exchanges.ccxt_exchange.params import CcxtParams, Product

WINDOW_NS = 20_000_000_000
"""This machine may be busy."""
SYMBOLS = {"spot": "BTC-USDT", "linear": "BTC-USDT-PERP", "inverse": "BTC-USD-PERP"}
QTY = {"spot": Decimal("0.02"), "linear": Decimal("0.02"), "inverse": Decimal(100)}


class Site(Struct, frozen=True):
    """One product at one venue."""

    venue: str
    """ccxt's name of it."""
    product: str
    serve: Callable[[], AbstractAsyncContextManager[Any]]
    wallet: str

    @property
    def symbol(self) -> str:
        return SYMBOLS[self.product]

    @property
    def protocol(self) -> str:
        return self.venue.removesuffix("usdm")


SITES = {
    f"{site.venue} {site.product}": site
    for site in (
        Site("binance", "spot", binance_venue, "demo/spot"),
        Site("binanceusdm", "linear", binance_venue, "demo/usdm"),
        *(Site("okx", product, okx_venue, "demo/trading") for product in SYMBOLS),
        *(Site("bybit", product, bybit_venue, "demo/unified") for product in SYMBOLS),
    )
}


class Desk(Struct):
    """An adapter, its host and its venue."""

    site: Site
    venue: Any
    host: FakeHost
    adapter: CcxtExchange

    @property
    def symbol(self) -> str:
        return self.site.symbol

    def best(self) -> tuple[Decimal, Decimal]:
        bid, ask = self.venue.exchange.best(self.symbol)
        assert bid is not None and ask is not None
        return bid, ask

    def place(self, client_id: str, side: Side = Side.BUY, **terms: Any) -> PlaceOrder:
        """Send a limit order 100 away from the best price, unless the terms say otherwise; return it."""
        bid, ask = self.best()
        away = bid - 100 if side is Side.BUY else ask + 100
        place = PlaceOrder(
            client_id,
            self.symbol,
            side,
            OrderType.LIMIT,
            TimeInForce.GTC,
            away,
            QTY[self.site.product],
            False,
            False,
        )
        place = msgspec.structs.replace(place, **terms)
        self.send(place)
        return place

    def amend(self, place: PlaceOrder, price: Decimal, qty: Decimal) -> None:
        self.send(AmendOrder(place.client_id, place.symbol, place.side, price, qty))

    def cancel(self, place: PlaceOrder) -> None:
        self.send(CancelOrder(place.client_id, place.symbol))

    def send(self, command: Command) -> None:
        self.adapter.send(command, self.host.now_ns() + WINDOW_NS)

    def lines(self, *kinds: str) -> list[Any]:
        """Return the venue's log of requests of these kinds."""
        return [line for line in self.venue.server.requests.lines if line.kind in kinds]

    def fault(self, kind: str, **fields: Any) -> None:
        """Have the venue misbehave."""
        from venue.protocols.faults import Fault, FaultKind

        self.venue.server.faults.add(Fault(protocol=self.site.protocol, kind=FaultKind(kind), **fields))


def params_at(site: Site, url: str, **params: Any) -> CcxtParams:
    """Return the parameters of the demo account."""
    usual: dict[str, Any] = {
        "venue": site.venue,
        "product": Product(site.product),
        "url": url,
        "api_key": Secret(DEMO.api_key),
        "api_secret": Secret(DEMO.secret),
        "passphrase": Secret(DEMO.passphrase) if site.venue == "okx" else None,
        "rate_limit": False,
        "account_every_ms": 50.0,
        "book_every_ms": 50.0,
    }
    return CcxtParams(**(usual | params))


def url_of(venue: Any) -> str:
    return str(getattr(venue, "rest_url", None) or venue.url)


@asynccontextmanager
async def desk(name: str, *, has_books: bool = True, **params: Any) -> AsyncIterator[Desk]:
    """Open a venue and an adapter that follows the site's symbol there."""
    site = SITES[name]
    async with site.serve() as venue:
        host = FakeHost()
        adapter = CcxtExchange(params_at(site, url_of(venue), **params))
        adapter.ctx = host
        try:
            await adapter.connect()
            await adapter.subscribe([site.symbol])
            if has_books:
                await eventually(lambda: host.of(Depth) and host.of(BookTop), "books")
            yield Desk(site, venue, host, adapter)
        finally:
            await adapter.close()
            await host.stop()
