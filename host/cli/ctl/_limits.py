"""Verbs about risk limits."""

import re
from decimal import Decimal
from typing import Any, Final

import click
from click.shell_completion import CompletionItem
from google.protobuf.descriptor import FieldDescriptor

from host.cli.ctl import _completion as complete
from host.cli.ctl._group import ctl
from host.cli.ctl._session import Session
from host.cli.ctl._tables import Listing
from host.cli.ctl._verb import verb
from host.cli.ctl._words import enum_named, scope_of, span, word
from tandem.v1 import common_pb2 as c
from tandem.v1 import trading_pb2 as t

__all__: list[str] = []

NO_LIMIT: Final = "none"
_FIELDS: Final[dict[str, Any]] = {
    name: field
    for name, field in t.RiskLimits.DESCRIPTOR.fields_by_name.items()
    if name not in ("name", "etag")
}
_ENUMS: Final[dict[str, Any]] = {"self_trade": t.SelfTradePolicy, "on_any_breach": t.RiskAction}
_UNITS_NS: Final = {"ms": 10**6, "s": 10**9, "m": 60 * 10**9}

LIMITS = Listing("limits", ("scope", "limits"), lambda one: (_scope_in(one), _shown(one) or "none"))


@ctl.group(
    epilog="""\b
Examples:
  tandem ctl limits get
  tandem ctl limits set node max_daily_loss="500 USDT" max_open_orders=20"""
)
def limits() -> None:
    """Look at risk limits, and change them between two events."""


