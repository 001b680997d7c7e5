"""The two sockets of one worker: events to it, turns from it.

Read by the loop through the socket's file descriptor, which is edge-triggered: it says once that
something came, so everything is read then, a slice at a time. Sending never blocks and never waits.
"""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import zmq

__all__ = ["Channel"]

READ_FOR_NS: Final = 50_000
"""How long messages are read before the loop gets its turn: a flood must not hold up anybody else."""
MOST_MESSAGE_BYTES: Final = 4 << 20
"""A longer message has its sender disconnected."""
_NOBLOCK: Final = int(zmq.NOBLOCK)
_MORE_NOBLOCK: Final = int(zmq.NOBLOCK | zmq.SNDMORE)
"""As numbers: combining the enumeration's members takes longer than sending."""
QUEUE: Final = 16_384
"""Messages that either side may have on their way; flow control keeps far below it."""


class Channel:
    """Belongs to the running loop; nothing is read before `open`.

    The key is the topic of the events, too, and no other subscription is granted: who does not know it
    can neither send nor listen. `strangers` counts what came without it.
    """

    def __init__(
        self,
        context: "zmq.Context[zmq.Socket[bytes]]",
        events: str,
        turns: str,
        key: bytes,
        *,
        curve: tuple[bytes, bytes] | None = None,
    ) -> None:
        self.events_address: Final = events
        self.turns_address: Final = turns
        self.strangers = 0
        self._key: Final = key
        self._on_message: Callable[[bytes], None] = lambda _body: None
        self._listeners = 0
        self._has_hung_up = False
        self._is_closed = self._is_deaf = False
        self._events = context.socket(zmq.XPUB)
        self._turns = context.socket(zmq.PULL)
        for socket in (self._events, self._turns):
            socket.linger = 0
            socket.maxmsgsize = MOST_MESSAGE_BYTES
            if curve is not None:
                socket.curve_server = True
                socket.curve_publickey, socket.curve_secretkey = curve
        self._events.setsockopt(zmq.XPUB_MANUAL, 1)
        self._events.sndhwm = self._turns.rcvhwm = QUEUE
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

    def is_subscribed(self) -> bool:
        """Return whether the peer listens by now."""
        while True:
            try:
                wish = self._events.recv(zmq.NOBLOCK)
            except zmq.Again:
                return self._listeners > 0
            if wish[1:] != self._key:
                self.strangers += wish[:1] == b"\x01"
            elif wish[:1] == b"\x01":
                self._events.setsockopt(zmq.SUBSCRIBE, self._key)
                self._listeners += 1
            else:
                self._listeners -= 1
                self._has_hung_up |= self._listeners == 0

    def has_hung_up(self) -> bool:
        """Return whether the last who listened has gone since this was asked before."""
        self.is_subscribed()
        found, self._has_hung_up = self._has_hung_up, False
        return found

    def stop_reading(self) -> None:
        """Hear nothing any more; what was said still leaves."""
        if not self._is_deaf:
            self._is_deaf = True
            self._loop.remove_reader(self._descriptor)

    def close(self) -> None:
        """Hear and say nothing any more; what was sent and not read is dropped."""
        self.stop_reading()
        if not self._is_closed:
            self._is_closed = True
            self._close_sockets()

    def _close_sockets(self) -> None:
        for socket, address in ((self._events, self.events_address), (self._turns, self.turns_address)):
            socket.close()
            if address.startswith("ipc://"):
                Path(address.removeprefix("ipc://")).unlink(missing_ok=True)

    def _read(self) -> None:
        turns, key = self._turns, self._key
        ends_ns = time.perf_counter_ns() + READ_FOR_NS
        while not self._is_deaf:
            try:
                frames = turns.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            if len(frames) == 2 and frames[0] == key:
                self._on_message(frames[1])
            else:
                self.strangers += 1
            if time.perf_counter_ns() > ends_ns:
                self._loop.call_soon(self._read)
                return
