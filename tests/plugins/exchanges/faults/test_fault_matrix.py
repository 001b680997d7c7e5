"""Every fault × place, amend, cancel, batch and streams × every venue: afterwards node and venue know the same.

A node trades at random under each fault and a little without it, is stopped, and then its journal is held to the
venue: open orders, fills, positions, balances; and no order was sent twice, nor one that the venue took held for
refused.

By default each fault meets one of the venues, a few orders each, and several of them one node, one after the other.
`TANDEM_ORDERS=1000` gives each fault at each venue a node of its own and so many orders, which takes 20 s a fault
on a quiet machine.
"""

import functools
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, ParamSpec

import pytest
import uvloop
from fault_node import REQUESTS, FaultNode, fault_node
from fault_venues import VENUES, FaultVenue

from venue.protocols.faults import Fault, FaultKind

P = ParamSpec("P")
ORDERS = int(os.environ.get("TANDEM_ORDERS", "6"))
"""Order requests under each fault."""
IS_LONG = "TANDEM_ORDERS" in os.environ
AFTERWARDS = 3
GROUPS = 2
"""Nodes at each venue among which its faults are shared out, unless each has a node of its own."""
FEW = 2 + ORDERS // 100
"""How often a fault strikes that costs a connection, or a second of waiting."""
EACH_VENUE = pytest.mark.parametrize("venue", VENUES.values(), ids=VENUES)

Terms = dict[str, Any]
OPERATIONS = ("place", "amend", "cancel", "batch")


def _of_requests() -> dict[str, Terms]:
    """Return what can happen to a request, times the requests there are."""
    kinds: dict[str, Terms] = {
        "late {}": {"kind": FaultKind.LATENCY, "probability": 0.2, "delay_ms": 100.0, "jitter_ms": 600.0},
        "late answers to {}": {
            "kind": FaultKind.ANSWER_LATENCY, "probability": 0.3, "delay_ms": 50.0, "jitter_ms": 300.0,
        },
        "lost {}": {"kind": FaultKind.DROP_REQUEST, "probability": 0.2},
        "lost answers to {}": {"kind": FaultKind.DROP, "probability": 0.2},
        "doubled {}": {"kind": FaultKind.DUPLICATE, "probability": 0.3},
        "overtaken {}": {"kind": FaultKind.REORDER, "probability": 0.3, "delay_ms": 20.0, "jitter_ms": 40.0},
        "cut after {}": {"kind": FaultKind.DISCONNECT, "count": FEW},
        "cut before {}": {"kind": FaultKind.DISCONNECT, "count": FEW, "is_executed": False},
        "5xx with {} done": {"kind": FaultKind.SERVER_ERROR, "probability": 0.2},
        "5xx with {} not done": {"kind": FaultKind.SERVER_ERROR, "probability": 0.2, "is_executed": False},
        "429 to {}": {"kind": FaultKind.RATE_LIMIT, "count": FEW},
        "maintenance at {}": {"kind": FaultKind.MAINTENANCE, "count": 2 * FEW},
    }  # fmt: skip
    return {
        name.format(request): {**terms, "request": request}
        for request in OPERATIONS
        for name, terms in kinds.items()
    }


def _of_streams() -> dict[str, Terms]:
    """Return what can happen to the account's events and to market data."""
    kinds: dict[str, Terms] = {
        "late {} events": {"kind": FaultKind.LATENCY, "probability": 0.3, "delay_ms": 20.0, "jitter_ms": 200.0},
        "lost {} events": {"kind": FaultKind.DROP, "probability": 0.1},
        "doubled {} events": {"kind": FaultKind.DUPLICATE, "probability": 0.4},
        "overtaken {} events": {
            "kind": FaultKind.REORDER, "probability": 0.2, "delay_ms": 10.0, "jitter_ms": 40.0,
        },
        "cut {} streams": {"kind": FaultKind.DISCONNECT, "probability": 0.2, "count": FEW},
    }  # fmt: skip
    return {
        name.format(stream): {**terms, "request": stream}
        for stream in ("private", "depth", "top")
        for name, terms in kinds.items()
    }


KINDS = len(_of_requests()) // len(OPERATIONS)
FAULTS: dict[str, Terms] = {
    **_of_requests(),
    **_of_streams(),
    "unanswered questions": {"kind": FaultKind.DROP_REQUEST, "request": "query", "probability": 0.1},
    "a clock that is behind": {"kind": FaultKind.CLOCK_SKEW, "skew_ms": -3_000.0},
    "a clock that is ahead": {"kind": FaultKind.CLOCK_SKEW, "skew_ms": 3_000.0},
    "missing changes of the book": {"kind": FaultKind.SEQUENCE_GAP, "probability": 0.1},
    "books that stand still": {"kind": FaultKind.STALE_BOOK},
    "half-answered batches": {"kind": FaultKind.HALF_BATCH},
}


