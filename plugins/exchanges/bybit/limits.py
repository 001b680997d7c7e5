"""Bybit's rate limits: orders by account, kind and product each second, HTTP by address.

They are those of an account without VIP level until the venue's own headers say otherwise.
"""

from collections.abc import Mapping
from typing import Any, Final

from .._shared.rate_limit import RateLimits
from .products import EXCHANGE, Product

__all__ = ["AMEND", "CANCEL", "CREATE", "QUERIES", "BybitLimits"]

CREATE: Final = "orders"
AMEND: Final = "amends"
CANCEL: Final = "cancels"
QUERIES: Final = "queries"
_HTTP: Final = "HTTP requests"

_SECOND_NS: Final = 1_000_000_000
_PER_SECOND: Final = {
    (Product.SPOT, CREATE): 20,
    (Product.SPOT, CANCEL): 20,
}
_USUAL_PER_SECOND: Final = 10
_QUERIES_PER_SECOND: Final = 50
_HTTP_PER_5_S: Final = 600
_PAUSE_NS: Final = _SECOND_NS
"""How long to stop after a refusal that does not say: every limit of an account is counted by the second."""
BAN_NS: Final = 600 * _SECOND_NS
"""How long an address that sent too much (HTTP 403) is shut out."""


class BybitLimits:
    """Keeps the limits of one account. `kept` outlives the adapter, so that a reload does not forget."""

    def __init__(self, kept: dict[str, Any]) -> None:
        self._limits = RateLimits(EXCHANGE, kept)
        for product in Product:
            for kind in (CREATE, AMEND, CANCEL):
                most = _PER_SECOND.get((product, kind), _USUAL_PER_SECOND)
                self._limits.add(_name(product, kind), most, _SECOND_NS)
        self._limits.add(QUERIES, _QUERIES_PER_SECOND, _SECOND_NS)
        self._limits.add(_HTTP, _HTTP_PER_5_S, 5 * _SECOND_NS)

    def take_order(self, product: Product, kind: str, now_ns: int, *, is_http: bool) -> None:
        """Count one order request; raise `OverLimit`, with nothing counted. A cancel is urgent."""
        costs = [(_name(product, kind), 1)]
        if is_http:
            costs.append((_HTTP, 1))
        self._limits.take(costs, now_ns, is_urgent=kind == CANCEL)

    def take_query(self, now_ns: int) -> None:
        """Count one question over REST; raise `OverLimit`, with nothing counted."""
        self._limits.take([(QUERIES, 1), (_HTTP, 1)], now_ns)

    def told(self, product: Product, kind: str, headers: Mapping[str, str], now_ns: int) -> None:
        """Take in what the venue counts: `x-bapi-limit` a second, of which `x-bapi-limit-status` are left."""
        most, left = headers.get("x-bapi-limit", ""), headers.get("x-bapi-limit-status", "")
        if most.isdecimal() and left.isdecimal() and int(most) > 0:
            limit = self._limits[_name(product, kind)]
            limit.most = int(most)
            limit.told(int(most) - int(left), now_ns)

    def refused(self, now_ns: int) -> None:
        """Stop for a moment: the venue refused a request for there were too many."""
        self._limits.pause(now_ns + _PAUSE_NS)

    def banned(self, now_ns: int) -> None:
        """Stop for as long as the venue shuts out an address."""
        self._limits.pause(now_ns + BAN_NS)


def _name(product: Product, kind: str) -> str:
    return f"{product} {kind}"
