"""One WebSocket, from the handshake to its end: the transport seam of every adapter.

Frames come in and bytes go out through plain calls on the event loop, without a task in between.
TCP_NODELAY is on and compression is off: both cost latency at these message sizes.
"""

import asyncio
import socket
import struct
from collections.abc import Callable, Mapping
from typing import Final

import picows
from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport

from host.api import ExchangeError

__all__ = ["NotConnected", "OnLost", "OnMessage", "WebSocket", "open_websocket"]

MOST_FRAME_BYTES: Final = 16 << 20
"""A whole book of 5,000 levels a side is 0.4 MB; nothing that a venue sends comes near this."""

OnMessage = Callable[[memoryview], None]
"""Takes one whole text or binary message. The memory is the socket's: valid until this returns."""
OnLost = Callable[[str], None]
"""Called once, with the reason, when the connection is gone."""


class NotConnected(ExchangeError):  # noqa: N818 - it says what is the case, like `OrderRefused`
    """There is no connection, or it could not be made; nothing was sent."""


class WebSocket:
    """An open connection. `heard` is set whenever anything arrives, pings and pongs included."""

    __slots__ = ("_drops_unsent", "_transport", "error", "heard", "name")

    def __init__(self, name: str, transport: WSTransport, *, drops_unsent: bool) -> None:
        self.name = name
        self.heard = True
        self.error: Exception | None = None
        """What our own code raised on a message; the connection is closed then."""
        self._transport = transport
        self._drops_unsent = drops_unsent
        if drops_unsent:
            self._linger(True)

    @property
    def is_open(self) -> bool:
        """Return whether messages can be sent."""
        return not (self._transport.is_disconnected or self._transport.is_close_frame_sent)

    def send(self, payload: bytes) -> None:
        """Hand one text message to the socket, without waiting; raise `NotConnected`."""
        transport = self._transport
        if transport.is_disconnected or transport.is_close_frame_sent:
            raise NotConnected(f"{self.name}: the connection is lost, nothing was sent")
        transport.send(WSMsgType.TEXT, payload)

    def ping(self) -> None:
        """Send a ping frame; the pong sets `heard`."""
        if self.is_open:
            self._transport.send_ping()

    def close(self) -> None:
        """Say goodbye and close; what was sent before still goes out. No effect twice."""
        if not self.is_open:
            return
        if self._drops_unsent:
            self._linger(False)
        self._transport.send_close(WSCloseCode.OK)
        self._transport.disconnect()

    def abort(self) -> None:
        """Drop the connection at once, with whatever has not been sent."""
        self._transport.disconnect(graceful=False)

    def _linger(self, is_dropping: bool) -> None:
        # The kernel throws away what a killed process has not sent yet: SO_LINGER with 0 seconds.
        sock = self._transport.underlying_transport.get_extra_info("socket")
        if sock is not None and sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", is_dropping, 0))


class _Listener(WSListener):
    def __init__(self, on_message: OnMessage, on_lost: OnLost) -> None:
        self._on_message = on_message
        self._on_lost = on_lost
        self._parts: bytearray | None = None
        self._reason = "the venue closed the connection"
        self.socket: WebSocket | None = None

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        websocket = self.socket
        if websocket is not None:
            websocket.heard = True
        kind = frame.msg_type
        if kind is WSMsgType.TEXT or kind is WSMsgType.BINARY or kind is WSMsgType.CONTINUATION:
            try:
                if self._parts is None and frame.fin:
                    self._on_message(frame.get_payload_as_memoryview())
                else:
                    self._on_part(frame)
            except Exception as error:  # noqa: BLE001 - a callback of the loop: the channel raises it where it is seen
                if websocket is not None:
                    websocket.error = error
                self._reason = f"our own code raised {type(error).__name__}"
                transport.disconnect(graceful=False)
        elif kind is WSMsgType.CLOSE:
            code, text = frame.get_close_code(), frame.get_close_reason()
            self._reason = (
                f"the venue closed the connection ({getattr(code, 'value', code)} {text or 'no reason'})"
            )
            transport.disconnect()

    def _on_part(self, frame: WSFrame) -> None:
        parts = self._parts
        if parts is None:
            parts = self._parts = bytearray()
        parts += frame.get_payload_as_memoryview()
        if len(parts) > MOST_FRAME_BYTES:
            raise NotConnected(f"a message of more than {MOST_FRAME_BYTES} bytes")
        if frame.fin:
            self._parts = None
            self._on_message(memoryview(parts))

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._on_lost(self._reason)


async def open_websocket(
    name: str,
    url: str,
    on_message: OnMessage,
    on_lost: OnLost,
    *,
    headers: Mapping[str, str] | None = None,
    timeout_s: float = 10.0,
    drops_unsent: bool = False,
) -> WebSocket:
    """Connect and shake hands; raise `NotConnected`, which says what was wrong.

    `drops_unsent` is for sockets that carry orders: when this process is killed, the kernel drops
    what it has not sent yet, so that nothing leaves after the right to send is over.
    """
    listener = _Listener(on_message, on_lost)
    try:
        async with asyncio.timeout(timeout_s):
            transport, _ = await picows.ws_connect(
                lambda: listener,
                url,
                max_frame_size=MOST_FRAME_BYTES,
                websocket_handshake_timeout=timeout_s,
                extra_headers=dict(headers or {}),
                max_redirects=0,
            )
    except TimeoutError as error:
        raise NotConnected(f"{name}: {_bare(url)} did not answer within {timeout_s:g} s") from error
    except (OSError, picows.WSError) as error:
        raise NotConnected(f"{name}: cannot connect to {_bare(url)}: {str(error).splitlines()[0]}") from error
    websocket = listener.socket = WebSocket(name, transport, drops_unsent=drops_unsent)
    return websocket


def _bare(url: str) -> str:
    """Leave out the query: it may hold a listen key."""
    return url.partition("?")[0]
