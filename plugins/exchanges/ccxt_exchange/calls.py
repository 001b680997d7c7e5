"""Calls of a ccxt client, and what those that fail leave behind: a verdict, and words without credentials."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final

from host.api import ExchangeError

from .._shared.signing import mask
from .._shared.verdicts import Action, Verdict
from .errors import NotSent, verdict_on
from .library import Client
from .numbers import reading
from .params import EXCHANGE, CcxtParams
from .throttle import Turn, taking_turns

__all__ = ["CallFailed", "Calls"]

_log = logging.getLogger("tandem.ccxt")
_EXACT: Final = frozenset(
    {
        "create_order",
        "edit_order",
        "cancel_order",
        "fetch_order",
        "fetch_open_orders",
        "fetch_orders",
        "fetch_closed_orders",
        "fetch_canceled_orders",
        "fetch_canceled_and_closed_orders",
        "fetch_my_trades",
        "fetch_balance",
    }
)
"""What brings amounts that are booked."""
_MOST_CHARACTERS: Final = 300
"""Of what a venue said: ccxt puts whole pages into its messages."""


class CallFailed(ExchangeError):  # noqa: N818 - it says what is the case
    """A call brought no result; `verdict` says whether it may have had its effect."""

    def __init__(self, method: str, text: str, verdict: Verdict) -> None:
        super().__init__(f"{EXCHANGE}: {method}: {text}")
        self.text = text
        self.verdict = verdict

    @property
    def is_unknown(self) -> bool:
        """Return whether the request may have had its effect."""
        return self.verdict.action is Action.UNKNOWN


class Calls:
    """Calls the client's methods by name."""

    def __init__(
        self, client: Client, params: CcxtParams, spawn: Callable[[Coroutine[Any, Any, None], str], object]
    ) -> None:
        self.client: Final = client
        self._params: Final = params
        self._spawn: Final = spawn
        self._is_measuring = False
        self.is_closed = False
        """Whether the client is being closed: a request would open its connections again."""

    async def __call__(self, turn: Turn, method: str, *arguments: Any, **named: Any) -> Any:
        """Return what the method returns; raise `CallFailed`. The request is sent when it is its turn."""
        if self.is_closed:
            await asyncio.get_running_loop().create_future()  # until the host ends this task
        taking_turns(turn)
        reading(is_exact=method in _EXACT)
        try:
            return await getattr(self.client, method)(*arguments, **named)
        except Exception as error:  # noqa: BLE001 - ccxt's parsers raise KeyError, TypeError and the like, too
            if self.is_closed:  # that is why, and nobody is interested any more
                await asyncio.get_running_loop().create_future()
            raise self.failed(method, error) from None  # its message may hold a credential

    def failed(self, method: str, error: Exception) -> CallFailed:
        """Return what an exception of the client means, and act on it: a wrong clock, a wrong key."""
        verdict = verdict_on(error)
        said = str(error) if isinstance(error, NotSent) else f"{type(error).__name__}: {error}"
        text = mask(said, *self._params.secrets)[:_MOST_CHARACTERS]
        if verdict.is_clock and not self._is_measuring and self.client.has.get("fetchTime"):
            self._is_measuring = True
            self._spawn(self._measure_clock(), "venue clock")
        if verdict.action is Action.FATAL:
            _log.error("%s: %s: %s; correct the key, its permissions or the address", EXCHANGE, method, text)
        return CallFailed(method, text, verdict)

    async def _measure_clock(self) -> None:
        try:
            await self.client.load_time_difference()
            _log.warning("%s: the venue refused our time; its clock was measured again", EXCHANGE)
        except Exception as error:  # noqa: BLE001 - as above; the next refusal tries again
            _log.warning("%s: the venue's clock was not measured: %s", EXCHANGE, type(error).__name__)
        finally:
            self._is_measuring = False
