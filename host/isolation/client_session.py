"""The host's conversation with a stand-alone strategy: as with a worker, but anybody with the token may begin one."""

import time
from typing import Any, Final

from host.isolation.session import IDLE_WEIGHS, Session
from host.isolation.settings import SECOND_NS
from host.wire import Codec
from host.wire.messages import PROTOCOL, Bye, Failed, Heartbeat, Hello, Refused, Turn

__all__ = ["ClientSession"]

ANSWER_EVERY_NS: Final = SECOND_NS // 20
"""A hello that cannot be let in is answered, and counted as refused, so often; it is repeated until it is answered."""
HELLO_WEIGHS: Final = 20
"""As how many messages one counts: it is said a few times, and not thousands of times."""


class ClientSession(Session):
    """Lets in one peer at a time: another one gets the place only when the first gives no sign of progress.

    Turns count from a number that no earlier session used, so that what a predecessor still has under way
    is nobody's turn.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # µs, not ns: the number is to be exact in languages whose numbers are floats.
        self.conduct.last_turn = self._acked = time.time_ns() // 1000
        self.client = ""
        """What the peer calls itself."""
        self._rival = ""
        self._rival_mark = 0
        self._answered_ns = 0

    def _on_hello(self, hello: Hello, codec: Codec) -> None:
        now_ns = time.monotonic_ns()
        outlet = self.outlet
        self.conduct.count(now_ns, HELLO_WEIGHS)
        if hello.protocol != PROTOCOL:
            detail = f"this host speaks version {PROTOCOL} of the strategy protocol, was {hello.protocol}"
            self._turn_away(Refused("PROTOCOL", detail, hello.run), codec, now_ns)
        elif outlet is None or hello.run == self._run:
            self.client = hello.client[:64]
            super()._on_hello(hello, codec)
        elif hello.run != self._rival:
            if now_ns - self._answered_ns < ANSWER_EVERY_NS:
                return  # it asks again
            self._answered_ns = now_ns
            self._rival, self._rival_mark = hello.run, outlet.sent
            outlet.put_own(Heartbeat(self._engine.clock.now_ns()), now_ns)  # who is alive handles it
            self._send(outlet, now_ns)
        elif outlet.handled > self._rival_mark:
            detail = (
                f"instance {self._instance.instance} is run by {self.client!r}, which is alive; one at a time"
            )
            self._turn_away(Refused("TAKEN", detail, hello.run), codec, now_ns)

    def _on_turn(self, turn: Turn, now_ns: int) -> None:
        if self.outlet is None:
            self.conduct.tally.repeated += 1  # of the one before, who was given up while it was under way
            self.conduct.count(now_ns, IDLE_WEIGHS)
        else:
            super()._on_turn(turn, now_ns)

    def _is_anothers(self, last: Failed | Bye) -> bool:
        # Before a hello there is nobody to go: taken for a session's end, each would cost entries of the journal.
        return self.outlet is None or super()._is_anothers(last)

    def _turn_away(self, refused: Refused, codec: Codec, now_ns: int) -> None:
        if now_ns - self._answered_ns >= ANSWER_EVERY_NS and self._way.is_subscribed():
            self._answered_ns = now_ns
            self.conduct.tally.refused += 1
            self._way.send(codec.encode(refused))
