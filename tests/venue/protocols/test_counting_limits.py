"""Counting windows, aligned and sliding."""

from venue.protocols.limits import SECOND_NS, FixedWindow, SlidingWindow


def test_fixed_window_begins_anew_at_multiples_of_its_length() -> None:
    window = FixedWindow(3, 10)
    start_ns = 100 * SECOND_NS

    assert [window.add("a", 1, start_ns + n) for n in range(3)] == [1, 2, 3]
    assert window.is_over("a", 1, start_ns) and not window.is_over("b", 1, start_ns)
    assert window.reset_ns(start_ns + 4) == 110 * SECOND_NS
    assert not window.is_over("a", 3, 110 * SECOND_NS) and window.used("a", 110 * SECOND_NS) == 0


def test_fixed_window_gives_back_but_never_below_nothing() -> None:
    window = FixedWindow(3, 10)

    assert window.add("a", 2, 0) == 2
    assert window.add("a", -1, 0) == 1
    assert window.add("a", -5, 0) == 0


def test_sliding_window_lets_in_as_soon_as_the_oldest_is_out() -> None:
    window = SlidingWindow(2, 1)

    assert window.take("a", 1, 0) and window.take("a", 1, SECOND_NS // 2)
    assert not window.take("a", 1, SECOND_NS - 1)
    assert window.take("a", 1, SECOND_NS)
    assert not window.take("a", 2, SECOND_NS + 1), "all of a batch or none of it"
    assert window.take("b", 2, 0)
