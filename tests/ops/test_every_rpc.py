"""The real grpcurl calls every public RPC of a live node, and is given no proto file."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ops_tools import BTC, PATIENCE_S, WIDE, OpsNode
from servers import wait_for

from host.control.rules import RULES
from host.control.server import service_named

N, P, T = "tandem.v1.NodeService", "tandem.v1.PluginService", "tandem.v1.TradingService"
HAND = {"account": "accounts/paper", "symbol": "BTC-USDT", "side": "SIDE_BUY", "qty": "0.001"}


class Grpcurl:
    """grpcurl at one node; `called` is what it has called and got an answer from."""

    def __init__(self, node: OpsNode) -> None:
        self._node = node
        self.called: set[str] = set()

    def command(self, *arguments: str, **data: Any) -> list[str]:
        return [
            self._node.grpcurl, "-plaintext", "-unix", "-emit-defaults", "-d", json.dumps(data),
            str(self._node.socket), *arguments,
        ]  # fmt: skip

    def text(self, *arguments: str) -> str:
        """Return what it says about the node's services."""
        return subprocess.run(
            self.command(*arguments), capture_output=True, text=True, timeout=PATIENCE_S, check=True
        ).stdout

    def call(self, service: str, method: str, **data: Any) -> Any:
        """Return the answer of a call; of a watch, the first one that says something."""
        self.called.add(f"{service}/{method}")
        command = self.command(f"{service}/{method}", **data)
        if service_named(service).methods_by_name[method].server_streaming:
            return self._first(command)
        result = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)

    def refusal(self, service: str, method: str, **data: Any) -> str:
        """Return what it says of a call that is refused."""
        self.called.add(f"{service}/{method}")
        command = self.command(f"{service}/{method}", **data)
        result = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        assert result.returncode != 0, result.stdout
        return result.stderr

    def _first(self, command: list[str]) -> Any:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            said = ""
            for line in process.stdout:
                said += line
                if line == "}\n":  # an answer is indented, so that this is its end
                    return json.loads(said)
            raise AssertionError(f"the watch ended: {said}")
        finally:
            process.kill()
            process.communicate()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[OpsNode]:
    with OpsNode(tmp_path, reload="stage") as node:
        yield node


def test_grpcurl_lists_describes_and_calls_every_rpc(node: OpsNode) -> None:
    grpcurl = Grpcurl(node)
    listed = {name for service in (N, P, T) for name in grpcurl.text("list", service).split()}
    assert listed == {rpc.replace("/", ".") for rpc in RULES}
    for rpc in RULES:
        service, _, method = rpc.partition("/")
        described = grpcurl.text("describe", f"{service}.{method}")
        assert f"rpc {method} ( .tandem.v1.{method}Request ) returns (" in described
        message = grpcurl.text("describe", f"tandem.v1.{method}Request")
        assert f"message {method}Request" in message

    _look(grpcurl)
    _ask_who_leads(grpcurl)
    _run_instances(grpcurl)
    _move_versions(grpcurl, node)
    _trade(grpcurl, node)
    _stop(grpcurl, node)
    assert grpcurl.called == RULES.keys()


def _look(grpcurl: Grpcurl) -> None:
    call = grpcurl.call
    assert call(N, "GetStatus")["status"]["phase"] == "NODE_PHASE_RUNNING"
    assert call(N, "WatchStatus", interval="0.1s")["status"]["node"] == "a"
    assert call(N, "ListEvents", page_size=1)["events"][0]["kind"] == "node_started"
    assert call(N, "WatchEvents", from_lsn=1)["next_lsn"]
    assert call(N, "GetConfig")["config"]["node"]["name"] == "a"
    assert call(N, "SetLogLevel", level="LOG_LEVEL_DEBUG")["level"] == "LOG_LEVEL_DEBUG"
    assert call(N, "GetLogLevel")["level"] == "LOG_LEVEL_DEBUG"
    assert "plugins/wide" in [one["name"] for one in call(P, "ListPlugins")["plugins"]]
    assert call(P, "GetPlugin", name="plugins/wide")["plugin"]["offers"][0]["params_schema"]
    assert call(P, "WatchPlugins")["snapshot"] is True
    assert call(P, "ListVersions", parent="plugins/wide")["versions"]
    assert len(call(P, "ListInstances")["instances"]) == 2
    schema = call(P, "GetInstance", name=f"instances/{BTC}")["instance"]["params_schema"]
    assert "away_bps" in json.dumps(schema)
    assert call(P, "WatchInstances")["snapshot"] is True
    assert len(call(T, "WatchOrders")["orders"]) == 4
    assert call(T, "ListPositions", filter={"account": "accounts/paper"}, include_flat=True)
    assert "snapshot" in call(T, "WatchPositions")
    assert call(T, "ListBalances")["balances"]
    assert call(T, "WatchBalances")["balances"]
    assert len(call(T, "ListBooks")["books"]) == 2
    assert call(T, "GetBook", name="accounts/paper/books/BTC-USDT", depth=1)["book"]["bids"]
    assert call(T, "WatchBooks", names=["accounts/paper/books/BTC-USDT"])["books"]


def _ask_who_leads(grpcurl: Grpcurl) -> None:
    """The node runs alone; what a pair answers is in tests/control/test_failover_methods.py."""
    for method, data in (
        ("GetFailover", {}),
        ("Switchover", {"to": "b"}),
        ("Promote", {"force": True}),
        ("SetMaintenance", {"enabled": True}),
    ):
        assert "this node runs alone" in grpcurl.refusal(N, method, **data)


