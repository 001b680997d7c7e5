"""The door for other machines: takes TLS connections and passes them on to the node's own socket.

gRPC can do TLS itself, but says nothing about a connection that fails in the handshake: an expired
certificate or a plain-text client would leave no trace in the audit log. It also takes either every
client's certificate or none's. So the handshake is done here, by Python's own `ssl`, and what is inside
goes to gRPC over a Unix socket. The door runs in a thread of its own: no handshake is on the trading
loop.
"""

import asyncio
import secrets
import socket
import ssl
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from msgspec import Struct

from host.control.listen import ListenRefused, TcpAddress, UnixAddress
from host.control.principal import NotAuthenticated, Principal
from host.control.tls import ServerTls, principal_of

__all__ = ["DoorCaller", "DoorRefusal", "TlsDoor"]

HANDSHAKE_TIMEOUT_S: Final = 5.0
CONNECTION_LIMIT: Final = 256
"""gRPC clients keep one connection each; what is beyond this is an attack or a leak."""
CHUNK_BYTES: Final = 64 << 10
TELL_EVERY_S: Final = 0.25
REFUSAL_KINDS: Final = 64
"""So many different refusals are kept until they are told; further ones are counted as one."""
_START_DEADLINE_S: Final = 10.0
_PEER_PREFIX: Final = "unix-abstract:"

_PLAIN_TEXT: Final = frozenset({"HTTP_REQUEST", "HTTPS_PROXY_REQUEST", "WRONG_VERSION_NUMBER"})
"""What OpenSSL calls bytes that do not begin as TLS does."""


class DoorCaller(Struct, frozen=True):
    """Who is behind a connection that the door passed on. `principal` is None without a certificate.

    `refusal` says why the certificate, good as TLS, names no caller.
    """

    address: str
    principal: Principal | None
    refusal: NotAuthenticated | None = None


class DoorRefusal(Struct, frozen=True):
    """Connections from one host that did not get through; `count` of them, for the same reason."""

    address: str
    reason: str
    """`PLAIN_TEXT`, `CERTIFICATE_REFUSED`, `HANDSHAKE_FAILED`, `HANDSHAKE_TIMEOUT`, `CONNECTION_FAILED` or
    `TOO_MANY_CONNECTIONS`."""
    text: str
    count: int


