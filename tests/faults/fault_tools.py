"""Real processes to kill, and judges that read what they left behind.

The venue's log is the judge: it says what was accepted, traded and ended, whatever the node
believes. The journal is the defendant: folded from its first entry, as a restarted node would.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Self

import msgspec

from host.api import AmendOrder, Fill, Order, OrderStatus, PlaceOrder, Side
from host.core import entries as e
from host.core.state import TradingState
from host.journal import read
from venue.ledger import AccountOpened, LedgerLine, OrderEnded, RequestSeen, Traded

REPO = Path(__file__).parents[2]
DEADLINE_S = 30.0
"""Far above what anything here needs; only a test that has failed waits for it."""

# Half a spread of nothing and no tolerance: every tick moves an order, and every trade hits one.
INSTANCES = """
[[instance]]
name = "mm-btc"
plugin = "two_sided"
account = "acc"
symbols = ["BTC-USDT"]
quote_tolerance_bps = 0.0
params = { half_spread_bps = 0.01, size = "0.01", skew_bps = 0.0 }

[[instance]]
name = "mm-eth"
plugin = "two_sided"
account = "acc"
symbols = ["ETH-USDT"]
quote_tolerance_bps = 0.0
params = { half_spread_bps = 0.01, size = "0.1", skew_bps = 0.0 }
"""

_LEDGER_LINE: msgspec.json.Decoder[LedgerLine] = msgspec.json.Decoder(LedgerLine)


def wait_until(is_true: Callable[[], bool], what: str) -> None:
    """Look again and again until it is so; fail, naming `what`, after the deadline."""
    end = time.monotonic() + DEADLINE_S
    while not is_true():
        assert time.monotonic() < end, f"waited {DEADLINE_S:g} s in vain for {what}"
        time.sleep(0.002)


class TandemProcess:
    """One `tandem` command in a process of its own; its output goes to a file."""

    def __init__(self, output: Path, *arguments: str | Path) -> None:
        self.output = output
        code = "import sys; from host.cli import main; sys.exit(main())"
        with output.open("ab") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-c", code, *map(str, arguments)],
                cwd=REPO,
                stdout=file,
                stderr=file,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )

    @property
    def pid(self) -> int:
        """Return the process id."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Return whether the process runs."""
        return self._process.poll() is None

    def kill(self) -> None:
        """End it with SIGKILL, in the middle of whatever it does."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        """Ask it to stop and return its exit code."""
        self._process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        """Wait for its end and return its exit code."""
        try:
            return self._process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"it did not end; it said:\n{self.said()}") from None

    def said(self) -> str:
        """Return its output, and that of processes before it with the same file."""
        return self.output.read_text()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.is_alive:
            self.kill()


class Venue:
    """The paper venue as a server, with its log."""

    def __init__(self, folder: Path, seed: int) -> None:
        # A Unix socket's path has to be short, and pytest's folders are not.
        self.socket = Path(f"/tmp/tandem-{os.getpid()}-{seed}.sock")
        self.log = folder / "venue.jsonl"
        self.url = f"unix:{self.socket}"
        self.process = TandemProcess(
            folder / "venue.out", "venue", "--listen", self.url, "--log", self.log, "--seed", str(seed)
        )

    def __enter__(self) -> Self:
        wait_until(self._answers, "the venue to answer")
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.socket.unlink(missing_ok=True)

    def _answers(self) -> bool:
        assert self.process.is_alive, f"the venue ended:\n{self.process.said()}"
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.socket)) == 0

    @property
    def log_size(self) -> int:
        """Return how many bytes the log has."""
        return self.log.stat().st_size if self.log.exists() else 0


class VenueTruth:
    """What the venue's log says happened to one account."""

    def __init__(self, log: Path, account: str) -> None:
        self.accepted: dict[str, PlaceOrder] = {}
        self.qty: dict[str, Decimal] = {}
        self.refused: Counter[str] = Counter()
        self.fills: dict[tuple[str, str], Traded] = {}
        self.ended: dict[str, OrderEnded] = {}
        self.balances: dict[str, Decimal] = {}
        for line in log.read_bytes().splitlines(keepends=True):
            if line.endswith(b"\n"):
                self._take(_LEDGER_LINE.decode(line), account)

    def _take(self, line: LedgerLine, account: str) -> None:
        if line.account != account:
            return
        if isinstance(line, AccountOpened):
            self.balances = dict(line.balances)
        elif isinstance(line, RequestSeen):
            self._take_request(line)
        elif isinstance(line, Traded):
            key = (line.fill.symbol, line.fill.trade_id)
            assert key not in self.fills, f"the venue logged trade {key} twice"
            self.fills[key] = line
            self._pay(line)
        else:
            self.ended[line.client_id] = line

    def _take_request(self, line: RequestSeen) -> None:
        command = line.command
        if line.verdict != "accepted":
            self.refused[f"{type(command).__name__}: {line.verdict}"] += 1
        elif isinstance(command, PlaceOrder):
            assert line.client_id not in self.accepted, f"order {line.client_id} was accepted twice"
            self.accepted[line.client_id] = command
            self.qty[line.client_id] = command.qty
        elif isinstance(command, AmendOrder):
            self.qty[line.client_id] = command.qty

    def _pay(self, line: Traded) -> None:
        fill = line.fill
        base, quote = fill.symbol.split("-")
        sign = 1 if fill.side is Side.BUY else -1
        for currency, change in (
            (base, sign * fill.qty),
            (quote, -sign * fill.qty * fill.price),
            (fill.fee_currency, -fill.fee),
        ):
            self.balances[currency] = self.balances.get(currency, Decimal(0)) + change

    def filled(self, client_id: str) -> Decimal:
        """Return how much of an order traded."""
        return sum(
            (line.fill.qty for line in self.fills.values() if line.fill.client_id == client_id), Decimal(0)
        )

    @property
    def open(self) -> set[str]:
        """Return the orders that may still trade."""
        filled: Counter[str] = Counter()
        for line in self.fills.values():
            filled[line.fill.client_id] += line.fill.qty  # type: ignore[assignment]  # Decimals add up too
        return {
            client_id
            for client_id in self.accepted
            if client_id not in self.ended and filled[client_id] < self.qty[client_id]
        }


