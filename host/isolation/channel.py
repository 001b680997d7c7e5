"""The two sockets of one worker or client: events to it, turns from it.

Read by the loop through the socket's file descriptor, which is edge-triggered: it says once that
something came, so everything is read then, a slice at a time. Sending never blocks and never waits.

Whoever connects can send what it likes, the token or not. What is bounded here, each by a number below: the time of
the loop, by slices and pauses; the memory, by the messages that may wait times what each may have; the
connections. What goes beyond is a `fault`, for which the owner shuts the channel.
"""

import asyncio
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import zmq
from zmq.utils.monitor import recv_monitor_message

from host.isolation.conduct import FLOOD_NS, Tally
from host.isolation.intake import OVERHEAD, Intake

__all__ = ["MOST_STRANGERS", "Channel"]

READ_FOR_NS: Final = 50_000
"""How long messages are read before the loop gets its turn: a flood must not hold up anybody else."""
MOST_MESSAGE_BYTES: Final = 4 << 20
"""A longer message has its sender disconnected."""
MOST_WISH_BYTES: Final = 512
"""The same for a subscription: the longest token has half of that."""
_NOBLOCK: Final = int(zmq.NOBLOCK)
_MORE_NOBLOCK: Final = int(zmq.NOBLOCK | zmq.SNDMORE)
"""As numbers: combining the enumeration's members takes longer than sending."""
QUEUE: Final = 16_384
"""Events that may be on their way; flow control keeps far below it."""
TURNS_WAITING: Final = 64
"""Messages that may wait here to be read; the next ones wait with their sender."""
WISHES_WAITING: Final = 16
"""Subscriptions that may wait inside ZeroMQ. It goes through all of them whenever the socket is touched, and, where
more could come meanwhile, through those as well: without a small limit a flood of them would stop the loop."""
WISHES_AT_ONCE: Final = 600
MOST_STRANGERS: Final = 500
"""Messages and subscriptions without the key within 0.1 s, ..."""
MOST_CONNECTIONS: Final = 64
"""... and connections to a socket, of which a peer needs one: made and subscribed within 0.1 s, or open."""
MOST_UNREAD_BYTES: Final = 128 << 20
"""Over TCP: what may have come and not be read, parts of messages that never end among it. Who may enter the folder of
an IPC socket is the same user, who has other ways to the memory."""
_TCP_PORT: Final = re.compile(r"tcp://.*:([0-9]+)")
HANDSHAKE_MS: Final = 2_000
"""How long a connection may take to say what it is."""


