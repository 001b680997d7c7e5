"""Splits the time of one tick among the stages that it passes through."""

import statistics
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import bench.binance_wire as wire
from host.core.books import Book
from host.core.features import FeatureMaker
from host.core.quoter import Quoter
from host.core.risk import Lane
from host.core.state import TradingState
from host.journal import Journal
from host.runtime.models import ModelStage

if TYPE_CHECKING:
    from bench.tick_to_order import Rig


class StageClock:
    """While entered, times the functions that stand for stages.

    The time of a stage is that inside its functions less that inside other stages which they call.
    Timing itself costs about 0.3 µs a call, so the sum is more than an undisturbed tick.
    """

    def __init__(self, rig: "Rig") -> None:
        strategy_type = type(rig.engine.roster.instances["quoter"].strategy)
        self._targets: list[tuple[str, Any, str]] = [
            ("decode", wire, "decode"),
            ("book", Book, "apply_top"),
            ("features", FeatureMaker, "on_book"),
            ("features", FeatureMaker, "features"),
            ("strategy", strategy_type, "on_book"),
            ("model", ModelStage, "adjust"),
            ("oms", Quoter, "set_quote"),
            ("risk", Lane, "pass_repriced_pair"),
            ("risk", Lane, "check_reprice"),
            ("risk", Lane, "order_changed"),
            ("state", TradingState, "apply"),
            ("journal", Journal, "append"),
            ("journal", Journal, "flush"),
            ("encode and sign", wire, "encode"),
        ]
        self._rig = rig
        self._originals: list[tuple[Any, str, Any]] = []
        self._spent: dict[str, int] = dict.fromkeys(["dispatch", *(name for name, _, _ in self._targets)], 0)
        self._by_tick: dict[str, list[int]] = {name: [] for name in self._spent}
        self._inner = [0]
        self._is_on = False

    def __enter__(self) -> Self:
        for name, owner, attribute in self._targets:
            original = getattr(owner, attribute)
            self._originals.append((owner, attribute, original))
            setattr(owner, attribute, self._timed(name, original))
        self._bind()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for owner, attribute, original in self._originals:
            setattr(owner, attribute, original)
        self._bind()

    def _bind(self) -> None:
        """Have what was bound before functions were exchanged bound anew."""
        self._rig.engine.roster.rewire()
        self._rig.engine.oms.outbox.append = self._rig.journal.append

    def tick(self, frame: bytes) -> None:
        """Time one tick; what is between the stages counts as dispatch."""
        self._is_on = True
        for name in self._spent:
            self._spent[name] = 0
        self._inner.append(0)
        started = time.perf_counter_ns()
        self._rig.tick(frame)
        spent = time.perf_counter_ns() - started
        self._spent["dispatch"] += spent - self._inner.pop()
        self._is_on = False
        for name, taken in self._spent.items():
            self._by_tick[name].append(taken)

    def result(self) -> dict[str, float]:
        """Return the median µs per tick, by stage."""
        return {name: round(statistics.median(taken) / 1e3, 2) for name, taken in self._by_tick.items()}

    def _timed(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        now, inner, total = time.perf_counter_ns, self._inner, self._spent

        def timed(*args: Any, **kwargs: Any) -> Any:
            if not self._is_on:
                return original(*args, **kwargs)
            inner.append(0)
            started = now()
            result = original(*args, **kwargs)
            spent = now() - started
            total[name] += spent - inner.pop()
            inner[-1] += spent
            return result

        return timed
