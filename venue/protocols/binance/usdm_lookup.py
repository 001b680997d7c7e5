"""Finding the futures' orders, and writing them down."""

from typing import Any

from host.api import Instrument
from venue.protocols.binance.errors import BinanceRefusal
from venue.protocols.binance.params import Params
from venue.protocols.binance.product import Call
from venue.protocols.binance.symbols import Listing
from venue.protocols.binance.usdm_shapes import order_reply, order_row
from venue.protocols.front import Desk
from venue.records import OrderRecord

__all__ = ["UsdmLookup"]


class UsdmLookup:
    """The orders of all futures wallets."""

    def __init__(self, desk: Desk, listing: Listing) -> None:
        self._desk = desk
        self._listing = listing

    def find(self, call: Call, params: Params, instrument: Instrument) -> OrderRecord | None:
        """Return the order that a request names, None for an unknown one; raise where it names none."""
        number, client_id = params.integer("orderId"), params.text("origClientOrderId")
        if number is None and not client_id:
            raise BinanceRefusal(
                -1102, "Param 'origClientOrderId' or 'orderId' must be sent, but both were empty/null!"
            )
        record = self._desk.exchange.find_order(call.wallet, client_id=client_id, order_id=number)
        call.request.client_id = client_id
        if record is None or record.order.symbol != instrument.symbol:
            return None
        return record

    def reply(self, record: OrderRecord, ts_ns: int) -> dict[str, Any]:
        """Return the answer to a new, changed or cancelled order."""
        symbol = record.order.symbol
        return order_reply(
            record,
            self._desk.exchange.instrument(symbol),
            self._listing.name_of(symbol),
            self._desk.shown_ns(ts_ns) // 1_000_000,
        )

    def row(self, record: OrderRecord) -> dict[str, Any]:
        """Return an order as queries list it."""
        symbol, shown = record.order.symbol, self._desk.shown_ns
        return order_row(
            record,
            self._desk.exchange.instrument(symbol),
            self._listing.name_of(symbol),
            shown(record.order.created_ns) // 1_000_000,
            shown(record.updated_ns) // 1_000_000,
        )
