"""Faults on command: who is struck, how often, and the same again under the same seed."""

import pytest

from venue.protocols.faults import Fault, FaultError, FaultKind, FaultPlan, parse_fault


def strikes(plan: FaultPlan, times: int, **address: str) -> list[bool]:
    fields = {
        "protocol": "binance",
        "account": "demo",
        "kind": "place",
        "symbol": "BTCUSDT",
        "transport": "rest",
        **address,
    }
    return [bool(plan.on_request(**fields)) for _ in range(times)]


@pytest.mark.parametrize(
    ("fault", "other"),
    [
        (Fault(kind=FaultKind.DROP, protocol="binance"), {"protocol": "okx"}),
        (Fault(kind=FaultKind.DROP, account="demo"), {"account": "other"}),
        (Fault(kind=FaultKind.DROP, request="place"), {"kind": "cancel"}),
        (Fault(kind=FaultKind.DROP, symbol="BTCUSDT"), {"symbol": "ETHUSDT"}),
        (Fault(kind=FaultKind.DROP, transport="rest"), {"transport": "ws"}),
    ],
)
def test_fault_strikes_whom_it_is_addressed_to_and_nobody_else(fault: Fault, other: dict[str, str]) -> None:
    plan = FaultPlan()
    plan.add(fault)

    assert strikes(plan, 1) == [True]
    assert strikes(plan, 1, **other) == [False]


def test_fault_passes_the_first_matches_by_and_strikes_so_often() -> None:
    plan = FaultPlan()
    number = plan.add(Fault(kind=FaultKind.DROP, skip=2, count=3))

    assert strikes(plan, 7) == [False, False, True, True, True, False, False]
    assert plan.listed()[number]["matched"] == 7 and plan.listed()[number]["struck"] == 3


def test_draws_repeat_under_the_same_seed() -> None:
    def drawn(seed: int) -> list[bool]:
        plan = FaultPlan(seed)
        plan.add(Fault(kind=FaultKind.DROP, probability=0.4))
        return strikes(plan, 200)

    assert drawn(1) == drawn(1) != drawn(2)
    assert 40 < sum(drawn(1)) < 120


def test_events_are_struck_by_name_only() -> None:
    plan = FaultPlan()
    plan.add(Fault(kind=FaultKind.DROP))
    assert plan.on_event("binance", "demo", "private", "BTCUSDT") == ()

    plan.add(Fault(kind=FaultKind.DROP, request="private"))
    assert len(plan.on_event("binance", "demo", "private", "BTCUSDT")) == 1
    assert plan.on_event("binance", "demo", "depth", "BTCUSDT") == ()

    plan.add(Fault(kind=FaultKind.SEQUENCE_GAP))
    assert len(plan.on_event("binance", "", "depth", "BTCUSDT")) == 1


def test_half_answers_strike_batches_only() -> None:
    plan = FaultPlan()
    plan.add(Fault(kind=FaultKind.HALF_BATCH))

    assert strikes(plan, 1, kind="place") == [False] and strikes(plan, 1, kind="batch") == [True]


def test_standing_faults_hold_until_they_are_taken_back() -> None:
    plan = FaultPlan()
    skew = plan.add(Fault(kind=FaultKind.CLOCK_SKEW, protocol="binance", skew_ms=-250))
    plan.add(Fault(kind=FaultKind.STALE_BOOK, symbol="BTCUSDT"))

    assert plan.skew_ns("binance") == -250_000_000 and plan.skew_ns("okx") == 0
    assert plan.is_stale("okx", "BTCUSDT") and not plan.is_stale("okx", "ETHUSDT")
    assert strikes(plan, 1) == [False]
    assert plan.remove(skew) and not plan.remove(skew)
    plan.clear()
    assert plan.skew_ns("binance") == 0 and not plan.is_stale("okx", "BTCUSDT")


def test_delay_is_the_base_and_a_draw_up_to_the_jitter() -> None:
    plan = FaultPlan(5)
    fault = Fault(kind=FaultKind.LATENCY, delay_ms=10, jitter_ms=5)
    delays = [plan.delay_s(fault) for _ in range(100)]

    assert all(0.010 <= delay < 0.015 for delay in delays) and len(set(delays)) > 90
    assert plan.delay_s(Fault(kind=FaultKind.LATENCY, delay_ms=10)) == 0.010


def test_fault_is_read_from_a_command_line_and_from_a_mapping() -> None:
    expected = Fault(kind=FaultKind.LATENCY, request="place", delay_ms=2.5, count=3, is_executed=False)
    text = "latency,request=place,delay_ms=2.5,count=3,is_executed=false"

    assert parse_fault(text) == expected
    assert (
        parse_fault(
            {"kind": "latency", "request": "place", "delay_ms": 2.5, "count": 3, "is_executed": False}
        )
        == expected
    )


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("lateness", "kinds are latency"),
        ("latency,delay_ms", "KIND,FIELD=VALUE"),
        ("latency,delay=5", "delay"),
        ("latency,delay_ms=soon", "delay_ms"),
        ("drop,probability=1.5", "probability must be 0 to 1, was 1.5"),
        ("drop,count=-1", "must not be negative"),
    ],
)
def test_fault_that_cannot_be_is_refused_with_what_is_wrong(source: str, text: str) -> None:
    with pytest.raises(FaultError, match=text):
        parse_fault(source)


def test_fault_of_a_mere_word_is_refused_instead_of_never_striking() -> None:
    with pytest.raises(FaultError, match=r"FaultKind\('drop'\)"):
        Fault(kind="drop")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "request_kind", "text"),
    [
        (FaultKind.DROP, "plase", "request must be one of place"),
        (FaultKind.RATE_LIMIT, "private", "it is about requests"),
        (FaultKind.SEQUENCE_GAP, "place", "changes of a book"),
        (FaultKind.HALF_BATCH, "place", "it is about batches"),
        (FaultKind.STALE_BOOK, "depth", "leave `request` empty"),
    ],
)
def test_fault_that_could_never_strike_is_refused(kind: FaultKind, request_kind: str, text: str) -> None:
    with pytest.raises(FaultError, match=text):
        Fault(kind=kind, request=request_kind)
