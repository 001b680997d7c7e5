"""What `LeaseStore` promises, tried on every backend against its real server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from failover.lease import LeaseStore, LeaseUnansweredError, Record, Status, measure_round_trip_ms, open_store

DEADLINE_S = 20.0
"""Long: a loaded machine is no failure. Deadlines are tested in `test_lease_deadlines.py`."""


def record(cell: str, holder: str = "a", epoch: int = 1, renewal: int = 1) -> Record:
    return Record(cell, epoch, holder, f"session-of-{holder}", 600, renewal)


@asynccontextmanager
async def clients(url: str, count: int = 1) -> AsyncIterator[list[LeaseStore]]:
    """Connect to one store as `count` nodes do."""
    stores = [open_store(url) for _ in range(count)]
    try:
        yield stores
    finally:
        for store in stores:
            await store.close()


def test_a_cell_that_never_led_has_no_record(url: str, cell: str) -> None:
    async def story() -> None:
        async with clients(url) as [store]:
            assert await store.read(cell, DEADLINE_S) is None

    asyncio.run(story())


@pytest.mark.parametrize("status", list(Status))
def test_what_was_swapped_in_is_read_back_whole(url: str, cell: str, status: Status) -> None:
    written = Record(cell, 2**40, "nöde-a", "f" * 16, 250, 2**50, status, "node-b")

    async def story() -> None:
        async with clients(url, 2) as [writer, reader]:
            assert await writer.swap(None, written, DEADLINE_S)
            assert await reader.read(cell, DEADLINE_S) == written

    asyncio.run(story())


def test_a_swap_replaces_exactly_what_was_expected(url: str, cell: str) -> None:
    first, second = record(cell), record(cell).renewed(2)

    async def story() -> None:
        async with clients(url) as [store]:
            assert await store.swap(None, first, DEADLINE_S)
            assert await store.swap(first, second, DEADLINE_S)
            assert await store.read(cell, DEADLINE_S) == second

    asyncio.run(story())


@pytest.mark.parametrize(
    "stale",
    [
        {"epoch": 2},
        {"holder": "b"},
        {"session": "other"},
        {"ttl_ms": 700},
        {"renewal": 2},
        {"status": Status.RELEASED},
        {"heir": "b"},
    ],
    ids=lambda stale: next(iter(stale)),
)
def test_a_swap_that_expects_anything_else_changes_nothing(
    url: str, cell: str, stale: dict[str, object]
) -> None:
    held = record(cell)
    expected = Record(**{name: getattr(held, name) for name in held.__struct_fields__} | stale)

    async def story() -> None:
        async with clients(url) as [store]:
            assert await store.swap(None, held, DEADLINE_S)
            assert not await store.swap(expected, held.renewed(9), DEADLINE_S)
            assert await store.read(cell, DEADLINE_S) == held

    asyncio.run(story())


def test_a_first_record_is_made_once(url: str, cell: str) -> None:
    async def story() -> None:
        async with clients(url, 2) as [one, other]:
            assert await one.swap(None, record(cell, "a"), DEADLINE_S)
            assert not await other.swap(None, record(cell, "b"), DEADLINE_S)
            assert await other.read(cell, DEADLINE_S) == record(cell, "a")

    asyncio.run(story())


def test_a_record_that_was_never_made_cannot_be_expected(url: str, cell: str) -> None:
    async def story() -> None:
        async with clients(url) as [store]:
            assert not await store.swap(record(cell), record(cell).renewed(2), DEADLINE_S)
            assert await store.read(cell, DEADLINE_S) is None

    asyncio.run(story())


def test_cells_do_not_touch_each_other(url: str, cell: str) -> None:
    async def story() -> None:
        async with clients(url) as [store]:
            assert await store.swap(None, record(cell), DEADLINE_S)
            assert await store.swap(None, record(cell + "-2", "b", 7), DEADLINE_S)
            assert await store.read(cell, DEADLINE_S) == record(cell)
            assert {cell, cell + "-2"} <= set(await store.cells(DEADLINE_S))

    asyncio.run(story())


def test_only_the_record_that_is_there_is_removed(url: str, cell: str) -> None:
    async def story() -> None:
        async with clients(url) as [store]:
            assert await store.swap(None, record(cell), DEADLINE_S)
            assert not await store.remove(record(cell).renewed(2), DEADLINE_S)
            assert await store.remove(record(cell), DEADLINE_S)
            assert await store.read(cell, DEADLINE_S) is None

    asyncio.run(story())


def test_of_many_rivals_each_round_is_won_by_one(url: str, cell: str) -> None:
    """Every rival claims what it has read; the epochs of the winners are 1, 2, 3 ... without a gap.

    A busy store may leave a claim unanswered: such an epoch may have been won, by that one rival.
    """
    rivals, rounds = 4, 12
    won: list[int] = []
    unanswered: set[int] = set()

    async def rival(store: LeaseStore, name: str) -> None:
        epoch = 0
        while len(won) < rounds:
            try:
                seen = await store.read(cell, DEADLINE_S)
                epoch = 1 if seen is None else seen.epoch + 1
                if await store.swap(seen, record(cell, name, epoch), DEADLINE_S):
                    won.append(epoch)
            except LeaseUnansweredError:
                unanswered.add(epoch)

    async def story() -> None:
        async with clients(url, rivals) as stores, asyncio.TaskGroup() as group:
            for number, store in enumerate(stores):
                group.create_task(rival(store, f"n{number}"))

    asyncio.run(story())
    assert len(set(won)) == len(won), "an epoch was won twice"
    assert set(range(1, max(won) + 1)) - set(won) <= unanswered


def test_a_read_sees_every_swap_that_ended_before_it_began(url: str, cell: str) -> None:
    async def story() -> None:
        async with clients(url, 2) as [writer, reader]:
            held = record(cell)
            assert await writer.swap(None, held, DEADLINE_S)
            for number in range(2, 40):
                renewed = held.renewed(number)
                assert await writer.swap(held, renewed, DEADLINE_S)
                held = renewed
                assert await reader.read(cell, DEADLINE_S) == held

    asyncio.run(story())


def test_calls_of_one_client_may_overlap(url: str, cell: str) -> None:
    async def story() -> None:
        async with clients(url) as [store]:
            assert await store.swap(None, record(cell), DEADLINE_S)
            found = await asyncio.gather(*(store.read(cell, DEADLINE_S) for _ in range(8)))
            assert found == [record(cell)] * 8

    asyncio.run(story())


def test_a_cancelled_call_leaves_the_store_usable(url: str, cell: str) -> None:
    async def story() -> None:
        async with clients(url) as [store]:
            call = asyncio.create_task(store.swap(None, record(cell), DEADLINE_S))
            await asyncio.sleep(0)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            # Applied or not, nobody knows: that is what reading again is for.
            assert await store.read(cell, DEADLINE_S) in (None, record(cell))

    asyncio.run(story())


def test_a_closed_store_answers_nothing(url: str, cell: str) -> None:
    async def story() -> None:
        async with clients(url) as [store]:
            await store.read(cell, DEADLINE_S)
            await store.close()
            await store.close()
            with pytest.raises(LeaseUnansweredError, match="closed"):
                await store.read(cell, DEADLINE_S)

    asyncio.run(story())


def test_probing_the_round_trip_leaves_nothing_behind(url: str, cell: str) -> None:
    async def story() -> None:
        async with clients(url) as [store]:
            before = await store.cells(DEADLINE_S)
            assert await measure_round_trip_ms(store, DEADLINE_S) > 0
            assert await store.cells(DEADLINE_S) == before

    asyncio.run(story())
