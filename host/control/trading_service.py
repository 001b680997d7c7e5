"""`tandem.v1.TradingService`: its methods, by what they do."""

from host.control.subject import HasEngine
from host.control.trading_by_hand import TradingByHand
from host.control.trading_lists import TradingLists
from host.control.trading_watches import TradingWatches

__all__ = ["TradingService"]


class TradingService:
    """The methods of the service, in snake case: lists answer once, watches go on, the rest changes something."""

    def __init__(self, subject: HasEngine) -> None:
        lists = TradingLists(subject)
        watches = TradingWatches(subject, lists)
        by_hand = TradingByHand(subject)
        self.list_orders = lists.list_orders
        self.get_order = lists.get_order
        self.watch_orders = watches.watch_orders
        self.list_fills = lists.list_fills
        self.watch_fills = watches.watch_fills
        self.list_positions = lists.list_positions
        self.watch_positions = watches.watch_positions
        self.list_balances = lists.list_balances
        self.watch_balances = watches.watch_balances
        self.list_books = lists.list_books
        self.get_book = lists.get_book
        self.watch_books = watches.watch_books
        self.place_order = by_hand.place_order
        self.amend_order = by_hand.amend_order
        self.cancel_order = by_hand.cancel_order
        self.cancel_all_orders = by_hand.cancel_all_orders
        self.flatten = by_hand.flatten
        self.panic_stop = by_hand.panic_stop
        self.release_panic_stop = by_hand.release_panic_stop
        self.list_risk_limits = lists.list_risk_limits
        self.get_risk_limits = lists.get_risk_limits
        self.set_risk_limits = by_hand.set_risk_limits
