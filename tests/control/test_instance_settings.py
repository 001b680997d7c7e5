"""Where and when an instance of the API runs: what is taken, shown and refused, and what outlives a restart."""

import asyncio
import os
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from control_tools import BTC, ETH, MM, ControlDesk, Status, refused
from google.protobuf.message import Message
from isolation_tools import until

from host.config import ClientSection, InstanceSection, ScheduleSection
from host.config.schema import WorkerSection
from host.control.instance_settings import LONGEST, MOST_TIMES
from host.control.plain import to_struct
from host.core import entries as e
from host.core.entries import InstanceState
from host.isolation.workers import Workers
from tandem.v1 import plugin_pb2 as pb

SECOND = 1_000_000_000
RUNNING, PAUSED = InstanceState.RUNNING, InstanceState.PAUSED


def at(text: str) -> int:
    """Return a time of the week that begins on Monday, 2026-11-16, in ns UTC: `16 09:00`."""
    return (
        int(datetime.fromisoformat(f"2026-11-{text.replace(' ', 'T')}").replace(tzinfo=UTC).timestamp())
        * SECOND
    )


def create(name: str, **fields: Any) -> pb.CreateInstanceRequest:
    settings = {"plugin": "maker", "account": "accounts/acc", "symbols": [ETH], **fields}
    return pb.CreateInstanceRequest(instance_id=name, instance=pb.Instance(**settings))


def params(**values: Any) -> Any:
    request = pb.SetParamsRequest()
    to_struct(values, request.params)
    return request.params


async def get(client: Any, name: str) -> pb.Instance:
    answer = await client.plugin.GetInstance(pb.GetInstanceRequest(name=f"instances/{name}"))
    shown: pb.Instance = answer.instance
    return shown


DAY = pb.InstanceSchedule(
    time_zone="Europe/Zurich",
    windows=["mon-fri 09:00-17:30", "sun 22:00-02:00"],
    outside=pb.HOLD_PAUSE,
    triggers={"flat": "25 17 * * mon-fri", "look": "every 5s"},
    market_events=True,
    catch_up_s=10,
    after=["instances/mm"],
    on_dependency_lost=pb.HOLD_STOP,
)
"""All that a schedule can say, so that it is shown as it was given."""


def configured(schedule: pb.InstanceSchedule) -> pb.InstanceSchedule:
    """Return what was configured of a schedule, without how it is doing."""
    only = pb.InstanceSchedule()
    only.CopyFrom(schedule)
    for field in ("held_by", "open_time", "close_time", "next_trigger", "next_trigger_time"):
        only.ClearField(field)
    return only


# -- schedules -----------------------------------------------------------------------------------


def test_a_created_instance_keeps_to_its_schedule_over_a_restart_too(tmp_path: Path) -> None:
    desk = ControlDesk(tmp_path, now_ns=at("16 07:30"))  # 08:30 in Zurich

    async def story() -> None:
        async with desk.serving() as client:
            answer = await client.plugin.CreateInstance(create("day", schedule=DAY))
            shown = answer.instance
            assert shown.state == pb.INSTANCE_STATE_PAUSED
            assert "outside its trading windows" in shown.state_reason == shown.schedule.held_by
            assert shown.schedule.open_time.ToJsonString() == "2026-11-16T08:00:00Z"
            assert configured(shown.schedule) == DAY
            assert shown.schedule == (await get(client, "day")).schedule
            desk.tick()
            assert not desk.venue.open(ETH)

    asyncio.run(story())
    again = desk.restarted()
    again.tick()
    assert again.state_of("day") is PAUSED
    again.advance(30 * 60)
    again.tick()
    assert again.state_of("day") is RUNNING
    assert again.venue.open(ETH)
    again.advance(9 * 3600)
    assert again.state_of("day") is PAUSED
    assert not again.venue.open(ETH)
    fired = [entry for entry in again.entries if isinstance(entry, e.TriggerFired)]
    assert [one.due_ns for one in fired if one.trigger == "flat"] == [at("16 16:25")]

    async def later() -> None:
        async with again.serving() as client:
            assert configured((await get(client, "day")).schedule) == DAY

    asyncio.run(later())


