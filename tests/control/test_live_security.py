"""A node as its operators run it: whoever should not get in is refused, and its audit log says so."""

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import grpc
import pytest
from security_tools import PATIENCE_S, Site

from host.control.audit_chain import AuditLine, decode_line, read_lines
from host.control.principal import Role
from host.journal import read
from tandem.v1 import node_pb2, node_pb2_grpc

Call = Callable[["node_pb2_grpc.NodeServiceAsyncStub"], Awaitable[object]]

CONFIG = """
[node]
name = "a"
data_dir = "{folder}/data"
journal_segment_kb = 256

[control]
listen = ["tls:127.0.0.1:0", "127.0.0.1:0"]

[control.tls]
certificate = "{site.node[0]}"
key = "{site.node[1]}"
client_ca = "{site.folder}/certs/ca.crt"

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


class LiveNode:
    """`tandem run` in a process of its own."""

    def __init__(self, folder: Path, site: Site) -> None:
        self.folder = folder
        self.site = site
        config = folder / "tandem.toml"
        config.write_text(CONFIG.format(folder=folder, site=site))
        code = "import sys; from host.cli import main; main(sys.argv[1:])"
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, "run", "-c", str(config)],
            stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, cwd=folder,
            env={name: value for name, value in os.environ.items() if not name.startswith("TANDEM__")},
        )  # fmt: skip
        assert self.process.stderr is not None
        said = ""
        for line in self.process.stderr:
            said += line
            if "control API on" in line:
                ports = re.findall(r"127\.0\.0\.1:(\d+)", line)
                # TLS is listened on last: its socket inside has to be there first.
                site.loopback_port, site.tls_port = int(ports[0]), int(ports[1])
                return
        raise AssertionError(f"the node ended with {self.process.wait()}: {said}")

    def stop(self) -> list[AuditLine]:
        """Stop the node and return its audit log."""
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=PATIENCE_S)
        assert self.process.returncode == 0
        return [decode_line(line) for _, _, line in read_lines(self.folder / "data/control/audit")]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[LiveNode]:
    node = LiveNode(tmp_path, Site(tmp_path / "site"))
    yield node
    node.process.kill()
    node.process.communicate()


async def status_code(call: Call, channel: grpc.aio.Channel) -> str:
    async with channel:
        try:
            await call(node_pb2_grpc.NodeServiceStub(channel))
        except grpc.aio.AioRpcError as error:
            return error.code().name
        return "OK"


def test_nobody_gets_in_who_should_not_and_the_audit_log_says_so(node: LiveNode) -> None:
    site = node.site

    def look(token: str = "") -> Call:
        metadata = (("authorization", f"Bearer {token}"),) if token else ()
        return lambda stub: stub.GetStatus(node_pb2.GetStatusRequest(), metadata=metadata, timeout=PATIENCE_S)

    def shut_down(stub: "node_pb2_grpc.NodeServiceAsyncStub") -> Awaitable[object]:
        return stub.Shutdown(node_pb2.ShutdownRequest(), timeout=PATIENCE_S)

    async def story() -> list[str]:
        viewer = site.client("vera", Role.VIEWER)
        return [
            await status_code(look(), site.over_tls(viewer)),
            await status_code(look(), site.in_plain_text(site.loopback_port)),
            await status_code(look(), site.over_tls()),
            await status_code(look("tandem_00000000_" + "x" * 43), site.over_tls()),
            await status_code(shut_down, site.over_tls(viewer)),
            await status_code(look(), site.over_tls(site.client("old", Role.ADMIN, days_ago=3))),
            await status_code(look(), site.in_plain_text(site.tls_port)),
        ]

    assert asyncio.run(story()) == [
        "OK", "OK", "UNAUTHENTICATED", "UNAUTHENTICATED", "PERMISSION_DENIED", "UNAVAILABLE", "UNAVAILABLE",
    ]  # fmt: skip
    assert node.process.poll() is None
    records = node.stop()
    told = {(r.outcome, r.who, r.method.rpartition("/")[2]) for r in records}
    assert {
        ("UNAUTHENTICATED", "", "GetStatus"),
        ("PERMISSION_DENIED", "vera", "Shutdown"),
        ("CERTIFICATE_REFUSED", "", "connect"),
        ("PLAIN_TEXT", "", "connect"),
    } == told
    assert all(r.from_.startswith("127.0.0.1:") for r in records)
    assert any(
        "no client certificate" in r.detail or "send a client certificate" in r.detail for r in records
    )
    assert any("unknown, has expired or was revoked" in r.detail for r in records)
    assert any("certificate has expired" in r.detail for r in records)


def test_the_journal_proves_the_audit_log_of_a_node(node: LiveNode) -> None:
    site = node.site

    async def story() -> None:
        channel = site.in_plain_text(site.loopback_port)
        request = node_pb2.SetLogLevelRequest(level=node_pb2.LOG_LEVEL_WARNING)
        assert await status_code(lambda stub: stub.SetLogLevel(request, timeout=PATIENCE_S), channel) == "OK"

    asyncio.run(story())
    (record,) = node.stop()
    assert (record.outcome, record.via, record.before, record.after) == ("OK", "loopback", "INFO", "WARNING")
    anchors = [
        r.entry for r in read(node.folder / "data/journal") if type(r.entry).__name__ == "AuditAnchored"
    ]
    assert [(a.seq, a.hash) for a in anchors] == [(record.seq, record.hash)]  # type: ignore[union-attr]
