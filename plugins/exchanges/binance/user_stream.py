"""The account's private events, and how each product keeps them coming.

Spot subscribes on the WebSocket API with a signed request, beside the orders. USDⓈ-M has a stream of
its own under a listen key, which dies after an hour unless it is kept alive.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

import msgspec

from host.api import AdapterContext, ExchangeError

from .._shared.bad_frames import BadFrames
from .._shared.channel import Channel, Heartbeat
from .._shared.symbols import SymbolTable
from .._shared.verdicts import Action
from .._shared.websocket import NotConnected, WebSocket
from .answers import decode_listen_key
from .products import Endpoint
from .queries import OrderIds
from .rest_calls import RestCalls, VenueRefused
from .user_events import Notice, decode_user_event, reports_of

__all__ = ["ListenKeyStream", "UserEvents"]

_log = logging.getLogger("tandem.exchange")
_KEEP_ALIVE_S: Final = 1500.0
"""A listen key lives for an hour."""
_NEW_KEY: Final = Endpoint("POST", "/fapi/v1/listenKey")
_KEEP_KEY: Final = Endpoint("PUT", "/fapi/v1/listenKey")
_PRIVATE_PATH: Final = "/private/ws"

_ENDS: Final = frozenset({"listenKeyExpired", "eventStreamTerminated"})
_NEWS: Final = {
    "MARGIN_CALL": logging.ERROR,
    "ACCOUNT_CONFIG_UPDATE": logging.WARNING,
    "CONDITIONAL_ORDER_TRIGGER_REJECT": logging.WARNING,
}


class UserEvents:
    """Turns private events into reports.

    An event that cannot be read may have been about an order of ours: `on_doubt(text)` is called, and the
    host asks the venue what it missed. `on_end(text)` is called when the venue ends the stream.
    """

    def __init__(
        self,
        ctx: AdapterContext,
        table: SymbolTable,
        ids: OrderIds,
        source: str,
        on_doubt: Callable[[str], None],
        on_end: Callable[[str], None],
        on_shutdown: Callable[[], None],
    ) -> None:
        self._ctx: Final = ctx
        self._table: Final = table
        self._ids: Final = ids
        self._on_doubt: Final = on_doubt
        self._on_end: Final = on_end
        self._on_shutdown: Final = on_shutdown
        self.bad: Final = BadFrames(_log, source)

    def take(self, payload: memoryview | bytes | msgspec.Raw) -> None:
        """Take one event."""
        try:
            event = decode_user_event(payload)
            if isinstance(event, Notice):
                self._on_notice(event, payload)
                return
            reports = reports_of(event, self._table.to_tandem)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            self.bad.note(type(error).__name__, bytes(payload), error)
            self._on_doubt(f"a private event cannot be read: {error}")
            return
        if event.x == "CALCULATED":
            _log.error(
                "account %s: order %s was made by the venue: liquidation or deleveraging",
                self._ctx.account,
                event.c,
            )
        if reports:
            self._ids.learn(event.i, reports[0].client_id)  # type: ignore[union-attr]  # each is about an order
        for report in reports:
            self._ctx.report(report)

    def _on_notice(self, event: Notice, payload: memoryview | bytes | msgspec.Raw) -> None:
        if event.e in _ENDS:
            self._on_end(f"the venue ended the stream: {event.e}")
        elif event.e == "serverShutdown":
            self._on_shutdown()
        elif event.e in _NEWS:
            _log.log(
                _NEWS[event.e], "account %s: %s", self._ctx.account, bytes(payload).decode(errors="replace")
            )


class ListenKeyStream:
    """USDⓈ-M's private stream."""

    def __init__(
        self,
        name: str,
        base_url: str,
        ctx: AdapterContext,
        calls: RestCalls,
        events: UserEvents,
        heartbeat: Heartbeat,
        renew_after_s: float,
        on_up: Callable[[str], None],
        on_down: Callable[[str], None],
    ) -> None:
        self._base_url: Final = base_url
        self._ctx: Final = ctx
        self._calls: Final = calls
        self.channel: Final = Channel(
            f"{name} private",
            url=self._url,
            on_message=events.take,
            on_open=self._on_open,
            on_up=on_up,
            on_down=on_down,
            heartbeat=heartbeat,
            renew_after_s=renew_after_s,
        )

    async def keep_alive(self) -> None:
        """Prolong the key, for ever; a key that is gone is replaced by dialling again."""
        while True:
            await asyncio.sleep(_KEEP_ALIVE_S)
            try:
                await self._calls.keyed(_KEEP_KEY, self._ctx.now_ns())
            except VenueRefused as refused:
                self.channel.drop(f"the listen key is gone: {refused}")
            except ExchangeError as error:
                _log.warning(
                    "account %s: the listen key could not be prolonged: %s", self._ctx.account, error
                )

    async def _url(self) -> str:
        try:
            key = decode_listen_key(await self._calls.keyed(_NEW_KEY, self._ctx.now_ns()))
        except (ExchangeError, msgspec.MsgspecError) as error:
            if isinstance(error, VenueRefused) and error.verdict.action is Action.FATAL:
                raise ExchangeError(f"{error}; check the key and what it may do") from error
            raise NotConnected(f"no listen key: {error}") from error
        return f"{self._base_url}{_PRIVATE_PATH}?listenKey={key}"

    async def _on_open(self, websocket: WebSocket) -> None:
        """Nothing to say: the key in the address says it all."""
