"""The control API of a node that quotes: what a call costs, what a watch carries, what trading feels.

Calls are measured in turn with a bare grpc.aio echo on the same loop, from a client in a process of its
own, and reported as a ratio to it. `watch` is the journal read by one client as fast as it comes. `tick to
order` is that of `bench/tick_to_order.py`, while the node quotes anew with each quote of a recording at
several times its pace (of a made-up market where there is none): with 200 clients that ask for the status
every 0.25 to 1 s and 20 that watch events, over that without them; both in turn, in this run. `due to order`
counts from when a quote was due, and so what it waited for the loop. `--load` measures these two alone.
"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])  # not this folder: its failover.py is no package

import argparse
import asyncio
import contextlib
import json
import random
import tempfile
import time
from collections.abc import AsyncIterator
from typing import Any, Final

import grpc
import uvloop
from rich.console import Console
from rich.table import Table

from bench.paced_market import PacedMarket, Reactions
from bench.replay import MARKETDATA
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
from host.loader import Catalog, Version, VersionArchive, make
from host.runtime.instance_control import InstanceControl
from host.runtime.instance_maker import InstanceMaker
from host.runtime.reload import ModelUse, Reloader, ReloadReport, ReloadSettings, StrategyUse
from host.runtime.roster import InstanceSpec
from tandem.v1 import node_pb2, node_pb2_grpc, plugin_pb2, plugin_pb2_grpc

ECHO: Final = "/bench.v1.EchoService/Echo"
POLLERS: Final = 200
POLL_EVERY_S: Final = (0.25, 1.0)
WATCHERS: Final = 20
RECORDING: Final = "binance_usdm_BTCUSDT_20240808"
SPEED: Final = 4.0
"""Times the recording's pace, which is 272 messages a second on average, and 40,000 in its bursts."""
PARAMS: Final = {"half_spread_bps": 5.0, "size": "0.010"}


