"""The paper venue: the simulated exchange as an account to trade on, in this process or another."""

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from host.api import (
    AmendOrder,
    CancelOrder,
    Command,
    ConnectionChanged,
    DeadManTerms,
    ExchangeAdapter,
    ExchangeError,
    Instrument,
    InstrumentKind,
    NonNegative,
    Params,
    PlaceOrder,
    Positive,
    PositiveInt,
    Seconds,
    SteppedAdapter,
    hookimpl,
)
from venue.awaiting import AwaitedAnswers
from venue.catalog import INSTRUMENTS, calm_market, synthetic_market
from venue.delivery import NO_FAULTS, Faults, Latency
from venue.exchange import Exchange
from venue.hosting import HostedExchange, Session, attach
from venue.ledger import Ledger
from venue.market import Market
from venue.recording import Recording, RecordingError
from venue.replay_market import ReplayMarket
from venue.wire import (
    Arm,
    Armed,
    ClientMessage,
    FrameReader,
    Hello,
    Ping,
    Refused,
    Reported,
    Resync,
    Send,
    ServerMessage,
    Subscribe,
    Welcome,
    WireError,
    encode,
    market_event,
)

_SYNTHETIC = "synthetic"
_CALM = "calm"
_FIRST_PAUSE_S = 0.05
_READ_BYTES = 1 << 16
_LOOKS = 4
"""How often within `silence_s` a silent connection is looked at, and asked for a sign of life."""
_CHANNELS = ("market", "private", "orders")
_TRADING = (PlaceOrder, AmendOrder, CancelOrder)
_USUAL_BALANCES = {"USDT": Decimal(100_000), "BTC": Decimal(2), "ETH": Decimal(40)}
_OTHER_BALANCE = Decimal(100_000)
_DEAD_MAN = DeadManTerms(least_ms=100, most_ms=600_000, is_tagged=True)


class PaperParams(Params, frozen=True):
    """What the paper venue trades, who pays what, and how it behaves."""

    market: str = _SYNTHETIC
    """`synthetic` (believable), `calm` (predictable) or the path of a recording's folder."""
    repeat: PositiveInt = 1
    """How many times a recording is played, back to back."""
    symbols: tuple[str, ...] = tuple(
        symbol for symbol, listed in INSTRUMENTS.items() if listed.kind is not InstrumentKind.INVERSE
    )
    """What a synthetic venue lists, `BTC-USD-PERP` (inverse) only if named; a recording has its own symbol."""
    seed: int = 1
    balances: dict[str, Decimal] = msgspec.field(default_factory=dict)
    """Starting balances by currency; empty: plenty of everything that is listed."""
    latency_ms: NonNegative = 1.0
    """One way, for requests and for reports."""
    jitter_ms: NonNegative = 0.2
    maker_fee: Decimal | None = None
    """Rates of the notional for every symbol; None: the symbol's own."""
    taker_fee: Decimal | None = None
    is_fee_in_base: bool = False
    """Spot buys pay their fee in the base currency instead of the quote currency."""
    leverage: PositiveInt = 10
    persistent: bool = True
    """Keep accounts and fills in the node's data folder across restarts; never for a recording."""
    answer_timeout_ms: Positive = 1000.0
    """After this long without an answer a request is reported as unanswered."""
    faults: Faults = NO_FAULTS