def test_an_instance_runs_on_its_triggers_alone(tmp_path: Path) -> None:
    desk = ControlDesk(tmp_path)
    schedule = pb.InstanceSchedule(triggers={"look": "every 2s"}, market_events=False)

    async def story() -> None:
        async with desk.serving() as client:
            await client.plugin.CreateInstance(create("slow", schedule=schedule))
            for _ in range(2):
                desk.tick()
            desk.advance(4)
            shown = (await get(client, "slow")).schedule
            assert shown.next_trigger == "look"
            assert (shown.market_events, shown.time_zone, shown.catch_up_s) == (False, "UTC", 60)

    asyncio.run(story())
    assert desk.instance("slow").strategy.state.books == 0
    assert desk.instance().strategy.state.books == 2
    assert sum(isinstance(entry, e.TriggerFired) for entry in desk.entries) == 2


def test_one_that_comes_after_another_is_held_while_that_is_lost(tmp_path: Path) -> None:
    desk = ControlDesk(tmp_path)

    async def story() -> None:
        async with desk.serving() as client:
            schedule = pb.InstanceSchedule(after=["instances/mm"])
            made = (await client.plugin.CreateInstance(create("hedger", schedule=schedule))).instance
            assert made.state == pb.INSTANCE_STATE_RUNNING
            assert made.schedule.on_dependency_lost == pb.HOLD_PAUSE
            await client.plugin.StopInstance(pb.StopInstanceRequest(name="instances/mm"))
            assert desk.state_of("hedger") is PAUSED
            shown = await get(client, "hedger")
            assert shown.schedule.held_by == "it comes after instance mm, which is stopped"
            await client.plugin.StartInstance(pb.StartInstanceRequest(name="instances/mm"))
            assert desk.state_of("hedger") is RUNNING

    asyncio.run(story())


def test_one_made_anew_with_another_schedule_goes_on_with_its_state(tmp_path: Path) -> None:
    desk = ControlDesk(tmp_path)

    async def story() -> None:
        async with desk.serving() as client:
            await client.plugin.CreateInstance(create("eth"))
            desk.tick()
            await client.plugin.RemoveInstance(pb.RemoveInstanceRequest(name="instances/eth"))
            desk.settle()
            desk.advance(1)
            await client.plugin.CreateInstance(
                create("eth", schedule=pb.InstanceSchedule(windows=["daily 00:00-24:00"]))
            )
            desk.tick()
            assert desk.state_of("eth") is RUNNING
            assert desk.instance("eth").strategy.state.books == 2

    asyncio.run(story())


def test_a_circle_is_refused_however_it_comes_about(tmp_path: Path) -> None:
    desk = ControlDesk(tmp_path)

    def after(*names: str) -> pb.InstanceSchedule:
        return pb.InstanceSchedule(after=[f"instances/{name}" for name in names])

    async def story() -> None:
        async with desk.serving() as client:
            itself = await refused(client.plugin.CreateInstance(create("a", schedule=after("a"))))
            assert itself.fields == {
                "instance.schedule.after": "these wait for each other: a after a; take one of them out"
            }
            await client.plugin.CreateInstance(create("a", schedule=after("mm")))
            await client.plugin.CreateInstance(create("b", schedule=after("a")))
            await client.plugin.RemoveInstance(pb.RemoveInstanceRequest(name="instances/a"))
            desk.settle()
            assert desk.state_of("b") is PAUSED
            lsn = desk.journal.last_lsn
            circle = await refused(client.plugin.CreateInstance(create("a", schedule=after("b"))))
            assert "these wait for each other" in circle.fields["instance.schedule.after"]
            assert desk.journal.last_lsn == lsn
            await client.plugin.CreateInstance(create("a"))
            assert desk.state_of("b") is RUNNING

    asyncio.run(story())


