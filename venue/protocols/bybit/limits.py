"""Bybit's rate limits: requests of an account by kind and product each second, HTTP requests of an address."""

from typing import Final

from venue.protocols.bybit.names import Product
from venue.protocols.limits import FixedWindow, SlidingWindow
from venue.protocols.requests import Kind, Request

__all__ = ["BybitLimits"]

_ORDERS: Final = 10
_SPOT_ORDERS: Final = 20
_QUERIES: Final = 50
_SETTINGS: Final = 10
_HTTP: Final = 600
_HTTP_S: Final = 5.0
_MS: Final = 1_000_000


class BybitLimits:
    """Counts, and says what is left."""

    def __init__(self) -> None:
        self._windows: Final[dict[tuple[str, int], FixedWindow]] = {}
        self._http: Final = SlidingWindow(_HTTP, _HTTP_S)

    def takes_http(self, now_ns: int) -> bool:
        """Count one HTTP request; return whether it still fits. All come from one machine, so from one address."""
        return self._http.take("", 1, now_ns)

    def take(self, account: str, request: Request, cost: int, now_ns: int) -> tuple[bool, dict[str, str]]:
        """Count a request; return whether it fits, and the headers that tell what is left."""
        most = _most(request)
        group = (
            f"{request.method.rpartition('/')[2].removeprefix('order.')} {request.params.get('category', '')}"
        )
        window = self._windows.setdefault((group, most), FixedWindow(most, 1.0))
        is_over = window.is_over(account, cost, now_ns)
        used = window.used(account, now_ns) if is_over else window.add(account, cost, now_ns)
        reset_ms = (window.reset_ns(now_ns) if is_over else now_ns) // _MS
        headers = {
            "X-Bapi-Limit": str(most),
            "X-Bapi-Limit-Status": str(max(0, most - used)),
            "X-Bapi-Limit-Reset-Timestamp": str(reset_ms),
        }
        return not is_over, headers


def _most(request: Request) -> int:
    if request.kind is Kind.QUERY:
        return _QUERIES
    if request.kind is Kind.SETTING:
        return _SETTINGS
    is_spot = request.params.get("category") == Product.SPOT
    return _SPOT_ORDERS if is_spot and request.kind is not Kind.AMEND else _ORDERS
