"""What can go wrong with a lease, by what the caller should do about it."""

from host.api import TandemError

__all__ = [
    "LeaseConfigError",
    "LeaseDamagedError",
    "LeaseError",
    "LeaseTooSlowError",
    "LeaseUnansweredError",
]


class LeaseError(TandemError):
    """Root of the errors of leases."""


class LeaseConfigError(LeaseError):
    """The lease cannot work as configured; trying again will not help."""


class LeaseTooSlowError(LeaseConfigError):
    """The store was too slow for the ttl when it was measured; on a day with less to do it may not be."""


class LeaseUnansweredError(LeaseError):
    """The store did not answer in time or said that it cannot serve.

    After a swap this says nothing about its effect: it may have been applied, may be applied later, or
    never. Read the record again.
    """

    def __init__(self, store: str, what: str) -> None:
        super().__init__(f"lease store {store}: {what}")
        self.store = store


class LeaseDamagedError(LeaseError):
    """The record of a cell is not one that Tandem writes."""

    def __init__(self, cell: str, found: str) -> None:
        super().__init__(
            f"lease of cell {cell!r}: expected a record written by Tandem, but {found}; look at what else "
            "writes to this store, stop all nodes of the cell, and remove the record"
        )
        self.cell = cell
