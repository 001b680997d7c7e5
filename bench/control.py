"""The control API of a node that quotes: what a call costs, what a watch carries, what trading feels.

Calls are measured in turn with a bare grpc.aio echo on the same loop, from a client in a process of its
own, and reported as a ratio to it. `watch` is the journal read by one client as fast as it comes. `tick to
order` is that of `bench/tick_to_order.py`, at 500 ticks a second, with 200 clients that ask for the status
every second and 20 that watch events, over that without them; both in turn, in this run.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final

import grpc
import uvloop
from rich.console import Console
from rich.table import Table

from bench.binance_wire import RECORDED_FRAME
from bench.tick_to_order import SYMBOL, Rig, quantile
from host.config import InstanceSection, ModelRef, NodeConfig, NodeSection, bundled_plugins
from host.control.audit import AuditLog
from host.control.callers import Callers
from host.control.front import Front
from host.control.listen import plan_listeners
from host.control.node_service import NodeService
from host.control.plugin_service import PluginService
from host.control.server import ControlServer
from host.control.subject import Phase, Subject
from host.control.tail import JournalTail
from host.control.tokens import TokenStore
from host.loader import Catalog, Version, VersionArchive
from host.runtime.instance_control import InstanceControl
from host.runtime.instance_maker import InstanceMaker
from host.runtime.reload import ModelUse, Reloader, ReloadReport, ReloadSettings, StrategyUse
from tandem.v1 import node_pb2, node_pb2_grpc, plugin_pb2, plugin_pb2_grpc

ECHO: Final = "/bench.v1.EchoService/Echo"
POLLERS: Final = 200
POLL_EVERY_S: Final = 1.0
WATCHERS: Final = 20
TICK_GAP_S: Final = 0.002
PARAMS: Final = {"half_spread_bps": 5.0, "size": "0.010"}


def frames() -> Iterator[bytes]:
    """Yield the recorded frame with its prices moved by a few ticks each time, sequence rising."""
    for index in itertools.count():
        bid = 61800.2 + abs(index * 7 % 60 - 30) * 0.7
        moved = RECORDED_FRAME.replace(b"61800.20", b"%.2f" % bid).replace(b"61800.30", b"%.2f" % (bid + 0.1))
        yield moved.replace(b"5123107837620", b"%d" % (5123107837620 + index))


class ControlRig(Rig):
    """The node of the tick-to-order benchmark, with its control API on a Unix socket."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "journal")
        self.home = folder
        self.frames = frames()
        catalog = Catalog.load([bundled_plugins()], entry_points=False)
        archive = VersionArchive(folder / "versions")
        reloader = Reloader(self.engine, catalog, ReloadSettings(), _no_probe, archive.put)
        models = ("inventory_skew",)
        reloader.uses["quoter"] = StrategyUse(catalog.strategy("two_sided"), PARAMS)
        reloader.model_uses["quoter"] = tuple(ModelUse(catalog.model(name), {}) for name in models)
        config = NodeConfig(
            node=NodeSection(data_dir=folder),
            instance=(
                InstanceSection(
                    name="quoter", plugin="two_sided", account="usdm", symbols=(SYMBOL,), params=PARAMS,
                    models=tuple(ModelRef(name) for name in models),
                ),
            ),
        )  # fmt: skip
        maker = InstanceMaker(self.engine, lambda: reloader.catalog)

        def config_in_force() -> NodeConfig:
            return config

        async def reload(plugin: str) -> ReloadReport:
            raise AssertionError(f"nobody reloads {plugin} here")

        self.subject = Subject(
            engine=self.engine,
            config=config_in_force,
            host_version="bench",
            started_ns=self.clock.now_ns(),
            phase=Phase.RUNNING,
            stop=print,
            tail=JournalTail(self.journal),
            reloader=reloader,
            instances=InstanceControl(self.engine, reloader, maker, config_in_force, {}),
            reload=reload,
        )

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """Serve the API and the echo, and give their addresses as JSON."""
        audit = AuditLog.open(self.home / "audit")
        callers = Callers(TokenStore.open(self.home / "tokens.json"), time.time_ns)
        front = Front(self.subject, callers, audit, 30.0)
        services = {
            "tandem.v1.NodeService": NodeService(self.subject),
            "tandem.v1.PluginService": PluginService(self.subject),
        }
        server = ControlServer(services, front, callers, self.home)
        listen = (f"unix:{self.home}/control.sock",)
        await server.start(plan_listeners(listen, has_server_certificate=False, has_caller_proof=False))
        echo = grpc.aio.server()
        echo.add_generic_rpc_handlers((_echo_handler(),))
        echo.add_insecure_port(f"unix:{self.home}/echo.sock")
        await echo.start()
        try:
            yield json.dumps([listen[0], f"unix:{self.home}/echo.sock"])
        finally:
            await echo.stop(None)
            await server.close(0.0)
            callers.close()
            self.subject.tail.close()
            audit.close(time.time_ns())


