"""A small gRPC server behind the node's own door, callers and audit log, and clients of it."""

import asyncio
import ctypes
import os
import socket
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest

from host.control.audit import AuditEvent, AuditLog
from host.control.audit_chain import AuditLine, decode_line, read_lines
from host.control.authority import Authority
from host.control.callers import Callers
from host.control.door import DoorRefusal, TlsDoor
from host.control.listen import TcpAddress, UnixAddress, claim_unix_socket
from host.control.principal import NotAuthenticated, Role
from host.control.tls import ServerTls, TlsFiles
from host.control.tokens import TOKENS_FILE, TokenStore

PATIENCE_S = 30.0
METHOD = "/test.v1.Service/WhoAmI"
NOBODY = 65_534
Pair = tuple[Path, Path]
only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another user's sockets")


def now() -> datetime:
    return datetime.now(UTC)


class Site:
    """One node's folder: a CA, a node certificate for this machine, tokens, an audit log."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority.create(folder / "certs", now())
        self.node = self.authority.issue_node("a", ["127.0.0.1"], now(), 30)
        self.tokens = TokenStore.open(folder / TOKENS_FILE)
        self.audit = AuditLog.open(folder / "control" / "audit")
        self.inner = UnixAddress(folder / "control" / "control.sock")
        self.refused = asyncio.Event()
        self.tls_port = 0
        self.loopback_port = 0

    def client(self, name: str, role: Role, *, days_ago: int = 0, days: int = 1) -> Pair:
        return self.authority.issue_client(name, role, now() - timedelta(days=days_ago), days)

    def files(self, *, is_certificate_required: bool = False, has_ca: bool = True) -> TlsFiles:
        return TlsFiles(
            certificate=self.node[0],
            key=self.node[1],
            client_ca=self.folder / "certs" / "ca.crt" if has_ca else None,
            require_client_certificate=is_certificate_required,
        )

    def audited(self) -> list[AuditLine]:
        return [decode_line(line) for _, _, line in read_lines(self.audit.folder)]

    def _on_refused(self, refusal: DoorRefusal) -> None:
        event = AuditEvent(
            who="",
            peer=refusal.address,
            method="connect",
            outcome=refusal.reason,
            detail=refusal.text,
        )
        self.audit.refuse(event, time.time_ns(), refusal.count)
        self.refused.set()

    @asynccontextmanager
    async def serving(
        self, *, files: TlsFiles | None = None, loopback_role: Role | None = Role.ADMIN
    ) -> AsyncIterator[None]:
        """Serve one method that answers with the caller; a refusal is audited, as the node does it."""
        claim_unix_socket(self.inner, self.folder)
        door = TlsDoor(
            TcpAddress("127.0.0.1", 0), ServerTls(files or self.files(), now()), self.inner, self._on_refused
        )
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        server.add_insecure_port(str(self.inner))
        self.loopback_port = server.add_insecure_port("127.0.0.1:0")
        callers = Callers(self.tokens, time.time_ns, loopback_role=loopback_role)
        callers.listen_on_loopback(TcpAddress("127.0.0.1", self.loopback_port))
        callers.listen_behind(door)

        async def who_am_i(_request: bytes, context: "grpc.aio.ServicerContext[bytes, bytes]") -> bytes:
            try:
                caller = callers.identify(context.peer(), context.invocation_metadata() or ())
            except NotAuthenticated as refusal:
                event = AuditEvent(
                    who="",
                    peer=callers.address(context.peer()),
                    method=METHOD,
                    outcome="UNAUTHENTICATED",
                    detail=refusal.reason,
                )
                self.audit.refuse(event, time.time_ns())
                await context.abort(grpc.StatusCode.UNAUTHENTICATED, str(refusal))
            who = caller.principal
            return f"{who.name} {who.role} {who.via}".encode()

        handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(who_am_i)
        service = METHOD.split("/")[1]
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"WhoAmI": handler}),))
        await server.start()
        self.tls_port = door.start()
        try:
            yield
        finally:
            door.close()
            await server.stop(None)
            callers.close()
            self.audit.close(time.time_ns())

    # -- clients -----------------------------------------------------------------------------------

    def over_tls(self, pair: Pair | None = None) -> grpc.aio.Channel:
        ca = (self.folder / "certs" / "ca.crt").read_bytes()
        own = () if pair is None else (pair[1].read_bytes(), pair[0].read_bytes())
        return grpc.aio.secure_channel(f"127.0.0.1:{self.tls_port}", grpc.ssl_channel_credentials(ca, *own))

    def in_plain_text(self, port: int) -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(f"127.0.0.1:{port}")

    def over_socket(self) -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(str(self.inner))


async def ask(channel: grpc.aio.Channel, token: str | None = None) -> str:
    """Return who the server takes us for, or the name of the status code that refuses us."""
    metadata: Sequence[tuple[str, str]] = () if token is None else (("authorization", f"Bearer {token}"),)
    async with channel:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(METHOD)
        try:
            return bytes(await call(b"", metadata=metadata, timeout=PATIENCE_S)).decode()
        except grpc.aio.AioRpcError as error:
            return error.code().name


def socket_of_user(uid: int) -> socket.socket:
    """Return a TCP socket that the kernel takes for that user's: it goes by the thread's fsuid."""
    setfsuid = ctypes.CDLL(None).setfsuid
    before = setfsuid(uid)
    try:
        return socket.socket()
    finally:
        setfsuid(before)


@asynccontextmanager
async def relay_of_user(uid: int, port: int) -> AsyncIterator[int]:
    """Listen on a port of which each connection is passed on to `port` by another user's socket."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass  # the client is done
        finally:
            writer.close()

    async def on_connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward = socket_of_user(uid)
        onward.setblocking(False)
        await asyncio.get_running_loop().sock_connect(onward, ("127.0.0.1", port))
        onward_reader, onward_writer = await asyncio.open_connection(sock=onward)
        await asyncio.gather(pump(reader, onward_writer), pump(onward_reader, writer))

    server = await asyncio.start_server(on_connected, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
