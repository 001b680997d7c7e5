"""The house protocol's server: clients over TCP or a Unix socket.

The server holds no trading logic. It hands commands to an exchange that runs, and writes what comes
out to whom it concerns. Clients may vanish at any byte: their
resting orders stay, and their reports can be queried later.
"""

import asyncio
import logging
import stat
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from host.api import TandemError
from venue.execution import ExecutionReport
from venue.perpetuals import FundingPayment
from venue.running import RunningExchange
from venue.wire import (
    PROTOCOL,
    Arm,
    Armed,
    ClientMessage,
    FrameReader,
    Hello,
    Ping,
    Pong,
    Refused,
    Reported,
    Send,
    Subscribe,
    Welcome,
    WireError,
    encode,
    encode_market,
)

__all__ = ["HouseServer", "ServerError"]

_log = logging.getLogger(__name__)

MAX_UNREAD_BYTES: Final = 8 << 20
"""A client that leaves this much unread is disconnected: the venue does not buffer without end."""

_READ_BYTES = 1 << 16
_PONG = encode(Pong())


class ServerError(TandemError):
    """The server cannot start: a bad address, or one that is taken."""


class HouseServer:
    """Serves one `Exchange`. `open_balances` is what an account gets when it first says hello."""

    def __init__(self, running: RunningExchange, open_balances: Mapping[str, Decimal]) -> None:
        self._running = running
        self._exchange = running.exchange
        self._clock = running.clock
        self._open_balances = open_balances
        self._sessions: set[_Session] = set()
        self._server: asyncio.Server | None = None
        self._unwatch: Callable[[], None] = _nothing

    async def start(self, listen: str) -> None:
        """Accept connections at `listen`: `unix:/path`, `tcp:host:port` or `host:port`.

        Raises `ServerError`. Somebody else runs the exchange.
        """
        self._server = await _listen(listen, self._on_connection)
        self._unwatch = self._running.watch(self)
        _log.info("venue listens on %s", listen)

    def close(self) -> None:
        """Accept nothing more and end every connection."""
        if self._server is None:
            return
        self._unwatch()
        self._server.close()
        for session in list(self._sessions):
            session.abort()

    def submit(self, account: str, message: Send) -> None:
        """Hand one command to the exchange, with its deadline in the venue's own time."""
        deadline_ns = message.sent_ns + message.valid_ns - self._clock.lag_ns
        self._exchange.submit(account, message.command, self._clock.now_ns(), deadline_ns)
        self._running.wake()

    def arm(self, account: str, message: Arm, on_armed: Callable[[], None]) -> None:
        """Arm an account's dead man's switch; `on_armed` is called once it is."""
        after_ns = message.after_ms * 1_000_000
        self._exchange.arm_dead_man(account, message.tag, after_ns, self._clock.now_ns(), on_armed)
        self._running.wake()

    def open_account(self, name: str) -> None:
        """Make sure that an account exists and gets its reports."""
        self._exchange.open_account(name, self._open_balances)
        self._exchange.connect(name)

    def welcome(self) -> Welcome:
        """Return the answer to a hello."""
        return Welcome(tuple(self._exchange.instruments), self._clock.now_ns())

    def book_frame(self, symbol: str) -> bytes:
        """Return the frame of a whole book; raise `WireError` for a symbol that does not trade."""
        if not self._exchange.has_market(symbol):
            raise WireError(f"{symbol} does not trade here; subscribe to a listed symbol")
        return encode_market(self._exchange.snapshot(symbol))

    async def _on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session = _Session(self, reader, writer)
        self._sessions.add(session)
        try:
            await session.run()
        finally:
            self._sessions.discard(session)
            account = session.account
            if account and not any(other.account == account for other in self._sessions):
                self._exchange.disconnect(account)

    def on_output(self, account: str | None, output: Any) -> None:
        """Write what came out to whom it concerns."""
        if account is None:
            self._publish(output.symbol, encode_market(output))
        elif any(session.account == account for session in self._sessions):
            self._report(account, encode(Reported(output)))

    def on_execution(self, report: ExecutionReport) -> None:
        """Take nothing: the house protocol tells by reports."""

    def on_funding(self, payment: FundingPayment) -> None:
        """Take nothing: the house protocol shows funding in the balances only."""

    def on_failure(self, error: Exception) -> None:
        """End every connection: clients come back and ask for what they missed."""
        for session in list(self._sessions):
            session.abort()

    def __str__(self) -> str:
        return "the house protocol"

    def _publish(self, symbol: str, frame: bytes) -> None:
        for session in self._sessions:
            if symbol in session.symbols:
                session.write(frame)

    def _report(self, account: str, frame: bytes) -> None:
        for session in self._sessions:
            if session.account == account:
                session.write(frame)


