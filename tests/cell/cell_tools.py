"""A whole cell in one event loop: real nodes, a real venue server, a real lease, and connections between them."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import CoroutineType
from typing import Any

from failover.guardian import release
from failover.lease import Record, open_store
from host.config import RunOptions, load_config
from host.member import Member
from host.pair.relay import Relay
from host.runtime.report import RunReport
from tests.servers import free_ports
from venue.server import serve

__all__ = ["BUSY", "CELL", "INSTANCE", "TTL_MS", "Cell", "Node"]

CELL = "main"
TTL_MS = 5_000
"""Every node of a test runs on one loop, and a busy machine holds that up: no lease should run out by that alone."""
PATIENCE_S = 60.0
LOOK_S = 0.005

NODE = """
[node]
name = "{name}"
data_dir = "{data}"
journal_segment_kb = {segment_kb}
order_window_ms = 1000
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
[[account]]
name = "acc"
exchange = "{exchange}"
params = {{ url = "{venue}"{params} }}
"""
INSTANCE = """
[[instance]]
name = "mm-btc"
plugin = "two_sided"
account = "acc"
symbols = ["BTC-USDT"]
params = { half_spread_bps = 20.0, size = "0.01", skew_bps = 0.0 }
"""
BUSY = """
[[instance]]
name = "mm-btc"
plugin = "two_sided"
account = "acc"
symbols = ["BTC-USDT"]
quote_tolerance_bps = 0.0
params = { half_spread_bps = 0.01, size = "0.01", skew_bps = 0.0 }
"""
"""Every tick moves an order: the journal grows quickly."""


class Node:
    """One node of a cell: the `Member` of its present life, and how that ended."""

    def __init__(self, name: str, config: Path) -> None:
        self.name = name
        self.config = config
        self.member: Member
        self.running: asyncio.Task[RunReport] | None = None

    def start(self) -> None:
        """Begin a life of the node."""
        config = load_config(self.config, None, os.environ).config
        assert config.failover is not None
        self.member = Member(config, config.failover, RunOptions(), None)
        self.running = asyncio.create_task(self.member.run(), name=f"node {self.name}")

    @property
    def is_running(self) -> bool:
        """Return whether it has not ended."""
        return self.running is not None and not self.running.done()

    async def ended(self) -> RunReport:
        """Wait for its end, and raise what it ended with."""
        assert self.running is not None
        async with asyncio.timeout(PATIENCE_S):
            return await self.running

    async def stop(self) -> RunReport:
        """Have it stop in order."""
        self.member.ask_to_stop("the test says so")
        return await self.ended()

    async def lose(self) -> None:
        """End it without a word, as a machine that is lost: its lease runs out."""
        if self.running is not None:
            self.running.cancel()
            await asyncio.wait([self.running])

    async def die(self, lease: str) -> None:
        """End it without a word, as a process that was killed: its guardian gives up its lease."""
        session = self.member.membership.session
        await self.lose()
        store = open_store(lease)
        try:
            await release(store, CELL, session, PATIENCE_S, PATIENCE_S)
        finally:
            await store.close()

    def rewrite(self, old: str, new: str) -> None:
        """Change a part of its configuration, which must be there once; counts from its next life on."""
        text = self.config.read_text()
        assert text.count(old) == 1, f"{old!r} should be there once:\n{text}"
        self.config.write_text(text.replace(old, new))


class Cell:
    """Nodes by name, on one venue and one lease; what a test waits for has a deadline."""

    def __init__(self, folder: Path, sockets: Path, names: str, options: dict[str, Any]) -> None:
        self.folder = folder
        self.lease = f"sqlite:///{folder}/lease.db"
        self._ports: dict[str, int]
        self._relays: list[Relay] = []
        self.nodes: dict[str, Node] = {}
        self.venue_url = f"unix:{sockets}/venue"
        self.venue: asyncio.Task[None] | None = None
        ports = self._ports = dict(zip(names, free_ports(len(names)), strict=True))
        instances = options.pop("instances", INSTANCE)
        known = {"node": "", "failover": "", "segment_kb": 64, "ttl_ms": TTL_MS, "lease": self.lease}
        known |= {"exchange": "paper_remote", "params": ""}
        for name in names:
            config = folder / f"{name}.toml"
            text = NODE.format(
                **{
                    **known,
                    **options,
                    "node": options.get("node", "").replace("@", name),
                    "name": name,
                    "data": folder / name,
                    "cell": CELL,
                    "replicate": f"127.0.0.1:{ports[name]}",
                    "peers": "\n".join(f'{n} = "127.0.0.1:{p}"' for n, p in ports.items() if n != name),
                    "venue": self.venue_url,
                }
            )
            config.write_text(f"{text}{instances}")
            self.nodes[name] = Node(name, config)

    @classmethod
    @asynccontextmanager
    async def open(cls, folder: Path, names: str = "ab", **options: Any) -> AsyncIterator["Cell"]:
        """Give a cell whose venue is there and whose nodes are not started; `options` are parts of `NODE`."""
        # A Unix socket's path has to be short, and pytest's folders are not.
        sockets = Path(tempfile.mkdtemp(prefix="tandem-cell-"))
        cell = cls(folder, sockets, names, options)
        try:
            await cell.open_venue()
            await cell.begin(next(iter(cell.nodes)))
            yield cell
        except BaseException as error:
            error.add_note(cell.in_words())
            raise
        finally:
            for node in cell.nodes.values():
                await node.lose()
            await cell.close_venue()
            for relay in cell._relays:
                await relay.close()
            shutil.rmtree(sockets)

    def __getitem__(self, name: str) -> Node:
        return self.nodes[name]

    async def open_venue(self) -> None:
        """Have the venue answer; its accounts come back from its log."""
        started = asyncio.Event()
        log = self.folder / "venue.jsonl"
        self.venue = asyncio.create_task(serve(self.venue_url, log=log, started=started), name="venue")
        await asyncio.wait_for(started.wait(), PATIENCE_S)

    async def close_venue(self) -> None:
        """Have the venue be gone."""
        if self.venue is not None:
            self.venue.cancel()
            await asyncio.wait([self.venue])
            self.venue = None

    async def begin(self, name: str) -> None:
        """Have a node be the one that led last, and ended well: the first leader ever would wait for a ttl."""
        store = open_store(self.lease)
        try:
            record = Record(CELL, 1, name, "earlier", TTL_MS, 1).released(2)
            assert await store.swap(None, record, PATIENCE_S)
        finally:
            await store.close()

    async def link(self, name: str, to: str) -> Relay:
        """Have a node that was not started reach its peer `to` over a link that can be cut."""
        port = self._ports[to]
        relay = Relay(lambda: asyncio.open_connection("127.0.0.1", port))
        await relay.start()
        self._relays.append(relay)
        self[name].rewrite(f'{to} = "127.0.0.1:{port}"', f'{to} = "127.0.0.1:{relay.port}"')
        return relay

    # -- the usual ways --------------------------------------------------------------------------

    async def start(self) -> None:
        """Start the first node and, once it trades, the others, and wait until they could take over."""
        first, *others = self.nodes.values()
        first.start()
        await self.until_trading(first.name)
        for other in others:
            other.start()
        await self.until_ready(first.name, *(other.name for other in others))

    async def until_trading(self, name: str) -> None:
        """Wait until a node leads, and has done all that a takeover does."""
        await self.until(lambda: self[name].member.is_trading, f"{name} to trade")

    async def until_ready(self, leader: str, *names: str) -> None:
        """Wait until these standbys could take over, by the leader's word."""

        def are_ready() -> bool:
            views = self[leader].member.membership.standbys()
            return set(names) <= {v.node for v in views if v.is_eligible and v.health.is_current}

        await self.until(are_ready, f"{', '.join(names)} to be ready")

    async def until(self, is_true: Callable[[], bool], what: str) -> None:
        """Wait until it is so; fail with how the nodes are."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not is_true():
                    await asyncio.sleep(LOOK_S)
        except TimeoutError:
            raise AssertionError(f"waited {PATIENCE_S:g} s in vain for {what}") from None

    def in_words(self) -> str:
        """Say how the nodes are, and where they wait: a failed test tells it."""
        return "\n".join(self._of(node) for node in self.nodes.values())

    def _of(self, node: Node) -> str:
        if node.running is None:
            return f"{node.name}: not started"
        if node.running.done():
            error = None if node.running.cancelled() else node.running.exception()
            return f"{node.name}: ended with {error!r}"
        membership = node.member.membership
        state = membership.elector.state.value if membership.has_started else "starting"
        at = " > ".join(_waits_in(node.running.get_coro()))
        follows = membership.followed.primary
        return f"{node.name}: {state}, follows {follows!r}, {membership.health}, {membership.standbys()}, in {at}"

    async def record(self) -> Record | None:
        """Return the lease."""
        store = open_store(self.lease)
        try:
            return await store.read(CELL, PATIENCE_S)
        finally:
            await store.close()


def _waits_in(coroutine: object) -> Iterator[str]:
    """Return the places in which a suspended coroutine and those that it waits for are, outermost first."""
    while isinstance(coroutine, CoroutineType):
        frame = coroutine.cr_frame
        if frame is not None:
            yield f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} {coroutine.__name__}"
        coroutine = coroutine.cr_await
