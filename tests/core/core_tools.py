"""The core of a node on a real journal, without a runtime, and a venue that a test speaks for."""

from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Self

import msgspec

from host.api import (
    AccountSnapshot,
    AmendSupport,
    Balance,
    BookTop,
    Command,
    ExchangeAdapter,
    ExchangeError,
    Fill,
    FillsSnapshot,
    Instrument,
    InstrumentKind,
    Liquidity,
    NoParams,
    OpenOrdersSnapshot,
    Order,
    OrderAccepted,
    OrderFilled,
    OrderRequest,
    OrderSnapshot,
    OrderStatus,
    PlaceOrder,
    Quote,
    Side,
    TimeInForce,
)
from host.core import entries as e
from host.core.channel import Channel
from host.core.client_id import ClientIdMaker
from host.core.gate import Gate
from host.core.oms import Oms
from host.core.reconcile import Reconciler
from host.core.risk import Refusal, RiskEngine
from host.core.risk_limits import RiskConfig
from host.core.state import Outcome, TradingState
from host.journal import Journal, read

D = Decimal
START_NS = 1_754_650_000_000_000_000
SECOND = 1_000_000_000
MS = 1_000_000
WINDOW_NS = 2 * SECOND
ACCOUNT, INSTANCE, BTC = "acc", "mm", "BTC-USDT"
BUY, SELL = Side.BUY, Side.SELL
BALANCES = {"USDT": D(100_000), "BTC": D(50)}
MAX_ROUNDS = 200
"""No turn in these tests sends as often; one that does is a storm."""


def instrument(symbol: str = BTC, kind: InstrumentKind = InstrumentKind.SPOT, **more: Any) -> Instrument:
    """Return an instrument with tick 0.5 and lot 0.1, at least one of which is worth 10."""
    base, quote = symbol.split("-")[:2]
    fields = {
        "tick_size": D("0.5"),
        "lot_size": D("0.1"),
        "min_qty": D("0.1"),
        "min_notional": D(10),
        **more,
    }
    return Instrument(symbol=symbol, kind=kind, base=base, quote=quote, **fields)


class ScriptedVenue(ExchangeAdapter[NoParams]):
    """Keeps what it is sent, for a test to answer; raises `fails_with` instead where that is set."""

    def __init__(self) -> None:
        super().__init__(NoParams())
        self.commands: list[Command] = []
        self.deadlines: list[int] = []
        self.fails_with: Exception | None = None

    def send(self, command: Command, deadline_ns: int) -> None:
        """Keep one command."""
        if self.fails_with is not None:
            raise self.fails_with
        self.commands.append(command)
        self.deadlines.append(deadline_ns)

    def take(self) -> list[Command]:
        """Return what was sent since the last call."""
        commands, self.commands, self.deadlines = self.commands, [], []
        return commands


class VenueWithoutAmends(ScriptedVenue):
    """A venue where an order can only be cancelled and placed anew."""

    amend_support = AmendSupport.NONE