class _Session:
    """One connection. Several may trade the same account; each of them gets all its reports."""

    def __init__(
        self, server: HouseServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.account = ""
        self.symbols: set[str] = set()
        self._server = server
        self._reader = reader
        self._writer = writer

    async def run(self) -> None:
        """Serve the connection until either side ends it."""
        frames = FrameReader.for_server()
        try:
            while data := await self._reader.read(_READ_BYTES):
                for message in frames.feed(data):
                    self._on_message(message)
        except WireError as error:
            _log.warning("account %s: %s", self.account or "(none)", error)
            self.write(encode(Refused(str(error))))
        except (ConnectionError, TimeoutError) as error:
            _log.info("account %s: connection lost: %s", self.account or "(none)", error)
        finally:
            self._writer.close()

    def write(self, frame: bytes) -> None:
        """Send one frame, or give the client up if it does not read."""
        transport = self._writer.transport
        if transport.is_closing():
            return
        self._writer.write(frame)
        if transport.get_write_buffer_size() > MAX_UNREAD_BYTES:
            _log.warning("account %s: left %d bytes unread, disconnected", self.account, MAX_UNREAD_BYTES)
            transport.abort()

    def abort(self) -> None:
        """End the connection at once."""
        self._writer.transport.abort()

    def _on_message(self, message: ClientMessage) -> None:
        if isinstance(message, Hello):
            if message.protocol != PROTOCOL:
                raise WireError(f"protocol must be {PROTOCOL}, was {message.protocol}; update the client")
            if not message.account:
                raise WireError("a hello names an account, was empty")
            self._server.open_account(message.account)
            self.account = message.account
            self.write(encode(self._server.welcome()))
        elif not self.account:
            raise WireError(f"the first message must be a hello, was {type(message).__name__}")
        elif isinstance(message, Send):
            self._server.submit(self.account, message)
        elif isinstance(message, Arm):
            answer = encode(Armed(message.after_ms, message.tag))
            self._server.arm(self.account, message, lambda: self.write(answer))
        elif isinstance(message, Ping):
            self.write(_PONG)
        elif isinstance(message, Subscribe):
            for symbol in message.symbols:
                self.write(self._server.book_frame(symbol))
                self.symbols.add(symbol)
        else:
            self.write(self._server.book_frame(message.symbol))


def _nothing() -> None:
    pass


async def _listen(listen: str, on_connection: "asyncio.streams._ClientConnectedCallback") -> asyncio.Server:
    try:
        if listen.startswith("unix:"):
            path = Path(listen.removeprefix("unix:"))
            if path.exists() and stat.S_ISSOCK(path.stat().st_mode):
                path.unlink()  # left behind by a server that was killed
            return await asyncio.start_unix_server(on_connection, path)
        host, separator, port = listen.removeprefix("tcp:").rpartition(":")
        if not separator or not port.isdigit():
            raise ServerError(f"listen must be unix:/path or host:port, was {listen!r}")
        return await asyncio.start_server(on_connection, host, int(port))
    except OSError as error:
        raise ServerError(f"cannot listen on {listen}: {error}; choose another address") from error
