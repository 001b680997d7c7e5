"""Clustered arrival times: one event makes the next more likely for a moment (a Hawkes process)."""

import math
from random import Random

__all__ = ["HawkesArrivals"]


class HawkesArrivals:
    """A self-exciting point process with an exponential kernel, drawn exactly.

    `rate` is the long-run mean in events per second; `branching` (0 to below 1) the mean number of
    further events that one sets off; `decay` how fast, per second, that wears off. Counts over
    long windows vary 1 / (1 − branching)² times as much as a Poisson process of the same rate.
    Simulation: Dassios and Zhao, "Exact simulation of Hawkes process with exponentially decaying
    intensity" (2013), algorithm 3.1.
    """

    def __init__(self, rng: Random, rate: float, branching: float, decay: float) -> None:
        self._rng = rng
        self._rate = rate
        self._base = rate * (1.0 - branching)
        self._kick = branching * decay
        self._decay = decay
        # Start at the mean, so that a market does not wake up slowly.
        self._excitation = rate * branching

    @property
    def intensity_ratio(self) -> float:
        """Return the present intensity as a multiple of the mean."""
        return (self._base + self._excitation) / self._rate

    def excite(self, events: float) -> None:
        """Make the coming moment as busy as if `events` more had just happened."""
        self._excitation += events * self._kick

    def next_gap_s(self) -> float:
        """Draw the time to the next event and move the process to just after it."""
        rng = self._rng
        gap = -math.log(1.0 - rng.random()) / self._base
        if self._excitation > 0.0:
            survival = 1.0 + self._decay * math.log(1.0 - rng.random()) / self._excitation
            if survival > 0.0:
                gap = min(gap, -math.log(survival) / self._decay)
        self._excitation = self._excitation * math.exp(-self._decay * gap) + self._kick
        return gap
