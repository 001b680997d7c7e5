"""The bundled quote models."""

import importlib.util
import os
import shutil
import sys
from decimal import Decimal
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest
from fakes import PLUGINS, load_plugin
from hypothesis import given
from hypothesis import strategies as st

from host.api import FEATURE_NAMES, NO_CHANGE, Adjustment, Features, Quote, TandemError

inventory_skew = load_plugin("models/inventory_skew.py")
onnx_adjust = load_plugin("models/onnx_adjust")

ROOT = PLUGINS.parent
MARKETDATA = Path(os.environ.get("TANDEM_MARKETDATA", ROOT.parent / "shared" / "marketdata"))
needs_onnxruntime = pytest.mark.skipif(
    importlib.util.find_spec("onnxruntime") is None, reason="onnxruntime is not installed (extra `onnx`)"
)

QUOTE = Quote.around(100.0, 5.0, Decimal(1))
CALM = Features(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


def features(**changed: float) -> Features:
    return msgspec.structs.replace(CALM, **changed)


def skew(**params: Any) -> Any:
    return inventory_skew.InventorySkew(inventory_skew.InventorySkewParams(**params))


# -- inventory_skew ------------------------------------------------------------------------------


def test_inventory_skew_leaves_a_flat_book_in_a_still_market_alone() -> None:
    assert skew().adjust(CALM, QUOTE) == Adjustment()


def test_inventory_skew_shifts_down_when_long_and_up_when_short() -> None:
    model = skew(skew_bps=4.0)
    assert model.adjust(features(inventory_ratio=0.5), QUOTE).shift_bps == -2.0
    assert model.adjust(features(inventory_ratio=-1.0), QUOTE).shift_bps == 4.0


def test_inventory_skew_widens_with_volatility_up_to_its_limit() -> None:
    model = skew(widen_per_bps=0.5, max_scale=3.0)
    assert model.adjust(features(volatility_bps=2.0), QUOTE).spread_scale == 2.0
    assert model.adjust(features(volatility_bps=50.0), QUOTE).spread_scale == 3.0


@pytest.mark.parametrize("bad", [{"skew_bps": -1.0}, {"widen_per_bps": -0.1}, {"max_scale": 0.5}])
def test_inventory_skew_refuses_parameters_out_of_bounds(bad: dict[str, float]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(bad, inventory_skew.InventorySkewParams)


# -- onnx_adjust ---------------------------------------------------------------------------------


def onnx_model(module: ModuleType = onnx_adjust, **params: Any) -> Any:
    model = module.OnnxAdjust(module.OnnxAdjustParams(**params))
    model.on_start()
    return model


def folder_with(model_bytes: bytes, tmp_path: Path, name: str) -> ModuleType:
    """Return the plugin with another model file in its folder."""
    folder = tmp_path / name
    shutil.copytree(PLUGINS / "models" / "onnx_adjust", folder)
    (folder / "model.onnx").write_bytes(model_bytes)
    return load_plugin(str(folder))


@pytest.fixture(scope="module")
def training() -> ModuleType:
    pytest.importorskip("onnx", reason="onnx is not installed (extra `train`)")
    spec = importlib.util.spec_from_file_location(
        "tests_train_onnx_adjust", ROOT / "scripts" / "train_onnx_adjust.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@needs_onnxruntime
def test_onnx_adjust_leans_to_the_heavier_side_of_the_book() -> None:
    model = onnx_model()
    assert model.adjust(CALM, QUOTE).shift_bps == 0.0
    assert model.adjust(features(imbalance=0.9), QUOTE).shift_bps > 0.1
    assert model.adjust(features(imbalance=-0.9), QUOTE).shift_bps < -0.1


@needs_onnxruntime
def test_onnx_adjust_scales_by_strength_and_stops_at_its_limit() -> None:
    heavy = features(imbalance=0.9)
    full = onnx_model(strength=1.0).adjust(heavy, QUOTE).shift_bps
    assert onnx_model(strength=0.5).adjust(heavy, QUOTE).shift_bps == pytest.approx(full / 2)
    assert onnx_model(strength=0.0).adjust(heavy, QUOTE).shift_bps == 0.0
    assert onnx_model(strength=100.0, max_shift_bps=0.3).adjust(heavy, QUOTE).shift_bps == 0.3


@needs_onnxruntime
def test_onnx_adjust_changes_nothing_on_a_forecast_that_is_not_a_number() -> None:
    assert onnx_model().adjust(features(imbalance=float("nan")), QUOTE) == NO_CHANGE


_values = st.floats(-1e6, 1e6)


@cache
def started() -> Any:
    return onnx_model(max_shift_bps=0.5)


@needs_onnxruntime
@given(st.lists(_values, min_size=len(FEATURE_NAMES), max_size=len(FEATURE_NAMES)))
def test_onnx_adjust_mirrors_a_mirrored_market(values: list[float]) -> None:
    model = started()
    there = model.adjust(Features(*values), QUOTE).shift_bps
    back = model.adjust(Features(*(-value for value in values)), QUOTE).shift_bps
    assert abs(there) <= 0.5
    assert there == pytest.approx(-back, abs=1e-6)


@pytest.mark.parametrize("missing", ["onnxruntime", "numpy"])
def test_onnx_adjust_says_what_to_install(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(TandemError, match=rf"{missing} is not installed; .* pip install 'tandem\[onnx\]'"):
        onnx_model()


@needs_onnxruntime
@pytest.mark.parametrize(
    ("names", "difference"),
    [
        ((*FEATURE_NAMES[:-1], "funding"), "missing: inventory_ratio; unknown: funding"),
        (FEATURE_NAMES[::-1], "the order differs"),
        ((), "was without feature names"),
    ],
)
def test_onnx_adjust_refuses_a_model_of_other_features(
    names: tuple[str, ...],
    difference: str,
    tmp_path: Path,
    training: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(training, "FEATURE_NAMES", names or FEATURE_NAMES)
    model = training.Linear(*([training.np.zeros(len(FEATURE_NAMES), "f4")] * 2))
    data = training.to_onnx(model, "nothing")
    if not names:
        proto = training.onnx.load_from_string(data)
        del proto.metadata_props[:]
        data = proto.SerializeToString()
    with pytest.raises(TandemError, match=difference):
        onnx_model(folder_with(data, tmp_path, "other_features"))


# -- training ------------------------------------------------------------------------------------


def made_up_samples(training: ModuleType) -> Any:
    """Return moves that are 0.8 × imbalance and noise, with a trend that must not be learned."""
    np = training.np
    random = np.random.default_rng(7)
    rows = random.normal(size=(4000, len(FEATURE_NAMES)))
    rows[:, FEATURE_NAMES.index("imbalance")] = random.uniform(-1, 1, 4000)
    moves = 0.8 * rows[:, FEATURE_NAMES.index("imbalance")] + random.normal(size=4000) * 0.3 + 0.5
    times = np.arange(4000) * training.SAMPLE_NS
    return training.Samples(times, rows, moves)


def test_training_finds_the_direction_and_ignores_the_trend(training: ModuleType) -> None:
    model = training.fit(made_up_samples(training))
    weights = dict(zip(FEATURE_NAMES, model.weights.tolist(), strict=True))
    assert weights.pop("imbalance") == pytest.approx(0.8, rel=0.1)
    assert all(abs(weight) < 0.05 for weight in weights.values())
    assert model.forecast(training.np.zeros((1, len(FEATURE_NAMES)))) == 0.0


def test_samples_between_leave_out_moves_that_end_after(training: ModuleType) -> None:
    samples = made_up_samples(training)
    kept = samples.between(0, 5 * training.HORIZON_NS)
    assert kept.times_ns[-1] < 4 * training.HORIZON_NS


@needs_onnxruntime
def test_the_written_model_gives_the_forecast_of_the_fit_and_the_same_bytes(
    training: ModuleType, tmp_path: Path
) -> None:
    samples = made_up_samples(training)
    fitted = training.fit(samples)
    data = training.to_onnx(fitted, "made up")
    assert data == training.to_onnx(training.fit(samples), "made up")
    model = onnx_model(folder_with(data, tmp_path, "made_up"), strength=1.0, max_shift_bps=100.0)
    for row, expected in zip(samples.features[:50], fitted.forecast(samples.features[:50]), strict=True):
        assert model.adjust(Features(*row.tolist()), QUOTE).shift_bps == pytest.approx(expected, abs=1e-5)


def test_the_model_in_the_repository_is_what_training_gives(training: ModuleType) -> None:
    recording = MARKETDATA / training.DEFAULT_RECORDING
    if not recording.is_dir():
        pytest.skip(f"{recording} is not there; set TANDEM_MARKETDATA to the folder of recordings")
    samples = training.read_samples(recording)
    start, end = samples.times_ns[0], samples.times_ns[-1]
    fitted = training.fit(samples.between(start, start + (end - start) * training.TRAIN_SHARE))
    proto = training.onnx.load(str(training.DEFAULT_OUT))
    stored = {tensor.name: training.onnx.numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    assert stored["weights"].ravel() == pytest.approx(fitted.weights, rel=1e-3)
    assert stored["high"].ravel() == pytest.approx(fitted.limits, rel=1e-3)
