"""Limits set by hand: what holds, until when, and who said so."""

from decimal import Decimal
from pathlib import Path

import pytest
from desk_tools import ACCOUNT, BTC, Desk, Quoter
from hypothesis import given
from hypothesis import strategies as st

from host.api import OrderRefused, OrderRequest, Side
from host.core import entries as e
from host.core.risk_limits import Action, Limits, RiskConfig
from host.runtime.scope import NotKnown

D = Decimal
TIGHT, LOOSE = Limits(max_order_qty=D(1)), Limits(max_order_qty=D(5))


def buy(desk: Desk, qty: str) -> None:
    request = OrderRequest(symbol=BTC, side=Side.BUY, qty=D(qty), price=D(50_000))
    desk.engine.by_hand.place(ACCOUNT, request, "ann")
    desk.settle()


def can_buy(desk: Desk, qty: str) -> bool:
    try:
        buy(desk, qty)
    except OrderRefused as refused:
        assert refused.reason == "order_qty", refused
        return False
    return True


def desk_with(folder: Path, **limits: Limits) -> Desk:
    desk = Desk(folder, risk=RiskConfig(node=limits.get("node", Limits())))
    desk.top()
    return desk


@pytest.mark.parametrize("scope", ["node", f"account:{ACCOUNT}", f"symbol:{BTC}"])
def test_limits_hold_from_the_next_order_on_and_are_journaled_with_their_author(
    tmp_path: Path, scope: str
) -> None:
    desk = desk_with(tmp_path)
    assert can_buy(desk, "2")
    desk.engine.risk_settings.set(scope, TIGHT, "ann")
    assert not can_buy(desk, "2")
    assert can_buy(desk, "1")
    assert desk.engine.risk_settings.limits(scope) == TIGHT
    assert desk.engine.risk_settings.in_force() == {scope: TIGHT}
    (said,) = [entry for entry in desk.entries if isinstance(entry, e.RiskLimitsSet)]
    assert (said.scope, said.by) == (scope, "ann")


def test_what_was_open_and_held_before_goes_on_counting(tmp_path: Path) -> None:
    desk = desk_with(tmp_path)
    assert can_buy(desk, "2")
    desk.engine.risk_settings.set("node", Limits(max_position=D(2)), "ann")
    with pytest.raises(OrderRefused, match="position"):
        buy(desk, "0.001")


def test_a_breach_that_new_limits_make_is_acted_on_at_once(tmp_path: Path) -> None:
    desk = desk_with(tmp_path)
    desk.run("mm", Quoter())
    desk.top()
    desk.advance(3.0)
    stale = Limits(max_data_age_ms=1, on_breach=Action.KILL)
    desk.engine.risk_settings.set("instance:mm", stale, "ann")
    desk.settle()
    assert not desk.venue.open()
    assert "instance:mm" in desk.engine.state.kill_switches


def test_they_hold_over_a_restart_which_says_so(tmp_path: Path) -> None:
    desk = desk_with(tmp_path, node=LOOSE)
    desk.engine.risk_settings.set("node", TIGHT, "ann")
    again = desk.restart()
    again.top()
    assert not can_buy(again, "2")
    (said,) = again.alerts("risk_overridden")
    assert "limits of node are those that ann set" in said


def test_a_configuration_edited_while_the_node_was_away_holds_again(tmp_path: Path) -> None:
    desk = desk_with(tmp_path, node=LOOSE)
    desk.engine.risk_settings.set("node", TIGHT, "ann")
    desk.risk = RiskConfig(node=Limits(max_order_qty=D(3)))
    again = desk.restart()
    again.top()
    assert can_buy(again, "3")
    assert not can_buy(again, "4")
    assert len(again.alerts("risk_override_ended")) == 1
    assert not again.engine.state.risk_overrides


def test_an_edit_of_the_scope_replaces_them_and_one_of_another_scope_does_not(tmp_path: Path) -> None:
    desk = desk_with(tmp_path, node=LOOSE)
    settings = desk.engine.risk_settings
    settings.set("node", TIGHT, "ann")
    settings.configure(RiskConfig(node=LOOSE, symbols={BTC: LOOSE}), desk.clock.now_ns())
    assert settings.limits("node") == TIGHT
    assert settings.limits(f"symbol:{BTC}") == LOOSE
    settings.configure(RiskConfig(node=Limits(max_order_qty=D(3))), desk.clock.now_ns())
    assert settings.limits("node").max_order_qty == 3
    assert settings.limits(f"symbol:{BTC}") == Limits()


def test_setting_what_is_configured_takes_them_back(tmp_path: Path) -> None:
    desk = desk_with(tmp_path, node=LOOSE)
    desk.engine.risk_settings.set("node", TIGHT, "ann")
    desk.engine.risk_settings.set("node", LOOSE, "bob")
    assert not desk.engine.state.risk_overrides
    again = desk.restart()
    assert not again.alerts("risk_overridden")


@pytest.mark.parametrize("scope", ["account:other", "instance:other", "symbol:OTHER", "nodes", "node:x", ""])
def test_limits_of_what_there_is_not_are_refused_because_they_would_protect_nothing(
    tmp_path: Path, scope: str
) -> None:
    desk = desk_with(tmp_path)
    with pytest.raises(NotKnown):
        desk.engine.risk_settings.set(scope, TIGHT, "ann")
    assert not [entry for entry in desk.entries if isinstance(entry, e.RiskLimitsSet)]


limits = st.builds(
    Limits,
    max_order_qty=st.none() | st.decimals("0.001", "10", places=3),
    max_position=st.none() | st.decimals("0.001", "10", places=3),
    max_open_orders=st.none() | st.integers(1, 50),
    price_collar_bps=st.none() | st.floats(0.5, 500),
    max_daily_loss=st.none() | st.just("500 USDT"),
    on_breach=st.none() | st.sampled_from(Action),
)


@given(st.lists(st.tuples(st.sampled_from(["node", f"symbol:{BTC}"]), limits), max_size=4), limits)
def test_a_restart_always_finds_the_limits_that_held(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, Limits]], configured: Limits
) -> None:
    desk = desk_with(tmp_path_factory.mktemp("desk"), node=configured)
    for scope, wanted in steps:
        desk.engine.risk_settings.set(scope, wanted, "ann")
    again = desk.restart()
    assert again.engine.risk.config.node == desk.engine.risk.config.node
    assert again.engine.risk_settings.limits(f"symbol:{BTC}") == desk.engine.risk_settings.limits(
        f"symbol:{BTC}"
    )
    again.journal.close()
