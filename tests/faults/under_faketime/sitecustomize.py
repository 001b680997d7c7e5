"""Runs at the start of a process under libfaketime, whose `clock_nanosleep` refuses an absolute time (EINVAL).

Python's `time.sleep` asks for just that; waiting for nothing to be readable takes the same time.
"""

import select
import time
from typing import SupportsIndex


def sleep(seconds: float | SupportsIndex) -> None:
    """Wait for so long."""
    select.select([], [], [], float(seconds))


time.sleep = sleep
