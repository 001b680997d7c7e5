"""How far each position is from the price at which its venue would close it by force."""

from collections.abc import Callable, Sequence

from host.api import VenuePosition
from host.core.risk_exposure import mid_of
from host.core.risk_lane import Lane
from host.core.risk_limits import Refusal, RiskReason

__all__ = ["judge_distances", "liquidation_distance_bps"]


def judge_distances(lanes: Sequence[Lane], held: Callable[[str, str], VenuePosition | None]) -> list[Refusal]:
    """Set `liquidation_fault` of every lane whose distance is limited and return the breaches.

    The distance is told by what the venue last said of the position and by the mid of now. Where there is no
    mid, what was found before holds on.
    """
    breaches = []
    for lane in lanes:
        scope = lane.liquidation_scope
        if scope is None:
            continue
        position = held(lane.account, lane.symbol)
        if position is None:
            lane.liquidation_fault = None
            continue
        mid = mid_of(lane.market.top)
        if mid is not None:
            least = scope.limits.min_liquidation_distance_bps
            distance = liquidation_distance_bps(position, mid)
            lane.liquidation_fault = None
            if distance is not None and least is not None and distance < least:
                detail = (
                    f"position {position.qty:f} in {lane.symbol} on account {lane.account} is {distance:.1f} bps "
                    f"from its liquidation at {position.liquidation_price:f} (mid {mid:g}), "
                    f"min_liquidation_distance_bps is {least:g} for {scope.title}; reduce the position or add margin"
                )
                lane.liquidation_fault = scope.refuse(
                    RiskReason.LIQUIDATION_DISTANCE, detail, lane.instance, lane.symbol
                )
        if lane.liquidation_fault is not None:
            breaches.append(lane.liquidation_fault)
    return breaches


def liquidation_distance_bps(position: VenuePosition, mid: float) -> float | None:
    """Return how far `mid` may move against the position before it is liquidated, as a part of `mid`.

    Below 0 where it is already beyond; None without a position or where the venue names no price.
    """
    if not position.qty or position.liquidation_price <= 0:
        return None
    away = (mid - float(position.liquidation_price)) / mid * 1e4
    return away if position.qty > 0 else -away
