"""A stand-alone strategy's two sockets: events from the host, turns to it."""

import re
import weakref
from typing import Final

import zmq
from zmq.utils.monitor import recv_monitor_message

from host.client.trading_errors import NoHost, TokenRefused, TradingClientError

__all__ = ["Attachment"]

_TCP: Final = re.compile(r"(tcp://.+):([0-9]{1,5})")
AT_ONCE: Final = 256
_NOBLOCK: Final = int(zmq.NOBLOCK)
_MORE_NOBLOCK: Final = int(zmq.NOBLOCK | zmq.SNDMORE)
"""As numbers: combining the enumeration's members takes longer than sending."""
MOST_UNREAD: Final = 100_000
"""Messages that wait here while the host takes its time: one that asks for much has them read at its share's pace."""
LAST_WORDS_MS: Final = 1_000
"""How long closing may take until what was said is with the host."""


class Attachment:
    """Connected from its construction on, as far as somebody listens; raises `TradingClientError` for a bad address.

    `address` is `tcp://HOST:PORT`, or `ipc://PATH` for the sockets `PATH.events.sock` and `PATH.turns.sock`.
    """

    def __init__(self, address: str, token: bytes, server_key: bytes = b"") -> None:
        self.address: Final = address
        self._token: Final = token
        events, turns = _ends(address)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._events = self._context.socket(zmq.SUB)
        self._turns = self._context.socket(zmq.PUSH)
        self._events.rcvhwm = 0  # flow control is the host's, which lets few events be on their way
        self._turns.immediate = True  # what nobody takes is not kept for whoever comes later
        self._turns.sndhwm = MOST_UNREAD
        for socket in (self._events, self._turns):
            socket.linger = 0
            if server_key:
                socket.curve_serverkey = server_key
                socket.curve_publickey, socket.curve_secretkey = zmq.curve_keypair()
        self._monitor = self._events.get_monitor_socket(
            zmq.EVENT_HANDSHAKE_SUCCEEDED
            | zmq.EVENT_DISCONNECTED
            | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
            | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
            | zmq.EVENT_HANDSHAKE_FAILED_AUTH
        )
        self._seen: set[int] = set()
        self._wait_ms = -1
        # A context that is collected together with its sockets waits for them for ever.
        self._when_forgotten = weakref.finalize(
            self, _close, self._context, self._events, self._turns, self._monitor, linger_ms=0
        )
        self._events.setsockopt(zmq.SUBSCRIBE, token)
        self._events.connect(events)
        self._turns.connect(turns)

    def send(self, body: bytes) -> None:
        """Send a message; it is dropped where nobody listens, or the host takes none: what is missing shows."""
        try:
            self._turns.send(self._token, _MORE_NOBLOCK)
            self._turns.send(body, _NOBLOCK)
        except zmq.Again:
            return

    def receive(self, wait_s: float) -> list[bytes]:
        """Return what came, at most `AT_ONCE` messages; wait so long for the first."""
        bodies: list[bytes] = []
        wait_ms = max(int(wait_s * 1000), 0)
        if wait_ms != self._wait_ms:
            self._wait_ms = self._events.rcvtimeo = wait_ms
        try:
            # Waiting in the socket itself: a poll before it takes as long as the message.
            frames = self._events.recv_multipart()
            while True:
                if len(frames) == 2 and frames[0] == self._token:
                    bodies.append(frames[1])
                if len(bodies) >= AT_ONCE:
                    return bodies
                frames = self._events.recv_multipart(_NOBLOCK)
        except zmq.Again:
            return bodies

    def why_silent(self) -> TradingClientError:
        """Return what keeps the host from answering, as far as it can be told from here."""
        self._look()
        if zmq.EVENT_HANDSHAKE_SUCCEEDED in self._seen:
            return TokenRefused(
                f"the node at {self.address} does not answer to this token: it should be that of the instance, which "
                "its node keeps in DATA_DIR/clients/NAME.token unless its configuration names another"
            )
        if self._seen - {zmq.EVENT_DISCONNECTED}:
            return TokenRefused(
                f"the node at {self.address} does not accept this encryption: server_key should be what its "
                "DATA_DIR/clients/NAME.curve.pub says, and none where its configuration has no curve = true"
            )
        return NoHost(
            f"nobody listens at {self.address}: start the node, or the instance if it is stopped, or mend the address"
        )

    def has_hung_up(self) -> bool:
        """Return whether the connection ended once: what was said meanwhile is lost."""
        self._look()
        return zmq.EVENT_DISCONNECTED in self._seen

    def _look(self) -> None:
        while self._monitor.poll(0):
            self._seen.add(recv_monitor_message(self._monitor)["event"])

    def close(self, *, has_said_bye: bool) -> None:
        """End both connections; wait for the last words to leave if there are any."""
        if self._when_forgotten.detach() is not None:
            linger_ms = LAST_WORDS_MS if has_said_bye else 0
            _close(self._context, self._events, self._turns, self._monitor, linger_ms=linger_ms)


def _close(
    context: "zmq.Context[zmq.Socket[bytes]]",
    events: "zmq.Socket[bytes]",
    turns: "zmq.Socket[bytes]",
    monitor: "zmq.Socket[bytes]",
    *,
    linger_ms: int,
) -> None:
    events.disable_monitor()
    monitor.close(linger=0)
    events.close(linger=0)
    turns.close(linger=linger_ms)
    context.term()


def _ends(address: str) -> tuple[str, str]:
    if address.startswith("ipc://"):
        return f"{address}.events.sock", f"{address}.turns.sock"
    found = _TCP.fullmatch(address)
    if found is None:
        raise TradingClientError(f'an address should be "ipc://PATH" or "tcp://HOST:PORT", was "{address}"')
    return address, f"{found[1]}:{int(found[2]) + 1}"
