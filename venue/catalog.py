"""The instruments of the simulated venue, and where their prices start."""

from decimal import Decimal
from typing import Final

from host.api import Instrument, InstrumentKind, PriceBand

__all__ = ["INSTRUMENTS", "START_PRICES"]

_BAND: Final = PriceBand(Decimal("0.8"), Decimal("1.2"))


def _spot(base: str, tick: str, lot: str) -> Instrument:
    return Instrument(
        symbol=f"{base}-USDT",
        kind=InstrumentKind.SPOT,
        base=base,
        quote="USDT",
        tick_size=Decimal(tick),
        lot_size=Decimal(lot),
        min_qty=Decimal(lot),
        max_qty=Decimal(9000),
        min_notional=Decimal(5),
        price_band=_BAND,
        maker_fee=Decimal("0.0005"),
        taker_fee=Decimal("0.001"),
    )


def _perpetual(base: str, tick: str, lot: str) -> Instrument:
    return Instrument(
        symbol=f"{base}-USDT-PERP",
        kind=InstrumentKind.LINEAR,
        base=base,
        quote="USDT",
        tick_size=Decimal(tick),
        lot_size=Decimal(lot),
        min_qty=Decimal(lot),
        max_qty=Decimal(1000),
        min_notional=Decimal(20),
        price_band=_BAND,
        maker_fee=Decimal("0.0002"),
        taker_fee=Decimal("0.0005"),
    )


INSTRUMENTS: Final = {
    instrument.symbol: instrument
    for instrument in (
        _spot("BTC", "0.01", "0.00001"),
        _spot("ETH", "0.01", "0.0001"),
        _perpetual("BTC", "0.1", "0.001"),
        _perpetual("ETH", "0.01", "0.001"),
    )
}
"""Ticks, lots and fees of the size that the big venues have; the numbers are the paper venue's own."""

START_PRICES: Final = {"BTC": Decimal(60000), "ETH": Decimal(2500)}
