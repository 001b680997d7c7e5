"""Models that are broken, slow or senseless cost nobody a quote."""

import asyncio
import math
from collections.abc import Coroutine, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar

import pytest
from desk_tools import BTC, Desk, Quoter
from hypothesis import example, given
from hypothesis import strategies as st

from host.api import Adjustment, AsyncQuoteModel, Features, NoParams, Quote, QuoteModel, TandemError
from host.core.entries import InstanceState
from host.runtime.clock import VirtualClock
from host.runtime.models import SAMPLE_EVERY, SAMPLES_KEPT, ModelStage, apply_adjustment

FEATURES = Features(1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0)
QUOTE = Quote(99.0, Decimal(1), 101.0, Decimal(2))
MS = 1_000_000


class SlowClock(VirtualClock):
    """Each look at the stopwatch takes `step_ns`."""

    def __init__(self) -> None:
        super().__init__()
        self.step_ns = 0
        self._read_ns = 0
        self.stopwatch_ns = self._read

    def _read(self) -> int:
        self._read_ns += self.step_ns
        return self._read_ns


class Answers(QuoteModel[NoParams]):
    """Returns, or raises, what it was given."""

    def __init__(self, answer: Any) -> None:
        super().__init__(NoParams())
        self.answer = answer

    def adjust(self, features: Features, quote: Quote) -> Adjustment:
        if isinstance(self.answer, BaseException):
            raise self.answer
        answer: Adjustment = self.answer
        return answer


def never(work: Coroutine[Any, Any, None], name: str) -> "asyncio.Task[None]":
    raise AssertionError("a synchronous model starts no task")


def stage(answer: Any, clock: VirtualClock | None = None) -> ModelStage:
    return ModelStage("model", Answers(answer), clock or VirtualClock(), never)


def test_adjustment_shifts_widens_and_scales() -> None:
    adjusted = stage(Adjustment(10.0, 2.0, 0.5, 0.0)).adjust(FEATURES, QUOTE)

    assert adjusted.bid == pytest.approx(98.0 * 1.001)
    assert adjusted.ask == pytest.approx(102.0 * 1.001)
    assert (adjusted.bid_qty, adjusted.ask_qty) == (Decimal("0.5"), Decimal(0))


def test_sizes_may_be_scaled_by_a_librarys_own_kind_of_number() -> None:
    class Number(float):
        """As those of NumPy are written."""

        def __repr__(self) -> str:
            return f"lib.Number({float(self)})"

    adjusted = stage(Adjustment(bid_size_scale=Number(0.5), ask_size_scale=Number(0.25))).adjust(
        FEATURES, QUOTE
    )

    assert (adjusted.bid_qty, adjusted.ask_qty) == (Decimal("0.5"), Decimal("0.5"))


def test_side_that_is_not_quoted_stays_out() -> None:
    one_sided = Quote(99.0, Decimal(1), None, Decimal(0))

    adjusted = stage(Adjustment(10.0, 2.0)).adjust(FEATURES, one_sided)

    assert adjusted.bid == pytest.approx(99.099)
    assert adjusted.ask is None


numbers = st.sampled_from([-1.0, 0.0, 0.5, 1.0, 2.0, math.nan, math.inf]) | st.floats(-10.0, 10.0)
prices = st.none() | st.floats(0.0, 1e6)


@given(shift=numbers, scale=numbers, bid_scale=numbers, ask_scale=numbers, bid=prices, ask=prices)
@example(shift=0.0, scale=1.0, bid_scale=1.0, ask_scale=1.0, bid=99.1, ask=101.3)
@example(shift=3.0, scale=1.0, bid_scale=1.0, ask_scale=0.0, bid=99.1, ask=101.3)
@example(shift=3.0, scale=1.7, bid_scale=1.0, ask_scale=1.0, bid=99.1, ask=None)
def test_adjusted_quote_is_what_its_definition_says(
    shift: float, scale: float, bid_scale: float, ask_scale: float, bid: float | None, ask: float | None
) -> None:
    adjustment = Adjustment(shift, scale, bid_scale, ask_scale)
    is_sane = (
        math.isfinite(shift)
        and 0.0 < scale < math.inf
        and 0.0 <= bid_scale < math.inf
        and 0.0 <= ask_scale < math.inf
    )
    wanted = None
    if is_sane:
        prices = [bid, ask]
        if bid is not None and ask is not None and scale != 1.0:
            middle, half = (bid + ask) * 0.5, (ask - bid) * 0.5 * scale
            prices = [middle - half, middle + half]
        low, high = (None if price is None else price * (1.0 + shift * 1e-4) for price in prices)
        sizes = [Decimal(str(each)) for each in (bid_scale, ask_scale)]
        wanted = Quote(low, Decimal(3) * sizes[0], high, Decimal(4) * sizes[1])
    assert apply_adjustment(adjustment, Quote(bid, Decimal(3), ask, Decimal(4))) == wanted


