"""The cell of a pair: its processes, the links between them, and what can be done to each.

node a ── store link ──┐          every ── is a relay in this process,
node b ── store link ──┴ lease    which can be cut and healed
node a ── venue link ──┐
node b ── venue link ──┴ venue
node a ── peer links ── node b
"""

import asyncio
import os
import secrets
import shutil
import signal
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

from sqlalchemy.engine import make_url

from failover.lease import LeaseStore, open_store
from host.api import TandemError
from host.pair.children import Child
from host.pair.faults import LinkKind
from host.pair.lease_front import LeaseFront
from host.pair.plan import PairPlan, write_config, write_folder
from host.pair.relay import LinkState, Relay, Streams

__all__ = ["ActRefused", "Cell", "Machine", "PairFailed"]

VENUE_DEADLINE_S: Final = 30.0
POSTGRESQL_PORT: Final = 5432
STOP_S: Final = 8.0
"""How long a node may take to stop in order: it pulls its quotes and waits for the venue's word."""
SOCKET_PATH_MOST: Final = 80
"""A Unix socket's path has 107 bytes; a folder that leaves less than the names need gets a shorter one."""


class PairFailed(TandemError):  # noqa: N818 - the fact, in the words users see
    """A part of the pair did not come up; the message has the end of what it said."""


class ActRefused(TandemError):  # noqa: N818 - an answer, not a malfunction
    """Something cannot be done to a node as it is now; the message says what can."""


class Machine:
    """What one node runs on: its processes, and its links."""

    def __init__(self, name: str, child: Child, control: str, journal: Path) -> None:
        self.name: Final = name
        self.child: Final = child
        self.control: Final = control
        """Where it takes control calls."""
        self.journal: Final = journal
        self.is_frozen = False
        self.links: dict[LinkKind, LinkState] = dict.fromkeys(LinkKind, LinkState.OPEN)

    @property
    def is_running(self) -> bool:
        """Return whether its guardian is there and not frozen."""
        return self.child.is_alive and not self.is_frozen

    @property
    def cuts(self) -> list[str]:
        """Return its links that are not open, in words."""
        return [f"{kind} {state.value}" for kind, state in self.links.items() if state is not LinkState.OPEN]

    def start(self) -> None:
        """Start guardian and node; raise `ActRefused` where they are there."""
        if self.child.is_alive:
            how = "thaw it (u)" if self.is_frozen else "kill it first (k, K)"
            raise ActRefused(f"{self.name} is there already; {how}")
        self.is_frozen = False
        self.child.start()

    def kill_node(self) -> None:
        """kill -9 of the node alone; raise `ActRefused` where there is none."""
        pid = self.child.inner_pid()
        if not pid:
            raise ActRefused(f"no process of {self.name} to kill; restart it (r)")
        os.kill(pid, signal.SIGKILL)

    def lose(self) -> None:
        """kill -9 of guardian and node at once; raise `ActRefused` where they are gone."""
        if not self.child.is_alive:
            raise ActRefused(f"{self.name} is gone already; restart it (r)")
        self.child.kill()
        self.is_frozen = False

    def freeze(self) -> None:
        """Stop guardian and node where they are; raise `ActRefused` where that cannot be."""
        if not self.is_running:
            raise ActRefused(
                f"{self.name} does not run; {'thaw it (u)' if self.is_frozen else 'restart it (r)'}"
            )
        self.child.signal_group(signal.SIGSTOP)
        self.is_frozen = True

    def thaw(self) -> None:
        """Let guardian and node go on as if no time had passed; raise `ActRefused` where they are not frozen."""
        if not self.is_frozen:
            raise ActRefused(f"{self.name} is not frozen")
        self.child.signal_group(signal.SIGCONT)
        self.is_frozen = False


