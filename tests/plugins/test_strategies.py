"""The bundled strategies, driven over scripted markets."""

from decimal import Decimal
from math import sin
from typing import Any

import msgspec
import pytest
from fakes import SYMBOL, FakeContext, load_plugin

from host.api import Order, OrderStatus, Quote, Side, Strategy, TimeInForce, params_schema

two_sided = load_plugin("strategies/two_sided.py")
momentum = load_plugin("strategies/momentum.py")
mean_reversion = load_plugin("strategies/mean_reversion.py")

STRATEGIES = [two_sided.TwoSided, momentum.Momentum, mean_reversion.MeanReversion]


def start(cls: Any, ctx: FakeContext, **params: Any) -> Any:
    strategy = cls(cls.params_type(**params))
    strategy.ctx = ctx
    strategy.on_start()
    return strategy


def only_quote(ctx: FakeContext) -> Quote:
    (quote,) = ctx.quotes[-1]
    return quote


def restarted(strategy: Any, ctx: FakeContext) -> Any:
    """Return a new instance that was given the old one's state as the host saves it."""
    again = start(type(strategy), ctx)
    again.params = strategy.params
    again.state = msgspec.msgpack.decode(
        msgspec.msgpack.encode(strategy.state), type=type(strategy).state_type
    )
    return again


@pytest.mark.parametrize("cls", STRATEGIES)
def test_every_parameter_has_a_default_and_is_documented(cls: type[Strategy[Any]]) -> None:
    cls.params_type()
    schema = params_schema(cls.params_type)["$defs"][cls.params_type.__name__]
    assert schema["properties"]
    for name, field in schema["properties"].items():
        assert field.get("description"), name


