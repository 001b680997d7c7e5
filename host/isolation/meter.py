"""What a worker process uses, measured from outside, against its limits."""

from typing import Final

from host.isolation.boarding import Berth
from host.isolation.settings import SECOND_NS, WorkerSettings

__all__ = ["Meter"]

LOOK_EVERY_NS: Final = SECOND_NS // 10


class Meter:
    """Watches one worker at a time; `begin` with each new one."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings: Final = settings
        self._looked_ns = 0
        self._cpu: tuple[int, int] = (0, 0)
        """When the processor time used was last read, and what it was."""

    def begin(self, now_ns: int) -> None:
        """Watch another process from here on."""
        self._cpu = (now_ns, 0)

    def fault(self, process: Berth, now_ns: int) -> str:
        """Return which limit the process breaks; empty where it breaks none, or it is not time to look."""
        if now_ns - self._looked_ns < LOOK_EVERY_NS:
            return ""
        self._looked_ns = now_ns
        process.read_output()
        held = process.memory_bytes()
        if held > process.memory_limit:
            return f"it holds {held >> 20} MiB, the limit is {process.memory_limit >> 20}"
        share, (since_ns, used_ns) = self._settings.cpu_share, self._cpu
        if share is not None and now_ns - since_ns >= self._settings.cpu_window_ns:
            used_now_ns = process.cpu_ns()
            self._cpu = (now_ns, used_now_ns)
            used, limit = (used_now_ns - used_ns) / (now_ns - since_ns), share * process.members
            if used_ns and used > limit:
                return f"it uses {used:.0%} of a core, the limit is {limit:.0%}"
        return ""
