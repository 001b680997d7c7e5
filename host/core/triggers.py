"""Triggers: at which times something is due, by a fixed pace or by a cron expression."""

import re
from typing import Final, Protocol

from cronsim import CronSim, CronSimError

from host.core.wall_time import ScheduleError, local_time, time_zone

__all__ = ["Trigger", "parse_trigger"]

_EVERY: Final = re.compile(r"every +([0-9]{1,18}) *(ms|s|min|h)")
_UNITS_NS: Final = {"ms": 1_000_000, "s": 1_000_000_000, "min": 60_000_000_000, "h": 3_600_000_000_000}
LEAST_EVERY_NS: Final = 100_000_000
"""Each time that a trigger comes due is journaled: what is to run more often takes `set_timer`."""
MOST_EVERY_NS: Final = 366 * 24 * 3_600_000_000_000
_SECOND_NS: Final = 1_000_000_000


class Trigger(Protocol):
    """Knows when it is due; a pure function of time, so that every node and every replay agrees on it."""

    waits: bool
    """Whether one that cannot be heeded when it is due is heeded later; else the next one will do."""

    def after_ns(self, now_ns: int) -> int:
        """Return the first time after `now_ns` at which it is due."""


class _Every:
    """Due whenever so much time has passed since 1970 UTC, not since a start: a takeover does not shift it."""

    waits = False

    def __init__(self, every_ns: int) -> None:
        self._every_ns = every_ns

    def after_ns(self, now_ns: int) -> int:
        return (now_ns // self._every_ns + 1) * self._every_ns


class _Cron:
    waits = True

    def __init__(self, expression: str, zone: str) -> None:
        self._expression, self._zone = expression, time_zone(zone)

    def after_ns(self, now_ns: int) -> int:
        dues = CronSim(self._expression, local_time(now_ns, self._zone))
        times_ns = (int(due.timestamp()) * _SECOND_NS for due in dues)
        # Asked in an hour that comes twice, when it comes for the second time, it begins with those of the first.
        return next(due_ns for due_ns in times_ns if due_ns > now_ns)


def parse_trigger(text: str, zone: str) -> Trigger:
    """Return what `every 30s` or a cron expression such as `0 16 * * mon-fri` says, the latter in time zone `zone`.

    Cron expressions have five fields, or six where seconds come first; where clocks are put forward or back they
    do what Debian's cron does. Raises `ScheduleError`.
    """
    match = _EVERY.fullmatch(text.strip())
    if match is not None:
        every_ns = int(match[1]) * _UNITS_NS[match[2]]
        if every_ns < LEAST_EVERY_NS:
            raise ScheduleError(f'expected at least "every 100ms", was "{text}"; set_timer may be faster')
        if every_ns > MOST_EVERY_NS:
            raise ScheduleError(f'expected at most "every 8784h", which is a year, was "{text}"')
        return _Every(every_ns)
    if text.split()[:1] == ["every"]:
        raise ScheduleError(
            f'expected "every" and a whole number of {", ".join(_UNITS_NS)}, such as "every 5min", was "{text}"'
        )
    try:
        cron = _Cron(text.strip(), zone)
        cron.after_ns(0)
    except CronSimError as error:
        raise ScheduleError(
            f'expected "every 30s" or a cron expression such as "0 16 * * mon-fri", was "{text}": {error}'
        ) from error
    except StopIteration as error:
        raise ScheduleError(f'a trigger that never comes due: "{text}"') from error
    return cron
