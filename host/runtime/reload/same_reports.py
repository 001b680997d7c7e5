"""Two private streams of one account: each report counts once, whichever connection brings it first."""

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from typing import Final

from host.api import (
    AccountSnapshot,
    ConnectionChanged,
    FillsSnapshot,
    OpenOrdersSnapshot,
    OrderAccepted,
    OrderCancelled,
    OrderExpired,
    OrderFilled,
    OrderNotFound,
    OrderRejected,
    OrderSnapshot,
    Report,
    RequestUnanswered,
)

__all__ = ["SameReports"]

REPORTS_KEPT: Final = 2_000

_OF_ONE_CONNECTION: Final = (
    RequestUnanswered, OrderSnapshot, OrderNotFound, OpenOrdersSnapshot, FillsSnapshot, AccountSnapshot,
    ConnectionChanged,
)  # fmt: skip
"""What answers one request or tells of one line: an equal one later is another."""
_ONCE_IN_A_LIFE: Final = (OrderAccepted, OrderRejected, OrderCancelled, OrderExpired)
"""What an order can hear but once, whatever time each connection gives it."""


class SameReports:
    """Recognises the second copy of a report that both connections deliver."""

    def __init__(self) -> None:
        self._told: OrderedDict[Hashable, None] = OrderedDict()
        self._ahead: OrderedDict[Hashable, Report] = OrderedDict()

    def live(self, report: Report) -> None:
        """Take note of what was handed over."""
        if isinstance(report, _OF_ONE_CONNECTION):
            return
        key = _identity(report)
        self._ahead.pop(key, None)
        self._told[key] = None
        if len(self._told) > REPORTS_KEPT:
            self._told.popitem(last=False)

    def other(self, report: Report) -> None:
        """Take note of what the other connection delivered and nobody has seen yet."""
        if isinstance(report, _OF_ONE_CONNECTION):
            return
        key = _identity(report)
        if key not in self._told:
            self._ahead[key] = report
            if len(self._ahead) > REPORTS_KEPT:
                self._ahead.popitem(last=False)

    def take_ahead(self) -> Iterator[Report]:
        """Hand over, in order, what only the other connection delivered."""
        while self._ahead:
            _, report = self._ahead.popitem(last=False)
            self.live(report)
            yield report

    def is_new(self, report: Report) -> bool:
        """Return whether a report was handed over by neither connection; from now on it was."""
        if isinstance(report, _OF_ONE_CONNECTION):
            return True
        if _identity(report) in self._told:
            return False
        self.live(report)
        return True


def _identity(report: Report) -> Hashable:
    if isinstance(report, OrderFilled):
        return OrderFilled, report.symbol, report.client_id, report.trade_id
    if isinstance(report, _ONCE_IN_A_LIFE):
        return type(report), report.client_id
    return report
