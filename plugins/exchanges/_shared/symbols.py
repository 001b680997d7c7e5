"""The venue's instruments under our symbols: BASE-QUOTE for spot, BASE-QUOTE-PERP for perpetuals."""

from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal

from host.api import ExchangeError, Instrument, InstrumentKind

__all__ = ["SymbolTable", "step_of", "tandem_symbol"]


def tandem_symbol(base: str, quote: str, kind: InstrumentKind) -> str:
    """Return how Tandem writes an instrument, in capitals."""
    suffix = "" if kind is InstrumentKind.SPOT else "-PERP"
    return f"{base}-{quote}{suffix}".upper()


def step_of(decimals: int) -> Decimal:
    """Return the smallest step with so many decimals: 2 gives 0.01."""
    return Decimal(1).scaleb(-decimals)


class SymbolTable:
    """Every listed instrument by our symbol and by the venue's.

    A venue may list an instrument, change its filters or take it away while we run: `replace` says
    what is different. A symbol that vanished is still translated, for what the venue says of its
    orders, but no longer listed.
    """

    def __init__(self, exchange: str) -> None:
        self._exchange = exchange
        self._listed: dict[str, Instrument] = {}
        self._to_venue: dict[str, str] = {}
        self._to_tandem: dict[str, str] = {}

    def __iter__(self) -> Iterator[Instrument]:
        return iter(self._listed.values())

    def __contains__(self, symbol: str) -> bool:
        return symbol in self._listed

    def replace(self, instruments: Mapping[str, Instrument]) -> list[str]:
        """Take over the venue's list, by the venue's symbol; return what changed, in words."""
        before, self._listed = self._listed, {item.symbol: item for item in instruments.values()}
        for wire, item in instruments.items():
            self._to_venue[item.symbol] = wire
            self._to_tandem[wire] = item.symbol
        return list(_differences(before, self._listed)) if before else []

    def instrument(self, symbol: str) -> Instrument:
        """Return a listed instrument; raise `ExchangeError`."""
        try:
            return self._listed[symbol]
        except KeyError:
            near = ", ".join(_near(symbol, self._listed)) or "none like it"
            raise ExchangeError(
                f"{self._exchange}: symbols must be listed and trading there, was {symbol} (there are: {near})"
            ) from None

    def to_venue(self, symbol: str) -> str:
        """Return the venue's name of our symbol; raise `ExchangeError` for one that it never listed."""
        try:
            return self._to_venue[symbol]
        except KeyError:
            raise ExchangeError(f"{self._exchange}: lists no {symbol}, nothing was sent") from None

    def to_tandem(self, wire: str) -> str | None:
        """Return our name of a venue's symbol, None for one that it never listed."""
        return self._to_tandem.get(wire)


def _near(symbol: str, listed: Iterable[str]) -> list[str]:
    base = symbol.partition("-")[0]
    return sorted(name for name in listed if name.startswith(f"{base}-"))[:5]


def _differences(before: Mapping[str, Instrument], after: Mapping[str, Instrument]) -> Iterator[str]:
    for symbol in before.keys() - after.keys():
        yield f"{symbol} is no longer listed"
    for symbol in after.keys() - before.keys():
        yield f"{symbol} is new"
    for symbol in before.keys() & after.keys():
        if before[symbol] != after[symbol]:
            yield f"{symbol} has other terms"
