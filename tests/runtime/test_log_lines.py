"""A line of the log says whose it is, and what changed about an instance or the configuration is one."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from config_tools import FIRST, ConfigDesk, play
from reload_tools import ReloadDesk, maker

SAYS = 'self.ctx.log.info("sees %s", book.bid)'


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[ReloadDesk]:
    rig = ReloadDesk(tmp_path)
    rig.write(maker(at_book=SAYS))
    rig.load()
    yield rig
    rig.close()


def speakers(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return whose lines came since this was asked last."""
    names = [record.name for record in caplog.records if record.getMessage().startswith("sees")]
    caplog.clear()
    return names


def of(caplog: pytest.LogCaptureFixture, name: str) -> list[str]:
    """Return what one logger said."""
    return [record.getMessage() for record in caplog.records if record.name == name]


def test_line_of_a_strategy_names_its_instance(rig: ReloadDesk, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tandem")
    rig.run("mm-a")
    rig.run("mm-b")
    rig.tops(1)
    assert speakers(caplog) == ["tandem.strategy.mm-a", "tandem.strategy.mm-b"]


def test_line_of_a_muted_version_is_told_from_one_that_trades(
    rig: ReloadDesk, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "tandem")
    rig.run("mm")
    rig.tops(3)
    assert speakers(caplog) == ["tandem.strategy.mm"] * 3

    rig.save(maker(0.05, at_book=SAYS))
    assert set(speakers(caplog)) == {"tandem.strategy.mm.muted"}, "the warm-up"
    rig.tops(1)
    assert "tandem.strategy.mm" in speakers(caplog)


def test_change_of_an_instance_is_logged_with_its_reason(
    rig: ReloadDesk, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "tandem.roster")
    instance = rig.run("mm")
    roster = rig.desk.engine.roster
    roster.pause(instance, "wide market")
    roster.resume(instance, "")
    assert of(caplog, "tandem.roster") == [
        "instance mm is running",
        "instance mm is paused: wide market",
        "instance mm is running",
    ]


def test_edit_of_the_configuration_is_logged_once_it_is_in_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.INFO, "tandem.config")
    desk = ConfigDesk(tmp_path)

    async def story() -> None:
        desk.tick()
        await desk.edit(FIRST.replace("away = 2.0", "away = -1.0"))
        assert of(caplog, "tandem.config") == [], "refused"
        await desk.edit(FIRST.replace("away = 2.0", "away = 5.0"))

    play(story)
    assert of(caplog, "tandem.config") == ["configuration changed: instance[mm].params.away: 2.0 → 5.0"]
