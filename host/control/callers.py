"""Works out who calls: from the token they sent, their certificate, their socket, or their user id.

A token that is sent decides: a wrong one is refused, even from where nobody needs one, so that a
caller never acts under another identity than the one they meant to.
"""

import os
import pwd
from collections.abc import Callable, Iterable
from typing import Final
from urllib.parse import unquote

from msgspec import Struct

from host.api import TandemError
from host.control.door import TlsDoor
from host.control.listen import TcpAddress
from host.control.local_peer import LocalPeers
from host.control.principal import NotAuthenticated, Principal, Role, Via
from host.control.tokens import TokenStore

__all__ = ["Caller", "Callers"]

_BEARER: Final = "bearer "
_HOW: Final = "send a token as the metadata `authorization: Bearer TOKEN` (`tandem token create` makes one)"


class Caller(Struct, frozen=True):
    """Who calls, and from where: `unix`, or IP address and port."""

    principal: Principal
    address: str


class Callers:
    """Names the caller of each call. `loopback_role` is what the node's own user may do over loopback.

    Root and the node's user are the same to us there: root can be anybody. Other users of the machine
    need a token. With None everybody on loopback does.
    """

    def __init__(
        self,
        tokens: TokenStore,
        now_ns: Callable[[], int],
        *,
        loopback_role: Role | None = Role.ADMIN,
    ) -> None:
        self._tokens = tokens
        self._now_ns = now_ns
        self._loopback_role = loopback_role
        self._loopback: list[tuple[str, int]] = []
        self._doors: list[TlsDoor] = []
        self._peers = LocalPeers()
        self._own_uid = os.geteuid()
        self._unix = Caller(Principal(_user(self._own_uid), Role.ADMIN, Via.UNIX_SOCKET), "unix")

    def listen_on_loopback(self, address: TcpAddress) -> None:
        """Take calls to this address too, as it was bound: with its real port."""
        self._loopback.append((address.host, address.port))

    def listen_behind(self, door: TlsDoor) -> None:
        """Take calls through this door too."""
        self._doors.append(door)

    def identify(self, peer: str, metadata: Iterable[tuple[str, str | bytes]]) -> Caller:
        """Return who makes a call, given gRPC's peer and the call's metadata; raise `NotAuthenticated`."""
        door = next((caller for door in self._doors if (caller := door.caller(peer)) is not None), None)
        address = address_of(peer) if door is None else door.address
        for key, value in metadata:
            if key == "authorization":
                return Caller(self._by_token(value), address)
        if door is not None:
            if door.refusal is not None:
                raise door.refusal
            if door.principal is None:
                raise NotAuthenticated("NO_CREDENTIALS", f"send a client certificate, or {_HOW}")
            return Caller(door.principal, address)
        if peer.startswith("unix:"):
            return self._unix
        return Caller(self._by_user(address), address)

    def address(self, peer: str) -> str:
        """Return where a call came from, for the audit log: also for a caller nobody knows."""
        for door in self._doors:
            if (caller := door.caller(peer)) is not None:
                return caller.address
        return address_of(peer)

    def close(self) -> None:
        """Give back what the kernel is asked with."""
        self._peers.close()

    def _by_token(self, value: str | bytes) -> Principal:
        text = value if isinstance(value, str) else value.decode("ascii", "replace")
        if not text.lower().startswith(_BEARER):
            raise NotAuthenticated("TOKEN_MALFORMED", "the metadata `authorization` should be `Bearer TOKEN`")
        try:
            principal = self._tokens.verify(text[len(_BEARER) :].strip(), self._now_ns())
        except TandemError as error:
            # What is wrong with a file of the node's is not the caller's to know.
            raise NotAuthenticated("TOKENS_UNREADABLE", "the node cannot read its tokens") from error
        if principal is None:
            raise NotAuthenticated("TOKEN_REFUSED", "this token is unknown, has expired or was revoked")
        return principal

    def _by_user(self, address: str) -> Principal:
        if self._loopback_role is None:
            raise NotAuthenticated("NO_CREDENTIALS", f"this node knows nobody by their user id: {_HOW}")
        uid = self._uid_at(address)
        if uid is None:
            why = self._peers.why_not or "the kernel does not say whose connection this is"
            raise NotAuthenticated("NO_CREDENTIALS", f"{why}: {_HOW}, or use the Unix socket")
        if uid not in (self._own_uid, 0):
            raise NotAuthenticated("OTHER_USER", f"the node runs as another user of this machine: {_HOW}")
        return Principal(_user(uid), self._loopback_role, Via.LOOPBACK)

    def _uid_at(self, address: str) -> int | None:
        host, _, port = address.rpartition(":")
        client = (host.strip("[]"), int(port)) if port.isdigit() else ("", 0)
        family = [server for server in self._loopback if (":" in server[0]) == (":" in client[0])]
        # One port of a client can lead to two of ours, and then to two users: that is nobody.
        found = {self._peers.uid(client, server) for server in family} - {None}
        return found.pop() if len(found) == 1 else None


def address_of(peer: str) -> str:
    """Return gRPC's peer as people write it: `ipv6:%5B::1%5D:7600` is `[::1]:7600`."""
    kind, _, rest = unquote(peer).partition(":")
    return rest if kind in ("ipv4", "ipv6") else "unix"


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid-{uid}"  # containers run as users that no file names
