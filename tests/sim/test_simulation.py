"""The elector, the lease and the gate in tens of thousands of simulated disasters."""

import re

import pytest

from tests.sim.mutants import MUTANTS, Mutant
from tests.sim.runs import first_catch, reproducer, run_many, run_one
from tests.sim.world import World

SCHEDULES = 20_000
PARTS = 20
MUTANT_SCHEDULES = 6_000
"""Far more than any mutant needs."""


@pytest.mark.parametrize("part", range(PARTS))
def test_no_schedule_breaks_an_invariant(part: int) -> None:
    size = SCHEDULES // PARTS
    tally = run_many(part * size, size)
    assert not tally.failures, "\n".join(f"{text}: {reproducer(seed)}" for seed, text in tally.failures[:5])
    # The schedules are worth something only if leaders change in them and orders flow and come too late.
    assert tally.terms > 2 * size
    assert tally.accepted > 40 * size
    assert tally.refused > size // 10


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_an_algorithm_that_is_broken_on_purpose_is_caught(mutant: Mutant) -> None:
    caught = first_catch(mutant, MUTANT_SCHEDULES)
    assert caught is not None, f"{mutant.name} passed {MUTANT_SCHEDULES} schedules"
    assert re.match(mutant.caught, caught[1]), caught


def test_a_seed_gives_the_same_schedule_every_time() -> None:
    def traced(seed: int) -> list[str]:
        lines: list[str] = []
        World(seed, trace=lines.append).run()
        return lines

    assert traced(7) == traced(7)
    assert traced(7) != traced(8)


def test_the_reproducer_of_a_failure_names_its_seed_and_mutant() -> None:
    mutant = next(mutant for mutant in MUTANTS if mutant.name == "role flag")
    caught = first_catch(mutant, MUTANT_SCHEDULES)
    assert caught is not None
    assert reproducer(caught[0], mutant.name) == (
        f"python -m tests.sim --seed {caught[0]} --trace --mutant 'role flag'"
    )
    run_one(caught[0])  # unbroken, the same schedule passes
