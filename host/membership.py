"""This node's part in its cell: it takes part in the election, and sends or receives the journal.

It decides nothing: the elector does (`failover/elector.py`), and the node carries out what concerns
trading (`host/member.py`). What comes here is the wiring between the two and replication.
"""

import asyncio
import logging
import os
import secrets
from collections.abc import Callable, Coroutine
from typing import Any, Final

from msgspec import structs

from failover.clock import boottime_ns
from failover.elector import Elector, ElectorSettings
from failover.guardian import guarded_session
from failover.lease import (
    LeaseConfigError,
    LeaseError,
    LeaseStore,
    LeaseTooSlowError,
    LeaseUnansweredError,
    check_cell,
    check_ttl,
    open_store,
)
from failover.replication import (
    DurabilitySettings,
    EligibilityLimits,
    ModeChange,
    PeerCredentials,
    Replica,
    ReplicaDurability,
    ReplicationServer,
    StandbyHealth,
    StandbyView,
    StreamSettings,
)
from failover.replication.events import (
    Attached,
    ClaimAsked,
    ClaimPromised,
    Detached,
    DifferenceFound,
    Following,
    HeirNamed,
    MarketSeen,
    PrimaryEvent,
    Rejoined,
    StandbyEvent,
    TurnedAway,
    Unfollowed,
    VersionCame,
    VersionTaken,
)
from failover.runner import ElectorRunner
from failover.signals import (
    Action,
    Alert,
    AskPeers,
    CloseGate,
    Drain,
    Follow,
    Health,
    Lead,
    NotifyHeir,
    OpenGate,
    PeerStatus,
    Promise,
    Refused,
    Resume,
    Retire,
)
from host.api import TandemError
from host.config import FailoverSection, NodeConfig
from host.following import Followed
from host.held_gate import HeldGate, Term
from host.runtime.engine import Engine

__all__ = ["CommandRefused", "Membership"]

_log = logging.getLogger("tandem.failover")
TICK_S: Final = 0.05
"""How often peers are weighed and the health of this node is told."""
STORE_DEADLINE_S: Final = 3.0
"""For the first questions to the lease store, when the node starts."""
CHECK_AGAIN_S: Final = 1.0
"""How often they are asked again where the store did not answer."""
_HAD_A_TERM: Final = "it led until a moment ago, and does not stand by again yet"


class CommandRefused(TandemError):  # noqa: N818 - the answer, not a malfunction
    """The elector did not carry out an operator's command, and says why."""