class ControlRig(Rig):
    """The node of the tick-to-order benchmark, with its control API on a Unix socket."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "journal")
        self.home = folder
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

    def quote_with_every_tick(self) -> None:
        """Have each quote of the market lead to two orders, whether the price moved or not."""
        roster = self.engine.roster
        roster.pause(roster.instances["quoter"], "another one quotes")
        self.acknowledge()
        catalog = Catalog.load([Path(__file__).parent / "plugins", bundled_plugins()], entry_points=False)
        offer = catalog.strategy("every_tick")
        spec = InstanceSpec(
            name="every_tick", account="usdm", symbols=(SYMBOL,), plugin="every_tick",
            digest=offer.version.digest, params_json=b"{}", tolerance_bps=0.0,
        )  # fmt: skip
        models = [("inventory_skew", make(catalog.model("inventory_skew"), {}, instance=spec.name))]
        roster.start(roster.add(spec, make(offer, {}, instance=spec.name), models, self.feed.spawn))

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
        polls: list[float] = []
        while line := await asyncio.to_thread(sys.stdin.readline):
            what, *arguments = line.split()
            answer: Any = "ok"
            if what == "unary":
                answer = await _unary(node, echo, int(arguments[0]))
            elif what == "watch":
                answer = await _watch(node, int(arguments[0]))
            elif what == "load":
                polls.clear()
                load = [asyncio.create_task(_poll(addresses[0], polls)) for _ in range(POLLERS)]
                load += [asyncio.create_task(_follow(addresses[0])) for _ in range(WATCHERS)]
            elif what == "rest":
                for task in load:
                    task.cancel()
                await asyncio.gather(*load, return_exceptions=True)
                answer = len(polls) / (polls[-1] - polls[0]) if len(polls) > 1 else 0.0
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


async def _poll(address: str, polls: list[float]) -> None:
    await asyncio.sleep(random.uniform(0, POLL_EVERY_S[1]))
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Any = node_pb2_grpc.NodeServiceStub(channel)  # type: ignore[no-untyped-call]
        while True:
            await stub.GetStatus(node_pb2.GetStatusRequest())
            polls.append(time.monotonic())
            await asyncio.sleep(random.uniform(*POLL_EVERY_S))


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


async def measure_calls(
    rig: ControlRig, other: Client, runs: int, rounds: int, entries: int
) -> dict[str, Any]:
    """Measure what calls cost and what a watch carries, and return the figures."""
    taken: dict[str, list[int]] = {"echo": [], "get_instance": [], "set_params": []}
    await other.ask(f"unary {max(rounds // 5, 10)}")  # to warm up
    for _ in range(runs):
        for what, durations in (await other.ask(f"unary {rounds}")).items():
            taken[what] += durations
    market = PacedMarket(None, 1.0)
    while rig.journal.last_lsn < entries:
        before = rig.journal.last_lsn
        rig.tick(market.next_frame())
        rig.acknowledge()
        if rig.journal.last_lsn == before and rig.engine.state.instances["quoter"].reason:
            raise AssertionError(rig.engine.state.instances["quoter"].reason)
    watched = [await other.ask(f"watch {rig.journal.flushed_lsn}") for _ in range(runs)]
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
    return figures


async def measure_load(
    rig: ControlRig, other: Client, market: PacedMarket, runs: int, seconds: float
) -> dict[str, Any]:
    """Measure what trading feels of many clients, in turn with and without them, and return the figures."""
    rig.quote_with_every_tick()
    alone, loaded = Reactions(), Reactions()
    polls = []
    await market.play(rig, min(seconds, 1.0), Reactions())  # to warm up
    for _ in range(runs):
        await market.play(rig, seconds, alone)
        await other.ask("load")
        await market.play(rig, min(seconds, POLL_EVERY_S[1]), Reactions())  # until all are connected
        await market.play(rig, seconds, loaded)
        polls.append(await other.ask("rest"))
    figures: dict[str, Any] = {
        "load": {
            "market": market.name, "speed": market.speed, "messages_per_s": round(loaded.messages / loaded.seconds),
            "polls_per_s": round(sum(polls) / len(polls)), "watchers": WATCHERS, "orders": len(loaded.from_frame),
        }
    }  # fmt: skip
    for name, quiet, busy in (
        ("tick_to_order", alone.from_frame, loaded.from_frame),
        ("due_to_order", alone.from_due, loaded.from_due),
    ):
        figures[f"{name}_us"] = {
            what: {"p50": round(quantile(one, 0.5), 1), "p99": round(quantile(one, 0.99), 1)}
            for what, one in (("alone", quiet), ("loaded", busy))
        }
        figures[f"{name}_ratio_p99"] = round(quantile(busy, 0.99) / quantile(quiet, 0.99), 3)
    return figures


async def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Measure everything, and return the figures."""
    recording = MARKETDATA / RECORDING
    market = PacedMarket(recording if recording.is_dir() else None, args.speed)
    with tempfile.TemporaryDirectory() as name:
        rig = ControlRig(Path(name))
        async with rig.serving() as addresses:
            other = await Client.start(addresses)
            figures = (
                {} if args.load else await measure_calls(rig, other, args.runs, args.rounds, args.entries)
            )
            figures |= await measure_load(rig, other, market, args.runs, args.seconds)
            await other.end()
        rig.journal.close()
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
    parser.add_argument("--speed", type=float, default=SPEED, help="times the recording's own pace")
    parser.add_argument("--load", action="store_true", help="measure only what trading feels of many clients")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--client", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.client:
        asyncio.run(client(json.loads(args.client)))
        return
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        figures = runner.run(measure(args))
    if args.json:
        print(json.dumps(figures))
        return
    console = Console()
    table = Table("what", "p50 µs", "p99 µs", "÷ echo", title="control API")
    for what in () if args.load else ("echo", "get_instance", "set_params"):
        one = figures[f"{what}_us"]
        table.add_row(what, f"{one['p50']}", f"{one['p99']}", f"{figures['ratio_p50'].get(what, 1)}")
    for name in ("tick_to_order", "due_to_order"):
        for what, one in figures[f"{name}_us"].items():
            table.add_row(f"{name.replace('_', ' ')}, {what}", f"{one['p50']}", f"{one['p99']}", "")
    console.print(table)
    if not args.load:
        console.print(f"watch: {figures['watch_msgs_per_s']:,} events/s")
    console.print(figures["load"])
    console.print(f"tick to order p99, loaded ÷ alone: {figures['tick_to_order_ratio_p99']}")
    console.print(f"due to order p99, loaded ÷ alone: {figures['due_to_order_ratio_p99']}")


if __name__ == "__main__":
    main()
