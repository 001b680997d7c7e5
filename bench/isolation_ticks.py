"""The ticks of `bench/isolation.py`: a process that writes the time as often as it is asked to, a ms apart."""

import os
import sys
import time
from typing import Final

__all__ = ["GAP_S", "STAMP", "main"]

GAP_S: Final = 0.001
STAMP: Final = 8
"""Bytes of one."""


def main() -> None:
    """Answer each number that is asked for with as many stamps, until nobody asks any more."""
    for line in sys.stdin:
        for _ in range(int(line)):
            time.sleep(GAP_S)
            os.write(1, time.perf_counter_ns().to_bytes(STAMP, "little"))
