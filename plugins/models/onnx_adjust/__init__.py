"""A quote model that shifts quotes towards where a small ONNX network expects the mid to go.

`model.onnx` beside this file is made by `scripts/train_onnx_adjust.py`; `docs/models.md` says how
well it forecasts and how to put your own in its place.
"""

from importlib import resources
from math import isfinite
from typing import Annotated, Any

from msgspec import Meta

from host.api import (
    FEATURE_NAMES,
    NO_CHANGE,
    Adjustment,
    Features,
    NonNegative,
    Params,
    Positive,
    Quote,
    QuoteModel,
    TandemError,
)


class OnnxAdjustParams(Params, frozen=True):
    """Parameters of `OnnxAdjust`."""

    strength: Annotated[
        NonNegative, Meta(description="Share of the forecast that the quotes follow; 0 switches it off.")
    ] = 0.5
    max_shift_bps: Annotated[
        Positive, Meta(description="Largest shift either way.", extra_json_schema={"unit": "bps"})
    ] = 2.0


class OnnxAdjust(QuoteModel[OnnxAdjustParams]):
    """Shift both prices by strength × forecast, within ± `max_shift_bps`.

    The model takes one float32 row of `FEATURE_NAMES` and gives one number: the expected move of
    the mid over the next second, in bps. A forecast that is not a finite number changes nothing.
    """

    def on_start(self) -> None:
        """Load the model and run it once; raise `TandemError` if it cannot serve."""
        try:
            import numpy as np
            import onnxruntime as ort
        except ImportError as error:
            raise TandemError(
                f"model onnx_adjust needs numpy and onnxruntime, but {error.name} is not installed; "
                "install them with: pip install 'tandem[onnx]'"
            ) from error
        options = ort.SessionOptions()
        # One thread: a pool would cost more to wake than these few multiplications take, and
        # would compete with the event loop.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        model = resources.files(__package__).joinpath("model.onnx").read_bytes()
        self._session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._check_features()
        self._row = np.zeros((1, len(FEATURE_NAMES)), np.float32)
        self._feed = {self._session.get_inputs()[0].name: self._row}
        self._outputs = [self._session.get_outputs()[0].name]
        self._forecast_bps()

    def adjust(self, features: Features, quote: Quote) -> Adjustment:
        """Return the shift that the forecast for `features` asks for."""
        self._row[0] = features.vector()
        shift = self.params.strength * self._forecast_bps()
        if not isfinite(shift):
            return NO_CHANGE
        limit = self.params.max_shift_bps
        return Adjustment(shift_bps=max(-limit, min(limit, shift)))

    def _forecast_bps(self) -> float:
        answer: Any = self._session.run(self._outputs, self._feed)[0]
        return float(answer.item())

    def _check_features(self) -> None:
        """Refuse a model that was trained on another vector: it would answer, and be wrong."""
        stored = self._session.get_modelmeta().custom_metadata_map.get("feature_names", "")
        names = tuple(stored.split(",")) if stored else ()
        if names == FEATURE_NAMES:
            return
        if sorted(names) == sorted(FEATURE_NAMES):
            difference = "the order differs"
        else:
            missing = ", ".join(sorted(set(FEATURE_NAMES) - set(names))) or "none"
            unknown = ", ".join(sorted(set(names) - set(FEATURE_NAMES))) or "none"
            difference = f"missing: {missing}; unknown: {unknown}"
        raise TandemError(
            f"model onnx_adjust: model.onnx must be trained on {', '.join(FEATURE_NAMES)}, "
            f"was {stored or 'without feature names'} ({difference}); "
            "train it anew with scripts/train_onnx_adjust.py"
        )