def faults_of(venue: FaultVenue, group: int) -> list[str]:
    """Return the faults of one of the venue's nodes: each goes to one venue that can have it, and to one node."""
    faults = []
    for number, name in enumerate(FAULTS):
        able = [other for other in VENUES.values() if not other.excuse(name)]
        # Shifted from one request to the next, or the same kinds would always meet the same venue.
        if able[(number + number // KINDS) % len(able)] is venue:
            faults.append(name)
    return faults[group::GROUPS]


def story(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run a test that is a coroutine; it has as long as pytest gives it, for a node has much to do."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        uvloop.run(test(*args, **kwargs))

    return run


async def misbehave(node: FaultNode, name: str) -> None:
    """Trade under one fault, then without it."""
    node.served.server.faults.add(Fault(protocol=node.venue.protocol, **FAULTS[name]))
    if FAULTS[name]["kind"] is FaultKind.STALE_BOOK:
        await node.until(lambda: not node.open_orders(), "end to quotes on books that stand still")
    else:
        await node.trade(ORDERS, f"with {name}")
    node.served.server.faults.clear()
    await node.recover(f"after {name}")


@pytest.mark.slow
@pytest.mark.skipif(IS_LONG, reason="each fault has a node of its own")
@pytest.mark.parametrize("group", range(GROUPS))
@EACH_VENUE
@story
async def test_whatever_goes_wrong_one_after_the_other_node_and_venue_agree_afterwards(
    venue: FaultVenue, group: int, tmp_path: Path
) -> None:
    async with fault_node(venue, tmp_path) as node:
        for name in faults_of(venue, group):
            await misbehave(node, name)
    node.assert_agreed(may_repeat=True)


@pytest.mark.skipif(not IS_LONG, reason="set TANDEM_ORDERS, such as 1000, for a node per fault")
@pytest.mark.timeout(0)
@pytest.mark.parametrize("name", FAULTS if IS_LONG else ["every fault"])
@EACH_VENUE
@story
async def test_whatever_goes_wrong_node_and_venue_agree_afterwards(
    venue: FaultVenue, name: str, tmp_path: Path
) -> None:
    if venue.excuse(name):
        pytest.skip(f"{venue.protocol}: {venue.excuse(name)}")
    async with fault_node(venue, tmp_path) as node:
        await misbehave(node, name)
    node.assert_agreed(may_repeat=FAULTS[name]["kind"] is FaultKind.DUPLICATE)


@pytest.mark.timeout(120 + ORDERS)
@story
async def test_a_resting_order_that_the_way_in_doubles_is_one_order_at_binance(tmp_path: Path) -> None:
    async with fault_node(VENUES["binance"], tmp_path, takes=False) as node:
        await misbehave(node, "doubled place")
    node.assert_agreed(may_repeat=True)


@EACH_VENUE
@story
async def test_every_line_cut_at_once_again_and_again(venue: FaultVenue, tmp_path: Path) -> None:
    async with fault_node(venue, tmp_path) as node:
        for _ in range(3):
            await node.trade(AFTERWARDS)
            node.served.cut()
        await node.trade(AFTERWARDS)
    node.assert_agreed()


@EACH_VENUE
@story
async def test_without_faults_every_symbol_trades_in_every_way(venue: FaultVenue, tmp_path: Path) -> None:
    async with fault_node(venue, tmp_path) as node:
        await node.until(lambda: node.traded_symbols() == set(venue.symbols), "fill of every symbol")
        await node.until(lambda: node.accepted_kinds() == REQUESTS, "accepted order, amend and cancel")
    node.assert_agreed()
    node.assert_same_profit()


@EACH_VENUE
@story
async def test_no_order_is_accepted_after_its_window(venue: FaultVenue, tmp_path: Path) -> None:
    late = Fault(kind=FaultKind.LATENCY, protocol=venue.protocol, request="place", delay_ms=1_200.0, count=5)

    async with fault_node(venue, tmp_path) as node:
        node.served.server.faults.add(late)
        lines = node.served.server.requests.lines
        await node.until(lambda: sum("latency" in line.faults for line in lines) == 5, "five late orders")
        await node.trade(AFTERWARDS)
    struck = [line for line in lines if "latency" in line.faults]
    assert {str(line.verdict) for line in struck} == {"refused"}
    node.assert_agreed()
