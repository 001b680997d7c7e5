"""Turn one symbol's market events into the vector that quote models see.

All estimators are exponentially weighted over event time (`ts_recv`), so a burst of events counts
by the time it took and not by the number of messages; the recursions for irregular times are those
of Zumbach and Müller, "Operators on inhomogeneous time series" (2001). Each is O(1) and
deterministic, and is 0 until it has something to say.
"""

from math import exp, expm1, log, sqrt
from typing import Final

from host.api import BookTop, Features, Trade

__all__ = ["FLOW_HALF_LIFE_S", "MOMENTUM_HALF_LIFE_S", "VOLATILITY_HALF_LIFE_S", "FeatureMaker"]

VOLATILITY_HALF_LIFE_S: Final = 60.0
FLOW_HALF_LIFE_S: Final = 5.0
MOMENTUM_HALF_LIFE_S: Final = 10.0

_VOLATILITY_SAMPLE_NS: Final = 100_000_000
"""Shortest return that enters the volatility. Returns between ticks measure the bounce of the
quotes more than the market (Aït-Sahalia, Mykland, Zhang 2005, "How often to sample"), and their
variance over microseconds says nothing about one second."""

_VOLATILITY_MIN_SPAN_S: Final = 1.0
"""Until this much time is covered the variance counts as if it were, so that the first move after
a start does not look like a storm."""

_LN2: Final = log(2.0)


class FeatureMaker:
    """Keeps the estimators of one symbol; feed it every top of book and every trade.

    An event older than the newest one counts as simultaneous with it: time never runs back here.
    """

    __slots__ = (
        "_flow",
        "_flow_abs",
        "_flow_ns",
        "_flow_rate",
        "_flow_signed",
        "_imbalance",
        "_mean",
        "_mean_rate",
        "_mid",
        "_mid_ns",
        "_sample_mid",
        "_sample_ns",
        "_spread_bps",
        "_var_rate",
        "_var_span_s",
        "_var_sum",
        "_volatility_bps",
    )

    def __init__(
        self,
        *,
        volatility_half_life_s: float = VOLATILITY_HALF_LIFE_S,
        flow_half_life_s: float = FLOW_HALF_LIFE_S,
        momentum_half_life_s: float = MOMENTUM_HALF_LIFE_S,
    ) -> None:
        # Rates of decay per nanosecond, negative: a weight decays by exp(rate × dt).
        self._var_rate = -_LN2 / (volatility_half_life_s * 1e9)
        self._flow_rate = -_LN2 / (flow_half_life_s * 1e9)
        self._mean_rate = -_LN2 / (momentum_half_life_s * 1e9)
        # The mid is 0 until there is one.
        self._mid = self._mean = self._sample_mid = 0.0
        self._imbalance = self._spread_bps = 0.0
        self._mid_ns = self._sample_ns = self._flow_ns = 0
        self._var_sum = self._var_span_s = 0.0
        self._flow_signed = self._flow_abs = self._flow = 0.0
        self._volatility_bps = 0.0

    def on_book(self, top: BookTop) -> None:
        """Take a new top of book; its prices must be positive, as `Book` sees to."""
        bid = top.bid
        ask = top.ask
        bid_size = top.bid_size
        ask_size = top.ask_size
        mid = (bid + ask) * 0.5
        now = top.ts_recv
        if not self._mid:
            self._mean = self._sample_mid = mid
            self._mid_ns = self._sample_ns = now
        elif now > self._mid_ns:
            # The mid that has stood until now is what the mean moves towards (previous-tick
            # interpolation), so a fresh jump shows in full.
            self._mean -= expm1((now - self._mid_ns) * self._mean_rate) * (self._mid - self._mean)
            self._mid_ns = now
            if now - self._sample_ns >= _VOLATILITY_SAMPLE_NS:
                self._sample_volatility(mid, now)
        self._mid = mid
        size = bid_size + ask_size
        self._imbalance = (bid_size - ask_size) / size if size > 0.0 else 0.0
        self._spread_bps = (ask - bid) / mid * 1e4

    def on_trade(self, trade: Trade) -> None:
        """Take a public trade."""
        now, qty = trade.ts_recv, trade.qty
        if now > self._flow_ns:
            decay = exp((now - self._flow_ns) * self._flow_rate)
            self._flow_signed *= decay
            self._flow_abs *= decay
            self._flow_ns = now
        self._flow_abs += qty
        self._flow_signed += qty if trade.taker_is_buyer else -qty
        self._flow = self._flow_signed / self._flow_abs if self._flow_abs > 0.0 else 0.0

    def features(self, inventory_ratio: float) -> Features:
        """Return the vector as of the newest event; market features are 0 before the first top.

        With mid m = (bid + ask) / 2 and sizes B at the bid and A at the ask:

        - `spread_bps`: (ask − bid) / m × 10⁴.
        - `imbalance`: (B − A) / (B + A); Cartea, Jaimungal, Penalva, "Algorithmic and
          High-Frequency Trading" (2015), ch. 12.
        - `microprice_bps`: (microprice − m) / m × 10⁴, where the microprice
          (bid × A + ask × B) / (B + A) is m + imbalance × spread / 2; Gatheral and Oomen (2010).
        - `volatility_bps`: √(Σ w r² / Σ w dt) × 10⁴ over log returns r of the mid across dt
          seconds, sampled at least 100 ms apart, without subtracting a mean (RiskMetrics 1996).
        - `trade_flow`: Σ w × signed quantity / Σ w × quantity, buyers' trades positive. Both sums
          decay alike, so it stays as it is between trades.
        - `momentum_bps`: (m − mean) / m × 10⁴, mean the exponentially weighted time average.

        Weights w halve every `VOLATILITY_HALF_LIFE_S`, `FLOW_HALF_LIFE_S` and
        `MOMENTUM_HALF_LIFE_S`.
        """
        # Flow and volatility were worked out when they last changed, far less often than quotes do.
        mid = self._mid
        if not mid:
            return Features(0.0, 0.0, 0.0, 0.0, self._flow, 0.0, inventory_ratio)
        imbalance = self._imbalance
        spread_bps = self._spread_bps
        return Features(
            spread_bps,
            imbalance,
            imbalance * spread_bps * 0.5,
            self._volatility_bps,
            self._flow,
            (mid - self._mean) / mid * 1e4,
            inventory_ratio,
        )

    def _sample_volatility(self, mid: float, now: int) -> None:
        dt = now - self._sample_ns
        decay = exp(dt * self._var_rate)
        log_return = log(mid / self._sample_mid)
        self._var_sum = self._var_sum * decay + log_return * log_return
        self._var_span_s = self._var_span_s * decay + dt * 1e-9
        self._volatility_bps = sqrt(self._var_sum / max(self._var_span_s, _VOLATILITY_MIN_SPAN_S)) * 1e4
        self._sample_mid = mid
        self._sample_ns = now
