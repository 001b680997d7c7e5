"""Commands of the host as parameters of Binance's requests."""

from typing import Final

from host.api import AmendOrder, CancelOrder, OrderType, PlaceOrder, Side, TimeInForce

from .._shared.venue_clock import Window
from .signed import Params

__all__ = ["MOST_WINDOW_MS", "amend_params", "cancel_params", "place_params", "window_params"]

MOST_WINDOW_MS: Final = 60_000
"""The venue refuses a larger `recvWindow`."""

_SIDES: Final = {Side.BUY: "BUY", Side.SELL: "SELL"}
_TIMES: Final = {TimeInForce.GTC: "GTC", TimeInForce.IOC: "IOC", TimeInForce.FOK: "FOK"}


def window_params(window: Window) -> Params:
    """Return `recvWindow` and `timestamp`: the venue accepts until `timestamp + recvWindow` of its time."""
    return {"recvWindow": min(window.width_ms, MOST_WINDOW_MS), "timestamp": window.sent_ms}


def place_params(order: PlaceOrder, wire: str, window: Window, *, is_spot: bool) -> Params:
    """Return the parameters of a new order, names in order.

    Post-only is the type `LIMIT_MAKER` on spot and the time in force `GTX` on USDⓈ-M. The answer asked for
    is the shortest: what becomes of the order is told by the private stream.
    """
    is_maker_type = order.post_only and is_spot
    params: Params = {"newClientOrderId": order.client_id, "newOrderRespType": "ACK"}
    if order.price is not None:
        params["price"] = f"{order.price:f}"
    params["quantity"] = f"{order.qty:f}"
    params["recvWindow"] = min(window.last_ms - window.sent_ms, MOST_WINDOW_MS)
    if order.reduce_only and not is_spot:
        params["reduceOnly"] = "true"
    params["side"] = _SIDES[order.side]
    params["symbol"] = wire
    if order.type is OrderType.LIMIT and not is_maker_type:
        params["timeInForce"] = "GTX" if order.post_only else _TIMES[order.time_in_force]
    params["timestamp"] = window.sent_ms
    params["type"] = (
        "MARKET" if order.type is OrderType.MARKET else "LIMIT_MAKER" if is_maker_type else "LIMIT"
    )
    return params


def amend_params(amend: AmendOrder, wire: str, window: Window) -> Params:
    """Return the parameters of a USDⓈ-M amend: price and quantity both, the executed part included."""
    return {
        "origClientOrderId": amend.client_id,
        "price": f"{amend.price:f}",
        "quantity": f"{amend.qty:f}",
        "recvWindow": min(window.last_ms - window.sent_ms, MOST_WINDOW_MS),
        "side": _SIDES[amend.side],
        "symbol": wire,
        "timestamp": window.sent_ms,
    }


def cancel_params(cancel: CancelOrder, wire: str, window: Window) -> Params:
    """Return the parameters of a cancel, by client id."""
    return {
        "origClientOrderId": cancel.client_id,
        "recvWindow": min(window.last_ms - window.sent_ms, MOST_WINDOW_MS),
        "symbol": wire,
        "timestamp": window.sent_ms,
    }
