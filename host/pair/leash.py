"""Starts a command that dies with the process that wanted it, however that one ends.

    python -m host.pair.leash PARENT -- COMMAND ...

A step of its own because the parent has threads: code between its fork and the exec could hang there.
"""

import os
import sys
from typing import NoReturn

from failover.offspring import die_with_parent

__all__ = ["main"]


def main() -> NoReturn:
    """Become the command of the command line; the kernel kills it when PARENT dies."""
    parent, separator, *command = sys.argv[1:]
    if separator != "--" or not command:
        sys.exit(f"usage: python -m host.pair.leash PARENT -- COMMAND ..., was {sys.argv[1:]}")
    die_with_parent(int(parent))
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
