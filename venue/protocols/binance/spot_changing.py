"""Changing spot orders: cancel, cancel all, cancel and replace, amend."""

from secrets import token_hex
from typing import Any, Final

from host.api import AmendOrder, CancelOrder, Instrument, PlaceOrder
from venue.protocols.binance.errors import BinanceRefusal
from venue.protocols.binance.params import Params
from venue.protocols.binance.product import Call, Endpoint, Security
from venue.protocols.binance.spot_lookup import SpotLookup
from venue.protocols.binance.spot_placing import LEGAL_ID, RULES, SpotPlacing, number
from venue.protocols.binance.spot_refusals import order_refusal
from venue.protocols.binance.spot_shapes import SpotTerms, amended, result, terms_of
from venue.protocols.binance.symbols import Listing
from venue.protocols.front import Desk
from venue.protocols.requests import Entry, Kind, Verdict
from venue.records import OrderRecord
from venue.validation import check_order, mid_price

__all__ = ["SpotChanging"]


class SpotChanging:
    """The endpoints that change orders. `cancel_ids` tells user data how cancels were called."""

    def __init__(self, desk: Desk, listing: Listing, lookup: SpotLookup, placing: SpotPlacing) -> None:
        self._desk = desk
        self._listing = listing
        self._lookup = lookup
        self._placing = placing
        self.cancel_ids: Final[dict[int, str]] = {}

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Return what can be asked for."""
        signed, order = Security.SIGNED, "/api/v3/order"
        replace, amend = (f"POST {order}/cancelReplace",), (f"PUT {order}/amend/keepPriority",)
        return (
            Endpoint("order.cancel", Kind.CANCEL, signed, self._cancel, 1, (f"DELETE {order}",), True),
            Endpoint("order.cancelReplace", Kind.AMEND, signed, self._cancel_replace, 1, replace, True, True),
            Endpoint("order.amend.keepPriority", Kind.AMEND, signed, self._amend, 4, amend, True),
            Endpoint(
                "openOrders.cancelAll",
                Kind.CANCEL_ALL,
                signed,
                self._cancel_all,
                1,
                ("DELETE /api/v3/openOrders",),
                True,
            ),
        )

    # -- cancel ----------------------------------------------------------------------------------

    async def _cancel(self, call: Call) -> Any:
        instrument = self._listing.instrument(call.params)
        record = self._lookup.find(call, instrument, "orderId", "origClientOrderId")
        entry = call.entry(client_id=call.request.client_id)
        return await self._cancel_one(call, entry, instrument, record, call.params.text("newClientOrderId"))

    async def _cancel_one(
        self, call: Call, entry: Entry, instrument: Instrument, record: OrderRecord | None, cancel_id: str
    ) -> dict[str, Any]:
        if record is None or not record.order.is_open:
            raise BinanceRefusal(-2011, "Unknown order sent.")
        _check_restriction(call.params, record)
        order = record.order
        cancel_id = cancel_id or token_hex(11)
        self.cancel_ids[order.order_id] = cancel_id
        try:
            answer = await self._desk.ask(
                call.request, entry, call.wallet, CancelOrder(order.client_id, order.symbol)
            )
        finally:
            self.cancel_ids.pop(order.order_id, None)
        if answer.refusal is not None:
            raise order_refusal(answer.refusal)
        return {
            "symbol": self._listing.name_of(instrument.symbol),
            "origClientOrderId": terms_of(record.terms, order).client_id,
            "orderId": order.order_id,
            "orderListId": -1,
            "clientOrderId": cancel_id,
            "transactTime": self._desk.shown_ns(answer.ts_ns) // 1_000_000,
            **result(record),
        }

    async def _cancel_all(self, call: Call) -> Any:
        instrument = self._listing.instrument(call.params)
        orders = [each for each in self._lookup.open(call.wallet) if each.order.symbol == instrument.symbol]
        if not orders:
            call.entry()
            raise BinanceRefusal(-2011, "Unknown order sent.")
        rows = []
        for record in orders:
            entry = call.entry(client_id=terms_of(record.terms, record.order).client_id)
            rows.append(await self._cancel_one(call, entry, instrument, record, ""))
        return rows

    # -- replace and amend -----------------------------------------------------------------------

    async def _cancel_replace(self, call: Call) -> Any:
        params = call.params
        mode = params.required("cancelReplaceMode")
        if mode not in ("STOP_ON_FAILURE", "ALLOW_FAILURE"):
            raise BinanceRefusal(-1130, "Data sent for parameter 'cancelReplaceMode' is not valid.")
        instrument, place, terms = self._placing.read_order(params, call.wallet)
        self._check_filters(instrument, place)
        record = self._lookup.find(call, instrument, "cancelOrderId", "cancelOrigClientOrderId")
        cancel_entry = call.entry(client_id=call.request.client_id, kind=Kind.CANCEL)
        cancelled: dict[str, Any]
        is_cancelled = True
        try:
            cancelled = await self._cancel_one(
                call, cancel_entry, instrument, record, params.text("cancelNewClientOrderId")
            )
        except BinanceRefusal as refusal:
            is_cancelled, cancelled = False, refusal.body()
            cancel_entry.verdict = Verdict.REFUSED
            cancel_entry.reason = f"{refusal.code} {refusal.text}"
            if mode == "STOP_ON_FAILURE":
                data = _replaced("FAILURE", "NOT_ATTEMPTED", cancelled, None)
                raise BinanceRefusal(-2022, "Order cancel-replace failed.", data=data) from None
        place_entry = call.entry(client_id=place.client_id, kind=Kind.PLACE)
        try:
            answer = await self._desk.ask(
                call.request, place_entry, call.wallet, place, rules=RULES, terms=terms
            )
            placed = self._placing.placed(answer, instrument, params, terms)
        except BinanceRefusal as refusal:
            place_entry.reason = f"{refusal.code} {refusal.text}"
            data = _replaced("SUCCESS" if is_cancelled else "FAILURE", "FAILURE", cancelled, refusal.body())
            if is_cancelled:
                raise BinanceRefusal(
                    -2021, "Order cancel-replace partially failed.", status=409, data=data
                ) from None
            raise BinanceRefusal(-2022, "Order cancel-replace failed.", data=data) from None
        if not is_cancelled:
            data = _replaced("FAILURE", "SUCCESS", cancelled, placed)
            raise BinanceRefusal(-2021, "Order cancel-replace partially failed.", status=409, data=data)
        return _replaced("SUCCESS", "SUCCESS", cancelled, placed)

    def _check_filters(self, instrument: Instrument, place: PlaceOrder) -> None:
        # Before the cancel: a replacement that no filter lets through must not cost the old order.
        reference = mid_price(*self._desk.exchange.best(instrument.symbol))
        refusal = check_order(instrument, place.price, place.qty, reference)
        if refusal is not None:
            raise order_refusal(refusal)

    async def _amend(self, call: Call) -> Any:
        params = call.params
        instrument = self._listing.instrument(params)
        qty = number(params, "newQty")
        record = self._lookup.find(call, instrument, "orderId", "origClientOrderId")
        entry = call.entry(client_id=call.request.client_id)
        if record is None or not record.order.is_open:
            raise BinanceRefusal(-2011, "Unknown order sent.")
        order, terms = record.order, terms_of(record.terms, record.order)
        if order.price is None or qty >= order.qty:
            raise BinanceRefusal(
                -2038, "The order amend is rejected: newQty must be below the order's quantity."
            )
        old_id = terms.client_id
        new_id = params.client_id("newClientOrderId", LEGAL_ID) or token_hex(11)
        record.terms = SpotTerms(terms.type, new_id, terms.quote_qty)
        answer = await self._desk.ask(
            call.request,
            entry,
            call.wallet,
            AmendOrder(order.client_id, order.symbol, order.side, order.price, qty),
        )
        if answer.refusal is not None:
            record.terms = terms
            raise order_refusal(answer.refusal)
        self._lookup.rename(call.wallet, new_id, order.order_id)
        return {
            "transactTime": self._desk.shown_ns(answer.ts_ns) // 1_000_000,
            "executionId": answer.ts_ns // 1_000,
            "amendedOrder": amended(self._lookup.row(record), old_id),
        }


def _check_restriction(params: Params, record: OrderRecord) -> None:
    wanted = params.text("cancelRestrictions")
    if not wanted:
        return
    if wanted not in ("ONLY_NEW", "ONLY_PARTIALLY_FILLED"):
        raise BinanceRefusal(-1145, "Invalid cancelRestrictions")
    if (wanted == "ONLY_NEW") is bool(record.booked):
        raise BinanceRefusal(-2011, "Order was not canceled due to cancel restrictions.")


def _replaced(cancel: str, new: str, cancelled: Any, placed: Any) -> dict[str, Any]:
    return {
        "cancelResult": cancel,
        "newOrderResult": new,
        "cancelResponse": cancelled,
        "newOrderResponse": placed,
    }
