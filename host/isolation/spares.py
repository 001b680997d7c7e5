"""Worker processes kept in reserve, with everything imported: a restart or a takeover need not wait for that."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final

from host.isolation.process import WorkerProcess
from host.isolation.reaper import Reaper

__all__ = ["Spares"]

_log = logging.getLogger("tandem.workers")
SOON_S: Final = 1.0


class Spares:
    """Belongs to the running loop. Keeps none until `keep` says how many."""

    def __init__(
        self, reaper: Reaper, spawn: Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"]
    ) -> None:
        self._reaper: Final = reaper
        self._spawn: Final = spawn
        self._ready: list[WorkerProcess] = []
        self._wanted = 0
        self._is_filling = False
        self._timer: asyncio.TimerHandle | None = None

    @property
    def ready(self) -> int:
        """Return how many there are."""
        return len(self._ready)

    def keep(self, count: int) -> None:
        """Have so many in reserve, soon: first whoever starts or takes over now needs the processor, and them."""
        self._wanted = count
        self._later()

    async def take(self) -> WorkerProcess:
        """Return one that waits for its assignment; raise `OSError` where none can be started."""
        self._later()
        while self._ready:
            spare = self._ready.pop()
            if not spare.has_ended:
                return spare
        return await WorkerProcess.start(self._reaper)

    def close(self) -> None:
        """End them all, and start no other."""
        self._wanted = 0
        if self._timer is not None:
            self._timer.cancel()
        while self._ready:
            self._ready.pop().close()

    def _later(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SOON_S, self._fill)

    def _fill(self) -> None:
        self._timer = None
        while len(self._ready) > self._wanted:
            self._ready.pop().close()
        if not self._is_filling and len(self._ready) < self._wanted:
            self._is_filling = True
            self._spawn(self._start_missing())

    async def _start_missing(self) -> None:
        try:
            while len(self._ready) < self._wanted:
                spare = await WorkerProcess.start(self._reaper)
                self._ready.append(spare)
        except OSError as error:
            _log.warning("no worker can be kept in reserve: %s", error)
        finally:
            self._is_filling = False
