"""The lease in stores of several machines, whose own servers die and come back: somebody trades on, alone."""

from pathlib import Path

import pytest

from tests.etcd import lease_url, running_cluster
from tests.faults.pair_tools import TTL_MS
from tests.faults.test_pair_faults import Conclude, took_over, trading
from tests.postgres import running_server

pytestmark = pytest.mark.timeout(300)
ETCD_TTL_MS = 1000
"""What a cluster with these timings carries."""


def test_each_member_of_an_etcd_cluster_dies_and_comes_back(tmp_path: Path, conclude: Conclude) -> None:
    with (
        running_cluster(3, "--heartbeat-interval", "20", "--election-timeout", "200") as members,
        trading(tmp_path, lease=lease_url(members), ttl_ms=ETCD_TTL_MS) as cell,
    ):
        for member in members:  # one of them leads the others
            assert member.process is not None
            member.process.kill()
            member.process.wait()
            cell.until_passed(ETCD_TTL_MS)
            cell.until_traded(10)
            member.start()
            member.wait()
        cell.until_ready()
        cell["a"].lose()
        cell.until_ready()
        cell.until_traded(20)
        conclude(cell)


def test_postgresql_crashes_and_starts_again(tmp_path: Path, conclude: Conclude) -> None:
    with running_server() as server:
        lease = server.url().replace("postgresql:", "postgresql+psycopg:")
        with trading(tmp_path, lease=lease) as cell:
            server.stop()
            try:
                cell.until_passed(2 * TTL_MS)
                cell.until_traded(20)
            finally:
                server.start()
            cell.until_renewed()
            cell.until_ready()
            epoch = cell.tail.epoch
            cell["a"].kill_node()
            cell.until_epoch_after(epoch)
            cell.until_ready()
            took_over(conclude(cell), "a", "b")
