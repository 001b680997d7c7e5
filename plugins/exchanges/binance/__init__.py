"""Binance: spot (`binance`) and USDⓈ-M perpetuals (`binance_usdm`)."""

from collections.abc import Mapping
from typing import Any

from host.api import ExchangeAdapter, hookimpl

from .adapter import BinanceSpot, BinanceUsdm


@hookimpl
def provide_exchanges() -> Mapping[str, type[ExchangeAdapter[Any]]]:
    """Offer both products under the names that configurations use."""
    return {"binance": BinanceSpot, "binance_usdm": BinanceUsdm}