def _run_instances(grpcurl: Grpcurl) -> None:
    call = grpcurl.call
    name = "instances/more"
    wanted = {"plugin": "wide", "account": "accounts/paper", "symbols": ["ETH-USDT"], "start_paused": True}
    made = call(P, "CreateInstance", instance_id="more", instance=wanted)["instance"]
    assert (made["name"], made["origin"], made["state"]) == (
        name,
        "INSTANCE_ORIGIN_API",
        "INSTANCE_STATE_PAUSED",
    )
    assert call(P, "ResumeInstance", name=name)["instance"]["state"] == "INSTANCE_STATE_RUNNING"
    assert call(P, "PauseInstance", name=name)["instance"]["state"] == "INSTANCE_STATE_PAUSED"
    assert call(P, "StopInstance", name=name)["instance"]["state"] == "INSTANCE_STATE_STOPPED"
    started = call(P, "StartInstance", name=name, paused=True)["instance"]
    assert started["state"] == "INSTANCE_STATE_PAUSED"
    params = {"away_bps": 300, "size": "0.02"}
    changed = call(P, "SetParams", name=name, params=params, update_mask={"paths": ["away_bps"]})["instance"][
        "params"
    ]
    assert changed == {"away_bps": 300, "size": "0.01"}
    call(P, "RemoveInstance", name=name)
    assert len(call(P, "ListInstances")["instances"]) == 2


def _move_versions(grpcurl: Grpcurl, node: OpsNode) -> None:
    call = grpcurl.call
    name = "plugins/wide"
    before = call(P, "GetPlugin", name=name)["plugin"]["digest"]
    node.wide_file.write_text(WIDE + "\n# seen by the node, and staged\n")
    wait_for(lambda: bool(node.plugin().staged_digest), "a staged version", PATIENCE_S)
    staged = f"{name}/versions/{node.plugin().staged_digest}"
    assert call(P, "ActivateVersion", name=staged)["state"] == "VERSION_STATE_ACTIVE"
    assert call(P, "RollBackPlugin", name=name)["plugin"]["digest"] == before
    assert call(P, "SetAutoReload", name=name, enabled=False)["plugin"]["auto_reload"] is False
    node.wide_file.write_text(WIDE + "\n# reloaded by order\n")
    live = call(P, "ReloadPlugin", name=name)
    assert live["state"] == "VERSION_STATE_ACTIVE"
    assert call(P, "PromotePlugin", name=name)["plugin"]["permanent_digest"] == live["digest"]


def _trade(grpcurl: Grpcurl, node: OpsNode) -> None:
    call = grpcurl.call
    bid = float(call(T, "GetBook", name="accounts/paper/books/BTC-USDT")["book"]["bids"][0]["price"])
    low, lower = f"{bid * 0.95:.0f}", f"{bid * 0.94:.0f}"

    def rest() -> str:
        order = call(T, "PlaceOrder", **HAND, type="ORDER_TYPE_LIMIT", price=low)["order"]
        wait_until_open(order["name"])
        return str(order["name"])

    def wait_until_open(name: str) -> None:
        wait_for(
            lambda: call(T, "GetOrder", name=name)["order"]["status"] == "ORDER_STATUS_OPEN",
            "an order that rests",
            PATIENCE_S,
        )

    name = rest()
    assert call(T, "AmendOrder", name=name, price=lower)["order"]["pending_price"] == lower
    wait_until_open(name)
    assert call(T, "CancelOrder", name=name)["order"]["name"] == name
    wait_for(lambda: name not in [one.name for one in node.open_orders()], "the cancel", PATIENCE_S)
    rest()
    hand = "instances/hand@paper"
    assert call(T, "CancelAllOrders", scope=hand)["cancelled_orders"] == 1
    assert call(T, "ListOrders", filter={"instance": hand}, include_done=True)["orders"]

    call(T, "PlaceOrder", **HAND, type="ORDER_TYPE_MARKET", request_id="taken")
    assert call(T, "WatchFills", from_lsn=1)["fills"][0]["qty"] == "0.001"
    assert call(T, "ListFills")["fills"][0]["instance"] == hand


def _stop(grpcurl: Grpcurl, node: OpsNode) -> None:
    call = grpcurl.call
    limits = {"name": "symbols/BTC-USDT/riskLimits", "max_order_qty": "0.5"}
    changed = call(T, "SetRiskLimits", limits=limits, update_mask={"paths": ["max_order_qty"]})["limits"]
    assert changed["max_order_qty"] == "0.5"
    assert call(T, "GetRiskLimits", name=limits["name"])["limits"]["max_order_qty"] == "0.5"
    assert limits["name"] in [one["name"] for one in call(T, "ListRiskLimits")["limits"]]
    hand = "instances/hand@paper"
    assert call(T, "Flatten", scope=hand)["closing"] == [f"{hand}/positions/BTC-USDT"]
    wait_for(
        lambda: not call(T, "ListPositions", filter={"instance": hand})["positions"],
        "no position",
        PATIENCE_S,
    )
    assert hand in call(T, "PanicStop", scope=hand)["stopped_scopes"]
    assert call(T, "ReleasePanicStop", scope=hand)["stopped_scopes"] == {}
    drained = call(N, "Drain", wait="30s")
    assert drained["open_orders"] == 0
    assert call(N, "Shutdown", reason="seen enough") == {}
    assert node.exit_code() == 0
