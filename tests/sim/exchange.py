"""The judge: a venue that accepts orders within their validity windows and knows nothing of leases."""


class ViolationError(AssertionError):
    """An invariant was broken."""


class SimVenue:
    """Accepts an order whose window has not ended, whoever sends it; notices what must not happen.

    A term is the count of leaderships in real time. It grows with the epoch unless the store lost its
    data, when an epoch may come again.
    """

    __slots__ = ("accepted", "latest_term", "refused", "snapshot_term")

    def __init__(self) -> None:
        self.accepted = 0
        self.refused = 0
        self.latest_term = 0
        self.snapshot_term = 0

    def is_in_time(self, now_ns: int, deadline_ns: int) -> bool:
        """Return whether an order may go on to the matching engine; its own queue comes after this check."""
        if now_ns > deadline_ns:
            self.refused += 1
            return False
        return True

    def accept(self, term: int) -> None:
        """Match an order. P4: no order of a term after the first of a later one."""
        self.accepted += 1
        if term < self.latest_term:
            raise ViolationError(
                f"P4: an order of term {term} was accepted after one of term {self.latest_term}"
            )
        if term < self.snapshot_term:
            raise ViolationError(
                f"P5: an order of term {term} was accepted after the leader of term {self.snapshot_term} had "
                "asked the venue for all there are"
            )
        self.latest_term = term

    def snapshot(self, term: int) -> None:
        """A new leader asks for all orders. P5: from here on no unknown one of an earlier term may come."""
        self.snapshot_term = max(self.snapshot_term, term)
