"""A node whose strategies run inline, in workers and in stand-alone clients, on symbols of their own."""

import asyncio
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
import zmq

from bench.binance_wire import moving_frames
from bench.tick_to_order import Rig
from host.config import ClientSection, InstanceSection
from host.config.schema import WorkerSection
from host.isolation.proxy import Proxy
from host.isolation.session import Session
from host.isolation.workers import Workers
from host.loader import Catalog
from host.runtime.instance import Instance
from host.runtime.roster import InstanceSpec

__all__ = ["IsolationRig", "Member"]

PLUGINS: Final = Path(__file__).with_name("plugins")
WAIT_S: Final = 60.0
FIRST_SEQ: Final = 5123107837620
SEQ: Final = b"SEQUENCE"


class Member:
    """One instance whose strategy runs outside, and what was said last on its wire."""

    def __init__(self, instance: Instance, symbol: str) -> None:
        self.instance: Final = instance
        self.symbol: Final = symbol
        self.last_events = b""
        self.last_turn = b""
        self.back_ns = 0
        """When its latest order came back, by the performance counter."""
        self._said: asyncio.Future[None] | None = None

    @property
    def proxy(self) -> Proxy:
        """Return what stands in the instance."""
        assert isinstance(self.instance.strategy, Proxy)
        return self.instance.strategy

    @property
    def session(self) -> Session:
        """Return the conversation with the strategy; there must be one."""
        assert self.proxy.session is not None
        return self.proxy.session

    def is_up(self) -> bool:
        """Return whether the strategy is at work and has handled everything."""
        session = self.proxy.session
        return session is not None and session.outlet is not None and session.outlet.behind == 0

    @property
    def behind(self) -> int:
        """Return how many events the strategy has not handled."""
        outlet = self.session.outlet
        assert outlet is not None
        return outlet.behind

    async def catches_up(self, most_behind: int = 0) -> None:
        """Wait until so few events are not handled; it wakes up with the message that says so. It must `listen`."""
        while self.behind > most_behind:
            self._said = asyncio.get_running_loop().create_future()
            await asyncio.wait_for(self._said, WAIT_S)

    def listen(self) -> None:
        """Note what goes over the wire from here on."""
        session, way = self.session, self.session._way
        send, receive = way.send, session.on_message

        def sent(body: bytes) -> None:
            self.last_events = body
            send(body)

        def received(body: bytes) -> None:
            if b"requests" in body:
                self.back_ns, self.last_turn = time.perf_counter_ns(), body
            receive(body)
            if self._said is not None and not self._said.done():
                self._said.set_result(None)

        way.send = sent  # type: ignore[method-assign]
        way._on_message = received  # type: ignore[attr-defined]


