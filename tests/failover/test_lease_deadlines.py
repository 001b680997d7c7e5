"""A store that hangs, dies or comes back: calls end at their deadline and the next ones work again."""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from failover.lease import LeaseStore, LeaseUnansweredError, Record, open_store
from tests.etcd import lease_url, running_cluster
from tests.postgres import PostgresServer, running_server

LONG_S = 20.0
SHORT_S = 0.2
RECORD = Record("main", 1, "a", "s", 600, 1)


@pytest.fixture(scope="module")
def own_postgres() -> Iterator[PostgresServer]:
    """A server that these tests stop: not the one that others use at the same time."""
    with running_server() as server:
        yield server


@contextmanager
def frozen(pids: list[int]) -> Iterator[None]:
    """Stop processes of a server, as a machine that hangs would: connections stay, answers do not come."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def backend_pids(server: PostgresServer) -> list[int]:
    """Return the pids of a server and of the processes that serve its connections."""
    main = int((server.folder / "data" / "postmaster.pid").read_text().split()[0])
    children = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(main)], capture_output=True, text=True, check=True
    )
    return [main, *map(int, children.stdout.split())]


async def answers_again(store: LeaseStore) -> Record | None:
    """Read until the store answers."""
    give_up_s = time.monotonic() + 60
    while True:
        try:
            return await store.read("main", LONG_S)
        except LeaseUnansweredError:
            if time.monotonic() > give_up_s:
                raise
            await asyncio.sleep(0.02)


async def hangs(store: LeaseStore, pids: list[int]) -> None:
    """While the server hangs, each call ends by its deadline, many in a row too; afterwards all is well."""
    assert await store.swap(None, RECORD, LONG_S)
    renewed = RECORD.renewed(2)
    with frozen(pids):
        with pytest.raises(LeaseUnansweredError):
            await store.swap(RECORD, renewed, SHORT_S)
        for _ in range(8):
            with pytest.raises(LeaseUnansweredError):
                await asyncio.wait_for(store.read("main", SHORT_S), LONG_S)
    # The swap may have reached the server before it hung: nobody knows, so the record is read.
    assert await answers_again(store) in (RECORD, renewed)


def test_a_postgresql_server_that_hangs(own_postgres: PostgresServer) -> None:
    async def story() -> None:
        store = open_store(own_postgres.url())
        try:
            await store.read("main", LONG_S)
            await hangs(store, backend_pids(own_postgres))
        finally:
            await store.close()

    asyncio.run(story())


def test_an_etcd_server_that_hangs() -> None:
    async def story() -> None:
        with running_cluster(1) as [member]:
            assert member.process is not None
            store = open_store(lease_url([member]))
            try:
                await hangs(store, [member.process.pid])
            finally:
                await store.close()

    asyncio.run(story())


def test_a_postgresql_server_that_restarts(own_postgres: PostgresServer) -> None:
    async def story() -> None:
        store = open_store(own_postgres.url())
        try:
            assert await store.swap(None, RECORD, LONG_S)
            own_postgres.stop()
            try:
                with pytest.raises(LeaseUnansweredError):
                    await store.read("main", LONG_S)
            finally:
                own_postgres.start()
            assert await answers_again(store) == RECORD
        finally:
            await store.close()

    asyncio.run(story())


def test_postgresql_confirms_only_what_is_on_disk(own_postgres: PostgresServer) -> None:
    """The test server runs with synchronous_commit off; the lease's own connection must not."""

    async def story() -> None:
        store = open_store(own_postgres.url())
        try:
            assert await store.swap(None, RECORD, LONG_S)
            own_postgres.stop()  # at once, as a crash does
            own_postgres.start()
            assert await answers_again(store) == RECORD
        finally:
            await store.close()

    asyncio.run(story())


def test_a_sqlite_file_that_another_process_keeps_locked(tmp_path: Path) -> None:
    import sqlite3

    path = tmp_path / "lease.db"

    async def story() -> None:
        store = open_store(f"sqlite:///{path}")
        other = sqlite3.connect(path, isolation_level=None)
        try:
            assert await store.swap(None, RECORD, LONG_S)
            other.execute("BEGIN EXCLUSIVE")
            for _ in range(3):
                with pytest.raises(LeaseUnansweredError):
                    await store.swap(RECORD, RECORD.renewed(2), SHORT_S)
            other.execute("COMMIT")
            assert await answers_again(store) in (RECORD, RECORD.renewed(2))
        finally:
            other.close()
            await store.close()

    asyncio.run(story())


def test_the_leader_of_an_etcd_cluster_dies_and_another_endpoint_answers() -> None:
    async def story() -> None:
        with running_cluster(3, "--heartbeat-interval", "20", "--election-timeout", "200") as members:
            store = open_store(lease_url(members))
            try:
                assert await store.minimum_ttl_ms(LONG_S) == 1000
                held = RECORD
                assert await store.swap(None, held, LONG_S)
                for dying in (0, 1):
                    members[dying].stop()
                    assert await answers_again_swapping(store, held) == (
                        held := held.renewed(held.renewal + 1)
                    )
                    members[dying].start()
                    members[dying].wait()
            finally:
                await store.close()

    async def answers_again_swapping(store: LeaseStore, held: Record) -> Record | None:
        renewed = held.renewed(held.renewal + 1)
        while True:
            try:
                await store.swap(held, renewed, 1.0)
            except LeaseUnansweredError:
                await asyncio.sleep(0.02)
                continue
            return await answers_again(store)

    asyncio.run(story())


def test_an_etcd_cluster_with_default_timing_asks_for_a_long_ttl() -> None:
    async def story() -> None:
        with running_cluster(3) as members:
            store = open_store(lease_url(members))
            try:
                assert await store.minimum_ttl_ms(LONG_S) == 5000
            finally:
                await store.close()

    asyncio.run(story())
