"""The host's end of the protocol, message by message: what it takes in, and what it refuses."""

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from desk_tools import ACCOUNT, BTC, Quoter
from hypothesis import given
from hypothesis import strategies as st
from session_tools import Peer

from host.config import InstanceSection, ScheduleSection
from host.core import entries as e
from host.core.entries import InstanceState
from host.wire import JSON, MSGPACK
from host.wire.messages import TimerEvent


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Peer]:
    peer = Peer(tmp_path)
    yield peer
    peer.desk.journal.close()


def test_the_welcome_tells_how_things_are_and_start_follows(peer: Peer) -> None:
    peer.desk.top()
    peer.hello()
    welcome = peer.welcome
    assert (welcome["instance"], welcome["account"], welcome["symbols"]) == ("q", ACCOUNT, [BTC])
    assert [book["bid"] for book in welcome["books"]] == [60_000.0]
    assert welcome["instruments"][0]["tick_size"] == "0.01"
    assert [event["type"] for event in peer.events()] == ["start", "book"]


def test_a_hello_that_nobody_would_hear_the_answer_to_is_left_unanswered(peer: Peer) -> None:
    peer.is_listening = False
    peer.hello()
    assert peer.said == []
    peer.is_listening = True
    peer.hello().hello()
    assert len([message for message in peer.said if message["type"] == "welcome"]) == 1


def test_another_version_of_the_protocol_is_refused(peer: Peer) -> None:
    peer.hello(protocol=2)
    (refused,) = peer.said
    assert (refused["type"], refused["reason"]) == ("refused", "PROTOCOL")
    assert len(peer.ends) == 1


def test_a_quote_becomes_orders_in_the_turn_that_asks_for_it(peer: Peer) -> None:
    peer.hello()
    peer.desk.top()
    quote = {"bid": 59_999.0, "bid_qty": "1", "ask": 60_001.0, "ask_qty": "2"}
    peer.turn({"type": "quote", "symbol": BTC, "quotes": [quote]})
    assert sorted(f"{o.side} {o.qty}" for o in peer.desk.venue.open()) == ["buy 1", "sell 2"]
    assert [order["status"] for order in peer.reports("order")] == ["open", "open"]


def test_what_a_fill_changed_is_told_before_it_and_its_hearing_is_journaled(peer: Peer) -> None:
    peer.hello()
    peer.turn(peer.place(peer.id(0)))
    (order,) = peer.desk.venue.open()
    peer.turn()
    assert peer.desk.engine.state.unheard == {}
    peer.desk.venue.trade(order, "0.4")
    peer.desk.settle()
    event = peer.events()[-1]
    assert [report["type"] for report in event["reports"]] == ["fill", "order"]
    assert event["held"][0]["position"]["qty"] == "0.4"
    heard_of = len(peer.desk.engine.state.unheard["q"])
    peer.turn(handled=peer.seq - 1)
    assert len(peer.desk.engine.state.unheard["q"]) == heard_of
    peer.turn(state={"fills": 1, "qty": "0.4"})
    assert peer.desk.engine.state.unheard == {}
    saved = peer.desk.engine.state.instances["q"].strategy_state
    assert msgspec.msgpack.decode(saved) == {"fills": 1, "qty": "0.4"}


def test_of_a_burst_the_first_event_leaves_at_once_and_the_others_together(peer: Peer) -> None:
    peer.hello()
    peer.desk.top(60_000.0)
    peer.turn()
    said = len(peer.said)
    peer.is_reading = True
    for bid in (60_001.0, 60_002.0, 60_003.0):
        peer.desk.top(bid, bid + 0.1)
    assert [[event["data"]["bid"] for event in message["events"]] for message in peer.said[said:]] == [
        [60_001.0]
    ]
    for work in peer.later:
        work()
    assert [event["data"]["bid"] for event in peer.said[-1]["events"]] == [60_002.0, 60_003.0]
    assert len(peer.said) == said + 2


def test_a_turn_that_came_before_is_dropped(peer: Peer) -> None:
    peer.hello()
    peer.turn(peer.place(peer.id(0)))
    peer.turn(peer.place(peer.id(1)), seq=1)
    assert len(peer.desk.venue.open()) == 1
    assert peer.session.conduct.tally.repeated == 1
    assert peer.refused == 0


