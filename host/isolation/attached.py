"""One instance whose strategy is a program of its own, which attaches, goes and comes back as it likes."""

import logging
import time
from collections import deque
from typing import TYPE_CHECKING, Final

import zmq

from host.core.entries import InstanceState
from host.isolation.channel import Channel
from host.isolation.client_revision import ClientRevision
from host.isolation.client_session import ClientSession
from host.isolation.conduct import Tally
from host.isolation.door import Door
from host.isolation.fate import Fate
from host.isolation.proxy import Proxy
from host.isolation.settings import SECOND_NS, WorkerSettings
from host.runtime.reload.version_change import VersionChange
from host.runtime.remote import RemoteStatus
from host.runtime.turn import turn

if TYPE_CHECKING:
    from host.isolation.remote_model import ModelInWorker
    from host.isolation.supervised import Worker
    from host.isolation.workers import Workers
    from host.runtime.engine import Engine

__all__ = ["Attached"]

_log = logging.getLogger("tandem.clients")
_RECEIVING: Final = (InstanceState.RUNNING, InstanceState.PAUSED)
BEGINNINGS: Final = 50
"""Sessions within a minute: more are a loop, and each costs entries in the journal."""
STRANGER_WEIGHS: Final = 10
"""As how many messages one without the token counts."""
LINGER_NS: Final = SECOND_NS // 20
"""How long the last word to a peer that is cut off has to leave, and the last of one that hung up to arrive; and an
address, to be free again."""


