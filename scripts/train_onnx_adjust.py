"""Train the model of `plugins/models/onnx_adjust` on a recorded market and write it as ONNX.

    python scripts/train_onnx_adjust.py [RECORDING] [--check RECORDING ...] [--out model.onnx]

The forecast is a ridge regression (Hoerl and Kennard 1970) of the mid's move over the next second
on the features that have a direction. Without intercept and without undirected features it is odd:
a mirrored market gives the opposite forecast, so the trend of the training sample cannot become a
bias. Needs the extras `train` and `onnx`.
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray

from host.api import FEATURE_NAMES, BookTop, Depth, Trade
from host.core.books import Book
from host.core.features import FeatureMaker
from venue.recording import Recording

ROOT: Final = Path(__file__).parents[1]
DEFAULT_OUT: Final = ROOT / "plugins" / "models" / "onnx_adjust" / "model.onnx"
DEFAULT_RECORDING: Final = "binance_spot_BTCUSDT_20240808-09"

HORIZON_NS: Final = 1_000_000_000
SAMPLE_NS: Final = 100_000_000
"""Shortest time between two samples; closer ones repeat each other."""
WARM_UP_NS: Final = 30_000_000_000
TRAIN_SHARE: Final = 0.7
RIDGE: Final = 0.01
"""Penalty per sample on standardised weights."""
CLIP_PERCENTILE: Final = 99.5
"""Inputs beyond this percentile of their training size count as being at it."""
DIRECTED: Final = ("imbalance", "microprice_bps", "trade_flow", "momentum_bps")

# Fixed so that the same recording gives the same bytes whatever onnx release writes them.
OPSET: Final = 17
IR_VERSION: Final = 8

Floats = NDArray[np.float64]


class Samples(NamedTuple):
    """One row per sample: time, features in the order of `FEATURE_NAMES`, and what came next."""

    times_ns: NDArray[np.int64]
    features: Floats
    moves_bps: Floats

    def between(self, start_ns: float, end_ns: float) -> "Samples":
        """Return the samples whose whole horizon lies in [start_ns, end_ns)."""
        keep = (self.times_ns >= start_ns) & (self.times_ns + HORIZON_NS < end_ns)
        return Samples(self.times_ns[keep], self.features[keep], self.moves_bps[keep])


class Linear(NamedTuple):
    """forecast = Σ weight × clip(feature, ± limit), in the order of `FEATURE_NAMES`."""

    weights: NDArray[np.float32]
    limits: NDArray[np.float32]

    def forecast(self, features: Floats) -> Floats:
        """Return the forecast of each row, in bps."""
        answer: Floats = np.clip(features, -self.limits, self.limits) @ self.weights.astype(np.float64)
        return answer


def read_samples(folder: Path) -> Samples:
    """Replay a recording as a node would see it and collect features and the moves after them."""
    recording = Recording.open(folder)
    book, maker = Book(recording.symbol), FeatureMaker()
    times: list[int] = []
    rows: list[tuple[float, ...]] = []
    tops: list[tuple[int, float]] = []
    for event in recording.events():
        before = book.top
        if isinstance(event, Trade):
            maker.on_trade(event)
        elif isinstance(event, BookTop):
            book.apply_top(event)
        elif isinstance(event, Depth):
            book.apply_depth(event)
        top = book.top
        if top is None or top is before:
            continue
        maker.on_book(top)
        tops.append((top.ts_recv, top.mid))
        if not times or top.ts_recv - times[-1] >= SAMPLE_NS:
            times.append(top.ts_recv)
            rows.append(maker.features(0.0).vector())
    at = np.array(times, np.int64)
    top_times = np.array([time for time, _ in tops], np.int64)
    mids = np.array([mid for _, mid in tops])
    now = mids[np.searchsorted(top_times, at, side="right") - 1]
    later = mids[np.searchsorted(top_times, at + HORIZON_NS, side="right") - 1]
    samples = Samples(at, np.array(rows), (later - now) / now * 1e4)
    return samples.between(at[0] + WARM_UP_NS, top_times[-1])


def fit(samples: Samples, names: Sequence[str] = DIRECTED) -> Linear:
    """Fit the ridge regression on `names` and fold the standardisation into its weights."""
    columns = [FEATURE_NAMES.index(name) for name in names]
    limits = np.zeros(len(FEATURE_NAMES))
    limits[columns] = np.percentile(np.abs(samples.features[:, columns]), CLIP_PERCENTILE, axis=0)
    clipped = np.clip(samples.features, -limits, limits)[:, columns]
    scale = np.sqrt(np.mean(clipped**2, axis=0))
    x = clipped / scale
    penalty = RIDGE * len(x) * np.eye(len(columns))
    weights = np.zeros(len(FEATURE_NAMES))
    weights[columns] = np.linalg.solve(x.T @ x + penalty, x.T @ samples.moves_bps) / scale
    return Linear(_rounded(weights), _rounded(limits))


def _rounded(values: Floats) -> NDArray[np.float32]:
    # Five digits: what differs between two machines' linear algebra is far below.
    return np.array([float(f"{value:.5g}") for value in values], np.float32)


def to_onnx(model: Linear, training_data: str) -> bytes:
    """Return the model file: Max and Min clip the inputs, Gemm weighs them."""
    n = len(FEATURE_NAMES)
    helper, tensor = onnx.helper, onnx.TensorProto.FLOAT
    constants = [
        helper.make_tensor("low", tensor, [1, n], (-model.limits).tolist()),
        helper.make_tensor("high", tensor, [1, n], model.limits.tolist()),
        helper.make_tensor("weights", tensor, [n, 1], model.weights.tolist()),
    ]
    nodes = [
        helper.make_node("Max", ["features", "low"], ["floored"]),
        helper.make_node("Min", ["floored", "high"], ["clipped"]),
        helper.make_node("MatMul", ["clipped", "weights"], ["mid_move_bps"]),
    ]
    graph = helper.make_graph(
        nodes,
        "onnx_adjust",
        [helper.make_tensor_value_info("features", tensor, [1, n])],
        [helper.make_tensor_value_info("mid_move_bps", tensor, [1, 1])],
        constants,
    )
    proto: Any = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="scripts/train_onnx_adjust.py",
    )
    metadata = {
        "feature_names": ",".join(FEATURE_NAMES),
        "target": f"move of the mid over the next {HORIZON_NS // 10**9} s, in bps",
        "training_data": training_data,
    }
    for key, value in metadata.items():
        entry = proto.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.checker.check_model(proto, full_check=True)
    data: bytes = proto.SerializeToString(deterministic=True)
    return data


def report(label: str, samples: Samples, forecast: Floats) -> str:
    """Return one line: correlation, and R² against always forecasting no move."""
    moves = samples.moves_bps
    has_spread = forecast.std() > 0 and moves.std() > 0
    correlation = float(np.corrcoef(forecast, moves)[0, 1]) if has_spread else 0.0
    r_squared = 1 - float(np.sum((moves - forecast) ** 2) / np.sum(moves**2))
    seconds = len(np.unique(samples.times_ns // HORIZON_NS))
    return f"{label:<56} {len(moves):>7} {seconds:>8} {correlation:>12.3f} {r_squared:>8.3f}"


def main() -> None:
    """Train on the first part of a recording, report on the rest, write the model."""
    marketdata = Path(os.environ.get("TANDEM_MARKETDATA", ROOT.parent / "shared" / "marketdata"))
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("recording", nargs="?", type=Path, default=marketdata / DEFAULT_RECORDING)
    parser.add_argument("--check", nargs="*", type=Path, default=[], help="other recordings to report on")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT)
    args = parser.parse_args()

    samples = read_samples(args.recording)
    start, end = samples.times_ns[0], samples.times_ns[-1]
    split = start + (end - start) * TRAIN_SHARE
    train, test = samples.between(start, split), samples.between(split, end)
    model, baseline = fit(train), fit(train, ["imbalance"])

    print(f"{'':<56} {'samples':>7} {'seconds':>8} {'correlation':>12} {'R²':>8}")
    print(report("training part", train, model.forecast(train.features)))
    print(report("later part, not trained on", test, model.forecast(test.features)))
    print(report("later part, imbalance alone", test, baseline.forecast(test.features)))
    micro = test.features[:, FEATURE_NAMES.index("microprice_bps")]
    print(report("later part, the microprice as forecast", test, micro))
    for folder in args.check:
        other = read_samples(folder)
        print(report(folder.name, other, model.forecast(other.features)))
    for name, weight, limit in zip(FEATURE_NAMES, model.weights, model.limits, strict=True):
        print(f"{name:<16} weight {weight:>10.5g}  clipped at ± {limit:.5g}")
    args.out.write_bytes(to_onnx(model, args.recording.name))
    print(f"wrote {args.out} ({args.out.stat().st_size} bytes)")


if __name__ == "__main__":
    main()
