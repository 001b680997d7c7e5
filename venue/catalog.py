"""What the simulated venue lists, and the crowd that trades each symbol."""

from decimal import Decimal
from typing import Final
from zlib import crc32

import msgspec

from host.api import Instrument, InstrumentKind, PriceBand
from venue.calm import CalmParticipants
from venue.live_market import LiveMarket
from venue.synthetic import PRESETS, SyntheticCrowd, SyntheticParams

__all__ = ["INSTRUMENTS", "calm_market", "synthetic_market"]

_BAND: Final = PriceBand(Decimal("0.8"), Decimal("1.2"))


def _listed() -> dict[str, Instrument]:
    listed = {}
    for spot, _ in PRESETS.values():
        for instrument in (msgspec.structs.replace(spot, price_band=_BAND), _perpetual_of(spot)):
            listed[instrument.symbol] = instrument
    inverse = _inverse_of(PRESETS["BTC-USDT"][0])
    listed[inverse.symbol] = inverse
    return listed


def _perpetual_of(spot: Instrument) -> Instrument:
    return msgspec.structs.replace(
        spot,
        symbol=f"{spot.symbol}-PERP",
        kind=InstrumentKind.LINEAR,
        lot_size=Decimal("0.001"),
        min_qty=Decimal("0.001"),
        price_band=_BAND,
    )


def _inverse_of(spot: Instrument) -> Instrument:
    """Return the perpetual on the same coin in contracts of one dollar, margined and settled in the coin."""
    return msgspec.structs.replace(
        spot,
        symbol=f"{spot.base}-USD-PERP",
        kind=InstrumentKind.INVERSE,
        quote="USD",
        lot_size=Decimal(1),
        min_qty=Decimal(1),
        price_band=_BAND,
        taker_fee=Decimal("0.00055"),
    )


INSTRUMENTS: Final = _listed()
"""By symbol: the presets of the synthetic market, a linear perpetual beside each, and an inverse one on BTC."""


def synthetic_market(
    instrument: Instrument, seed: int, start_ns: int, start_price: Decimal | None = None
) -> LiveMarket:
    """Open a believable market; each symbol has its own stream of chance out of one `seed`."""
    params = _crowd_of(instrument)
    if start_price is not None:
        fair = msgspec.structs.replace(params.fair, start=float(start_price))
        params = msgspec.structs.replace(params, fair=fair)
    return LiveMarket(instrument, SyntheticCrowd(instrument, params, _seed_for(instrument, seed), start_ns))


def calm_market(
    instrument: Instrument, seed: int, start_ns: int, start_price: Decimal | None = None
) -> LiveMarket:
    """Open a market in which little happens."""
    if start_price is None:
        start_price = Decimal(str(_crowd_of(instrument).fair.start))
    crowd = CalmParticipants(instrument, _seed_for(instrument, seed), start_price, start_ns=start_ns)
    return LiveMarket(instrument, crowd)


def _crowd_of(instrument: Instrument) -> SyntheticParams:
    """Return who trades an instrument: the crowd of its preset, which counts contracts where these are dollars."""
    if instrument.kind is not InstrumentKind.INVERSE:
        return PRESETS[f"{instrument.base}-{instrument.quote}"][1]
    params = PRESETS[f"{instrument.base}-USDT"][1]
    return msgspec.structs.replace(params, qty=params.qty * params.fair.start)


def _seed_for(instrument: Instrument, seed: int) -> int:
    return seed << 32 | crc32(instrument.symbol.encode())
