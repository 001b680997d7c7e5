"""What must not become part of a cell is refused with a reason, and the leader's order flow goes on untouched."""

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest

from failover.replication import PeerTls
from failover.replication.greeting import PROTOCOL_VERSION, Greeting
from failover.replication.history import History
from failover.replication.wire import greeting_request
from host.control.authority import Authority
from host.core.entries import NodeStarted
from host.journal import Journal
from tandem.v1 import replication_pb2_grpc as pb_grpc
from tests.faults.conclusion import conclude
from tests.faults.pair_tools import CELL, Cell
from tests.faults.relay import Streams, running_relay
from tests.faults.tamper import Alter, damage_a_batch, drop_a_batch, running_tamperer
from tests.postgres import running_server

pytestmark = pytest.mark.timeout(300)


@contextmanager
def led(folder: Path, *names: str, lease: str = "") -> Iterator[Cell]:
    """Give a cell of which the first machine alone runs, leads and trades."""
    with Cell(folder, names or ("a", "b"), lease=lease) as cell:
        cell["a"].start()
        cell.until_traded(10)
        yield cell


def untouched(cell: Cell) -> None:
    """Hold the leader to have traded on all the time and to stop in agreement with its venue."""
    cell.until_traded(20)
    assert conclude(cell).switches == []


def assert_refuses_to_start(cell: Cell, text: str) -> None:
    """Start b, which must end for good and say why."""
    b = cell["b"]
    b.start()
    assert b.process.wait() == 2, b.said()
    assert re.search(text, " ".join(b.said().split())), b.said()


def test_configurations_that_are_not_of_this_cell(tmp_path: Path) -> None:
    with led(tmp_path) as cell:
        for old, new, text in (
            ('lease = "sqlite', 'lease = "redis', "failover.lease.*no kind of lease store"),
            ('ttl = "600ms"', 'ttl = "50ms"', "failover.ttl: expected at least 100 ms"),
            ('cell = "main"', 'cell = "other"', "expected the cell 'other', found main"),
        ):
            cell["b"].rewrite(old, new)
            assert_refuses_to_start(cell, text)
            cell["b"].rewrite(new, old)
        untouched(cell)


def test_a_ttl_that_the_store_cannot_carry(tmp_path: Path) -> None:
    with running_server() as server:
        lease = server.url().replace("postgresql:", "postgresql+psycopg:")

        async def dial() -> Streams:
            return await asyncio.open_unix_connection(f"{server.folder}/.s.PGSQL.5432")

        with running_relay(dial) as far, led(tmp_path, lease=lease) as cell:
            far.slow_down(0.05)
            by_relay = re.sub(r"@/(\w+)\?.*", rf"@127.0.0.1:{far.port}/\1", lease)
            cell["b"].rewrite(f'lease = "{lease}"', f'lease = "{by_relay}"')
            assert_refuses_to_start(cell, "failover.ttl: expected at least 16 round trips")
            untouched(cell)


def test_two_nodes_of_one_name(tmp_path: Path) -> None:
    with led(tmp_path, "a", "b", "c") as cell:
        cell["b"].start()
        cell.until_ready()
        cell["c"].rewrite('name = "c"', 'name = "b"')
        cell["c"].rewrite('\nb = "', '\nc = "')
        cell["c"].start()
        cell.until_said("a", "standby_refused.*NAME_TAKEN")
        cell["c"].end()
        untouched(cell)


def test_a_peer_of_another_protocol_version(tmp_path: Path) -> None:
    with led(tmp_path) as cell:
        greeting = Greeting(PROTOCOL_VERSION + 1, CELL, "b", "newer", History((), 0))
        with grpc.insecure_channel(cell["a"].replicate) as channel:
            stub = pb_grpc.ReplicationServiceStub(channel)
            with pytest.raises(grpc.RpcError) as refused:
                next(stub.Replicate(iter([greeting_request(greeting)])))
        call = refused.value
        assert isinstance(call, grpc.Call)
        assert call.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert "run versions of tandem that speak the same" in str(call.details())
        untouched(cell)


def test_a_peer_with_a_certificate_of_another_node(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    authority = Authority.create(tmp_path / "ca", now)
    with Cell(tmp_path) as cell:
        for name, named in (("a", "a"), ("b", "c")):
            certificate, key = authority.issue_peer(named, ["127.0.0.1"], now, 1)
            wrong = PeerTls(*(path.read_bytes() for path in (certificate, key, tmp_path / "ca" / "ca.crt")))
            tls = (
                f'[failover.tls]\ncertificate = "{certificate}"\nkey = "{key}"\nca = "{tmp_path}/ca/ca.crt"\n'
            )
            cell[name].rewrite("[[account]]", f"{tls}[[account]]")
        cell["a"].start()
        cell.until_traded(10)
        # Its own node does not take it, and if one did, no peer would take that node.
        assert_refuses_to_start(cell, "should be for urn:tandem:peer:b, and names the node 'c'")
        greeting = Greeting(PROTOCOL_VERSION, CELL, "b", "another", History((), 0))
        with grpc.secure_channel(cell["a"].replicate, wrong.for_channel()) as channel:
            with pytest.raises(grpc.RpcError):
                next(pb_grpc.ReplicationServiceStub(channel).Replicate(iter([greeting_request(greeting)])))
            cell.until_said("a", "standby_refused.*WRONG_CERTIFICATE")
        untouched(cell)


def test_a_journal_from_the_future(tmp_path: Path) -> None:
    with led(tmp_path) as cell:
        ahead = Journal.open(cell["b"].journal, node="b", cell=CELL, segment_bytes=1 << 16)
        ahead.append(NodeStarted("b", CELL, cell.tail.epoch + 1000, "test"), 1)
        ahead.flush()
        ahead.close()
        cell["b"].start()
        cell.until_said("a", "standby_refused.*FROM_THE_FUTURE")
        cell["b"].end()
        untouched(cell)


@pytest.mark.parametrize(
    ("alter", "text"),
    [
        (drop_a_batch, "should have come next"),
        (damage_a_batch, "came damaged: their checksum does not match"),
    ],
)
def test_a_stream_that_loses_or_damages_entries(tmp_path: Path, alter: Alter, text: str) -> None:
    with led(tmp_path) as cell, running_tamperer(cell["a"].replicate) as wire:
        cell["b"].rewrite(f'a = "{cell["a"].replicate}"', f'a = "127.0.0.1:{wire.port}"')
        cell["b"].start()
        cell.until_ready()
        wire.alter = alter
        cell.until(lambda: wire.altered == 1, "a batch to come by")
        cell.until_said("a", f"standby_lost.*{text}")
        cell.until_ready()
        untouched(cell)
        assert not cell["b"].journal.with_name("journal.aside").exists()  # it went on where it was
