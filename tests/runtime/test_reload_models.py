"""Quote models change while the quotes that they adjust are live."""

import asyncio
import gc
import importlib.util
import logging
import shutil
import sys
import threading
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from desk_tools import Desk, Quoter
from reload_tools import Stopwatch

from host.api import Adjustment, Features
from host.core import entries as e
from host.core.entries import VersionState
from host.loader import Catalog, Version, capture, make
from host.runtime.instance import Instance
from host.runtime.reload import ModelUse, Reloader, ReloadReport, ReloadSettings, Stage
from host.runtime.reload.probation import ProbationLimits

PLUGINS = Path(__file__).parents[2] / "plugins"
HEADER = """
import asyncio
import logging
import time
from host.api import Adjustment, AsyncQuoteModel, Features, NoParams, Params, Quote, QuoteModel

def takes(ms):
    logging.getLogger("tandem.strategy").info("takes %s ms", ms)
"""
SHIFT = (
    HEADER
    + """
class ShiftParams(Params, frozen=True):
    scale: float = 1.0

class Shift(QuoteModel[ShiftParams]):
    def adjust(self, features: Features, quote: Quote) -> Adjustment:
        return Adjustment(shift_bps={answer} * self.params.scale)
"""
)
LIMITS = ProbationLimits(seconds=5.0, events=3)


class ModelDesk(Desk):
    """A desk with one instance, whose quotes pass one model that a file provides."""

    def __init__(self, folder: Path, source: str | Path, params: Mapping[str, object] | None = None) -> None:
        super().__init__(folder / "journal")
        self.time_plugins = False
        self.stopwatch = Stopwatch()
        self.clock.stopwatch_ns = self.stopwatch
        logger = logging.getLogger("tandem.strategy")
        logger.addHandler(self.stopwatch)
        logger.setLevel(logging.INFO)
        self.file = folder / "plugins" / "shift.py"
        if isinstance(source, Path):
            self.file = folder / "plugins" / source.name
            shutil.copytree(source, self.file)
        else:
            self.file.parent.mkdir()
            self.file.write_text(source)
        self.catalog = Catalog.load([self.file.parent], entry_points=False)
        assert not self.catalog.problems
        self.kept: list[str] = []
        self.reloader = Reloader(
            self.engine,
            self.catalog,
            ReloadSettings(limits=LIMITS),
            _no_probe,
            lambda version: self.kept.append(version.digest),
        )
        self.params = params or {}

    def start(self) -> Instance:
        [offer] = self.catalog.offers.values()
        model = make(offer, self.params)
        self.reloader.model_uses["mm"] = (ModelUse(offer, self.params),)
        return self.run("mm", Quoter(), models=[(offer.name, model)])

    async def edit(self, source: str) -> ReloadReport:
        self.file.write_text(source)
        return await self.reload()

    async def reload(self, **options: Any) -> ReloadReport:
        return await self.reloader.reload(self.file.stem, self._capture, **options)

    async def _capture(self) -> Version:
        return capture(self.file)

    def tick(self, count: int = 1) -> None:
        """Move the market back and forth, so that every quote is asked for anew."""
        for _ in range(count):
            self._ticks = getattr(self, "_ticks", 0) + 1
            self.clock.set(self.clock.now_ns() + 100_000_000)
            bid = 60_000.0 + self._ticks % 7
            self.top(bid, bid + 200.0)

    @property
    def bid_shift_bps(self) -> float:
        """How far the resting bid is from where the strategy wants it."""
        [bid] = [order for order in self.venue.open() if order.side == "buy"]
        wanted = 60_000.0 + self._ticks % 7 - 0.02
        assert bid.price is not None
        return round((float(bid.price) / wanted - 1) * 1e4, 2)


async def _no_probe(version: Version) -> None: ...


def run(desk: ModelDesk, story: Callable[[], Any]) -> None:
    try:
        asyncio.run(story())
    finally:
        logging.getLogger("tandem.strategy").removeHandler(desk.stopwatch)
        desk.reloader.close()
        desk.journal.close()


