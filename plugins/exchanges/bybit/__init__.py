"""Bybit (v5): one account for spot, linear and inverse perpetuals.

| module | what it knows |
|---|---|
| `params`, `products`, `queries`, `requests` | settings; what is listed; what is asked and sent |
| `frames`, `answers`, `errors` | what the venue pushes and answers, typed |
| `market_codec`, `order_codec`, `order_tracker` | what that means, as events and reports; no I/O |
| `market_stream`, `private_stream`, `order_entry`, `account_queries`, `rest_client` | the connections |
| `adapter` | the whole |
"""

from collections.abc import Mapping
from typing import Any

from host.api import ExchangeAdapter, hookimpl

from .adapter import Bybit

__all__ = ["Bybit", "provide_exchanges"]


@hookimpl
def provide_exchanges() -> Mapping[str, type[ExchangeAdapter[Any]]]:
    """Offer the adapter under the name that configurations use."""
    return {"bybit": Bybit}
