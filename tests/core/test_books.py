"""The book against the venues' recorded streams, against a naive model, and against nonsense."""

import gzip
import json
import math
import os
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from host.api import BookTop, Depth, Level, Side
from host.core.books import MAX_HELD_UPDATES, Book, DepthResult

SYMBOL = "BTC-USDT"
FIXTURES = Path(os.environ.get("TANDEM_FIXTURES", Path(__file__).parents[3] / "shared" / "venues"))


def quote(bid: float, ask: float, seq: int = 0, *, size: float = 1.0, ts: int = 0) -> BookTop:
    return BookTop(SYMBOL, bid, size, ask, size, ts_recv=ts, seq=seq)


def snapshot(seq: int, bids: list[Level], asks: list[Level], ts: int = 0) -> Depth:
    return Depth(SYMBOL, tuple(bids), tuple(asks), True, 0, seq, ts_recv=ts)


def spot(first: int, last: int, bids: list[Level] = [], asks: list[Level] = []) -> Depth:  # noqa: B006
    return Depth(SYMBOL, tuple(bids), tuple(asks), False, first, last)


def futures(first: int, last: int, prev: int, bids: list[Level] = [], asks: list[Level] = []) -> Depth:  # noqa: B006
    return Depth(SYMBOL, tuple(bids), tuple(asks), False, first, last, prev)


@pytest.fixture
def book() -> Book:
    """A book at seq 100 with bids 99, 98 and asks 101, 102."""
    book = Book(SYMBOL)
    assert book.apply_depth(snapshot(100, [(99.0, 1.0), (98.0, 2.0)], [(101.0, 3.0), (102.0, 4.0)])) is (
        DepthResult.SNAPSHOT
    )
    return book


# -- top of book ---------------------------------------------------------------------------------


def test_a_book_is_invalid_until_it_has_heard_anything() -> None:
    book = Book(SYMBOL)
    assert (book.is_valid, book.invalid_reason, book.top) == (False, "no data: no top of book yet", None)


def test_quotes_alone_make_a_valid_book() -> None:
    book = Book(SYMBOL)
    assert book.apply_top(quote(99, 101))
    assert book.is_valid


def test_an_older_quote_is_refused_and_an_unnumbered_one_is_newer() -> None:
    book = Book(SYMBOL)
    assert book.apply_top(quote(99, 101, seq=7))
    assert not book.apply_top(quote(50, 51, seq=6))
    assert book.top is not None
    assert book.top.bid == 99
    assert book.apply_top(quote(98, 99, seq=0))
    assert book.top.bid == 98


@pytest.mark.parametrize(
    ("bid", "ask", "size"),
    [(101, 100, 1), (100, 100, 1), (0, 1, 1), (-1, 1, 1), (math.nan, 1, 1), (1, math.nan, 1),
     (1, math.inf, 1), (1, 2, -1), (1, 2, math.nan), (1, 2, math.inf)],
)  # fmt: skip
def test_a_senseless_quote_is_refused_and_invalidates_until_a_good_one(
    bid: float, ask: float, size: float
) -> None:
    book = Book(SYMBOL)
    before = quote(99, 101, seq=1)
    book.apply_top(before)
    assert not book.apply_top(quote(bid, ask, 2, size=size))
    assert book.top is before
    assert book.invalid_reason.startswith("bad quote: expected 0 < bid < ask")
    assert book.apply_top(quote(99, 101, 3))
    assert book.is_valid


def test_depth_newer_than_the_quote_updates_the_top_and_older_does_not(book: Book) -> None:
    book.apply_top(quote(99.5, 101, seq=105))
    book.apply_depth(spot(101, 104, [(99.0, 9.0)]))
    assert book.top is not None
    assert book.top.bid == 99.5
    book.apply_depth(spot(105, 106, [(99.25, 5.0)]))
    assert (book.top.bid, book.top.bid_size, book.top.seq) == (99.25, 5.0, 106)
    assert not book.apply_top(quote(99.5, 101, seq=105))


