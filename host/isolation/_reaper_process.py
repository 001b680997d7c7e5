"""The reaper's process: reads group numbers, `-` before one that has ended, and at the end kills those that are left.

Run as a file by `host.isolation.reaper`, with nothing imported that takes time or memory.
"""

import os
import signal
import sys


def main() -> None:
    """Do so."""
    groups = set()
    for line in sys.stdin.buffer:
        number = int(line)
        if number > 0:
            groups.add(number)
        else:
            groups.discard(-number)
    for group in groups:
        try:
            os.killpg(group, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue  # it ended with its worker; or its number is another user's by now


if __name__ == "__main__":
    main()
