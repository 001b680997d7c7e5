"""The venue's log: the judge of what happened, and the way back after a kill."""

from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
from venue_tools import Venue, amend, cancel, instrument, place

from host.api import (
    FillsSnapshot,
    InstrumentKind,
    OpenOrdersSnapshot,
    OrderRejected,
    OrderSnapshot,
    OrderStatus,
    QueryFills,
    QueryOpenOrders,
    QueryOrder,
    Side,
)
from venue.ledger import Ledger, LedgerError

D = Decimal
PERP = "BTC-USDT-PERP"
LISTED = (instrument(), instrument(InstrumentKind.LINEAR))


def traded_venue(path: Path) -> Venue:
    """Return a venue with a partly filled, an amended, a cancelled and a refused order, and a position."""
    venue = Venue(*LISTED, ledger=Ledger(path))
    venue.send("a", place("m", Side.SELL, "100", "3"), place("c", Side.BUY, "50", "1"), cancel("c"))
    venue.send("a", amend("m", "101", "2"), place("bad", Side.BUY, "0.3", "1"))
    venue.send("b", place("t", Side.BUY, "101", "0.5"), place("p", Side.BUY, "100", "1", symbol=PERP))
    venue.send("a", place("q", Side.SELL, "100", "1", symbol=PERP))
    return venue


def test_log_says_what_was_asked_and_what_became_of_it(tmp_path: Path) -> None:
    traded_venue(tmp_path / "venue.jsonl")

    lines = [msgspec.json.decode(line) for line in (tmp_path / "venue.jsonl").read_bytes().splitlines()]

    verdicts = {
        (line["client_id"], line["command"][0]): line["verdict"] for line in lines if "verdict" in line
    }
    assert verdicts[("m", "place")] == verdicts[("m", "amend")] == verdicts[("c", "cancel")] == "accepted"
    assert verdicts[("bad", "place")] == "invalid_price"
    assert [line["fill"][1] for line in lines if line["kind"] == "fill"] == ["m", "t", "p", "q"]
    assert [line["client_id"] for line in lines if line["kind"] == "end"] == ["c"]


def test_killed_venue_comes_back_with_its_accounts_orders_fills_and_ids(tmp_path: Path) -> None:
    path = tmp_path / "venue.jsonl"
    before = traded_venue(path)
    [fills] = before.send("a", QueryFills(0))

    after = Venue(*LISTED, ledger=Ledger(path))

    for name in ("a", "b"):
        old, new = before.exchange.account(name), after.exchange.account(name)
        assert new.balances == old.balances
        assert new.snapshot(0).positions == old.snapshot(0).positions
    assert after.exchange.account("a").locked("BTC") == 0
    resting, cancelled, opened, fills_after = after.send(
        "a",
        QueryOrder("m", "BTC-USDT"),
        QueryOrder("c", "BTC-USDT"),
        QueryOpenOrders(),
        QueryFills(0),
    )
    assert isinstance(resting, OrderSnapshot) and isinstance(cancelled, OrderSnapshot)
    assert (resting.status, resting.filled, resting.qty) == (OrderStatus.EXPIRED, D("0.5"), D(2))
    assert cancelled.status is OrderStatus.CANCELLED
    assert isinstance(opened, OpenOrdersSnapshot) and opened.orders == ()
    assert isinstance(fills_after, FillsSnapshot) and isinstance(fills, FillsSnapshot)
    assert fills_after.fills == fills.fills
    assert after.exchange.last_price("BTC-USDT") == 101


def test_restored_venue_goes_on_counting_where_it_stopped(tmp_path: Path) -> None:
    path = tmp_path / "venue.jsonl"
    traded_venue(path)
    venue = Venue(*LISTED, ledger=Ledger(path))

    [refused] = venue.send("a", place("m", Side.SELL, "100", "1"))
    venue.send("a", place("m2", Side.SELL, "100", "1"))
    venue.send("b", place("t2", Side.BUY, "100", "1"))
    [fills] = venue.send("b", QueryFills(0))

    assert isinstance(refused, OrderRejected)
    assert isinstance(fills, FillsSnapshot)
    assert [fill.trade_id for fill in fills.fills] == ["1", "2", "3"]
    assert len({fill.venue_id for fill in fills.fills}) == 3


def test_log_cut_at_any_byte_restores_up_to_its_last_whole_line(tmp_path: Path) -> None:
    whole = tmp_path / "whole.jsonl"
    traded_venue(whole)
    data = whole.read_bytes()
    cut = tmp_path / "cut.jsonl"
    for length in range(len(data) - 400, len(data)):
        cut.write_bytes(data[:length])
        ledger = Ledger(cut)
        kept = cut.read_bytes()
        assert kept == data[: data.rfind(b"\n", 0, length) + 1]
        assert len(list(ledger.history())) == kept.count(b"\n")
        ledger.close()


def test_damaged_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "venue.jsonl"
    traded_venue(path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], b"{nonsense}\n", *lines[3:]]))

    with pytest.raises(LedgerError, match=r"venue\.jsonl, line 3: expected a line of the venue's log"):
        Venue(*LISTED, ledger=Ledger(path))


def test_symbol_that_is_not_listed_any_more_is_named(tmp_path: Path) -> None:
    path = tmp_path / "venue.jsonl"
    traded_venue(path)

    with pytest.raises(LedgerError, match="BTC-USDT-PERP"):
        Venue(LISTED[0], ledger=Ledger(path))
