"""Requests that wait for the venue's answer, by the id under which it will come."""

import asyncio
from collections.abc import Callable
from typing import Final, Generic, TypeVar

__all__ = ["PendingRequests"]

T = TypeVar("T")


class PendingRequests(Generic[T]):
    """Remembers what each request was until its answer comes, or `timeout_s` have passed.

    A request without an answer may have had its effect: `on_unanswered(request, text)` is told, once,
    and what comes later under its id is nobody's answer any more.
    """

    def __init__(self, timeout_s: float, on_unanswered: Callable[[T, str], None]) -> None:
        self._timeout_s: Final = timeout_s
        self._on_unanswered: Final = on_unanswered
        self._waiting: Final[dict[str, tuple[T, float]]] = {}  # in the order of their ends: all wait as long
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._waiting

    def add(self, request_id: str, request: T) -> None:
        """Wait for the answer to a request that is being sent."""
        loop = asyncio.get_running_loop()
        due_s = loop.time() + self._timeout_s
        self._waiting[request_id] = (request, due_s)
        if self._timer is None:
            self._timer = loop.call_at(due_s, self._on_due)

    def take(self, request_id: str) -> T | None:
        """Return the request that an answer belongs to and wait no longer; None when none waits."""
        waiting = self._waiting.pop(request_id, None)
        return None if waiting is None else waiting[0]

    def give_up_all(self, text: str) -> None:
        """Tell of every request as unanswered: the connection that would answer is gone."""
        waiting = list(self._waiting.values())
        self._waiting.clear()
        for request, _ in waiting:
            self._on_unanswered(request, text)

    def close(self) -> None:
        """Tell of nothing more."""
        if self._timer is not None:
            self._timer.cancel()
        self._waiting.clear()

    def _on_due(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        due = [key for key, (_, due_s) in self._waiting.items() if due_s <= now_s]
        for key in due:
            request, _ = self._waiting.pop(key)
            self._on_unanswered(request, f"no answer within {self._timeout_s:g} s")
        for _, due_s in self._waiting.values():
            if self._timer is None:
                self._timer = loop.call_at(due_s, self._on_due)
            break
