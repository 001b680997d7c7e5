"""Fills, fees, balances, positions, leverage, liquidation, credentials and the dead man's switch."""

import logging
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import pytest
from conformance_desk import At, behaviour
from conformance_reasons import NO_POSITIONS
from exchange_tools import eventually

from host.api import (
    AccountSnapshot,
    ExchangeError,
    FillsSnapshot,
    OpenOrdersSnapshot,
    OrderFilled,
    OrderType,
    QueryAccount,
    QueryFills,
    QueryOpenOrders,
    Secret,
    Side,
)
from host.core.client_id import ClientIdMaker

NO_KEYS = {"the venue's own adapters ask for no key": ("paper here", "paper away")}
NO_LIQUIDATION = {"the simulated exchange liquidates nobody": ("paper here", "paper away")}
NO_SWITCH = {"Binance spot offers no such switch, over REST or WebSocket": ("binance spot",)}
SHORT_SWITCHES: dict[str, Any] = {"has_disconnect_cancel": True, "dead_man_s": 0.3}
S = 1_000_000_000
HOUR_NS = 3_600 * S


def money(fills: Iterable[OrderFilled]) -> set[tuple[Any, ...]]:
    """Return what is booked of fills: who, how much, at which price and fee, and on which side of the trade."""
    return {
        (
            fill.client_id,
            fill.side,
            fill.price,
            fill.qty,
            fill.fee,
            fill.fee_currency,
            fill.liquidity,
        )
        for fill in fills
    }


async def trade(at: At) -> None:
    """Take twice the usual quantity, and have half of it taken back from an order that rests."""
    at.place("taker", type=OrderType.MARKET, qty=at.qty * 2)
    maker = await at.rest("maker", steps=-0.5, side=Side.SELL)
    assert maker.price is not None
    at.take(maker.price, at.qty, Side.BUY)
    await eventually(lambda: sum(fill.qty for fill in at.site.fills) == at.qty * 3, "traded")


@behaviour("fills: each once, with fee and side, as booked")
async def test_fills_are_told_once_with_their_fees(at: At) -> None:
    await trade(at)
    await eventually(lambda: len(at.host.of(OrderFilled)) == len(at.site.fills), "all told")
    told = at.host.of(OrderFilled)
    assert money(told) == money(at.site.fills)
    assert len(told) == len(at.site.fills) == len({fill.trade_id for fill in told})
    assert {fill.client_id: fill.liquidity for fill in told} == {"taker": "taker", "maker": "maker"}
    assert all(fill.fee > 0 and fill.symbol == at.symbol for fill in told)
    assert all(abs(at.host.now_ns() - fill.ts_ns) < HOUR_NS for fill in told)  # not 1970, not local time


@behaviour("fills: the list is what was told")
async def test_the_list_of_fills_is_what_was_told(at: At) -> None:
    begun_ns = at.host.now_ns() - S
    await trade(at)
    listed = await at.ask(QueryFills(begun_ns), FillsSnapshot)
    assert money(listed.fills) == money(at.site.fills)
    assert all(abs(at.host.now_ns() - fill.ts_ns) < HOUR_NS for fill in listed.fills)
    await eventually(lambda: len(at.host.of(OrderFilled)) == len(at.site.fills), "all told")
    assert {fill.trade_id for fill in listed.fills} == {fill.trade_id for fill in at.host.of(OrderFilled)}
    assert list(listed.fills) == sorted(listed.fills, key=lambda fill: fill.ts_ns)
    later = await at.ask(QueryFills(at.host.now_ns() + 60 * S), FillsSnapshot)
    assert not later.fills


@behaviour("open orders: ours and others', with what filled")
async def test_open_orders_are_listed_with_what_was_filled(at: At) -> None:
    place = await at.rest("c1", steps=-0.5)
    await at.rest("c2")
    assert place.price is not None
    at.take(place.price, at.qty / 2)
    await at.about("c1", OrderFilled)
    listed = await at.ask(QueryOpenOrders(), OpenOrdersSnapshot)
    assert {order.client_id: (order.price, order.qty, order.filled) for order in listed.orders} == {
        record.order.client_id: (record.order.price, record.order.qty, record.order.filled)
        for record in at.site.records.open()
    }
    assert len(listed.orders) == 2


@behaviour("balances: totals and what orders hold")
async def test_balances_are_the_venues(at: At) -> None:
    await trade(at)
    await at.rest("c1")
    ours = await at.ask(QueryAccount(), AccountSnapshot)
    theirs = at.site.account.snapshot(0)
    assert {balance.currency: balance.total for balance in ours.balances} == {
        balance.currency: balance.total for balance in theirs.balances
    }
    if not at.column.is_perpetual:
        assert {balance.currency: balance.free for balance in ours.balances} == {
            balance.currency: balance.free for balance in theirs.balances
        }