@pytest.fixture
def desk(tmp_path: Path) -> ModelDesk:
    return ModelDesk(tmp_path, SHIFT.format(answer=1.0), {"scale": 2.0})


def test_new_version_adjusts_the_next_quote_with_the_configured_parameters(desk: ModelDesk) -> None:
    async def story() -> None:
        instance = desk.start()
        desk.tick(20)
        assert desk.bid_shift_bps == 2.0

        report = await desk.edit(SHIFT.format(answer=-3.0))
        orders = {order.client_id for order in desk.orders("mm")}
        desk.tick()

        assert report.state is VersionState.ACTIVE and report.instances == ("mm",)
        assert desk.bid_shift_bps == -6.0
        assert {order.client_id for order in desk.orders("mm")} == orders, "amended, not placed anew"
        [warm_up] = [result for result in report.stages if result.stage is Stage.WARM_UP]
        assert "40 prices differ by 8.00 bps on average, 8.00 at most" in warm_up.detail
        assert instance.models[0].skipped == 0

    run(desk, story)


def test_second_edit_is_compared_with_the_version_that_runs_by_then(desk: ModelDesk) -> None:
    async def story() -> None:
        desk.start()
        desk.tick(20)
        await desk.edit(SHIFT.format(answer=-3.0))
        nothing_yet = await desk.edit(SHIFT.format(answer=-2.0))
        desk.tick(5)
        report = await desk.edit(SHIFT.format(answer=-2.0) + "# the same\n")

        [warm_up] = [result for result in nothing_yet.stages if result.stage is Stage.WARM_UP]
        assert "nothing to compare yet" in warm_up.detail
        [warm_up] = [result for result in report.stages if result.stage is Stage.WARM_UP]
        assert "the same 10 prices as the version that runs" in warm_up.detail

    run(desk, story)


def test_old_version_is_released_once_the_new_one_is_permanent(tmp_path: Path) -> None:
    desk = ModelDesk(tmp_path, SHIFT.format(answer=7.0))

    async def story() -> None:
        instance = desk.start()
        desk.tick(5)
        old = weakref.ref(type(instance.models[0].model))
        await desk.edit(SHIFT.format(answer=2.0))
        desk.tick(10)
        desk.advance(6.0)
        del desk.catalog
        desk.advance(1.0)
        for _ in range(200):  # the thread that imported lets go of the catalog when it next runs
            if old() is None:
                break
            gc.collect()
            await asyncio.sleep(0.01)

        assert old() is None
        assert not desk.alerts("plugin_stuck")
        moves = [entry.state for entry in desk.entries if isinstance(entry, e.VersionMoved)]
        assert moves == [VersionState.ACTIVE, VersionState.PERMANENT]

    run(desk, story)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("1 / 0", "adjust raised ZeroDivisionError: division by zero (.*shift.py@"),
        ("float('nan')", "its answer makes no quote: Adjustment(shift_bps=nan"),
        ("__import__('sys').exit(3)", "adjust raised SystemExit: 3"),
    ],
)
def test_version_with_bad_answers_is_refused_in_warm_up(desk: ModelDesk, body: str, reason: str) -> None:
    async def story() -> None:
        instance = desk.start()
        desk.tick(5)
        model = instance.models[0].model
        report = await desk.edit(SHIFT.format(answer=body))
        desk.tick()

        assert report.state is VersionState.REFUSED
        start, _, end = reason.partition(".*")
        assert start in report.reason and end in report.reason
        assert instance.models[0].model is model
        assert desk.bid_shift_bps == 2.0
        assert (await desk.reload()).reason.startswith("these bytes were tried before")

    run(desk, story)


def test_version_slower_than_its_budget_is_refused_in_warm_up(tmp_path: Path) -> None:
    desk = ModelDesk(tmp_path, SHIFT.format(answer=1.0))

    async def story() -> None:
        instance = desk.start()
        desk.tick(20)
        slow = SHIFT.format(answer="(takes(0.5) or 1.0)")
        report = await desk.edit(slow)

        assert report.state is VersionState.REFUSED
        assert "its budget is 200 µs a call, but 1 in 10 took longer than 500 µs" in report.reason
        assert type(instance.models[0].model).__name__ == "Shift"

    run(desk, story)