def test_the_top_object_stays_while_depth_changes_nothing_there(book: Book) -> None:
    before = book.top
    book.apply_depth(spot(101, 101, [(98.0, 5.0)]))
    assert book.top is before
    assert not book.apply_top(quote(99, 101, seq=100)), "the top is known as of 101"


def test_depth_that_ends_a_fault_of_the_top_replaces_it_even_when_the_prices_are_the_same(book: Book) -> None:
    before = book.top
    book.apply_top(quote(101, 99, seq=101))
    assert book.invalid_reason.startswith("bad quote: ")
    book.apply_depth(spot(101, 102))
    assert book.is_valid
    assert book.top is not before


def test_after_numbers_were_forgotten_the_next_quote_counts_whatever_its_number() -> None:
    book = Book(SYMBOL)
    book.apply_top(quote(99, 101, 1 << 40))
    assert not book.apply_top(quote(98, 100, 7))
    book.forget_numbers()
    assert book.is_valid and book.top == quote(99, 101, 1 << 40)
    assert book.apply_top(quote(98, 100, 7))
    assert not book.apply_top(quote(99, 101, 6))


def test_age_counts_from_the_last_accepted_message() -> None:
    book = Book(SYMBOL)
    book.apply_top(quote(99, 101, seq=5, ts=1_000))
    book.apply_top(quote(99, 101, seq=4, ts=2_000))
    assert book.age_ns(2_500) == 1_500
    book.apply_depth(snapshot(5, [(99.0, 1.0)], [(101.0, 1.0)], ts=2_400))
    assert book.age_ns(2_500) == 100


def test_an_empty_side_invalidates_the_top_until_it_is_back(book: Book) -> None:
    book.apply_depth(spot(101, 101, [(99.0, 0.0), (98.0, 0.0)]))
    assert book.invalid_reason == "empty side: no bids as of depth seq 101"
    book.apply_depth(spot(102, 102, [(97.0, 1.0)]))
    assert book.is_valid
    assert book.top is not None
    assert book.top.bid == 97.0


# -- sequence rules ------------------------------------------------------------------------------


def test_spot_applies_in_sequence_drops_what_is_covered_and_finds_a_gap(book: Book) -> None:
    assert book.apply_depth(spot(90, 100, [(99.0, 7.0)])) is DepthResult.STALE
    assert book.size_at(Side.BUY, 99.0) == 1.0
    assert book.apply_depth(spot(95, 103, [(99.0, 5.0)])) is DepthResult.APPLIED
    assert book.apply_depth(spot(104, 110)) is DepthResult.APPLIED
    assert book.apply_depth(spot(104, 110)) is DepthResult.STALE
    assert book.apply_depth(spot(112, 113)) is DepthResult.GAP
    assert book.depth_fault == "depth gap: expected an update that follows seq 110, was after 111"
    assert not book.is_valid
    assert book.levels(5) == ([], [])


def test_futures_apply_by_previous_sequence(book: Book) -> None:
    assert book.apply_depth(futures(80, 99, 70)) is DepthResult.STALE
    assert book.apply_depth(futures(90, 120, 80, [(99.0, 5.0)])) is DepthResult.APPLIED
    assert book.apply_depth(futures(150, 160, 120)) is DepthResult.APPLIED, "ids between messages are others'"
    assert book.apply_depth(futures(150, 160, 120)) is DepthResult.STALE
    assert book.apply_depth(futures(180, 190, 170)) is DepthResult.GAP


def test_an_update_that_follows_the_snapshot_directly_applies(book: Book) -> None:
    assert book.apply_depth(futures(130, 140, 100)) is DepthResult.APPLIED


