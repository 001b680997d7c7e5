"""The venue's limits on prices: what is beyond them is not sent, and nothing is held to limits that may be old."""

import contextlib
import json
from decimal import Decimal
from typing import Any

import pytest
from exchange_tools import FakeHost, eventually, story
from hypothesis import given
from hypothesis import strategies as st
from okx_tools import listing
from okx_venue import DEMO, okx_venue

from host.api import (
    AmendOrder,
    ConnectionChanged,
    OrderAccepted,
    OrderAmended,
    OrderType,
    PlaceOrder,
    Secret,
    Side,
    TimeInForce,
)
from plugins.exchanges.okx import Okx
from plugins.exchanges.okx.frames import BadFrame
from plugins.exchanges.okx.params import OkxParams
from plugins.exchanges.okx.price_limits import BeyondLimit, PriceLimits

LISTING = listing("BTC-USDT")
S = 1_000_000_000


def push(buy: str, sell: str, ts: int = 1, **more: Any) -> bytes:
    row = {"instId": "BTC-USDT", "buyLmt": buy, "sellLmt": sell, "ts": str(ts), "enabled": True} | more
    return json.dumps({"arg": {"channel": "price-limit", "instId": "BTC-USDT"}, "data": [row]}).encode()


def test_a_price_at_the_limit_goes_and_one_beyond_is_told_with_both_numbers() -> None:
    limits = PriceLimits()
    limits.take(push("110", "90"))
    limits.check(LISTING, Side.BUY, Decimal(110))
    limits.check(LISTING, Side.SELL, Decimal(90))
    limits.check(LISTING, Side.BUY, Decimal(1))
    limits.check(LISTING, Side.SELL, Decimal(1_000))
    limits.check(LISTING, Side.BUY, None)  # a market order
    with pytest.raises(
        BeyondLimit, match=r"price of a buy must be at most 110 at present, was 110\.1; nothing"
    ):
        limits.check(LISTING, Side.BUY, Decimal("110.1"))
    with pytest.raises(
        BeyondLimit, match=r"price of a sell must be at least 90 at present, was 89\.9; nothing"
    ):
        limits.check(LISTING, Side.SELL, Decimal("89.9"))


@pytest.mark.parametrize("said", [("", ""), ("110", "90", {"enabled": False})])
def test_without_limits_every_price_goes(said: tuple[Any, ...]) -> None:
    limits = PriceLimits()
    limits.take(push(said[0], said[1], **(said[2] if len(said) > 2 else {})))
    limits.check(LISTING, Side.BUY, Decimal(1_000))
    limits.check(LISTING, Side.SELL, Decimal(1))


def test_an_older_push_changes_nothing_and_a_lost_connection_forgets() -> None:
    limits = PriceLimits()
    limits.take(push("110", "90", ts=5))
    limits.take(push("200", "10", ts=4))
    with pytest.raises(BeyondLimit):
        limits.check(LISTING, Side.BUY, Decimal(111))
    limits.forget(["BTC-USDT", "ETH-USDT"])
    limits.check(LISTING, Side.BUY, Decimal(111))


@given(st.binary(max_size=60) | st.sampled_from([push("NaN", "1"), push("x", "1"), push("1", "Infinity")]))
def test_whatever_comes_is_read_or_refused_and_limits_nothing(frame: bytes) -> None:
    limits = PriceLimits()
    with contextlib.suppress(BadFrame):
        limits.take(frame)
    limits.check(LISTING, Side.BUY, Decimal(1_000_000))


@story
async def test_at_the_venue_orders_and_amends_beyond_its_limits_are_not_sent() -> None:
    host = FakeHost()
    async with okx_venue() as venue:
        params = OkxParams(
            api_key=Secret(DEMO.api_key),
            api_secret=Secret(DEMO.secret),
            passphrase=Secret(DEMO.passphrase),
            url=venue.rest_url,
            answer_timeout_ms=20_000.0,
            max_clock_error_ms=5_000.0,
        )
        adapter = Okx(params)
        adapter.ctx = host
        try:
            await adapter.connect()
            await adapter.subscribe(["BTC-USDT"])
            await eventually(lambda: adapter._price_limits._limits, "the limits")

            def place(client_id: str, price: Decimal) -> None:
                order = PlaceOrder(
                    client_id, "BTC-USDT", Side.BUY, OrderType.LIMIT, TimeInForce.GTC, price,
                    Decimal("0.01"), False, False,
                )  # fmt: skip
                adapter.send(order, host.now_ns() + 10 * S)

            bid, _ = venue.best("BTC-USDT")
            with pytest.raises(BeyondLimit, match="nothing was sent"):
                place("c1", bid * 2)  # the band of this market is 20 % of its middle
            place("c2", bid - 100)
            await host.heard(OrderAccepted)
            with pytest.raises(BeyondLimit, match="nothing was sent"):
                adapter.send(
                    AmendOrder("c2", "BTC-USDT", Side.BUY, bid * 2, Decimal("0.01")), host.now_ns() + 10 * S
                )
            adapter.send(
                AmendOrder("c2", "BTC-USDT", Side.BUY, bid - 101, Decimal("0.01")), host.now_ns() + 10 * S
            )
            await host.heard(OrderAmended)
            assert [line.client_id for line in venue.lines("place")] == ["c2"]
            venue.cut("/ws/v5/public")
            await eventually(
                lambda: any(not change.is_up for change in host.of(ConnectionChanged)), "the cut"
            )
        finally:
            await adapter.close()
            await host.stop()
