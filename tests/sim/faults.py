"""What goes wrong in a schedule, and when: drawn from its seed, healed before its end."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from failover.signals import Health
from tests.sim.world import TTL, World

QUIET: Final = 2 * TTL
"""How long a schedule runs before the first fault."""
HEALED: Final = 4 * TTL
"""How long it runs after the last one: somebody has to lead by then."""


@dataclass(frozen=True)
class Plan:
    """The kinds of fault in a schedule, and its end in real time."""

    kinds: tuple[str, ...]
    end_ns: int


def plan(world: World) -> Plan:
    """Draw the faults of a schedule and put them into the world's future."""
    rng = world.random
    kinds = tuple(rng.sample(list(FAULTS), rng.choice((1, 1, 2, 2, 3, 4))))
    length = rng.randrange(6, 12) * TTL
    for kind in kinds:
        for _ in range(rng.choice((1, 2, 3))):
            at = QUIET + rng.randrange(length)
            world.push(at, FAULTS[kind], world, QUIET + length - at)
    if "wild" in kinds:
        world.wild = rng.choice((0.01, 0.03, 0.1))
        world.push(QUIET + length, _tame, world)
    for node in world.nodes:
        node.heartbeats = "sick" in kinds
    world.push(QUIET + length + 1, _all_start, world)
    return Plan(kinds, world.now + QUIET + length + HEALED)


def _node(world: World) -> Any:
    return world.random.choice(world.nodes)


def _leader(world: World) -> Any:
    """Return the node that leads, or any: most faults are worth most there."""
    leading = [node for node in world.nodes if node.gate_end > world.now]
    return leading[0] if leading and world.random.random() < 0.7 else _node(world)


def _span(world: World, left: int) -> int:
    rng = world.random
    return min(left, int(TTL * rng.choice((0.3, 0.7, 1.0, 1.5, 3.0, 6.0, 10.0)) * (0.5 + rng.random())))


def _crash(world: World, left: int) -> None:
    node = _leader(world)
    node.die(True)
    world.push(world.random.randrange(1, 3 * TTL), node.start)


def _machine_loss(world: World, left: int) -> None:
    node = _leader(world)
    node.die(False)
    world.push(world.random.randrange(1, 4 * TTL), node.start)


def _freeze(world: World, left: int) -> None:
    node = _leader(world)
    if node.is_alive:
        node.freeze(_span(world, left))


def _freeze_then_kill(world: World, left: int) -> None:
    node = _leader(world)
    if node.is_alive:
        span = _span(world, left)
        node.freeze(span)
        world.push(world.random.randrange(1, span + 1), node.die, True)
        world.push(span + TTL, node.start)


def _cut_store(world: World, left: int) -> None:
    """Cut a node from the store: requests lost, answers lost, or both."""
    node, until = _leader(world), world.now + _span(world, left)
    way = world.random.random()
    world.note(f"{node.name} is cut from the store until {(until - world.started) / TTL:.3f} ttl")
    if way < 0.66:
        node.requests_lost_until = until
    if way > 0.33:
        node.answers_lost_until = until


def _cut_peers(world: World, left: int) -> None:
    node = _node(world)
    node.peers_lost_until = world.now + _span(world, left)


def _store_down(world: World, left: int) -> None:
    world.store.outages += 1
    world.store.down_until = max(world.store.down_until, world.now + _span(world, left))
    world.note(f"the store is down until {(world.store.down_until - world.started) / TTL:.3f} ttl")


def _store_hangs(world: World, left: int) -> None:
    world.store.outages += 1
    world.store.hangs_until = max(world.store.hangs_until, world.now + _span(world, left))
    world.note(f"the store hangs until {(world.store.hangs_until - world.started) / TTL:.3f} ttl")


def _store_slow(world: World, left: int) -> None:
    world.store.slow_until = max(world.store.slow_until, world.now + _span(world, left))
    world.note(f"the store is slow until {(world.store.slow_until - world.started) / TTL:.3f} ttl")


def _store_wiped(world: World, left: int) -> None:
    world.note("the store loses its data")
    world.store.record = None
    world.store.wipes += 1
    world.upset_all()


def _venue_slow(world: World, left: int) -> None:
    world.venue_slow_until = max(world.venue_slow_until, world.now + _span(world, left))


def _clock_step(world: World, left: int) -> None:
    rng = world.random
    _leader(world).step_clock(int(TTL * rng.choice((-50, -3, -1, -0.5, 0.5, 1, 3, 50))))


def _switchover(world: World, left: int) -> None:
    leading = _leader(world)
    for node in world.nodes:
        if node.is_alive and node is not leading:
            node.say_how_it_is()
    if leading.is_alive:
        heir = world.random.choice(leading.peers)
        world.push(TTL // 10, leading.later, leading.process, leading.call, leading.elector.switch_over, heir)


def _promotion(world: World, left: int) -> None:
    standbys = [node for node in world.nodes if node.is_alive and node.gate_end <= world.now]
    if not standbys:
        return
    node = world.random.choice(standbys)
    elector = node.elector
    world.push(0, node.later, node.process, node.call, lambda now: elector.promote(now, force=True))
    world.upset_all()  # whoever is deposed by force is waited out once more
    if world.random.random() < 0.5:
        # The one that has just taken over by force dies while it waits out the deposed leader.
        world.push(world.random.randrange(1, TTL), node.die, True)
        world.push(3 * TTL, node.start)


def _stop(world: World, left: int) -> None:
    node = _leader(world)
    if node.is_alive:
        world.push(0, node.later, node.process, node.call, node.elector.stop)


def _sick(world: World, left: int) -> None:
    node = _leader(world)
    node.become(Health(ailments=frozenset({"market_data"})))
    world.push(_span(world, left), node.become, Health())


def _lagging(world: World, left: int) -> None:
    node = _node(world)
    node.become(Health(is_current=False))
    world.push(_span(world, left), node.become, Health())


def _wild(world: World, left: int) -> None:
    """Delays and pauses are everywhere: see `World.wild`."""


def _tame(world: World) -> None:
    """No new delays; who is frozen thaws in its time, for what it was about to do was put off until then."""
    world.wild = 0.0
    world.upset_all()


def _all_start(world: World) -> None:
    for node in world.nodes:
        node.start()


STORE_OUTAGES: Final = frozenset({"store down", "store hangs"})
"""Kinds of fault that failsafe bridges without a gap."""

FAULTS: Final[dict[str, Callable[[World, int], None]]] = {
    "crash": _crash,
    "machine loss": _machine_loss,
    "freeze": _freeze,
    "freeze then kill": _freeze_then_kill,
    "cut store": _cut_store,
    "cut peers": _cut_peers,
    "store down": _store_down,
    "store hangs": _store_hangs,
    "store slow": _store_slow,
    "store wiped": _store_wiped,
    "venue slow": _venue_slow,
    "clock step": _clock_step,
    "switchover": _switchover,
    "promotion": _promotion,
    "stop": _stop,
    "sick": _sick,
    "lagging": _lagging,
    "wild": _wild,
}
