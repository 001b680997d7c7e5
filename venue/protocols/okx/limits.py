"""OKX's rate limits: orders, amends and cancels of an account by instrument, questions by call."""

from typing import Final

from venue.protocols.limits import SlidingWindow
from venue.protocols.requests import Kind, Request

__all__ = ["OkxLimits"]

_SECONDS: Final = 2.0
_ORDERS: Final = 60
_BATCHED: Final = 300
_PER_ACCOUNT: Final = 1000
_QUESTIONS: Final = {
    "/api/v5/account/balance": 10,
    "/api/v5/account/config": 5,
    "/api/v5/account/positions": 10,
    "/api/v5/account/trade-fee": 5,
    "/api/v5/public/instruments": 20,
    "/api/v5/public/time": 10,
    "/api/v5/market/books": 40,
    "/api/v5/trade/fills-history": 10,
}
_OTHER: Final = 60


class OkxLimits:
    """Counts, over any two seconds."""

    def __init__(self) -> None:
        self._windows: Final[dict[tuple[str, int], SlidingWindow]] = {}

    def takes_question(self, account: str, request: Request, now_ns: int) -> bool:
        """Count one REST call that is no order; return whether it still fits."""
        path = request.raw.path
        return self._window(path, _QUESTIONS.get(path, _OTHER)).take(account, 1, now_ns)

    def takes_order(self, account: str, request: Request, op: str, count: int, now_ns: int) -> bool:
        """Count the orders of a request; return whether they still fit."""
        is_batch = request.kind is Kind.BATCH
        window = self._window(op, _BATCHED if is_batch else _ORDERS)
        if not window.take(f"{account} {request.symbol}", count, now_ns):
            return False
        is_new = "cancel" not in op
        return not is_new or self._window("account", _PER_ACCOUNT).take(account, count, now_ns)

    def _window(self, name: str, most: int) -> SlidingWindow:
        return self._windows.setdefault((name, most), SlidingWindow(most, _SECONDS))
