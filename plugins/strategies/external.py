"""Stands for a strategy whose code is not here: a program of its own, which attaches to the node."""

from host.api import BookTop, Candle, Depth, NoParams, Strategy, Ticker, Trade


class External(Strategy[NoParams]):
    """Hear of everything, so that the program which attaches can ask for it; trade nothing here.

    Use it with `isolation = "client"`. To give such a program parameters that operators see and set, with types and
    bounds, name a plugin of your own instead: a strategy class with `Params` and the callbacks that it needs.
    """

    def on_book(self, book: BookTop) -> None:
        """Leave it to the program."""

    def on_depth(self, depth: Depth) -> None:
        """Leave it to the program."""

    def on_trade(self, trade: Trade) -> None:
        """Leave it to the program."""

    def on_ticker(self, ticker: Ticker) -> None:
        """Leave it to the program."""

    def on_candle(self, candle: Candle) -> None:
        """Leave it to the program."""
