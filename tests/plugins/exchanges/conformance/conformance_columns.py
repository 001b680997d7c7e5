"""Which adapters the suite tries, one to a column of the table: how each is made and where it connects."""

import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any, Final

from conformance_exchange import open_exchange
from conformance_sites import EngineSite, Site, house_site, protocol_site
from msgspec import Struct

from host.api import ExchangeAdapter, Secret
from plugins.exchanges import binance, bybit, okx, paper
from venue.catalog import INSTRUMENTS
from venue.clock import VenueClock
from venue.hosting import attach
from venue.protocols.accounts import DEMO_ACCOUNTS

__all__ = ["ADAPTERS", "AT_PROTOCOLS", "COLUMNS", "PERPETUAL", "WITHOUT_PERPETUALS", "Column", "site_of"]

DEMO: Final = DEMO_ACCOUNTS[0]
ADAPTERS: Final[Mapping[str, type[ExchangeAdapter[Any]]]] = {
    name: adapter
    for plugin in (binance, okx, bybit, paper)
    for name, adapter in plugin.provide_exchanges().items()
}
_KEYS: Final = {"api_key": Secret(DEMO.api_key), "api_secret": Secret(DEMO.secret)}
_BUSY_MS: Final = 5_000.0
"""This machine may be busy: an idea of the clock that is so wrong is good enough, unless a test is about that."""


class Column(Struct, frozen=True, kw_only=True):
    """One adapter, or one product that it trades."""

    name: str
    """Group and product, as the table heads it."""
    exchange: str
    """What a configuration calls it."""
    symbol: str
    wire: str = ""
    """The symbol as the venue spells it."""
    protocol: str = ""
    """What the venue server is to speak; empty for the venue's own adapters."""
    wallet: str = "main"
    qty: Decimal = Decimal("0.02")
    """A usual quantity: four lots at the least."""
    params: Mapping[str, Any] = {}
    market_path: str = ""
    """How the addresses of connections with market data begin, ..."""
    private_path: str = ""
    """... and those of the one with private events."""
    keeps_place: bool = True
    """Whether an amend to a smaller quantity at the same price keeps the place in the queue."""

    @property
    def is_perpetual(self) -> bool:
        """Return whether there are positions."""
        return self.symbol.endswith("-PERP")


_BINANCE: Final = {**_KEYS, "clock_error_ms": _BUSY_MS}
_OKX: Final = {
    **_KEYS,
    "passphrase": Secret(DEMO.passphrase),
    "max_clock_error_ms": _BUSY_MS,
    "answer_timeout_ms": 1_000.0,
}
_BYBIT: Final = {**_KEYS, "clock_error_ms": _BUSY_MS}

_SPOT, _LINEAR, _INVERSE = "BTC-USDT", "BTC-USDT-PERP", "BTC-USD-PERP"

COLUMNS: Final[Mapping[str, Column]] = {
    column.name: column
    for column in (
        Column(
            name="binance spot",
            exchange="binance",
            symbol=_SPOT,
            wire="BTCUSDT",
            protocol="binance",
            wallet="demo/spot",
            params=_BINANCE,
            market_path="/stream",
            private_path="/ws-api",
        ),
        Column(
            name="binance usdm",
            exchange="binance_usdm",
            symbol=_LINEAR,
            wire="BTCUSDT",
            protocol="binance",
            wallet="demo/usdm",
            params=_BINANCE,
            market_path="/public",
            private_path="/private",
            keeps_place=False,
        ),
        *(
            Column(
                name=f"okx {product}",
                exchange="okx",
                symbol=symbol,
                wire=wire,
                protocol="okx",
                wallet="demo/trading",
                qty=qty,
                params=_OKX,
                market_path="/ws/v5/public",
                private_path="/ws/v5/private",
            )
            for product, symbol, wire, qty in (
                ("spot", _SPOT, "BTC-USDT", Decimal("0.02")),
                ("swap", _LINEAR, "BTC-USDT-SWAP", Decimal("0.02")),
                ("inv", _INVERSE, "BTC-USD-SWAP", Decimal(1200)),
            )
        ),
        *(
            Column(
                name=f"bybit {product}",
                exchange="bybit",
                symbol=symbol,
                wire=wire,
                protocol="bybit",
                wallet="demo/unified",
                qty=qty,
                params=_BYBIT,
                market_path="/v5/public",
                private_path="/v5/private",
            )
            for product, symbol, wire, qty in (
                ("spot", _SPOT, "BTCUSDT", Decimal("0.02")),
                ("lin", _LINEAR, "BTCUSDT", Decimal("0.02")),
                ("inv", _INVERSE, "BTCUSD", Decimal(1200)),
            )
        ),
        Column(
            name="paper here",
            exchange="paper",
            symbol=_LINEAR,
            params={"persistent": False, "latency_ms": 0.0, "jitter_ms": 0.0, "symbols": (_SPOT, _LINEAR)},
        ),
        Column(name="paper away", exchange="paper_remote", symbol=_LINEAR),
    )
}

PERPETUAL: Final = tuple(name for name, column in COLUMNS.items() if column.is_perpetual)
WITHOUT_PERPETUALS: Final = tuple(name for name, column in COLUMNS.items() if not column.is_perpetual)
AT_PROTOCOLS: Final = tuple(name for name, column in COLUMNS.items() if column.protocol)


@asynccontextmanager
async def site_of(
    column: Column, shared: dict[str, Any], *, has_rate_limits: bool = False
) -> AsyncIterator[Site]:
    """Open the venue that a column's adapter connects to, until the block ends."""
    if column.protocol:
        async with protocol_site(column.protocol, column.wallet, has_rate_limits=has_rate_limits) as site:
            yield site
    elif column.exchange == "paper_remote":
        with tempfile.TemporaryDirectory() as folder:
            async with house_site(column.wallet, f"{folder}/venue.sock") as site:
                yield site
    else:
        yield _site_in_process(column, shared)


def _site_in_process(column: Column, shared: dict[str, Any]) -> EngineSite:
    """Open the exchange where the adapter will look for it, as the version before it would have left it."""
    clock = VenueClock()
    symbols = column.params["symbols"]
    listed = [INSTRUMENTS[symbol] for symbol in symbols]
    terms = f"market = 'synthetic' (repeat 1), symbols = {symbols}, seed = 1, persistent = False"
    session = attach(shared, terms, lambda: (open_exchange(listed, clock), None))
    return EngineSite(session.host.exchange, clock, column.wallet)
