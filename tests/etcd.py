"""Real etcd servers in a temporary folder on free loopback ports, for as long as a block runs."""

import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.servers import free_ports, require_program, stop, wait_for

PACKAGE = "etcd-server"


class EtcdMember:
    """One server; its port and its data stay the same over restarts."""

    def __init__(self, program: str, folder: Path, port: int, peer_port: int, options: list[str]) -> None:
        self.port = port
        self.process: subprocess.Popen[bytes] | None = None
        self._log = folder / "log"
        url = f"http://127.0.0.1:{port}"
        peer_url = f"http://127.0.0.1:{peer_port}"
        self._command = [
            *(program, "--data-dir", str(folder / "data"), "--logger", "zap"),
            *("--listen-client-urls", url, "--advertise-client-urls", url),
            *("--listen-peer-urls", peer_url, "--initial-advertise-peer-urls", peer_url),
            *options,
        ]

    def start(self) -> None:
        """Start without waiting for it to serve."""
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def wait(self) -> None:
        """Wait until it serves, which takes a leader."""
        wait_for(self._is_healthy, f"answer from etcd; its log is {self._log}")

    def stop(self) -> None:
        """End it."""
        if self.process is not None:
            stop(self.process)

    def _is_healthy(self) -> bool:
        if self.process is not None and self.process.poll() is not None:
            raise RuntimeError(f"etcd ended with {self.process.returncode}: {self._log.read_text()[-2000:]}")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=1) as answer:
                return b"true" in answer.read()
        except (urllib.error.URLError, OSError):
            return False


@contextmanager
def running_cluster(size: int, *options: str) -> Iterator[list[EtcdMember]]:
    """Run a cluster of `size` servers in a temporary folder until the block ends."""
    program = require_program("etcd", PACKAGE)
    with tempfile.TemporaryDirectory(prefix="tandem-etcd-") as name, ExitStack() as stack:
        ports = free_ports(2 * size)
        names = [f"m{number}" for number in range(size)]
        cluster = ",".join(f"{names[i]}=http://127.0.0.1:{ports[size + i]}" for i in range(size))
        members = []
        for i in range(size):
            folder = Path(name) / names[i]
            folder.mkdir()
            own = ["--name", names[i], "--initial-cluster", cluster, *options]
            members.append(EtcdMember(program, folder, ports[i], ports[size + i], own))
        for member in members:
            stack.callback(member.stop)
            member.start()
        for member in members:
            member.wait()
        yield members


def lease_url(members: list[EtcdMember]) -> str:
    """Return the lease URL of a cluster."""
    return "etcd://" + ",".join(f"127.0.0.1:{member.port}" for member in members)