class Membership:
    """Takes part in the election of one cell's leader from `start` to `close`.

    `changed` is set whenever something happened that its owner must look at: `term` (this node is to
    lead, to hand over, or to stop leading), `retired`. The owner has the `gate` hold its engine while it leads.
    """

    def __init__(
        self,
        config: NodeConfig,
        section: FailoverSection,
        on_alert: Callable[[str, str], None],
        tls: PeerCredentials | None = None,
    ) -> None:
        self.node: Final = config.node.name
        self.section: Final = section
        self.session: Final = guarded_session(os.environ) or secrets.token_hex(8)
        self.changed: Final = asyncio.Event()
        self.term: Term | None = None
        self.retired = ""
        """Why this node takes no part any more; empty while it does."""
        self.fault: LeaseError | None = None
        """What no new process would change about that, where there is such a thing."""
        self.why_unchecked = ""
        """Why it is not known yet that the store is the one of this cell; empty once it is."""
        self.is_maintained = False
        self.on_version: Callable[[VersionCame | VersionTaken], None] = lambda event: None
        """Told of versions of plugins that came, and of what standbys say of those they were sent."""
        self.on_market: Callable[[MarketSeen], None] = lambda event: None
        """Told what the primary sees of its markets."""
        self.on_attached: Callable[[str], None] = lambda node: None
        """Told which standby follows from here on."""
        self.health = Health(is_fit=False, is_current=False, reason="the node is starting")
        self._candidate = self.health
        """What the elector was told of it."""
        self.gate: Final = HeldGate(section.ttl_ms, on_alert)
        self.durability: ReplicaDurability | None = None
        self.previous_holder = ""
        """Who led before; empty where this node does not know."""
        self.last_switch = ""
        """Who leads since when, and why, in words."""
        self._config: Final = config
        self._on_alert: Final = on_alert
        self._tls: Final = tls
        self._store: LeaseStore | None = None
        self._runner: ElectorRunner | None = None
        self._running: asyncio.Task[None] | None = None
        self._ticking: asyncio.Task[None] | None = None
        self._checking: asyncio.Task[None] | None = None
        self._answers: list[asyncio.Future[str]] = []
        self._turned_away: dict[str, str] = {}
        self._refused = ""
        settings = StreamSettings(
            limits=EligibilityLimits(section.max_lag_entries, section.max_lag_ms * 1_000_000)
        )
        self.control_address: Final = section.control_address or _first_tcp(config.control_listen)
        self.server: Final = ReplicationServer(
            self.node,
            section.cell,
            self._on_primary_event,
            settings,
            control_address=self.control_address,
            peers=section.peers,
        )
        self.followed: Final = Followed(
            section, self.session, self.control_address, settings, tls, self._on_standby_event
        )

    # -- life ------------------------------------------------------------------------------------

    async def start(self, known_epoch: int, first_epoch: int) -> None:
        """Listen for standbys and enter the election; raise `TandemError` where that cannot be.

        `known_epoch` is the last epoch in the journal, 0 for none; `first_epoch` is what a cell without
        any record begins with. A store that does not answer keeps nobody out: until it does this node leads
        nothing, and its promise may be what a leader goes on by. The same goes for a store that is too slow now,
        if this node has a part in the cell already: its ttl was good before.
        """
        section = self.section
        store = open_store(section.lease)
        try:
            try:
                await self._check(store)
            except (LeaseUnansweredError, LeaseTooSlowError) as error:
                if isinstance(error, LeaseTooSlowError) and not known_epoch:
                    raise
                self.why_unchecked = str(error)
                self._on_alert("lease_store_unanswered", str(error))
            if section.replicate is not None:
                await self.server.start(section.replicate, self._tls)
        except BaseException:
            await store.close()
            raise
        self._store = store
        elector = Elector(
            ElectorSettings(
                cell=section.cell,
                node=self.node,
                session=self.session,
                ttl_ms=section.ttl_ms,
                peers=tuple(section.peers),
                known_epoch=known_epoch,
                first_epoch=first_epoch,
                poll_ms=section.poll_ms,
                drain_ms=section.drain_ms,
                sick_ms=section.sick_ms,
                switch_limit=section.switch_limit,
                switch_window_ms=section.switch_window_s * 1000,
            ),
            boottime_ns(),
        )
        self._runner = ElectorRunner(elector, store, self._carry_out)
        self._runner.tell(elector.on_health, self._candidate)
        self._running = self._begin(self._runner.run(), "the elector")
        self._ticking = self._begin(self._tick(), "the part that this node takes in its cell")
        if self.why_unchecked:
            self._checking = self._begin(self._check_again(), "the check of the lease store")

    async def close(self) -> None:
        """Take no part any more; a lease that is still held runs out by itself."""
        for task in (self._checking, self._ticking, self._running):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
        await self.followed.end()
        await self.server.close()
        if self._store is not None:
            await self._store.close()

    @property
    def has_started(self) -> bool:
        """Return whether this node takes part in the election by now."""
        return self._runner is not None

    @property
    def engine(self) -> Engine | None:
        """Return the engine of the term that this node leads; None while it does not."""
        return self.gate.engine

    @property
    def elector(self) -> Elector:
        """Return the state machine; only after `start`."""
        assert self._runner is not None
        return self._runner.elector

    def follow(self, replica: Replica) -> None:
        """Keep `replica` equal to the journal of whoever leads, until `followed.end`."""
        self.followed.begin(replica, _as_told(self.health))

    # -- leading ---------------------------------------------------------------------------------

    def serve(self, engine: Engine, replica: Replica, epoch: int) -> None:
        """Send the engine's journal to standbys, and count what they hold where durability asks for that."""
        durability = None
        if self._config.node.durability == "replica":
            settings = DurabilitySettings(
                on_lost=self.section.on_standby_lost,
                patience_ns=self.section.standby_patience_ms * 1_000_000,
                order_window_ns=engine.settings.order_window_ns,
            )
            durability = ReplicaDurability(settings, engine.journal.flushed_lsn, boottime_ns())
        self.durability = durability
        self.server.lead(engine.journal, replica.history(), epoch, durability)

    def release(self) -> None:
        """Have nothing to do with the engine any more: this node does not lead."""
        self.server.step_down(self.term.over if self.term is not None and self.term.over else "it stood down")
        self.gate.let_go()
        self.term, self.durability = None, None

    def drained(self) -> None:
        """Say that nothing of this node can reach a venue any more, in answer to `Term.drain`."""
        self._tell(self.elector.on_drained)

    def standbys(self) -> list[StandbyView]:
        """Return what is known of each standby that is attached; empty where this node does not lead."""
        return self.server.standbys()

    def has_successor(self) -> bool:
        """Return whether a standby could lead at once."""
        return any(view.is_eligible and view.health.is_current for view in self.server.standbys())

    # -- what operators order --------------------------------------------------------------------

    def switch_over(self, heir: str) -> None:
        """Hand the lease to `heir` once drained; raise `CommandRefused`."""
        self._weigh_peers()  # who asks may have seen what the elector has not been told yet
        self._order(self.elector.switch_over, heir)

    def promote(self) -> None:
        """Take the lease, from a leader that renews it too; raise `CommandRefused`."""
        assert self._runner is not None
        refused = self._refusals_of(lambda now_ns: self.elector.promote(now_ns, force=True))
        if refused:
            raise CommandRefused(refused)

    def maintain(self, is_on: bool) -> None:
        """Have nothing switch by itself, or let it again."""
        self.is_maintained = is_on
        self._tell(self.elector.maintain, is_on)

    def stop(self) -> None:
        """Leave in order: drain, release, retire."""
        if self.engine is not None:
            self._weigh_peers()  # for the best heir there is now
        self._tell(self.elector.stop)

    def set_health(self, health: Health) -> None:
        """Say how this node is; to the elector, its peers and its primary.

        With a term it is no candidate for the next one, however well it is: it has to stand by in between.
        """
        if health != self.health:
            self.health = health
            self.server.health = told = _as_told(health)
            self.followed.set_health(told)
        if self.term is not None:
            health = structs.replace(health, is_fit=False, is_current=False, reason=_HAD_A_TERM)
        if health != self._candidate:
            self._candidate = health
            if self._runner is not None:
                self._tell(self.elector.on_health, health)

    # -- the elector's actions -------------------------------------------------------------------

    def _carry_out(self, action: Action) -> None:
        match action:
            case OpenGate():
                if self.term is not None and self.term.is_lapsed:
                    self.term.is_lapsed = False
                    self.changed.set()
                self.gate.open(action.until_ns, self.term)
            case CloseGate():
                self._close_gate(action.reason)
            case Lead():
                self.term = Term(action, boottime_ns())
                self.previous_holder = "" if action.previous is None else action.previous.holder
                self.last_switch = f"epoch {action.epoch}: {self.node} leads, {action.succession.value}"
                _log.info("%s", self.last_switch)
                self.changed.set()
            case Drain():
                if self.term is not None:
                    self.term.drain, self.term.heir = action.reason, self.elector.heir
                self.changed.set()
            case Resume():
                if self.term is not None:
                    self.term.drain = self.term.heir = ""
                self._answer(action.reason)
                self.changed.set()
            case Follow():
                if self.term is not None:
                    self.term.over = action.reason
                self.last_switch = action.reason
                self._answer("")
                self.changed.set()
            case NotifyHeir():
                self.server.notify_heir(action.heir)
            case AskPeers():
                self.server.ask_claims(action.epoch, action.asked_ns, action.ttl_ms)
            case Promise():
                self.followed.promise(action.epoch, action.asked_ns)
            case Refused():
                self._refused = action.reason
            case Alert():
                self._on_alert(action.code, action.text)
            case Retire():
                self._leave(action.reason)

    def _close_gate(self, reason: str) -> None:
        self.gate.close()
        term = self.term
        if term is not None and not term.over:
            if term.drain:
                # Nothing may be written any more either: a successor would not have it.
                term.over = reason
            else:
                term.is_lapsed = True
            self.changed.set()

    # -- what replication tells ------------------------------------------------------------------

    def _on_primary_event(self, event: PrimaryEvent) -> None:
        match event:
            case Attached():
                self._turned_away.pop(event.node, None)
                self._on_alert("standby_attached", f"standby {event.node} follows from {event.address}")
                self.on_attached(event.node)
            case VersionTaken():
                self.on_version(event)
            case Detached():
                self._on_alert("standby_lost", f"standby {event.node}: {event.text}")
            case TurnedAway():
                if self._turned_away.get(event.node) != event.reason:
                    self._turned_away[event.node] = event.reason
                    if self.engine is not None:
                        self._on_alert("standby_refused", f"{event.reason}: {event.text}")
            case ClaimPromised():
                self._tell(self.elector.on_promised, event.node, event.epoch, event.asked_ns)
            case ModeChange():
                self._on_alert("durability", f"durability is {event.mode.value}: {event.text}")
                self.changed.set()

    def _on_standby_event(self, event: StandbyEvent) -> None:
        match event:
            case Following():
                self.elector.watch.known_epoch = max(self.elector.watch.known_epoch, event.epoch)
                self.changed.set()
            case Unfollowed():
                self._tell(self.elector.on_hint)
                self.changed.set()
            case Rejoined():
                kept = event.kept
                self._on_alert(
                    "rejoined",
                    f"entries {kept.first_lsn} to {kept.last_lsn}, which epoch {event.epoch} never saw, were set "
                    f"aside in {kept.folder}",
                )
                self.changed.set()
            case DifferenceFound():
                found = event.difference
                self._on_alert(
                    "state_differs",
                    f"the state at entry {found.lsn} is not the primary's: this standby is unfit",
                )
            case ClaimAsked():
                self._tell(self.elector.on_failsafe_asked, event.epoch, event.asked_ns, event.ttl_ms)
            case HeirNamed():
                self._tell(self.elector.on_hint)
            case VersionCame():
                self.on_version(event)
            case MarketSeen():
                self.on_market(event)

    # -- inside ----------------------------------------------------------------------------------

    def _tell(self, method: Callable[..., list[Action]], *arguments: object) -> None:
        if self._runner is not None and not self.retired:
            self._runner.tell(method, *arguments)

    def _order(self, method: Callable[..., list[Action]], *arguments: object) -> None:
        refused = self._refusals_of(lambda now_ns: method(*arguments, now_ns=now_ns))
        if refused:
            raise CommandRefused(refused)

    def _refusals_of(self, command: Callable[[int], list[Action]]) -> str:
        """Give a command to the elector; return why it was refused, empty where it was not."""
        assert self._runner is not None
        self._refused = ""
        self._runner.tell(command)
        return self._refused

    def _answer(self, text: str) -> None:
        answers, self._answers = self._answers, []
        for answer in answers:
            if not answer.done():
                answer.set_result(text)

    async def handed_over(self) -> str:
        """Wait until a switchover has ended; return why it was given up, empty where it was not."""
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._answers.append(answer)
        return await answer

    async def _tick(self) -> None:
        """Weigh the peers, and pull quotes while there is still a right to."""
        while True:
            await asyncio.sleep(TICK_S)
            if self.term is not None and not self.term.over:
                self._weigh_peers()
                self.gate.pull_in_time()
            else:
                self.followed.require_epoch(self.elector.watch.known_epoch)

    def _weigh_peers(self) -> None:
        for view in self.server.standbys():
            self._tell(self.elector.on_peer, _status_of(view))

    async def _check(self, store: LeaseStore) -> None:
        """Make sure that the store is this cell's, and near enough; raises `LeaseError`."""
        section = self.section
        await check_cell(store, section.lease, section.cell, STORE_DEADLINE_S)
        await check_ttl(store, section.ttl_ms, STORE_DEADLINE_S)

    async def _check_again(self) -> None:
        """Ask until the store is known to be this cell's; over a connection of its own: renewals wait for nobody."""
        store = open_store(self.section.lease)
        try:
            while self.why_unchecked:
                await asyncio.sleep(CHECK_AGAIN_S)
                try:
                    await self._check(store)
                except LeaseError as error:
                    if isinstance(error, LeaseConfigError) and not isinstance(error, LeaseTooSlowError):
                        self.fault = error
                        self._leave(str(error))
                        return
                    self.why_unchecked = str(error)
                else:
                    self.why_unchecked = ""
        finally:
            await store.close()

    def _begin(self, work: Coroutine[Any, Any, None], what: str) -> "asyncio.Task[None]":
        """Start what this node cannot take part without; `what` it is, in words."""
        task = asyncio.create_task(work, name=what)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: "asyncio.Task[None]") -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            _log.error("%s failed", task.get_name(), exc_info=error)
            self._leave(f"{task.get_name()} failed: {type(error).__name__}: {error}")
        self.changed.set()

    def _leave(self, why: str) -> None:
        self.retired = self.retired or why
        if self.term is not None:
            self.term.over = self.term.over or self.retired
        self.changed.set()


def _as_told(health: Health) -> StandbyHealth:
    return StandbyHealth(health.is_fit, health.is_current, tuple(sorted(health.ailments)), health.reason)


def _status_of(view: StandbyView) -> PeerStatus:
    told = view.health
    reason = view.why_not or told.reason
    health = Health(told.is_fit, told.is_current and view.is_eligible, frozenset(told.ailments), reason)
    return PeerStatus(view.node, health, view.lag_entries)


def _first_tcp(listen: tuple[str, ...]) -> str:
    return next((address for address in listen if not address.startswith("unix:")), "")
