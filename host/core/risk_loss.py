"""The daily loss of each scope: profit since the start of the UTC day, in the limit's currency."""

from collections.abc import Iterable, Sequence
from decimal import Decimal

from host.core.accounting import EXACT, Holding, total
from host.core.risk_exposure import Scope, mid_of
from host.core.risk_lane import Lane
from host.core.risk_limits import Refusal, RiskReason

__all__ = ["judge_losses"]

_ONE = Decimal(1)


def judge_losses(scopes: Iterable[Scope], lanes: Sequence[Lane]) -> list[Refusal]:
    """Set `loss_fault` of every scope with a loss limit and return the breaches.

    A profit that cannot be told, for want of a price, counts as a fault: the scope then refuses what
    adds risk with `NO_REFERENCE` until it can.
    """
    breaches = []
    # One pass over the lanes: scopes × lanes would hold up the event loop where there are many of both.
    profits: dict[Scope, list[tuple[Lane, Decimal | None]]] = {}
    for lane in lanes:
        if lane.loss_scopes:
            profit = _day_profit(lane)
            if profit != 0:
                for scope in lane.loss_scopes:
                    profits.setdefault(scope, []).append((lane, profit))
    for scope in scopes:
        limit = scope.limits.daily_loss
        if limit is None:
            continue
        scope.loss_fault = None
        loss = 0.0
        for lane, profit in profits.get(scope, ()):
            rate = _rate(lane.instrument.settle, limit.currency, lanes)
            if profit is None or rate is None:
                if scope.loss_fault is not None:
                    continue
                missing = f"price of {lane.symbol}"
                if profit is not None:
                    missing = f"rate of {lane.instrument.settle} in {limit.currency}"
                scope.loss_fault = (
                    RiskReason.NO_REFERENCE,
                    f"the day's profit of {lane.instance} in {lane.symbol}, part of {scope.title}, cannot be "
                    f"told in {limit.currency}: there is no {missing}",
                )
                continue
            loss -= float(profit) * rate
        # A loss already too large is no smaller for what could not be told.
        if loss > float(limit.amount):
            scope.loss_fault = (
                RiskReason.DAILY_LOSS,
                f"daily loss {loss:.2f} {limit.currency} exceeds max_daily_loss {limit} of {scope.title}",
            )
        if scope.loss_fault is not None:
            breaches.append(scope.refuse(*scope.loss_fault))
    return breaches


def _day_profit(lane: Lane) -> Decimal | None:
    """Return the profit since the day's start in settlement currency, or None without a price for it."""
    holding = lane.holding
    if not holding.fills and not holding.qty:
        return Decimal(0)
    mid = mid_of(lane.market.top)
    if mid is None and _needs_mark(holding, lane.instrument.settle):
        return None
    mark = _ONE if mid is None else Decimal(repr(mid))
    return EXACT.subtract(total(holding, lane.instrument, mark), holding.day_start)


def _needs_mark(holding: Holding, settle: str) -> bool:
    return bool(holding.qty) or any(currency != settle for currency in holding.fees)


def _rate(currency: str, into: str, lanes: Sequence[Lane]) -> float | None:
    """Return what one unit of `currency` is worth, by the mid of a symbol that trades the two."""
    if currency == into:
        return 1.0
    for lane in lanes:
        pair = (lane.instrument.base, lane.instrument.quote)
        mid = mid_of(lane.market.top)
        if mid is None:
            continue
        if pair == (currency, into):
            return mid
        if pair == (into, currency):
            return 1.0 / mid
    return None