def test_start_that_never_ends_is_refused_and_the_loop_goes_on(
    desk: ModelDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("host.runtime.reload.model_trial.START_DEADLINE_S", 0.1)
    gate = ModuleType("gate_of_this_test")
    gate.began, gate.open = threading.Event(), threading.Event()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, gate.__name__, gate)

    async def story() -> None:
        desk.start()
        desk.tick(3)
        endless = SHIFT.format(answer=1.0) + (
            "\n    def on_start(self):\n        import gate_of_this_test as gate"
            "\n        gate.began.set()\n        gate.open.wait()\n"
        )
        reloading = asyncio.ensure_future(desk.edit(endless))
        while not gate.began.is_set():
            await asyncio.sleep(0)
        desk.tick(3)

        assert not gate.open.is_set() and desk.bid_shift_bps == 2.0
        assert "its start did not end within 0.1 s" in (await reloading).reason
        gate.open.set()

    run(desk, story)


@pytest.mark.parametrize("fault", ["1 / 0", "float('nan')"])
def test_version_that_breaks_after_the_swap_is_taken_back(desk: ModelDesk, fault: str) -> None:
    async def story() -> None:
        instance = desk.start()
        desk.tick(20)
        model = instance.models[0].model
        late = f"(0.5 if time.count() < 30 else {fault})"
        source = SHIFT.format(answer=late).replace(
            "import time\n",
            "import itertools\nclass time:\n    count = staticmethod(itertools.count().__next__)\n",
        )
        report = await desk.edit(source)
        assert report.state is VersionState.ACTIVE
        desk.tick(1)
        assert desk.bid_shift_bps == 1.0
        desk.tick(40)
        desk.advance(1.0)
        desk.tick(1)

        assert instance.models[0].model is model
        assert desk.bid_shift_bps == 2.0
        [alert] = desk.alerts("rolled_back")
        assert "mm: model shift was skipped for" in alert
        assert desk.engine.state.plugin("shift").refused
        assert len(desk.orders("mm")) == 2, "its quotes went out without the model meanwhile"

    run(desk, story)


def test_version_that_is_slow_after_the_swap_is_taken_back(tmp_path: Path) -> None:
    desk = ModelDesk(tmp_path, SHIFT.format(answer=1.0))

    async def story() -> None:
        instance = desk.start()
        desk.tick(3)
        model = instance.models[0].model
        answer = "(1.0 if features.inventory_ratio == 0 else takes(120) or 1.0)"
        report = await desk.edit(SHIFT.format(answer=answer))
        assert report.state is VersionState.ACTIVE, report.reason
        stage = instance.models[0]
        stage.adjust(features_with(inventory_ratio=0.5), stage.recent[-1][1])
        desk.advance(1.0)

        assert instance.models[0].model is model
        assert "held the loop for" in desk.alerts("rolled_back")[0]

    run(desk, story)


@pytest.mark.parametrize(("slow_in", "goes_back"), [(40, False), (4, True)])
def test_version_is_taken_back_for_being_slow_often_not_for_a_bad_moment(
    tmp_path: Path, slow_in: int, goes_back: bool
) -> None:
    desk = ModelDesk(tmp_path, SHIFT.format(answer=1.0))

    async def story() -> None:
        stage = desk.start().models[0]
        desk.tick(20)
        assert (await desk.edit(SHIFT.format(answer=1.5))).state is VersionState.ACTIVE
        inner = stage._adjust
        calls = 0

        def adjust(features: Features, quote: Any) -> Any:
            nonlocal calls
            calls += 1
            desk.stopwatch.ns += 300_000 if calls % slow_in == 0 else 1_000
            return inner(features, quote)

        stage._adjust = adjust
        desk.tick(500)
        desk.advance(1.0)

        assert bool(desk.alerts("rolled_back")) == goes_back
        if goes_back:
            assert "model shift needed longer than its budget of 200 µs for" in desk.alerts("rolled_back")[0]

    run(desk, story)


