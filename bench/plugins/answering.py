"""Answers every quote with two orders that move; on request, every message with the same bytes, and nothing else."""

import gc
import os
import signal
import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import zmq

from host.api import BookTop, Params, Quote, State, Strategy


class AnsweringParams(Params, frozen=True):
    """Parameters of `Answering`."""

    quotes: bool = True
    """Whether it quotes; without, it only counts."""
    echo: str = ""
    """Where to find the sockets of a bare ping-pong, once this differs from what it was."""
    rounds: int = 0
    """How many messages that has."""
    fault: str = ""
    """What to do instead with the next quote: a key of `FAULTS`."""


class AnsweringState(State):
    """How much it has heard."""

    events: int = 0


class Answering(Strategy[AnsweringParams]):
    """Quote at two distances in turn, so that no tick leaves an order where it was."""

    state: AnsweringState

    def on_book(self, book: BookTop) -> None:
        """Move both quotes."""
        self.state.events += 1
        p = self.params
        if p.fault:
            FAULTS[p.fault]()
        if p.quotes:
            step = 0.2 if self.state.events % 2 else 0.0
            bid, ask = book.mid * 0.9995 - step, book.mid * 1.0005 + step
            self.quote(book.symbol, Quote(bid, Decimal("0.010"), ask, Decimal("0.010")))

    def on_params(self, old: AnsweringParams) -> None:
        """Play ping-pong, if that is what changed."""
        p = self.params
        if p.rounds and p.echo != old.echo:
            echo(p.echo, p.rounds)


def echo(address: str, rounds: int) -> None:
    """Answer each message with the one that came first."""
    with zmq.Context() as context, context.socket(zmq.PULL) as pings, context.socket(zmq.PUSH) as pongs:
        pings.connect(f"{address}.pings")
        pongs.connect(f"{address}.pongs")
        answer = pings.recv_multipart()
        key, body = answer
        pongs.send(key, zmq.SNDMORE)
        pongs.send(body)
        for _ in range(rounds):
            pings.recv_multipart()
            pongs.send(key, zmq.SNDMORE)
            pongs.send(body)


def _spin() -> None:
    while True:
        pass


def _allocate() -> None:
    held = []
    while True:
        held.append(bytearray(1 << 20))


def _segfault() -> None:
    import ctypes

    ctypes.string_at(0)


def _sleep() -> None:
    time.sleep(3600)


def _flood() -> None:
    """Write to the host past ZeroMQ, from its worker's own place, as fast as the socket takes it."""
    from bench.zmtp import connect, message

    seat: Any = next(one for one in gc.get_objects() if type(one).__name__ == "_Seat")
    block = message(seat.plan.key, b"no message") * 20_000
    link = connect(seat.plan.turns.removeprefix("ipc://"), b"PUSH")
    link.settimeout(None)
    while True:
        link.sendall(block)


FAULTS: dict[str, Callable[[], None]] = {
    "spin": _spin,
    "allocate": _allocate,
    "segfault": _segfault,
    "sleep": _sleep,
    "stopped": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "floods": _flood,
    "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
}
