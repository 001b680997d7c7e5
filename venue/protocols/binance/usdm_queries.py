"""What can be asked about the futures' orders and fills."""

from typing import Any, Final

from venue.protocols.binance.errors import BinanceRefusal
from venue.protocols.binance.params import Params
from venue.protocols.binance.product import Call, Endpoint, Security
from venue.protocols.binance.spot_queries import is_within
from venue.protocols.binance.symbols import Listing
from venue.protocols.binance.usdm_lookup import UsdmLookup
from venue.protocols.binance.usdm_shapes import trade_row
from venue.protocols.front import Desk
from venue.protocols.requests import Kind

__all__ = ["UsdmQueries"]

MAX_ROWS: Final = 1000


class UsdmQueries:
    """The endpoints that change nothing."""

    def __init__(self, desk: Desk, listing: Listing, lookup: UsdmLookup) -> None:
        self._desk = desk
        self._listing = listing
        self._lookup = lookup

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Return what can be asked for."""
        signed, query, path = Security.SIGNED, Kind.QUERY, "GET /fapi/v1/"
        return (
            Endpoint("order.status", query, signed, self._status, 1, (f"{path}order",)),
            Endpoint("order.open", query, signed, self._open_order, 1, (f"{path}openOrder",)),
            Endpoint("openOrders", query, signed, self._open_orders, _open_weight, (f"{path}openOrders",)),
            Endpoint("allOrders", query, signed, self._all_orders, 5, (f"{path}allOrders",)),
            Endpoint("userTrades", query, signed, self._user_trades, 5, (f"{path}userTrades",)),
            Endpoint("conditional.open", query, signed, self._no_rows, 1, (f"{path}openAlgoOrders",)),
        )

    async def _status(self, call: Call) -> Any:
        record = self._lookup.find(call, call.params, self._listing.instrument(call.params))
        if record is None:
            raise BinanceRefusal(-2013, "Order does not exist.")
        return self._lookup.row(record)

    async def _open_order(self, call: Call) -> Any:
        record = self._lookup.find(call, call.params, self._listing.instrument(call.params))
        if record is None or not record.order.is_open:
            raise BinanceRefusal(-2013, "Order does not exist.")
        return self._lookup.row(record)

    async def _open_orders(self, call: Call) -> Any:
        symbol = self._listing.instrument(call.params).symbol if "symbol" in call.params else ""
        records = self._desk.exchange.records(call.wallet).open()
        return [self._lookup.row(each) for each in records if symbol in ("", each.order.symbol)]

    async def _all_orders(self, call: Call) -> Any:
        symbol, params = self._listing.instrument(call.params).symbol, call.params
        first = params.integer("orderId", 0) or 0
        rows = [
            self._lookup.row(each)
            for each in self._desk.exchange.records(call.wallet).all()
            if each.order.symbol == symbol and each.order.order_id >= first
        ]
        return _window(params, rows, "orderId")

    async def _user_trades(self, call: Call) -> Any:
        instrument, params = self._listing.instrument(call.params), call.params
        name = self._listing.name_of(instrument.symbol)
        first, order_id = params.integer("fromId", 0) or 0, params.integer("orderId")
        records = self._desk.exchange.records(call.wallet)
        rows = [
            trade_row(
                fill,
                instrument,
                name,
                records.realised(fill.trade_id),
                self._desk.shown_ns(fill.ts_ns) // 1_000_000,
            )
            for fill in records.fills_since(0)
            if fill.symbol == instrument.symbol
            and int(fill.trade_id) >= first
            and order_id in (None, int(fill.venue_id))
        ]
        return _window(params, rows, "fromId")

    async def _no_rows(self, call: Call) -> Any:
        return []


def _window(params: Params, rows: list[dict[str, Any]], first: str) -> list[dict[str, Any]]:
    found = [row for row in rows if is_within(params, row["time"])]
    limit = min(params.integer("limit", 500) or 500, MAX_ROWS)
    return found[:limit] if first in params else found[-limit:]


def _open_weight(params: Params) -> int:
    return 1 if "symbol" in params else 40