async def _no_probe(_version: Version) -> None: ...


def _echo_handler() -> grpc.GenericRpcHandler:
    async def echo(
        request: plugin_pb2.GetInstanceRequest, _context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> plugin_pb2.GetInstanceRequest:
        return request

    message = plugin_pb2.GetInstanceRequest
    handler = grpc.unary_unary_rpc_method_handler(
        echo, request_deserializer=message.FromString, response_serializer=message.SerializeToString
    )
    return grpc.method_handlers_generic_handler(ECHO.split("/")[1], {"Echo": handler})


# -- the client's process --------------------------------------------------------------------------


async def client(addresses: list[str]) -> None:
    """Do what is asked for on standard input, a line each, and print what it came to."""
    async with (
        grpc.aio.insecure_channel(addresses[0]) as node,
        grpc.aio.insecure_channel(addresses[1]) as echo,
    ):
        load: list[asyncio.Task[Any]] = []
        while line := await asyncio.to_thread(sys.stdin.readline):
            what, *arguments = line.split()
            answer: Any = "ok"
            if what == "unary":
                answer = await _unary(node, echo, int(arguments[0]))
            elif what == "watch":
                answer = await _watch(node, int(arguments[0]))
            elif what == "load":
                load = [asyncio.create_task(_poll(addresses[0])) for _ in range(POLLERS)]
                load += [asyncio.create_task(_follow(addresses[0])) for _ in range(WATCHERS)]
            elif what == "rest":
                for task in load:
                    task.cancel()
                await asyncio.gather(*load, return_exceptions=True)
            print(json.dumps(answer), flush=True)


async def _unary(node: grpc.aio.Channel, echo: grpc.aio.Channel, rounds: int) -> dict[str, list[int]]:
    plugin: Any = plugin_pb2_grpc.PluginServiceStub(node)  # type: ignore[no-untyped-call]
    message = plugin_pb2.GetInstanceRequest
    echo_call: Any = echo.unary_unary(
        ECHO, request_serializer=message.SerializeToString, response_deserializer=message.FromString
    )
    get = message(name="instances/quoter")
    taken: dict[str, list[int]] = {"echo": [], "get_instance": [], "set_params": []}
    for number in range(rounds):
        change = plugin_pb2.SetParamsRequest(name="instances/quoter", request_id=f"{time.time_ns()}")
        change.params["half_spread_bps"] = 5.0 + number % 7
        for name, call, request in (
            ("echo", echo_call, get),
            ("get_instance", plugin.GetInstance, get),
            ("echo", echo_call, get),
            ("set_params", plugin.SetParams, change),
        ):
            started = time.perf_counter_ns()
            await call(request)
            taken[name].append(time.perf_counter_ns() - started)
    return taken


async def _watch(node: grpc.aio.Channel, last_lsn: int) -> float:
    """Return how many events come in a second, reading the journal from its start."""
    stub: Any = node_pb2_grpc.NodeServiceStub(node)  # type: ignore[no-untyped-call]
    call = stub.WatchEvents(node_pb2.WatchEventsRequest(from_lsn=1))
    await call.read()
    started, events = time.perf_counter(), 0
    while (answer := await call.read()) is not grpc.aio.EOF:
        events += len(answer.events)
        if answer.next_lsn > last_lsn:
            break
    call.cancel()
    return events / (time.perf_counter() - started)


async def _poll(address: str) -> None:
    await asyncio.sleep(random.random() * POLL_EVERY_S)
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Any = node_pb2_grpc.NodeServiceStub(channel)  # type: ignore[no-untyped-call]
        while True:
            await stub.GetStatus(node_pb2.GetStatusRequest())
            await asyncio.sleep(POLL_EVERY_S)


async def _follow(address: str) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Any = node_pb2_grpc.NodeServiceStub(channel)  # type: ignore[no-untyped-call]
        async for _ in stub.WatchEvents(node_pb2.WatchEventsRequest()):
            continue


# -- the node's process ----------------------------------------------------------------------------


class Client:
    """The client's process, asked line by line."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, addresses: str) -> "Client":
        """Start the process."""
        command = [sys.executable, "-m", "bench.control", "--client", addresses]
        pipe = asyncio.subprocess.PIPE
        return cls(await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, limit=1 << 26))

    async def ask(self, line: str) -> Any:
        """Have something done and return what it came to."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line.encode() + b"\n")
        return json.loads(await self._process.stdout.readline())

    async def end(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()


async def _ticks(rig: ControlRig, seconds: float) -> list[int]:
    """Return how long each tick took to its orders, in ns."""
    taken = []
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        await asyncio.sleep(TICK_GAP_S)
        frame = next(rig.frames)
        started = time.perf_counter_ns()
        rig.tick(frame)
        ended = rig.adapter.sent_at_ns
        if rig.acknowledge():
            taken.append(ended - started)
    return taken


async def measure(runs: int, rounds: int, seconds: float, entries: int) -> dict[str, Any]:
    """Measure everything, and return the figures."""
    with tempfile.TemporaryDirectory() as name:
        rig = ControlRig(Path(name))
        async with rig.serving() as addresses:
            other = await Client.start(addresses)
            taken: dict[str, list[int]] = {"echo": [], "get_instance": [], "set_params": []}
            await other.ask(f"unary {max(rounds // 5, 10)}")  # to warm up
            for _ in range(runs):
                for what, durations in (await other.ask(f"unary {rounds}")).items():
                    taken[what] += durations
            while rig.journal.last_lsn < entries:
                before = rig.journal.last_lsn
                rig.tick(next(rig.frames))
                rig.acknowledge()
                if rig.journal.last_lsn == before and rig.engine.state.instances["quoter"].reason:
                    raise AssertionError(rig.engine.state.instances["quoter"].reason)
            watched = [await other.ask(f"watch {rig.journal.flushed_lsn}") for _ in range(runs)]
            alone: list[int] = []
            loaded: list[int] = []
            for _ in range(runs):
                alone += await _ticks(rig, seconds)
                await other.ask("load")
                await asyncio.sleep(min(seconds, POLL_EVERY_S))  # until all are connected
                loaded += await _ticks(rig, seconds)
                await other.ask("rest")
            await other.end()
        rig.journal.close()
    figures: dict[str, Any] = {
        f"{what}_us": {"p50": round(quantile(one, 0.5), 1), "p99": round(quantile(one, 0.99), 1)}
        for what, one in taken.items()
    }
    figures["unary_us"] = figures["get_instance_us"]
    echo = quantile(taken["echo"], 0.5)
    figures["ratio_p50"] = {
        what: round(quantile(taken[what], 0.5) / echo, 3) for what in ("get_instance", "set_params")
    }
    figures["watch_msgs_per_s"] = round(max(watched))
    figures["tick_to_order_us"] = {
        what: {"p50": round(quantile(one, 0.5), 1), "p99": round(quantile(one, 0.99), 1)}
        for what, one in (("alone", alone), ("loaded", loaded))
    }
    figures["tick_to_order_ratio_p99"] = round(quantile(loaded, 0.99) / quantile(alone, 0.99), 3)
    return figures


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=3, help="how often everything is done, in turn")
    parser.add_argument("--rounds", type=int, default=1000, help="calls of each kind in a run")
    parser.add_argument("--seconds", type=float, default=5.0, help="of ticks with and without load, each run")
    parser.add_argument("--entries", type=int, default=100_000, help="journal entries to watch")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--client", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.client:
        asyncio.run(client(json.loads(args.client)))
        return
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        figures = runner.run(measure(args.runs, args.rounds, args.seconds, args.entries))
    if args.json:
        print(json.dumps(figures))
        return
    table = Table("what", "p50 µs", "p99 µs", "÷ echo", title="control API")
    for what in ("echo", "get_instance", "set_params"):
        one = figures[f"{what}_us"]
        table.add_row(what, f"{one['p50']}", f"{one['p99']}", f"{figures['ratio_p50'].get(what, 1)}")
    for what, one in figures["tick_to_order_us"].items():
        table.add_row(f"tick to order, {what}", f"{one['p50']}", f"{one['p99']}", "")
    console = Console()
    console.print(table)
    console.print(f"watch: {figures['watch_msgs_per_s']:,} events/s")
    console.print(f"tick to order p99, loaded ÷ alone: {figures['tick_to_order_ratio_p99']}")


if __name__ == "__main__":
    main()
