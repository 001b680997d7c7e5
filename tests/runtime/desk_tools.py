"""A whole engine on a real journal, a clock that a test moves, and a venue that a test speaks for."""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from host.api import (
    AccountSnapshot,
    AmendOrder,
    Balance,
    BookTop,
    CancelOrder,
    CancelRejected,
    Command,
    ConnectionChanged,
    Depth,
    ExchangeAdapter,
    ExchangeError,
    FillsSnapshot,
    Instrument,
    InstrumentKind,
    Liquidity,
    NoParams,
    OpenOrdersSnapshot,
    Order,
    OrderAccepted,
    OrderAmended,
    OrderCancelled,
    OrderFilled,
    OrderNotFound,
    OrderSnapshot,
    OrderStatus,
    PlaceOrder,
    QueryAccount,
    QueryFills,
    QueryOpenOrders,
    QueryOrder,
    Quote,
    QuoteModel,
    RejectReason,
    Report,
    Side,
    State,
    Strategy,
)
from host.core import entries as e
from host.core.entries import InstanceState
from host.core.risk_limits import RiskConfig
from host.journal import Journal, read
from host.runtime.clock import VirtualClock
from host.runtime.engine import Engine, EngineSettings
from host.runtime.instance import Instance
from host.runtime.recovery import recover
from host.runtime.roster import InstanceSpec

START_NS = 1_754_650_000_000_000_000
SECOND = 1_000_000_000
BTC, ETH = "BTC-USDT", "ETH-USDT"
ACCOUNT = "acc"
MAX_ROUNDS = 100
"""No exchange of messages in these tests takes as many; one that does is a storm."""


def spot(symbol: str) -> Instrument:
    base, quote = symbol.split("-")
    return Instrument(
        symbol=symbol,
        kind=InstrumentKind.SPOT,
        base=base,
        quote=quote,
        tick_size=Decimal("0.01"),
        lot_size=Decimal("0.001"),
    )


class ScriptedVenue(ExchangeAdapter[NoParams]):
    """An honest venue: answers every command when `Desk.settle` lets it, and trades when told to."""

    def __init__(self) -> None:
        super().__init__(NoParams())
        self.sent: list[Command] = []
        self.resyncs: list[str] = []
        self.is_down = False
        self.is_deaf = False
        """Whether commands vanish on the way."""
        self.orders: dict[str, OrderSnapshot] = {}
        self.fills: list[OrderFilled] = []
        self.waiting: deque[Report] = deque()
        self.balances = {"USDT": Decimal(1_000_000), "BTC": Decimal(100), "ETH": Decimal(100)}

    # -- the adapter -----------------------------------------------------------------------------

    async def connect(self) -> Sequence[Instrument]:
        return [spot(BTC), spot(ETH)]

    async def subscribe(self, symbols: Sequence[str]) -> None: ...

    async def close(self) -> None: ...

    def resync(self, symbol: str) -> None:
        self.resyncs.append(symbol)

    def send(self, command: Command, deadline_ns: int) -> None:
        if self.is_down:
            raise ExchangeError("scripted: not connected")
        if self.is_deaf:
            return
        self.sent.append(command)
        self.waiting.extend(self._answer(command))

    def _answer(self, command: Command) -> list[Report]:
        now_ns = self.ctx.now_ns()
        if isinstance(command, PlaceOrder):
            self.orders[command.client_id] = OrderSnapshot(
                command.client_id,
                f"v{len(self.orders)}",
                command.symbol,
                command.side,
                command.price,
                command.qty,
                Decimal(0),
                OrderStatus.OPEN,
                now_ns,
            )
            return [OrderAccepted(command.client_id, self.orders[command.client_id].venue_id, now_ns)]
        if isinstance(command, AmendOrder):
            self._change(command.client_id, price=command.price, qty=command.qty)
            return [OrderAmended(command.client_id, command.price, command.qty, now_ns)]
        if isinstance(command, CancelOrder):
            order = self.orders.get(command.client_id)
            if order is None or order.status.is_terminal:
                return [CancelRejected(command.client_id, RejectReason.UNKNOWN_ORDER, "", now_ns)]
            self._change(command.client_id, status=OrderStatus.CANCELLED)
            return [OrderCancelled(command.client_id, now_ns, "", order.filled)]
        if isinstance(command, QueryOrder):
            known = self.orders.get(command.client_id)
            if known is None:
                return [OrderNotFound(command.client_id, now_ns)]
            return [msgspec.structs.replace(known, ts_ns=now_ns)]
        if isinstance(command, QueryOpenOrders):
            return [OpenOrdersSnapshot(tuple(self.open()), now_ns)]
        if isinstance(command, QueryFills):
            return [FillsSnapshot(tuple(f for f in self.fills if f.ts_ns >= command.since_ns), now_ns)]
        assert isinstance(command, QueryAccount)
        return [AccountSnapshot(tuple(Balance(c, total) for c, total in self.balances.items()), (), now_ns)]

    # -- the script ------------------------------------------------------------------------------

    def open(self, symbol: str = "") -> list[OrderSnapshot]:
        """Return the orders resting at the venue."""
        return [
            order
            for order in self.orders.values()
            if not order.status.is_terminal and symbol in ("", order.symbol)
        ]

    def trade(self, order: OrderSnapshot, qty: str) -> OrderFilled:
        """Trade part of an order; the report waits for `Desk.settle`."""
        assert order.price is not None
        base, quote = order.symbol.split("-")
        amount, sign = Decimal(qty), 1 if order.side is Side.BUY else -1
        filled = self.orders[order.client_id].filled + amount
        is_done = filled == order.qty
        self._change(
            order.client_id,
            filled=filled,
            status=OrderStatus.FILLED if is_done else OrderStatus.PARTIALLY_FILLED,
        )
        self.balances[base] += sign * amount
        self.balances[quote] -= sign * amount * order.price
        fill = OrderFilled(
            order.client_id,
            order.symbol,
            order.side,
            str(len(self.fills) + 1),
            order.price,
            amount,
            Decimal(0),
            quote,
            Liquidity.MAKER,
            self.ctx.now_ns(),
        )
        self.fills.append(fill)
        self.waiting.append(fill)
        return fill

    def _change(self, client_id: str, **changes: Any) -> None:
        self.orders[client_id] = msgspec.structs.replace(self.orders[client_id], **changes)


