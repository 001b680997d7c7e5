"""Running schedules: one, many, and many on all processors."""

import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

from tests.sim.exchange import ViolationError
from tests.sim.faults import STORE_OUTAGES
from tests.sim.mutants import MUTANTS, Mutant
from tests.sim.world import World

CHUNK = 500


@dataclass(frozen=True)
class Tally:
    """What a number of schedules came to. `failures` are seeds with what they broke."""

    schedules: int
    accepted: int
    refused: int
    terms: int
    failures: tuple[tuple[int, str], ...]

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(
            self.schedules + other.schedules,
            self.accepted + other.accepted,
            self.refused + other.refused,
            self.terms + other.terms,
            self.failures + other.failures,
        )


def reproducer(seed: int, mutant: str = "") -> str:
    """Return the command that shows a schedule event by event."""
    return f"python -m tests.sim --seed {seed} --trace" + (f" --mutant '{mutant}'" if mutant else "")


def run_one(seed: int, mutant: Mutant | None = None) -> World:
    """Run a schedule to its end; raise `ViolationError`."""
    world = World(seed) if mutant is None else World(seed, mutant.elector, mutant.quirks)
    world.run()
    if world.gaps_ns and set(world.plan.kinds) <= STORE_OUTAGES and world.store.outages == 1:
        # Failsafe: with every peer there, a store that is gone stops nobody. A store that comes back for a
        # moment may: a peer that happens to reach it then does not promise, for it could take over.
        raise ViolationError(
            f"failsafe: nobody led for {world.gaps_ns / 1e6:.0f} ms while only the store was out"
        )
    return world


def run_many(first: int, count: int) -> Tally:
    """Run the schedules of `count` seeds."""
    accepted = refused = terms = 0
    failures: list[tuple[int, str]] = []
    for seed in range(first, first + count):
        try:
            world = run_one(seed)
        except ViolationError as error:
            failures.append((seed, str(error)))
            continue
        accepted += world.venue.accepted
        refused += world.venue.refused
        terms += world.terms
    return Tally(count, accepted, refused, terms, tuple(failures))


def run_everywhere(first: int, count: int, processes: int | None = None) -> Iterator[Tally]:
    """Run schedules on all processors; yields the sum so far after each part."""
    total = Tally(0, 0, 0, 0, ())
    starts = range(first, first + count, CHUNK)
    with ProcessPoolExecutor(processes or os.cpu_count()) as pool:
        sizes = [min(CHUNK, first + count - start) for start in starts]
        for tally in pool.map(run_many, starts, sizes):
            total += tally
            yield total


def find_mutant(name: str) -> Mutant:
    """Return the mutant of that name."""
    return next(mutant for mutant in MUTANTS if mutant.name == name)


def first_catch(mutant: Mutant, seeds: int) -> tuple[int, str] | None:
    """Return the first seed whose schedule catches a mutant, and what it broke."""
    for seed in range(seeds):
        try:
            run_one(seed, mutant)
        except ViolationError as error:
            return seed, str(error)
    return None
