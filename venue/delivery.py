"""How requests and reports travel: latency, order, and the faults a venue can be told to show.

Everything is drawn from one seeded generator, so that a run repeats exactly.
"""

import heapq
from collections.abc import Iterator
from random import Random

from msgspec import Struct

from host.api import Report

__all__ = ["NO_FAULTS", "Delivery", "Faults", "Latency"]


class Latency(Struct, frozen=True):
    """One-way delays: `base_ns` plus a uniform draw up to `jitter_ns`, for requests and for reports.

    Within one account order is kept on each way, as on a TCP connection: a quick message waits for
    a slow one before it.
    """

    base_ns: int = 0
    jitter_ns: int = 0


class Faults(Struct, frozen=True):
    """Probabilities per message, all 0 by default."""

    drop_report: float = 0.0
    """An order report is never delivered."""
    duplicate_report: float = 0.0
    """An order report is delivered twice."""
    reorder_report: float = 0.0
    """An order report is late by up to `reorder_ns` and may be overtaken."""
    unanswered: float = 0.0
    """A request is carried out, but its own answer is lost; later fills still come."""
    reject: float = 0.0
    """A burst begins: this order request and the next `reject_burst` − 1 are refused as unavailable."""
    reject_burst: int = 1
    reorder_ns: int = 5_000_000


NO_FAULTS = Faults()


class Delivery:
    """The wires of one venue: when requests arrive, and reports on their way to the accounts."""

    def __init__(self, seed: int, latency: Latency, faults: Faults) -> None:
        self.faults = faults
        """May be replaced at any time, as may `latency`; counts for messages sent from then on."""
        self.latency = latency
        self._random = Random(seed)
        self._last_arrival: dict[str, int] = {}
        self._last_report: dict[str, int] = {}
        self._heap: list[tuple[int, int, str, Report]] = []
        self._sequence = 0
        self._rejects_left = 0

    def arrival_ns(self, account: str, sent_ns: int) -> int:
        """Return when a request sent at `sent_ns` arrives, after every one sent before it."""
        arrival = max(self._last_arrival.get(account, 0), sent_ns + self._delay())
        self._last_arrival[account] = arrival
        return arrival

    def is_refused(self) -> bool:
        """Draw whether the venue refuses this order request for no reason of its own."""
        if self._rejects_left:
            self._rejects_left -= 1
            return True
        if self._hits(self.faults.reject):
            self._rejects_left = self.faults.reject_burst - 1
            return True
        return False

    def post(self, account: str, report: Report, now_ns: int, *, is_answer: bool, is_query: bool) -> None:
        """Send one report on its way. `is_answer`: it answers a request, rather than a later event."""
        faults = self.faults
        if is_answer and self._hits(faults.unanswered):
            return
        if is_query:
            self._queue(account, report, self._in_order(account, now_ns))
            return
        if self._hits(faults.drop_report):
            return
        due_ns = self._in_order(account, now_ns)
        if self._hits(faults.reorder_report):
            due_ns += self._random.randrange(1, faults.reorder_ns + 1)
        self._queue(account, report, due_ns)
        if self._hits(faults.duplicate_report):
            self._queue(account, report, due_ns + self._random.randrange(faults.reorder_ns + 1))

    def next_time_ns(self) -> int | None:
        """Return when the next report arrives at its account."""
        return self._heap[0][0] if self._heap else None

    def due(self, now_ns: int) -> Iterator[tuple[str, Report]]:
        """Take out the reports that arrive at or before `now_ns`, in order."""
        while self._heap and self._heap[0][0] <= now_ns:
            _, _, account, report = heapq.heappop(self._heap)
            yield account, report

    def lose(self, account: str) -> None:
        """Lose every report that is still on its way to `account`: its connection broke."""
        self._heap = [entry for entry in self._heap if entry[2] != account]
        heapq.heapify(self._heap)

    def _queue(self, account: str, report: Report, due_ns: int) -> None:
        self._sequence += 1
        heapq.heappush(self._heap, (due_ns, self._sequence, account, report))

    def _in_order(self, account: str, now_ns: int) -> int:
        due_ns = max(self._last_report.get(account, 0), now_ns + self._delay())
        self._last_report[account] = due_ns
        return due_ns

    def _delay(self) -> int:
        latency = self.latency
        if not latency.jitter_ns:
            return latency.base_ns
        return latency.base_ns + self._random.randrange(latency.jitter_ns + 1)

    def _hits(self, probability: float) -> bool:
        # No draw at zero: switching one fault on leaves the draws of the others as they were.
        return probability > 0.0 and self._random.random() < probability
