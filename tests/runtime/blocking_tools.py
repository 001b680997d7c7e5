"""A strategy and a model that block the event loop, when and how their parameters say."""

BLOCKER = """
import time
from host.api import Adjustment, BookTop, Features, Params, Quote, QuoteModel, State, Strategy
from decimal import Decimal

class BlockerParams(Params, frozen=True):
    at_book: int = 2
    seconds: float = 0.0
    holds_lock: bool = False


class BlockerState(State):
    books: int = 0


def nap(params):
    if params.holds_lock:
        sum(range(int(params.seconds * 1e8)))  # one call in C, which lets no other thread run: some seconds
    else:
        time.sleep(params.seconds)


class Blocker(Strategy[BlockerParams]):
    state: BlockerState

    def on_book(self, book: BookTop) -> None:
        self.state.books += 1
        if self.state.books == self.params.at_book:
            nap(self.params)
        self.quote(book.symbol, Quote(book.bid - 1, Decimal("0.001"), book.ask + 1, Decimal("0.001")))


class SlowModel(QuoteModel[BlockerParams]):
    budget_us = 1e9

    def adjust(self, features: Features, quote: Quote) -> Adjustment:
        nap(self.params)
        return Adjustment()
"""
NAP_LINE = 1 + BLOCKER.splitlines().index(
    "        sum(range(int(params.seconds * 1e8)))  # one call in C, which lets no other thread run: some seconds"
)
SLEEP_LINE = 1 + BLOCKER.splitlines().index("        time.sleep(params.seconds)")
