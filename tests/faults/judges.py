"""Judges of what a killed node left behind, by moments at which node and venue must agree.

The venue's log is the witness: it says what was accepted, traded and ended, whatever the node
believes. The journal is the defendant, folded from its first entry. Both are read on as they grow.

A moment to compare at is a question for the balances: the venue logs when it saw it, its answer
carries that time, and reports come in order. So when the answer is journaled, the node knows of every
fill before that line of the log, and of none behind it.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path

import msgspec
from msgspec import Struct

from host.api import AmendOrder, Fill, Order, OrderStatus, PlaceOrder, QueryAccount, Side
from host.core import entries as e
from host.core.entries import InstanceState
from host.core.state import TradingState
from host.journal import Follower
from venue.ledger import AccountOpened, LedgerLine, OrderEnded, RequestSeen, Traded

__all__ = [
    "JournalTruth",
    "Moment",
    "VenueTruth",
    "assert_agreement",
    "assert_no_wrong",
    "assert_stopped_in_agreement",
    "assert_strategies_counted",
]

ROUNDING = Decimal("1E-8")
"""How exactly venues book the profit of a perpetual's fill; see `host/core/drift.py`."""

_LEDGER_LINE: msgspec.json.Decoder[LedgerLine] = msgspec.json.Decoder(LedgerLine)
_RECEIVING = (InstanceState.RUNNING, InstanceState.PAUSED)
_ALARMING = ("account_drift", "order_adopted", "fill_adopted", "order_forgotten", "overfill", "quarantined")
_ZERO = Decimal(0)

TradeKey = tuple[str, str]
"""Symbol and trade id."""


class Moment(Struct, frozen=True):
    """All that one side knew when the venue told the balances."""

    cash: dict[str, Decimal]
    """Balances, less what the open positions of perpetuals cost: what was paid in and out.

    Fills that are told in another order than they happened, as after a restart, move profit between a
    balance and the cost of a position (`host/core/drift.py`), but no cash."""
    positions: dict[str, Decimal]
    """Bought minus sold, by symbol: of a perpetual the position."""
    fills: frozenset[TradeKey]
    open: dict[str, tuple[Decimal | None, Decimal, Decimal]]
    """Price, quantity and what is filled of it, by client id."""
    is_recovery: bool = False
    """Of the journal: nobody traded yet, so that open orders can be compared too."""


class VenueTruth:
    """What the venue's log says happened to one account."""

    def __init__(self, log: Path, account: str) -> None:
        self.accepted: dict[str, PlaceOrder] = {}
        self.refused: Counter[str] = Counter()
        self.fills: dict[TradeKey, Traded] = {}
        self.ended: dict[str, OrderEnded] = {}
        self.open: dict[str, tuple[Decimal | None, Decimal, Decimal]] = {}
        self.cash: dict[str, Decimal] = {}
        self.moments: dict[int, Moment] = {}
        """By the venue's time of the question."""
        self._filled: defaultdict[str, Decimal] = defaultdict(Decimal)
        self._positions: defaultdict[str, Decimal] = defaultdict(Decimal)
        self._name = account
        self._log = log
        self._offset = 0
        self.catch_up()

    def catch_up(self) -> None:
        """Read on, to the last whole line."""
        with self._log.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._offset += len(line)
                self._take(_LEDGER_LINE.decode(line))

    def filled(self, client_id: str) -> Decimal:
        """Return how much of an order traded."""
        return self._filled[client_id]

    def _take(self, line: LedgerLine) -> None:
        if line.account != self._name:
            return
        if isinstance(line, AccountOpened):
            self.cash = dict(line.balances)
        elif isinstance(line, RequestSeen):
            self._take_request(line)
        elif isinstance(line, Traded):
            self._take_fill(line)
        else:
            self.ended[line.client_id] = line
            del self.open[line.client_id]

    def _take_request(self, line: RequestSeen) -> None:
        command, client_id = line.command, line.client_id
        if line.verdict != "accepted":
            self.refused[f"{type(command).__name__}: {line.verdict}"] += 1
        elif isinstance(command, PlaceOrder):
            assert client_id not in self.accepted, f"order {client_id} was accepted twice"
            self.accepted[client_id] = command
            self.open[client_id] = (command.price, command.qty, _ZERO)
        elif isinstance(command, AmendOrder):
            self.open[client_id] = (command.price, command.qty, self._filled[client_id])
        elif isinstance(command, QueryAccount):
            self.moments[line.ts_ns] = Moment(
                dict(self.cash), dict(self._positions), frozenset(self.fills), dict(self.open)
            )

    def _take_fill(self, line: Traded) -> None:
        fill = line.fill
        key, client_id = (fill.symbol, fill.trade_id), fill.client_id
        assert key not in self.fills, f"the venue logged trade {key} twice"
        self.fills[key] = line
        self._filled[client_id] += fill.qty
        signed = fill.qty if fill.side is Side.BUY else -fill.qty
        self._positions[fill.symbol] += signed
        base, quote = fill.symbol.split("-")[:2]
        if not fill.symbol.endswith("-PERP"):
            self.cash[base] += signed
        self.cash[quote] -= signed * fill.price
        self.cash[fill.fee_currency] -= fill.fee
        price, qty, _ = self.open[client_id]
        if self._filled[client_id] >= qty:
            del self.open[client_id]
        else:
            self.open[client_id] = (price, qty, self._filled[client_id])