def features_with(**changed: float) -> Features:
    values = dict.fromkeys(Features.__struct_fields__, 0.0) | changed
    return Features(**values)


ASYNC = (
    HEADER
    + """
class Slow(AsyncQuoteModel[NoParams]):
    async def predict(self, features: Features) -> Adjustment:
        await asyncio.sleep({delay})
        return Adjustment(shift_bps={answer})
"""
)


def test_asynchronous_model_goes_live_with_an_answer(tmp_path: Path) -> None:
    desk = ModelDesk(tmp_path, ASYNC.format(delay=0, answer=1.0))

    async def story() -> None:
        instance = desk.start()
        desk.tick()
        for _ in range(5):
            await asyncio.sleep(0)
        desk.tick()
        assert desk.bid_shift_bps == 1.0
        skipped = instance.models[0].skipped

        report = await desk.edit(ASYNC.format(delay=0, answer=4.0))
        desk.tick()
        assert report.state is VersionState.ACTIVE
        assert desk.bid_shift_bps == 4.0, "before its first prediction for a quote came back"
        assert instance.models[0].skipped == skipped

        desk.reloader.roll_back("shift", "said the operator")
        desk.tick()
        assert desk.bid_shift_bps == 1.0

    run(desk, story)


def test_asynchronous_model_slower_than_its_answers_hold_is_refused(tmp_path: Path) -> None:
    desk = ModelDesk(tmp_path, ASYNC.format(delay=0, answer=1.0))

    async def story() -> None:
        desk.start()
        desk.tick(2)
        slow = ASYNC.format(delay=60, answer=1.0).replace("    async", "    valid_ms = 20.0\n    async")
        report = await desk.edit(slow)
        assert "its answers hold for 20 ms, but predict took longer" in report.reason

    run(desk, story)


def test_instances_of_one_plugin_change_together_or_not_at_all(desk: ModelDesk) -> None:
    async def story() -> None:
        first = desk.start()
        [offer] = desk.catalog.offers.values()
        params = {"scale": 0.0}
        second = desk.run("other", Quoter(), models=[(offer.name, make(offer, params))])
        desk.reloader.model_uses["other"] = (ModelUse(offer, params),)
        desk.tick(3)
        models = [first.models[0].model, second.models[0].model]
        report = await desk.edit(SHIFT.format(answer="1 / self.params.scale"))
        assert report.state is VersionState.REFUSED
        assert [first.models[0].model, second.models[0].model] == models

        report = await desk.edit(SHIFT.format(answer=5.0))
        assert report.instances == ("mm", "other")
        assert not {type(first.models[0].model), type(second.models[0].model)} & set(map(type, models))

    run(desk, story)


@pytest.mark.skipif(
    importlib.util.find_spec("onnxruntime") is None or importlib.util.find_spec("onnx") is None,
    reason="onnx and onnxruntime are not installed (extras `onnx` and `train`)",
)
def test_model_file_retrained_while_quoting_goes_live(tmp_path: Path) -> None:
    desk = ModelDesk(tmp_path, PLUGINS / "models" / "onnx_adjust", {"strength": 1.0})

    async def story() -> None:
        instance = desk.start()
        desk.tick(30)
        features, quote, before = instance.models[0].recent[-1]
        assert isinstance(before, Adjustment)
        _scale_weights(desk.file / "model.onnx", 0.5)
        report = await desk.reload()
        desk.tick(30)

        assert report.state is VersionState.ACTIVE, report.reason
        now = instance.models[0].model.adjust(features, quote)
        assert now.shift_bps == pytest.approx(before.shift_bps / 2, rel=1e-4)
        (desk.file / "model.onnx").write_bytes(b"half a file")
        assert "model onnx_adjust: on_start raised" in (await desk.reload()).reason
        desk.tick(1)
        assert instance.models[0].skipped == 0

    run(desk, story)


def _scale_weights(path: Path, factor: float) -> None:
    import onnx
    from onnx import numpy_helper

    model = onnx.load(path)
    last = [t for t in model.graph.initializer if "weight" in t.name.lower()][-1]
    last.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(last) * factor, last.name))
    onnx.save(model, path)
