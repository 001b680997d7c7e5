"""How much memory unproven code may take.

An import that grows without end should cost the child that makes it, and not the machine.
"""

import resource
from pathlib import Path
from typing import Final

__all__ = ["MOST_MEMORY_BYTES", "lift_limit", "limit_memory"]

MOST_MEMORY_BYTES: Final = 2 << 30
"""For a plugin with all that it imports: more than the largest numerical packages take."""


def limit_memory() -> None:
    """Have this process refused more than that: Python raises `MemoryError`, native code as it may.

    Where the machine has less, the kernel chooses this process before any other.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = MOST_MEMORY_BYTES if hard == resource.RLIM_INFINITY else min(MOST_MEMORY_BYTES, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (most, hard))
    Path("/proc/self/oom_score_adj").write_text("1000")


def lift_limit() -> None:
    """Take the limit back, so that a process which has reached it has room to say so."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))
