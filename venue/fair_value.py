"""The value that synthetic participants believe in: trends, calm and stormy times, jumps."""

import math
from random import Random

from msgspec import Struct

__all__ = ["FairValue", "FairValueParams"]

_BPS = 1e-4


class FairValueParams(Struct, frozen=True, kw_only=True):
    """How the fair value moves. Basis points are of the value itself."""

    start: float
    """Quote currency per base unit."""
    calm_vol_bps: float = 0.12
    """Volatility in calm times, basis points per square root of a second."""
    stormy_vol_bps: float = 0.45
    """The same in stormy times, which come by themselves and after every jump."""
    calm_s: float = 60.0
    """Mean length of a calm time, seconds."""
    stormy_s: float = 15.0
    trend_bps: float = 0.1
    """Standard deviation of the drift, basis points per second."""
    trend_s: float = 45.0
    """How long a trend lasts: the time constant of the drift, seconds."""
    jump_every_s: float = 120.0
    """Mean time between jumps, seconds; 0 for none."""
    jump_bps: float = 3.0
    """Mean absolute size of a jump."""
    reversion_s: float = 3600.0
    """Time constant of the pull back to `start`, seconds, so that long runs stay in sight of it."""


class FairValue:
    """A log-price diffusion in a two-state volatility regime, with a mean-reverting drift and jumps."""

    def __init__(self, params: FairValueParams, rng: Random) -> None:
        self._params = params
        self._rng = rng
        self._log = math.log(params.start)
        self._home = self._log
        self._drift = rng.gauss(0.0, params.trend_bps)
        self.is_stormy = False
        self._regime_left_s = self._draw_regime_time()
        self._jump_left_s = self._draw_jump_time()

    @property
    def value(self) -> float:
        """Return the fair value, in quote currency."""
        return math.exp(self._log)

    @property
    def drift_bps(self) -> float:
        """Return the present trend, in basis points per second."""
        return self._drift

    def advance(self, seconds: float) -> float:
        """Move time on; return the size of any jump in basis points, else 0."""
        params, rng = self._params, self._rng
        self._regime_left_s -= seconds
        if self._regime_left_s <= 0.0:
            self.is_stormy = not self.is_stormy
            self._regime_left_s = self._draw_regime_time()
        # An Ornstein–Uhlenbeck drift, stepped exactly: whatever the step, the spread stays trend_bps.
        keep = math.exp(-seconds / params.trend_s)
        self._drift = self._drift * keep + rng.gauss(0.0, params.trend_bps) * math.sqrt(1.0 - keep * keep)
        vol = params.stormy_vol_bps if self.is_stormy else params.calm_vol_bps
        move = self._drift * seconds + vol * math.sqrt(seconds) * rng.gauss(0.0, 1.0)
        jump = 0.0
        self._jump_left_s -= seconds
        if self._jump_left_s <= 0.0:
            self._jump_left_s = self._draw_jump_time()
            jump = rng.choice((-1.0, 1.0)) * params.jump_bps * (0.5 + rng.expovariate(2.0))
            self.is_stormy = True
            self._regime_left_s = self._draw_regime_time()
        self._log += (move + jump) * _BPS + (self._home - self._log) * seconds / params.reversion_s
        return jump

    def _draw_regime_time(self) -> float:
        mean = self._params.stormy_s if self.is_stormy else self._params.calm_s
        return self._rng.expovariate(1.0 / mean)

    def _draw_jump_time(self) -> float:
        every = self._params.jump_every_s
        return self._rng.expovariate(1.0 / every) if every > 0.0 else math.inf
