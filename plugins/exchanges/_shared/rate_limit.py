"""Keeping a venue's rate limits before the venue has to.

Each limit is kept over a sliding window of its length. That is at least as strict as the venue's
own counting, whichever instant its windows begin at. What the venue itself counts (its headers)
is believed when it is more: somebody else may use the same key or address.
"""

from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from host.api import ExchangeError

__all__ = ["Limit", "OverLimit", "RateLimits"]

RESERVED: Final = 0.1
"""The share of every limit that is kept for cancels: pulling quotes must be possible when placing is not."""


class OverLimit(ExchangeError):  # noqa: N818 - it says what is the case, like `OrderRefused`
    """Nothing was sent, for the venue would have refused or banned us. `wait_ns` tells for how long."""

    def __init__(self, text: str, wait_ns: int) -> None:
        super().__init__(text)
        self.wait_ns = wait_ns


class Limit:
    """At most `most` per `interval_ns`.

    `kept` holds what was spent, as plain data: another object made on it counts on with this one.
    """

    __slots__ = ("_interval_ns", "_kept", "most", "name")

    def __init__(self, name: str, most: int, interval_ns: int, kept: dict[str, Any] | None = None) -> None:
        self.name = name
        self.most = most
        self._interval_ns = interval_ns
        self._kept: dict[str, Any] = {} if kept is None else kept
        self._kept.setdefault("spent", deque())
        self._kept.setdefault("total", 0)

    def used(self, now_ns: int) -> int:
        """Return what was spent within the last interval."""
        kept, begin_ns = self._kept, now_ns - self._interval_ns
        spent: deque[tuple[int, int]] = kept["spent"]
        while spent and spent[0][0] <= begin_ns:
            kept["total"] -= spent.popleft()[1]
        return int(kept["total"])

    def wait_ns(self, weight: int, now_ns: int, *, is_urgent: bool = False) -> int:
        """Return how long to wait before `weight` may be spent; 0 when it may be now."""
        most = self.most if is_urgent else self.most - int(self.most * RESERVED)
        excess = self.used(now_ns) + weight - most
        if excess <= 0:
            return 0
        for spent_ns, spent in self._kept["spent"]:
            excess -= spent
            if excess <= 0:
                return int(spent_ns + self._interval_ns - now_ns)
        return self._interval_ns

    def spend(self, weight: int, now_ns: int) -> None:
        """Count `weight` as spent now."""
        if weight:
            self._kept["spent"].append((now_ns, weight))
            self._kept["total"] += weight

    def told(self, used: int, now_ns: int) -> None:
        """Take in the venue's own count; what is more than ours was spent by somebody else."""
        missing = used - self.used(now_ns)
        if missing > 0:
            self.spend(missing, now_ns)


class RateLimits:
    """The limits of one account at one venue, and the pause that the venue ordered.

    `kept` is a plain dict that outlives the adapter (`ctx.shared`): what one version spent, the next
    one knows.
    """

    def __init__(self, exchange: str, kept: dict[str, Any]) -> None:
        self._exchange: Final = exchange
        self._kept: Final = kept
        self._limits: Final[dict[str, Limit]] = {}

    def add(self, name: str, most: int, interval_ns: int) -> Limit:
        """Keep one more limit, or the limit of that name with other figures, and return it."""
        kept = self._kept.setdefault(f"{self._exchange} {name}", {})
        limit = self._limits[name] = Limit(name, most, interval_ns, kept)
        return limit

    def __getitem__(self, name: str) -> Limit:
        return self._limits[name]

    def __contains__(self, name: str) -> bool:
        return name in self._limits

    def take(self, costs: Sequence[tuple[str, int]], now_ns: int, *, is_urgent: bool = False) -> None:
        """Spend from each limit named, or from none: raise `OverLimit`. Urgent: a cancel.

        A pause that the venue ordered holds for everything.
        """
        pause_ns = self.paused_until_ns - now_ns
        if pause_ns > 0:
            raise OverLimit(
                f"{self._exchange}: the venue told us to stop for another {pause_ns / 1e9:.1f} s; nothing was sent",
                pause_ns,
            )
        for name, weight in costs:
            limit = self._limits[name]
            wait_ns = limit.wait_ns(weight, now_ns, is_urgent=is_urgent)
            if wait_ns > 0:
                raise OverLimit(
                    f"{self._exchange}: {limit.used(now_ns)} of {limit.most} {name} are used; nothing was sent, "
                    f"try again in {wait_ns / 1e9:.1f} s",
                    wait_ns,
                )
        for name, weight in costs:
            self._limits[name].spend(weight, now_ns)

    @property
    def paused_until_ns(self) -> int:
        """Until when the venue wants to hear nothing (host time); in the past when it does not care."""
        return int(self._kept.get(f"{self._exchange} paused until", 0))

    def pause(self, until_ns: int) -> None:
        """Send nothing until then (host time): HTTP 429 or 418, or the like."""
        self._kept[f"{self._exchange} paused until"] = max(until_ns, self.paused_until_ns)