class Cell:
    """Venue, lease store and nodes of a plan, from `start` to `close`. Used on one event loop."""

    def __init__(self, plan: PairPlan) -> None:
        self.plan: Final = plan
        self.venue_log: Final = plan.folder / "venue.jsonl"
        self.machines: Final[dict[str, Machine]] = {}
        self.store_name = ""
        """Where the lease is, in words."""
        self._relays: list[tuple[Relay, LinkKind, tuple[str, ...]]] = []
        """Each relay, what kind of link it is, and whose: it is as bad as the worst of theirs."""
        self._venue: Child | None = None
        self._front: LeaseFront | None = None
        self._store: LeaseStore | None = None
        self._sockets = plan.folder.absolute() / "sockets"

    # -- life ------------------------------------------------------------------------------------

    async def prepare(self) -> None:
        """Write the folder, start venue and lease store; raise `TandemError`. No node runs yet."""
        plan = self.plan
        write_folder(plan)
        if len(str(self._sockets)) < SOCKET_PATH_MOST:
            self._sockets.mkdir(mode=0o700)  # a node refuses a folder that lets other users in
        else:
            self._sockets = Path(tempfile.mkdtemp(prefix="tandem-pair-"))
        socket = self._sockets / "venue.sock"
        listen = f"unix:{socket}"
        self._venue = Child(
            "venue",
            ["venue", "--listen", listen, "--log", str(self.venue_log), "--seed", str(plan.seed)],
            plan.folder / "venue.out",
        )
        self._venue.start()
        cell, leases = await self._links_to_store()
        venue_ports = {
            name: await self._relay(LinkKind.VENUE, (name,), _to_unix(socket)) for name in plan.names
        }
        peers: dict[str, dict[str, str]] = {name: {} for name in plan.names}
        for name in plan.names:
            for peer in plan.names:
                if peer != name:
                    dial = _to_unix(self._sockets / f"{peer}.journal.sock")
                    port = await self._relay(LinkKind.PEERS, (name, peer), dial)
                    peers[name][peer] = f"127.0.0.1:{port}"
        for name in plan.names:
            config = write_config(
                plan,
                name,
                cell=cell,
                lease=leases[name],
                venue_port=venue_ports[name],
                sockets=self._sockets,
                peers=peers[name],
            )
            child = Child(name, ["run", "-c", str(config), "--no-ui"], plan.folder / f"{name}.out")
            control = f"unix:{self._sockets}/{name}.sock"
            self.machines[name] = Machine(name, child, control, plan.folder / name / "journal")
        await self._until_venue_listens(socket)

    async def stop(self, leader: str) -> list[str]:
        """Stop every node in order, `leader` last; return what did not end in order, in words.

        Last, because a leader leaves its orders to a standby that could take over, and cancels them where there
        is none. A frozen node cannot stop in order, and is killed. `close` comes after this.
        """
        for machine in self.machines.values():
            machine.links = dict.fromkeys(LinkKind, LinkState.OPEN)
            if machine.is_frozen:
                machine.child.kill()
        self._set_relays()
        return [
            f"{machine.name} did not stop within {STOP_S:g} s and was killed"
            for machine in sorted(self.machines.values(), key=lambda one: one.name == leader)
            if not await machine.child.stop(STOP_S)
        ]

    async def close(self) -> None:
        """Leave nothing running; the folder stays."""
        for machine in self.machines.values():
            machine.child.kill()
        if self._venue is not None:
            await self._venue.stop(2.0)
        for relay, _, _ in self._relays:
            await relay.close()
        if self._front is not None:
            await self._front.close()
        if self._store is not None:
            await self._store.close()
        # Not there where the folder was refused.
        shutil.rmtree(self._sockets, ignore_errors=True)

    @property
    def venue_is_well(self) -> bool:
        """Return whether the venue runs."""
        return self._venue is not None and self._venue.is_alive

    # -- links -----------------------------------------------------------------------------------

    def put(self, name: str, kinds: Sequence[LinkKind], state: LinkState) -> None:
        """Cut, refuse or heal links of a node."""
        for kind in kinds:
            self.machines[name].links[kind] = state
        self._set_relays()

    def _set_relays(self) -> None:
        order = list(LinkState)
        for relay, kind, owners in self._relays:
            state = max((self.machines[owner].links[kind] for owner in owners), key=order.index)
            if state is not relay.state:
                relay.put(state)

    async def _relay(
        self, kind: LinkKind, owners: tuple[str, ...], dial: Callable[[], Awaitable[Streams]]
    ) -> int:
        relay = Relay(dial)
        await relay.start()
        self._relays.append((relay, kind, owners))
        return relay.port

    async def _links_to_store(self) -> tuple[str, dict[str, str]]:
        """Return the cell's name, and where each node reaches the lease, over a relay of its own."""
        plan = self.plan
        lease = plan.lease or f"sqlite:///{plan.folder.absolute()}/lease.db"
        store = open_store(lease)
        self.store_name = store.name
        names = plan.names
        if lease.startswith("sqlite:"):
            self._store = store
            self._front = LeaseFront(store)
            await self._front.start()
            dial = _to_tcp("127.0.0.1", self._front.port)
            ports = {name: await self._relay(LinkKind.STORE, (name,), dial) for name in names}
            return "pair", {name: f"etcd://127.0.0.1:{port}" for name, port in ports.items()}
        await store.close()
        # A store of one's own may hold cells already, of an earlier pair too.
        cell = f"pair-{secrets.token_hex(3)}"
        if lease.startswith("etcd:"):
            return cell, {name: await self._etcd_link(name, lease, cell) for name in names}
        return cell, {name: await self._sql_link(name, lease, cell) for name in names}

    async def _etcd_link(self, name: str, lease: str, cell: str) -> str:
        ends = lease.removeprefix("etcd://").rstrip("/").partition("?")[0].split(",")
        ports = []
        for end in ends:
            host, _, port = end.rpartition(":")
            ports.append(await self._relay(LinkKind.STORE, (name,), _to_tcp(host.strip("[]"), int(port))))
        return f"etcd://{','.join(f'127.0.0.1:{port}' for port in ports)}?add_cell={cell}"

    async def _sql_link(self, name: str, lease: str, cell: str) -> str:
        url = make_url(lease)
        host, port = str(url.query.get("host", url.host or "127.0.0.1")), url.port or POSTGRESQL_PORT
        is_socket = host.startswith("/")
        dial = _to_unix(Path(host) / f".s.PGSQL.{port}") if is_socket else _to_tcp(host, port)
        url = url.difference_update_query(["host"])
        port = await self._relay(LinkKind.STORE, (name,), dial)
        text = url.set(host="127.0.0.1", port=port).render_as_string(hide_password=False)
        return f"{text}{'&' if '?' in text else '?'}add_cell={cell}"

    async def _until_venue_listens(self, socket: Path) -> None:
        venue = self._venue
        assert venue is not None
        try:
            async with asyncio.timeout(VENUE_DEADLINE_S):
                while not await _answers(socket):
                    if not venue.is_alive:
                        raise PairFailed(f"the venue ended with {venue.exit_code}; it said: {venue.said()}")
                    await asyncio.sleep(0.02)
        except TimeoutError as error:
            raise PairFailed(
                f"the venue does not answer after {VENUE_DEADLINE_S:g} s; it said: {venue.said()}"
            ) from error


async def _answers(socket: Path) -> bool:
    try:
        _, writer = await asyncio.open_unix_connection(str(socket))
    except OSError:
        return False
    writer.close()
    return True


def _to_unix(path: Path) -> Callable[[], Awaitable[Streams]]:
    return lambda: asyncio.open_unix_connection(str(path))


def _to_tcp(host: str, port: int) -> Callable[[], Awaitable[Streams]]:
    return lambda: asyncio.open_connection(host, port)