class Core:
    """State, risk, OMS and reconciler on a journal in `folder`, taken up from what it holds."""

    def __init__(
        self,
        folder: Path,
        venue: ExchangeAdapter[Any] | None = None,
        *,
        instruments: Sequence[Instrument] = (instrument(),),
        risk: dict[str, Any] | None = None,
        now_ns: int = START_NS,
        journal: Journal | None = None,
        instances: Sequence[str] = (INSTANCE,),
        tolerance_bps: float = 0.0,
    ) -> None:
        self.folder = folder
        self.venue = venue if venue is not None else ScriptedVenue()
        self.now_ns = now_ns
        self.journal = journal or Journal.open(folder, node="a", segment_bytes=1 << 16)
        self.state = TradingState()
        self.records = list(read(folder, 1))
        """What the journal holds, and what was appended since."""
        for record in self.records:
            self.state.apply(record.lsn, record.ts_ns, record.entry)
        self.tops = {each.symbol: top(100.0, each.symbol) for each in instruments}
        self.heard: list[tuple[Order | None, Fill | None]] = []
        self.breaches: list[Refusal] = []
        self.risk = RiskEngine(msgspec.convert(risk or {}, RiskConfig), self.state.holding)
        self.oms = Oms(
            self.state,
            self.risk,
            Gate(WINDOW_NS),
            self.append,
            lambda order, fill: self.heard.append((order, fill)),
            lambda refusal, _instance: self.breaches.append(refusal),
            lambda _account, symbol: self.tops[symbol],
        )
        self.oms.outbox.ports[ACCOUNT] = self.venue
        self.reconciler = Reconciler(self.oms, "td")
        self.record(e.NodeStarted("a", "main", self.state.epoch + 1, "test"), now_ns)
        for each in instruments:
            self.record(e.InstrumentSet(ACCOUNT, each), now_ns)
        for order in self.state.orders.values():
            self.risk.order_changed(order)
        self.channels: dict[tuple[str, str], Channel] = {}
        for number, name in enumerate(instances, 1):
            symbols = tuple(each.symbol for each in instruments)
            self.record(e.InstanceAdded(name, number, "p", "d", ACCOUNT, symbols, b"{}"), now_ns)
            ids = ClientIdMaker("td", self.state.epoch, number)
            for symbol in symbols:
                channel = self.oms.open_channel(name, ACCOUNT, symbol, ids, tolerance_bps)
                self.channels[name, symbol] = channel
        self.risk.monitor(now_ns, lambda _account, symbol: self.tops[symbol])
        self.turn()

    def close(self) -> None:
        """Let another core take up the journal."""
        self.journal.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- what a runtime does ---------------------------------------------------------------------

    def append(self, entry: e.Entry, now_ns: int) -> int:
        """Append an entry and return its LSN."""
        lsn = self.journal.append(entry, now_ns)
        self.records.append(e.Record(lsn, now_ns, entry))
        return lsn

    def record(self, entry: e.Entry, now_ns: int) -> Outcome | None:
        """Append an entry and apply it."""
        return self.oms.outbox.record(entry, now_ns)

    def turn(self) -> None:
        """Write, then send, until there is nothing more to do."""
        for _ in range(MAX_ROUNDS):
            self.journal.flush()
            waiting = len(self.oms.outbox.waiting)
            self.oms.outbox.flush(self.now_ns, self.journal.durable_lsn)
            if self.journal.last_lsn == self.journal.flushed_lsn and len(self.oms.outbox.waiting) in (
                0,
                waiting,
            ):
                return
        raise AssertionError(f"a turn sent {MAX_ROUNDS} times: {self.oms.outbox.waiting[:3]}")

    def quote(self, *quotes: Quote, instance: str = INSTANCE, symbol: str = BTC) -> None:
        """Want these quotes."""
        channel = self.channels[instance, symbol]
        if len(quotes) == 1:
            self.oms.quoter.set_quote(channel, quotes[0], self.tops[symbol], self.now_ns)
        else:
            self.oms.quoter.set_quotes(channel, quotes, self.tops[symbol], self.now_ns)
        self.turn()

    def place(self, request: OrderRequest, instance: str = INSTANCE) -> str:
        """Send an imperative order; raise `OrderRefused`."""
        channel = self.channels[instance, request.symbol]
        try:
            return self.oms.place(channel, request, self.tops[request.symbol], self.now_ns)
        finally:
            self.turn()

    def cancel(self, client_id: str) -> bool:
        """Cancel one order."""
        asked = self.oms.outbox.cancel(client_id, "test", self.now_ns)
        self.turn()
        return asked

    def say(self, *reports: Any) -> None:
        """Have the venue say these things."""
        reconciler = self.reconciler
        for report in reports:
            if isinstance(report, OpenOrdersSnapshot):
                reconciler.on_open_orders(ACCOUNT, report, self.now_ns)
            elif isinstance(report, FillsSnapshot):
                reconciler.on_fills(ACCOUNT, report, self.now_ns)
            elif isinstance(report, AccountSnapshot):
                reconciler.on_account(ACCOUNT, report, self.now_ns)
            else:
                reconciler.on_report(ACCOUNT, report, self.now_ns)
            self.turn()

    def wait(self, duration_ns: int) -> None:
        """Let time pass, with one look at the timers at the end of it."""
        self.now_ns += duration_ns
        self.reconciler.on_timer(self.now_ns)
        self.turn()

    # -- shorthands ------------------------------------------------------------------------------

    def get_ready(self) -> None:
        """Reconcile with a venue that has nothing of ours but `BALANCES`."""
        self.reconciler.start(ACCOUNT, self.now_ns)
        self.turn()
        self.say(OpenOrdersSnapshot((), self.now_ns), FillsSnapshot((), self.now_ns), account(self.now_ns))
        assert self.reconciler.is_ready(ACCOUNT), self.reconciler.waiting_for(ACCOUNT)
        self.sent()

    def sent(self) -> list[Command]:
        """Return what reached the venue since the last call."""
        assert isinstance(self.venue, ScriptedVenue)
        return self.venue.take()

    def rest(self, side: Side = BUY, price: str = "99", qty: str = "1") -> Order:
        """Return an imperative order that the venue has accepted."""
        client_id = self.place(limit(side, price, qty))
        self.say(OrderAccepted(client_id, f"v-{client_id}", self.now_ns))
        self.sent()
        return self.state.orders[client_id]

    def quoted(self, bid: float = 99.0, ask: float = 101.0, qty: str = "1") -> tuple[Order, Order]:
        """Return the bid and the ask of a quote that the venue has accepted."""
        self.quote(both(bid, ask, qty))
        ids = {each.side: each.client_id for each in self.sent() if isinstance(each, PlaceOrder)}
        for client_id in ids.values():
            self.say(OrderAccepted(client_id, f"v-{client_id}", self.now_ns))
        return self.state.orders[ids[BUY]], self.state.orders[ids[SELL]]

    def fill(self, order: Order, qty: str, trade_id: str = "t1", price: str = "99") -> None:
        """Have the venue say that the order traded."""
        self.say(filled(order.client_id, order.side, qty, price, trade_id, self.now_ns))

    def journaled(self, kind: type[Any]) -> list[Any]:
        """Return the entries of one type that the journal holds."""
        self.journal.flush()
        return [record.entry for record in read(self.folder, 1) if isinstance(record.entry, kind)]

    def alerts(self) -> list[str]:
        """Return the kinds of the alerts so far."""
        return [alert.kind for alert in self.journaled(e.Alert)]

    def refolded(self) -> TradingState:
        """Return what the journal alone says."""
        self.journal.flush()
        state = TradingState()
        for record in read(self.folder, 1):
            state.apply(record.lsn, record.ts_ns, record.entry)
        return state