class Paper(SteppedAdapter[PaperParams]):
    """Trades one account at a simulated exchange inside this process, in the host's time.

    The exchange outlives the adapter: another version of this file attaches to the one that runs.
    """

    dead_man = _DEAD_MAN
    _host: HostedExchange
    _exchange: Exchange

    def __init__(self, params: PaperParams) -> None:
        super().__init__(params)
        self._awaited = AwaitedAnswers(_ns(params.answer_timeout_ms))
        self._recording: Recording | None = None
        self._session: Session | None = None

    async def connect(self) -> Sequence[Instrument]:
        """Open the account and return the listed instruments; raise `ExchangeError`.

        Raises `LedgerError` where the log of an earlier run cannot be read.
        """
        params = self.params
        instruments = [self._with_fees(instrument) for instrument in self._listed()]
        terms = f"market = {params.market!r} (repeat {params.repeat}), symbols = {params.symbols}, "
        terms += f"seed = {params.seed}, persistent = {params.persistent}"
        self._session = attach(self.ctx.shared, terms, lambda: self._open_exchange(instruments))
        self._host = self._session.host
        self._exchange = self._host.exchange
        # Outputs wait here until they are handed over, so that none is lost if a handover raises.
        self._outbox = self._session.outbox
        if self._host.leader is None:
            self._lead()
        return instruments

    async def subscribe(self, symbols: Sequence[str]) -> None:
        """Start the markets of `symbols`; raise `ExchangeError` for one that is not listed."""
        listed = {instrument.symbol: instrument for instrument in self._exchange.instruments}
        for symbol in symbols:
            if symbol not in listed:
                raise ExchangeError(f"paper: symbols must be among {', '.join(listed)}, was {symbol}")
            if not self._exchange.has_market(symbol):
                self._exchange.add_market(self._open_market(listed[symbol]))
            else:  # it moves already, for the version before this one
                self._outbox.append((None, self._exchange.snapshot(symbol)))
        now_ns = self.ctx.now_ns()
        for channel in _CHANNELS:
            self._outbox.append((self.ctx.account, ConnectionChanged(channel, True, "in process", now_ns)))

    def send(self, command: Command, deadline_ns: int) -> None:
        """Send one command; safe from within a handover, it travels from the next step on."""
        now_ns = self.ctx.now_ns()
        if self._host.leader is not self._session and isinstance(command, _TRADING):
            self._lead()
        self._exchange.submit(self.ctx.account, command, now_ns, deadline_ns)
        self._awaited.sent(command, now_ns)

    async def arm_dead_man(self, after_ms: int, *, symbol: str = "", tag: str = "") -> None:
        """Arm the venue's switch; in this process nothing can be lost on the way."""
        self._exchange.arm_dead_man(
            self.ctx.account, tag, after_ms * 1_000_000, self.ctx.now_ns(), _take_nothing
        )

    def resync(self, symbol: str) -> None:
        """Hand over a whole book with the next step."""
        self._outbox.append((None, self._exchange.snapshot(symbol)))

    def next_time_ns(self) -> int | None:
        """Return when the next event is due, or None at the end of a recording."""
        due_ns = self._exchange.next_time_ns()
        if self._outbox:
            # A recording may begin before the host's clock: never lead the clock past it.
            now_ns = self.ctx.now_ns()
            return now_ns if due_ns is None else min(now_ns, due_ns)
        unanswered_ns = self._awaited.next_time_ns()
        if unanswered_ns is not None and (due_ns is None or unanswered_ns < due_ns):
            return unanswered_ns
        return due_ns

    def step(self, now_ns: int) -> None:
        """Hand over everything due at or before `now_ns`, in order."""
        host, awaited = self._host, self._awaited
        if self._outbox:
            self._hand_over()
        while (due_ns := self.next_time_ns()) is not None and due_ns <= now_ns:
            host.step(due_ns)
            self._hand_over()
            unanswered_ns = awaited.next_time_ns()
            if unanswered_ns is not None and unanswered_ns <= due_ns:
                for unanswered in awaited.give_up(due_ns):
                    self.ctx.report(unanswered)

    async def close(self) -> None:
        """Hand over nothing more; the exchange's log is closed when no other version is attached."""
        if self._session is not None:
            self._session.leave()

    def _lead(self) -> None:
        """Have latency, faults and the account's terms be as this version's parameters say."""
        params, exchange = self.params, self._exchange
        self._host.leader = self._session
        exchange.delivery.latency = Latency(_ns(params.latency_ms), _ns(params.jitter_ms))
        exchange.delivery.faults = params.faults
        exchange.open_account(
            self.ctx.account,
            params.balances or _plenty(exchange.instruments),
            leverage=Decimal(params.leverage),
            is_fee_in_base=params.is_fee_in_base,
        )

    def _hand_over(self) -> None:
        outbox, ctx = self._outbox, self.ctx
        while outbox:
            account, output = outbox.popleft()
            if account is None:
                ctx.market(output)  # type: ignore[arg-type]  # an output for everybody is market data
            else:
                self._awaited.received(output)  # type: ignore[arg-type]  # one for an account is a report
                ctx.report(output)  # type: ignore[arg-type]

    def _listed(self) -> list[Instrument]:
        if self.params.market not in (_SYNTHETIC, _CALM):
            try:
                self._recording = Recording.open(self.params.market, repeat=self.params.repeat)
            except RecordingError as error:
                raise ExchangeError(f"paper: market = {self.params.market!r}: {error}") from error
            return [self._recording.instrument]
        unknown = [symbol for symbol in self.params.symbols if symbol not in INSTRUMENTS]
        if unknown:
            raise ExchangeError(
                f"paper: symbols must be among {', '.join(INSTRUMENTS)}, was {', '.join(unknown)}"
            )
        return [INSTRUMENTS[symbol] for symbol in self.params.symbols]

    def _open_exchange(self, instruments: Sequence[Instrument]) -> tuple[Exchange, Ledger | None]:
        ledger = None
        if self.params.persistent and self._recording is None and self.ctx.data_dir:
            ledger = Ledger(Path(self.ctx.data_dir) / f"paper-{self.ctx.account}.jsonl")
        exchange = Exchange(seed=self.params.seed, ledger=ledger)
        for instrument in instruments:
            exchange.list_instrument(instrument)
        exchange.restore(self.ctx.now_ns())
        return exchange, ledger

    def _with_fees(self, instrument: Instrument) -> Instrument:
        maker, taker = self.params.maker_fee, self.params.taker_fee
        return msgspec.structs.replace(
            instrument,
            maker_fee=instrument.maker_fee if maker is None else maker,
            taker_fee=instrument.taker_fee if taker is None else taker,
        )

    def _open_market(self, instrument: Instrument) -> Market:
        if self._recording is not None:
            return ReplayMarket(msgspec.structs.replace(self._recording, instrument=instrument))
        # After a restart the market goes on near where the account last traded.
        start_price = self._exchange.last_price(instrument.symbol)
        open_market = calm_market if self.params.market == _CALM else synthetic_market
        return open_market(instrument, self.params.seed, self.ctx.now_ns(), start_price)


