"""One WebSocket connection at the venue: frames in order both ways, pings, and faults on events.

Whatever is sent is queued and written by one task, so nothing here waits and order is kept. A
client that does not read is cut off rather than buffered without end.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Final

from aiohttp import WSMessage, WSMsgType, web

from venue.protocols.faults import FaultKind

if TYPE_CHECKING:
    from venue.protocols.faults import FaultPlan

__all__ = ["Connection"]

MAX_UNSENT: Final = 50_000
"""Messages that wait for a client that does not read; beyond, it is disconnected."""
MAX_FRAME_BYTES: Final = 1 << 20
"""A request is far smaller; a larger one closes the connection, as at any venue."""


class Connection:
    """A client's WebSocket. `state` is the protocol's own; `account` who it logged in as."""

    def __init__(
        self,
        number: int,
        protocol: str,
        request: web.Request,
        faults: "FaultPlan",
        *,
        ping_s: float,
        pong_s: float,
    ) -> None:
        self.number: Final = number
        self.protocol: Final = protocol
        self.path: Final = request.path
        self.query: Final = dict(request.query)
        self.remote: Final = request.remote or ""
        self.account = ""
        self.state: Any = None
        self.lane: Final = asyncio.Lock()
        """Held by a late request: those behind it wait, first come, first served, as on any TCP
        connection."""
        self.in_lane = 0
        """How many requests hold the lane or wait for it."""
        self._request = request
        self._faults = faults
        self._ping_s = ping_s
        self._pong_s = pong_s
        self._socket = web.WebSocketResponse(
            autoping=False, compress=False, max_msg_size=MAX_FRAME_BYTES, timeout=1.0
        )
        self._unsent: deque[bytes | str] = deque()
        self._has_unsent = asyncio.Event()
        self._events_in_order_s = 0.0
        self._last_pong_s = 0.0
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def response(self) -> web.WebSocketResponse:
        """Return what the HTTP handler returns."""
        return self._socket

    @property
    def is_closed(self) -> bool:
        """Return whether nothing can be sent any more."""
        return self._socket.closed

    async def open(self) -> None:
        """Shake hands and begin to write."""
        await self._socket.prepare(self._request)
        self._last_pong_s = asyncio.get_running_loop().time()
        self._tasks = [asyncio.create_task(self._write_all())]
        if self._ping_s:
            self._tasks.append(asyncio.create_task(self._ping()))

    async def frames(self) -> AsyncIterator[str | bytes]:
        """Yield the client's frames until either side ends the connection."""
        message: WSMessage
        async for message in self._socket:
            if message.type is WSMsgType.TEXT or message.type is WSMsgType.BINARY:
                yield message.data
            elif message.type is WSMsgType.PING:
                await self._socket.pong(message.data)
            elif message.type is WSMsgType.PONG:
                self._last_pong_s = asyncio.get_running_loop().time()

    def send(self, data: bytes | str) -> None:
        """Queue an answer."""
        if self._socket.closed:
            return
        self._unsent.append(data)
        if len(self._unsent) > MAX_UNSENT:
            self.abort()
        self._has_unsent.set()

    def push(self, data: bytes | str, kind: str, symbol: str = "") -> None:
        """Queue an event of a stream, unless a fault has it otherwise.

        `kind` is `private`, `depth`, `top`, `trade` or `ticker`; `symbol` as the protocol spells it.
        """
        struck = self._faults.on_event(self.protocol, self.account, kind, symbol)
        loop = asyncio.get_running_loop()
        due_s = max(loop.time(), self._events_in_order_s)
        times = 1
        for fault in struck:
            if fault.kind in (FaultKind.DROP, FaultKind.SEQUENCE_GAP):
                return
            if fault.kind is FaultKind.DISCONNECT:
                self.abort()
                return
            if fault.kind is FaultKind.DUPLICATE:
                times += 1
            elif fault.kind is FaultKind.REORDER:
                loop.call_later(self._faults.delay_s(fault), self.send, data)
                return
            elif fault.kind is FaultKind.LATENCY:
                due_s = max(due_s, loop.time() + self._faults.delay_s(fault))
        for _ in range(times):
            if due_s > loop.time():
                loop.call_at(due_s, self.send, data)
                # Timers of one moment fire in any order: the next event is due a little later.
                due_s = self._events_in_order_s = due_s + 1e-6
            else:
                self.send(data)

    def abort(self) -> None:
        """Break the connection at once, without a closing handshake."""
        if self._request.transport is not None:
            self._request.transport.abort()

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Send what is queued, then end the connection in order."""
        while self._unsent and not self._socket.closed:
            await self._socket.send_str(_text(self._unsent.popleft()))
        await self._socket.close(code=code, message=reason.encode())

    def stop(self) -> None:
        """End the tasks that write and ping."""
        for task in self._tasks:
            task.cancel()

    async def _write_all(self) -> None:
        unsent = self._unsent
        try:
            while True:
                await self._has_unsent.wait()
                self._has_unsent.clear()
                while unsent:
                    await self._socket.send_str(_text(unsent.popleft()))
        except (ConnectionError, RuntimeError):
            self.abort()  # the client has gone; `frames` ends for it too

    async def _ping(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while True:
                await asyncio.sleep(self._ping_s)
                if loop.time() - self._last_pong_s > self._pong_s:
                    self.abort()
                    return
                await self._socket.ping(str(int(loop.time() * 1e3)).encode())
        except (ConnectionError, RuntimeError):
            self.abort()


def _text(data: bytes | str) -> str:
    return data if isinstance(data, str) else data.decode()
