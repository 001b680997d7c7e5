"""Which strategies share a process: each has its own, but those of a named group that start together."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

from host.isolation.assignment import Assignment, SeatPlan
from host.isolation.process import WorkerProcess
from host.isolation.spares import Spares

__all__ = ["Berth", "Boarding"]

GATHER_S: Final = 0.05
"""How long the first of a group waits for the others."""


class Berth:
    """One strategy's share of a worker process; of use once `Boarding.board` has returned it."""

    def __init__(
        self, group: "_Group", plan: SeatPlan, memory_bytes: int, on_exit: Callable[[str], None]
    ) -> None:
        self.plan: Final = plan
        self.own_memory_bytes: Final = memory_bytes
        """What it may hold, of the process's memory."""
        self.on_exit: Final = on_exit
        self._group: Final = group
        group.berths.append(self)

    @property
    def pid(self) -> int:
        """Return the process id."""
        return self._process.pid

    @property
    def last_words(self) -> str:
        """Return the end of what the process wrote to its output."""
        return self._process.last_words

    def ask_where(self) -> None:
        """Have the process write down where it is."""
        self._process.ask_where()

    @property
    def where(self) -> str:
        """Return where the process said that it is, as a stack; empty where it said nothing."""
        return self._process.where

    @property
    def members(self) -> int:
        """Return how many share the process."""
        return len(self._group.plans)

    @property
    def others(self) -> str:
        """Return the names of the others who share the process."""
        return ", ".join(plan.instance for plan in self._group.plans if plan is not self.plan)

    @property
    def memory_limit(self) -> int:
        """Return what the process may hold in memory."""
        return self._group.memory_bytes

    def read_output(self) -> None:
        """Take in what the process wrote."""
        self._process.read_output()

    def memory_bytes(self) -> int:
        """Return what the process holds in memory."""
        return self._process.memory_bytes()

    def cpu_ns(self) -> int:
        """Return the processor time that the process has used."""
        return self._process.cpu_ns()

    def leave(self) -> None:
        """Have nothing to do with the process any more; it ends with the last who leaves."""
        group = self._group
        if self in group.berths:
            group.berths.remove(self)
        if not group.berths and group.process is not None:
            group.process.kill()

    def kill(self) -> None:
        """End the process, whoever else is in it: that is what sharing one means."""
        self._process.kill()

    def close(self) -> None:
        """End the process and wait for its end; nothing is told any more."""
        self._process.close()

    @property
    def _process(self) -> WorkerProcess:
        assert self._group.process is not None
        return self._group.process


class _Group:
    """Those who wait for the process of a group, or are in it."""

    def __init__(self) -> None:
        self.berths: list[Berth] = []
        """Of those who have not left."""
        self.plans: tuple[SeatPlan, ...] = ()
        """What the process was told to run, ..."""
        self.memory_bytes = 0
        """... and what it may hold."""
        self.process: WorkerProcess | None = None
        self.started: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class Boarding:
    """Finds each strategy its process. Belongs to the running loop."""

    def __init__(
        self, spares: Spares, spawn: Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"]
    ) -> None:
        self._spares: Final = spares
        self._spawn: Final = spawn
        self._gathering: dict[str, _Group] = {}

    async def board(
        self, name: str, plan: SeatPlan, memory_bytes: int, on_exit: Callable[[str], None]
    ) -> Berth:
        """Start a strategy in a process of its own or, where `name` is not empty, of the group of that name.

        The memory of a group is what its members may hold together. `on_exit` is told how the process ended.
        Raises `OSError` where none can be started. Cancelled, it leaves nothing behind.
        """
        group = self._gathering.get(name) if name else None
        if group is None:
            group = _Group()
            if name:
                self._gathering[name] = group
            self._spawn(self._depart(name, group))
        berth = Berth(group, plan, memory_bytes, on_exit)
        try:
            await asyncio.shield(group.started)
        except BaseException:
            berth.leave()
            raise
        return berth

    async def _depart(self, name: str, group: _Group) -> None:
        if name:
            await asyncio.sleep(GATHER_S)
            del self._gathering[name]
        try:
            process = group.process = await self._spares.take()
        except OSError as error:
            group.started.set_exception(error)
            return

        def on_exit(how: str) -> None:
            for berth in tuple(group.berths):
                berth.on_exit(how)

        if not group.berths:  # all who wanted it have changed their minds meanwhile
            process.kill()
            return
        group.plans = tuple(berth.plan for berth in group.berths)
        group.memory_bytes = sum(berth.own_memory_bytes for berth in group.berths)
        group.started.set_result(None)
        try:
            await process.assign(Assignment(group.memory_bytes, group.plans).encode(), on_exit)
        except asyncio.CancelledError:
            process.kill()
            raise
