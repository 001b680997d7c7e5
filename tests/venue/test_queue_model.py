import pytest
from recording_tools import order

from host.api import Side
from venue.queue_model import LATE_PRINT_NS, LevelQueue, all_behind, proportional

MS = 1_000_000


def queue(displayed: float, qty: str = "1", share: object = proportional) -> LevelQueue:
    level = LevelQueue(100.0, displayed, all_behind if share is all_behind else proportional)
    level.join(order(1, Side.BUY, "100", qty), 0)
    return level


def test_an_order_joins_behind_everything_displayed() -> None:
    assert queue(5.0).orders[0].ahead == 5.0


def test_trades_eat_what_is_ahead_and_then_fill_us() -> None:
    level = queue(5.0)
    assert level.on_trade(4.0, 0, MS) == []
    assert level.orders[0].ahead == 1.0
    assert [volume for _, volume in level.on_trade(1.4, 0, 2 * MS)] == [pytest.approx(0.4)]
    assert level.orders[0].ahead == 0.0


def test_what_joins_later_is_behind_us() -> None:
    level = queue(5.0)
    level.on_size(9.0, MS)
    assert level.orders[0].ahead == 5.0


def test_cancels_are_split_by_the_share_of_the_queue() -> None:
    level = queue(6.0)
    level.on_size(8.0, MS)
    level.on_size(4.0, 2 * MS)
    assert level.orders[0].ahead == pytest.approx(6.0 - 4.0 * 6 / 8)


def test_the_pessimist_moves_up_only_when_nothing_is_behind() -> None:
    level = queue(6.0, share=all_behind)
    level.on_size(8.0, MS)
    level.on_size(6.5, 2 * MS)
    assert level.orders[0].ahead == 6.0
    level.on_size(2.0, 3 * MS)
    assert level.orders[0].ahead == 2.0


def test_a_decrease_that_a_trade_explains_is_no_cancel() -> None:
    level = queue(5.0)
    level.on_size(10.0, MS)
    level.on_trade(2.0, 0, 2 * MS)
    level.on_size(8.0, 3 * MS)
    assert level.orders[0].ahead == 3.0


def test_a_print_that_comes_after_its_decrease_counts_once() -> None:
    level = queue(5.0)
    level.on_size(10.0, MS)
    level.on_size(8.0, 200 * MS)
    assert level.orders[0].ahead == 4.0
    level.on_trade(2.0, 0, 201 * MS)
    assert level.orders[0].ahead == pytest.approx(3.0)
    # The level was already shown without it: the next decrease is a cancel again.
    level.on_size(7.0, 400 * MS)
    assert level.orders[0].ahead == pytest.approx(3.0 - 3 / 8)


def test_a_sweep_whose_prints_come_late_does_not_fill_us_with_volume_that_was_ahead() -> None:
    level = queue(5.0)
    level.on_size(0.0, MS)
    assert level.on_trade(5.0, 0, 2 * MS) == []
    assert [volume for _, volume in level.on_trade(0.5, 0, 3 * MS)] == [0.5]


def test_a_print_much_later_explains_nothing() -> None:
    level = queue(5.0)
    level.on_size(4.0, MS)
    assert level.orders[0].ahead == 4.0
    level.on_trade(1.0, 0, 2 * MS + LATE_PRINT_NS)
    assert level.orders[0].ahead == 3.0


def test_a_print_of_a_trade_before_we_came_does_not_concern_us() -> None:
    level = LevelQueue(100.0, 0.0, proportional)
    level.join(order(1, Side.BUY, "100", "1"), 1000)
    assert level.on_trade(5.0, 999, MS) == []
    assert len(level.on_trade(5.0, 1000, MS)) == 1


def test_our_own_orders_fill_in_turn() -> None:
    level = queue(2.0, "1")
    level.on_size(3.0, MS)
    level.join(order(2, Side.BUY, "100", "1"), 0)
    fills = level.on_trade(3.5, 0, 2 * MS)
    assert [(filled.order_id, volume) for filled, volume in fills] == [(1, 1.0)]
    # 2 recorded ahead of both, 1 ours, and half of the recorded 1 in between.
    assert level.orders[1].ahead == pytest.approx(0.5)


def test_a_level_that_becomes_known_is_all_ahead_of_us() -> None:
    level = queue(0.0)
    level.requeue(7.0)
    assert level.orders[0].ahead == 7.0
