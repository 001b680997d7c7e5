"""Candles made of the trades that pass by."""

from collections.abc import Callable

from host.api import Candle, Trade

__all__ = ["CandleMaker"]


class CandleMaker:
    """Collects the trades of one symbol into candles of one length.

    A candle is handed over once its time is past, by the first later trade or by `on_time`. Times
    without a trade have no candle.
    """

    __slots__ = (
        "_close",
        "_emit",
        "_end_ns",
        "_high",
        "_low",
        "_open",
        "_symbol",
        "_trades",
        "_volume",
        "interval_ns",
    )

    def __init__(self, symbol: str, seconds: int, emit: Callable[[Candle], None]) -> None:
        self._symbol = symbol
        self.interval_ns = seconds * 1_000_000_000
        self._emit = emit
        self._end_ns = 0
        self._trades = 0
        self._open = self._high = self._low = self._close = self._volume = 0.0

    def on_trade(self, trade: Trade, now_ns: int) -> None:
        """Count a trade, by the host's time of receipt."""
        self.on_time(now_ns)
        price = trade.price
        if self._trades == 0:
            self._end_ns = now_ns - now_ns % self.interval_ns + self.interval_ns
            self._open = self._high = self._low = price
            self._volume = 0.0
        self._high = max(self._high, price)
        self._low = min(self._low, price)
        self._close = price
        self._volume += trade.qty
        self._trades += 1

    def on_time(self, now_ns: int) -> None:
        """Hand over the candle whose time is past, if there is one."""
        if self._trades and now_ns >= self._end_ns:
            candle = Candle(
                self._symbol,
                self._end_ns - self.interval_ns,
                self.interval_ns,
                self._open,
                self._high,
                self._low,
                self._close,
                self._volume,
                self._trades,
            )
            self._trades = 0
            self._emit(candle)