class JournalTruth:
    """What a journal says, folded from its first entry.

    On the way it holds strategies of the `two_sided` kind, which count their fills, to what the
    journal says: each saved state counts exactly the fills of its instance before it.
    """

    def __init__(self, folder: Path, account: str = "acc") -> None:
        self.state = TradingState()
        self.orders: dict[str, Order] = {}
        self.fills: dict[TradeKey, Fill] = {}
        self.alerts: list[e.Alert] = []
        self.starts = 0
        self.running: set[str] = set()
        """The instances that receive, by the last process's word."""
        self.moments: list[tuple[int, Moment]] = []
        """With the venue's time of each."""
        self.in_doubt_at_start: list[str] = []
        """Orders whose fate was not known when an instance began to trade."""
        self.delivered_late = 0
        """Fills that a strategy heard of only when it was started again."""
        self.unsaved_at_death: list[str] = []
        """What instances that ran had heard, and no saved state had taken in, when a process died."""
        self._by_instance: defaultdict[str, list[Fill]] = defaultdict(list)
        self._account = account
        self._is_recovering = False
        self._follower = Follower(folder)
        self.catch_up()

    def catch_up(self) -> None:
        """Read on, to the last whole entry."""
        while records := self._follower.poll():
            for record in records:
                self._take(record)

    def counts(self, instance: str) -> tuple[int, Decimal]:
        """Return the number of an instance's fills, and what it bought minus what it sold."""
        fills = self._by_instance[instance]
        return len(fills), sum((f.qty if f.side is Side.BUY else -f.qty for f in fills), _ZERO)

    def _take(self, record: e.Record) -> None:
        entry = record.entry
        if isinstance(entry, e.NodeStarted):
            self.unsaved_at_death += [
                f"entry {record.lsn}: {name}, {self.state.unheard[name]}"
                for name in self.running
                if name in self.state.unheard
            ]
            self.starts += 1
            self.running.clear()
            self._is_recovering = True
        elif isinstance(entry, e.InstanceChanged):
            self._take_move(entry)
        elif isinstance(entry, e.AccountReported) and self._account in self.state.balances:
            # Before it is applied, since it takes the venue's balances over.
            self.moments.append((entry.snapshot.ts_ns, self._moment()))
        outcome = self.state.apply(record.lsn, record.ts_ns, entry)
        if outcome is not None and outcome.order is not None:
            self.orders[outcome.order.client_id] = outcome.order
        if outcome is not None and outcome.fill is not None:
            fill = outcome.fill
            key = (fill.symbol, fill.trade_id)
            assert key not in self.fills, f"entry {record.lsn}: trade {key} is counted twice"
            self.fills[key] = fill
            self._by_instance[fill.instance].append(fill)
        if isinstance(entry, e.Alert):
            self.alerts.append(entry)
        elif isinstance(entry, e.StrategyStateSaved):
            assert _counted(entry.data) == self.counts(entry.instance), (
                f"entry {record.lsn}: {entry.instance}"
            )

    def _take_move(self, change: e.InstanceChanged) -> None:
        self.running.discard(change.instance)
        if change.state in _RECEIVING:
            self.running.add(change.instance)
        elif change.state is InstanceState.STARTING:
            self._is_recovering = False
            self.in_doubt_at_start += [
                order.client_id for order in self.state.orders.values() if order.status is OrderStatus.UNKNOWN
            ]
            unheard = self.state.unheard.get(change.instance, ())
            self.delivered_late += sum(news.fill is not None for news in unheard)

    def cash(self) -> dict[str, Decimal]:
        """Return the account's balances less what its open positions cost."""
        cash = dict(self.state.balances[self._account])
        for symbol, net in self.state.net_holdings.get(self._account, {}).items():
            cash[self.state.instruments[self._account][symbol].settle] -= net.open_cost
        return cash

    def _moment(self) -> Moment:
        positions: defaultdict[str, Decimal] = defaultdict(Decimal)
        for by_symbol in self.state.holdings.values():
            for symbol, holding in by_symbol.items():
                positions[symbol] += holding.qty
        return Moment(
            self.cash(),
            {symbol: qty for symbol, qty in positions.items() if qty},
            frozenset(self.fills),
            {o.client_id: (o.price, o.qty, o.filled) for o in self.state.orders.values()},
            self._is_recovering,
        )


