"""A SQLite lease served over HTTP keeps what a lease store promises; `failover.lease.etcd` is its client."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from failover.lease import LeaseStore, LeaseUnansweredError, Record, Status, check_cell, check_ttl, open_store
from host.pair.lease_front import LeaseFront

DEADLINE_S = 20.0


def record(holder: str = "a", renewal: int = 1, epoch: int = 1) -> Record:
    return Record("pair", epoch, holder, f"session-{holder}", 600, renewal)


@asynccontextmanager
async def served(folder: Path) -> AsyncIterator[tuple[LeaseStore, LeaseStore, LeaseStore]]:
    """Two nodes' ways to a lease, and the file itself."""
    file = open_store(f"sqlite:///{folder}/lease.db")
    front = LeaseFront(file)
    await front.start()
    nodes = [open_store(f"etcd://127.0.0.1:{front.port}") for _ in range(2)]
    try:
        yield nodes[0], nodes[1], file
    finally:
        for store in (*nodes, file):
            await store.close()
        await front.close()


def test_what_one_node_swaps_in_the_other_reads_and_the_file_holds(tmp_path: Path) -> None:
    written = Record("pair", 2**40, "nöde", "f" * 16, 250, 2**50, Status.RELEASED, "b")

    async def story() -> None:
        async with served(tmp_path) as (a, b, file):
            assert await a.read("pair", DEADLINE_S) is None
            assert await a.swap(None, written, DEADLINE_S)
            assert await b.read("pair", DEADLINE_S) == written
            assert await file.read("pair", DEADLINE_S) == written

    asyncio.run(story())


def test_of_two_swaps_of_one_record_one_counts(tmp_path: Path) -> None:
    async def story() -> None:
        async with served(tmp_path) as (a, b, _):
            assert await a.swap(None, record(), DEADLINE_S)
            assert not await b.swap(None, record("b"), DEADLINE_S)
            both = await asyncio.gather(
                a.swap(record(), record(renewal=2), DEADLINE_S),
                b.swap(record(), record("b", epoch=2), DEADLINE_S),
            )
            assert sorted(both) == [False, True]

    asyncio.run(story())


def test_it_carries_a_probe_and_leaves_no_trace_of_it(tmp_path: Path) -> None:
    async def story() -> None:
        async with served(tmp_path) as (a, b, _):
            assert await a.swap(None, record(), DEADLINE_S)
            assert await check_ttl(b, 60_000, DEADLINE_S) > 0
            assert await b.cells(DEADLINE_S) == ["pair"]
            await check_cell(b, "etcd://here", "pair", DEADLINE_S)

    asyncio.run(story())


def test_a_file_that_cannot_be_read_is_told_as_unanswered(tmp_path: Path) -> None:
    async def story() -> None:
        async with served(tmp_path) as (a, _, file):
            await file.close()
            with pytest.raises(LeaseUnansweredError):
                await a.read("pair", DEADLINE_S)

    asyncio.run(story())