def test_recent_questions_are_all_kept_until_there_are_enough_and_then_a_few() -> None:
    model = stage(Adjustment(10.0))
    for number in range(SAMPLES_KEPT + 4 * SAMPLE_EVERY):
        model.adjust(FEATURES, Quote(99.0 + number, Decimal(1), 1e6, Decimal(2)))
    kept = [quote.bid for _, quote, _ in model.recent]
    assert len(kept) == SAMPLES_KEPT
    late = [
        99.0 + number for number in range(SAMPLES_KEPT - 1, SAMPLES_KEPT + 4 * SAMPLE_EVERY, SAMPLE_EVERY)
    ]
    assert kept[-5:] == late
    assert kept[:-5] == [99.0 + number for number in range(4, SAMPLES_KEPT - 1)]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (RuntimeError("on purpose"), "RuntimeError: on purpose"),
        (SystemExit(1), "SystemExit: 1"),
        (None, "it has no answer"),
        (7, "AttributeError"),
        (Adjustment(shift_bps=math.nan), "its answer makes no quote"),
        (Adjustment(shift_bps=math.inf), "its answer makes no quote"),
        (Adjustment(spread_scale=0.0), "its answer makes no quote"),
        (Adjustment(spread_scale=-1.0), "its answer makes no quote"),
        (Adjustment(bid_size_scale=math.nan), "its answer makes no quote"),
        (Adjustment(ask_size_scale=-0.5), "its answer makes no quote"),
        (Adjustment(shift_bps="much"), "TypeError"),  # type: ignore[arg-type]
    ],
)
def test_bad_answer_leaves_the_quote_as_it_was_and_is_counted(answer: Any, said: str) -> None:
    model = stage(answer)

    assert model.adjust(FEATURES, QUOTE) is QUOTE
    assert (model.used, model.skipped) == (0, 1)
    assert said in model.last_error


def test_answer_that_took_too_long_is_not_used() -> None:
    clock = SlowClock()
    model = stage(Adjustment(10.0), clock)
    clock.step_ns = int(Answers.budget_us * 1e3)
    assert model.adjust(FEATURES, QUOTE) != QUOTE
    clock.step_ns += 1

    assert model.adjust(FEATURES, QUOTE) is QUOTE
    assert (model.used, model.skipped) == (1, 1)
    assert model.last_error == "needed longer than its budget of 200 µs"


class Thinks(AsyncQuoteModel[NoParams]):
    """Answers when `ready` is set."""

    valid_ms: ClassVar[float] = 100.0

    def __init__(self) -> None:
        super().__init__(NoParams())
        self.ready = asyncio.Event()
        self.asked = 0
        self.error: BaseException | None = None

    async def predict(self, features: Features) -> Adjustment:
        self.asked += 1
        await self.ready.wait()
        if self.error is not None:
            raise self.error
        return Adjustment(shift_bps=float(self.asked))


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def test_slow_model_s_last_answer_is_used_until_it_is_too_old() -> None:
    async def story() -> None:
        clock, model = VirtualClock(), Thinks()
        async with asyncio.TaskGroup() as tasks:
            stage = ModelStage("model", model, clock, lambda work, name: tasks.create_task(work, name=name))
            assert stage.adjust(FEATURES, QUOTE) is QUOTE  # no answer yet, and nobody waits
            await turns()
            assert stage.adjust(FEATURES, QUOTE) is QUOTE
            assert model.asked == 1  # one question at a time
            model.ready.set()
            await turns()
            assert stage.adjust(FEATURES, QUOTE).bid == pytest.approx(99.0 * 1.0001)
            model.ready.clear()
            await turns()
            clock.set(100 * MS)
            assert stage.adjust(FEATURES, QUOTE) != QUOTE
            clock.set(100 * MS + 1)
            assert stage.adjust(FEATURES, QUOTE) is QUOTE
            assert (stage.used, stage.skipped) == (2, 3)
            assert stage.last_error == "it has no answer that is not too old"
            stage.close()

    asyncio.run(story())


@pytest.mark.parametrize("error", [RuntimeError("on purpose"), SystemExit(1)])
def test_slow_model_that_raises_is_asked_again(error: BaseException) -> None:
    async def story() -> None:
        model = Thinks()
        model.error = error
        model.ready.set()
        async with asyncio.TaskGroup() as tasks:
            stage = ModelStage("m", model, VirtualClock(), lambda work, name: tasks.create_task(work))
            stage.adjust(FEATURES, QUOTE)
            await turns()
            assert type(error).__name__ in stage.last_error
            model.error = None
            stage.adjust(FEATURES, QUOTE)
            await turns()
            assert stage.adjust(FEATURES, QUOTE) != QUOTE
            stage.close()

    asyncio.run(story())


# -- in an instance ------------------------------------------------------------------------------


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path / "journal")
    yield desk
    desk.journal.close()


def test_models_work_on_each_other_s_answers_and_a_broken_one_is_left_out(desk: Desk) -> None:
    chain: list[tuple[str, QuoteModel[Any]]] = [
        ("up", Answers(Adjustment(shift_bps=1.0))),
        ("broken", Answers(RuntimeError("on purpose"))),
        ("small", Answers(Adjustment(bid_size_scale=0.5))),
    ]
    instance = desk.run("mm", Quoter(), models=chain)
    desk.top(50_000.0, 50_010.0)

    quotes = {order.side: (order.price, order.qty) for order in desk.venue.open(BTC)}
    assert quotes == {
        "buy": (Decimal("50004.97"), Decimal("0.500")),
        "sell": (Decimal("50015.03"), Decimal("1.000")),
    }
    assert [(stage.used, stage.skipped) for stage in instance.models] == [(1, 0), (0, 1), (1, 0)]
    assert desk.state_of("mm") is InstanceState.RUNNING


def test_model_that_cannot_start_keeps_its_instance_out(desk: Desk) -> None:
    class NoFile(Answers):
        def on_start(self) -> None:
            raise FileNotFoundError("no weights")

    with pytest.raises(TandemError, match="instance mm: model nn: on_start raised FileNotFoundError: no we"):
        desk.add("mm", Quoter(), models=[("nn", NoFile(None))])
    assert "mm" not in desk.engine.state.instances
