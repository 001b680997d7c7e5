"""`[instance.schedule]`: when an instance runs, and after which others; what that may not say.

`find_schedule_mistakes` judges a tree of any shape: what is wrong with the shape is reported elsewhere.
"""

import difflib
import graphlib
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from host.config.check_failover import Finding
from host.core.trading_hours import TradingHours
from host.core.triggers import parse_trigger
from host.core.wall_time import ScheduleError, time_zone

__all__ = ["ScheduleSection", "find_schedule_mistakes"]


class ScheduleSection(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[instance.schedule]`: when an instance may trade, and what it runs on."""

    time_zone: str = "UTC"
    """The name of a zone of the IANA database, such as `Europe/Zurich`, by whose clock all of this is meant."""
    windows: tuple[str, ...] = ()
    """When it may trade, such as `mon-fri 09:00-17:30` or `sun 22:00-02:00`; none is always."""
    outside: Literal["pause", "stop"] = "pause"
    """What it is outside of them: paused, which goes on receiving data, or stopped, which begins anew each time."""
    triggers: dict[str, str] = {}
    """Names of timers, and when `on_timer` is called with each: `every 30s`, or a cron expression."""
    market_events: bool = True
    """Whether market data calls it. Without, it runs on timers, triggers and its own orders, and reads the books."""
    catch_up_s: Annotated[float, Meta(ge=0, le=3600)] = 60.0
    """A trigger that came due while no node could run it is made up for if it is not later than this."""


def find_schedule_mistakes(tree: Mapping[str, Any]) -> Iterator[Finding]:
    """Find windows and triggers that say nothing, and instances that wait for each other or for nobody."""
    instances = tree.get("instance")
    entries = [
        (index, entry)
        for index, entry in enumerate(instances if isinstance(instances, list) else [])
        if isinstance(entry, dict)
    ]
    names = [name for _, entry in entries if isinstance(name := entry.get("name"), str)]
    for index, entry in entries:
        schedule = entry.get("schedule")
        if isinstance(schedule, dict):
            yield from _bad_schedule(schedule, index)
        for place, name in enumerate(_list(entry.get("after"))):
            if isinstance(name, str) and name not in names:
                others = sorted(set(names) - {entry.get("name")})
                near = difflib.get_close_matches(name, others, n=1)
                hint = (
                    f'; did you mean "{near[0]}"?' if near else f"; there are: {', '.join(others) or 'none'}"
                )
                yield ("instance", index, "after", place), f'no instance is named "{name}"{hint}'
    yield from _cycles(entries)


def _bad_schedule(schedule: dict[str, Any], index: int) -> Iterator[Finding]:
    at = ("instance", index, "schedule")
    zone = schedule.get("time_zone", "UTC")
    try:
        time_zone(zone if isinstance(zone, str) else "UTC")
    except ScheduleError as error:
        yield (*at, "time_zone"), str(error)
    for place, window in enumerate(_list(schedule.get("windows"))):
        try:
            TradingHours([window] if isinstance(window, str) else [], "UTC")
        except ScheduleError as error:
            yield (*at, "windows", place), str(error)
    triggers = schedule.get("triggers")
    for name, text in triggers.items() if isinstance(triggers, dict) else ():
        try:
            parse_trigger(text if isinstance(text, str) else "every 1s", "UTC")
        except ScheduleError as error:
            yield (*at, "triggers", name), str(error)


def _cycles(entries: list[tuple[int, dict[str, Any]]]) -> Iterator[Finding]:
    """Find a circle of instances each of which is to run after the next."""
    after = {
        entry["name"]: [name for name in _list(entry.get("after")) if isinstance(name, str)]
        for _, entry in entries
        if isinstance(entry.get("name"), str)
    }
    try:
        graphlib.TopologicalSorter(after).prepare()
    except graphlib.CycleError as error:
        circle: list[str] = error.args[1]  # each is to run before the one behind it
        first = circle[0]
        index = next(index for index, entry in entries if entry.get("name") == first)
        said = " after ".join(reversed(circle))
        yield ("instance", index, "after"), f"these wait for each other: {said}; take one of them out"


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
