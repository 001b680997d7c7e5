"""Time as the clock on a wall of some place shows it, in nanoseconds since the Unix epoch.

Clocks are put forward and back: some times of a day are never shown, others twice. Whatever is to happen at a time
of day happens at the first moment at which the clock shows that time or a later one.
"""

import functools
from datetime import UTC, date, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from host.api import TandemError

__all__ = ["ScheduleError", "first_moment_ns", "local_time", "time_zone"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_SECOND: Final = timedelta(seconds=1)


class ScheduleError(TandemError):
    """A time zone, a trading window or a trigger is not written as it must be."""


@functools.cache
def time_zone(name: str) -> ZoneInfo:
    """Return the time zone of that name in the IANA database; raise `ScheduleError` where there is none."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:  # OSError: the name is that of a folder
        raise ScheduleError(
            f'expected the name of a time zone such as "Europe/Zurich" or "UTC", was "{name}"'
        ) from error


def local_time(now_ns: int, zone: ZoneInfo) -> datetime:
    """Return what the clock of `zone` shows, cut to whole seconds."""
    return (_EPOCH + timedelta(seconds=now_ns // 1_000_000_000)).astimezone(zone)


def first_moment_ns(day: date, seconds: int, zone: ZoneInfo) -> int:
    """Return the first moment of the local `day` at which its clock shows `seconds` after midnight, or more.

    86400 is midnight at the day's end. Of a time that is shown twice it is the first; one that is skipped is
    over when the clock has been put forward.
    """
    shown = datetime.combine(day, time()) + timedelta(seconds=seconds)
    moment = shown.replace(tzinfo=zone).astimezone(UTC)
    if _shown(moment, zone) != shown:  # skipped: the clock is put forward between these two
        early = shown.replace(tzinfo=zone, fold=1).astimezone(UTC)
        while moment - early > _SECOND:
            middle = early + (moment - early) // _SECOND // 2 * _SECOND
            early, moment = (early, middle) if _shown(middle, zone) >= shown else (middle, moment)
    return (moment - _EPOCH) // _MICROSECOND * 1_000


def _shown(moment: datetime, zone: ZoneInfo) -> datetime:
    return moment.astimezone(zone).replace(tzinfo=None)
