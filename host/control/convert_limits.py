"""Risk limits as messages, and the limits that a request asks for."""

from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

from host.control.convert_trading import decimal_of
from host.control.etags import etag_of
from host.control.names import scope_name
from host.control.plain import duration, duration_ns
from host.control.reasons import Refused
from host.core.risk_limits import Action, Limits, Money, RiskReason, SelfTrade
from tandem.v1 import common_pb2
from tandem.v1 import trading_pb2 as pb

__all__ = ["changed_limits", "limits_etag", "limits_message"]

MS_NS: Final = 1_000_000
ACTIONS: Final = {action: pb.RiskAction.Value(f"RISK_ACTION_{action.name}") for action in Action}
SELF_TRADES: Final = {
    policy: pb.SelfTradePolicy.Value(f"SELF_TRADE_POLICY_{policy.name}") for policy in SelfTrade
}
_DEFAULTS: Final = Limits()
_DECIMALS: Final = (
    "max_order_qty",
    "max_order_notional",
    "max_position",
    "max_inventory_notional",
    "concentration_floor",
)
_NUMBERS: Final = (
    "max_open_orders",
    "max_orders_per_second",
    "price_collar_bps",
    "max_concentration",
    "min_liquidation_distance_bps",
)
_FIELD_OF: Final = {"max_data_age": "max_data_age_ms", "on_any_breach": "on_breach"}
"""Where a field of the message stands for one of another name; all others are called alike."""
_MESSAGE_FIELD_OF: Final = {"max_data_age_ms": "max_data_age"}


def limits_message(scope: str, limits: Limits) -> pb.RiskLimits:
    """Return the limits of a scope as a message."""
    message = pb.RiskLimits(name=f"{scope_name(scope)}/riskLimits", etag=limits_etag(limits))
    for name in _DECIMALS:
        value = getattr(limits, name)
        if value is not None:
            setattr(message, name, f"{value:f}")
    for name in _NUMBERS:
        value = getattr(limits, name)
        if value is not None:
            setattr(message, name, value)
    if limits.max_data_age_ms is not None:
        message.max_data_age.CopyFrom(duration(limits.max_data_age_ms * MS_NS))
    if limits.daily_loss is not None:
        loss = limits.daily_loss
        message.max_daily_loss.CopyFrom(common_pb2.Money(amount=f"{loss.amount:f}", currency=loss.currency))
    if limits.self_trade is not None:
        message.self_trade = SELF_TRADES[limits.self_trade]
    if isinstance(limits.on_breach, Action):
        message.on_any_breach = ACTIONS[limits.on_breach]
    elif limits.on_breach is not None:
        for reason, action in limits.on_breach.items():
            message.on_breach[reason] = ACTIONS[action]
    return message


def limits_etag(limits: Limits) -> str:
    """Return what changes whenever any of the limits does."""
    return etag_of(limits)


def changed_limits(current: Limits, wanted: pb.RiskLimits, paths: Iterable[str]) -> Limits:
    """Return `current` with the fields of `paths` as `wanted` has them; raise `Refused`.

    A field that is named and not set is not limited any more. No paths: the fields that are set.
    """
    masked = set(paths)
    if masked == {"*"}:
        masked = set(_READERS)
    elif not masked:
        masked = {field.name for field, _ in wanted.ListFields()} - {"name", "etag"}
    for path in sorted(masked - set(_READERS)):
        raise Refused.field("update_mask", f"expected paths among {', '.join(_READERS)}, or *, was {path!r}")
    changes = {_FIELD_OF.get(path, path): _READERS[path](wanted, path) for path in sorted(masked)}
    if "on_breach" in changes:
        changes["on_breach"] = _breaches(current, wanted, masked)
    try:
        return msgspec.structs.replace(current, **changes)
    except ValueError as error:
        field, _, text = str(error).partition(": ")
        raise Refused.field(f"limits.{_MESSAGE_FIELD_OF.get(field, field)}", text) from error


def _decimal(wanted: pb.RiskLimits, name: str) -> Any:
    value = decimal_of(f"limits.{name}", getattr(wanted, name))
    return getattr(_DEFAULTS, name) if value is None else value


def _number(wanted: pb.RiskLimits, name: str) -> Any:
    return getattr(wanted, name) if wanted.HasField(name) else None  # type: ignore[arg-type]


def _data_age(wanted: pb.RiskLimits, name: str) -> Any:
    if not wanted.HasField("max_data_age"):
        return None
    milliseconds, rest = divmod(duration_ns(wanted.max_data_age), MS_NS)
    if rest:
        raise Refused.field(
            f"limits.{name}", f"expected whole milliseconds, was {rest} ns beyond {milliseconds} ms"
        )
    return milliseconds


def _daily_loss(wanted: pb.RiskLimits, name: str) -> Any:
    if not wanted.HasField("max_daily_loss"):
        return None
    money = wanted.max_daily_loss
    amount = decimal_of(f"limits.{name}.amount", money.amount)
    if amount is None or not money.currency.isalnum():
        text = f'expected an amount and a currency such as "500" and "USDT", was {money.amount!r}, {money.currency!r}'
        raise Refused.field(f"limits.{name}", text)
    return str(Money(amount, money.currency))


def _self_trade(wanted: pb.RiskLimits, name: str) -> Any:
    if not wanted.self_trade:
        return None
    for policy, number in SELF_TRADES.items():
        if number == wanted.self_trade:
            return policy
    raise Refused.field(
        f"limits.{name}", f"expected 0 to {max(SELF_TRADES.values())}, was {wanted.self_trade}"
    )


def _action(field: str, number: int) -> Action:
    for action, theirs in ACTIONS.items():
        if theirs == number:
            return action
    raise Refused.field(field, f"expected 1 to {max(ACTIONS.values())}, was {number}")


def _nothing(_wanted: pb.RiskLimits, _name: str) -> Any:
    return None  # read by `_breaches`, for two fields of the message are one of ours


def _breaches(
    current: Limits, wanted: pb.RiskLimits, masked: set[str]
) -> Action | dict[RiskReason, Action] | None:
    one = wanted.on_any_breach if "on_any_breach" in masked else 0
    table = wanted.on_breach if "on_breach" in masked else {}
    if one and table:
        raise Refused.field(
            "limits.on_breach", "expected one action for all breaches or one per reason, was both"
        )
    if one:
        return _action("limits.on_any_breach", one)
    if table:
        reasons = {str(reason) for reason in RiskReason}
        for key in table:
            if key not in reasons:
                text = f"expected reasons among {', '.join(sorted(reasons))}, was {key!r}"
                raise Refused.field("limits.on_breach", text)
        return {RiskReason(key): _action(f"limits.on_breach.{key}", table[key]) for key in sorted(table)}
    # What is named is taken away; a value of the other kind stays.
    is_named = "on_any_breach" in masked if isinstance(current.on_breach, Action) else "on_breach" in masked
    return None if is_named else current.on_breach


_READERS: Final[dict[str, Callable[[pb.RiskLimits, str], Any]]] = {
    **dict.fromkeys(_DECIMALS, _decimal),
    **dict.fromkeys(_NUMBERS, _number),
    "max_data_age": _data_age,
    "max_daily_loss": _daily_loss,
    "self_trade": _self_trade,
    "on_any_breach": _nothing,
    "on_breach": _nothing,
}
"""How each field of the message is read."""
