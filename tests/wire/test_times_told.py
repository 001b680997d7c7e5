"""A strategy's end of the protocol says how long its callbacks took: a new version is judged by that."""

from itertools import count

import pytest

from host.api import BookTop, NoParams, Strategy
from host.wire import JSON
from host.wire.messages import Book, Event, Events, Heartbeat, IdRange, Start, Turn, Welcome
from host.wire.stage import Stage

TOP = BookTop("BTC-USDT", 60_000.0, 1.0, 60_001.0, 1.0, 1, 1, 1)


class Quiet(Strategy[NoParams]):
    """Wants nothing."""


def test_turn_says_how_long_its_events_took_each_once(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = count(step=1_000)
    monkeypatch.setattr("host.wire.stage.time.perf_counter_ns", lambda: next(readings))
    told: list[bytes] = []
    stage = Stage(Quiet, lambda _params: Quiet(NoParams()), JSON, told.append, run="1")
    welcome = Welcome(
        protocol=1, instance="q", account="a", symbols=("BTC-USDT",), now_ns=1, params={}, state_version=1,
        instruments=(), held=(), orders=(), books=(), ids=IdRange("x", 1, 9),
    )  # fmt: skip
    stage.receive(JSON.encode(welcome))

    def turn(first: int, *events: Event) -> Turn:
        stage.receive(JSON.encode(Events(first + len(events) - 1, events)))
        stage.idle()
        message = JSON.decode_from_strategy(told[-1])
        assert isinstance(message, Turn)
        return message

    assert turn(1, Start()).busy_ns == 1_000
    two = turn(2, Book(TOP), Book(TOP), Heartbeat(1))
    assert (two.handled, two.busy_ns, two.slowest_us) == (4, 2_000, 1)
    assert turn(5, Book(TOP)).busy_ns == 1_000
