"""Any venue that the ccxt library knows: one spot or perpetual account, by the calls that ccxt has for all of them.

| module | what it knows |
|---|---|
| `params`, `library` | settings; the library, its client, what a venue must offer to be traded on |
| `numbers`, `products` | exact numbers out of ccxt; what is listed |
| `errors`, `codec`, `order_tracker` | what ccxt raises and returns, in our terms, and what of it is news; no I/O |
| `throttle`, `calls` | who is sent next, and whether a call had its effect |
| `market_feed`, `order_entry`, `order_finder`, `account_watch`, `account_queries` | what is asked and sent |
| `adapter` | the whole |
"""

from collections.abc import Mapping
from typing import Any

from host.api import ExchangeAdapter, hookimpl

from .adapter import CcxtExchange

__all__ = ["CcxtExchange", "provide_exchanges"]


@hookimpl
def provide_exchanges() -> Mapping[str, type[ExchangeAdapter[Any]]]:
    """Offer the adapter under the name that configurations use."""
    return {"ccxt": CcxtExchange}
