"""What Bybit lists: three products, the names of their symbols there and here, and their rules.

A symbol's name at the venue is unique within one product only: `BTCUSDT` is a spot pair and a
linear perpetual. Here it is `BTC-USDT` and `BTC-USDT-PERP`.
"""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from enum import StrEnum
from typing import Final

import msgspec
from msgspec import Struct

from host.api import Instrument, InstrumentKind, PriceBand

from .._shared.symbols import SymbolTable, tandem_symbol

__all__ = ["EXCHANGE", "InstrumentRow", "Listing", "Listings", "Product", "listing_of", "with_fee"]

EXCHANGE: Final = "bybit"


class Product(StrEnum):
    """Bybit's `category` of a symbol."""

    SPOT = "spot"
    LINEAR = "linear"
    """Perpetuals settled in USDT or USDC."""
    INVERSE = "inverse"
    """Perpetuals settled in the base coin; a contract is worth one US dollar, quantities count dollars."""

    # Enum's own hash is a Python function, and products are looked up with every frame.
    __hash__ = str.__hash__


_PERPETUALS: Final = {"LinearPerpetual": Product.LINEAR, "InversePerpetual": Product.INVERSE}
_TRADING: Final = "Trading"
_ONE: Final = Decimal(1)


class _PriceFilter(Struct, rename="camel"):
    tick_size: Decimal


class _LotSizeFilter(Struct, rename="camel"):
    min_order_qty: Decimal
    max_order_qty: Decimal | None = None
    qty_step: Decimal | None = None
    """Derivatives; spot calls it `basePrecision`."""
    base_precision: Decimal | None = None
    min_notional_value: Decimal | None = None
    """Derivatives; spot calls it `minOrderAmt`."""
    min_order_amt: Decimal | None = None
    max_limit_order_qty: Decimal | None = None


class _RiskParameters(Struct, rename="camel"):
    price_limit_ratio_x: Decimal | None = None
    price_limit_ratio_y: Decimal | None = None


class InstrumentRow(Struct, rename="camel"):
    """One row of `GET /v5/market/instruments-info`."""

    symbol: str
    base_coin: str
    quote_coin: str
    status: str
    contract_type: str = ""
    """Empty for spot and options."""
    options_type: str = ""
    price_filter: _PriceFilter | None = None
    lot_size_filter: _LotSizeFilter | None = None
    risk_parameters: _RiskParameters | None = None


class Listing(Struct, frozen=True):
    """One tradable symbol: where and under which name Bybit has it, and our view of it."""

    product: Product
    venue_symbol: str
    instrument: Instrument

    @property
    def symbol(self) -> str:
        """Return our name of it."""
        return self.instrument.symbol


def listing_of(row: InstrumentRow) -> Listing | None:
    """Return what a row lists; None for what this adapter does not trade.

    That is: dated futures and options, what does not trade at present, and a row without its tick
    or lot.
    """
    product = (
        Product.SPOT if not (row.contract_type or row.options_type) else _PERPETUALS.get(row.contract_type)
    )
    lots, prices = row.lot_size_filter, row.price_filter
    if product is None or row.status != _TRADING or lots is None or prices is None:
        return None
    lot_size = lots.base_precision if product is Product.SPOT else lots.qty_step
    if not lot_size or not prices.tick_size:
        return None
    kind = InstrumentKind(product.value)
    # The venue counts an inverse order's least value in dollars, which are its contracts.
    min_notional = lots.min_order_amt if product is Product.SPOT else lots.min_notional_value
    instrument = Instrument(
        symbol=tandem_symbol(row.base_coin, row.quote_coin, kind),
        kind=kind,
        base=row.base_coin,
        quote=row.quote_coin,
        tick_size=prices.tick_size,
        lot_size=lot_size,
        min_qty=lots.min_order_qty,
        max_qty=lots.max_limit_order_qty or lots.max_order_qty,
        min_notional=min_notional or Decimal(0),
        price_band=_price_band(row.risk_parameters),
    )
    return Listing(product, row.symbol, instrument)


def _price_band(risk: _RiskParameters | None) -> PriceBand | None:
    """Return the range that no order is accepted outside of.

    Bybit bounds a buy from above and a sell from below, by the one ratio or the other as the market
    stands; so the wider one is what may be relied on.
    """
    if risk is None or risk.price_limit_ratio_x is None or risk.price_limit_ratio_y is None:
        return None
    ratio = max(risk.price_limit_ratio_x, risk.price_limit_ratio_y)
    return PriceBand(_ONE - ratio, _ONE + ratio)


class Listings:
    """Every listing, found by our name or by the venue's.

    What vanished is still found, for what the venue says of its orders, but listed no more.
    """

    def __init__(self) -> None:
        self._table = SymbolTable(EXCHANGE)
        self._listings: dict[str, Listing] = {}
        self._symbols: dict[Product, dict[str, str]] = {product: {} for product in Product}

    def replace(self, listings: Iterable[Listing]) -> list[str]:
        """Take over the venue's list; return what is different from the last one, in words.

        Of two symbols that would bear one name here the first is taken.
        """
        taken: dict[str, Listing] = {}
        for listing in listings:
            taken.setdefault(listing.symbol, listing)
        for symbol, listing in taken.items():
            self._listings[symbol] = listing
            self._symbols[listing.product][listing.venue_symbol] = symbol
        return self._table.replace(
            {f"{item.product} {item.venue_symbol}": item.instrument for item in taken.values()}
        )

    @property
    def instruments(self) -> tuple[Instrument, ...]:
        """Return what is listed at present."""
        return tuple(self._table)

    def listed(self, symbol: str) -> Listing:
        """Return a symbol that is listed at present; raise `ExchangeError`, with names like it."""
        self._table.instrument(symbol)
        return self._listings[symbol]

    def known(self, symbol: str) -> Listing:
        """Return a symbol that is or was listed; raise `ExchangeError`."""
        self._table.to_venue(symbol)
        return self._listings[symbol]

    def find(self, product: Product, venue_symbol: str) -> Listing | None:
        """Return what is or was listed under a name of the venue."""
        symbol = self._symbols[product].get(venue_symbol)
        return None if symbol is None else self._listings[symbol]

    def symbols_of(self, product: Product) -> Mapping[str, str]:
        """Return our names of a product's symbols, by the venue's; it follows what `replace` brings."""
        return self._symbols[product]


def with_fee(listing: Listing, rates: tuple[Decimal, Decimal] | None) -> Listing:
    """Return the listing with the account's own (maker, taker) rates, where they are known."""
    if rates is None:
        return listing
    instrument = msgspec.structs.replace(listing.instrument, maker_fee=rates[0], taker_fee=rates[1])
    return msgspec.structs.replace(listing, instrument=instrument)
