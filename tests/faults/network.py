"""Machines of a small network, each a network namespace: what is between them can be cut and healed.

The test's own machine is the switch in the middle: stores and venues run there and listen on
`Network.host`. Rules are those of each namespace, so that nothing of this machine's own is touched, and
what is dropped is dropped without a word, as on a real network.
"""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tests.servers import missing, require_program

__all__ = ["Network", "running_network"]

_TRIES = 200
_TABLE = (
    "add table inet tandem; "
    "add chain inet tandem leaving { type filter hook output priority 0; }; "
    "add chain inet tandem arriving { type filter hook input priority 0; }"
)


class Network:
    """Namespaces on a bridge. `host` is this machine's address there, `addresses` those of the others."""

    def __init__(self, number: int, names: Sequence[str]) -> None:
        self.host = f"10.231.{number}.1"
        self.addresses = {name: f"10.231.{number}.{10 + index}" for index, name in enumerate(names)}
        self._bridge = f"tdm{number}"

    def inside(self, name: str) -> list[str]:
        """Return what to put before a command that is to run on machine `name`; its pid stays the command's."""
        return ["ip", "netns", "exec", self._space(name)]

    def cut(self, name: str, other: str) -> None:
        """Drop whatever passes between two machines."""
        self._drop(name, f"ip daddr {self.addresses[other]}", f"ip saddr {self.addresses[other]}")

    def cut_off(self, name: str, port: int) -> None:
        """Drop whatever passes between machine `name` and the server at `port` of the host."""
        self._drop(name, f"ip daddr {self.host} tcp dport {port}", f"ip saddr {self.host} tcp sport {port}")

    def heal(self, name: str) -> None:
        """Let everything pass again that was cut at machine `name`."""
        self._nft(name, "flush chain inet tandem leaving; flush chain inet tandem arriving")

    def claim(self) -> bool:
        """Take its names; return False where another network has them."""
        return _try("ip", "link", "add", self._bridge, "type", "bridge")

    def build(self) -> None:
        """Set everything up under the names that it has claimed."""
        _do("ip", "addr", "add", f"{self.host}/24", "dev", self._bridge)
        _do("ip", "link", "set", self._bridge, "up")
        for name, address in self.addresses.items():
            space, link = self._space(name), f"{self._bridge}{name}"
            _do("ip", "netns", "add", space)
            _do("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", space)
            _do("ip", "link", "set", link, "master", self._bridge, "up")
            _do(*self.inside(name), "ip", "addr", "add", f"{address}/24", "dev", "eth0")
            _do(*self.inside(name), "ip", "link", "set", "eth0", "up")
            _do(*self.inside(name), "ip", "link", "set", "lo", "up")
            self._nft(name, _TABLE)

    def remove(self) -> None:
        """Take everything down; the processes in it must have ended."""
        for name in self.addresses:
            _try("ip", "netns", "del", self._space(name))
            _try("ip", "link", "del", f"{self._bridge}{name}")  # the kernel takes its time with the other end
        _try("ip", "link", "del", self._bridge)

    def _space(self, name: str) -> str:
        return f"{self._bridge}-{name}"

    def _drop(self, name: str, out: str, into: str) -> None:
        self._nft(name, f"add rule inet tandem leaving {out} drop; add rule inet tandem arriving {into} drop")

    def _nft(self, name: str, rules: str) -> None:
        _do(*self.inside(name), "nft", rules)


@contextmanager
def running_network(*names: str) -> Iterator[Network]:
    """Give a network of machines with these names (short ones) until the block ends.

    Skips the test, by name, where this user or this machine has no namespaces.
    """
    require_program("ip", "iproute2")
    require_program("nft", "nftables")
    probe = subprocess.run(["unshare", "--net", "true"], capture_output=True, text=True, check=False)
    if probe.returncode != 0:
        missing(f"this user may not make network namespaces: {probe.stderr.strip()}")
    networks = (Network(number, names) for number in range(1, _TRIES))
    network = next((one for one in networks if one.claim()), None)
    if network is None:
        raise RuntimeError("all names for a test's network are taken, or none can be made: see `ip link`")
    try:
        network.build()
        yield network
    finally:
        network.remove()


def _do(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")


def _try(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
