"""Finding spot orders by the venue's number or by client id, which an amend may change."""

from collections import OrderedDict
from typing import Any, Final

from host.api import Instrument
from venue.protocols.binance.errors import BinanceRefusal
from venue.protocols.binance.product import Call
from venue.protocols.binance.spot_shapes import order_row, terms_of
from venue.protocols.binance.symbols import Listing
from venue.protocols.front import Desk
from venue.records import OrderRecord

__all__ = ["SpotLookup"]

MAX_RENAMED: Final = 10_000
"""Orders that an amend renamed and that are found by their new id; as many as closed ones are kept."""


class SpotLookup:
    """The orders of all spot wallets, by the names that clients have for them."""

    def __init__(self, desk: Desk, listing: Listing) -> None:
        self._desk = desk
        self._listing = listing
        self._renamed: OrderedDict[tuple[str, str], int] = OrderedDict()

    def open(self, wallet: str) -> list[OrderRecord]:
        """Return a wallet's open orders, oldest first."""
        return list(self._desk.exchange.records(wallet).open())

    def find(self, call: Call, instrument: Instrument, by_number: str, by_id: str) -> OrderRecord | None:
        """Return the order that a request names, None for an unknown one; raise where it names none."""
        params = call.params
        number, client_id = params.integer(by_number), params.text(by_id)
        if number is None and not client_id:
            raise BinanceRefusal(
                -1102,
                f"Param '{by_id}' or '{by_number}' must be sent, but both were empty/null!",
            )
        record = None
        if client_id:
            call.request.client_id = client_id
            record = self._by_client_id(call.wallet, client_id)
        if number is not None:
            by_number_found = self._desk.exchange.find_order(call.wallet, order_id=number)
            if client_id and by_number_found is not record:
                raise BinanceRefusal(-2039, "The orderId and origClientOrderId do not belong together.")
            record = by_number_found
        if record is None or record.order.symbol != instrument.symbol:
            return None
        if not client_id:
            call.request.client_id = terms_of(record.terms, record.order).client_id
        return record

    def rename(self, wallet: str, client_id: str, order_id: int) -> None:
        """Have an order found by a new client id; its old one names it no more."""
        self._renamed[(wallet, client_id)] = order_id
        if len(self._renamed) > MAX_RENAMED:
            self._renamed.popitem(last=False)

    def refuse_taken(self, wallet: str, client_id: str) -> None:
        """Raise where an open order was given this client id by an amend."""
        number = self._renamed.get((wallet, client_id))
        record = None if number is None else self._desk.exchange.find_order(wallet, order_id=number)
        if record is not None and record.order.is_open:
            raise BinanceRefusal(-2010, "Duplicate order sent.")
        self._renamed.pop((wallet, client_id), None)

    def row(self, record: OrderRecord) -> dict[str, Any]:
        """Return an order as queries list it."""
        shown = self._desk.shown_ns
        return order_row(
            record,
            self._listing.name_of(record.order.symbol),
            shown(record.order.created_ns) // 1_000_000,
            shown(record.updated_ns) // 1_000_000,
        )

    def _by_client_id(self, wallet: str, client_id: str) -> OrderRecord | None:
        exchange = self._desk.exchange
        number = self._renamed.get((wallet, client_id))
        if number is not None:
            return exchange.find_order(wallet, order_id=number)
        record = exchange.find_order(wallet, client_id=client_id)
        if record is None or terms_of(record.terms, record.order).client_id != client_id:
            return None  # it was called that before an amend renamed it
        return record
