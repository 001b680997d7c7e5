"""What a caller may do to a node's trading: orders by hand, stops, and risk limits.

Each method runs within the turn that the front opened for it: what it does and the answer for its
request id are one journal write.
"""

from typing import Any

from host.api import OrderRequest, OrderType, TimeInForce
from host.control.call import Call
from host.control.convert_limits import changed_limits, limits_etag, limits_message
from host.control.convert_trading import (
    SIDES,
    TIMES_IN_FORCE,
    TYPES,
    decimal_of,
    enum_of,
    order_etag,
    order_message,
)
from host.control.etags import check_etag
from host.control.names import id_of, read_scope, scope_name
from host.control.plain import plain
from host.control.reasons import Refused, Violation
from host.control.subject import HasEngine
from host.control.trading_lists import limits_scope
from host.core.hand import hand_of
from host.runtime.engine import Engine
from host.runtime.scope import check_scope
from host.runtime.stops import NotStopped
from tandem.v1 import trading_pb2 as pb

__all__ = ["TradingByHand"]


class TradingByHand:
    """The methods of `TradingService` that change something."""

    def __init__(self, subject: HasEngine) -> None:
        self._subject = subject

    @property
    def _engine(self) -> Engine:
        return self._subject.engine

    # -- orders ------------------------------------------------------------------------------------

    def place_order(self, request: pb.PlaceOrderRequest, call: Call) -> pb.PlaceOrderResponse:
        """Send one order."""
        account = id_of("account", request.account, "accounts")
        if not request.symbol:
            raise Refused.field("symbol", 'expected a symbol such as "BTC-USDT", was ""')
        qty = decimal_of("qty", request.qty)
        if qty is None:
            raise Refused.field("qty", "expected a multiple of the lot, was none")
        type_ = enum_of("type", request.type, TYPES, OrderType.LIMIT)
        usual = TimeInForce.IOC if type_ is OrderType.MARKET else TimeInForce.GTC
        order = OrderRequest(
            symbol=request.symbol,
            side=enum_of("side", request.side, SIDES),
            qty=qty,
            price=decimal_of("price", request.price),
            type=type_,
            time_in_force=enum_of("time_in_force", request.time_in_force, TIMES_IN_FORCE, usual),
            post_only=request.post_only,
            reduce_only=request.reduce_only,
        )
        by_hand = self._engine.by_hand
        if request.validate_only:
            by_hand.check_place(account, order)
            return pb.PlaceOrderResponse(order=self._would_be(account, order, call))
        placed = order_message(by_hand.place(account, order, call.principal.name))
        call.after = plain(placed)
        return pb.PlaceOrderResponse(order=placed)

    def amend_order(self, request: pb.AmendOrderRequest, call: Call) -> pb.AmendOrderResponse:
        """Change price or quantity of an order that was placed by hand."""
        by_hand = self._engine.by_hand
        client_id = id_of("name", request.name, "orders")
        price, qty = decimal_of("price", request.price), decimal_of("qty", request.qty)
        if price is None and qty is None:
            raise Refused.field("price", "expected a new price, a new qty or both, was neither")
        order = by_hand.find(client_id)
        check_etag(request.name, request.etag, order_etag(order))
        if request.validate_only:
            by_hand.check_amend(client_id, price, qty)
            return pb.AmendOrderResponse(order=order_message(order))
        call.before = plain(order_message(order))
        amended = order_message(by_hand.amend(client_id, price, qty, call.principal.name))
        call.after = plain(amended)
        return pb.AmendOrderResponse(order=amended)

    def cancel_order(self, request: pb.CancelOrderRequest, call: Call) -> pb.CancelOrderResponse:
        """Cancel one order."""
        by_hand = self._engine.by_hand
        client_id = id_of("name", request.name, "orders")
        reason = call.because(request.reason)
        order = by_hand.find(client_id)
        check_etag(request.name, request.etag, order_etag(order))
        if request.validate_only:
            return pb.CancelOrderResponse(order=order_message(by_hand.check_cancel(client_id)))
        call.before = plain(order_message(order))
        cancelled = order_message(by_hand.cancel(client_id, call.principal.name, reason))
        call.after = plain(cancelled)
        return pb.CancelOrderResponse(order=cancelled)

    # -- scopes ------------------------------------------------------------------------------------

    def cancel_all_orders(self, request: pb.CancelAllOrdersRequest, call: Call) -> pb.CancelAllOrdersResponse:
        """Cancel every open order of a scope."""
        scope, reason = read_scope("scope", request.scope), call.because(request.reason)
        stops = self._engine.stops
        if request.validate_only:
            return pb.CancelAllOrdersResponse(cancelled_orders=len(stops.orders_in(scope)))
        call.before = [order.client_id for order in stops.orders_in(scope)]
        return pb.CancelAllOrdersResponse(
            cancelled_orders=stops.cancel_all(scope, call.principal.name, reason)
        )

    def panic_stop(self, request: pb.PanicStopRequest, call: Call) -> pb.PanicStopResponse:
        """Refuse new orders of a scope from here on, and cancel the open ones."""
        cancelled = self._stop(request, call, flatten=False)
        return pb.PanicStopResponse(cancelled_orders=cancelled, stopped_scopes=self._stopped())

    def flatten(self, request: pb.FlattenRequest, call: Call) -> pb.FlattenResponse:
        """Stop a scope and close its positions."""
        closing = [
            f"instances/{position.instance}/positions/{position.symbol}"
            for position in self._engine.safety.flattening.positions(read_scope("scope", request.scope))
        ]
        return pb.FlattenResponse(cancelled_orders=self._stop(request, call, flatten=True), closing=closing)

    def release_panic_stop(
        self, request: pb.ReleasePanicStopRequest, call: Call
    ) -> pb.ReleasePanicStopResponse:
        """Let a scope trade again."""
        scope, reason = read_scope("scope", request.scope), call.because(request.reason)
        stops = self._engine.stops
        check_scope(self._engine, scope)
        try:
            if request.validate_only:
                stops.check_release(scope)
            else:
                call.before = self._stopped()
                stops.release(scope, call.principal.name, reason)
                call.after = self._stopped()
        except NotStopped as error:
            on = ", ".join(self._stopped()) or "none"
            text = f"no kill switch is on for {request.scope}; on are: {on}"
            raise Refused("WRONG_STATE", text, Violation("WRONG_STATE", text)) from error
        return pb.ReleasePanicStopResponse(stopped_scopes=self._stopped())

    def _stop(self, request: pb.PanicStopRequest | pb.FlattenRequest, call: Call, *, flatten: bool) -> int:
        scope, reason = read_scope("scope", request.scope), call.because(request.reason)
        stops = self._engine.stops
        if request.validate_only:
            return len(stops.orders_in(scope))
        call.before = self._stopped()
        asked = stops.panic_stop(scope, call.principal.name, reason, flatten=flatten)
        call.after = self._stopped()
        return asked

    def _stopped(self) -> dict[str, str]:
        """Return why which scopes are stopped, by resource name."""
        return {scope_name(scope): why for scope, why in self._engine.state.kill_switches.items()}

    # -- limits ------------------------------------------------------------------------------------

    def set_risk_limits(self, request: pb.SetRiskLimitsRequest, call: Call) -> pb.SetRiskLimitsResponse:
        """Change risk limits of one scope: all that is asked for, or nothing."""
        settings = self._engine.risk_settings
        scope = limits_scope("limits.name", request.limits.name)
        current = settings.limits(scope)
        check_etag(request.limits.name, request.etag, limits_etag(current))
        wanted = changed_limits(current, request.limits, request.update_mask.paths)
        if not request.validate_only and wanted != current:
            call.before = plain(limits_message(scope, current))
            settings.set(scope, wanted, call.principal.name)
            call.after = plain(limits_message(scope, wanted))
        return pb.SetRiskLimitsResponse(limits=limits_message(scope, wanted))

    # -- inside ------------------------------------------------------------------------------------

    def _would_be(self, account: str, order: OrderRequest, call: Call) -> pb.Order:
        """Return an order that was not placed, without a name and a status."""
        fields: dict[str, Any] = {
            "instance": f"instances/{hand_of(account)}",
            "account": f"accounts/{account}",
            "symbol": order.symbol,
            "side": SIDES[order.side],
            "type": TYPES[order.type],
            "time_in_force": TIMES_IN_FORCE[order.time_in_force],
            "price": "" if order.price is None else f"{order.price:f}",
            "qty": f"{order.qty:f}",
            "filled": "0",
            "post_only": order.post_only,
            "reduce_only": order.reduce_only,
            "level": -1,
            "placed_by": call.principal.name,
        }
        return pb.Order(**fields)
