"""`client` of an `[[instance]]`: where a stand-alone strategy attaches, and what it is held to.

`find_client_mistakes` judges a tree of any shape: what is wrong with the shape is reported elsewhere.
"""

import ipaddress
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct

from host.config.check_failover import Finding

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
    deadline_ms: Annotated[int, Meta(gt=0)] = 1_000
    """A client that handles nothing for so long, though there is something to handle, is gone."""
    on_loss: Literal["pull", "keep"] = "pull"
    """Its resting orders while no client is there: cancelled, or kept until it is back."""


def find_client_mistakes(tree: Mapping[str, Any]) -> Iterator[Finding]:
    """Find addresses that are none, or that are open to other machines in the clear, and tokens written out."""
    instances = tree.get("instance")
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


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
