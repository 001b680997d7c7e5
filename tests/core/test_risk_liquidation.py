"""The limit on the distance to liquidation: what it refuses, and that whoever reduces is let through."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from host.api import (
    BookTop,
    Instrument,
    InstrumentKind,
    Order,
    OrderStatus,
    OrderType,
    Side,
    TimeInForce,
    VenuePosition,
)
from host.core.accounting import Holding, apply_fill
from host.core.risk import RiskEngine
from host.core.risk_limits import Action, Limits, Refusal, RiskConfig, RiskReason
from host.core.risk_liquidation import liquidation_distance_bps

BUY, SELL = Side.BUY, Side.SELL
PERP = Instrument(
    symbol="BTC-USDT-PERP",
    kind=InstrumentKind.LINEAR,
    base="BTC",
    quote="USDT",
    tick_size=Decimal("0.1"),
    lot_size=Decimal("0.001"),
)
MID = 100.0


class Desk:
    """One account with a position at its venue, which instances trade."""

    def __init__(self, limits: dict[str, Any], liquidation: str = "95", qty: str = "3") -> None:
        self.holdings: dict[str, Holding] = {}
        self.engine = RiskEngine(
            RiskConfig(instances={"mm": Limits(**limits)}), lambda name, _: self.holding(name)
        )
        self.top: BookTop | None = BookTop(PERP.symbol, MID, 1.0, MID, 1.0)
        self.held: VenuePosition | None = VenuePosition(
            PERP.symbol, Decimal(qty), Decimal(100), Decimal(liquidation)
        )
        self.count = 0

    def holding(self, instance: str) -> Holding:
        return self.holdings.setdefault(instance, Holding())

    def owns(self, side: Side, qty: str, instance: str = "mm") -> None:
        apply_fill(self.holding(instance), PERP, side, Decimal(100), Decimal(qty))
        self.engine.lane(instance, "main", PERP).position_changed()

    def rests(self, side: Side, qty: str, instance: str = "mm") -> Order:
        self.count += 1
        order = Order(
            f"c{self.count}", instance, "main", PERP.symbol, side, OrderType.LIMIT, TimeInForce.GTC,
            Decimal(100), Decimal(qty), OrderStatus.OPEN,
        )  # fmt: skip
        self.engine.lane(instance, "main", PERP)
        self.engine.order_changed(order)
        return order

    def monitor(self) -> list[Refusal]:
        self.engine.lane("mm", "main", PERP)
        return self.engine.monitor(0, lambda *_: self.top, lambda *_: self.held)

    def check(self, side: Side, qty: str, replaces: Order | None = None, **more: Any) -> Refusal | None:
        lane = self.engine.lane("mm", "main", PERP)
        return lane.check(side, Decimal(100), Decimal(qty), self.top, 0, replaces, **more)


def test_orders_that_add_are_refused_with_the_numbers_and_those_that_reduce_pass() -> None:
    desk = Desk({"min_liquidation_distance_bps": 600.0})
    desk.owns(BUY, "3")
    [breach] = desk.monitor()
    assert (breach.reason, breach.scope, breach.action) == (
        RiskReason.LIQUIDATION_DISTANCE,
        "instance:mm",
        Action.REFUSE,
    )
    assert breach.detail == (
        "position 3 in BTC-USDT-PERP on account main is 500.0 bps from its liquidation at 95 (mid 100), "
        "min_liquidation_distance_bps is 600 for instance mm; reduce the position or add margin"
    )
    assert desk.check(BUY, "0.001") == breach
    assert desk.check(SELL, "3") is None
    assert desk.check(SELL, "3.001") == breach
    assert desk.check(SELL, "5", is_closing=True) is not None  # which may only close
    assert desk.check(SELL, "3", is_closing=True) is None


def test_a_short_is_judged_upwards_and_may_be_bought_back() -> None:
    desk = Desk({"min_liquidation_distance_bps": 300.0}, liquidation="102", qty="-2")
    desk.owns(SELL, "2")
    [breach] = desk.monitor()
    assert "is 200.0 bps from its liquidation at 102" in breach.detail
    assert desk.check(BUY, "2") is None
    assert desk.check(SELL, "0.001") == breach


def test_what_reduces_is_judged_by_the_accounts_position_and_all_its_orders() -> None:
    desk = Desk({"min_liquidation_distance_bps": 600.0})
    desk.owns(BUY, "5")
    desk.owns(SELL, "2", "other")
    desk.rests(SELL, "1", "other")
    [breach] = desk.monitor()
    assert desk.check(SELL, "2") is None  # 5 - 2 held, 1 being sold: 2 are left to reduce
    assert desk.check(SELL, "2.001") == breach
    desk.rests(SELL, "2")
    assert desk.check(SELL, "0.001") == breach


def test_an_amend_that_leaves_no_more_open_passes() -> None:
    desk = Desk({"min_liquidation_distance_bps": 600.0})
    desk.owns(BUY, "3")
    order = desk.rests(BUY, "1")
    [breach] = desk.monitor()
    assert desk.check(BUY, "1", order) is None
    assert desk.check(BUY, "1.001", order) == breach


def test_the_widest_limit_of_the_scopes_holds_and_it_ends_with_the_danger() -> None:
    desk = Desk({"min_liquidation_distance_bps": 450.0})
    assert desk.monitor() == []
    config = RiskConfig(
        node=Limits(
            min_liquidation_distance_bps=600.0, on_breach={RiskReason.LIQUIDATION_DISTANCE: Action.PULL}
        ),
        instances={"mm": Limits(min_liquidation_distance_bps=450.0)},
    )
    desk.engine.set_config(config, [])
    [breach] = desk.monitor()
    assert (breach.scope, breach.action) == ("node", Action.PULL)
    assert desk.monitor() == []  # told when it begins
    desk.held = VenuePosition(PERP.symbol, Decimal(3), Decimal(100), Decimal(90))
    assert desk.monitor() == []
    assert desk.check(BUY, "1") is None


@pytest.mark.parametrize("held", [None, VenuePosition(PERP.symbol, Decimal(3), Decimal(100))])
def test_a_venue_that_names_no_price_limits_nothing(held: VenuePosition | None) -> None:
    desk = Desk({"min_liquidation_distance_bps": 600.0})
    desk.held = held
    assert desk.monitor() == []
    assert desk.check(BUY, "1") is None


def test_without_a_price_of_now_what_was_found_holds_on() -> None:
    desk = Desk({"min_liquidation_distance_bps": 600.0})
    [breach] = desk.monitor()
    desk.top = None
    assert desk.monitor() == []
    assert desk.check(BUY, "1") == breach


def test_only_accounts_that_it_is_needed_for_are_asked_for_positions_often() -> None:
    desk = Desk({"min_liquidation_distance_bps": 600.0})
    desk.engine.lane("other", "second", PERP)
    assert not desk.engine.needs_positions("main")
    desk.monitor()
    assert desk.engine.needs_positions("main")
    assert not desk.engine.needs_positions("second")


@given(
    qty=st.decimals(-5, 5, places=3),
    liquidation=st.decimals(1, 200, places=1),
    mid=st.floats(1.0, 200.0),
)
def test_distance_is_how_far_the_mid_may_move_against_the_position(
    qty: Decimal, liquidation: Decimal, mid: float
) -> None:
    distance = liquidation_distance_bps(VenuePosition("X", qty, Decimal(1), liquidation), mid)
    if not qty:
        assert distance is None
        return
    assert distance is not None
    moved = mid * (1 - distance * 1e-4) if qty > 0 else mid * (1 + distance * 1e-4)
    assert moved == pytest.approx(float(liquidation))
