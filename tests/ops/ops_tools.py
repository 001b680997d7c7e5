"""A node in a process of its own, the scripts of ops/ run against it, and stubs to see what they did."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

import grpc
from servers import missing, stop, wait_for

from tandem.v1 import node_pb2, node_pb2_grpc, plugin_pb2, plugin_pb2_grpc, trading_pb2, trading_pb2_grpc

PATIENCE_S = 60.0
OPS = Path(__file__).parents[2] / "ops"
SCRIPTS = sorted(path for path in OPS.iterdir() if path.is_file() and not path.suffix)
BTC, ETH = "mm-btc", "mm-eth"
"""The instances of the node."""
CONFIG = f"""
[node]
name = "a"
data_dir = "data"
plugin_dirs = ["plugins"]
reload = "auto"
journal_segment_kb = 256

[control]
listen = ["unix:data/c.sock"]

[store]
url = ""

[[account]]
name = "paper"
exchange = "paper"

[[instance]]
name = "{BTC}"
plugin = "wide"
account = "paper"
symbols = ["BTC-USDT"]
quote_tolerance_bps = 100.0

[[instance]]
name = "{ETH}"
plugin = "two_sided"
account = "paper"
symbols = ["ETH-USDT"]
quote_tolerance_bps = 100.0
params = {{ half_spread_bps = 400.0 }}
"""
WIDE = """
from decimal import Decimal
from host.api import BookTop, Params, Positive, Quote, Strategy

class WideParams(Params, frozen=True):
    away_bps: Positive = 400.0
    size: Decimal = Decimal("0.01")

class Wide(Strategy[WideParams]):
    def on_book(self, book: BookTop) -> None:
        self.quote(book.symbol, Quote.around(book.mid, self.params.away_bps, self.params.size))
"""


def tool(name: str, how: str) -> str:
    """Return a program's path, also where `go install` puts it; skip, or fail where tests must have it."""
    gopath = os.environ.get("GOPATH", str(Path.home() / "go"))
    found = shutil.which(name, path=f"{os.environ['PATH']}:{gopath}/bin")
    return found or missing(f"{name} is not installed: {how}")


