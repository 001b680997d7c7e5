"""What TradingService refuses, how it says so, and that a refused call has changed nothing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from trading_tools import ACCOUNT, PERP, SERVICE, Site, first_answer, is_stream, refused, run

from host.control.principal import Role
from host.control.rules import RULES
from tandem.v1 import common_pb2
from tandem.v1 import trading_pb2 as pb

METHODS = [method.name for method in SERVICE.methods]
MUTATIONS = [name for name in METHODS if RULES[f"tandem.v1.TradingService/{name}"].mutates]
REQUESTS: dict[str, type[Message]] = {
    method.name: getattr(pb, method.input_type.name) for method in SERVICE.methods
}
LIMITS = "node/riskLimits"


def good(site: Site, method: str) -> Message:
    """Return a request that would be carried out; the site has an order and a stopped symbol."""
    scope: dict[str, Any] = {"scope": "node", "reason": "test"}
    order = f"orders/{site.resting()[0]}" if site.resting() else "orders/none"
    book = f"accounts/{ACCOUNT}/books/{PERP}"
    requests: dict[str, Message] = {
        "GetOrder": pb.GetOrderRequest(name=order),
        "GetBook": pb.GetBookRequest(name=book),
        "GetRiskLimits": pb.GetRiskLimitsRequest(name=LIMITS),
        "PlaceOrder": site.order(),
        "AmendOrder": pb.AmendOrderRequest(name=order, qty="0.02"),
        "CancelOrder": pb.CancelOrderRequest(name=order),
        "CancelAllOrders": pb.CancelAllOrdersRequest(**scope),
        "Flatten": pb.FlattenRequest(**scope),
        "PanicStop": pb.PanicStopRequest(**scope),
        "ReleasePanicStop": pb.ReleasePanicStopRequest(scope=f"symbols/{PERP}"),
        "SetRiskLimits": pb.SetRiskLimitsRequest(limits=pb.RiskLimits(name=LIMITS, max_order_qty="1")),
    }
    return requests.get(method) or REQUESTS[method]()


async def prepare(site: Site) -> None:
    """Have an order by hand, and a scope that is stopped."""
    await site.rest()
    site.engine.stops.panic_stop(f"symbol:{PERP}", "test")
    await site.advance(0.1)


# -- what no call may do -------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_a_call_by_nobody_is_refused_and_changes_nothing(method: str, tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        await prepare(site)
        before = site.engine.state.digest()
        refusal = await refused(site.nobody, method, good(site, method))
        assert (refusal.code, refusal.reason) == ("UNAUTHENTICATED", "NOT_AUTHENTICATED")
        assert site.engine.state.digest() == before

    run(Site(tmp_path), story)


@pytest.mark.parametrize("method", MUTATIONS)
def test_a_role_that_is_too_low_is_refused_and_the_next_one_is_not(method: str, tmp_path: Path) -> None:
    needed = RULES[f"tandem.v1.TradingService/{method}"].role

    async def story(site: Site) -> None:
        await prepare(site)
        before = site.engine.state.digest()
        for role in [role for role in Role if role < needed]:
            refusal = await refused(site.calls[role], method, good(site, method))
            assert (refusal.code, refusal.reason) == ("PERMISSION_DENIED", "ROLE_TOO_LOW")
        assert site.engine.state.digest() == before
        await first_answer(site.calls[needed], method, good(site, method))
        assert site.engine.state.digest() != before

    run(Site(tmp_path), story)


@pytest.mark.parametrize("method", [method for method in METHODS if method not in MUTATIONS])
def test_whoever_may_look_is_answered_and_looking_changes_nothing(method: str, tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        await prepare(site)
        if method == "WatchFills":
            await site.hold()
        before = site.engine.state.digest()
        request = pb.WatchFillsRequest(from_lsn=1) if method == "WatchFills" else good(site, method)
        assert await first_answer(site.calls[Role.VIEWER], method, request) is not None
        assert site.engine.state.digest() == before

    run(Site(tmp_path), story)


@pytest.mark.parametrize("method", METHODS)
def test_a_deadline_that_is_over_stops_a_call_before_it_changed_anything(method: str, tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        await prepare(site)
        before = site.engine.state.digest()
        refusal = await refused(site.trader, method, good(site, method), timeout=-1.0)
        assert refusal.code == "DEADLINE_EXCEEDED"
        assert site.engine.state.digest() == before

    run(Site(tmp_path), story)


@pytest.mark.parametrize("method", MUTATIONS)
def test_a_halted_node_carries_nothing_out(method: str, tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        await prepare(site)
        request = good(site, method)
        site.engine.halt("the test says so")
        refusal = await refused(site.trader, method, request)
        assert (refusal.code, refusal.reason) == ("UNAVAILABLE", "HALTED")

    run(Site(tmp_path), story)


# -- what is wrong with a request ----------------------------------------------------------------

SCOPED = ("CancelAllOrders", "Flatten", "PanicStop", "ReleasePanicStop")
FILTERED = ("ListOrders", "WatchOrders", "ListFills", "WatchFills", "ListPositions", "WatchPositions")
PAGED = ("ListOrders", "ListFills", "ListPositions", "ListBalances", "ListBooks", "ListRiskLimits")


def with_fields(method: str, **fields: Any) -> Callable[[Site], Message]:
    def make(site: Site) -> Message:
        request = good(site, method)
        request.MergeFrom(REQUESTS[method](**fields))
        return request

    return make


def limits(mask: tuple[str, ...] = (), name: str = LIMITS, **fields: Any) -> Callable[[Site], Message]:
    def make(_site: Site) -> Message:
        wanted = pb.RiskLimits(name=name, **fields)
        return pb.SetRiskLimitsRequest(limits=wanted, update_mask=FieldMask(paths=mask))

    return make


WRONG_ORDERS: list[tuple[str, dict[str, Any]]] = [
    ("account", {"account": "paper"}),
    ("side", {"side": 9}),
    ("type", {"type": 9}),
    ("time_in_force", {"time_in_force": 9}),
    ("price", {"price": "1e5"}),
    ("price", {"price": "NaN"}),
    ("price", {"price": "0.001"}),
    ("price", {"price": "-5"}),
    ("price", {"price": "9" * 41}),
    ("price", {"type": pb.ORDER_TYPE_MARKET}),
    ("qty", {"qty": "many"}),
    ("qty", {"qty": "0"}),
    ("qty", {"qty": "0.000000001"}),
    ("qty", {"qty": "٣"}),
    ("time_in_force", {"post_only": True, "time_in_force": pb.TIME_IN_FORCE_IOC}),
    ("reduce_only", {"reduce_only": True}),
]
POSITIVE: list[tuple[str, dict[str, Any]]] = [
    (name, {name: value})
    for name in ("max_order_qty", "max_order_notional", "max_position", "max_inventory_notional")
    for value in ("0", "-1", "x", "Infinity")
]

INVALID: list[tuple[str, Callable[[Site], Message], str]] = [
    *((m, with_fields(m, scope=scope), "scope") for m in SCOPED for scope in ("nodes", "accounts/", "instance:mm")),
    *((m, with_fields(m, reason="x" * 501), "reason") for m in (*SCOPED, "CancelOrder", "SetRiskLimits")),
    *((m, with_fields(m, request_id="a b"), "request_id") for m in MUTATIONS),
    *((m, with_fields(m, filter=pb.TradingFilter(account="paper")), "filter.account") for m in FILTERED),
    *((m, with_fields(m, filter=pb.TradingFilter(instance="accounts/x")), "filter.instance") for m in FILTERED),
    *((m, with_fields(m, filter=pb.TradingFilter(side=7)), "filter.side") for m in FILTERED),  # type: ignore[arg-type]
    *((m, with_fields(m, page_size=size), "page_size") for m in PAGED for size in (-1, 1001)),
    *((m, with_fields(m, page_token=token), "page_token") for m in PAGED for token in ("nonsense", "w6R0ZXN0", "é")),
    ("ListOrders", with_fields("ListOrders", statuses=[0]), "statuses"),
    ("ListOrders", with_fields("ListOrders", statuses=[2, 99]), "statuses"),
    ("GetOrder", with_fields("GetOrder", name="order/1"), "name"),
    ("GetBook", with_fields("GetBook", name="accounts/paper"), "name"),
    ("GetBook", with_fields("GetBook", depth=101), "depth"),
    ("GetBook", with_fields("GetBook", depth=-1), "depth"),
    ("ListBooks", with_fields("ListBooks", depth=101), "depth"),
    ("ListBooks", with_fields("ListBooks", account="paper"), "account"),
    ("WatchBooks", with_fields("WatchBooks", depth=101), "depth"),
    ("WatchBooks", with_fields("WatchBooks", interval=Duration(nanos=49_000_000)), "interval"),
    ("WatchBooks", with_fields("WatchBooks", interval=Duration(seconds=-1)), "interval"),
    ("WatchBooks", with_fields("WatchBooks", names=["books/x"]), "names"),
    ("ListBalances", with_fields("ListBalances", account="paper"), "account"),
    ("WatchBalances", with_fields("WatchBalances", account="paper"), "account"),
    ("WatchFills", with_fields("WatchFills", from_lsn=-1), "from_lsn"),
    ("WatchFills", with_fields("WatchFills", from_lsn=1 << 60), "from_lsn"),
    ("GetRiskLimits", with_fields("GetRiskLimits", name="node"), "name"),
    ("GetRiskLimits", with_fields("GetRiskLimits", name="limits/riskLimits"), "name"),
    *(("PlaceOrder", with_fields("PlaceOrder", **fields), field) for field, fields in WRONG_ORDERS),
    ("PlaceOrder", lambda site: site.order(symbol=""), "symbol"),
    ("PlaceOrder", lambda site: site.order(qty=""), "qty"),
    ("PlaceOrder", lambda site: site.order(side=0), "side"),
    ("PlaceOrder", lambda site: site.order(price=""), "price"),
    ("PlaceOrder", lambda site: site.order(type=pb.ORDER_TYPE_MARKET, post_only=True), "post_only"),
    ("AmendOrder", with_fields("AmendOrder", name="orders/"), "name"),
    ("AmendOrder", with_fields("AmendOrder", qty="x"), "qty"),
    ("AmendOrder", with_fields("AmendOrder", qty="0"), "qty"),
    ("AmendOrder", with_fields("AmendOrder", price="x"), "price"),
    ("AmendOrder", with_fields("AmendOrder", price="0.001"), "price"),
    ("AmendOrder", lambda site: pb.AmendOrderRequest(name=f"orders/{site.resting()[0]}"), "price"),
    ("CancelOrder", with_fields("CancelOrder", name="x"), "name"),
    ("SetRiskLimits", limits(name="node"), "limits.name"),
    ("SetRiskLimits", limits(name="nodes/riskLimits"), "limits.name"),
    ("SetRiskLimits", limits(("max_leverage",)), "update_mask"),
    ("SetRiskLimits", limits(("*", "max_position")), "update_mask"),
    ("SetRiskLimits", limits(("etag",)), "update_mask"),
    *(("SetRiskLimits", limits(**fields), f"limits.{name}") for name, fields in POSITIVE),
    ("SetRiskLimits", limits(concentration_floor="-1"), "limits.concentration_floor"),
    ("SetRiskLimits", limits(max_open_orders=0), "limits.max_open_orders"),
    ("SetRiskLimits", limits(max_orders_per_second=-5), "limits.max_orders_per_second"),
    ("SetRiskLimits", limits(max_orders_per_second=2_000_000_000), "limits.max_orders_per_second"),
    ("SetRiskLimits", limits(price_collar_bps=float("nan")), "limits.price_collar_bps"),
    ("SetRiskLimits", limits(price_collar_bps=float("inf")), "limits.price_collar_bps"),
    ("SetRiskLimits", limits(min_liquidation_distance_bps=float("nan")), "limits.min_liquidation_distance_bps"),
    ("SetRiskLimits", limits(min_liquidation_distance_bps=-1.0), "limits.min_liquidation_distance_bps"),
    ("SetRiskLimits", limits(max_concentration=1.5), "limits.max_concentration"),
    ("SetRiskLimits", limits(max_data_age=Duration(nanos=1)), "limits.max_data_age"),
    ("SetRiskLimits", limits(max_data_age=Duration(seconds=-1)), "limits.max_data_age"),
    ("SetRiskLimits", limits(max_daily_loss=common_pb2.Money(amount="5")), "limits.max_daily_loss"),
    ("SetRiskLimits", limits(max_daily_loss=common_pb2.Money(amount="-5", currency="USDT")), "limits.max_daily_loss"),
    ("SetRiskLimits", limits(self_trade=9), "limits.self_trade"),
    ("SetRiskLimits", limits(on_any_breach=9), "limits.on_any_breach"),
    ("SetRiskLimits", limits(on_breach={"weather": 1}), "limits.on_breach"),
    ("SetRiskLimits", limits(on_breach={"position": 9}), "limits.on_breach.position"),
    ("SetRiskLimits", limits(on_breach={"position": 1}, on_any_breach=2), "limits.on_breach"),
]  # fmt: skip


def test_every_invalid_field_is_named_and_the_call_changes_nothing(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        await prepare(site)
        before = site.engine.state.digest()
        for method, make, field in INVALID:
            request = make(site)
            refusal = await refused(site.trader, method, request)
            said = f"{method} {request}: {refusal.code} {refusal.reason} {refusal.fields} {refusal.text}"
            assert refusal.code in ("INVALID_ARGUMENT", "OUT_OF_RANGE"), said
            assert refusal.code == "OUT_OF_RANGE" or refusal.fields == [field], said
            assert field in refusal.text, said
            assert site.engine.state.digest() == before, said

    run(Site(tmp_path), story)


def test_every_field_that_can_be_wrong_is_in_the_table() -> None:
    tried = {method: set() for method in METHODS}  # type: dict[str, set[str]]
    for method, _, field in INVALID:
        tried[method].add(field.removeprefix("limits.").partition(".")[0])
    fine = {"validate_only", "etag", "include_done", "include_flat", "since", "until", "level"}
    for method in METHODS:
        fields = {field.name for field in REQUESTS[method].DESCRIPTOR.fields} - fine
        if method == "SetRiskLimits":
            fields = (fields | {f.name for f in pb.RiskLimits.DESCRIPTOR.fields}) - {"limits", "etag"}
        assert fields <= tried[method], method


MISSING: list[tuple[str, Callable[[Site], Message], str]] = [
    ("GetOrder", with_fields("GetOrder", name="orders/none"), "ORDER_NOT_FOUND"),
    ("AmendOrder", with_fields("AmendOrder", name="orders/none"), "ORDER_NOT_FOUND"),
    ("CancelOrder", with_fields("CancelOrder", name="orders/none"), "ORDER_NOT_FOUND"),
    ("PlaceOrder", with_fields("PlaceOrder", account="accounts/none"), "ACCOUNT_NOT_FOUND"),
    ("PlaceOrder", with_fields("PlaceOrder", symbol="ETH-USDT"), "SYMBOL_NOT_FOUND"),
    ("GetBook", with_fields("GetBook", name="accounts/paper/books/ETH-USDT"), "BOOK_NOT_FOUND"),
    ("GetBook", with_fields("GetBook", name="accounts/none/books/BTC-USDT"), "BOOK_NOT_FOUND"),
    ("WatchBooks", with_fields("WatchBooks", names=["accounts/none/books/BTC-USDT"]), "BOOK_NOT_FOUND"),
    ("ListBooks", with_fields("ListBooks", account="accounts/none"), "ACCOUNT_NOT_FOUND"),
    ("ListBalances", with_fields("ListBalances", account="accounts/none"), "ACCOUNT_NOT_FOUND"),
    ("WatchBalances", with_fields("WatchBalances", account="accounts/none"), "ACCOUNT_NOT_FOUND"),
    ("GetRiskLimits", with_fields("GetRiskLimits", name="instances/none/riskLimits"), "INSTANCE_NOT_FOUND"),
    ("SetRiskLimits", limits(name="symbols/NONE-USDT/riskLimits", max_order_qty="1"), "SYMBOL_NOT_FOUND"),
    *((m, with_fields(m, scope="instances/none"), "INSTANCE_NOT_FOUND") for m in SCOPED),
    *((m, with_fields(m, scope="accounts/none"), "ACCOUNT_NOT_FOUND") for m in SCOPED),
    *((m, with_fields(m, scope="symbols/NONE-USDT"), "SYMBOL_NOT_FOUND") for m in SCOPED),
]


def test_what_is_not_there_is_told_by_its_kind_and_the_call_changes_nothing(tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        await prepare(site)
        before = site.engine.state.digest()
        for method, make, reason in MISSING:
            refusal = await refused(site.trader, method, make(site))
            assert (refusal.code, refusal.reason) == ("NOT_FOUND", reason), method
            assert site.engine.state.digest() == before, method

    run(Site(tmp_path), story)


@pytest.mark.parametrize("method", [method for method in METHODS if is_stream(method)])
def test_a_watch_refuses_before_its_first_answer(method: str, tmp_path: Path) -> None:
    async def story(site: Site) -> None:
        wrong = next(make for name, make, _ in INVALID if name == method)
        assert (await refused(site.trader, method, wrong(site))).code == "INVALID_ARGUMENT"

    run(Site(tmp_path), story)