def test_after_a_gap_the_turns_that_are_missing_are_asked_for(peer: Peer) -> None:
    peer.hello()
    peer.turn()
    peer.turn(peer.place(peer.id(0)), seq=3)
    assert peer.desk.venue.open() == []
    assert {"type": "ack", "seq": 1, "resend": True} in peer.said
    peer.turn(seq=2)
    peer.turn(peer.place(peer.id(0)), seq=3)
    assert len(peer.desk.venue.open()) == 1


def test_all_that_was_on_its_way_behind_a_gap_is_one_breach(peer: Peer) -> None:
    peer.hello()
    for seq in range(2, 61):
        peer.turn(seq=seq)
    assert (peer.ends, peer.session.conduct.refused) == ([], 1)
    for seq in range(1, 61):
        peer.turn(seq=seq)
    assert (peer.ends, peer.session.conduct.last_turn) == ([], 60)


@pytest.mark.parametrize(
    "last", [{"type": "bye"}, {"type": "failed", "where": "on_book", "error": "KeyError"}]
)
def test_the_last_word_of_one_who_was_given_up_ends_nobody_else(peer: Peer, last: dict[str, str]) -> None:
    peer.hello(run="second")
    peer.say(**last, run="first")
    assert peer.ends == []
    peer.turn(peer.place(peer.id(0)))
    assert len(peer.desk.venue.open()) == 1
    peer.say(**last, run="second")
    assert len(peer.ends) == 1


@pytest.mark.parametrize("handled", [-1, 10**6])
def test_events_that_were_never_sent_cannot_be_handled(peer: Peer, handled: int) -> None:
    peer.hello()
    peer.turn(peer.place(peer.id(0)), handled=handled)
    assert peer.desk.venue.open() == []
    assert peer.refused == 1


def test_an_order_of_another_instance_is_not_its_to_cancel(peer: Peer) -> None:
    peer.hello()
    peer.desk.run("other", Quoter())
    peer.desk.top()
    theirs = peer.desk.orders("other")
    peer.turn(*({"type": "cancel", "client_id": order.client_id} for order in theirs))
    assert len(peer.desk.venue.open()) == len(theirs) == 2
    assert [event["reason"] for event in peer.events("order_refused")] == ["NOT_YOURS"] * 2
    assert peer.refused == 2


@pytest.mark.parametrize(
    "client_id", ["", "x", "tdt1i1n1", "tdt1i1n0", "tdt2i1n2", "tdt1i1nffffffffffffffff", "tdt1i1n-2"]
)
def test_only_ids_that_were_handed_out_are_taken(peer: Peer, client_id: str) -> None:
    peer.desk.engine.roster.ids_of("q", 1).make()  # the host's own: number 1
    peer.hello()
    assert peer.id(0) == "tdt1i1n2"
    peer.turn(peer.place(client_id))
    assert peer.desk.venue.open() == []
    (refusal,) = peer.events("order_refused")
    assert (refusal["reason"], refusal.get("client_id", "")) == ("ORDER_ID", client_id)


def test_an_id_is_taken_once_and_in_order(peer: Peer) -> None:
    peer.hello()
    peer.turn(peer.place(peer.id(4)), peer.place(peer.id(4)), peer.place(peer.id(3)), peer.place(peer.id(5)))
    assert [order.client_id for order in peer.desk.venue.open()] == [peer.id(4), peer.id(5)]
    assert len(peer.events("order_refused")) == 2


