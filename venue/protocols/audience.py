"""What the protocols hear of the exchange: each front apart, so that one that fails fails alone."""

from typing import Any, Final

from venue.execution import ExecutionReport
from venue.perpetuals import FundingPayment
from venue.protocols.accounts import Accounts
from venue.protocols.course import Course
from venue.protocols.market_feed import MarketFeed

__all__ = ["FeedListener", "FrontListener"]


class FeedListener:
    """Keeps the public state that all fronts show. Must hear of everything before they do."""

    def __init__(self, feed: MarketFeed) -> None:
        self._feed: Final = feed

    def on_output(self, account: str | None, output: Any) -> None:
        """Take public market data."""
        if account is None:
            self._feed.on_market(output)

    def on_execution(self, report: ExecutionReport) -> None:
        """Take nothing: this is not public."""

    def on_funding(self, payment: FundingPayment) -> None:
        """Take nothing: this is not public."""

    def on_failure(self, error: Exception) -> None:
        """Go on with what is known."""

    def __str__(self) -> str:
        return "the public state of the markets"


class FrontListener:
    """Passes on to one front what concerns it."""

    def __init__(self, course: Course) -> None:
        self._course: Final = course
        self._front: Final = course.front

    def on_output(self, account: str | None, output: Any) -> None:
        """Pass public market data on; reports are for the house protocol."""
        if account is None:
            self._front.on_market(output)

    def on_execution(self, report: ExecutionReport) -> None:
        """Pass on what happened to an order, if it is one of an account behind the protocols."""
        account, wallet = Accounts.owner(report.order.owner)
        if account:
            self._front.on_execution(report, account, wallet)

    def on_funding(self, payment: FundingPayment) -> None:
        """Pass on what an account got or paid for a position."""
        account, wallet = Accounts.owner(payment.account)
        if account:
            self._front.on_funding(payment, account, wallet)

    def on_failure(self, error: Exception) -> None:
        """Break every connection: clients come back, and begin with whole books and lists."""
        self._course.cut()

    def __str__(self) -> str:
        return f"the protocol {self._front.name}"
