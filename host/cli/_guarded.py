"""Puts a node under its guardian: this process becomes the guardian, which starts this same command again."""

import os
import sys
from typing import NoReturn

from host.config import FailoverSection

__all__ = ["become_guardian", "is_guarded"]


def is_guarded() -> bool:
    """Return whether this process's parent is its guardian."""
    from failover.guardian import guarded_session

    return bool(guarded_session(os.environ))


def become_guardian(section: FailoverSection) -> NoReturn:
    """Replace this process by a guardian; raise `LeaseConfigError` for a URL that cannot work.

    Replaced, not kept: the guardian has a tenth of what is loaded here, and keeps the process id by which
    whoever started this command knows it.
    """
    from failover.guardian import LEASE_VARIABLE
    from failover.lease import open_store

    open_store(section.lease)
    # -P: a folder named `failover` in the working directory is not the one that is meant.
    guardian = [sys.executable, "-P", "-m", "failover.guardian", "--cell", section.cell, "--"]
    command = [sys.executable, *sys.orig_argv[1:]]
    sys.stdout.flush()
    os.execve(sys.executable, [*guardian, *command], os.environ | {LEASE_VARIABLE: section.lease})
