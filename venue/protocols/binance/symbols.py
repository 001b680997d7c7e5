"""What a product lists, under Binance's names and with its number formats."""

from collections.abc import Iterable
from decimal import Decimal
from typing import Final

from host.api import Instrument, InstrumentKind
from venue.protocols.binance.errors import BinanceRefusal
from venue.protocols.binance.params import Params

__all__ = ["Listing", "decimals_of", "fixed"]


class Listing:
    """The instruments of one product by Binance's name (`BTCUSDT`)."""

    def __init__(self, instruments: Iterable[Instrument], kind: InstrumentKind) -> None:
        self.by_name: Final = {f"{each.base}{each.quote}": each for each in instruments if each.kind is kind}
        self._names: Final = {each.symbol: name for name, each in self.by_name.items()}

    def name_of(self, symbol: str) -> str:
        """Return Binance's name of an exchange symbol, empty where the product does not list it."""
        return self._names.get(symbol, "")

    def instrument(self, params: Params) -> Instrument:
        """Return the instrument that a request names; raise for none and for an unknown one."""
        name = params.required("symbol")
        found = self.by_name.get(name)
        if found is None:
            raise BinanceRefusal(-1121, "Invalid symbol.")
        return found

    def currencies(self) -> set[str]:
        """Return every currency of the product."""
        return {c for each in self.by_name.values() for c in (each.base, each.quote)}


def fixed(value: Decimal | float, decimals: int = 8) -> str:
    """Return a number with so many decimals, without exponent."""
    return f"{value:.{decimals}f}"


def decimals_of(step: Decimal) -> int:
    """Return how many decimals a multiple of `step` needs."""
    return max(0, -int(step.normalize().as_tuple().exponent))
