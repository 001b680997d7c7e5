"""Reading the journal back: the state, and what each strategy has not seen yet."""

from collections.abc import Callable

from host.core import entries as e
from host.core.state import Outcome, TradingState
from host.journal import Journal, read

__all__ = ["Recovered", "recover"]

PROGRESS_EVERY = 100_000


class Recovered:
    """The state at the journal's end. `missed` holds, per instance, what came after its saved state."""

    def __init__(self, state: TradingState, missed: dict[str, list[Outcome]], entries_read: int) -> None:
        self.state = state
        self.missed = missed
        self.entries_read = entries_read


def recover(journal: Journal, progress: Callable[[int], None] | None = None) -> Recovered:
    """Fold the latest snapshot and every entry after it; raises what the journal's readers raise."""
    snapshot = journal.latest_snapshot()
    state = TradingState() if snapshot is None else TradingState.decode(snapshot.data)
    missed: dict[str, list[Outcome]] = {}
    count = 0
    for record in read(journal.folder, state.lsn + 1):
        outcome = state.apply(record.lsn, record.ts_ns, record.entry)
        count += 1
        if isinstance(record.entry, e.StrategyStateSaved):
            missed.pop(record.entry.instance, None)
        elif outcome is not None and (outcome.fill is not None or _is_news(record.entry)):
            name = outcome.order.instance if outcome.order is not None else ""
            if outcome.fill is not None:
                name = outcome.fill.instance
            missed.setdefault(name, []).append(outcome)
        if progress is not None and count % PROGRESS_EVERY == 0:
            progress(count)
    return Recovered(state, missed, count)


def _is_news(entry: e.Entry) -> bool:
    """Return whether the venue caused the entry: a strategy knows what it sent itself."""
    return isinstance(entry, e.Reported | e.OrderResolved | e.OrderAdopted)
