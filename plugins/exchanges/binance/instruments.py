"""Binance's exchangeInfo: instruments with their filters, and the venue's rate limits."""

import logging
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

import msgspec
from msgspec import Struct

from host.api import Instrument, InstrumentKind, PriceBand

from .._shared.numbers import require_finite
from .._shared.symbols import step_of, tandem_symbol

__all__ = ["ExchangeInfo", "RateLimit", "decode_exchange_info", "instruments_of"]

_log = logging.getLogger("tandem.exchange")
_ZERO: Final = Decimal(0)
_S: Final = 1_000_000_000
_INTERVALS: Final = {"SECOND": _S, "MINUTE": 60 * _S, "HOUR": 3600 * _S, "DAY": 86_400 * _S}


class RateLimit(Struct):
    """One of the venue's limits, in an answer with what is used of it."""

    rateLimitType: str = ""  # noqa: N815
    interval: str = ""
    intervalNum: int = 0  # noqa: N815
    limit: int = 0
    count: int | None = None

    @property
    def name(self) -> str:
        """A name that tells it from the others."""
        return f"{self.rateLimitType} {self.intervalNum} {self.interval}"

    @property
    def interval_ns(self) -> int:
        """How long it counts; 0 for an interval that we do not know."""
        return _INTERVALS.get(self.interval, 0) * self.intervalNum


class _Symbol(Struct):
    symbol: str
    status: str
    baseAsset: str  # noqa: N815
    quoteAsset: str  # noqa: N815
    filters: list[dict[str, Any]] = []
    contractType: str = ""  # noqa: N815
    pricePrecision: int | None = None  # noqa: N815
    quantityPrecision: int | None = None  # noqa: N815
    quotePrecision: int = 8  # noqa: N815
    baseAssetPrecision: int = 8  # noqa: N815
    isSpotTradingAllowed: bool = True  # noqa: N815
    contractSize: Decimal = Decimal(1)  # noqa: N815


class ExchangeInfo(Struct):
    """What is listed and what is allowed."""

    symbols: list[_Symbol]
    rateLimits: list[RateLimit] = []  # noqa: N815


decode_exchange_info: Final = msgspec.json.Decoder(ExchangeInfo, strict=False).decode


def instruments_of(
    info: ExchangeInfo, kind: InstrumentKind, maker_fee: Decimal, taker_fee: Decimal
) -> dict[str, Instrument]:
    """Return what can be traded, by the venue's symbol. Delivery contracts are left out."""
    out = {}
    for item in info.symbols:
        if item.status != "TRADING" or not item.isSpotTradingAllowed:
            continue
        if kind is not InstrumentKind.SPOT and item.contractType not in ("PERPETUAL", "TRADIFI_PERPETUAL"):
            continue
        try:
            out[item.symbol] = _instrument(item, kind, maker_fee, taker_fee)
        except (ArithmeticError, ValueError) as error:
            _log.warning("%s is left out, its filters cannot be read: %s", item.symbol, error)
    return out


def _instrument(item: _Symbol, kind: InstrumentKind, maker_fee: Decimal, taker_fee: Decimal) -> Instrument:
    filters = {str(entry.get("filterType")): entry for entry in item.filters}
    price, lot = filters.get("PRICE_FILTER", {}), filters.get("LOT_SIZE", {})
    notional = filters.get("NOTIONAL") or filters.get("MIN_NOTIONAL") or {}
    places = item.pricePrecision if item.pricePrecision is not None else item.quotePrecision
    digits = item.quantityPrecision if item.quantityPrecision is not None else item.baseAssetPrecision
    # A tick or step of 0 means "no such rule"; the precision of the numbers still holds.
    tick = _number(price, "tickSize") or step_of(places)
    step = _number(lot, "stepSize") or step_of(digits)
    if tick <= _ZERO or step <= _ZERO:
        raise ValueError(f"tick and step must be above 0, were {tick} and {step}")
    return Instrument(
        symbol=tandem_symbol(item.baseAsset, item.quoteAsset, kind),
        kind=kind,
        base=item.baseAsset,
        quote=item.quoteAsset,
        tick_size=tick,
        lot_size=step,
        min_qty=_number(lot, "minQty"),
        max_qty=_number(lot, "maxQty") or None,
        min_notional=_number(notional, "minNotional") or _number(notional, "notional"),
        price_band=_band(filters),
        maker_fee=maker_fee,
        taker_fee=taker_fee,
    )


def _band(filters: Mapping[str, Mapping[str, Any]]) -> PriceBand | None:
    """Return the narrowest range that both sides are held to."""
    both = filters.get("PERCENT_PRICE")
    if both:
        return PriceBand(_number(both, "multiplierDown"), _number(both, "multiplierUp"))
    sides = filters.get("PERCENT_PRICE_BY_SIDE")
    if sides:
        down = max(_number(sides, "bidMultiplierDown"), _number(sides, "askMultiplierDown"))
        up = min(_number(sides, "bidMultiplierUp"), _number(sides, "askMultiplierUp"))
        return PriceBand(down, up) if up > down else None
    return None


def _number(entry: Mapping[str, Any], name: str) -> Decimal:
    value = Decimal(str(entry.get(name, "0")))
    require_finite("filter", **{name: value})
    return value.normalize() if value else _ZERO
