"""The judge of a pair: holds what the venue accepted to what the nodes' journals meant to send.

The venue's log is read on as it grows, in the order in which the venue acted. An order is

    lost      when the venue accepted it and no journal has it: nobody could find it again
    doubled   when it was accepted or sent a second time, or placed beside an order of the same quote
    stale     when the venue accepted it from a deposed leader, after the first order of its successor
"""

from collections import Counter, deque
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from host.api import AmendOrder, OrderFilled, PlaceOrder, Side
from host.pair.intents import Intent, IntentBook, Slot, epoch_of
from venue.ledger import AccountOpened, LedgerLine, OrderEnded, RequestSeen, Traded

__all__ = ["Judge", "Switch", "Verdict"]

_decode = msgspec.json.Decoder(LedgerLine).decode
_ZERO: Final = Decimal(0)
PATIENCE: Final = 20
"""So many looks are waited for a journal that cannot be read, before what it lacks counts as lost."""
PAUSES: Final = 10_000
"""So many of the latest times between two orders are kept: minutes of quoting."""


class Switch(Struct, frozen=True):
    """A change of leadership as the venue saw it; times by the venue's wall clock."""

    old_epoch: int
    new_epoch: int
    old_leader: str
    new_leader: str
    last_ns: int
    """The last order or amend that was accepted from the old leader."""
    first_ns: int
    """The first one from the new leader."""
    adopted: int
    """Orders of earlier epochs that rested when the new leader began."""

    reason: str = ""
    """Why the old leader handed over by itself; empty where it did not."""

    @property
    def gap_ms(self) -> float:
        """Return for how long nobody sent anything that the venue accepted."""
        return (self.first_ns - self.last_ns) / 1e6


class Verdict(Struct):
    """What was wrong so far, each in a sentence."""

    lost: list[str] = []
    doubled: list[str] = []
    stale: list[str] = []
    faults: list[str] = []
    """Journals that contradict each other."""

    @property
    def wrongs(self) -> list[str]:
        """Return everything that is wrong."""
        return [*self.lost, *self.doubled, *self.stale, *self.faults]


class _Resting(Struct):
    epoch: int
    qty: Decimal
    slot: Slot | None
    filled: Decimal = _ZERO


