"""The risk limits in force: the configuration's, and those that were set by hand while the node ran.

The latest word wins. Limits set by hand hold for the whole scope, over restarts too, until they are
taken back or the configuration says something else of that scope than it said when they were set:
then somebody edited it later, and the file holds again.
"""

from typing import TYPE_CHECKING, Final

import msgspec

from host.core import entries as e
from host.core.risk_limits import Limits, RiskConfig
from host.runtime.scope import check_scope
from host.runtime.turn import turn

if TYPE_CHECKING:
    from host.runtime.engine import Engine

__all__ = ["RiskSettings", "encode_limits"]

_ENCODER: Final = msgspec.json.Encoder(decimal_format="string")
_DECODER: Final = msgspec.json.Decoder(Limits)
_FIELDS: Final = {"account": "accounts", "instance": "instances", "symbol": "symbols"}
_NONE: Final = Limits()


def encode_limits(limits: Limits) -> bytes:
    """Return limits as JSON: every field by name, in one order, decimals as strings."""
    return _ENCODER.encode(limits)


class RiskSettings:
    """What holds for each scope, and who said so."""

    def __init__(self, engine: "Engine", configured: RiskConfig) -> None:
        self.configured = configured
        """What the configuration says."""
        self._engine: Final = engine

    def limits(self, scope: str) -> Limits:
        """Return the limits in force for a scope; raise `NotKnown`."""
        check_scope(self._engine, scope)
        return _limits_of(self._engine.risk.config, scope)

    def in_force(self) -> dict[str, Limits]:
        """Return the limits of every scope that has any."""
        config = self._engine.risk.config
        found = {"node": config.node}
        for kind, field in _FIELDS.items():
            found.update({f"{kind}:{name}": limits for name, limits in getattr(config, field).items()})
        return {scope: limits for scope, limits in found.items() if limits != _NONE}

    def set(self, scope: str, limits: Limits, by: str) -> None:
        """Have other limits hold for a scope, between two events; raise `NotKnown` and `Halted`.

        Setting what the configuration says takes back what was set by hand.
        """
        check_scope(self._engine, scope)
        configured = _limits_of(self.configured, scope)
        data = b"" if limits == configured else encode_limits(limits)
        with turn(self._engine) as now_ns:
            self._engine.record(e.RiskLimitsSet(scope, data, encode_limits(configured), by), now_ns)
            self._hold(now_ns)

    def configure(self, configured: RiskConfig, now_ns: int) -> None:
        """Follow an edit of the configuration, within a turn."""
        self.configured = configured
        self._drop_outdated(now_ns)
        self._hold(now_ns)

    def take_up(self, now_ns: int) -> None:
        """Hold to what was set by hand before this process started, and say so; within a turn."""
        self._drop_outdated(now_ns)
        for scope, override in self._engine.state.risk_overrides.items():
            text = f"limits of {scope} are those that {override.by} set, not the configuration's"
            self._engine.record_alert("risk_overridden", text)
        self._engine.risk.config = self._merged()

    def _drop_outdated(self, now_ns: int) -> None:
        for scope, override in list(self._engine.state.risk_overrides.items()):
            configured = _limits_of(self.configured, scope)
            # Compared as limits: an older version may have written their JSON in other words.
            if _DECODER.decode(override.configured) != configured:
                data = encode_limits(configured)
                self._engine.record(e.RiskLimitsSet(scope, b"", data, "config"), now_ns)
                text = (
                    f"limits of {scope} that {override.by} set are replaced by an edit of the configuration"
                )
                self._engine.record_alert("risk_override_ended", text)

    def _hold(self, now_ns: int) -> None:
        engine = self._engine
        engine.risk.set_config(self._merged(), engine.state.orders.values())
        for refusal in engine.risk.monitor(now_ns, engine.top, engine.venue_position):
            engine.safety.breach(refusal, refusal.instance)

    def _merged(self) -> RiskConfig:
        config = self.configured
        for scope, override in self._engine.state.risk_overrides.items():
            config = _with_limits(config, scope, _DECODER.decode(override.limits))
        return config


def _limits_of(config: RiskConfig, scope: str) -> Limits:
    kind, _, name = scope.partition(":")
    if not name:
        return config.node
    named: dict[str, Limits] = getattr(config, _FIELDS[kind])
    return named.get(name, _NONE)


def _with_limits(config: RiskConfig, scope: str, limits: Limits) -> RiskConfig:
    kind, _, name = scope.partition(":")
    if not name:
        return msgspec.structs.replace(config, node=limits)
    field = _FIELDS[kind]
    return msgspec.structs.replace(config, **{field: {**getattr(config, field), name: limits}})
