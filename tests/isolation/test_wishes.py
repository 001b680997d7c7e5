"""What the host does of a peer's wishes; what becomes of orders is in test_session.py."""

import logging
from pathlib import Path

import pytest
from desk_tools import BTC, Desk, ScriptedVenue

from host.api import NoParams, Strategy
from host.core.client_id import ClientIdMaker
from host.isolation.conduct import Conduct
from host.isolation.order_ids import OrderIds
from host.isolation.settings import SECOND_NS, WorkerSettings
from host.isolation.wishes import LOG_LINES_PER_S, Wishes
from host.wire.messages import Log


class Idle(Strategy):
    """Wants nothing."""


def test_log_lines_that_were_left_out_are_told_with_the_next_one_that_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "tandem.strategy")
    desk = Desk(tmp_path / "journal", ScriptedVenue())
    instance = desk.run("mm", Idle(NoParams()), BTC)
    wishes = Wishes(instance, OrderIds(ClientIdMaker("tdt", 1, 1)), Conduct(WorkerSettings()))
    for number in range(LOG_LINES_PER_S + 7):
        wishes.do(Log("info", f"line {number}"), SECOND_NS)
    wishes.do(Log("info", "later"), 2 * SECOND_NS)
    wishes.do(Log("info", "later still"), 3 * SECOND_NS)
    told = [record.getMessage() for record in caplog.records if record.name.startswith("tandem.strategy")]
    assert told == [
        *(f"line {number}" for number in range(LOG_LINES_PER_S)),
        "at least 7 log lines were left out: of those of one second 100 are kept",
        "later",
        "later still",
    ]
    desk.journal.close()
