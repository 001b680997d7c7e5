"""Where and when an instance runs, as the API takes and shows it: its isolation, its schedule, what it comes after.

Fields are named as the keys of an `[[instance]]`, and judged by what judges those of the configuration file.
"""

from collections.abc import Collection, Iterable
from typing import Any, Final

import msgspec
from google.protobuf.message import Message

from host.config import InstanceSection, ModelRef, ScheduleSection, find_instance_mistakes
from host.config.schema import WorkerLimits, WorkerSection
from host.control.reasons import Violation, check_count
from host.runtime.reload import ModelUse
from tandem.v1 import plugin_pb2 as pb

__all__ = ["read_settings", "show_model_settings", "show_settings"]

MOST_TIMES: Final = 100
"""Windows, triggers, and names behind `after`, that an instance may have of each."""
LONGEST: Final = 200
"""Characters of each of their texts."""
_PLACES: Final = {
    "worker": ("worker_settings",),
    "client": ("client_settings",),
    "after": ("schedule", "after"),
} | {"on_dependency_lost": ("schedule", "on_dependency_lost")}
"""Where the API has what the configuration has under another name."""
_NOT_IN_SECTION: Final = (
    "held_by", "open_time", "close_time", "next_trigger", "next_trigger_time", "after", "on_dependency_lost",
)  # fmt: skip
"""Fields of a schedule that are no keys of `[instance.schedule]`."""


def read_settings(
    request: pb.CreateInstanceRequest, others: Iterable[InstanceSection]
) -> tuple[dict[str, Any], list[Violation]]:
    """Return the keys of an `[[instance]]` that a request sets here, and everything wrong with them.

    `others` are the instances that there are. Output-only fields are ignored. Raises `Refused` for what is too many.
    """
    wanted = request.instance
    schedule = wanted.schedule
    for field in ("windows", "triggers", "after"):
        check_count(f"instance.schedule.{field}", len(getattr(schedule, field)), MOST_TIMES)
    problems = [
        Violation(f"instance.schedule.after[{place}]", f'expected instances/NAME, was "{name[:80]}"')
        for place, name in enumerate(schedule.after)
        if not name.startswith("instances/")
    ]
    table: dict[str, Any] = {
        "name": request.instance_id,
        "models": [
            {
                "name": model.model,
                **_table(
                    model, ("model", "params", "used", "skipped", "worker_settings", "worker", "last_error")
                ),
                "worker": _table(model.worker_settings),
            }
            for model in wanted.models
        ],
        "worker": _table(wanted.worker_settings),
        "client": _table(wanted.client_settings),
        "schedule": _table(schedule, _NOT_IN_SECTION),
        "after": [name.removeprefix("instances/") for name in schedule.after],
    }
    if wanted.isolation:
        table["isolation"] = _word(pb.Isolation.DESCRIPTOR, wanted.isolation)
    if schedule.on_dependency_lost:
        table["on_dependency_lost"] = _word(pb.Hold.DESCRIPTOR, schedule.on_dependency_lost)
    too_long = list(_too_long(table))
    if too_long:  # and nothing else is looked at
        return table, problems + too_long
    for at, text in find_instance_mistakes(table, others):
        if at != ("name",):
            problems.append(Violation(_field(at), text))
    return table, problems


def show_model_settings(model: ModelRef | ModelUse, shown: pb.ModelUse) -> None:
    """Put into a message where a model runs."""
    shown.isolation = _isolation(model.isolation)
    if model.isolation == "process" or model.worker != WorkerLimits():
        _show(model.worker, shown.worker_settings)


def _isolation(word: str) -> "pb.Isolation.ValueType":
    return pb.Isolation.Value(f"ISOLATION_{word.upper()}")


def show_settings(section: InstanceSection, shown: pb.Instance, *, is_moved: bool) -> None:
    """Put into a message where and when an instance runs; `is_moved`: in a worker, though configured inline."""
    isolation = "process" if is_moved else section.isolation
    shown.isolation, shown.moved_to_worker = _isolation(isolation), is_moved
    if isolation == "process" or section.worker != WorkerSection():
        _show(section.worker, shown.worker_settings)
    if isolation == "client":
        _show(section.client, shown.client_settings)
    if section.schedule != ScheduleSection() or section.after:
        _show(section.schedule, shown.schedule)
        shown.schedule.after.extend(f"instances/{name}" for name in section.after)
        shown.schedule.on_dependency_lost = pb.Hold.Value(f"HOLD_{section.on_dependency_lost.upper()}")


def _table(message: Message, left_out: Collection[str] = ()) -> dict[str, Any]:
    """Return the fields of a message that are set, as the configuration writes them."""
    table: dict[str, Any] = {}
    for field, value in message.ListFields():
        if field.name in left_out:
            continue
        if field.enum_type is not None:
            table[field.name] = _word(field.enum_type, value)
        elif field.message_type is not None:  # a map
            table[field.name] = dict(value)
        else:
            table[field.name] = list(value) if field.is_repeated else value
    return table


def _word(enum: Any, number: int) -> str | int:
    """Return `pause` for HOLD_PAUSE; a number that stands for nothing stays as it is."""
    value = enum.values_by_number.get(number)
    return number if value is None else value.name.removeprefix(_prefix(enum)).lower()


def _prefix(enum: Any) -> str:
    first: str = enum.values[0].name
    return first.removesuffix("UNSPECIFIED")


def _show(section: msgspec.Struct, message: Message) -> None:
    """Put the keys of a section into the fields of their names."""
    for field in message.DESCRIPTOR.fields:
        value = getattr(section, field.name, None)
        if value is None:
            continue
        if field.enum_type is not None:
            number = field.enum_type.values_by_name[_prefix(field.enum_type) + value.upper()].number
            setattr(message, field.name, number)
        elif field.message_type is not None:
            getattr(message, field.name).update(value)
        elif field.is_repeated:
            getattr(message, field.name).extend(value)
        else:
            setattr(message, field.name, value)


def _too_long(value: Any, at: tuple[str | int, ...] = ()) -> Iterable[Violation]:
    if isinstance(value, str):
        if len(value) > LONGEST:
            yield Violation(_field(at), f"expected at most {LONGEST} characters, was {len(value)}")
        return
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in items:
        if isinstance(key, str) and len(key) > LONGEST:
            yield Violation(_field(at), f"expected names of at most {LONGEST} characters, was {len(key)}")
        yield from _too_long(one, (*at, key))


def _field(at: tuple[str | int, ...]) -> str:
    """Return where the API has a key of an `[[instance]]`: `instance.schedule.windows[0]`."""
    path = "instance"
    if at[0] == "models":
        at = tuple("worker_settings" if part == "worker" else part for part in at)
    for part in (*_PLACES.get(str(at[0]), (at[0],)), *at[1:]):
        path += f"[{part}]" if isinstance(part, int) else f".{part}"
    return path
