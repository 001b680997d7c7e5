"""The judge of a pair: holds what the venue accepted to what the nodes' journals meant to send.

The venue's log is read from its first line to its last, in the order in which the venue acted. Whatever
is wrong is listed, so that a benchmark can count it and a test can fail with it.
"""

from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path

import msgspec
from msgspec import Struct

from host.api import AmendOrder, OrderFilled, PlaceOrder
from tests.faults.intents import Intent, IntentBook, Slot
from venue.ledger import AccountOpened, LedgerLine, OrderEnded, RequestSeen, Traded

__all__ = ["Switch", "Verdict", "judge", "read_lines"]

_LEDGER_LINE: msgspec.json.Decoder[LedgerLine] = msgspec.json.Decoder(LedgerLine)


class Switch(Struct, frozen=True):
    """A change of leadership as the venue saw it, from the last order or amend before to the first after."""

    old_epoch: int
    new_epoch: int
    old_leader: str
    new_leader: str
    last_ns: int
    first_ns: int

    @property
    def gap_ms(self) -> float:
        """For how long nobody sent anything that the venue accepted."""
        return (self.first_ns - self.last_ns) / 1e6

    def __str__(self) -> str:
        return f"{self.old_leader} ({self.old_epoch}) → {self.new_leader} ({self.new_epoch}): {self.gap_ms:.0f} ms"


class Verdict(Struct):
    """What was wrong, each in a sentence, and how the leadership moved."""

    lost: list[str] = []
    """Accepted by the venue, and in no journal: nobody could have found it again."""
    doubled: list[str] = []
    """Accepted or sent a second time, or placed beside an order of the same quote that still rested."""
    stale: list[str] = []
    """Accepted from a deposed leader, after the first order of its successor."""
    faults: list[str] = []
    """Journals that contradict each other."""
    switches: list[Switch] = []
    accepted: int = 0
    late: list[tuple[str, int]] = []
    """Requests that the venue refused for their age: whose order it was, and which epoch traded by then."""

    @property
    def wrongs(self) -> list[str]:
        """Everything that is wrong."""
        return [*self.lost, *self.doubled, *self.stale, *self.faults]


def judge(log: Path, account: str, journals: Iterable[Path]) -> Verdict:
    """Judge what is in a venue's log by now. Read the log first: journals are ahead of what was sent."""
    lines = read_lines(log.read_bytes())
    return _Court(IntentBook(one for one in journals if one.is_dir()), account).hear(lines)


def read_lines(data: bytes) -> list[LedgerLine]:
    """Return the whole lines in this part of a venue's log."""
    return [_LEDGER_LINE.decode(line) for line in data.split(b"\n")[:-1]]


class _Quote(Struct):
    slot: Slot
    qty: Decimal
    filled: Decimal = Decimal(0)


class _Court:
    def __init__(self, book: IntentBook, account: str) -> None:
        self._book = book
        self._account = account
        self._verdict = Verdict(faults=list(book.faults))
        self._used: set[tuple[int, int, str]] = set()
        self._accepted: set[str] = set()
        self._quotes: dict[str, _Quote] = {}
        """The live orders that quotes asked for, by client id."""
        self._live: dict[Slot, str] = {}
        self._epoch = 0
        self._last_ns = 0

    def hear(self, lines: Iterable[LedgerLine]) -> Verdict:
        for line in lines:
            if line.account != self._account or isinstance(line, AccountOpened):
                continue
            if isinstance(line, RequestSeen):
                self._hear_request(line)
            elif isinstance(line, OrderEnded):
                self._free(line.client_id)
            elif isinstance(line, Traded):
                self._hear_fill(line.fill)
        return self._verdict

    def _hear_request(self, line: RequestSeen) -> None:
        verdict, command = self._verdict, line.command
        if line.verdict != "accepted":
            if line.verdict == "expired_request":
                verdict.late.append((line.client_id, self._epoch))
            if line.verdict == "duplicate_id":
                verdict.doubled.append(f"order {line.client_id} was sent twice")
            return
        if isinstance(command, PlaceOrder):
            verdict.accepted += 1
            self._hear_place(line, command)
        elif isinstance(command, AmendOrder):
            verdict.accepted += 1
            self._hear_amend(line, command)

    def _hear_place(self, line: RequestSeen, command: PlaceOrder) -> None:
        client_id = command.client_id
        if client_id in self._accepted:
            self._verdict.doubled.append(f"order {client_id} was accepted twice")
        self._accepted.add(client_id)
        intent = self._book.places.get(client_id)
        if intent is None:
            self._verdict.lost.append(f"order {client_id} was accepted and is in no journal")
            return
        self._order(intent, line.ts_ns)
        if intent.slot is not None:
            beside = self._live.get(intent.slot)
            if beside is not None:
                self._verdict.doubled.append(f"order {client_id} was placed beside {beside}: {intent.slot}")
            self._live[intent.slot] = client_id
            self._quotes[client_id] = _Quote(intent.slot, command.qty)

    def _hear_amend(self, line: RequestSeen, command: AmendOrder) -> None:
        same = self._book.amends.get((command.client_id, command.price, command.qty), [])
        unused = [intent for intent in same if (intent.epoch, intent.lsn, intent.client_id) not in self._used]
        if not unused:
            kind = self._verdict.doubled if same else self._verdict.lost
            often = f"{len(same) + 1} times" if same else "and is in no journal"
            kind.append(f"amend of {command.client_id} to {command.qty}@{command.price} was accepted {often}")
            return
        # Two leaders may have wanted the same. An intent is written before it is sent, so what was
        # written after the venue's time is not it; of the others the latest.
        before = [intent for intent in unused if intent.ts_ns <= line.ts_ns]
        intent = before[-1] if before else unused[0]
        self._used.add((intent.epoch, intent.lsn, intent.client_id))
        self._order(intent, line.ts_ns)
        quote = self._quotes.get(command.client_id)
        if quote is not None:
            quote.qty = command.qty
            self._free_if_done(command.client_id, quote)

    def _order(self, intent: Intent, ts_ns: int) -> None:
        """Take in whose order the venue accepted; epochs may only grow."""
        verdict, leaders = self._verdict, self._book.leaders
        if intent.epoch < self._epoch:
            verdict.stale.append(
                f"the venue accepted entry {intent.lsn} of epoch {intent.epoch} ({intent.client_id}) when epoch "
                f"{self._epoch} had begun to trade"
            )
            return
        if intent.epoch > self._epoch:
            if self._epoch:
                old, new = leaders.get(self._epoch, "?"), leaders.get(intent.epoch, "?")
                verdict.switches.append(Switch(self._epoch, intent.epoch, old, new, self._last_ns, ts_ns))
            self._epoch = intent.epoch
        self._last_ns = ts_ns

    def _hear_fill(self, fill: OrderFilled) -> None:
        quote = self._quotes.get(fill.client_id)
        if quote is not None:
            quote.filled += fill.qty
            self._free_if_done(fill.client_id, quote)

    def _free_if_done(self, client_id: str, quote: _Quote) -> None:
        if quote.filled >= quote.qty:
            self._free(client_id)

    def _free(self, client_id: str) -> None:
        quote = self._quotes.pop(client_id, None)
        if quote is not None and self._live.get(quote.slot) == client_id:
            del self._live[quote.slot]
