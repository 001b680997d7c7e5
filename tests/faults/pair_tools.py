"""A cell of real nodes to break: each from a configuration and a folder of its own, one venue, one lease store."""

import asyncio
import os
import re
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Self, TypeVar

import grpc

from failover.lease import LeaseUnansweredError, Record, open_store
from host.api import AmendOrder, PlaceOrder
from host.control.authority import Authority
from host.core.client_id import parse_client_id
from tandem.v1 import failover_pb2
from tandem.v1 import node_pb2 as pb
from tandem.v1 import node_pb2_grpc as pb_grpc
from tests.faults.fault_tools import INSTANCES, TandemProcess, Venue, wait_until
from tests.faults.intents import PREFIX
from tests.faults.network import Network
from tests.faults.pair_judge import Verdict, judge, read_lines
from tests.servers import free_ports
from venue.ledger import LedgerLine, RequestSeen

__all__ = ["ACCOUNT", "CELL", "TTL_MS", "Cell", "Machine", "VenueTail"]

CELL = "main"
ACCOUNT = "acc"
TTL_MS = 600
_STORE_CALL_S = 5.0
_CALL_S = 10.0
_LOOK_S = 0.02
"""Seldom enough that looking is no load for those who are looked at; times are the venue's anyway."""
T = TypeVar("T")

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


class Machine:
    """What one node of a cell runs on: its configuration, its data, and the processes of its life.

    The process that is started is the guardian, and the node is its child.
    """

    def __init__(self, name: str, config: Path, control: Path, replicate: str, inside: Sequence[str]) -> None:
        self.name = name
        self.replicate = replicate
        """Where its peers dial it for its journal."""
        self.config = config
        self.output = config.with_suffix(".out")
        self.data = config.with_suffix("")
        self.control = control
        self.environment: dict[str, str] = {"TANDEM__CONTROL__LISTEN": f'["unix:{control}"]'}
        self._inside = list(inside)
        self._process: TandemProcess | None = None

    @property
    def journal(self) -> Path:
        """Return the folder of its journal."""
        return self.data / "journal"

    @property
    def process(self) -> TandemProcess:
        """Return the guardian of its present or last life."""
        assert self._process is not None, f"{self.name} was never started"
        return self._process

    @property
    def is_running(self) -> bool:
        """Return whether its guardian runs."""
        return self._process is not None and self._process.is_alive

    def rewrite(self, old: str, new: str) -> None:
        """Change a part of its configuration, which must be there once."""
        text = self.config.read_text()
        assert text.count(old) == 1, f"{old!r} should be there once:\n{text}"
        self.config.write_text(text.replace(old, new))

    def move_data(self, folder: Path) -> None:
        """Keep its data elsewhere."""
        self.rewrite(f'data_dir = "{self.data}"', f'data_dir = "{folder}"')
        self.data = folder

    def start(self) -> None:
        """Start the guardian, and it the node."""
        arguments = ("run", "-c", self.config, "--no-ui")
        self._process = TandemProcess(
            self.output, *arguments, inside=self._inside, environment=self.environment
        )

    def node_pid(self) -> int:
        """Return the process that trades; 0 between two lives of it."""
        pid = self.process.pid
        try:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        except FileNotFoundError:
            return 0
        return int(children[0]) if children else 0

    def call(self, ask: Callable[[pb_grpc.NodeServiceStub], T]) -> T:
        """Ask its node something over its control API; raises `grpc.RpcError`."""
        # A channel for each call: one that lasts would wait longer and longer for a node that restarts.
        with grpc.insecure_channel(f"unix:{self.control}") as channel:
            return ask(pb_grpc.NodeServiceStub(channel))

    def failover(self) -> failover_pb2.Failover | None:
        """Return what its node says of its cell; None while it does not answer."""
        try:
            return self.call(lambda stub: stub.GetFailover(pb.GetFailoverRequest(), timeout=_CALL_S).failover)
        except grpc.RpcError:
            return None

    def kill_node(self) -> int:
        """Kill the node in the middle of whatever it does, and leave its guardian; return its pid."""
        wait_until(lambda: self.node_pid() != 0, f"the node of {self.name} to run")
        pid = self.node_pid()
        os.kill(pid, signal.SIGKILL)
        return pid

    def lose(self) -> None:
        """Kill the guardian and the node at once, as if the machine were gone."""
        self.process.signal_group(signal.SIGKILL)

    def freeze(self) -> None:
        """Stop everything on it, as a hypervisor that pauses a machine does; sockets stay open."""
        self.process.signal_group(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let everything on it go on, as if no time had passed."""
        self.process.signal_group(signal.SIGCONT)

    def stop(self) -> None:
        """Ask it to stop in order and hold it to that."""
        code = self.process.stop()
        assert code == 0, f"{self.name} ended with {code}; it said:\n{self.said()[-4000:]}"

    def end(self) -> None:
        """Leave nothing of it running, whatever became of it."""
        if self.is_running:
            self.process.signal_group(signal.SIGKILL)

    def said(self) -> str:
        """Return what its processes have said in all their lives."""
        return self.output.read_text() if self.output.exists() else ""


class VenueTail:
    """Reads a venue's log on as it grows: what it has accepted, by the epoch that placed it."""

    def __init__(self, log: Path) -> None:
        self.accepted = 0
        """Orders and amends."""
        self.placed: dict[int, int] = {}
        """New orders, by the epoch in their ids."""
        self._log = log
        self._lines = 0
        self._offset = 0

    @property
    def epoch(self) -> int:
        """Return the latest epoch that has placed an order."""
        return max(self.placed, default=0)

    def catch_up(self) -> "VenueTail":
        """Read on, to the last whole line."""
        if not self._log.exists():
            return self
        with self._log.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        for line in read_lines(whole):
            self._take(line)
        return self

    def _take(self, line: LedgerLine) -> None:
        if not isinstance(line, RequestSeen) or line.verdict != "accepted":
            return
        if isinstance(line.command, PlaceOrder):
            parsed = parse_client_id(line.client_id, PREFIX)
            epoch = 0 if parsed is None else parsed.epoch
            self.placed[epoch] = self.placed.get(epoch, 0) + 1
        self.accepted += isinstance(line.command, PlaceOrder | AmendOrder)


class Cell:
    """Machines by name, the venue they trade at, and the store that says who leads.

    `settings` are more lines of `[node]` and `[failover]`. With `network` each machine is one of it, and
    the venue and the store have to listen on the network's host.
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
    ) -> None:
        self.folder = folder
        self.lease = lease or f"sqlite:///{folder}/lease.db"
        self.ttl_ms = ttl_ms
        host = "127.0.0.1" if network is None else network.host
        ports = free_ports(1 + len(names))
        self.venue_port = ports[0]
        self.venue = Venue(folder, seed, (host, self.venue_port))
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
                leader.call(lambda stub: stub.Switchover(request, timeout=_CALL_S))
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
        """Return the machine that holds the lease."""
        record = self.record()
        assert record is not None and not record.is_free, f"nobody leads: {record}"
        return self.machines[record.holder]

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
            said = "\n".join(f"-- {one.name}:\n{one.said()[-3000:]}" for one in self.machines.values())
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
        record = self.record()
        if record is None or record.is_free:
            return False
        seen = self.machines[record.holder].failover()
        if seen is None:
            return False
        wanted = {one.name for one in self.machines.values() if one.is_running} - {record.holder}
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
        return judge(self.venue.log, ACCOUNT, journals)
