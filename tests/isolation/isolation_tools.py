"""A desk whose strategies run in real workers, and strategies that misbehave in every way."""

import asyncio
import os
import time
import zlib
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec
from desk_tools import ACCOUNT, BTC, Desk

from host.api import OrderSnapshot
from host.core import entries as e
from host.core.entries import InstanceState, VersionState
from host.core.risk_limits import RiskConfig
from host.isolation.proxy import Proxy, proxy_class
from host.isolation.settings import WorkerSettings
from host.isolation.supervised import Worker
from host.isolation.workers import Workers
from host.journal import Follower
from host.loader import Offer, capture, decode_params, import_version
from host.loader.offers import collect_offers, new_manager
from host.runtime.instance import Instance
from host.runtime.roster import InstanceSpec

E = TypeVar("E")

PATIENCE_S = 40.0
"""Far more than anything takes here: a test that waits so long has failed."""

QUOTER = '''
from decimal import Decimal

from host.api import BookTop, Fill, Order, Params, Quote, Side, State, Strategy


class QuoterParams(Params, frozen=True):
    away: float = 0.02
    size: Decimal = Decimal(1)


class Counted(State):
    fills: int = 0
    traded: Decimal = Decimal(0)
    trades: list[str] = []
    starts: int = 0


class Quoter(Strategy[QuoterParams]):
    """Quotes around every book, and keeps a record of each fill."""

    state: Counted

    def on_start(self) -> None:
        self.state.starts += 1

    def on_book(self, book: BookTop) -> None:
        p = self.params
        self.quote(book.symbol, Quote(book.bid - p.away, p.size, book.ask + p.away, p.size))

    def on_fill(self, fill: Fill) -> None:
        self.state.fills += 1
        self.state.trades.append(fill.trade_id)
        self.state.traded += fill.qty if fill.side is Side.BUY else -fill.qty
'''


CHAINED = "import zlib\n" + QUOTER.replace("    trades: list[str] = []", "    chain: int = 0").replace(
    "self.state.trades.append(fill.trade_id)",
    "self.state.chain = zlib.crc32(fill.trade_id.encode(), self.state.chain)",
)
"""The same with a state that does not grow: the checksum of all trades in their order."""


def chain_of(trades: Iterable[str]) -> int:
    """Return what `CHAINED` comes to when it hears of each of these trades once and in this order."""
    chain = 0
    for trade in trades:
        chain = zlib.crc32(trade.encode(), chain)
    return chain


async def until(is_so: Callable[[], Any], what: str = "") -> None:
    """Let the loop run until something is so; fail, saying what it was, where it never is."""
    ends_s = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < ends_s, f"never came: {what or is_so}"
        await asyncio.sleep(0.002)


