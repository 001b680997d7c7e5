"""pluggy hookspecs: who offers what.

A plugin file needs none of these: without a hookimpl it offers the plugin classes it defines. Use
them to choose or to rename what is offered. They are called when plugins are loaded, never per
market event.
"""

from collections.abc import Mapping
from typing import Any

import pluggy

from host.api.exchange import ExchangeAdapter
from host.api.model import QuoteModel
from host.api.strategy import Strategy

__all__ = ["PROJECT", "hookimpl", "hookspec"]

PROJECT = "tandem"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def provide_strategies() -> Mapping[str, type[Strategy[Any]]]:  # type: ignore[empty-body]
    """Return the strategies on offer, by the name that configurations use."""


@hookspec
def provide_exchanges() -> Mapping[str, type[ExchangeAdapter[Any]]]:  # type: ignore[empty-body]
    """Return the exchange adapters on offer, by the name that configurations use."""


@hookspec
def provide_models() -> Mapping[str, type[QuoteModel[Any]]]:  # type: ignore[empty-body]
    """Return the quote models on offer, by the name that configurations use."""
