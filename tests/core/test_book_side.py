"""One side of a book against a plain dict, and what it keeps in memory."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from host.api import Level, Side
from host.core.book_side import BadLevel, BookSide

SIDES = pytest.mark.parametrize("side", list(Side))

_levels = st.lists(
    st.tuples(st.integers(1, 30).map(float), st.sampled_from([0.0, 0.5, 1.0, 2.0])), max_size=12
)


@SIDES
@given(st.lists(_levels, max_size=40))
def test_a_side_equals_a_plain_dict_after_every_message(side: Side, messages: list[list[Level]]) -> None:
    is_bid, ours, naive = side is Side.BUY, BookSide(side), dict[float, float]()
    for message in messages:
        for price, size in message:  # a price may be named twice: the last word counts
            if size:
                naive[price] = size
            else:
                naive.pop(price, None)
        ordered = sorted(naive.items(), reverse=is_bid)
        assert ours.merge(message) == ours.best() == (ordered[0][0] if ordered else 0.0)
        assert ours.levels(1) == ordered[:1]
        assert ours.levels(7) == ordered[:7]
        assert ours.qty(15.0) == sum(s for p, s in ordered if (p >= 15.0 if is_bid else p <= 15.0))


@pytest.mark.parametrize(
    "bad",
    [(-1.0, 1.0), (0.0, 1.0), (math.nan, 1.0), (math.inf, 1.0), (-1.0, 0.0), (math.nan, 0.0), (math.inf, 0.0),
     (2.0, -1.0), (2.0, math.nan), (2.0, math.inf), (9.0, -1.0), (9.0, math.nan), (9.0, math.inf)],
)  # fmt: skip
@SIDES
def test_a_level_that_can_be_none_is_refused_wherever_it_comes(side: Side, bad: Level) -> None:
    for message in ([bad], [(1.0, 1.0), bad], [bad, (1.0, 1.0)]):
        ours = BookSide(side)
        ours.merge([(2.0, 1.0)])  # 9 is not known, 2 is
        with pytest.raises(BadLevel, match="expected a price above 0 and a size of at least 0"):
            ours.merge(message)


@SIDES
def test_prices_that_come_and_go_far_from_the_best_are_not_kept(side: Side) -> None:
    best, far = (100.0, 1.0) if side is Side.BUY else (1.0, 100.0)
    ours = BookSide(side)
    ours.merge([(best, 1.0)])
    for step in range(10_000):
        price = far + step % 50 / 100
        ours.merge([(price, 1.0)])
        assert ours.merge([(price, 0.0)]) == best
    assert len(ours._heap) < 100


@SIDES
def test_a_cleared_side_is_empty_and_can_be_filled_again(side: Side) -> None:
    ours = BookSide(side)
    ours.merge([(5.0, 1.0), (6.0, 1.0)])
    ours.clear()
    assert (ours.merge([]), ours.levels(1), ours.levels(9), ours.qty(5.0)) == (0.0, [], [], 0.0)
    assert ours.merge([(4.0, 1.0)]) == 4.0
