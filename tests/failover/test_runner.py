"""The elector on real stores with the real clock: nodes take over from each other."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from failover.clock import boottime_ns, on_clock
from failover.elector import Elector, ElectorSettings
from failover.lease import open_store
from failover.runner import ElectorRunner
from failover.signals import (
    Action,
    CloseGate,
    Drain,
    Health,
    Lead,
    NotifyHeir,
    OpenGate,
    PeerStatus,
    Succession,
)
from failover.states import State

A = TypeVar("A")

LONG_S = 60.0
TTL_MS = 400


class Node:
    """A runner with a store of its own, and what it was told to do."""

    def __init__(self, url: str, cell: str, name: str, ttl_ms: int = TTL_MS) -> None:
        self.name = name
        self.actions: list[Action] = []
        self.news = asyncio.Event()
        self.gate_until_ns = 0
        self.links: dict[str, Node] = {}
        self.store = open_store(url)
        settings = ElectorSettings(cell, name, f"session-of-{name}", ttl_ms)
        self.runner = ElectorRunner(Elector(settings, boottime_ns()), self.store, self.carry_out)
        self.task = asyncio.create_task(self.runner.run())

    @property
    def elector(self) -> Elector:
        return self.runner.elector

    def carry_out(self, action: Action) -> None:
        match action:
            case OpenGate():
                # The nodes of this test share a clock, so the promise can be looked at directly.
                assert all(other.gate_until_ns <= boottime_ns() for other in self.links.values())
                self.gate_until_ns = action.until_ns
            case CloseGate():
                self.gate_until_ns = 0
            case Drain():
                asyncio.get_running_loop().call_soon(lambda: self.runner.tell(self.elector.on_drained))
            case NotifyHeir():
                heir = self.links[action.heir]
                heir.runner.tell(heir.elector.on_hint)
            case _:
                pass
        self.actions.append(action)
        self.news.set()

    async def did(self, kind: type[A], accept: Callable[[A], bool] = lambda _: True) -> A:
        """Wait until it was told to do something of a kind."""
        async with asyncio.timeout(LONG_S):
            while True:
                for action in self.actions:
                    if isinstance(action, kind) and accept(action):
                        return action
                self.news.clear()
                await self.news.wait()

    async def die(self) -> None:
        """End without a word, as a machine that is lost."""
        self.task.cancel()
        await asyncio.wait([self.task])
        await self.store.close()


@asynccontextmanager
async def pair(url: str, cell: str, ttl_ms: int = TTL_MS) -> AsyncIterator[tuple[Node, Node]]:
    """Node a leads, node b watches."""
    a = Node(url, cell, "a", ttl_ms)
    await a.did(Lead)
    b = Node(url, cell, "b", ttl_ms)
    a.links, b.links = {"b": b}, {"a": a}
    try:
        yield a, b
    finally:
        await a.die()
        await b.die()


def test_a_standby_takes_over_from_a_node_that_is_lost(url: str, cell: str) -> None:
    async def story() -> None:
        async with pair(url, cell, 300) as (a, b):
            first = await a.did(Lead)
            await a.die()
            second = await b.did(Lead)
            assert (first.succession, second.succession) == (Succession.FIRST, Succession.EXPIRED)
            # A busy machine may have cost the first leader its lease before; epochs only grow.
            assert second.epoch > first.epoch
            await b.did(OpenGate)

    asyncio.run(story())


def test_a_switchover_hands_the_lease_on_by_name_without_waiting_for_the_ttl(url: str, cell: str) -> None:
    ttl_ms = 30_000

    async def story() -> None:
        # The first leader of a new cell waits a ttl: let it have had one.
        store = open_store(url)
        from failover.lease import Record

        assert await store.swap(None, Record(cell, 1, "z", "earlier", ttl_ms, 1).released(2), LONG_S)
        await store.close()
        async with pair(url, cell, ttl_ms) as (a, b):
            a.runner.tell(a.elector.on_peer, PeerStatus("b", Health(), 0))
            a.runner.tell(a.elector.switch_over, "b")
            lead = await b.did(Lead)
            assert (lead.epoch, lead.succession) == (3, Succession.RELEASED)
            assert a.elector.state is State.WATCHING

    asyncio.run(story())


def test_a_stopped_node_releases_and_its_runner_ends_with_the_gate_closed(url: str, cell: str) -> None:
    async def story() -> None:
        async with pair(url, cell) as (a, b):
            a.runner.tell(a.elector.stop)
            async with asyncio.timeout(LONG_S):
                await a.task
            assert isinstance(a.actions[-1], CloseGate)
            await b.did(Lead)

    asyncio.run(story())


def test_a_right_is_never_later_by_another_clock() -> None:
    """Time that passes between the two readings shortens the right."""
    boot = iter([5_000, 6_000])
    assert on_clock(10_000, lambda: 100, lambda: next(boot)) == 5_100
    assert on_clock(10_000, lambda: 100, lambda: next(boot)) == 4_100
