"""What a peer may send: its share of the host's time, and how soon it is cut off."""

from hypothesis import given
from hypothesis import strategies as st

from host.isolation.conduct import ALLOWED_NS, MOST_LONG_BYTES, SHARE, Conduct
from host.isolation.settings import SECOND_NS, WorkerSettings

MS = SECOND_NS // 1000


def test_a_burst_within_the_allowance_has_no_pause() -> None:
    conduct = Conduct(WorkerSettings())
    now_ns = SECOND_NS
    for _ in range(10):
        now_ns += ALLOWED_NS // 10
        assert conduct.spend(ALLOWED_NS // 10, now_ns) == 0
    now_ns += ALLOWED_NS
    assert conduct.spend(ALLOWED_NS, now_ns) > 0


@given(takes=st.lists(st.integers(1_000, 20 * MS), min_size=1, max_size=300))
def test_who_sends_without_end_has_a_fifth_of_the_time(takes: list[int]) -> None:
    conduct = Conduct(WorkerSettings())
    began_ns = now_ns = SECOND_NS
    for taken_ns in takes:
        now_ns += taken_ns
        now_ns += conduct.spend(taken_ns, now_ns)
    assert sum(takes) <= ALLOWED_NS + (now_ns - began_ns) / SHARE + max(takes)


def test_who_never_lets_its_share_recover_is_cut_off() -> None:
    conduct = Conduct(WorkerSettings(busy_ns=2 * SECOND_NS))
    now_ns = SECOND_NS
    while not conduct.fault:
        now_ns += 5 * MS
        now_ns += conduct.spend(5 * MS, now_ns)
        assert now_ns < 5 * SECOND_NS
    assert now_ns > 3 * SECOND_NS
    assert "for 2 s on end it asked for more than a fifth of the host's time" in conduct.fault


def test_bursts_with_time_between_are_no_reason_to_be_cut_off() -> None:
    conduct = Conduct(WorkerSettings(busy_ns=SECOND_NS))
    now_ns = SECOND_NS
    for _ in range(100):
        for _ in range(10):
            now_ns += 5 * MS
            now_ns += conduct.spend(5 * MS, now_ns)
        now_ns += SECOND_NS
    assert conduct.fault == ""


def test_one_long_message_that_breaks_the_rules_is_enough() -> None:
    conduct = Conduct(WorkerSettings())
    conduct.strike("it is none", 0, MOST_LONG_BYTES)
    assert conduct.fault == ""
    conduct.strike("it is none", 0, MOST_LONG_BYTES + 1)
    assert f"a message of {MOST_LONG_BYTES + 1} bytes broke the protocol: it is none" in conduct.fault
    assert conduct.refused == 2