class IsolationRig(Rig):
    """The node of `tick_to_order`, with a running loop. `symbols` beyond the first have no strategy at first."""

    def __init__(self, folder: Path, symbols: int) -> None:
        super().__init__(folder / "journal", instances=symbols)
        self.folder: Final = folder
        self.workers: Final = Workers(self.engine, folder / "workers")
        self.catalog: Final = Catalog.load([PLUGINS], entry_points=False)
        self._frames: Final = [
            frame.replace(b"%d" % (FIRST_SEQ + index), SEQ) for index, frame in enumerate(moving_frames(60))
        ]
        self._clients: list[subprocess.Popen[bytes]] = []
        self._ticks: Final = Counter[str]()
        """Each symbol goes through all frames: two of them with one between may show the same prices."""
        self.waiting: asyncio.Future[None] | None = None
        roster = self.engine.roster
        for name in [name for name in roster.instances if name != "quoter"]:
            instance = roster.instances[name]
            roster.stop(instance, "not wanted here")
            roster.remove(instance)
        self.adapter.sent.clear()
        send = self.adapter.send

        def sent(command: object, deadline_ns: int) -> None:
            send(command, deadline_ns)  # type: ignore[arg-type]
            if self.waiting is not None and not self.waiting.done():
                self.waiting.set_result(None)

        self.adapter.send = sent  # type: ignore[method-assign]

    async def add(
        self, name: str, symbol: str, isolation: str, params: dict[str, object] | None = None
    ) -> Member:
        """Run a strategy in a worker, or for `client` in a program of its own, and wait until it is at work."""
        section = InstanceSection(
            name=name,
            plugin="answering",
            account="usdm",
            symbols=(symbol,),
            isolation=isolation,  # type: ignore[arg-type]
            worker=WorkerSection(
                deadline_ms=1_000 if name == "faulty" else 60_000, memory_mb=256, crashes=1000
            ),
            client=ClientSection(deadline_ms=60_000),
            params=params or {},
        )
        offer = self.catalog.strategy("answering")
        proxy = self.workers.stand_in(section, offer)
        spec = InstanceSpec(
            name=name,
            account="usdm",
            symbols=(symbol,),
            plugin="answering",
            digest=offer.version.digest,
            params_json=msgspec.json.encode(proxy.params),
            tolerance_bps=0.0,
        )
        instance = self.engine.roster.add(spec, proxy, (), self.feed.spawn)
        self.engine.roster.start(instance)
        if isolation == "client":
            code = "from bench.isolation_client import main; main()"
            command = [sys.executable, "-c", code, str(self.folder), name]
            self._clients.append(subprocess.Popen(command))
        member = Member(instance, symbol)
        await self.until(member.is_up)
        return member

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Let the loop run until something is so."""
        ends_s = time.monotonic() + WAIT_S
        while not is_so():
            if time.monotonic() > ends_s:
                raise TimeoutError(f"never came: {is_so}")
            await asyncio.sleep(0.0005)

    def next_frame(self, symbol: str) -> bytes:
        """Return the next quote's bytes."""
        tick = self._ticks[symbol] = self._ticks[symbol] + 1
        frame = self._frames[tick % len(self._frames)]
        return frame.replace(SEQ, b"%d" % (FIRST_SEQ + tick))

    async def react(self, symbol: str) -> tuple[int, int]:
        """Hand over one quote; return when that was, and when its last order's bytes were ready; answer all."""
        self.waiting = asyncio.get_running_loop().create_future()
        frame = self.next_frame(symbol)
        started_ns = time.perf_counter_ns()
        self.adapter.on_frame(frame, symbol)
        await asyncio.wait_for(self.waiting, WAIT_S) if not self.waiting.done() else None
        ready_ns = self.adapter.sent_at_ns
        self.acknowledge()
        return started_ns, ready_ns

    async def ping_pong(self, member: Member, rounds: int) -> list[int]:
        """Return what as many bare round trips of the same bytes between the same two processes take, in ns."""
        assert member.last_events
        assert member.last_turn
        address = f"ipc://{self.folder}/{time.monotonic_ns()}"
        key = b"k" * 32
        taken: list[int] = []
        with zmq.Context() as context, context.socket(zmq.PUSH) as pings, context.socket(zmq.PULL) as pongs:
            pings.bind(f"{address}.pings")
            pongs.bind(f"{address}.pongs")
            member.session.tell_params({"echo": address, "rounds": rounds})
            pings.send_multipart([key, member.last_turn])
            pongs.recv_multipart()
            body = member.last_events
            for _ in range(rounds):
                started_ns = time.perf_counter_ns()
                pings.send(key, zmq.SNDMORE)
                pings.send(body)
                pongs.recv_multipart()
                taken.append(time.perf_counter_ns() - started_ns)
        await self.until(member.is_up)
        return taken

    def processes(self) -> list[int]:
        """Return the ids of the processes outside."""
        workers = [seat.pid for seat in self.workers.seats if seat.process is not None]
        return [*workers, *(client.pid for client in self._clients)]

    def end_clients(self) -> None:
        """End the programs that were started."""
        for client in self._clients:
            client.kill()
            client.wait()
        self._clients.clear()

    def close(self) -> None:
        """End every process that was started."""
        self.workers.close()
        self.end_clients()
        self.journal.close()