def top(mid: float, symbol: str = BTC, spread: float = 1.0) -> BookTop:
    """Return a top of book around `mid`, received at the start of the test."""
    return BookTop(symbol, mid - spread / 2, 1.0, mid + spread / 2, 1.0, START_NS, START_NS)


def both(bid: float | None, ask: float | None, qty: str = "1") -> Quote:
    """Return a quote of the same size on both sides."""
    return Quote(bid, D(qty), ask, D(qty))


def limit(side: Side, price: str, qty: str, *, tif: TimeInForce = TimeInForce.GTC) -> OrderRequest:
    """Return a request for a limit order."""
    return OrderRequest(symbol=BTC, side=side, qty=D(qty), price=D(price), time_in_force=tif)


def filled(
    client_id: str, side: Side, qty: str, price: str, trade_id: str, ts_ns: int = START_NS, symbol: str = BTC
) -> OrderFilled:
    """Return a report of an execution with a fee of 0.1 USDT."""
    maker = Liquidity.MAKER
    return OrderFilled(client_id, symbol, side, trade_id, D(price), D(qty), D("0.1"), "USDT", maker, ts_ns)


def account(ts_ns: int, **balances: Decimal) -> AccountSnapshot:
    """Return the venue's view of the balances, where not said otherwise `BALANCES`."""
    holds = {**BALANCES, **balances}
    return AccountSnapshot(tuple(Balance(name, total) for name, total in holds.items()), (), ts_ns)


def view(order: Order, ts_ns: int, status: OrderStatus, filled: str = "0", **changes: Any) -> OrderSnapshot:
    """Return the venue's view of one of our orders."""
    price, qty = changes.get("price", order.price), changes.get("qty", order.qty)
    return OrderSnapshot(order.client_id, "v", order.symbol, order.side, price, qty, D(filled), status, ts_ns)


def broken_line() -> ExchangeError:
    """Return what an adapter raises that has no connection."""
    return ExchangeError("no connection to the venue")
