"""The course of a request: read, struck by faults, held, answered, logged.

The same for HTTP requests and frames, and for all protocols. The log's line is written as soon as
the verdict is known, before the answer leaves and whatever becomes of the answer.
"""

import asyncio
import contextlib
import logging
from typing import Any, Final

import msgspec
from aiohttp import web

from venue.protocols.connection import Connection
from venue.protocols.faults import Fault, FaultKind, FaultPlan
from venue.protocols.front import Front
from venue.protocols.request_log import RequestLog
from venue.protocols.requests import Raw, Reply, Request, Verdict
from venue.running import RunningExchange

__all__ = ["Course"]

_log = logging.getLogger(__name__)
_encoder = msgspec.json.Encoder(decimal_format="string")

UNANSWERED_S: Final = 60.0
"""For how long a client that gets no answer keeps its HTTP connection; then it is cut."""


class Course:
    """Serves one front. `handle` is the aiohttp handler of all its paths."""

    def __init__(self, front: Front, running: RunningExchange, faults: FaultPlan, log: RequestLog) -> None:
        self.front: Final = front
        self.connections: set[Connection] = set()
        self._running = running
        self._faults = faults
        self._log = log
        self._connection_number = 0
        self._late: set[asyncio.Task[None]] = set()

    async def handle(self, http: web.Request) -> web.StreamResponse:
        """Serve one HTTP request, or a WebSocket connection from its handshake to its end."""
        if http.headers.get("Upgrade", "").lower() == "websocket":
            return await self._serve_connection(http)
        return await self._serve_request(http)

    async def close(self) -> None:
        """End every connection and everything that is still held back."""
        for task in list(self._late):
            task.cancel()
        self.cut()
        self.front.close()

    def cut(self) -> int:
        """Break every WebSocket and return how many there were."""
        connections = list(self.connections)
        for connection in connections:
            connection.abort()
        return len(connections)

    # -- HTTP ------------------------------------------------------------------------------------

    async def _serve_request(self, http: web.Request) -> web.StreamResponse:
        body = await http.read()
        path, _, query = http.raw_path.partition("?")
        headers = {name.lower(): value for name, value in http.headers.items()}
        raw = Raw(http.method, path, query, body, headers)
        request = self.front.read(raw, self._running.clock.wall_now_ns())
        struck = self._draw(request)
        await self._sleep(self._held_s(struck))
        reply = await self._carry_out(request, struck)
        await self._sleep(self._answer_late_s(struck))
        if reply is None:
            await asyncio.sleep(0 if _has(struck, FaultKind.DISCONNECT) else UNANSWERED_S)
            if http.transport is not None:
                http.transport.abort()
            return web.Response(status=502)  # nobody reads it: the connection is gone
        headers = {"Content-Type": "application/json;charset=UTF-8", **reply.headers}
        return web.Response(status=reply.status, body=_encode(reply.body), headers=headers)

    # -- WebSocket -------------------------------------------------------------------------------

    async def _serve_connection(self, http: web.Request) -> web.StreamResponse:
        self._connection_number += 1
        front = self.front
        connection = Connection(
            self._connection_number, front.name, http, self._faults, ping_s=front.ping_s, pong_s=front.pong_s
        )
        if not front.opened(connection):
            return web.Response(status=404)
        await connection.open()
        self.connections.add(connection)
        try:
            async for frame in connection.frames():
                await self._take_frame(connection, frame)
        finally:
            connection.stop()
            self.connections.discard(connection)
            front.closed(connection)
        return connection.response

    async def _take_frame(self, connection: Connection, frame: str | bytes) -> None:
        body = frame if isinstance(frame, bytes) else frame.encode()
        raw = Raw("", connection.path, "", body, {}, connection)
        request = self.front.read(raw, self._running.clock.wall_now_ns())
        struck = self._draw(request)
        if not struck and not connection.in_lane:
            await self._answer_frame(connection, request, struck)
            return
        due_ns = request.arrived_ns + int(self._held_s(struck) * 1e9)
        connection.in_lane += not _has(struck, FaultKind.REORDER)
        task = asyncio.create_task(self._answer_late(connection, request, struck, due_ns))
        self._late.add(task)
        task.add_done_callback(self._late.discard)

    async def _answer_late(
        self, connection: Connection, request: Request, struck: tuple[Fault, ...], due_ns: int
    ) -> None:
        if _has(struck, FaultKind.REORDER):
            reply = await self._carry_out_at(request, struck, due_ns)
        else:
            try:
                async with connection.lane:
                    reply = await self._carry_out_at(request, struck, due_ns)
            finally:
                connection.in_lane -= 1
        await self._send_frame(connection, reply, struck)

    async def _carry_out_at(self, request: Request, struck: tuple[Fault, ...], due_ns: int) -> Reply | None:
        await self._sleep((due_ns - self._running.clock.wall_now_ns()) / 1e9)
        return await self._carry_out(request, struck)

    async def _answer_frame(
        self, connection: Connection, request: Request, struck: tuple[Fault, ...]
    ) -> None:
        await self._send_frame(connection, await self._carry_out(request, struck), struck)

    async def _send_frame(
        self, connection: Connection, reply: Reply | None, struck: tuple[Fault, ...]
    ) -> None:
        await self._sleep(self._answer_late_s(struck))
        if _has(struck, FaultKind.DISCONNECT):
            connection.abort()
        elif reply is not None:
            connection.send(_encode(reply.body))

    # -- both ------------------------------------------------------------------------------------

    def _draw(self, request: Request) -> tuple[Fault, ...]:
        return self._faults.on_request(
            request.protocol, request.account, str(request.kind), request.symbol, request.transport
        )

    async def _carry_out(self, request: Request, struck: tuple[Fault, ...]) -> Reply | None:
        names = tuple(str(fault.kind) for fault in struck)
        for fault in struck:
            if fault.kind is FaultKind.DROP_REQUEST or (
                fault.kind is FaultKind.DISCONNECT and not fault.is_executed
            ):
                self._log.write(request, names, lost=str(fault.kind))
                return None
            if fault.kind in (FaultKind.MAINTENANCE, FaultKind.RATE_LIMIT) or (
                fault.kind is FaultKind.SERVER_ERROR and not fault.is_executed
            ):
                self._log.write(request, names, lost=str(fault.kind))
                return self.front.failure(fault, request)
        reply = await self._answer(request, names)
        if _has(struck, FaultKind.DUPLICATE):
            await self._answer(self.front.read(request.raw, request.arrived_ns), names)
        for fault in struck:
            if fault.kind is FaultKind.SERVER_ERROR:
                return self.front.failure(fault, request)
            if fault.kind in (FaultKind.DROP, FaultKind.DISCONNECT):
                return None
            if fault.kind is FaultKind.HALF_BATCH and reply is not None:
                reply = self.front.halve(request, reply)
        return reply

    async def _answer(self, request: Request, names: tuple[str, ...]) -> Reply | None:
        try:
            reply = await self.front.answer(request)
        except BaseException:
            with contextlib.suppress(OSError):
                self._log.write(request, names, lost="the venue failed")
            raise
        for entry in request.entries:
            if entry.verdict is None:
                entry.verdict = Verdict.ACCEPTED
        self._log.write(request, names)
        return reply

    async def _sleep(self, seconds: float) -> None:
        if seconds > 0:
            await self._running.clock.sleep(seconds)

    def _held_s(self, struck: tuple[Fault, ...]) -> float:
        late = (FaultKind.LATENCY, FaultKind.REORDER)
        return sum(self._faults.delay_s(fault) for fault in struck if fault.kind in late)

    def _answer_late_s(self, struck: tuple[Fault, ...]) -> float:
        return sum(self._faults.delay_s(fault) for fault in struck if fault.kind is FaultKind.ANSWER_LATENCY)


def _has(struck: tuple[Fault, ...], kind: FaultKind) -> bool:
    return any(fault.kind is kind for fault in struck)


def _encode(body: Any) -> bytes:
    return body if isinstance(body, bytes) else _encoder.encode(body)
