"""Who leads, as the control API tells it and changes it."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from control_tools import ControlDesk, Status, refused
from leadership_tools import LATE, MS, B, C

from failover.replication import Mode
from failover.states import State
from host.control.convert_failover import failover_message
from host.control.leadership import FailoverStatus, Takeover
from host.core import entries as e
from tandem.v1 import failover_pb2, node_pb2
from tandem.v1 import node_pb2 as pb

WAIT_S = 20


@pytest.fixture
def desk(tmp_path: Path) -> ControlDesk:
    return ControlDesk(tmp_path)


def run(desk: ControlDesk, story: Callable[[Any], Coroutine[Any, Any, None]]) -> None:
    """Tell a story with a client of the desk."""

    async def tell() -> None:
        async with asyncio.timeout(WAIT_S), desk.serving() as client:
            await story(client)

    asyncio.run(tell())


async def known(client: Any) -> failover_pb2.Failover:
    failover: failover_pb2.Failover = (await client.node.GetFailover(pb.GetFailoverRequest())).failover
    return failover


# -- looking ---------------------------------------------------------------------------------------


def test_everything_that_is_known_of_the_cell_is_shown(desk: ControlDesk) -> None:
    takeover = Takeover(
        epoch=7, time_ns=5, previous_holder="b", reason="b died", steps=(("lease", MS), ("orders", 2 * MS))
    )
    desk.pair.say(
        ailments=("disk",), do_states_agree=False, breaker_closes_ns=9 * MS, last_takeover=takeover,
        previous_holder="b", last_change="b died",
    )  # fmt: skip

    async def story(client: Any) -> None:
        answer = await client.node.GetFailover(pb.GetFailoverRequest())
        assert (answer.node, answer.role, answer.primary_address) == ("desk", pb.NODE_ROLE_PRIMARY, "")
        found = answer.failover
        assert (found.cell, found.epoch, found.holder, found.why_not) == ("main", 7, "desk", "")
        assert found.state == failover_pb2.ELECTOR_STATE_LEADING
        assert (found.ttl.ToMilliseconds(), found.right_left.ToMilliseconds()) == (600, 540)
        assert found.durability == failover_pb2.DURABILITY_MODE_REPLICA
        assert found.HasField("states_agree")
        assert not found.states_agree
        assert (found.breaker.open, found.breaker.closes_in.ToMilliseconds()) == (True, 9)
        assert (found.previous_holder, found.last_change, found.ailments) == ("b", "b died", ["disk"])
        assert [(one.name, one.eligible) for one in found.standbys] == [
            ("b", True),
            ("c", True),
            ("late", False),
        ]
        b, late = found.standbys[0], found.standbys[2]
        assert (b.address, b.control_address, b.lag_entries, b.lag_bytes) == (
            B.address,
            B.control_address,
            3,
            900,
        )
        assert (b.lag_time.ToMilliseconds(), b.round_trip.ToMilliseconds(), b.ailments) == (
            2,
            1,
            ["market_data:acc"],
        )
        assert late.why_not == LATE.why_not
        assert not late.HasField("round_trip")
        last = found.last_takeover
        assert [(step.name, step.duration.ToMilliseconds()) for step in last.steps] == [
            ("lease", 1),
            ("orders", 2),
        ]
        assert (last.epoch, last.previous_holder, last.duration.ToMilliseconds()) == (7, "b", 3)
        status = (await client.node.GetStatus(pb.GetStatusRequest())).status
        assert status.failover == found

    run(desk, story)


def test_a_standby_shows_who_leads_and_why_it_does_not(desk: ControlDesk) -> None:
    async def story(client: Any) -> None:
        desk.pair.step_down()
        answer = await client.node.GetFailover(pb.GetFailoverRequest())
        assert (answer.role, answer.primary_address) == (pb.NODE_ROLE_STANDBY, B.control_address)
        assert answer.failover.state == failover_pb2.ELECTOR_STATE_WATCHING
        assert answer.failover.why_not == "b leads and renews its lease"
        assert not answer.failover.HasField("right_left")
        assert answer.failover.durability == failover_pb2.DURABILITY_MODE_UNSPECIFIED

    run(desk, story)


@pytest.mark.parametrize("state", State)
def test_every_state_of_an_elector_has_a_name_in_the_api(state: State) -> None:
    status = FailoverStatus(cell="main", epoch=1, holder="a", state=state.value, ttl_ns=1)
    assert failover_message(status).state != failover_pb2.ELECTOR_STATE_UNSPECIFIED


@pytest.mark.parametrize("mode", [*Mode, "disk"])
def test_every_mode_of_durability_has_a_name_in_the_api(mode: str) -> None:
    status = FailoverStatus(cell="main", epoch=1, holder="a", state="leading", ttl_ns=1, durability=mode)
    assert failover_message(status).durability != failover_pb2.DURABILITY_MODE_UNSPECIFIED


def test_a_node_that_runs_alone_says_so(desk: ControlDesk) -> None:
    desk.subject.leadership = None

    async def story(client: Any) -> None:
        for call in (
            client.node.GetFailover(pb.GetFailoverRequest()),
            client.node.Switchover(pb.SwitchoverRequest(to="b")),
            client.node.Promote(pb.PromoteRequest(force=True)),
            client.node.SetMaintenance(pb.SetMaintenanceRequest(enabled=True)),
        ):
            refusal = await refused(call)
            assert (refusal.code, refusal.reason) == (Status.FAILED_PRECONDITION, "NO_FAILOVER")
        status = (await client.node.GetStatus(pb.GetStatusRequest())).status
        assert not status.HasField("failover")

    run(desk, story)


# -- switching over --------------------------------------------------------------------------------


def test_a_switchover_answers_when_the_standby_leads_and_this_node_follows(desk: ControlDesk) -> None:
    async def story(client: Any) -> None:
        answer = await client.node.Switchover(pb.SwitchoverRequest(to="b", reason="upgrade"))
        assert (answer.holder, answer.control_address) == ("b", B.control_address)
        assert desk.subject.is_standby
        status = (await client.node.GetStatus(pb.GetStatusRequest())).status
        assert (status.role, status.failover.holder) == (pb.NODE_ROLE_STANDBY, "b")
        refusal = await refused(client.node.Switchover(pb.SwitchoverRequest(to="b")))
        assert (refusal.reason, refusal.metadata["primary_address"]) == ("NOT_PRIMARY", B.control_address)

    run(desk, story)
    [(verb, heir, by)] = desk.pair.asked
    assert (verb, heir) == ("switchover", "b")
    assert by.endswith(": upgrade")
    line = desk.audited()[0]
    assert (line.method, line.outcome) == ("tandem.v1.NodeService/Switchover", "OK")
    assert (line.before, line.after) == ({"holder": "desk", "epoch": 7}, {"holder": "b"})


def test_without_a_name_the_standby_with_the_fewest_ailments_and_the_least_lag_is_taken(
    desk: ControlDesk,
) -> None:
    async def story(client: Any) -> None:
        etag = (await known(client)).etag
        tried = await client.node.Switchover(pb.SwitchoverRequest(etag=etag, validate_only=True))
        assert tried.holder == C.name, "b lags less, and has an ailment"
        assert not desk.pair.asked
        answer = await client.node.Switchover(pb.SwitchoverRequest(etag=etag))
        assert answer.holder == C.name

    run(desk, story)


def test_a_repeated_switchover_never_switches_back(desk: ControlDesk) -> None:
    async def story(client: Any) -> None:
        etag = (await known(client)).etag
        desk.pair.step_down("c")  # the switchover happened, and its answer was lost,
        desk.pair.take_over()  # and what is asked now is the node that leads since
        desk.pair.say(standbys=(B,))
        again = await refused(client.node.Switchover(pb.SwitchoverRequest(etag=etag)))
        assert (again.code, again.reason) == (Status.ABORTED, "ETAG_MISMATCH")
        named = pb.SwitchoverRequest(to="desk", etag=etag)
        assert (await client.node.Switchover(named)).holder == "desk"
        assert not desk.pair.asked

    run(desk, story)


@pytest.mark.parametrize(
    ("to", "code", "reason", "text"),
    [
        ("none", Status.NOT_FOUND, "STANDBY_NOT_FOUND", "attached are: b, c, late"),
        ("late", Status.FAILED_PRECONDITION, "NOT_ELIGIBLE", "99999 entries behind"),
    ],
)
def test_a_standby_that_cannot_take_over_is_refused(
    desk: ControlDesk, to: str, code: Any, reason: str, text: str
) -> None:
    async def story(client: Any) -> None:
        refusal = await refused(client.node.Switchover(pb.SwitchoverRequest(to=to)))
        assert (refusal.code, refusal.reason) == (code, reason)
        assert text in refusal.text
        assert not desk.pair.asked

    run(desk, story)


def test_what_the_election_refuses_is_told_and_changes_nothing(desk: ControlDesk) -> None:
    desk.pair.refuses = "b does not answer"

    async def story(client: Any) -> None:
        lsn = desk.journal.last_lsn
        refusal = await refused(client.node.Switchover(pb.SwitchoverRequest(to="b", request_id="one")))
        assert (refusal.code, refusal.reason) == (Status.FAILED_PRECONDITION, "SWITCH_REFUSED")
        assert refusal.text == "b does not answer"
        assert not desk.subject.is_standby
        assert all(isinstance(one, e.AuditAnchored) for one in desk.entries[lsn:])

    run(desk, story)


def test_a_switchover_outlives_the_role_that_other_calls_end_with(desk: ControlDesk) -> None:
    desk.pair.may_switch.clear()
    admitted = 0

    def nobody() -> None:
        nonlocal admitted
        admitted += 1  # it is asked of each change that comes

    desk.subject.standby_of = nobody

    async def story(client: Any) -> None:
        watch = client.node.WatchEvents(pb.WatchEventsRequest())
        await watch.read()
        request = pb.SwitchoverRequest(to="b", request_id="one")
        both = [asyncio.ensure_future(_awaited(client.node.Switchover(request))) for _ in range(2)]
        while admitted < 2:
            await asyncio.sleep(0.002)
        desk.pair.may_switch.set()
        first, second = await asyncio.gather(*both)
        assert first == second
        assert len(desk.pair.asked) == 1
        assert (await refused(watch.read())).reason == "ROLE_CHANGED"

    run(desk, story)


async def _awaited(call: Any) -> Any:
    return await call


# -- promotion and maintenance ---------------------------------------------------------------------


def test_a_promotion_answers_when_this_node_trades(desk: ControlDesk) -> None:
    async def story(client: Any) -> None:
        desk.pair.step_down()
        answer = await client.node.Promote(pb.PromoteRequest(force=True, request_id="one"))
        assert answer.failover.holder == "desk"
        assert [step.name for step in answer.failover.last_takeover.steps] == ["lease", "reconciled"]
        assert not desk.subject.is_standby
        repeated = await client.node.Promote(pb.PromoteRequest(force=True, request_id="one"))
        assert repeated == answer
        refusal = await refused(client.node.Promote(pb.PromoteRequest(force=True)))
        assert (refusal.code, refusal.reason) == (Status.FAILED_PRECONDITION, "WRONG_STATE")

    run(desk, story)
    assert [verb for verb, *_ in desk.pair.asked] == ["promote"]
    line = desk.audited()[0]
    assert (line.before, line.after) == ({"holder": "b", "epoch": 8}, {"holder": "desk", "epoch": 9})


def test_maintenance_is_switched_on_and_off_on_either_node(desk: ControlDesk) -> None:
    async def story(client: Any) -> None:
        on, off = pb.SetMaintenanceRequest(enabled=True), pb.SetMaintenanceRequest()
        assert (await client.node.SetMaintenance(on)).enabled
        assert (await known(client)).maintenance
        desk.pair.step_down()
        assert not (await client.node.SetMaintenance(off)).enabled
        assert not (await known(client)).maintenance
        tried = node_pb2.SetMaintenanceRequest(enabled=True, validate_only=True)
        assert (await client.node.SetMaintenance(tried)).enabled
        assert not (await known(client)).maintenance

    run(desk, story)
