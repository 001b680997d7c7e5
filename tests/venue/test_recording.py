import gzip
from itertools import pairwise
from pathlib import Path

import pytest
from recording_tools import DEPTH, QUOTES, TRADES, recorded_folder, write_csv, write_recording

from host.api import BookTop, Depth, InstrumentKind, Trade
from venue.depth_sync import DepthSync
from venue.recording import Recording, RecordingError


def test_events_come_in_the_order_of_the_recorder(tmp_path: Path) -> None:
    recording = Recording.open(write_recording(tmp_path))
    assert list(recording.events()) == [
        BookTop("XYZ-USDT", 100.0, 3.0, 100.1, 4.0, 0, 1500, 12),
        Depth("XYZ-USDT", ((100.0, 3.0), (99.9, 7.0)), ((100.1, 5.0),), True, 12, 12, ts_recv=2500),
        # Buffered before the snapshot: usable from the snapshot on, and made to follow it.
        Depth("XYZ-USDT", (), ((100.1, 4.0),), False, 13, 13, ts_event=1900, ts_recv=2500),
        Trade("XYZ-USDT", 100.1, 0.5, True, 900, 3000, 5000),
        BookTop("XYZ-USDT", 100.0, 3.0, 100.2, 1.0, 0, 6000, 15),
        Depth("XYZ-USDT", (), ((100.1, 0.0), (100.2, 1.0)), False, 14, 15, ts_event=6900, ts_recv=7000),
        Trade("XYZ-USDT", 100.0, 2.0, False, 901, 6000, 8000),
    ]
    assert (recording.first_ns, recording.last_ns) == (1000, 8000)
    assert str(recording.instrument.tick_size) == "0.1"


def test_a_repeated_recording_keeps_rising(tmp_path: Path) -> None:
    folder = write_recording(tmp_path)
    once = list(Recording.open(folder).events())
    recording = Recording.open(folder, repeat=3)
    events = list(recording.events())
    assert len(events) == 3 * len(once)
    assert all(a.ts_recv <= b.ts_recv for a, b in pairwise(events))
    assert events[-1].ts_recv == recording.last_ns
    trade_ids = [event.trade_id for event in events if isinstance(event, Trade)]
    assert trade_ids == [900, 901, 902, 903, 904, 905]
    quote_ids = [event.seq for event in events if isinstance(event, BookTop)]
    assert quote_ids == sorted(set(quote_ids))
    depths = [event for event in events if isinstance(event, Depth)]
    assert [depth.is_snapshot for depth in depths] == [True, False, False] * 3
    assert depths[3].seq > depths[2].seq


def test_futures_changes_follow_by_previous_id() -> None:
    sync = DepthSync()

    def change(first: int, last: int, previous: int) -> Depth:
        return Depth("P", ((1.0, 1.0),), (), False, first, last, previous, 0, 5)

    assert not sync.on_message(change(1, 4, 0))
    assert not sync.on_message(change(8, 12, 4))
    assert not sync.on_message(change(15, 19, 12))
    ready = sync.on_message(Depth("P", (), (), True, 10, 10, ts_recv=7))
    assert [(depth.is_snapshot, depth.prev_seq, depth.seq, depth.ts_recv) for depth in ready] == [
        (True, -1, 10, 7),
        (False, 10, 12, 7),
        (False, 12, 19, 7),
    ]
    with pytest.raises(ValueError, match="must follow id 19, followed 21"):
        sync.on_message(change(22, 25, 21))


def test_a_snapshot_older_than_the_first_change_is_refused() -> None:
    sync = DepthSync()
    sync.on_message(Depth("P", (), (), True, 10, 10))
    with pytest.raises(ValueError, match="must start at or before 11, started at 12"):
        sync.on_message(Depth("P", ((1.0, 1.0),), (), False, 12, 13))