class Attached:
    """Holds an instance's door open while it is to run, and its orders to the policy while nobody is there."""

    def __init__(
        self,
        engine: "Engine",
        node: "Workers",
        name: str,
        proxy: Proxy,
        door: Door,
        settings: WorkerSettings,
    ) -> None:
        self.name: Final = name
        self.is_wanted = False
        """Whether the instance is to run."""
        self._engine: Final = engine
        self._node: Final = node
        self._proxy = proxy
        self._door: Final = door
        self._settings: Final = settings
        self._fate: Final = Fate(settings)
        self._channel: Channel | None = None
        self._opens_ns = 0
        """When the door is to be opened again; 0 while it is not waiting for that."""
        self._closes_ns = 0
        self._stopping_ns = 0
        self._alone_ns = 0
        """Since when nobody is there whose orders are to be pulled; 0 while that does not matter."""
        self._beat_ns = 0
        self._hung_up_ns = 0
        """When its connection ended; its last words, on another socket, may come after that. 0: it is there."""
        self._barred_ns = 0
        """Since when this node may send nothing, as another one may lead; 0 while it may."""
        self._before_me: Worker | Attached | ModelInWorker | None = None
        """What ran under this name and is still on its way to its end."""
        self._tally: Final = Tally()
        self._beginnings: deque[int] = deque(maxlen=BEGINNINGS)
        self._sessions = 0
        self._look_after(proxy)

    def _look_after(self, proxy: Proxy) -> None:
        proxy.on_moved, proxy.get_status, proxy.get_revision = self.moved, self.status, self.revision

    # -- what the instance does ------------------------------------------------------------------

    def moved(self, state: InstanceState) -> None:
        """Follow the instance: let a client in from its start to its end."""
        if state in _RECEIVING:
            if not self.is_wanted:
                self.is_wanted = True
                self._fate.forget()
                # Whoever ran an instance of this name that was stopped this moment still has the door for a last word.
                self._before_me = self._node.busy(self)
                self._node.add(self)
                if self._channel is None and self._before_me is None:
                    self._open()
        elif state is InstanceState.STOPPED:
            self.stop()
        elif state is InstanceState.QUARANTINED:
            self.is_wanted = False
            self.end()

    def stop(self) -> None:
        """Have the strategy run its `on_stop`, and say bye; it gets `stop_ns` for that."""
        self.is_wanted = False
        session = self._proxy.session
        if session is None or session.outlet is None:
            self.end()
        elif not self._stopping_ns:
            self._stopping_ns = time.monotonic_ns()
            session.tell_stop("")

    def silence(self) -> None:
        """Have its client end without a last word: an inline instance has its name, and goes on from what is saved."""
        if self._proxy.session is not None:
            self._proxy.session.leave_record()

    def end(self) -> None:
        """Shut the door, and hear no more of whoever is there."""
        self._opens_ns = self._closes_ns = self._alone_ns = 0
        self._before_me = None
        self._end_session()
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def status(self) -> RemoteStatus:
        """Return how things are with the client, if one is there."""
        session, state = self._proxy.session, "waiting" if self.is_wanted else "ended"
        if session is None or session.outlet is None:
            return RemoteStatus(state=state, restarts=self._sessions, **self._tally.counts())
        state = "stopping" if self._stopping_ns else "running"
        return session.status(state, restarts=max(self._sessions - 1, 0))

    def revision(self, change: VersionChange) -> ClientRevision:
        """Return what takes the instance to another version of its plugin."""
        return ClientRevision(self._engine, self._proxy, self, change)

    def take(self, proxy: Proxy) -> None:
        """Have another version's stand-in in the instance; whoever is attached stays."""
        before, self._proxy = self._proxy, proxy
        session = proxy.session = before.session
        proxy.takes_over = before.takes_over
        is_attached = session is not None and session.outlet is not None
        proxy.readable_as = before.readable_as if is_attached else proxy.params_type
        before.session = None
        self._look_after(proxy)

    @property
    def is_busy(self) -> bool:
        """Return whether a client is still handling its `stop`."""
        return self._stopping_ns != 0

    @property
    def is_over(self) -> bool:
        """Return whether nothing of it is left and nothing is to be done any more."""
        return not (self.is_wanted or self._stopping_ns or self._channel)

    # -- sessions --------------------------------------------------------------------------------

    def _open(self) -> None:
        door, now_ns = self._door, time.monotonic_ns()
        self._opens_ns = 0
        try:
            channel = Channel(
                self._node.context,
                door.events,
                door.turns,
                door.token,
                curve=door.curve,
                most_strangers=self._settings.messages_at_once // STRANGER_WEIGHS,
                tally=self._tally,
            )
        except zmq.ZMQError as error:
            again_ns = self._settings.most_backoff_ns
            self._opens_ns = now_ns + again_ns
            _log.error(
                "instance %s: no client can attach at %s and %s: %s; tried again in %g s",
                self.name, door.events, door.turns, error, again_ns / 1e9,
            )  # fmt: skip
            return
        self._channel = channel
        self._begin()
        channel.open(self._on_message)

    def _begin(self) -> None:
        """Wait for a client's hello."""
        engine, proxy = self._engine, self._proxy
        assert self._channel is not None
        instance = proxy.instance
        self._alone_ns = time.monotonic_ns() if self._settings.on_loss == "pull" else 0
        proxy.session = ClientSession(
            engine,
            instance,
            engine.roster.ids_of(instance.instance, engine.state.instances[instance.instance].number),
            self._settings,
            self._channel,
            tally=self._tally,
            takes_over=proxy.takes_over,
            on_welcomed=self._welcomed,
            on_failed=self._failed,
            on_bye=self._said_bye,
            on_cut_off=self._cut_off,
        )

    def _end_session(self) -> None:
        self._hung_up_ns = self._stopping_ns = 0
        session, self._proxy.session = self._proxy.session, None
        if session is not None:
            session.end()

    def _on_message(self, body: bytes) -> None:
        session = self._proxy.session
        if session is not None:
            session.on_message(body)

    def _welcomed(self) -> None:
        if self._channel is not None:
            self._channel.has_hung_up()  # that was who came before
        self._alone_ns = self._hung_up_ns = 0
        self._sessions += 1
        self._proxy.takes_over = False
        self._proxy.readable_as = self._proxy.params_type
        self._beginnings.append(time.monotonic_ns())
        assert isinstance(self._proxy.session, ClientSession)
        name = self._proxy.session.client
        with turn(self._engine):
            text = f"instance {self.name} is run by the client {name!r}"
            self._engine.record_alert("client_attached", text, self.name)

    # -- how they end ----------------------------------------------------------------------------

    def _failed(self, what: str) -> None:
        """Quarantine the instance for what its code raised, as an inline one."""
        if self._is_of_another("client_gone", what):
            return
        with turn(self._engine):
            self._engine.roster.put_in_quarantine(self._proxy.instance, what)

    def _is_of_another(self, kind: str, why: str) -> bool:
        """Return whether the name, and all orders, are another instance's by now; then end, and only tell of it."""
        if self._engine.roster.instances.get(self.name) is self._proxy.instance:
            return False
        self._engine.alert(kind, f"instance {self.name}, which was removed: {why}", self.name)
        self.end()
        return True

    def _said_bye(self, reason: str) -> None:
        if self.is_wanted:
            self._gone(f"it said bye: {reason or 'no reason given'}")
        else:
            self.end()

    def _gone(self, why: str) -> None:
        """See to the orders of a client that is not there any more, and wait for the next one."""
        self._end_session()
        if not self.is_wanted:
            self.end()
            return
        with turn(self._engine) as now_ns:
            self._engine.record_alert("client_gone", f"instance {self.name}: {why}", self.name)
            if self._settings.on_loss == "pull":
                self._engine.roster.pull_orders(self._proxy.instance, "client gone", now_ns)
        first, now_ns = self._beginnings[0] if self._beginnings else 0, time.monotonic_ns()
        if len(self._beginnings) == BEGINNINGS and now_ns - first < 60 * SECOND_NS:
            self._cut_off(f"it began {BEGINNINGS} times within a minute")
        else:
            self._begin()
            self._alone_ns = 0  # its orders are pulled by now

    def _cut_off(self, why: str) -> None:
        """Shut the door for a while; for good, by quarantine, where that happens again and again."""
        if self._is_of_another("client_cut_off", why):
            return
        self._end_session()
        delay_ns = self._fate.lost(time.monotonic_ns())
        with turn(self._engine) as now_ns:
            text = f"instance {self.name}: its client was cut off: {why}"
            self._engine.record_alert("client_cut_off", text, self.name)
            if delay_ns is None:
                many = f"its client was cut off {self._fate.count} times, the last time: {why}"
                self._engine.roster.put_in_quarantine(self._proxy.instance, many)
                return
            if self._settings.on_loss == "pull":
                self._engine.roster.pull_orders(self._proxy.instance, "client cut off", now_ns)
        self._shut(delay_ns)

    def _shut(self, delay_ns: int) -> None:
        if not self.is_wanted:  # it was on its way to its end
            self.end()
            return
        now_ns = time.monotonic_ns()
        if self._channel is not None:
            self._channel.stop_reading()
        self._closes_ns, self._opens_ns = now_ns + LINGER_NS, now_ns + max(delay_ns, LINGER_NS)

    # -- a few times a second --------------------------------------------------------------------

    def look(self, now_ns: int) -> None:
        """Find out whether whoever is there makes progress; do what is due."""
        if self._before_me is not None:
            if self._before_me.is_over:
                self._before_me, self._opens_ns = None, now_ns + LINGER_NS
            return
        if self._is_barred(now_ns):
            return
        channel, session, settings = self._channel, self._proxy.session, self._settings
        if self._closes_ns and now_ns >= self._closes_ns and channel is not None:
            channel.close()
            self._channel, self._closes_ns = None, 0
            return
        if self._opens_ns and now_ns >= self._opens_ns and self._channel is None:
            self._open()
            return
        if channel is None or session is None:
            return
        if self._stopping_ns and now_ns - self._stopping_ns > settings.stop_ns:
            _log.warning("instance %s: its client did not handle stop in time", self.name)
            self._gone("it did not handle stop in time")
            return
        if why := channel.fault(now_ns):
            self._shut_out(why)
            return
        outlet = session.outlet
        if channel.has_hung_up() and outlet is not None:
            self._hung_up_ns = now_ns
        if self._hung_up_ns and not channel.has_read_all:
            self._hung_up_ns = now_ns  # what it said before it went is still being read
        if self._hung_up_ns and now_ns - self._hung_up_ns > LINGER_NS:
            self._gone("its connection ended")
        elif outlet is None:
            self._pull_if_alone(now_ns)
        elif (stuck_ns := min(outlet.stuck_ns(now_ns), channel.known_ns(now_ns))) > settings.deadline_ns:
            session.refuse("LATE", "it handled nothing for too long; begin anew")
            self._gone(
                f"it has handled nothing for {stuck_ns / 1e6:.0f} ms with {outlet.behind} events before it, "
                f"the limit is {settings.deadline_ns / 1e6:g} ms"
            )
        elif now_ns - self._beat_ns >= settings.heartbeat_ns:
            self._beat_ns = now_ns
            session.beat(now_ns)

    def _is_barred(self, now_ns: int) -> bool:
        """Return whether nobody is let in now; who is in has to find the node that may send, if another does.

        A lease that is renewed late is no reason: that is over before `deadline_ns`.
        """
        gate = self._engine.gate
        if gate.permit(self._engine.clock.now_ns()) or not self.is_wanted:
            if self._barred_ns and self._channel is None and not self._opens_ns:
                self._opens_ns = now_ns
            self._barred_ns = 0
            return False
        self._barred_ns = self._barred_ns or now_ns
        if now_ns - self._barred_ns <= self._settings.deadline_ns:
            return False
        if self._channel is not None:
            _log.warning("instance %s: no client is let in while this node has no right to send", self.name)
            self.end()
        return True

    def _pull_if_alone(self, now_ns: int) -> None:
        """Pull what an earlier run of the node left resting, when nobody has come back to it in time."""
        if self._alone_ns and now_ns - self._alone_ns > self._settings.deadline_ns:
            self._alone_ns = 0
            with turn(self._engine) as turn_ns:
                self._engine.roster.pull_orders(self._proxy.instance, "no client", turn_ns)

    def _shut_out(self, why: str) -> None:
        """Shut the door for a while: nobody is known by what comes in without the token."""
        if self._is_of_another("client_cut_off", why):
            return
        self._end_session()
        with turn(self._engine) as turn_ns:
            self._engine.record_alert("client_cut_off", f"instance {self.name}: {why}", self.name)
            if self._settings.on_loss == "pull":
                self._engine.roster.pull_orders(self._proxy.instance, "client cut off", turn_ns)
        self._shut(self._settings.most_backoff_ns)
