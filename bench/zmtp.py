"""ZMTP 3.1, written by hand, as far as it takes to send a million messages a second: what no library here does.

`rfc.zeromq.org/spec/37`: a greeting, then `READY`, then frames: flags, length, body.
"""

import socket
import struct

__all__ = ["connect", "frame", "message"]

_GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x01" + b"NULL".ljust(20, b"\0") + bytes(32)
_MORE, _LONG, _COMMAND = 1, 2, 4
PATIENCE_S = 5.0


def frame(body: bytes, *, has_more: bool = False, flags: int = 0) -> bytes:
    """Return the bytes of one frame."""
    flags |= _MORE if has_more else 0
    if len(body) < 256:
        return bytes([flags, len(body)]) + body
    return bytes([flags | _LONG]) + struct.pack(">Q", len(body)) + body


def message(*parts: bytes) -> bytes:
    """Return the bytes of a message of several frames."""
    *first, last = parts
    return b"".join(frame(part, has_more=True) for part in first) + frame(last)


def connect(address: str | tuple[str, int], kind: bytes) -> socket.socket:
    """Return a connection as a `kind` of socket such as `PUSH`; raise `OSError` without one.

    `address` is a path, or a host and a port.
    """
    link = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
    try:
        link.settimeout(PATIENCE_S)
        link.connect(address)
        link.sendall(_GREETING)
        _read(link, len(_GREETING))
        properties = b"\x0bSocket-Type" + struct.pack(">I", len(kind)) + kind
        link.sendall(frame(b"\x05READY" + properties, flags=_COMMAND))
        _, length = _read(link, 2)
        _read(link, length)
    except OSError:
        link.close()
        raise
    return link


def _read(link: socket.socket, length: int) -> bytes:
    read = b""
    while len(read) < length:
        some = link.recv(length - len(read))
        if not some:
            raise ConnectionResetError("it hung up within the handshake")
        read += some
    return read