def test_a_numbering_that_restarts_lower_is_followed_by_its_previous_sequence(book: Book) -> None:
    assert book.apply_depth(futures(3, 3, 100, [(99.5, 1.0)])) is DepthResult.APPLIED
    assert book.top is not None
    assert book.top.bid == 99.5
    assert book.apply_depth(futures(5, 5, 3, [(99.75, 1.0)])) is DepthResult.APPLIED
    assert book.top.bid == 99.75


def test_updates_before_the_snapshot_are_held_and_then_continue_it() -> None:
    book = Book(SYMBOL)
    assert book.apply_depth(spot(95, 99, [(50.0, 1.0)])) is DepthResult.HELD
    assert book.apply_depth(spot(100, 102, [(99.0, 5.0)])) is DepthResult.HELD
    assert book.apply_depth(spot(103, 103, [(99.5, 6.0)])) is DepthResult.HELD
    assert book.depth_fault == "no snapshot: depth changes came before one"
    assert book.apply_depth(snapshot(101, [(99.0, 1.0)], [(101.0, 1.0)])) is DepthResult.SNAPSHOT
    assert book.levels(5) == ([(99.5, 6.0), (99.0, 5.0)], [(101.0, 1.0)])
    assert book.seq == 103


def test_a_snapshot_older_than_what_is_held_leaves_a_gap_that_the_next_one_closes() -> None:
    book = Book(SYMBOL)
    book.apply_depth(spot(110, 112, [(99.0, 5.0)]))
    book.apply_depth(spot(113, 114, [(99.5, 6.0)]))
    assert book.apply_depth(snapshot(101, [(98.0, 1.0)], [(101.0, 1.0)])) is DepthResult.GAP
    assert not book.is_valid
    assert book.apply_depth(snapshot(111, [(98.0, 1.0)], [(101.0, 1.0)])) is DepthResult.SNAPSHOT
    assert book.levels(5) == ([(99.5, 6.0), (99.0, 5.0), (98.0, 1.0)], [(101.0, 1.0)])


def test_after_a_gap_the_snapshot_recovers_with_the_update_that_revealed_it(book: Book) -> None:
    assert book.apply_depth(spot(105, 106, [(99.5, 2.0)])) is DepthResult.GAP
    assert book.apply_depth(spot(107, 107)) is DepthResult.HELD
    assert book.apply_depth(snapshot(104, [(99.0, 1.0)], [(101.0, 1.0)])) is DepthResult.SNAPSHOT
    assert book.is_valid
    assert (book.seq, book.size_at(Side.BUY, 99.5)) == (107, 2.0)


def test_a_snapshot_numbered_zero_counts() -> None:
    book = Book(SYMBOL)
    book.apply_depth(snapshot(0, [(99.0, 1.0)], [(101.0, 1.0)]))
    assert book.is_valid
    assert book.apply_depth(spot(1, 1, [(99.5, 1.0)])) is DepthResult.APPLIED


def test_held_updates_are_bounded() -> None:
    book = Book(SYMBOL)
    for seq in range(1, MAX_HELD_UPDATES + 11):
        book.apply_depth(spot(seq, seq))
    assert book.apply_depth(snapshot(9, [(1.0, 1.0)], [(2.0, 1.0)])) is DepthResult.GAP
    assert book.apply_depth(snapshot(10, [(1.0, 1.0)], [(2.0, 1.0)])) is DepthResult.SNAPSHOT


def test_invalidate_forgets_everything_and_accepts_a_restarted_numbering(book: Book) -> None:
    book.invalidate("market connection lost")
    assert (book.top, book.invalid_reason) == (None, "market connection lost")
    assert book.levels(5) == ([], [])
    assert book.apply_depth(snapshot(1, [(99.0, 1.0)], [(101.0, 1.0)])) is DepthResult.SNAPSHOT
    assert book.is_valid
    assert book.apply_top(quote(99.5, 101, seq=2))


def test_invalidate_asks_no_depth_of_a_book_that_never_had_any() -> None:
    book = Book(SYMBOL)
    book.apply_top(quote(99, 101, seq=9))
    book.invalidate("market connection lost")
    book.apply_top(quote(99, 101, seq=1))
    assert book.is_valid


