"""What the host does of a peer's wishes; what becomes of orders is in test_session.py."""

import logging
from decimal import Decimal
from math import inf, nan
from pathlib import Path

import pytest
from desk_tools import BTC, Desk, ScriptedVenue

from host.api import NoParams, Quote, Strategy
from host.core.client_id import ClientIdMaker
from host.isolation.conduct import Conduct
from host.isolation.order_ids import OrderIds
from host.isolation.settings import SECOND_NS, WorkerSettings
from host.isolation.wishes import LOG_LINES_PER_S, Wishes
from host.runtime.turn import turn
from host.wire.messages import Log, PutQuotes


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


@pytest.mark.parametrize("price", [nan, inf, -inf])
def test_a_price_that_is_no_number_pulls_its_side_as_inline_and_is_no_breach(
    tmp_path: Path, price: float
) -> None:
    first = Quote(59_990.0, Decimal(1), 60_010.0, Decimal(1))
    then = Quote(price, Decimal(1), 60_011.0, Decimal(1))
    rests: list[set[tuple[str, Decimal | None]]] = []
    for is_inline in (True, False):
        desk = Desk(tmp_path / f"journal-{is_inline}", ScriptedVenue())
        instance = desk.run("mm", Idle(NoParams()), BTC)
        conduct = Conduct(WorkerSettings())
        wishes = Wishes(instance, OrderIds(ClientIdMaker("tdt", 1, 1)), conduct)
        desk.top()
        for quote in (first, *[then] * 30):
            with turn(desk.engine):
                if is_inline:
                    instance.quote(BTC, (quote,))
                else:
                    assert wishes.do(PutQuotes(BTC, (quote,)), SECOND_NS) is None
            desk.settle()
        rests.append({(order.side, order.price) for order in desk.venue.open()})
        assert (conduct.fault, conduct.refused) == ("", 0)
        desk.journal.close()
    assert rests == [{("sell", Decimal("60011.00"))}] * 2
