"""The worker process: runs the strategies that its standard input names, until they end or the host does.

    python -m host.isolation.worker PARENT

It waits for its assignment with everything imported, so that one kept in reserve is at work at once. One
thread: wait for events, call the strategy, send what it wants. It dies with the host, whatever the strategy
does, because the kernel sees to that.
"""

import ctypes
import faulthandler
import os
import resource
import secrets
import signal
import sys
from collections.abc import Mapping
from typing import Any, Final

import zmq

from host.api import Strategy, TandemError
from host.isolation.assignment import Assignment, SeatPlan
from host.isolation.model_worker import run_model
from host.loader import Kind, Offer, import_version, make
from host.loader.offers import collect_offers, new_manager
from host.runtime.plugin_errors import describe_error
from host.wire import MSGPACK
from host.wire.messages import Failed
from host.wire.stage import Stage, StageRefused

__all__ = ["main"]

_PR_SET_PDEATHSIG: Final = 1
HELLO_EVERY_MS: Final = 5
REACT_AT_ONCE: Final = 64
"""Messages after which timers get their turn."""
MOST_UNREAD: Final = 100_000
LOOK_UP_MS: Final = 200
"""How often an idle worker looks whether its parent is still the host."""
SPARE_BYTES: Final = 256 << 20
"""How far past its limit a worker may ask for memory: the host, which measures what it holds, is to be first."""


def main() -> None:
    """Run until every strategy has ended; exit at once then, without waiting for threads of plugins."""
    faulthandler.enable()
    parent = int(sys.argv[1])
    _die_with(parent)
    data = sys.stdin.buffer.read()
    if not data:
        sys.exit(0)  # it was kept in reserve, and is not needed
    assignment = Assignment.decode(data)
    _expect_little(assignment.memory_bytes)
    if assignment.seats[0].model_params:
        run_model(assignment.seats[0], parent)
    else:
        _Worker(assignment, parent).run()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _die_with(parent: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)


def _expect_little(memory_bytes: int) -> None:
    """Refuse memory far beyond the limit, and be the first to go where the machine runs out of it."""
    limit = memory_bytes + SPARE_BYTES
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard == resource.RLIM_INFINITY or hard > limit:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:  # noqa: PTH123 - no path of ours
        file.write("1000")


class _Seat:
    """One strategy and its way to the host."""

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", plan: SeatPlan) -> None:
        self.plan: Final = plan
        self._turns = context.socket(zmq.PUSH)
        self._turns.linger = 1000  # its last words are heard
        self._turns.sndhwm = MOST_UNREAD
        self._turns.connect(plan.turns)
        self.stage: Stage | None = None
        self.is_given_up = False

    def send(self, body: bytes) -> None:
        try:
            self._turns.send(self.plan.key, zmq.SNDMORE | zmq.NOBLOCK)
            self._turns.send(body, zmq.NOBLOCK)
        except zmq.Again:
            self.is_given_up = True  # so much is unread: the host does not look at this strategy any more

    def open(self) -> None:
        """Import the plugin and put its class on stage; a class that cannot be had is told as a failure."""
        try:
            offer = _offer_of(self.plan)
        except TandemError as error:
            self.send(MSGPACK.encode(Failed("importing its plugin", str(error))))
            return

        def construct(params: Mapping[str, object]) -> Strategy[Any]:
            strategy: Strategy[Any] = make(offer, params, instance=self.plan.instance)
            return strategy

        self.stage = Stage(
            offer.cls,
            construct,
            MSGPACK,
            self.send,
            run=secrets.token_hex(8),
            client=f"worker {os.getpid()}",
            describe=describe_error,
        )

    def close(self) -> None:
        self._turns.close()

    @property
    def is_over(self) -> bool:
        return self.stage is None or self.stage.is_over or self.is_given_up


def _offer_of(plan: SeatPlan) -> Offer:
    version = plan.version
    offers = collect_offers(new_manager(), import_version(version), version)
    for offer in offers:
        if offer.kind is Kind.STRATEGY and offer.name == plan.offer:
            return offer
    names = ", ".join(offer.name for offer in offers)
    raise TandemError(f"plugin {version.name} offers no strategy {plan.offer}; it offers {names}")


class _Worker:
    def __init__(self, assignment: Assignment, parent: int) -> None:
        self._parent: Final = parent
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._events = self._context.socket(zmq.SUB)
        self._events.rcvhwm = 0  # flow control is the host's, which lets few events be on their way
        self._wait_ms = -1
        self._seats: dict[bytes, _Seat] = {}
        for plan in assignment.seats:
            self._events.connect(plan.events)
            self._events.setsockopt(zmq.SUBSCRIBE, plan.key)
            self._seats[plan.key] = _Seat(self._context, plan)

    def run(self) -> None:
        for seat in self._seats.values():
            seat.open()
        while seats := [seat for seat in self._seats.values() if not seat.is_over]:
            self._wait_and_react(seats)
        for seat in self._seats.values():
            seat.close()
        self._context.term()

    def _wait_and_react(self, seats: list[_Seat]) -> None:
        events = self._events
        wait_ms = LOOK_UP_MS
        for seat in seats:
            assert seat.stage is not None
            if not seat.stage.is_welcome:
                seat.stage.say_hello()
                wait_ms = min(wait_ms, HELLO_EVERY_MS)
            due_ns = seat.stage.next_timer_ns()
            if due_ns is not None:
                wait_ms = min(wait_ms, -(-due_ns // 1_000_000))
        if wait_ms != self._wait_ms:
            self._wait_ms = events.rcvtimeo = wait_ms
        frames = self._receive(0)
        if frames is None and os.getppid() != self._parent:
            os._exit(1)
        most = REACT_AT_ONCE
        while frames is not None:  # what is there by now, before it says how far it got
            self._react(frames)
            most -= 1
            frames = self._receive(zmq.NOBLOCK) if most else None
        for seat in seats:
            assert seat.stage is not None
            seat.stage.on_time()
            seat.stage.idle()

    def _receive(self, flags: int) -> list[bytes] | None:
        try:
            return self._events.recv_multipart(flags)
        except zmq.Again:
            return None

    def _react(self, frames: list[bytes]) -> None:
        seat = self._seats.get(frames[0])
        if seat is None or seat.stage is None or seat.stage.is_over:
            return
        try:
            seat.stage.receive(frames[1])
        except StageRefused as refused:
            seat.stage.is_over = True
            print(f"instance {seat.plan.instance}: {refused}", file=sys.stderr)


if __name__ == "__main__":
    main()
