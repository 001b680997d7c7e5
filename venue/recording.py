"""Read one recorded market: three compressed CSV files, merged into true arrival order.

`docs/recordings.md` describes the format. Reading streams: memory stays flat however long the
recording is. Lines are parsed by hand, because this is the inner loop of every replay.
"""

import json
import sys
from collections.abc import Generator, Iterator
from contextlib import closing
from decimal import Decimal
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from msgspec import Struct

from host.api import BookTop, Depth, Instrument, InstrumentKind, Level, MarketEvent, Trade
from venue.depth_sync import DepthSync
from venue.recorded_lines import (
    DEPTH,
    HEADERS,
    QUOTES,
    TRADES,
    RecordingError,
    bad_line,
    check_whole,
    ends,
    open_csv,
)

__all__ = ["Recording", "RecordingError"]

_REPEAT_GAP_NS = 1_000_000
"""Time between the last event of one pass and the first of the next."""

_KINDS = {"spot": InstrumentKind.SPOT, "linear perpetual": InstrumentKind.LINEAR}

_Sequenced = tuple[int, MarketEvent]


class _Shift(NamedTuple):
    """What one pass of a repeated recording adds to times and ids."""

    time_ns: int = 0
    update_id: int = 0
    trade_id: int = 0


class _Bounds(NamedTuple):
    """The last receive time, and how far one pass moves the ids."""

    last_ns: int
    update_ids: int
    trade_ids: int


