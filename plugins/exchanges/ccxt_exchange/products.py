"""The markets of ccxt as instruments, and quantities between us and the venue."""

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from msgspec import Struct

from host.api import ExchangeError, Instrument, InstrumentKind

from .._shared.symbols import step_of, tandem_symbol
from .library import Client
from .numbers import BadData, as_float, decimal_of, number_of
from .params import EXCHANGE, Product

__all__ = ["Listing", "Listings", "listings_of"]

_DECIMAL_PLACES, _TICK_SIZE = 2, 4
"""Ways in which ccxt states precision (`ccxt.base.decimal_to_precision`)."""
_KINDS: Final = {
    Product.SPOT: InstrumentKind.SPOT,
    Product.LINEAR: InstrumentKind.LINEAR,
    Product.INVERSE: InstrumentKind.INVERSE,
}
_CURRENCY: Final = re.compile(r"[A-Z0-9]+")


class Listing(Struct, frozen=True):
    """One instrument. `wire` is ccxt's symbol; a contract of a linear perpetual is worth `per_contract` of base."""

    instrument: Instrument
    wire: str
    per_contract: Decimal

    @property
    def symbol(self) -> str:
        """Return our symbol."""
        return self.instrument.symbol

    def sent_qty(self, qty: Decimal) -> float:
        """Return a quantity as the venue counts it; raise `ExchangeError`."""
        return as_float(qty / self.per_contract, f"{self.symbol}: the quantity")

    def qty(self, value: Any, what: str) -> Decimal:
        """Return a quantity of the venue as we count it; raise `BadData`."""
        return number_of(value, what) * self.per_contract


class Listings:
    """What is listed, by our symbol and by ccxt's; a symbol that vanished is still known."""

    def __init__(self) -> None:
        self._listed: dict[str, Listing] = {}
        self._known: dict[str, Listing] = {}
        self._by_wire: dict[str, Listing] = {}

    def replace(self, listings: Mapping[str, Listing]) -> list[str]:
        """Take over the venue's list; return what changed, in words."""
        before, self._listed = self._listed, dict(listings)
        self._known |= listings
        self._by_wire |= {listing.wire: listing for listing in listings.values()}
        if not before:
            return []
        return [
            *(f"{symbol} is no longer listed" for symbol in before.keys() - listings.keys()),
            *(f"{symbol} is new" for symbol in listings.keys() - before.keys()),
            *(f"{s} has other terms" for s in before.keys() & listings.keys() if before[s] != listings[s]),
        ]

    @property
    def instruments(self) -> list[Instrument]:
        """Return what may be traded."""
        return [listing.instrument for listing in self._listed.values()]

    def listed(self, symbol: str) -> Listing:
        """Return what may be traded; raise `ExchangeError`, which names symbols like it."""
        try:
            return self._listed[symbol]
        except KeyError:
            base = symbol.partition("-")[0]
            near = (
                ", ".join(sorted(s for s in self._listed if s.startswith(f"{base}-"))[:5]) or "none like it"
            )
            raise ExchangeError(
                f"{EXCHANGE}: symbols must be listed and trading there, was {symbol} (there are: {near})"
            ) from None

    def known(self, symbol: str) -> Listing:
        """Return what is or was listed; raise `ExchangeError`."""
        try:
            return self._known[symbol]
        except KeyError:
            raise ExchangeError(f"{EXCHANGE}: lists no {symbol}, nothing was sent") from None

    def by_wire(self, wire: Any) -> Listing | None:
        """Return what ccxt calls `wire`, None where that is not one of ours."""
        return self._by_wire.get(wire)


def listings_of(client: Client, product: Product) -> dict[str, Listing]:
    """Return the markets of a product that can be traded, by our symbol; raise `ExchangeError` for none."""
    found = {}
    for market in client.markets.values():
        if not _is_of(market, product):
            continue
        try:
            listing = _listing(market, product, client.precisionMode)
        except BadData:
            continue  # ccxt does not know the venue's steps: an order could only be guessed
        found[listing.symbol] = listing
    if not found:
        raise ExchangeError(
            f"{EXCHANGE}: {client.id} lists no {product} market with known price and quantity steps"
        )
    return found


def _is_of(market: Mapping[str, Any], product: Product) -> bool:
    if market.get("active") is False:
        return False
    if not _CURRENCY.fullmatch(str(market["base"])) or not _CURRENCY.fullmatch(str(market["quote"])):
        return False
    if product is Product.SPOT:
        return bool(market.get("spot"))
    return bool(market.get("swap")) and bool(market.get(product.value))


def _listing(market: Mapping[str, Any], product: Product, precision_mode: int) -> Listing:
    kind, symbol = _KINDS[product], market["symbol"]
    size = Decimal(1) if product is Product.SPOT else decimal_of(market.get("contractSize"), "contractSize")
    per_contract = size if product is Product.LINEAR else Decimal(1)
    amounts, costs = (market["limits"].get(name) or {} for name in ("amount", "cost"))
    instrument = Instrument(
        symbol=tandem_symbol(market["base"], market["quote"], kind),
        kind=kind,
        base=market["base"],
        quote=market["quote"],
        tick_size=_step(market["precision"].get("price"), precision_mode, f"{symbol}: the tick"),
        lot_size=_step(market["precision"].get("amount"), precision_mode, f"{symbol}: the lot")
        * per_contract,
        min_qty=number_of(amounts.get("min"), f"{symbol}: the least quantity") * per_contract,
        max_qty=_most(amounts.get("max"), per_contract),
        min_notional=number_of(costs.get("min"), f"{symbol}: the least cost"),
        contract_size=size if product is Product.INVERSE else Decimal(1),
        maker_fee=number_of(market.get("maker"), f"{symbol}: the maker's fee"),
        taker_fee=number_of(market.get("taker"), f"{symbol}: the taker's fee"),
    )
    return Listing(instrument, symbol, per_contract)


def _step(value: Any, precision_mode: int, what: str) -> Decimal:
    found = decimal_of(value, what)
    if precision_mode == _DECIMAL_PLACES:
        return step_of(int(found))
    if precision_mode != _TICK_SIZE or found <= 0:
        raise BadData(f"{EXCHANGE}: {what} is in significant digits, which is no step")
    return found


def _most(value: Any, per_contract: Decimal) -> Decimal | None:
    return None if value is None else decimal_of(value, "the largest quantity") * per_contract