def test_missing_updates_are_named(tmp_path: Path) -> None:
    folder = write_recording(tmp_path, depth=[*DEPTH, "9,8900,9000,XYZUSDT,0,17,18,,bid,99,1"])
    with pytest.raises(RecordingError, match=r"depth.csv.gz line 9: updates are missing.*15, followed 16"):
        list(Recording.open(folder).events())


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("quotes", "8,,9000,XYZUSDT,61x.3,3,100.2,1,16", "bid_px must be a decimal, was '61x.3'"),
        ("quotes", "8,,9000,XYZUSDT,100,3,-5,1,16", "ask_px must be a decimal, was '-5'"),
        ("quotes", "8,,9000,XYZUSDT,100,nan,100.2,1,16", "bid_qty must be a decimal, was 'nan'"),
        ("quotes", "8,,,XYZUSDT,100,3,100.2,1,16", "ts_recv_ns must be a whole number, was ''"),
        ("quotes", "8,,9000,XYZUSDT,100,3,100.2,1", "must have 9 fields, had 8"),
        ("quotes", "5,,9000,XYZUSDT,100,3,100.2,1,16", "seq must be above the previous row's 5, was '5'"),
        ("trades", "8,9,9000,XYZUSDT,100,1,bid,902,MARKET", "side must be buy or sell, was 'bid'"),
        ("trades", "8,9,9000,XYZUSDT,0,1,buy,902,MARKET", "price must be above zero, was '0'"),
        ("trades", "8,9,9000,XYZUSDT,100,1,buy,9o2,MARKET", "trade_id must be a whole number, was '9o2'"),
        ("depth", "9,8,9000,XYZUSDT,0,16,16,,buy,100,1", "side must be bid or ask, was 'buy'"),
        ("depth", "9,8,9000,XYZUSDT,2,16,16,,bid,100,1", "is_snapshot must be 0 or 1, was '2'"),
        ("depth", "9,8,9000,XYZUSDT,0,16,16,,bid,100", "must have 11 fields, had 10"),
        ("depth", "6,6900,7000,XYZUSDT,0,14,15,,ask,1OO,1", "price must be a decimal, was '1OO'"),
        ("depth", "\x00\x01garbage", "must have 11 fields, had 1"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, name: str, line: str, message: str) -> None:
    folder = write_recording(tmp_path)
    good = {"trades": TRADES, "quotes": QUOTES, "depth": DEPTH}[name]
    write_csv(folder, name, [*good, line])
    events = Recording.open(folder).events()
    with pytest.raises(RecordingError) as caught:
        for _ in events:
            pass
    assert str(caught.value).startswith(f"{name}.csv.gz line {len(good) + 2}: {message}")
    assert caught.value.line == len(good) + 2


def test_a_cut_file_is_named(tmp_path: Path) -> None:
    folder = write_recording(tmp_path)
    path = folder / "quotes.csv.gz"
    whole = path.read_bytes()
    path.write_bytes(whole[:-12])
    with pytest.raises(RecordingError, match=r"quotes.csv.gz: must be a whole gzip file, was cut or damaged"):
        list(Recording.open(folder).events())
    path.write_bytes(gzip.compress(gzip.decompress(whole)[:-4]))
    with pytest.raises(RecordingError, match=r"quotes.csv.gz line 3: .*fields|newline"):
        list(Recording.open(folder).events())
    path.write_bytes(gzip.compress(gzip.decompress(whole)[:-1]))
    with pytest.raises(RecordingError, match=r"quotes.csv.gz line 3: the last line must end with a newline"):
        list(Recording.open(folder).events())


def test_a_wrong_header_is_named(tmp_path: Path) -> None:
    folder = write_recording(tmp_path)
    write_csv(folder, "trades", TRADES, header="time,price")
    with pytest.raises(RecordingError, match=r"trades.csv.gz line 1: header must be 'seq,.*was 'time,price'"):
        list(Recording.open(folder).events())


