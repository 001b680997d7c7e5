"""A cell of real nodes to break: its machines, the venue they trade at, and the store that says who leads."""

import asyncio
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import grpc

from failover.lease import LeaseUnansweredError, Record, open_store
from host.control.authority import Authority
from tandem.v1 import node_pb2 as pb
from tests.faults.fault_tools import INSTANCES, Venue, wait_until
from tests.faults.machine import CALL_S, Machine
from tests.faults.network import Network
from tests.faults.pair_judge import Verdict, judge
from tests.faults.venue_tail import VenueTail
from tests.faults.wire import Wire
from tests.servers import free_ports

__all__ = ["ACCOUNT", "CELL", "TTL_MS", "Cell"]

CELL = "main"
ACCOUNT = "acc"
PAPER = Wire(ACCOUNT)
TTL_MS = 600
_STORE_CALL_S = 5.0
_LOOK_S = 0.02
"""Seldom enough that looking is no load for those who are looked at; times are the venue's anyway."""

# Segments that hold all of a test, so that every journal can be read from its first entry.
_NODE = """
[node]
name = "{name}"
data_dir = "{data}"
order_window_ms = 500
journal_segment_kb = {segment_kb}
{node}
[store]
url = ""
[failover]
cell = "{cell}"
lease = "{lease}"
ttl = "{ttl_ms}ms"
replicate = "{replicate}"
control_address = "127.0.0.1:1"
{failover}
[failover.peers]
{peers}
{tls}
[[account]]
name = "acc"
exchange = "paper_remote"
params = {{ url = "{venue}" }}
"""


