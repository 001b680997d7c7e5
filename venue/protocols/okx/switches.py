"""Dead man's switches: a timer for each tag of an account, which cancels its orders unless set again."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

from venue.protocols.okx.members import Member

__all__ = ["Switches"]


class Switches:
    """Counts down; `fire(member, tag)` cancels."""

    def __init__(self, fire: Callable[[Member, str], Coroutine[Any, Any, None]]) -> None:
        self._fire: Final = fire
        self._timers: Final[dict[tuple[str, str], asyncio.TimerHandle]] = {}
        self._firing: Final[set[asyncio.Task[None]]] = set()

    def set(self, member: Member, tag: str, seconds: int) -> None:
        """Have a tag's orders cancelled in so long; 0 for never."""
        timer = self._timers.pop((member.name, tag), None)
        if timer is not None:
            timer.cancel()
        if seconds:
            loop = asyncio.get_running_loop()
            self._timers[member.name, tag] = loop.call_later(seconds, self._over, member, tag)

    def close(self) -> None:
        """Count no more."""
        for timer in self._timers.values():
            timer.cancel()
        for task in self._firing:
            task.cancel()
        self._timers.clear()

    def _over(self, member: Member, tag: str) -> None:
        del self._timers[member.name, tag]
        task = asyncio.get_running_loop().create_task(self._fire(member, tag))
        self._firing.add(task)
        task.add_done_callback(self._firing.discard)