def _settings(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    names = [f"{name}=" for name in _FIELDS if name != "on_breach"] + ["on_breach."]
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


@verb(limits, "get", example="limits get\nlimits get node\nlimits get symbols/BTC-USDT --json")
@click.argument("scope", required=False, shell_complete=complete.scopes)
async def get(session: Session, scope: str | None) -> None:
    """Show the limits of SCOPE, or of every scope that has any."""
    calls = session.control.trading
    if scope is None:
        found = await session.all(calls.list_risk_limits, t.ListRiskLimitsRequest(), "limits")
        session.show(LIMITS, found)
        return
    request = t.GetRiskLimitsRequest(name=f"{scope_of(scope)}/riskLimits")
    one = (await calls.get_risk_limits(request)).limits
    session.say(one, f"{_scope_in(one)}: {_shown(one) or 'no limits'}")


@verb(
    limits,
    "set",
    changes=("reason", "etag", "yes"),
    example='limits set node max_daily_loss="500 USDT" max_open_orders=20\n'
    "limits set symbols/BTC-USDT max_position=0.5 max_data_age=2s\n"
    "limits set instances/mm-btc max_order_qty=none\n"
    "limits set node on_breach.daily_loss=flatten self_trade=refuse",
)
@click.argument("scope", shell_complete=complete.scopes)
@click.argument("settings", nargs=-1, required=True, metavar="LIMIT=VALUE...", shell_complete=_settings)
async def set_(session: Session, scope: str, settings: tuple[str, ...]) -> None:
    """Change limits of SCOPE: all that are given, or none. VALUE none takes a limit away.

    They hold for the next order on, over restarts too, until the configuration file says something else.

    \b
    LIMIT is one of
      max_order_qty max_order_notional max_position max_inventory_notional
      max_open_orders max_orders_per_second price_collar_bps
      max_data_age (500ms, 2s, 1m)   max_daily_loss ("500 USDT")
      max_concentration concentration_floor   min_liquidation_distance_bps
      self_trade (refuse, allow)
      on_any_breach, on_breach.REASON (refuse, pull, kill, flatten)
    """
    name = f"{scope_of(scope)}/riskLimits"
    calls = session.control.trading
    before = (await calls.get_risk_limits(t.GetRiskLimitsRequest(name=name))).limits
    request = t.SetRiskLimitsRequest(limits=t.RiskLimits(name=name))
    for setting in settings:
        _put(request, setting, before)
    answer = await session.change(
        calls.set_risk_limits,
        request,
        lambda trial: (
            f"{_scope_in(before)} at {session.control.address}\n  now:  {_shown(before) or 'no limits'}\n"
            f"  then: {_shown(trial.limits) or 'no limits'}\nChange it?"
        ),
    )
    session.say(answer.limits, f"{_scope_in(answer.limits)}: {_shown(answer.limits) or 'no limits'}")


def _put(request: t.SetRiskLimitsRequest, setting: str, before: t.RiskLimits) -> None:
    """Put `LIMIT=VALUE` into a request; raise `click.BadParameter`."""
    name, equals, text = setting.partition("=")
    if not equals:
        raise _wrong(f'expected LIMIT=VALUE, was "{setting}"')
    field, _, reason = name.partition(".")
    if field not in _FIELDS or (field == "on_breach") != bool(reason):
        raise _wrong(f'expected one of {", ".join(_FIELDS)}.REASON; was "{name}"'.replace("on_breach,", ""))
    wanted: Any = request.limits
    if field not in request.update_mask.paths:
        request.update_mask.paths.append(field)
        if field == "on_breach":
            wanted.on_breach.MergeFrom(before.on_breach)  # the other reasons stay as they are
    if field == "on_breach":
        wanted.on_breach.pop(reason, None)
        if text != NO_LIMIT:
            wanted.on_breach[reason] = _choice(t.RiskAction, name, text)
    elif text != NO_LIMIT:
        _set(wanted, _FIELDS[field], text)


def _set(limits: Any, field: Any, text: str) -> None:
    name = field.name
    if name in _ENUMS:
        setattr(limits, name, _choice(_ENUMS[name], name, text))
    elif name == "max_daily_loss":
        amount, _, currency = text.partition(" ")
        limits.max_daily_loss.CopyFrom(c.Money(amount=amount, currency=currency))
    elif name == "max_data_age":
        match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m)", text)
        if match is None:
            raise _wrong(f'{name}: expected a time such as 500ms, 2s or 1m, was "{text}"')
        limits.max_data_age.FromNanoseconds(int(Decimal(match[1]) * _UNITS_NS[match[2]]))
    elif field.type == FieldDescriptor.TYPE_STRING:
        setattr(limits, name, text)
    else:
        kind = float if field.type == FieldDescriptor.TYPE_DOUBLE else int
        try:
            setattr(limits, name, kind(text))
        except (ValueError, OverflowError) as error:
            raise _wrong(f'{name}: expected a number, or none, was "{text}"') from error


def _choice(enum: Any, name: str, text: str) -> int:
    try:
        return enum_named(enum, text)
    except ValueError:
        known = ", ".join(word(enum, value).lower() for value in list(enum.values())[1:])
        raise _wrong(f'{name}: expected one of {known}, or none; was "{text}"') from None


def _wrong(text: str) -> click.BadParameter:
    return click.BadParameter(text, param_hint="LIMIT=VALUE")


def _scope_in(limits: t.RiskLimits) -> str:
    return limits.name.removesuffix("/riskLimits")


def _shown(limits: t.RiskLimits) -> str:
    """Return the limits that are set as `set` takes them."""
    found = []
    for field, value in limits.ListFields():
        if field.name in _ENUMS:
            found.append(f"{field.name}={word(_ENUMS[field.name], value).lower()}")
        elif field.name == "max_daily_loss":
            found.append(f'max_daily_loss="{value.amount} {value.currency}"')
        elif field.name == "max_data_age":
            found.append(f"max_data_age={span(value).replace(' ', '')}")
        elif field.name == "on_breach":
            found += [
                f"on_breach.{reason}={word(t.RiskAction, one).lower()}"
                for reason, one in sorted(value.items())
            ]
        elif field.name in _FIELDS:
            found.append(f"{field.name}={value:g}" if isinstance(value, float) else f"{field.name}={value}")
    return " ".join(found)
