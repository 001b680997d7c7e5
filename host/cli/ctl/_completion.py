"""Completes names by asking the node that the command line names, within a moment or not at all."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

import click
from click.shell_completion import CompletionItem

from host.cli.ctl._node_options import control_of, given
from host.cli.ctl._words import short

__all__ = [
    "accounts",
    "instances",
    "orders",
    "params_of_instance",
    "plugins",
    "scopes",
    "strategies",
    "symbols",
]

LIMIT_S: Final = 0.7
"""A shell that waits longer for the Tab key feels broken."""
_Items = list[CompletionItem]


def _complete(
    ask: Callable[[Any, dict[str, Any]], Awaitable[dict[str, str]]],
) -> Callable[[click.Context, click.Parameter, str], _Items]:
    """Return a completion that offers the words that `ask` finds, each with a help text."""

    def complete(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> _Items:
        options = given(ctx)

        async def story() -> dict[str, str]:
            async with asyncio.timeout(LIMIT_S), control_of(options, timeout_s=LIMIT_S) as control:
                return await ask(control, options)

        try:
            found = asyncio.run(story())
        except Exception:  # noqa: BLE001 - in the middle of a command line there is nowhere to say it
            return []
        return [
            CompletionItem(text, help=told) for text, told in found.items() if text.startswith(incomplete)
        ]

    return complete


async def _instances(control: Any, _options: dict[str, Any]) -> dict[str, str]:
    from host.cli.ctl._words import word
    from tandem.v1 import plugin_pb2 as p

    answer = await control.plugins.list_instances(p.ListInstancesRequest(page_size=1000))
    return {short(one.name): f"{one.plugin}, {word(p.InstanceState, one.state)}" for one in answer.instances}


async def _plugins(control: Any, _options: dict[str, Any]) -> dict[str, str]:
    from tandem.v1 import plugin_pb2 as p

    answer = await control.plugins.list_plugins(p.ListPluginsRequest(page_size=1000))
    return {short(one.name): one.path for one in answer.plugins}


async def _strategies(control: Any, _options: dict[str, Any]) -> dict[str, str]:
    from tandem.v1 import plugin_pb2 as p

    request = p.ListPluginsRequest(page_size=1000, kind=p.PLUGIN_KIND_STRATEGY)
    answer = await control.plugins.list_plugins(request)
    return {
        offer.name: one.path
        for one in answer.plugins
        for offer in one.offers
        if offer.kind == p.PLUGIN_KIND_STRATEGY
    }


async def _accounts(control: Any, _options: dict[str, Any]) -> dict[str, str]:
    from tandem.v1 import node_pb2 as n

    answer = await control.node.get_status(n.GetStatusRequest())
    return {short(one.name): one.exchange for one in answer.status.accounts}


async def _symbols(control: Any, _options: dict[str, Any]) -> dict[str, str]:
    from tandem.v1 import trading_pb2 as t

    answer = await control.trading.list_books(t.ListBooksRequest(page_size=1000))
    return {one.symbol: short(one.account) for one in answer.books}


async def _orders(control: Any, _options: dict[str, Any]) -> dict[str, str]:
    from host.cli.ctl._words import word
    from tandem.v1 import common_pb2 as c
    from tandem.v1 import trading_pb2 as t

    answer = await control.trading.list_orders(t.ListOrdersRequest(page_size=1000))
    return {
        one.client_id: f"{short(one.instance)} {word(c.Side, one.side)} {one.qty} {one.symbol} {one.price}"
        for one in answer.orders
    }


async def _scopes(control: Any, options: dict[str, Any]) -> dict[str, str]:
    found = {"node": "everything"}
    for collection, ask in (("accounts", _accounts), ("instances", _instances), ("symbols", _symbols)):
        found |= {f"{collection}/{name}": told for name, told in (await ask(control, options)).items()}
    return found


async def _params_of_instance(control: Any, options: dict[str, Any]) -> dict[str, str]:
    from host.cli.ctl._schema import properties
    from host.cli.ctl._words import full_name
    from tandem.v1 import plugin_pb2 as p

    request = p.GetInstanceRequest(name=full_name(options["instance"], "instances"))
    answer = await control.plugins.get_instance(request)
    known = properties(answer.instance.params_schema)
    return {f"{name}=": str(one.get("description", "")) for name, one in known.items()}


instances = _complete(_instances)
plugins = _complete(_plugins)
strategies = _complete(_strategies)
accounts = _complete(_accounts)
symbols = _complete(_symbols)
orders = _complete(_orders)
scopes = _complete(_scopes)
params_of_instance = _complete(_params_of_instance)
