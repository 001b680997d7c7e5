"""Typed, bounded, documented parameters and carried state of plugins."""

from decimal import Decimal
from typing import Annotated, Any, ClassVar, get_args

import msgspec
from msgspec import Meta, Struct

from host.api.secret import Secret

__all__ = [
    "Bps",
    "Fraction",
    "NonNegative",
    "Params",
    "Positive",
    "PositiveInt",
    "Seconds",
    "State",
    "adopt_params_type",
    "params_schema",
]

Positive = Annotated[float, Meta(gt=0)]
NonNegative = Annotated[float, Meta(ge=0)]
PositiveInt = Annotated[int, Meta(gt=0)]
Fraction = Annotated[float, Meta(ge=0, le=1)]
Bps = Annotated[float, Meta(extra_json_schema={"unit": "bps"})]
"""Basis points: 1 bps = 0.0001."""
Seconds = Annotated[float, Meta(gt=0, extra_json_schema={"unit": "s"})]


class Params(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of a plugin's parameters: every field has a type, a default and, if wanted, bounds.

    Bounds, units and descriptions come from `typing.Annotated` with `msgspec.Meta`, and make the
    schema that tools read. Subclasses repeat `frozen=True` so that type checkers see it.
    """


class NoParams(Params, frozen=True):
    """Stands in for plugins that take no parameters."""


class State(Struct):
    """Base of a strategy's own state: plain data that survives restart, reload and failover.

    A new field takes a default. Any other change of shape raises `state_version` and extends
    `upgrade`.
    """

    state_version: ClassVar[int] = 1

    @classmethod
    def upgrade(cls, version: int, data: dict[str, Any]) -> dict[str, Any]:
        """Turn the data of `version` into that of `version + 1`; called once per step.

        Raises `NotImplementedError` here: a class that raises its `state_version` says how.
        """
        raise NotImplementedError(f"{cls.__name__}.upgrade does not know state version {version}")


class NoState(State):
    """Stands in for strategies that carry no state of their own."""


def params_schema(params_type: type[Params]) -> dict[str, Any]:
    """Return the JSON schema (2020-12) of a parameter class: types, bounds, units, defaults, docs."""
    return msgspec.json.schema(params_type, schema_hook=_schema_hook)


def _schema_hook(type_: type[Any]) -> dict[str, Any]:
    if issubclass(type_, Decimal):
        return {"type": "string", "format": "decimal"}
    if issubclass(type_, Secret):
        return {"type": "string", "format": "secret", "writeOnly": True}
    raise NotImplementedError(f"no schema for {type_!r}")


def adopt_params_type(cls: type[Any]) -> None:
    """Set `cls.params_type` from the class's own `Base[SomeParams]`, when it says so."""
    for base in cls.__dict__.get("__orig_bases__", ()):
        for arg in get_args(base):
            if isinstance(arg, type) and issubclass(arg, Params):
                cls.params_type = arg
