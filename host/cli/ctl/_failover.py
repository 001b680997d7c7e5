"""Verbs about who leads: looking, handing over, taking over, and having nobody take over."""

from collections.abc import AsyncGenerator
from typing import Final

import click

from host.cli._output import print_json
from host.cli.ctl._group import ctl
from host.cli.ctl._session import Session
from host.cli.ctl._tables import Listing, text_of, watch_text
from host.cli.ctl._verb import verb
from host.cli.ctl._words import as_json, moment, span, word
from tandem.v1 import failover_pb2 as f
from tandem.v1 import node_pb2 as n

__all__ = ["promote_node", "summary"]

SWITCH_S: Final = 30.0
"""A switchover drains, a promotion waits for a fence, and both for a takeover."""
STANDBYS: Final = Listing(
    "standbys",
    ("standby", "eligible", ">entries behind", ">bytes", ">time", ">round trip", "control", "ailments"),
    lambda one: (
        one.name,
        "yes" if one.eligible else f"no: {one.why_not}",
        one.lag_entries,
        one.lag_bytes,
        span(one.lag_time),
        span(one.round_trip) if one.HasField("round_trip") else "-",
        one.control_address or "-",
        ", ".join(one.ailments) or "-",
    ),
)


@verb(
    ctl,
    "failover",
    watches=True,
    example="failover\nfailover --watch\nfailover --json | jq .failover.standbys",
)
async def failover(session: Session) -> None:
    """Show who leads, who could take over, and how the last takeover went."""
    request = n.GetFailoverRequest()
    if not session.is_watch:
        found = await session.control.node.get_failover(request)
        session.say(found, _described(found))
        return

    async def texts() -> AsyncGenerator[str]:
        async for _ in session.control.node.watch_status(n.WatchStatusRequest()):
            found = await session.control.node.get_failover(request)
            if session.is_json:
                print_json(as_json(found))
            else:
                yield _described(found)

    await watch_text(texts())


@verb(
    ctl,
    "switchover",
    changes=("reason", "yes"),
    example='switchover --reason "upgrade"\nswitchover --to b --yes',
)
@click.option("--to", metavar="NODE", help="The standby that is to lead. [default: the best one]")
async def switchover(session: Session, to: str | None) -> None:
    """Hand the lead to a standby: orders keep resting, it takes over, and this node follows it."""
    request = n.SwitchoverRequest(to=to or "")
    if to is None:
        # With it a repetition of this does not hand the lead on once more.
        request.etag = (await session.control.node.get_failover(n.GetFailoverRequest())).failover.etag
    answer = await session.change(
        session.control.node.switchover,
        request,
        lambda trial: f"Have {trial.holder} lead instead of the node at {session.control.address}?",
        timeout_s=SWITCH_S,
    )
    session.say(answer, f"{answer.holder} {'would lead' if session.is_dry_run else 'leads'}")


async def promote_node(session: Session) -> None:
    """Have a standby take the lead by force."""
    answer = await session.change(
        session.control.node.promote,
        n.PromoteRequest(force=True),
        lambda trial: (
            f"Have the node at {session.control.address} take the lead from "
            f"{trial.failover.holder or 'nobody'}? What that one did not replicate is lost."
        ),
        timeout_s=SWITCH_S,
    )
    text = f"{answer.failover.holder} leads, epoch {answer.failover.epoch}"
    session.say(answer, "it would take the lead" if session.is_dry_run else text)


@verb(
    ctl,
    "maintenance",
    changes=("reason",),
    example='maintenance on --reason "moving the lease store"\nmaintenance off',
)
@click.argument("switch", type=click.Choice(["on", "off"]))
async def maintenance(session: Session, switch: str) -> None:
    """Have no node take over by itself, or let them again; `switchover` and `promote --force` still work.

    The primary's word holds for every node that follows it. A standby is asked where there is no primary:
    then it holds for that one alone.
    """
    wanted = switch == "on"
    request = n.SetMaintenanceRequest(enabled=wanted)
    answer = await session.change(session.control.node.set_maintenance, request)
    found = await session.control.node.get_failover(n.GetFailoverRequest())
    is_alone = found.role == n.NODE_ROLE_STANDBY
    whom = f"{found.node} alone, which is a standby" if is_alone else f"{found.node} and all that follow it"
    session.say(answer, f"maintenance {'would be ' if session.is_dry_run else ''}{switch} for {whom}")


def summary(found: f.Failover) -> list[tuple[str, str]]:
    """Return what the status of a node says of its pair: a title and a text for each line."""
    standbys = [
        f"{one.name} {f'{one.lag_entries} entries behind' if one.eligible else f'NOT ELIGIBLE: {one.why_not}'}"
        for one in found.standbys
    ]
    rows = [("leader", f"{found.holder or 'none'}, epoch {found.epoch}")]
    if found.state == f.ELECTOR_STATE_WATCHING:
        rows += [("stands by", found.why_not or "about to take over")]
    else:
        rows += [("standbys", "; ".join(standbys) or "NONE: nobody would take over")]
    if stopped := _stopped(found):
        rows += [("automatic", f"NO: {stopped}")]
    return rows


def _stopped(found: f.Failover) -> str:
    """Return why no node takes over by itself; empty while they do."""
    if found.maintenance:
        return "maintenance"
    if found.breaker.open:
        return f"too many switches; again in {span(found.breaker.closes_in)}"
    return ""


def _described(answer: n.GetFailoverResponse) -> str:
    found = answer.failover
    before = f" (before: {found.previous_holder})" if found.previous_holder else ""
    agree = (
        {True: "yes", False: "NO: states differ"}[found.states_agree]
        if found.HasField("states_agree")
        else "-"
    )
    left = f"{span(found.right_left)} left of a ttl of " if found.HasField("right_left") else "none; ttl "
    rows = [
        ("this node", f"{answer.node}, {word(f.ElectorState, found.state)}"),
        ("right to trade", f"{left}{span(found.ttl)}"),
        ("durability", word(f.DurabilityMode, found.durability)),
        ("states agree", agree),
        ("automatic", f"NO: {stopped}" if (stopped := _stopped(found)) else "yes"),
        ("ailments", ", ".join(found.ailments) or "none"),
        ("last change", f"{found.last_change or 'unknown'}{before}"),
    ]
    rows += [("why not", found.why_not)] if found.why_not else []
    rows += [("primary", answer.primary_address)] if answer.primary_address else []
    if found.HasField("last_takeover"):
        last = found.last_takeover
        steps = ", ".join(f"{step.name} {span(step.duration)}" for step in last.steps)
        rows += [("took over", f"{moment(last.time)} UTC in {span(last.duration)}: {steps}")]
    lines = [f"{found.holder or 'nobody'} leads cell {found.cell}, epoch {found.epoch}"]
    lines += [f"  {title:<14} {text}" for title, text in rows]
    if found.standbys:
        lines += ["", text_of(STANDBYS, found.standbys).rstrip()]
    return "\n".join(lines)