class Judge:
    """Judges as the venue's log and the journals grow; `catch_up` reads on."""

    def __init__(self, log: Path, account: str, journals: Sequence[Path]) -> None:
        self.verdict: Final = Verdict()
        self.switches: Final[list[Switch]] = []
        self.epoch = 0
        """The latest epoch of which the venue has accepted anything."""
        self.accepted = 0
        """Orders and amends."""
        self.fills = 0
        self.refused: Final[Counter[str]] = Counter()
        """Requests that the venue refused, by its reason; `expired_request` came too late."""
        self.resting: Final[dict[str, _Resting]] = {}
        """Live orders by client id."""
        self.positions: Final[dict[str, Decimal]] = {}
        """Bought minus sold, by symbol."""
        self.last_ns = 0
        """When the venue accepted the latest order or amend."""
        self._book: Final = IntentBook(journals)
        self._account: Final = account
        self._log: Final = log
        self._offset = 0
        self._unheard: list[LedgerLine] = []
        self._unread = 0
        """How often in a row a journal could not be read to its end."""
        self._accepted_ids: set[str] = set()
        self._live: dict[Slot, str] = {}
        self._pauses: deque[tuple[int, int]] = deque(maxlen=PAUSES)

    @property
    def resting_by_epoch(self) -> dict[int, int]:
        """Return how many live orders each epoch has placed."""
        return dict(sorted(Counter(order.epoch for order in self.resting.values()).items()))

    @property
    def leader(self) -> str:
        """Return the node that began the latest epoch; empty before the first."""
        return self._book.leaders.get(self.epoch, "")

    def longest_pause_ms(self, since_ns: int) -> float:
        """Return the longest time between two accepted orders or amends of which the later came after `since_ns`."""
        return max((pause_ns for end_ns, pause_ns in self._pauses if end_ns > since_ns), default=0) / 1e6

    def catch_up(self) -> None:
        """Read on, to the last whole line of the log."""
        # The log first: journals are ahead of what was sent.
        self._unheard += self._read_log()
        is_read = self._book.catch_up()
        self.verdict.faults = self._book.faults
        # A journal that is being cut or replaced can be read a moment later; one that is damaged cannot.
        self._unread = 0 if is_read else self._unread + 1
        if 0 < self._unread < PATIENCE:
            return
        lines, self._unheard = self._unheard, []
        for line in lines:
            if line.account != self._account or isinstance(line, AccountOpened):
                continue
            if isinstance(line, RequestSeen):
                self._hear_request(line)
            elif isinstance(line, OrderEnded):
                self._free(line.client_id)
            elif isinstance(line, Traded):
                self._hear_fill(line.fill)

    def finish(self) -> None:
        """Read to the end, now that nobody writes any more."""
        self.catch_up()
        while self._unheard:
            self.catch_up()

    def close(self) -> None:
        """Let go of the files."""
        self._book.close()

    def _read_log(self) -> list[LedgerLine]:
        if not self._log.exists():
            return []
        with self._log.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        return [_decode(line) for line in whole.split(b"\n")[:-1]]

    def _hear_request(self, line: RequestSeen) -> None:
        command = line.command
        if line.verdict != "accepted":
            self.refused[line.verdict] += 1
            if line.verdict == "duplicate_id":
                self.verdict.doubled.append(f"order {line.client_id} was sent twice")
        elif isinstance(command, PlaceOrder):
            self.accepted += 1
            self._hear_place(line, command)
        elif isinstance(command, AmendOrder):
            self.accepted += 1
            self._hear_amend(line, command)

    def _hear_place(self, line: RequestSeen, command: PlaceOrder) -> None:
        client_id, verdict = command.client_id, self.verdict
        if client_id in self._accepted_ids:
            verdict.doubled.append(f"order {client_id} was accepted twice")
        self._accepted_ids.add(client_id)
        intent = self._book.places.get(client_id)
        slot = None if intent is None else intent.slot
        if intent is None:
            verdict.lost.append(f"order {client_id} was accepted and is in no journal")
        else:
            self._order(intent, line.ts_ns)
        if slot is not None:
            beside = self._live.get(slot)
            if beside is not None:
                verdict.doubled.append(f"order {client_id} was placed beside {beside}: {slot}")
            self._live[slot] = client_id
        self.resting[client_id] = _Resting(epoch_of(client_id), command.qty, slot)

    def _hear_amend(self, line: RequestSeen, command: AmendOrder) -> None:
        key = (command.client_id, command.price, command.qty)
        same = self._book.amends.get(key)
        if same is None:
            text = f"amend of {command.client_id} to {command.qty}@{command.price} was accepted"
            self.verdict.lost.append(f"{text} and is in no journal")
        elif not same:
            text = f"amend of {command.client_id} to {command.qty}@{command.price} was accepted"
            self.verdict.doubled.append(f"{text} more often than it was meant")
        else:
            # Two leaders may have wanted the same. An intent is written before it is sent, so what was
            # written after the venue's time is not it; of the others the latest.
            before = [intent for intent in same if intent.ts_ns <= line.ts_ns]
            intent = max(before or same[:1], key=lambda one: (one.epoch, one.lsn))
            same.remove(intent)
            self._order(intent, line.ts_ns)
        order = self.resting.get(command.client_id)
        if order is not None:
            order.qty = command.qty
            self._free_if_done(command.client_id, order)

    def _order(self, intent: Intent, ts_ns: int) -> None:
        """Take in whose order the venue accepted; epochs may only grow."""
        if intent.epoch < self.epoch:
            self.verdict.stale.append(
                f"the venue accepted entry {intent.lsn} of epoch {intent.epoch} ({intent.client_id}) when epoch "
                f"{self.epoch} had begun to trade"
            )
            return
        if intent.epoch > self.epoch:
            if self.epoch:
                self.switches.append(self._switch(intent.epoch, ts_ns))
            self.epoch = intent.epoch
        if self.last_ns:
            self._pauses.append((ts_ns, ts_ns - self.last_ns))
        self.last_ns = ts_ns

    def _switch(self, epoch: int, first_ns: int) -> Switch:
        leaders = self._book.leaders
        return Switch(
            self.epoch,
            epoch,
            leaders.get(self.epoch, "?"),
            leaders.get(epoch, "?"),
            self.last_ns,
            first_ns,
            adopted=sum(order.epoch < epoch for order in self.resting.values()),
            reason=self._book.yielded.get(self.epoch, ""),
        )

    def _hear_fill(self, fill: OrderFilled) -> None:
        self.fills += 1
        signed = fill.qty if fill.side is Side.BUY else -fill.qty
        self.positions[fill.symbol] = self.positions.get(fill.symbol, _ZERO) + signed
        order = self.resting.get(fill.client_id)
        if order is not None:
            order.filled += fill.qty
            self._free_if_done(fill.client_id, order)

    def _free_if_done(self, client_id: str, order: _Resting) -> None:
        if order.filled >= order.qty:
            self._free(client_id)

    def _free(self, client_id: str) -> None:
        order = self.resting.pop(client_id, None)
        if order is not None and order.slot is not None and self._live.get(order.slot) == client_id:
            del self._live[order.slot]