@behaviour("positions: signed, with their entry price", absent=NO_POSITIONS)
async def test_positions_are_the_venues(at: At) -> None:
    at.place("short", type=OrderType.MARKET, side=Side.SELL, qty=at.qty * 2)
    await eventually(lambda: sum(fill.qty for fill in at.site.fills) == at.qty * 2, "traded")
    (ours,) = (await at.ask(QueryAccount(), AccountSnapshot)).positions
    entry = round(ours.entry_price, 4)  # a venue computes it, for an inverse one by division
    assert (ours.symbol, ours.qty, entry) == (at.symbol, -at.qty * 2, at.price(0))


@behaviour(
    "leverage and margin mode: set, and again without harm",
    absent={**NO_POSITIONS, "the house server gives every account the same": ("paper away",)},
    leverage=3,
    margin_mode="isolated",
)
async def test_leverage_and_margin_mode_are_set_and_stay_so(at: At) -> None:
    assert at.site.account.leverage_of(at.symbol) == 3
    again = at.make(host=at.another_host(), leverage=3, margin_mode="isolated")
    await again.connect()
    await again.subscribe([at.symbol])
    await again.close()
    assert at.site.account.leverage_of(at.symbol) == 3


@behaviour(
    "liquidation: a position that comes near is told",
    absent={**NO_POSITIONS, **NO_LIQUIDATION},
    liquidation_alarm=0.9,
    liquidation_every_s=0.05,
)
async def test_a_position_near_its_liquidation_is_told(at: At) -> None:
    await at.ask(QueryAccount(), AccountSnapshot)
    assert not at.log.about("liquidation")
    large = Decimal(120_000_000) if at.symbol == "BTC-USD-PERP" else Decimal(100)
    ask = at.price(-0.3, Side.SELL)
    at.site.rival(at.symbol, Side.SELL, large, ask)
    at.place("large", price=ask, qty=large)
    await eventually(lambda: sum(fill.qty for fill in at.site.fills) == large, "a large position")
    await at.ask(QueryAccount(), AccountSnapshot)
    await eventually(lambda: at.log.about("liquidation"), "the alarm")
    assert at.column.wire in at.log.about("liquidation")[0]


@behaviour("dead man's switch: armed before orders, and let go", absent=NO_SWITCH, has_disconnect_cancel=True)
async def test_the_dead_mans_switch_is_armed_and_let_go(at: At) -> None:
    if (
        at.column.exchange == "binance_usdm"
    ):  # this adapter winds its switch up by itself, with the first order
        await at.rest("c1")
        await eventually(lambda: armed(at) == [60_000], "wound up")
        return
    terms = at.adapter.dead_man
    assert terms is not None and terms.least_ms % terms.step_ms == 0 and terms.least_ms < terms.most_ms
    tag = "tdmt1a" if terms.is_tagged else ""
    await at.adapter.arm_dead_man(terms.least_ms, tag=tag)
    await at.adapter.arm_dead_man(0, tag=tag)
    if at.column.protocol:
        assert armed(at)[0] == terms.least_ms


def armed(at: At) -> list[int]:
    """Return for how long, in milliseconds, the venue took the switch to be armed, each time."""
    fields = {"countdownTime": 1, "timeOut": 1_000, "timeWindow": 1_000}
    return [
        int(line.asked[name]) * unit
        for line in at.venue.lines("setting")
        for name, unit in fields.items()
        if name in line.asked and line.verdict == "accepted"
    ]


@behaviour("dead man's switch: cancels what nobody looks after", absent=NO_SWITCH, **SHORT_SWITCHES)
async def test_the_dead_mans_switch_cancels_what_nobody_looks_after(at: At) -> None:
    client_id = ClientIdMaker("tdm", 1, 10).make()
    await at.rest(client_id)
    if at.column.exchange == "binance_usdm":
        await eventually(lambda: armed(at), "wound up")
    else:
        await at.adapter.arm_dead_man(at.adapter.dead_man.least_ms, tag=client_id.partition("i")[0])
    assert at.site.open_ids() == {client_id}
    await at.vanish()

    def is_over() -> bool:
        at.site.run_out()
        return not at.site.open_ids()

    await eventually(is_over, "cancelled by the venue")


@behaviour("credentials: a wrong one is refused clearly", absent=NO_KEYS)
async def test_wrong_credentials_are_refused_and_shown_nowhere(at: At) -> None:
    everything = logging.getLogger()
    everything.addHandler(at.log)
    try:
        for name in ("api_key", "api_secret"):
            adapter = at.make(host=at.another_host(), **{name: Secret("wrong-" + "0123456789")})
            with pytest.raises(ExchangeError) as caught:
                await adapter.connect()
                await adapter.subscribe([at.symbol])
            await adapter.close()
            shown = f"{caught.value} {at.log.lines} {adapter.params!r}"
            assert at.column.protocol in shown and "0123456789" not in shown and "demo-secret" not in shown
    finally:
        everything.removeHandler(at.log)


@behaviour("credentials: a missing one says how to give it", absent=NO_KEYS)
async def test_a_missing_credential_says_how_to_give_it(at: At) -> None:
    with pytest.raises(ExchangeError, match="api_secret"):
        await at.make(host=at.another_host(), api_secret=None).connect()