def test_of_a_refusal_that_one_did_not_hear_the_next_one_hears_once(peer: Peer) -> None:
    def told() -> list[tuple[str, str]]:
        return [(order["client_id"], order["status"]) for order in peer.reports("order")]

    peer.hello()
    refused = peer.id(0)
    peer.turn(peer.place(refused, qty="0.00001"), handled=0)
    (refusal,) = peer.events("order_refused")
    assert (refusal["client_id"], refusal["reason"]) == (refused, "INVALID_ORDER")
    peer.again().hello(run="second")
    assert told() == [(refused, "rejected")]
    assert "INVALID_ORDER: quantity must be" in peer.reports("order")[0]["reason"]
    peer.session.leave_record()  # as of a version on trial: what it has heard is not in the state that is saved
    peer.turn()
    peer.again().hello(run="third")
    assert told() == [(refused, "rejected")]
    peer.turn(handled=1)
    assert peer.instance.unheard_refusals.keys() == {refused}, "it has handled its start only"
    peer.turn()
    peer.again().hello(run="fourth")
    assert told() == []


def test_more_ids_come_before_they_run_out_and_none_comes_twice(peer: Peer) -> None:
    peer.hello()
    last = peer.welcome["ids"]["last"]
    peer.turn(peer.place(f"{peer.welcome['ids']['stem']}{last - 1:x}"))
    (ack,) = (message for message in peer.said if message["type"] == "ack" and message.get("ids"))
    assert ack["ids"]["first"] > last
    peer.turn(peer.place(f"{ack['ids']['stem']}{ack['ids']['first']:x}"))
    assert len(peer.desk.venue.open()) == 2


def test_what_is_no_number_comes_to_no_order(tmp_path: Path) -> None:
    peer = Peer(tmp_path, strikes=99)
    peer.hello()
    peer.desk.top()
    sent = len(peer.desk.venue.sent)
    for text in ("NaN", "Infinity", "-Infinity", "sNaN", "1E+999", "1E-999", "1" * 99):
        peer.turn(peer.place(peer.id(peer.turns), qty=text))
        peer.turn(peer.place(peer.id(peer.turns), price=text))
        quote = {"bid": 59_999.0, "bid_qty": text, "ask": 60_001.0, "ask_qty": "1"}
        peer.turn({"type": "quote", "symbol": BTC, "quotes": [quote]})
    assert len(peer.desk.venue.sent) == sent
    quote = {"bid": 1e300, "bid_qty": "1", "ask": None, "ask_qty": "1"}
    peer.turn({"type": "quote", "symbol": BTC, "quotes": [quote]})
    assert len(peer.desk.venue.sent) == sent
    assert peer.refused == 22
    assert peer.desk.engine.halted == ""
    peer.desk.journal.close()


def test_what_comes_in_the_other_encoding_is_somebody_else_s(peer: Peer) -> None:
    peer.hello()
    for seq in range(1, 31):
        said = {"type": "turn", "seq": seq, "handled": 1, "requests": [peer.place(peer.id(0))]}
        peer.session.on_message(msgspec.msgpack.encode(said))
    peer.session.on_message(msgspec.msgpack.encode({"type": "bye"}))
    assert (peer.ends, peer.desk.venue.open(), peer.session.conduct.tally.repeated) == ([], [], 31)
    peer.turn(peer.place(peer.id(0)))
    assert len(peer.desk.venue.open()) == 1


@pytest.mark.parametrize("number", [10**25, -(10**25), -1])
def test_a_number_that_could_not_be_kept_or_shown_is_refused(peer: Peer, number: int) -> None:
    peer.hello(state_version=number)
    assert (peer.said, peer.refused) == ([], 1)
    peer.hello()
    for name in ("slowest_us", "busy_ns"):
        peer.turn(peer.place(peer.id(0)), **{name: number})
    assert peer.desk.venue.open() == []
    assert (peer.refused, peer.session.slowest_us, peer.session.busy_ns) == (3, 0, 0)
    peer.turn(peer.place(peer.id(0)), seq=1, state={"n": 1})
    assert len(peer.desk.venue.open()) == 1


GARBAGE = st.one_of(
    st.binary(max_size=200),
    st.text(max_size=100).map(str.encode),
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
        max_leaves=8,
    ).map(lambda value: json.dumps(value).encode()),
    st.fixed_dictionaries(
        {"type": st.sampled_from(["turn", "hello", "bye", "order", "quote", "events", "nothing"])},
        optional={
            "seq": st.integers() | st.text(max_size=3),
            "handled": st.integers() | st.none(),
            "protocol": st.integers(),
            "requests": st.lists(st.integers(), max_size=2),
            "state": st.integers(),
        },
    ).map(lambda value: json.dumps(value).encode()),
)


