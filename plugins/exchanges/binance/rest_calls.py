"""Binance's REST interface: signed calls, their errors and the limits that they spend from."""

import logging
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from host.api import ExchangeError

from .._shared.rate_limit import RateLimits
from .._shared.rest import RestAnswer, RestPool, RestUnanswered
from .._shared.venue_clock import VenueClock, Window
from .._shared.verdicts import Action, Verdict
from .answers import VenueError, decode_error
from .commands import window_params
from .errors import ERRORS
from .instruments import RateLimit
from .products import Endpoint, Product
from .signed import Params, RequestSigner, query

__all__ = ["RestCalls", "Spending", "VenueRefused"]

_log = logging.getLogger("tandem.exchange")
_QUERY_WINDOW_MS: Final = 10_000
_S: Final = 1_000_000_000
_PAUSE_NS: Final = 10 * _S
"""When the venue says "too many" but not for how long."""
_BAN_NS: Final = 120 * _S
"""The shortest ban that the venue imposes."""


class VenueRefused(ExchangeError):  # noqa: N818 - it says what is the case, like `OrderRefused`
    """The venue answered with an error. `verdict` says what that means for the request."""

    def __init__(self, text: str, code: int, message: str, verdict: Verdict) -> None:
        super().__init__(text)
        self.code = code
        self.message = message
        self.verdict = verdict


class Spending:
    """The venue's limits by kind: which of them a request spends from."""

    def __init__(self, product: Product, kept: dict[str, Any]) -> None:
        self.limits: Final = RateLimits(product.name, kept)
        self._weights: list[str] = []
        self._orders: list[str] = []
        self.listed(
            [
                RateLimit("REQUEST_WEIGHT", "MINUTE", 1, product.default_weight),
                RateLimit("ORDERS", "SECOND", 10, 50),
            ]
        )

    def listed(self, limits: Sequence[RateLimit]) -> None:
        """Take over the limits that exchangeInfo lists, if it lists any."""
        known = [limit for limit in limits if limit.limit > 0 and limit.interval_ns > 0]
        for kind, names in (("REQUEST_WEIGHT", self._weights), ("ORDERS", self._orders)):
            of_kind = [limit for limit in known if limit.rateLimitType == kind]
            if of_kind:
                names[:] = [limit.name for limit in of_kind]
                for limit in of_kind:
                    self.limits.add(limit.name, limit.limit, limit.interval_ns)

    def told(self, limits: Sequence[RateLimit], now_ns: int) -> None:
        """Take in what the venue says is used."""
        for limit in limits:
            if limit.count and limit.name in self.limits:
                self.limits[limit.name].told(limit.count, now_ns)

    def told_by_headers(self, answer: RestAnswer, now_ns: int) -> None:
        """Take in the counts that come with an answer, such as `X-MBX-USED-WEIGHT-1M`."""
        for prefix, names in (("x-mbx-used-weight-", self._weights), ("x-mbx-order-count-", self._orders)):
            for name in names:
                _, number, interval = name.split(" ")
                used = answer.headers.get(f"{prefix}{number}{interval[0].lower()}", "")
                if used.isdigit():
                    self.limits[name].told(int(used), now_ns)

    def take(self, weight: int, now_ns: int, *, orders: int = 0, is_urgent: bool = False) -> None:
        """Spend weight, and from the order counts; raise `OverLimit`."""
        costs = [(name, weight) for name in self._weights if weight]
        costs += [(name, orders) for name in self._orders if orders]
        self.limits.take(costs, now_ns, is_urgent=is_urgent)

    def stop(self, status: int, retry_after_s: float, now_ns: int) -> None:
        """Send nothing for a while: the venue answered 429 (too many) or 418 (banned)."""
        pause_ns = round(retry_after_s * _S) or (_BAN_NS if status == 418 else _PAUSE_NS)
        self.limits.pause(now_ns + pause_ns)
        _log.error("the venue answered %d: nothing is sent for %.1f s", status, pause_ns / _S)


class RestCalls:
    """Calls endpoints and returns their bodies.

    Raises `RestUnanswered` where the outcome is not known (no answer, or a 5xx), `VenueRefused` for an error
    answer, `OverLimit` where the limits do not allow it.
    """

    def __init__(
        self, product: Product, pool: RestPool, signer: RequestSigner, clock: VenueClock, spending: Spending
    ) -> None:
        self._product: Final = product
        self._pool: Final = pool
        self._signer: Final = signer
        self._clock: Final = clock
        self._spending: Final = spending

    async def public(
        self, endpoint: Endpoint, params: Params, now_ns: int, timeout_s: float | None = None
    ) -> bytes:
        """Call an endpoint that needs no signature."""
        self._spending.take(endpoint.weight, now_ns)
        target = f"{endpoint.path}?{query(params)}" if params else endpoint.path
        return self._body(
            endpoint, await self._pool.request(endpoint.method, target, timeout_s=timeout_s), now_ns
        )

    async def keyed(self, endpoint: Endpoint, now_ns: int) -> bytes:
        """Call an endpoint that wants the key but no signature."""
        self._spending.take(endpoint.weight, now_ns)
        answer = await self._pool.request(endpoint.method, endpoint.path, headers=self._signer.headers)
        return self._body(endpoint, answer, now_ns)

    async def signed(
        self,
        endpoint: Endpoint,
        params: Params,
        now_ns: int,
        *,
        window: Window | None = None,
        is_urgent: bool = False,
    ) -> bytes:
        """Call a signed endpoint; `params` hold the window already, unless it is left to us (`window` None)."""
        self._spending.take(endpoint.weight, now_ns, is_urgent=is_urgent)
        if window is None and "timestamp" not in params:
            params = {**params, **window_params(self._clock.loose_window(_QUERY_WINDOW_MS))}
        target = f"{endpoint.path}?{self._signer.rest_query(params)}"
        answer = await self._pool.request(endpoint.method, target, headers=self._signer.headers)
        return self._body(endpoint, answer, now_ns)

    def _body(self, endpoint: Endpoint, answer: RestAnswer, now_ns: int) -> bytes:
        self._spending.told_by_headers(answer, now_ns)
        if answer.status == 200:
            return answer.body
        where = f"{self._product.name}: {endpoint.method} {endpoint.path}"
        if answer.status in (418, 429):
            retry_after = answer.headers.get("retry-after", "")
            self._spending.stop(answer.status, float(retry_after) if retry_after.isdigit() else 0.0, now_ns)
        if answer.status >= 500:
            raise RestUnanswered(
                f"{where}: status {answer.status}: the outcome is not known", is_unsent=False
            )
        try:
            error = decode_error(answer.body)
        except msgspec.MsgspecError:
            error = VenueError(0, f"status {answer.status}")
        verdict = ERRORS.verdict(error.code, error.msg)
        if verdict.is_clock:
            self._clock.doubt()
        if verdict.action is Action.UNKNOWN:
            raise RestUnanswered(
                f"{where}: {error.code} {error.msg}: the outcome is not known", is_unsent=False
            )
        raise VenueRefused(f"{where}: {error.code} {error.msg}", error.code, error.msg, verdict)