# -- levels --------------------------------------------------------------------------------------


def test_levels_and_quantities(book: Book) -> None:
    assert book.levels(1) == ([(99.0, 1.0)], [(101.0, 3.0)])
    assert book.levels(9) == ([(99.0, 1.0), (98.0, 2.0)], [(101.0, 3.0), (102.0, 4.0)])
    assert book.levels(0) == ([], [])
    assert [book.depth_qty(Side.BUY, p) for p in (99.5, 99.0, 98.5, 98.0, 1.0)] == [0, 1, 1, 3, 3]
    assert [book.depth_qty(Side.SELL, p) for p in (100.5, 101.0, 101.5, 102.0, 500.0)] == [0, 3, 3, 7, 7]


@pytest.mark.parametrize("bad", [(-1.0, 1.0), (0.0, 1.0), (math.nan, 1.0), (99.0, -1.0), (99.0, math.nan)])
def test_a_senseless_level_invalidates_depth_until_the_next_snapshot(book: Book, bad: Level) -> None:
    assert book.apply_depth(spot(101, 101, [bad])) is DepthResult.GAP
    assert book.depth_fault.startswith("bad depth: expected a price above 0")
    assert book.apply_depth(spot(102, 102)) is DepthResult.HELD
    assert book.apply_depth(snapshot(102, [(99.0, 1.0)], [(101.0, 1.0)])) is DepthResult.SNAPSHOT
    assert book.is_valid


def test_a_crossed_book_is_invalid(book: Book) -> None:
    assert book.apply_depth(spot(101, 101, [(101.0, 1.0)])) is DepthResult.GAP
    assert (
        book.depth_fault == "crossed depth: expected best bid < best ask, was bid 101.0, ask 101.0 in seq 101"
    )


_sizes = st.sampled_from([0.0, 0.5, 1.0, 2.0])
_bids = st.lists(st.tuples(st.integers(1, 50).map(float), _sizes), max_size=8)
_asks = st.lists(st.tuples(st.integers(51, 100).map(float), _sizes), max_size=8)
_change = st.tuples(
    _bids, _asks, st.integers(1, 3), st.booleans(), st.sampled_from(["next", "next", "next", "old", "gap"])
)


@given(_bids, _asks, st.lists(_change, max_size=30))
def test_the_book_equals_two_plain_dicts(
    bids: list[Level], asks: list[Level], changes: list[tuple[list[Level], list[Level], int, bool, str]]
) -> None:
    book, seq = Book(SYMBOL), 10
    naive: tuple[dict[float, float], dict[float, float]] = ({}, {})

    def merge(new_bids: list[Level], new_asks: list[Level]) -> None:
        for side, levels in zip(naive, (new_bids, new_asks), strict=True):
            side.update(levels)
            for price in [p for p, size in side.items() if size == 0.0]:
                del side[price]

    merge(bids, asks)
    book.apply_depth(snapshot(seq, bids, asks))
    for new_bids, new_asks, width, is_futures, kind in changes:
        if kind == "gap":
            assert book.apply_depth(spot(seq + 2, seq + 2, new_bids, new_asks)) is DepthResult.GAP
            assert not book.is_valid
            book.apply_depth(snapshot(seq + 3, list(naive[0].items()), list(naive[1].items())))
            seq += 3
        elif kind == "old":
            assert book.apply_depth(spot(seq - 3, seq, new_bids, new_asks)) is DepthResult.STALE
        else:
            prev = seq if is_futures else -1
            depth = Depth(SYMBOL, tuple(new_bids), tuple(new_asks), False, seq + 1, seq + width, prev)
            assert book.apply_depth(depth) is DepthResult.APPLIED
            merge(new_bids, new_asks)
            seq += width
        assert book.levels(1000) == (sorted(naive[0].items(), reverse=True), sorted(naive[1].items()))
        assert book.depth_qty(Side.BUY, 25.0) == sum(s for p, s in naive[0].items() if p >= 25.0)
        assert book.depth_qty(Side.SELL, 75.0) == sum(s for p, s in naive[1].items() if p <= 75.0)
        if naive[0] and naive[1]:
            assert book.is_valid
            assert book.top is not None
            assert (book.top.bid, book.top.ask) == (max(naive[0]), min(naive[1]))
            assert (book.top.bid_size, book.top.ask_size) == (
                naive[0][max(naive[0])],
                naive[1][min(naive[1])],
            )


