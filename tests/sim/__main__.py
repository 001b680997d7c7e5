"""`python -m tests.sim`: a million schedules, or one of them event by event."""

import argparse
import sys
import time

from tests.sim.exchange import ViolationError
from tests.sim.mutants import MUTANTS
from tests.sim.runs import find_mutant, reproducer, run_everywhere
from tests.sim.world import World

SHOWN_FAILURES = 10


def main() -> int:
    """Run what the arguments say; 1 if an invariant broke."""
    parser = argparse.ArgumentParser("python -m tests.sim", description=__doc__)
    parser.add_argument("--schedules", type=int, default=1_000_000, help="how many schedules to run")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seed", type=int, help="run this one schedule")
    parser.add_argument("--trace", action="store_true", help="show what happens in it")
    parser.add_argument("--mutant", choices=[mutant.name for mutant in MUTANTS], help="break the algorithm")
    arguments = parser.parse_args()
    if arguments.seed is not None:
        return _one(arguments.seed, arguments.mutant, arguments.trace)
    return _many(arguments.first, arguments.schedules)


def _one(seed: int, mutant_name: str | None, is_traced: bool) -> int:
    trace = print if is_traced else None
    if mutant_name is None:
        world = World(seed, trace=trace)
    else:
        mutant = find_mutant(mutant_name)
        world = World(seed, mutant.elector, mutant.quirks, trace)
    print(f"seed {seed}: {len(world.nodes)} nodes; faults: {', '.join(world.plan.kinds)}")
    try:
        world.run()
    except ViolationError as error:
        print(f"broken: {error}")
        return 1
    print(f"{world.venue.accepted} orders accepted, {world.venue.refused} refused, {world.terms} terms")
    return 0


def _many(first: int, schedules: int) -> int:
    started_s = time.monotonic()
    shown_s = started_s
    told = 0
    for total in run_everywhere(first, schedules):
        for seed, text in total.failures[told:SHOWN_FAILURES]:
            print(f"{text}\n  {reproducer(seed)}", flush=True)
        told = len(total.failures)
        now_s = time.monotonic()
        if now_s - shown_s > 10 or total.schedules == schedules:
            shown_s = now_s
            rate = total.schedules / (now_s - started_s)
            print(
                f"{total.schedules} schedules at {rate:.0f}/s: {total.terms} terms, {total.accepted} orders accepted, "
                f"{total.refused} refused as too late, {len(total.failures)} broken",
                flush=True,
            )
    return 1 if total.failures else 0


if __name__ == "__main__":
    sys.exit(main())
