"""How Bybit names things: products, symbols, orders."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Final
from uuid import UUID

from msgspec import Struct

from host.api import Instrument, InstrumentKind, Side

__all__ = ["SIDES", "Listing", "Product", "Symbols", "number_of", "order_id_of"]


class Product(StrEnum):
    """Bybit's `category`."""

    SPOT = "spot"
    LINEAR = "linear"
    INVERSE = "inverse"


SIDES: Final = {Side.BUY: "Buy", Side.SELL: "Sell"}

_SPOT_IDS_FROM: Final = 2_000_000_000_000_000_000
"""Spot orders are numbered in 19 digits."""
_UUID_MARK: Final = 0x5CF9_8598_39A7_459E_97BF << 48
"""Other orders by UUID; its last 48 bits are the exchange's own number."""


class Listing(Struct, frozen=True):
    """One symbol: its product, Bybit's name and the exchange's instrument."""

    product: Product
    name: str
    instrument: Instrument

    @property
    def symbol(self) -> str:
        """Return the exchange's name of it."""
        return self.instrument.symbol

    @property
    def is_spot(self) -> bool:
        """Return whether it is a spot pair."""
        return self.product is Product.SPOT


class Symbols:
    """Finds what is listed, by product and Bybit's name, or by the exchange's name."""

    def __init__(self, instruments: Iterable[Instrument]) -> None:
        self._listed: dict[tuple[Product, str], Listing] = {}
        self._by_symbol: dict[str, Listing] = {}
        for instrument in instruments:
            listing = Listing(Product(instrument.kind.value), _name_of(instrument), instrument)
            self._listed[listing.product, listing.name] = listing
            self._by_symbol[instrument.symbol] = listing

    def find(self, category: str, name: str) -> Listing | None:
        """Return a symbol of a product, None where it is not listed or no such product exists."""
        return self._listed.get((Product(category), name)) if category in set(Product) else None

    def of(self, symbol: str) -> Listing:
        """Return a symbol by the exchange's name; raise KeyError."""
        return self._by_symbol[symbol]

    def in_product(self, product: Product) -> list[Listing]:
        """Return what a product lists."""
        return [listing for listing in self._by_symbol.values() if listing.product is product]

    @property
    def currencies(self) -> set[str]:
        """Return every currency that something is traded in."""
        return {
            coin
            for item in self._by_symbol.values()
            for coin in (item.instrument.base, item.instrument.quote)
        }


def _name_of(instrument: Instrument) -> str:
    if instrument.kind is InstrumentKind.LINEAR and instrument.quote == "USDC":
        return f"{instrument.base}PERP"
    return f"{instrument.base}{instrument.quote}"


def order_id_of(product: Product, number: int) -> str:
    """Return how Bybit writes the exchange's order number."""
    if product is Product.SPOT:
        return str(_SPOT_IDS_FROM + number)
    return str(UUID(int=_UUID_MARK | number))


def number_of(order_id: str) -> int | None:
    """Return the exchange's number of an order id; None for what was never one."""
    if order_id.isdecimal():
        number = int(order_id) - _SPOT_IDS_FROM
        return number if number > 0 else None
    try:
        value = UUID(order_id).int
    except ValueError:
        return None
    return value & 0xFFFF_FFFF_FFFF if value >> 48 << 48 == _UUID_MARK else None