class TlsDoor:
    """One TLS address in front of the gRPC server that listens on `inner`.

    `on_refused` is called on the loop that called `start`, at most a few times a second.
    """

    def __init__(
        self,
        address: TcpAddress,
        tls: ServerTls,
        inner: UnixAddress,
        on_refused: Callable[[DoorRefusal], None],
    ) -> None:
        self.address = address
        self.port = address.port
        self._tls = tls
        self._inner = inner
        self._on_refused = on_refused
        self._callers: dict[str, DoorCaller] = {}
        self._refused: dict[tuple[str, str, str], DoorRefusal] = {}
        self._lock = threading.Lock()
        self._connections = 0
        self._home: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = asyncio.Event()

    def start(self) -> int:
        """Listen, and return the port; call it on the node's loop. Raises `ListenRefused`."""
        self._home = asyncio.get_running_loop()
        try:
            listening = socket.create_server(
                (self.address.host, self.address.port),
                family=socket.AF_INET6 if ":" in self.address.host else socket.AF_INET,
                backlog=CONNECTION_LIMIT,
            )
        except OSError as error:
            raise ListenRefused(str(self.address), f"cannot listen there: {error.strerror}") from error
        listening.setblocking(False)
        self.port = listening.getsockname()[1]
        ready = threading.Event()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(listening, ready)), name="tls-door", daemon=True
        )
        self._thread.start()
        ready.wait(_START_DEADLINE_S)
        return self.port

    def close(self) -> None:
        """Stop listening and end every connection."""
        if self._thread is not None and self._loop is not None:
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join(_START_DEADLINE_S)
        self._tell()

    def caller(self, peer: str) -> DoorCaller | None:
        """Return who is behind `peer`, a gRPC peer; None for one that did not come through this door."""
        return self._callers.get(peer)

    # -- in the door's own thread --------------------------------------------------------------------

    async def _serve(self, listening: socket.socket, ready: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        ready.set()
        accepting = asyncio.create_task(self._accept(listening))
        try:
            await self._stopping.wait()
        finally:
            listening.close()
            accepting.cancel()  # asyncio.run ends the connections' tasks, this one's children included

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as connections:
            while True:
                try:
                    connection, address = await loop.sock_accept(listening)
                except OSError as error:
                    # Out of descriptors, most likely: the ones in use come back, the door stays open.
                    self._note("", "HANDSHAKE_FAILED", f"cannot take a connection: {error.strerror}")
                    await asyncio.sleep(TELL_EVERY_S)
                    continue
                if self._connections >= CONNECTION_LIMIT:
                    connection.close()
                    self._note(
                        _shown(address), "TOO_MANY_CONNECTIONS", f"{CONNECTION_LIMIT} are open already"
                    )
                    continue
                self._connections += 1
                connections.create_task(self._take(connection, _shown(address)))

    async def _take(self, connection: socket.socket, address: str) -> None:
        """Do the handshake, and pass on what comes after it until one side ends it."""
        try:
            outer = await self._shake_hands(connection, address)
            if outer is not None:
                try:
                    await self._pass_on(outer, address)
                finally:
                    outer[1].close()
        except Exception as error:  # noqa: BLE001 - task root: the other connections go on
            self._note(address, "CONNECTION_FAILED", f"the connection broke: {error!r}")
        finally:
            connection.close()
            self._connections -= 1

    async def _shake_hands(
        self, connection: socket.socket, address: str
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=CHUNK_BYTES)
        protocol = asyncio.StreamReaderProtocol(reader)
        try:
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            transport, _ = await loop.connect_accepted_socket(
                lambda: protocol,
                connection,
                ssl=self._tls.context(datetime.now(UTC)),
                ssl_handshake_timeout=HANDSHAKE_TIMEOUT_S,
            )
        except ssl.SSLCertVerificationError as error:
            self._note(
                address, "CERTIFICATE_REFUSED", f"the client certificate was refused: {error.verify_message}"
            )
        except ssl.SSLError as error:
            if error.reason in _PLAIN_TEXT:
                self._note(
                    address, "PLAIN_TEXT", "the client does not speak TLS; this address takes nothing else"
                )
            else:
                self._note(address, "HANDSHAKE_FAILED", f"the TLS handshake failed: {error.reason or error}")
        except (TimeoutError, ConnectionError, OSError) as error:
            is_late = "longer than" in str(error)
            reason = "HANDSHAKE_TIMEOUT" if is_late else "HANDSHAKE_FAILED"
            self._note(address, reason, f"the TLS handshake was not finished: {error}")
        else:
            return reader, asyncio.StreamWriter(transport, protocol, reader, loop)
        return None

    async def _pass_on(self, outer: tuple[asyncio.StreamReader, asyncio.StreamWriter], address: str) -> None:
        reader, writer = outer
        caller = _caller(writer.get_extra_info("ssl_object"), address)
        # gRPC tells its handlers the name of the client's end of a Unix socket. An abstract name that
        # nobody can guess says which connection a call came through.
        name = f"tandem-{secrets.token_hex(16)}"
        peer = _PEER_PREFIX + name
        self._callers[peer] = caller
        try:
            inner = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            inner.setblocking(False)
            inner.bind(f"\0{name}")
            await asyncio.get_running_loop().sock_connect(inner, str(self._inner.path))
            inner_reader, inner_writer = await asyncio.open_connection(sock=inner, limit=CHUNK_BYTES)
            try:
                async with asyncio.TaskGroup() as both:
                    both.create_task(_pump(reader, inner_writer))
                    both.create_task(_pump(inner_reader, writer))
            finally:
                inner_writer.close()
        finally:
            del self._callers[peer]

    # -- refusals ------------------------------------------------------------------------------------

    def _note(self, address: str, reason: str, text: str) -> None:
        """Count a refusal and have it told soon: a flood must not keep the node's loop busy."""
        with self._lock:
            key = (address.rpartition(":")[0], reason, text)
            if key not in self._refused and len(self._refused) >= REFUSAL_KINDS:
                key, address = ("many", reason, ""), "many"
            known = self._refused.get(key)
            is_first = not self._refused
            self._refused[key] = DoorRefusal(address, reason, text, 1 + (known.count if known else 0))
        if is_first and self._home is not None and not self._home.is_closed():
            self._home.call_soon_threadsafe(self._tell_soon)

    def _tell_soon(self) -> None:
        assert self._home is not None
        self._home.call_later(TELL_EVERY_S, self._tell)

    def _tell(self) -> None:
        with self._lock:
            refused, self._refused = self._refused, {}
        for refusal in refused.values():
            self._on_refused(refusal)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy until the end; a reader that is slow makes the other side wait."""
    try:
        while data := await reader.read(CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
    except (ConnectionError, ssl.SSLError):
        pass  # either side may hang up at any time
    finally:
        writer.close()


def _caller(tls: ssl.SSLObject, address: str) -> DoorCaller:
    certificate = tls.getpeercert(binary_form=True)
    if certificate is None:
        return DoorCaller(address, None)
    try:
        return DoorCaller(address, principal_of(certificate))
    except NotAuthenticated as refusal:
        return DoorCaller(address, None, refusal)


def _shown(address: tuple[str, int]) -> str:
    return f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"
