"""Two nodes' ends of a replication stream over loopback, with real journals."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from failover.replication import (
    Backoff,
    PeerTls,
    Replica,
    ReplicaDurability,
    ReplicationClient,
    ReplicationServer,
    StreamSettings,
    history_of,
)
from failover.replication.events import PrimaryEvent, StandbyEvent
from host.core import entries as e
from host.core.state import TradingState
from host.journal import Journal, journal_digest

T = TypeVar("T")
SEGMENT = 1 << 16
PATIENCE_S = 60.0
"""Far above what anything here needs; only a test that has failed waits for it."""
CALM = StreamSettings(heartbeat_ns=20_000_000, silence_ns=30_000_000_000, goodbye_ns=30_000_000_000)
"""Quick to speak, slow to give up: a loaded machine changes nothing."""
TS = 1_723_107_600_000_000_000


def alert(number: int, size: int = 0) -> e.Alert:
    return e.Alert("test", f"entry {number}".ljust(size, "."))


def run(test: Coroutine[Any, Any, T]) -> T:
    """Run a test; close what it leaves open, for a gRPC server that is not closed keeps the process alive."""

    async def guarded() -> T:
        try:
            return await asyncio.wait_for(test, PATIENCE_S)
        finally:
            while _leaders:
                await _leaders.pop().close()

    return asyncio.run(guarded())


async def until(is_true: Callable[[], object], what: str) -> None:
    """Let the loop run until it is so."""
    end = time.monotonic() + PATIENCE_S / 2
    while not is_true():
        assert time.monotonic() < end, f"waited in vain for {what}"
        await asyncio.sleep(0.001)


_leaders: "list[Leader]" = []


class Leader:
    """A node that leads: a journal that it writes, its state, and its end of the streams."""

    def __init__(self, folder: Path, node: str = "a", cell: str = "main", **options: Any) -> None:
        self.folder = folder / node
        self.journal = Journal.open(self.folder, node=node, cell=cell, segment_bytes=SEGMENT, **options)
        self.state = TradingState()
        self.events: list[PrimaryEvent] = []
        self.server = ReplicationServer(node, cell, self.events.append, CALM)
        self.address = ""
        _leaders.append(self)

    def begin(self, epoch: int) -> int:
        """Journal the start of an epoch; what a node does before it leads."""
        return self.write(e.NodeStarted(self.journal.node, self.journal.cell, epoch, "test"))

    def write(self, *entries: e.Entry) -> int:
        """Append and flush; return the last LSN."""
        for entry in entries:
            ts = TS + self.journal.last_lsn
            self.state.apply(self.journal.append(entry, ts), ts, entry)
        self.journal.flush()
        return self.journal.last_lsn

    def fill(self, count: int, size: int = 0) -> int:
        """Write `count` entries, each in a flush of its own; return the last LSN."""
        for _ in range(count):
            self.write(alert(self.journal.last_lsn + 1, size))
        return self.journal.last_lsn

    def snapshot(self) -> int:
        """Write a snapshot of the state now and prune what it makes needless."""
        lsn = self.journal.flushed_lsn
        self.journal.write_snapshot(lsn, self.state.encode())
        self.journal.prune(lsn + 1)
        return lsn

    async def serve(
        self, epoch: int = 0, tls: PeerTls | None = None, durability: ReplicaDurability | None = None
    ) -> str:
        """Listen, and lead in `epoch` where one is given; return the address."""
        if epoch:
            self.server.lead(self.journal, history_of(self.journal), epoch, durability)
        port = await self.server.start("127.0.0.1:0", tls)
        self.address = f"127.0.0.1:{port}"
        return self.address

    async def close(self) -> None:
        await self.server.close()
        self.journal.close()

    def of(self, kind: type[T]) -> list[T]:
        return [event for event in self.events if isinstance(event, kind)]


class Follower:
    """A standby: a replica and what its client says."""

    def __init__(
        self, folder: Path, *peers: str, node: str = "b", cell: str = "main", **options: Any
    ) -> None:
        self.folder = folder / node
        self.events: list[StandbyEvent] = []
        session = options.pop("session", f"session of {node}")
        tls = options.pop("tls", None)
        settings = options.pop("settings", CALM)
        self.replica = Replica.open(self.folder, node=node, cell=cell, segment_bytes=SEGMENT, **options)
        self.client = ReplicationClient(
            self.replica,
            peers,
            session,
            self.events.append,
            tls=tls,
            settings=settings,
            backoff=Backoff(0.01, 0.05),
        )

    def of(self, kind: type[T]) -> list[T]:
        return [event for event in self.events if isinstance(event, kind)]

    async def close(self) -> None:
        await self.client.stop()
        self.replica.close()

    async def holds(self, lsn: int) -> None:
        await until(lambda: self.replica.held_lsn >= lsn, f"entry {lsn}, held is {self.replica.held_lsn}")


@asynccontextmanager
async def leading(folder: Path, epoch: int = 1, **options: Any) -> AsyncIterator[Leader]:
    """Give a primary that leads in `epoch`."""
    leader = Leader(folder, **options)
    leader.begin(epoch)
    await leader.serve(epoch)
    try:
        yield leader
    finally:
        await leader.close()


@asynccontextmanager
async def following(folder: Path, *peers: str, **options: Any) -> AsyncIterator[Follower]:
    """Give a standby that dials `peers`."""
    follower = Follower(folder, *peers, **options)
    follower.client.start()
    try:
        yield follower
    finally:
        with contextlib.suppress(asyncio.CancelledError):
            await follower.close()


def same_entries(one: Path, other: Path, from_lsn: int = 1) -> bool:
    """Return whether two journals hold the same bytes, entry by entry."""
    return journal_digest(one, from_lsn) == journal_digest(other, from_lsn)
