"""What a strategy or quote model has while it is in a worker: its way to there, and its share of the process."""

import asyncio
import secrets
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import zmq

from host.api import TandemError
from host.isolation.assignment import SeatPlan
from host.isolation.boarding import Berth
from host.isolation.channel import Channel
from host.isolation.conduct import Tally
from host.isolation.meter import Meter
from host.isolation.process import ENDED_BY_ITSELF
from host.isolation.settings import WorkerSettings
from host.loader import Offer

if TYPE_CHECKING:
    from host.isolation.workers import Workers

__all__ = ["NoSeat", "Seat"]

LAST_WORDS: Final = 1500
"""Characters of what a process wrote last that are told with its end."""
LAST_WORDS_S: Final = 0.1
"""How long what a process said before it ended by itself has to arrive."""


class NoSeat(TandemError):  # noqa: N818 - the fact, in the words operators see
    """A worker's sockets could not be opened: no room on the disk, no descriptor left, no folder."""


class Seat:
    """Belongs to the running loop. From `begin` until `end`, and never again: a restart takes another one.

    `on_exit(how)` is told, in words and with the process's last ones, that it ended or could not be started;
    nothing is told any more after `end`. To make one raises `NoSeat`.
    """

    def __init__(
        self,
        node: "Workers",
        settings: WorkerSettings,
        on_exit: Callable[[str], None],
        tally: Tally | None = None,
    ) -> None:
        self.process: Berth | None = None
        """None until it runs."""
        self._node: Final = node
        self._settings: Final = settings
        self._on_exit: Final = on_exit
        self._key: Final = secrets.token_hex(16).encode()
        try:
            self.channel: Final = Channel(node.context, *node.new_addresses(), self._key, tally=tally)
        except (OSError, zmq.ZMQError) as error:
            raise NoSeat(f"its sockets could not be opened: {error}") from error
        self._meter: Final = Meter(settings)
        self._boarding: asyncio.Task[None] | None = None
        self._is_asked = False
        self._is_over = False

    def begin(
        self,
        name: str,
        offer: Offer,
        on_message: Callable[[bytes], None],
        *,
        group: str = "",
        model_params: bytes = b"",
    ) -> None:
        """Have an offer run under a name, in a process of its own or of a group, and hear what it says."""
        channel = self.channel
        self._node.seats.add(self)
        channel.open(on_message)
        plan = SeatPlan(
            name, offer.version, offer.name, channel.events_address, channel.turns_address, self._key, model_params
        )  # fmt: skip
        self._boarding = self._node.spawn(self._board(group, plan))

    @property
    def pid(self) -> int:
        """Return the process id; 0 until it runs."""
        return 0 if self.process is None else self.process.pid

    def fault(self, now_ns: int) -> str:
        """Return which limit its process breaks, or what else it sends; empty where it breaks none."""
        if why := self.channel.fault(now_ns):
            return f"it was cut off: {why}"
        return "" if self.process is None else self._meter.fault(self.process, now_ns)

    def waits(self, waited_ns: int, limit_ns: int) -> None:
        """Have its process say where it is, in time, if what runs there has not come back for so long."""
        if waited_ns < limit_ns // 2:
            self._is_asked = False
        elif not self._is_asked and self.process is not None:
            self._is_asked = True
            self.process.ask_where()

    @property
    def where(self) -> str:
        """Return where its process said that it is, to follow what it is lost for; empty where it said nothing."""
        stack = self.process.where if self.process is not None and self._is_asked else ""
        return f"; it is in {stack[:LAST_WORDS]}" if stack else ""

    def kill(self) -> None:
        """End the process, and with it those who share it; `end` is still to be called."""
        if self.process is not None:
            self.process.kill()

    def end(self) -> None:
        """Hear and say nothing any more, and end the process unless others share it."""
        self._is_over = True
        self._node.seats.discard(self)
        self.channel.close()
        if self._boarding is not None:
            self._boarding.cancel()
            self._boarding = None
        if self.process is not None:
            self.process.leave()

    async def _board(self, group: str, plan: SeatPlan) -> None:
        try:
            self.process = await self._node.boarding.board(
                group, plan, self._settings.memory_bytes, self._exited
            )
        except OSError as error:
            self._boarding = None
            self._on_exit(f"its process could not be started: {error}")
            return
        self._meter.begin(time.monotonic_ns())
        self._boarding = None

    def _exited(self, how: str) -> None:
        if how == ENDED_BY_ITSELF:
            # One that ends of its own accord has said why, and that may still be on its way.
            asyncio.get_running_loop().call_later(LAST_WORDS_S, self._tell_exit, how)
        else:
            self._tell_exit(how)

    def _tell_exit(self, how: str) -> None:
        if not self._is_over:
            words = "" if self.process is None else _telling(self.process.last_words)
            self._on_exit(f"{how}; its last words: {words}" if words else how)


def _telling(words: str) -> str:
    """Return what tells most: of a crash the begin of its stack, where it happened, or else the end."""
    crash = words.rfind("Fatal Python error: ")
    return words[-LAST_WORDS:] if crash < 0 else words[crash : crash + LAST_WORDS]
