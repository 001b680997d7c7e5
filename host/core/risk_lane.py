"""The risk checks before each order.

A `Lane` is one instance's way to one symbol on one account, with the limits of its four scopes merged
beforehand, so that checking an order compares a dozen numbers. docs/risk.md explains each check.
"""

from decimal import Decimal
from typing import Any, Final

from host.api import BookTop, Instrument, InstrumentKind, Order, Side
from host.core.accounting import EXACT, Holding
from host.core.risk_exposure import Market, OwnOrders, RateWindow, Scope, exposed_qty
from host.core.risk_limits import Action, Refusal, RiskReason, SelfTrade

__all__ = ["Lane"]

_ZERO = Decimal(0)
_UNLIMITED = Decimal("Infinity")
_INFINITY = float("inf")
_BUY = Side.BUY
_add, _subtract, _multiply = EXACT.add, EXACT.subtract, EXACT.multiply


class Lane:
    """The checks of one instance's orders in one symbol on one account; made by `RiskEngine.lane`."""

    # Past 30 attributes an object keeps them in a dictionary of its own, which every check would read.
    __slots__ = (
        "_collar",
        "_collar_bps",
        "_collar_scope",
        "_counted",
        "_exposures",
        "_highest_buy",
        "_inventories",
        "_is_inverse",
        "_judged_mid",
        "_judged_ns",
        "_judged_top",
        "_live",
        "_lowest_sell",
        "_max_age_ns",
        "_max_age_scope",
        "_max_notional",
        "_max_notional_scope",
        "_max_qty",
        "_max_qty_scope",
        "_near_notional",
        "_needs_price",
        "_own",
        "_own_orders",
        "_pair_collar",
        "_pair_notional",
        "_pair_price",
        "_passed_estimate",
        "_passed_qty",
        "_positions",
        "_rate_windows",
        "_rates",
        "_refuses_self_trade",
        "_self_trade_scope",
        "_size",
        "_unit",
        "account",
        "holding",
        "instance",
        "instrument",
        "inventory_ratio",
        "killed",
        "liquidation_fault",
        "liquidation_scope",
        "loss_scopes",
        "market",
        "max_position",
        "position",
        "scopes",
        "siblings",
        "symbol",
    )

    def __init__(
        self,
        instance: str,
        account: str,
        instrument: Instrument,
        scopes: tuple[Scope, ...],
        market: Market,
        own_orders: OwnOrders,
        holding: Holding,
        siblings: "list[Lane]",
    ) -> None:
        self.instance: Final = instance
        self.account: Final = account
        self.instrument = instrument
        self.symbol: Final = instrument.symbol
        self.scopes: Final = scopes
        self.market: Final = market
        self.holding: Final = holding
        self.killed: Refusal | None = None
        """The answer to every order while a kill switch above this lane is on, or the symbol does not trade."""
        self.siblings: Final = siblings
        """All lanes to this symbol on this account, this one among them: the venue has one position of them all."""
        self._own_orders = own_orders
        self.take_limits()

    def take_limits(self) -> None:
        """Hold to the limits that the scopes have now, and count anew: nothing is open or held yet."""
        scopes, instrument, market = self.scopes, self.instrument, self.market
        self.position = _ZERO
        self.inventory_ratio = 0.0
        """Position / strictest position limit, −1 to 1; 0 without a limit."""
        self._live: dict[str, Decimal] = {}
        self._passed_qty: Decimal | None = None
        self._passed_estimate = 0.0
        self._pair_price = 0.0
        """Up to here the passed quantity is worth no more than allowed, by a margin for estimates."""
        self._judged_top: BookTop | None = None
        self._judged_ns = -1
        self._judged_mid = 0.0
        self._highest_buy = _INFINITY
        self._lowest_sell = 0.0
        self.liquidation_fault: Refusal | None = None
        """The answer to orders that do not reduce the account's position, since the last look at its distance."""
        self._own = scopes[0].exposure(instrument, market)
        self._exposures = [self._own]
        for scope in scopes[1:]:
            if scope.limits.max_position is not None or scope.counts_inventory:
                self._exposures.append(scope.exposure(instrument, market))
        self._merge_limits(scopes)

    def _merge_limits(self, scopes: tuple[Scope, ...]) -> None:
        instrument, market = self.instrument, self.market
        self._max_qty, self._max_qty_scope = _strictest(scopes, "max_order_qty", _UNLIMITED)
        self._max_notional, self._max_notional_scope = _strictest(scopes, "max_order_notional", None)
        self._is_inverse = instrument.kind is InstrumentKind.INVERSE
        self._size = None if instrument.contract_size == 1 else instrument.contract_size
        self._collar_bps, self._collar_scope = _strictest(scopes, "price_collar_bps", _INFINITY)
        self._collar = self._collar_bps * 1e-4
        self._near_notional = (
            _INFINITY if self._max_notional is None else float(self._max_notional) * (1 - 1e-9)
        )
        # A pair is judged by estimates, which are good to 1e-15: it keeps clear of the limits by more.
        self._pair_collar = self._collar - 1e-12
        self._pair_notional = self._near_notional * (1 - 1e-12)
        self._unit = float(instrument.contract_size)
        max_age_ms, self._max_age_scope = _strictest(scopes, "max_data_age_ms", _INFINITY)
        self._max_age_ns = max_age_ms * 1_000_000
        self.max_position: Decimal | None = _strictest(scopes, "max_position", None)[0]
        """The strictest position limit, for inventory ratios; None without one."""
        self.loss_scopes = [s for s in scopes if s.limits.max_daily_loss is not None]
        """The scopes that limit this lane's daily loss."""
        distances = [s for s in scopes if s.limits.min_liquidation_distance_bps is not None]
        self.liquidation_scope = max(
            distances, key=lambda s: s.limits.min_liquidation_distance_bps or 0.0, default=None
        )
        """The scope that asks for the largest distance to liquidation; None without such a limit."""
        self._positions = [
            (scope.exposure(instrument, market), limit, limit.copy_negate(), scope)
            for scope in scopes
            if (limit := scope.limits.max_position) is not None
        ]
        self._inventories = [
            (
                scope.exposure(instrument, market),
                float(scope.limits.max_inventory_notional or _INFINITY),
                scope.limits.max_concentration or _INFINITY,
                float(scope.limits.concentration_floor),
                scope,
            )
            for scope in scopes
            if scope.counts_inventory
        ]
        self._counted = [
            (s, s.limits.max_open_orders) for s in scopes if s.limits.max_open_orders is not None
        ]
        self._rates = [(s.rate, s) for s in scopes if s.rate is not None]
        self._rate_windows = tuple(rate for rate, _ in self._rates)
        said = [scope for scope in scopes if scope.limits.self_trade is not None]
        refusing = [scope for scope in said if scope.limits.self_trade is SelfTrade.REFUSE]
        self._refuses_self_trade = not said or bool(refusing)
        self._self_trade_scope = refusing[0] if refusing else scopes[0]
        self._needs_price = bool(
            self._inventories or self._collar_bps < _INFINITY or self._max_age_ns < _INFINITY
        )

    # -- the checks ------------------------------------------------------------------------------

    def check(
        self,
        side: Side,
        price: Decimal | None,
        qty: Decimal,
        top: BookTop | None,
        now_ns: int,
        replaces: Order | None = None,
        is_closing: bool = False,
        is_post_only: bool = False,
    ) -> Refusal | None:
        """Return None if the order may go, and count it against the order rate; else say why not.

        `price` is None for a market order, which is judged at the price it would take first. For an
        amend, `replaces` is the order as it is now and `qty` what is to remain open. `is_closing`
        marks the host's own orders that flatten a position: they pass every limit and the kill
        switch, as long as they only reduce.
        """
        is_buy = side is _BUY
        if is_closing:
            return self._check_closing(is_buy, qty)
        self.market.top = top
        if self.killed is not None:
            return self.killed
        added = qty if replaces is None else _subtract(qty, exposed_qty(replaces))
        for scope in self.loss_scopes:
            if scope.loss_fault is not None and not self._reduces(is_buy, added):
                return self._refuse(scope, *scope.loss_fault)
        if self.liquidation_fault is not None and not self._reduces_account(is_buy, added):
            return self.liquidation_fault

        is_market = price is None
        if is_market or self._needs_price:
            # Both sides of a quote are judged against the same market: look at it once.
            if top is not self._judged_top or now_ns != self._judged_ns:
                refusal = self._judge_market(top, now_ns)
                if refusal is not None:
                    return refusal
            assert top is not None
            if price is None:
                price = Decimal(repr(top.ask if is_buy else top.bid))
            price_estimate = float(price)
            if is_buy:
                if price_estimate > self._highest_buy:
                    return self._refuse_collar("buy", "above", price, top.mid)
            elif price_estimate < self._lowest_sell:
                return self._refuse_collar("sell", "below", price, top.mid)
        else:
            price_estimate = float(price)  # type: ignore[arg-type]  # not a market order, so not None
        assert price is not None

        if qty != self._passed_qty:  # strategies send the same quantity again and again
            if qty > self._max_qty or qty <= 0:
                return self._refuse_qty(qty)
            self._passed_qty = qty
            self._passed_estimate = float(qty) * self._unit
            # So small that it is 0 as a float? Then the pair's way is not for it.
            self._pair_price = self._pair_notional / self._passed_estimate if self._passed_estimate else 0.0
        # An estimate settles it, unless it comes near the limit: then the exact product does.
        if (1.0 if self._is_inverse else price_estimate) * self._passed_estimate > self._near_notional:
            notional = qty if self._is_inverse else _multiply(price, qty)
            if self._size is not None:
                notional = _multiply(notional, self._size)
            if notional > self._max_notional:
                return self._refuse_notional(notional)
        if self._refuses_self_trade and not is_post_only:
            own = self._own_orders.best_ask if is_buy else self._own_orders.best_bid
            if own is not None:
                if price >= own if is_buy else price <= own:
                    return self._refuse_self_trade(side, price, own)
                if is_market and top is not None and float(qty) > (top.ask_size if is_buy else top.bid_size):
                    return self._refuse_self_trade(side, None, own)

        if added is not _ZERO and added > 0:
            for exposure, highest, lowest, scope in self._positions:
                if is_buy:
                    if _add(exposure.longest, added) > highest:
                        return self._refuse_position(scope, _add(exposure.longest, added))
                elif _subtract(exposure.shortest, added) < lowest:
                    return self._refuse_position(scope, _subtract(exposure.shortest, added))
            if self._inventories:
                mid = 0.0 if top is None else top.mid
                refusal = self._check_inventories(is_buy, float(added), mid)
                if refusal is not None:
                    return refusal
        if replaces is None:
            for scope, max_open in self._counted:
                if scope.open_orders >= max_open:
                    return self._refuse_open_orders(scope)
        return self._count_rate(now_ns)

    def check_reprice(self, order: Order, price: Decimal, top: BookTop | None, now_ns: int) -> Refusal | None:
        """Return None if a resting post-only order may move to `price`, its quantity unchanged.

        The same answer as `check` gives, by those of its checks that a new price alone can fail:
        this is what a market maker asks most.
        """
        self.market.top = top
        if self.killed is not None:
            return self.killed
        if self._needs_price:
            if top is not self._judged_top or now_ns != self._judged_ns:
                refusal = self._judge_market(top, now_ns)
                if refusal is not None:
                    return refusal
            estimate = float(price)
            if order.side is _BUY:
                if estimate > self._highest_buy:
                    return self._refuse_collar("buy", "above", price, self._judged_mid)
            elif estimate < self._lowest_sell:
                return self._refuse_collar("sell", "below", price, self._judged_mid)
        else:
            estimate = float(price)
        qty = order.qty
        if qty != self._passed_qty or estimate * self._passed_estimate > self._near_notional:
            return self.check(order.side, price, qty, top, now_ns, order, is_post_only=True)
        return self._count_rate(now_ns)

    def pass_repriced_pair(
        self, buy_estimate: float, sell_estimate: float, qty: Decimal, top: BookTop, now_ns: int
    ) -> bool:
        """Let a resting post-only buy and sell move to new prices, their quantities unchanged.

        True means what `check_reprice` of the one and then of the other would have come to, in one
        look. False means that nothing was counted, not that an order is refused: ask for one after
        the other, which also says why. The estimates are the prices to within float noise: reading
        a Decimal as a float would cost more than all else here.
        """
        self.market.top = top
        bid = top.bid
        ask = top.ask
        mid = (bid + ask) * 0.5
        reach = mid * self._pair_collar
        if (
            self.killed is not None
            # What is no number, or has no end, fails one of these.
            or not (0.0 < bid < ask and mid - reach <= sell_estimate <= self._pair_price)
            or buy_estimate > mid + reach
            or buy_estimate > sell_estimate
            or now_ns - top.ts_recv > self._max_age_ns
            or qty != self._passed_qty
        ):
            return False
        for rate in self._rate_windows:
            if not rate.take_two(now_ns):
                self._give_back_two(rate)
                return False
        return True

    def forget_last(self) -> None:
        """Take the order that passed last out of the order rates: it was asked about, not sent."""
        for rate, _ in self._rates:
            rate.give_back()

    def _give_back_two(self, full: RateWindow) -> None:
        for rate in self._rate_windows:
            if rate is full:
                return
            rate.give_back()
            rate.give_back()

    def _count_rate(self, now_ns: int) -> Refusal | None:
        """Count one order against every rate, or against none and say which is used up."""
        rates = self._rates
        for index, (rate, scope) in enumerate(rates):
            if not rate.take(now_ns):
                for taken, _ in rates[:index]:
                    taken.give_back()
                return self._refuse_rate(scope)
        return None

    def _judge_market(self, top: BookTop | None, now_ns: int) -> Refusal | None:
        """Return what is wrong with the market data, or set the bounds that prices must keep to."""
        if top is None or not (0.0 < top.bid < _INFINITY and 0.0 < top.ask < _INFINITY):
            return self._refuse_no_price(top)
        if now_ns - top.ts_recv > self._max_age_ns:
            return self._refuse_stale(top, now_ns)
        mid = (top.bid + top.ask) * 0.5
        self._highest_buy = mid + mid * self._collar
        self._lowest_sell = mid - mid * self._collar
        self._judged_top, self._judged_ns, self._judged_mid = top, now_ns, mid
        return None

    def _check_closing(self, is_buy: bool, qty: Decimal) -> Refusal | None:
        if self._reduces(is_buy, qty) and qty > 0:
            return None
        text = (
            f"closing qty {qty:f} is more than the {self.closable(_BUY if is_buy else Side.SELL):f} that "
            f"position {self.position:f} and its open orders leave to close in {self.symbol}; "
            "cancel those orders first"
        )
        return Refusal(
            RiskReason.POSITION, self.scopes[0].key, text, Action.REFUSE, self.instance, self.symbol
        )

    def _check_inventories(self, is_buy: bool, added: float, mid: float) -> Refusal | None:
        for exposure, max_total, max_share, floor, scope in self._inventories:
            worst = exposure.long_estimate + added if is_buy else added - exposure.short_estimate
            if worst <= exposure.worst:
                continue  # it reduces, or stays within what is at stake on the other side
            inventory = exposure.inventory
            assert inventory is not None
            if inventory.unpriced and inventory.unpriced != {self.symbol}:
                return self._refuse_unpriced(scope, inventory.unpriced)
            notional = worst * exposure.unit_value(mid)
            in_all = inventory.total - exposure.notional + notional
            if in_all > max_total:
                return self._refuse_inventory(scope, in_all)
            if in_all > floor and notional > max_share * in_all:
                return self._refuse_concentration(scope, notional / in_all)
        return None

    def _reduces(self, is_buy: bool, added: Decimal) -> bool:
        if is_buy:
            return added <= 0 or _add(self._own.longest, added) <= 0
        return added <= 0 or _subtract(self._own.shortest, added) >= 0

    def _reduces_account(self, is_buy: bool, added: Decimal) -> bool:
        """Return whether the account's position cannot grow or turn by this, whatever of its side fills first."""
        if added <= 0:
            return True
        own = self._own_orders.buys if is_buy else self._own_orders.sells
        for lane in self.siblings:
            added = _add(added, lane.position if is_buy else lane.position.copy_negate())
        for order in own.values():
            added = _add(added, exposed_qty(order))
        return added <= 0

    def closable(self, side: Side) -> Decimal:
        """Return how much an order of `side` may close of the position beyond what open orders may."""
        return max(_ZERO, self._own.longest.copy_negate() if side is _BUY else self._own.shortest)

    # -- upkeep ----------------------------------------------------------------------------------

    def order_changed(self, order: Order) -> None:
        """Follow a new, changed or finished order; calling it again changes nothing."""
        client_id = order.client_id
        remaining = _ZERO if order.status.is_terminal else exposed_qty(order)
        before = self._live.get(client_id)
        is_open = remaining > 0
        if is_open:
            self._live[client_id] = remaining
            if before is None:
                before = _ZERO
                for scope, _ in self._counted:
                    scope.open_orders += 1
        elif before is None:
            return
        else:
            remaining = _ZERO
            del self._live[client_id]
            for scope, _ in self._counted:
                scope.open_orders -= 1
        change = _subtract(remaining, before)
        is_buy = order.side is _BUY
        if change:
            for exposure in self._exposures:
                if is_buy:
                    exposure.move(change, _ZERO)
                else:
                    exposure.move(_ZERO, change.copy_negate())
        own = self._own_orders.buys if is_buy else self._own_orders.sells
        if is_open:
            own[client_id] = order
        else:
            own.pop(client_id, None)

    def position_changed(self) -> None:
        """Follow the holding; calling it again changes nothing."""
        change = _subtract(self.holding.qty, self.position)
        if change:
            self.position = self.holding.qty
            if self.max_position is not None:
                ratio = float(self.position) / float(self.max_position)
                self.inventory_ratio = min(1.0, max(-1.0, ratio))
            for exposure in self._exposures:
                exposure.move(change, change)

    # -- what the engine watches -----------------------------------------------------------------

    def check_age(self, now_ns: int) -> Refusal | None:
        """Return a refusal if orders rest on market data that is too old, or missing."""
        if not self._live or self._max_age_ns == _INFINITY:
            return None
        top = self.market.top
        if top is not None and now_ns - top.ts_recv <= self._max_age_ns:
            return None
        return self._refuse_stale(top, now_ns)

    # -- the words -------------------------------------------------------------------------------

    def _refuse(self, scope: Scope, reason: RiskReason, detail: str) -> Refusal:
        return scope.refuse(reason, detail, self.instance, self.symbol)

    def _refuse_no_price(self, top: BookTop | None) -> Refusal:
        found = "none yet" if top is None else f"bid {top.bid:g}, ask {top.ask:g}"
        detail = f"the checks of {self.symbol} need a bid and an ask, was {found}; wait for market data"
        return self._refuse(self._collar_scope, RiskReason.NO_REFERENCE, detail)

    def _refuse_unpriced(self, scope: Scope, symbols: set[str]) -> Refusal:
        names = ", ".join(sorted(symbols))
        detail = f"the inventory of {scope.title} cannot be valued: no price yet of {names}"
        return self._refuse(scope, RiskReason.NO_REFERENCE, detail)

    def _refuse_stale(self, top: BookTop | None, now_ns: int) -> Refusal:
        age = "missing" if top is None else f"{(now_ns - top.ts_recv) / 1e6:.1f} ms old"
        scope = self._max_age_scope
        detail = (
            f"top of book of {self.symbol} is {age}, max_data_age_ms is {scope.limits.max_data_age_ms} "
            f"for {scope.title}"
        )
        return self._refuse(scope, RiskReason.STALE_DATA, detail)

    def _refuse_collar(self, side: str, where: str, price: Decimal, mid: float) -> Refusal:
        away = abs(float(price) / mid - 1.0) * 1e4
        detail = (
            f"{side} price {price:f} is {away:.1f} bps {where} the mid {mid:g}, price_collar_bps is "
            f"{self._collar_bps:g} for {self._collar_scope.title}"
        )
        return self._refuse(self._collar_scope, RiskReason.PRICE_COLLAR, detail)

    def _refuse_qty(self, qty: Decimal) -> Refusal:
        scope = self._max_qty_scope
        detail = f"order qty {qty:f} exceeds max_order_qty {self._max_qty:f} of {scope.title}"
        if qty <= 0:
            detail = f"order qty must be above 0, was {qty:f}"
        return self._refuse(scope, RiskReason.ORDER_QTY, detail)

    def _refuse_notional(self, notional: Decimal) -> Refusal:
        scope = self._max_notional_scope
        quote = self.instrument.quote
        detail = (
            f"order notional {_money(notional)} {quote} exceeds max_order_notional {self._max_notional:f} "
            f"{quote} of {scope.title}"
        )
        return self._refuse(scope, RiskReason.ORDER_NOTIONAL, detail)

    def _refuse_self_trade(self, side: Side, price: Decimal | None, own: Decimal) -> Refusal:
        what = f"{side} at {price:f}" if price is not None else f"market {side} beyond the best level"
        detail = (
            f"{what} may cross our own {side.opposite} resting at {own:f} in {self.symbol} on account "
            f"{self.account}"
        )
        return self._refuse(self._self_trade_scope, RiskReason.SELF_TRADE, detail)

    def _refuse_position(self, scope: Scope, worst: Decimal) -> Refusal:
        detail = (
            f"position in {self.symbol} could become {worst:f}, beyond max_position "
            f"{scope.limits.max_position:f} of {scope.title}"
        )
        return self._refuse(scope, RiskReason.POSITION, detail)

    def _refuse_inventory(self, scope: Scope, notional: float) -> Refusal:
        quote = self.instrument.quote
        detail = (
            f"inventory notional could become {notional:.2f} {quote}, beyond max_inventory_notional "
            f"{scope.limits.max_inventory_notional:f} {quote} of {scope.title}"
        )
        return self._refuse(scope, RiskReason.INVENTORY_NOTIONAL, detail)

    def _refuse_concentration(self, scope: Scope, share: float) -> Refusal:
        detail = (
            f"{self.symbol} could become {share:.3f} of the inventory, beyond max_concentration "
            f"{scope.limits.max_concentration:g} of {scope.title}"
        )
        return self._refuse(scope, RiskReason.CONCENTRATION, detail)

    def _refuse_open_orders(self, scope: Scope) -> Refusal:
        detail = (
            f"{scope.open_orders} orders are open, max_open_orders is {scope.limits.max_open_orders} "
            f"for {scope.title}"
        )
        return self._refuse(scope, RiskReason.OPEN_ORDERS, detail)

    def _refuse_rate(self, scope: Scope) -> Refusal:
        limit = scope.limits.max_orders_per_second
        detail = f"{limit} orders were sent within the last second, max_orders_per_second is {limit} for "
        return self._refuse(scope, RiskReason.ORDER_RATE, detail + scope.title)


def _strictest(scopes: tuple[Scope, ...], name: str, without: Any) -> tuple[Any, Scope]:
    """Return the smallest limit of that name and the narrowest scope that sets it."""
    values = [(getattr(scope.limits, name), scope) for scope in scopes]
    limited = [(value, scope) for value, scope in values if value is not None]
    return min(limited, key=lambda pair: pair[0]) if limited else (without, scopes[0])


def _money(amount: Decimal) -> str:
    return f"{amount:.2f}" if amount >= 1 else f"{amount:f}"