@given(bodies=st.lists(GARBAGE, max_size=30), is_welcome=st.booleans())
def test_garbage_changes_nothing_and_is_cut_off_when_it_persists(
    tmp_path_factory: pytest.TempPathFactory, bodies: list[bytes], is_welcome: bool
) -> None:
    peer = Peer(tmp_path_factory.mktemp("peer"))
    if is_welcome:
        peer.hello()
    lsn = peer.desk.engine.state.lsn
    for body in bodies:
        peer.session.on_message(body)
    state = peer.desk.engine.state
    assert state.orders == {}
    entries = [type(record) for record in peer.desk.entries[lsn:]]
    assert set(entries) <= {e.StrategyStateSaved}
    assert len(peer.ends) <= 1
    assert not peer.desk.engine.halted
    peer.desk.journal.close()


def test_one_that_breaks_the_rules_again_and_again_is_cut_off(peer: Peer) -> None:
    peer.hello()
    for _ in range(19):
        peer.session.on_message(b"garbage")
    assert peer.ends == []
    peer.session.on_message(b"garbage")
    (end,) = peer.ends
    assert "20 of its messages within 10 s broke the protocol" in end
    assert (peer.said[-1]["reason"], peer.said[-1]["run"]) == ("CUT_OFF", "r"), "it is nobody else's fault"
    peer.turn(peer.place(peer.id(0)))
    assert peer.desk.venue.open() == []


@pytest.mark.parametrize(
    "last",
    [
        {"type": "failed", "where": "on_book", "error": "x" * 1_000_000},
        {"type": "bye", "reason": "x" * 1_000_000},
    ],
)
def test_of_a_long_reason_the_beginning_is_told(peer: Peer, last: dict[str, str]) -> None:
    peer.hello()
    peer.say(**last)
    (end,) = peer.ends
    assert 1_900 < len(end) < 2_100
    assert end.endswith("x…")


def test_of_a_message_that_breaks_the_rules_little_is_repeated(peer: Peer) -> None:
    peer.hello()
    peer.say(type="x" * 1_000_000)
    (end,) = peer.ends
    assert "a message of 1000" in end
    assert len(end) < 3_000


def test_an_order_that_comes_first_after_a_window_has_closed_is_refused(peer: Peer) -> None:
    desk = peer.desk
    until = ScheduleSection(windows=("fri 10:00-11:00",))  # UTC; the desk's time is 10:46:40
    section = InstanceSection(name="q", plugin="test", account=ACCOUNT, symbols=(BTC,), schedule=until)
    desk.engine.scheduler.take_on(section)
    peer.hello()
    peer.turn(peer.place(peer.id(0)))
    desk.clock.set(desk.clock.now_ns() + 800 * 1_000_000_000)  # at once, as for a process that was frozen
    peer.turn(peer.place(peer.id(1)))
    assert [order.client_id for order in desk.venue.orders.values()] == [peer.id(0)]
    assert peer.instance.state is InstanceState.PAUSED
    (refusal,) = peer.events("order_refused")
    assert refusal["client_id"] == peer.id(1)


def test_a_flood_is_cut_off(tmp_path: Path) -> None:
    peer = Peer(tmp_path, messages_at_once=10)
    peer.hello()
    for _ in range(1_000):
        peer.say(type="turn", seq=0, handled=0)
    assert peer.ends == ["cut off: it sent more than 10 messages within 0.1 s"]
    peer.desk.journal.close()


