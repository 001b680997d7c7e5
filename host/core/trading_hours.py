"""Trading windows: days of the week and hours of the day in a time zone, such as `mon-fri 09:00-17:30`."""

import re
from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from typing import Final

from msgspec import Struct

from host.core.wall_time import ScheduleError, first_moment_ns, local_time, time_zone

__all__ = ["Phase", "TradingHours"]

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_WINDOW: Final = re.compile(
    r"(?:(?P<days>[a-z,-]+) +)?(?P<begins>[0-9]{2}:[0-9]{2}(?::[0-9]{2})?)-(?P<ends>[0-9]{2}:[0-9]{2}(?::[0-9]{2})?)"
)
_DAY_S: Final = 86_400
_HORIZON_DAYS: Final = 15
"""A week's windows may all fall on one day, and that one into an hour that is skipped: then it is two weeks."""


class _Window(Struct, frozen=True):
    days: frozenset[int]
    """Of its beginning; 0 is Monday."""
    begins_s: int
    ends_s: int
    """Seconds after the midnight that its first day begins with; more than a day's where it ends on the next."""


class Phase(Struct, frozen=True):
    """Whether trading is open at some moment, and up to when that holds."""

    is_open: bool
    until_ns: int | None
    """The next change; None where none comes within two weeks."""


class TradingHours:
    """One or more windows. Where they overlap or meet, trading goes on.

    A window whose end is not after its beginning ends on the next day; `24:00` is the midnight at a day's end.
    A window without days is open every day. Raises `ScheduleError`.
    """

    def __init__(self, windows: Sequence[str], zone: str) -> None:
        self._zone: Final = time_zone(zone)
        self._windows: Final = tuple(_parse(window) for window in windows)

    def at(self, now_ns: int) -> Phase:
        """Return the phase that `now_ns` is in."""
        open_until_ns: int | None = None
        for begins_ns, ends_ns in self._spans(local_time(now_ns, self._zone).date()):
            if open_until_ns is not None:
                if begins_ns > open_until_ns:
                    return Phase(True, open_until_ns)
                open_until_ns = max(open_until_ns, ends_ns)
            elif begins_ns > now_ns:
                return Phase(False, begins_ns)
            elif ends_ns > now_ns:
                open_until_ns = ends_ns
        return Phase(open_until_ns is not None, None)

    def _spans(self, today: date) -> Iterator[tuple[int, int]]:
        """Yield when windows begin and end, by their beginnings, from those that may still be open today."""
        for days in range(-2, _HORIZON_DAYS):
            day = today + timedelta(days=days)
            spans = []
            for window in self._windows:
                if day.weekday() in window.days:
                    begins_ns = first_moment_ns(day, window.begins_s, self._zone)
                    ends_ns = first_moment_ns(day, window.ends_s, self._zone)
                    if ends_ns > begins_ns:  # not: all of it is skipped
                        spans.append((begins_ns, ends_ns))
            yield from sorted(spans)


def _parse(text: str) -> _Window:
    match = _WINDOW.fullmatch(text.strip().lower())
    if match is None:
        raise ScheduleError(
            f'expected a window such as "mon-fri 09:00-17:30" or "sun 22:00-02:00", was "{text}"'
        )
    begins_s, ends_s = _seconds(match["begins"], text), _seconds(match["ends"], text)
    if begins_s == _DAY_S:
        raise ScheduleError(
            f'24:00 is the end of a day; a window begins at 00:00 of the next one, was "{text}"'
        )
    if begins_s == ends_s:
        raise ScheduleError(
            f'a window has to end at another time than it begins; all day is 00:00-24:00, was "{text}"'
        )
    return _Window(_days(match["days"], text), begins_s, ends_s + (_DAY_S if ends_s < begins_s else 0))


def _seconds(clock: str, text: str) -> int:
    hours, minutes, seconds = (int(part) for part in (clock + ":00" if len(clock) == 5 else clock).split(":"))
    total = hours * 3600 + minutes * 60 + seconds
    if minutes > 59 or seconds > 59 or total > _DAY_S:
        raise ScheduleError(f'expected times from 00:00 to 24:00, was "{text}"')
    return total


def _days(words: str | None, text: str) -> frozenset[int]:
    if words in (None, "daily"):
        return frozenset(range(7))
    assert words is not None
    days: set[int] = set()
    for part in words.split(","):
        first, _, last = part.partition("-")
        if first not in DAYS or (last or first) not in DAYS or part.endswith("-"):
            raise ScheduleError(
                f'expected days such as "mon", "mon-fri" or "tue,thu" of {" ".join(DAYS)}, or "daily", was "{text}"'
            )
        begins, ends = DAYS.index(first), DAYS.index(last or first)
        days |= {day % 7 for day in range(begins, ends + 1 if ends >= begins else ends + 8)}
    return frozenset(days)
