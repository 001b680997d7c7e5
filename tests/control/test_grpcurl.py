"""The real grpcurl, without any file of ours, against a node as its operators run it."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from host.control.rules import RULES

PATIENCE_S = 60.0
CONFIG = """
[node]
name = "a"
data_dir = "data"
journal_segment_kb = 256

[control]
listen = ["unix:data/c.sock"]

[store]
url = ""

[[account]]
name = "paper"
exchange = "paper"

[[instance]]
name = "mm-btc"
plugin = "two_sided"
account = "paper"
symbols = ["BTC-USDT"]
"""


def find_grpcurl() -> str:
    """Return grpcurl's path, or skip; where tests have to have it, fail."""
    found = shutil.which("grpcurl")
    if found is None and shutil.which("go") is not None:
        go = subprocess.run(["go", "env", "GOPATH"], capture_output=True, text=True, check=True)
        found = shutil.which("grpcurl", path=str(Path(go.stdout.strip()) / "bin"))
    if found is None:
        text = "grpcurl is not installed: run scripts/install-grpcurl"
        if os.environ.get("TANDEM_REQUIRE_SERVERS") == "1":
            pytest.fail(text)
        pytest.skip(text)
    return found


def example_of_the_docs(method: str) -> dict[str, Any]:
    """Return the data of the example of a call that docs/control-api.md has."""
    text = (Path(__file__).parents[2] / "docs" / "control-api.md").read_text(encoding="utf-8")
    found = re.search(rf"grpcurl -plaintext -d '([^']+)'[ \\\n]+[0-9.:]+ [a-zA-Z0-9.]+/{method}\n", text)
    assert found, method
    data: dict[str, Any] = json.loads(found[1])
    return data


class Node:
    """`tandem run` in a process of its own, and grpcurl to talk to it."""

    def __init__(self, folder: Path, grpcurl: str) -> None:
        self.folder = folder
        self._grpcurl = grpcurl
        (folder / "tandem.toml").write_text(CONFIG)
        code = "import sys; from host.cli import main; main(sys.argv[1:])"
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, "run", "-c", "tandem.toml", "--report", "json"],
            stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=folder,
            env={name: value for name, value in os.environ.items() if not name.startswith("TANDEM__")},
        )  # fmt: skip
        assert self.process.stderr is not None
        said = ""
        for line in self.process.stderr:
            said += line
            if "control API on" in line:
                return
        raise AssertionError(f"the node ended with {self.process.wait()}: {said}")

    def grpcurl(
        self, *arguments: str, data: dict[str, Any] | None = None
    ) -> "subprocess.CompletedProcess[str]":
        body = () if data is None else ("-d", json.dumps(data))
        return subprocess.run(
            [self._grpcurl, "-plaintext", "-unix", *body, str(self.folder / "data/c.sock"), *arguments],
            cwd=self.folder, capture_output=True, text=True, timeout=PATIENCE_S, check=False,
        )  # fmt: skip

    def call(self, method: str, **data: Any) -> dict[str, Any]:
        done = self.grpcurl(method, data=data)
        assert done.returncode == 0, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def wait_until_running(self) -> None:
        for _ in range(1000):
            if self.call("tandem.v1.NodeService/GetStatus")["status"]["phase"] == "NODE_PHASE_RUNNING":
                return
        raise AssertionError("the node does not come up")


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    node = Node(tmp_path, find_grpcurl())
    yield node
    node.process.kill()
    node.process.communicate()


def test_grpcurl_drives_a_live_node(node: Node) -> None:
    services = {method.partition("/")[0] for method in RULES}
    answer = node.grpcurl("list")
    listed = set(answer.stdout.split())
    assert not answer.stderr
    assert services <= listed
    assert "grpc.health.v1.Health" in listed
    for service in sorted(services):
        described = node.grpcurl("describe", service)
        assert described.returncode == 0, described.stderr
        methods = [name.partition("/")[2] for name in RULES if name.startswith(f"{service}/")]
        assert all(f"rpc {method} (" in described.stdout for method in methods)
    assert "SetParamsRequest" in node.grpcurl("describe", "tandem.v1.PluginService.SetParams").stdout

    node.wait_until_running()
    health = node.call("grpc.health.v1.Health/Check", service="tandem.primary")
    assert health == {"status": "SERVING"}
    changed = node.call(
        "tandem.v1.PluginService/SetParams", name="instances/mm-btc", params={"half_spread_bps": 7}
    )
    assert changed["instance"]["params"]["half_spread_bps"] == 7
    wrong = node.grpcurl(
        "tandem.v1.PluginService/SetParams",
        data={"name": "instances/mm-btc", "params": {"half_spread_bps": -7}},
    )
    assert wrong.returncode != 0
    assert "InvalidArgument" in wrong.stderr
    assert "params.half_spread_bps" in wrong.stderr
    made = node.call("tandem.v1.PluginService/CreateInstance", **example_of_the_docs("CreateInstance"))
    assert made["instance"]["schedule"]["windows"] == ["mon-fri 09:00-17:30"]
    assert made["instance"]["worker_settings"]["memory_mb"] == 256
    node.call("tandem.v1.NodeService/Shutdown", reason="seen enough")
    out, _ = node.process.communicate(timeout=PATIENCE_S)
    assert node.process.returncode == 0
    report = json.loads(out)
    assert report["open_orders"] == 0
    assert report["stopped"].startswith("shut down by ")
    assert report["stopped"].endswith("seen enough")


def test_a_port_in_use_keeps_the_node_from_starting_and_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        text = CONFIG.replace('"unix:data/c.sock"', f'"127.0.0.1:{port}"')
        (tmp_path / "tandem.toml").write_text(text)
        code = "import sys; from host.cli import main; main(sys.argv[1:])"
        done = subprocess.run(
            [sys.executable, "-c", code, "run", "-c", "tandem.toml", "--for", "1s"],
            cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_S, check=False,
            env={name: value for name, value in os.environ.items() if not name.startswith("TANDEM__")},
        )  # fmt: skip
    assert done.returncode != 0
    assert f"127.0.0.1:{port}" in done.stderr
    assert "the port is in use" in done.stderr
    assert "set control.listen" in done.stderr
    assert "TANDEM__CONTROL__LISTEN=" in done.stderr
    assert "Traceback" not in done.stderr
