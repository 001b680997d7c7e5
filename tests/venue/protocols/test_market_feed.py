"""What a batch of changes says it follows."""

import pytest

from host.api import Depth
from venue.protocols.market_feed import DepthBatch


def change(first: int, last: int, prev: int = -1) -> Depth:
    return Depth("XYZ-USDT", ((1.0, 1.0),), (), False, first, last, prev)


@pytest.mark.parametrize(("prev", "follows"), [(-1, 19), (12, 12), (0, 0)])
def test_the_first_batch_follows_what_its_first_change_does_and_every_other_the_one_before(
    prev: int, follows: int
) -> None:
    batch = DepthBatch()
    batch.add(change(20, 25, prev))
    batch.add(change(31, 33, 25))
    first = batch.take()
    assert first is not None
    assert (first.prev_seq, first.first_seq, first.seq) == (follows, 20, 33)
    batch.add(change(40, 44, 33))
    second = batch.take()
    assert second is not None
    assert (second.prev_seq, second.first_seq, second.seq) == (33, 40, 44)
    assert batch.take() is None
