"""Bybit's REST API: signed questions and requests, and what their answers mean."""

import asyncio
import logging
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final

import msgspec

from host.api import ExchangeError

from .._shared.rate_limit import OverLimit
from .._shared.rest import RestAnswer, RestPool
from .._shared.venue_clock import VenueClock, Window
from .._shared.verdicts import Action, Verdict
from .answers import Answer, read_answer, read_time_ns
from .errors import ERRORS, OK_CODE
from .frames import BadFrame
from .limits import BybitLimits
from .products import EXCHANGE
from .queries import Query, server_time, target_of
from .signing import Signer

__all__ = ["RestClient", "Unknown", "VenueRefused"]

_log = logging.getLogger("tandem.bybit")
_QUERY_WINDOW_MS: Final = 5_000
"""A question that is late does no harm."""


class VenueRefused(ExchangeError):  # noqa: N818 - an answer, not a malfunction
    """The venue said no. `code` is its own, `verdict` what that means."""

    def __init__(self, what: str, code: int, text: str, verdict: Verdict) -> None:
        super().__init__(f"{EXCHANGE}: {what} was refused: {code} {text or '(no text)'}")
        self.code = code
        self.text = text
        self.verdict = verdict


class Unknown(ExchangeError):  # noqa: N818 - it says what is the case
    """No usable answer came: whether the request had its effect is not known."""


class RestClient:
    """Sends signed requests, and keeps the clock and the limits told of what the answers show."""

    def __init__(
        self,
        pool: RestPool,
        signer: Signer,
        clock: VenueClock,
        limits: BybitLimits,
        now_ns: Callable[[], int],
        order_timeout_s: float,
    ) -> None:
        self._pool = pool
        self._signer = signer
        self._clock = clock
        self._limits = limits
        self._now_ns = now_ns
        self._order_timeout_s = order_timeout_s

    async def time_ns(self) -> int:
        """Return the venue's time; raise `ExchangeError`."""
        answer = await self.ask_public(server_time())
        try:
            return read_time_ns(answer.result)
        except BadFrame as error:
            raise Unknown(f"{EXCHANGE}: {error}") from error

    async def ask_public(self, query: Query) -> Answer:
        """Ask what needs no key; raise `ExchangeError`."""
        await self._room()
        target, _ = target_of(query)
        return self._answer(query[0], await self._pool.request("GET", target))

    async def ask(self, query: Query) -> Answer:
        """Ask for what is the account's; raise `ExchangeError`."""
        await self._room()
        target, text = target_of(query)
        window = self._clock.loose_window(_QUERY_WINDOW_MS)
        headers = self._signer.headers(window.sent_ms, window.width_ms, text)
        return self._answer(query[0], await self._pool.request("GET", target, headers=headers))

    async def set(self, path: str, fields: dict[str, Any]) -> Answer:
        """Change a setting; raise `ExchangeError`."""
        await self._room()
        return await self.post(path, fields, self._clock.loose_window(_QUERY_WINDOW_MS))

    async def post(self, path: str, fields: dict[str, Any], window: Window) -> Answer:
        """Send a request that the venue may carry out within `window`.

        Raises `VenueRefused`; `RestUnanswered`, which knows whether it was sent; and `Unknown`.
        """
        body = msgspec.json.encode(fields)
        headers = self._signer.headers(window.sent_ms, window.width_ms, body.decode())
        headers["Content-Type"] = "application/json"
        answer = await self._pool.request(
            "POST", path, headers=headers, body=body, timeout_s=self._order_timeout_s
        )
        return self._answer(path, answer)

    # -- inside ----------------------------------------------------------------------------------

    async def _room(self) -> None:
        """Wait until one more question may be asked."""
        while True:
            try:
                self._limits.take_query(self._now_ns())
            except OverLimit as over:
                await asyncio.sleep(over.wait_ns / 1e9)
            else:
                return

    def _answer(self, what: str, answer: RestAnswer) -> Answer:
        if answer.status == HTTPStatus.FORBIDDEN:
            self._limits.banned(self._now_ns())
            text = "too many requests from this address, or an address that the venue does not serve"
            raise VenueRefused(what, answer.status, text, Verdict(Action.RETRY, ERRORS.verdict(429).reason))
        if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise Unknown(f"{EXCHANGE}: {what}: HTTP {answer.status}, whether it had its effect is not known")
        try:
            envelope = read_answer(answer.body)
        except BadFrame as error:
            if answer.status == HTTPStatus.TOO_MANY_REQUESTS:
                self._limits.refused(self._now_ns())
                raise VenueRefused(what, answer.status, "too many requests", ERRORS.verdict(429)) from error
            raise Unknown(
                f"{EXCHANGE}: {what}: HTTP {answer.status} with no answer in it: {error}"
            ) from error
        if envelope.ret_code != OK_CODE:
            raise self.refusal(what, envelope.ret_code, envelope.ret_msg)
        return envelope

    def refusal(self, what: str, code: int, text: str) -> VenueRefused | Unknown:
        """Return what a code other than 0 means, and act on it: a wrong clock, too many requests."""
        verdict, text = ERRORS.verdict(code, text), self._signer.masked(text)
        if verdict.is_clock:
            _log.warning(
                "%s: %s: the venue refused our time: %s; its clock is measured again", EXCHANGE, what, text
            )
            self._clock.doubt()
        if verdict.is_limit:
            self._limits.refused(self._now_ns())
        if verdict.action is Action.UNKNOWN:
            return Unknown(f"{EXCHANGE}: {what}: {code} {text}, whether it had its effect is not known")
        if verdict.action is Action.FATAL:
            _log.error(
                "%s: %s: %s %s; correct the key, its permissions or the address", EXCHANGE, what, code, text
            )
        return VenueRefused(what, code, text, verdict)
