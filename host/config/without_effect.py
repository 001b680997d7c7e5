"""Finds settings that are good one by one and do nothing together: a node runs with them, and people should know."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from host.config.check_failover import Finding
from host.config.schedule import ScheduleSection
from host.config.schema import InstanceSection, NodeConfig
from host.core.trading_hours import TradingHours
from host.core.triggers import Trigger, parse_trigger

__all__ = ["find_without_effect"]

_DAY_NS: Final = 24 * 3600 * 1_000_000_000
LOOKED_AHEAD_NS: Final = 400 * _DAY_NS
"""So far at least a trigger that is due at no time within its windows is followed: every day of a year is in it."""
LEAST_DUES: Final = 8
"""And so many times at least, for one that is due once in years."""


def find_without_effect(tree: Mapping[str, Any], config: NodeConfig, now_ns: int) -> Iterator[Finding]:
    """Find what is written in `tree`, which has led to `config`, and changes nothing. Defaults do not count."""
    if "give_up_ms" in tree.get("watchdog", {}) and config.watchdog.on_block == "warn":
        text = 'on_block is "warn", which ends no process'
        yield ("watchdog", "give_up_ms"), _without_effect(text)
    for index, section in enumerate(config.instance):
        for at, text in (
            *_of_isolation(tree["instance"][index], section, config),
            *_of_schedule(tree["instance"][index], section, now_ns),
        ):
            yield ("instance", index, *at), text


def _of_isolation(
    entry: Mapping[str, Any], section: InstanceSection, config: NodeConfig
) -> Iterator[Finding]:
    # The watchdog may move an inline instance to a worker, which is held to the same limits.
    may_move = section.isolation == "inline" and config.watchdog.on_block == "worker"
    if entry.get("worker") and section.isolation != "process" and not may_move:
        yield ("worker",), _without_effect(f'isolation is "{section.isolation}", not "process"')
    if entry.get("client") and section.isolation != "client":
        yield ("client",), _without_effect(f'isolation is "{section.isolation}", not "client"')
    elif section.client.curve and section.client.listen == "ipc":
        yield ("client", "curve"), _without_effect('it encrypts TCP, and listen is "ipc"')
    for place, model in enumerate(section.models):
        if entry["models"][place].get("worker") and model.isolation != "process":
            yield ("models", place, "worker"), _without_effect('isolation is "inline", not "process"')


def _of_schedule(entry: Mapping[str, Any], section: InstanceSection, now_ns: int) -> Iterator[Finding]:
    if "on_dependency_lost" in entry and not section.after:
        yield ("on_dependency_lost",), _without_effect("it comes `after` no other instance")
    schedule, written = section.schedule, entry.get("schedule", {})
    triggers = {name: parse_trigger(text, schedule.time_zone) for name, text in schedule.triggers.items()}
    if "outside" in written and not schedule.windows:
        yield ("schedule", "outside"), _without_effect("there are no windows")
    if "time_zone" in written and not schedule.windows and not triggers:
        yield ("schedule", "time_zone"), _without_effect("there are neither windows nor triggers")
    if "catch_up_s" in written and not any(trigger.waits for trigger in triggers.values()):
        yield ("schedule", "catch_up_s"), _without_effect("no trigger is a cron expression")
    for name, trigger in triggers.items() if schedule.windows else ():
        until_ns = _never_called_until(schedule, trigger, now_ns)
        if until_ns is not None:
            yield (
                ("schedule", "triggers", name),
                f'"{schedule.triggers[name]}" is due outside of the windows alone, up to '
                f"{datetime.fromtimestamp(until_ns // 1_000_000_000, UTC):%Y-%m-%d} at least, and calls nothing "
                f"then; widen a window, or have it come at another time",
            )


def _never_called_until(schedule: ScheduleSection, trigger: Trigger, now_ns: int) -> int | None:
    """Return up to when a trigger is due outside of the windows alone; None where it is due within one."""
    hours = TradingHours(schedule.windows, schedule.time_zone)
    due_ns, dues = trigger.after_ns(now_ns), 0
    while due_ns < now_ns + LOOKED_AHEAD_NS or dues < LEAST_DUES:
        phase = hours.at(due_ns)
        if phase.is_open:
            return None
        # What is due before the next window opens is outside as well.
        opens_ns = due_ns + _DAY_NS if phase.until_ns is None else phase.until_ns
        due_ns, dues = trigger.after_ns(opens_ns - 1), dues + 1
    return due_ns


def _without_effect(why: str) -> str:
    return f"has no effect: {why}; change that, or take it out"