class Channel:
    """Belongs to the running loop; nothing is read before `open`.

    The key is the topic of the events, too, and no other subscription is granted: who does not know it
    can neither send nor listen. What came without it, or with other frames than a key and a body, is
    counted in the tally's `strangers`.
    """

    def __init__(
        self,
        context: "zmq.Context[zmq.Socket[bytes]]",
        events: str,
        turns: str,
        key: bytes,
        *,
        curve: tuple[bytes, bytes] | None = None,
        most_strangers: int = MOST_STRANGERS,
        tally: Tally | None = None,
    ) -> None:
        self.events_address: Final = events
        self.turns_address: Final = turns
        self.tally: Final = tally or Tally()
        self.connections = 0
        """Those that are open."""
        self._is_backed_up = False
        """Whether there is what came before or in a pause and was not read."""
        self._caught_up_ns = 0
        self._has_more = False
        """Whether there may be more to read, now: the loop got its turn in between."""
        self._key: Final = key
        self._most_strangers: Final = most_strangers
        self._on_message: Callable[[bytes], None] = lambda _body: None
        self._listeners = 0
        self._has_hung_up = False
        self._is_closed = self._is_deaf = self._is_skipping = False
        self._pause: asyncio.TimerHandle | None = None
        self._window = (0, self.tally.strangers)
        """Since when strangers and connections are counted, and how many strangers there had been by then."""
        self._opened = 0
        """Connections and subscriptions that were made since."""
        self._events = context.socket(zmq.XPUB)
        self._turns = context.socket(zmq.PULL)
        for socket in (self._events, self._turns):
            socket.linger = 0
            socket.handshake_ivl = HANDSHAKE_MS
            if curve is not None:
                socket.curve_server = True
                socket.curve_publickey, socket.curve_secretkey = curve
        self._events.setsockopt(zmq.XPUB_MANUAL, 1)
        self._events.maxmsgsize, self._turns.maxmsgsize = MOST_WISH_BYTES, MOST_MESSAGE_BYTES
        self._events.sndhwm, self._events.rcvhwm = QUEUE, WISHES_WAITING
        self._turns.rcvhwm = TURNS_WAITING
        self._monitors: Final = [_monitored(context, socket) for socket in (self._events, self._turns)]
        self._intakes: Final = [_intake(address) for address in (events, turns)]
        self._wishes_in, self._turns_in = self._intakes
        try:
            self._events.bind(events)
            self._turns.bind(turns)
        except zmq.ZMQError:
            self._close_sockets()
            raise
        self._loop = asyncio.get_running_loop()
        self._descriptor = self._turns.FD

    def open(self, on_message: Callable[[bytes], None]) -> None:
        """Call `on_message` with each body that carries the right key, from here on."""
        self._on_message = on_message
        self._loop.add_reader(self._descriptor, self._read)
        self._read()

    def send(self, body: bytes) -> None:
        """Send a message to whoever is subscribed; without anybody it is gone."""
        # Frame by frame: `send_multipart` looks at each before it does the same, and this is once per event.
        self._events.send(self._key, _MORE_NOBLOCK)
        self._events.send(body, _NOBLOCK)

    def soon(self, work: Callable[[], None]) -> None:
        """Do `work` in the loop's next round."""
        self._loop.call_soon(work)

    def pause(self, for_ns: int) -> None:
        """Read nothing for so long; what comes meanwhile waits, most of it with its sender."""
        if self._pause is None and not self._is_deaf:
            self._is_backed_up = True
            self._pause = self._loop.call_later(for_ns / 1e9, self._resume)

    def known_ns(self, now_ns: int) -> int:
        """Return for how long nothing that a pause left has been unread: what the peer says is known since then."""
        return 0 if self._is_backed_up else now_ns - self._caught_up_ns

    @property
    def has_read_all(self) -> bool:
        """Return whether what came so far has been read: nothing waits for the end of a pause, or for its turn."""
        return not (self._is_backed_up or self._has_more)

    def is_subscribed(self) -> bool:
        """Return whether the peer listens by now."""
        for _ in range(WISHES_AT_ONCE):
            try:
                wish = self._events.recv(zmq.NOBLOCK)
            except zmq.Again:
                break
            self._wishes_in.read += len(wish) + OVERHEAD
            if wish[1:] != self._key or wish[:1] not in (b"\x00", b"\x01"):
                self.tally.strangers += wish[:1] != b"\x00"
            elif wish[:1] == b"\x01":
                self._events.setsockopt(zmq.SUBSCRIBE, self._key)
                self._listeners += 1
                self._opened += 1
            elif self._listeners:
                self._listeners -= 1
                self._has_hung_up |= self._listeners == 0
        return self._listeners > 0

    def has_hung_up(self) -> bool:
        """Return whether the last who listened has gone since this was asked before."""
        self.is_subscribed()
        found, self._has_hung_up = self._has_hung_up, False
        return found

    def fault(self, now_ns: int) -> str:
        """Return why it must be shut, for what comes without the key; empty for no reason. Ask a few times a second."""
        if self._is_closed:
            return ""
        self.is_subscribed()
        for monitor, intake in zip(self._monitors, self._intakes, strict=True):
            self._count_connections(monitor, intake)
            if intake.unread() > MOST_UNREAD_BYTES:
                return f"more than {MOST_UNREAD_BYTES >> 20} MiB came that are no whole messages, or not read as fast"
        since_ns, before = self._window
        if self.tally.strangers - before > self._most_strangers:
            return f"more than {self._most_strangers} messages without its token came within 0.1 s"
        if self._opened > MOST_CONNECTIONS:
            return f"more than {MOST_CONNECTIONS} connections or subscriptions were made within 0.1 s"
        if self.connections > 2 * MOST_CONNECTIONS:
            return f"more than {2 * MOST_CONNECTIONS} connections are open"
        if now_ns - since_ns >= FLOOD_NS:
            self._window, self._opened = (now_ns, self.tally.strangers), 0
        return ""

    def stop_reading(self) -> None:
        """Hear nothing any more; what was said still leaves."""
        if not self._is_deaf:
            self._is_deaf = True
            self._loop.remove_reader(self._descriptor)
            if self._pause is not None:
                self._pause.cancel()

    def close(self) -> None:
        """Hear and say nothing any more; what was sent and not read is dropped."""
        self.stop_reading()
        if not self._is_closed:
            self._is_closed = True
            self._close_sockets()

    def _close_sockets(self) -> None:
        ends = ((self._events, self.events_address), (self._turns, self.turns_address))
        for (socket, address), monitor in zip(ends, self._monitors, strict=True):
            socket.disable_monitor()  # first: nobody waits then for the monitor to be read
            monitor.close(linger=0)
            socket.close()
            if address.startswith("ipc://"):
                Path(address.removeprefix("ipc://")).unlink(missing_ok=True)

    def _count_connections(self, monitor: "zmq.Socket[bytes]", intake: Intake) -> None:
        while self._opened <= MOST_CONNECTIONS and monitor.poll(0):
            told = recv_monitor_message(monitor)
            if told["event"] == zmq.EVENT_ACCEPTED:
                self.connections += 1
                self._opened += 1
                intake.opened(told["value"])
            else:
                self.connections -= 1
                intake.ended(told["value"])

    def _resume(self) -> None:
        self._pause = None
        self._read()

    def _read(self) -> None:
        turns, key, intake = self._turns, self._key, self._turns_in
        most = self._window[1] + self._most_strangers
        ends_ns = time.perf_counter_ns() + READ_FOR_NS
        # Of strangers no more is read than it takes for a fault.
        while self._pause is None and self.tally.strangers <= most and not self._is_deaf:
            try:
                frame = turns.recv(_NOBLOCK)
                has_more = turns.getsockopt(zmq.RCVMORE)
                intake.read += len(frame) + OVERHEAD
                if self._is_skipping:
                    self._is_skipping = bool(has_more)
                elif frame == key and has_more:
                    body = turns.recv(_NOBLOCK)
                    intake.read += len(body)
                    self._is_skipping = bool(turns.getsockopt(zmq.RCVMORE))
                    if self._is_skipping:
                        self.tally.strangers += 1
                    else:
                        self._on_message(body)
                else:
                    # A frame at a time: a message may have a million.
                    self._is_skipping = bool(has_more)
                    self.tally.strangers += 1
            except zmq.Again:
                self._has_more = False
                if self._is_backed_up:
                    self._is_backed_up, self._caught_up_ns = False, time.monotonic_ns()
                return
            if time.perf_counter_ns() > ends_ns:
                self._has_more = True
                self._loop.call_soon(self._read)
                return


def _intake(address: str) -> Intake:
    found = _TCP_PORT.fullmatch(address)
    return Intake(int(found[1]) if found else 0)


def _monitored(context: "zmq.Context[zmq.Socket[bytes]]", socket: "zmq.Socket[bytes]") -> "zmq.Socket[bytes]":
    """Return a socket that says what connects to another one, and what goes."""
    address = f"inproc://connections-{socket.FD}"
    socket.monitor(address, zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED)
    monitor = context.socket(zmq.PAIR)
    monitor.rcvhwm = 0  # with a limit, ZeroMQ's thread would wait for this to be read
    monitor.connect(address)
    return monitor
