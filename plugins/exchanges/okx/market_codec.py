"""Market data of OKX, into what the host calls it.

Which book a change builds on is said by `prevSeqId`, which the host follows (`host.api.Depth`): a
sequence may jump, and may begin anew at a lower number after maintenance, as long as it chains. An
empty change with `seqId` = `prevSeqId` only says that the venue is there.
"""

from collections.abc import Callable, Sequence
from math import inf
from typing import Final

from host.api import BookTop, Depth, Level, MarketEvent, Ticker, Trade

from .frames import BadFrame, LevelRow, MarketFrame, MarketRow
from .products import Listings, MarketName

__all__ = ["BOOKS", "MS", "TICKERS", "TOPS", "TRADES", "is_read", "market_events"]

MS: Final = 1_000_000
"""Nanoseconds of a millisecond."""
TOPS: Final = "bbo-tbt"
"""Best bid and ask, each 10 ms at most."""
BOOKS: Final = "books"
"""400 levels a side, changes each 100 ms."""
TRADES: Final = "trades"
TICKERS: Final = "tickers"


def is_read(channel: str) -> bool:
    """Return whether the pushes of a channel mean anything here."""
    return channel in _READERS


def market_events(listings: Listings, frame: MarketFrame, recv_ns: int) -> Sequence[MarketEvent]:
    """Return what a push says, oldest first; raise `BadFrame`.

    A push of an instrument that is not listed, or of a channel that is not read here, says nothing.
    """
    read = _READERS.get(frame.arg.channel)
    if read is None:
        return ()
    name = listings.market_names.get(frame.arg.inst_id)
    if name is None:
        return ()
    rows = frame.data
    if len(rows) == 1:  # nearly always
        return (read(name, frame, rows[0], recv_ns),)
    return [read(name, frame, row, recv_ns) for row in rows]


def _top(name: MarketName, _frame: MarketFrame, row: MarketRow, recv_ns: int) -> MarketEvent:
    bids, asks = row.bids, row.asks
    if bids is None or asks is None:
        raise BadFrame("top without a side", f"{name.inst_id}: expected bids and asks")
    unit = name.scale
    # No `seq`: it is not confirmed that this channel's numbers are those of `books`.
    if bids and asks:
        bid, ask = bids[0], asks[0]
        return BookTop(
            name.symbol, bid.price, bid.size * unit, ask.price, ask.size * unit, row.ts * MS, recv_ns
        )
    # An empty side is said by price and size 0, which makes the host distrust the top.
    left = (bids[0].price, bids[0].size * unit) if bids else (0.0, 0.0)
    right = (asks[0].price, asks[0].size * unit) if asks else (0.0, 0.0)
    return BookTop(name.symbol, *left, *right, row.ts * MS, recv_ns)


def _book(name: MarketName, frame: MarketFrame, row: MarketRow, recv_ns: int) -> MarketEvent:
    bids, asks, seq = row.bids, row.asks, row.seq_id
    if bids is None or asks is None:
        raise BadFrame("book without a side", f"{name.inst_id}: expected bids and asks")
    if seq is None:
        raise BadFrame("book without seqId", f"{name.inst_id}: its place in the sequence is not known")
    is_snapshot = frame.action != "update"
    prev = row.prev_seq_id
    if not is_snapshot and prev < 0:
        raise BadFrame("change without prevSeqId", f"{name.inst_id}: what it follows is not known")
    unit = name.scale
    return Depth(
        name.symbol,
        _levels(bids, unit),
        _levels(asks, unit),
        is_snapshot,
        seq if is_snapshot else prev + 1,
        seq,
        -1 if is_snapshot else prev,
        row.ts * MS,
        recv_ns,
    )


def _levels(rows: tuple[LevelRow, ...], unit: float) -> tuple[Level, ...]:
    if unit == 1.0:
        return tuple([(row.price, row.size) for row in rows])
    return tuple([(row.price, row.size * unit) for row in rows])


def _trade(name: MarketName, _frame: MarketFrame, row: MarketRow, recv_ns: int) -> MarketEvent:
    price, size, trade_id = row.px, row.sz, row.trade_id
    if price is None or size is None or trade_id is None or row.side not in ("buy", "sell"):
        raise BadFrame("bad trade", f"{name.inst_id}: expected px, sz, tradeId and side buy or sell")
    if not (0.0 < price < inf and 0.0 < size < inf):
        raise BadFrame("bad trade", f"{name.inst_id}: expected px and sz above 0, was {price!r}, {size!r}")
    qty = size * name.scale
    return Trade(name.symbol, price, qty, row.side == "buy", trade_id, row.ts * MS, recv_ns)


def _ticker(name: MarketName, _frame: MarketFrame, row: MarketRow, recv_ns: int) -> MarketEvent:
    last, opened, high, low = row.last, row.open24h, row.high24h, row.low24h
    # `vol24h` counts contracts for a swap, `volCcy24h` its base coin; for spot they are base and quote.
    volume = row.vol24h if name.is_spot else row.vol_ccy24h
    if last is None or opened is None or high is None or low is None or volume is None:
        raise BadFrame("bad ticker", f"{name.inst_id}: expected last, open24h, high24h, low24h and volume")
    if not (0.0 < last < inf and 0.0 < low <= high < inf and 0.0 <= volume < inf):
        raise BadFrame(
            "bad ticker", f"{name.inst_id}: last {last!r}, low {low!r}, high {high!r}, volume {volume!r}"
        )
    return Ticker(name.symbol, last, opened, high, low, volume, row.ts * MS, recv_ns)


_Reader = Callable[[MarketName, MarketFrame, MarketRow, int], MarketEvent]
_READERS: Final[dict[str, _Reader]] = {
    TOPS: _top,
    BOOKS: _book,
    "books5": _book,
    "books-l2-tbt": _book,
    "books50-l2-tbt": _book,
    TRADES: _trade,
    "trades-all": _trade,
    TICKERS: _ticker,
}