def leading_engine(clock: VirtualClock, folder: Path) -> tuple[Journal, Engine]:
    """Return an engine that leads in its first epoch, without an account, and its journal."""
    journal = Journal.open(folder, node="desk", segment_bytes=1 << 20)
    engine = Engine(
        clock=clock,
        journal=journal,
        state=recover(journal).state,
        risk_config=RiskConfig(),
        settings=EngineSettings(snapshot_in_thread=False),
    )
    engine.start_epoch("desk", journal.cell, 1, "test")
    return journal, engine


class Desk:
    """An engine that reconciled with the venue and has no instance yet."""

    def __init__(
        self,
        folder: Path,
        venue: ScriptedVenue | None = None,
        *,
        now_ns: int = START_NS,
        risk: RiskConfig | None = None,
        **settings: Any,
    ) -> None:
        self.folder = folder
        self.risk = risk or RiskConfig()
        self.settings = settings
        self.venue = venue or ScriptedVenue()
        self.clock = VirtualClock(now_ns)
        self.journal = Journal.open(folder, node="desk", segment_bytes=1 << 20)
        recovered = recover(self.journal)
        self.engine = Engine(
            clock=self.clock,
            journal=self.journal,
            state=recovered.state,
            risk_config=self.risk,
            settings=EngineSettings(snapshot_in_thread=False, **settings),
            fills=recovered.fills,
        )
        self.engine.upkeep.after_recovery(recovered.entries_read)
        self.engine.start_epoch("desk", self.journal.cell, recovered.state.epoch + 1, "test")
        self.feed = self.engine.add_account(ACCOUNT, self.venue, "")
        self.engine.set_instruments(ACCOUNT, [spot(BTC), spot(ETH)], {BTC, ETH})
        self.feed.follow([BTC, ETH])
        self.engine.start_reconciling(ACCOUNT)
        self.settle()
        self._seq = 0

    # -- time and messages -----------------------------------------------------------------------

    def settle(self) -> None:
        """Let the venue's answers come in until there are no more."""
        for _ in range(MAX_ROUNDS):
            if not self.venue.waiting:
                return
            self.feed.report(self.venue.waiting.popleft())
        raise AssertionError(f"still talking after {MAX_ROUNDS} reports: {self.venue.sent[-4:]}")

    def advance(self, seconds: float) -> None:
        """Let time pass, with everything that becomes due on the way."""
        until_ns = self.clock.now_ns() + round(seconds * SECOND)
        while (due_ns := max(self.engine.upkeep.next_time_ns(), self.clock.now_ns() + 1)) <= until_ns:
            self.clock.set(due_ns)
            self.engine.upkeep.on_time(due_ns)
            self.settle()
        self.clock.set(until_ns)

    def top(self, bid: float = 60_000.0, ask: float = 60_000.1, symbol: str = BTC) -> None:
        """Let the market show a best bid and ask, and the venue answer what follows."""
        self._seq += 1
        now_ns = self.clock.now_ns()
        self.feed.market(BookTop(symbol, bid, 1.0, ask, 1.0, now_ns, now_ns, self._seq))
        self.settle()

    def depth(self, first_seq: int, seq: int, *, is_snapshot: bool = False) -> None:
        """Let the market show a change of depth."""
        now_ns = self.clock.now_ns()
        bids, asks = ((59_999.0, 1.0),), ((60_001.0, 1.0),)
        self.feed.market(Depth(BTC, bids, asks, is_snapshot, first_seq, seq, -1, now_ns, now_ns))

    def connection(self, channel: str, *, is_up: bool) -> None:
        """Let a line to the venue come or go."""
        self.feed.report(ConnectionChanged(channel, is_up, "scripted", self.clock.now_ns()))

    # -- instances -------------------------------------------------------------------------------

    def add(
        self,
        name: str,
        strategy: Strategy[Any],
        *symbols: str,
        models: Sequence[tuple[str, QuoteModel[Any]]] = (),
        digest: str = "ab" * 32,
        spawn: Callable[[Coroutine[Any, Any, None], str], "asyncio.Task[None]"] | None = None,
    ) -> Instance:
        """Create an instance; it is not started."""
        spec = InstanceSpec(
            name=name,
            account=ACCOUNT,
            symbols=symbols or (BTC,),
            plugin="test",
            digest=digest,
            params_json=b"{}",
            tolerance_bps=0.0,
        )
        return self.engine.roster.add(spec, strategy, models, spawn or self.feed.spawn)

    def run(self, name: str, strategy: Strategy[Any], *symbols: str, **options: Any) -> Instance:
        """Create and start an instance."""
        instance = self.add(name, strategy, *symbols, **options)
        self.engine.roster.start(instance)
        self.settle()
        return instance

    def restart(self, after_s: float = 0.0) -> "Desk":
        """Return the desk as a new process finds it: journal and venue are what they were."""
        self.journal.close()
        self.venue.waiting.clear()
        return Desk(
            self.folder,
            self.venue,
            now_ns=self.clock.now_ns() + round(after_s * SECOND) + 1,
            risk=self.risk,
            **self.settings,
        )

    # -- what can be seen ------------------------------------------------------------------------

    @property
    def entries(self) -> list[e.Entry]:
        """Return everything in the journal."""
        return [record.entry for record in read(self.folder)]

    def alerts(self, kind: str) -> list[str]:
        """Return the texts of the alerts of one kind."""
        return [entry.text for entry in self.entries if isinstance(entry, e.Alert) and entry.kind == kind]

    def orders(self, instance: str) -> list[Order]:
        """Return the orders of an instance that may still trade."""
        return [order for order in self.engine.state.orders.values() if order.instance == instance]

    def state_of(self, instance: str) -> InstanceState:
        """Return what the journaled state says of an instance."""
        return self.engine.state.instances[instance].state


class CounterState(State):
    """What `Quoter` remembers."""

    fills: int = 0
    traded: Decimal = Decimal(0)
    junk: Any = None


class Quoter(Strategy[NoParams]):
    """Quotes 1 on both sides of every book, 0.02 away, and counts its fills."""

    state: CounterState

    def __init__(self) -> None:
        super().__init__(NoParams())
        self.books = 0
        self.statuses: list[OrderStatus] = []

    def on_book(self, book: BookTop) -> None:
        self.books += 1
        self.quote(book.symbol, Quote(book.bid - 0.02, Decimal(1), book.ask + 0.02, Decimal(1)))

    def on_fill(self, fill: Any) -> None:
        self.state.fills += 1
        self.state.traded += fill.qty if fill.side is Side.BUY else -fill.qty

    def on_order(self, order: Order) -> None:
        self.statuses.append(order.status)
