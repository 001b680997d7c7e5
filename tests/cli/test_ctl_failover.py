"""`tandem ctl` about a pair: who leads, handing over, taking over, having nobody take over."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from control_tools import ControlDesk
from ctl_tools import LiveDesk
from leadership_tools import B


@pytest.fixture
def live(tmp_path: Path) -> Iterator[LiveDesk]:
    with LiveDesk(desk_in(tmp_path / "node")).serving() as live:
        yield live


def desk_in(folder: Path) -> ControlDesk:
    folder.mkdir(mode=0o700)
    desk = ControlDesk(folder)
    desk.tick()
    return desk


def test_who_leads_and_who_could_is_shown(live: LiveDesk) -> None:
    said = live.ok("failover")
    assert said.startswith("desk leads cell main, epoch 7\n")
    assert "540 ms left of a ttl of 600 ms" in said
    assert "durability     REPLICA" in said
    lines = said.splitlines()
    [b] = [line.split() for line in lines if line.startswith("b ")]
    assert b[:2] == ["b", "yes"]
    assert "10.0.0.2:7600" in b
    assert "no: it is 99999 entries behind" in said
    found = live.json("failover")
    assert [one["eligible"] for one in found["failover"]["standbys"]] == [True, True, False]


def test_the_status_tells_of_the_pair_in_short(live: LiveDesk) -> None:
    said = live.ok("status")
    assert "leader         desk, epoch 7" in said
    assert "b 3 entries behind" in said
    live.do(lambda: live.desk.pair.say(standbys=(), is_maintained=True))
    said = live.ok("status")
    assert "NONE: nobody would take over" in said
    assert "NO: maintenance" in said
    live.do(live.desk.pair.step_down)
    said = live.ok("status")
    assert said.startswith("desk is STANDBY of cell main")
    assert "stands by      b leads and renews its lease" in said
    assert f"primary        {B.control_address}" in said


def test_the_last_takeover_is_told_step_by_step(live: LiveDesk) -> None:
    live.do(live.desk.pair.step_down)
    assert "why not        b leads and renews its lease" in live.ok("failover")
    live.do(live.desk.pair.take_over)
    assert "in 12 ms: lease 5 ms, reconciled 7 ms" in live.ok("failover")


def test_a_switchover_goes_to_the_standby_named_or_to_the_best(live: LiveDesk) -> None:
    assert live.ctl("switchover").exit_code == 3, "nobody said yes"
    assert live.ok("switchover", "--yes", "--dry-run") == "c would lead\n"
    assert not live.desk.pair.asked
    assert live.ok("switchover", "--to", "b", "--yes", "--reason", "upgrade") == "b leads\n"
    assert [words[:2] for words in live.desk.pair.asked] == [("switchover", "b")]


def test_a_standby_that_cannot_lead_is_refused_with_the_reason(live: LiveDesk) -> None:
    result = live.ctl("switchover", "--to", "late", "--yes")
    assert result.exit_code == 3
    assert "late could not take over: it is 99999 entries behind" in result.stderr


def test_a_promotion_needs_force_and_a_yes(live: LiveDesk) -> None:
    live.do(live.desk.pair.step_down)
    assert live.ctl("promote").exit_code == 2
    assert live.ctl("promote", "maker", "--force").exit_code == 2
    assert live.ctl("promote", "--force").exit_code == 3
    assert not live.desk.pair.asked
    assert live.ok("promote", "--force", "--yes", "--reason", "a is lost") == "desk leads, epoch 9\n"
    assert live.ctl("promote", "--force", "--yes").exit_code == 3, "it leads already"


def test_a_plugin_is_promoted_without_a_reason(live: LiveDesk) -> None:
    result = live.ctl("promote", "maker", "--reason", "because")
    assert (result.exit_code, "--reason has no place here" in result.stderr) == (2, True)


def test_maintenance_is_switched_on_and_off(live: LiveDesk) -> None:
    said = live.ok("maintenance", "on", "--reason", "moving the store")
    assert said == "maintenance on for desk and all that follow it\n"
    assert live.desk.pair.status().is_maintained
    [(_, _, by)] = live.desk.pair.asked
    assert by.endswith(": moving the store")
    assert "would be off" in live.ok("maintenance", "off", "--dry-run")
    live.do(live.desk.pair.step_down)
    assert live.ok("maintenance", "off") == "maintenance off for desk alone, which is a standby\n"
    assert not live.desk.pair.status().is_maintained


def test_a_node_that_runs_alone_says_so(live: LiveDesk) -> None:
    live.desk.subject.leadership = None
    result = live.ctl("failover")
    assert (result.exit_code, "runs alone" in result.stderr) == (3, True)
    assert "leader" not in live.ok("status")


def test_a_change_that_a_standby_is_asked_for_is_made_at_its_primary(tmp_path: Path) -> None:
    first, second = (LiveDesk(desk_in(tmp_path / name)) for name in ("a", "b"))
    with ExitStack() as stack:
        stack.enter_context(first.serving())
        stack.enter_context(second.serving())
        second.do(second.desk.pair.step_down)
        second.do(lambda: setattr(second.desk.subject, "standby_of", lambda: first.address))
        second.ok("pause", "mm")
        assert first.do(lambda: first.desk.instance().state) == "paused"
        assert second.do(lambda: second.desk.instance().state) == "running"
