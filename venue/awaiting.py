"""Which requests still wait for the venue's answer, and when to stop waiting."""

from collections import OrderedDict

from host.api import (
    AccountSnapshot,
    AmendOrder,
    AmendRejected,
    CancelOrder,
    CancelRejected,
    Command,
    FillsSnapshot,
    OpenOrdersSnapshot,
    OrderAccepted,
    OrderAmended,
    OrderCancelled,
    OrderExpired,
    OrderNotFound,
    OrderRejected,
    OrderSnapshot,
    PlaceOrder,
    QueryAccount,
    QueryFills,
    QueryOpenOrders,
    QueryOrder,
    Report,
    RequestUnanswered,
)

__all__ = ["AwaitedAnswers"]

_ENDS = (OrderCancelled, OrderExpired)
_ANSWERS: dict[type[Command], tuple[type[Report], ...]] = {
    PlaceOrder: (OrderAccepted, OrderRejected),
    AmendOrder: (OrderAmended, AmendRejected, *_ENDS),
    CancelOrder: (CancelRejected, *_ENDS),
    QueryOrder: (OrderSnapshot, OrderNotFound),
    QueryOpenOrders: (OpenOrdersSnapshot,),
    QueryFills: (FillsSnapshot,),
    QueryAccount: (AccountSnapshot,),
}
"""What answers what. A fill answers nothing: it comes by another road than the answer."""

_BY_REPORT: dict[type[Report], tuple[type[Command], ...]] = {}
for _command, _reports in _ANSWERS.items():
    for _report in _reports:
        _BY_REPORT[_report] = (*_BY_REPORT.get(_report, ()), _command)

_Key = tuple[type[Command], str]


class AwaitedAnswers:
    """Remembers each request until its answer comes or `timeout_ns` have passed.

    Requests for the same order and of the same kind share one place: the first answer serves all.
    """

    def __init__(self, timeout_ns: int) -> None:
        self._timeout_ns = timeout_ns
        self._due_ns: OrderedDict[_Key, int] = OrderedDict()

    def sent(self, command: Command, now_ns: int) -> None:
        """Start to wait for the answer to `command`."""
        key = (type(command), getattr(command, "client_id", ""))
        self._due_ns[key] = now_ns + self._timeout_ns
        self._due_ns.move_to_end(key)

    def received(self, report: Report) -> None:
        """Stop waiting for what `report` answers, if anything."""
        for command in _BY_REPORT.get(type(report), ()):
            self._due_ns.pop((command, getattr(report, "client_id", "")), None)

    def next_time_ns(self) -> int | None:
        """Return when the oldest wait ends."""
        for due_ns in self._due_ns.values():
            return due_ns
        return None

    def give_up(self, now_ns: int) -> list[RequestUnanswered]:
        """Return and forget the requests whose wait ended at or before `now_ns`, oldest first."""
        out: list[RequestUnanswered] = []
        while (due_ns := self.next_time_ns()) is not None and due_ns <= now_ns:
            (command, client_id), _ = self._due_ns.popitem(last=False)
            text = f"{command.__name__}: no answer within {self._timeout_ns / 1e6:g} ms"
            out.append(RequestUnanswered(client_id, text, now_ns))
        return out

    def give_up_all(self, text: str, now_ns: int) -> list[RequestUnanswered]:
        """Return and forget every awaited request: the connection that would answer is gone."""
        lost = [RequestUnanswered(client_id, text, now_ns) for _, client_id in self._due_ns]
        self._due_ns.clear()
        return lost
