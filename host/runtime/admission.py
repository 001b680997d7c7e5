"""What has to be right before a node may run an instance: its account, its symbols, its models, its saved state."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from host.api import QuoteModel, Strategy, TandemError
from host.runtime.instance import Instance
from host.runtime.models import ModelStage
from host.runtime.plugin_errors import describe_error

if TYPE_CHECKING:
    from host.runtime.engine import Engine

__all__ = ["InstanceSpec", "admit", "check_candles", "start_model"]


class InstanceSpec(Struct, frozen=True, kw_only=True):
    """An instance as configured, with its plugin's version."""

    name: str
    account: str
    symbols: tuple[str, ...]
    plugin: str
    digest: str
    params_json: bytes
    tolerance_bps: float = 0.5
    start_paused: bool = False


def admit(
    engine: "Engine",
    spec: InstanceSpec,
    strategy: Strategy[Any],
    models: Sequence[tuple[str, QuoteModel[Any]]],
    spawn: Callable[[Coroutine[Any, Any, None], str], "asyncio.Task[None]"],
) -> Instance:
    """Return an instance that may be installed, with its saved state; nobody knows of it yet.

    Raises `StateNotCarried` where its saved state does not fit, and another `TandemError` for a
    symbol that is not there, a model that does not start, or another account than the one where
    it holds something.
    """
    known = engine.state.instances.get(spec.name)
    _check_account(engine, spec)
    _check_symbols(engine, spec)
    check_candles(spec.name, strategy)
    stages = [ModelStage(name, model, engine.clock, spawn) for name, model in models]
    try:
        for stage in stages:
            start_model(spec.name, stage)
        instance = Instance(engine, spec.name, spec.account, spec.symbols, strategy, stages)
        if known is not None:
            instance.restore_state(known.state_version, known.strategy_state)
    except BaseException:
        for stage in stages:
            stage.close()  # one may have a process of its own by now
        raise
    return instance


def check_candles(instance: str, strategy: Strategy[Any]) -> None:
    """Raise `TandemError` where a strategy asks for candles of a length that there is not."""
    seconds = strategy.candle_seconds
    if type(strategy).on_candle is not Strategy.on_candle and not (isinstance(seconds, int) and seconds > 0):
        raise TandemError(
            f"instance {instance}: candle_seconds must be a whole number above 0, was {seconds!r}"
        )


def start_model(instance: str, stage: ModelStage) -> ModelStage:
    """Run a model's `on_start`; raise `TandemError` where that fails."""
    try:
        stage.model.on_start()
    except (Exception, SystemExit) as error:
        raise TandemError(
            f"instance {instance}: model {stage.name}: on_start raised {describe_error(error)}"
        ) from error
    return stage


def _check_account(engine: "Engine", spec: InstanceSpec) -> None:
    """Raise `TandemError` where an instance would leave a position or orders behind on its old account.

    They would count as the new account's, though the venue has them on the old one.
    """
    state = engine.state
    known = state.instances.get(spec.name)
    if known is None or known.account == spec.account:
        return
    held = [f"{h.qty} {symbol}" for symbol, h in state.holdings.get(spec.name, {}).items() if h.qty]
    orders = sum(o.instance == spec.name and o.account == known.account for o in state.orders.values())
    if orders:
        held.append(f"{orders} open order{'s' if orders > 1 else ''}")
    if held:
        raise TandemError(
            f"instance {spec.name} cannot move from account {known.account} to {spec.account} while it has "
            f"{', '.join(held)} there; close that first, or give the new instance another name"
        )


def _check_symbols(engine: "Engine", spec: InstanceSpec) -> None:
    feed = engine.feeds[spec.account]
    for symbol in spec.symbols:
        if symbol not in feed.symbols:
            raise TandemError(
                f"instance {spec.name}: account {spec.account} has no symbol {symbol}; "
                f"it has {', '.join(feed.listed) or 'none'}"
            )
