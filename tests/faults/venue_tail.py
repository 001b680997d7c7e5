"""A venue's log, read on as it grows: who trades, and how much."""

from pathlib import Path

from host.api import AmendOrder, PlaceOrder
from host.core.client_id import parse_client_id
from tests.faults.intents import PREFIX
from tests.faults.pair_judge import read_lines
from venue.ledger import LedgerLine, RequestSeen

__all__ = ["VenueTail"]


class VenueTail:
    """Reads a venue's log on as it grows: what it has accepted, by the epoch that placed it."""

    def __init__(self, log: Path) -> None:
        self.accepted = 0
        """Orders and amends."""
        self.placed: dict[int, int] = {}
        """New orders, by the epoch in their ids."""
        self._log = log
        self._lines = 0
        self._offset = 0

    @property
    def epoch(self) -> int:
        """Return the latest epoch that has placed an order."""
        return max(self.placed, default=0)

    def catch_up(self) -> "VenueTail":
        """Read on, to the last whole line."""
        if not self._log.exists():
            return self
        with self._log.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        for line in read_lines(whole):
            self._take(line)
        return self

    def _take(self, line: LedgerLine) -> None:
        if not isinstance(line, RequestSeen) or line.verdict != "accepted":
            return
        if isinstance(line.command, PlaceOrder):
            parsed = parse_client_id(line.client_id, PREFIX)
            epoch = 0 if parsed is None else parsed.epoch
            self.placed[epoch] = self.placed.get(epoch, 0) + 1
        self.accepted += isinstance(line.command, PlaceOrder | AmendOrder)
