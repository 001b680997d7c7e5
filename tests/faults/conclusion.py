"""The end of a story about a cell: everyone stops in order, and everything is compared.

What differs from one node alone (`judges.py`): a leader that dies may have sent what its successor's journal
never got. The successor finds out from the venue, as the alerts `order_adopted` and `fill_adopted` say; of an
order that was already done by then, and never traded, it need not hear at all.
"""

from tests.faults.judges import ALARMING, assert_settled, assert_strategies_counted
from tests.faults.pair_judge import Verdict
from tests.faults.pair_tools import Cell
from tests.faults.truths import JournalTruth, VenueTruth

__all__ = ["conclude"]

_OF_A_SUCCESSOR = ("order_adopted", "fill_adopted")


def conclude(cell: Cell) -> Verdict:
    """Stop the standbys, then the leader, and hold the cell to its promises; return the judge's verdict."""
    leader = cell.leader()
    for standby in cell.standbys():
        standby.stop()
    leader.stop()
    verdict = cell.judge()
    assert not verdict.wrongs, "\n".join(verdict.wrongs)
    journal, venue = (
        JournalTruth(leader.journal),
        VenueTruth(cell.venue.log, cell.wire.account, cell.wire.trade_id),
    )
    for client_id in venue.accepted.keys() - journal.orders.keys():
        is_told = not venue.filled(client_id) or "fill_adopted" in {alert.kind for alert in journal.alerts}
        assert is_told, f"order {client_id} traded, and the last leader never heard of it"
        del venue.accepted[client_id]
    alarms = [one for one in journal.alerts if one.kind in ALARMING and one.kind not in _OF_A_SUCCESSOR]
    assert not alarms, alarms
    assert not journal.state.anomalies, journal.state.anomalies
    assert not journal.in_doubt_at_start, journal.in_doubt_at_start
    assert_strategies_counted(journal)
    assert_settled(journal, venue, cell.wire.fee_step)
    return verdict