# -- recorded streams ----------------------------------------------------------------------------

# file, and the comparisons that its own README counts (it leaves out a few more)
RUNS = [
    ("binance_spot/sequences/spot_btcusdt_20240808.txt.gz", 662),
    ("binance_spot/sequences/cf_nknusdt.txt.gz", 143),
    ("binance_spot/sequences/cf_lrcbtc.txt.gz", 13),
    ("binance_usdm/sequences/usdm_ethusdt_20240808.txt.gz", 809),
    ("binance_usdm/sequences/cf_sushiusdt.txt.gz", 241),
    ("binance_usdm/sequences/cf_ctkusdt.txt.gz", 178),
]


def recorded_events(path: Path) -> Iterator[BookTop | Depth]:
    with gzip.open(path, "rt") as lines:
        for line in lines:
            data: dict[str, Any] = json.loads(line.split(" ", 1)[1])
            if "lastUpdateId" in data:
                bids, asks = _levels(data["bids"]), _levels(data["asks"])
                yield Depth(SYMBOL, bids, asks, True, 0, data["lastUpdateId"])
            elif data["stream"].endswith("@bookTicker"):
                d = data["data"]
                bid, bid_size, ask, ask_size = (float(d[key]) for key in "bBaA")
                yield BookTop(SYMBOL, bid, bid_size, ask, ask_size, seq=d["u"])
            elif "@depth" in data["stream"]:
                d = data["data"]
                yield Depth(SYMBOL, _levels(d["b"]), _levels(d["a"]), False, d["U"], d["u"], d.get("pu", -1))


def _levels(rows: list[list[str]]) -> tuple[Level, ...]:
    return tuple((float(price), float(size)) for price, size in rows)


@pytest.mark.parametrize(("name", "checks"), RUNS)
def test_a_recorded_stream_rebuilds_the_quotes_that_the_venue_sent(name: str, checks: int) -> None:
    path = FIXTURES / "wire" / name
    if not path.exists():
        pytest.skip(f"{path} is not there; set TANDEM_FIXTURES to the folder that holds wire/")
    events = list(recorded_events(path))
    # A quote may arrive after a depth message that already covers it, so look through all of them.
    quotes = sorted((e for e in events if isinstance(e, BookTop)), key=lambda e: e.seq)
    seqs = [quote.seq for quote in quotes]
    depth_only, both = Book(SYMBOL), Book(SYMBOL)
    compared = 0
    for event in events:
        if isinstance(event, BookTop):
            both.apply_top(event)
            continue
        result = depth_only.apply_depth(event)
        assert result is both.apply_depth(event) is not DepthResult.GAP
        position = bisect_right(seqs, depth_only.seq)
        if result not in (DepthResult.APPLIED, DepthResult.SNAPSHOT) or not position:
            continue
        assert _prices_and_sizes(depth_only) == _prices_and_sizes(quotes[position - 1])
        assert both.is_valid
        compared += 1
    assert compared >= checks
    last = max((*quotes, depth_only.top), key=lambda top: top.seq if top else 0)
    assert _prices_and_sizes(both) == _prices_and_sizes(last)


def _prices_and_sizes(known: Book | BookTop | None) -> tuple[float, float, float, float]:
    top = known.top if isinstance(known, Book) else known
    assert top is not None
    return top.bid, top.bid_size, top.ask, top.ask_size
