"""Waiting for answers: each kind ends the right wait, and silence is told in time."""

from decimal import Decimal

import pytest
from venue_tools import amend, cancel, place

from host.api import (
    AccountSnapshot,
    AmendRejected,
    CancelRejected,
    Command,
    OrderAccepted,
    OrderAmended,
    OrderCancelled,
    OrderFilled,
    OrderNotFound,
    OrderRejected,
    QueryAccount,
    QueryOrder,
    RejectReason,
    Report,
    RequestUnanswered,
    Side,
)
from host.api.orders import Liquidity
from venue.awaiting import AwaitedAnswers

PLACE = place("x", Side.BUY, "100", "1")
FILL = OrderFilled("x", "S", Side.BUY, "1", Decimal(1), Decimal(1), Decimal(0), "Q", Liquidity.TAKER, 0)
OTHER = RejectReason.OTHER


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        (PLACE, OrderAccepted("x", "1", 0)),
        (PLACE, OrderRejected("x", OTHER, "", 0)),
        (amend("x", "1", "1"), OrderAmended("x", Decimal(1), Decimal(1), 0)),
        (amend("x", "1", "1"), AmendRejected("x", OTHER, "", 0)),
        (cancel("x"), OrderCancelled("x", 0)),
        (cancel("x"), CancelRejected("x", OTHER, "", 0)),
        (QueryOrder("x", "S"), OrderNotFound("x", 0)),
        (QueryAccount(), AccountSnapshot((), (), 0)),
    ],
)
def test_answer_ends_the_wait(command: Command, answer: Report) -> None:
    awaited = AwaitedAnswers(timeout_ns=100)
    awaited.sent(command, 0)

    awaited.received(answer)

    assert awaited.next_time_ns() is None


@pytest.mark.parametrize("report", [FILL, OrderAccepted("y", "1", 0), OrderNotFound("x", 0)])
def test_other_reports_do_not_end_the_wait(report: Report) -> None:
    awaited = AwaitedAnswers(timeout_ns=100)
    awaited.sent(PLACE, 5)

    awaited.received(report)

    assert awaited.next_time_ns() == 105
    assert awaited.give_up(104) == []
    [unanswered] = awaited.give_up(105)
    assert (unanswered.client_id, unanswered.ts_ns) == ("x", 105)
    assert awaited.next_time_ns() is None


def test_lost_connection_leaves_every_request_unanswered() -> None:
    awaited = AwaitedAnswers(timeout_ns=100)
    awaited.sent(PLACE, 0)
    awaited.sent(cancel("y"), 0)

    assert awaited.give_up_all("gone", 7) == [
        RequestUnanswered("x", "gone", 7),
        RequestUnanswered("y", "gone", 7),
    ]
    assert awaited.next_time_ns() is None
