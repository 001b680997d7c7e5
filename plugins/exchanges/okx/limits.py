"""OKX's rate limits: orders, amends and cancels by instrument, questions by what is asked.

Batches have limits of their own. That of new orders and amends together is the account's; its figure
is from memory of those who trade there, so it is kept with room.
"""

from typing import Any, Final

from .._shared.rate_limit import RateLimits
from .products import EXCHANGE

__all__ = ["AMEND", "BATCH_CANCEL", "BATCH_PLACE", "CANCEL", "PLACE", "OkxLimits"]

PLACE: Final = "orders"
AMEND: Final = "amends"
CANCEL: Final = "cancels"
BATCH_PLACE: Final = "orders in batches"
BATCH_CANCEL: Final = "cancels in batches"

_ACCOUNT: Final = "orders and amends of the account"
_TWO_SECONDS_NS: Final = 2_000_000_000
_PER_INSTRUMENT: Final = {PLACE: 60, AMEND: 60, CANCEL: 60, BATCH_PLACE: 300, BATCH_CANCEL: 300}
_PER_ACCOUNT: Final = 1000
_QUESTIONS: Final = {
    "/api/v5/account/balance": 10,
    "/api/v5/account/config": 5,
    "/api/v5/account/positions": 10,
    "/api/v5/account/set-leverage": 20,
    "/api/v5/account/trade-fee": 5,
    "/api/v5/public/instruments": 20,
    "/api/v5/public/time": 10,
    "/api/v5/trade/cancel-all-after": 2,
    "/api/v5/trade/fills-history": 10,
}
"""How often each may be asked in 2 s."""
_OTHER_QUESTIONS: Final = 60
_PAUSE_NS: Final = 1_000_000_000


class OkxLimits:
    """Keeps the limits of one account. `kept` outlives the adapter, so that a reload does not forget."""

    def __init__(self, kept: dict[str, Any]) -> None:
        self._limits = RateLimits(EXCHANGE, kept)
        self._limits.add(_ACCOUNT, _PER_ACCOUNT, _TWO_SECONDS_NS)

    def take_order(self, kind: str, inst_id: str, now_ns: int, count: int = 1) -> None:
        """Count order requests; raise `OverLimit`, with nothing counted. A cancel is urgent."""
        costs = [(self._instrument_limit(kind, inst_id), count)]
        if kind in (PLACE, BATCH_PLACE, AMEND):
            costs.append((_ACCOUNT, count))
        self._limits.take(costs, now_ns, is_urgent=kind in (CANCEL, BATCH_CANCEL))

    def take_question(self, path: str, now_ns: int) -> None:
        """Count one question over REST; raise `OverLimit`, with nothing counted."""
        if path not in self._limits:
            self._limits.add(path, _QUESTIONS.get(path, _OTHER_QUESTIONS), _TWO_SECONDS_NS)
        self._limits.take([(path, 1)], now_ns)

    def refused_order(self, kind: str, inst_id: str, now_ns: int) -> None:
        """Take it that nothing is left of a limit: the venue refused an order for there were too many."""
        limit = self._limits[self._instrument_limit(kind, inst_id)]
        limit.told(limit.most, now_ns)

    def refused(self, now_ns: int) -> None:
        """Stop for a moment: the venue refused a request for there were too many (HTTP 429)."""
        self._limits.pause(now_ns + _PAUSE_NS)

    def _instrument_limit(self, kind: str, inst_id: str) -> str:
        name = f"{kind} in {inst_id}"
        if name not in self._limits:
            self._limits.add(name, _PER_INSTRUMENT[kind], _TWO_SECONDS_NS)
        return name
