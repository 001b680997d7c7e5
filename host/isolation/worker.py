"""The worker process: runs what its standard input names, strategies and quote models, until that ends or the host.

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
from host.isolation.model_stage import ModelStage
from host.isolation.process import ASKS_WHERE
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
    faulthandler.register(ASKS_WHERE, all_threads=False)
    parent = int(sys.argv[1])
    _die_with(parent)
    data = sys.stdin.buffer.read()
    if not data:
        sys.exit(0)  # it was kept in reserve, and is not needed
    assignment = Assignment.decode(data)
    _expect_little(assignment.memory_bytes)
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
    """One strategy, or quote model, and its way to the host."""

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", plan: SeatPlan, *, is_shared: bool) -> None:
        self.plan: Final = plan
        self.events: Final = context.socket(zmq.SUB)
        """Of its own: a socket for several seats would tell the host of each what the others subscribe to."""
        self.events.rcvhwm = 0  # flow control is the host's, which lets few events be on their way
        self.host_gone: Final = (
            self.events.get_monitor_socket(zmq.EVENT_DISCONNECTED | zmq.EVENT_CONNECT_RETRIED)
            if is_shared
            else None
        )
        """Has something to read once the host has shut its end. One that has the process to itself ends with that."""
        self.events.connect(plan.events)
        self.events.setsockopt(zmq.SUBSCRIBE, plan.key)
        self._turns = context.socket(zmq.PUSH)
        self._turns.linger = 1000  # its last words are heard
        self._turns.sndhwm = MOST_UNREAD
        self._turns.connect(plan.turns)
        self.stage: Stage | ModelStage | None = None
        self.is_given_up = False

    def send(self, body: bytes) -> None:
        try:
            self._turns.send(self.plan.key, zmq.SNDMORE | zmq.NOBLOCK)
            self._turns.send(body, zmq.NOBLOCK)
        except zmq.Again:
            self.is_given_up = True  # so much is unread: the host does not look at this strategy any more

    def open(self) -> None:
        """Import the plugin and put its class on stage; a class that cannot be had is told as a failure."""
        if self.plan.model_params:
            self.stage = ModelStage(self.plan, self.send)
            return
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

    def react(self, flags: int) -> bool:
        """Take in what is there by now, as the flags say; return whether there was anything."""
        most = REACT_AT_ONCE
        while most and (frames := self._receive(flags)) is not None:
            most, flags = most - 1, zmq.NOBLOCK
            if self.stage is not None and not self.stage.is_over:
                self._take_in(self.stage, frames[1])
        return most < REACT_AT_ONCE

    def _receive(self, flags: int) -> list[bytes] | None:
        try:
            return self.events.recv_multipart(flags)
        except zmq.Again:
            return None

    def _take_in(self, stage: Stage | ModelStage, body: bytes) -> None:
        try:
            stage.receive(body)
        except StageRefused as refused:
            stage.is_over = True
            print(f"instance {self.plan.instance}: {refused}", file=sys.stderr)

    def close(self) -> None:
        if self.host_gone is not None:
            self.events.disable_monitor()
            self.host_gone.close(linger=0)
        self.events.close()
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
        self._seats: Final = [
            _Seat(self._context, plan, is_shared=len(assignment.seats) > 1) for plan in assignment.seats
        ]
        self._wait_ms = -1

    def run(self) -> None:
        for seat in self._seats:
            seat.open()
        while seats := [seat for seat in self._seats if not seat.is_over]:
            self._wait_and_react(seats)
        for seat in self._seats:
            seat.close()
        self._context.term()

    def _wait_and_react(self, seats: list[_Seat]) -> None:
        wait_ms = LOOK_UP_MS
        for seat in seats:
            assert seat.stage is not None
            if not seat.stage.is_welcome:
                seat.stage.say_hello()
                wait_ms = min(wait_ms, HELLO_EVERY_MS)
            due_ns = seat.stage.next_timer_ns()
            if due_ns is not None:
                wait_ms = min(wait_ms, -(-due_ns // 1_000_000))
        has_reacted = self._alone(seats[0], wait_ms) if len(seats) == 1 else _together(seats, wait_ms)
        if not has_reacted and os.getppid() != self._parent:
            os._exit(1)
        for seat in seats:
            if seat.stage is not None:  # its host may have gone just now
                seat.stage.on_time()
                seat.stage.idle()

    def _alone(self, seat: _Seat, wait_ms: int) -> bool:
        # To wait in the socket itself takes less time than to ask for several.
        if wait_ms != self._wait_ms:
            self._wait_ms = seat.events.rcvtimeo = wait_ms
        return seat.react(0)


def _together(seats: list[_Seat], wait_ms: int) -> bool:
    sockets = [socket for seat in seats for socket in (seat.events, seat.host_gone) if socket is not None]
    ready, _, _ = zmq.select(sockets, [], [], wait_ms / 1000)
    for seat in seats:
        if seat.host_gone in ready:
            seat.stage = None  # and what it held
        elif seat.events in ready:
            seat.react(zmq.NOBLOCK)
    return bool(ready)


if __name__ == "__main__":
    main()