class JournalTruth:
    """What a journal says, folded from its first entry."""

    def __init__(self, folder: Path) -> None:
        self.state = TradingState()
        self.orders: dict[str, Order] = {}
        self.fills: dict[tuple[str, str], Fill] = {}
        self.alerts: list[e.Alert] = []
        self.starts = 0
        self.heard: dict[str, list[Fill]] = {}
        """Fills by instance, as of its stop: what comes later it hears of at the next start."""
        self.in_doubt_at_start: list[str] = []
        """Orders whose fate was not known when an instance began to trade."""
        by_instance: dict[str, list[Fill]] = {}
        for record in read(folder):
            entry = record.entry
            outcome = self.state.apply(record.lsn, record.ts_ns, entry)
            if outcome is not None and outcome.order is not None:
                self.orders[outcome.order.client_id] = outcome.order
            if outcome is not None and outcome.fill is not None:
                fill = outcome.fill
                assert (fill.symbol, fill.trade_id) not in self.fills, f"trade {fill.trade_id} counted twice"
                self.fills[fill.symbol, fill.trade_id] = fill
                by_instance.setdefault(fill.instance, []).append(fill)
            if isinstance(entry, e.Alert):
                self.alerts.append(entry)
            elif isinstance(entry, e.NodeStarted):
                self.starts += 1
            elif isinstance(entry, e.InstanceChanged) and entry.state is e.InstanceState.STOPPED:
                self.heard[entry.instance] = list(by_instance.get(entry.instance, []))
            elif isinstance(entry, e.InstanceChanged) and entry.state is e.InstanceState.STARTING:
                self.in_doubt_at_start += [
                    order.client_id
                    for order in self.state.orders.values()
                    if order.status is OrderStatus.UNKNOWN
                ]


def assert_agreement(journal: JournalTruth, venue: VenueTruth, account: str) -> None:
    """Hold a stopped node to the venue's log: nothing lost, nothing doubled, nothing left open."""
    assert not venue.open, f"left open at the venue: {sorted(venue.open)}"
    assert not journal.state.orders, f"left open in the journal: {sorted(journal.state.orders)}"
    assert venue.accepted.keys() <= journal.orders.keys(), "the venue has orders that the journal has not"
    assert not [text for text in venue.refused if "duplicate_id" in text], "an order was sent twice"
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
    assert journal.state.balances[account] == venue.balances
    assert journal.state.anomalies == {}
    assert not journal.in_doubt_at_start
    assert not [alert for alert in journal.alerts if alert.kind in _ALARMING], journal.alerts


_ALARMING = ("account_drift", "order_adopted", "fill_adopted", "order_forgotten", "overfill", "quarantined")


def assert_strategy_counted_its_fills(journal: JournalTruth, instance: str) -> None:
    """Hold a stopped `two_sided` instance's saved state to the fills that the journal has of it."""
    fills = journal.heard[instance]
    state = msgspec.msgpack.decode(journal.state.instances[instance].strategy_state)
    traded = sum((fill.qty if fill.side is Side.BUY else -fill.qty for fill in fills), Decimal(0))
    assert state["fills"] == len(fills), instance
    assert Decimal(state["traded_qty"]) == traded, instance