@pytest.mark.parametrize("state", [{"n": "x" * (1 << 21)}, {"n": 10**30}])
def test_a_state_that_cannot_be_kept_ends_the_session_as_it_would_an_inline_strategy(
    peer: Peer, state: dict[str, Any]
) -> None:
    peer.hello()
    peer.turn(peer.place(peer.id(0)), state={"n": 1})
    peer.turn()
    (order,) = peer.desk.venue.open()
    peer.desk.venue.trade(order, "0.4")
    peer.desk.settle()
    peer.turn(peer.place(peer.id(1)), state=state)
    (end,) = peer.ends
    assert "failed: its state cannot be kept: " in end
    assert peer.said[-1]["reason"] == "STATE"
    assert peer.refused == 1
    peer.turn()
    engine = peer.desk.engine
    assert msgspec.msgpack.decode(engine.state.instances["q"].strategy_state) == {"n": 1}
    assert len(engine.state.unheard["q"]) > 0, "who goes on from that state hears of the fill"
    assert [order.client_id for order in peer.desk.venue.open()] == [peer.id(0)], (
        "nothing of such a turn is done"
    )
    assert engine.depth == 0


def test_what_it_heard_without_another_state_leaves_the_version_of_the_one_that_is_saved(peer: Peer) -> None:
    peer.hello(state_version=1)
    peer.turn(state={"n": 1})
    again = peer.again().hello(run="later", state_version=2)
    again.turn(again.place(again.id(0)))
    again.turn()
    record = peer.desk.engine.state.instances["q"]
    assert (record.state_version, msgspec.msgpack.decode(record.strategy_state)) == (1, {"n": 1})
    again.turn(state={"m": 2})
    assert peer.desk.engine.state.instances["q"].state_version == 2


def test_a_saved_state_that_its_encoding_cannot_tell_is_refused_plainly(peer: Peer) -> None:
    record = peer.desk.engine.state.instances["q"]
    record.strategy_state = msgspec.msgpack.encode({None: 1})
    peer.hello()
    (refused,) = peer.said
    assert (refused["type"], refused["reason"]) == ("refused", "STATE")
    assert len(peer.ends) == 1


def test_a_book_that_is_lost_once_more_is_taken_back_once_more(peer: Peer) -> None:
    peer.hello()
    for _ in range(2):
        peer.desk.top()
        peer.desk.connection("market", is_up=False)
        peer.turn()
        peer.session.beat(0)
        peer.desk.connection("market", is_up=True)
        peer.desk.settle()
    assert len(peer.events("book_lost")) == 2


def test_what_it_raised_ends_the_session(peer: Peer) -> None:
    peer.hello()
    peer.say(type="failed", where="on_book", error="ValueError: no")
    assert peer.ends == ["failed: on_book raised ValueError: no"]


def test_a_book_that_cannot_be_trusted_is_taken_back(peer: Peer) -> None:
    peer.hello()
    peer.desk.top()
    peer.turn()
    peer.desk.connection("market", is_up=False)
    peer.session.beat(0)
    assert peer.events("book_lost") == [{"type": "book_lost", "symbol": BTC}]


def test_one_that_never_has_handled_everything_hears_what_changed_too(peer: Peer) -> None:
    peer.hello()
    peer.desk.top()
    peer.turn()
    peer.desk.connection("market", is_up=False)
    peer.session.put(TimerEvent("another"))
    peer.session.beat(0)
    assert [event["type"] for event in peer.events()[-2:]] == ["timer", "book_lost"]
    assert peer.events("heartbeat") == [], "it has something to handle without one"


def test_a_later_peer_is_given_the_state_in_its_own_encoding(peer: Peer) -> None:
    peer.hello()
    peer.turn(state={"traded": "1.50"})
    saved = peer.desk.engine.state.instances["q"].strategy_state
    assert json.loads(bytes(JSON.from_saved(saved))) == {"traded": "1.50"}
    assert MSGPACK.to_saved(MSGPACK.from_saved(saved)) == saved
    assert Decimal(msgspec.msgpack.decode(saved)["traded"]) == Decimal("1.5")


def test_what_was_left_out_stays_counted_when_the_peer_is_gone(tmp_path: Path) -> None:
    peer = Peer(tmp_path, window=1, most_waiting=1).hello()
    for step in range(9):
        peer.desk.top(60_000.0 + step, 60_001.0 + step)
    peer.turn()
    peer.turn()
    before = peer.session.status("running")
    assert before.conflated > 5
    peer.session.end()
    after = peer.session.status("waiting")
    assert (after.conflated, after.behind, after.lag_ns) == (before.conflated, 0, 0)
    peer.desk.journal.close()
