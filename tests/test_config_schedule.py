"""What a schedule in the configuration may say, and what a mistake in it is answered with."""

from itertools import pairwise
from pathlib import Path

import pytest

from host.config import ConfigError, NodeConfig, ScheduleSection, diff, load_config

NODE = """
[[account]]
name = "paper"
exchange = "paper"
"""


def instance(name: str, settings: str = "") -> str:
    return f"""
[[instance]]
name = "{name}"
plugin = "two_sided"
account = "paper"
symbols = ["BTC-USDT"]
{settings}
"""


def load(folder: Path, *instances: str) -> NodeConfig:
    path = folder / "tandem.toml"
    path.write_text(NODE + "".join(instances))
    return load_config(path, None, {}).config


def problems(folder: Path, *instances: str) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        load(folder, *instances)
    return {problem.key: problem.text for problem in caught.value.problems}


SCHEDULE = """
[instance.schedule]
time_zone = "Europe/Zurich"
windows = ["mon-fri 09:00-17:30", "sun 22:00-02:00"]
outside = "stop"
triggers = { flat = "25 17 * * mon-fri", look = "every 5s" }
market_events = false
catch_up_s = 10
"""


def test_schedule_is_read_and_every_instance_without_one_runs_always(tmp_path: Path) -> None:
    scheduled, free = load(tmp_path, instance("a", SCHEDULE), instance("b", 'after = ["a"]')).instance
    assert scheduled.schedule.windows == ("mon-fri 09:00-17:30", "sun 22:00-02:00")
    assert scheduled.schedule.triggers == {"flat": "25 17 * * mon-fri", "look": "every 5s"}
    assert (scheduled.schedule.outside, scheduled.schedule.market_events) == ("stop", False)
    assert free.schedule == ScheduleSection()
    assert (free.after, free.on_dependency_lost) == (("a",), "pause")


def test_every_mistake_in_a_schedule_is_told_with_its_place(tmp_path: Path) -> None:
    found = problems(
        tmp_path,
        instance(
            "a",
            """
after = ["qouter"]
on_dependency_lost = "panic"
[instance.schedule]
time_zone = "Europe/Zurch"
windows = ["mon-fri 09:00-17:30", "9 to 5"]
outside = "sell"
window = []
triggers = { flat = "99 * * * *", look = "every 1ms" }
catch_up_s = -1
""",
        ),
        instance("quoter"),
    )
    at = "instance[a].schedule"
    assert found.keys() == {
        "instance[a].after[0]",
        "instance[a].on_dependency_lost",
        f"{at}.time_zone",
        f"{at}.windows[1]",
        f"{at}.outside",
        f"{at}.window",
        f"{at}.triggers.flat",
        f"{at}.triggers.look",
        f"{at}.catch_up_s",
    }
    assert found["instance[a].after[0]"] == 'no instance is named "qouter"; did you mean "quoter"?'
    assert found[f"{at}.window"] == 'unknown key; did you mean "windows"?'
    assert "minute" in found[f"{at}.triggers.flat"]


def test_circle_of_instances_that_wait_for_each_other_is_named(tmp_path: Path) -> None:
    chain = [("a", "b"), ("b", "c"), ("c", "a"), ("d", "a")]
    found = problems(tmp_path, *(instance(name, f'after = ["{other}"]') for name, other in chain))
    [(key, text)] = found.items()
    circle = text.removeprefix("these wait for each other: ").partition(";")[0].split(" after ")
    assert circle[0] == circle[-1]
    assert set(pairwise(circle)) == set(chain[:3])
    assert key in {"instance[a].after", "instance[b].after", "instance[c].after"}


def test_instance_after_itself_is_a_circle_too(tmp_path: Path) -> None:
    assert problems(tmp_path, instance("a", 'after = ["a"]')) == {
        "instance[a].after": "these wait for each other: a after a; take one of them out"
    }


def test_edit_of_a_schedule_is_no_other_instance(tmp_path: Path) -> None:
    before, after = load(tmp_path, instance("a")), load(tmp_path, instance("a", SCHEDULE))
    plan = diff(before, after)
    assert [section.name for section in plan.schedules] == ["a"]
    assert not plan.replaced
    assert plan.changes[0].startswith("instance[a].schedule: ")
