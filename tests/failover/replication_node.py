"""One side of a replication stream as a process that can be killed; what it did is on standard output.

replication_node.py primary FOLDER ADDRESS EPOCH     says "serving", then "durable LSN" again and again
replication_node.py standby FOLDER ADDRESS           says "held LSN" again and again
"""

import asyncio
import os
import sys
import time
from pathlib import Path

from failover.replication import (
    Backoff,
    DurabilitySettings,
    Replica,
    ReplicaDurability,
    ReplicationClient,
    ReplicationServer,
    history_of,
)
from host.core import entries as e
from host.core.state import TradingState
from host.journal import Journal, read

SEGMENT = 1 << 16
DIGEST_EVERY = 50


def say(text: str) -> None:
    os.write(1, f"{text}\n".encode())


async def lead(folder: Path, address: str, epoch: int) -> None:
    """Write an entry every millisecond, with durability `replica`, until killed."""
    journal = Journal.open(folder, node="a", segment_bytes=SEGMENT, durability="replica")
    state = TradingState()
    for record in read(journal):
        state.apply(record.lsn, record.ts_ns, record.entry)

    def write(entry: e.Entry) -> None:
        now_ns = time.time_ns()
        state.apply(journal.append(entry, now_ns), now_ns, entry)
        journal.flush()

    write(e.NodeStarted("a", "main", epoch, "test"))
    server = ReplicationServer("a", "main", lambda event: say(f"event {event!r}"))
    patient = DurabilitySettings("process", patience_ns=600_000_000_000)
    durability = ReplicaDurability(patient, 0, time.monotonic_ns())
    journal.on_durable(lambda lsn: say(f"durable {lsn}"))
    server.lead(journal, history_of(journal), epoch, durability)
    await server.start(address)
    say("serving")
    while True:
        number = journal.last_lsn + 1
        if number % DIGEST_EVERY == 0:
            write(e.StateDigest(state.digest()))
        else:
            write(e.KillSwitchSet(f"instance {number % 7}", number % 2 == 0, f"entry {number}", "test"))
        await asyncio.sleep(0.001)


async def follow(folder: Path, address: str) -> None:
    """Follow until killed."""
    replica = Replica.open(folder, node="b", cell="main", segment_bytes=SEGMENT)
    say(f"held {replica.held_lsn}")
    client = ReplicationClient(
        replica,
        [address],
        f"process {os.getpid()}",
        lambda event: say(f"event {event!r}"),
        backoff=Backoff(0.01, 0.1),
    )
    client.start()
    held = 0
    while True:
        if replica.held_lsn != held:
            held = replica.held_lsn
            say(f"held {held}")
        if replica.difference is not None:
            say(f"differs {replica.difference}")
        await asyncio.sleep(0.001)


if __name__ == "__main__":
    what, where, at, *more = sys.argv[1:]
    asyncio.run(lead(Path(where), at, int(more[0])) if what == "primary" else follow(Path(where), at))