WRONG: list[tuple[pb.Instance, dict[str, str]]] = [
    (
        pb.Instance(schedule=pb.InstanceSchedule(time_zone="Europe/Zuerich")),
        {"instance.schedule.time_zone": "expected the name of a time zone"},
    ),
    (
        pb.Instance(schedule=pb.InstanceSchedule(windows=["daily 09:00-17:00", "9-5", "mon 25:00-26:00"])),
        {"instance.schedule.windows[1]": '"9-5"', "instance.schedule.windows[2]": '"mon 25:00-26:00"'},
    ),
    (
        pb.Instance(
            schedule=pb.InstanceSchedule(
                triggers={
                    "ok": "every 1s",
                    "fast": "every 1ms",
                    "never": "0 0 31 2 *",
                    "far": f"every {10**15}h",
                }
            )
        ),
        {
            "instance.schedule.triggers.fast": 'expected at least "every 100ms"',
            "instance.schedule.triggers.never": "0 0 31 2 *",
            "instance.schedule.triggers.far": "expected at most",
        },
    ),
    (
        pb.Instance(schedule=pb.InstanceSchedule(catch_up_s=4000, outside=pb.HOLD_KEEP)),
        {
            "instance.schedule.catch_up_s": "expected a number >= 0 <= 3600",
            "instance.schedule.outside": 'expected one of "pause", "stop", was "keep"',
        },
    ),
    (
        pb.Instance(
            schedule=pb.InstanceSchedule(
                after=["instances/nobody", "mm"],
                on_dependency_lost=9,  # type: ignore[arg-type]  # as a caller of another version may
            )
        ),
        {
            "instance.schedule.after[0]": 'no instance is named "nobody"',
            "instance.schedule.after[1]": 'expected instances/NAME, was "mm"',
            "instance.schedule.on_dependency_lost": 'expected one of "pause", "stop", "keep", was 9',
        },
    ),
    (
        pb.Instance(schedule=pb.InstanceSchedule(windows=["daily 09:00-17:00"] * (MOST_TIMES + 1))),
        {"instance.schedule.windows": f"expected at most {MOST_TIMES}, was {MOST_TIMES + 1}"},
    ),
    (
        pb.Instance(schedule=pb.InstanceSchedule(time_zone="U" * (LONGEST + 1))),
        {"instance.schedule.time_zone": f"expected at most {LONGEST} characters, was {LONGEST + 1}"},
    ),
    (
        pb.Instance(
            worker_settings=pb.WorkerSettings(
                memory_mb=0, deadline_ms=-5, cpu_share=float("nan"), crash_window_s=1e9
            )
        ),
        {
            "instance.worker_settings.memory_mb": "expected a whole number > 0 <= 2147483647, was 0",
            "instance.worker_settings.deadline_ms": "was -5",
            "instance.worker_settings.cpu_share": "was nan",
            "instance.worker_settings.crash_window_s": "<= 86400",
        },
    ),
    (
        pb.Instance(
            isolation=8,
            models=[
                pb.ModelUse(
                    model="shift",
                    isolation=pb.ISOLATION_CLIENT,
                    worker_settings=pb.WorkerSettings(on_loss=pb.ON_LOSS_KEEP),
                )
            ],
        ),  # type: ignore[arg-type]
        {
            "instance.models[0].worker_settings.on_loss": "unknown key",
            "instance.isolation": 'expected one of "inline", "process", "client", was 8',
            "instance.models[0].isolation": 'expected one of "inline", "process", was "client"',
        },
    ),
    (
        pb.Instance(isolation=pb.ISOLATION_CLIENT, client_settings=pb.ClientSettings(deadline_ms=0)),
        {"instance.client_settings.deadline_ms": "expected a whole number > 0 <= 2147483647, was 0"},
    ),
]


@pytest.mark.parametrize(("wrong", "told"), WRONG, ids=[next(iter(told)) for _, told in WRONG])
def test_what_is_wrong_is_named_as_in_the_configuration_and_changes_nothing(
    tmp_path: Path, wrong: pb.Instance, told: dict[str, str]
) -> None:
    desk = ControlDesk(tmp_path)
    request = create("x")
    request.instance.MergeFrom(wrong)

    async def story() -> None:
        async with desk.serving() as client:
            lsn = desk.journal.last_lsn
            for validate_only in (True, False):
                request.validate_only = validate_only
                refusal = await refused(client.plugin.CreateInstance(request))
                assert (refusal.code, refusal.reason) == (Status.INVALID_ARGUMENT, "INVALID_FIELD")
                assert refusal.fields.keys() == told.keys()
                for field, text in told.items():
                    assert text in refusal.fields[field]
            assert desk.journal.last_lsn == lsn
            assert desk.engine.roster.instances.keys() == {"mm"}

    asyncio.run(story())


