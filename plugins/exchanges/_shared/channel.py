"""A WebSocket that is kept up: watched, dialled again when it breaks, and renewed before it is cut."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from msgspec import Struct

from .backoff import Backoff
from .websocket import NotConnected, OnMessage, WebSocket, open_websocket

__all__ = ["Channel", "Heartbeat"]

_log = logging.getLogger("tandem.exchange")


class Heartbeat(Struct, frozen=True):
    """When silence becomes suspicious. A ping frame is answered by every WebSocket server."""

    ping_after_s: float = 5.0
    """After so long without any message a ping is sent."""
    lost_after_s: float = 12.0
    """After so long without any message, pongs included, the connection counts as lost."""
    text: bytes = b""
    """What to send instead of a ping frame, where the venue wants a message of its own."""
    is_regular: bool = False
    """Ping even while messages arrive: for a venue that counts only what it hears from us."""


class Channel:
    """Keeps one connection to one place up until it is closed.

    `on_open` makes a fresh connection usable (logs in, subscribes, waits for the answers). It raises
    `NotConnected` where that failed and may be tried again; any other error, such as a key that the venue
    refuses, ends `run`. Then `on_up` is told, and `on_down`, once, when the connection is lost. A
    planned renewal connects and opens the new one before the old one is let go: nobody is told of it,
    and for a moment both hand over messages, so whoever takes them must bear hearing one twice.
    """

    def __init__(
        self,
        name: str,
        *,
        url: Callable[[], Awaitable[str]],
        on_message: OnMessage,
        on_open: Callable[[WebSocket], Awaitable[None]],
        on_up: Callable[[str], None],
        on_down: Callable[[str], None],
        heartbeat: Heartbeat,
        headers: Mapping[str, str] | None = None,
        drops_unsent: bool = False,
        timeout_s: float = 10.0,
        renew_after_s: float = 23.0 * 3600,
        overlap_s: float = 2.0,
        backoff: Backoff | None = None,
    ) -> None:
        self.name: Final = name
        self._url: Final = url
        self._on_message: Final = on_message
        self._on_open: Final = on_open
        self._on_up: Final = on_up
        self._on_down: Final = on_down
        self._heartbeat: Final = heartbeat
        self._headers: Final = headers
        self._drops_unsent: Final = drops_unsent
        self._timeout_s: Final = timeout_s
        self._renew_after_s: Final = renew_after_s
        self._overlap_s: Final = overlap_s
        self._backoff: Final = backoff or Backoff()
        self._socket: WebSocket | None = None
        self._lost: Final[dict[int, str]] = {}
        """Why connections were lost, by their number; one that is not in here is up."""
        self._dialled = 0
        self._number = 0
        self._changed: Final = asyncio.Event()
        self._is_renewal_wanted = False
        self._renew_at_s = 0.0
        self._is_closed = False
        self.renewals = 0
        """How often a connection was replaced before it broke."""

    @property
    def is_up(self) -> bool:
        """Return whether messages can be sent."""
        return self._socket is not None and self._socket.is_open and self._number not in self._lost

    def send(self, payload: bytes) -> None:
        """Hand one message to the socket; raise `NotConnected` when nothing was sent."""
        if self._socket is None or self._number in self._lost:
            raise NotConnected(f"{self.name}: not connected, nothing was sent")
        self._socket.send(payload)

    async def open(self) -> None:
        """Connect for the first time; raise `ExchangeError` where that is not possible."""
        await self._dial()
        self._on_up("connected")

    async def run(self) -> None:
        """Keep the connection up until `close`. Raises what `on_message` raised."""
        while not self._is_closed:
            if not self.is_up and not await self._come_back():
                continue
            await self._watch()

    def renew(self) -> None:
        """Replace the connection soon, the new one first: the venue announced that it will cut it."""
        self._is_renewal_wanted = True
        self._changed.set()

    def drop(self, reason: str) -> None:
        """Give the connection up at once and dial again: what it says can no longer be trusted."""
        if self._socket is not None and self.is_up:
            self._on_lost(self._number, reason)
            self._socket.abort()

    def close(self) -> None:
        """Close the connection and let `run` return. Nothing is told of that."""
        self._is_closed = True
        self._changed.set()
        if self._socket is not None:
            self._socket.close()

    # -- inside ----------------------------------------------------------------------------------

    async def _dial(self) -> None:
        """Connect, open, and make that the connection that messages are sent on."""
        self._dialled += 1
        number = self._dialled
        socket: WebSocket | None = None
        try:
            async with asyncio.timeout(self._timeout_s):
                socket = await open_websocket(
                    self.name,
                    await self._url(),
                    self._on_message,
                    lambda reason: self._on_lost(number, reason),
                    headers=self._headers,
                    timeout_s=self._timeout_s,
                    drops_unsent=self._drops_unsent,
                )
                await self._on_open(socket)
            if number in self._lost:  # lost while it was being opened
                raise socket.error or NotConnected(f"{self.name}: {self._lost[number]}")
            if self._is_closed:
                raise NotConnected(f"{self.name}: closed meanwhile")
        except TimeoutError as error:
            _abort(socket)
            raise NotConnected(f"{self.name}: not ready within {self._timeout_s:g} s") from error
        except BaseException:
            _abort(socket)
            raise
        self._number, self._socket = number, socket
        for earlier in [earlier for earlier in self._lost if earlier < number]:
            del self._lost[earlier]
        self._renew_at_s = asyncio.get_running_loop().time() + self._renew_after_s
        self._is_renewal_wanted = False
        self._backoff.reset()

    async def _come_back(self) -> bool:
        try:
            await self._dial()
        except NotConnected as error:
            await self._pause(str(error))
            return False
        self._on_up("connected again")
        return True

    async def _pause(self, reason: str) -> None:
        pause_s = self._backoff.next_s()
        _log.info("%s; trying again in %.1f s", reason, pause_s)
        self._changed.clear()
        if not self._is_closed:
            await _wait(self._changed, pause_s)

    async def _watch(self) -> None:
        """Return when the connection is lost; replace it when its time has come."""
        heartbeat = self._heartbeat
        loop = asyncio.get_running_loop()
        heard_s = pinged_s = loop.time()
        while not self._is_closed:
            socket = self._socket
            assert socket is not None, "dialled before"
            if self._number in self._lost:
                if socket.error is not None:
                    raise socket.error
                return
            now_s = loop.time()
            if socket.heard:
                socket.heard, heard_s = False, now_s
            quiet_s = now_s - heard_s
            if quiet_s >= heartbeat.lost_after_s:
                self.drop(f"nothing was heard for {quiet_s:.1f} s")
                return
            due_s = pinged_s if heartbeat.is_regular else max(heard_s, pinged_s)
            if now_s - due_s >= heartbeat.ping_after_s and socket.is_open:
                pinged_s = now_s
                if heartbeat.text:
                    socket.send(heartbeat.text)
                else:
                    socket.ping()
            if self._is_renewal_wanted or now_s >= self._renew_at_s:
                await self._replace(socket)
            self._changed.clear()
            if self._number not in self._lost and not self._is_closed:
                rest_s = max(self._renew_at_s - loop.time(), 0.0)
                await _wait(self._changed, min(heartbeat.ping_after_s / 2, rest_s))

    async def _replace(self, old: WebSocket) -> None:
        loop = asyncio.get_running_loop()
        try:
            await self._dial()
        except NotConnected:
            # The old one still works: there is time to try again.
            self._renew_at_s = loop.time() + self._backoff.next_s()
            self._is_renewal_wanted = False
            return
        self.renewals += 1
        # Answers to what was sent on the old one may still come.
        loop.call_later(self._overlap_s, old.close)

    def _on_lost(self, number: int, reason: str) -> None:
        if number in self._lost or number < self._number:
            return
        self._lost[number] = reason
        if number == self._number:
            if not self._is_closed:
                self._on_down(reason)
            self._changed.set()


async def _wait(event: asyncio.Event, most_s: float) -> None:
    try:
        await asyncio.wait_for(event.wait(), most_s)
    except TimeoutError:
        return


def _abort(socket: WebSocket | None) -> None:
    if socket is not None:
        socket.abort()
