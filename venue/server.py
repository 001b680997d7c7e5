"""The exchange as a process of its own: clients over TCP or a Unix socket, on a real clock.

The server holds no trading logic. It hands commands to an `Exchange`, steps it whenever something
is due, and writes what comes out to whom it concerns. Clients may vanish at any byte: their
resting orders stay, and their reports can be queried later.
"""

import asyncio
import logging
import stat
import time
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Final

import uvloop

from host.api import Instrument, TandemError
from venue.catalog import INSTRUMENTS, synthetic_market
from venue.exchange import Exchange
from venue.ledger import Ledger
from venue.recording import Recording
from venue.replay_market import ReplayMarket
from venue.wire import (
    PROTOCOL,
    Arm,
    Armed,
    FrameReader,
    Hello,
    Refused,
    Reported,
    Resync,
    Send,
    Subscribe,
    Welcome,
    WireError,
    encode,
    encode_market,
)

__all__ = ["ServerError", "VenueServer", "run", "serve"]

_log = logging.getLogger(__name__)

DEFAULT_BALANCE: Final = {"USDT": Decimal(1_000_000)}
OTHER_BALANCE: Final = Decimal(1_000)
"""What a new account gets of every other listed currency."""

MAX_UNREAD_BYTES: Final = 8 << 20
"""A client that leaves this much unread is disconnected: the venue does not buffer without end."""

MAX_WAIT_S: Final = 1.0
_READ_BYTES = 1 << 16


class ServerError(TandemError):
    """The server cannot start: a bad address, or one that is taken."""


class VenueClock:
    """The venue's time: never goes back, and may start in the past to play a recording."""

    def __init__(self, start_ns: int | None = None) -> None:
        self._offset_ns = (time.time_ns() if start_ns is None else start_ns) - time.monotonic_ns()

    def now_ns(self) -> int:
        """Return nanoseconds since the Unix epoch."""
        return time.monotonic_ns() + self._offset_ns

    @property
    def lag_ns(self) -> int:
        """Return how far the venue's time is behind the wall clock: years, for a recording."""
        return time.time_ns() - self.now_ns()


class VenueServer:
    """Serves one `Exchange`. `open_balances` is what an account gets when it first says hello."""

    def __init__(self, exchange: Exchange, clock: VenueClock, open_balances: Mapping[str, Decimal]) -> None:
        self._exchange = exchange
        self._clock = clock
        self._open_balances = open_balances
        self._sessions: set[_Session] = set()
        self._has_work = asyncio.Event()

    async def serve(self, listen: str, *, started: asyncio.Event | None = None) -> None:
        """Serve until cancelled; `started` is set once connections are accepted.

        `listen` is `unix:/path`, `tcp:host:port` or `host:port`. Raises `ServerError`.
        """
        server = await _listen(listen, self._on_connection)
        _log.info("venue listens on %s", listen)
        if started is not None:
            started.set()
        try:
            await self._run_exchange()
        finally:
            server.close()
            for session in list(self._sessions):
                session.abort()

    def submit(self, account: str, message: Send) -> None:
        """Hand one command to the exchange, with its deadline in the venue's own time."""
        deadline_ns = message.sent_ns + message.valid_ns - self._clock.lag_ns
        self._exchange.submit(account, message.command, self._clock.now_ns(), deadline_ns)
        self._has_work.set()

    def arm(self, account: str, message: Arm, on_armed: Callable[[], None]) -> None:
        """Arm an account's dead man's switch; `on_armed` is called once it is."""
        after_ns = message.after_ms * 1_000_000
        self._exchange.arm_dead_man(account, message.tag, after_ns, self._clock.now_ns(), on_armed)
        self._has_work.set()

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

    async def _run_exchange(self) -> None:
        while True:
            now_ns = self._clock.now_ns()
            for account, output in self._exchange.step(now_ns):
                if account is None:
                    self._publish(output.symbol, encode_market(output))  # type: ignore[union-attr,arg-type]
                else:
                    self._report(account, encode(Reported(output)))  # type: ignore[arg-type]
            self._has_work.clear()
            due_ns = self._exchange.next_time_ns()
            wait_s = MAX_WAIT_S if due_ns is None else (due_ns - self._clock.now_ns()) / 1e9
            if wait_s <= 0:
                await asyncio.sleep(0)  # behind: let the connections have their turn all the same
                continue
            loop = asyncio.get_running_loop()
            timer = loop.call_later(min(wait_s, MAX_WAIT_S), self._has_work.set)
            await self._has_work.wait()
            timer.cancel()

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
        self, server: VenueServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
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

    def _on_message(self, message: Hello | Subscribe | Resync | Send | Arm) -> None:
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
        elif isinstance(message, Subscribe):
            for symbol in message.symbols:
                self.write(self._server.book_frame(symbol))
                self.symbols.add(symbol)
        else:
            self.write(self._server.book_frame(message.symbol))


async def serve(
    listen: str,
    *,
    seed: int = 1,
    log: Path | None = None,
    replay: Path | None = None,
    started: asyncio.Event | None = None,
) -> None:
    """Serve the synthetic market, or a recording from its start at its own pace, until cancelled.

    With `log`, accounts come back from it after a restart. Raises `ServerError`, `LedgerError` and
    `RecordingError`.
    """
    recording = None if replay is None else Recording.open(replay)
    clock = VenueClock(None if recording is None else recording.first_ns)
    instruments = list(INSTRUMENTS.values()) if recording is None else [recording.instrument]
    ledger = None if log is None else Ledger(log)
    exchange = Exchange(seed=seed, ledger=ledger)
    for instrument in instruments:
        exchange.list_instrument(instrument)
    exchange.restore(clock.now_ns())
    if recording is not None:
        exchange.add_market(ReplayMarket(recording))
    else:
        for instrument in instruments:
            last_price = exchange.last_price(instrument.symbol)
            exchange.add_market(synthetic_market(instrument, seed, clock.now_ns(), last_price))
    try:
        await VenueServer(exchange, clock, _opening_balances(instruments)).serve(listen, started=started)
    finally:
        if ledger is not None:
            ledger.close()


def run(listen: str, *, seed: int = 1, log: Path | None = None, replay: Path | None = None) -> None:
    """Run `serve` until Ctrl-C; the command line's entry."""
    try:
        uvloop.run(serve(listen, seed=seed, log=log, replay=replay))
    except KeyboardInterrupt:
        _log.info("venue stopped")


def _opening_balances(instruments: list[Instrument]) -> dict[str, Decimal]:
    currencies = sorted({c for instrument in instruments for c in (instrument.base, instrument.quote)})
    return {currency: DEFAULT_BALANCE.get(currency, OTHER_BALANCE) for currency in currencies}


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