class Recording(Struct, frozen=True, dict=True):
    """One symbol's recorded market. Iterate `events` as often as you like; each run starts anew."""

    folder: Path
    instrument: Instrument
    repeat: int = 1

    @classmethod
    def open(
        cls, folder: Path | str, *, repeat: int = 1, instrument: Instrument | None = None
    ) -> "Recording":
        """Open a folder that holds trades.csv.gz, quotes.csv.gz and depth.csv.gz.

        `instrument` overrides what `instruments.json` in the parent folder says. `repeat` plays
        the recording that many times back to back, with times and ids moved on so that both keep
        rising. Raises `RecordingError` when a file is missing or the instrument is not known.
        """
        folder = Path(folder)
        if repeat < 1:
            raise RecordingError(str(folder), 0, "repeat", f"repeat must be at least 1, was {repeat}")
        for name in ("trades.csv.gz", "quotes.csv.gz", "depth.csv.gz"):
            if not (folder / name).is_file():
                raise RecordingError(
                    str(folder), 0, "", f"a recording must hold {name}, which is missing; check the path"
                )
        return cls(folder, instrument or _instrument_of(folder), repeat)

    @property
    def symbol(self) -> str:
        """Return the symbol that the events carry."""
        return self.instrument.symbol

    @cached_property
    def first_ns(self) -> int:
        """Return the receive time of the first line. Reads the first line of each file only."""
        times: list[int] = []
        for name, header in HEADERS.items():
            with closing(ends(self.folder / f"{name}.csv.gz", header)) as rows:
                times.extend(time_ns for time_ns, _ in islice(rows, 1))
        if not times:
            detail = "a recording must hold at least one event, was empty"
            raise RecordingError(str(self.folder), 0, "", detail)
        return min(times)

    @property
    def last_ns(self) -> int:
        """Return the receive time of the last line. Reads the files through, once."""
        return self._bounds.last_ns + (self.repeat - 1) * self._period_ns

    @property
    def _period_ns(self) -> int:
        return self._bounds.last_ns - self.first_ns + _REPEAT_GAP_NS

    def events(self) -> Iterator[MarketEvent]:
        """Yield the events in arrival order; raises `RecordingError` at the first bad line.

        Depth comes as a snapshot and then contiguous changes (`DepthSync`); changes that arrived
        before the snapshot are left out. `BookTop.seq` and `Depth.seq` are the venue's update ids.
        """
        for turn in range(self.repeat):
            shift = _Shift()
            if turn:
                bounds = self._bounds
                shift = _Shift(turn * self._period_ns, turn * bounds.update_ids, turn * bounds.trade_ids)
            yield from _merge(self._trades(shift), self._quotes(shift), self._depth(shift))

    def _trades(self, shift: _Shift) -> Generator[_Sequenced, None, None]:
        path, symbol = self.folder / "trades.csv.gz", self.symbol
        add_time, _, add_id = shift
        number, line, last = 1, b"\n", -1
        with open_csv(path, TRADES) as file:
            try:
                for number, line in enumerate(file, 2):  # noqa: B007 - for the error below
                    row, ts_event, ts_recv, _, price, qty, side, trade_id, _ = line.split(b",")
                    seq, px, size = int(row), float(price), float(qty)
                    is_buy = side == b"buy"
                    if not (seq > last and px > 0.0 and size > 0.0 and (is_buy or side == b"sell")):
                        raise ValueError
                    last = seq
                    yield (
                        seq,
                        Trade(
                            symbol,
                            px,
                            size,
                            is_buy,
                            int(trade_id) + add_id,
                            int(ts_event) + add_time if ts_event else 0,
                            int(ts_recv) + add_time,
                        ),
                    )
            except ValueError:
                raise bad_line(path, TRADES, number, line, last) from None
        check_whole(path, number, line)

    def _quotes(self, shift: _Shift) -> Generator[_Sequenced, None, None]:
        path, symbol = self.folder / "quotes.csv.gz", self.symbol
        add_time, add_id, _ = shift
        number, line, last = 1, b"\n", -1
        with open_csv(path, QUOTES) as file:
            try:
                for number, line in enumerate(file, 2):  # noqa: B007 - for the error below
                    row, ts_event, ts_recv, _, bid, bid_qty, ask, ask_qty, update_id = line.split(b",")
                    seq, bid_px, bid_size, ask_px = int(row), float(bid), float(bid_qty), float(ask)
                    ask_size = float(ask_qty)
                    if not (
                        seq > last and bid_px > 0.0 and ask_px > 0.0 and bid_size >= 0.0 and ask_size >= 0.0
                    ):
                        raise ValueError
                    last = seq
                    yield (
                        seq,
                        BookTop(
                            symbol,
                            bid_px,
                            bid_size,
                            ask_px,
                            ask_size,
                            int(ts_event) + add_time if ts_event else 0,
                            int(ts_recv) + add_time,
                            int(update_id) + add_id,
                        ),
                    )
            except ValueError:
                raise bad_line(path, QUOTES, number, line, last) from None
        check_whole(path, number, line)

    def _depth(self, shift: _Shift) -> Generator[_Sequenced, None, None]:
        """Yield (seq, synchronised depth): the buffered changes come with their snapshot's seq."""
        sync = DepthSync()
        for seq, number, message in self._depth_messages(shift):
            try:
                ready = sync.on_message(message)
            except ValueError as error:
                raise RecordingError("depth.csv.gz", number, "prev_update_id", str(error)) from None
            for depth in ready:
                yield seq, depth

    def _depth_messages(self, shift: _Shift) -> Iterator[tuple[int, int, Depth]]:
        """Yield (seq, number of the first line, message), as recorded."""
        path, symbol = self.folder / "depth.csv.gz", self.symbol
        add_time, add_id, _ = shift
        number, line, last, first_line = 1, b"\n", -1, 0
        bids: list[Level] = []
        asks: list[Level] = []
        # The rows of one message differ in their last three fields only, so the first eight are
        # parsed once and compared as bytes: that halves the cost of a row.
        head, cut = b"", 0
        fields: tuple[bool, int, int, int, int, int] | None = None
        with open_csv(path, DEPTH) as file:
            try:
                for number, line in enumerate(file, 2):
                    if fields is None or not line.startswith(head):
                        if fields is not None:
                            yield last, first_line, Depth(symbol, tuple(bids), tuple(asks), *fields)
                            bids, asks = [], []
                        parts = line.split(b",")
                        row, ts_event, ts_recv, _, snapshot, first_id, last_id, prev_id, *_ = parts
                        if int(row) <= last or snapshot not in (b"0", b"1"):
                            raise ValueError
                        last, first_line = int(row), number
                        head = b",".join(parts[:8]) + b","
                        cut = len(head)
                        fields = (
                            snapshot == b"1",
                            int(first_id) + add_id,
                            int(last_id) + add_id,
                            int(prev_id) + add_id if prev_id else -1,
                            int(ts_event) + add_time if ts_event else 0,
                            int(ts_recv) + add_time,
                        )
                    side, price, qty = line[cut:].split(b",")
                    px, size = float(price), float(qty)
                    if not (px > 0.0 and size >= 0.0):
                        raise ValueError
                    if side == b"bid":
                        bids.append((px, size))
                    elif side == b"ask":
                        asks.append((px, size))
                    else:
                        raise ValueError
            except ValueError:
                raise bad_line(path, DEPTH, number, line, last) from None
        check_whole(path, number, line)
        if fields is not None:
            yield last, first_line, Depth(symbol, tuple(bids), tuple(asks), *fields)

    @cached_property
    def _bounds(self) -> _Bounds:
        rows = {name: list(ends(self.folder / f"{name}.csv.gz", header)) for name, header in HEADERS.items()}
        return _Bounds(
            max([self.first_ns, *(time_ns for pair in rows.values() for time_ns, _ in pair)]),
            _span([update_id for name in ("quotes", "depth") for _, update_id in rows[name]]),
            _span([trade_id for _, trade_id in rows["trades"]]),
        )


