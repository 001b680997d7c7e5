"""Binance's rate limits: request weight and order counts, with the headers and refusals they show."""

from typing import Any, Final

from msgspec import Struct

from venue.protocols.binance.errors import BinanceRefusal
from venue.protocols.limits import FixedWindow

__all__ = ["Limits", "OrderLimit"]

BAN_NS: Final = 120 * 1_000_000_000
"""The shortest ban, for whoever goes on after 429."""
TOLERATED: Final = 1.1
"""Beyond its limit a window is only answered 429 up to this multiple of it; then comes the ban."""
SECOND_NS: Final = 1_000_000_000


class OrderLimit(Struct, frozen=True):
    """At most `limit` orders per `count` `interval`s (SECOND, MINUTE, DAY)."""

    interval: str
    count: int
    limit: int

    @property
    def seconds(self) -> int:
        """Return the window's length."""
        return self.count * {"SECOND": 1, "MINUTE": 60, "DAY": 86_400}[self.interval]

    @property
    def suffix(self) -> str:
        """Return how headers name the window: `10S`, `1M`, `1D`."""
        return f"{self.count}{self.interval[0]}"


class Limits:
    """One product's limits. Switched off, they count and never refuse."""

    def __init__(self, weight: int, orders: tuple[OrderLimit, ...], *, is_on: bool) -> None:
        self._is_on = is_on
        self._weight = FixedWindow(weight, 60)
        self._orders = [(limit, FixedWindow(limit.limit, limit.seconds)) for limit in orders]
        self._banned_until_ns: dict[str, int] = {}

    def add_request(self, source: str, weight: int, now_ns: int) -> None:
        """Count a request's weight; negative to give it back."""
        self._weight.add(source, weight, now_ns)

    def check_requests(self, source: str, now_ns: int) -> None:
        """Raise 429 or 418 for a source beyond its weight."""
        if not self._is_on:
            return
        until_ns = self._banned_until_ns.get(source, 0)
        used = self._weight.used(source, now_ns)
        if now_ns >= until_ns and used > self._weight.limit * TOLERATED:
            until_ns = self._banned_until_ns[source] = now_ns + BAN_NS
        if now_ns < until_ns:
            text = f"Way too much request weight used; IP banned until {until_ns // 1_000_000}."
            raise _too_many(-1003, text, until_ns - now_ns, status=418)
        if used > self._weight.limit:
            text = (
                f"Too much request weight used; current limit is {self._weight.limit} request weight per "
                "1 MINUTE. Please use WebSocket Streams for live updates to avoid polling the API."
            )
            raise _too_many(-1003, text, self._weight.reset_ns(now_ns) - now_ns)

    def check_orders(self, account: str, now_ns: int) -> None:
        """Count one order; raise where it is one too many."""
        for limit, window in self._orders:
            if self._is_on and window.is_over(account, 1, now_ns):
                text = (
                    f"Too many new orders; current limit is {limit.limit} orders per "
                    f"{limit.count} {limit.interval}."
                )
                raise _too_many(-1015, text, window.reset_ns(now_ns) - now_ns)
        for _, window in self._orders:
            window.add(account, 1, now_ns)

    def give_back_order(self, account: str, now_ns: int) -> None:
        """An order of the account filled: it counts no more."""
        for _, window in self._orders:
            window.add(account, -1, now_ns)

    def headers(self, source: str, account: str, now_ns: int) -> dict[str, str]:
        """Return what is used, as headers; the order counts for an `account` only."""
        headers = {"X-MBX-USED-WEIGHT-1M": str(self._weight.used(source, now_ns))}
        headers["X-MBX-USED-WEIGHT"] = headers["X-MBX-USED-WEIGHT-1M"]
        if account:
            for limit, window in self._orders:
                headers[f"X-MBX-ORDER-COUNT-{limit.suffix}"] = str(window.used(account, now_ns))
        return headers

    def used(self, source: str, account: str, now_ns: int) -> list[dict[str, Any]]:
        """Return what is used, as the WebSocket API tells it: orders for an `account`, then weight."""
        rows = self.orders_used(account, now_ns) if account else []
        weight = {**_row("REQUEST_WEIGHT", "MINUTE", 1, self._weight.limit)}
        return [*rows, {**weight, "count": self._weight.used(source, now_ns)}]

    def orders_used(self, account: str, now_ns: int) -> list[dict[str, Any]]:
        """Return an account's order counts."""
        return [
            {
                **_row("ORDERS", limit.interval, limit.count, limit.limit),
                "count": window.used(account, now_ns),
            }
            for limit, window in self._orders
        ]

    def listed(self) -> list[dict[str, Any]]:
        """Return the limits as `exchangeInfo` lists them."""
        rows = [_row("REQUEST_WEIGHT", "MINUTE", 1, self._weight.limit)]
        return [*rows, *(_row("ORDERS", each.interval, each.count, each.limit) for each, _ in self._orders)]


def _row(kind: str, interval: str, count: int, limit: int) -> dict[str, Any]:
    return {"rateLimitType": kind, "interval": interval, "intervalNum": count, "limit": limit}


def _too_many(code: int, text: str, wait_ns: int, *, status: int = 429) -> BinanceRefusal:
    refusal = BinanceRefusal(code, text, status=status)
    refusal.headers["Retry-After"] = str(max(1, -(-wait_ns // SECOND_NS)))
    return refusal
