"""A plugin's first run, offline: fed a recording, muted, and timed.

What stops it here would have stopped its reload: warm-up is the same run over recent events.
"""

import asyncio
import tempfile
from collections.abc import Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from time import perf_counter_ns
from typing import Any, Final

from msgspec import Struct

from host.api import (
    Adjustment,
    AsyncQuoteModel,
    BookTop,
    Candle,
    Command,
    ExchangeAdapter,
    Features,
    Instrument,
    MarketEvent,
    NoParams,
    Quote,
    QuoteModel,
    Strategy,
    TandemError,
    Trade,
)
from host.core.features import FeatureMaker
from host.core.risk_limits import RiskConfig
from host.core.state import TradingState
from host.journal import Journal
from host.loader import Kind, Offer, make
from host.runtime.admission import InstanceSpec
from host.runtime.candles import CandleMaker
from host.runtime.clock import VirtualClock
from host.runtime.engine import Engine, EngineSettings
from host.runtime.history import OwnEvent
from host.runtime.instance import Instance, carry_state, encode_state
from host.runtime.models import apply_adjustment
from host.runtime.plugin_errors import describe_error
from host.runtime.reload.model_probation import SLOW_SHARE
from host.runtime.reload.probation import ProbationLimits
from host.runtime.reload.shadow import Shadow

__all__ = ["Rehearsal", "rehearse"]

_ACCOUNT: Final = "rehearsal"
_HALF_SPREAD_BPS: Final = 5.0
"""Of the quote that a model is asked about at each book."""
_ASYNC_ANSWERS: Final = 20


class Rehearsal(Struct, frozen=True, kw_only=True):
    """What a plugin did with a recording. `refusal` says why the host would not take it, if so."""

    kind: str
    offer: str
    refusal: str = ""
    events: int = 0
    """Fed until the end, or until it was stopped."""
    callbacks: int = 0
    intents: int = 0
    """Quotes stated, orders and cancels; of a model: quotes that it adjusted."""
    mean_us: float = 0.0
    p99_us: float = 0.0
    slowest_us: float = 0.0
    state_bytes: int = 0
    """Size of its state at the end."""

    @property
    def is_ok(self) -> bool:
        """Return whether the host would take it."""
        return not self.refusal


def rehearse(
    offer: Offer, params: Mapping[str, object], instrument: Instrument, events: Iterable[MarketEvent]
) -> Rehearsal | None:
    """Run an offered strategy or model over `events`, muted; None for what needs a venue.

    Raises `TandemError` for what cannot be constructed, never for what the plugin does afterwards.
    """
    if offer.kind is Kind.STRATEGY:
        strategy: Strategy[Any] = make(offer, params, instance=offer.name)
        with tempfile.TemporaryDirectory(prefix="tandem-check-") as folder:
            return _rehearse_strategy(offer, strategy, instrument, events, Path(folder))
    if offer.kind is Kind.MODEL:
        return asyncio.run(_rehearse_model(offer, make(offer, params, instance=offer.name), events))
    return None


class _Times:
    """A stopwatch that is read before and after each callback, and keeps what was between."""

    def __init__(self) -> None:
        self.taken_ns: list[int] = []
        self._started_ns = 0

    def read(self) -> int:
        now_ns = perf_counter_ns()
        if self._started_ns:
            self.taken_ns.append(now_ns - self._started_ns)
            self._started_ns = 0
        else:
            self._started_ns = now_ns
        return now_ns

    @property
    def mean_us(self) -> float:
        return sum(self.taken_ns) / len(self.taken_ns) / 1e3 if self.taken_ns else 0.0

    def quantile_us(self, share: float) -> float:
        """Return what this share of the callbacks stayed within."""
        times = sorted(self.taken_ns)
        return times[int((len(times) - 1) * share)] / 1e3 if times else 0.0


# -- strategies ----------------------------------------------------------------------------------


class _NoVenue(ExchangeAdapter[NoParams]):
    """Stands where an account has an adapter; a muted strategy never reaches it."""

    def send(self, command: Command, deadline_ns: int) -> None:
        raise AssertionError("a muted strategy sends nothing")


def _rehearse_strategy(
    offer: Offer, strategy: Strategy[Any], instrument: Instrument, events: Iterable[MarketEvent], folder: Path
) -> Rehearsal:
    clock = VirtualClock(0)
    times = _Times()
    fed = 0
    refusal = ""
    with Journal.open(folder, node="check") as journal:
        stand_in = _stand_in(strategy, offer, instrument, clock, journal)
        shadow = Shadow(stand_in, strategy, 0, times.read)
        try:
            candles: list[Candle] = []
            maker = _candle_maker(strategy, instrument.symbol, candles)
            for fed, event in enumerate(events, 1):
                clock.set(event.ts_recv)
                if fed == 1:
                    shadow.advance(event.ts_recv)  # its clock, before it sets timers by it
                    shadow.start()
                if maker is not None and isinstance(event, Trade):
                    maker.on_trade(event, event.ts_recv)
                shadow.run([*(OwnEvent(offer.name, candle, event.ts_recv) for candle in candles), event])
                candles.clear()
                if refusal := _hang(times, fed, event):
                    break
            refusal = refusal or _state_fault(strategy)
        except TandemError as error:
            refusal = f"{_at(fed)}{error}"
        except (Exception, SystemExit) as error:  # noqa: BLE001 - plugin boundary: told as a refusal
            refusal = f"{_at(fed)}raised {describe_error(error)}"
    return Rehearsal(
        kind=offer.kind,
        offer=offer.name,
        refusal=refusal,
        events=fed,
        callbacks=len(times.taken_ns),
        intents=len(shadow.intents),
        state_bytes=0 if refusal else len(encode_state(strategy)),
        mean_us=times.mean_us,
        p99_us=times.quantile_us(0.99),
        slowest_us=times.quantile_us(1.0),
    )


