"""What OKX lists: spot pairs and perpetual swaps, the names and units of both there and here.

OKX counts a swap in contracts. A contract of a linear swap is worth `ctVal` of the base coin, and
here its quantity is in the base coin, as on any other venue; one of an inverse swap is worth `ctVal`
US dollars, and here too the quantity is in contracts.
"""

from collections.abc import Iterable
from decimal import Decimal
from typing import Final

import msgspec
from msgspec import Struct

from host.api import ExchangeError, Instrument, InstrumentKind

from .._shared.symbols import SymbolTable, tandem_symbol
from .frames import BadFrame, amount

__all__ = [
    "EXCHANGE",
    "PRODUCTS",
    "InstrumentRow",
    "Listing",
    "Listings",
    "MarketName",
    "listing_of",
    "with_fee",
]

EXCHANGE: Final = "okx"
PRODUCTS: Final = ("SPOT", "SWAP")
"""The `instType`s that are traded here."""
_LIVE: Final = "live"
_KINDS: Final = {"linear": InstrumentKind.LINEAR, "inverse": InstrumentKind.INVERSE}
_ONE: Final = Decimal(1)


class InstrumentRow(Struct, rename="camel"):
    """One row of `GET /api/v5/public/instruments`, and of the `instruments` channel."""

    inst_id: str
    inst_type: str
    state: str
    tick_sz: str
    lot_sz: str
    min_sz: str
    max_lmt_sz: str = ""
    base_ccy: str = ""
    quote_ccy: str = ""
    settle_ccy: str = ""
    ct_type: str = ""
    ct_val: str = ""
    ct_mult: str = ""
    uly: str = ""
    inst_family: str = ""
    inst_id_code: int | str | None = None
    """What WebSocket order entry names the instrument by (2026); absent in older answers."""
    group_id: str = ""
    """Which of the account's fee groups it belongs to."""


class Listing(Struct, frozen=True):
    """One tradable instrument: where and under which name OKX has it, and our view of it."""

    product: str
    inst_id: str
    instrument: Instrument
    unit: Decimal = _ONE
    """How much of our quantity one of the venue's is: a linear swap's contract in base coin, else 1."""
    code: int | None = None
    """The venue's `instIdCode`."""
    group: str = ""

    @property
    def symbol(self) -> str:
        """Return our name of it."""
        return self.instrument.symbol

    @property
    def is_spot(self) -> bool:
        """Return whether it is a spot pair."""
        return self.instrument.kind is InstrumentKind.SPOT

    def size_text(self, qty: Decimal) -> str:
        """Write a quantity of ours as the venue's `sz`."""
        return f"{qty if self.unit == 1 else (qty / self.unit).normalize():f}"

    def qty(self, size: str) -> Decimal:
        """Read the venue's `sz` as a quantity of ours; raise `BadFrame`."""
        value = amount(size)
        return value if self.unit == 1 else value * self.unit


class MarketName(Struct, frozen=True, gc=False):
    """What decoding market data has to know of an instrument: looked up with every message."""

    inst_id: str
    symbol: str
    scale: float
    """How much of our quantity one of the venue's is."""
    is_spot: bool


def listing_of(row: InstrumentRow) -> Listing | None:
    """Return what a row lists; None for what this adapter does not trade, or not at present.

    Raises `BadFrame` for a row whose numbers make no sense.
    """
    if row.inst_type not in PRODUCTS or row.state != _LIVE:
        return None
    if row.inst_type == "SPOT":
        kind, base, quote, value = InstrumentKind.SPOT, row.base_ccy, row.quote_ccy, _ONE
    else:
        if row.ct_type not in _KINDS:
            return None
        kind = _KINDS[row.ct_type]
        base, _, quote = (row.uly or row.inst_family).partition("-")
        value = amount(row.ct_val) * (amount(row.ct_mult) or _ONE)
    unit = value if kind is InstrumentKind.LINEAR else _ONE
    tick, lot = amount(row.tick_sz), amount(row.lot_sz)
    if not (base and quote and tick > 0 and lot > 0 and value > 0):
        raise BadFrame(
            "bad instrument",
            f"{row.inst_id}: expected two currencies, tick, lot and contract value above 0, was "
            f"{base!r}-{quote!r}, {row.tick_sz!r}, {row.lot_sz!r}, {row.ct_val!r}",
        )
    largest = amount(row.max_lmt_sz)
    instrument = Instrument(
        symbol=tandem_symbol(base, quote, kind),
        kind=kind,
        base=base,
        quote=quote,
        tick_size=tick,
        lot_size=lot * unit,
        min_qty=amount(row.min_sz) * unit,
        max_qty=largest * unit if largest > 0 else None,
        contract_size=value if kind is InstrumentKind.INVERSE else _ONE,
    )
    return Listing(row.inst_type, row.inst_id, instrument, unit, _code_of(row), row.group_id)


def _code_of(row: InstrumentRow) -> int | None:
    code = row.inst_id_code
    if isinstance(code, str):
        return int(code) if code.isascii() and code.isdigit() else None
    return code


def with_fee(listing: Listing, maker: Decimal, taker: Decimal) -> Listing:
    """Return the listing with the account's own rates, positive when paid."""
    instrument = msgspec.structs.replace(listing.instrument, maker_fee=maker, taker_fee=taker)
    return msgspec.structs.replace(listing, instrument=instrument)


class Listings:
    """Every listing, found by our symbol or by the venue's `instId`.

    What vanished is still found, for what the venue says of its orders, but listed no more.
    """

    def __init__(self) -> None:
        self._table: Final = SymbolTable(EXCHANGE)
        self._by_id: Final[dict[str, Listing]] = {}
        self.market_names: Final[dict[str, MarketName]] = {}
        """By the venue's `instId`; it follows what `replace` brings."""

    def replace(self, listings: Iterable[Listing]) -> list[str]:
        """Take over the venue's list; return what is different from the last one, in words."""
        taken = {listing.inst_id: listing for listing in listings}
        self._by_id.update(taken)
        for inst_id, listing in taken.items():
            name = MarketName(inst_id, listing.symbol, float(listing.unit), listing.is_spot)
            self.market_names[inst_id] = name
        return self._table.replace({inst_id: listing.instrument for inst_id, listing in taken.items()})

    @property
    def instruments(self) -> tuple[Instrument, ...]:
        """Return what is listed at present."""
        return tuple(self._table)

    def listed(self, symbol: str) -> Listing:
        """Return what is listed at present; raise `ExchangeError`, with names like it."""
        self._table.instrument(symbol)
        return self._by_id[self._table.to_venue(symbol)]

    def known(self, symbol: str) -> Listing:
        """Return what is or was listed; raise `ExchangeError`."""
        return self._by_id[self._table.to_venue(symbol)]

    def find(self, inst_id: str) -> Listing | None:
        """Return what is or was listed under the venue's name."""
        return self._by_id.get(inst_id)

    def expect(self, inst_id: str) -> Listing:
        """Return what is or was listed under the venue's name; raise `ExchangeError`."""
        listing = self._by_id.get(inst_id)
        if listing is None:
            raise ExchangeError(f"{EXCHANGE}: the venue spoke of {inst_id!r}, which it does not list")
        return listing
