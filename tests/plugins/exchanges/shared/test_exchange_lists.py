"""Each adapter reads its venue's list of instruments again and hands the whole of it to the host."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from binance_venue import binance_venue
from bybit_venue import bybit_venue
from exchange_tools import FakeHost, eventually, story
from okx_venue import okx_venue

from host.api import ExchangeAdapter, Secret
from plugins.exchanges.binance.adapter import BinanceSpot, BinanceUsdm
from plugins.exchanges.binance.params import BinanceParams, BinanceUsdmParams
from plugins.exchanges.bybit import Bybit
from plugins.exchanges.bybit.params import BybitParams
from plugins.exchanges.okx import Okx
from plugins.exchanges.okx.params import OkxParams
from venue.protocols.accounts import DEMO_ACCOUNTS

DEMO = DEMO_ACCOUNTS[0]
KEYS: dict[str, Any] = {"api_key": Secret(DEMO.api_key), "api_secret": Secret(DEMO.secret)}
SOON = {"instruments_every_s": 0.05}
Make = Callable[[str], ExchangeAdapter[Any]]
Serve = Callable[[], AbstractAsyncContextManager[Any]]

ADAPTERS: dict[str, tuple[Serve, str, Make]] = {
    "binance": (
        binance_venue, "BTC-USDT", lambda url: BinanceSpot(BinanceParams(**KEYS, **SOON, url=url)),
    ),
    "binance_usdm": (
        binance_venue, "BTC-USDT-PERP", lambda url: BinanceUsdm(BinanceUsdmParams(**KEYS, **SOON, url=url)),
    ),
    "okx": (
        okx_venue,
        "BTC-USDT",
        lambda url: Okx(
            OkxParams(**KEYS, passphrase=Secret(DEMO.passphrase), reload_instruments_every_s=0.05, url=url)
        ),
    ),
    "bybit": (bybit_venue, "BTC-USDT", lambda url: Bybit(BybitParams(**KEYS, **SOON, url=url))),
}  # fmt: skip


@pytest.mark.parametrize("name", ADAPTERS)
def test_the_list_is_handed_over_again_and_again_as_it_was_at_the_start(name: str) -> None:
    serve, symbol, make = ADAPTERS[name]

    @story
    async def run() -> None:
        async with serve() as venue:
            host, adapter = FakeHost(), make(f"http://{next(iter(venue.server.addresses.values()))}")
            adapter.ctx = host
            try:
                listed = await adapter.connect()
                assert host.lists == []
                await adapter.subscribe([symbol])
                await eventually(lambda: len(host.lists) >= 2, "the list, twice")
                assert [set(each) for each in host.lists[:2]] == [set(listed)] * 2
            finally:
                await adapter.close()
                await host.stop()

    run()
