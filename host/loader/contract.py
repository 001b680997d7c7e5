"""Whether a class keeps to its base class: callback names, arguments, and sync against async."""

import inspect
from collections.abc import Callable, Iterator
from typing import Any

from host.api import AsyncQuoteModel, ExchangeAdapter, QuoteModel, SteppedAdapter, Strategy
from host.loader.capture import Version
from host.loader.offers import Offer
from host.loader.problem import PluginProblem, PluginRejected, near_name

__all__ = ["check_signatures", "class_line"]

_REQUIRED: tuple[tuple[type[Any], tuple[str, ...]], ...] = (
    (AsyncQuoteModel, ("predict",)),  # before QuoteModel: its `adjust` is the host's
    (QuoteModel, ("adjust",)),
    (SteppedAdapter, ("connect", "subscribe", "send", "resync", "close", "next_time_ns", "step")),
    (ExchangeAdapter, ("connect", "subscribe", "send", "resync", "close")),
)


def check_signatures(offer: Offer) -> str:
    """Compare every overridden method with the base class's.

    Returns which callbacks the class defines. Raises `PluginRejected` naming each method with other
    arguments, `async` where the host cannot wait (or the reverse), a misspelt `on_...`, and each
    method that this kind must define and does not.
    """
    cls, version = offer.cls, offer.version
    problems: list[PluginProblem] = []
    defined: list[str] = []
    for name, value in _own_attributes(cls):
        inherited = _inherited(cls, name)
        if inspect.isfunction(inherited):
            if not name.startswith("__"):
                defined.append(name)
            problems.extend(_compare(version, f"{cls.__name__}.{name}", value, inherited))
        elif inherited is None and name.startswith("on_") and not issubclass(cls, ExchangeAdapter):
            problems.append(_misspelt(version, cls, name, value))
    required = next((names for base, names in _REQUIRED if issubclass(cls, base)), ())
    problems.extend(_missing(version, cls, name) for name in required if name not in defined)
    if problems:
        raise PluginRejected(problems)
    return f"{cls.__name__} defines {', '.join(sorted(defined)) or 'no callback'}"


def class_line(version: Version, cls: type[Any]) -> dict[str, Any]:
    """Return where a class of this version begins, as keyword arguments of `Version.problem`."""
    try:
        file = version.locate(inspect.getfile(cls))
        return {"file": file, "line": inspect.getsourcelines(cls)[1]} if file else {}
    except (OSError, TypeError):  # made at run time: there is no source to point at
        return {}


def _own_attributes(cls: type[Any]) -> Iterator[tuple[str, Any]]:
    seen: set[str] = set()
    for owner in cls.__mro__:
        if _is_ours(owner) or owner.__module__ in ("builtins", "typing", "abc"):
            continue
        for name, value in vars(owner).items():
            if name not in seen:
                seen.add(name)
                yield name, value


def _inherited(cls: type[Any], name: str) -> Any:
    return next((vars(owner)[name] for owner in cls.__mro__ if _is_ours(owner) and name in vars(owner)), None)


def _is_ours(cls: type[Any]) -> bool:
    return cls.__module__.startswith("host.api")


def _compare(
    version: Version, label: str, value: Any, inherited: Callable[..., Any]
) -> Iterator[PluginProblem]:
    if isinstance(value, staticmethod | classmethod | property) or not callable(value):
        yield version.problem(f"{label} is a method, was {type(value).__name__}", next_step="make it one")
        return
    place = _function_line(version, value)
    if inspect.isgeneratorfunction(value) or inspect.isasyncgenfunction(value):
        yield version.problem(f"{label} must not yield", **place, next_step="return instead")
        return
    is_async, may_wait = inspect.iscoroutinefunction(value), inspect.iscoroutinefunction(inherited)
    if is_async and not may_wait:
        next_step = "it runs on the event loop and cannot wait; write def"
        yield version.problem(f"{label} is a plain def, was async def", **place, next_step=next_step)
    if may_wait and not is_async:
        yield version.problem(
            f"{label} is an async def, was a plain def", **place, next_step="write async def"
        )
    wanted, found = inspect.signature(inherited), inspect.signature(value)
    if not _accepts(found, wanted):
        yield version.problem(f"{label} takes {_show(wanted)}, was {_show(found)}", **place)


def _accepts(found: inspect.Signature, wanted: inspect.Signature) -> bool:
    parameters = wanted.parameters.values()
    by_name = {p.name: None for p in parameters if p.kind is p.KEYWORD_ONLY}
    try:
        found.bind(*[None] * (len(parameters) - len(by_name)), **by_name)
    except TypeError:
        return False
    return True


def _show(signature: inspect.Signature) -> str:
    bare = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    return str(inspect.Signature(bare))


def _function_line(version: Version, function: Any) -> dict[str, Any]:
    code: Any = getattr(inspect.unwrap(function), "__code__", None)
    file = version.locate(code.co_filename) if code is not None else None
    return {"file": file, "line": code.co_firstlineno} if file else {}


def _misspelt(version: Version, cls: type[Any], name: str, value: Any) -> PluginProblem:
    base = Strategy if issubclass(cls, Strategy) else QuoteModel
    callbacks = [callback for callback in vars(base) if callback.startswith("on_")]
    near = near_name(name, callbacks)
    if near is not None:
        next_step = f'did you mean "{near}"?'
    else:
        next_step = f"the host would never call it: rename it to _{name}, or use {', '.join(callbacks)}"
    return version.problem(
        f"{cls.__name__}.{name} is not a callback", **_function_line(version, value), next_step=next_step
    )


def _missing(version: Version, cls: type[Any], name: str) -> PluginProblem:
    signature = _show(inspect.signature(_inherited(cls, name)))
    near = near_name(name, [own for own, value in _own_attributes(cls) if inspect.isfunction(value)])
    next_step = f'did you mean it by "{near}"?' if near else f"define {name}{signature}"
    return version.problem(
        f"{cls.__name__} does not define {name}", **class_line(version, cls), next_step=next_step
    )
