"""What a venue's log and a node's journal say, and the moments at which both must say the same.

The venue's log is the witness: it says what was accepted, traded and ended, whatever the node
believes. The journal is the defendant, folded from its first entry. Both are read on as they grow.

A moment to compare at is a question for the balances: the venue logs when it saw it, its answer
carries that time, and reports come in order. So when the answer is journaled, the node knows of every
fill before that line of the log, and of none behind it.
"""

from collections import Counter, defaultdict
from collections.abc import Callable
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

__all__ = ["JournalTruth", "Moment", "TradeKey", "VenueTruth", "counted"]

_LEDGER_LINE: msgspec.json.Decoder[LedgerLine] = msgspec.json.Decoder(LedgerLine)
_RECEIVING = (InstanceState.RUNNING, InstanceState.PAUSED)
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
    """What the venue's log says happened to one account. `trade_id` returns what its nodes call a trade."""

    def __init__(self, log: Path, account: str, trade_id: Callable[[str], str] = str) -> None:
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
        self._trade_id = trade_id
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
        elif isinstance(line, OrderEnded):
            self.ended[line.client_id] = line
            del self.open[line.client_id]
        else:
            self.cash[line.currency] += line.amount

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
        key, client_id = (fill.symbol, self._trade_id(fill.trade_id)), fill.client_id
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
            assert counted(entry.data) == self.counts(entry.instance), f"entry {record.lsn}: {entry.instance}"

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


def counted(data: bytes) -> tuple[int, Decimal]:
    """Return what a `two_sided` strategy's state counts."""
    state = msgspec.msgpack.decode(data)
    return state["fills"], Decimal(state["traded_qty"])
