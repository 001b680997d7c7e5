"""Cancelling everything once an account's watched private connections have been away for too long."""

import asyncio
from collections.abc import Callable
from typing import Final

from venue.protocols.bybit.members import Member

__all__ = ["PRODUCTS_OF", "DisconnectCancel"]

PRODUCTS_OF: Final = {"dcp.spot": "SPOT", "dcp.future": "DERIVATIVES", "dcp.option": "OPTIONS"}
"""The setting that each topic watches over."""


class DisconnectCancel:
    """Starts to count when the last connection that watches goes, and stops when one is back.

    `is_watched(account, topic)` tells whether one is there; `fire(member, product)` cancels.
    """

    def __init__(self, is_watched: Callable[[str, str], bool], fire: Callable[[Member, str], None]) -> None:
        self._is_watched: Final = is_watched
        self._fire: Final = fire
        self._timers: Final[dict[tuple[str, str], asyncio.TimerHandle]] = {}

    def gone(self, member: Member, topics: set[str]) -> None:
        """Take note that a connection with these topics is gone."""
        for topic in topics & PRODUCTS_OF.keys():
            seconds = member.disconnect_s.get(PRODUCTS_OF[topic])
            key = (member.name, topic)
            if seconds is None or key in self._timers or self._is_watched(member.name, topic):
                continue
            loop = asyncio.get_running_loop()
            self._timers[key] = loop.call_later(seconds, self._over, member, topic)

    def back(self, account: str, topics: set[str]) -> None:
        """Take note that these topics are watched again."""
        for topic in topics:
            timer = self._timers.pop((account, topic), None)
            if timer is not None:
                timer.cancel()

    def close(self) -> None:
        """Count no more."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _over(self, member: Member, topic: str) -> None:
        del self._timers[member.name, topic]
        self._fire(member, PRODUCTS_OF[topic])
