"""Machines that do not reach each other, their store or their venue, each cut by itself and healed again.

Each node runs in a network namespace of its own, with TLS between them; etcd and the venue run outside.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.etcd import running_cluster
from tests.faults.network import Network, running_network
from tests.faults.pair_tools import TTL_MS, Cell
from tests.faults.relay import Relay, Streams, running_relay
from tests.faults.test_pair_faults import Conclude, took_over

pytestmark = pytest.mark.timeout(300)


class Site:
    """A cell on a network, and the store as its machines reach it."""

    def __init__(self, cell: Cell, network: Network, store: Relay) -> None:
        self.cell = cell
        self.network = network
        self.store = store


@contextmanager
def site(folder: Path, failover: str = "") -> Iterator[Site]:
    with ExitStack() as stack:
        network = stack.enter_context(running_network("a", "b"))
        [etcd] = stack.enter_context(running_cluster(1))

        async def dial() -> Streams:
            return await asyncio.open_connection("127.0.0.1", etcd.port)

        store = stack.enter_context(running_relay(dial, network.host))
        lease = f"etcd://{network.host}:{store.port}"
        cell = stack.enter_context(Cell(folder, lease=lease, network=network, failover=failover))
        cell.start()
        cell.until_traded(20)
        yield Site(cell, network, store)


def test_nodes_that_do_not_reach_each_other_do_not_both_lead(tmp_path: Path, conclude: Conclude) -> None:
    with site(tmp_path) as there:
        cell = there.cell
        there.network.cut("b", "a")
        cell.until_passed(3 * TTL_MS)
        cell.until_traded(20)
        there.network.heal("b")
        cell.until_ready()
        cell.until_traded(20)
        assert conclude(cell).switches == []


def test_a_leader_that_does_not_reach_the_store_makes_way(tmp_path: Path, conclude: Conclude) -> None:
    with site(tmp_path) as there:
        cell = there.cell
        epoch = cell.tail.epoch
        there.network.cut_off("a", there.store.port)
        cell.until_epoch_after(epoch)
        there.network.heal("a")
        cell.until_ready()
        cell.until_traded(20)
        took_over(conclude(cell), "a", "b")


def test_a_leader_that_reaches_nobody_stops_and_comes_back_as_a_standby(
    tmp_path: Path, conclude: Conclude
) -> None:
    with site(tmp_path) as there:
        cell = there.cell
        epoch = cell.tail.epoch
        there.network.cut_off("a", there.store.port)
        there.network.cut("a", "b")
        cell.until_epoch_after(epoch)
        there.network.heal("a")
        cell.until_ready()
        cell.until_traded(20)
        took_over(conclude(cell), "a", "b")


def test_a_leader_that_does_not_reach_the_venue_makes_way(tmp_path: Path, conclude: Conclude) -> None:
    with site(tmp_path, failover="sick_ms = 500") as there:
        cell = there.cell
        epoch = cell.tail.epoch
        there.network.cut_off("a", cell.venue_port)
        cell.until_epoch_after(epoch)
        there.network.heal("a")
        cell.until_ready()
        cell.until_traded(20)
        took_over(conclude(cell), "a", "b")


def test_a_store_that_is_gone_or_hangs_or_is_slow_stops_nobody(tmp_path: Path, conclude: Conclude) -> None:
    """While nobody reaches it every peer promises not to claim, so the leader goes on: failsafe."""
    with site(tmp_path) as there:
        cell, store = there.cell, there.store
        # Twice the delay is each round trip, and a call has a quarter of a ttl.
        faults: list[tuple[Callable[[], None], Callable[[], None]]] = [
            (store.close, store.open),
            (store.silence, store.resume),
            (partial(store.slow_down, TTL_MS / 1000 / 12), store.resume),
        ]
        for strike, heal in faults:
            strike()
            cell.until_passed(3 * TTL_MS)
            cell.until_traded(20)
            heal()
            cell.until_renewed()
        cell.until_traded(20)
        assert conclude(cell).switches == []


def test_without_store_and_peers_a_leader_stops_within_its_right(tmp_path: Path, conclude: Conclude) -> None:
    with site(tmp_path) as there:
        cell = there.cell
        there.network.cut("b", "a")
        there.store.close()
        cell.until_passed(TTL_MS)
        stopped = cell.tail.catch_up().accepted
        cell.until_passed(2 * TTL_MS)
        assert cell.tail.catch_up().accepted == stopped
        there.store.open()
        there.network.heal("b")
        cell.until_traded(20)
        cell.until_ready()
        conclude(cell)