def _span(ids: list[int]) -> int:
    return max(ids) - min(ids) + 1 if ids else 0


# Later than any real line: what an exhausted stream offers to the merge.
_END: _Sequenced = (sys.maxsize, BookTop("", 0.0, 0.0, 0.0, 0.0))


def _merge(
    trades: Generator[_Sequenced, None, None],
    quotes: Generator[_Sequenced, None, None],
    depths: Generator[_Sequenced, None, None],
) -> Iterator[MarketEvent]:
    """Yield the events of three streams by sequence number; twice as fast as heapq.merge."""
    with closing(trades), closing(quotes), closing(depths):
        trade, quote, depth = next(trades, _END), next(quotes, _END), next(depths, _END)
        while True:
            if quote[0] < trade[0]:
                if quote[0] < depth[0]:
                    yield quote[1]
                    quote = next(quotes, _END)
                    continue
            elif trade[0] < depth[0]:
                yield trade[1]
                trade = next(trades, _END)
                continue
            if depth is _END:
                return
            yield depth[1]
            depth = next(depths, _END)


def _instrument_of(folder: Path) -> Instrument:
    """Build the instrument from the folder's name and the parent folder's instruments.json."""
    path = folder.resolve().parent / "instruments.json"
    venue, _, rest = folder.resolve().name.rpartition("_")[0].rpartition("_")
    key = f"{venue}:{rest}"
    remedy = f"add {key!r} with type, base, quote, price_tick and qty_step, or pass instrument="
    try:
        described = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise RecordingError(
            str(path), 0, "", f"must describe the instrument, was missing; {remedy}"
        ) from None
    except ValueError as error:
        raise RecordingError(str(path), 0, "", f"must be JSON, was not ({error})") from error
    if not isinstance(described, dict) or not isinstance(described.get(key), dict):
        raise RecordingError(
            str(path), 0, key, f"must describe {key!r} (from the folder name VENUE_SYMBOL_DATE); {remedy}"
        )
    entry = described[key]
    try:
        kind = _KINDS[entry["type"]]
        suffix = "" if kind is InstrumentKind.SPOT else "-PERP"
        return Instrument(
            symbol=f"{entry['base']}-{entry['quote']}{suffix}",
            kind=kind,
            base=entry["base"],
            quote=entry["quote"],
            tick_size=Decimal(entry["price_tick"]),
            lot_size=Decimal(entry["qty_step"]),
        )
    except (KeyError, TypeError, ArithmeticError) as error:
        raise RecordingError(
            str(path), 0, key, f"{key}: expected type ({', '.join(_KINDS)}), base, quote, price_tick and "
            f"qty_step, was {entry!r}"
        ) from error  # fmt: skip