def test_what_one_instance_is_shown_as_makes_another_one_like_it(tmp_path: Path) -> None:
    desk = ControlDesk(tmp_path)

    async def story() -> None:
        async with desk.serving() as client:
            wanted = create(
                "one",
                schedule=DAY,
                isolation=pb.ISOLATION_PROCESS,
                worker_settings=pb.WorkerSettings(memory_mb=99, cpu_share=0.5, on_loss=pb.ON_LOSS_KEEP),
                models=[
                    pb.ModelUse(
                        model="shift",
                        isolation=pb.ISOLATION_PROCESS,
                        worker_settings=pb.WorkerSettings(memory_mb=77),
                    )
                ],
            )
            tried = await client.plugin.CreateInstance(
                pb.CreateInstanceRequest(instance_id="one", instance=wanted.instance, validate_only=True)
            )
            first = (await client.plugin.CreateInstance(wanted)).instance
            assert tried.instance.worker_settings == first.worker_settings
            assert configured(tried.instance.schedule) == configured(first.schedule)
            again = pb.CreateInstanceRequest(instance_id="two", instance=first)
            second = (await client.plugin.CreateInstance(again)).instance
        assert second.isolation == second.models[0].isolation == pb.ISOLATION_PROCESS
        assert (second.worker_settings.memory_mb, second.worker_settings.deadline_ms) == (99, 1000)
        assert second.worker_settings.on_loss == pb.ON_LOSS_KEEP
        assert second.models[0].worker_settings.memory_mb == 77
        for shown in (first, second):
            shown.ClearField("name")
            shown.ClearField("etag")
        assert first == second
        sections = [
            msgspec.json.decode(desk.engine.state.api_instances[name], type=InstanceSection)
            for name in ("one", "two")
        ]
        one, two = sections
        assert (two.schedule, two.after, two.worker) == (one.schedule, one.after, one.worker)
        assert two.models[0].worker == one.models[0].worker

    asyncio.run(story())


def test_a_standby_shows_what_was_configured(tmp_path: Path) -> None:
    desk = ControlDesk(tmp_path)

    async def story() -> None:
        async with desk.serving() as client:
            await client.plugin.CreateInstance(create("day", schedule=DAY, isolation=pb.ISOLATION_PROCESS))
            desk.pair.step_down()
            shown = await get(client, "day")
            assert shown.schedule == DAY
            assert (shown.isolation, shown.worker_settings.memory_mb) == (pb.ISOLATION_PROCESS, 512)

    asyncio.run(story())


def test_an_etag_changes_with_the_schedule_of_the_file(tmp_path: Path) -> None:
    desk = ControlDesk(tmp_path)

    async def story() -> None:
        async with desk.serving() as client:
            before = (await get(client, "mm")).etag
            assert (await get(client, "mm")).etag == before
            scheduled = msgspec.structs.replace(MM, schedule=ScheduleSection(windows=("daily 00:00-24:00",)))
            desk.config = msgspec.structs.replace(desk.config, instance=(scheduled,))
            assert (await get(client, "mm")).etag != before

    asyncio.run(story())


@pytest.mark.parametrize(
    ("message", "section", "not_here"),
    [
        (pb.WorkerSettings(), WorkerSection, set[str]()),
        (pb.ClientSettings(), ClientSection, {"listen", "curve", "token"}),
        (pb.InstanceSchedule(), ScheduleSection, set[str]()),
    ],
    ids=["worker", "client", "schedule"],
)
def test_every_key_of_the_configuration_is_a_field_of_that_name(
    message: Message, section: type[msgspec.Struct], not_here: set[str]
) -> None:
    fields = {field.name for field in message.DESCRIPTOR.fields}
    assert set(section.__struct_fields__) - fields == not_here


# -- in other processes --------------------------------------------------------------------------


