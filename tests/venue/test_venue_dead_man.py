"""The venue's dead man's switches: what they cancel, when, and what they leave alone."""

from hypothesis import given
from hypothesis import strategies as st
from venue_tools import Venue, place

from host.api import OpenOrdersSnapshot, OrderCancelled, QueryOpenOrders, Side
from venue.delivery import Latency
from venue.wire import Arm, Armed, FrameReader, encode

AFTER_NS = 1_000_000


def arm(venue: Venue, tag: str, after_ns: int = AFTER_NS, account: str = "a") -> None:
    armed: list[bool] = []
    venue.exchange.arm_dead_man(account, tag, after_ns, venue.now_ns, lambda: armed.append(True))
    pass_to(venue, venue.now_ns)
    assert armed == [True]


def pass_to(venue: Venue, now_ns: int) -> None:
    """Let time pass, and no further."""
    venue.now_ns = now_ns
    for account, output in venue.exchange.step(now_ns):
        if account is not None:
            venue.reports[account].append(output)  # type: ignore[arg-type]


def quote(venue: Venue, client_id: str, account: str = "a") -> None:
    command = place(client_id, Side.BUY, "100", "1")
    venue.exchange.submit(account, command, venue.now_ns, venue.now_ns)
    pass_to(venue, venue.now_ns)


def open_ids(venue: Venue, account: str = "a") -> list[str]:
    venue.exchange.submit(account, QueryOpenOrders(), venue.now_ns, venue.now_ns)
    pass_to(venue, venue.now_ns)
    answer = venue.reports[account][-1]
    assert isinstance(answer, OpenOrdersSnapshot)
    return [order.client_id for order in answer.orders]


def test_what_it_covers_is_cancelled_when_it_runs_out_and_nothing_else() -> None:
    venue = Venue()
    for client_id, account in (("tdt5i1n1", "a"), ("tdt5i2n1", "a"), ("tdt51i1n1", "a"), ("tdt5i1n1", "b")):
        quote(venue, client_id, account)
    arm(venue, "tdt5i")
    before = len(venue.reports["a"])

    pass_to(venue, venue.now_ns + AFTER_NS - 1)
    assert len(venue.reports["a"]) == before
    pass_to(venue, venue.now_ns + 1)

    told = venue.reports["a"][before:]
    assert [(type(report), getattr(report, "reason", "")) for report in told] == [
        (OrderCancelled, "dead man's switch")
    ] * 2
    assert open_ids(venue) == ["tdt51i1n1"]
    assert open_ids(venue, "b") == ["tdt5i1n1"]


def test_without_a_tag_it_covers_the_account() -> None:
    venue = Venue()
    quote(venue, "x")
    quote(venue, "y")
    arm(venue, "")
    pass_to(venue, venue.now_ns + AFTER_NS)
    assert open_ids(venue) == []


def test_disarmed_it_cancels_nothing() -> None:
    venue = Venue()
    quote(venue, "x")
    arm(venue, "")
    arm(venue, "", 0)
    pass_to(venue, venue.now_ns + 10 * AFTER_NS)
    assert open_ids(venue) == ["x"]


def test_it_cancels_once_and_covers_later_orders_only_when_armed_again() -> None:
    venue = Venue()
    arm(venue, "")
    pass_to(venue, venue.now_ns + AFTER_NS)
    quote(venue, "x")
    pass_to(venue, venue.now_ns + 10 * AFTER_NS)
    assert open_ids(venue) == ["x"]


def test_it_does_not_need_its_client() -> None:
    venue = Venue()
    quote(venue, "x")
    arm(venue, "")
    venue.exchange.disconnect("a")
    pass_to(venue, venue.now_ns + AFTER_NS)
    venue.exchange.connect("a")
    assert open_ids(venue) == []


def test_it_travels_as_commands_do() -> None:
    venue = Venue(latency=Latency(base_ns=500))
    armed: list[bool] = []
    venue.exchange.arm_dead_man("a", "", AFTER_NS, venue.now_ns, lambda: armed.append(True))
    pass_to(venue, venue.now_ns + 499)
    assert armed == []
    pass_to(venue, venue.now_ns + 1)
    assert armed == [True]


@given(st.lists(st.integers(1, 2 * AFTER_NS), min_size=1, max_size=8))
def test_it_runs_out_exactly_when_it_was_not_armed_again_in_time(gaps_ns: list[int]) -> None:
    venue = Venue()
    quote(venue, "x")
    arm(venue, "")
    survives = True
    for gap_ns in gaps_ns:
        pass_to(venue, venue.now_ns + gap_ns)
        survives = survives and gap_ns < AFTER_NS
        assert (open_ids(venue) == ["x"]) == survives
        arm(venue, "")


def test_its_messages_are_read_as_they_were_written() -> None:
    assert list(FrameReader.for_server().feed(encode(Arm(10_000, "tdt5i")))) == [Arm(10_000, "tdt5i")]
    assert list(FrameReader.for_client().feed(encode(Armed(0, "x")))) == [Armed(0, "x")]
