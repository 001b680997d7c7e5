"""Desks behind real servers, as primary or standby, and a wire between client and server that can be cut."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from control_tools import ControlDesk

from host.control.audit import AuditLog
from host.control.audit_chain import AUDIT_FOLDER
from host.control.callers import Callers
from host.control.front import Front
from host.control.listen import Listener, Security, TcpAddress, UnixAddress
from host.control.node_service import NodeService
from host.control.plugin_service import PluginService
from host.control.reasons import Refused
from host.control.rules import Rule
from host.control.server import ControlServer
from host.control.subject import Subject
from host.control.tls import ServerTls
from host.control.trading_service import TradingService

PATIENCE_S = 30.0


class Refusing(Subject):
    """A node in a state in which it takes no changes; `asked` says how often it was asked for one."""

    reason: str
    text: str
    metadata: dict[str, str] = msgspec.field(default_factory=dict)
    most: int = 1_000_000
    """It takes what comes after so many refusals."""
    asked: int = 0

    def check(self, rule: Rule) -> None:
        if rule.mutates and not rule.on_standby and self.asked < self.most:
            self.asked += 1
            raise Refused(self.reason, self.text, **self.metadata)


def make_refusing(desk: ControlDesk, reason: str, text: str, **more: Any) -> Refusing:
    """Have a desk refuse changes."""
    fields = {name: getattr(desk.subject, name) for name in Subject.__struct_fields__}
    desk.subject = refusing = Refusing(**fields, reason=reason, text=text, **more)
    return refusing


def make_standby(desk: ControlDesk, primary_address: str) -> None:
    """Have a desk refuse what a standby refuses."""
    known = {"primary_address": primary_address} if primary_address else {}
    make_refusing(desk, "NOT_PRIMARY", "this node is a standby", metadata=known)


def socket_of(desk: ControlDesk) -> str:
    return f"unix:{desk.home}/c.sock"


@asynccontextmanager
async def serving(
    desk: ControlDesk, *, is_primary: bool = True, tls: ServerTls | None = None, port: bool = False
) -> AsyncIterator[str]:
    """Serve a desk's API on its socket, on a `port` of loopback, or over TLS; give the address."""
    audit = AuditLog.open(desk.home / AUDIT_FOLDER)
    callers = Callers(desk.tokens, time.time_ns)
    front = Front(desk.subject, callers, audit, PATIENCE_S)
    services = {
        "tandem.v1.NodeService": NodeService(desk.subject),
        "tandem.v1.PluginService": PluginService(desk.subject),
        "tandem.v1.TradingService": TradingService(desk.subject),
    }
    server = ControlServer(services, front, callers, desk.home)
    any_port = TcpAddress("127.0.0.1", 0)
    if tls is not None:
        listener = Listener(any_port, Security.TLS)
    elif port:
        listener = Listener(any_port, Security.LOOPBACK)
    else:
        listener = Listener(UnixAddress(desk.home / "c.sock"), Security.SOCKET_FOLDER)
    await server.start([listener], tls)
    await server.set_primary(is_primary=is_primary)
    desk.server = server
    venue = asyncio.create_task(_answer_for_the_venue(desk))
    try:
        is_socket = isinstance(server.addresses[-1], UnixAddress)
        yield socket_of(desk) if is_socket else f"{'tls:' if tls else ''}{server.addresses[-1]}"
    finally:
        venue.cancel()
        await server.close(0.0)
        callers.close()
        desk.subject.tail.close()
        audit.close(time.time_ns())


async def _answer_for_the_venue(desk: ControlDesk) -> None:
    while True:
        desk.settle()
        await asyncio.sleep(0.002)


class Wire:
    """Carries bytes between a client and the socket of a server, until it is cut."""

    def __init__(self, path: Path, server: Path) -> None:
        self.path = path
        self._server = server
        self._may_answer = asyncio.Event()
        self._may_answer.set()
        self._writers: list[asyncio.StreamWriter] = []
        self.carried = 0
        """How many bytes a client sent."""

    @property
    def address(self) -> str:
        return f"unix:{self.path}"

    def hold_answers(self) -> None:
        """Keep back what the server says, from now on."""
        self._may_answer.clear()

    def cut(self) -> None:
        """Break every connection; what was kept back is lost. New ones work."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()
        self._may_answer = asyncio.Event()
        self._may_answer.set()

    @asynccontextmanager
    async def laid(self) -> AsyncIterator["Wire"]:
        """Take connections."""
        tasks: set[asyncio.Task[None]] = set()

        async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            far_reader, far_writer = await asyncio.open_unix_connection(str(self._server))
            self._writers += [writer, far_writer]
            may_answer = self._may_answer
            tasks.add(asyncio.create_task(self._carry(reader, far_writer, None)))
            tasks.add(asyncio.create_task(self._carry(far_reader, writer, may_answer)))

        listening = await asyncio.start_unix_server(connect, str(self.path))
        try:
            yield self
        finally:
            listening.close()
            self.cut()
            for task in tasks:
                task.cancel()

    async def _carry(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, may: asyncio.Event | None
    ) -> None:
        try:
            while data := await reader.read(65_536):
                if may is not None:
                    await may.wait()
                writer.write(data)
                await writer.drain()
                self.carried += len(data) if may is None else 0
        except ConnectionError:
            return  # it was cut
        writer.close()


async def until(is_so: Callable[[], bool]) -> None:
    """Wait for something to become true, as long as a busy machine may need."""
    async with asyncio.timeout(PATIENCE_S):
        while not is_so():
            await asyncio.sleep(0.002)


def run(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(story())
