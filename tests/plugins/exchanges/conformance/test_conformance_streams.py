"""Private events that are lost, told twice or out of order, and connections that break or grow old."""

from decimal import Decimal

from conformance_book import Followed
from conformance_desk import At, behaviour
from conformance_reasons import NO_LINE
from exchange_tools import eventually

from host.api import (
    Depth,
    FillsSnapshot,
    OrderAccepted,
    OrderCancelled,
    OrderFilled,
    OrderRejected,
    OrderStatus,
    QueryFills,
    Side,
)
from host.core.books import DepthResult
from venue.protocols.faults import FaultKind

NO_RENEWAL = {"the venue's own server never cuts a line for its age": ("paper here", "paper away")}
CHANNELS = {"market", "private", "orders"}
S = 1_000_000_000


async def all_up(at: At) -> None:
    """Wait until every channel is up, as last told."""
    await eventually(lambda: at.channels() == dict.fromkeys(CHANNELS, True), "all channels up")


def traded(at: At) -> dict[str, Decimal]:
    """Return what trades were told, each once: as the host books them."""
    return {fill.trade_id: fill.qty for fill in at.host.of(OrderFilled)}


@behaviour("private events: told twice, no harm")
async def test_events_that_come_twice_say_nothing_that_is_not_so(at: At) -> None:
    at.site.disturb_events(doubled=True)
    place = at.place("c1", steps=-0.5)
    await at.about("c1", OrderAccepted)
    assert place.price is not None
    at.take(place.price, at.qty / 2)
    await at.about("c1", OrderFilled)
    at.cancel("c1")
    await at.about("c1", OrderCancelled)
    at.site.behave()
    at.place("c2")  # once this is heard of, what was told twice about c1 is through
    await at.about("c2", OrderAccepted)
    assert list(traded(at).values()) == [at.qty / 2]
    assert {type(report) for report in at.told("c1", object)} == {OrderAccepted, OrderFilled, OrderCancelled}
    assert {cancelled.filled for cancelled in at.told("c1", OrderCancelled)} <= {at.qty / 2, None}


@behaviour("private events: out of order, no harm")
async def test_events_that_overtake_each_other_say_nothing_that_is_not_so(at: At) -> None:
    at.site.disturb_events(overtaking=True)
    for number in range(6):
        client_id = f"c{number}"
        place = await at.rest(client_id, steps=-0.5, side=Side.SELL)
        assert place.price is not None
        at.take(place.price, at.qty / 2, Side.BUY)
        at.cancel(client_id)
        await at.about(client_id, OrderCancelled)
    at.site.behave()
    listed = (await at.ask(QueryFills(at.host.now_ns() - 60 * S), FillsSnapshot)).fills
    assert len(listed) == len(at.site.fills) == 6
    for number in range(6):
        found = await at.found(f"c{number}")
        assert (found.status, found.filled) == (OrderStatus.CANCELLED, at.qty / 2)
        assert not at.told(f"c{number}", OrderRejected)
    assert traded(at).items() <= {fill.trade_id: fill.qty for fill in listed}.items()


@behaviour(
    "private events: a lost one is found by asking",
    absent={"reports are lost with their line alone": ("paper here", "paper away")},
)
async def test_a_fill_whose_event_was_lost_is_found_by_asking(at: At) -> None:
    place = at.place("c1", steps=-0.5)
    await at.about("c1", OrderAccepted)
    at.venue.fault(FaultKind.DROP, request="private")
    assert place.price is not None
    at.take(place.price, at.qty)
    at.site.behave()
    assert not at.told("c1", OrderFilled)
    assert (await at.found("c1")).status is OrderStatus.FILLED
    listed = await at.ask(QueryFills(at.host.now_ns() - 60 * S), FillsSnapshot)
    assert [(fill.client_id, fill.qty) for fill in listed.fills] == [("c1", at.qty)]


@behaviour("private line lost: told, and repaired by asking", absent=NO_LINE)
async def test_what_happens_while_the_private_line_is_lost_is_found_by_asking(at: At) -> None:
    place = await at.rest("c1", steps=-0.5)
    await at.rest("c2")
    await at.about("c2", OrderAccepted)
    at.site.cut(at.column.private_path)
    assert place.price is not None
    at.take(place.price, at.qty)
    await eventually(lambda: "private" in at.went_down(), "the loss is told")
    await all_up(at)
    listed = await at.ask(QueryFills(at.host.now_ns() - 60 * S), FillsSnapshot)
    assert [fill.client_id for fill in listed.fills] == ["c1"]
    assert (await at.found("c1")).status is OrderStatus.FILLED
    assert (await at.found("c2")).status is OrderStatus.OPEN
    at.cancel("c2")
    await at.about("c2", OrderCancelled)


@behaviour("all lines lost: told, back, and the book right", absent=NO_LINE)
async def test_lost_lines_are_told_and_come_back_with_everything(at: At) -> None:
    await at.rest("c1")
    at.site.cut()
    await eventually(lambda: at.went_down() == CHANNELS, "the loss of all is told")
    at.move()
    await all_up(at)
    followed = Followed(at)
    at.adapter.resync(at.symbol)
    await eventually(lambda: followed.is_right, "the book")
    at.cancel("c1")
    await at.about("c1", OrderCancelled)
    await at.rest("c2")
    await at.about("c2", OrderAccepted)


@behaviour(
    "silent lines: given up, back, and orders go",
    absent=NO_LINE,
    ping_after_s=0.1,
    lost_after_s=0.5,
    silence_s=0.5,
)
async def test_lines_that_say_nothing_any_more_are_given_up_and_come_back(at: At) -> None:
    at.site.mute()
    await eventually(lambda: at.went_down() == CHANNELS, "the silence is told")
    await all_up(at)
    await at.rest("c1")
    await at.about("c1", OrderAccepted)


@behaviour("lines grow old: renewed before the cut, unnoticed", absent=NO_RENEWAL, renew_after_h=0.4 / 3600)
async def test_lines_are_renewed_before_they_are_cut_and_nobody_notices(at: At) -> None:
    first = at.venue.connections
    newest = first[-1].number
    await at.rest("c1")
    followed = Followed(at)
    while not {connection.path for connection in first} <= {
        connection.path for connection in at.venue.connections if connection.number > newest
    }:
        seen = len(at.host.of(Depth))
        at.move()
        await at.host.heard(Depth, seen + 1)
    assert not any(connection.is_closed for connection in first)  # the new ones came before these went
    at.cancel("c1")
    await at.about("c1", OrderCancelled)
    at.place("c2")
    await at.about("c2", OrderAccepted)
    await eventually(lambda: followed.is_right, "the book")
    assert not at.went_down() and DepthResult.GAP not in followed.results