@pytest.mark.parametrize(
    ("cls", "bad"),
    [
        (two_sided.TwoSided, {"half_spread_bps": 0.0}),
        (two_sided.TwoSided, {"skew_bps": -1.0}),
        *((cls, {"size": "0"}) for cls in STRATEGIES),
        *((cls, {"no_such_parameter": 1}) for cls in STRATEGIES),
        (momentum.Momentum, {"fast_half_life_s": 30.0, "slow_half_life_s": 30.0}),
        (momentum.Momentum, {"cooldown_s": 0.0}),
        (mean_reversion.MeanReversion, {"exit_z": 3.0, "entry_z": 2.0}),
    ],
)
def test_parameters_out_of_bounds_are_refused(cls: type[Strategy[Any]], bad: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(bad, cls.params_type)


# -- two_sided -----------------------------------------------------------------------------------


def test_two_sided_quotes_around_the_mid() -> None:
    ctx = FakeContext()
    strategy = start(two_sided.TwoSided, ctx, half_spread_bps=10.0, size=Decimal("0.5"))
    strategy.on_book(ctx.top(100.0, 0))
    quote = only_quote(ctx)
    assert quote.bid == pytest.approx(99.9)
    assert quote.ask == pytest.approx(100.1)
    assert (quote.bid_qty, quote.ask_qty) == (Decimal("0.5"), Decimal("0.5"))


def test_two_sided_leans_against_inventory() -> None:
    ctx = FakeContext(position_limit="2")
    strategy = start(two_sided.TwoSided, ctx, half_spread_bps=10.0, skew_bps=4.0)
    mids = []
    for position in ("1", "0", "-1"):
        ctx.qty = Decimal(position)
        strategy.on_book(ctx.top(100.0, 0))
        quote = only_quote(ctx)
        assert quote.bid is not None
        assert quote.ask is not None
        mids.append((quote.bid + quote.ask) / 2)
    assert mids == [pytest.approx(99.98), pytest.approx(100.0), pytest.approx(100.02)]


@pytest.mark.parametrize("position", ["1", "1.5", "-1", "-1.5"])
def test_two_sided_pulls_the_side_that_would_exceed_the_limit(position: str) -> None:
    ctx = FakeContext(position_limit="1")
    strategy = start(two_sided.TwoSided, ctx)
    ctx.qty = Decimal(position)
    strategy.on_book(ctx.top(100.0, 0))
    quote = only_quote(ctx)
    is_long = ctx.qty > 0
    assert (quote.bid is None) is is_long
    assert (quote.ask is None) is not is_long
    ctx.qty = Decimal("0.9")
    strategy.on_book(ctx.top(100.0, 0))
    assert None not in (only_quote(ctx).bid, only_quote(ctx).ask)


def test_two_sided_counts_its_fills_across_a_restart() -> None:
    ctx = FakeContext(fills_at_once=True)
    strategy = start(two_sided.TwoSided, ctx)
    strategy.buy_limit(SYMBOL, Decimal("0.3"), Decimal(100))
    strategy.on_fill(ctx.fills[-1])
    strategy = restarted(strategy, ctx)
    strategy.sell_limit(SYMBOL, Decimal("0.1"), Decimal(100))
    strategy.on_fill(ctx.fills[-1])
    assert (strategy.state.fills, strategy.state.traded_qty) == (2, Decimal("0.2"))


# -- momentum ------------------------------------------------------------------------------------


def flat_then(strategy: Any, ctx: FakeContext, *, until_s: int) -> None:
    """Show a market that stands still at 100, ten times a second."""
    for tick in range(until_s * 10):
        strategy.on_book(ctx.top(100.0, tick / 10))


def test_momentum_enters_a_rise_and_leaves_when_it_turns() -> None:
    ctx = FakeContext(fills_at_once=True)
    strategy = start(momentum.Momentum, ctx, size=Decimal("0.5"), threshold_bps=2.0)
    flat_then(strategy, ctx, until_s=60)
    assert ctx.requests == []
    at_s, mid = 60.0, 100.0
    while mid < 101.0:
        at_s, mid = at_s + 0.1, mid + 0.01
        strategy.on_book(ctx.top(mid, at_s))
    (entry,) = ctx.requests
    assert (entry.side, entry.qty, entry.time_in_force) == (Side.BUY, Decimal("0.5"), TimeInForce.IOC)
    while mid > 98.0 and len(ctx.requests) == 1:
        at_s, mid = at_s + 0.1, mid - 0.01
        strategy.on_book(ctx.top(mid, at_s))
    assert [request.side for request in ctx.requests] == [Side.BUY, Side.SELL]
    assert ctx.qty == 0


def test_momentum_goes_short_in_a_fall_unless_long_only() -> None:
    for long_only, expected in ((False, Decimal("-0.01")), (True, Decimal(0))):
        ctx = FakeContext(fills_at_once=True)
        strategy = start(momentum.Momentum, ctx, long_only=long_only)
        flat_then(strategy, ctx, until_s=31)
        for tick in range(100):
            strategy.on_book(ctx.top(100.0 - 0.02 * tick, 31 + tick / 10))
        assert ctx.qty == expected


def test_momentum_takes_the_far_touch_on_the_tick() -> None:
    ctx = FakeContext()
    strategy = start(momentum.Momentum, ctx)
    flat_then(strategy, ctx, until_s=31)
    strategy.on_book(ctx.top(101.0, 41.0, spread=0.04))
    assert ctx.requests[-1].price == Decimal("101.02")


def test_momentum_does_nothing_while_warming_up() -> None:
    ctx = FakeContext(fills_at_once=True)
    strategy = start(momentum.Momentum, ctx, slow_half_life_s=30.0)
    for tick in range(300):
        strategy.on_book(ctx.top(100.0 + tick * 0.01, tick / 10))
    assert ctx.requests == []
    strategy.on_book(ctx.top(103.0, 30.0))
    assert len(ctx.requests) == 1


def test_momentum_never_has_two_orders_in_flight_and_respects_the_cooldown() -> None:
    ctx = FakeContext()
    strategy = start(momentum.Momentum, ctx, cooldown_s=5.0)
    flat_then(strategy, ctx, until_s=31)
    for tick in range(100):
        strategy.on_book(ctx.top(101.0, 31 + tick / 10))
    assert len(ctx.requests) == 1, "the first order has not been answered"
    sent_ns = ctx.clock_ns
    expire(strategy, ctx.orders[-1])
    strategy.on_book(ctx.top(101.0, 41.0))
    assert len(ctx.requests) == 2, "it is answered and the cooldown is over"
    expire(strategy, ctx.orders[-1])
    strategy.on_book(ctx.top(101.0, 45.9))
    assert len(ctx.requests) == 2, "cooling down"
    strategy.on_book(ctx.top(101.0, 46.0))
    assert len(ctx.requests) == 3
    assert ctx.clock_ns > sent_ns


def expire(strategy: Any, order: Order) -> None:
    order.status = OrderStatus.EXPIRED
    strategy.on_order(order)


@pytest.mark.parametrize("cls", [momentum.Momentum, mean_reversion.MeanReversion])
def test_a_refused_order_is_counted_and_tried_again_after_the_cooldown(cls: type[Strategy[Any]]) -> None:
    ctx = FakeContext()
    ctx.refuses = True
    strategy = start(cls, ctx, cooldown_s=2.0)
    for tick in range(1300):
        strategy.on_book(ctx.top(100.0 + 0.02 * sin(tick), tick / 10))
    assert ctx.requests == []
    for at_s in (131.0, 131.1, 132.9, 133.0):
        strategy.on_book(ctx.top(120.0, at_s))
    assert len(ctx.requests) == 2
    assert strategy.state.refused == 2
    assert ctx.qty == 0


def test_momentum_carries_its_averages_through_a_restart() -> None:
    def run(*, restart_at: int | None) -> list[tuple[int, Side]]:
        ctx = FakeContext(fills_at_once=True)
        strategy = start(momentum.Momentum, ctx, threshold_bps=1.0)
        sent = []
        for tick in range(3000):
            if tick == restart_at:
                strategy = restarted(strategy, ctx)
            before = len(ctx.requests)
            strategy.on_book(ctx.top(100.0 + 0.5 * sin(tick / 150), tick / 10))
            sent += [(tick, request.side) for request in ctx.requests[before:]]
        return sent

    undisturbed = run(restart_at=None)
    assert len(undisturbed) > 4
    assert run(restart_at=1500) == undisturbed


# -- mean_reversion ------------------------------------------------------------------------------


def wobble(strategy: Any, ctx: FakeContext, *, until_s: int) -> None:
    """Show a market that moves by two ticks around 100, ten times a second."""
    for tick in range(until_s * 10):
        strategy.on_book(ctx.top(100.0 + 0.02 * (tick % 2), tick / 10))


def test_mean_reversion_sells_a_spike_and_covers_near_the_mean() -> None:
    ctx = FakeContext(fills_at_once=True)
    strategy = start(mean_reversion.MeanReversion, ctx, size=Decimal("0.5"), cooldown_s=1.0)
    wobble(strategy, ctx, until_s=120)
    assert ctx.requests == []
    strategy.on_book(ctx.top(100.5, 120.0))
    assert ctx.qty == Decimal("-0.5")
    assert ctx.requests[0].time_in_force is TimeInForce.IOC
    assert ctx.requests[0].price == Decimal("100.49"), "the bid"
    strategy.on_book(ctx.top(100.1, 122.0))
    assert ctx.qty == Decimal("-0.5"), "between exit and entry it holds"
    strategy.on_book(ctx.top(100.01, 124.0))
    assert ctx.qty == 0
    assert [request.side for request in ctx.requests] == [Side.SELL, Side.BUY]


def test_mean_reversion_buys_a_dip_and_does_not_sell_short_when_long_only() -> None:
    ctx = FakeContext(fills_at_once=True)
    strategy = start(mean_reversion.MeanReversion, ctx, long_only=True)
    wobble(strategy, ctx, until_s=120)
    strategy.on_book(ctx.top(101.0, 121.0))
    assert ctx.qty == 0
    strategy.on_book(ctx.top(96.0, 130.0))
    assert ctx.qty == Decimal("0.01")


def test_mean_reversion_does_nothing_in_a_market_that_never_moved() -> None:
    ctx = FakeContext(fills_at_once=True)
    strategy = start(mean_reversion.MeanReversion, ctx)
    flat_then(strategy, ctx, until_s=120)
    assert ctx.requests == []


def test_mean_reversion_waits_two_half_lives() -> None:
    ctx = FakeContext(fills_at_once=True)
    strategy = start(mean_reversion.MeanReversion, ctx, half_life_s=60.0)
    wobble(strategy, ctx, until_s=119)
    strategy.on_book(ctx.top(110.0, 119.9))
    assert ctx.requests == []
    strategy.on_book(ctx.top(120.0, 120.0))
    assert len(ctx.requests) == 1


def test_mean_reversion_knows_mean_and_variance_of_a_steady_market() -> None:
    ctx = FakeContext(fills_at_once=True)
    strategy = start(mean_reversion.MeanReversion, ctx)
    wobble(strategy, ctx, until_s=1000)
    estimate = strategy.state.estimates[SYMBOL]
    assert estimate.mean == pytest.approx(100.01, abs=1e-4)
    assert estimate.variance == pytest.approx(0.01**2, rel=0.01)


def test_mean_reversion_respects_the_cooldown_and_one_order_in_flight() -> None:
    ctx = FakeContext()
    strategy = start(mean_reversion.MeanReversion, ctx, cooldown_s=5.0)
    wobble(strategy, ctx, until_s=120)
    for at_s in (120.0, 121.0, 126.0):
        strategy.on_book(ctx.top(100.0 + (at_s - 119) ** 2, at_s))
    assert len(ctx.requests) == 1
    expire(strategy, ctx.orders[-1])
    strategy.on_book(ctx.top(300.0, 127.0))
    assert len(ctx.requests) == 2


def test_mean_reversion_carries_its_estimates_through_a_restart() -> None:
    ctx = FakeContext(fills_at_once=True)
    strategy = start(mean_reversion.MeanReversion, ctx)
    wobble(strategy, ctx, until_s=120)
    again = restarted(strategy, ctx)
    assert again.state == strategy.state
    again.on_book(ctx.top(100.5, 120.0))
    assert len(ctx.requests) == 1, "no second warm-up"
