"""One worker and its process: started, watched, ended, and started again when it was lost."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from msgspec import structs

from host.api import Params
from host.core.entries import InstanceState
from host.isolation.boarding import Berth
from host.isolation.conduct import Tally
from host.isolation.fate import Fate
from host.isolation.proxy import Proxy
from host.isolation.rehearsal import Rehearsal
from host.isolation.revision import WorkerRevision
from host.isolation.seat import NoSeat, Seat
from host.isolation.session import Session
from host.isolation.settings import WorkerSettings
from host.loader import Offer
from host.runtime.reload.version_change import VersionChange
from host.runtime.remote import RemoteStatus
from host.runtime.turn import turn

if TYPE_CHECKING:
    from host.isolation.attached import Attached
    from host.isolation.remote_model import ModelInWorker
    from host.isolation.workers import Workers
    from host.runtime.engine import Engine

__all__ = ["Worker"]

_log = logging.getLogger("tandem.workers")
_RECEIVING: Final = (InstanceState.RUNNING, InstanceState.PAUSED)


class Worker:
    """Runs one instance in a process of its own, for as long as the instance is to run."""

    def __init__(
        self,
        engine: "Engine",
        node: "Workers",
        name: str,
        proxy: Proxy,
        offer: Offer,
        settings: WorkerSettings,
    ) -> None:
        self.name: Final = name
        self.restarts = 0
        self.is_wanted = False
        """Whether the instance is to run."""
        self._engine: Final = engine
        self._proxy: Final = proxy
        self.offer = offer
        self.settings: Final = settings
        self._node: Final = node
        self._fate: Final = Fate(settings)
        self._tally: Final = Tally()
        self._seat: Seat | None = None
        """Of what runs now, or is about to."""
        self._unseated: asyncio.Handle | None = None
        """Tells, after the turn that it was to start in, that it got no seat."""
        self._starts_ns = 0
        """When it is to be started again; 0 while it is not waiting for that."""
        self._started_ns = 0
        self._welcomed_ns = 0
        self._stopping_ns = 0
        self._beat_ns = 0
        self._before_me: Worker | Attached | ModelInWorker | None = None
        """The worker that ran under this name and is still on its way to its end."""
        self._before = RemoteStatus(state="ended")
        """What there was to say of the worker before this one."""
        self.is_on_trial = False
        """Whether the version that it runs is on probation, or not even live: nothing of it is journaled."""
        self.on_fault: Callable[[str], bool] = lambda _why: False
        """Told first, within a turn, what it failed by; returns whether that is seen to."""
        proxy.worker = self
        proxy.on_moved = self.moved
        proxy.get_status = self.status
        proxy.get_revision = self.revision

    # -- what the instance does ------------------------------------------------------------------

    def moved(self, state: InstanceState) -> None:
        """Follow the instance: start with it, end with it."""
        if state in _RECEIVING:
            if not self.is_wanted:
                self.is_wanted = True
                self._fate.forget()
                # The worker of an instance that was stopped this moment still has its last word: its state.
                self._before_me = self._node.busy(self)
                self._node.add(self)
                if self._seat is None and self._before_me is None:
                    self._start()
        elif state is InstanceState.STOPPED:
            self.stop()
        elif state is InstanceState.QUARANTINED:
            self.is_wanted = False
            self.end()

    def stop(self) -> None:
        """Have the strategy run its `on_stop`, and end; it gets `stop_ns` for that."""
        self.is_wanted = False
        self._starts_ns = 0
        session = self._proxy.session
        if session is None or session.outlet is None:
            self.end()
        elif not self._stopping_ns:
            self._stopping_ns = time.monotonic_ns()
            session.tell_stop("")

    def silence(self) -> None:
        """Have it end without a last word: an inline instance has its name, and goes on from what is saved."""
        if self._proxy.session is not None:
            self._proxy.session.leave_record()

    def end(self) -> None:
        """Hear no more of the strategy, and end its process, whatever that is doing, unless others share it."""
        self._before = structs.replace(self.status(), behind=0, lag_ns=0, memory_bytes=0)
        self._starts_ns = self._stopping_ns = self._welcomed_ns = 0
        self._before_me = None
        if self._unseated is not None:
            self._unseated.cancel()
            self._unseated = None
        session, self._proxy.session = self._proxy.session, None
        if session is not None:
            session.end()
        seat, self._seat = self._seat, None
        if seat is not None:
            seat.end()

    @property
    def process(self) -> Berth | None:
        """Return its share of a process; None while none runs."""
        return None if self._seat is None else self._seat.process

    def status(self) -> RemoteStatus:
        """Return how things are with the worker."""
        session, process = self._proxy.session, self.process
        if self._stopping_ns:
            state = "stopping"
        elif self._starts_ns or self._before_me is not None:
            state = "waiting"
        elif session is None:
            state = "ended"
        else:
            state = "starting" if session.outlet is None else "running"
        pid, memory = (0, 0) if process is None else (process.pid, process.memory_bytes())
        if session is None or session.outlet is None:
            return structs.replace(
                self._before, state=state, pid=pid, restarts=self.restarts, **self._tally.counts()
            )
        return session.status(state, pid=pid, restarts=self.restarts, memory_bytes=memory)

    # -- as the worker of a version that is not live yet ------------------------------------------

    def renewed(self, offer: Offer, params: Params) -> Proxy:
        """Return what stands for another version of its strategy, with a worker that is not started."""
        return self._node.renewed(self._proxy, offer, params)

    def revision(self, change: VersionChange) -> WorkerRevision:
        """Return what takes the instance to another version."""
        return WorkerRevision(self._engine, self._proxy.instance, self, change)

    def rehearsal(self, offer: Offer, params: Params) -> Rehearsal:
        """Return a version of its strategy that is to run muted."""
        return Rehearsal(self._engine, self._node, self._proxy.instance, offer, params, self.settings)

    def stand_by(self) -> None:
        """Start the process, and have the strategy wait in it until `admit`."""
        self.is_wanted = True
        self._node.add(self)
        self._start(is_held=True)

    @property
    def stands_by(self) -> bool:
        """Return whether its strategy is imported and waits to be let in."""
        session = self._proxy.session
        return session is not None and session.is_held and session.has_called

    def admit(self) -> None:
        """Let the strategy in that waits."""
        self._started_ns = time.monotonic_ns()
        if self._proxy.session is not None:
            self._proxy.session.admit()

    def retire(self) -> None:
        """Make way for another version: what it has under way is dropped, as if it had been lost."""
        self.is_wanted = False
        self.end()

    def prove_itself(self) -> None:
        """Have its version on probation no more, within a turn: the journal is told what it has by now."""
        self.is_on_trial = False
        self.on_fault = lambda _why: False
        if self._proxy.session is not None:
            self._proxy.session.take_record()

    @property
    def is_busy(self) -> bool:
        """Return whether it is still on its way to its end."""
        return self._stopping_ns != 0

    @property
    def is_over(self) -> bool:
        """Return whether nothing of it is left and nothing is to be done any more."""
        return not (self.is_wanted or self._stopping_ns or self._seat)

    # -- starting --------------------------------------------------------------------------------

    def _start(self, *, is_held: bool = False) -> None:
        engine, proxy, settings = self._engine, self._proxy, self.settings
        self._starts_ns = 0
        self._started_ns = time.monotonic_ns()
        try:
            seat = self._seat = Seat(self._node, settings, self._exited, self._tally)
        except NoSeat as error:
            self._unseated = asyncio.get_running_loop().call_soon(self._lost, str(error))
            return
        instance = proxy.instance
        session = proxy.session = Session(
            engine,
            instance,
            engine.roster.ids_of(instance.instance, engine.state.instances[instance.instance].number),
            settings,
            seat.channel,
            takes_over=proxy.takes_over,
            is_held=is_held,
            is_of_record=not self.is_on_trial,
            tally=self._tally,
            on_welcomed=self._welcomed,
            on_failed=self._failed,
            on_bye=self._said_bye,
            on_cut_off=lambda why: self._lost(f"it was cut off: {why}"),
        )
        seat.begin(instance.instance, self.offer, session.on_message, group=settings.group)

    def _welcomed(self) -> None:
        self._welcomed_ns = time.monotonic_ns()
        self._proxy.takes_over = False  # one that was lost on its way was told nothing
        pid = 0 if self._seat is None else self._seat.pid
        again = f", restart {self.restarts}" if self.restarts else ""
        took_ms = (self._welcomed_ns - self._started_ns) // 1_000_000
        _log.info("instance %s runs in worker %d after %d ms%s", self.name, pid, took_ms, again)
        self._engine.alert("worker_started", f"instance {self.name} runs in process {pid}{again}", self.name)

    # -- how it ends -----------------------------------------------------------------------------

    def _failed(self, what: str) -> None:
        """Quarantine the instance for what its code raised, as an inline one."""
        engine, instance = self._engine, self._proxy.instance
        if not self.is_wanted and engine.roster.instances.get(self.name) is not instance:
            # It raised in `on_stop`. It was removed meanwhile, or another one has its name by now.
            engine.alert("worker_lost", f"instance {self.name}, which was removed: {what}", self.name)
            self.end()
            return
        with turn(engine):
            if not self.on_fault(what):
                engine.roster.put_in_quarantine(instance, what)

    def _said_bye(self, reason: str) -> None:
        if self.is_wanted:
            self._lost(f"it said bye of its own will: {reason or 'no reason given'}")
        else:
            self.end()

    def _exited(self, how: str) -> None:
        if self.is_wanted:
            self._lost(how)
        else:
            self.end()

    def _lost(self, why: str) -> None:
        """End what is left of it, see to its orders, and start it again or not, as is configured."""
        if self._seat is not None:
            if self._seat.process is not None and (others := self._seat.process.others):
                why = f"{why}; it shared its process with {others}, one of which may be the cause"
            self._seat.kill()  # those who share it are lost with it
        self.end()
        if not self.is_wanted or self._engine.halted:  # nothing is journaled any more: another node may lead
            return
        engine, instance, settings = self._engine, self._proxy.instance, self.settings
        with turn(engine) as now_ns:
            if self.on_fault(f"its worker was lost: {why}"):
                self.is_wanted = False
                return
            delay_ns = self._fate.lost(time.monotonic_ns())
            engine.record_alert("worker_lost", f"instance {self.name}: {why}", self.name)
            if delay_ns is None:
                last = why.partition("\n")[0]  # after a crash a stack follows, which is in the alert
                many = f"its worker was lost {self._fate.count} times, the last time: {last}"
                engine.roster.put_in_quarantine(instance, many)
                return
            if settings.on_loss == "pull":
                engine.roster.pull_orders(instance, "worker lost", now_ns)
        self._starts_ns = time.monotonic_ns() + delay_ns

    # -- a few times a second --------------------------------------------------------------------

    def look(self, now_ns: int) -> None:
        """Find out whether it makes progress within its limits; restart it when that is due."""
        if self._before_me is not None:
            if self._before_me.is_over:
                self._before_me = None
                self._start()
            return
        if self._starts_ns and now_ns >= self._starts_ns:
            self.restarts += 1
            self._start()
            return
        session, seat, settings = self._proxy.session, self._seat, self.settings
        if session is None or seat is None:
            return
        if self._stopping_ns:
            stopping_ns = now_ns - self._stopping_ns
            seat.waits(stopping_ns, settings.stop_ns)
            if stopping_ns > settings.stop_ns:
                why = f"it did not handle stop in time{seat.where}"
                _log.warning("instance %s: its worker is killed: %s", self.name, why)
                if self.is_wanted:  # it was started again meanwhile
                    self._lost(why)
                else:
                    self.end()
            return
        outlet = session.outlet
        if outlet is None:
            starting_ns = 0 if self.stands_by else now_ns - self._started_ns
            seat.waits(starting_ns, settings.start_ns)
            if starting_ns > settings.start_ns:
                self._lost(f"it did not start within {settings.start_ns / 1e9:g} s{seat.where}")
            elif fault := seat.fault(now_ns):
                self._lost(fault)
            return
        stuck_ns = min(outlet.stuck_ns(now_ns), seat.channel.known_ns(now_ns))
        seat.waits(stuck_ns, settings.deadline_ns)
        if stuck_ns > settings.deadline_ns:
            self._lost(
                f"it has handled nothing for {stuck_ns / 1e6:.0f} ms with {outlet.behind} events before it, "
                f"the limit is {settings.deadline_ns / 1e6:g} ms{seat.where}"
            )
            return
        if fault := seat.fault(now_ns):
            self._lost(fault)
            return
        if now_ns - self._beat_ns >= settings.heartbeat_ns:
            self._beat_ns = now_ns
            session.beat(now_ns)
