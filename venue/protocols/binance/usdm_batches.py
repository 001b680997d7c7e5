"""Several of the futures' orders in one request: each is carried out, or refused, for itself."""

from collections.abc import Awaitable, Callable
from typing import Any, Final

import orjson

from venue.protocols.binance.errors import BinanceRefusal, missing
from venue.protocols.binance.params import Params, from_frame
from venue.protocols.binance.product import Call, Endpoint, Security
from venue.protocols.binance.symbols import Listing
from venue.protocols.binance.usdm_orders import UsdmOrders
from venue.protocols.requests import Kind, Verdict

__all__ = ["UsdmBatches"]

MAX_BATCH: Final = 5
MAX_BATCH_CANCEL: Final = 10

CarryOut = Callable[[Call, Params], Awaitable[dict[str, Any]]]


class UsdmBatches:
    """The batch endpoints."""

    def __init__(self, listing: Listing, orders: UsdmOrders) -> None:
        self._listing = listing
        self._orders = orders

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Return what can be asked for."""
        signed, batch, path = Security.SIGNED, Kind.BATCH, "/fapi/v1/batchOrders"
        return (
            Endpoint("batch.place", batch, signed, self._place, 5, (f"POST {path}",)),
            Endpoint("batch.modify", batch, signed, self._modify, 5, (f"PUT {path}",)),
            Endpoint("batch.cancel", batch, signed, self._cancel, 1, (f"DELETE {path}",)),
        )

    async def _place(self, call: Call) -> Any:
        return await self._each(call, _orders(call.params), self._orders.place, Kind.PLACE)

    async def _modify(self, call: Call) -> Any:
        return await self._each(call, _orders(call.params), self._orders.modify, Kind.AMEND)

    async def _cancel(self, call: Call) -> Any:
        symbol = self._listing.name_of(self._listing.instrument(call.params).symbol)
        # The documents have them in mixed case; ccxt sends lower case, and is served.
        numbers = _listed(call.params, "orderIdList") or _listed(call.params, "orderidlist")
        ids = _listed(call.params, "origClientOrderIdList") or _listed(call.params, "origclientorderidlist")
        if not numbers and not ids:
            raise missing("orderIdList")
        if len(numbers) + len(ids) > MAX_BATCH_CANCEL:
            raise BinanceRefusal(-4005, "Quantity greater than max quantity.")
        orders = [{"symbol": symbol, "orderId": each} for each in numbers]
        orders += [{"symbol": symbol, "origClientOrderId": each} for each in ids]

        return await self._each(call, [from_frame(each) for each in orders], self._orders.cancel, Kind.CANCEL)

    async def _each(
        self,
        call: Call,
        orders: list[Params],
        carry_out: CarryOut,
        kind: Kind,
    ) -> list[dict[str, Any]]:
        """Carry out a batch's orders in turn; a refused one keeps none of the others back."""
        rows = []
        for params in orders:
            before = len(call.request.entries)
            try:
                rows.append(await carry_out(call, params))
            except BinanceRefusal as refusal:
                rows.append(refusal.body())
                if len(call.request.entries) == before:
                    call.entry(params, client_id=params.text("newClientOrderId"))
                entry = call.request.entries[-1]
                entry.verdict = Verdict.REFUSED
                entry.reason = f"{refusal.code} {refusal.text}" + (
                    f" ({entry.reason})" if entry.reason else ""
                )
            call.request.entries[-1].kind = kind
        return rows


def _orders(params: Params) -> list[Params]:
    try:
        orders = orjson.loads(params.required("batchOrders"))
    except orjson.JSONDecodeError:
        orders = None
    if not isinstance(orders, list) or not all(isinstance(each, dict) for each in orders):
        raise BinanceRefusal(-1130, "Data sent for parameter 'batchOrders' is not valid.")
    if not 0 < len(orders) <= MAX_BATCH:
        raise BinanceRefusal(-4082, "Invalid number of batch place orders.")
    return [from_frame(each) for each in orders]


def _listed(params: Params, name: str) -> list[Any]:
    text = params.text(name)
    if not text:
        return []
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, list):
        raise BinanceRefusal(-1130, f"Data sent for parameter '{name}' is not valid.")
    return found
