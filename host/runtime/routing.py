"""Who hears of what: market data, candles and features go to the instances that ask for them.

What an event does is decided here once, when instances change: each symbol's feed gets tuples of bound callbacks,
which it calls one after the other.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from host.core.features import FeatureMaker
from host.runtime.candles import CandleMaker
from host.runtime.feed import AccountFeed
from host.runtime.instance import SECOND_NS, Instance

__all__ = ["attach", "feed_models", "fit", "route"]


def attach(feed: AccountFeed, instance: Instance) -> None:
    """Give an instance its account's books, and have the features and candles made that it asks for."""
    for symbol in instance.symbols:
        instance.feeds[symbol] = feed.symbols[symbol]
    feed_models(instance)
    fit(feed, instance)


def feed_models(instance: Instance) -> None:
    """Have the features made that an instance's models are asked with."""
    for symbol_feed in instance.feeds.values():
        if instance.models and symbol_feed.features is None:
            symbol_feed.features = FeatureMaker()


def fit(feed: AccountFeed, instance: Instance) -> None:
    """Have the candles made that the instance's strategy asks for; one that goes on is kept."""
    sink = _candle_sink(feed, instance)
    before, instance.candle_makers = instance.candle_makers, {}
    if not instance.overrides("on_candle"):
        return
    seconds = instance.strategy.candle_seconds
    for symbol in instance.symbols:
        maker = before.get(symbol)
        if maker is None or maker.interval_ns != seconds * SECOND_NS:
            maker = CandleMaker(symbol, seconds, sink)
        instance.candle_makers[symbol] = maker


def route(feeds: Iterable[AccountFeed], receiving: Sequence[Instance]) -> None:
    """Have these instances, in this order, and no others hear of the market."""
    for feed in feeds:
        for symbol, symbol_feed in feed.symbols.items():
            here = [i for i in receiving if i.account == feed.account and symbol in i.symbols]
            symbol_feed.on_book = _handlers(here, "on_book")
            symbol_feed.on_depth = _handlers(here, "on_depth")
            symbol_feed.on_trade = _handlers(here, "on_trade")
            symbol_feed.on_ticker = _handlers(here, "on_ticker")
            # Kept, not made anew: a neighbour that goes must not cost anybody half a candle.
            symbol_feed.candle_makers = tuple(maker for i in here for maker in _candle_makers(i, symbol))


def _handlers(
    instances: Sequence[Instance], callback: str
) -> tuple[tuple[Instance, Callable[[Any], None]], ...]:
    """Return the bound callbacks of the instances that define one, watched where on probation."""
    handlers: list[tuple[Instance, Callable[[Any], None]]] = []
    for instance in instances:
        if instance.overrides(callback):
            handle = getattr(instance.strategy, callback)
            if instance.probation is not None:
                handle = instance.probation.watch(handle)
            handlers.append((instance, handle))
        elif instance.fallback is not None and instance.fallback.overrides(callback):
            handlers.append((instance, _ignore))  # so that the event is in the history for it
    return tuple(handlers)


def _ignore(_event: Any) -> None:
    pass


def _candle_makers(instance: Instance, symbol: str) -> list[CandleMaker]:
    """Return what makes an instance's candles, and those of the version it may be rolled back to."""
    makers = [instance.candle_makers[symbol]] if symbol in instance.candle_makers else []
    if instance.fallback is not None:
        kept = instance.fallback.candle_makers.get(symbol)
        if kept is not None and kept not in makers:
            makers.append(kept)
    return makers


def _candle_sink(feed: AccountFeed, instance: Instance) -> Callable[[Any], None]:
    return lambda candle: feed.emit_candle(instance, candle)
