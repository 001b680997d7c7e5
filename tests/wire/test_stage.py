"""The strategy's end of the protocol, without sockets: what it says to what it hears."""

from itertools import pairwise
from typing import Any

import msgspec
import pytest

from host.api import BookTop, NoParams, State, Strategy
from host.wire import JSON, MSGPACK, Codec
from host.wire.messages import NO_STATE, Ack, Book, Bye, Events, IdRange, Save, Start, Turn, Welcome
from host.wire.stage import KEPT_TURNS, SAY_HANDLED_EVERY, SAY_HANDLED_NS, Stage, StageRefused

BTC = "BTC-USDT"


class Quoting(Strategy[NoParams]):
    """Pulls its quotes with each book, so that it has something to say."""

    def on_book(self, book: BookTop) -> None:
        self.ctx.quote(book.symbol, ())


def welcome(run: str) -> Welcome:
    return Welcome(
        protocol=1, instance="q", account="acc", symbols=(BTC,), now_ns=1, params={}, state_version=1,
        instruments=(), held=(), orders=(), books=(), ids=IdRange("td", 1, 9), next_turn=7, run=run,
    )  # fmt: skip


class Played:
    """A stage, and the host's end of it played by the test."""

    def __init__(self, cls: type[Strategy[NoParams]] = Quoting, **options: Any) -> None:
        self.said: list[Any] = []
        self.stage = Stage(
            cls,
            lambda _: cls(NoParams()),
            JSON,
            lambda body: self.said.append(JSON.decode_from_strategy(body)),
            run="r",
            **options,
        )
        self.seq = 0
        self.tell(welcome("r"))
        self.happens(Start())

    def tell(self, message: Any) -> None:
        self.stage.receive(JSON.encode(message))

    def happens(self, event: Any) -> None:
        self.seq += 1
        self.tell(Events(self.seq, (event,)))

    def books(self, count: int) -> None:
        for number in range(count):
            self.happens(Book(BookTop(BTC, 1.0, 1.0, 2.0, 1.0, 1, 1, number)))

    @property
    def turns(self) -> list[int]:
        return [turn.seq for turn in self.said if isinstance(turn, Turn)]


def test_turns_that_are_asked_for_again_are_sent_again_as_they_were() -> None:
    played = Played()
    played.books(5)
    before = list(played.said)
    played.tell(Ack(8, resend=True))
    assert played.turns == [7, 8, 9, 10, 11, 9, 10, 11]
    assert played.said[5:] == before[2:]


def test_one_that_has_nothing_to_send_again_has_nothing_to_say() -> None:
    played = Played()
    played.books(2)
    played.tell(Ack(8))
    played.tell(Ack(8, resend=True))
    assert played.turns == [7, 8]


def test_a_turn_that_is_not_kept_any_more_is_a_reason_to_begin_anew() -> None:
    played = Played()
    played.books(KEPT_TURNS + 3)
    said = len(played.said)
    with pytest.raises(StageRefused, match="turn 7 is to be sent again and is not kept any more"):
        played.tell(Ack(6, resend=True))
    assert len(played.said) == said


def test_an_event_of_a_later_host_is_counted_as_handled() -> None:
    played = Played()
    body = b'{"type":"events","seq":2,"events":[{"type":"eclipse","moon":1}]}'
    played.stage.receive(body)
    played.stage.idle()
    assert played.said[-1].handled == 2
    played.seq = 2
    played.books(1)
    assert played.said[-1].handled == 3
    played.stage.leave("enough")
    assert isinstance(played.said[-1], Bye)


@pytest.mark.parametrize("codec", [JSON, MSGPACK])
def test_a_welcome_to_somebody_else_in_any_encoding_says_that_its_place_is_theirs(codec: Codec) -> None:
    played = Played()
    with pytest.raises(StageRefused, match="TAKEN"):
        played.stage.receive(codec.encode(welcome("another")))


class Counted(State):
    """What `Counting` remembers."""

    books: int = 0


class Counting(Quoting):
    """Counts its books."""

    state: Counted

    def on_book(self, book: BookTop) -> None:
        self.state.books += 1


def test_a_state_that_is_asked_for_comes_with_the_turn_that_says_so() -> None:
    played = Played(Counting)
    played.stage.idle()
    played.books(3)
    played.stage.idle()
    asleep = played.said[-1]
    assert (asleep.handled, asleep.state) == (4, NO_STATE), "it sends it once a second"
    played.happens(Save())
    turn = played.said[-1]
    assert (turn.handled, msgspec.json.decode(turn.state)) == (5, {"books": 3})
    played.happens(Save())
    turn = played.said[-1]
    assert (turn.handled, turn.state) == (6, NO_STATE)


class Clock:
    """A clock that a test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_ns = 1
        monkeypatch.setattr("host.wire.stage.time.perf_counter_ns", lambda: self.now_ns)


def tops(count: int) -> tuple[Book, ...]:
    return tuple(Book(BookTop(BTC, 1.0, 1.0, 2.0, 1.0, 1, 1, number)) for number in range(count))


@pytest.mark.parametrize(("each_ns", "between"), [(SAY_HANDLED_NS * 5, 1), (SAY_HANDLED_NS // 4, 5), (0, 32)])
def test_the_host_hears_of_progress_as_often_however_long_each_event_takes(
    monkeypatch: pytest.MonkeyPatch, each_ns: int, between: int
) -> None:
    clock = Clock(monkeypatch)

    class Thinking(Quoting):
        def on_book(self, book: BookTop) -> None:
            clock.now_ns += each_ns

    played = Played(Thinking)
    played.stage.idle()
    played.tell(Events(1 + 2 * SAY_HANDLED_EVERY, tops(2 * SAY_HANDLED_EVERY)))
    played.stage.idle()
    told = [turn.handled for turn in played.said]
    assert (told[0], told[-1]) == (1, 1 + 2 * SAY_HANDLED_EVERY)
    assert max(after - before for before, after in pairwise(told)) == between


def test_what_one_that_is_not_ready_has_not_taken_is_not_handled(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, taken = Clock(monkeypatch), list[int]()

    class Taking(Quoting):
        def on_book(self, book: BookTop) -> None:
            taken.append(book.seq)

    ready = [True]
    played = Played(Taking, is_ready=lambda: ready[0] and len(taken) % 2 == 0)
    played.tell(Events(11, tops(10)))
    assert (taken, played.stage.has_more) == ([0], True)
    played.tell(Events(12, tops(1)))
    assert taken == [0], "it is behind those that wait"
    clock.now_ns += 2 * SAY_HANDLED_NS
    played.stage.go_on()
    assert (taken, played.said[-1].handled) == ([0], 2), "start and the one that it has taken"
    played.stage.leave("enough")
    assert [said.handled for said in played.said if isinstance(said, Turn)][-1] == 2
    assert not played.stage.has_more


def test_a_timer_is_called_among_slow_events(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, told = Clock(monkeypatch), list[int]()
    monkeypatch.setattr("host.wire.stage.boot_ns", lambda: clock.now_ns)

    class Timed(Quoting):
        def on_start(self) -> None:
            self.ctx.set_timer("second", 1.0)

        def on_timer(self, name: str) -> None:
            told.append(clock.now_ns)

        def on_book(self, book: BookTop) -> None:
            clock.now_ns += 50_000_000

    played = Played(Timed)
    played.tell(Events(101, tops(100)))
    assert [round(ns / 1e9) for ns in told] == [1, 2, 3, 4, 5]
    played.stage.on_time()
    assert len(told) == 5
