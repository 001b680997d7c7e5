"""The files of a recording as checked lines: headers, damage, and which field of a line is wrong."""

import gzip
import io
import re
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from host.api import TandemError

__all__ = [
    "DEPTH",
    "HEADERS",
    "QUOTES",
    "TRADES",
    "RecordingError",
    "bad_line",
    "check_whole",
    "ends",
    "open_csv",
]

_READ_BYTES = 1 << 18

TRADES = "seq,ts_exchange_ns,ts_recv_ns,symbol,price,qty,side,trade_id,kind"
QUOTES = "seq,ts_exchange_ns,ts_recv_ns,symbol,bid_px,bid_qty,ask_px,ask_qty,update_id"
DEPTH = (
    "seq,ts_exchange_ns,ts_recv_ns,symbol,is_snapshot,first_update_id,last_update_id,prev_update_id,"
    "side,price,qty"
)
_RUNNING_IDS = ("trade_id", "update_id", "last_update_id")
HEADERS = {"trades": TRADES, "quotes": QUOTES, "depth": DEPTH}


class RecordingError(TandemError):
    """A recording cannot be read. `file`, `line` (0: the whole file) and `field` say where."""

    def __init__(self, file: str, line: int, field: str, detail: str) -> None:
        super().__init__(f"{file} line {line}: {detail}" if line else f"{file}: {detail}")
        self.file = file
        self.line = line
        self.field = field


@contextmanager
def open_csv(path: Path, header: str) -> Iterator[io.BufferedIOBase]:
    """Open a compressed CSV past its checked header, and name the file in what goes wrong."""
    try:
        # GzipFile's own line iteration is Python code; a BufferedReader around it iterates in C.
        with gzip.open(path, "rb") as unzipped:
            file = io.BufferedReader(cast(io.RawIOBase, unzipped), _READ_BYTES)
            first = file.readline().rstrip(b"\r\n")
            if first != header.encode():
                raise RecordingError(
                    path.name,
                    1,
                    "",
                    f"header must be {header!r}, was {first[:200].decode(errors='replace')!r}",
                )
            yield file
    except (EOFError, zlib.error, OSError) as error:
        raise RecordingError(
            path.name, 0, "", f"must be a whole gzip file, was cut or damaged ({error}); fetch it again"
        ) from error


def ends(path: Path, header: str) -> Generator[tuple[int, int], None, None]:
    """Yield (receive time, running id) of the first and the last data line, if there is any."""
    columns = header.split(",")
    running_id = next(name for name in _RUNNING_IDS if name in columns)

    def parse(number: int, line: bytes) -> tuple[int, int]:
        try:
            values = dict(zip(columns, line.split(b","), strict=True))
            return int(values["ts_recv_ns"]), int(values[running_id])
        except ValueError:
            raise bad_line(path, header, number, line, -1) from None

    with open_csv(path, header) as file:
        number, line = 2, file.readline()
        if not line:
            return
        yield parse(number, line)
        for line in file:  # noqa: B007 - only the last one counts
            number += 1
        yield parse(number, line)


def check_whole(path: Path, number: int, line: bytes) -> None:
    """Raise `RecordingError` if the last line is cut short."""
    if not line.endswith(b"\n"):
        raise RecordingError(
            path.name, number, "", "the last line must end with a newline, was cut; fetch the file again"
        )


_DECIMAL = re.compile(r"\d+(\.\d*)?|\.\d+")
_OPTIONAL = {"ts_exchange_ns", "prev_update_id"}
_TAKER_SIDES: tuple[str, ...] = ("buy", "sell")
_BOOK_SIDES: tuple[str, ...] = ("bid", "ask")
_FLAGS: tuple[str, ...] = ("0", "1")
_DECIMALS = {"price", "bid_px", "ask_px", "qty", "bid_qty", "ask_qty"}
_TEXTS = {"symbol", "kind"}


def bad_line(path: Path, header: str, number: int, line: bytes, last_seq: int) -> RecordingError:
    """Return the error that says which field of a line that did not parse is wrong."""
    columns = header.split(",")
    values = line.decode(errors="replace").rstrip("\r\n").split(",")

    def error(field: str, expected: str, found: str) -> RecordingError:
        return RecordingError(path.name, number, field, f"{field} must be {expected}, was {found[:80]!r}")

    if len(values) != len(columns):
        text = f"must have {len(columns)} fields, had {len(values)}: {','.join(values)[:120]!r}"
        return RecordingError(path.name, number, "", text)
    for field, value in zip(columns, values, strict=True):
        if field in _TEXTS or (field in _OPTIONAL and not value):
            continue
        if field == "side":
            choices = _TAKER_SIDES if header == TRADES else _BOOK_SIDES
        else:
            choices = _FLAGS if field == "is_snapshot" else ()
        if choices:
            if value not in choices:
                return error(field, " or ".join(choices), value)
        elif field in _DECIMALS:
            if not _DECIMAL.fullmatch(value):
                return error(field, "a decimal", value)
            may_be_zero = field in {"bid_qty", "ask_qty"} or (field == "qty" and header == DEPTH)
            if not may_be_zero and not float(value) > 0.0:
                return error(field, "above zero", value)
        elif not value.isascii() or not value.isdigit():
            return error(field, "a whole number", value)
    return error("seq", f"above the previous row's {last_seq}", values[0])
