"""OKX's REST API: signed questions and requests, and what their answers mean."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, Final

import orjson

from host.api import ExchangeError

from .._shared.rate_limit import OverLimit
from .._shared.rest import RestAnswer, RestPool
from .._shared.venue_clock import VenueClock
from .._shared.verdicts import Action, Verdict
from .answers import Answer, read_answer, read_time_ns
from .errors import ERRORS, OK, code_number
from .frames import BadFrame
from .limits import OkxLimits
from .market_codec import MS
from .products import EXCHANGE
from .signing import Signer

__all__ = ["RestClient", "Unknown", "VenueRefused"]

_log = logging.getLogger("tandem.okx")
_FAILED: Final = 1
"""Everything in the request failed: what is wrong stands with each order."""
_PARTLY: Final = 2
"""Some of a batch failed."""


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
        limits: OkxLimits,
        now_ns: Callable[[], int],
        *,
        is_demo: bool,
        order_timeout_s: float,
    ) -> None:
        self._pool: Final = pool
        self._signer: Final = signer
        self._clock: Final = clock
        self._limits: Final = limits
        self._now_ns: Final = now_ns
        self._order_timeout_s: Final = order_timeout_s
        self._public_headers: Final = {"x-simulated-trading": "1"} if is_demo else {}

    async def time_ns(self) -> int:
        """Return the venue's time; raise `ExchangeError`."""
        answer = await self.ask_public("/api/v5/public/time")
        try:
            return read_time_ns(answer.data)
        except BadFrame as error:
            raise Unknown(f"{EXCHANGE}: {error}") from error

    async def ask_public(self, path: str, query: Mapping[str, str] | None = None) -> Answer:
        """Ask what needs no key; raise `ExchangeError`."""
        await self._room(path)
        answer = await self._pool.request("GET", _target(path, query), headers=self._public_headers)
        return self._answer(path, answer)

    async def ask(self, path: str, query: Mapping[str, str] | None = None) -> Answer:
        """Ask for what is the account's; raise `ExchangeError`."""
        await self._room(path)
        target = _target(path, query)
        headers = self._signer.headers(self._venue_ms(), "GET", target)
        return self._answer(path, await self._pool.request("GET", target, headers=headers))

    async def set(self, path: str, fields: Mapping[str, Any]) -> Answer:
        """Change a setting; raise `ExchangeError`."""
        await self._room(path)
        return self._answer(path, await self._post(path, fields, None))

    async def send_orders(self, path: str, fields: Any, last_ms: int | None) -> Answer:
        """Send an order request that the venue must not carry out after `last_ms` of its clock.

        The answer may say that some or all of it failed. Raises `VenueRefused` where it was refused
        as a whole; `RestUnanswered`, which knows whether it was sent; and `Unknown`.
        """
        answer = await self._post(path, fields, last_ms, self._order_timeout_s)
        return self._answer(path, answer, (OK, _FAILED, _PARTLY))

    # -- inside ----------------------------------------------------------------------------------

    async def _post(
        self, path: str, fields: Any, last_ms: int | None, timeout_s: float | None = None
    ) -> RestAnswer:
        body = orjson.dumps(fields)
        headers = self._signer.headers(self._venue_ms(), "POST", path, body)
        if last_ms is not None:
            headers["expTime"] = str(last_ms)
        return await self._pool.request("POST", path, headers=headers, body=body, timeout_s=timeout_s)

    def _venue_ms(self) -> int:
        return self._clock.time_ns(self._now_ns()) // MS

    async def _room(self, path: str) -> None:
        """Wait until one more question may be asked."""
        while True:
            try:
                self._limits.take_question(path, self._now_ns())
            except OverLimit as over:
                await asyncio.sleep(over.wait_ns / 1e9)
            else:
                return

    def _answer(self, what: str, answer: RestAnswer, well: tuple[int, ...] = (OK,)) -> Answer:
        if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise Unknown(f"{EXCHANGE}: {what}: HTTP {answer.status}, whether it had its effect is not known")
        if answer.status == HTTPStatus.TOO_MANY_REQUESTS:
            self._limits.refused(self._now_ns())
            raise VenueRefused(what, 50011, "too many requests (HTTP 429)", ERRORS.verdict(50011))
        try:
            envelope = read_answer(answer.body)
        except BadFrame as error:
            raise Unknown(
                f"{EXCHANGE}: {what}: HTTP {answer.status} with no answer in it: {error}"
            ) from error
        code = code_number(envelope.code)
        if code not in well or (code != OK and not envelope.data):
            raise self.refusal(what, code, envelope.msg)
        return envelope

    def refusal(self, what: str, code: int, text: str) -> VenueRefused | Unknown:
        """Return what a code other than 0 means, and act on it: a wrong clock, a key that will not do."""
        verdict = ERRORS.verdict(code, text)
        if verdict.is_clock:
            _log.warning(
                "%s: %s: the venue refused our time: %s; its clock is measured again", EXCHANGE, what, text
            )
            self._clock.doubt()
        if verdict.action is Action.UNKNOWN:
            return Unknown(f"{EXCHANGE}: {what}: {code} {text}, whether it had its effect is not known")
        if verdict.action is Action.FATAL:
            _log.error(
                "%s: %s: %s %s; correct the key, its permissions or the address", EXCHANGE, what, code, text
            )
        return VenueRefused(what, code, text, verdict)


def _target(path: str, query: Mapping[str, str] | None) -> str:
    text = "&".join(f"{name}={value}" for name, value in (query or {}).items())
    return f"{path}?{text}" if text else path
