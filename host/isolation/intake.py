"""What came over TCP and is not read yet: ZeroMQ keeps the parts of a message until it has the last one.

Whoever never sends that would fill the memory, and nothing of it shows in the socket. The kernel counts
what each connection has received.
"""

import socket
import struct
from typing import Final

__all__ = ["OVERHEAD", "Intake"]

OVERHEAD: Final = 128
"""At least what frames and encryption add to a message on its way, in bytes."""
HANDSHAKE: Final = 2048
"""At least what a connection begins with; CURVE takes 600."""
FORGIVEN: Final = 64
"""What may be more, bytes each time: heartbeats of ZeroMQ's own, and such."""
_RECEIVED: Final = struct.Struct("128xQ")
"""`tcpi_bytes_received` in Linux's `struct tcp_info`."""


class Intake:
    """Knows the connections to one TCP port by their descriptors, which belong to somebody else."""

    def __init__(self, port: int) -> None:
        self.read = 0
        """What was read since `unread` was asked before, in bytes; `OVERHEAD` is to be added for each message."""
        self._port: Final = port
        self._received: dict[int, int] = {}
        self._unread = 0

    def opened(self, descriptor: int) -> None:
        """Count what comes over a connection from here on."""
        self._received[descriptor] = 0
        self.read += HANDSHAKE

    def ended(self, descriptor: int) -> None:
        """Forget a connection."""
        self._received.pop(descriptor, None)

    def unread(self) -> int:
        """Return how many bytes came and were not read, or a little less."""
        came = 0
        for descriptor, before in self._received.items():
            received = self._received_by(descriptor)
            if received > before:
                came += received - before
                self._received[descriptor] = received
        # What is left is never less than nothing: that was a larger overhead than there is.
        self._unread = max(self._unread + came - self.read - FORGIVEN, 0)
        self.read = 0
        return self._unread

    def _received_by(self, descriptor: int) -> int:
        try:
            link = socket.socket(fileno=descriptor)
        except OSError:
            return 0  # it has ended, which is not told yet
        try:
            if link.family not in (socket.AF_INET, socket.AF_INET6) or link.getsockname()[1] != self._port:
                return 0  # ended, and its number is another's by now
            (received,) = _RECEIVED.unpack(
                link.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _RECEIVED.size)
            )
            return int(received)
        except OSError:
            return 0
        finally:
            link.detach()
