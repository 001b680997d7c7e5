"""Reading the journal back."""

from collections.abc import Callable

from host.core.state import TradingState
from host.journal import Journal, read
from host.runtime.fill_history import FillHistory

__all__ = ["Recovered", "recover"]

PROGRESS_EVERY = 100_000


class Recovered:
    """The state at the journal's end, the fills on the way, and how many entries were read for it."""

    def __init__(self, state: TradingState, fills: FillHistory, entries_read: int) -> None:
        self.state = state
        self.fills = fills
        self.entries_read = entries_read


def recover(journal: Journal, progress: Callable[[int], None] | None = None) -> Recovered:
    """Fold the latest snapshot and every entry after it; raises what the journal's readers raise."""
    snapshot = journal.latest_snapshot()
    state = TradingState() if snapshot is None else TradingState.decode(snapshot.data)
    fills = FillHistory(known_after=state.lsn)
    count = 0
    for record in read(journal.folder, state.lsn + 1):
        outcome = state.apply(record.lsn, record.ts_ns, record.entry)
        if outcome is not None and outcome.fill is not None:
            fills.add(record.lsn, outcome.fill)
        count += 1
        if progress is not None and count % PROGRESS_EVERY == 0:
            progress(count)
    return Recovered(state, fills, count)