def _take_nothing() -> None:
    pass


class PaperRemoteParams(Params, frozen=True):
    """Where the venue server listens, and how long to wait for it."""

    url: str = "tcp:127.0.0.1:7700"
    """`unix:/path` or `tcp:host:port`, as `tandem venue --listen` has it."""
    connect_timeout_s: Seconds = 5.0
    """How long `connect` keeps trying before it fails."""
    answer_timeout_ms: Positive = 1000.0
    """After this long without an answer a request is reported as unanswered."""
    reconnect_max_s: Seconds = 2.0
    """A lost connection is tried again after 50 ms, then twice as long each time, up to this."""
    silence_s: Seconds = 2.0
    """A connection on which nothing came for so long, not even the answer to a ping, is lost."""


class PaperRemote(ExchangeAdapter[PaperRemoteParams]):
    """Trades one account at a venue server (`tandem venue`) in another process."""

    dead_man = _DEAD_MAN

    def __init__(self, params: PaperRemoteParams) -> None:
        super().__init__(params)
        self._awaited = AwaitedAnswers(_ns(params.answer_timeout_ms))
        self._symbols: list[str] = []
        self._listed: frozenset[str] = frozenset()
        self._frames: FrameReader[ServerMessage] = FrameReader.for_client()
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._answer_timer: asyncio.TimerHandle | None = None
        self._arming: deque[asyncio.Future[None]] = deque()
        self._is_closed = False
        self._has_heard = False
        self._silence = ""

    async def connect(self) -> Sequence[Instrument]:
        """Connect, say hello and return what the venue lists; raise `ExchangeError`."""
        try:
            async with asyncio.timeout(self.params.connect_timeout_s):
                welcome = await self._dial_until_up()
        except TimeoutError as error:
            raise ExchangeError(
                f"paper_remote: no venue answered at {self.params.url} within "
                f"{self.params.connect_timeout_s:g} s; start one with: tandem venue --listen ADDRESS"
            ) from error
        self._listed = frozenset(instrument.symbol for instrument in welcome.instruments)
        return welcome.instruments

    async def subscribe(self, symbols: Sequence[str]) -> None:
        """Start the market data of `symbols` and hand over what arrives from now on.

        Raises `ExchangeError` for a symbol that is not listed, and while there is no connection.
        """
        for symbol in symbols:
            if symbol not in self._listed:
                raise ExchangeError(
                    f"paper_remote: symbols must be among {', '.join(sorted(self._listed))}, was {symbol}"
                )
        is_first = not self._symbols
        self._symbols = list(dict.fromkeys((*self._symbols, *symbols)))
        self._write(Subscribe(tuple(symbols)))
        if is_first:
            self._report_channels(True, "connected")
            self.ctx.spawn(self._run(), f"paper_remote {self.ctx.account}")
            self.ctx.spawn(self._listen_for_silence(), f"paper_remote {self.ctx.account}, pings")

    def send(self, command: Command, deadline_ns: int) -> None:
        """Send one command; raise `ExchangeError` while there is no connection."""
        now_ns = self.ctx.now_ns()
        self._write(Send(command, now_ns, deadline_ns - now_ns))
        self._awaited.sent(command, now_ns)
        if self._answer_timer is None:
            self._set_answer_timer()

    def resync(self, symbol: str) -> None:
        """Ask for a whole book; without a connection there is nothing to do, the next one begins so."""
        if self._is_up:
            self._write(Resync(symbol))

    async def arm_dead_man(self, after_ms: int, *, symbol: str = "", tag: str = "") -> None:
        """Arm the venue's switch; raise `ExchangeError` where the connection is lost before it says so."""
        self._write(Arm(after_ms, tag))
        armed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._arming.append(armed)
        await armed

    async def close(self) -> None:
        """Send what is still buffered and close the connection."""
        self._is_closed = True
        if self._answer_timer is not None:
            self._answer_timer.cancel()
        writer = self._writer
        if writer is None:
            return
        _drop_unsent_on_death(writer, False)
        writer.close()
        try:
            await asyncio.wait_for(writer.wait_closed(), self.params.connect_timeout_s)
        except (OSError, TimeoutError):
            writer.transport.abort()

    @property
    def _is_up(self) -> bool:
        return self._writer is not None and not self._writer.transport.is_closing()

    async def _run(self) -> None:
        """Read until the connection breaks, say so, and come back; until the adapter closes."""
        while not self._is_closed:
            reason = await self._read_until_lost()
            if self._is_closed:
                return
            self._on_lost(reason)
            await self._dial_until_up()
            if self._is_up:  # it may be lost again by now; the next read says so
                self._write(Subscribe(tuple(self._symbols)))
                self._report_channels(True, "connected again")

    async def _read_until_lost(self) -> str:
        assert self._reader is not None, "connected before"
        try:
            while data := await self._reader.read(_READ_BYTES):
                self._has_heard = True
                for message in self._frames.feed(data):
                    if self._is_closed:
                        return "closed"
                    self._on_message(message)
        except (OSError, WireError) as error:
            return self._silence or str(error)
        return self._silence or "the venue closed the connection"

    async def _listen_for_silence(self) -> None:
        """Ask for a sign of life when none came lately, and end a connection that gives none.

        Looks are counted, not the time between them: a process that was stopped has not listened.
        """
        silent_looks = 0
        while not self._is_closed:
            await asyncio.sleep(self.params.silence_s / _LOOKS)
            is_silent = self._is_up and not self._has_heard
            self._has_heard = False
            silent_looks = silent_looks + 1 if is_silent else 0
            if silent_looks > _LOOKS and self._writer is not None:
                self._silence = f"the venue said nothing for {self.params.silence_s:g} s"
                self._writer.transport.abort()
            elif silent_looks:
                self._write(Ping())

    def _on_message(self, message: ServerMessage) -> None:
        if isinstance(message, Reported):
            self._awaited.received(message.report)
            self.ctx.report(message.report)
        elif isinstance(message, Armed):
            armed = self._arming.popleft()  # answers come in order
            if not armed.done():  # whoever asked may have left
                armed.set_result(None)
        elif isinstance(message, Refused):
            raise WireError(f"the venue refused the connection: {message.text}")
        elif (event := market_event(message)) is not None:
            self.ctx.market(msgspec.structs.replace(event, ts_recv=self.ctx.now_ns()))

    def _on_lost(self, reason: str) -> None:
        if self._writer is not None:
            self._writer.transport.abort()
            self._writer = None
        self._silence = ""
        self._report_channels(False, reason)
        while self._arming:
            armed = self._arming.popleft()
            if not armed.done():
                armed.set_exception(ExchangeError(f"paper_remote: connection lost: {reason}"))
        for unanswered in self._awaited.give_up_all(f"connection lost: {reason}", self.ctx.now_ns()):
            self.ctx.report(unanswered)

    async def _dial_until_up(self) -> Welcome:
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                async with asyncio.timeout(self.params.connect_timeout_s):
                    return await self._dial()
            except (OSError, WireError):  # too late is an OSError as well
                # Whether the venue is away or misunderstands us: connect() has a deadline that
                # reports it, and a running node keeps trying, with its channels reported down.
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, self.params.reconnect_max_s)

    async def _dial(self) -> Welcome:
        reader, writer = await _open(self.params.url)
        _drop_unsent_on_death(writer, True)
        frames = FrameReader.for_client()
        writer.write(encode(Hello(self.ctx.account)))
        while data := await reader.read(_READ_BYTES):
            for message in frames.feed(data):
                if not isinstance(message, Welcome):
                    writer.transport.abort()
                    raise WireError(f"expected a welcome, was {message}")
                self._reader, self._writer, self._frames = reader, writer, frames
                return message
        raise ConnectionResetError("the venue closed the connection before its welcome")

    def _write(self, message: ClientMessage) -> None:
        if self._writer is None or self._writer.transport.is_closing():
            raise ExchangeError(f"paper_remote: not connected to {self.params.url}, nothing was sent")
        self._writer.write(encode(message))

    def _report_channels(self, is_up: bool, text: str) -> None:
        for channel in _CHANNELS:
            self.ctx.report(ConnectionChanged(channel, is_up, text, self.ctx.now_ns()))

    def _set_answer_timer(self) -> None:
        due_ns = self._awaited.next_time_ns()
        if due_ns is None:
            self._answer_timer = None
            return
        delay_s = max(due_ns - self.ctx.now_ns(), 0) / 1e9
        self._answer_timer = asyncio.get_running_loop().call_later(delay_s, self._on_answers_due)

    def _on_answers_due(self) -> None:
        for unanswered in self._awaited.give_up(self.ctx.now_ns()):
            self.ctx.report(unanswered)
        self._set_answer_timer()


