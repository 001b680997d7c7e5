"""Rate limits: kept before the venue enforces them, with room for cancels, and respected when it does."""

import pytest
from conformance_desk import At, behaviour
from exchange_tools import eventually

from host.api import (
    AccountSnapshot,
    CancelRejected,
    ExchangeError,
    OrderAccepted,
    OrderCancelled,
    OrderRejected,
    QueryAccount,
    RejectReason,
    RequestUnanswered,
)
from venue.protocols.faults import FaultKind

NO_LIMITS = {"the simulated exchange limits nobody": ("paper here", "paper away")}
STOP = {"binance": 418, "okx": 429, "bybit": 403}
"""With which status a venue tells an address to stop."""
TOO_MANY = ("-1003", "-1015", "50011", "10006", "429")
MOST_ORDERS = 400
"""More than any venue takes at once: USDⓈ-M has 300 each ten seconds."""


def refused_for_limits(at: At) -> list[str]:
    """Return what the venue refused of ours, as far as it gave the number of requests as the reason."""
    return [
        line.reason
        for line in at.venue.lines()
        if line.verdict == "refused" and any(code in line.reason for code in TOO_MANY)
    ]


@behaviour("limits: kept before the venue does, cancels go first", absent=NO_LIMITS, has_rate_limits=True)
async def test_orders_stop_before_the_venue_stops_them_and_cancels_go_on(at: At) -> None:
    sent = []
    with pytest.raises(ExchangeError, match="nothing was sent"):
        for number in range(MOST_ORDERS):
            at.place(f"c{number}", steps=20 + number)
            sent.append(f"c{number}")
    assert len(sent) >= 9
    await eventually(
        lambda: all(at.told(client_id, OrderAccepted, OrderRejected) for client_id in sent), "every answer"
    )
    # As many orders as could be placed can be cancelled at once, and more: the tenth that is kept is for this.
    more = [f"never{number}" for number in range(max(1, len(sent) // 20))]
    for client_id in [*sent, *more]:
        at.cancel(client_id)
    for client_id in [*sent, *more]:
        await at.about(client_id, OrderCancelled, CancelRejected)
    assert not refused_for_limits(at) and not at.site.open_ids()
    assert all(at.told(client_id, OrderAccepted) for client_id in sent)


@behaviour("limits: told to stop (429, 50011, 10006), we stop", absent=NO_LIMITS)
async def test_an_order_that_is_one_too_many_is_refused_and_the_next_waits(at: At) -> None:
    at.venue.fault(FaultKind.RATE_LIMIT, request="place", count=1, retry_after_s=60)
    at.place("c1")
    refused = await at.about("c1", OrderRejected)
    assert refused.reason is RejectReason.RATE_LIMIT
    with pytest.raises(ExchangeError, match="nothing was sent") as caught:
        at.place("c2")
    assert getattr(caught.value, "wait_ns", 0) > 0
    assert [line.client_id for line in at.venue.lines("place")] == ["c1"]


@behaviour("limits: HTTP 418, 429, 403: nothing more is sent", absent=NO_LIMITS)
async def test_http_that_says_stop_stops_everything(at: At) -> None:
    at.venue.fault(
        FaultKind.RATE_LIMIT,
        request="query",
        transport="rest",
        status=STOP[at.column.protocol],
        retry_after_s=60,
    )
    at.send(QueryAccount())
    placed = 0

    def is_stopped() -> bool:
        nonlocal placed
        try:
            at.place(f"c{placed}", steps=20 + placed)
        except ExchangeError as error:
            assert "told us to stop" in str(error) and "nothing was sent" in str(error)
            return True
        placed += 1
        return False

    # Bybit takes nine orders a second, so the answer has to be there by then.
    await eventually(lambda: at.venue.lines("query"), "the question")
    while not is_stopped():
        await at.about(f"c{placed - 1}", OrderAccepted, RequestUnanswered)
    assert not at.host.of(AccountSnapshot)
