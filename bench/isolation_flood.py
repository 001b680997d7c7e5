"""What floods a client's door in `bench/isolation.py`, a process of its own: arguments ADDRESS KIND.

The token comes on standard input. It sends as fast as it can until it is ended.
"""

import sys
from itertools import count

import zmq

from host.wire import JSON
from host.wire.messages import Hello, Turn

__all__ = ["KINDS", "main"]

KINDS = ("garbage", "hellos", "turns", "strangers")


def main() -> None:
    """Send messages of one kind without end."""
    address, kind = sys.argv[1], sys.argv[2]
    token = b"x" * 32 if kind == "strangers" else sys.stdin.buffer.readline().strip()
    with zmq.Context() as context, context.socket(zmq.PUSH) as socket:
        socket.linger = 0
        socket.connect(address)
        for number in count():
            if kind == "turns":
                body = JSON.encode(Turn(seq=number, handled=0))
            elif kind == "hellos":
                body = JSON.encode(Hello(protocol=1, run=str(number)))
            else:
                body = b"{" + b"\xff" * 64
            socket.send(token, zmq.SNDMORE)
            socket.send(body)
