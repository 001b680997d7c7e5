"""The paper venue: the simulated exchange as an account to trade on, in this process or another."""

from collections import deque
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from host.api import (
    Command,
    ConnectionChanged,
    ExchangeAdapter,
    ExchangeError,
    Instrument,
    NonNegative,
    Params,
    Positive,
    PositiveInt,
    SteppedAdapter,
    hookimpl,
)
from venue.awaiting import AwaitedAnswers
from venue.calm import CalmParticipants
from venue.catalog import INSTRUMENTS, START_PRICES
from venue.delivery import NO_FAULTS, Faults, Latency
from venue.exchange import Exchange, Output
from venue.ledger import Ledger
from venue.live_market import LiveMarket
from venue.market import Market
from venue.participants import Participants
from venue.recording import Recording, RecordingError
from venue.replay_market import ReplayMarket

_CHANNELS = ("market", "private", "orders")
_USUAL_BALANCES = {"USDT": Decimal(100_000), "BTC": Decimal(2), "ETH": Decimal(40)}
_OTHER_BALANCE = Decimal(100_000)


class PaperParams(Params, frozen=True):
    """What the paper venue trades, who pays what, and how it behaves."""

    market: str = "synthetic"
    """`synthetic` (believable), `calm` (predictable) or the path of a recording's folder."""
    symbols: tuple[str, ...] = tuple(INSTRUMENTS)
    """What a synthetic venue lists; a recording has its own symbol."""
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
    """Trades one account at a simulated exchange inside this process, in the host's time."""

    def __init__(self, params: PaperParams) -> None:
        super().__init__(params)
        self._exchange = Exchange()
        self._awaited = AwaitedAnswers(_ns(params.answer_timeout_ms))
        self._recording: Recording | None = None
        self._ledger: Ledger | None = None
        # Outputs wait here until they are handed over, so that none is lost if a handover raises.
        self._outbox: deque[Output] = deque()

    async def connect(self) -> Sequence[Instrument]:
        """Open the account and return the listed instruments; raise `ExchangeError`.

        Raises `LedgerError` where the log of an earlier run cannot be read.
        """
        instruments = [self._with_fees(instrument) for instrument in self._listed()]
        self._exchange = self._open_exchange(instruments)
        self._exchange.open_account(
            self.ctx.account,
            self.params.balances or _plenty(instruments),
            leverage=Decimal(self.params.leverage),
            is_fee_in_base=self.params.is_fee_in_base,
        )
        return instruments

    async def subscribe(self, symbols: Sequence[str]) -> None:
        """Start the markets of `symbols`; raise `ExchangeError` for one that is not listed."""
        listed = {instrument.symbol: instrument for instrument in self._exchange.instruments}
        for symbol in symbols:
            if symbol not in listed:
                raise ExchangeError(f"paper: symbols must be among {', '.join(listed)}, was {symbol}")
            if not self._exchange.has_market(symbol):
                self._exchange.add_market(self._open_market(listed[symbol]))
        now_ns = self.ctx.now_ns()
        for channel in _CHANNELS:
            self._outbox.append((self.ctx.account, ConnectionChanged(channel, True, "in process", now_ns)))

    def send(self, command: Command, deadline_ns: int) -> None:
        """Send one command; safe from within a handover, it travels from the next step on."""
        now_ns = self.ctx.now_ns()
        self._exchange.submit(self.ctx.account, command, now_ns, deadline_ns)
        self._awaited.sent(command, now_ns)

    def resync(self, symbol: str) -> None:
        """Hand over a whole book with the next step."""
        self._outbox.append((None, self._exchange.snapshot(symbol)))

    def next_time_ns(self) -> int | None:
        """Return when the next event is due, or None at the end of a recording."""
        if self._outbox:
            return self.ctx.now_ns()
        due_ns = self._exchange.next_time_ns()
        unanswered_ns = self._awaited.next_time_ns()
        if unanswered_ns is not None and (due_ns is None or unanswered_ns < due_ns):
            return unanswered_ns
        return due_ns

    def step(self, now_ns: int) -> None:
        """Hand over everything due at or before `now_ns`, in order."""
        self._hand_over()
        while (due_ns := self.next_time_ns()) is not None and due_ns <= now_ns:
            self._outbox.extend(self._exchange.step(due_ns))
            self._hand_over()
            for unanswered in self._awaited.give_up(due_ns):
                self.ctx.report(unanswered)

    async def close(self) -> None:
        """Hand over nothing more; a log is flushed and closed."""
        self._outbox.clear()
        if self._ledger is not None:
            self._ledger.close()

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
        if self.params.market not in ("synthetic", "calm"):
            try:
                self._recording = Recording.open(self.params.market)
            except RecordingError as error:
                raise ExchangeError(f"paper: market = {self.params.market!r}: {error}") from error
            return [self._recording.instrument]
        unknown = [symbol for symbol in self.params.symbols if symbol not in INSTRUMENTS]
        if unknown:
            raise ExchangeError(
                f"paper: symbols must be among {', '.join(INSTRUMENTS)}, was {', '.join(unknown)}"
            )
        return [INSTRUMENTS[symbol] for symbol in self.params.symbols]

    def _open_exchange(self, instruments: Sequence[Instrument]) -> Exchange:
        params = self.params
        if params.persistent and self._recording is None and self.ctx.data_dir:
            self._ledger = Ledger(Path(self.ctx.data_dir) / f"paper-{self.ctx.account}.jsonl")
        exchange = Exchange(
            seed=params.seed,
            latency=Latency(_ns(params.latency_ms), _ns(params.jitter_ms)),
            faults=params.faults,
            ledger=self._ledger,
        )
        for instrument in instruments:
            exchange.list_instrument(instrument)
        exchange.restore(self.ctx.now_ns())
        return exchange

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
        start_price = self._exchange.last_price(instrument.symbol) or START_PRICES[instrument.base]
        now_ns = self.ctx.now_ns()
        participants: Participants
        if self.params.market == "calm":
            participants = CalmParticipants(instrument, self.params.seed, start_price, start_ns=now_ns)
        else:
            from venue.synthetic import SyntheticParticipants

            participants = SyntheticParticipants(instrument, self.params.seed, start_price, start_ns=now_ns)
        return LiveMarket(instrument, participants)


@hookimpl
def provide_exchanges() -> Mapping[str, type[ExchangeAdapter[Any]]]:
    """Offer the venue under the names that configurations use."""
    return {"paper": Paper}


def _plenty(instruments: Sequence[Instrument]) -> dict[str, Decimal]:
    currencies = {c: None for instrument in instruments for c in (instrument.base, instrument.quote)}
    return {currency: _USUAL_BALANCES.get(currency, _OTHER_BALANCE) for currency in currencies}


def _ns(milliseconds: float) -> int:
    return round(milliseconds * 1e6)