def assert_agreement(journal: JournalTruth, venue: VenueTruth) -> int:
    """Hold the node to the venue at every moment that can be compared; return how many those were.

    Each is compared once, however often this is called.
    """
    moments = list(journal.moments)
    journal.moments.clear()
    for ts_ns, ours in moments:
        theirs = venue.moments.pop(ts_ns)
        assert ours.fills == theirs.fills, f"fills differ: {sorted(ours.fills ^ theirs.fills)}"
        assert ours.positions == {symbol: qty for symbol, qty in theirs.positions.items() if qty}
        _assert_cash(ours.cash, theirs.cash, ours.fills)
        if ours.is_recovery:
            assert ours.open == theirs.open
    return len(moments)


def assert_no_wrong(journal: JournalTruth, venue: VenueTruth) -> None:
    """Hold the node to what must be so at every moment: no order lost or doubled, nothing to alarm."""
    unknown = [client_id for client_id in venue.accepted if client_id not in journal.orders]
    assert not unknown, f"the venue has orders that the journal has not: {unknown}"
    assert not [text for text in venue.refused if "duplicate_id" in text], "an order was sent twice"
    assert journal.state.anomalies == {}
    assert not journal.in_doubt_at_start
    assert not [alert for alert in journal.alerts if alert.kind in _ALARMING], journal.alerts


def assert_strategies_counted(journal: JournalTruth) -> None:
    """Hold each saved state to the journal: what it has not counted is kept for it, and nothing else.

    A stopped strategy has not heard the fills that came while its cancels were under way.
    """
    for name, record in journal.state.instances.items():
        missed = [news.fill for news in journal.state.unheard.get(name, ()) if news.fill is not None]
        count, traded = _counted(record.strategy_state) if record.strategy_state else (0, _ZERO)
        count += len(missed)
        traded += sum((fill.qty if fill.side is Side.BUY else -fill.qty for fill in missed), _ZERO)
        assert (count, traded) == journal.counts(name), name


def assert_stopped_in_agreement(journal: JournalTruth, venue: VenueTruth) -> None:
    """Hold a stopped node to the venue's log: nothing lost, nothing doubled, nothing left open."""
    assert_agreement(journal, venue)
    assert_no_wrong(journal, venue)
    assert_strategies_counted(journal)
    assert not venue.open, f"left open at the venue: {sorted(venue.open)}"
    assert not journal.state.orders, f"left open in the journal: {sorted(journal.state.orders)}"
    for client_id, order in journal.orders.items():
        assert order.status.is_terminal, f"{client_id} is {order.status}"
        assert order.filled == venue.filled(client_id), client_id
        is_known = client_id in venue.accepted
        assert is_known == (order.status is not OrderStatus.REJECTED), f"{client_id} is {order.status}"
        if is_known:
            ended = venue.ended.get(client_id)
            assert order.status is (OrderStatus.FILLED if ended is None else ended.status), client_id
    assert journal.fills.keys() == venue.fills.keys()
    for key, fill in journal.fills.items():
        theirs = venue.fills[key].fill
        assert (fill.side, fill.price, fill.qty, fill.fee, fill.fee_currency) == (
            theirs.side,
            theirs.price,
            theirs.qty,
            theirs.fee,
            theirs.fee_currency,
        )
    _assert_cash(journal.cash(), venue.cash, journal.fills)


def _assert_cash(ours: dict[str, Decimal], theirs: dict[str, Decimal], fills: Iterable[TradeKey]) -> None:
    assert ours.keys() == theirs.keys()
    rounded = ROUNDING * sum(symbol.endswith("-PERP") for symbol, _ in fills)
    for currency, amount in ours.items():
        off = abs(amount - theirs[currency])
        assert off <= rounded, f"{currency}: ours {amount}, the venue's {theirs[currency]}"


def _counted(data: bytes) -> tuple[int, Decimal]:
    """Return what a `two_sided` strategy's state counts."""
    state = msgspec.msgpack.decode(data)
    return state["fills"], Decimal(state["traded_qty"])