def test_a_created_instance_runs_in_a_worker_with_its_own_limits(tmp_path: Path) -> None:
    async def play() -> None:
        desk = ControlDesk(tmp_path, workers=Workers)
        workers = desk.workers
        assert workers is not None

        def quotes() -> bool:
            desk.tick()
            desk.settle()
            return bool(desk.venue.open(ETH))

        def has_gone() -> bool:
            desk.settle()
            desk.advance(0.1)  # it goes once its orders are done
            return not workers.running

        try:
            async with desk.serving() as client:
                settings = pb.WorkerSettings(memory_mb=300, on_loss=pb.ON_LOSS_KEEP)
                said = pb.WorkerStatus(state="what is output only is passed over")
                model = pb.ModelUse(model="shift", isolation=pb.ISOLATION_PROCESS, worker=said)
                made = await client.plugin.CreateInstance(
                    create("apart", isolation=pb.ISOLATION_PROCESS, worker_settings=settings, models=[model])
                )
                assert made.instance.isolation == pb.ISOLATION_PROCESS
                assert made.instance.worker_settings.memory_mb == 300
                await until(quotes, "it quotes")
                shown = await get(client, "apart")
                assert shown.worker.state == "running"
                pids = {os.getpid(), shown.worker.pid, shown.models[0].worker.pid}
                assert len(pids - {0}) == 3
                await client.plugin.RemoveInstance(pb.RemoveInstanceRequest(name="instances/apart"))
                await until(has_gone, "its workers end")
        finally:
            workers.close()

    asyncio.run(play())


def test_what_was_moved_to_a_worker_says_so_until_an_operator_starts_it_inline(tmp_path: Path) -> None:
    async def play() -> None:
        desk = ControlDesk(tmp_path, workers=Workers)
        workers = desk.workers
        assert workers is not None
        start = pb.StartInstanceRequest(name="instances/mm")
        stop = pb.StopInstanceRequest(name="instances/mm")
        inline = pb.StartInstanceRequest(name="instances/mm", inline=True)
        try:
            async with desk.serving() as client:
                await client.plugin.SetParams(pb.SetParamsRequest(name="instances/mm", params=params(away=3)))
                desk.tick()
                books, before = desk.instance("mm").strategy.state.books, await get(client, "mm")
                assert (before.isolation, before.moved_to_worker) == (pb.ISOLATION_INLINE, False)
                assert desk.engine.move_to_worker("mm", "it held the event loop")
                desk.settle()
                assert not desk.venue.open(BTC), "its orders are pulled"

                def quotes() -> bool:
                    desk.tick()
                    desk.settle()
                    return [one.price for one in desk.venue.open(BTC) if one.side == "buy"] == [Decimal(97)]

                await until(quotes, "it quotes by the parameters that it had")
                shown = await get(client, "mm")
                assert (shown.isolation, shown.moved_to_worker) == (pb.ISOLATION_PROCESS, True)
                assert shown.etag != before.etag

                await client.plugin.StopInstance(stop)
                await client.plugin.StartInstance(start)
                assert (await get(client, "mm")).moved_to_worker, "the same bytes would hold the loop again"
                await client.plugin.StopInstance(stop)
                await until(lambda: not workers.running, "its workers end")
                answer = await client.plugin.StartInstance(inline)
                assert (answer.instance.isolation, answer.instance.moved_to_worker) == (
                    pb.ISOLATION_INLINE,
                    False,
                )
                assert answer.instance.params == before.params
                assert desk.instance("mm").strategy.state.books > books
        finally:
            workers.close()
        assert desk.engine.state.isolated == {}
        assert desk.restarted().engine.state.isolated == {}

    asyncio.run(play())


def test_a_created_instance_waits_for_the_program_that_runs_it(tmp_path: Path) -> None:
    async def play() -> None:
        desk = ControlDesk(tmp_path, workers=Workers)
        assert desk.workers is not None
        try:
            async with desk.serving() as client:
                settings = pb.ClientSettings(deadline_ms=700)
                made = await client.plugin.CreateInstance(
                    create("mine", isolation=pb.ISOLATION_CLIENT, client_settings=settings)
                )
        finally:
            desk.workers.close()
        assert made.instance.isolation == pb.ISOLATION_CLIENT
        assert made.instance.client_settings == pb.ClientSettings(deadline_ms=700, on_loss=pb.ON_LOSS_PULL)
        assert made.instance.worker.state == "waiting"
        assert not made.instance.HasField("worker_settings")
        token = tmp_path / "clients" / "mine.token"
        assert token.stat().st_mode & 0o777 == 0o600

    asyncio.run(play())
