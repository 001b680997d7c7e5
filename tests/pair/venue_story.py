"""A venue's log and two nodes' journals, told by one statement after the other."""

from decimal import Decimal
from pathlib import Path

import msgspec

from host.api import (
    AmendOrder,
    Liquidity,
    OrderFilled,
    OrderStatus,
    OrderType,
    PlaceOrder,
    Side,
    TimeInForce,
)
from host.core import entries as e
from host.journal import Journal
from host.pair.judge import Judge
from venue.ledger import AccountOpened, LedgerLine, OrderEnded, RequestSeen, Traded

MS = 1_000_000
QTY = Decimal("0.01")
PRICE = Decimal(100)


class VenueStory:
    """Nodes a and b, and what the venue saw. Each statement takes a millisecond."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now_ns = 1_000 * MS
        self.log = folder / "venue.jsonl"
        self.journals: dict[str, Journal] = {}
        for name in ("a", "b"):
            self.open(name)
        self._write(AccountOpened("paper", {"USDT": Decimal(1000)}))

    def judge(self) -> Judge:
        return Judge(self.log, "paper", [self.folder / name for name in ("a", "b")])

    def open(self, name: str) -> None:
        self.journals[name] = Journal.open(self.folder / name, node=name, cell="pair", segment_bytes=1 << 16)

    # -- what nodes write ------------------------------------------------------------------------

    def lead(self, epoch: int, *nodes: str) -> None:
        """The first of `nodes` begins an epoch; the others hold a copy."""
        self._journal(e.NodeStarted(nodes[0], "pair", epoch, "test"), nodes)

    def mean_place(self, client_id: str, *nodes: str, side: Side = Side.BUY) -> None:
        sent = e.PlaceSent(
            *(client_id, "mm", "paper", "BTC-USDT", side, OrderType.LIMIT, TimeInForce.GTC),
            *(PRICE, QTY, False, False, 0),
        )
        self._journal(sent, nodes)

    def mean_amend(self, client_id: str, price: int, *nodes: str) -> None:
        self._journal(e.AmendSent((e.Change(client_id, Decimal(price), QTY),)), nodes)

    def yield_lead(self, why: str, *nodes: str) -> None:
        self._journal(e.Alert("yielding", why), nodes)

    def _journal(self, entry: e.Entry, nodes: tuple[str, ...]) -> None:
        self.now_ns += MS
        for node in nodes:
            self.journals[node].append(entry, self.now_ns)
            self.journals[node].flush()

    # -- what the venue sees ---------------------------------------------------------------------

    def place(self, client_id: str, verdict: str = "accepted", side: Side = Side.BUY) -> None:
        terms = (side, OrderType.LIMIT, TimeInForce.GTC, PRICE, QTY, False, False)
        self._request(PlaceOrder(client_id, "BTC-USDT", *terms), verdict)

    def amend(self, client_id: str, price: int) -> None:
        self._request(AmendOrder(client_id, "BTC-USDT", Side.BUY, Decimal(price), QTY), "accepted")

    def _request(self, command: PlaceOrder | AmendOrder, verdict: str) -> None:
        self.now_ns += MS
        self._write(RequestSeen(self.now_ns, "paper", command.client_id, command, 0, self.now_ns, verdict))

    def end(self, client_id: str) -> None:
        self.now_ns += MS
        self._write(OrderEnded(self.now_ns, "paper", client_id, OrderStatus.CANCELLED, "asked", Decimal(0)))

    def fill(self, client_id: str, qty: Decimal = QTY) -> None:
        self.now_ns += MS
        terms = ("BTC-USDT", Side.BUY, str(self.now_ns), PRICE, qty, Decimal(0), "USDT", Liquidity.MAKER)
        self._write(Traded("paper", OrderFilled(client_id, *terms, self.now_ns)))

    def tear(self) -> None:
        """Leave half a line at the end of the log, as a writer that is in the middle of it does."""
        with self.log.open("ab") as file:
            file.write(b'{"kind":"request","ts_ns":')

    def _write(self, line: LedgerLine) -> None:
        with self.log.open("ab") as file:
            file.write(msgspec.json.encode(line) + b"\n")
