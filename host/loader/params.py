"""From a configuration's parameter table to a plugin's `Params`, and on to a running object."""

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from host.api import Params, Secret, TandemError
from host.loader.importer import problem_of
from host.loader.offers import Offer
from host.loader.problem import PluginProblem, near_name

__all__ = ["InstanceFailed", "ParamsInvalid", "decode_params", "make"]

_PLACE = re.compile(r"^(?P<what>.*?) - at `\$\.?(?P<path>[^`]*)`$", re.DOTALL)
_BOUND = re.compile(r"^Expected `\w+` (?P<bound>(?:[<>]=?) .*)$")
_TYPE = re.compile(r"^Expected `(?P<type>[^`]*)`, got `(?P<was>[^`]*)`$")
_UNKNOWN = re.compile(r"unknown field `(?P<field>[^`]*)`")


class ParamsInvalid(TandemError):  # noqa: N818 - the adjective is the answer
    """A parameter table does not fit. `field` is its path, such as `params.half_spread_bps`."""

    def __init__(self, instance: str, field: str, detail: str) -> None:
        super().__init__(f'instance "{instance}": {field} {detail}')
        self.instance = instance
        self.field = field
        self.detail = detail


class InstanceFailed(TandemError):  # noqa: N818 - parallel to ParamsInvalid
    """A plugin class could not be constructed: its own code raised what `problem` tells."""

    def __init__(self, instance: str, problem: PluginProblem) -> None:
        super().__init__(f'instance "{instance}": {problem}')
        self.instance = instance
        self.problem = problem


def decode_params(offer: Offer, params: Mapping[str, object], *, instance: str) -> Params:
    """Check a table of plain values (TOML, JSON) against the plugin's schema.

    Nothing is guessed: a whole number is taken for a float, text or a number for a Decimal, and
    otherwise types must match. Raises `ParamsInvalid` naming field, bound and value.
    """
    params_type: type[Params] = offer.cls.params_type
    try:
        return msgspec.convert(dict(params), params_type)
    except msgspec.ValidationError as error:
        raise _explain(instance, params, params_type, str(error)) from None


def make(offer: Offer, params: Mapping[str, object], *, instance: str = "") -> Any:
    """Construct one object of an offered class; `instance` names it in errors.

    Raises `ParamsInvalid` for the parameters and `InstanceFailed` for what `__init__` raises.
    """
    label = instance or offer.name
    decoded = decode_params(offer, params, instance=label)
    try:
        return offer.cls(decoded)
    except (Exception, SystemExit) as error:
        raise InstanceFailed(label, problem_of(offer.version, error, "when constructed")) from error


def _explain(
    instance: str, params: Mapping[str, object], params_type: type[Params], message: str
) -> ParamsInvalid:
    match = _PLACE.match(message)
    what, path = (match["what"], match["path"]) if match else (message, "")
    field = f"params.{path}" if path else "params"
    if unknown := _UNKNOWN.search(what):
        name = unknown["field"]
        known = [f.encode_name for f in msgspec.structs.fields(params_type)] if not path else []
        near = near_name(name, known)
        ending = f'did you mean "{near}"?' if near else f"the fields are {', '.join(known) or 'none'}"
        return ParamsInvalid(instance, f"{field}.{name}", f"is not a parameter; {ending}")
    was = _was(params, path)
    if bound := _BOUND.match(what):
        return ParamsInvalid(instance, field, f"must be {_tidy(bound['bound'])}{was}")
    if (wrong := _TYPE.match(what)) and wrong["type"].removesuffix(" | null") == Secret.__name__:
        # What is written there is the secret itself, and must not be in a message.
        how = 'store it with `tandem secret set NAME` and write "secret:NAME" in the account\'s params'
        return ParamsInvalid(instance, field, f"is a secret: {how}")
    if wrong:
        return ParamsInvalid(instance, field, f"must be of type {wrong['type']}{was} ({wrong['was']})")
    return ParamsInvalid(instance, field, f"is not valid: {what.replace('`', '')}{was}")


def _tidy(bound: str) -> str:
    return bound.removesuffix(".0")


def _was(params: Mapping[str, object], path: str) -> str:
    value: Any = params
    try:
        for part in re.findall(r"[^.\[\]]+", path):
            value = value[int(part)] if isinstance(value, list | tuple) else value[part]
    except (KeyError, IndexError, TypeError, ValueError):
        return ""  # msgspec writes [...] for a place it does not name
    return f", was {value!r}"
