"""How a term begins and ends: nobody leads who should not, and nobody is left waiting."""

import asyncio
from pathlib import Path

import pytest

from failover.clock import boottime_ns
from failover.signals import Lead, OpenGate, Succession
from host.control.reasons import Refused
from host.held_gate import Term
from host.leading import NodeLeadership
from host.pair.relay import LinkState
from tests.cell.cell_tools import BUSY, Cell

PLUGINS = Path(__file__).parent / "plugins"
PATIENT = "max_lag_ms = 60000\ndrain_ms = 400"
"""A standby that lags stays eligible, and a handover to it is given up soon."""


@pytest.fixture(autouse=True)
def _close_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait no longer for the goodbye of a venue that is not there."""
    monkeypatch.setattr("host.runtime.link.CLOSE_DEADLINE_S", 0.2)


def lingering(folder: Path) -> dict[str, str]:
    """Return what has nodes take their time to connect and to close, as files in `folder` say."""
    return {
        "node": f'plugin_dirs = ["{PLUGINS}"]\nreload = "off"',
        "exchange": "paper_lingering",
        "params": f', folder = "{folder}"',
    }


def test_the_lease_waits_until_the_heir_itself_holds_every_entry(tmp_path: Path) -> None:
    async def story() -> None:
        async with Cell.open(tmp_path, "abc", instances=BUSY, failover=PATIENT) as cell:
            link = await cell.link("c", to="a")
            await cell.start()
            epoch = cell["a"].member.engine.state.epoch
            link.put(LinkState.CUT)
            with pytest.raises(Refused, match="given up"):  # though b holds all
                await NodeLeadership(cell["a"].member).switchover("c", "ops")
            record = await cell.record()
            assert record is not None and (record.holder, record.epoch) == ("a", epoch)
            await NodeLeadership(cell["a"].member).switchover("b", "ops")
            await cell.until_trading("b")

    asyncio.run(story())


def test_a_node_that_hands_over_is_no_candidate_before_it_stands_by_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would lead with a journal that lacks what its successor wrote meanwhile."""

    async def story() -> None:
        async with Cell.open(tmp_path, **lingering(tmp_path)) as cell:
            cell["b"].rewrite(f'folder = "{tmp_path}"', f'folder = "{tmp_path}/nowhere"')
            await cell.start()
            a = cell["a"].member
            monkeypatch.setattr("host.runtime.link.CLOSE_DEADLINE_S", 60.0)
            (tmp_path / "going").touch()
            handing_over = asyncio.create_task(NodeLeadership(a).switchover("b", "ops"))
            await cell.until_trading("b")
            epoch = cell["b"].member.engine.state.epoch
            await cell["b"].die(cell.lease)
            watch = a.membership.elector.watch
            await cell.until(
                lambda: watch.seen is not None and watch.seen.is_free and watch.seen.holder == "b",
                "a to see that the lease was given up",
            )
            assert "led until a moment ago" in a.membership.elector.why_not
            (tmp_path / "going").unlink()
            await cell.until(
                lambda: "has not followed a primary" in a.membership.elector.why_not, "a to stand by"
            )
            handing_over.cancel()
            record = await cell.record()
            assert record is not None and record.epoch == epoch and cell["a"].is_running

    asyncio.run(story())


def test_a_node_that_is_told_to_stop_while_it_takes_over_stops(tmp_path: Path) -> None:
    async def story() -> None:
        async with Cell.open(tmp_path, node="stop_timeout_ms = 100", failover="drain_ms = 200") as cell:
            await cell.start()
            await cell.close_venue()  # so that nothing can be reconciled
            await cell["a"].die(cell.lease)
            b = cell["b"].member
            await cell.until(lambda: b.membership.engine is not None, "b to take over")
            report = await cell["b"].stop()
            assert report.stopped == "the test says so" and not b.is_trading

    asyncio.run(story())


def test_a_node_that_cannot_take_over_says_so_and_makes_way(tmp_path: Path) -> None:
    async def story() -> None:
        async with Cell.open(tmp_path) as cell:
            await cell.start()
            await cell.close_venue()
            await cell["a"].die(cell.lease)
            b = cell["b"].member
            await cell.until(
                lambda: b.membership.engine is not None and "venue:acc" in b.membership.health.ailments,
                "b to say what ails it while it takes over",
            )
            assert not b.is_trading
            await cell.open_venue()
            await cell.until_trading("b")

    asyncio.run(story())


def test_quotes_are_pulled_for_want_of_a_standby_though_the_node_stood_back_before(tmp_path: Path) -> None:
    async def story() -> None:
        failover = 'max_lag_ms = 60000\non_standby_lost = "halt"'
        async with Cell.open(tmp_path, node='durability = "replica"', failover=failover) as cell:
            link = await cell.link("b", to="a")
            await cell.start()
            engine = cell["a"].member.engine
            await cell.until(lambda: len(engine.state.orders) == 2, "both quotes to rest")
            link.put(LinkState.CUT)
            with pytest.raises(Refused, match="given up"):
                await NodeLeadership(cell["a"].member).switchover("b", "ops")
            await cell.until(lambda: not engine.state.orders, "no quote to rest")
            assert not engine.halted

    asyncio.run(story())


def test_an_engine_is_not_let_trade_by_the_right_of_a_later_term(tmp_path: Path) -> None:
    """What it knows of the market's orders ends with its own term: somebody else may have led in between."""

    async def story() -> None:
        async with Cell.open(tmp_path, "a") as cell:
            cell["a"].start()
            await cell.until_trading("a")
            membership, engine = cell["a"].member.membership, cell["a"].member.engine
            term = membership.term
            assert term is not None and engine.gate.valid_until_ns > engine.clock.now_ns()
            term.over = "another node led"
            engine.gate.close()
            for action in (Lead(9, Succession.EXPIRED, None), OpenGate(9, boottime_ns() + 10**12)):
                membership._carry_out(action)
            assert isinstance(membership.term, Term) and membership.term.lead.epoch == 9
            assert engine.gate.valid_until_ns == 0

    asyncio.run(story())