def _stand_in(
    strategy: Strategy[Any], offer: Offer, instrument: Instrument, clock: VirtualClock, journal: Journal
) -> Instance:
    """Return an instance that holds nothing: what a muted strategy asks for its instrument and position."""
    engine = Engine(
        clock=clock,
        journal=journal,
        state=TradingState(),
        risk_config=RiskConfig(),
        settings=EngineSettings(snapshot_in_thread=False),
    )
    feed = engine.add_account(_ACCOUNT, _NoVenue(NoParams()), "")
    engine.set_instruments(_ACCOUNT, [instrument], {instrument.symbol})
    feed.follow([instrument.symbol])
    spec = InstanceSpec(
        name=offer.name,
        account=_ACCOUNT,
        symbols=(instrument.symbol,),
        plugin=offer.name,
        digest=offer.version.digest,
        params_json=b"{}",
    )
    return engine.roster.add(spec, strategy, (), feed.spawn)


def _candle_maker(strategy: Strategy[Any], symbol: str, candles: list[Candle]) -> CandleMaker | None:
    if type(strategy).on_candle is Strategy.on_candle:
        return None
    return CandleMaker(symbol, strategy.candle_seconds, candles.append)


def _hang(times: _Times, fed: int, event: MarketEvent) -> str:
    """Return what is to be said of a callback that held the loop for longer than a reload allows."""
    limit_ms = ProbationLimits().hang_ms
    if times.taken_ns and times.taken_ns[-1] > limit_ms * 1e6:
        held_ms = times.taken_ns[-1] / 1e6
        return f"{_at(fed)}a callback took {held_ms:.1f} ms for a {type(event).__name__}, the limit is {limit_ms:g} ms"
    return ""


def _state_fault(strategy: Strategy[Any]) -> str:
    """Return why the state at the end could not be taken over by the next version."""
    state_type = type(strategy).state_type
    try:
        carry_state(state_type, state_type.state_version, encode_state(strategy), "rehearsal")
    except (Exception, SystemExit) as error:  # noqa: BLE001 - plugin boundary: told as a refusal
        return f"its state at the end cannot be taken over: {describe_error(error)}"
    return ""


def _at(fed: int) -> str:
    return f"event {fed}: " if fed else "before the first event: "


# -- models --------------------------------------------------------------------------------------


async def _rehearse_model(offer: Offer, model: QuoteModel[Any], events: Iterable[MarketEvent]) -> Rehearsal:
    """Ask a model about a quote around each mid; an asynchronous one, which may be slow, a few times."""
    features = FeatureMaker()
    times = _Times()
    fed = asked = 0
    refusal = ""
    try:
        model.on_start()
        for fed, event in enumerate(events, 1):
            if isinstance(event, Trade):
                features.on_trade(event)
            if not isinstance(event, BookTop):
                continue
            features.on_book(event)
            quote = Quote.around(event.mid, _HALF_SPREAD_BPS, Decimal(1))
            times.read()
            answer = await _answer(model, features.features(0.0), quote)
            times.read()
            asked += 1
            if apply_adjustment(answer, quote) is None:
                refusal = f"{_at(fed)}its answer makes no quote: {answer}"
                break
            if isinstance(model, AsyncQuoteModel) and asked == _ASYNC_ANSWERS:
                break
    except TandemError as error:
        refusal = f"{_at(fed)}{error}"
    except (Exception, SystemExit) as error:  # noqa: BLE001 - plugin boundary: told as a refusal
        refusal = f"{_at(fed)}raised {describe_error(error)}"
    return Rehearsal(
        kind=offer.kind,
        offer=offer.name,
        refusal=refusal or _over_budget(model, times),
        events=fed,
        callbacks=len(times.taken_ns),
        intents=asked,
        mean_us=times.mean_us,
        p99_us=times.quantile_us(0.99),
        slowest_us=times.quantile_us(1.0),
    )


async def _answer(model: QuoteModel[Any], features: Features, quote: Quote) -> Adjustment:
    if not isinstance(model, AsyncQuoteModel):
        return model.adjust(features, quote)
    try:
        async with asyncio.timeout(model.valid_ms / 1e3):
            return await model.predict(features)
    except TimeoutError as error:
        raise TandemError(
            f"predict took longer than the {model.valid_ms:g} ms that its answers hold"
        ) from error


def _over_budget(model: QuoteModel[Any], times: _Times) -> str:
    if isinstance(model, AsyncQuoteModel):
        return ""
    slow_us = times.quantile_us(1 - SLOW_SHARE)
    if slow_us <= model.budget_us:
        return ""
    return (
        f"its budget is {model.budget_us:g} µs a call, but 1 in {1 / SLOW_SHARE:g} took longer than "
        f"{slow_us:.0f} µs; make it quicker or an AsyncQuoteModel"
    )