def is_alive(pid: int) -> bool:
    """Return whether a process is there and no zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] != "Z"


class WorkerDesk:
    """A desk and the workers of its instances."""

    def __init__(self, folder: Path, risk: RiskConfig | None = None) -> None:
        self.folder = folder
        self.desk = Desk(folder / "journal", risk=risk)
        self.workers = Workers(self.desk.engine, folder / "workers")
        self.of: dict[str, Worker] = {}
        self.at_end = ExitStack()

    def add(self, name: str, source: str = QUOTER, **settings: Any) -> Instance:
        """Create an instance whose strategy runs in a worker, and start it."""
        offer = self.offer(name, source)
        params = decode_params(offer, {}, instance=name)
        proxy: Proxy = proxy_class(offer.cls)(params, self.workers.item)
        self.of[name] = Worker(self.desk.engine, self.workers, name, proxy, offer, WorkerSettings(**settings))
        spec = InstanceSpec(
            name=name,
            account=ACCOUNT,
            symbols=(BTC,),
            plugin=offer.name,
            digest=offer.version.digest,
            params_json=msgspec.json.encode(params),
            tolerance_bps=0.0,
        )
        instance = self.desk.engine.roster.add(spec, proxy, (), self.desk.feed.spawn)
        self.desk.engine.roster.start(instance)
        return instance

    def offer(self, name: str, source: str) -> Offer:
        path = self.folder / f"{name.replace('-', '_')}.py"
        path.write_text(source)
        version = capture(path)
        (offer,) = collect_offers(new_manager(), import_version(version), version)
        return offer

    async def started(self, name: str = "q") -> int:
        """Wait until the worker of an instance is at work; return its process id."""
        proxy = self.proxy(name)
        await until(
            lambda: (
                proxy.session is not None
                and proxy.session.outlet is not None
                and proxy.session.outlet.handled > 0
            ),
            f"{name} handles its first event",
        )
        assert proxy.worker is not None
        process = proxy.worker.process
        assert process is not None
        return process.pid

    def proxy(self, name: str = "q") -> Proxy:
        proxy = self.desk.engine.roster.instances[name].strategy
        assert isinstance(proxy, Proxy)
        return proxy

    async def handled(self, name: str = "q") -> None:
        """Wait until a worker has handled all that it was sent."""
        outlet = self.session(name).outlet
        assert outlet is not None
        await until(lambda: outlet.behind == 0, f"{name} handles everything")

    def session(self, name: str = "q") -> Any:
        session = self.proxy(name).session
        assert session is not None
        return session

    async def top_and_quotes(self, bid: float = 60_000.0, ask: float = 60_000.1, name: str = "q") -> None:
        """Show a best bid and ask, and wait until the strategy's orders rest around it."""
        self.desk.top(bid, ask)
        await until(lambda: self.rests_at(bid - 0.02, ask + 0.02), f"quotes around {bid}")

    def rests_at(self, bid: float, ask: float) -> bool:
        self.desk.settle()
        prices = sorted(float(order.price or 0) for order in self.desk.venue.open())
        return prices == [round(bid, 2), round(ask, 2)]

    def open(self) -> list[OrderSnapshot]:
        """Let the venue answer, and return what rests there."""
        self.desk.settle()
        return self.desk.venue.open()

    def saved(self, name: str = "q") -> dict[str, Any]:
        """Return the strategy's state as the journal has it."""
        data = self.desk.engine.state.instances[name].strategy_state
        plain: dict[str, Any] = msgspec.msgpack.decode(data) if data else {}
        return plain

    def alerts(self, kind: str) -> list[str]:
        """Return the texts of the alerts of one kind, those of this turn included."""
        self.desk.settle()
        return self.desk.alerts(kind)

    def unheard(self, name: str = "q") -> int:
        return len(self.desk.engine.state.unheard.get(name, ()))

    async def reach(self, state: InstanceState, name: str = "q") -> None:
        await until(lambda: self.desk.state_of(name) is state, f"{name} is {state}")

    def restart(self) -> "WorkerDesk":
        """Return the desk as a new process finds it."""
        self.workers.close()
        again = object.__new__(WorkerDesk)
        again.folder, again.of, again.at_end = self.folder, {}, self.at_end
        again.desk = self.desk.restart()
        again.workers = Workers(again.desk.engine, self.folder / "workers")
        return again


class Written(Generic[E]):
    """All entries of one kind from the journal's first one on, each read once: a journal that is long is pruned."""

    def __init__(self, desk: WorkerDesk, kind: type[E]) -> None:
        self._kind = kind
        self._entries: list[E] = []
        self._follower = Follower(desk.desk.journal)
        desk.at_end.callback(self._follower.close)

    @property
    def entries(self) -> list[E]:
        """Return them, those since the last time included."""
        while records := self._follower.poll():
            self._entries += [record.entry for record in records if isinstance(record.entry, self._kind)]
        return self._entries


class Moves:
    """What became of each version of a plugin, by the journal."""

    def __init__(self, desk: WorkerDesk) -> None:
        self._desk = desk
        self._written = Written(desk, e.VersionMoved)

    def of(self, digest: str) -> list[VersionState]:
        """Return the states that a version came to, one after the other."""
        return [entry.state for entry in self._written.entries if entry.digest == digest]

    async def until(self, digest: str, state: VersionState, meanwhile: Callable[[], Any]) -> None:
        """Let market and time go on until a version is in this state."""

        def is_there() -> bool:
            meanwhile()
            self._desk.desk.settle()
            self._desk.desk.advance(0.3)
            return self.of(digest)[-1:] == [state]

        await until(is_there, f"the version is {state}")


@asynccontextmanager
async def worker_desk(folder: Path, risk: RiskConfig | None = None) -> AsyncIterator[WorkerDesk]:
    """A desk whose workers are all gone afterwards."""
    desk = WorkerDesk(folder, risk)
    try:
        yield desk
    finally:
        desk.at_end.close()
        desk.workers.close()
        desk.desk.journal.close()


def children() -> list[int]:
    """Return the worker processes of this process."""
    found = []
    for task in Path("/proc/self/task").iterdir():
        try:
            found += [int(pid) for pid in (task / "children").read_text().split()]
        except OSError:
            continue
    return [pid for pid in found if _is_worker(pid)]


def _is_worker(pid: int) -> bool:
    folder = Path(f"/proc/{pid}")
    try:
        # One that starts has no command line yet, for a moment after its exec; one that has ended has none any more.
        while not (command := (folder / "cmdline").read_bytes()):
            if (folder / "stat").read_text().rpartition(")")[2].split()[0] in "ZX":
                return False
            os.sched_yield()
    except OSError:
        return False
    return b"host.isolation.worker" in command
