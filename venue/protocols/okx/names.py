"""How OKX names and counts things: products, instruments, contracts, orders."""

from collections.abc import Iterable
from decimal import Decimal
from typing import Final

from msgspec import Struct

from host.api import Instrument, InstrumentKind

__all__ = ["PRODUCTS", "Listing", "Symbols", "number_of", "order_id_of", "text"]

PRODUCTS: Final = ("SPOT", "SWAP")
_IDS_FROM: Final = 2_600_000_000_000_000_000
"""Orders are numbered in 19 digits."""
_CONTRACTS: Final = {"BTC": Decimal("0.01"), "ETH": Decimal("0.1")}
"""What one contract of a linear swap is of the base coin."""
_ONE: Final = Decimal(1)


class Listing(Struct, frozen=True):
    """One instrument: its product, OKX's name and number of it, and the exchange's instrument."""

    product: str
    name: str
    code: int
    instrument: Instrument
    unit: Decimal
    """How much of the exchange's quantity one of OKX's is."""

    @property
    def symbol(self) -> str:
        """Return the exchange's name of it."""
        return self.instrument.symbol

    @property
    def is_spot(self) -> bool:
        """Return whether it is a spot pair."""
        return self.product == "SPOT"

    @property
    def family(self) -> str:
        """Return the underlying: base and quote."""
        return f"{self.instrument.base}-{self.instrument.quote}"

    def size(self, qty: Decimal) -> str:
        """Write a quantity of the exchange as OKX counts it."""
        return text(qty if self.unit == 1 else qty / self.unit)

    def size_of(self, qty: float) -> str:
        """Write a public quantity as OKX counts it."""
        return text(qty if self.unit == 1 else Decimal(repr(qty)) / self.unit)


class Symbols:
    """Finds what is listed, by OKX's name or number, or by the exchange's name."""

    def __init__(self, instruments: Iterable[Instrument]) -> None:
        self._by_name: Final[dict[str, Listing]] = {}
        self._by_code: Final[dict[int, Listing]] = {}
        self._by_symbol: Final[dict[str, Listing]] = {}
        for code, instrument in enumerate(instruments, 1):
            is_spot = instrument.kind is InstrumentKind.SPOT
            name = f"{instrument.base}-{instrument.quote}" + ("" if is_spot else "-SWAP")
            is_linear = instrument.kind is InstrumentKind.LINEAR
            unit = _CONTRACTS.get(instrument.base, _ONE) if is_linear else _ONE
            listing = Listing("SPOT" if is_spot else "SWAP", name, code, instrument, unit)
            self._by_name[name] = self._by_code[code] = self._by_symbol[instrument.symbol] = listing

    def find(self, name: object, code: object = None) -> Listing | None:
        """Return what is listed under a number, if one is given, or else under a name."""
        if code is not None and code != "":
            number = str(code)
            return self._by_code.get(int(number)) if number.isdecimal() else None
        return self._by_name.get(str(name))

    def of(self, symbol: str) -> Listing:
        """Return an instrument by the exchange's name; raise KeyError."""
        return self._by_symbol[symbol]

    def in_product(self, product: str) -> list[Listing]:
        """Return what a product lists."""
        return [listing for listing in self._by_symbol.values() if listing.product == product]

    @property
    def currencies(self) -> set[str]:
        """Return every currency that something is traded in."""
        listed = [listing.instrument for listing in self._by_symbol.values()]
        return {currency for item in listed for currency in (item.base, item.quote)}


def order_id_of(number: int) -> str:
    """Return how OKX writes the exchange's order number."""
    return str(_IDS_FROM + number)


def number_of(order_id: str) -> int | None:
    """Return the exchange's number of an order id; None for what was never one."""
    if not (order_id.isascii() and order_id.isdecimal()):
        return None
    number = int(order_id) - _IDS_FROM
    return number if number > 0 else None


def text(value: Decimal | float) -> str:
    """Write a number in plain digits, without zeros at its end."""
    number = value if isinstance(value, Decimal) else Decimal(repr(value))
    return f"{number.normalize():f}" if number else "0"
