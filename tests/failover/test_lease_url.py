"""Which lease URLs, cells and ttls are refused, and what the refusal says."""

import asyncio
from pathlib import Path

import pytest

from failover.lease import (
    LeaseConfigError,
    LeaseDamagedError,
    LeaseStore,
    Record,
    check_cell,
    check_ttl,
    open_store,
)
from failover.lease.opening import parse_lease_url
from failover.lease.record import decode_record, encode_record

LONG_S = 20.0


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("redis://localhost:6379", "unknown kind 'redis'"),
        ("mysql://localhost/lease", "unknown kind 'mysql'"),
        ("var/lease.db", "expected sqlite:///PATH"),
        ("", "expected sqlite:///PATH"),
        ("sqlite://", "a file that the nodes share"),
        ("sqlite:///:memory:", "a file that the nodes share"),
        ("etcd://", "expected etcd://HOST:PORT"),
        ("etcd://localhost", "expected etcd://HOST:PORT"),
        ("etcd://localhost:2379,", "see ''"),
        ("etcd://localhost:99999", "see 'localhost:99999'"),
        ("postgresql+nodriver://localhost/lease", "driver that is not installed"),
    ],
)
def test_a_url_that_cannot_work_is_refused_with_what_was_expected(url: str, says: str) -> None:
    with pytest.raises(LeaseConfigError) as refusal:
        open_store(url)
    assert says in str(refusal.value)


def test_a_password_is_not_shown() -> None:
    store = open_store("postgresql://tandem:secret@db/lease")
    assert "secret" not in store.name
    assert "tandem" in store.name


@pytest.mark.parametrize(
    ("url", "text", "cell"),
    [
        ("sqlite:///x.db", "sqlite:///x.db", ""),
        ("sqlite:///x.db?add_cell=main", "sqlite:///x.db", "main"),
        ("postgresql://h/n?add_cell=main&sslmode=require", "postgresql://h/n?sslmode=require", "main"),
        ("postgresql://h/n?sslmode=require&add_cell=main", "postgresql://h/n?sslmode=require", "main"),
        ("etcd://h:1,g:2?add_cell=x", "etcd://h:1,g:2", "x"),
    ],
)
def test_the_cell_to_add_is_split_off_a_url(url: str, text: str, cell: str) -> None:
    parsed = parse_lease_url(url)
    assert (parsed.text, parsed.add_cell) == (text, cell)


def with_store(path: Path) -> LeaseStore:
    return open_store(f"sqlite:///{path}/lease.db")


def test_a_store_of_another_cell_is_refused_unless_the_cell_is_added_on_purpose(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/lease.db"

    async def story() -> None:
        store = open_store(url)
        try:
            await check_cell(store, url, "main", LONG_S)  # empty: whoever is first
            assert await store.swap(None, Record("main", 1, "a", "s", 600, 1), LONG_S)
            await check_cell(store, url, "main", LONG_S)
            with pytest.raises(
                LeaseConfigError, match=r"expected the cell 'mian', found main.*\?add_cell=mian"
            ):
                await check_cell(store, url, "mian", LONG_S)
            await check_cell(store, url + "?add_cell=hedge", "hedge", LONG_S)
            with pytest.raises(LeaseConfigError):
                await check_cell(store, url + "?add_cell=hedge", "mian", LONG_S)
        finally:
            await store.close()

    asyncio.run(story())


@pytest.mark.parametrize("cell", ["", "Main", "a b", "~probe-1", "x" * 64])
def test_a_cell_with_another_spelling_is_refused(tmp_path: Path, cell: str) -> None:
    async def story() -> None:
        store = with_store(tmp_path)
        try:
            with pytest.raises(LeaseConfigError, match="cell: expected"):
                await check_cell(store, "sqlite:///lease.db", cell, LONG_S)
        finally:
            await store.close()

    asyncio.run(story())


class FarStore(LeaseStore):
    """A real store behind a long line: each swap takes `delay_s` longer."""

    def __init__(self, store: LeaseStore, delay_s: float, minimum_ms: int = 0) -> None:
        self.store, self.delay_s, self.minimum_ms = store, delay_s, minimum_ms

    @property
    def name(self) -> str:
        return self.store.name

    async def read(self, cell: str, deadline_s: float) -> Record | None:
        return await self.store.read(cell, deadline_s)

    async def swap(self, expected: Record | None, new: Record, deadline_s: float) -> bool:
        await asyncio.sleep(self.delay_s)
        return await self.store.swap(expected, new, deadline_s)

    async def remove(self, record: Record, deadline_s: float) -> bool:
        return await self.store.remove(record, deadline_s)

    async def cells(self, deadline_s: float) -> list[str]:
        return await self.store.cells(deadline_s)

    async def minimum_ttl_ms(self, deadline_s: float) -> int:
        return self.minimum_ms

    async def close(self) -> None:
        await self.store.close()


@pytest.mark.parametrize(
    ("ttl_ms", "delay_s", "minimum_ms", "says"),
    [
        (99, 0.0, 0, "expected at least 100 ms, was 99 ms"),
        (150, 0.05, 0, "expected at least 16 round trips"),
        (600, 0.0, 1000, "expected at least 1000 ms"),
    ],
)
def test_a_ttl_that_the_store_cannot_carry_is_refused(
    tmp_path: Path, ttl_ms: int, delay_s: float, minimum_ms: int, says: str
) -> None:
    async def story() -> None:
        store = FarStore(with_store(tmp_path), delay_s, minimum_ms)
        try:
            with pytest.raises(LeaseConfigError, match=says):
                await check_ttl(store, ttl_ms, LONG_S)
            assert await store.cells(LONG_S) == []
        finally:
            await store.close()

    asyncio.run(story())


def test_a_ttl_with_room_to_spare_is_taken_and_the_round_trip_told(url: str) -> None:
    async def story() -> None:
        store = open_store(url)
        try:
            assert 0 < await check_ttl(store, 60_000, LONG_S) < 60_000
        finally:
            await store.close()

    asyncio.run(story())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"{}",
        b'{"cell":"main"}',
        encode_record(Record("hedge", 1, "a", "s", 600, 1)),
        encode_record(Record("main", 0, "a", "s", 600, 1)),
        encode_record(Record("main", 1, "", "s", 600, 1)),
        encode_record(Record("main", 1, "a", "s", 600, 1))[:-1] + b',"from":"the future"}',
    ],
)
def test_a_record_that_tandem_did_not_write_is_refused(data: bytes) -> None:
    with pytest.raises(LeaseDamagedError, match="lease of cell 'main'"):
        decode_record(data, "main")


def test_a_record_survives_its_own_encoding() -> None:
    record = Record("main", 7, "a", "s", 600, 3).released(4, heir="b")
    assert decode_record(encode_record(record), "main") == record
