"""The straight line for a quote whose two orders both move does what the general path does."""

from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any, Literal, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from host.api import (
    AmendOrder,
    AmendRejected,
    BookTop,
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
from host.core.channel import Channel
from host.core.quoter import Quoter
from host.core.risk_exposure import RateWindow
from host.journal import read
from tests.core.core_tools import BTC, INSTANCE, MS, SECOND, START_NS, Core, top

D = Decimal
LIMITS = {
    "node": {"max_orders_per_second": 21, "price_collar_bps": 120.0, "max_data_age_ms": 500},
    "accounts": {"acc": {"max_orders_per_second": 20}},
    "instances": {INSTANCE: {"max_order_notional": "103.5", "max_position": "9", "max_open_orders": 4}},
}


SIZES = {size: D(size) for size in ("1", "0.9", "2")}
"""Strategies quote the same size object again and again."""


def quote(bid: float, ask: float | None, size: str = "1") -> Quote:
    """Return a quote as a strategy makes it."""
    return Quote(bid, SIZES[size], ask, SIZES[size])


def accept(core: Core) -> None:
    """Have the venue accept the orders that were just placed."""
    placed = [command for command in core.sent() if isinstance(command, PlaceOrder)]
    core.say(*(OrderAccepted(command.client_id, "v", core.now_ns) for command in placed))


class GeneralQuoter(Quoter):
    """A quoter without the straight line."""

    def set_quote(self, channel: Channel, quote: Quote, top: BookTop | None, now_ns: int) -> None:
        self.set_quotes(channel, (quote,), top, now_ns)


class WatchedQuoter(Quoter):
    """A quoter that only says what it leaves to the general way."""

    left: Sequence[Quote] | None = None

    def set_quotes(self, channel: Channel, quotes: Sequence[Quote], top: BookTop | None, now_ns: int) -> None:
        self.left = quotes


class Move(NamedTuple):
    """Quotes around a mid that moves `by`; what the venue answers, does and when."""

    by: float
    below: float
    above: float
    qty: str
    levels: int
    answer: Literal["yes", "no", "half", "later"]
    fill: str
    wait_ms: int
    is_fresh: bool
    kills: bool


def random_move(random: Random, may_add_levels: bool) -> Move:
    """Return a move that is mostly an ordinary one, so that the straight line has work to do."""

    def mostly(usual: Any, *others: Any) -> Any:
        return usual if random.random() < 0.95 else random.choice(others)

    return Move(
        by=random.choice([-1.0, -0.5, 0.0, 0.5, 1.0]),
        below=mostly(1.0, 0.6, 1.5, 4.0, -0.7, float("nan")),
        above=mostly(1.0, 0.6, 1.5, 4.0, -0.7, -3.0),
        qty=mostly("1", "0.9", "2"),
        levels=mostly(1, 0, 1 + may_add_levels),
        answer=random.choice(["yes"] * 20 + ["no", "half", "later"]),
        fill=mostly("", "0.1", "1"),
        wait_ms=random.choice([1, 20, 150, 400]),
        is_fresh=random.random() < 0.9,
        kills=random.random() < 0.02,
    )


class Story:
    """One core that lives through moves; what it sent is answered move by move."""

    def __init__(self, kind: type[Quoter], folder: Path, tolerance_bps: float) -> None:
        self.core = Core(folder, risk=LIMITS, tolerance_bps=tolerance_bps)
        self.core.oms.quoter.__class__ = kind
        self.core.get_ready()
        self.sent: list[Command] = []
        """What the last move led to."""
        self.unanswered: list[Command] = []
        self.trades = 0

    def live(self, move: Move) -> None:
        """Let the market move, the strategy quote, the venue answer and time pass."""
        core = self.core
        mid = core.tops[BTC].mid + move.by
        if not 98.0 <= mid <= 103.0:
            mid = 100.0
        if move.is_fresh:
            core.tops[BTC] = structs.replace(top(mid), ts_recv=core.now_ns)
        core.risk.set_kill("node", move.kills, "test")
        quotes = [quote(mid - move.below, mid + move.above, move.qty), quote(mid - 3, mid + 3)]
        core.quote(*quotes[: move.levels])
        self.answer(move)
        orders = sorted(core.state.orders.values(), key=lambda order: order.client_id)
        if move.fill and orders:
            self.trades += 1
            core.fill(orders[self.trades % len(orders)], move.fill, f"t{self.trades}")
        core.wait(move.wait_ms * MS)

    def wants(self) -> list[tuple[int, Decimal, int, int]]:
        """Return what each slot wants, was sent, and waits for."""
        return [
            (slot.wanted_ticks, slot.wanted_qty, slot.sent_ticks, slot.backoff_until_ns)
            for slot in self.core.channels[INSTANCE, BTC].quoting.slots()
        ]

    def answer(self, move: Move) -> None:
        """Answer what was sent so far, unless that is to come later."""
        core = self.core
        sent = core.sent()
        self.sent = sent
        self.unanswered += sent
        if move.answer == "later":
            return
        commands, self.unanswered = self.unanswered, []
        if move.answer == "half":
            commands, self.unanswered = commands[::2], commands[1::2]
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


@pytest.mark.parametrize("tolerance_bps", [0.0, 60.0])
@pytest.mark.parametrize("seed", range(8))
def test_straight_line_does_what_the_general_path_does(
    tmp_path: Path, seed: int, tolerance_bps: float
) -> None:
    random = Random(seed)
    quick = Story(Quoter, tmp_path / "quick", tolerance_bps)
    general = Story(GeneralQuoter, tmp_path / "general", tolerance_bps)
    with quick.core, general.core:
        for number in range(600):
            # A second level ends the straight line for good.
            move = random_move(random, may_add_levels=number >= 500)
            quick.live(move)
            general.live(move)
            assert quick.sent == general.sent, (number, move)
            assert quick.wants() == general.wants(), (number, move)
            if number % 50 == 0:
                assert quick.core.state.digest() == general.core.state.digest()
        assert quick.core.breaches == general.core.breaches
        counts = [
            (core.oms.outbox.amends_sent, core.oms.outbox.refused) for core in (quick.core, general.core)
        ]
        assert counts[0] == counts[1]
        channels = [core.channels[INSTANCE, BTC] for core in (quick.core, general.core)]
        assert channels[0].commands == channels[1].commands
        journals = [list(read(tmp_path / name, 1)) for name in ("quick", "general")]
        assert journals[0] == journals[1]
        assert sum(isinstance(record.entry, e.AmendSent) for record in journals[0]) > 100


def test_both_orders_of_a_quote_move_with_one_entry(tmp_path: Path) -> None:
    with Core(tmp_path) as core:
        core.get_ready()
        core.quote(quote(99.0, 101.0))
        accept(core)
        buy, sell = sorted(core.state.orders.values(), key=lambda order: order.side)
        core.tops[BTC] = top(102.0)
        core.quote(quote(101.0, 103.0))
        assert core.journaled(e.AmendSent) == [
            e.AmendSent((e.Change(sell.client_id, D(103), D(1)), e.Change(buy.client_id, D(101), D(1))))
        ]
        moved = [command.client_id for command in core.sent() if isinstance(command, AmendOrder)]
        assert moved == [sell.client_id, buy.client_id], "the side that retreats goes first"
        assert buy.status is sell.status is OrderStatus.PENDING_AMEND


@pytest.mark.parametrize(
    ("wanted", "is_taken"),
    [
        (quote(98.0, 102.0), True),
        (quote(98.9, 101.1), True),
        (quote(98.0, 101.0), False),
        (quote(98.0, 102.0, "2"), False),
        (quote(98.0, None), False),
        (quote(99.9, 103.0), False),
    ],
    ids=["both move", "both stay", "one moves", "other size", "one side", "too near the ask"],
)
def test_straight_line_leaves_all_else_alone(tmp_path: Path, wanted: Quote, is_taken: bool) -> None:
    with Core(tmp_path, tolerance_bps=50.0) as core:
        core.get_ready()
        core.quote(quote(99.0, 101.0))
        accept(core)
        lsn, channel, market = core.journal.last_lsn, core.channels[INSTANCE, BTC], core.tops[BTC]
        core.oms.quoter.__class__ = WatchedQuoter
        assert isinstance(core.oms.quoter, WatchedQuoter)
        core.oms.quoter.set_quote(channel, wanted, market, core.now_ns)
        assert core.oms.quoter.left == (None if is_taken else (wanted,))
        if not is_taken:
            assert (core.journal.last_lsn, core.oms.outbox.waiting) == (lsn, [])


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
