"""Whoever keeps a book of what depth it is told has the host's: through gaps, resyncs and conflation."""

import tempfile
from pathlib import Path
from typing import Any

from desk_tools import BTC
from hypothesis import given, settings
from hypothesis import strategies as st
from session_tools import Peer

from host.api import Depth, Level

BIDS, ASKS = [100.0, 99.0, 98.0, 97.0], [101.0, 102.0, 103.0]


class Venue:
    """A book at a venue, whose changes reach the host or do not."""

    def __init__(self) -> None:
        self.seq = 0
        self.sides: tuple[dict[float, float], dict[float, float]] = ({100.0: 1.0}, {101.0: 1.0})

    def change(self, level: int, size: int) -> Depth:
        self.seq += 1
        price = (BIDS + ASKS)[level]
        side = price in ASKS
        changed = ((price, float(size)),)
        self.sides[side][price] = float(size)
        if not size and price not in (100.0, 101.0):
            del self.sides[side][price]
        elif not size:
            changed = ((price, 1.0),)  # something rests at the best prices, or the book would be none
            self.sides[side][price] = 1.0
        told: list[tuple[Level, ...]] = [(), ()]
        told[side] = changed
        return Depth(BTC, *told, is_snapshot=False, first_seq=self.seq, seq=self.seq, ts_recv=self.seq)

    def whole(self) -> Depth:
        bids, asks = (tuple(side.items()) for side in self.sides)
        return Depth(BTC, bids, asks, is_snapshot=True, first_seq=self.seq, seq=self.seq, ts_recv=self.seq)


class Kept:
    """A book made of what was told, as a strategy in any language makes it."""

    def __init__(self) -> None:
        self.seq = -1
        self.sides: tuple[dict[float, float], dict[float, float]] = ({}, {})

    def take(self, depth: dict[str, Any]) -> None:
        if not depth["is_snapshot"]:
            if depth["seq"] <= self.seq:
                return
            assert self.seq >= depth["first_seq"] - 1, "nothing is missing before a change"
        self.seq = depth["seq"]
        for side, levels in zip(self.sides, (depth["bids"], depth["asks"]), strict=True):
            if depth["is_snapshot"]:
                side.clear()
            for price, size in levels:
                side[price] = size
                if not size:
                    del side[price]


def kept(peer: Peer) -> Kept:
    book = Kept()
    for event in peer.events("depth"):
        book.take(event["data"])
    return book


def handle_all(peer: Peer) -> None:
    before = -1
    while peer.seq > before:
        before = peer.seq
        peer.turn()


STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["change", "lost"]), st.integers(0, 6), st.integers(0, 3)),
        st.tuples(st.sampled_from(["late", "whole", "turn"]), st.just(0), st.just(0)),
    ),
    max_size=60,
)


@settings(max_examples=60, deadline=None)
@given(steps=STEPS)
def test_a_book_made_of_what_is_told_is_the_host_s(steps: list[tuple[str, int, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        peer = Peer(Path(folder), window=2, most_waiting=3).hello(subscribe=["book", "depth"])
        feed, venue = peer.desk.feed, Venue()
        late = venue.whole()
        feed.market(late)
        for what, level, size in steps:
            if what in ("change", "lost"):
                change = venue.change(level, size)
                if what == "change":
                    feed.market(change)
            elif what == "whole":
                late = venue.whole()  # asked for now, and here only with the next `late`
            elif what == "late":
                feed.market(late)
            else:
                peer.turn()
            book = feed.symbols[BTC].book
            if what == "turn" and not book.depth_fault:
                handle_all(peer)
                assert [*map(dict, book.levels(99))] == [*kept(peer).sides]
        feed.market(venue.whole())
        handle_all(peer)
        assert kept(peer).sides == venue.sides
        peer.desk.journal.close()


def test_the_book_of_a_venue_without_numbers_is_told_whole_too(tmp_path: Path) -> None:
    peer = Peer(tmp_path, window=2, most_waiting=3).hello(subscribe=["depth"])
    for size in range(1, 20):
        peer.desk.feed.market(
            Depth(
                BTC,
                ((100.0, float(size)),),
                ((101.0, 1.0),),
                is_snapshot=True,
                first_seq=0,
                seq=0,
                ts_recv=size,
            )
        )
    handle_all(peer)
    last = peer.events("depth")[-1]["data"]
    assert (last["bids"], last["ts_recv"]) == ([[100.0, 19.0]], 19)
    assert peer.session.outlet is not None
    assert peer.session.outlet.conflated > 10
    peer.desk.journal.close()
