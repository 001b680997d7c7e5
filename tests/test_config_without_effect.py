"""Which settings are told of as having no effect, and which are not."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from host.config import load_config
from host.core.trading_hours import TradingHours
from host.core.triggers import parse_trigger

SUNDAY_NS = int(datetime(2026, 11, 22, 4, tzinfo=UTC).timestamp()) * 1_000_000_000
NODE = """
[[account]]
name = "paper"
exchange = "paper"
[[instance]]
name = "other"
plugin = "two_sided"
account = "paper"
symbols = ["BTC-USDT"]
[[instance]]
name = "mm"
plugin = "two_sided"
account = "paper"
symbols = ["BTC-USDT"]
"""


def warned(folder: Path, written: str) -> dict[str, str]:
    path = folder / "tandem.toml"
    path.write_text(NODE + written)
    return {
        one.key.removeprefix("instance[mm]."): one.text
        for one in load_config(path, None, {}).warnings(SUNDAY_NS)
    }


@pytest.mark.parametrize(
    ("written", "key", "why"),
    [
        ("worker = { memory_mb = 64 }", "worker", 'isolation is "inline", not "process"'),
        ('isolation = "client"\nworker = { memory_mb = 64 }', "worker", 'isolation is "client"'),
        (
            'isolation = "client"\nworker = { memory_mb = 64 }\n[watchdog]\non_block = "worker"',
            "worker",
            'isolation is "client"',
        ),
        ('client = { on_loss = "keep" }', "client", 'isolation is "inline", not "client"'),
        ('isolation = "client"\nclient = { curve = true }', "client.curve", 'listen is "ipc"'),
        (
            'models = [{ name = "inventory_skew", worker = { memory_mb = 64 } }]',
            "models[inventory_skew].worker",
            "inline",
        ),
        ('on_dependency_lost = "stop"', "on_dependency_lost", "no other instance"),
        ('schedule = { outside = "stop" }', "schedule.outside", "no windows"),
        ('schedule = { time_zone = "UTC" }', "schedule.time_zone", "neither windows nor triggers"),
        (
            'schedule = { catch_up_s = 5, triggers = { a = "every 1s" } }',
            "schedule.catch_up_s",
            "no trigger is a cron expression",
        ),
        ("[watchdog]\ngive_up_ms = 9000", "watchdog.give_up_ms", 'on_block is "warn"'),
    ],
)
def test_what_is_written_and_does_nothing_is_told(tmp_path: Path, written: str, key: str, why: str) -> None:
    [(found, text)] = warned(tmp_path, written).items()

    assert found == key
    assert text.startswith("has no effect: ")
    assert why in text


@pytest.mark.parametrize(
    "written",
    [
        "",
        'isolation = "process"\nworker = { memory_mb = 64 }',
        'worker = { memory_mb = 64 }\n[watchdog]\non_block = "worker"\ngive_up_ms = 9000',
        'isolation = "client"\nclient = { listen = "tcp://127.0.0.1:7710", curve = true }',
        'models = ["inventory_skew", { name = "onnx_adjust", isolation = "process", worker = { crashes = 2 } }]',
        'after = ["other"]\non_dependency_lost = "stop"',
        'schedule = { time_zone = "Europe/Zurich", outside = "stop", windows = ["mon 09:00-10:00"] }',
        'schedule = { time_zone = "Europe/Zurich", catch_up_s = 5, triggers = { a = "0 9 * * *" } }',
    ],
)
def test_what_does_something_is_not_warned_of(tmp_path: Path, written: str) -> None:
    assert not warned(tmp_path, written)


@pytest.mark.parametrize(
    ("window", "trigger"),
    [
        ("mon-fri 09:30-16:00", "3 16 * * mon-fri"),
        ("mon-fri 09:30-16:00", "0 16 * * mon-fri"),
        ("mon-fri 09:30-16:00", "every 24h"),  # counted from 1970: midnight in London, an evening here
        ("mon-fri 09:30-16:00", "0 12 * * sat,sun"),
        ("sun 22:00-02:00", "0 3 * * mon"),
        ("mon 09:00-10:00", "0 10 29 2 *"),
    ],
)
def test_a_trigger_that_is_due_outside_of_its_windows_alone_is_told(
    tmp_path: Path, window: str, trigger: str
) -> None:
    schedule = (
        f'{{ time_zone = "America/New_York", windows = ["{window}"], triggers = {{ a = "{trigger}" }} }}'
    )

    [(key, text)] = warned(tmp_path, f"schedule = {schedule}").items()

    assert key == "schedule.triggers.a"
    assert text.startswith(f'"{trigger}" is due outside of the windows alone, up to ')


@pytest.mark.parametrize(
    ("window", "trigger"),
    [
        ("mon-fri 09:30-16:00", "30 9 * * fri"),  # a window's first moment is in it
        ("mon-fri 09:30-16:00", "every 100ms"),
        ("sun 22:00-02:00", "59 1 * * mon"),
        ("sat 00:00-24:00", "0 0 29 2 *"),  # in 2048
        ("02:00-03:00", "30 2 * * *"),  # not there on the night on which clocks are put forward
    ],
)
def test_a_trigger_that_calls_its_instance_is_not_warned_of(
    tmp_path: Path, window: str, trigger: str
) -> None:
    schedule = (
        f'{{ time_zone = "America/New_York", windows = ["{window}"], triggers = {{ a = "{trigger}" }} }}'
    )

    assert not warned(tmp_path, f"schedule = {schedule}")


@given(
    days=st.sampled_from(["mon", "tue,thu", "fri-mon", "daily"]),
    begins=st.integers(0, 23),
    ends=st.integers(0, 23),
    trigger=st.builds("{} {} * * {}".format, st.integers(0, 59), st.integers(0, 23), st.sampled_from("*136"))
    | st.sampled_from(["every 24h", "every 7h", "every 36h"]),
)
@settings(max_examples=40, deadline=None)
def test_it_is_told_where_following_every_due_time_finds_none_within_a_window(
    tmp_path_factory: pytest.TempPathFactory, days: str, begins: int, ends: int, trigger: str
) -> None:
    assume(begins != ends)
    zone, window = "Europe/London", f"{days} {begins:02}:30-{ends:02}:30"
    schedule = f'{{ time_zone = "{zone}", windows = ["{window}"], triggers = {{ a = "{trigger}" }} }}'

    found = warned(tmp_path_factory.mktemp("config"), f"schedule = {schedule}")

    hours, due, due_ns = TradingHours([window], zone), parse_trigger(trigger, zone), SUNDAY_NS
    calls = False
    while not calls and due_ns < SUNDAY_NS + 400 * 24 * 3600 * 10**9:
        due_ns = due.after_ns(due_ns)
        calls = hours.at(due_ns).is_open
    assert bool(found) is not calls
