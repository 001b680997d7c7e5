"""Who is sent next: ccxt keeps the venue's limits first come, first served; here cancels come first."""

import asyncio
import heapq
import itertools
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any, Final

from msgspec import Struct

from .errors import NotSent
from .params import EXCHANGE

__all__ = ["CANCEL", "ORDER", "QUESTION", "CancelsFirst", "Turn", "taking_turns"]

CANCEL, ORDER, QUESTION = range(3)
"""Ranks, the first one first: pulling quotes must be possible when asking and placing is not."""


class Turn(Struct, frozen=True):
    """What a request is, for the queue. After `until_ns` (host time) it must not be sent."""

    rank: int = QUESTION
    until_ns: int | None = None


_USUAL: Final = Turn()
_TURN: Final[ContextVar[Turn]] = ContextVar("turn", default=_USUAL)


def taking_turns(turn: Turn) -> None:
    """Have the requests of the running task take turns so."""
    _TURN.set(turn)


class CancelsFirst:
    """Stands in for a ccxt client's `throttle`: one request at a time waits there, and the most urgent is next."""

    def __init__(self, throttle: Callable[[Any], Awaitable[Any]], now_ns: Callable[[], int]) -> None:
        self._throttle: Final = throttle
        self._now_ns: Final = now_ns
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._numbers: Final = itertools.count()
        self._is_busy = False

    async def __call__(self, cost: Any = None) -> None:
        """Wait until a request of this cost may be sent; raise `NotSent` where that took too long.

        ccxt asks before it signs, so that the request's own time is that of its sending.
        """
        turn = _TURN.get()
        if self._is_busy:
            mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            heapq.heappush(self._waiting, (turn.rank, next(self._numbers), mine))
            try:
                await mine
            except asyncio.CancelledError:
                if mine.done() and not mine.cancelled():
                    self._pass_on()
                raise
        self._is_busy = True
        try:
            if not self._is_late(turn):
                await self._throttle(cost)
        finally:
            self._pass_on()
        if self._is_late(turn):
            raise NotSent(f"{EXCHANGE}: its turn came after its time, nothing was sent")

    def _is_late(self, turn: Turn) -> bool:
        return turn.until_ns is not None and self._now_ns() >= turn.until_ns

    def _pass_on(self) -> None:
        """Let the most urgent one of those that wait go next; it is busy until then."""
        while self._waiting:
            _, _, following = heapq.heappop(self._waiting)
            if not following.done():
                following.set_result(None)
                return
        self._is_busy = False
