"""What an edit of the configuration asks a running node to change: pure, from two configurations."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec
from msgspec import Struct

from host.config.failover import FailoverSection
from host.config.schema import InstanceSection, NodeConfig, NodeSection
from host.config.sources import KeyPath
from host.core.risk_limits import Limits, RiskConfig

__all__ = ["RESTART_REQUIRED", "ConfigPlan", "NeedsRestart", "diff"]

RESTART_REQUIRED: Final = "RESTART_REQUIRED"
"""The code of what cannot be changed while a node trades."""

LIVE_NODE_KEYS: Final = ("reload", "probation_s", "probation_events", "rollback_policy")
"""The keys of `[node]` that the reload transaction reads anew each time."""
_IDENTITY: Final = ("plugin", "account", "symbols", "isolation", "worker", "client")
"""What makes an instance another one: it is stopped, and a new one takes its name, orders and state."""


_MAY_HOLD_PASSWORDS: Final = ("url", "lease", "params")
"""Of `[store]`, `[failover]`, `[[account]]`: a refusal is journaled, and does not repeat what was written there."""


class NeedsRestart(Struct, frozen=True):
    """A setting that differs and that a running node keeps as it is."""

    at: KeyPath
    was: str
    now: str

    def __str__(self) -> str:
        return f"{RESTART_REQUIRED}: changes with a restart only, runs with {self.was}, was {self.now}"


class ConfigPlan(Struct, frozen=True, kw_only=True):
    """Every difference between two configurations, by what it takes to follow it.

    An instance in `replaced` is in none of the groups after it: its new section says all.
    """

    added: tuple[InstanceSection, ...] = ()
    removed: tuple[InstanceSection, ...] = ()
    replaced: tuple[InstanceSection, ...] = ()
    params: tuple[InstanceSection, ...] = ()
    models: tuple[InstanceSection, ...] = ()
    tolerances: tuple[InstanceSection, ...] = ()
    starts: tuple[InstanceSection, ...] = ()
    schedules: tuple[InstanceSection, ...] = ()
    """Those whose schedule differs, or what they come after."""
    limits: RiskConfig | None = None
    reload: NodeSection | None = None
    """`[node]`, where its reload settings differ."""
    needs_restart: tuple[NeedsRestart, ...] = ()
    changes: tuple[str, ...] = ()
    """All of it in words: key, before, after."""


def diff(old: NodeConfig, new: NodeConfig) -> ConfigPlan:
    """Return what leads from `old` to `new`; an empty plan where they are the same."""
    before = {section.name: section for section in old.instance}
    after = {section.name: section for section in new.instance}
    both = [(before[name], section) for name, section in after.items() if name in before]
    replaced = {now.name for was, now in both if _differ(was, now, *_IDENTITY)}

    def changed(*keys: str) -> tuple[InstanceSection, ...]:
        return tuple(now for was, now in both if now.name not in replaced and _differ(was, now, *keys))

    return ConfigPlan(
        added=tuple(section for name, section in after.items() if name not in before),
        removed=tuple(section for name, section in before.items() if name not in after),
        replaced=tuple(section for name, section in after.items() if name in replaced),
        params=changed("params"),
        models=changed("models"),
        tolerances=changed("quote_tolerance_bps"),
        starts=changed("start"),
        schedules=changed("schedule", "after", "on_dependency_lost"),
        limits=new.risk.limits if old.risk != new.risk else None,
        reload=new.node if _differ(old.node, new.node, *LIVE_NODE_KEYS) else None,
        needs_restart=tuple(_needs_restart(old, new)),
        changes=tuple(_in_words(old, new)),
    )


def _differ(was: Struct, now: Struct, *keys: str) -> bool:
    return any(getattr(was, key) != getattr(now, key) for key in keys)


def _needs_restart(old: NodeConfig, new: NodeConfig) -> Iterator[NeedsRestart]:
    for section in ("node", "store", "secrets", "watchdog", "control"):
        was, now = getattr(old, section), getattr(new, section)
        for key in was.__struct_fields__:
            if key not in LIVE_NODE_KEYS and _differ(was, now, key):
                shown = _hidden if key in _MAY_HOLD_PASSWORDS else _shown
                yield NeedsRestart((section, key), shown(getattr(was, key)), shown(getattr(now, key)))
    if old.failover != new.failover:
        yield from _failover_needs_restart(old.failover, new.failover)
    known = {account.name: account for account in old.account}
    for index, account in enumerate(new.account):
        before = known.pop(account.name, None)
        if before is None:
            yield NeedsRestart(("account", index), "no such account", "a new one")
            continue
        for key in account.__struct_fields__:
            if _differ(before, account, key):
                shown = _hidden if key in _MAY_HOLD_PASSWORDS else _shown
                was, now = shown(getattr(before, key)), shown(getattr(account, key))
                yield NeedsRestart(("account", index, key), was, now)
    for name in known:
        yield NeedsRestart(("account",), f"account {name}", "removed")


def _failover_needs_restart(
    was: FailoverSection | None, now: FailoverSection | None
) -> Iterator[NeedsRestart]:
    if was is None or now is None:
        texts = ["no such section" if section is None else "there" for section in (was, now)]
        yield NeedsRestart(("failover",), texts[0], texts[1])
        return
    for key in was.__struct_fields__:
        if _differ(was, now, key):
            shown = _hidden if key in _MAY_HOLD_PASSWORDS else _shown
            yield NeedsRestart(("failover", key), shown(getattr(was, key)), shown(getattr(now, key)))


# -- in words ------------------------------------------------------------------------------------


def _in_words(old: NodeConfig, new: NodeConfig) -> Iterator[str]:
    for key in LIVE_NODE_KEYS:
        yield from _changed(f"node.{key}", getattr(old.node, key), getattr(new.node, key))
    before = {section.name: section for section in old.instance}
    for section in new.instance:
        was = before.pop(section.name, None)
        name = f"instance[{section.name}]"
        if was is None:
            yield f"{name}: added, {section.plugin} on {section.account}, {' '.join(section.symbols)}"
            continue
        for key in section.__struct_fields__:
            if key == "params":
                yield from _tables(f"{name}.params", was.params, section.params)
            else:
                yield from _changed(f"{name}.{key}", getattr(was, key), getattr(section, key))
    for name in before:
        yield f"instance[{name}]: removed"
    yield from _limits("risk.node", old.risk.node, new.risk.node)
    for kind in ("account", "instance", "symbol"):
        was_limits, now_limits = getattr(old.risk, kind), getattr(new.risk, kind)
        for name in dict.fromkeys((*was_limits, *now_limits)):
            none = Limits()
            yield from _limits(
                f'risk.{kind}."{name}"', was_limits.get(name, none), now_limits.get(name, none)
            )


def _limits(at: str, was: Limits, now: Limits) -> Iterator[str]:
    for key in was.__struct_fields__:
        yield from _changed(f"{at}.{key}", getattr(was, key), getattr(now, key))


def _tables(at: str, was: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    for key in dict.fromkeys((*was, *now)):
        if key not in was or key not in now or was[key] != now[key]:
            before, after = (_shown(table[key]) if key in table else "default" for table in (was, now))
            yield f"{at}.{key}: {before} → {after}"


def _changed(at: str, was: object, now: object) -> Iterator[str]:
    if was != now:
        yield f"{at}: {_shown(was)} → {_shown(now)}"


def _shown(value: Any) -> str:
    return "none" if value is None else _JSON.encode(value).decode()


def _hidden(value: Any) -> str:
    return "none" if value is None else "***"


_JSON: Final = msgspec.json.Encoder(enc_hook=str, decimal_format="string")
