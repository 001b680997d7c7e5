"""`client` of an `[[instance]]`: where a stand-alone strategy attaches, and what it is held to.

`find_client_mistakes` judges a tree of any shape: what is wrong with the shape is reported elsewhere.
"""

import ipaddress
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal

from msgspec import Struct

from host.config.check_failover import Finding
from host.config.numbers import Positive
from host.config.sources import KeyPath

__all__ = ["TCP_ADDRESS", "ClientSection", "find_client_mistakes"]

TCP_ADDRESS: Final = re.compile(r"tcp://(?P<host>\[[0-9a-fA-F:.]+\]|[^\s:/\[\]]+):(?P<port>[0-9]{1,5})")
LAST_PORT: Final = 65_534
"""Turns are on the port after the one that is given."""
_REFERENCE: Final = re.compile(r"(secret|env|file):.+")


class ClientSection(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a program that runs the strategy of an instance with `isolation = "client"` reaches the host."""

    listen: str = "ipc"
    """`ipc`, which is sockets in `data_dir/clients`, or `tcp://HOST:PORT`: events there, turns on the next port."""
    curve: bool = False
    """Whether what goes over TCP is encrypted; it must be where other machines can reach the address."""
    token: str = ""
    """What the client shows: `secret:NAME`, `env:VARIABLE` or `file:PATH`. Empty is the file that the host makes."""
    deadline_ms: Positive = 1_000
    """A client that handles nothing for so long, though there is something to handle, is gone."""
    on_loss: Literal["pull", "keep"] = "pull"
    """Its resting orders while no client is there: cancelled, or kept until it is back."""


def find_client_mistakes(tree: Mapping[str, Any]) -> Iterator[Finding]:
    """Find addresses that are none, taken, or open to other machines in the clear, and tokens written out."""
    instances = tree.get("instance")
    taken: dict[tuple[str, int], str] = {}
    for index, entry in enumerate(instances if isinstance(instances, list) else []):
        client = entry.get("client") if isinstance(entry, dict) else None
        if not isinstance(client, dict):
            continue
        at = ("instance", index, "client")
        token = client.get("token")
        if isinstance(token, str) and token and not _REFERENCE.fullmatch(token):
            # It may be the token itself, which must not come into a message.
            text = 'expected "secret:NAME", "env:VARIABLE" or "file:PATH"; a token never stands in a configuration'
            yield (*at, "token"), text
        listen = client.get("listen", "ipc")
        if isinstance(listen, str) and listen != "ipc":
            found = TCP_ADDRESS.fullmatch(listen)
            if found is None or not 0 < int(found["port"]) <= LAST_PORT:
                text = f'expected "ipc" or "tcp://HOST:PORT" with a port up to {LAST_PORT}, was "{listen}"'
                yield (*at, "listen"), text
            elif not _is_loopback(found["host"]) and client.get("curve") is not True:
                text = f'"{listen}" can be reached from other machines, and needs curve = true'
                yield (*at, "listen"), text
            if found is not None and entry.get("isolation") == "client":
                yield from _taken(found, str(entry.get("name")), taken, (*at, "listen"))


def _taken(
    found: re.Match[str], name: str, taken: dict[tuple[str, int], str], at: KeyPath
) -> Iterator[Finding]:
    """Find that another instance listens there. Each takes two ports, of which one is written."""
    host = "127.0.0.1" if found["host"] == "localhost" else found["host"]
    first = int(found["port"])
    for port in (first, first + 1):
        other = taken.setdefault((host, port), name)
        if other != name:
            yield (
                at,
                f'expected two free ports, {first} for events and {first + 1} for turns, was "{found[0]}", and '
                f"instance {other} has {port}; take others",
            )
            return


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
