"""The table of order moves: complete, and never a way back from the end."""

from decimal import Decimal
from itertools import product

import pytest

from host.api import OrderStatus
from host.core.lifecycle import RESTING, TRANSITIONS, OrderEvent, next_status

S, E = OrderStatus, OrderEvent
NONE, PART = Decimal(0), Decimal("0.3")
TERMINAL = [status for status in S if status.is_terminal]
LIVE = [status for status in S if not status.is_terminal]
FILLS = (E.FILLED_PART, E.FILLED_ALL)
ENDS = {E.CANCELLED: S.CANCELLED, E.EXPIRED: S.EXPIRED, E.FILLED_ALL: S.FILLED}


def test_the_table_has_a_row_for_every_status() -> None:
    assert set(TRANSITIONS) == set(S)


@pytest.mark.parametrize(("status", "event"), list(product(S, E)))
def test_every_pair_moves_as_the_table_says_or_is_illegal(status: OrderStatus, event: OrderEvent) -> None:
    target = TRANSITIONS[status].get(event)
    if target is RESTING:
        assert next_status(status, event, NONE) is S.OPEN
        assert next_status(status, event, PART) is S.PARTIALLY_FILLED
    else:
        assert next_status(status, event, NONE) is target
        assert next_status(status, event, PART) is target


@pytest.mark.parametrize(("status", "event"), list(product(TERMINAL, E)))
def test_what_ended_never_lives_again(status: OrderStatus, event: OrderEvent) -> None:
    after = next_status(status, event, PART)
    assert after is None or after.is_terminal


@pytest.mark.parametrize(("status", "event"), list(product(S, FILLS)))
def test_a_fill_is_legal_everywhere(status: OrderStatus, event: OrderEvent) -> None:
    assert next_status(status, event, PART) is not None


@pytest.mark.parametrize("status", S)
def test_an_order_that_is_filled_in_full_is_filled(status: OrderStatus) -> None:
    assert next_status(status, E.FILLED_ALL, PART) is S.FILLED


@pytest.mark.parametrize(("status", "event"), list(product(LIVE, ENDS)))
def test_every_live_order_can_end_by_the_venues_word(status: OrderStatus, event: OrderEvent) -> None:
    assert next_status(status, event, NONE) is ENDS[event]


@pytest.mark.parametrize("status", LIVE)
def test_no_answer_makes_every_live_order_unknown(status: OrderStatus) -> None:
    assert next_status(status, E.UNANSWERED, NONE) is S.UNKNOWN


def test_what_we_send_does_not_lead_out_of_doubt() -> None:
    assert next_status(S.UNKNOWN, E.CANCEL_SENT, NONE) is S.UNKNOWN
    assert next_status(S.UNKNOWN, E.AMEND_SENT, NONE) is None


@pytest.mark.parametrize("status", LIVE)
def test_an_order_that_the_venue_no_longer_has_is_not_dead_yet(status: OrderStatus) -> None:
    assert next_status(status, E.ORDER_GONE, NONE) in (S.UNKNOWN, None)


@pytest.mark.parametrize("status", [S.OPEN, S.PARTIALLY_FILLED, S.PENDING_AMEND, S.FILLED, S.CANCELLED])
def test_an_accepted_order_cannot_be_rejected(status: OrderStatus) -> None:
    assert next_status(status, E.REJECTED, NONE) is None


def test_terminal_statuses_are_the_four_ends() -> None:
    assert set(TERMINAL) == {S.FILLED, S.CANCELLED, S.REJECTED, S.EXPIRED}
