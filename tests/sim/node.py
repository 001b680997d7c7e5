"""A simulated node: the real elector, a guardian, an order flow, and a process that can freeze and die."""

from collections.abc import Callable
from typing import Any, Final

from failover.elector import Elector, ElectorSettings
from failover.lease import Record, abandoned
from failover.signals import (
    Action,
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
    Read,
    Resume,
    Retire,
    Succession,
    Swap,
)
from failover.states import State
from tests.sim.clock import SimClock
from tests.sim.world import (
    CELL,
    CLOCK_ERROR,
    MS,
    ORDER_WINDOW,
    STORE_DEADLINE,
    TTL,
    TTL_MS,
    VENUE_QUEUE,
    World,
)

FAR_NS: Final = 2**62
SETTLE: Final = ORDER_WINDOW + VENUE_QUEUE + 2 * CLOCK_ERROR
"""How long a request that is on the wire when its process dies can still take effect."""
ORDER_GAP: Final = TTL // 5
HEARTBEAT: Final = TTL // 2


class SimNode:
    """One machine with its clock, its links, its guardian and the process in it."""

    def __init__(self, world: World, name: str, names: list[str]) -> None:
        rng = world.random
        self.world: Final = world
        self.name: Final = name
        self.peers: Final = tuple(other for other in names if other != name)
        self.clock: Final = SimClock(rng.randrange(10**15), rng.randrange(-200, 201))
        self.venue_error: Final = rng.randrange(-CLOCK_ERROR, CLOCK_ERROR + 1)
        self.poll_ms: Final = rng.choice((TTL_MS // 8, TTL_MS // 5, TTL_MS // 4))
        self.process = 0
        self.is_alive = False
        self.epoch_in_journal = 0
        self.health = Health()
        self.frozen_until = 0
        self.requests_lost_until = 0
        self.answers_lost_until = 0
        self.peers_lost_until = 0
        self.undisturbed_since = 0
        self.gate_until_local = 0
        self.gate_end = 0
        self.gate_epoch = 0
        self.term = 0
        self.is_ready = False
        self.is_draining = False
        self.unanswered: dict[int, int] = {}
        self.orders = 0
        self.tick_at = FAR_NS
        self.asker: SimNode | None = None
        self.heartbeats = False
        self.elector: Elector

    # The process.

    def start(self) -> None:
        """Start the process with what its journal knows."""
        if self.is_alive:
            return
        world = self.world
        self.process += 1
        self.is_alive = True
        settings = ElectorSettings(
            cell=CELL,
            node=self.name,
            session=f"{self.name}.{self.process}",
            ttl_ms=TTL_MS,
            peers=self.peers,
            known_epoch=self.epoch_in_journal,
            poll_ms=self.poll_ms,
            drain_ms=TTL_MS,
            sick_ms=TTL_MS,
            switch_limit=1000,
        )
        self.elector = world.elector(settings, self.local())
        self.undisturbed_since = max(self.undisturbed_since, world.now)
        world.note(f"{self.name} starts as {settings.session}")
        self.call(self.elector.on_health, self.health)
        if self.heartbeats:
            world.push(HEARTBEAT, self.later, self.process, self._beat)
        world.push(ORDER_GAP, self.later, self.process, self._order)

    def die(self, guarded: bool) -> None:
        """Kill the process; with its guardian alive the lease is given up as soon as it is reaped."""
        if not self.is_alive:
            return
        world = self.world
        world.note(f"{self.name} dies{' and its guardian sees it' if guarded else ''}")
        session = self.elector.settings.session
        self._upset_a_start()
        self._end()
        self.frozen_until = 0
        if guarded:
            world.push(world.random.randrange(5 * MS), self._guard, session, 0)

    def _upset_a_start(self) -> None:
        """One that has won but not led yet stops: waiting it out is one more wait, as it should be."""
        if self.is_alive and self.elector.epoch not in (0, self.gate_epoch):
            self.world.upset_all()

    def _end(self) -> None:
        self.is_alive = False
        self.process += 1
        self._shut()
        self.is_ready = self.is_draining = False
        self.unanswered.clear()
        self.tick_at = FAR_NS

    def freeze(self, duration_ns: int) -> None:
        """Stop the process, as SIGSTOP, a swapping machine or a suspended one does."""
        world = self.world
        world.note(f"{self.name} freezes for {duration_ns / TTL:.2f} ttl")
        self._upset_a_start()
        self.frozen_until = max(self.frozen_until, world.now + duration_ns)
        self.undisturbed_since = max(self.undisturbed_since, self.frozen_until)
        if "monotonic clock" in world.quirks:
            self.clock.step(-duration_ns)
            if self.gate_end > world.now:
                self.gate_end += duration_ns

    def step_clock(self, by_ns: int) -> None:
        """Set the machine's wall clock. The lease does not look at it."""
        if "wall clock" in self.world.quirks:
            self.clock.step(by_ns)
            if self.gate_end > self.world.now:
                self.gate_end = max(self.world.now, self.gate_end - by_ns)

    def local(self) -> int:
        """Return the machine's boot time."""
        return self.clock.local_ns(self.world.now)

    def later(self, process: int, act: Callable[..., None], *arguments: Any) -> None:
        """Do something in the process if it is still the same one, and once it is not frozen."""
        if process != self.process or not self.is_alive:
            return
        world = self.world
        if world.now < self.frozen_until:
            world.push(self.frozen_until - world.now, self.later, process, act, *arguments)
            return
        act(*arguments)

    def healthy_since(self, now_ns: int) -> int | None:
        """Return since when nothing has kept this node from leading; None if something does."""
        store = self.world.store
        if (
            not self.is_alive
            or self.elector.state is State.RETIRED
            or not self.health.is_fit
            or not self.health.is_current
            or not store.is_well(now_ns)
            or now_ns < max(self.requests_lost_until, self.answers_lost_until, self.undisturbed_since)
        ):
            return None
        return max(
            self.undisturbed_since,
            self.requests_lost_until,
            self.answers_lost_until,
            store.down_until,
            store.slow_until,
            store.hangs_until,
        )

    # The elector and its actions.

    def call(self, method: Callable[..., list[Action]], *arguments: Any) -> None:
        """Hand an input to the elector and carry out what it says."""
        actions = method(*arguments, self.clock.local_ns(self.world.now))
        if actions:
            self._carry_out(actions)
        self._schedule()

    def _schedule(self) -> None:
        if not self.is_alive:
            return
        due = self.clock.real_ns(self.elector.next_tick_ns)
        if due < self.tick_at:
            world = self.world
            self.tick_at = due = max(due, world.now)
            world.push(due - world.now, self.later, self.process, self._tick, due)

    def _tick(self, due: int) -> None:
        if due != self.tick_at:
            return
        self.tick_at = FAR_NS
        if self.elector.next_tick_ns <= self.local():
            self.call(self.elector.tick)
        else:
            self._schedule()

    def _carry_out(self, actions: list[Action]) -> None:
        world = self.world
        for number, action in enumerate(actions):
            if world.wild and world.random.random() < world.wild / 20:
                # A pause between deciding and doing: the rest happens when the process goes on.
                self.freeze(world.random.randrange(3 * TTL))
                world.push(
                    self.frozen_until - world.now, self.later, self.process, self._carry_out, actions[number:]
                )
                return
            self._do(action)

    def _do(self, action: Action) -> None:
        world = self.world
        if world.trace is not None and not isinstance(action, Read):
            world.note(f"{self.name} {action}")
        match action:
            case Read():
                self._ask_store(action.request, False, None, None)
            case Swap():
                self._ask_store(action.request, True, action.expected, action.new)
            case OpenGate():
                self._open(action)
            case CloseGate():
                self._shut()
            case Lead():
                self._take_over(action)
            case Drain():
                self.is_draining = True
                self._drain_step()
            case Resume():
                self.is_draining = False
            case Follow():
                self.is_ready = self.is_draining = False
            case NotifyHeir():
                self._tell(action.heir, lambda heir: heir.call(heir.elector.on_hint))
            case AskPeers():
                for name in self.peers:
                    self._tell(name, lambda peer: peer.asked(self, action))
            case Promise():
                asker = self.asker
                if asker is not None:
                    self._tell(
                        asker.name,
                        lambda leader: leader.call(
                            leader.elector.on_promised, self.name, action.epoch, action.asked_ns
                        ),
                    )
            case Retire():
                self._end()
                world.push(world.random.randrange(TTL), self.start)
            case _:
                pass

    def asked(self, asker: "SimNode", ask: AskPeers) -> None:
        """A leader asks for a promise."""
        self.asker = asker
        self.call(self.elector.on_failsafe_asked, ask.epoch, ask.asked_ns, ask.ttl_ms)

    def _tell(self, name: str, act: Callable[["SimNode"], None]) -> None:
        """Send a message to a peer over a link that may be cut or slow."""
        world = self.world
        if world.now < self.peers_lost_until:
            return
        peer = next(node for node in world.nodes if node.name == name)
        if world.now < peer.peers_lost_until:
            return
        world.push(self._latency(), peer.later, peer.process, act, peer)

    def _latency(self) -> int:
        """Return how long a message takes: now and then much longer than anybody waits for it."""
        world = self.world
        chance = world.random.random()
        if chance < world.wild:
            return int(chance / world.wild * 4 * TTL)
        return 200_000 + int(chance * TTL / 100)

    # The store.

    def _ask_store(self, request: int, is_swap: bool, expected: Record | None, new: Record | None) -> None:
        """Send a request; it reaches the store, or not, when it reaches it."""
        world = self.world
        now, process = world.now, self.process
        give_up = now + STORE_DEADLINE
        to_store, back = self._latency(), self._latency()
        if now < world.store.slow_until:
            to_store += world.random.randrange(TTL // 2)
        if now < self.requests_lost_until or (now < world.store.down_until):
            world.push(STORE_DEADLINE, self.later, process, self._unanswered, request)
            return
        if now + to_store < world.store.hangs_until:
            # A store that hangs serves what has piled up once it goes on.
            to_store = world.store.hangs_until - now + world.random.randrange(2 * MS)
        is_late = now + to_store + back > give_up
        if is_late:
            world.push(STORE_DEADLINE, self.later, process, self._unanswered, request)
        wipes = world.store.wipes
        world.push(
            to_store, self._at_store, process, request, is_swap, expected, new, back, is_late, give_up, wipes
        )

    def _at_store(
        self, process: int, request: int, is_swap: bool, expected: Record | None, new: Record | None,
        back: int, is_late: bool, give_up: int, wipes: int,
    ) -> None:  # fmt: skip
        world, store = self.world, self.world.store
        if world.now < store.down_until or wipes != store.wipes:
            if not is_late:
                world.push(give_up - world.now, self.later, process, self._unanswered, request)
            return
        answer: Record | bool | None = store.record
        if is_swap:
            answer = self._swap(expected, new)
            if answer and (is_late or process != self.process):
                world.note(f"a late swap of {self.name} takes effect: {new}")
                world.upset_all()
        if is_late:
            return
        if world.now < self.answers_lost_until:
            world.push(give_up - world.now, self.later, process, self._unanswered, request)
            return
        world.push(back, self.later, process, self._answered, request, is_swap, answer)

    def _swap(self, expected: Record | None, new: Record | None) -> bool:
        world, store = self.world, self.world.store
        current = store.record
        if "swap by epoch" in world.quirks and current is not None and expected is not None:
            is_as_expected = current.epoch == expected.epoch
        else:
            is_as_expected = current == expected
        if is_as_expected:
            store.record = new
        return is_as_expected

    def _answered(self, request: int, is_swap: bool, answer: Any) -> None:
        method: Callable[..., list[Action]] = self.elector.on_swapped if is_swap else self.elector.on_read
        self.call(method, request, answer)

    def _unanswered(self, request: int) -> None:
        self.call(self.elector.on_unanswered, request)

    def _guard(self, session: str, attempt: int) -> None:
        """The guardian of a dead process: read, and abandon in its name what is still its own."""
        world, store = self.world, self.world.store
        now = world.now
        if attempt > 16:
            return
        if now >= max(self.requests_lost_until, store.down_until, store.hangs_until):
            seen = store.record
            parting = abandoned(seen, session)
            if "guardian ends fences" in world.quirks and seen is not None and seen.session == session:
                parting = seen.released(seen.renewal + 1)
            if "stale release" in world.quirks and seen is not None:
                world.push(self._latency(), self._release_blindly, seen)
                return
            if parting is None:
                return
            world.push(self._latency(), self._abandon, session, seen, parting, attempt)
            return
        world.push(TTL // 8, self._guard, session, attempt + 1)

    def _abandon(self, session: str, seen: Record, parting: Record, attempt: int) -> None:
        if not self._swap(seen, parting):
            self._guard(session, attempt + 1)
        else:
            self.world.note(f"the guardian of {self.name} abandons epoch {seen.epoch}")

    def _release_blindly(self, seen: Record) -> None:
        """A mutant's guardian gives up whatever is there."""
        current = self.world.store.record
        if current is not None:
            self.world.store.record = current.released(current.renewal + 1)

    # The gate and the orders.

    def _open(self, action: OpenGate) -> None:
        world = self.world
        self.gate_until_local = action.until_ns
        self.gate_epoch = action.epoch
        end = self.clock.real_ns(action.until_ns)
        if "role flag" in world.quirks:
            self.gate_until_local, end = FAR_NS, FAR_NS
        if end > world.now:  # else the process was frozen in between, and the gate stays closed
            world.gate_opened(self, end)
            if not self.term:
                self.term = world.led(self.name, action.epoch)
        self.gate_end = max(end, world.now)

    def _shut(self) -> None:
        now = self.world.now
        self.gate_until_local = 0
        if self.gate_end > now:
            self.gate_end = now
            if self.world.last_gate_end > now:
                self.world.last_gate_end = now

    def _take_over(self, lead: Lead) -> None:
        """Settle what the last leader left on the wire, then ask the venue for everything."""
        world = self.world
        self.term = 0
        self.epoch_in_journal = lead.epoch
        self.is_ready = False
        wait = 0
        if lead.succession is Succession.ABANDONED and "no settling" not in world.quirks:
            wait = SETTLE
        world.push(wait, self.later, self.process, self._ask_venue, lead.epoch)

    def _ask_venue(self, epoch: int) -> None:
        if self.elector.epoch != epoch:
            return
        if self.local() >= self.gate_until_local:
            # The venue is asked under the lease: without a right, what comes back is worth nothing.
            self.world.push(ORDER_GAP, self.later, self.process, self._ask_venue, epoch)
            return
        self.world.venue.snapshot(self.term)
        self.world.push(200_000, self.later, self.process, self._made_ready, epoch)

    def _made_ready(self, epoch: int) -> None:
        if self.elector.epoch == epoch:
            self.is_ready = True
            self._drain_step()

    def _order(self) -> None:
        """Send an order if the gate permits it; the venue is told when to refuse it."""
        world = self.world
        local = self.local()
        world.push(ORDER_GAP + int(world.random.random() * MS), self.later, self.process, self._order)
        if not self.is_ready or self.is_draining or local >= self.gate_until_local:
            return
        self.orders += 1
        valid_local = min(local + ORDER_WINDOW, self.gate_until_local)
        deadline = self.clock.real_ns(valid_local) + self.venue_error - CLOCK_ERROR
        if "no expiry" in world.quirks:
            deadline = FAR_NS
        self.unanswered[self.orders] = valid_local
        if world.wild and world.random.random() < world.wild:
            # The process stops between the gate and the socket.
            self.freeze(world.random.randrange(3 * TTL))
        world.push(
            max(0, self.frozen_until - world.now), self.later, self.process, self._wire,
            self.orders, self.term, deadline,
        )  # fmt: skip

    def _wire(self, order: int, term: int, deadline: int) -> None:
        world = self.world
        delay = self._latency()
        if world.now < world.venue_slow_until:
            delay += world.random.randrange(ORDER_WINDOW * 5 // 4)
        world.push(delay, self._at_venue, self.process, order, term, deadline)

    def _at_venue(self, process: int, order: int, term: int, deadline: int) -> None:
        world = self.world
        queue = 0
        if world.venue.is_in_time(world.now, deadline):
            if world.random.random() < 0.2:
                queue = world.random.randrange(VENUE_QUEUE)
                world.push(queue, world.venue.accept, term)
            else:
                world.venue.accept(term)
        world.push(queue + self._latency(), self.later, process, self._order_answered, order)

    def _order_answered(self, order: int) -> None:
        self.unanswered.pop(order, None)
        self._drain_step()

    def _drain_step(self) -> None:
        if not self.is_draining:
            return
        local = self.local()
        margin = VENUE_QUEUE + CLOCK_ERROR
        wait = 0
        for order, valid_local in list(self.unanswered.items()):
            if local > valid_local + margin:
                del self.unanswered[order]
            else:
                wait = max(wait, valid_local + margin - local)
        if "no draining" in self.world.quirks or (self.is_ready and not self.unanswered):
            self.is_draining = False
            self.call(self.elector.on_drained)
        elif wait:
            self.world.push(wait + MS, self.later, self.process, self._drain_step)

    # What peers hear of it.

    def _beat(self) -> None:
        self.say_how_it_is()
        self.world.push(HEARTBEAT, self.later, self.process, self._beat)

    def say_how_it_is(self) -> None:
        """Tell every peer how this node is."""
        status = PeerStatus(self.name, self.health, 0)
        for name in self.peers:
            self._tell(name, lambda peer: peer.call(peer.elector.on_peer, status))

    def become(self, health: Health) -> None:
        """Change how the node is."""
        self.health = health
        self.undisturbed_since = max(self.undisturbed_since, self.world.now)
        if self.is_alive:
            self.world.push(0, self.later, self.process, self.call, self.elector.on_health, health)
