"""A venue on the wall clock whose books stand still, and the real clients' URLs led to it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from protocol_tools import PERPETUAL, SPOT, Binance, D, Venue, open_protocols

from venue.clock import VenueClock

SPOT_PRICE, FUTURES_PRICE = 20_000, 20_100
ETHER = msgspec.structs.replace(SPOT, symbol="ETH-USDT", base="ETH", tick_size=D("0.01"))


@asynccontextmanager
async def still_venue() -> AsyncIterator[Venue]:
    """Open a venue in which `other` quotes both books: 10 either side of the price, a lot of 5."""
    async with open_protocols(instruments=[SPOT, ETHER, PERPETUAL], clock=VenueClock()) as venue:
        other = Binance(venue, "other")
        for place, middle in ((other.place, SPOT_PRICE), (other.place_usdm, FUTURES_PRICE)):
            assert (await place("BUY", str(middle - 10), "5")).status == 200
            assert (await place("SELL", str(middle + 10), "5")).status == 200
        yield venue


def led_to(urls: Any, venue: Venue, *, is_ccxt: bool = False) -> Any:
    """Return a client's URLs with their host replaced by the venue's, paths as they were.

    ccxt tells spot's market streams from the futures' by a host that begins with `stream`: for it
    that part stays, as a user name.
    """
    if isinstance(urls, dict):
        return {name: led_to(url, venue, is_ccxt=is_ccxt) for name, url in urls.items()}
    scheme, _, rest = urls.partition("://")
    host, slash, path = rest.partition("/")
    user = "stream@" if is_ccxt and host.startswith("stream.") else ""
    address = venue.server.addresses["binance"]
    return f"{'ws' if scheme == 'wss' else 'http'}://{user}{address}{slash}{path}"
