"""What `tandem config check` shows of how and when instances run: workers, programs that attach, schedules."""

from collections.abc import Iterator
from datetime import UTC, datetime

from msgspec import Struct

from host.cli._output import print_table
from host.config import InstanceSection, NodeConfig, WatchdogSection
from host.config.client import ClientSection
from host.config.schema import WorkerLimits

__all__ = ["Outlook", "blocking_words", "models_words", "outlooks", "print_runs", "runs_words"]


class Outlook(Struct, frozen=True):
    """What a schedule comes to from now on. Times are UTC."""

    instance: str
    is_open: bool
    """Whether its windows are open; without windows they always are."""
    until: datetime | None
    """When that changes; None where it does not within two weeks."""
    triggers: dict[str, datetime]
    """When each trigger is due next, be it inside of its windows or not."""


def outlooks(config: NodeConfig, now_ns: int) -> list[Outlook]:
    """Return the outlook of every instance that has windows or triggers."""
    from host.core.trading_hours import Phase, TradingHours
    from host.core.triggers import parse_trigger

    found = []
    for section in config.instance:
        schedule = section.schedule
        if schedule.windows or schedule.triggers:
            always = Phase(True, None)
            hours = TradingHours(schedule.windows, schedule.time_zone) if schedule.windows else None
            phase = always if hours is None else hours.at(now_ns)
            triggers = {
                name: _moment(parse_trigger(text, schedule.time_zone).after_ns(now_ns))
                for name, text in schedule.triggers.items()
            }
            until = None if phase.until_ns is None else _moment(phase.until_ns)
            found.append(Outlook(section.name, phase.is_open, until, triggers))
    return found


def blocking_words(section: WatchdogSection) -> str:
    """Return what is done about code that blocks the event loop."""
    words = f"{section.on_block} after {section.limit_ms} ms"
    return words if section.on_block == "warn" else f"{words}, the process ends after {section.give_up_ms} ms"


def runs_words(section: InstanceSection) -> str:
    """Return where the code of an instance runs."""
    return _worker(section.worker) if section.isolation == "process" else section.isolation


def models_words(section: InstanceSection) -> str:
    """Return the models of an instance, and which of them run in workers."""
    words = [one.name + (" (worker)" if one.isolation == "process" else "") for one in section.models]
    return " ".join(words) or "-"


def print_runs(config: NodeConfig, now_ns: int) -> None:
    """Print what workers and programs are held to, and schedules; nothing where there are none."""
    rows = list(_limits(config))
    if rows:
        print_table("workers and clients", ("name", "runs", "held to"), rows)
    known = {one.instance: one for one in outlooks(config, now_ns)}
    scheduled = [one for one in config.instance if one.name in known or one.after or _is_deaf(one)]
    if scheduled:
        print_table(
            "schedules, next times in UTC",
            ("name", "clock", "windows", "now", "triggers", "after"),
            (_schedule_row(one, known.get(one.name)) for one in scheduled),
        )


def _limits(config: NodeConfig) -> Iterator[tuple[str, str, str]]:
    for section in config.instance:
        if section.isolation == "process":
            yield section.name, runs_words(section), _worker_words(section.worker, section.worker.on_loss)
        elif section.isolation == "client":
            yield section.name, "client", _client_words(section.client)
        for model in section.models:
            if model.isolation == "process":
                yield f"{section.name}/{model.name}", _worker(model.worker), _worker_words(model.worker, "")


def _worker(limits: WorkerLimits) -> str:
    return f"worker, group {limits.group}" if limits.group else "worker"


def _worker_words(limits: WorkerLimits, on_loss: str) -> str:
    words = [f"{limits.deadline_ms} ms", f"{limits.memory_mb} MB"]
    words += [] if limits.cpu_share is None else [f"{limits.cpu_share:g} of a core"]
    words += [f"{limits.crashes} losses in {limits.crash_window_s:g} s"]
    words += [f"orders {on_loss}"] if on_loss else []
    return ", ".join(words)


def _client_words(client: ClientSection) -> str:
    at = f"{client.listen}{' with curve' if client.curve else ''}"
    token = client.token.partition(":")[0] if client.token else "made by the node"
    return f"{client.deadline_ms} ms, at {at}, token {token}, orders {client.on_loss}"


def _schedule_row(section: InstanceSection, outlook: Outlook | None) -> tuple[str, ...]:
    schedule = section.schedule
    windows = "\n".join(schedule.windows) + f"\noutside: {schedule.outside}" if schedule.windows else "always"
    triggers = [
        f"{name}: {schedule.triggers[name]}, next {due:%a %Y-%m-%d %H:%M:%S}"
        for name, due in ({} if outlook is None else outlook.triggers).items()
    ]
    triggers += ["no market events"] if _is_deaf(section) else []
    after = f"{', '.join(section.after)}; when lost: {section.on_dependency_lost}" if section.after else "-"
    return section.name, schedule.time_zone, windows, _now(outlook), "\n".join(triggers) or "-", after


def _now(outlook: Outlook | None) -> str:
    if outlook is None:
        return "open"
    words = "open" if outlook.is_open else "closed"
    return words if outlook.until is None else f"{words} until {outlook.until:%a %Y-%m-%d %H:%M:%S}"


def _is_deaf(section: InstanceSection) -> bool:
    return not section.schedule.market_events


def _moment(time_ns: int) -> datetime:
    return datetime.fromtimestamp(time_ns / 1e9, UTC)
