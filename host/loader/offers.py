"""What a plugin offers: the classes it defines, or what its hookimpls name.

pluggy answers "who offers what"; each plugin is asked on its own, so that one raising hook does
not silence the others.
"""

import inspect
import sys
from collections.abc import Callable, Mapping
from enum import StrEnum
from types import ModuleType
from typing import Any

import pluggy
from msgspec import Struct

from host.api import ExchangeAdapter, QuoteModel, Strategy, hooks
from host.loader.capture import Version
from host.loader.importer import problem_of
from host.loader.problem import PluginProblem, PluginRejected, near_name

__all__ = ["BASES", "Kind", "Offer", "collect_offers", "new_manager"]


class Kind(StrEnum):
    """What a plugin class is for."""

    STRATEGY = "strategy"
    EXCHANGE = "exchange"
    MODEL = "model"


BASES: Mapping[Kind, type[Any]] = {
    Kind.STRATEGY: Strategy,
    Kind.EXCHANGE: ExchangeAdapter,
    Kind.MODEL: QuoteModel,
}

_HOOKS: Mapping[Kind, str] = {
    Kind.STRATEGY: "provide_strategies",
    Kind.EXCHANGE: "provide_exchanges",
    Kind.MODEL: "provide_models",
}


class Offer(Struct, frozen=True):
    """A class that configurations can name. `version` is the code that it runs."""

    name: str
    kind: Kind
    cls: type[Any]
    version: Version


def new_manager() -> pluggy.PluginManager:
    """Return an empty pluggy manager that knows the hookspecs."""
    manager = pluggy.PluginManager(hooks.PROJECT)
    manager.add_hookspecs(hooks)
    return manager


def collect_offers(manager: pluggy.PluginManager, module: ModuleType, version: Version) -> list[Offer]:
    """Register a plugin's top module and return what it offers.

    A plugin with a hookimpl offers exactly what its hookimpls return. One without offers the
    public, concrete plugin classes defined in its modules: under the plugin's own name where it is
    the only one of its kind, else as `plugin.ClassName`. Raises `PluginRejected` and leaves the
    plugin unregistered when a hookimpl is misspelt, raises, or returns something else.
    """
    name = f"{version.name}@{version.short_digest}"
    try:
        manager.register(module, name=name)
        manager.check_pending()
        own = {
            kind: impl.function
            for kind, hook in _HOOKS.items()
            for impl in getattr(manager.hook, hook).get_hookimpls()
            if impl.plugin is module
        }
        offers = _from_hooks(own, version) if own else _from_classes(module, version)
        if not offers:
            cause = "offers nothing: it defines no public Strategy, ExchangeAdapter or QuoteModel subclass"
            raise PluginRejected([version.problem(cause, next_step="define one, or add a hookimpl")])
    except pluggy.PluginValidationError as error:
        _unregister(manager, name)
        raise PluginRejected([_hook_problem(module, version, error)]) from None
    except PluginRejected:
        _unregister(manager, name)
        raise
    return offers


def _unregister(manager: pluggy.PluginManager, name: str) -> None:
    if manager.has_plugin(name):
        manager.unregister(name=name)


def _hook_problem(module: ModuleType, version: Version, error: pluggy.PluginValidationError) -> PluginProblem:
    for name, function in vars(module).items():
        if hasattr(function, f"{hooks.PROJECT}_impl") and name not in _HOOKS.values():
            near = near_name(name, _HOOKS.values())
            next_step = f'did you mean "{near}"?' if near else f"the hooks are {', '.join(_HOOKS.values())}"
            cause = f'there is no hook "{name}"'
            return version.problem(cause, **_place(version, function), next_step=next_step)
    return version.problem(" ".join(str(error).split()), next_step="these hooks take no arguments")


def _place(version: Version, function: Callable[..., Any]) -> dict[str, Any]:
    code = inspect.unwrap(function).__code__
    file = version.locate(code.co_filename)
    return {"file": file, "line": code.co_firstlineno} if file else {}


def _from_hooks(impls: Mapping[Kind, Callable[[], object]], version: Version) -> list[Offer]:
    offers = []
    for kind, function in impls.items():
        base = BASES[kind]
        try:
            answer = function()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - plugin boundary
            raise PluginRejected([problem_of(version, error, f"in {_HOOKS[kind]}")]) from None
        wanted = f"{_HOOKS[kind]} returns names and {base.__name__} classes"
        if not isinstance(answer, Mapping):
            cause = f"{wanted} as a mapping, was {type(answer).__name__}"
            raise PluginRejected([version.problem(cause, **_place(version, function))])
        for name, cls in answer.items():
            if not isinstance(name, str) or not isinstance(cls, type) or not issubclass(cls, base):
                cause = f"{wanted}, was {name!r}: {cls!r}"
                raise PluginRejected([version.problem(cause, **_place(version, function))])
            offers.append(Offer(name, kind, cls, version))
    return offers


def _from_classes(module: ModuleType, version: Version) -> list[Offer]:
    offers = []
    prefix = module.__name__ + "."
    modules = [m for name, m in sys.modules.copy().items() if m is module or name.startswith(prefix)]
    for kind, base in BASES.items():
        classes = {
            cls.__name__: cls
            for m in modules
            for cls in vars(m).values()
            if isinstance(cls, type)
            and issubclass(cls, base)
            and cls.__module__ == m.__name__  # imported classes belong to where they were defined
            and not cls.__name__.startswith("_")
            and not inspect.isabstract(cls)
        }
        for class_name, cls in classes.items():
            name = version.name if len(classes) == 1 else f"{version.name}.{class_name}"
            offers.append(Offer(name, kind, cls, version))
    return offers
