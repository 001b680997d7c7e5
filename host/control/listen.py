"""Where the control API listens, and what a caller there has to prove.

A Unix socket in a folder that only the node's own user can enter, and TCP on loopback, work without
TLS. Everything else can be reached by other machines, so that it is encrypted and every caller has
a certificate or a token; a configuration that says otherwise is refused before anything listens.
"""

import ipaddress
import os
import re
import socket
import stat
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Final

from msgspec import Struct

from host.api import TandemError
from host.config.private_files import PRIVATE_FOLDER, make_private_folder

__all__ = [
    "ListenRefused",
    "Listener",
    "Security",
    "TcpAddress",
    "UnixAddress",
    "claim_unix_socket",
    "parse_listen",
    "plan_listeners",
]

SOCKET_PATH_LIMIT: Final = 107
"""Bytes that the kernel has for the path of a Unix socket (`sun_path`, without its end mark)."""
_CONNECT_TIMEOUT_S: Final = 1.0
_TCP: Final = re.compile(r"(?:\[(?P<six>[^\]]+)\]|(?P<host>[^:\[\]]*)):(?P<port>\d+)")


class ListenRefused(TandemError):  # noqa: N818 - a refusal is an answer, not a malfunction
    """An address cannot be listened on, or not safely. `address` is as written; the text says the fix."""

    def __init__(self, address: str, text: str) -> None:
        super().__init__(f'control.listen "{address}": {text}')
        self.address = address
        self.text = text


class UnixAddress(Struct, frozen=True):
    """A Unix socket."""

    path: Path

    def __str__(self) -> str:
        return f"unix:{self.path}"


class TcpAddress(Struct, frozen=True):
    """An IP address and a port; port 0 is any free one."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Return whether only this machine can reach it."""
        return ipaddress.ip_address(self.host).is_loopback

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Security(StrEnum):
    """How callers at an address are known."""

    SOCKET_FOLDER = "socket_folder"
    """No TLS: whoever can reach the socket is the node's own user."""
    LOOPBACK = "loopback"
    """No TLS: the kernel says whose connection it is; a token is taken too."""
    TLS = "tls"
    """TLS, and a client certificate or a token."""


class Listener(Struct, frozen=True):
    """One address that may be listened on, and how."""

    address: UnixAddress | TcpAddress
    security: Security


def parse_listen(text: str) -> UnixAddress | TcpAddress:
    """Read `unix:PATH`, `HOST:PORT` or `[IPV6]:PORT`; raise `ListenRefused`.

    HOST is an IP address: a name may come to mean another address after it was judged. `localhost` is
    taken for 127.0.0.1. A leading `tls:` is taken off; `plan_listeners` minds it.
    """
    if text.startswith("unix:"):
        path = Path(text.removeprefix("unix:"))
        if not path.name or "\0" in text:
            raise ListenRefused(text, "expected unix:PATH such as unix:var/a/control.sock")
        if len(os.fsencode(path)) > SOCKET_PATH_LIMIT:
            raise ListenRefused(
                text,
                f"the path of a Unix socket may have {SOCKET_PATH_LIMIT} bytes, this one has "
                f"{len(os.fsencode(path))}; use a relative path, or a folder such as /run/tandem",
            )
        return UnixAddress(path)
    match = _TCP.fullmatch(text.removeprefix("tls:"))
    if match is None:
        raise ListenRefused(text, "expected unix:PATH, HOST:PORT or [IPV6]:PORT such as 127.0.0.1:7600")
    host, port = match["six"] or match["host"], int(match["port"])
    if port > 65535:
        raise ListenRefused(text, f"a port is at most 65535, was {port}")
    try:
        return TcpAddress(str(ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)), port)
    except ValueError:
        hint = "0.0.0.0 for every address of this machine, 127.0.0.1 for this machine alone"
        raise ListenRefused(text, f'expected an IP address, was "{host}"; write {hint}') from None


def plan_listeners(
    listen: Sequence[str], *, has_server_certificate: bool, has_caller_proof: bool
) -> list[Listener]:
    """Decide how each address is secured; raise `ListenRefused` for the first that cannot be.

    `has_server_certificate`: TLS is configured. `has_caller_proof`: a CA for client certificates is
    configured, or there is a token.
    """
    listeners: list[Listener] = []
    for text in listen:
        address = parse_listen(text)
        if any(known.address == address and getattr(address, "port", 1) for known in listeners):
            raise ListenRefused(text, "is listed twice; remove one")
        if isinstance(address, UnixAddress):
            listeners.append(Listener(address, Security.SOCKET_FOLDER))
        elif address.is_loopback and not text.startswith("tls:"):
            listeners.append(Listener(address, Security.LOOPBACK))
        else:
            if not has_server_certificate:
                raise ListenRefused(
                    text,
                    f"{'it says tls:' if address.is_loopback else 'other machines may reach this address'}, so "
                    "it needs a certificate of the node's own. Make one with "
                    "`tandem certs init`, which prints the [control.tls] section to add; or listen on "
                    f"127.0.0.1:{address.port} and come in through ssh or a VPN",
                )
            if not has_caller_proof:
                raise ListenRefused(
                    text,
                    "callers there have to prove who they are: set control.tls.client_ca (see `tandem certs "
                    "init`), or create a token with `tandem token create NAME --role ROLE`",
                )
            listeners.append(Listener(address, Security.TLS))
    return listeners


def claim_unix_socket(address: UnixAddress, data_dir: Path) -> None:
    """Make the socket's folder safe and remove what a dead process left; call it before listening.

    The folder is created with mode 0700, or must have it and be ours. `data_dir` itself is the
    node's own and is given that mode. Raises `NotPrivate`, or `ListenRefused` where another process
    listens or the name is taken: gRPC would silently take the socket away from its owner.
    """
    folder = address.path.parent
    if folder.is_dir() and folder.resolve() == data_dir.resolve() and folder.stat().st_uid == os.geteuid():
        folder.chmod(PRIVATE_FOLDER)
    make_private_folder(folder)
    try:
        found = address.path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise ListenRefused(str(address), "there is a file of that name which is no socket; move it away")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_CONNECT_TIMEOUT_S)
        try:
            probe.connect(str(address.path))
        except ConnectionRefusedError:
            address.path.unlink(missing_ok=True)
            return
        except OSError as error:
            raise ListenRefused(str(address), f"cannot tell whether it is in use: {error}") from error
    raise ListenRefused(str(address), "another process listens there; stop it, or take another path")
