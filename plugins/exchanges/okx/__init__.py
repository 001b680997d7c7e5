"""OKX (v5): one account for spot and perpetual swaps.

| module | what it knows |
|---|---|
| `params`, `products`, `requests` | settings; what is listed; what is sent |
| `frames`, `answers`, `errors` | what the venue pushes and answers, typed |
| `market_codec`, `checksum`, `order_codec`, `order_tracker` | what that means, as events and reports; no I/O |
| `market_stream`, `private_stream`, `order_entry`, `account_queries`, `rest_client` | the connections |
| `limits`, `dead_man`, `settings`, `listing_loader` | what is kept up beside them |
| `adapter` | the whole |
"""

from collections.abc import Mapping
from typing import Any

from host.api import ExchangeAdapter, hookimpl

from .adapter import Okx

__all__ = ["Okx", "provide_exchanges"]


@hookimpl
def provide_exchanges() -> Mapping[str, type[ExchangeAdapter[Any]]]:
    """Offer the adapter under the name that configurations use."""
    return {"okx": Okx}
