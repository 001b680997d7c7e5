"""Where a node takes calls, as a client writes it."""

import ipaddress
import re
from pathlib import Path
from typing import Final

from msgspec import Struct

from host.api import TandemError
from host.config import NodeConfig

__all__ = ["Address", "AddressInvalid", "addresses_of"]

_TCP: Final = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9._-]+)):(?P<port>\d{1,5})")
_HERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""How this machine itself reaches a node that listens on every address."""


class AddressInvalid(TandemError):  # noqa: N818 - the fact, in the words users see
    """This is no address of a node. `text` is as written."""

    def __init__(self, text: str, expected: str) -> None:
        super().__init__(f'expected {expected}, was "{text}"')
        self.text = text


class Address(Struct, frozen=True):
    """One place where a node takes calls. `text` is as people write it."""

    text: str
    target: str
    """As gRPC writes it."""
    is_tls: bool
    """Whether it is spoken to over TLS: always, where other machines are on the way."""
    is_local: bool
    """Whether it cannot lead away from this machine."""

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Read `unix:PATH`, `HOST:PORT` or `[IPV6]:PORT`; raise `AddressInvalid`.

        Loopback is plain text unless `tls:` is in front; everything else is TLS, so that a token never
        crosses a wire in plain text. What starts with `/` or `.` is the path of a Unix socket.
        """
        if text.startswith(("unix:", "/", ".")):
            path = Path(text.removeprefix("unix:"))
            if not path.name or "\0" in text:
                raise AddressInvalid(text, "unix:PATH such as unix:var/tandem/control.sock")
            return cls(text, f"unix:{path.absolute()}", is_tls=False, is_local=True)
        match = _TCP.fullmatch(text.removeprefix("tls:"))
        if match is None or int(match["port"]) > 65_535:
            raise AddressInvalid(text, "unix:PATH, HOST:PORT or [IPV6]:PORT such as 127.0.0.1:7600")
        host = match["six"] or match["host"]
        try:
            ip = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
        except ValueError:
            if match["six"]:
                raise AddressInvalid(text, "an IPv6 address in brackets, such as [::1]:7600") from None
            return cls(text, f"dns:///{host}:{match['port']}", is_tls=True, is_local=False)
        target = f"ipv6:[{ip}]:{match['port']}" if ip.version == 6 else f"ipv4:{ip}:{match['port']}"
        is_tls = text.startswith("tls:") or not ip.is_loopback
        return cls(text, target, is_tls=is_tls, is_local=ip.is_loopback)

    def __str__(self) -> str:
        return self.text


def addresses_of(config: NodeConfig) -> tuple[Address, ...]:
    """Return where a client on this machine reaches the node of a configuration, the surest way first.

    The socket comes first: it is that node's and nobody else's, while a port may be another's by now.
    """
    return tuple(
        Address.parse(_from_here(text))
        for text in sorted(config.control_listen, key=lambda text: not text.startswith("unix:"))
        if text.startswith("unix:") or not text.endswith(":0")  # any free port: only the node knows which
    )


def _from_here(listen: str) -> str:
    """Return how this machine calls an address that a node listens on."""
    if listen.startswith("unix:"):
        return listen
    host, _, port = listen.removeprefix("tls:").rpartition(":")
    here = _HERE.get(host.strip("[]"))
    if here is None:
        return listen
    return f"tls:[{here}]:{port}" if ":" in here else f"tls:{here}:{port}"
