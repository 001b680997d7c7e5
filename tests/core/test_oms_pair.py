"""The straight line for a quote whose two orders both move does what the general path does."""

import tempfile
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from host.api import (
    AmendOrder,
    AmendRejected,
    CancelOrder,
    Command,
    OrderAccepted,
    OrderAmended,
    OrderCancelled,
    OrderStatus,
    PlaceOrder,
    Quote,
    RejectReason,
)
from host.core import entries as e
from host.core.oms import Oms
from host.core.risk_exposure import RateWindow
from host.journal import read
from tests.core.core_tools import BTC, INSTANCE, MS, SECOND, START_NS, Core, both, top

D = Decimal
LIMITS = {
    "node": {"max_orders_per_second": 7, "price_collar_bps": 120.0, "max_data_age_ms": 1500},
    "accounts": {"acc": {"max_orders_per_second": 6}},
    "instances": {INSTANCE: {"max_order_notional": "104", "max_position": "5", "max_open_orders": 4}},
}


class GeneralOms(Oms):
    """An OMS without the straight line."""

    def _move_pair(self, *_: object) -> bool:
        return False


class Move(NamedTuple):
    """Quotes around a mid that moves `by`; what the venue answers, does and when."""

    by: float
    below: float
    above: float
    qty: str
    levels: int
    answer: Literal["yes", "no", "later"]
    fill: str
    wait_ms: int
    is_fresh: bool
    kills: bool


def mostly(usual: object, *others: object) -> st.SearchStrategy[Any]:
    """Return a strategy that draws the usual value nine times in ten."""
    return st.integers(0, 9).flatmap(lambda n: st.sampled_from(others) if n == 9 else st.just(usual))


MOVES = st.lists(
    st.builds(
        Move,
        by=st.sampled_from([-1.0, -0.5, 0.0, 0.5, 1.0]),
        below=mostly(1.0, 0.6, 1.5, 4.0, float("nan")),
        above=mostly(1.0, 0.6, 1.5, 4.0, -3.0),
        qty=mostly("1", "0.9", "2"),
        levels=mostly(1, 0, 2),
        answer=mostly("yes", "no", "later"),
        fill=mostly("", "0.1", "1"),
        wait_ms=st.sampled_from([1, 10, 150, 400, 1100]),
        is_fresh=mostly(True, False),
        kills=mostly(False, True),
    ),
    min_size=5,
    max_size=20,
)


class Story:
    """One core that lives through moves; what it sent is answered move by move."""

    def __init__(self, kind: type[Oms], folder: Path, tolerance_bps: float) -> None:
        self.core = Core(folder, risk=LIMITS, tolerance_bps=tolerance_bps)
        self.core.oms.__class__ = kind
        self.core.get_ready()
        self.sent: list[Command] = []
        self.unanswered: list[Command] = []
        self.trades = 0

    def live(self, move: Move) -> None:
        """Let the market move, the strategy quote, the venue answer and time pass."""
        core = self.core
        mid = core.tops[BTC].mid + move.by
        if move.is_fresh:
            core.tops[BTC] = structs.replace(top(mid), ts_recv=core.now_ns)
        core.risk.set_kill("node", move.kills, "test")
        quotes = [both(mid - move.below, mid + move.above, move.qty), both(mid - 3, mid + 3)]
        core.quote(*quotes[: move.levels])
        self.answer(move)
        orders = sorted(core.state.orders.values(), key=lambda order: order.client_id)
        if move.fill and orders:
            self.trades += 1
            core.fill(orders[self.trades % len(orders)], move.fill, f"t{self.trades}")
        core.wait(move.wait_ms * MS)

    def answer(self, move: Move) -> None:
        """Answer what was sent so far, unless that is to come later."""
        core = self.core
        sent = core.sent()
        self.sent += sent
        self.unanswered += sent
        if move.answer == "later":
            return
        commands, self.unanswered = self.unanswered, []
        for command in commands:
            name, now_ns = getattr(command, "client_id", ""), core.now_ns
            if isinstance(command, PlaceOrder):
                core.say(OrderAccepted(name, f"v-{name}", now_ns))
            elif isinstance(command, CancelOrder):
                core.say(OrderCancelled(name, now_ns))
            elif isinstance(command, AmendOrder) and move.answer == "no":
                core.say(AmendRejected(name, RejectReason.OTHER, "", now_ns))
            elif isinstance(command, AmendOrder):
                core.say(OrderAmended(name, command.price, command.qty, now_ns))


@settings(deadline=None, max_examples=60)
@given(moves=MOVES, tolerance_bps=st.sampled_from([0.0, 60.0]))
def test_straight_line_does_what_the_general_path_does(moves: list[Move], tolerance_bps: float) -> None:
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        quick = Story(Oms, Path(one), tolerance_bps)
        general = Story(GeneralOms, Path(other), tolerance_bps)
        with quick.core, general.core:
            for move in moves:
                quick.live(move)
                general.live(move)
                assert quick.sent == general.sent
                assert quick.core.state.digest() == general.core.state.digest()
                assert quick.core.breaches == general.core.breaches
                assert quick.core.oms.amends_sent == general.core.oms.amends_sent
            assert list(read(Path(one), 1)) == list(read(Path(other), 1))


def test_both_orders_of_a_quote_move_with_one_entry(tmp_path: Path) -> None:
    with Core(tmp_path) as core:
        core.get_ready()
        core.quoted(99.0, 101.0)
        buy, sell = sorted(core.state.orders.values(), key=lambda order: order.side)
        core.tops[BTC] = top(102.0)
        core.quote(both(101.0, 103.0))
        assert core.journaled(e.AmendSent) == [
            e.AmendSent((e.Change(sell.client_id, D(103), D(1)), e.Change(buy.client_id, D(101), D(1))))
        ]
        moved = [command.client_id for command in core.sent() if isinstance(command, AmendOrder)]
        assert moved == [sell.client_id, buy.client_id], "the side that retreats goes first"
        assert buy.status is sell.status is OrderStatus.PENDING_AMEND


@pytest.mark.parametrize("quote", [both(98.0, 102.0, "2"), both(98.0, 101.0), both(None, 102.0)])
def test_straight_line_leaves_all_else_alone(tmp_path: Path, quote: Quote) -> None:
    with Core(tmp_path) as core:
        core.get_ready()
        core.quoted(99.0, 101.0)
        channel = core.channels[INSTANCE, BTC]
        channel.quoting.want(0, quote, core.tops[BTC])
        lsn = core.journal.last_lsn
        assert not core.oms._move_pair(channel, core.tops[BTC], core.now_ns)
        assert (core.journal.last_lsn, core.oms.outbox) == (lsn, [])


@given(limit=st.integers(1, 6), gaps=st.lists(st.tuples(st.integers(0, SECOND), st.booleans()), max_size=30))
def test_taking_two_from_a_rate_is_taking_one_twice_or_none(limit: int, gaps: list[tuple[int, bool]]) -> None:
    window, model = RateWindow(limit), list[int]()
    now_ns = START_NS
    for gap, is_pair in gaps:
        now_ns += gap
        wanted = 2 if is_pair else 1
        room = limit - sum(now_ns - taken < SECOND for taken in model)
        took = window.take_two(now_ns) if is_pair else window.take(now_ns)
        assert took == (room >= wanted)
        model += [now_ns] * wanted * took