@hookimpl
def provide_exchanges() -> Mapping[str, type[ExchangeAdapter[Any]]]:
    """Offer the venue under the names that configurations use."""
    return {"paper": Paper, "paper_remote": PaperRemote}


def _plenty(instruments: Sequence[Instrument]) -> dict[str, Decimal]:
    currencies = {c: None for instrument in instruments for c in (instrument.base, instrument.quote)}
    return {currency: _USUAL_BALANCES.get(currency, _OTHER_BALANCE) for currency in currencies}


def _ns(milliseconds: float) -> int:
    return round(milliseconds * 1e6)


async def _open(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if url.startswith("unix:"):
        return await asyncio.open_unix_connection(url.removeprefix("unix:"))
    host, separator, port = url.removeprefix("tcp:").rpartition(":")
    if not separator or not port.isdigit():
        raise ExchangeError(f"paper_remote: url must be unix:/path or tcp:host:port, was {url!r}")
    return await asyncio.open_connection(host, int(port))


def _drop_unsent_on_death(writer: asyncio.StreamWriter, is_on: bool) -> None:
    """Let the kernel throw away what a killed process has not sent yet; off for an orderly close."""
    sock = writer.get_extra_info("socket")
    if sock.family != socket.AF_UNIX:  # a Unix socket hands every byte over at once
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", is_on, 0))
