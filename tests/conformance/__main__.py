"""`python -m tests.conformance`: every exchange adapter and every lease store by the same behaviours, as tables."""

import argparse
import shutil
import sys

import msgspec

from tests.conformance.suites import SUITES, run
from tests.conformance.table import rendered

MOST_COLUMNS = 120


def main() -> int:
    """Run the suites that are asked for; 1 if anything failed, or nothing was tried."""
    parser = argparse.ArgumentParser("python -m tests.conformance", description=__doc__)
    parser.add_argument("suite", nargs="*", help=f"{' or '.join(SUITES)}; without one, all")
    parser.add_argument("--json", action="store_true", help="print one object, for scripts")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.suite if name not in SUITES]
    if unknown:
        parser.error(f"suites are {', '.join(SUITES)}, was {unknown[0]}")
    outcomes = {}
    for name in arguments.suite or SUITES:
        outcome = outcomes[name] = run(SUITES[name])
        if not arguments.json:
            width = min(shutil.get_terminal_size((MOST_COLUMNS, 24)).columns, MOST_COLUMNS)
            print(rendered(outcome, width), end="\n\n", flush=True)
    is_ok = all(outcome.is_ok for outcome in outcomes.values())
    if arguments.json:
        found = {name: msgspec.to_builtins(outcome) for name, outcome in outcomes.items()}
        print(msgspec.json.encode({"ok": is_ok, **found}).decode())
    return 0 if is_ok else 1


if __name__ == "__main__":
    sys.exit(main())
