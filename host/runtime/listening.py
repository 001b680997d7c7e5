"""Has market data of more symbols come in while a node trades."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from host.api import ExchangeError
from host.runtime.plugin_errors import describe_error

if TYPE_CHECKING:
    from host.runtime.engine import Engine

__all__ = ["listen_to"]


async def listen_to(engine: "Engine", symbols: Mapping[str, Iterable[str]]) -> None:
    """Follow symbols, by account, that nobody follows yet; raise `ExchangeError`.

    The adapters' plugins must be held meanwhile: no reload may replace an adapter that is asked here.
    """
    for account, wanted in symbols.items():
        names = sorted(wanted)
        feed = engine.feeds[account]
        engine.set_instruments(account, list(feed.listed.values()), set(names))
        feed.follow(names)
        try:
            await feed.adapter.subscribe(names)
        except BaseException as error:  # also of a caller who gives up waiting
            for name in names:
                del feed.symbols[name]
            if isinstance(error, ExchangeError) or not isinstance(error, Exception):
                raise
            text = f"account {account}: its adapter raised {describe_error(error)}"
            raise ExchangeError(text) from error
