"""What is under way while a node has one role, and ends when it takes another."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from host.control.reasons import Refused

__all__ = ["UnderWay", "role_changed"]


def role_changed() -> Refused:
    """Return what a call is told whose node took another role meanwhile."""
    text = "the node took another role meanwhile; ask again, with the same request id if there was one"
    return Refused("ROLE_CHANGED", text)


class UnderWay:
    """The watches and longer calls that hold on to what belongs to the node's present role."""

    def __init__(self) -> None:
        self._scopes: set[asyncio.Timeout] = set()

    @property
    def count(self) -> int:
        """Return how many there are."""
        return len(self._scopes)

    @asynccontextmanager
    async def until_ended(self) -> AsyncIterator[None]:
        """Carry out the body until `end` is called; raise `Refused` where it was not done by then."""
        scope = asyncio.timeout(None)
        try:
            async with scope:
                self._scopes.add(scope)
                try:
                    yield
                finally:
                    self._scopes.discard(scope)
        except TimeoutError:
            if not scope.expired():
                raise
            raise role_changed() from None

    def end(self) -> None:
        """End everything under way, at the next turn of the loop."""
        now_s = asyncio.get_running_loop().time()
        while self._scopes:
            self._scopes.pop().reschedule(now_s)
