"""Checking a journal, and showing its records to people."""

import hashlib
import json
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from journal_tools import ENTRIES, SMALL, TS, fill, flip, frame_spans, segments

from host.api import Liquidity, OrderFilled, OrderType, Side, TimeInForce
from host.core.entries import Alert, Entry, InstanceAdded, PlaceSent, Record, Reported, StrategyStateSaved
from host.journal import Journal, JournalError, describe, journal_digest, render, verify


def test_a_sound_journal_is_reported_whole(tmp_path: Path) -> None:
    with Journal.open(tmp_path, node="a", segment_bytes=SMALL) as journal:
        records = fill(journal, 500, size=300)
        journal.write_snapshot(400, b"state")
        size = journal.bytes_written
    report = verify(tmp_path)
    assert report.is_sound
    assert (report.segments, report.first_lsn, report.last_lsn, report.entries) == (3, 1, 500, 500)
    assert (report.bytes, report.snapshots, report.torn_tail, report.problems) == (size, (400,), None, ())
    expected = hashlib.sha256(b"".join(msgspec.msgpack.encode(record) for record in records)).hexdigest()
    assert report.digest == journal_digest(tmp_path) == expected


def test_an_empty_journal_is_sound(tmp_path: Path) -> None:
    Journal.open(tmp_path, node="a", segment_bytes=SMALL).close()
    report = verify(tmp_path)
    assert report.is_sound
    assert (report.first_lsn, report.last_lsn, report.entries) == (0, 0, 0)


def test_a_pruned_journal_is_sound(tmp_path: Path) -> None:
    with Journal.open(tmp_path, node="a", segment_bytes=SMALL) as journal:
        fill(journal, 500, size=300)
        journal.write_snapshot(500, b"state")
        journal.prune(500)
    report = verify(tmp_path)
    assert report.is_sound
    assert report.entries == report.last_lsn - report.first_lsn + 1 < 500


def test_a_torn_tail_is_reported_and_left_alone(tmp_path: Path) -> None:
    with Journal.open(tmp_path, node="a", segment_bytes=SMALL) as journal:
        fill(journal, 3)
    path = segments(tmp_path)[0]
    flip(path, frame_spans(path)[-1][0] + 9)
    before = path.read_bytes()
    report = verify(tmp_path)
    assert report.is_sound
    assert report.torn_tail is not None
    assert report.torn_tail.offset == frame_spans(path)[2 - 1][1]
    assert report.last_lsn == 2
    assert path.read_bytes() == before


def test_every_problem_is_listed(tmp_path: Path) -> None:
    with Journal.open(tmp_path, node="a", segment_bytes=SMALL) as journal:
        fill(journal, 700, size=300)
        journal.write_snapshot(600, b"state")
    first, second, third, _ = segments(tmp_path)
    flip(first, frame_spans(first)[5][0] + 30)
    flip(second, 0)
    third.unlink()
    flip(next(tmp_path.glob("*.snap")), 30)
    report = verify(tmp_path)
    assert not report.is_sound
    damaged, not_a_segment, snapshot = report.problems
    assert "entry 6 is damaged" in damaged
    assert "not a journal segment" in not_a_segment
    assert "checksum" in snapshot


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="absent"):
        verify(tmp_path / "absent")


PLACE = PlaceSent(
    client_id="t1",
    instance="mm-btc",
    account="paper",
    symbol="BTC-USDT",
    side=Side.BUY,
    type=OrderType.LIMIT,
    time_in_force=TimeInForce.GTC,
    price=Decimal("61234.10"),
    qty=Decimal("0.010"),
    post_only=True,
    reduce_only=False,
    slot=0,
)


def test_a_record_is_described_with_field_names_and_exact_numbers() -> None:
    described = describe(Record(7, TS, PLACE))
    assert described["lsn"] == 7
    assert described["time"] == "2024-08-08T09:00:00.000000000Z"
    assert (described["entry"], described["side"]) == ("place_sent", "buy")
    assert (described["price"], described["qty"]) == ("61234.10", "0.010")


def test_a_report_inside_an_entry_is_described_with_its_kind() -> None:
    filled = OrderFilled(
        "t1", "BTC-USDT", Side.SELL, "9", Decimal(1), Decimal(2), Decimal(0), "USDT", Liquidity.MAKER, 5
    )
    described = describe(Record(1, TS, Reported("paper", filled)))
    assert (described["entry"], described["report"]["message"]) == ("reported", "filled")
    assert described["report"]["liquidity"] == "maker"
    assert " reported             account=paper filled client_id=t1 " in render(
        Record(1, TS, Reported("paper", filled))
    )


def test_bytes_are_described_as_their_json_or_as_hex() -> None:
    added = InstanceAdded("i", 1, "p", "d", "a", ("BTC-USDT",), b'{"size":"0.01"}')
    assert describe(Record(1, TS, added))["params"] == {"size": "0.01"}
    assert describe(Record(1, TS, added))["symbols"] == ["BTC-USDT"]
    saved = StrategyStateSaved("i", 1, b"\x81\xa1n\xff")
    assert describe(Record(1, TS, saved))["data"] == "81a16eff"


def test_a_record_is_rendered_on_one_line() -> None:
    line = render(Record(7, TS, PLACE))
    assert line.startswith("       7 2024-08-08T09:00:00.000000000Z place_sent ")
    assert "price=61234.10 qty=0.010 post_only slot=0" in line
    assert "reduce_only" not in line
    assert 'text="two\\nlines"' in render(Record(1, TS, Alert("k", "two\nlines")))


@given(entry=ENTRIES)
def test_any_record_can_be_shown(entry: Entry) -> None:
    record = Record(1, TS, entry)
    assert json.loads(json.dumps(describe(record)))["lsn"] == 1
    assert len(render(record).splitlines()) == 1
