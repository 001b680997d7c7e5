"""The risk engine: every scope and lane of a node, and the watch over what no order triggers.

It only refuses and reports: carrying out `Refusal.action` is the caller's work. docs/risk.md explains
each check.
"""

from collections.abc import Callable, Iterable
from typing import Final

from host.api import BookTop, Fill, Instrument, Order, VenuePosition
from host.core.accounting import Holding
from host.core.risk_exposure import Market, OwnOrders, Scope
from host.core.risk_lane import Lane
from host.core.risk_limits import Action, Limits, Refusal, RiskConfig, RiskReason
from host.core.risk_liquidation import judge_distances
from host.core.risk_loss import judge_losses

__all__ = ["Lane", "Refusal", "RiskEngine"]

_NO_LIMITS = Limits()


def _nothing_held(_account: str, _symbol: str) -> VenuePosition | None:
    return None


class RiskEngine:
    """All scopes and lanes of a node.

    `holding(instance, symbol)` returns the live holding that the state's fold keeps. After a restart
    call `order_changed` for every live order, `position_changed` for every holding and `set_kill` for
    every kill switch that is on, then `monitor` once before the first order.
    """

    def __init__(self, config: RiskConfig, holding: Callable[[str, str], Holding]) -> None:
        self.config = config
        self._holding: Final = holding
        self._scopes: dict[str, Scope] = {}
        self._lanes: dict[tuple[str, str, str], Lane] = {}
        self._markets: dict[tuple[str, str], Market] = {}
        self._own_orders: dict[tuple[str, str], OwnOrders] = {}
        self._siblings: dict[tuple[str, str], list[Lane]] = {}
        self._instruments: dict[tuple[str, str], Instrument] = {}
        # Orders and fills that came before anyone said what their symbol is, by instance.
        self._waiting: dict[tuple[str, str], dict[str, dict[str, Order]]] = {}
        self._kills: dict[str, str] = {}
        self._reported: set[tuple[RiskReason, str, str, str]] = set()

    # -- lanes -----------------------------------------------------------------------------------

    def lane(self, instance: str, account: str, instrument: Instrument) -> Lane:
        """Return the lane, made on first use with the position and orders known so far."""
        key = (instance, account, instrument.symbol)
        lane = self._lanes.get(key)
        if lane is not None:
            return lane
        place = (account, instrument.symbol)
        self._instruments.setdefault(place, instrument)
        lane = self._lanes[key] = Lane(
            instance,
            account,
            instrument,
            self._scopes_of(*key),
            self._markets.setdefault(place, Market()),
            self._own_orders.setdefault(place, OwnOrders()),
            self._holding(instance, instrument.symbol),
            self._siblings.setdefault(place, []),
        )
        lane.siblings.append(lane)
        lane.killed = self._killed(lane)
        lane.position_changed()
        for other, orders in self._waiting.pop(place, {}).items():
            for order in orders.values():
                self.lane(other, account, instrument).order_changed(order)
            self.position_changed(other, account, instrument.symbol)
        return lane

    def take_instrument(self, account: str, instrument: Instrument) -> None:
        """Check the next order of a symbol by other terms; what it is a contract on stays the same."""
        self._instruments[account, instrument.symbol] = instrument
        for lane in self._lanes.values():
            if lane.account == account and lane.symbol == instrument.symbol:
                lane.instrument = instrument
                lane.killed = self._killed(lane)

    def lanes(self, scope: str = "node") -> list[Lane]:
        """Return the lanes inside a scope: whose orders to cancel when it is killed."""
        return [lane for lane in self._lanes.values() if any(s.key == scope for s in lane.scopes)]

    def needs_positions(self, account: str) -> bool:
        """Return whether a limit is judged by what the venue says of the account's positions."""
        return any(
            lane.account == account and lane.liquidation_scope is not None for lane in self._lanes.values()
        )

    def _scopes_of(self, instance: str, account: str, symbol: str) -> tuple[Scope, ...]:
        keys = (f"instance:{instance}", f"symbol:{symbol}", f"account:{account}", "node")
        return tuple(self._scopes.setdefault(key, Scope(key, self._limits(key))) for key in keys)

    def _limits(self, scope: str) -> Limits:
        kind, _, name = scope.partition(":")
        config = self.config
        named = {"instance": config.instances, "symbol": config.symbols, "account": config.accounts}
        return named[kind].get(name, _NO_LIMITS) if name else config.node

    # -- other limits ----------------------------------------------------------------------------

    def set_config(self, config: RiskConfig, orders: Iterable[Order]) -> None:
        """Hold the next order to other limits. `orders` are all live orders.

        Positions, open orders and the orders of the last second go on counting. Call `monitor` next:
        it reports every breach of the scopes whose limits changed, the lasting ones once more.
        """
        self.config = config
        changed = {key for key, scope in self._scopes.items() if scope.limits != self._limits(key)}
        self._reported = {breach for breach in self._reported if breach[1] not in changed}
        for key, scope in self._scopes.items():
            scope.take_limits(self._limits(key))
        for lane in self._lanes.values():
            lane.take_limits()
        # Every lane first: what it counts is shared with the others.
        for lane in self._lanes.values():
            lane.position_changed()
        for order in orders:
            self.order_changed(order)

    # -- upkeep ----------------------------------------------------------------------------------

    def order_changed(self, order: Order) -> None:
        """Follow a new, changed or finished order; calling it again changes nothing."""
        lane = self._lanes.get((order.instance, order.account, order.symbol))
        if lane is None:
            lane = self._late_lane(order.instance, order.account, order.symbol)
        if lane is not None:
            lane.order_changed(order)
        else:
            waiting = self._waiting.setdefault((order.account, order.symbol), {})
            waiting.setdefault(order.instance, {})[order.client_id] = order

    def filled(self, fill: Fill) -> None:
        """Follow a fill that the holding already counts."""
        self.position_changed(fill.instance, fill.account, fill.symbol)

    def position_changed(self, instance: str, account: str, symbol: str) -> None:
        """Follow a holding; calling it again changes nothing."""
        lane = self._lanes.get((instance, account, symbol)) or self._late_lane(instance, account, symbol)
        if lane is not None:
            lane.position_changed()
        else:
            self._waiting.setdefault((account, symbol), {}).setdefault(instance, {})

    def _late_lane(self, instance: str, account: str, symbol: str) -> Lane | None:
        instrument = self._instruments.get((account, symbol))
        return None if instrument is None else self.lane(instance, account, instrument)

    # -- the kill switch -------------------------------------------------------------------------

    def set_kill(self, scope: str, is_on: bool, reason: str) -> None:
        """Refuse all new orders of `scope` (`node`, `account:NAME`, ...), or allow them again."""
        if is_on:
            self._kills[scope] = reason
        else:
            self._kills.pop(scope, None)
        for lane in self._lanes.values():
            lane.killed = self._killed(lane)

    def kill_reason(self, scope: str) -> str | None:
        """Return why the kill switch of `scope` itself is on, or None while it is off."""
        return self._kills.get(scope)

    def _killed(self, lane: Lane) -> Refusal | None:
        for scope in reversed(lane.scopes):
            reason = self._kills.get(scope.key)
            if reason is not None:
                text = f"the kill switch of {scope.title} is on: {reason}"
                return Refusal(
                    RiskReason.KILL_SWITCH, scope.key, text, Action.REFUSE, lane.instance, lane.symbol
                )
        if not lane.instrument.is_trading:
            text = f"the venue of account {lane.account} takes no orders for {lane.symbol} at present"
            scope_key = f"symbol:{lane.symbol}"
            return Refusal(RiskReason.NOT_TRADING, scope_key, text, Action.REFUSE, lane.instance, lane.symbol)
        return None

    # -- the watch -------------------------------------------------------------------------------

    def monitor(
        self,
        now_ns: int,
        top: Callable[[str, str], BookTop | None],
        held: Callable[[str, str], VenuePosition | None] = _nothing_held,
    ) -> list[Refusal]:
        """Value everything at the market and return the breaches that began since the last call.

        Call it about once a second. `top(account, symbol)` is the latest top of book, `held(account, symbol)`
        the venue's position as it was last told. Inventory, daily loss and the distance to liquidation are as
        of the last call; until the next, orders are judged by that.
        """
        for (account, symbol), market in self._markets.items():
            market.top = top(account, symbol)
        for scope in self._scopes.values():
            for inventory in scope.inventories.values():
                inventory.revalue()
        lanes = list(self._lanes.values())
        breaches = judge_losses(self._scopes.values(), lanes)
        breaches += judge_distances(lanes, held)
        for lane in lanes:
            stale = lane.check_age(now_ns)
            if stale is not None:
                breaches.append(stale)
        found = {(b.reason, b.scope, b.instance, b.symbol): b for b in breaches}
        began = [breach for key, breach in found.items() if key not in self._reported]
        self._reported = set(found)
        return began
