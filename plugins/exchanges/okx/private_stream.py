"""The private WebSocket: what happens to our orders is pushed here, and orders are sent over it."""

import logging
from collections.abc import Callable
from typing import Final

from .._shared.bad_frames import BadFrames
from .._shared.channel import Channel
from .._shared.venue_clock import VenueClock
from .._shared.websocket import WebSocket
from .answers import read_orders
from .conversation import PONG, Conversation
from .frames import BadFrame, OrderRow, PrivateFrame, read_private_frame
from .params import OkxParams, heartbeat, renew_after_s, ws_url
from .products import EXCHANGE, Listing, Listings
from .signing import Signer

__all__ = ["PrivateStream"]

_log = logging.getLogger("tandem.okx")
_ORDERS: Final = "orders"
_SUBSCRIPTIONS: Final = [{"channel": _ORDERS, "instType": "ANY"}]
_RECONNECT_SOON: Final = "64008"
_CONNECTIONS: Final = "channel-conn-count"
"""How many connections have subscribed a private channel: told after each subscription."""


class PrivateStream:
    """Keeps the private connection up, and hands on what comes over it."""

    def __init__(
        self,
        params: OkxParams,
        listings: Listings,
        signer: Signer,
        clock: VenueClock,
        now_ns: Callable[[], int],
        on_order: Callable[[Listing, OrderRow], None],
        on_answer: Callable[[PrivateFrame], None],
        on_change: Callable[[bool, str], None],
    ) -> None:
        name = f"{EXCHANGE} private stream"
        self._params: Final = params
        self._listings: Final = listings
        self._signer: Final = signer
        self._clock: Final = clock
        self._now_ns: Final = now_ns
        self._on_order: Final = on_order
        self._on_answer: Final = on_answer
        self._conversation: Final = Conversation(name)
        self._bad: Final = BadFrames(_log, name)
        self.channel: Final = Channel(
            name,
            url=self._url,
            on_message=self._on_message,
            on_open=self._on_open,
            on_up=lambda text: on_change(True, text),
            on_down=lambda text: on_change(False, text),
            heartbeat=heartbeat(params),
            timeout_s=params.connect_timeout_s,
            renew_after_s=renew_after_s(params),
            drops_unsent=True,
        )

    async def _url(self) -> str:
        return f"{ws_url(self._params)}/ws/v5/private"

    async def _on_open(self, socket: WebSocket) -> None:
        await self._conversation.log_in(socket, self._signer, self._clock, self._now_ns())
        await self._conversation.subscribe(socket, _SUBSCRIPTIONS)

    def _on_message(self, data: memoryview) -> None:
        if len(data) == len(PONG) and bytes(data) == PONG:
            return
        try:
            self._take(read_private_frame(data), data)
        except BadFrame as error:
            self._bad.note(error.kind, data, error.detail)
            # What it would have said of our orders is not known: a new connection has the host ask.
            self.channel.drop(f"a message could not be read: {error.kind}")

    def _take(self, frame: PrivateFrame, data: memoryview) -> None:
        if frame.op:
            self._on_answer(frame)
        elif frame.event:
            self._on_event(frame, data)
        elif frame.arg.channel == _ORDERS:
            for row in read_orders(frame.data):
                listing = self._listings.find(row.inst_id)
                if listing is not None:
                    self._on_order(listing, row)

    def _on_event(self, frame: PrivateFrame, data: memoryview) -> None:
        if frame.code == _RECONNECT_SOON:
            _log.info("%s: the venue will close the connection: %s; it is replaced", EXCHANGE, frame.msg)
            self.channel.renew()
        elif frame.event != _CONNECTIONS and not self._conversation.take(frame):
            self._bad.note(f"event {frame.event}", data, f"{frame.code} {frame.msg}")