class Cell:
    """Machines by name, the venue they trade at, and the store that says who leads.

    `settings` are more lines of `[node]` and `[failover]`. With `network` each machine is one of it, and
    the venue and the store have to listen on the network's host. `wire` is how the venue's log compares
    with what the nodes hear, and `venue_options` are more of the venue's command.
    """

    def __init__(
        self,
        folder: Path,
        names: Sequence[str] = ("a", "b"),
        *,
        lease: str = "",
        ttl_ms: int = TTL_MS,
        seed: int = 1,
        node: str = "",
        failover: str = "",
        segment_kb: int = 8192,
        network: Network | None = None,
        wire: Wire = PAPER,
        venue_options: Sequence[str | Path] = (),
    ) -> None:
        self.folder = folder
        self.wire = wire
        self.lease = lease or f"sqlite:///{folder}/lease.db"
        self.ttl_ms = ttl_ms
        host = "127.0.0.1" if network is None else network.host
        ports = free_ports(1 + len(names))
        self.venue_port = ports[0]
        self.venue = Venue(folder, seed, (host, self.venue_port), venue_options)
        self.tail = VenueTail(self.venue.log)
        self.network = network
        # A Unix socket's path has to be short, and pytest's folders are not.
        self._sockets = Path(tempfile.mkdtemp(prefix="tandem-cell-"))
        at = {
            name: f"{host if network is None else network.addresses[name]}:{port}"
            for name, port in zip(names, ports[1:], strict=True)
        }
        self.machines: dict[str, Machine] = {}
        for name in names:
            config = folder / f"{name}.toml"
            text = _NODE.format(
                name=name,
                data=folder / name,
                cell=CELL,
                lease=self.lease,
                ttl_ms=ttl_ms,
                replicate=at[name],
                peers="\n".join(f'{peer} = "{address}"' for peer, address in at.items() if peer != name),
                venue=self.venue.url,
                node=node,
                segment_kb=segment_kb,
                failover=failover,
                tls="" if network is None else self._tls(name, network.addresses[name]),
            )
            config.write_text(text + INSTANCES)
            inside = [] if network is None else network.inside(name)
            self.machines[name] = Machine(name, config, self._sockets / f"{name}.sock", at[name], inside)

    def __getitem__(self, name: str) -> Machine:
        return self.machines[name]

    def __enter__(self) -> Self:
        self.venue.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        for machine in self.machines.values():
            machine.end()
        self.venue.__exit__()
        shutil.rmtree(self._sockets)

    def _tls(self, name: str, address: str) -> str:
        """Make a node's certificate; only a loopback address goes without."""
        now, folder = datetime.now(UTC), self.folder / "ca"
        authority = Authority.open(folder) or Authority.create(folder, now)
        certificate, key = authority.issue_peer(name, [address], now, 1)
        return f'[failover.tls]\ncertificate = "{certificate}"\nkey = "{key}"\nca = "{folder}/ca.crt"'

    # -- doing -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the first machine, and the others when it leads."""
        first, *others = self.machines.values()
        first.start()
        self.until_epoch_after(0)
        for other in others:
            other.start()
        self.until_ready()

    def switch_over(self, leader: Machine) -> None:
        """Have the leader hand over to the first standby; returns when that is done.

        Asks again where the standby is not ready yet: the leader tells people so a little before it acts on it.
        """
        request = pb.SwitchoverRequest(to=self.standbys()[0].name)

        def is_ordered() -> bool:
            try:
                leader.call(lambda stub: stub.Switchover(request, timeout=CALL_S))
            except grpc.RpcError as error:
                assert isinstance(error, grpc.Call) and "is not ready" in str(error.details()), error
                return False
            return True

        self.until(is_ordered, "the switchover")

    # -- what is so ------------------------------------------------------------------------------

    def record(self) -> Record | None:
        """Return the lease; None where there is none yet, or the store does not answer."""
        return asyncio.run(self._read_record())

    def leader(self) -> Machine:
        """Return the machine that holds the lease; waits for one that does."""
        found = ""

        def is_held() -> bool:
            nonlocal found
            found = self._holder()
            return bool(found)

        self.until(is_held, "somebody to hold the lease")
        return self.machines[found]

    def _holder(self) -> str:
        record = self.record()
        return "" if record is None or record.is_free else record.holder

    def standbys(self) -> list[Machine]:
        """Return the others that run."""
        leader = self.leader()
        return [one for one in self.machines.values() if one is not leader and one.is_running]

    async def _read_record(self) -> Record | None:
        store = open_store(self.lease)
        try:
            return await store.read(CELL, _STORE_CALL_S)
        except LeaseUnansweredError:
            return None
        finally:
            await store.close()

    # -- waiting ---------------------------------------------------------------------------------

    def until(self, is_true: Callable[[], bool], what: str) -> None:
        """Wait until it is so; fail with what the machines said."""
        try:
            wait_until(is_true, what, _LOOK_S)
        except AssertionError as error:
            said = "\n".join(
                f"-- {one.name}: {one.failover() if one.is_running else 'not running'}\n{one.said()[-3000:]}"
                for one in self.machines.values()
            )
            raise AssertionError(f"{error}; the lease is {self.record()}\n{said}") from None

    def until_traded(self, more: int) -> None:
        """Wait until the venue has accepted so many more orders and amends."""
        target = self.tail.catch_up().accepted + more
        self.until(lambda: self.tail.catch_up().accepted >= target, f"{more} more orders")

    def until_epoch_after(self, epoch: int) -> int:
        """Wait until the venue has accepted an order of a later epoch, and return that epoch."""
        self.until(lambda: self.tail.catch_up().epoch > epoch, f"an order of an epoch after {epoch}")
        return self.tail.epoch

    def until_said(self, name: str, pattern: str) -> None:
        """Wait until a machine has logged something like this."""
        self.until(lambda: re.search(pattern, self[name].said()) is not None, f"{name} to say {pattern!r}")

    def until_ready(self) -> None:
        """Wait until every other machine that runs could take over, by the leader's word."""
        self.until(self._are_ready, "the standbys to be ready")

    def _are_ready(self) -> bool:
        holder = self._holder()
        seen = self.machines[holder].failover() if holder else None
        if seen is None:
            return False
        wanted = {one.name for one in self.machines.values() if one.is_running} - {holder}
        return wanted <= {standby.name for standby in seen.standbys if standby.eligible}

    def until_renewed(self) -> None:
        """Wait until the lease is renewed again: the store is well, and its holder has noticed."""
        before = self.record()
        self.until(lambda: self.record() not in (None, before), "the lease to be renewed")

    def until_passed(self, ms: int) -> None:
        """Let a fault last for so long."""
        end_s = time.monotonic() + ms / 1000
        self.until(lambda: time.monotonic() >= end_s, "time to pass")

    # -- judging ---------------------------------------------------------------------------------

    def judge(self, *machines: Machine) -> Verdict:
        """Judge all that has happened so far by the journals of these machines, or else of all."""
        journals = [one.journal for one in machines or self.machines.values()]
        return judge(self.venue.log, self.wire.account, journals)
