"""Whether a class's parameters and state are what the host can describe, check and carry over."""

import re
from typing import Any, get_args

import msgspec

from host.api import Params, State, params_schema
from host.loader.contract import class_line
from host.loader.offers import Kind, Offer
from host.loader.params import InstanceFailed, ParamsInvalid, decode_params, make
from host.loader.problem import PluginProblem, PluginRejected

__all__ = ["check_construction", "check_params", "check_state", "located"]


def check_params(offer: Offer) -> str:
    """Check that parameters are frozen, describable, and have defaults within their own bounds.

    Returns the field names. Raises `PluginRejected`.
    """
    _check_params_base(offer)
    params_type: type[Params] = offer.cls.params_type
    name = params_type.__name__
    if not params_type.__struct_config__.frozen:
        raise _rejected(
            offer, params_type, f"{name} is frozen, was not", f"write class {name}(Params, frozen=True)"
        )
    fields = msgspec.structs.fields(params_type)
    bare = [field for field in fields if field.required]
    if bare:
        raise PluginRejected(
            [
                _problem(offer, params_type, f"{name}.{field.name} has no default", "give it one", field.name)
                for field in bare
            ]
        )
    try:
        params_schema(params_type)
        defaults = msgspec.to_builtins(params_type())
        decode_params(offer, defaults, instance="")
    except ParamsInvalid as error:
        field = error.field.removeprefix("params.")
        raise _rejected(
            offer, params_type, f"the default of {name}.{field} {error.detail}", "correct one of them", field
        ) from None
    except Exception as error:  # noqa: BLE001 - a field's type or a __post_init__ may raise anything
        raise _rejected(
            offer,
            params_type,
            f"{name} is not plain, typed data: {error}",
            "use types that msgspec can describe",
        ) from None
    return f"{name}: {', '.join(field.name for field in fields) or 'no fields'}"


def _check_params_base(offer: Offer) -> None:
    for base in getattr(offer.cls, "__orig_bases__", ()):
        for arg in get_args(base):
            if isinstance(arg, type) and not issubclass(arg, Params):
                cause = f"{arg.__name__} is a subclass of Params, was not"
                raise _rejected(offer, arg, cause, f"write class {arg.__name__}(Params, frozen=True)")


def check_state(offer: Offer) -> str:
    """Check that a strategy's state can be saved and read back, and upgraded if it ever changed.

    Returns the field names. Raises `PluginRejected`.
    """
    if offer.kind is not Kind.STRATEGY:
        return "a strategy's business"
    state_type: Any = offer.cls.state_type
    if not (isinstance(state_type, type) and issubclass(state_type, State)):
        cause = (
            f"state is annotated with a State subclass, was {getattr(state_type, '__name__', state_type)!s}"
        )
        raise _rejected(offer, offer.cls, cause, "write class MyState(State) and state: MyState")
    name, version = state_type.__name__, state_type.state_version
    if not isinstance(version, int) or version < 1:
        cause = f"{name}.state_version is a whole number from 1, was {version!r}"
        raise _rejected(offer, state_type, cause, "count up from 1")
    if version > 1 and state_type.upgrade.__func__ is State.upgrade.__func__:  # type: ignore[attr-defined]
        cause = f"{name}.state_version is {version} but upgrade is not defined"
        raise _rejected(offer, state_type, cause, "define upgrade(cls, version, data)")
    bare = [field.name for field in msgspec.structs.fields(state_type) if field.required]
    if bare:
        raise _rejected(offer, state_type, f"{name}.{bare[0]} has no default", "give it one", bare[0])
    try:
        saved = msgspec.msgpack.encode(state_type())
        again = msgspec.msgpack.encode(msgspec.msgpack.decode(saved, type=state_type))
    except Exception as error:  # noqa: BLE001 - a field's type or a default factory may raise anything
        cause = f"{name} is not plain data: {error}"
        raise _rejected(
            offer, state_type, cause, "keep numbers, text, lists, dicts and Structs in it"
        ) from None
    if saved != again:
        cause = f"{name} reads back as something else than was saved"
        raise _rejected(offer, state_type, cause, "keep plain data in it")
    return f"{name}: {', '.join(state_type.__struct_fields__) or 'no fields'}"


def check_construction(offer: Offer) -> str:
    """Construct one object with default parameters; raise `PluginRejected` with what it raised."""
    try:
        make(offer, {})
    except InstanceFailed as error:
        raise PluginRejected([error.problem]) from None
    return f"{offer.cls.__name__}({offer.cls.params_type.__name__}())"


def located(offer: Offer, error: ParamsInvalid) -> PluginRejected:
    """Return a refusal of configured parameters that names where the plugin declares them."""
    field = error.field.removeprefix("params.").partition(".")[0]
    return _rejected(offer, offer.cls.params_type, str(error), "change one of them", field)


def _rejected(offer: Offer, cls: type[Any], cause: str, next_step: str, field: str = "") -> PluginRejected:
    return PluginRejected([_problem(offer, cls, cause, next_step, field)])


def _problem(offer: Offer, cls: type[Any], cause: str, next_step: str, field: str) -> PluginProblem:
    place = class_line(offer.version, cls) or class_line(offer.version, offer.cls)
    if place and field:
        lines = offer.version.files[place["file"]].decode(errors="replace").splitlines()
        for number, line in enumerate(lines[place["line"] :], place["line"] + 1):
            if re.match(rf"\s+{re.escape(field)}\s*:", line):
                place = {**place, "line": number}
                break
    return offer.version.problem(cause, **place, next_step=next_step)
