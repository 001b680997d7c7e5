"""What every lease store must promise. The safety of the whole pair rests on this page."""

from abc import ABC, abstractmethod

from failover.lease.record import Record

__all__ = ["LeaseStore"]


class LeaseStore(ABC):
    """A register per cell that is read and swapped, for one event loop.

    What must hold, and what `tests/failover/test_lease_conformance.py` tries on every backend against
    its real server:

    - *Linearisable.* Each call that takes effect does so at one instant between its start and its end,
      in one order for all nodes. A read that starts after a swap has ended sees it. A replica that may
      lag must not be read.
    - *Durable.* What a swap has confirmed survives the death of the store's process. A store that
      forgets may hand the lease to two nodes.
    - *All or nothing.* A swap compares the whole record; where the comparison fails nothing changes.
    - *Timely.* No call outlives its deadline, whatever the network does. Then it raises
      `LeaseUnansweredError`, and so it does when the server says that it cannot serve.
    - *Honest.* `True` and `False` are facts. A swap whose effect is not known raises, and may take
      effect later still: an abandoned request can sit in a buffer for as long as it likes.

    Rules about who may write what are not the store's: see `failover/elector.py`.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """The store's address for messages, without secrets."""

    @abstractmethod
    async def read(self, cell: str, deadline_s: float) -> Record | None:
        """Return the record of `cell`, None if it has none.

        Raises `LeaseUnansweredError`, or `LeaseDamagedError` for bytes that are no record.
        """

    @abstractmethod
    async def swap(self, expected: Record | None, new: Record, deadline_s: float) -> bool:
        """Put `new` in the place of `expected` (None: nothing yet) and return whether that was done.

        Both are of one cell. False means that something else was there, and still is. Raises
        `LeaseUnansweredError`.
        """

    @abstractmethod
    async def remove(self, record: Record, deadline_s: float) -> bool:
        """Remove `record` if it is still there as it is; return whether it was. Raises `LeaseUnansweredError`.

        For probes and tests: a cell that has ever led keeps its record, or its epochs would start anew.
        """

    @abstractmethod
    async def cells(self, deadline_s: float) -> list[str]:
        """Return the cells that have a record here, in order. Raises `LeaseUnansweredError`."""

    @abstractmethod
    async def minimum_ttl_ms(self, deadline_s: float) -> int:
        """Return the least ttl that this store's own fault handling allows, 0 if it sets no limit.

        A store that stops for a second to elect a new leader must not carry a lease of half a second.
        Raises `LeaseUnansweredError`.
        """

    @abstractmethod
    async def close(self) -> None:
        """Give back connections and threads; may be called twice."""
