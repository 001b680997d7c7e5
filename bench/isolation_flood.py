"""What floods a client's door in `bench/isolation.py`, a process of its own: arguments DOOR KIND.

The token comes on standard input. It writes to the door's socket as fast as that takes it, thousands of messages at
once, and comes back whenever it is cut off, until it is ended; it says then what it offered and what was taken.
"""

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Final

import zmq

from bench.zmtp import connect, frame, message
from host.wire import JSON
from host.wire.messages import Hello, PutQuotes, Turn, Welcome

__all__ = ["KINDS", "main"]

MESSAGES: Final = 5_000
"""In what is written over and over."""
AT_ONCE: Final = 64 << 10
"""Bytes."""
OFFER_S: Final = 0.3
AGAIN_S: Final = 0.005
Load = tuple[bytes, Callable[[], None]]
"""What is written over and over, and what ends all that belongs to it."""
_GARBAGE: Final = b"{" + b"\xff" * 64


def orders(door: str, token: bytes) -> Load:
    """Attach as a client does, and return turns that are in order and want something, each of them valid."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    events, turns = context.socket(zmq.SUB), context.socket(zmq.PUSH)
    for end in (events, turns):
        end.linger = 0
    events.rcvhwm = 0
    events.setsockopt(zmq.SUBSCRIBE, token)
    events.connect(f"ipc://{door}.events.sock")
    turns.connect(f"ipc://{door}.turns.sock")
    run, deadline_s = str(time.time_ns()), time.monotonic() + 0.5
    while time.monotonic() < deadline_s:
        turns.send_multipart([token, JSON.encode(Hello(protocol=1, run=run))])
        while events.poll(20):
            welcome = JSON.decode_from_host(events.recv_multipart()[1])
            if isinstance(welcome, Welcome) and welcome.run == run:
                wish = (PutQuotes(welcome.symbols[0], ()),)
                first = welcome.next_turn
                bodies = (JSON.encode(Turn(seq=first + n, handled=0, requests=wish)) for n in range(MESSAGES))
                block = b"".join(message(token, body) for body in bodies)
                return block, lambda: _close(context, events, turns)
    _close(context, events, turns)
    raise ConnectionError("nobody let it in")


def _close(context: "zmq.Context[zmq.Socket[bytes]]", *ends: "zmq.Socket[bytes]") -> None:
    for end in ends:
        end.close()
    context.term()


def _nothing() -> None:
    """End nothing."""


def _of(body: Callable[[int], bytes]) -> Callable[[str, bytes], Load]:
    def build(_door: str, token: bytes) -> Load:
        return b"".join(message(token, body(number)) for number in range(MESSAGES)), _nothing

    return build


def subscriptions(_door: str, _token: bytes) -> Load:
    """Return wishes for what nobody has."""
    return b"".join(frame(b"\x01%08d" % number) for number in range(MESSAGES)), _nothing


def strangers(_door: str, _token: bytes) -> Load:
    """Return messages with another token."""
    return message(b"x" * 32, _GARBAGE) * MESSAGES, _nothing


KINDS: Final[dict[str, Callable[[str, bytes], Load]]] = {
    "orders": orders,
    "turns": _of(lambda number: JSON.encode(Turn(seq=number, handled=0))),
    "hellos": _of(lambda number: JSON.encode(Hello(protocol=1, run=str(number)))),
    "garbage": _of(lambda _number: _GARBAGE),
    "strangers": strangers,
    "subscriptions": subscriptions,
}


def offered_per_s(block: bytes) -> int:
    """Return how many of the messages a socket takes that is read without being looked at."""
    ours, theirs = socket.socketpair()
    child = os.fork()
    if not child:
        ours.close()
        while theirs.recv(1 << 20):
            pass
        os._exit(0)
    theirs.close()
    began_s, blocks = time.perf_counter(), 0
    while time.perf_counter() - began_s < OFFER_S:
        ours.sendall(block)
        blocks += 1
    took_s = time.perf_counter() - began_s
    ours.close()
    os.waitpid(child, 0)
    return round(blocks * MESSAGES / took_s)


class _Ended(Exception):  # noqa: N818 - no error
    """It is enough."""


def _end(_number: int, _frame: FrameType | None) -> None:
    raise _Ended


def main() -> None:
    """Flood with messages of one kind until SIGTERM."""
    door, kind = sys.argv[1], sys.argv[2]
    build = KINDS[kind]
    token = sys.stdin.buffer.readline().strip()
    name, role = ("events", b"SUB") if build is subscriptions else ("turns", b"PUSH")
    said = {"offered_per_s": 0, "taken": 0, "open_s": 0.0, "doors": 0}
    load = (b"", _nothing) if build is orders else build(door, token)
    said["offered_per_s"] = offered_per_s(load[0]) if load[0] else 0
    print("ready", flush=True)
    signal.signal(signal.SIGTERM, _end)
    try:
        while True:
            try:
                block, close = load if load[0] else build(door, token)
            except OSError:
                continue
            said["offered_per_s"] = said["offered_per_s"] or offered_per_s(block)
            _write(f"{door}.{name}.sock", role, block, said)
            close()
    except _Ended:
        said["open_s"] = round(said["open_s"], 3)
        print(json.dumps(said), flush=True)


def _write(path: str, role: bytes, block: bytes, said: dict[str, float]) -> None:
    try:
        link = connect(path, role)
    except OSError:
        time.sleep(AGAIN_S)
        return
    said["doors"] += 1
    link.settimeout(None)
    began_s, sent = time.perf_counter(), 0
    try:
        while True:
            at = sent % len(block)
            sent += link.send(memoryview(block)[at : at + AT_ONCE])
    except OSError:
        link.close()  # cut off
    finally:
        said["taken"] += sent * MESSAGES // len(block)
        said["open_s"] += time.perf_counter() - began_s
