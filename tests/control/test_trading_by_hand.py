"""Trading through the API: what each call does to the node, once, and with whose name."""

import asyncio
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from trading_tools import ACCOUNT, BTC, HAND, PERP, Site, first_answer, orders_journaled, refused, run

from host.control.audit_chain import decode_line, read_lines
from host.core import entries as e
from host.core.risk_limits import Limits, RiskConfig
from tandem.v1 import trading_pb2 as pb

NAME = "the-trader"


def order_names(site: Site) -> list[str]:
    return [f"orders/{client_id}" for client_id in site.resting()]


# -- single orders -------------------------------------------------------------------------------


@pytest.mark.parametrize("symbol", [BTC, PERP])
def test_an_order_is_placed_rests_and_bears_its_callers_name(symbol: str, tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        placed = (await site.trader.PlaceOrder(site.order(symbol=symbol, post_only=True))).order
        assert (placed.instance, placed.placed_by, placed.post_only) == (HAND, NAME, True)
        assert placed.status == pb.ORDER_STATUS_PENDING_NEW
        await site.until(lambda: bool(site.resting()))
        order = (await site.trader.GetOrder(pb.GetOrderRequest(name=placed.name))).order
        assert order.status == pb.ORDER_STATUS_OPEN
        assert order.etag != placed.etag
        (sent,) = [entry for entry in site.journaled(e.PlaceSent) if entry.by]
        assert (sent.by, sent.symbol, sent.client_id) == (NAME, symbol, order.client_id)

    run(Site(tmp_path), story)


@pytest.mark.parametrize("symbol", [BTC, PERP])
def test_an_order_that_takes_is_held_by_the_accounts_people(symbol: str, tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        await site.hold("0.01", symbol)
        answer = await site.trader.ListPositions(
            pb.ListPositionsRequest(filter=pb.TradingFilter(instance=HAND))
        )
        (position,) = answer.positions
        assert (position.symbol, Decimal(position.qty)) == (symbol, Decimal("0.01"))

    run(Site(tmp_path), story)


@pytest.mark.parametrize(
    ("time_in_force", "status"), [(2, pb.ORDER_STATUS_CANCELLED), (3, pb.ORDER_STATUS_REJECTED)]
)
def test_ioc_and_fok_never_rest(time_in_force: int, status: int, tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        placed = (await site.trader.PlaceOrder(site.order(time_in_force=time_in_force))).order
        await site.until(lambda: placed.client_id in site.engine.state.retired)
        order = (await site.trader.GetOrder(pb.GetOrderRequest(name=placed.name))).order
        assert order.status in (status, pb.ORDER_STATUS_EXPIRED)
        assert order.filled == "0"

    run(Site(tmp_path), story)


def test_a_reduce_only_order_closes_a_perpetual_and_opens_none(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        await site.hold("0.02", PERP)
        closing = site.order(symbol=PERP, side=2, qty="0.02", type=pb.ORDER_TYPE_MARKET, reduce_only=True)
        await site.trader.PlaceOrder(closing)
        await site.advance(0.5)
        assert not (await site.trader.ListPositions(pb.ListPositionsRequest())).positions
        again = (await site.trader.PlaceOrder(closing)).order
        await site.until(lambda: again.client_id in site.engine.state.retired)
        assert not (await site.trader.ListPositions(pb.ListPositionsRequest())).positions

    run(Site(tmp_path), story)


def test_a_limit_refuses_an_order_with_its_reason_and_sends_nothing(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        sent = orders_journaled(site)
        refusal = await refused(site.trader, "PlaceOrder", site.order(qty="2"))
        assert (refusal.code, refusal.reason) == ("FAILED_PRECONDITION", "ORDER_REFUSED")
        assert "order_qty" in refusal.text
        assert orders_journaled(site) == sent

    run(Site(tmp_path, RiskConfig(node=Limits(max_order_qty=Decimal(1)))), story)


def test_an_amend_moves_an_order_and_a_cancel_ends_it(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        order = await site.rest()
        price = site.price(0.91)
        answer = await site.trader.AmendOrder(pb.AmendOrderRequest(name=order.name, price=price, qty="0.02"))
        assert (answer.order.pending_price, answer.order.pending_qty) == (price, "0.02")
        await site.advance(0.1)
        moved = (await site.trader.GetOrder(pb.GetOrderRequest(name=order.name))).order
        assert (moved.price, moved.qty, moved.status) == (price, "0.02", pb.ORDER_STATUS_OPEN)
        answer = await site.trader.CancelOrder(pb.CancelOrderRequest(name=order.name, reason="enough"))
        assert answer.order.status == pb.ORDER_STATUS_PENDING_CANCEL
        await site.advance(0.1)
        gone = (await site.trader.GetOrder(pb.GetOrderRequest(name=order.name))).order
        assert gone.status == pb.ORDER_STATUS_CANCELLED
        assert NAME in [entry.by for entry in site.journaled(e.AmendSent)]
        (cancel,) = [entry for entry in site.journaled(e.CancelSent) if entry.by]
        assert (cancel.by, cancel.reason) == (NAME, f"{NAME}: enough")

    run(Site(tmp_path), story)


def test_a_done_order_a_strategys_order_and_an_unsettled_one_are_in_the_wrong_state(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        order = await site.rest()
        await site.trader.CancelOrder(pb.CancelOrderRequest(name=order.name))
        amend = pb.AmendOrderRequest(name=order.name, qty="0.02")
        assert (await refused(site.trader, "AmendOrder", amend)).reason == "ORDER_REFUSED"  # on its way out
        await site.advance(0.1)
        quote = f"orders/{site.resting('mm')[0]}"
        for method, request, words in [
            ("AmendOrder", amend, "only one that rests"),
            ("CancelOrder", pb.CancelOrderRequest(name=order.name), "nothing to cancel"),
            ("AmendOrder", pb.AmendOrderRequest(name=quote, qty="0.02"), "prices it itself"),
        ]:
            refusal = await refused(site.trader, method, request)
            assert (refusal.code, refusal.reason) == ("FAILED_PRECONDITION", "ORDER_REFUSED")
            assert words in refusal.text

    run(Site(tmp_path), story)


def test_what_was_decided_on_an_old_state_is_aborted(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        order = await site.rest()
        limits = (await site.trader.GetRiskLimits(pb.GetRiskLimitsRequest(name="node/riskLimits"))).limits
        await site.trader.AmendOrder(pb.AmendOrderRequest(name=order.name, qty="0.02", etag=order.etag))
        await site.advance(0.1)
        wanted = pb.RiskLimits(name=limits.name, max_order_qty="1")
        await site.trader.SetRiskLimits(pb.SetRiskLimitsRequest(limits=wanted, etag=limits.etag))
        before = site.engine.state.digest()
        for method, request in [
            ("AmendOrder", pb.AmendOrderRequest(name=order.name, qty="0.03", etag=order.etag)),
            ("CancelOrder", pb.CancelOrderRequest(name=order.name, etag=order.etag)),
            ("SetRiskLimits", pb.SetRiskLimitsRequest(limits=wanted, etag=limits.etag)),
        ]:
            refusal = await refused(site.trader, method, request)
            assert (refusal.code, refusal.reason) == ("ABORTED", "ETAG_MISMATCH"), method
        assert site.engine.state.digest() == before

    run(Site(tmp_path), story)


# -- scopes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scope", "cancelled"),
    [("node", 4), (f"accounts/{ACCOUNT}", 4), ("instances/mm", 2), (HAND, 2), (f"symbols/{PERP}", 1)],
)
def test_all_orders_of_a_scope_are_cancelled(scope: str, cancelled: int, tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        await site.rest()
        await site.rest(symbol=PERP)
        answer = await site.trader.CancelAllOrders(pb.CancelAllOrdersRequest(scope=scope))
        assert answer.cancelled_orders == cancelled

    run(Site(tmp_path), story)


def test_a_panic_stop_refuses_new_orders_until_it_is_released(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        await site.rest()
        answer = await site.trader.PanicStop(pb.PanicStopRequest(scope="node", reason="odd prices"))
        assert answer.cancelled_orders == 3
        assert dict(answer.stopped_scopes) == {"node": f"{NAME}: odd prices"}
        await site.advance(2.0)
        assert not site.engine.state.orders
        assert (await refused(site.trader, "PlaceOrder", site.order())).reason == "ORDER_REFUSED"
        release = pb.ReleasePanicStopRequest(scope="node", reason="over")
        assert not (await site.trader.ReleasePanicStop(release)).stopped_scopes
        refusal = await refused(site.trader, "ReleasePanicStop", release)
        assert "no kill switch is on for node; on are: none" in refusal.text
        other = pb.ReleasePanicStopRequest(scope=f"symbols/{BTC}")
        assert f"for symbols/{BTC};" in (await refused(site.trader, "ReleasePanicStop", other)).text
        assert (refusal.code, refusal.reason) == ("FAILED_PRECONDITION", "WRONG_STATE")
        await site.rest()
        await site.until(lambda: len(site.resting("mm")) == 2)

    run(Site(tmp_path), story)


def test_flattening_closes_what_is_held_on_spot_and_perpetuals_long_and_short(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        await site.hold("0.01", BTC)
        await site.hold("0.03", PERP, side=2)
        answer = await site.trader.Flatten(pb.FlattenRequest(scope="node", reason="weekend"))
        assert sorted(answer.closing) == [f"{HAND}/positions/{BTC}", f"{HAND}/positions/{PERP}"]
        assert answer.cancelled_orders == 2
        await site.until(lambda: not site.engine.state.flattening)
        assert not (await site.trader.ListPositions(pb.ListPositionsRequest())).positions
        assert [entry.by for entry in site.journaled(e.FlattenSet)] == [NAME, ""]
        assert site.journaled(e.FlattenSet)[-1].reason == "flat"

    run(Site(tmp_path), story)


# -- limits --------------------------------------------------------------------------------------


def test_limits_are_changed_field_by_field_and_hold_at_once(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        name = f"symbols/{BTC}/riskLimits"
        set_ = site.trader.SetRiskLimits
        wanted = pb.RiskLimits(
            name=name, max_order_qty="1", max_open_orders=5, on_breach={"position": pb.RISK_ACTION_PULL}
        )
        answer = (await set_(pb.SetRiskLimitsRequest(limits=wanted))).limits
        assert (answer.max_order_qty, answer.max_open_orders, dict(answer.on_breach)) == (
            "1",
            5,
            {"position": 2},
        )
        masked = pb.SetRiskLimitsRequest(
            limits=pb.RiskLimits(name=name, max_position="3"),
            update_mask=FieldMask(paths=["max_open_orders", "max_position"]),
        )
        answer = (await set_(masked)).limits
        assert (answer.max_order_qty, answer.max_position) == ("1", "3")
        assert not answer.HasField("max_open_orders")
        found = (await site.trader.GetRiskLimits(pb.GetRiskLimitsRequest(name=name))).limits
        assert found == answer
        assert "order_qty" in (await refused(site.trader, "PlaceOrder", site.order(qty="1.5"))).text
        everything = pb.SetRiskLimitsRequest(
            limits=pb.RiskLimits(name=name), update_mask=FieldMask(paths=["*"])
        )
        answer = (await set_(everything)).limits
        assert answer == pb.RiskLimits(name=name, concentration_floor="1000", etag=answer.etag)
        assert [entry.by for entry in site.journaled(e.RiskLimitsSet)] == [NAME] * 3

    run(Site(tmp_path), story)


def test_every_limit_can_be_set_and_read_back(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        wanted = pb.RiskLimits(
            name="node/riskLimits", max_order_qty="1.5", max_order_notional="100000", max_position="3",
            max_inventory_notional="500000", max_open_orders=7, max_orders_per_second=50, price_collar_bps=500.5,
            max_concentration=0.5, concentration_floor="10", self_trade=pb.SELF_TRADE_POLICY_ALLOW,
            on_any_breach=pb.RISK_ACTION_REFUSE,
        )  # fmt: skip
        wanted.max_data_age.seconds = 30
        wanted.max_daily_loss.amount, wanted.max_daily_loss.currency = "500.25", "USDT"
        answer = (await site.trader.SetRiskLimits(pb.SetRiskLimitsRequest(limits=wanted))).limits
        wanted.etag = answer.etag
        assert answer == wanted
        listed = await site.trader.ListRiskLimits(pb.ListRiskLimitsRequest())
        assert list(listed.limits) == [answer]

    run(Site(tmp_path), story)


# -- once, and only when it is meant -------------------------------------------------------------

Make = Callable[[Site], Message]
CALLS: dict[str, tuple[Make, type, Make]] = {
    "PlaceOrder": (lambda site: site.order(), e.PlaceSent, lambda site: site.order(qty="0.02")),
    "AmendOrder": (
        lambda site: pb.AmendOrderRequest(name=order_names(site)[0], qty="0.02"),
        e.AmendSent,
        lambda site: pb.AmendOrderRequest(name=order_names(site)[0], qty="0.03"),
    ),
    "CancelOrder": (
        lambda site: pb.CancelOrderRequest(name=order_names(site)[0]),
        e.CancelSent,
        lambda site: pb.CancelOrderRequest(name=order_names(site)[0], reason="other"),
    ),
    "CancelAllOrders": (
        lambda site: pb.CancelAllOrdersRequest(scope=HAND),
        e.CancelSent,
        lambda site: pb.CancelAllOrdersRequest(scope="node"),
    ),
    "Flatten": (
        lambda site: pb.FlattenRequest(scope=HAND),
        e.FlattenSet,
        lambda site: pb.FlattenRequest(scope="node"),
    ),
    "PanicStop": (
        lambda site: pb.PanicStopRequest(scope=HAND),
        e.KillSwitchSet,
        lambda site: pb.PanicStopRequest(scope="node"),
    ),
    "ReleasePanicStop": (
        lambda site: pb.ReleasePanicStopRequest(scope=f"symbols/{PERP}"),
        e.KillSwitchSet,
        lambda site: pb.ReleasePanicStopRequest(scope="node"),
    ),
    "SetRiskLimits": (
        lambda site: pb.SetRiskLimitsRequest(limits=pb.RiskLimits(name="node/riskLimits", max_order_qty="1")),
        e.RiskLimitsSet,
        lambda site: pb.SetRiskLimitsRequest(limits=pb.RiskLimits(name="node/riskLimits", max_position="1")),
    ),
}


def request_of(site: Site, make: Make, **fields: Any) -> Message:
    request = make(site)
    for name, value in fields.items():
        setattr(request, name, value)
    return request


async def prepare(site: Site) -> None:
    await site.rest()
    site.engine.stops.panic_stop(f"symbol:{PERP}", "test")


@pytest.mark.parametrize("method", list(CALLS))
def test_a_request_id_makes_a_call_happen_once_and_stands_for_no_other(method: str, tmp_path: Path) -> None:
    make, effect, other = CALLS[method]

    async def story(site: Site) -> None:
        await prepare(site)
        request, different = (
            request_of(site, make, request_id="r-1"),
            request_of(site, other, request_id="r-1"),
        )
        before = len(site.journaled(effect))
        first = await first_answer(site.trader, method, request)
        once = len(site.journaled(effect))
        assert once > before
        await site.advance(0.2)
        again, at_once = await asyncio.gather(*(first_answer(site.trader, method, request) for _ in range(2)))
        assert first == again == at_once
        assert len([x for x in site.journaled(effect) if getattr(x, "by", "")]) <= once
        assert len(site.journaled(e.RequestServed)) == 1
        refusal = await refused(site.trader, method, different)
        assert (refusal.code, refusal.reason) == ("INVALID_ARGUMENT", "REQUEST_ID_REUSED")

    run(Site(tmp_path), story)


@pytest.mark.parametrize("method", list(CALLS))
def test_validate_only_answers_and_changes_nothing(method: str, tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        await prepare(site)
        before = site.engine.state.digest()
        answer = await first_answer(
            site.trader, method, request_of(site, CALLS[method][0], validate_only=True)
        )
        assert answer.DESCRIPTOR.name == f"{method}Response"
        assert site.engine.state.digest() == before

    run(Site(tmp_path, RiskConfig(node=Limits(max_orders_per_second=100))), story)


@pytest.mark.parametrize("method", list(CALLS))
def test_each_change_and_each_refusal_is_in_the_audit_log(method: str, tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        await prepare(site)
        request = request_of(site, CALLS[method][0])
        await first_answer(site.trader, method, request)
        await refused(site.nobody, method, request)

    run(Site(tmp_path), story)
    lines = [decode_line(line) for _, _, line in read_lines(tmp_path / "audit")]
    told = [(line.who, line.outcome) for line in lines if line.method == f"tandem.v1.TradingService/{method}"]
    assert told[-2:] == [(NAME, "OK"), ("", "UNAUTHENTICATED")]
