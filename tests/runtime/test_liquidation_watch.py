"""A node whose risk limits ask for a distance to liquidation: it asks for positions often, and acts on the answer."""

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from desk_tools import ACCOUNT, BTC, Desk, Quoter, ScriptedVenue

from host.api import AccountSnapshot, Command, OrderRefused, QueryAccount, Report, VenuePosition
from host.core.risk_limits import Action, Limits, RiskConfig, RiskReason

LIMITS = Limits(min_liquidation_distance_bps=500.0, on_breach={RiskReason.LIQUIDATION_DISTANCE: Action.PULL})


class LendingVenue(ScriptedVenue):
    """Says of what is held where it would be liquidated."""

    liquidation = Decimal(0)

    def _answer(self, command: Command) -> list[Report]:
        (answer, *others) = super()._answer(command)
        if isinstance(answer, AccountSnapshot):
            held = VenuePosition(BTC, Decimal(1), Decimal(60_000), self.liquidation)
            answer = AccountSnapshot(answer.balances, (held,), answer.ts_ns)
        return [answer, *others]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path, LendingVenue(), risk=RiskConfig(accounts={ACCOUNT: LIMITS}))
    yield made
    made.journal.close()


def say(desk: Desk, liquidation: str) -> None:
    """Have the venue name another price, and the node ask for it."""
    assert isinstance(desk.venue, LendingVenue)
    desk.venue.liquidation = Decimal(liquidation)
    desk.advance(12.0)


def test_quotes_are_pulled_and_orders_refused_while_the_position_is_too_near(desk: Desk) -> None:
    instance = desk.run("mm", Quoter(), BTC)
    desk.top()
    assert len(desk.venue.open()) == 2
    say(desk, "58000")  # 333 bps away
    assert desk.venue.open() == []
    desk.top(60_000.0, 60_000.2)
    with pytest.raises(OrderRefused, match=r"liquidation_distance: position 1 in BTC-USDT .* 333\.\d bps"):
        instance.strategy.buy_limit(BTC, Decimal(1), Decimal(59_000))
    say(desk, "50000")
    desk.top(60_000.0, 60_000.3)
    assert len(desk.venue.open()) == 2


def test_positions_are_asked_for_every_ten_seconds_where_a_limit_needs_them(desk: Desk) -> None:
    def asked() -> int:
        return sum(isinstance(command, QueryAccount) for command in desk.venue.sent)

    desk.advance(30.0)
    before = asked()  # nobody trades yet
    desk.advance(60.0)
    assert asked() == before
    desk.run("mm", Quoter(), BTC)
    desk.advance(60.0)
    assert 5 <= asked() - before <= 7
