"""Drives an elector with a real store and the real clock; decides nothing itself."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from failover.clock import boottime_ns
from failover.elector import Elector
from failover.lease import LeaseDamagedError, LeaseStore, LeaseUnansweredError
from failover.signals import Action, Alert, CloseGate, Read, Retire, Swap
from failover.states import State

__all__ = ["ElectorRunner"]

DEADLINES_PER_TTL: Final = 4
"""A call that takes longer counts as unanswered: there has to be time to look and to try again."""


class ElectorRunner:
    """Carries out what `elector` says on `store`, and hands every other action to `carry_out`.

    `carry_out` is called synchronously and in order, on the event loop of `run`; it must not block.
    """

    def __init__(
        self,
        elector: Elector,
        store: LeaseStore,
        carry_out: Callable[[Action], None],
        now_ns: Callable[[], int] = boottime_ns,
    ) -> None:
        self.elector: Final = elector
        self._store = store
        self._carry_out = carry_out
        self._now_ns = now_ns
        self._deadline_s = elector.settings.ttl_ms / 1000 / DEADLINES_PER_TTL
        self._requests: deque[Read | Swap] = deque()
        self._wake = asyncio.Event()
        self._unanswered_text = ""

    def tell(self, method: Callable[..., list[Action]], *arguments: object) -> None:
        """Give the elector an input at the present time: `tell(elector.on_health, health)`."""
        self._perform(method(*arguments, now_ns=self._now_ns()))

    async def run(self) -> None:
        """Take part in the election until the elector retires. However it ends, the gate is closed then."""
        try:
            async with asyncio.TaskGroup() as group:
                calls: set[asyncio.Task[None]] = set()
                self._perform(self.elector.tick(self._now_ns()))
                while self.elector.state is not State.RETIRED:
                    while self._requests:
                        call = group.create_task(self._call(self._requests.popleft()))
                        calls.add(call)
                        call.add_done_callback(calls.discard)
                    await self._sleep()
                    if self.elector.next_tick_ns <= self._now_ns():
                        self._perform(self.elector.tick(self._now_ns()))
                for call in calls:
                    call.cancel()
        finally:
            self._carry_out(CloseGate("the elector has ended"))

    async def _sleep(self) -> None:
        """Wait until a tick is due or something else has happened."""
        delay_s = (self.elector.next_tick_ns - self._now_ns()) / 1e9
        if delay_s > 0 and not self._wake.is_set():
            try:
                async with asyncio.timeout(min(delay_s, 3600.0)):
                    await self._wake.wait()
            except TimeoutError:
                return
        self._wake.clear()

    async def _call(self, request: Read | Swap) -> None:
        elector = self.elector
        try:
            if isinstance(request, Read):
                record = await self._store.read(elector.settings.cell, self._deadline_s)
                actions = elector.on_read(request.request, record, self._now_ns())
            else:
                was_swapped = await self._store.swap(request.expected, request.new, self._deadline_s)
                actions = elector.on_swapped(request.request, was_swapped, self._now_ns())
            self._unanswered_text = ""
        except (LeaseUnansweredError, LeaseDamagedError) as error:
            self._tell_once(str(error))
            actions = elector.on_unanswered(request.request, self._now_ns())
        self._perform(actions)

    def _tell_once(self, text: str) -> None:
        """Alert when an outage begins, not with each of its attempts."""
        if not self._unanswered_text:
            self._carry_out(Alert("lease_store_unanswered", text))
        self._unanswered_text = text

    def _perform(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Read | Swap):
                self._requests.append(action)
            else:
                self._carry_out(action)
                if isinstance(action, Retire):
                    self._requests.clear()
        self._wake.set()
