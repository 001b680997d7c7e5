"""The workers of a node."""

import asyncio
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import zmq

from host.api import Params, Secret
from host.config import InstanceSection
from host.config.schema import WorkerLimits
from host.isolation.attached import Attached
from host.isolation.boarding import Boarding
from host.isolation.door import door_of
from host.isolation.outlet import Item
from host.isolation.proxy import Proxy, proxy_class
from host.isolation.reaper import Reaper
from host.isolation.remote_model import ModelInWorker
from host.isolation.seat import Seat
from host.isolation.settings import client_settings_of, settings_of
from host.isolation.spares import Spares
from host.isolation.supervised import Worker
from host.loader import Offer, decode_params

if TYPE_CHECKING:
    from host.runtime.engine import Engine

__all__ = ["Workers"]

_log = logging.getLogger("tandem.workers")
LOOK_EVERY_S: Final = 0.02
HELD_NS: Final = 100_000_000
"""A look that comes so late was held up: what workers have said meanwhile is read before they are judged, ..."""
MOST_HELD: Final = 10
"""... unless so many looks in a row came late: that loop is always so."""
MOST_PATH: Final = 75
"""Bytes that the path of the folder may have: a socket's has 107 at most, and its name some 30 of them."""


class Workers:
    """Makes what stands in instances for strategies in workers, and looks after those workers.

    Belongs to the running loop; `close` ends every worker. Sockets are in `folder`, which nobody but this
    node's user may enter.
    """

    def __init__(
        self,
        engine: "Engine",
        folder: Path,
        find_secret: Callable[[str], Secret | None] = lambda _reference: None,
    ) -> None:
        self.running: set[Worker | Attached | ModelInWorker] = set()
        """Those of the instances that run, or are on their way to their end."""
        self.seats: set[Seat] = set()
        """Those in worker processes, rehearsals included."""
        self._engine: Final = engine
        self._folder = folder
        self._doors: Final = folder.parent / "clients"
        self._find_secret: Final = find_secret
        self._is_temporary = False
        self._has_folder = False
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._reaper: Final = Reaper()
        self.spares: Final = Spares(self._reaper, self.spawn)
        self.boarding: Final = Boarding(self.spares, self.spawn)
        self._tasks: set[asyncio.Task[None]] = set()
        self._looking: asyncio.TimerHandle | None = None
        self._looked_ns = self._held = 0
        self._item: Item | None = None
        self._sockets = 0

    def stand_in(self, section: InstanceSection, offer: Offer) -> Proxy:
        """Return what stands in an instance for an offered strategy; its worker starts with the instance.

        For one that a client runs, the door opens with the instance. Raises `ParamsInvalid`, `DoorProblem`, or
        what a token or key cannot be read for. The class is not constructed here.
        """
        params = decode_params(offer, section.params, instance=section.name)
        proxy = proxy_class(offer.cls)(params, self.item)
        if section.isolation == "client":
            door = door_of(self._doors, section.name, section.client, self._find_secret)
            Attached(self._engine, self, section.name, proxy, door, client_settings_of(section.client))
        else:
            Worker(self._engine, self, section.name, proxy, offer, settings_of(section.worker))
        return proxy

    def renewed(self, proxy: Proxy, offer: Offer, params: Params) -> Proxy:
        """Return what stands for another version of a strategy as `proxy` does for the present one."""
        assert proxy.worker is not None
        other = proxy_class(offer.cls)(params, self.item)
        Worker(self._engine, self, proxy.worker.name, other, offer, proxy.worker.settings)
        return other

    @property
    def stand_ins(
        self,
    ) -> tuple[
        Callable[[InstanceSection, Offer], Proxy],
        Callable[[str, Offer, Mapping[str, object], WorkerLimits], ModelInWorker],
        Callable[[str], None],
    ]:
        """Return what makes stand-ins, for strategies and for quote models, and what silences those before."""
        return self.stand_in, self.model_stand_in, self.silence

    def model_stand_in(
        self, instance: str, offer: Offer, params: Mapping[str, object], limits: WorkerLimits
    ) -> ModelInWorker:
        """Return what stands in an instance's chain for an offered quote model; raise `ParamsInvalid`."""
        return ModelInWorker.of(self._engine, self, instance, offer, params, settings_of(limits))

    def silence(self, name: str) -> None:
        """Have whoever still ends under the name of an instance, which runs inline from here on, say nothing of it."""
        for one in self.running:
            if not isinstance(one, ModelInWorker) and one.name == name:
                one.silence()

    def item(self, event: Any) -> Item:
        """Return an event as it is sent; the same for every worker that gets it, so it is encoded once."""
        item = self._item
        if item is None or item.event is not event:
            item = self._item = Item(event)
        return item

    @property
    def are_busy(self) -> bool:
        """Return whether a worker is still handling its `stop`."""
        return any(worker.is_busy for worker in self.running)

    def close(self) -> None:
        """End every worker; nothing is left of them when this returns."""
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None
        processes = [seat.process for seat in self.seats if seat.process is not None]
        for worker in self.running:
            worker.is_wanted = False
            worker.end()
        for seat in list(self.seats):
            seat.end()
        for process in processes:
            process.close()
        for task in self._tasks:
            task.cancel()
        self.spares.close()
        self._reaper.close()
        self.running.clear()
        self.context.destroy(linger=0)
        if self._is_temporary:
            shutil.rmtree(self._folder, ignore_errors=True)

    # -- for its workers -------------------------------------------------------------------------

    def add(self, worker: Worker | Attached | ModelInWorker) -> None:
        """Look after a worker from here on, until it has ended."""
        self.running.add(worker)
        if self._looking is None:
            self._looking = asyncio.get_running_loop().call_later(LOOK_EVERY_S, self._look)

    def busy(self, newcomer: Worker | Attached) -> Worker | Attached | ModelInWorker | None:
        """Return what else still ends under the name of an instance that starts, if anything does."""
        name = newcomer.name
        return next(
            (one for one in self.running if one is not newcomer and one.name == name and one.is_busy), None
        )

    def new_addresses(self) -> tuple[str, str]:
        """Return where the sockets of a worker that starts are to be bound: for events, and for turns.

        Raises `OSError` where there is no folder for them and none can be made.
        """
        self._make_folder()
        self._sockets += 1
        base = self._folder.absolute() / f"{os.getpid()}-{self._sockets}"
        return f"ipc://{base}.events.sock", f"ipc://{base}.turns.sock"

    def spawn(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Run a coroutine until it ends or the node does."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # -- inside ----------------------------------------------------------------------------------

    def _make_folder(self) -> None:
        if self._has_folder:
            return
        if len(os.fsencode(self._folder.absolute())) > MOST_PATH:
            self._folder, self._is_temporary = Path(tempfile.mkdtemp(prefix="tandem-")), True
        self._folder.mkdir(parents=True, exist_ok=True)
        self._folder.chmod(0o700)
        for left in self._folder.glob("*.sock"):
            left.unlink(missing_ok=True)  # of a process that died
        self._has_folder = True

    def _look(self) -> None:
        self._looking = asyncio.get_running_loop().call_later(LOOK_EVERY_S, self._look)
        now_ns = time.monotonic_ns()
        late_ns, self._looked_ns = now_ns - self._looked_ns, now_ns
        self._held = self._held + 1 if late_ns > HELD_NS else 0
        if 0 < self._held <= MOST_HELD:
            return
        for worker in list(self.running):
            if self._engine.halted:
                worker.is_wanted = False
                worker.end()
            worker.look(now_ns)
            if worker.is_over:
                self.running.discard(worker)
