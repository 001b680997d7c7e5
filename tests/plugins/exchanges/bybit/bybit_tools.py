"""What the tests of the Bybit adapter share: listings, and vectors with holes filled in."""

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from host.api import Instrument, InstrumentKind
from plugins.exchanges.bybit.products import Listing, Listings, Product

PLACEHOLDER_VALUES = {
    "symbol": "BTCUSDT",
    "orderId": "1",
    "orderLinkId": "c1",
    "side": "Buy",
    "price": "10",
    "qty": "2",
    "execPrice": "10",
    "execQty": "1",
    "execFee": "0.01",
    "execId": "e1",
    "size": "2",
    "entryPrice": "10",
    "leverage": "5",
    "positionValue": "20",
    "coin": "BTC",
    "retCode": 10001,
    "retMsg": "no",
    "channel": "wallet",
}
"""What stands in for the `<expression>` holes of a vector that was taken from a test's source."""

QUOTES = ("USDT", "USDC", "PERP", "USD")


def only(parameters: list[Any], is_wanted: Callable[[dict[str, Any]], object]) -> list[Any]:
    """Return those test parameters whose vector is wanted; the one that stands for absent vectors stays."""
    return [one for one in parameters if one.marks or is_wanted(one.values[0])]


def filled_in(message: Any, key: str = "") -> Any:
    """Return a vector's message with its holes filled."""
    if isinstance(message, dict):
        return {name: filled_in(value, name) for name, value in message.items()}
    if isinstance(message, list):
        return [filled_in(value, key) for value in message]
    if isinstance(message, str) and message.startswith("<"):
        return PLACEHOLDER_VALUES[key]
    return message


def frame_of(vector: dict[str, Any]) -> bytes:
    """Return a vector's message as the bytes of a frame, its keys in their order."""
    return json.dumps(filled_in(vector["message"]), separators=(",", ":")).encode()


def listing(
    product: Product, venue_symbol: str, *, tick: str = "0.00000001", lot: str = "0.00000001"
) -> Listing:
    """List a symbol of the venue as its name says; `BTCPERP` is settled in USDC."""
    quote = next((name for name in QUOTES if venue_symbol.endswith(name)), "USDT")
    base = venue_symbol.removesuffix(quote)
    quote = "USDC" if quote == "PERP" else quote
    suffix = "" if product is Product.SPOT else "-PERP"
    instrument = Instrument(
        symbol=f"{base}-{quote}{suffix}",
        kind=InstrumentKind(product.value),
        base=base,
        quote=quote,
        tick_size=Decimal(tick),
        lot_size=Decimal(lot),
    )
    return Listing(product, venue_symbol, instrument)


def listings(*venue_symbols: tuple[Product, str]) -> Listings:
    """List symbols of the venue."""
    table = Listings()
    table.replace([listing(product, symbol) for product, symbol in venue_symbols])
    return table