def test_what_is_missing_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match=r"must hold trades.csv.gz, which is missing"):
        Recording.open(tmp_path / "nowhere")
    folder = write_recording(tmp_path)
    instrument = Recording.open(folder).instrument
    (tmp_path / "instruments.json").write_text("{}")
    with pytest.raises(RecordingError, match=r"must describe 'binance_spot:XYZUSDT'.*or pass instrument="):
        Recording.open(folder)
    (tmp_path / "instruments.json").unlink()
    with pytest.raises(RecordingError, match=r"instruments.json: must describe the instrument, was missing"):
        Recording.open(folder)
    assert Recording.open(folder, instrument=instrument).symbol == "XYZ-USDT"
    with pytest.raises(RecordingError, match="repeat must be at least 1, was 0"):
        Recording.open(folder, repeat=0)


class NaiveBook:
    """The rebuilt book of a consumer that applies depth events and nothing else."""

    def __init__(self) -> None:
        self.bids: dict[float, float] = {}
        self.asks: dict[float, float] = {}
        self.best = (0.0, 0.0)
        self.seq = 0

    def apply(self, depth: Depth) -> None:
        if depth.is_snapshot:
            self.bids.clear()
            self.asks.clear()
        else:
            assert (depth.prev_seq if depth.prev_seq >= 0 else depth.first_seq - 1) == self.seq
        self.seq = depth.seq
        for side, levels in ((self.bids, depth.bids), (self.asks, depth.asks)):
            for price, size in levels:
                if size:
                    side[price] = size
                else:
                    side.pop(price, None)
        bid, ask = self.best
        bid = max([bid, *(price for price, size in depth.bids if size)])
        ask = min([ask, *(price for price, size in depth.asks if size)])
        self.best = (
            bid if bid in self.bids else max(self.bids),
            ask if ask in self.asks else min(self.asks),
        )


# From the README of the recordings: trades, quotes, depth messages kept, their rows, price match.
README = {
    "binance_usdm_BTCUSDT_20240808": (21_313, 66_089, 6_551 - 4, 0.9956),
    "binance_usdm_ETHUSDT_20240808": (14_076, 53_992, 6_586 - 5, 0.9982),
    "binance_spot_BTCUSDT_20240808-09": (19_904, 73_174, 6_495 - 2, 0.9997),
    "binance_spot_NEXOUSDT_20240723-24": (12_458, 33_437, 68_182, 0.9998),
}


@pytest.mark.parametrize("name", README)
def test_a_real_recording_rebuilds_into_the_quoted_book(name: str) -> None:
    """As its README compares: after each depth message, with the newest quote that is not ahead of it."""
    recording = Recording.open(recorded_folder(name))
    book = NaiveBook()
    trades = changes = compared = matched = 0
    quotes: list[BookTop] = []
    for event in recording.events():
        if isinstance(event, Trade):
            trades += 1
        elif isinstance(event, BookTop):
            quotes.append(event)
        elif isinstance(event, Depth):
            book.apply(event)
            if event.is_snapshot:
                continue
            changes += 1
            bid, ask = book.best
            assert bid < ask
            quote = next((quote for quote in reversed(quotes) if quote.seq <= event.seq), None)
            if quote is not None:
                compared += 1
                matched += (quote.bid, quote.ask) == (bid, ask)
    expected = README[name]
    assert (trades, len(quotes), changes) == expected[:3]
    assert compared >= changes - 2
    assert round(matched / compared, 4) >= expected[3]


def test_real_instruments_are_known() -> None:
    spot = Recording.open(recorded_folder("binance_spot_BTCUSDT_20240808-09"))
    assert (spot.symbol, spot.instrument.kind) == ("BTC-USDT", InstrumentKind.SPOT)
    assert (spot.first_ns, spot.last_ns) == (1723161253937085768, 1723161904535092233)
    perpetual = Recording.open(recorded_folder("binance_usdm_ETHUSDT_20240808"))
    assert (perpetual.symbol, perpetual.instrument.kind) == ("ETH-USDT-PERP", InstrumentKind.LINEAR)