class OpsNode:
    """`tandem run` with two instances whose quotes rest, far from the market: nothing fills.

    `nodes`, `plugins` and `trading` are stubs of its services over its socket.
    """

    def __init__(self, folder: Path, reload: str = "auto") -> None:
        self.folder = folder
        self.socket = folder / "data" / "c.sock"
        self.wide_file = folder / "plugins" / "wide.py"
        self.wide_file.parent.mkdir()
        self.wide_file.write_text(WIDE)
        (folder / "tandem.toml").write_text(CONFIG.replace('reload = "auto"', f'reload = "{reload}"'))
        self.grpcurl = tool("grpcurl", "run scripts/install-grpcurl")
        tool("jq", "run scripts/install-test-servers")
        self._channel = grpc.insecure_channel(f"unix:{self.socket}")
        self.nodes: Any = node_pb2_grpc.NodeServiceStub(self._channel)
        self.plugins: Any = plugin_pb2_grpc.PluginServiceStub(self._channel)
        self.trading: Any = trading_pb2_grpc.TradingServiceStub(self._channel)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()
        if self._process is not None:
            stop(self._process)

    # -- the process -------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the node, and wait until both its instances quote."""
        code = "import sys; from host.cli import main; main(sys.argv[1:])"
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", code, "run", "-c", "tandem.toml", "--report", "json"],
                stdout=subprocess.DEVNULL, stderr=log, cwd=self.folder, env=_environment(),
            )  # fmt: skip
        wait_for(lambda: len(self.open_orders()) == 4, "quotes of both instances", PATIENCE_S)

    def kill(self) -> None:
        """Kill the node, as a crash would."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(PATIENCE_S)

    def exit_code(self) -> int:
        """Return what the node's process exits with once it has ended."""
        assert self._process is not None
        return self._process.wait(PATIENCE_S)

    # -- the scripts -------------------------------------------------------------------------------

    def command(self, script: str, *arguments: str) -> list[str]:
        """Return the command that runs a script."""
        return [str(OPS / script), *arguments]

    def environment(self, **more: str) -> dict[str, str]:
        """Return what the scripts find in their environment: where the node is, and `more`."""
        return _environment() | {"TANDEM_CONTROL": "unix:data/c.sock"} | more

    def ops(self, script: str, *arguments: str, **more: str) -> "subprocess.CompletedProcess[str]":
        """Run a script to its end; `more` is set in its environment."""
        return subprocess.run(
            self.command(script, *arguments), env=self.environment(**more), cwd=self.folder,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE_S, check=False,
        )  # fmt: skip

    def done(self, script: str, *arguments: str, **more: str) -> str:
        """Run a script that has to succeed; return what it prints."""
        result = self.ops(script, *arguments, **more)
        assert result.returncode == 0, result.stderr
        return result.stdout

    # -- what became of it -------------------------------------------------------------------------

    def status(self) -> node_pb2.NodeStatus:
        """Return what the node says of itself."""
        answer = self.nodes.GetStatus(node_pb2.GetStatusRequest(), timeout=PATIENCE_S, wait_for_ready=True)
        found: node_pb2.NodeStatus = answer.status
        return found

    def instance(self, name: str) -> plugin_pb2.Instance:
        """Return an instance as it is now."""
        request = plugin_pb2.GetInstanceRequest(name=f"instances/{name}")
        found: plugin_pb2.Instance = self.plugins.GetInstance(request, timeout=PATIENCE_S).instance
        return found

    def states(self) -> list[str]:
        """Return the states of both instances."""
        states = (self.instance(name).state for name in (BTC, ETH))
        return [plugin_pb2.InstanceState.Name(state).removeprefix("INSTANCE_STATE_") for state in states]

    def plugin(self, name: str = "wide") -> plugin_pb2.Plugin:
        """Return a plugin as it is now."""
        request = plugin_pb2.GetPluginRequest(name=f"plugins/{name}")
        found: plugin_pb2.Plugin = self.plugins.GetPlugin(request, timeout=PATIENCE_S).plugin
        return found

    def open_orders(self, instance: str = "") -> list[trading_pb2.Order]:
        """Return the orders that rest at the venue."""
        request = trading_pb2.ListOrdersRequest(statuses=[trading_pb2.ORDER_STATUS_OPEN])
        if instance:
            request.filter.instance = f"instances/{instance}"
        answer = self.trading.ListOrders(request, timeout=PATIENCE_S, wait_for_ready=True)
        return list(answer.orders)

    def entries(self, *kinds: str) -> list[dict[str, Any]]:
        """Return the journal's entries of some kinds, with their LSN and kind."""
        request = node_pb2.ListEventsRequest(page_size=1000, filter=node_pb2.EventFilter(kinds=kinds))
        found: list[dict[str, Any]] = []
        while True:
            answer = self.nodes.ListEvents(request, timeout=PATIENCE_S)
            found += [{"lsn": one.lsn, "of": one.kind} | json.loads(one.json) for one in answer.events]
            request.from_lsn = answer.next_lsn
            if not answer.has_more:
                return found

    def as_it_began(self) -> None:
        """Let everything trade again that a test stopped."""
        for scope in self.status().stopped_scopes:
            self.trading.ReleasePanicStop(trading_pb2.ReleasePanicStopRequest(scope=scope))
        for name, state in zip((BTC, ETH), self.states(), strict=True):
            if state == "PAUSED":
                self.plugins.ResumeInstance(plugin_pb2.ResumeInstanceRequest(name=f"instances/{name}"))
        wait_for(lambda: len(self.open_orders()) == 4, "quotes of both instances", PATIENCE_S)


def _environment() -> dict[str, str]:
    """Return this process's environment without what configures a node or a client."""
    return {name: value for name, value in os.environ.items() if not name.startswith("TANDEM")}
