"""Whose connection is it? The kernel knows, for connections that do not leave the machine.

Loopback is shared by all users of a machine, so that "from 127.0.0.1" alone proves nothing. The
other end of such a connection is a socket of this kernel, which keeps the user who made it:
`sock_diag(7)` tells, for exactly one connection, in about 5 µs.
"""

import errno
import os
import socket
import struct
from typing import Final

__all__ = ["LocalPeers"]

_NETLINK_SOCK_DIAG: Final = 4
_SOCK_DIAG_BY_FAMILY: Final = 20
_NLM_F_REQUEST: Final = 1
_NLMSG_ERROR: Final = 2
_TCP_ESTABLISHED: Final = 1
_ANSWER_TIMEOUT_S: Final = 0.2

_HEADER: Final = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port id
_REQUEST: Final = struct.Struct("=BBBxI")  # inet_diag_req_v2 before its socket id
_PORTS: Final = struct.Struct("!HH")
_ANY_INTERFACE_AND_COOKIE: Final = struct.pack("=III", 0, 0xFFFFFFFF, 0xFFFFFFFF)
_ANSWER: Final = struct.Struct("=BBBB48sIIIII")  # inet_diag_msg: family, state, …, id, …, uid, inode


class LocalPeers:
    """Asks the kernel which user holds the other end of a TCP connection on this machine.

    Where it cannot be asked (another system than Linux, a sandbox), nobody's user is known.
    """

    def __init__(self) -> None:
        self._sequence = 0
        self._socket: socket.socket | None = None
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _NETLINK_SOCK_DIAG)
            self._socket.settimeout(_ANSWER_TIMEOUT_S)
        except (OSError, AttributeError) as error:
            self.why_not = f"this system does not tell whose a connection is ({error})"
        else:
            self.why_not = ""

    def uid(self, client: tuple[str, int], server: tuple[str, int]) -> int | None:
        """Return the user id at `client`, the end of an open connection to `server`; None if not known.

        Both are IP address and port. A connection that is being closed has no user any more.
        """
        if self._socket is None:
            return None
        family = socket.AF_INET6 if ":" in client[0] else socket.AF_INET
        try:
            ends = [socket.inet_pton(family, host).ljust(16, b"\0") for host, _ in (client, server)]
            return self._ask(family, _PORTS.pack(client[1], server[1]) + b"".join(ends))
        except (OSError, ValueError, struct.error):
            return None

    def close(self) -> None:
        """Give the socket back."""
        if self._socket is not None:
            self._socket.close()

    def _ask(self, family: int, connection: bytes) -> int | None:
        assert self._socket is not None
        self._sequence = (self._sequence + 1) & 0xFFFFFFFF
        body = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, 1 << _TCP_ESTABLISHED)
        body += connection + _ANY_INTERFACE_AND_COOKIE
        length = _HEADER.size + len(body)
        header = _HEADER.pack(length, _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, self._sequence, 0)
        self._socket.send(header + body)
        while True:
            answer = self._socket.recv(4096)
            _, kind, _, sequence, _ = _HEADER.unpack_from(answer)
            if sequence == self._sequence:  # else the late answer to a question given up
                break
        if kind == _NLMSG_ERROR:
            (code,) = struct.unpack_from("=i", answer, _HEADER.size)
            if code not in (-errno.ENOENT, 0):
                raise OSError(-code, os.strerror(-code))
            return None
        _, state, _, _, _, _, _, _, uid, inode = _ANSWER.unpack_from(answer, _HEADER.size)
        # Without an inode no process holds it, and the kernel shows user 0 for it: not root's.
        return uid if state == _TCP_ESTABLISHED and inode else None
