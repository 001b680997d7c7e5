"""What can be asked about spot orders and fills."""

from typing import Any, Final

from venue.protocols.binance.errors import BinanceRefusal
from venue.protocols.binance.params import Params
from venue.protocols.binance.product import Call, Endpoint, Security
from venue.protocols.binance.spot_lookup import SpotLookup
from venue.protocols.binance.spot_shapes import trade_row
from venue.protocols.binance.symbols import Listing
from venue.protocols.front import Desk
from venue.protocols.requests import Kind

__all__ = ["SpotQueries", "is_within"]

MAX_ROWS: Final = 1000


class SpotQueries:
    """The endpoints that change nothing."""

    def __init__(self, desk: Desk, listing: Listing, lookup: SpotLookup) -> None:
        self._desk = desk
        self._listing = listing
        self._lookup = lookup

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Return what can be asked for."""
        signed, query, path = Security.SIGNED, Kind.QUERY, "GET /api/v3/"
        return (
            Endpoint("order.status", query, signed, self._status, 4, (f"{path}order",)),
            Endpoint(
                "openOrders.status", query, signed, self._open_orders, _open_weight, (f"{path}openOrders",)
            ),
            Endpoint("allOrders", query, signed, self._all_orders, 20, (f"{path}allOrders",)),
            Endpoint("myTrades", query, signed, self._my_trades, 20, (f"{path}myTrades",)),
        )

    async def _status(self, call: Call) -> Any:
        instrument = self._listing.instrument(call.params)
        record = self._lookup.find(call, instrument, "orderId", "origClientOrderId")
        if record is None:
            raise BinanceRefusal(-2013, "Order does not exist.")
        return self._lookup.row(record)

    async def _open_orders(self, call: Call) -> Any:
        symbol = self._listing.instrument(call.params).symbol if "symbol" in call.params else ""
        return [
            self._lookup.row(each)
            for each in self._lookup.open(call.wallet)
            if symbol in ("", each.order.symbol)
        ]

    async def _all_orders(self, call: Call) -> Any:
        symbol, params = self._listing.instrument(call.params).symbol, call.params
        first = params.integer("orderId", 0) or 0
        rows = [
            self._lookup.row(each)
            for each in self._desk.exchange.records(call.wallet).all()
            if each.order.symbol == symbol and each.order.order_id >= first
        ]
        rows = [row for row in rows if is_within(params, row["time"])]
        limit = min(params.integer("limit", 500) or 500, MAX_ROWS)
        return rows[:limit] if "orderId" in params else rows[-limit:]

    async def _my_trades(self, call: Call) -> Any:
        instrument, params = self._listing.instrument(call.params), call.params
        name = self._listing.name_of(instrument.symbol)
        first, order_id = params.integer("fromId", 0) or 0, params.integer("orderId")
        rows = [
            trade_row(fill, name, self._desk.shown_ns(fill.ts_ns) // 1_000_000)
            for fill in self._desk.exchange.records(call.wallet).fills_since(0)
            if fill.symbol == instrument.symbol
            and int(fill.trade_id) >= first
            and order_id in (None, int(fill.venue_id))
        ]
        rows = [row for row in rows if is_within(params, row["time"])]
        limit = min(params.integer("limit", 500) or 500, MAX_ROWS)
        return rows[:limit] if "fromId" in params else rows[-limit:]


def is_within(params: Params, time_ms: int) -> bool:
    """Return whether a time lies between the request's `startTime` and `endTime`."""
    start, end = params.integer("startTime", 0) or 0, params.integer("endTime")
    return time_ms >= start and (end is None or time_ms <= end)


def _open_weight(params: Params) -> int:
    return 6 if "symbol" in params else 80
